//! What an inode shows: one version of one object, and when the store was asked for it.
//!
//! All of it changes together, in [`InodeState::show`]: a size never stands beside another version's ETag.
//! Attributes alone change by what is done here and not published yet.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use ackfs_cache::object::ETag;
use ackfs_cache::store::Metadata;

use super::InodeState;
use super::told::Access;
use crate::fs::attr::{FileAttr, Kind};

/// See the module.
#[derive(Debug, Clone)]
pub(in crate::fs) struct Shown {
    pub(super) attr: FileAttr,
    version: Option<ETag>,
    pub(super) metadata: Option<Arc<Metadata>>,
    checked: Instant,
}

/// What the bytes of a version are to those of the version that was shown before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fs) enum Lineage {
    /// They are others, or nobody knows.
    OtherBytes,
    /// They are the same, or the same with what was written here over them, which went by way of the
    /// kernel's pages: those that it has of the old version are right for this one.
    SameBytes,
}

impl Shown {
    /// A version of an object; `version` is `None` for a directory and for a file that was never
    /// published. `metadata` if a HEAD has shown them, or if this mount gave them. `checked` is when the
    /// store was asked: the request's begin, not its end.
    pub(in crate::fs) fn new(
        attr: FileAttr,
        version: Option<ETag>,
        metadata: Option<Arc<Metadata>>,
        checked: Instant,
    ) -> Self {
        Self {
            attr,
            version,
            metadata,
            checked,
        }
    }

    /// The version's attributes, with what was changed here since. The size is the version's: see
    /// [`InodeState::attr`].
    pub(in crate::fs) fn attr(&self) -> FileAttr {
        self.attr
    }

    /// Whether it is a directory.
    pub(in crate::fs) fn is_directory(&self) -> bool {
        self.attr.kind == Kind::Directory
    }

    /// The version; `None` for a directory and for a file that was never published.
    pub(in crate::fs) fn version(&self) -> Option<&ETag> {
        self.version.as_ref()
    }

    /// The object's metadata, if they are known: a listing does not show them.
    pub(in crate::fs) fn metadata(&self) -> Option<&Arc<Metadata>> {
        self.metadata.as_ref()
    }

    /// When the store was asked for what is shown.
    pub(in crate::fs) fn checked(&self) -> Instant {
        self.checked
    }

    /// A directory's mode and owner are those of `marker`. Its times are not: they are those of its names.
    fn take_access(&mut self, marker: &Shown) {
        let access = marker.attr.access();
        (self.attr.mode, self.attr.uid, self.attr.gid) = access;
        self.metadata.clone_from(&marker.metadata);
        self.checked = self.checked.max(marker.checked);
    }

    pub(super) fn assert_invariants(&self, kind: Kind) {
        debug_assert_eq!(self.attr.kind, kind, "an inode never changes its type");
        debug_assert!(
            kind != Kind::Directory || self.version.is_none(),
            "a directory has no version"
        );
    }
}

impl InodeState {
    /// The file shows another version, or the same one known better. Whatever brings one ends here. It is
    /// no older than is known already.
    pub(in crate::fs) fn show(&mut self, version: Shown, lineage: Lineage) {
        // Of a file that was never published the kernel has what was written.
        if lineage == Lineage::SameBytes && self.told.pages == self.shown.version {
            self.told.pages.clone_from(&version.version);
        }
        if lineage == Lineage::OtherBytes && version.version != self.shown.version {
            self.told.is_size_old = true;
        }
        let checked = self.shown.checked.max(version.checked);
        self.shown = Shown { checked, ..version };
    }

    /// The store was asked what the name is, and this inode answers for it if it can: then it shows what
    /// was found, unless that is older than what it shows. False if another inode has to. `found` is of
    /// the same sort as this, a directory or none. It `is_fresh` if the metadata in it were asked for with
    /// it, and are not remembered ones.
    pub(in crate::fs::table) fn accept(&mut self, found: &Shown, is_fresh: bool) -> bool {
        if self.life.is_gone() {
            return false;
        }
        let is_newer = found.checked >= self.shown.checked;
        if self.shown.is_directory() {
            if found.metadata.is_some() && is_newer {
                self.shown.take_access(found);
            }
            return true;
        }
        if self.is_local() {
            return true;
        }
        let is_alike = self.shown.attr.kind == found.attr.kind;
        if self.shown.version == found.version {
            // The bytes are the same; its age changes, and what the store says beside them may have.
            // Its type is known with its metadata, and the kernel takes no other for one inode.
            if found.metadata.is_some() && !is_alike {
                return false;
            }
            let says_more = self.shown.metadata.is_none() && found.metadata.is_some();
            if (is_fresh && is_newer) || says_more {
                self.show(found.clone(), Lineage::SameBytes);
            } else {
                self.confirm(found.checked);
            }
            return true;
        }
        if !is_newer {
            return true;
        }
        if self.handles > 0 || !is_alike {
            return false;
        }
        self.show(found.clone(), Lineage::OtherBytes);
        true
    }

    /// A HEAD showed `found` under the file's key. False if this inode cannot show that: another type, or
    /// another version while the kernel holds the old one's size. It can move to another version if it
    /// `may_move`, nobody has it open, and nothing was written.
    pub(in crate::fs) fn revalidate(&mut self, found: Shown, may_move: bool) -> bool {
        let is_same = self.shown.version == found.version;
        let moves = may_move && self.handles == 0 && self.written.dirty().is_none();
        let is_alike = found.attr.kind == self.shown.attr.kind;
        if !is_alike || !(is_same || moves) {
            return false;
        }
        let is_newer = self.shown.checked <= found.checked;
        if !is_same || self.shown.metadata.is_none() || is_newer {
            self.show(found, Lineage::OtherBytes);
        }
        true
    }

    /// The store was asked at `when`, and what is shown is right.
    pub(in crate::fs) fn confirm(&mut self, when: Instant) {
        self.shown.checked = self.shown.checked.max(when);
    }

    /// Whether a directory's own mode and owner are shown: a listing does not have them. The root has none.
    pub(in crate::fs) fn has_shown_access(&self) -> bool {
        self.location.dir().is_none() || self.shown.metadata.is_some()
    }

    /// A directory's marker was asked for at `asked`, to learn its own mode and owner. False if those are
    /// others than the kernel goes by.
    pub(in crate::fs) fn show_access(&mut self, metadata: Arc<Metadata>, asked: Instant) -> bool {
        if self.shown.metadata.is_none() {
            let attr = self.shown.attr.with_access(&metadata);
            let marker = Shown::new(attr, None, Some(metadata), asked);
            self.shown.take_access(&marker);
        }
        self.access_told() == self.shown.attr.access()
    }

    /// Mode and owner by which the kernel lets callers in; if it was told none yet, those that it will be.
    pub(in crate::fs) fn access_told(&self) -> Access {
        let shown = self.shown.attr.access();
        self.told.access().unwrap_or(shown)
    }

    /// A name in the directory came or went.
    pub(in crate::fs) fn touch(&mut self, now: SystemTime) {
        self.shown.attr.modify(now);
    }

    /// Attributes are changed by hand; `mtime_set` if the time of the last modification is, now or before.
    pub(in crate::fs) fn set_attr(&mut self, attr: FileAttr, mtime_set: bool) {
        self.shown.attr = attr;
        self.written.mtime_set = mtime_set;
    }
}
