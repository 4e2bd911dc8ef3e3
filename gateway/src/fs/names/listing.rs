//! A directory being read: pages of a listing, streamed ahead of the reader, turned into names.
//!
//! A task fetches pages and keeps `PAGES_AHEAD` of them ready. The lister turns them into items
//! (hidden keys counted, shadowed files folded, files not yet published added at the end), gives
//! each the next offset and keeps a window of them, so that a reader may step back a little: READDIR
//! asks again for what did not fit. Whoever steps back further makes it list again from a mark.
//! Offsets: 1 is `.`, 2 is `..`, then the names in the order they came.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use ackfs_cache::store::{ListEntry, ListPage, ListRequest, ObjectStore, StoreResult};
use tokio::runtime::Handle as Runtime;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::fs::names::cache::{Fact, FactOrigin, NameTarget, WholeListing};
use crate::fs::names::key::name_of;
use crate::fs::names::shadow::Shadows;

/// Pages fetched beyond the one being read.
const PAGES_AHEAD: usize = 2;
/// Items kept behind the reader; a page of names is at most a thousand.
const WINDOW: usize = 4096;
/// The offset of the first name, behind `.` and `..`.
const FIRST: u64 = 3;

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedName {
    /// The name.
    pub name: Box<str>,
    /// What the listing says of it; `None` for a file that this mount has not published yet.
    pub what: Option<NameTarget>,
    /// When the store was asked: for the page that it is on. A long directory takes longer to read than
    /// a name is believed.
    pub since: Instant,
}

/// A page, and when it was asked for.
type TimedPage = (Instant, StoreResult<ListPage>);

/// What was met that cannot be shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Oddities {
    /// Keys that cannot be names.
    pub hidden: u64,
    /// Files that a directory of the same name shadows.
    pub shadowed: u64,
    /// The last such key.
    pub example: String,
}

/// A listing under way.
#[derive(Debug)]
pub struct Lister {
    prefix: String,
    store: Arc<dyn ObjectStore>,
    runtime: Runtime,
    pages: mpsc::Receiver<TimedPage>,
    task: AbortHandle,
    shadows: Shadows<(NameTarget, Instant)>,
    /// Names not yet published that the listing has not brought yet.
    local: BTreeSet<Arc<str>>,
    window: VecDeque<ListedName>,
    /// The offset of the window's first item.
    window_first: u64,
    /// Where to list again from: offset of the item after it, and its key.
    marks: Vec<(u64, String)>,
    ended: bool,
    was_read: bool,
    begun: Instant,
    /// Everything seen so far, while it is one page: a whole listing answers look-ups.
    whole: Option<WholeListing>,
    oddities: Oddities,
}

impl Drop for Lister {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Lister {
    /// Begins to list `prefix`; `local` are names to be shown though the store may not know them.
    pub fn new(
        prefix: String,
        local: Vec<Arc<str>>,
        store: Arc<dyn ObjectStore>,
        runtime: Runtime,
    ) -> Self {
        let (pages, task) = fetch(&prefix, None, &store, &runtime);
        Self {
            prefix,
            store,
            runtime,
            pages,
            task,
            shadows: Shadows::default(),
            local: local.into_iter().collect(),
            window: VecDeque::new(),
            window_first: FIRST,
            marks: Vec::new(),
            ended: false,
            was_read: false,
            begun: Instant::now(),
            whole: Some(WholeListing::new()),
            oddities: Oddities::default(),
        }
    }

    /// Whether anything was asked of it yet.
    pub fn was_read(&self) -> bool {
        self.was_read
    }

    /// The whole directory if it came in one page and all of it was seen; given once.
    pub fn take_whole(&mut self) -> Option<Fact<WholeListing>> {
        let what = self.whole.take_if(|_| self.ended)?;
        Some(Fact {
            what,
            since: self.begun,
            origin: FactOrigin::ReaderListing,
        })
    }

    /// What could not be shown since the last time this was asked.
    pub fn take_oddities(&mut self) -> Oddities {
        std::mem::take(&mut self.oddities)
    }

    /// The item at `offset` (3 and up); `None` behind the last.
    ///
    /// # Errors
    /// The store's. Waits for the store.
    pub async fn at(&mut self, offset: u64) -> StoreResult<Option<ListedName>> {
        self.was_read = true;
        if offset < self.window_first {
            self.restart(offset);
        }
        loop {
            let index = (offset - self.window_first) as usize;
            if let Some(item) = self.window.get(index) {
                return Ok(Some(item.clone()));
            }
            if self.ended {
                return Ok(None);
            }
            self.next_page().await?;
            self.trim(offset);
        }
    }

    /// Lists again from the last mark before `offset`.
    fn restart(&mut self, offset: u64) {
        self.task.abort();
        let mark = self
            .marks
            .iter()
            .rev()
            .find(|(at, _)| *at <= offset)
            .cloned();
        self.marks
            .retain(|(at, _)| mark.as_ref().is_some_and(|(keep, _)| at <= keep));
        let (first, after) = match mark {
            Some((at, key)) => (at, Some(key)),
            None => (FIRST, None),
        };
        (self.pages, self.task) = fetch(&self.prefix, after, &self.store, &self.runtime);
        self.shadows = Shadows::default();
        self.window.clear();
        self.window_first = first;
        self.ended = false;
        self.whole = None;
    }

    /// Turns one more page into items.
    async fn next_page(&mut self) -> StoreResult<()> {
        let mut out = Vec::new();
        let Some((begun, page)) = self.pages.recv().await else {
            self.shadows.finish(&mut out);
            self.append(out);
            let local = std::mem::take(&mut self.local);
            self.window.extend(local.into_iter().map(|name| ListedName {
                name: (*name).into(),
                what: None,
                since: self.begun,
            }));
            self.ended = true;
            return Ok(());
        };
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                // What was read stays right; the next READDIR tries again from here.
                let offset = self.window_first + self.window.len() as u64;
                self.restart(offset.min(self.marks.last().map_or(FIRST, |mark| mark.0)));
                return Err(error);
            }
        };
        if page.next.is_some() {
            self.whole = None;
        }
        let last = page.entries.last().map(|entry| entry.key.clone());
        let ends_with_file = match (&last, page.prefixes.last()) {
            (Some(key), Some(prefix)) => key > prefix,
            (Some(_), None) => true,
            _ => false,
        };
        for (name, directory, what) in self.merge(page) {
            if self.shadows.push(&name, directory, (what, begun), &mut out) {
                self.oddities.shadowed += 1;
                self.oddities.example = format!("{}{name}", self.prefix);
            }
        }
        self.append(out);
        if let (Some(key), true, true) = (last, ends_with_file, self.shadows.is_empty()) {
            self.marks
                .push((self.window_first + self.window.len() as u64, key));
        }
        Ok(())
    }

    /// A page's objects and prefixes in one byte order, without what cannot be a name.
    fn merge(&mut self, page: ListPage) -> Vec<(String, bool, NameTarget)> {
        let mut entries = page.entries.into_iter().peekable();
        let mut prefixes = page.prefixes.into_iter().peekable();
        let mut merged = Vec::new();
        loop {
            let file_first = match (entries.peek(), prefixes.peek()) {
                (Some(entry), Some(prefix)) => entry.key < *prefix,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => return merged,
            };
            let (key, directory, what) = if file_first {
                let Some(entry) = entries.next() else {
                    return merged;
                };
                // The directory's own marker.
                if entry.key == self.prefix {
                    continue;
                }
                let (key, what) = file_of(entry);
                (key, false, what)
            } else {
                let Some(prefix) = prefixes.next() else {
                    return merged;
                };
                (prefix, true, NameTarget::Directory)
            };
            match name_of(&self.prefix, &key) {
                Some(name) => merged.push((name.to_owned(), directory, what)),
                None => {
                    self.oddities.hidden += 1;
                    self.oddities.example = key;
                }
            }
        }
    }

    fn append(&mut self, out: Vec<(String, (NameTarget, Instant))>) {
        for (name, (what, since)) in out {
            let name: Box<str> = name.into();
            self.local.remove(&*name);
            if let Some(whole) = &mut self.whole {
                whole.insert(name.clone(), what.clone());
            }
            self.window.push_back(ListedName {
                name,
                what: Some(what),
                since,
            });
        }
    }

    /// Drops what lies far behind the reader.
    fn trim(&mut self, offset: u64) {
        while self.window.len() > WINDOW && self.window_first + (WINDOW as u64 / 2) < offset {
            self.window.pop_front();
            self.window_first += 1;
        }
    }
}

/// The key of a listed object, and what its name leads to.
fn file_of(entry: ListEntry) -> (String, NameTarget) {
    let what = NameTarget::File {
        etag: entry.etag,
        size: entry.size,
        modified: entry.modified,
    };
    (entry.key, what)
}

/// All names in the directory `prefix`, of which `page` is the only page. A directory wins over a file.
pub(super) fn names_in(prefix: &str, page: ListPage) -> WholeListing {
    let files = page.entries.into_iter().map(file_of);
    let directories = page.prefixes.into_iter();
    let directories = directories.map(|key| (key, NameTarget::Directory));
    files
        .chain(directories)
        .filter_map(|(key, what)| Some((name_of(prefix, &key)?.into(), what)))
        .collect()
}

/// A request for one page.
pub(in crate::fs) fn page_of(prefix: &str, delimited: bool, keys_max: u32) -> ListRequest {
    ListRequest {
        prefix: prefix.to_owned(),
        delimited,
        token: None,
        start_after: None,
        keys_max,
    }
}

/// Starts the task that fetches pages.
fn fetch(
    prefix: &str,
    start_after: Option<String>,
    store: &Arc<dyn ObjectStore>,
    runtime: &Runtime,
) -> (mpsc::Receiver<TimedPage>, AbortHandle) {
    let (sender, receiver) = mpsc::channel(PAGES_AHEAD);
    let store = store.clone();
    let mut request = ListRequest {
        start_after,
        ..page_of(prefix, true, 1000)
    };
    let task = runtime.spawn(async move {
        loop {
            let begun = Instant::now();
            let page = store.list(request.clone()).await;
            let next = page.as_ref().ok().and_then(|page| page.next.clone());
            let last = next.is_none();
            // A closed channel is a reader that went away.
            if sender.send((begun, page)).await.is_err() || last {
                return;
            }
            request.token = next;
            request.start_after = None;
        }
    });
    (receiver, task.abort_handle())
}

#[cfg(test)]
mod tests {
    use ackfs_cache::store::StoreErrorKind;
    use ackfs_cache::store::memory::{Call, Fault, MemoryStore};

    use super::*;

    fn lister(store: &Arc<MemoryStore>, prefix: &str, local: &[&str]) -> Lister {
        let local = local.iter().map(|name| (*name).into()).collect();
        Lister::new(prefix.to_owned(), local, store.clone(), Runtime::current())
    }

    async fn names(lister: &mut Lister) -> Vec<String> {
        let mut names = Vec::new();
        while let Some(item) = lister.at(FIRST + names.len() as u64).await.unwrap() {
            names.push(item.name.into());
        }
        names
    }

    #[tokio::test]
    async fn markers_shadows_hidden_and_local_names_are_told_apart() {
        let store = MemoryStore::new();
        for key in ["d/", "d/a", "d/a-b", "d/a/x", "d//y", "d/z", "d/sub/"] {
            store.plant(key, "1");
        }
        let mut lister = lister(&store, "d/", &["new", "z"]);
        assert_eq!(names(&mut lister).await, ["a-b", "a", "sub", "z", "new"]);
        assert_eq!(
            lister.take_oddities(),
            Oddities {
                hidden: 1,
                shadowed: 1,
                example: "d/a".to_owned(),
            }
        );
        let whole = lister.take_whole().unwrap().what;
        assert_eq!(whole.get("a"), Some(&NameTarget::Directory));
        assert_eq!(whole.len(), 4);
    }

    #[tokio::test]
    async fn many_names_stream_in_a_bounded_window_and_can_be_read_again() {
        let store = MemoryStore::new();
        for index in 0..12_345 {
            store.plant(&format!("n{index:05}"), "");
        }
        let mut lister = lister(&store, "", &[]);
        let first = names(&mut lister).await;
        assert_eq!(first.len(), 12_345);
        assert!(
            lister.window.len() <= WINDOW + 1000,
            "{}",
            lister.window.len()
        );
        assert!(lister.take_whole().is_none());
        assert_eq!(
            lister
                .at(FIRST + 5000)
                .await
                .unwrap()
                .unwrap()
                .name
                .as_ref(),
            "n05000"
        );
        assert_eq!(names(&mut lister).await, first);
    }

    /// The age of a name counted from the begin of the whole listing. In a directory that takes longer to
    /// list than a name is believed, `ls -l` looked every later name up, by a HEAD and a LIST each.
    #[tokio::test]
    async fn a_name_is_as_old_as_its_page() {
        let store = MemoryStore::new();
        for index in 0..1500 {
            store.plant(&format!("n{index:05}"), "");
        }
        let mut lister = lister(&store, "", &[]);
        let first = lister.at(FIRST).await.unwrap().unwrap().since;
        let second = lister.at(FIRST + 1400).await.unwrap().unwrap().since;
        assert!(lister.begun <= first && first < second);
    }

    #[tokio::test]
    async fn a_page_that_fails_is_an_error_and_the_next_try_goes_on() {
        let store = MemoryStore::new();
        for index in 0..2500 {
            store.plant(&format!("n{index:05}"), "");
        }
        let mut lister = lister(&store, "", &[]);
        assert!(lister.at(FIRST + 999).await.unwrap().is_some());
        store.inject(Call::List, Fault::Fail(StoreErrorKind::Broken));
        let mut failed = 0;
        let mut names = Vec::new();
        while names.len() < 2500 {
            match lister.at(FIRST + names.len() as u64).await {
                Ok(item) => names.push(item.unwrap().name),
                Err(_) => failed += 1,
            }
        }
        assert!(failed <= 1);
        assert!(
            names.windows(2).all(|pair| pair[0] < pair[1]),
            "a name came twice or was lost"
        );
    }
}
