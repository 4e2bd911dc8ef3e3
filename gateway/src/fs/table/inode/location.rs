//! Where an inode is: the directory that it is in, its name there, and the key that follows from both.
//!
//! The key is the directory's with the name behind it, and `/` behind that for a directory; the root's is
//! the mount's prefix. It is derived once and kept, for it is wanted at each read. So a move changes one
//! place alone: when a directory moved, every key that is kept is derived anew when its inode is locked next
//! ([`DirectoryMoves`]), from the directories above, whatever became of those by then.
//!
//! A directory is therefore kept in the table as long as anything in it is: see `table::references`.
//!
//! Lock order: an inode's state, then its directory's, then that one's, up to the root.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Inode, ROOT};

/// How often a directory was moved in this mount.
#[derive(Debug, Default)]
pub(in crate::fs::table) struct DirectoryMoves(AtomicU64);

impl DirectoryMoves {
    fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// A directory was moved: its location is changed already.
    pub(in crate::fs::table) fn moved(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// See the module.
#[derive(Debug)]
pub(in crate::fs::table) struct Location {
    /// `None` for the root.
    dir: Option<Arc<Inode>>,
    name: Arc<str>,
    /// What is behind the name in the key.
    suffix: &'static str,
    key: Arc<str>,
    /// The moves that had been when the key was derived.
    derived_after: u64,
    moves: Arc<DirectoryMoves>,
}

impl Location {
    /// The root's, whose key is `prefix`.
    pub(in crate::fs::table) fn root(prefix: &str, moves: Arc<DirectoryMoves>) -> Self {
        Self {
            dir: None,
            name: "".into(),
            suffix: "",
            key: prefix.into(),
            derived_after: 0,
            moves,
        }
    }

    /// That of `name` in `dir`.
    pub(in crate::fs::table) fn new(
        dir: Arc<Inode>,
        name: Arc<str>,
        is_directory: bool,
        moves: Arc<DirectoryMoves>,
    ) -> Self {
        let suffix = if is_directory { "/" } else { "" };
        let derived_after = moves.count();
        Self {
            key: join(&dir, &name, suffix),
            dir: Some(dir),
            name,
            suffix,
            derived_after,
            moves,
        }
    }

    /// Makes the key that of now, if a directory was moved since it was derived.
    pub(in crate::fs::table) fn refresh(&mut self) {
        let moves = self.moves.count();
        if self.derived_after == moves {
            return;
        }
        if let Some(dir) = &self.dir {
            self.key = join(dir, &self.name, self.suffix);
        }
        self.derived_after = moves;
    }

    /// Goes to `name` in `dir`. Gives the directory that it was in.
    pub(in crate::fs::table) fn go(
        &mut self,
        dir: Arc<Inode>,
        name: Arc<str>,
    ) -> Option<Arc<Inode>> {
        self.derived_after = self.moves.count();
        self.key = join(&dir, &name, self.suffix);
        self.name = name;
        self.dir.replace(dir)
    }

    /// The directory that it is in; `None` for the root.
    pub(in crate::fs::table) fn dir(&self) -> Option<&Arc<Inode>> {
        self.dir.as_ref()
    }

    /// The number of the directory; the root is in itself.
    pub(in crate::fs::table) fn parent(&self) -> u64 {
        self.dir.as_ref().map_or(ROOT, |dir| dir.ino())
    }

    pub(in crate::fs::table) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(in crate::fs::table) fn key(&self) -> &Arc<str> {
        &self.key
    }
}

fn join(dir: &Inode, name: &str, suffix: &str) -> Arc<str> {
    format!("{}{name}{suffix}", dir.key()).into()
}
