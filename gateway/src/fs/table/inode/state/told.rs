//! What the kernel was told of an inode, and holds it to: the attributes by which it decides who may do
//! what and how far it reads, the version whose bytes it may have in its page cache, the references that
//! it was given, the file that it reads by itself.
//!
//! What is told is not what is shown: what a HEAD shows meanwhile the kernel learns with the next reply
//! that carries it. So this advances where the reply is made, and nowhere else.

use std::sync::Arc;

use ackfs_cache::object::ETag;

use super::InodeState;
use crate::fs::attr::FileAttr;
use crate::fuse::mount::BackingId;

/// Mode, owner and group.
pub(in crate::fs) type Access = (u32, u32, u32);

/// See the module.
#[derive(Debug, Default)]
pub(in crate::fs) struct Told {
    /// The attributes of the last reply that carried some.
    attr: Option<FileAttr>,
    /// The version whose bytes, and what was written over them here, are all that the kernel may hold in
    /// its page cache. `None` if it may hold others, or nothing.
    pub(super) pages: Option<ETag>,
    /// References that the kernel holds or is about to be given.
    lookups: u64,
    /// Somebody wanted it again since the kernel was last to forget some: see `forgetting`.
    was_used: bool,
    /// Another version is shown than the last reply that carried attributes told of.
    pub(super) is_size_old: bool,
    /// The file that the kernel reads by itself while passthrough handles are open.
    backing: Option<Arc<BackingId>>,
}

impl Told {
    /// Mode and owner by which the kernel lets callers in; `None` if it was told none yet.
    pub(super) fn access(&self) -> Option<Access> {
        self.attr.map(|attr| attr.access())
    }

    /// The file that the kernel reads by itself.
    pub(in crate::fs) fn backing(&self) -> Option<&Arc<BackingId>> {
        self.backing.as_ref()
    }

    /// References that the kernel holds or is about to be given.
    pub(super) fn lookups(&self) -> u64 {
        self.lookups
    }

    /// Whether somebody wanted the inode again since this was last called.
    pub(super) fn take_used(&mut self) -> bool {
        std::mem::take(&mut self.was_used)
    }

    pub(super) fn assert_invariants(&self, handles: u32) {
        debug_assert!(
            self.backing.is_none() || handles > 0,
            "the kernel reads by itself what nobody has open"
        );
    }
}

impl InodeState {
    /// A reply that carries these attributes is made.
    pub(in crate::fs::table) fn tell(&mut self, attr: FileAttr) {
        self.told.is_size_old &= attr.size != self.attr().size;
        self.told.attr = Some(attr);
    }

    /// A look-up takes one reference for the kernel.
    pub(in crate::fs::table) fn refer(&mut self) {
        self.told.was_used = self.told.lookups > 0;
        self.told.lookups += 1;
    }

    /// The kernel gave references back, or did not get them. Of more than it has it gives back all.
    pub(in crate::fs::table) fn forget(&mut self, count: u64) {
        self.told.lookups = self.told.lookups.saturating_sub(count);
    }

    /// Whether the kernel was told the size that is shown: an answer to OPEN tells none, and what is written
    /// it knows by itself.
    pub(in crate::fs) fn is_size_told(&self) -> bool {
        self.is_local() || !self.told.is_size_old
    }

    /// Whether the answer to an OPEN lets the kernel keep the pages that it has: they are of the version that
    /// it opens, or others have the file open and what they wrote went through them.
    pub(in crate::fs) fn keeps_pages(&self) -> bool {
        let version = self.shown.version();
        let are_right = version.is_some() && self.told.pages.as_ref() == version;
        are_right || (self.is_local() && self.handles > 0)
    }

    /// The kernel has dropped the pages that it had before `version` was opened.
    pub(in crate::fs::table) fn pages_are_fresh(&mut self, version: &ETag) {
        if self.shown.version() == Some(version) {
            self.told.pages = Some(version.clone());
        }
    }

    /// The kernel reads `file` by itself from now on, until the last handle is closed.
    pub(in crate::fs) fn pass_through(&mut self, file: Arc<BackingId>) {
        debug_assert!(
            self.told.backing.is_none(),
            "all opens share one backing file"
        );
        self.told.backing = Some(file);
    }

    /// A handle is opened, whose closes publish or do not.
    pub(in crate::fs) fn open_handle(&mut self, publishes: bool) {
        self.handles += 1;
        if publishes {
            self.written.join();
        }
    }

    /// A handle is closed. Whether it was the last that publishes; and the file that the kernel read by
    /// itself, if nobody has it open any more.
    pub(in crate::fs) fn close_handle(
        &mut self,
        publishes: bool,
    ) -> (bool, Option<Arc<BackingId>>) {
        self.handles -= 1;
        let is_last_writer = publishes && self.written.part();
        let backing = match self.handles {
            0 => self.told.backing.take(),
            _ => None,
        };
        (is_last_writer, backing)
    }
}
