//! Writes that can wait. A small object that was published here costs more to write on disk (a file of
//! its own, rows of the catalogue) than to upload, and memory has its bytes. So such writes wait until no
//! new one has come for [`QUIET`]: a burst of closes gets the processors, and a file that is written
//! again and again is stored once.
//!
//! Pure: time is passed as `now`. One key is here once at most, in its newest version.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::job::PendingWrite;
use crate::object::{Key, ObjectId};

/// Longer writes do not wait: their bytes cost more than their file.
pub(super) const LEN_MAX: u64 = 256 << 10;

/// For how long nobody must have published a small object.
const QUIET: Duration = Duration::from_millis(200);

/// How many wait at most; past it the oldest go.
const WRITES_MAX: usize = 2048;

/// See the module.
#[derive(Debug)]
pub(super) struct DeferredWrites {
    /// How many bytes wait at most; past it the oldest go.
    bytes_max: u64,
    /// In the order in which they came.
    writes: BTreeMap<u64, PendingWrite>,
    by_key: HashMap<Key, u64>,
    next: u64,
    bytes: u64,
    /// When the last one came.
    last: Option<Instant>,
}

impl DeferredWrites {
    /// For at most `bytes_max` bytes.
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            writes: BTreeMap::new(),
            by_key: HashMap::new(),
            next: 0,
            bytes: 0,
            last: None,
        }
    }

    /// Adds one. Gives the one of the same key that it makes needless.
    pub(super) fn put(&mut self, write: PendingWrite, now: Instant) -> Option<PendingWrite> {
        let older = self.remove(&write.id.key);
        self.bytes += write.extent.len;
        self.by_key.insert(write.id.key.clone(), self.next);
        self.writes.insert(self.next, write);
        self.next += 1;
        self.last = Some(now);
        older
    }

    /// The oldest one, if it is time for it.
    pub(super) fn take(&mut self, now: Instant) -> Option<PendingWrite> {
        (self.is_over() || self.due().is_some_and(|due| due <= now))
            .then(|| self.pop())
            .flatten()
    }

    /// The oldest one.
    pub(super) fn pop(&mut self) -> Option<PendingWrite> {
        let (_, write) = self.writes.pop_first()?;
        self.by_key.remove(&write.id.key);
        self.bytes -= write.extent.len;
        Some(write)
    }

    /// Takes out what waits of `key`.
    pub(super) fn remove(&mut self, key: &Key) -> Option<PendingWrite> {
        let number = self.by_key.remove(key)?;
        let write = self.writes.remove(&number)?;
        self.bytes -= write.extent.len;
        Some(write)
    }

    /// Whether bytes of `id` wait.
    pub(super) fn has(&self, id: &ObjectId) -> bool {
        let number = self.by_key.get(&id.key);
        let write = number.and_then(|number| self.writes.get(number));
        write.is_some_and(|write| write.id == *id)
    }

    /// When it is time for those that wait; `None` if none do.
    pub(super) fn due(&self) -> Option<Instant> {
        let last = self.last.filter(|_| !self.writes.is_empty())?;
        Some(last + QUIET)
    }

    /// More wait than may.
    pub(super) fn is_over(&self) -> bool {
        self.writes.len() > WRITES_MAX || self.bytes > self.bytes_max
    }

    /// How many wait.
    pub(super) fn count(&self) -> usize {
        self.writes.len()
    }
}

#[cfg(test)]
mod tests;
