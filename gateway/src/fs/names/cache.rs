//! What the store said of names lately: so that look-ups and creations need no request of their own.
//!
//! A directory's listing that came back whole in one page is kept as a snapshot: it answers every
//! look-up in that directory, found or not, until it is older than the mount's TTL. Single answers
//! are kept beside it for directories that are too large. The age counts from when the request
//! *began*: what was published before that is in it. Changes made through this mount are entered as
//! they happen.
//!
//! Metadata are kept without a TTL, by version, and every HEAD says them anew: where an ETag is a digest
//! of the bytes, new metadata or another writer's same bytes do not change it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ackfs_cache::object::{ETag, ObjectId};
use ackfs_cache::store::Metadata;
use moka::sync::Cache;
use parking_lot::Mutex;

use crate::fs::attr::is_kept_of;
use crate::fs::names::bulk::Burst;

/// What a listing or a HEAD says of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// A prefix that holds keys, or a marker.
    Directory,
    /// An object.
    File {
        /// Its version.
        etag: ETag,
        /// Its size in bytes.
        size: u64,
        /// When the store took it.
        modified: SystemTime,
    },
}

/// A directory as one listing showed it, whole.
#[derive(Debug)]
struct Snapshot {
    begun: Instant,
    shown: bool,
    names: HashMap<Box<str>, Listed>,
}

/// What is known, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// What the name is; `None` if there is none.
    pub what: Option<Listed>,
    /// When the store was asked.
    pub begun: Instant,
    /// Whether it comes of a listing that a reader of the directory was shown, which has no types: the
    /// kernel holds the same.
    pub shown: bool,
}

/// Metadata, and what tells whether they are the newest.
#[derive(Debug, Clone)]
struct Seen {
    metadata: Arc<Metadata>,
    /// The store's time of the object in seconds, as HEAD says it; `None` for what this mount made.
    modified: Option<u64>,
    /// When the store was asked, or told.
    since: Instant,
}

/// See the module. All methods take `&self` and never wait.
#[derive(Debug)]
pub struct KnownNames {
    /// What this mount creates, by directory.
    bursts: Cache<u64, Arc<Mutex<Burst>>>,
    positive_ttl: Duration,
    negative_ttl: Duration,
    snapshots: Cache<u64, Arc<Mutex<Snapshot>>>,
    singles: Cache<(u64, Box<str>), Known>,
    /// Directories that did not fit one page when last listed.
    large: Cache<u64, ()>,
    metadata: Cache<ObjectId, Seen>,
    /// Directories that hold symbolic links, FIFOs or sockets.
    specials: Cache<u64, ()>,
}

/// Directories that something is kept of beside names: that they are large, that they hold links.
const DIRECTORIES_MAX: u64 = 20_000;
/// Directories whose creations are watched.
const BURSTS_MAX: u64 = 1000;
/// For how long a directory that was too large is not listed for a look-up again.
const LARGE_FOR: Duration = Duration::from_secs(60);

impl KnownNames {
    /// Believes what was found for `positive_ttl` and what was not for `negative_ttl`. Keeps the metadata
    /// of `names_max` versions, as many names of listings twice, and half as many single answers.
    pub fn new(positive_ttl: Duration, negative_ttl: Duration, names_max: usize) -> Self {
        let longest = positive_ttl.max(negative_ttl);
        let names_max = names_max as u64;
        Self {
            positive_ttl,
            negative_ttl,
            snapshots: Cache::builder()
                .weigher(|_, snapshot: &Arc<Mutex<Snapshot>>| {
                    u32::try_from(snapshot.lock().names.len() + 8).unwrap_or(u32::MAX)
                })
                .max_capacity(names_max * 2)
                .time_to_live(longest)
                .build(),
            singles: Cache::builder()
                .max_capacity(names_max / 2)
                .time_to_live(longest)
                .build(),
            bursts: Cache::builder()
                .max_capacity(BURSTS_MAX)
                .time_to_idle(LARGE_FOR)
                .build(),
            large: Cache::builder()
                .max_capacity(DIRECTORIES_MAX)
                .time_to_live(LARGE_FOR)
                .build(),
            metadata: Cache::new(names_max),
            specials: Cache::new(DIRECTORIES_MAX),
        }
    }

    /// Gives up what is too old to be believed, which otherwise waits for somebody to look there.
    pub fn tidy(&self) {
        self.snapshots.run_pending_tasks();
        self.singles.run_pending_tasks();
        self.bursts.run_pending_tasks();
    }

    /// The watch over creations in `dir`.
    pub fn burst(&self, dir: u64) -> Arc<Mutex<Burst>> {
        self.bursts.get_with(dir, Arc::default)
    }

    /// For how much longer an answer of that age may be believed.
    pub fn remaining(&self, found: bool, begun: Instant, now: Instant) -> Duration {
        let ttl = if found {
            self.positive_ttl
        } else {
            self.negative_ttl
        };
        ttl.saturating_sub(now.saturating_duration_since(begun))
    }

    /// What is known of `name` in `dir`, if it is fresh.
    pub fn get(&self, dir: u64, name: &str, now: Instant) -> Option<Known> {
        let burst = self.bursts.get(&dir);
        let fresh = |known: &Known| {
            let age = now.saturating_duration_since(known.begun);
            match known.what {
                Some(_) => age < self.positive_ttl,
                None if age < self.negative_ttl => true,
                None => {
                    let covered = |burst: &Arc<Mutex<Burst>>| burst.lock().covers(name, now);
                    age < self.positive_ttl && burst.as_ref().is_some_and(covered)
                }
            }
        };
        let single = self.singles.get(&(dir, name.into()));
        if let Some(snapshot) = self.snapshots.get(&dir) {
            let snapshot = snapshot.lock();
            let known = Known {
                what: snapshot.names.get(name).cloned(),
                begun: snapshot.begun,
                shown: snapshot.shown,
            };
            // A listing that was on its way while this mount changed the name does not have the change,
            // and comes in after it.
            let missed = single
                .as_ref()
                .is_some_and(|single| single.begun > known.begun && single.what != known.what);
            if !missed && fresh(&known) {
                return Some(known);
            }
        }
        single.filter(fresh)
    }

    /// Whether a listing of `dir` is held, however old, and `name` is not in it.
    pub fn lacks(&self, dir: u64, name: &str) -> bool {
        let snapshot = self.snapshots.get(&dir);
        snapshot.is_some_and(|snapshot| !snapshot.lock().names.contains_key(name))
    }

    /// A listing of `dir` that is whole; `shown` if it was made for a reader of the directory. One that
    /// began before the one held is not taken.
    pub fn put_listing(
        &self,
        dir: u64,
        begun: Instant,
        names: HashMap<Box<str>, Listed>,
        shown: bool,
    ) {
        let newer = self
            .snapshots
            .get(&dir)
            .is_some_and(|held| held.lock().begun > begun);
        if !newer && !self.positive_ttl.max(self.negative_ttl).is_zero() {
            let snapshot = Snapshot {
                begun,
                shown,
                names,
            };
            self.snapshots.insert(dir, Arc::new(Mutex::new(snapshot)));
        }
        self.large.invalidate(&dir);
    }

    /// `dir` does not fit one page.
    pub fn put_large(&self, dir: u64) {
        self.large.insert(dir, ());
    }

    /// Whether `dir` did not fit one page lately.
    pub fn is_large(&self, dir: u64) -> bool {
        self.large.contains_key(&dir)
    }

    /// The store said this of one name.
    pub fn put(&self, dir: u64, name: &str, what: Option<Listed>, begun: Instant) {
        self.enter(dir, name, what.clone());
        let known = Known {
            what,
            begun,
            shown: false,
        };
        self.singles.insert((dir, name.into()), known);
    }

    /// This mount changed the name. Fresh listings learn it, stale ones stay stale.
    pub fn changed(&self, dir: u64, name: &str, what: Option<Listed>) {
        self.put(dir, name, what, Instant::now());
    }

    fn enter(&self, dir: u64, name: &str, what: Option<Listed>) {
        let Some(snapshot) = self.snapshots.get(&dir) else {
            return;
        };
        let mut snapshot = snapshot.lock();
        match what {
            Some(what) => snapshot.names.insert(name.into(), what),
            None => snapshot.names.remove(name),
        };
    }

    /// Nothing is known of the name any more, nor of what else is in `dir`.
    pub fn drop_name(&self, dir: u64, name: &str) {
        self.singles.invalidate(&(dir, name.into()));
        self.drop_directory(dir);
    }

    /// Nothing is known of `dir` any more.
    pub fn drop_directory(&self, dir: u64) {
        self.snapshots.invalidate(&dir);
        self.large.invalidate(&dir);
    }

    /// Something that is no file was met in `dir`.
    pub fn put_special(&self, dir: u64) {
        self.specials.insert(dir, ());
    }

    /// Whether something that is no file was met in `dir`: listings do not tell it from a file.
    pub fn holds_specials(&self, dir: u64) -> bool {
        self.specials.contains_key(&dir)
    }

    /// Keeps the metadata of a version that this mount made.
    pub fn put_metadata(&self, id: ObjectId, metadata: Arc<Metadata>) {
        let seen = Seen {
            metadata,
            modified: None,
            since: Instant::now(),
        };
        self.metadata.insert(id, seen);
    }

    /// A HEAD that was sent at `begun` showed a version's metadata, and when the store took it. Gives those
    /// to go by: what this mount keeps of its own versions says more, as long as nobody changed them.
    pub fn saw_metadata(
        &self,
        id: ObjectId,
        modified: SystemTime,
        metadata: Metadata,
        begun: Instant,
    ) -> Arc<Metadata> {
        let modified = modified.duration_since(SystemTime::UNIX_EPOCH);
        let modified = Some(modified.map_or(0, |age| age.as_secs()));
        let mut seen = Seen {
            metadata: Arc::new(metadata),
            modified,
            since: begun,
        };
        if let Some(old) = self.metadata.get(&id) {
            let same_time = old.modified.is_none() || old.modified == modified;
            if old.since > begun {
                return old.metadata;
            }
            if same_time && is_kept_of(&old.metadata, &seen.metadata) {
                seen.metadata = old.metadata;
            }
        }
        let newest = seen.metadata.clone();
        self.metadata.insert(id, seen);
        newest
    }

    /// The metadata of a version as last seen, if they were.
    pub fn metadata(&self, id: &ObjectId) -> Option<Arc<Metadata>> {
        self.metadata.get(id).map(|seen| seen.metadata)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(5);

    fn file() -> Listed {
        Listed::File {
            etag: ETag::new("\"1\""),
            size: 1,
            modified: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_whole_listing_answers_for_what_is_not_in_it() {
        let known = KnownNames::new(TTL, TTL, 1000);
        let now = Instant::now();
        known.put_listing(7, now, HashMap::from([("a".into(), file())]), true);
        assert_eq!(known.get(7, "a", now).unwrap().what, Some(file()));
        assert_eq!(known.get(7, "b", now).unwrap().what, None);
        assert_eq!(known.get(8, "a", now), None);
    }

    #[test]
    fn age_counts_from_the_begin_of_the_request() {
        let known = KnownNames::new(TTL, TTL, 1000);
        let begun = Instant::now();
        known.put_listing(7, begun, HashMap::new(), true);
        assert!(known.get(7, "a", begun + TTL * 9 / 10).is_some());
        assert!(known.get(7, "a", begun + TTL).is_none());
    }

    #[test]
    fn own_changes_are_entered() {
        let known = KnownNames::new(TTL, TTL, 1000);
        let now = Instant::now();
        known.put_listing(7, now, HashMap::new(), true);
        known.changed(7, "a", Some(file()));
        assert_eq!(known.get(7, "a", now).unwrap().what, Some(file()));
        known.changed(7, "a", None);
        assert_eq!(known.get(7, "a", now).unwrap().what, None);
    }

    /// A file published while its directory was listed was answered for by that listing: not there.
    #[test]
    fn a_change_outlives_a_listing_that_began_before_it() {
        let known = KnownNames::new(TTL, TTL, 1000);
        let begun = Instant::now();
        known.put_listing(7, begun, HashMap::from([("gone".into(), file())]), true);
        known.changed(7, "new", Some(file()));
        known.changed(7, "gone", None);
        known.put_listing(7, begun, HashMap::from([("gone".into(), file())]), true);
        let now = Instant::now();
        assert_eq!(known.get(7, "new", now).unwrap().what, Some(file()));
        assert_eq!(known.get(7, "gone", now).unwrap().what, None);
        known.put_listing(
            7,
            Instant::now(),
            HashMap::from([("gone".into(), file())]),
            true,
        );
        assert_eq!(known.get(7, "new", now).unwrap().what, None);
        assert_eq!(known.get(7, "gone", now).unwrap().what, Some(file()));
    }

    /// A rename that copied and could not delete entered its new name as absent, though it is there.
    #[test]
    fn a_dropped_name_is_neither_there_nor_absent() {
        let known = KnownNames::new(TTL, TTL, 1000);
        let now = Instant::now();
        known.put_listing(7, now, HashMap::new(), true);
        known.put(7, "a", None, now);
        known.drop_name(7, "a");
        assert_eq!(known.get(7, "a", now), None);
    }

    #[test]
    fn no_ttl_means_no_memory() {
        let known = KnownNames::new(Duration::ZERO, Duration::ZERO, 1000);
        let now = Instant::now();
        known.put_listing(7, now, HashMap::new(), true);
        known.put(7, "a", Some(file()), now);
        assert_eq!(known.get(7, "a", now), None);
    }
}
