//! The records behind the table's lock, and the steps that its transitions are made of. Each is called with the
//! table locked; those that take a state are called with that inode locked too.

use std::collections::HashMap;
use std::sync::Arc;

use super::NewInode;
use super::dentries::Dentries;
use super::forgetting::SecondChance;
use super::inode::location::{DirectoryMoves, Location};
use super::inode::state::InodeState;
use super::inode::{Inode, ROOT};

/// See the module.
#[derive(Debug)]
pub(super) struct Records {
    pub(super) inodes: HashMap<u64, Arc<Inode>>,
    pub(super) dentries: Dentries,
    /// The number of the next inode: none is used twice.
    next: u64,
    pub(super) line: SecondChance,
}

impl Records {
    /// The root's alone.
    pub(super) fn new(root: Inode) -> Self {
        Self {
            inodes: HashMap::from([(ROOT, Arc::new(root))]),
            dentries: Dentries::default(),
            next: ROOT + 1,
            line: SecondChance::default(),
        }
    }

    /// The number of a new inode.
    pub(super) fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// A new inode, with one reference taken.
    pub(super) fn insert(&mut self, new: NewInode, moves: &Arc<DirectoryMoves>) -> Arc<Inode> {
        let NewInode {
            dir,
            name,
            shown,
            dirty,
        } = new;
        let kind = shown.attr().kind;
        let location = Location::new(
            dir.clone(),
            name.clone(),
            shown.is_directory(),
            moves.clone(),
        );
        let ino = self.take_number();
        let inode = Inode::new(ino, kind, InodeState::new(location, shown, dirty));
        let inode = Arc::new(inode);
        self.enter(&dir, name, inode.clone());
        {
            let mut state = inode.state();
            state.refer();
            self.mark_local(&state);
        }
        inode
    }

    /// The name, which leads nowhere, leads to the new `inode`.
    pub(super) fn enter(&mut self, dir: &Inode, name: Arc<str>, inode: Arc<Inode>) {
        dir.state().hold();
        self.dentries.insert(dir.ino(), name, inode.clone());
        self.line.made(inode.ino());
        self.inodes.insert(inode.ino(), inode);
    }

    /// The name leads nowhere, if it leads to that inode.
    pub(super) fn lose_name(&mut self, state: &mut InodeState) {
        if state.life().has_name() {
            self.dentries.remove(state.parent(), state.name());
        }
        state.life_mut().lose_name();
    }

    /// readdir shows the name whatever the store lists, as long as this mount knows better.
    pub(super) fn mark_local(&mut self, state: &InodeState) {
        // Without a name: whatever is called so by now is another file.
        if state.life().has_name() {
            let (parent, name) = (state.parent(), state.name());
            self.dentries.set_local(parent, name, state.is_local());
        }
    }

    /// The inode goes if nothing needs it, and those that only it needed with it.
    pub(super) fn collect(&mut self, inode: &Arc<Inode>) {
        if inode.is_root() || !inode.state().is_idle() {
            return;
        }
        if self.inodes.remove(&inode.ino()).is_none() {
            return;
        }
        let held = {
            let mut state = inode.state();
            self.lose_name(&mut state);
            state.end()
        };
        for held in held {
            held.state().let_go();
            self.collect(&held);
        }
    }
}
