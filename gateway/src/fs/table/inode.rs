//! Inodes: our record of each file and directory, alive while the kernel holds look-ups, a handle
//! is open, or bytes are still to be published.
//!
//! An inode shows one version of one object at a time. When a foreign client replaces the object
//! and nobody has the file open, the inode moves to the new version. When somebody has it open, the
//! inode keeps the version that they opened and is *detached* from its name: the next look-up makes
//! a new inode. So the kernel's page cache, which is per inode, never mixes bytes of two versions.
//!
//! Numbers are never used twice, so the kernel's generation stays 0.
//!
//! One file may have two inodes for a while: readers that the kernel serves from the cache file by
//! itself keep theirs when somebody writes, and everybody else gets its *successor*
//! ([`InodeTable::succeed`](super::InodeTable::succeed)). Both show the same `st_ino`, for it is the same
//! file.
//!
//! Lock order: the table, then one inode's state, then those of the directories above it. None is held
//! across an await.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use self::state::InodeState;
use crate::fs::attr::Kind;
use crate::fuse::abi::{Attr, EntryOut};

pub(super) mod location;
pub(in crate::fs) mod state;

/// The root's number (FUSE_ROOT_ID).
pub(in crate::fs) const ROOT: u64 = 1;

/// One file or directory.
#[derive(Debug)]
pub(in crate::fs) struct Inode {
    ino: u64,
    shown_ino: u64,
    kind: Kind,
    state: Mutex<InodeState>,
    publishing: tokio::sync::Mutex<()>,
}

impl Inode {
    pub(super) fn new(ino: u64, kind: Kind, state: InodeState) -> Self {
        Self {
            ino,
            shown_ino: ino,
            kind,
            state: Mutex::new(state),
            publishing: tokio::sync::Mutex::new(()),
        }
    }

    /// The same file as `old`, under another number.
    pub(super) fn succeeding(ino: u64, old: &Inode, state: InodeState) -> Self {
        Self {
            shown_ino: old.shown_ino,
            ..Self::new(ino, old.kind, state)
        }
    }

    /// Its number.
    pub(in crate::fs) fn ino(&self) -> u64 {
        self.ino
    }

    /// The number that stat(2) shows: its own, or that of the first inode that this one is a successor of.
    pub(in crate::fs) fn shown_ino(&self) -> u64 {
        self.shown_ino
    }

    /// Whether it came of a write beside passthrough: it is not passed through again, so that its
    /// readers see what is written from then on.
    pub(in crate::fs) fn is_successor(&self) -> bool {
        self.shown_ino != self.ino
    }

    /// What it is; that never changes.
    pub(in crate::fs) fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether it is a directory.
    pub(in crate::fs) fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
    }

    /// Whether it is the mount's root.
    pub(in crate::fs) fn is_root(&self) -> bool {
        self.ino == ROOT
    }

    /// The rest of it, locked.
    pub(in crate::fs) fn state(&self) -> StateGuard<'_> {
        let mut state = self.state.lock();
        state.refresh();
        if cfg!(debug_assertions) {
            state.assert_invariants(self.kind);
        }
        StateGuard { inode: self, state }
    }

    /// A file's key; a directory's prefix.
    pub(in crate::fs) fn key(&self) -> Arc<str> {
        self.state().key().clone()
    }

    /// Held while its version at the store is being changed or asked for by an open, so that two
    /// opens or an open and a publish do not cross. Taken before any lock of the table.
    pub(in crate::fs) fn publishing(&self) -> &tokio::sync::Mutex<()> {
        &self.publishing
    }
}

/// An inode's state, locked. In debug builds its invariants are looked at when it is locked and when it is
/// let go: before and after every transition.
#[derive(Debug)]
pub(in crate::fs) struct StateGuard<'a> {
    inode: &'a Inode,
    state: MutexGuard<'a, InodeState>,
}

impl StateGuard<'_> {
    /// What stat(2) shows, as a reply to GETATTR or SETATTR tells it.
    pub(in crate::fs) fn tell_attr(&mut self) -> Attr {
        let attr = self.state.attr();
        self.state.tell(attr);
        self.wire_attr()
    }

    /// An answer to LOOKUP, believed for `valid`, as a reply tells it.
    pub(super) fn tell_entry(&mut self, valid: Duration) -> EntryOut {
        let attr = self.state.attr();
        self.state.tell(attr);
        self.entry(valid)
    }

    /// What [`StateGuard::tell_entry`] would tell.
    pub(super) fn entry(&self, valid: Duration) -> EntryOut {
        let mut entry = self.state.attr().to_entry(self.inode.ino, valid);
        entry.attr = self.wire_attr();
        entry
    }

    fn wire_attr(&self) -> Attr {
        let mut attr = self.state.attr().to_wire(self.inode.shown_ino);
        if self.state.life().is_gone() {
            attr.nlink = 0;
        }
        attr
    }
}

impl Deref for StateGuard<'_> {
    type Target = InodeState;

    fn deref(&self) -> &InodeState {
        &self.state
    }
}

impl DerefMut for StateGuard<'_> {
    fn deref_mut(&mut self) -> &mut InodeState {
        &mut self.state
    }
}

impl Drop for StateGuard<'_> {
    fn drop(&mut self) {
        if cfg!(debug_assertions) && !std::thread::panicking() {
            self.state.assert_invariants(self.inode.kind);
        }
    }
}
