//! Inodes: our record of each file and directory, alive while the kernel holds look-ups, a handle
//! is open, or bytes are still to be published.
//!
//! An inode shows one version of one object at a time. When a foreign client replaces the object
//! and nobody has the file open, the inode moves to the new version. When somebody has it open, the
//! inode keeps the version that they opened and is *detached* from its name: the next look-up makes
//! a new inode. So the kernel's page cache, which is per inode, never mixes bytes of two versions.
//!
//! Numbers are never used twice, so the kernel's generation stays 0.
//!
//! One file may have two inodes for a while: readers that the kernel serves from the cache file by
//! itself keep theirs when somebody writes, and everybody else gets its *successor*
//! ([`Table::succeed`]). Both show the same `st_ino`, for it is the same file.
//!
//! Lock order: the table, then one inode's state. Neither is held across an await.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ackfs_cache::dirty::DirtyFile;
use ackfs_cache::object::{ETag, Key, ObjectId};
use ackfs_cache::store::Metadata;
use parking_lot::Mutex;

use crate::fs::attr::{FileAttr, Kind};
use crate::fs::table::forgetting::Ages;
use crate::fuse::abi::{Attr, EntryOut};

/// The root's number (FUSE_ROOT_ID).
pub const ROOT: u64 = 1;

/// One file or directory.
#[derive(Debug)]
pub struct Inode {
    /// Its number.
    pub ino: u64,
    /// What stat(2) shows: its number, or that of the first inode that this one is a successor of.
    pub shown_ino: u64,
    /// Whether it came of a write beside passthrough: it is not passed through again, so that its
    /// readers see what is written from then on.
    pub is_successor: bool,
    /// What it is; that never changes.
    pub kind: Kind,
    /// The rest.
    pub state: Mutex<State>,
    /// Whether the last size that the kernel was told is that of the version shown. An answer to OPEN tells
    /// none: see `ops/open.rs`.
    size_told: AtomicBool,
    /// Held while its version at the store is being changed or asked for by an open, so that two
    /// opens or an open and a publish do not cross. Taken before any lock of the table.
    pub publishing: tokio::sync::Mutex<()>,
}

impl Inode {
    /// What stat(2) shows, to be told to the kernel.
    pub fn attr(&self, state: &State) -> Attr {
        self.size_told.store(true, Ordering::Relaxed);
        let mut attr = state.attr_now().to_wire(self.shown_ino);
        if state.unlinked {
            attr.nlink = 0;
        }
        attr
    }

    /// An answer to LOOKUP, believed for `valid`.
    pub fn entry(&self, state: &State, valid: Duration) -> EntryOut {
        let mut entry = state.attr_now().to_entry(self.ino, valid);
        entry.attr = self.attr(state);
        entry
    }

    /// The version shown is another than the kernel was told of, until [`Inode::attr`] tells it.
    pub fn size_is_untold(&self, _: &mut State) {
        self.size_told.store(false, Ordering::Relaxed);
    }

    /// Whether the kernel was told the size of the version shown.
    pub fn is_size_told(&self) -> bool {
        self.size_told.load(Ordering::Relaxed)
    }
}

/// A failure that its caller knows of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Trying again may help.
    Passing,
    /// Trying again would fail again: a lost race, a refusal.
    Final,
}

/// What changes about an inode.
#[derive(Debug)]
pub struct State {
    /// A file's key; a directory's prefix.
    pub key: Arc<str>,
    /// The directory that it is in.
    pub parent: u64,
    /// Its name there.
    pub name: Arc<str>,
    /// Whether `parent` and `name` still lead here.
    pub attached: bool,
    /// Its object is about to go, see `ops::orphan`: who would open it waits for `publishing`.
    pub leaving: bool,
    /// Removed by this mount: nothing is published any more.
    pub unlinked: bool,
    /// References that the kernel holds, and one of the inode that this is the successor of.
    pub lookups: u64,
    /// Somebody wanted it again since the kernel was last to forget some: see `forgetting.rs`.
    pub used: bool,
    /// Who has the name now, see [`Table::succeed`].
    pub successor: Option<Arc<Inode>>,
    /// Open handles.
    pub handles: u32,
    /// Of these, whose closes publish; and who changes the file without a handle, while that lasts.
    /// Who takes the last one away publishes what is dirty then: both are looked at under one lock.
    pub writers: u32,
    /// What stat(2) shows.
    pub attr: FileAttr,
    /// The version that it shows; `None` for a directory and for a file never published.
    pub version: Option<ETag>,
    /// The version whose bytes the kernel may hold in its page cache.
    pub kernel_pages: Option<ETag>,
    /// The object's metadata, once a HEAD has shown them.
    pub metadata: Option<Arc<Metadata>>,
    /// When the store was asked for what is shown here; the request's begin, not its end.
    pub checked: Instant,
    /// A directory that this mount took a name out of: it stays though the store may hold nothing
    /// of it any more.
    pub kept: bool,
    /// What was written and is not all published.
    pub dirty: Option<Arc<DirtyFile>>,
    /// Why the last publish failed. With nothing dirty left it is a late failure that nobody was
    /// told of: the next open says EIO once.
    pub stuck: Option<String>,
    /// The failure that a close or fsync has told of, if nothing was written since.
    pub told: Option<Told>,
    /// Whether somebody set the modification time by hand: only then is it published.
    pub mtime_set: bool,
    /// The kernel's backing file while passthrough handles are open.
    pub backing: Option<Arc<crate::fuse::mount::BackingId>>,
}

impl State {
    /// The version shown, by name.
    pub fn object(&self) -> Option<ObjectId> {
        let etag = self.version.clone()?;
        Some(ObjectId::new(Key::new(self.key.clone()), etag))
    }

    /// Whether this mount knows better than the store what the file holds.
    pub fn is_local(&self) -> bool {
        self.dirty.is_some() || self.kept
    }

    /// Whether there is something to publish.
    pub fn is_dirty(&self) -> bool {
        self.dirty.as_ref().is_some_and(|dirty| dirty.is_dirty())
    }

    /// Whether the store knows the file as well as this mount does: an open asks it, since somebody
    /// else may have replaced what was published here.
    pub fn is_the_stores(&self) -> bool {
        let is_held = self.unlinked || self.leaving || self.version.is_none();
        !self.is_local() || !(self.kept || is_held || self.is_dirty())
    }

    /// The attributes, with the size of what was written.
    pub fn attr_now(&self) -> FileAttr {
        let mut attr = self.attr;
        if let Some(dirty) = &self.dirty {
            attr.size = dirty.size();
        }
        attr
    }

    /// The metadata to publish.
    pub fn metadata_now(&self) -> Metadata {
        let foreign = self.metadata.clone().unwrap_or_default();
        self.attr.to_metadata(&foreign, self.mtime_set)
    }

    /// From now on what is written goes to `dirty`.
    pub fn begin_writing(&mut self, dirty: Arc<DirtyFile>) {
        // An upload that begins while the file is written has to know them.
        dirty.set_metadata(self.metadata_now());
        self.dirty = Some(dirty);
    }

    /// The kernel gets one reference.
    pub fn give_out(&mut self) {
        self.used = self.lookups > 0;
        self.lookups += 1;
    }

    /// Whether neither a name nor a handle leads to it any more.
    pub fn is_gone(&self) -> bool {
        self.unlinked && self.handles == 0
    }

    /// Whether nothing needs the inode any more.
    fn is_idle(&self) -> bool {
        self.lookups == 0 && self.handles == 0 && self.dirty.is_none()
    }
}

/// All inodes and the names that lead to them.
#[derive(Debug)]
pub struct Table {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    by_ino: HashMap<u64, Arc<Inode>>,
    by_name: HashMap<(u64, Arc<str>), u64>,
    /// Names of files that the store may not know yet, by directory: readdir shows them.
    local: HashMap<u64, BTreeSet<Arc<str>>>,
    next: u64,
    ages: Ages,
}

/// What a new inode begins with.
#[derive(Debug)]
pub struct NewInode {
    /// The directory that it is in.
    pub parent: u64,
    /// Its name there.
    pub name: Arc<str>,
    /// A file's key; a directory's prefix.
    pub key: Arc<str>,
    /// What stat(2) shows.
    pub attr: FileAttr,
    /// The version that it shows.
    pub version: Option<ETag>,
    /// The object's metadata if a HEAD has shown them.
    pub metadata: Option<Arc<Metadata>>,
    /// When the store was asked.
    pub checked: Instant,
    /// What is to be published of it, if it is new here.
    pub dirty: Option<Arc<DirtyFile>>,
}

impl NewInode {
    fn into_inode(self, ino: u64) -> Inode {
        Inode {
            ino,
            shown_ino: ino,
            is_successor: false,
            kind: self.attr.kind,
            publishing: tokio::sync::Mutex::new(()),
            size_told: AtomicBool::new(true),
            state: Mutex::new(State {
                key: self.key,
                parent: self.parent,
                name: self.name,
                attached: true,
                leaving: false,
                unlinked: false,
                lookups: 0,
                used: false,
                successor: None,
                handles: 0,
                writers: 0,
                attr: self.attr,
                version: self.version,
                kept: false,
                kernel_pages: None,
                metadata: self.metadata,
                checked: self.checked,
                dirty: self.dirty,
                stuck: None,
                told: None,
                mtime_set: false,
                backing: None,
            }),
        }
    }
}

impl Table {
    /// A table that holds only the root, which the kernel never forgets.
    pub fn new(prefix: &str, attr: FileAttr, now: Instant) -> Self {
        let root = NewInode {
            parent: ROOT,
            name: "".into(),
            key: prefix.into(),
            attr,
            version: None,
            metadata: None,
            checked: now,
            dirty: None,
        }
        .into_inode(ROOT);
        root.state.lock().lookups = 1;
        let mut by_ino = HashMap::new();
        by_ino.insert(ROOT, Arc::new(root));
        let inner = Inner {
            by_ino,
            by_name: HashMap::new(),
            local: HashMap::new(),
            next: ROOT + 1,
            ages: Ages::default(),
        };
        Self {
            inner: Mutex::new(inner),
        }
    }

    /// The inode of that number.
    pub fn get(&self, ino: u64) -> Option<Arc<Inode>> {
        self.inner.lock().by_ino.get(&ino).cloned()
    }

    /// The inode that a name leads to.
    pub fn child(&self, parent: u64, name: &str) -> Option<Arc<Inode>> {
        let inner = self.inner.lock();
        let ino = inner.by_name.get(&(parent, name.into()))?;
        inner.by_ino.get(ino).cloned()
    }

    /// The inode that `new`'s name leads to if `keep` likes it (it gets the inode's state), else a
    /// new one that takes the name over. A directory is never kept for what is none, nor the other
    /// way. The kernel gets one reference to it; see [`Table::forget`].
    pub fn find_or_insert(
        &self,
        new: NewInode,
        keep: impl FnOnce(&Inode, &mut State, &NewInode) -> bool,
    ) -> Arc<Inode> {
        let mut inner = self.inner.lock();
        let place = (new.parent, new.name.clone());
        let old = inner
            .by_name
            .get(&place)
            .and_then(|ino| inner.by_ino.get(ino))
            .cloned();
        if let Some(old) = old {
            let is_dir = |kind| kind == Kind::Directory;
            let mut state = old.state.lock();
            if is_dir(old.kind) == is_dir(new.attr.kind) && keep(&old, &mut state, &new) {
                state.give_out();
                drop(state);
                return old;
            }
            drop(state);
            inner.detach(&old);
        }
        let ino = inner.next;
        inner.next += 1;
        let local = new.dirty.is_some();
        let inode = Arc::new(new.into_inode(ino));
        inode.state.lock().give_out();
        if local {
            inner
                .local
                .entry(place.0)
                .or_default()
                .insert(place.1.clone());
        }
        inner.by_name.insert(place, ino);
        inner.by_ino.insert(ino, inode.clone());
        inner.ages.born(ino);
        inode
    }

    /// Inodes that the kernel may be asked to forget, if there are more than `wanted`: some of those that
    /// nobody wanted for longest. Each call looks at a bounded number of them.
    pub fn superfluous(&self, wanted: usize) -> Vec<u64> {
        let inner = &mut *self.inner.lock();
        inner.ages.superfluous(&inner.by_ino, wanted)
    }

    /// The name does not lead to `inode` any more.
    pub fn detach(&self, inode: &Inode) {
        self.inner.lock().detach(inode);
    }

    /// The name leads to a new inode of the same file from now on, which the kernel finds when it
    /// looks the name up again. The old one stays with those who have it open.
    pub fn succeed(&self, old: &Inode) {
        let mut inner = self.inner.lock();
        let (parent, name, mut new) = {
            let state = old.state.lock();
            if !state.attached || state.unlinked {
                return;
            }
            let new = NewInode {
                parent: state.parent,
                name: state.name.clone(),
                key: state.key.clone(),
                attr: state.attr,
                version: state.version.clone(),
                metadata: state.metadata.clone(),
                checked: state.checked,
                dirty: None,
            };
            (state.parent, state.name.clone(), new.into_inode(inner.next))
        };
        new.shown_ino = old.shown_ino;
        new.is_successor = true;
        // The kernel may look it up and forget it at once, before it looks it up to keep it
        // (`fuse_dentry_revalidate`): the old one holds it as long as itself lives.
        new.state.lock().give_out();
        let new = Arc::new(new);
        inner.next += 1;
        inner.detach(old);
        inner.by_name.insert((parent, name), new.ino);
        inner.by_ino.insert(new.ino, new.clone());
        inner.ages.born(new.ino);
        old.state.lock().successor = Some(new);
    }

    /// `inode` is now called `name` in `parent`; whatever was called so is detached and given.
    pub fn rename(
        &self,
        inode: &Arc<Inode>,
        parent: u64,
        name: &str,
        key: &str,
    ) -> Option<Arc<Inode>> {
        let mut inner = self.inner.lock();
        let old = inner
            .by_name
            .get(&(parent, name.into()))
            .and_then(|ino| inner.by_ino.get(ino))
            .filter(|old| old.ino != inode.ino)
            .cloned();
        if let Some(old) = &old {
            inner.detach(old);
        }
        inner.detach(inode);
        let mut state = inode.state.lock();
        state.parent = parent;
        state.name = name.into();
        state.key = key.into();
        state.attached = true;
        let name = state.name.clone();
        if state.dirty.is_some() {
            inner.local.entry(parent).or_default().insert(name.clone());
        }
        inner.by_name.insert((parent, name), inode.ino);
        old
    }

    /// The store knows the file now, or never will: readdir takes it from there.
    pub fn settled(&self, inode: &Inode) {
        let mut inner = self.inner.lock();
        let (parent, name) = {
            let state = inode.state.lock();
            if !state.attached {
                // Whatever is called so by now is another file.
                return;
            }
            (state.parent, state.name.clone())
        };
        inner.unlist(parent, &name);
    }

    /// The file has bytes that the store does not know: readdir shows it whatever the store says.
    pub fn unsettled(&self, inode: &Inode) {
        let mut inner = self.inner.lock();
        let state = inode.state.lock();
        if state.attached {
            inner
                .local
                .entry(state.parent)
                .or_default()
                .insert(state.name.clone());
        }
    }

    /// Names in `parent` of files that the store may not know yet, in order.
    pub fn local_names(&self, parent: u64) -> Vec<Arc<str>> {
        let inner = self.inner.lock();
        inner
            .local
            .get(&parent)
            .map(|names| names.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// The kernel gets one reference to an inode that it may have forgotten since it was found. False
    /// if the inode is gone.
    pub fn refer(&self, inode: &Inode) -> bool {
        let inner = self.inner.lock();
        let is_here = inner.by_ino.contains_key(&inode.ino);
        if is_here {
            inode.state.lock().give_out();
        }
        is_here
    }

    /// The kernel drops `count` references; the inode goes when nothing needs it.
    pub fn forget(&self, ino: u64, count: u64) {
        let mut inner = self.inner.lock();
        let Some(inode) = inner.by_ino.get(&ino).cloned() else {
            return;
        };
        {
            let mut state = inode.state.lock();
            state.lookups = state.lookups.saturating_sub(count);
        }
        inner.collect(&inode);
    }

    /// Lets the inode go if nothing needs it.
    pub fn collect(&self, inode: &Arc<Inode>) {
        self.inner.lock().collect(inode);
    }

    /// How many inodes wait in line to be forgotten, those included that are gone.
    #[cfg(test)]
    pub(in crate::fs) fn line_len(&self) -> usize {
        self.inner.lock().ages.len()
    }

    /// All inodes that hold bytes to be published or have a late failure to tell.
    pub fn unsaved(&self) -> Vec<Arc<Inode>> {
        let inner = self.inner.lock();
        let all = inner.by_ino.values();
        all.filter(|inode| inode.state.lock().dirty.is_some())
            .cloned()
            .collect()
    }

    /// How many inodes there are.
    pub fn count(&self) -> usize {
        self.inner.lock().by_ino.len()
    }
}

impl Inner {
    fn detach(&mut self, inode: &Inode) {
        let mut state = inode.state.lock();
        if !state.attached {
            return;
        }
        state.attached = false;
        let place = (state.parent, state.name.clone());
        if self.by_name.get(&place) == Some(&inode.ino) {
            self.by_name.remove(&place);
        }
        self.unlist(place.0, &place.1);
    }

    fn unlist(&mut self, parent: u64, name: &str) {
        if let Some(names) = self.local.get_mut(&parent) {
            names.remove(name);
            if names.is_empty() {
                self.local.remove(&parent);
            }
        }
    }

    fn collect(&mut self, inode: &Arc<Inode>) {
        if inode.ino == ROOT || !inode.state.lock().is_idle() {
            return;
        }
        self.detach(inode);
        self.by_ino.remove(&inode.ino);
        let successor = inode.state.lock().successor.take();
        if let Some(successor) = successor {
            successor.state.lock().lookups -= 1;
            self.collect(&successor);
        }
    }
}
