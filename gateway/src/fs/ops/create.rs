//! New files and directories.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use ackfs_cache::dirty::Base;
use ackfs_cache::object::Key;
use ackfs_cache::store::{Condition, Metadata, StoreErrorKind};

use super::open::writes;
use super::special::Special;
use crate::fs::Filesystem;
use crate::fs::attr::{FileAttr, Kind};
use crate::fs::error::{FsError, FsResult};
use crate::fs::names::cache::{Fact, NameTarget, Origin, WholeListing};
use crate::fs::names::key::{directory_prefix, file_key};
use crate::fs::table::inode::{Inode, NewInode, State};
use crate::fs::task::Context;
use crate::fuse::abi::OpenOut;
use crate::fuse::{Caller, Responder};

/// The content type of a directory's marker, as other clients give it.
pub(in crate::fs) const DIRECTORY_TYPE: &str = "application/x-directory";

impl Filesystem {
    pub(in crate::fs) fn create(
        &self,
        parent: u64,
        name: &[u8],
        mode: u32,
        flags: u32,
        caller: Caller,
        responder: Responder,
    ) {
        let made = self
            .writable()
            .and_then(|()| self.place(parent, name))
            .and_then(|(dir, name)| self.create_or_find(&dir, &name, mode, flags, caller));
        let (inode, new) = match made {
            Ok(made) => made,
            Err(error) => return Context::new("create", parent).fail(responder, &error),
        };
        if new {
            let (entry, fh) = {
                let mut state = inode.state.lock();
                let fh = self.take_handle(&inode, &mut state, writes(flags), true, false);
                (inode.entry(&state, self.config.metadata_ttl), fh)
            };
            let open = OpenOut {
                fh,
                open_flags: self.close_mode().open_flags(true),
                ..OpenOut::default()
            };
            return responder.create(&entry, &open);
        }
        let this = self.this();
        let context = Context::of("create", &inode);
        let work = async move {
            let open = this.open_inode(&inode, flags).await;
            let entry = inode.entry(&inode.state.lock(), this.config.metadata_ttl);
            if open.is_err() {
                // The kernel does not get the reference that was taken for it.
                this.inodes.forget(inode.ino, 1);
            }
            Ok((entry, open?))
        };
        self.spawn(context, responder, work, |responder, (entry, open)| {
            responder.create(&entry, &open);
        });
    }

    /// The inode to create, and whether it is new. A name that is known to be taken is opened, or
    /// refused with O_EXCL.
    fn create_or_find(
        &self,
        dir: &Arc<Inode>,
        name: &str,
        mode: u32,
        flags: u32,
        caller: Caller,
    ) -> FsResult<(Arc<Inode>, bool)> {
        let exclusive = flags & libc::O_EXCL as u32 != 0;
        let known = self.names.cache().get(dir.ino, name, Instant::now());
        if let Some(Fact {
            what: Some(what),
            since,
            ..
        }) = known
        {
            // The kernel's negative dentry is older than what was heard since.
            if exclusive {
                return Err(FsError::Exists);
            }
            return Ok((self.reference(dir, name, &what, None, since), false));
        }
        match self.new_file(dir, name, mode, caller) {
            Ok(inode) => Ok((inode, true)),
            Err(FsError::Exists) if !exclusive => {
                let child = self.inodes.child(dir.ino, name);
                let child = child.filter(|child| self.inodes.refer(child));
                Ok((child.ok_or(FsError::Exists)?, false))
            }
            Err(error) => Err(error),
        }
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
        self.names
            .cache()
            .creations(dir.ino)
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
            match this
                .store
                .put(&key, Vec::new(), &metadata, &Condition::Absent)
                .await
            {
                Ok(_) => {}
                Err(error) if error.kind == StoreErrorKind::Changed => {
                    return Err(FsError::Exists);
                }
                Err(error) => return Err(error.into()),
            }
            Self::touched(&dir);
            this.names
                .cache()
                .changed(dir.ino, &name, Some(NameTarget::Directory));
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
            let nothing = Fact {
                what: WholeListing::new(),
                since: Instant::now(),
                origin: Origin::OwnChange,
            };
            this.names.cache().put_listing(inode.ino, nothing);
            Ok((attr, inode.ino, this.config.metadata_ttl))
        };
        self.spawn(context, responder, work, |responder, (attr, ino, valid)| {
            responder.entry(&attr.to_entry(ino, valid));
        });
    }
}

/// What browsers and other clients of the bucket are told that a new file is: by the end of its name.
pub(in crate::fs) fn content_type(name: &str) -> &'static str {
    let guess = mime_guess::from_path(name).first_raw();
    guess.unwrap_or("application/octet-stream")
}
