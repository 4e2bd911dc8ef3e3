//! Look-up. It is answered at once from what is open here or from what the store said lately. Otherwise it
//! asks (`names::resolve`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use ackfs_cache::object::{Key, ObjectId};
use ackfs_cache::store::Metadata;

use crate::fs::Filesystem;
use crate::fs::attr::{FileAttr, negative_entry};
use crate::fs::error::{FsError, FsResult};
use crate::fs::names::cache::{NameFact, NameTarget};
use crate::fs::names::key::file_key;
use crate::fs::names::resolve::Resolved;
use crate::fs::now::Now;
use crate::fs::table::NewInode;
use crate::fs::table::inode::Inode;
use crate::fs::table::inode::state::InodeState;
use crate::fs::table::inode::state::shown::Shown;
use crate::fs::table::references::Reference;
use crate::fs::task::Context;
use crate::fuse::Responder;
use crate::fuse::abi::EntryOut;

impl Filesystem {
    pub(in crate::fs) fn lookup(&self, parent: u64, name: &[u8], now: Now, responder: Responder) {
        let context = Context::new("lookup", parent);
        let (dir, name) = match self.place(parent, name) {
            Ok(place) => place,
            // A name that cannot be a key is a name that is not there.
            Err(FsError::NotUtf8) => return FsError::NoSuchName.answer(responder),
            Err(error) => return context.fail(responder, &error),
        };
        if !dir.state().has_shown_access() {
            // The kernel has let the caller in by the mount's mode and owner.
            let this = self.this();
            let work = async move { this.names.show_access(&dir).await };
            let this = self.this();
            return self.spawn_interruptible(context, responder, work, move |responder, ()| {
                // The store was waited for.
                this.lookup(parent, name.as_bytes(), Now::read(), responder);
            });
        }
        let mut emptied = None;
        if let Some(child) = self.inodes.child(parent, &name) {
            let (is_local, is_old) = {
                let state = child.state();
                let is_old = self.valid_for(&state, now.instant).is_zero();
                (state.takes_name(), state.is_emptied() && is_old)
            };
            if is_local && !is_old {
                if let Some(reference) = self.inodes.refer(&child) {
                    return responder.entry(&reference.entry(Duration::ZERO));
                }
            } else if is_local {
                // Somebody may have put an object of this name since.
                emptied = Some(child);
            }
        }
        let known = self.names.cache().get(parent, &name, now.instant);
        let known = known.filter(|known| known.what.is_some() || emptied.is_none());
        if let Some(known) =
            known.filter(|known| self.names.is_enough(&dir, &name, known, now.instant))
        {
            return self.answer_known(&dir, &name, known, now.instant, responder);
        }
        self.look_up_asking(dir, name, emptied, now, responder);
    }

    /// Answers with what the store says. Of what it does not have, an `emptied` directory is here.
    fn look_up_asking(
        &self,
        dir: Arc<Inode>,
        name: Box<str>,
        emptied: Option<Arc<Inode>>,
        now: Now,
        responder: Responder,
    ) {
        let this = self.this();
        let context = Context::below("lookup", &dir, &name);
        let work = async move {
            let found = this.names.resolve(&dir, &name).await?;
            if let Some(found) = found {
                // The store was waited for.
                return Ok(this.found_entry(&dir, &name, &found, Instant::now()));
            }
            let emptied = emptied.and_then(|emptied| this.inodes.refer(&emptied));
            let Some(emptied) = emptied else {
                return Ok(negative_entry(this.config.negative_ttl));
            };
            emptied.inode().state().confirm(now.instant);
            Ok(emptied.entry(Duration::ZERO))
        };
        self.spawn_interruptible(context, responder, work, |responder, entry| {
            responder.entry(&entry);
        });
    }

    /// Answers with what the store said lately.
    fn answer_known(
        &self,
        dir: &Arc<Inode>,
        name: &str,
        known: NameFact,
        now: Instant,
        responder: Responder,
    ) {
        let entry = match known.what {
            Some(what) => {
                let found = Resolved {
                    what,
                    metadata: None,
                    since: known.since,
                };
                self.found_entry(dir, name, &found, now)
            }
            None => negative_entry(self.names.cache().remaining(false, known.since, now)),
        };
        responder.entry(&entry);
    }

    /// The entry of a name that was found, for the kernel.
    fn found_entry(
        &self,
        dir: &Arc<Inode>,
        name: &str,
        found: &Resolved,
        now: Instant,
    ) -> EntryOut {
        let metadata = found.metadata.clone();
        let reference = self.reference(dir, name, &found.what, metadata, found.since);
        reference.entry(self.names.cache().remaining(true, found.since, now))
    }

    /// A reference to the inode of a name that was found.
    pub(in crate::fs) fn reference(
        &self,
        dir: &Arc<Inode>,
        name: &str,
        what: &NameTarget,
        metadata: Option<Arc<Metadata>>,
        begun: Instant,
    ) -> Reference {
        let is_fresh = metadata.is_some();
        let shown = match what {
            NameTarget::Directory => {
                let mtime = dir.state().shown().attr().mtime;
                let mut attr = FileAttr::directory(&self.defaults, mtime);
                if let Some(metadata) = &metadata {
                    attr = attr.with_access(metadata);
                }
                Shown::new(attr, None, metadata, begun)
            }
            NameTarget::File {
                etag,
                size,
                modified,
            } => {
                let key = Key::new(format!("{}{name}", dir.key()));
                let id = ObjectId::new(key, etag.clone());
                let metadata = metadata.or_else(|| self.names.metadata().get(&id));
                let mut attr = FileAttr::file(&self.defaults, *size, *modified);
                if let Some(metadata) = &metadata {
                    attr = attr.with_metadata(metadata);
                }
                Shown::new(attr, Some(id.etag), metadata, begun)
            }
        };
        let new = NewInode {
            dir: dir.clone(),
            name: name.into(),
            shown,
            dirty: None,
        };
        let reference = self.inodes.find(new, is_fresh);
        self.prune();
        reference
    }

    /// The directory and the name as text.
    pub(in crate::fs) fn place(
        &self,
        parent: u64,
        name: &[u8],
    ) -> FsResult<(Arc<Inode>, Box<str>)> {
        let dir = self.inode(parent)?;
        if !dir.is_directory() {
            return Err(FsError::NotDirectory);
        }
        file_key(&dir.key(), name)?;
        let name = std::str::from_utf8(name).map_err(|_| FsError::NotUtf8)?;
        Ok((dir, name.into()))
    }

    /// For how much longer what the inode shows may be believed.
    pub(super) fn valid_for(&self, state: &InodeState, now: Instant) -> Duration {
        self.names
            .cache()
            .remaining(true, state.shown().checked(), now)
    }
}
