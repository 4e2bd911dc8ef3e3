//! References: what the kernel gets by each entry that it is given, and gives back by FORGET.
//!
//! A look-up makes a [`Reference`]. The reply that gives its entry consumes it, and the kernel has one more
//! from then on; one that reaches no reply is dropped and counts no more, whatever ended its operation. So
//! nobody has to give back by hand what the kernel did not get.
//!
//! An inode is also held by what is here: a directory by everything that is in it, since their keys follow
//! from it, and a successor by the inode that it succeeds. Those holds are the table's alone.

use std::sync::Arc;
use std::time::Duration;

use super::InodeTable;
use super::inode::Inode;
use crate::fs::attr::FileAttr;
use crate::fuse::abi::EntryOut;

/// A reference to an inode that the kernel was not given yet. Not to be dropped under a lock of the table.
#[derive(Debug)]
pub(in crate::fs) struct Reference {
    inode: Arc<Inode>,
    table: Arc<InodeTable>,
    is_given: bool,
}

impl Reference {
    /// One that is counted already.
    pub(super) fn new(inode: Arc<Inode>, table: Arc<InodeTable>) -> Self {
        Self {
            inode,
            table,
            is_given: false,
        }
    }

    /// The inode.
    pub(in crate::fs) fn inode(&self) -> &Arc<Inode> {
        &self.inode
    }

    /// Gives it to the kernel by this entry, believed for `valid`.
    pub(in crate::fs) fn entry(mut self, valid: Duration) -> EntryOut {
        self.is_given = true;
        let mut state = self.inode.state();
        state.tell_entry(valid)
    }

    /// The entry of a reply that is made piece by piece, believed for `valid`, and what is left to do when it
    /// is sent.
    pub(in crate::fs) fn offer(self, valid: Duration) -> (EntryOut, Offered) {
        let (entry, attr) = {
            let state = self.inode.state();
            (state.entry(valid), state.attr())
        };
        let reference = self;
        (entry, Offered { reference, attr })
    }
}

/// A reference whose entry is in a reply that is not sent yet.
#[derive(Debug)]
pub(in crate::fs) struct Offered {
    reference: Reference,
    /// What the entry tells.
    attr: FileAttr,
}

impl Offered {
    /// The reply is sent: the kernel has it.
    pub(in crate::fs) fn give(mut self) {
        self.reference.is_given = true;
        let mut state = self.reference.inode.state();
        state.tell(self.attr);
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        if !self.is_given {
            self.table.forget(self.inode.ino(), 1);
        }
    }
}
