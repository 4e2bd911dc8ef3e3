//! Which inodes the kernel is asked to forget. It keeps every inode that it was ever given until it is
//! short of memory itself, which on a large machine is never; and as long as it does, we keep ours.
//!
//! The oldest go first; one that was wanted again in the meantime goes to the end of the line, once. What
//! is open, dirty or known here alone stays. The kernel decides: it forgets only what no process has in
//! hand, so asking for the wrong one costs a look-up, and the pages that it had of the file.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::fs::attr::Kind;
use crate::fs::table::inode::{Inode, ROOT, State};

/// So many inodes are made before the next look.
const EACH: usize = 64;
/// So many inodes are asked for at once at most.
const ASKED_MAX: usize = 512;
/// So many are looked at for them.
const LOOKED_AT_MAX: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub(in crate::fs) struct Ages {
    /// The numbers of all inodes, the oldest first, and of some that are gone.
    line: VecDeque<u64>,
    /// Inodes made since the last look.
    born: usize,
}

/// Whether the kernel may as well forget an inode, and we with it.
fn may_go(inode: &Inode, state: &mut State, directories: bool) -> bool {
    let busy = state.handles > 0 || state.writers > 0 || state.successor.is_some();
    let gone = state.lookups == 0 || state.unlinked || state.leaving;
    // What a directory shows of its last change is known here alone.
    let kept = inode.ino == ROOT || inode.kind == Kind::Directory && !directories;
    // So is a failure that nobody was told of.
    let local = state.is_local() || state.stuck.is_some();
    !busy && !gone && !kept && !local && !std::mem::take(&mut state.used)
}

impl Ages {
    /// How many are in line, those included that are gone.
    #[cfg(test)]
    pub(in crate::fs) fn len(&self) -> usize {
        self.line.len()
    }

    /// That inode was made.
    pub(in crate::fs) fn born(&mut self, ino: u64) {
        self.line.push_back(ino);
        self.born += 1;
    }

    /// See [`Table::superfluous`](crate::fs::table::inode::Table::superfluous).
    pub(in crate::fs) fn superfluous(
        &mut self,
        inodes: &HashMap<u64, Arc<Inode>>,
        wanted: usize,
    ) -> Vec<u64> {
        if self.born < EACH {
            return Vec::new();
        }
        self.born = 0;
        if self.line.len() > 2 * inodes.len() + LOOKED_AT_MAX {
            self.line.retain(|ino| inodes.contains_key(ino));
        }
        let count = inodes.len();
        if count <= wanted {
            return Vec::new();
        }
        let enough = (count - wanted + wanted / 16).min(ASKED_MAX);
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
            if may_go(inode, &mut inode.state.lock(), directories) {
                asked.push(ino);
            }
        }
        asked
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, SystemTime};

    use super::*;
    use crate::fs::attr::{Defaults, FileAttr};
    use crate::fs::table::inode::{NewInode, Table};

    const DEFAULTS: Defaults = Defaults {
        uid: 0,
        gid: 0,
        file_mode: 0o644,
        dir_mode: 0o755,
    };

    fn enter(table: &Table, name: &str, kind: Kind) -> Arc<Inode> {
        let now = SystemTime::UNIX_EPOCH;
        let attr = match kind {
            Kind::Directory => FileAttr::directory(&DEFAULTS, now),
            _ => FileAttr::file(&DEFAULTS, 1, now),
        };
        let new = NewInode {
            parent: ROOT,
            name: name.into(),
            key: name.into(),
            attr,
            version: None,
            metadata: None,
            checked: Instant::now(),
            dirty: None,
        };
        table.find_or_insert(new, |_, _, _| true)
    }

    fn table(files: usize) -> (Table, Vec<Arc<Inode>>) {
        let root = FileAttr::directory(&DEFAULTS, SystemTime::UNIX_EPOCH);
        let table = Table::new("", root, Instant::now());
        let name = |number| format!("f{number}");
        let files = (0..files).map(|number| enter(&table, &name(number), Kind::File));
        let files = files.collect();
        (table, files)
    }

    fn numbers(inodes: &[Arc<Inode>]) -> Vec<u64> {
        inodes.iter().map(|inode| inode.ino).collect()
    }

    #[test]
    fn the_oldest_go_and_what_is_in_use_stays() {
        let (table, files) = table(200);
        assert_eq!(table.superfluous(201), [0; 0], "the root is one more");
        // Wanted again, open, being changed, known here alone, with a failure to tell.
        enter(&table, "f0", Kind::File);
        files[1].state.lock().handles = 1;
        files[2].state.lock().writers = 1;
        files[3].state.lock().kept = true;
        files[4].state.lock().stuck = Some("no room".to_owned());
        for number in 200..264 {
            enter(&table, &format!("f{number}"), Kind::File);
        }
        let asked = table.superfluous(160);
        assert_eq!(asked, numbers(&files[5..5 + 265 - 160 + 10]));
        assert_eq!(table.superfluous(160), [0; 0], "not again at once");
    }

    #[test]
    fn who_is_not_forgotten_is_asked_for_again_in_its_turn() {
        let (table, files) = table(100);
        assert_eq!(table.superfluous(64).len(), 41);
        for ino in numbers(&files[..40]) {
            table.forget(ino, 1);
        }
        let more: Vec<_> = (100..164)
            .map(|number| enter(&table, &format!("f{number}"), Kind::File))
            .collect();
        let asked = table.superfluous(64);
        let expected = [&files[41..], &files[40..=40], &more[..5]].concat();
        assert_eq!(expected.len(), 125 - 64 + 4);
        assert_eq!(asked, numbers(&expected));
    }

    #[test]
    fn directories_go_only_when_there_are_far_too_many() {
        let (table, _) = table(0);
        for number in 0..200 {
            enter(&table, &format!("d{number}"), Kind::Directory);
        }
        assert_eq!(table.superfluous(150), [0; 0]);
        for number in 200..400 {
            enter(&table, &format!("d{number}"), Kind::Directory);
        }
        let asked = table.superfluous(150);
        assert_eq!(asked.len(), 401 - 150 + 9);
        assert!(!asked.contains(&ROOT));
    }

    #[test]
    fn the_line_does_not_grow_with_what_comes_and_goes() {
        let (table, _) = table(0);
        for number in 0..30_000 {
            let file = enter(&table, &format!("f{number}"), Kind::File);
            table.forget(file.ino, 1);
            table.superfluous(1000);
        }
        assert!(
            table.line_len() <= 2 * LOOKED_AT_MAX,
            "{}",
            table.line_len()
        );
    }
}
