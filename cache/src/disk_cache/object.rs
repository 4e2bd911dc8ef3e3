//! One object that is (partly) on disk, as memory knows it: its number, which names its file; what
//! is held of it; its open file, if it is open; and when it was used.
//!
//! Numbers are never used twice while the index lives, so an index row and a file that carry the
//! same number belong to the same object whatever was lost in a crash.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;

use super::extents::HeldList;
use crate::disk::DiskFile;
use crate::evict::Candidate;
use crate::object::ObjectId;

/// Uses closer together than this, in ticks of the cache's clock (one a store), are one use: a
/// reader that follows its own fill is not a reader who came back.
const SAME_USE_TICKS: u64 = 64;

/// An object on disk.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) number: u64,
    pub(crate) id: ObjectId,
    /// The whole object's size in bytes.
    pub(crate) size: u64,
    /// A leaf lock: nothing else is locked and no disk call is made under it.
    pub(crate) content: RwLock<Content>,
    last_used: AtomicU64,
    /// What the index on disk says of `last_used`.
    saved_use: AtomicU64,
    used_again: AtomicBool,
    /// Whether the open file was used since the list of open files last came by.
    pub(crate) file_used: AtomicBool,
    /// Whether a job that verifies it is queued.
    pub(crate) verifying: AtomicBool,
}

/// What of an [`Object`] changes together.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) held: HeldList,
    pub(crate) file: Option<DiskFile>,
    /// Its file's name is gone; nothing is added any more.
    pub(crate) retired: bool,
}

impl Object {
    pub(crate) fn new(number: u64, id: ObjectId, size: u64, last_used: u64) -> Self {
        Self {
            number,
            id,
            size,
            content: RwLock::default(),
            last_used: AtomicU64::new(last_used),
            saved_use: AtomicU64::new(last_used),
            used_again: AtomicBool::new(false),
            file_used: AtomicBool::new(false),
            verifying: AtomicBool::new(false),
        }
    }

    /// Notes a use at `tick`. Writes only what changes, so that hits share the cache line.
    pub(crate) fn touch(&self, tick: u64) {
        let last = self.last_used.load(Ordering::Relaxed);
        if last != tick {
            self.last_used.store(tick, Ordering::Relaxed);
            if tick.saturating_sub(last) >= SAME_USE_TICKS {
                self.used_again.store(true, Ordering::Relaxed);
            }
        }
        if !self.file_used.load(Ordering::Relaxed) {
            self.file_used.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn last_used(&self) -> u64 {
        self.last_used.load(Ordering::Relaxed)
    }

    /// What the index on disk is about to say of [`Object::last_used`].
    pub(crate) fn save_use(&self) -> u64 {
        let last_used = self.last_used();
        self.saved_use.store(last_used, Ordering::Relaxed);
        last_used
    }

    /// Whether it was used since the index on disk heard of it.
    pub(crate) fn use_is_unsaved(&self) -> bool {
        self.saved_use.load(Ordering::Relaxed) != self.last_used()
    }

    pub(crate) fn used_again(&self) -> bool {
        self.used_again.load(Ordering::Relaxed)
    }

    pub(crate) fn set_used_again(&self, used_again: bool) {
        self.used_again.store(used_again, Ordering::Relaxed);
    }

    /// As eviction sees it. Pinned if it is `kept`, or if somebody besides us holds its file: then
    /// evicting it would give no room back.
    pub(crate) fn candidate(&self, kept: bool) -> Candidate {
        let content = self.content.read();
        let shared = content.file.as_ref().is_some_and(DiskFile::is_shared);
        Candidate {
            bytes: content.held.charged(),
            last_used: self.last_used(),
            used_again: self.used_again(),
            pinned: kept || shared,
        }
    }

    pub(crate) fn path(&self, objects: &Path) -> PathBuf {
        path_of(objects, self.number)
    }
}

/// Files lie in 256 directories by the number's last byte, so that none grows long.
pub(crate) fn path_of(objects: &Path, number: u64) -> PathBuf {
    objects
        .join(format!("{:02x}", number & 0xff))
        .join(format!("{number:016x}"))
}

/// The number of a file of ours; `None` for a name that we never give.
pub(crate) fn number_of(dir: &str, name: &str) -> Option<u64> {
    let number = u64::from_str_radix(name, 16).ok()?;
    let ours = format!("{number:016x}") == name && format!("{:02x}", number & 0xff) == dir;
    ours.then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{ETag, Key};

    #[test]
    fn a_number_is_read_back_from_its_path_and_foreign_names_are_not() {
        let path = path_of(Path::new("/o"), 0x1234_abcd);
        assert_eq!(path, Path::new("/o/cd/000000001234abcd"));
        assert_eq!(number_of("cd", "000000001234abcd"), Some(0x1234_abcd));
        assert_eq!(number_of("ce", "000000001234abcd"), None);
        assert_eq!(number_of("cd", "1234abcd"), None);
        assert_eq!(number_of("cd", "+00000001234abcd"), None);
        assert_eq!(number_of("cd", "000000001234ABCD"), None);
    }

    #[test]
    fn only_a_use_some_time_later_counts_as_used_again() {
        let id = ObjectId::new(Key::new("k"), ETag::new("e"));
        let object = Object::new(1, id, 1, 100);
        object.touch(100 + SAME_USE_TICKS - 1);
        assert!(!object.used_again());
        object.touch(object.last_used() + SAME_USE_TICKS);
        assert!(object.used_again());
    }
}
