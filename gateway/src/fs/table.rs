//! What the kernel holds: the inodes that it was told of, the names that lead to them, the handles that
//! it opened. Nothing here asks the store or waits.
//!
//! ```text
//! inode        a number, a type, and the state behind a lock
//!   location   the directory that it is in, its name there, the key that follows
//!   life       whether the name leads to it, and who may do what meanwhile
//!   state      what it shows, what is written to it, what the kernel was told; the transitions
//! references   what the kernel gets by an entry and gives back by FORGET
//! dentries     names to inodes
//! forgetting   which inodes the kernel is asked to give back
//! handles      one for each open(2)
//! ```
//! What changes an inode alone is a transition of its [`state`](inode::state::InodeState). What changes the table
//! with it, a name, what readdir has to show, the end of an inode, is done here, under the table's lock.

use std::sync::Arc;
use std::time::Instant;

use ackfs_cache::dirty::DirtyFile;
use parking_lot::Mutex;

use self::inode::location::{DirectoryMoves, Location};
use self::inode::state::InodeState;
use self::inode::state::shown::Shown;
use self::inode::state::written::GivenUp;
use self::inode::{Inode, ROOT};
use self::records::Records;
use self::references::Reference;
use super::attr::FileAttr;

mod dentries;
mod forgetting;
mod records;
#[cfg(test)]
mod tests;

pub(in crate::fs) mod handles;
pub(in crate::fs) mod inode;
pub(in crate::fs) mod life;
pub(in crate::fs) mod references;

/// All inodes and the names that lead to them.
#[derive(Debug)]
pub(in crate::fs) struct InodeTable {
    records: Mutex<Records>,
    moves: Arc<DirectoryMoves>,
}

/// What a new inode begins with.
#[derive(Debug)]
pub(in crate::fs) struct NewInode {
    /// The directory that it is in.
    pub(in crate::fs) dir: Arc<Inode>,
    /// Its name there.
    pub(in crate::fs) name: Arc<str>,
    /// What it shows; its type is in the attributes.
    pub(in crate::fs) shown: Shown,
    /// What is to be published of it, if it is new here.
    pub(in crate::fs) dirty: Option<Arc<DirtyFile>>,
}

/// How a file leaves whose object is about to go.
#[derive(Debug)]
pub(in crate::fs) enum Departure {
    /// From now on everybody finds its bytes there.
    With(Arc<DirtyFile>),
    /// They find them already, or nobody reads.
    AsItIs,
    /// Not now.
    Refused,
}

impl InodeTable {
    /// A table that holds only the root, which the kernel never forgets.
    pub(in crate::fs) fn new(prefix: &str, attr: FileAttr, now: Instant) -> Arc<Self> {
        let moves: Arc<DirectoryMoves> = Arc::default();
        let location = Location::root(prefix, moves.clone());
        let shown = Shown::new(attr, None, None, now);
        let state = InodeState::new(location, shown, None);
        let root = Inode::new(ROOT, attr.kind, state);
        root.state().refer();
        Arc::new(Self {
            records: Mutex::new(Records::new(root)),
            moves,
        })
    }

    /// The inode of that number.
    pub(in crate::fs) fn get(&self, ino: u64) -> Option<Arc<Inode>> {
        self.records.lock().inodes.get(&ino).cloned()
    }

    /// The inode that a name leads to.
    pub(in crate::fs) fn child(&self, parent: u64, name: &str) -> Option<Arc<Inode>> {
        self.records.lock().dentries.get(parent, name).cloned()
    }

    /// A reference to the inode that stands for `new`, which the store was asked for: the one that the name
    /// leads to if it can show that, else a new one that takes the name over. A directory never stands for
    /// what is none, nor the other way. See [`InodeState::accept`] for `is_fresh`.
    pub(in crate::fs) fn find(self: &Arc<Self>, new: NewInode, is_fresh: bool) -> Reference {
        let mut records = self.records.lock();
        let old = records.dentries.get(new.dir.ino(), &new.name).cloned();
        if let Some(old) = old {
            let is_alike = old.is_directory() == new.shown.is_directory();
            let mut state = old.state();
            if is_alike && state.accept(&new.shown, is_fresh) {
                state.refer();
                drop(state);
                return Reference::new(old, self.clone());
            }
            records.lose_name(&mut state);
        }
        let inode = records.insert(new, &self.moves);
        Reference::new(inode, self.clone())
    }

    /// A reference to a new inode that takes the name over.
    pub(in crate::fs) fn insert(self: &Arc<Self>, new: NewInode) -> Reference {
        let mut records = self.records.lock();
        let old = records.dentries.get(new.dir.ino(), &new.name).cloned();
        if let Some(old) = old {
            records.lose_name(&mut old.state());
        }
        let inode = records.insert(new, &self.moves);
        Reference::new(inode, self.clone())
    }

    /// A reference to an inode that the kernel may have forgotten since it was found: `None` then.
    pub(in crate::fs) fn refer(self: &Arc<Self>, inode: &Arc<Inode>) -> Option<Reference> {
        let records = self.records.lock();
        if !records.inodes.contains_key(&inode.ino()) {
            return None;
        }
        inode.state().refer();
        Some(Reference::new(inode.clone(), self.clone()))
    }

    /// The kernel gives `count` references back; the inode goes when nothing needs it.
    pub(in crate::fs) fn forget(&self, ino: u64, count: u64) {
        let mut records = self.records.lock();
        let Some(inode) = records.inodes.get(&ino).cloned() else {
            return;
        };
        inode.state().forget(count);
        records.collect(&inode);
    }

    /// Inodes that the kernel may be asked to forget, if there are more than `wanted`: some of those that
    /// nobody wanted for longest. Each call looks at a bounded number of them.
    pub(in crate::fs) fn superfluous(&self, wanted: usize) -> Vec<u64> {
        let records = &mut *self.records.lock();
        records.line.superfluous(&records.inodes, wanted)
    }

    /// All inodes that hold bytes to be published.
    pub(in crate::fs) fn unsaved(&self) -> Vec<Arc<Inode>> {
        let records = self.records.lock();
        let all = records.inodes.values();
        all.filter(|inode| inode.state().written().dirty().is_some())
            .cloned()
            .collect()
    }

    /// How many inodes there are.
    pub(in crate::fs) fn count(&self) -> usize {
        self.records.lock().inodes.len()
    }

    /// Names in `parent` that the store may not know, in order.
    pub(in crate::fs) fn local_names(&self, parent: u64) -> Vec<Arc<str>> {
        self.records.lock().dentries.local_names(parent)
    }
}

/// Names.
impl InodeTable {
    /// The name does not lead to `inode` any more.
    pub(in crate::fs) fn detach(&self, inode: &Inode) {
        self.records.lock().lose_name(&mut inode.state());
    }

    /// The name leads to a new inode of the same file from now on, which the kernel finds when it
    /// looks the name up again. The old one stays with those who have it open.
    pub(in crate::fs) fn succeed(&self, old: &Inode) {
        let mut records = self.records.lock();
        let mut state = old.state();
        let Some(dir) = state.location().dir().cloned() else {
            return;
        };
        if !state.life().has_name() {
            return;
        }
        let name = state.name().clone();
        records.lose_name(&mut state);
        let location = Location::new(dir.clone(), name.clone(), false, self.moves.clone());
        let ino = records.take_number();
        let new = Inode::succeeding(ino, old, state.succeeding(location));
        // The kernel may look it up and forget it at once, before it looks it up to keep it
        // (`fuse_dentry_revalidate`): the old one holds it as long as itself lives.
        new.state().hold();
        let new = Arc::new(new);
        state.set_successor(new.clone());
        records.enter(&dir, name, new);
    }

    /// `inode` is called `name` in `dir` from now on; whatever was called so is detached. Of a directory
    /// that is all: what is in it goes with it.
    pub(in crate::fs) fn rename(&self, inode: &Arc<Inode>, dir: &Arc<Inode>, name: &str) {
        let mut records = self.records.lock();
        if !records.inodes.contains_key(&inode.ino()) || inode.state().life().is_gone() {
            return;
        }
        let replaced = records.dentries.get(dir.ino(), name).cloned();
        if let Some(replaced) = replaced.filter(|replaced| replaced.ino() != inode.ino()) {
            records.lose_name(&mut replaced.state());
        }
        let name: Arc<str> = name.into();
        let left = {
            let mut state = inode.state();
            records.lose_name(&mut state);
            state.life_mut().take_name();
            let left = state.go(dir.clone(), name.clone());
            records.dentries.insert(dir.ino(), name, inode.clone());
            records.mark_local(&state);
            left
        };
        if inode.is_directory() {
            self.moves.moved();
        }
        dir.state().hold();
        if let Some(left) = left {
            left.state().let_go();
            records.collect(&left);
        }
    }

    /// This mount took a name out of `dir`: it stays though the store may hold nothing of it any more.
    pub(in crate::fs) fn empty(&self, dir: &Inode, now: Instant) {
        if dir.is_root() {
            return;
        }
        let mut records = self.records.lock();
        let mut state = dir.state();
        state.life_mut().empty();
        state.confirm(now);
        records.mark_local(&state);
    }
}

/// Bytes that are here alone.
impl InodeTable {
    /// What is written to `inode` goes to what `begin` gives, from now on, unless somebody began before. Gives
    /// where it goes, and whether it begins with this; nothing where `begin` gives nothing.
    pub(in crate::fs) fn begin_writing(
        &self,
        inode: &Inode,
        begin: impl FnOnce(&InodeState) -> Option<Arc<DirtyFile>>,
    ) -> Option<(Arc<DirtyFile>, bool)> {
        let mut records = self.records.lock();
        let mut state = inode.state();
        if let Some(dirty) = state.written().dirty() {
            return Some((dirty.clone(), false));
        }
        let dirty = begin(&state)?;
        state.begin_writing(dirty.clone());
        records.mark_local(&state);
        Some((dirty, true))
    }

    /// The store is about to be asked to remove the file's object. False if `decide` refuses: then nothing
    /// has changed.
    pub(in crate::fs) fn leave(
        &self,
        inode: &Inode,
        decide: impl FnOnce(&InodeState) -> Departure,
    ) -> bool {
        let mut records = self.records.lock();
        let mut state = inode.state();
        match decide(&state) {
            Departure::Refused => return false,
            Departure::AsItIs => {}
            Departure::With(dirty) => state.begin_writing(dirty),
        }
        state.life_mut().leave();
        records.mark_local(&state);
        true
    }

    /// The store refused: the object is still there.
    pub(in crate::fs) fn stay(&self, inode: &Inode) {
        let mut records = self.records.lock();
        let mut state = inode.state();
        state.life_mut().stay();
        records.mark_local(&state);
    }

    /// The object is gone: no name leads to the inode any more.
    pub(in crate::fs) fn remove(&self, inode: &Inode) {
        let mut records = self.records.lock();
        let mut state = inode.state();
        records.lose_name(&mut state);
        state.life_mut().end();
    }

    /// The file is the store's again, if nobody writes it and nothing is dirty. Gives what held its bytes.
    pub(in crate::fs) fn finish_writing(&self, inode: &Arc<Inode>) -> Option<Arc<DirtyFile>> {
        let mut records = self.records.lock();
        let dirty = {
            let mut state = inode.state();
            let dirty = state.finish_writing();
            records.mark_local(&state);
            dirty
        };
        records.collect(inode);
        dirty
    }

    /// The bytes cannot be kept any longer; see [`InodeState::give_up`] for `failed`. A file that was never
    /// published has no name afterwards.
    pub(in crate::fs) fn give_up(&self, inode: &Arc<Inode>, failed: Option<String>) -> GivenUp {
        let mut records = self.records.lock();
        let given_up = {
            let mut state = inode.state();
            let given_up = state.give_up(failed);
            if state.shown().version().is_none() {
                records.lose_name(&mut state);
            }
            records.mark_local(&state);
            given_up
        };
        records.collect(inode);
        given_up
    }
}
