//! Which inodes the kernel is asked to forget. It keeps every inode that it was ever given until it is
//! short of memory itself, which on a large machine is never; and as long as it does, we keep ours.
//!
//! The oldest go first; one that was wanted again in the meantime goes to the end of the line, once: a
//! second chance, as page replacement knows it. What is open, dirty or known here alone stays. The kernel
//! decides: it forgets only what no process has in hand, so asking for the wrong one costs a look-up, and the
//! pages that it had of the file.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::inode::Inode;

/// How many inodes are made between two looks at the line: a look for each one would be wasted, as the
/// kernel takes its time to answer the last.
const MADE_PER_LOOK: usize = 64;
/// How many inodes the kernel is asked to forget at once at most.
const ASKED_MAX: usize = 512;
/// How many inodes are looked at for them at most: the table is locked meanwhile.
pub(super) const LOOKED_AT_MAX: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct SecondChance {
    /// The numbers of all inodes, the oldest first, and of some that are gone.
    line: VecDeque<u64>,
    /// Inodes made since the last look.
    made: usize,
}

impl SecondChance {
    /// How many are in line, those included that are gone.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.line.len()
    }

    /// That inode was made.
    pub(super) fn made(&mut self, ino: u64) {
        self.line.push_back(ino);
        self.made += 1;
    }

    /// See [`InodeTable::superfluous`](super::InodeTable::superfluous).
    pub(super) fn superfluous(
        &mut self,
        inodes: &HashMap<u64, Arc<Inode>>,
        wanted: usize,
    ) -> Vec<u64> {
        if self.made < MADE_PER_LOOK {
            return Vec::new();
        }
        self.made = 0;
        if self.line.len() > 2 * inodes.len() + LOOKED_AT_MAX {
            self.line.retain(|ino| inodes.contains_key(ino));
        }
        let count = inodes.len();
        if count <= wanted {
            return Vec::new();
        }
        let enough = (count - wanted + wanted / 16).min(ASKED_MAX);
        // What a directory shows of its last change is known here alone.
        let directories = count / 2 > wanted;
        let mut asked = Vec::new();
        for _ in 0..self.line.len().min(LOOKED_AT_MAX) {
            if asked.len() >= enough {
                break;
            }
            let Some(ino) = self.line.pop_front() else {
                break;
            };
            let Some(inode) = inodes.get(&ino) else {
                continue;
            };
            // The kernel may have somebody who has it in hand: then its turn comes again.
            self.line.push_back(ino);
            let is_kept = inode.is_root() || inode.is_directory() && !directories;
            if !is_kept && inode.state().may_be_forgotten() {
                asked.push(ino);
            }
        }
        asked
    }
}
