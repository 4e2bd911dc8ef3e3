//! What changes about an inode, and the transitions by which it does. Everything here is decided under the
//! inode's lock, from what is passed in, and waits for nothing; what changes the table with it (a name, what
//! readdir has to show, an inode's end) is the table's, and begins there.
//!
//! Three parts have their own files and invariants: what is [shown](Shown), what is being
//! [written](Written), what the kernel was [told](Told). Where the inode is and whether its name leads to
//! it are [`Location`]'s and [`Life`]'s.

use std::sync::Arc;

use ackfs_cache::dirty::DirtyFile;
use ackfs_cache::object::{Key, ObjectId};
use ackfs_cache::store::Metadata;

use self::shown::Shown;
use self::told::Told;
use self::written::Written;
use super::Inode;
use super::location::Location;
use crate::fs::attr::{FileAttr, Kind};
use crate::fs::table::life::Life;

pub(in crate::fs) mod shown;
pub(in crate::fs) mod told;
pub(in crate::fs) mod written;

/// See the module.
#[derive(Debug)]
pub(in crate::fs) struct InodeState {
    location: Location,
    life: Life,
    shown: Shown,
    written: Written,
    told: Told,
    /// Open handles.
    handles: u32,
    /// Inodes that need this one: those in it, and the one that it succeeds.
    dependents: u32,
    /// Who has the name now, if that is another inode of the same file.
    successor: Option<Arc<Inode>>,
}

impl InodeState {
    /// A new inode's; `dirty` is what is to be published of it if it is new here.
    pub(in crate::fs::table) fn new(
        location: Location,
        shown: Shown,
        dirty: Option<Arc<DirtyFile>>,
    ) -> Self {
        let mut state = Self {
            location,
            life: Life::BEGIN,
            shown,
            written: Written::default(),
            told: Told::default(),
            handles: 0,
            dependents: 0,
            successor: None,
        };
        if let Some(dirty) = dirty {
            state.begin_writing(dirty);
        }
        state
    }

    /// What [`InodeTable::succeed`](crate::fs::table::InodeTable::succeed) gives the same file.
    pub(in crate::fs::table) fn succeeding(&self, location: Location) -> Self {
        Self::new(location, self.shown.clone(), None)
    }

    /// Called whenever the state is locked.
    pub(in crate::fs::table) fn refresh(&mut self) {
        self.location.refresh();
    }

    /// Called before and after every transition.
    pub(in crate::fs::table) fn assert_invariants(&self, kind: Kind) {
        self.shown.assert_invariants(kind);
        self.written.assert_invariants(kind);
        self.told.assert_invariants(self.handles);
        debug_assert!(
            kind == Kind::Directory
                || !self.life.has_name()
                || self.shown.version().is_some()
                || self.written.dirty().is_some(),
            "a name leads to a file that is neither in the store nor here"
        );
        debug_assert!(
            self.told.backing().is_none() || self.written.dirty().is_none(),
            "the kernel reads by itself what is being written"
        );
    }
}

/// What is known of the inode.
impl InodeState {
    /// Where in its life it is.
    pub(in crate::fs) fn life(&self) -> Life {
        self.life
    }

    /// What it shows.
    pub(in crate::fs) fn shown(&self) -> &Shown {
        &self.shown
    }

    /// What is being written to it.
    pub(in crate::fs) fn written(&self) -> &Written {
        &self.written
    }

    /// What the kernel was told of it.
    pub(in crate::fs) fn told(&self) -> &Told {
        &self.told
    }

    /// How many handles are open.
    pub(in crate::fs) fn handles(&self) -> u32 {
        self.handles
    }

    /// A file's key; a directory's prefix.
    pub(in crate::fs) fn key(&self) -> &Arc<str> {
        self.location.key()
    }

    /// The number of the directory that it is in.
    pub(in crate::fs) fn parent(&self) -> u64 {
        self.location.parent()
    }

    /// Its name there.
    pub(in crate::fs) fn name(&self) -> &Arc<str> {
        self.location.name()
    }

    pub(in crate::fs::table) fn location(&self) -> &Location {
        &self.location
    }

    /// The version shown, by name.
    pub(in crate::fs) fn object(&self) -> Option<ObjectId> {
        let etag = self.shown.version().cloned()?;
        Some(ObjectId::new(Key::new(self.key().clone()), etag))
    }

    /// What stat(2) shows: with the size of what was written.
    pub(in crate::fs) fn attr(&self) -> FileAttr {
        let mut attr = self.shown.attr();
        if let Some(dirty) = self.written.dirty() {
            attr.size = dirty.size();
        }
        attr
    }

    /// Whether this mount knows better than the store what the file holds, or that the directory is there.
    pub(in crate::fs) fn is_local(&self) -> bool {
        self.written.dirty().is_some() || self.life.is_emptied()
    }

    /// Whether it is an emptied directory: somebody may have put an object of its name since.
    pub(in crate::fs) fn is_emptied(&self) -> bool {
        self.life.is_emptied()
    }

    /// Whether the name is taken by what the store need not know yet.
    pub(in crate::fs) fn takes_name(&self) -> bool {
        self.is_local() && !self.life.is_gone()
    }

    /// Whether there is something to publish.
    pub(in crate::fs) fn is_dirty(&self) -> bool {
        self.written.dirty().is_some_and(|dirty| dirty.is_dirty())
    }

    /// Whether the store knows the file as well as this mount does: an open asks it, since somebody
    /// else may have replaced what was published here.
    pub(in crate::fs) fn is_the_stores(&self) -> bool {
        let is_held = self.life.is_ending() || self.shown.version().is_none();
        !self.is_local() || !(self.life.is_emptied() || is_held || self.is_dirty())
    }

    /// Whether somebody has the file open who reads it by way of us.
    pub(in crate::fs) fn has_readers_here(&self) -> bool {
        let has_bytes = self.written.dirty().is_some() || self.shown.version().is_some();
        self.handles > 0 && self.told.backing().is_none() && has_bytes
    }

    /// The metadata to publish.
    pub(in crate::fs) fn metadata_to_publish(&self) -> Metadata {
        let foreign = self.shown.metadata().cloned().unwrap_or_default();
        let attr = self.shown.attr();
        attr.to_metadata(&foreign, self.written.mtime_set())
    }

    /// Whether nothing needs the inode any more.
    pub(in crate::fs::table) fn is_idle(&self) -> bool {
        let is_held = self.told.lookups() > 0 || self.handles > 0 || self.dependents > 0;
        !is_held && self.written.dirty().is_none()
    }

    /// Whether the kernel may as well forget it, and we with it: nobody has it open or wanted it since this
    /// was last asked, and all that is known of it here can be asked for again.
    pub(in crate::fs::table) fn may_be_forgotten(&mut self) -> bool {
        let busy = self.handles > 0 || self.written.has_writers() || self.successor.is_some();
        let gone = self.told.lookups() == 0 || self.life.is_ending();
        // So is a failure that nobody was told of.
        let local = self.is_local() || self.written.cause().is_some();
        !busy && !gone && !local && !self.told.take_used()
    }
}

/// What the table changes with itself.
impl InodeState {
    pub(in crate::fs::table) fn life_mut(&mut self) -> &mut Life {
        &mut self.life
    }

    /// Goes to another place. Gives the directory that it was in.
    pub(in crate::fs::table) fn go(
        &mut self,
        dir: Arc<Inode>,
        name: Arc<str>,
    ) -> Option<Arc<Inode>> {
        self.location.go(dir, name)
    }

    /// Another inode needs this one.
    pub(in crate::fs::table) fn hold(&mut self) {
        self.dependents += 1;
    }

    /// It does not any more.
    pub(in crate::fs::table) fn let_go(&mut self) {
        self.dependents -= 1;
    }

    pub(in crate::fs::table) fn set_successor(&mut self, successor: Arc<Inode>) {
        debug_assert!(self.successor.is_none(), "two inodes succeed one");
        self.successor = Some(successor);
    }

    /// The inode is at its end. Gives those that it held.
    pub(in crate::fs::table) fn end(&mut self) -> impl Iterator<Item = Arc<Inode>> + use<> {
        let dir = self.location.dir().cloned();
        self.successor.take().into_iter().chain(dir)
    }
}
