//! One object of which something is on disk, as memory knows it: its number, which names its file;
//! its extents; its file, while that is open; and when it was used.
//!
//! Numbers are never used twice while the catalogue lives, so a row of it and a file that carry the
//! same number belong to the same object whatever was lost in a crash.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;

use super::extents::{ExtentList, Usage};
use crate::disk::DiskFile;
use crate::evict::Candidate;
use crate::object::ObjectId;

/// Uses closer together than this, in ticks of the cache's clock (one a store), are one use: a
/// reader that follows its own fill is not a reader who came back.
const SAME_USE_TICKS: u64 = 64;

/// An object of which something is on disk.
#[derive(Debug)]
pub(crate) struct CachedObject {
    pub(crate) number: u64,
    pub(crate) id: ObjectId,
    /// The whole object's size in bytes.
    pub(crate) size: u64,
    /// A leaf lock: nothing else is locked and no disk call is made under it.
    pub(crate) on_disk: RwLock<OnDisk>,
    last_used: AtomicU64,
    /// What the catalogue says of `last_used`.
    saved_use: AtomicU64,
    used_again: AtomicBool,
    /// Whether the open file was used since the list of open files last came by.
    file_used: AtomicBool,
    /// Whether a job that verifies it is queued.
    verification_queued: AtomicBool,
}

/// What of a [`CachedObject`] changes together.
#[derive(Debug, Default)]
pub(crate) struct OnDisk {
    pub(crate) extents: ExtentList,
    file: Option<DiskFile>,
    retired: bool,
}

impl OnDisk {
    /// The object's file, while it is open.
    pub(crate) fn file(&self) -> Option<&DiskFile> {
        self.file.as_ref()
    }

    /// Whether its file has lost its name; nothing is added any more.
    pub(crate) fn is_retired(&self) -> bool {
        self.retired
    }

    /// Keeps `file` open, unless another is or the object is retired. `Err` with the one to use.
    pub(crate) fn keep_file(&mut self, file: &DiskFile) -> Result<(), DiskFile> {
        match &self.file {
            Some(kept) => Err(kept.clone()),
            None if self.retired => Err(file.clone()),
            None => {
                self.file = Some(file.clone());
                Ok(())
            }
        }
    }

    /// Lets go of the open file. close(2) may wait for the disk: to be dropped without the lock.
    #[must_use]
    pub(crate) fn close_file(&mut self) -> Option<DiskFile> {
        self.file.take()
    }

    /// The end: no extents, no file. Gives what they took; `None` if it was retired before.
    pub(crate) fn retire(&mut self) -> Option<(Usage, Option<DiskFile>)> {
        if std::mem::replace(&mut self.retired, true) {
            return None;
        }
        let usage = self.extents.usage();
        self.extents.clear();
        Some((usage, self.file.take()))
    }

    /// Whether somebody besides us has the file: evicting the object would give nothing back.
    pub(crate) fn is_file_shared(&self) -> bool {
        self.file.as_ref().is_some_and(DiskFile::is_shared)
    }
}

impl CachedObject {
    pub(crate) fn new(number: u64, id: ObjectId, size: u64, last_used: u64) -> Self {
        Self {
            number,
            id,
            size,
            on_disk: RwLock::default(),
            last_used: AtomicU64::new(last_used),
            saved_use: AtomicU64::new(last_used),
            used_again: AtomicBool::new(false),
            file_used: AtomicBool::new(false),
            verification_queued: AtomicBool::new(false),
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

    /// What the catalogue is about to say of [`CachedObject::last_used`].
    pub(crate) fn save_use(&self) -> u64 {
        let last_used = self.last_used();
        self.saved_use.store(last_used, Ordering::Relaxed);
        last_used
    }

    /// Whether it was used since the catalogue heard of it.
    pub(crate) fn use_is_unsaved(&self) -> bool {
        self.saved_use.load(Ordering::Relaxed) != self.last_used()
    }

    fn used_again(&self) -> bool {
        self.used_again.load(Ordering::Relaxed)
    }

    /// Eviction has passed it over once: its second chance is spent.
    pub(crate) fn spend_second_chance(&self) {
        self.used_again.store(false, Ordering::Relaxed);
    }

    /// Takes away the mark that its open file was used. Whether there was one.
    pub(crate) fn take_file_used(&self) -> bool {
        self.file_used.swap(false, Ordering::Relaxed)
    }

    /// Notes that a job that verifies it is queued. False if one is already.
    pub(crate) fn begin_verification(&self) -> bool {
        !self.verification_queued.swap(true, Ordering::Relaxed)
    }

    /// That job is no longer queued.
    pub(crate) fn end_verification(&self) {
        self.verification_queued.store(false, Ordering::Relaxed);
    }

    /// As eviction sees it. Pinned if it is `kept`, or if somebody besides us holds its file: then
    /// evicting it would give no room back.
    pub(crate) fn candidate(&self, kept: bool) -> Candidate {
        let on_disk = self.on_disk.read();
        let usage = on_disk.extents.usage();
        Candidate {
            bytes: usage.bytes,
            extents: usage.extents,
            last_used: self.last_used(),
            used_again: self.used_again(),
            pinned: kept || on_disk.is_file_shared(),
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
        let object = CachedObject::new(1, id, 1, 100);
        object.touch(100 + SAME_USE_TICKS - 1);
        assert!(!object.used_again());
        object.touch(object.last_used() + SAME_USE_TICKS);
        assert!(object.used_again());
    }
}
