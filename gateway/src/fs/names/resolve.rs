//! What a name is: from what is known of it, else by asking the store, with a HEAD of the name and a listing
//! beside it. In a directory that fits one page the listing is the whole directory, so that the next look-ups
//! there, found or not, need no request; in a larger one it asks only whether the name is a directory. What is
//! known as a directory has its marker asked for at the same time: a listing shows no type, mode or owner.

use std::sync::Arc;
use std::time::Instant;

use ackfs_cache::object::{Key, ObjectId};
use ackfs_cache::store::{ListPage, Metadata, ObjectInfo, StoreErrorKind, StoreResult};

use crate::fs::attr::Kind;
use crate::fs::error::{FsResult, look_again};
use crate::fs::names::Namespace;
use crate::fs::names::cache::{Fact, FactOrigin, NameFact, NameTarget, WholeListing};
use crate::fs::names::listing::{names_in, page_of};
use crate::fs::table::inode::Inode;

/// The most that one page of a listing brings.
const PAGE_MAX: u32 = 1000;

/// A name that was found: what it is, its metadata if a HEAD showed them, when the store was asked.
#[derive(Debug)]
pub(in crate::fs) struct Resolved {
    pub(in crate::fs) what: NameTarget,
    pub(in crate::fs) metadata: Option<Arc<Metadata>>,
    pub(in crate::fs) since: Instant,
}

/// Whether a first page of a directory's listing shows that `below` is a prefix in it; `None` if the page
/// ends before it.
fn shows_directory(page: &ListPage, below: &str) -> Option<bool> {
    if page.prefixes.iter().any(|prefix| prefix == below) {
        return Some(true);
    }
    let last = page.entries.last().map(|entry| entry.key.as_str());
    let last = last.max(page.prefixes.last().map(String::as_str));
    (page.next.is_none() || last > Some(below)).then_some(false)
}

impl Namespace {
    /// What the store says of a name. `None` if there is none. Waits for the store.
    ///
    /// # Errors
    /// The store's: what could not be asked is never absent.
    pub(in crate::fs) async fn resolve(
        &self,
        dir: &Arc<Inode>,
        name: &str,
    ) -> FsResult<Option<Resolved>> {
        let marker = Key::new(format!("{}{name}/", dir.key()));
        // Of what is known as a directory the marker is asked for at the same time.
        let (found, access) = if self.is_held_as(dir, name, true) {
            let (found, access) = tokio::join!(self.ask(dir, name), self.marker(&marker));
            (found?, Some(access))
        } else {
            (self.ask(dir, name).await?, None)
        };
        let Some(mut found) = found else {
            return Ok(None);
        };
        if found.what == NameTarget::Directory {
            let access = match access {
                Some(access) => access,
                None => self.marker(&marker).await,
            };
            found.metadata = Some(access?);
        }
        Ok(Some(found))
    }

    /// The metadata of a directory's marker; none where it has no marker.
    async fn marker(&self, key: &Key) -> StoreResult<Arc<Metadata>> {
        let info = self.head(key).await?;
        Ok(Arc::new(info.map(|info| info.metadata).unwrap_or_default()))
    }

    /// Asks for a directory's own mode and owner before somebody is let in by the mount's.
    ///
    /// # Errors
    /// [`look_again`] if they are others than the kernel was told: it decides anew. The store's. Waits for
    /// the store.
    pub(in crate::fs) async fn show_access(&self, dir: &Inode) -> FsResult<()> {
        let begun = Instant::now();
        let key = Key::new(dir.key());
        let metadata = self.marker(&key).await?;
        if dir.state().show_access(metadata, begun) {
            Ok(())
        } else {
            Err(look_again())
        }
    }

    /// What a name is, but for a directory's own mode and owner.
    async fn ask(&self, dir: &Arc<Inode>, name: &str) -> FsResult<Option<Resolved>> {
        let prefix = dir.key();
        let key = Key::new(format!("{prefix}{name}"));
        if self.cache.is_large(dir.ino()) {
            return self.ask_alone(dir, name, &key).await;
        }
        if self.contended.holds(dir.ino(), name) && self.is_held_as(dir, name, false) {
            // Its version is what is wanted to know, and of its directory nothing new.
            let begun = Instant::now();
            if let Some(info) = self.head(&key).await? {
                return Ok(self.keep_choice(dir, name, &key, false, Some(info), begun));
            }
        }
        // One listing serves all who look for names in this directory at once.
        let guard = dir.publishing().lock().await;
        let now = Instant::now();
        let lacked = self.cache.lacks(dir.ino(), name);
        if let Some(known) = self.cache.get(dir.ino(), name, now) {
            drop(guard);
            return self.complete(dir, name, &key, known).await;
        }
        let page = page_of(&prefix, true, PAGE_MAX);
        let (head, page) = tokio::join!(self.head(&key), self.store.list(page));
        let (page, head) = (page?, head?);
        let below = format!("{key}/");
        let is_large = page.next.is_some();
        let listed_as = shows_directory(&page, &below);
        let names = (!is_large).then(|| names_in(&prefix, page));
        let listed = names.as_ref().and_then(|names| names.get(name).cloned());
        if let Some(names) = names {
            self.put_listing(dir, names, now);
        } else {
            self.cache.put_large(dir.ino());
            drop(guard);
        }
        let is_directory = match listed_as {
            // MinIO lists `k/` for a moment when an object `k` is put or deleted.
            Some(true) => {
                let is_in_doubt = head.is_some() || self.is_held_as(dir, name, false);
                !is_in_doubt || self.holds_keys(&below).await?
            }
            Some(false) => false,
            None => self.holds_keys(&below).await?,
        };
        let found = self.choose(dir, &key, is_directory, head, now);
        let what = found.as_ref().map(|found| found.what.clone());
        if lacked && what.is_some() {
            self.cache.creations(dir.ino()).lock().foreign(now);
        }
        if is_large || what != listed {
            self.cache.put(dir.ino(), name, what, now);
        }
        Ok(found)
    }

    /// What is known of a name, with what a listing does not tell of it.
    async fn complete(
        &self,
        dir: &Inode,
        name: &str,
        key: &Key,
        known: NameFact,
    ) -> FsResult<Option<Resolved>> {
        let is_directory = known.what == Some(NameTarget::Directory);
        if !is_directory && !self.is_enough(dir, name, &known, Instant::now()) {
            return self.ask_type(dir, name, key).await;
        }
        Ok(known.what.map(|what| Resolved {
            what,
            metadata: None,
            since: known.since,
        }))
    }

    /// Keeps a listing for a look-up, if it may answer others.
    fn put_listing(&self, dir: &Inode, names: WholeListing, since: Instant) {
        if self.is_believable(dir, &names) {
            let origin = FactOrigin::Listing;
            let what = names;
            let listing = Fact {
                what,
                since,
                origin,
            };
            self.cache.put_listing(dir.ino(), listing);
        }
    }

    /// Whether a listing may answer look-ups. MinIO lists `k/` for a moment when an object `k` is put or
    /// deleted: 18 of 1,030 listings beside one writer.
    pub(in crate::fs) fn is_believable(&self, dir: &Inode, names: &WholeListing) -> bool {
        let directories = names
            .iter()
            .filter(|(_, what)| **what == NameTarget::Directory);
        directories
            .map(|(name, _)| name)
            .all(|name| !self.is_held_as(dir, name, false))
    }

    /// Whether the name has an inode here, and that is a directory, or is none.
    fn is_held_as(&self, dir: &Inode, name: &str, directory: bool) -> bool {
        let child = self.table.child(dir.ino(), name);
        child.is_some_and(|child| child.is_directory() == directory)
    }

    /// Asks for one name in a directory that is too large to list for it.
    async fn ask_alone(&self, dir: &Inode, name: &str, key: &Key) -> FsResult<Option<Resolved>> {
        let begun = Instant::now();
        let below = format!("{key}/");
        let (head, is_directory) = tokio::join!(self.head(key), self.holds_keys(&below));
        let (is_directory, head) = (is_directory?, head?);
        Ok(self.keep_choice(dir, name, key, is_directory, head, begun))
    }

    /// Asks for the type of a name that a listing has shown as an object.
    async fn ask_type(&self, dir: &Inode, name: &str, key: &Key) -> FsResult<Option<Resolved>> {
        let begun = Instant::now();
        let head = self.head(key).await?;
        Ok(self.keep_choice(dir, name, key, false, head, begun))
    }

    fn keep_choice(
        &self,
        dir: &Inode,
        name: &str,
        key: &Key,
        is_directory: bool,
        head: Option<ObjectInfo>,
        begun: Instant,
    ) -> Option<Resolved> {
        let found = self.choose(dir, key, is_directory, head, begun);
        let what = found.as_ref().map(|found| found.what.clone());
        self.cache.put(dir.ino(), name, what, begun);
        found
    }

    /// Whether what is known of a name is enough to show it.
    pub(in crate::fs) fn is_enough(
        &self,
        dir: &Inode,
        name: &str,
        known: &NameFact,
        now: Instant,
    ) -> bool {
        match &known.what {
            None => true,
            Some(NameTarget::Directory) => {
                let child = self.table.child(dir.ino(), name);
                child.is_some_and(|child| {
                    let state = child.state();
                    let shown = state.shown();
                    let valid = self.cache.remaining(true, shown.checked(), now);
                    shown.metadata().is_some() && !valid.is_zero()
                })
            }
            Some(what) => self.kind_of(dir, name, what, known.origin).is_some(),
        }
    }

    /// What a name is by `what` a request of `origin` said of it; `None` where only a HEAD can tell, because
    /// a listing shows no metadata and what is no file looks like one. Who reads a whole directory is shown
    /// files, unless other names were met in it: a HEAD for each small object would cost more than the
    /// listing.
    pub(in crate::fs) fn kind_of(
        &self,
        dir: &Inode,
        name: &str,
        what: &NameTarget,
        origin: FactOrigin,
    ) -> Option<Kind> {
        let (etag, size) = match what {
            NameTarget::Directory => return Some(Kind::Directory),
            NameTarget::File { etag, size, .. } => (etag, *size),
        };
        let is_shown = origin == FactOrigin::ReaderListing && !self.cache.holds_specials(dir.ino());
        if !Kind::is_in_doubt(size) || is_shown {
            return Some(Kind::File);
        }
        let key = Key::new(format!("{}{name}", dir.key()));
        let metadata = self.metadata.get(&ObjectId::new(key, etag.clone()))?;
        Some(Kind::of_object(&metadata, size))
    }

    /// A HEAD that was sent at `begun` showed an object. Gives what its metadata are.
    pub(in crate::fs) fn saw(
        &self,
        dir: u64,
        key: Key,
        info: ObjectInfo,
        begun: Instant,
    ) -> Arc<Metadata> {
        if Kind::of_object(&info.metadata, info.size) != Kind::File {
            self.cache.put_special(dir);
        }
        let id = ObjectId::new(key, info.etag);
        self.metadata.saw(id, info.modified, info.metadata, begun)
    }

    /// A directory wins over a file of the same name.
    fn choose(
        &self,
        dir: &Inode,
        key: &Key,
        is_directory: bool,
        head: Option<ObjectInfo>,
        begun: Instant,
    ) -> Option<Resolved> {
        if is_directory {
            return Some(Resolved {
                what: NameTarget::Directory,
                metadata: None,
                since: begun,
            });
        }
        let info = head?;
        let what = NameTarget::File {
            etag: info.etag.clone(),
            size: info.size,
            modified: info.modified,
        };
        Some(Resolved {
            what,
            metadata: Some(self.saw(dir.ino(), key.clone(), info, begun)),
            since: begun,
        })
    }

    /// HEAD, with "not found" as `None`. Waits for the store.
    ///
    /// # Errors
    /// The store's.
    pub(in crate::fs) async fn head(&self, key: &Key) -> StoreResult<Option<ObjectInfo>> {
        match self.store.head(key).await {
            Ok(info) => Ok(Some(info)),
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether there is a key that begins so.
    async fn holds_keys(&self, prefix: &str) -> StoreResult<bool> {
        let page = self.store.list(page_of(prefix, false, 1)).await?;
        Ok(!page.entries.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use ackfs_cache::store::memory::{Call, MemoryStore};
    use tokio::runtime::Handle as Runtime;

    use super::*;
    use crate::fs::attr::{Defaults, FileAttr};
    use crate::fs::names::NameLimits;
    use crate::fs::table::InodeTable;
    use crate::fs::table::inode::ROOT;

    /// The room without the verbs above it.
    fn names_of(store: &Arc<MemoryStore>) -> (Namespace, Arc<Inode>) {
        let defaults = Defaults {
            uid: 0,
            gid: 0,
            file_mode: 0o644,
            dir_mode: 0o755,
        };
        let attr = FileAttr::directory(&defaults, SystemTime::UNIX_EPOCH);
        let table = InodeTable::new("", attr, Instant::now());
        let root = table.get(ROOT).unwrap();
        let ttl = Duration::from_hours(1);
        let limits = NameLimits {
            positive_ttl: ttl,
            negative_ttl: ttl,
            names_max: 10_000,
        };
        let names = Namespace::new(limits, store.clone(), table, Runtime::current());
        (names, root)
    }

    fn counted(store: &MemoryStore) -> (usize, usize) {
        let calls = store.calls();
        let count = |call| calls.iter().filter(|it| it.0 == call).count();
        assert_eq!(count(Call::Head) + count(Call::List), calls.len());
        (count(Call::Head), count(Call::List))
    }

    #[tokio::test]
    async fn one_listing_answers_for_all_names_of_a_directory() {
        let store = MemoryStore::new();
        for key in ["a", "b", "d/x"] {
            store.plant(key, vec![0; 5000]);
        }
        let (names, root) = names_of(&store);
        let (a, b) = tokio::join!(names.resolve(&root, "a"), names.resolve(&root, "b"));
        assert!(a.unwrap().is_some() && b.unwrap().is_some());
        assert_eq!(counted(&store), (1, 1), "asked at the same time");
        assert!(names.resolve(&root, "c").await.unwrap().is_none());
        assert_eq!(counted(&store), (0, 0));
        let found = names.resolve(&root, "d").await.unwrap().unwrap();
        assert_eq!(found.what, NameTarget::Directory);
        assert_eq!(counted(&store), (1, 0), "its marker");
    }

    /// The first look-up in a directory that is too large to list asked for its name twice, and beside it for
    /// what the page had shown.
    #[tokio::test]
    async fn in_a_large_directory_nothing_is_asked_twice() {
        for (name, cost) in [
            ("n00003", (1, 1)),
            ("n01400", (1, 2)),
            ("d", (2, 1)),
            ("x", (1, 2)),
        ] {
            let store = MemoryStore::new();
            store.plant("d/x", "1");
            for index in 0..1500 {
                store.plant(&format!("n{index:05}"), "1");
            }
            let (names, root) = names_of(&store);
            let found = names.resolve(&root, name).await.unwrap();
            assert_eq!(found.is_some(), name != "x");
            assert_eq!(counted(&store), cost, "{name}");
            let again = names.resolve(&root, "n01401").await.unwrap();
            assert!(again.is_some());
            assert_eq!(counted(&store), (1, 1), "it is known to be large");
        }
    }

    #[tokio::test]
    async fn a_directory_wins_over_a_file_and_a_phantom_does_not() {
        let store = MemoryStore::new();
        store.plant("both", "1");
        store.plant("both/x", "1");
        let (names, root) = names_of(&store);
        let found = names.resolve(&root, "both").await.unwrap().unwrap();
        assert_eq!(found.what, NameTarget::Directory);
        assert_eq!(
            counted(&store),
            (2, 2),
            "the prefix is looked at when there is a file too"
        );
    }
}
