//! Names: look-up, attributes, new files and directories.
//!
//! A look-up is answered at once from what is open here or from what the store said lately. Otherwise it
//! asks (`names::resolve`).

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ackfs_cache::object::{Key, ObjectId};
use ackfs_cache::store::Metadata;

use crate::fs::Filesystem;
use crate::fs::attr::{FileAttr, Kind, negative_entry};
use crate::fs::error::{FsError, FsResult};
use crate::fs::names::cache::{NameFact, NameTarget};
use crate::fs::names::key::file_key;
use crate::fs::names::resolve::{Resolved, has_shown_access};
use crate::fs::table::inode::{Inode, NewInode, ROOT};
use crate::fs::task::Context;
use crate::fuse::Responder;

impl Filesystem {
    pub(in crate::fs) fn lookup(&self, parent: u64, name: &[u8], responder: Responder) {
        let context = Context::new("lookup", parent);
        let (dir, name) = match self.place(parent, name) {
            Ok(place) => place,
            // A name that cannot be a key is a name that is not there.
            Err(FsError::NotUtf8) => return FsError::NoSuchName.answer(responder),
            Err(error) => return context.fail(responder, &error),
        };
        if !has_shown_access(&dir) {
            // The kernel has let the caller in by the mount's mode and owner.
            let this = self.this();
            let name = name.clone();
            let work = async move { this.names.show_access(&dir).await };
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
                if !state.kept
                    || !self
                        .names
                        .cache()
                        .remaining(true, state.checked, now)
                        .is_zero()
                {
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
        let known = self.names.cache().get(parent, &name, now);
        let known = known.filter(|known| known.what.is_some() || kept.is_none());
        if let Some(known) = known.filter(|known| self.names.is_enough(&dir, &name, known, now)) {
            return self.answer_known(&dir, &name, known, now, responder);
        }
        let this = self.this();
        let context = Context::below(context.op, &dir, &name);
        self.spawn_interruptible(
            context,
            responder,
            async move {
                let found = this.names.resolve(&dir, &name).await?;
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
        known: NameFact,
        now: Instant,
        responder: Responder,
    ) {
        match known.what {
            Some(what) => {
                let found = Resolved {
                    what,
                    metadata: None,
                    since: known.since,
                };
                self.answer_found(dir, name, &found, responder);
            }
            None => {
                let valid = self.names.cache().remaining(false, known.since, now);
                responder.entry(&negative_entry(valid));
            }
        }
    }

    fn answer_found(&self, dir: &Arc<Inode>, name: &str, found: &Resolved, responder: Responder) {
        let inode = self.reference(dir, name, &found.what, found.metadata.clone(), found.since);
        let valid = self
            .names
            .cache()
            .remaining(true, found.since, Instant::now());
        let entry = inode.entry(&inode.state.lock(), valid);
        responder.entry(&entry);
    }

    /// The inode of a name that was found, with one more reference for the kernel.
    pub(in crate::fs) fn reference(
        &self,
        dir: &Inode,
        name: &str,
        what: &NameTarget,
        metadata: Option<Arc<Metadata>>,
        begun: Instant,
    ) -> Arc<Inode> {
        let prefix = dir.state.lock().key.clone();
        let is_fresh = metadata.is_some();
        let new = match what {
            NameTarget::Directory => {
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
            NameTarget::File {
                etag,
                size,
                modified,
            } => {
                let key: Arc<str> = format!("{prefix}{name}").into();
                let id = ObjectId::new(Key::new(key.clone()), etag.clone());
                let metadata = metadata.or_else(|| self.names.metadata().get(&id));
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

    /// Whether the inode is the mount's root.
    pub(in crate::fs) fn is_root(ino: u64) -> bool {
        ino == ROOT
    }
}
