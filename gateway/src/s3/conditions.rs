//! What the endpoint honours: conditions on writes, and copies of parts. Not all of S3's relatives do, and
//! some ignore a condition and replace whatever is there, with a friendly 200.
//!
//! Here is what is known, and how it may change; `probe` and the calls find it out. A store that honours
//! `If-Match` on PutObject honours `If-None-Match` there and both on CompleteMultipartUpload. The conditions on
//! a copy's target and on DELETE are honoured by AWS and ignored by others, and trying them could destroy
//! something; at custom endpoints they are never relied upon.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use ackfs_cache::store::Condition;
use parking_lot::RwLock;
use tracing::warn;

/// Whether the endpoint honours something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Honoured {
    /// It does.
    Yes,
    /// It ignores or refuses it: ackfs looks first and writes then, and somebody else's write in
    /// between is lost.
    No,
    /// It was not tried: the mount is read-only or may not write. The condition is sent.
    Unknown,
}

impl fmt::Display for Honoured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Honoured::Yes => "yes",
            Honoured::No => "no",
            Honoured::Unknown => "unknown",
        })
    }
}

/// Which conditions the endpoint honours on which requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConditionalSupport {
    /// `If-None-Match: *` on PutObject.
    pub put_if_absent: Honoured,
    /// `If-Match` on PutObject.
    pub put_if_match: Honoured,
    /// Both on CompleteMultipartUpload.
    pub multipart: Honoured,
    /// Both on CopyObject's target. Anything but `Yes` means HEAD first.
    pub copy_target: Honoured,
    /// `If-Match` on DeleteObject. Anything but `Yes` means HEAD first.
    pub delete: Honoured,
}

impl ConditionalSupport {
    /// Before anything was tried. AWS's own endpoints honour them all.
    fn presumed(custom_endpoint: bool) -> Self {
        let (writes, others) = if custom_endpoint {
            (Honoured::Unknown, Honoured::No)
        } else {
            (Honoured::Yes, Honoured::Yes)
        };
        Self {
            put_if_absent: writes,
            put_if_match: writes,
            multipart: writes,
            copy_target: others,
            delete: others,
        }
    }

    pub(super) fn put(self, condition: &Condition) -> Honoured {
        match condition {
            Condition::None => Honoured::Yes,
            Condition::Absent => self.put_if_absent,
            Condition::Matches(_) => self.put_if_match,
        }
    }

    pub(super) fn complete(self, condition: &Condition) -> Honoured {
        match condition {
            Condition::None => Honoured::Yes,
            Condition::Absent | Condition::Matches(_) => self.multipart,
        }
    }

    /// On a copy's target, where nothing but a yes is relied upon.
    pub(super) fn copy(self, condition: &Condition) -> Honoured {
        match (condition, self.copy_target) {
            (Condition::None, _) | (_, Honoured::Yes) => Honoured::Yes,
            _ => Honoured::No,
        }
    }

    /// Whether close-to-open writes are safe against other writers.
    pub fn writes(self) -> Honoured {
        let all = [self.put_if_absent, self.put_if_match, self.multipart];
        if all.contains(&Honoured::No) {
            Honoured::No
        } else if all.contains(&Honoured::Unknown) {
            Honoured::Unknown
        } else {
            Honoured::Yes
        }
    }
}

/// What is known about conditions by now. Its lock is a leaf.
#[derive(Debug)]
pub(super) struct Conditions(RwLock<ConditionalSupport>);

impl Conditions {
    /// Before anything was tried.
    pub(super) fn presumed(custom_endpoint: bool) -> Self {
        Self(RwLock::new(ConditionalSupport::presumed(custom_endpoint)))
    }

    /// What is known. Never waits.
    pub(super) fn support(&self) -> ConditionalSupport {
        *self.0.read()
    }

    /// A probe found out about `If-None-Match` and `If-Match` on PutObject.
    pub(super) fn found(&self, absent: Honoured, matches: Honoured) {
        let mut support = self.0.write();
        support.put_if_absent = absent;
        support.put_if_match = matches;
        support.multipart = matches;
        if matches != Honoured::Yes {
            support.copy_target = Honoured::No;
            support.delete = Honoured::No;
            warn_unsupported();
        }
    }

    /// A write was refused for its condition. Gives whether that is news worth a second try.
    pub(super) fn refused(&self) -> bool {
        let mut support = self.0.write();
        if support.writes() == Honoured::No {
            return false;
        }
        support.put_if_absent = Honoured::No;
        support.put_if_match = Honoured::No;
        support.multipart = Honoured::No;
        warn_unsupported();
        true
    }

    /// For tests of endpoints that honour conditional deletes.
    #[cfg(test)]
    pub(super) fn delete_is_honoured(&self) {
        self.0.write().delete = Honoured::Yes;
    }
}

fn warn_unsupported() {
    warn!(
        "this endpoint does not honour conditional writes: ackfs looks before it writes, but a \
         write of somebody else between the look and the write is lost without notice"
    );
}

/// Whether the endpoint copies parts, as far as is known.
#[derive(Debug, Default)]
pub(super) struct PartCopies(AtomicU8);

impl PartCopies {
    const UNKNOWN: u8 = 0;
    const SOUND: u8 = 1;
    const REFUSED: u8 = 2;

    /// What is known. Never waits.
    pub(super) fn support(&self) -> Honoured {
        match self.0.load(Relaxed) {
            Self::SOUND => Honoured::Yes,
            Self::REFUSED => Honoured::No,
            _ => Honoured::Unknown,
        }
    }

    /// A part was copied as it should be.
    pub(super) fn proved(&self) {
        let _refused_before = self
            .0
            .compare_exchange(Self::UNKNOWN, Self::SOUND, Relaxed, Relaxed);
    }

    /// The endpoint does not copy parts. Whoever wants to copy one is told, and tells the log.
    pub(super) fn refused(&self) {
        self.0.store(Self::REFUSED, Relaxed);
    }
}
