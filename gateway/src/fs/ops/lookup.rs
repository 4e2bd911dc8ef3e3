//! Names: look-up, attributes, new files and directories.
//!
//! A look-up is answered at once from what is open here or from what the store said lately. Otherwise it
//! asks (`names::resolve`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ackfs_cache::dirty::Base;
use ackfs_cache::object::{Key, ObjectId};
use ackfs_cache::store::{Condition, Metadata, StoreErrorKind};
use ackfs_cache::upload::lost;

use crate::fs::attr::{FileAttr, Kind, negative_entry};
use crate::fs::error::{FsError, FsResult, look_again};
use crate::fs::names::cache::{Known, Listed};
use crate::fs::names::key::{directory_prefix, file_key};
use crate::fs::names::resolve::Found;
use crate::fs::ops::special::Special;
use crate::fs::table::inode::{Inode, NewInode, ROOT, State};
use crate::fs::{Context, Filesystem};
use crate::fuse::abi::StatfsOut;
use crate::fuse::{Caller, Responder};

impl Filesystem {
    pub(in crate::fs) fn lookup(&self, parent: u64, name: &[u8], responder: Responder) {
        let context = Context::new("lookup", parent);
        let (dir, name) = match self.place(parent, name) {
            Ok(place) => place,
            // A name that cannot be a key is a name that is not there.
            Err(FsError::NotUtf8) => return FsError::NoSuchName.answer(responder),
            Err(error) => return context.fail(responder, &error),
        };
        if !Self::has_shown_access(&dir) {
            // The kernel has let the caller in by the mount's mode and owner.
            let this = self.this();
            let name = name.clone();
            let work = async move { this.show_access(&dir).await };
            let this = self.this();
            return self.spawn_interruptible(context, responder, work, move |responder, ()| {
                this.lookup(parent, name.as_bytes(), responder);
            });
        }
        let now = Instant::now();
        let mut kept = None;
        if let Some(child) = self.inodes.child(parent, &name) {
            let mut state = child.state.lock();
            if state.is_local() && !state.unlinked {
                if !state.kept || !self.known.remaining(true, state.checked, now).is_zero() {
                    state.give_out();
                    let entry = child.entry(&state, Duration::ZERO);
                    drop(state);
                    return responder.entry(&entry);
                }
                // Somebody may have put an object of this name since.
                drop(state);
                kept = Some(child);
            }
        }
        if self.hot.holds(parent, &name) {
            let (this, again) = (self.this(), self.this());
            let context = Context::below(context.op, &dir, &name);
            let asked = name.clone();
            let work = async move { this.look_up_hot(&dir, &asked).await };
            return self.spawn_interruptible(context, responder, work, move |responder, entry| {
                match entry {
                    Some(entry) => responder.entry(&entry),
                    None => again.lookup(parent, name.as_bytes(), responder),
                }
            });
        }
        let known = self.known.get(parent, &name, now);
        let known = known.filter(|known| known.what.is_some() || kept.is_none());
        if let Some(known) = known.filter(|known| self.is_whole(&dir, &name, known)) {
            return self.answer_known(&dir, &name, known, now, responder);
        }
        let this = self.this();
        let context = Context::below(context.op, &dir, &name);
        self.spawn_interruptible(
            context,
            responder,
            async move {
                let found = this.ask(&dir, &name).await?;
                Ok((this, dir, name, found))
            },
            move |responder, (this, dir, name, found)| match (found, kept) {
                (Some(found), _) => this.answer_found(&dir, &name, &found, responder),
                (None, Some(kept)) if this.inodes.refer(&kept) => {
                    let entry = {
                        let mut state = kept.state.lock();
                        state.checked = now;
                        kept.entry(&state, Duration::ZERO)
                    };
                    responder.entry(&entry);
                }
                (None, _) => responder.entry(&negative_entry(this.config.negative_ttl)),
            },
        );
    }

    /// The directory and the name as text.
    pub(in crate::fs) fn place(
        &self,
        parent: u64,
        name: &[u8],
    ) -> FsResult<(Arc<Inode>, Box<str>)> {
        let dir = self.inode(parent)?;
        if dir.kind != Kind::Directory {
            return Err(FsError::NotDirectory);
        }
        file_key(&dir.state.lock().key, name)?;
        let name = std::str::from_utf8(name).map_err(|_| FsError::NotUtf8)?;
        Ok((dir, name.into()))
    }

    fn answer_known(
        &self,
        dir: &Arc<Inode>,
        name: &str,
        known: Known,
        now: Instant,
        responder: Responder,
    ) {
        match known.what {
            Some(what) => {
                let found = Found {
                    what,
                    metadata: None,
                    begun: known.begun,
                };
                self.answer_found(dir, name, &found, responder);
            }
            None => {
                let valid = self.known.remaining(false, known.begun, now);
                responder.entry(&negative_entry(valid));
            }
        }
    }

    fn answer_found(&self, dir: &Arc<Inode>, name: &str, found: &Found, responder: Responder) {
        let inode = self.reference(dir, name, &found.what, found.metadata.clone(), found.begun);
        let valid = self.known.remaining(true, found.begun, Instant::now());
        let entry = inode.entry(&inode.state.lock(), valid);
        responder.entry(&entry);
    }

    /// The inode of a name that was found, with one more reference for the kernel.
    pub(in crate::fs) fn reference(
        &self,
        dir: &Inode,
        name: &str,
        what: &Listed,
        metadata: Option<Arc<Metadata>>,
        begun: Instant,
    ) -> Arc<Inode> {
        let prefix = dir.state.lock().key.clone();
        let is_fresh = metadata.is_some();
        let new = match what {
            Listed::Directory => {
                let mut attr = FileAttr::directory(&self.defaults, dir.state.lock().attr.mtime);
                if let Some(metadata) = &metadata {
                    attr = attr.with_access(metadata);
                }
                NewInode {
                    parent: dir.ino,
                    name: name.into(),
                    key: format!("{prefix}{name}/").into(),
                    attr,
                    version: None,
                    metadata,
                    checked: begun,
                    dirty: None,
                }
            }
            Listed::File {
                etag,
                size,
                modified,
            } => {
                let key: Arc<str> = format!("{prefix}{name}").into();
                let id = ObjectId::new(Key::new(key.clone()), etag.clone());
                let metadata = metadata.or_else(|| self.known.metadata(&id));
                let mut attr = FileAttr::file(&self.defaults, *size, *modified);
                if let Some(metadata) = &metadata {
                    attr = attr.with_metadata(metadata);
                }
                NewInode {
                    parent: dir.ino,
                    name: name.into(),
                    key,
                    attr,
                    version: Some(id.etag),
                    metadata,
                    checked: begun,
                    dirty: None,
                }
            }
        };
        self.enter(new, |old, state, new| {
            if state.unlinked {
                return false;
            }
            if new.attr.kind == Kind::Directory {
                if new.metadata.is_some() && new.checked >= state.checked {
                    (state.attr.mode, state.attr.uid, state.attr.gid) = new.attr.access();
                    state.metadata.clone_from(&new.metadata);
                    state.checked = new.checked;
                }
                return true;
            }
            if state.is_local() {
                return true;
            }
            let is_alike = old.kind == new.attr.kind;
            if state.version == new.version {
                // The bytes are the same; its age changes, and what the store says beside them may have.
                // Its type is known with its metadata, and the kernel takes no other for one inode.
                if new.metadata.is_some() && !is_alike {
                    return false;
                }
                let is_newer = is_fresh && new.checked >= state.checked;
                if is_newer || (state.metadata.is_none() && new.metadata.is_some()) {
                    state.attr = new.attr;
                    state.metadata.clone_from(&new.metadata);
                }
                state.checked = state.checked.max(new.checked);
                return true;
            }
            if new.checked < state.checked {
                return true;
            }
            if state.handles > 0 || !is_alike {
                return false;
            }
            state.attr = new.attr;
            state.version.clone_from(&new.version);
            state.metadata.clone_from(&new.metadata);
            state.checked = new.checked;
            true
        })
    }

    pub(in crate::fs) fn getattr(&self, ino: u64, responder: Responder) {
        let inode = match self.inode(ino) {
            Ok(inode) => inode,
            Err(error) => return Context::new("getattr", ino).fail(responder, &error),
        };
        let now = Instant::now();
        {
            let state = inode.state.lock();
            let valid = self.known.remaining(true, state.checked, now);
            // An open file shows the version that was opened; a directory has nothing at the store.
            // What a listing showed is without mode and owner: the kernel asks here before it refuses
            // somebody (`fuse_permission`), so they are looked for.
            let is_shown = Self::is_root(ino) || state.metadata.is_some();
            let settled = (inode.kind == Kind::Directory && is_shown)
                || state.is_local()
                || state.handles > 0
                || state.unlinked
                || (!valid.is_zero() && state.metadata.is_some());
            if settled {
                let valid = if inode.kind == Kind::Directory {
                    self.config.metadata_ttl
                } else {
                    valid
                };
                let attr = inode.attr(&state);
                drop(state);
                return responder.attr(&attr, valid);
            }
        }
        let this = self.this();
        self.spawn_interruptible(
            Context::of("getattr", &inode),
            responder,
            async move {
                if inode.kind == Kind::Directory {
                    // Here the kernel is told, whatever it was told before.
                    let shown = this.show_access(&inode).await;
                    shown.or_else(|error| match error {
                        FsError::LookAgain => Ok(()),
                        _ => Err(error),
                    })?;
                } else {
                    this.check(&inode, true).await?;
                }
                let attr = inode.attr(&inode.state.lock());
                Ok((attr, this.config.metadata_ttl))
            },
            |responder, (attr, valid)| responder.attr(&attr, valid),
        );
    }

    /// [`Filesystem::revalidate`], where the store has all that is known here. Waits for a publish under
    /// way: what it makes is no news.
    ///
    /// # Errors
    /// As [`Filesystem::revalidate`].
    pub(in crate::fs) async fn revalidate_published(&self, inode: &Arc<Inode>) -> FsResult<()> {
        if !inode.state.lock().is_the_stores() {
            return Ok(());
        }
        let _guard = inode.publishing.lock().await;
        self.revalidate(inode).await
    }

    /// Asks the store which version there is now, unless more is known here. If it is another one, or if
    /// its metadata say that it is of another type, the inode is detached and the kernel has to
    /// look the name up again: it gets a new inode, and its size with it. Who has the old one
    /// open keeps it, and what they have written.
    ///
    /// # Errors
    /// [`look_again`] as said, also when the object is gone; others as the store's.
    pub(in crate::fs) async fn revalidate(&self, inode: &Arc<Inode>) -> FsResult<()> {
        self.check(inode, false).await
    }

    /// [`Filesystem::revalidate`], but where `tells_attr` of an inode that nobody has open: it moves to the
    /// newest version, since an answer to GETATTR brings the kernel the new size.
    async fn check(&self, inode: &Arc<Inode>, tells_attr: bool) -> FsResult<()> {
        let (key, place) = {
            let state = inode.state.lock();
            if !state.is_the_stores() {
                return Ok(());
            }
            (
                Key::new(state.key.clone()),
                (state.parent, state.name.clone()),
            )
        };
        let begun = Instant::now();
        let info = self.head(&key).await?;
        let mut state = inode.state.lock();
        if !state.is_the_stores() || *state.key != *key.as_str() {
            return Ok(());
        }
        let Some(info) = info else {
            drop(state);
            self.known.put(place.0, &place.1, None, begun);
            self.inodes.detach(inode);
            return Err(look_again());
        };
        let (etag, size, modified) = (info.etag.clone(), info.size, info.modified);
        let what = Listed::File {
            etag: etag.clone(),
            size,
            modified,
        };
        self.known.put(place.0, &place.1, Some(what), begun);
        let metadata = self.saw(place.0, key, info, begun);
        let is_alike = Kind::of_object(&metadata, size) == inode.kind;
        let is_same = state.version.as_ref() == Some(&etag);
        let moves = tells_attr && state.handles == 0 && state.dirty.is_none();
        if !is_alike || !(is_same || moves) {
            // The kernel holds this inode's old size, and an answer to OPEN cannot change that.
            drop(state);
            self.counters
                .changed_opens
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.inodes.detach(inode);
            return Err(look_again());
        }
        if !is_same || state.metadata.is_none() || state.checked <= begun {
            let attr = FileAttr::file(&self.defaults, size, modified);
            state.attr = attr.with_metadata(&metadata);
            state.metadata = Some(metadata);
            state.version = Some(etag);
        }
        state.checked = state.checked.max(begun);
        Ok(())
    }

    pub(in crate::fs) fn mkdir(
        &self,
        parent: u64,
        name: &[u8],
        mode: u32,
        caller: Caller,
        responder: Responder,
    ) {
        let context = Context::new("mkdir", parent);
        let place = self.writable().and_then(|()| self.place(parent, name));
        let (dir, name) = match place {
            Ok(place) => place,
            Err(error) => return context.fail(responder, &error),
        };
        let context = Context::below("mkdir", &dir, &name);
        let this = self.this();
        let work = async move {
            let prefix = directory_prefix(&dir.state.lock().key, name.as_bytes())?;
            let mut attr = FileAttr::directory(&this.defaults, SystemTime::now());
            (attr.mode, attr.uid, attr.gid) = (mode & 0o7777, caller.uid, caller.gid);
            let marker = Metadata {
                content_type: Some(DIRECTORY_TYPE.to_owned()),
                ..Metadata::default()
            };
            let metadata = attr.to_metadata(&marker, false);
            let key = Key::new(prefix.as_str());
            let put = this
                .store
                .put(&key, Vec::new(), &metadata, &Condition::Absent)
                .await;
            match lost::confirm(&*this.store, &key, put).await {
                Ok(_) => {}
                Err(error) if error.kind == StoreErrorKind::Changed => {
                    return Err(FsError::Exists);
                }
                Err(error) => return Err(error.into()),
            }
            Self::touched(&dir);
            this.known.changed(dir.ino, &name, Some(Listed::Directory));
            let new = NewInode {
                parent: dir.ino,
                name: name.into(),
                key: prefix.into(),
                attr,
                version: None,
                metadata: Some(Arc::new(metadata)),
                checked: Instant::now(),
                dirty: None,
            };
            let inode = this.enter(new, |_, _, _| false);
            // Nothing is in it yet, and this mount is the first to know.
            this.known
                .put_listing(inode.ino, Instant::now(), HashMap::new(), false);
            Ok((attr, inode.ino, this.config.metadata_ttl))
        };
        self.spawn(context, responder, work, |responder, (attr, ino, valid)| {
            responder.entry(&attr.to_entry(ino, valid));
        });
    }

    pub(in crate::fs) fn mknod(
        &self,
        parent: u64,
        name: &[u8],
        mode: u32,
        caller: Caller,
        responder: Responder,
    ) {
        let context = Context::new("mknod", parent);
        let special = match mode & libc::S_IFMT {
            libc::S_IFREG | 0 => None,
            libc::S_IFIFO => Some(Kind::Fifo),
            libc::S_IFSOCK => Some(Kind::Socket),
            // Whoever can write to the bucket could reach the devices of every machine that mounts it.
            _ => return FsError::NotPermitted.answer(responder),
        };
        if let Some(kind) = special {
            let special = Special::new(kind, mode, caller);
            return self.make_special(context, name, special, responder);
        }
        let made = self
            .writable()
            .and_then(|()| self.place(parent, name))
            .and_then(|(dir, name)| self.new_file(&dir, &name, mode, caller));
        let inode = match made {
            Ok(inode) => inode,
            Err(error) => return context.fail(responder, &error),
        };
        let context = Context::of("mknod", &inode);
        let this = self.this();
        let work = async move {
            if let Err(error) = this.publish(&inode).await {
                this.give_up(&inode, None).await;
                return Err(error);
            }
            this.settle(&inode);
            let entry = inode.entry(&inode.state.lock(), this.config.metadata_ttl);
            Ok(entry)
        };
        self.spawn(context, responder, work, |responder, entry| {
            responder.entry(&entry);
        });
    }

    /// A file that is not at the store yet. Asks nothing: the condition at its publish does.
    ///
    /// # Errors
    /// `Exists` if the name is known to be taken.
    pub(in crate::fs) fn new_file(
        &self,
        dir: &Arc<Inode>,
        name: &str,
        mode: u32,
        caller: Caller,
    ) -> FsResult<Arc<Inode>> {
        let key: Arc<str> = file_key(&dir.state.lock().key, name.as_bytes())?.into();
        let taken = |state: &State| state.is_local() && !state.unlinked;
        if self
            .inodes
            .child(dir.ino, name)
            .is_some_and(|child| taken(&child.state.lock()))
        {
            return Err(FsError::Exists);
        }
        let now = SystemTime::now();
        let mut attr = FileAttr::file(&self.defaults, 0, now);
        (attr.mode, attr.uid, attr.gid) = (mode & 0o7777, caller.uid, caller.gid);
        let new = NewInode {
            parent: dir.ino,
            name: name.into(),
            dirty: Some(self.writer.begin(Key::new(key.clone()), Base::Absent)),
            key,
            attr,
            version: None,
            metadata: Some(Arc::new(Metadata {
                content_type: Some(content_type(name).to_owned()),
                ..Metadata::default()
            })),
            checked: Instant::now(),
        };
        Self::touched(dir);
        self.known
            .burst(dir.ino)
            .lock()
            .created(name, Instant::now());
        let inode = self.enter(new, |_, _, _| false);
        {
            let state = inode.state.lock();
            if let Some(dirty) = &state.dirty {
                dirty.set_metadata(state.metadata_now());
            }
        }
        Ok(inode)
    }

    /// A name in the directory went: the directory stays here though the store may hold nothing of
    /// it any more, until rmdir or until the kernel forgets it.
    pub(in crate::fs) fn keep(&self, dir: &Arc<Inode>) {
        Self::touched(dir);
        if !Self::is_root(dir.ino) {
            {
                let mut state = dir.state.lock();
                state.kept = true;
                state.checked = Instant::now();
            }
            self.inodes.unsettled(dir);
        }
    }

    /// A name in the directory came or went.
    pub(in crate::fs) fn touched(dir: &Inode) {
        dir.state.lock().attr.modify(SystemTime::now());
    }

    pub(in crate::fs) fn statfs(responder: Responder) {
        // A bucket has no size: df shows one that nobody fills.
        const BLOCK: u32 = 4096;
        const BLOCKS: u64 = (1 << 60) / BLOCK as u64;
        responder.statfs(&StatfsOut {
            blocks: BLOCKS,
            bfree: BLOCKS,
            bavail: BLOCKS,
            files: 1 << 40,
            ffree: 1 << 40,
            bsize: BLOCK,
            namelen: crate::fs::names::key::NAME_LEN_MAX as u32,
            frsize: BLOCK,
            ..StatfsOut::default()
        });
    }

    /// Whether the inode is the mount's root.
    pub(in crate::fs) fn is_root(ino: u64) -> bool {
        ino == ROOT
    }
}

/// The content type of a directory's marker, as other clients give it.
pub(in crate::fs) const DIRECTORY_TYPE: &str = "application/x-directory";

/// What browsers and other clients of the bucket are told that a new file is: by the end of its name.
pub(in crate::fs) fn content_type(name: &str) -> &'static str {
    let guess = mime_guess::from_path(name).first_raw();
    guess.unwrap_or("application/octet-stream")
}
