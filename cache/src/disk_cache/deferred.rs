//! Small stores that can wait. A small object that was published here costs more to store on disk (a
//! file of its own, rows of the index) than to upload, and memory has its bytes. So those stores wait
//! until no new one has come for [`QUIET`]: a burst of closes gets the processors, and a file that is
//! written again and again is stored once.
//!
//! Pure: time is passed as `now`. One object's key is here once at most, in its newest version.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::queue::Store;
use crate::object::{Key, ObjectId};

/// Longer stores do not wait: their bytes cost more than their file.
pub(super) const LEN_MAX: u64 = 256 << 10;

/// For how long nobody must have published a small object.
const QUIET: Duration = Duration::from_millis(200);

/// How many wait at most; past it the oldest go.
const STORES_MAX: usize = 2048;

/// See the module.
#[derive(Debug)]
pub(super) struct Later {
    /// How many bytes wait at most; past it the oldest go.
    bytes_max: u64,
    /// In the order in which they came.
    stores: BTreeMap<u64, Store>,
    by_key: HashMap<Key, u64>,
    next: u64,
    bytes: u64,
    /// When the last one came.
    last: Option<Instant>,
}

impl Later {
    /// For at most `bytes_max` bytes.
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            stores: BTreeMap::new(),
            by_key: HashMap::new(),
            next: 0,
            bytes: 0,
            last: None,
        }
    }

    /// Adds one. Gives the one of the same key that it makes needless.
    pub(super) fn put(&mut self, store: Store, now: Instant) -> Option<Store> {
        let older = self.remove(&store.id.key);
        self.bytes += store.extent.len;
        self.by_key.insert(store.id.key.clone(), self.next);
        self.stores.insert(self.next, store);
        self.next += 1;
        self.last = Some(now);
        older
    }

    /// The oldest one, if it is time for it.
    pub(super) fn take(&mut self, now: Instant) -> Option<Store> {
        (self.is_over() || self.due().is_some_and(|due| due <= now))
            .then(|| self.pop())
            .flatten()
    }

    /// The oldest one.
    pub(super) fn pop(&mut self) -> Option<Store> {
        let (_, store) = self.stores.pop_first()?;
        self.by_key.remove(&store.id.key);
        self.bytes -= store.extent.len;
        Some(store)
    }

    /// Takes out what waits of `key`.
    pub(super) fn remove(&mut self, key: &Key) -> Option<Store> {
        let number = self.by_key.remove(key)?;
        let store = self.stores.remove(&number)?;
        self.bytes -= store.extent.len;
        Some(store)
    }

    /// Whether bytes of `id` wait.
    pub(super) fn has(&self, id: &ObjectId) -> bool {
        let number = self.by_key.get(&id.key);
        let store = number.and_then(|number| self.stores.get(number));
        store.is_some_and(|store| store.id == *id)
    }

    /// When it is time for those that wait; `None` if none do.
    pub(super) fn due(&self) -> Option<Instant> {
        let last = self.last.filter(|_| !self.stores.is_empty())?;
        Some(last + QUIET)
    }

    /// More wait than may.
    pub(super) fn is_over(&self) -> bool {
        self.stores.len() > STORES_MAX || self.bytes > self.bytes_max
    }

    /// How many wait.
    pub(super) fn count(&self) -> usize {
        self.stores.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::Extent;
    use crate::object::ETag;

    const BYTES_MAX: u64 = 8 << 20;

    fn store(key: &str, etag: &str, len: u64) -> Store {
        Store {
            id: ObjectId::new(Key::new(key), ETag::new(etag)),
            size: len,
            extent: Extent::new(0, len),
            pieces: Vec::new(),
            keep: None,
        }
    }

    fn key(store: Option<Store>) -> Option<String> {
        store.map(|store| store.id.key.as_str().to_owned())
    }

    #[test]
    fn stores_wait_until_it_is_quiet_and_come_in_order() {
        let (mut later, now) = (Later::new(BYTES_MAX), Instant::now());
        assert_eq!(later.due(), None);
        later.put(store("a", "1", 10), now);
        let second = now + QUIET / 2;
        later.put(store("b", "1", 10), second);
        assert_eq!(key(later.take(now + QUIET)), None, "one came since");
        assert_eq!(later.due(), Some(second + QUIET));
        assert_eq!(key(later.take(second + QUIET)).as_deref(), Some("a"));
        assert_eq!(key(later.take(second + QUIET)).as_deref(), Some("b"));
        assert_eq!(key(later.take(second + QUIET)), None);
        assert_eq!((later.due(), later.bytes), (None, 0));
    }

    #[test]
    fn a_newer_version_takes_the_place_of_an_older_one() {
        let (mut later, now) = (Later::new(BYTES_MAX), Instant::now());
        later.put(store("a", "1", 10), now);
        later.put(store("b", "1", 20), now);
        assert!(later.put(store("a", "2", 30), now).is_some());
        let id = |etag: &str| ObjectId::new(Key::new("a"), ETag::new(etag));
        assert!(!later.has(&id("1")) && later.has(&id("2")));
        assert_eq!((later.count(), later.bytes), (2, 50));
        assert_eq!(key(later.pop()).as_deref(), Some("b"));
        assert!(later.remove(&Key::new("a")).is_some());
        assert!(later.remove(&Key::new("a")).is_none());
        assert_eq!((later.count(), later.bytes), (0, 0));
    }

    #[test]
    fn past_the_bounds_the_oldest_go_at_once() {
        let (mut later, now) = (Later::new(BYTES_MAX), Instant::now());
        for number in 0..=STORES_MAX {
            assert_eq!(key(later.take(now)), None);
            later.put(store(&number.to_string(), "1", 1), now);
        }
        assert_eq!(key(later.take(now)).as_deref(), Some("0"));
        assert_eq!(key(later.take(now)), None);
        let mut later = Later::new(BYTES_MAX);
        later.put(store("a", "1", BYTES_MAX), now);
        assert_eq!(key(later.take(now)), None);
        later.put(store("b", "1", 1), now);
        assert_eq!(key(later.take(now)).as_deref(), Some("a"));
    }
}
