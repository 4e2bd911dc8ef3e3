//! The life of an inode: whether its name leads to it, and what may be done with it meanwhile.
//!
//! ```text
//!            begin                  leave (unlink, rename over it)
//!              |           +---------------------------------------+
//!              v           |                                       v
//!            Named --------+        stay (the store refused)    Leaving
//!              |  ^ <----------------------------------------------+ |
//!   lose_name  |  | take_name                                        | end
//!              v  |                  end (rmdir)                     v
//!           Detached ----------------------------------------------> Gone
//! ```
//! A name is lost when it leads to another inode: of another version, of another type, or to a successor
//! of the same file. Gone is what this mount removed; nothing leads back from there.
//!
//! | who may | Named | Leaving | Detached | Gone |
//! |---|---|---|---|---|
//! | find it by its name | yes | yes | no | no |
//! | read and write it by a handle | yes | yes | yes | yes, here alone |
//! | open it | yes | waits for the end, then looks again | only who was shown just this version, to read | no |
//! | publish it | yes | waits for the end | yes, over the version that it pins | no |
//! | ask the store for its version | yes | if nothing was written | yes | if nothing was written |
//! | enter what is published under its name | yes | nothing is published | no | no |
//! | be forgotten when there are too many | yes | no | yes | no: it goes by itself |
//!
//! To leave, to stay and to end are decided under the inode's `publishing`, which those who wait wait for.

/// Where in its life an inode is. See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fs) enum Life {
    /// The name leads to it.
    Named {
        /// A directory that this mount took a name out of. It stays though the store may hold nothing of
        /// it any more, until rmdir, or until the kernel forgets it.
        emptied: bool,
    },
    /// Its object is about to go: see `ops::orphan`.
    Leaving {
        /// The name still leads to it.
        named: bool,
    },
    /// The name leads to another inode, or nowhere. Who has it open keeps it.
    Detached,
    /// This mount removed it. Nothing is published any more; who has it open keeps its bytes.
    Gone,
}

impl Life {
    /// A new inode's.
    pub(super) const BEGIN: Self = Self::Named { emptied: false };

    /// Its name leads to it.
    pub(in crate::fs) fn has_name(self) -> bool {
        matches!(self, Self::Named { .. } | Self::Leaving { named: true })
    }

    /// Its object is about to go.
    pub(in crate::fs) fn is_leaving(self) -> bool {
        matches!(self, Self::Leaving { .. })
    }

    /// This mount removed it.
    pub(in crate::fs) fn is_gone(self) -> bool {
        self == Self::Gone
    }

    /// The file's bytes belong to those who have it open, and to nobody else any more or perhaps soon.
    pub(in crate::fs) fn is_ending(self) -> bool {
        self.is_leaving() || self.is_gone()
    }

    /// A directory that this mount took a name out of.
    pub(super) fn is_emptied(self) -> bool {
        self == Self::Named { emptied: true }
    }

    /// A name was taken out of it by this mount.
    pub(super) fn empty(&mut self) {
        if let Self::Named { emptied } = self {
            *emptied = true;
        }
    }

    /// The name leads elsewhere.
    pub(super) fn lose_name(&mut self) {
        *self = match *self {
            Self::Named { .. } | Self::Detached => Self::Detached,
            Self::Leaving { .. } => Self::Leaving { named: false },
            Self::Gone => Self::Gone,
        };
    }

    /// A name leads to it: another one, or the same again.
    pub(super) fn take_name(&mut self) {
        debug_assert!(!self.is_ending(), "{self:?} gets no name");
        if *self == Self::Detached {
            *self = Self::BEGIN;
        }
    }

    /// The store is about to be asked to remove its object.
    pub(super) fn leave(&mut self) {
        debug_assert!(!self.is_ending(), "{self:?} cannot leave");
        *self = Self::Leaving {
            named: self.has_name(),
        };
    }

    /// The store refused, and the object is still there.
    pub(super) fn stay(&mut self) {
        debug_assert!(self.is_leaving(), "{self:?} was not about to go");
        *self = if self.has_name() {
            Self::BEGIN
        } else {
            Self::Detached
        };
    }

    /// The store has removed it.
    pub(super) fn end(&mut self) {
        *self = Self::Gone;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTIED: Life = Life::Named { emptied: true };
    const LEAVING: Life = Life::Leaving { named: true };
    const LEAVING_DETACHED: Life = Life::Leaving { named: false };

    fn after(mut life: Life, change: impl Fn(&mut Life)) -> Life {
        change(&mut life);
        life
    }

    /// The drawing at the top of the file.
    #[test]
    fn every_transition_leads_where_the_drawing_says() {
        for (from, to) in [
            (Life::BEGIN, Life::Detached),
            (EMPTIED, Life::Detached),
            (LEAVING, LEAVING_DETACHED),
            (LEAVING_DETACHED, LEAVING_DETACHED),
            (Life::Detached, Life::Detached),
            (Life::Gone, Life::Gone),
        ] {
            assert_eq!(after(from, Life::lose_name), to);
            assert!(!to.has_name());
        }
        assert_eq!(after(Life::Detached, Life::take_name), Life::BEGIN);
        assert_eq!(after(EMPTIED, Life::take_name), EMPTIED);
        assert_eq!(after(Life::BEGIN, Life::leave), LEAVING);
        assert_eq!(after(Life::Detached, Life::leave), LEAVING_DETACHED);
        assert_eq!(after(LEAVING, Life::stay), Life::BEGIN);
        assert_eq!(after(LEAVING_DETACHED, Life::stay), Life::Detached);
        for from in [EMPTIED, LEAVING, LEAVING_DETACHED, Life::Detached] {
            assert_eq!(after(from, Life::end), Life::Gone);
        }
    }

    #[test]
    fn only_what_has_its_name_is_an_emptied_directory() {
        assert_eq!(after(Life::BEGIN, Life::empty), EMPTIED);
        for other in [LEAVING, LEAVING_DETACHED, Life::Detached, Life::Gone] {
            assert_eq!(after(other, Life::empty), other);
        }
    }
}
