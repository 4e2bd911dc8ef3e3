//! What the store said of names lately: so that look-ups and creations need no request of their own.
//!
//! Each thing is kept as a [`Fact`]: what it is, which request said so, and since when. A directory's listing
//! that came back whole in one page answers every look-up in that directory, found or not, until it is older
//! than the mount's TTL. Answers about one name are kept beside it, for directories that are too large; of two
//! facts about a name the younger holds. The age counts from when the request was *sent*: what was published
//! before that is in its answer. Changes made through this mount are entered as they happen.
//!
//! What an object carries beside its bytes is known by its version: see [`metadata`](super::metadata).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ackfs_cache::object::ETag;
use moka::sync::Cache;
use parking_lot::Mutex;

use crate::fs::names::creations::Creations;

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameTarget {
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

/// Which request said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FactOrigin {
    /// A HEAD of the name, and of a directory the listing below it: nobody knows more.
    Head,
    /// A listing of its directory for somebody who looked a name up. It has sizes and versions and shows no
    /// metadata.
    Listing,
    /// The same for a reader of the directory, who was shown all names as files: the kernel holds the same.
    ReaderListing,
    /// The object was published here.
    Publish,
    /// This mount made, moved or removed it otherwise.
    OwnChange,
}

/// What is known of something, who said so, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact<T> {
    /// It. Of a name `None` says that there is none.
    pub what: T,
    /// When the store was asked; of what this mount changed, when the store had taken it.
    pub since: Instant,
    /// Who said so.
    pub origin: FactOrigin,
}

/// What is known of one name; `None` is its absence.
pub type NameFact = Fact<Option<NameTarget>>;

/// All names of a directory.
pub type WholeListing = HashMap<Box<str>, NameTarget>;

/// See the module. All methods take `&self` and never wait.
#[derive(Debug)]
pub struct NameCache {
    positive_ttl: Duration,
    negative_ttl: Duration,
    /// Directories that came whole. A name that was changed here since the listing is changed in it, and
    /// the fact of the change stands in `single` for as long as there is room.
    listings: Cache<u64, Arc<Mutex<Fact<WholeListing>>>>,
    single: Cache<(u64, Box<str>), NameFact>,
    /// Directories that did not fit one page when last listed.
    large: Cache<u64, ()>,
    /// What this mount creates, by directory.
    creations: Cache<u64, Arc<Mutex<Creations>>>,
    /// Directories that hold symbolic links, FIFOs or sockets.
    specials: Cache<u64, ()>,
}

/// Directories that something is kept of beside names: that they are large, that they hold links.
const DIRECTORIES_MAX: u64 = 20_000;
/// Directories whose creations are watched.
const WATCHED_MAX: u64 = 1000;
/// For how long a directory that was too large is not listed for a look-up again.
const LARGE_FOR: Duration = Duration::from_secs(60);

impl NameCache {
    /// Believes what was found for `positive_ttl` and what was not for `negative_ttl`. Keeps `names_max`
    /// names of listings twice, and half as many single answers.
    pub fn new(positive_ttl: Duration, negative_ttl: Duration, names_max: usize) -> Self {
        let longest = positive_ttl.max(negative_ttl);
        let names_max = names_max as u64;
        Self {
            positive_ttl,
            negative_ttl,
            listings: Cache::builder()
                .weigher(|_, listing: &Arc<Mutex<Fact<WholeListing>>>| {
                    u32::try_from(listing.lock().what.len() + 8).unwrap_or(u32::MAX)
                })
                .max_capacity(names_max * 2)
                .time_to_live(longest)
                .build(),
            single: Cache::builder()
                .max_capacity(names_max / 2)
                .time_to_live(longest)
                .build(),
            creations: Cache::builder()
                .max_capacity(WATCHED_MAX)
                .time_to_idle(LARGE_FOR)
                .build(),
            large: Cache::builder()
                .max_capacity(DIRECTORIES_MAX)
                .time_to_live(LARGE_FOR)
                .build(),
            specials: Cache::new(DIRECTORIES_MAX),
        }
    }

    /// Gives up what is too old to be believed, which otherwise waits for somebody to look there.
    pub fn tidy(&self) {
        self.listings.run_pending_tasks();
        self.single.run_pending_tasks();
        self.creations.run_pending_tasks();
    }

    /// The watch over creations in `dir`.
    pub fn creations(&self, dir: u64) -> Arc<Mutex<Creations>> {
        self.creations.get_with(dir, Arc::default)
    }

    /// For how much longer an answer of that age may be believed.
    pub fn remaining(&self, found: bool, since: Instant, now: Instant) -> Duration {
        let ttl = if found {
            self.positive_ttl
        } else {
            self.negative_ttl
        };
        ttl.saturating_sub(now.saturating_duration_since(since))
    }

    /// What is known of `name` in `dir`, if it is fresh.
    pub fn get(&self, dir: u64, name: &str, now: Instant) -> Option<NameFact> {
        let single = self.single.get(&(dir, name.into()));
        let listed = self.listings.get(&dir).map(|listing| {
            let listing = listing.lock();
            Fact {
                what: listing.what.get(name).cloned(),
                since: listing.since,
                origin: listing.origin,
            }
        });
        // A listing that was on its way while this mount changed the name does not have the change, and
        // comes in after it. One of the same age as an answer says what it was not asked for too.
        let fact = match (listed, single) {
            (Some(listed), Some(single)) if single.since > listed.since => single,
            (listed, single) => listed.or(single)?,
        };
        self.is_fresh(dir, name, &fact, now).then_some(fact)
    }

    fn is_fresh(&self, dir: u64, name: &str, fact: &NameFact, now: Instant) -> bool {
        let is_believed = |found| !self.remaining(found, fact.since, now).is_zero();
        if fact.what.is_some() {
            return is_believed(true);
        }
        let covers = |watch: &Arc<Mutex<Creations>>| watch.lock().covers(name, now);
        let covered = || self.creations.get(&dir).as_ref().is_some_and(covers);
        is_believed(false) || (is_believed(true) && covered())
    }

    /// Whether a listing of `dir` is held, however old, and `name` is not in it.
    pub fn lacks(&self, dir: u64, name: &str) -> bool {
        let listing = self.listings.get(&dir);
        listing.is_some_and(|listing| !listing.lock().what.contains_key(name))
    }

    /// All that `dir` holds. What was asked before that which is held is not taken.
    pub fn put_listing(&self, dir: u64, listing: Fact<WholeListing>) {
        let held = self.listings.get(&dir);
        let is_older = held.is_some_and(|held| held.lock().since > listing.since);
        if !is_older && !self.positive_ttl.max(self.negative_ttl).is_zero() {
            self.listings.insert(dir, Arc::new(Mutex::new(listing)));
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

    /// The store said this of one name when it was asked for it at `since`.
    pub fn put(&self, dir: u64, name: &str, what: Option<NameTarget>, since: Instant) {
        let origin = FactOrigin::Head;
        self.enter(
            dir,
            name,
            Fact {
                what,
                since,
                origin,
            },
        );
    }

    /// This mount published the name's object. See [`NameCache::changed`].
    pub fn published(&self, dir: u64, name: &str, what: NameTarget) {
        self.change(dir, name, Some(what), FactOrigin::Publish);
    }

    /// This mount changed the name, and the store has taken it. Fresh listings learn it, stale ones stay
    /// stale.
    pub fn changed(&self, dir: u64, name: &str, what: Option<NameTarget>) {
        self.change(dir, name, what, FactOrigin::OwnChange);
    }

    fn change(&self, dir: u64, name: &str, what: Option<NameTarget>, origin: FactOrigin) {
        // Not when the operation began: a listing that was asked for after that and before the store took
        // the change does not have it.
        let since = Instant::now();
        self.enter(
            dir,
            name,
            Fact {
                what,
                since,
                origin,
            },
        );
    }

    fn enter(&self, dir: u64, name: &str, fact: NameFact) {
        if let Some(listing) = self.listings.get(&dir) {
            let mut listing = listing.lock();
            match fact.what.clone() {
                Some(what) => listing.what.insert(name.into(), what),
                None => listing.what.remove(name),
            };
        }
        self.single.insert((dir, name.into()), fact);
    }

    /// Nothing is known of the name any more, nor of what else is in `dir`.
    pub fn drop_name(&self, dir: u64, name: &str) {
        self.single.invalidate(&(dir, name.into()));
        self.drop_directory(dir);
    }

    /// Nothing is known of `dir` any more.
    pub fn drop_directory(&self, dir: u64) {
        self.listings.invalidate(&dir);
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
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(5);

    fn file() -> NameTarget {
        NameTarget::File {
            etag: ETag::new("\"1\""),
            size: 1,
            modified: SystemTime::UNIX_EPOCH,
        }
    }

    fn list(cache: &NameCache, since: Instant, names: &[&str]) {
        let names = names.iter().map(|name| ((*name).into(), file()));
        let listing = Fact {
            what: names.collect(),
            since,
            origin: FactOrigin::ReaderListing,
        };
        cache.put_listing(7, listing);
    }

    fn cache() -> NameCache {
        NameCache::new(TTL, TTL, 1000)
    }

    #[test]
    fn a_whole_listing_answers_for_what_is_not_in_it() {
        let (cache, now) = (cache(), Instant::now());
        list(&cache, now, &["a"]);
        assert_eq!(cache.get(7, "a", now).unwrap().what, Some(file()));
        assert_eq!(cache.get(7, "b", now).unwrap().what, None);
        assert_eq!(cache.get(8, "a", now), None);
    }

    #[test]
    fn age_counts_from_the_begin_of_the_request() {
        let (cache, since) = (cache(), Instant::now());
        list(&cache, since, &[]);
        assert!(cache.get(7, "a", since + TTL * 9 / 10).is_some());
        assert!(cache.get(7, "a", since + TTL).is_none());
    }

    #[test]
    fn own_changes_are_entered() {
        let (cache, now) = (cache(), Instant::now());
        list(&cache, now, &[]);
        cache.changed(7, "a", Some(file()));
        assert_eq!(cache.get(7, "a", now).unwrap().what, Some(file()));
        cache.changed(7, "a", None);
        assert_eq!(cache.get(7, "a", now).unwrap().what, None);
    }

    #[test]
    fn the_younger_of_two_facts_holds_and_says_where_it_came_from() {
        let (cache, begun) = (cache(), Instant::now());
        list(&cache, begun, &["a"]);
        let known = |now| cache.get(7, "a", now).map(|fact| fact.origin);
        assert_eq!(known(begun), Some(FactOrigin::ReaderListing));
        cache.put(7, "a", Some(file()), begun + TTL / 2);
        assert_eq!(
            known(begun + TTL),
            Some(FactOrigin::Head),
            "not as old as the listing"
        );
        list(&cache, begun + TTL, &["a"]);
        assert_eq!(known(begun + TTL), Some(FactOrigin::ReaderListing));
        cache.published(7, "b", file());
        let fact = cache.get(7, "b", begun).unwrap();
        assert_eq!(
            fact.origin,
            FactOrigin::ReaderListing,
            "a listing that was asked later has it"
        );
    }

    /// A file published while its directory was listed was answered for by that listing: not there.
    #[test]
    fn a_change_outlives_a_listing_that_began_before_it() {
        let (cache, begun) = (cache(), Instant::now());
        list(&cache, begun, &["gone"]);
        cache.published(7, "new", file());
        cache.changed(7, "gone", None);
        list(&cache, begun, &["gone"]);
        let now = Instant::now();
        assert_eq!(cache.get(7, "new", now).unwrap().what, Some(file()));
        assert_eq!(
            cache.get(7, "new", now).unwrap().origin,
            FactOrigin::Publish
        );
        assert_eq!(cache.get(7, "gone", now).unwrap().what, None);
        list(&cache, Instant::now(), &["gone"]);
        assert_eq!(cache.get(7, "new", now).unwrap().what, None);
        assert_eq!(cache.get(7, "gone", now).unwrap().what, Some(file()));
    }

    /// A rename that copied and could not delete entered its new name as absent, though it is there.
    #[test]
    fn a_dropped_name_is_neither_there_nor_absent() {
        let (cache, now) = (cache(), Instant::now());
        list(&cache, now, &[]);
        cache.put(7, "a", None, now);
        cache.drop_name(7, "a");
        assert_eq!(cache.get(7, "a", now), None);
    }

    #[test]
    fn no_ttl_means_no_memory() {
        let cache = NameCache::new(Duration::ZERO, Duration::ZERO, 1000);
        let now = Instant::now();
        list(&cache, now, &[]);
        cache.put(7, "a", Some(file()), now);
        assert_eq!(cache.get(7, "a", now), None);
    }
}
