//! Names that are no files: symbolic links, FIFOs and sockets. Each is an object whose metadata hold the
//! type bits (`metadata`), a link's bytes being its target, so that AWS's gateways and s3fs see the same.
//! They are in the store when the call that makes them returns; so is a file that mknod(2) makes.
//!
//! What an object is only HEAD tells. Listings do not, and a HEAD for each small object in them would
//! cost more than the listing. So a name that a reader of its directory was shown is a file until
//! somebody opens it, or looks it up when the listing is too old to be believed. It then gets a new
//! inode, and its directory is one that holds such names: from then on small objects in it are asked for
//! one by one when somebody wants to know what they are, once for each version. So are those that nobody
//! has listed.

use std::sync::Arc;

use ackfs_cache::object::{Key, ObjectId};
use ackfs_cache::store::{Condition, Metadata, StoreErrorKind};
use ackfs_cache::upload::lost;
use bytes::Bytes;

use super::create::Creation;
use super::publish::PublishWaiter;
use crate::fs::Filesystem;
use crate::fs::attr::{FileAttr, Kind};
use crate::fs::error::{FsError, FsResult};
use crate::fs::metadata::{TARGET_LEN_MAX, target_of};
use crate::fs::names::cache::NameTarget;
use crate::fs::names::key::file_key;
use crate::fs::now::Now;
use crate::fs::table::inode::Inode;
use crate::fs::table::inode::state::shown::Shown;
use crate::fs::task::Context;
use crate::fuse::Responder;
use crate::fuse::abi::EntryOut;

/// What is to be made.
struct Special {
    kind: Kind,
    creation: Creation,
    /// A link's target.
    bytes: Bytes,
}

impl Special {
    /// A FIFO or a socket.
    fn new(kind: Kind, creation: Creation) -> Self {
        Self {
            kind,
            creation,
            bytes: Bytes::new(),
        }
    }
}

impl Filesystem {
    pub(in crate::fs) fn symlink(
        &self,
        parent: u64,
        name: &[u8],
        target: Box<[u8]>,
        creation: Creation,
        responder: Responder,
    ) {
        let context = Context::new("symlink", parent);
        if target.len() as u64 > TARGET_LEN_MAX {
            return FsError::NameTooLong.answer(responder);
        }
        let link = Special {
            bytes: target.into(),
            ..Special::new(Kind::Symlink, creation)
        };
        self.make_special(context, name, link, responder);
    }

    pub(in crate::fs) fn mknod(
        &self,
        parent: u64,
        name: &[u8],
        creation: Creation,
        responder: Responder,
    ) {
        let context = Context::new("mknod", parent);
        let special = match creation.mode() & libc::S_IFMT {
            libc::S_IFREG | 0 => None,
            libc::S_IFIFO => Some(Kind::Fifo),
            libc::S_IFSOCK => Some(Kind::Socket),
            // Whoever can write to the bucket could reach the devices of every machine that mounts it.
            _ => return FsError::NotPermitted.answer(responder),
        };
        if let Some(kind) = special {
            let special = Special::new(kind, creation);
            return self.make_special(context, name, special, responder);
        }
        let made = self
            .writable()
            .and_then(|()| self.place(parent, name))
            .and_then(|(dir, name)| self.new_file(&dir, &name, creation));
        let reference = match made {
            Ok(reference) => reference,
            Err(error) => return context.fail(responder, &error),
        };
        let context = Context::of("mknod", reference.inode());
        let this = self.this();
        let work = async move {
            let inode = reference.inode();
            if let Err(error) = this.publish(inode, PublishWaiter::Other).await {
                this.give_up(inode, None).await;
                return Err(error);
            }
            this.finish_writing(inode);
            Ok(reference.entry(this.config.metadata_ttl))
        };
        self.spawn(context, responder, work, |responder, entry| {
            responder.entry(&entry);
        });
    }

    /// Makes the object in the directory that `context` is about, and answers with its entry.
    fn make_special(&self, context: Context, name: &[u8], special: Special, responder: Responder) {
        let place = self.writable().and_then(|()| self.place(context.ino, name));
        let (dir, name) = match place {
            Ok(place) => place,
            Err(error) => return context.fail(responder, &error),
        };
        let context = Context::below(context.op, &dir, &name);
        let this = self.this();
        let work = async move { this.put_special(&dir, &name, special).await };
        self.spawn(context, responder, work, |responder, entry| {
            responder.entry(&entry);
        });
    }

    /// Waits for the store.
    ///
    /// # Errors
    /// `Exists` if the name is taken, at the store or by a file that is not published yet; the store's.
    async fn put_special(
        &self,
        dir: &Arc<Inode>,
        name: &str,
        special: Special,
    ) -> FsResult<EntryOut> {
        self.free_here(dir, name)?;
        let key = Key::new(file_key(&dir.key(), name.as_bytes())?);
        let size = special.bytes.len() as u64;
        let made_at = special.creation.now().clock;
        let attr = FileAttr {
            kind: special.kind,
            ..FileAttr::file(&self.defaults, size, made_at)
        };
        let attr = special.creation.attr(attr);
        let metadata = attr.to_metadata(&Metadata::default(), false);
        let body = Vec::from_iter((!special.bytes.is_empty()).then_some(special.bytes));
        let put = self
            .store
            .put(&key, body, &metadata, &Condition::Absent)
            .await;
        let etag = match lost::confirm(&*self.store, &key, put).await {
            Ok(etag) => etag,
            Err(error) => {
                // Somebody else's name, or ours if only the answer was lost: the next look-up asks.
                self.names.cache().drop_name(dir.ino(), name);
                return Err(match error.kind {
                    StoreErrorKind::Changed => FsError::Exists,
                    _ => error.into(),
                });
            }
        };
        // The store was waited for: what was asked of it before does not know this.
        let now = Now::read();
        dir.state().touch(now.clock);
        let kept = Arc::new(attr.to_kept(&metadata));
        let id = ObjectId::new(key, etag.clone());
        self.names.metadata().made(id, kept.clone());
        self.names.cache().put_special(dir.ino());
        let what = NameTarget::File {
            etag: etag.clone(),
            size,
            modified: made_at,
        };
        self.names.cache().changed(dir.ino(), name, Some(what));
        let creations = self.names.cache().creations(dir.ino());
        creations.lock().created(name, now.instant);
        let shown = Shown::new(attr, Some(etag), Some(kept), now.instant);
        let reference = self.enter(dir, name, shown, None);
        Ok(reference.entry(self.config.metadata_ttl))
    }

    pub(in crate::fs) fn readlink(&self, ino: u64, responder: Responder) {
        let inode = match self.inode(ino) {
            Ok(inode) => inode,
            Err(error) => return Context::new("readlink", ino).fail(responder, &error),
        };
        if inode.kind() != Kind::Symlink {
            return FsError::Invalid.answer(responder);
        }
        let (object, size, metadata) = {
            let state = inode.state();
            let shown = state.shown();
            let metadata = shown.metadata().cloned().unwrap_or_default();
            (state.object(), shown.attr().size, metadata)
        };
        let Some(object) = object else {
            return FsError::NoContent.answer(responder);
        };
        // Of a link the size is bounded: see `Kind::of_object`.
        let mut bytes = vec![0; size as usize];
        let stream = Arc::new(self.reader.stream(object, size));
        if let Some(len) = stream.read_now(0, &mut bytes) {
            return responder.bytes(target_of(&metadata, &bytes[..len]));
        }
        let this = self.this();
        let context = Context::of("readlink", &inode);
        let work = async move {
            match stream.read(0, &mut bytes).await.map_err(FsError::from) {
                Ok(len) => bytes.truncate(len),
                // Somebody replaced it since it was looked up.
                Err(FsError::VersionGone(_)) => return Err(this.look_again(&inode)),
                Err(error) => return Err(error),
            }
            Ok((metadata, bytes))
        };
        let answer = |responder: Responder, (metadata, bytes): (Arc<Metadata>, Vec<u8>)| {
            responder.bytes(target_of(&metadata, &bytes));
        };
        self.spawn_interruptible(context, responder, work, answer);
    }
}
