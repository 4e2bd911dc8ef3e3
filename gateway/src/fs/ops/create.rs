//! New files and directories. A file is made without asking the store: the condition at its publish does. A
//! directory's marker is at the store when it is answered.

use std::sync::Arc;

use ackfs_cache::dirty::{Base, DirtyFile};
use ackfs_cache::object::Key;
use ackfs_cache::store::{Condition, Metadata, StoreErrorKind};
use ackfs_cache::upload::lost;

use super::open::writes;
use crate::fs::Filesystem;
use crate::fs::attr::FileAttr;
use crate::fs::error::{FsError, FsResult};
use crate::fs::metadata::{DIRECTORY_TYPE, content_type};
use crate::fs::names::cache::{Fact, FactOrigin, NameTarget, WholeListing};
use crate::fs::names::key::{directory_prefix, file_key};
use crate::fs::now::Now;
use crate::fs::table::NewInode;
use crate::fs::table::handles::FileHandle;
use crate::fs::table::inode::Inode;
use crate::fs::table::inode::state::shown::Shown;
use crate::fs::table::references::Reference;
use crate::fs::task::Context;
use crate::fuse::abi::OpenOut;
use crate::fuse::{Caller, Responder};

/// Whose a new name is, and with which permission bits.
#[derive(Debug, Clone, Copy)]
pub(in crate::fs) struct Creation {
    mode: u32,
    caller: Caller,
    now: Now,
}

impl Creation {
    /// By `caller`; `mode` is `st_mode` as the kernel has it, the umask applied.
    pub(in crate::fs) fn new(mode: u32, caller: Caller, now: Now) -> Self {
        Self { mode, caller, now }
    }

    /// `st_mode`.
    pub(super) fn mode(self) -> u32 {
        self.mode
    }

    /// When.
    pub(super) fn now(self) -> Now {
        self.now
    }

    /// `attr`, with permission bits and owner.
    pub(super) fn attr(self, mut attr: FileAttr) -> FileAttr {
        (attr.mode, attr.uid, attr.gid) = (self.mode & 0o7777, self.caller.uid, self.caller.gid);
        attr
    }
}

impl Filesystem {
    pub(in crate::fs) fn create(
        &self,
        parent: u64,
        name: &[u8],
        flags: u32,
        creation: Creation,
        responder: Responder,
    ) {
        let made = self
            .writable()
            .and_then(|()| self.place(parent, name))
            .and_then(|(dir, name)| self.create_or_find(&dir, &name, flags, creation));
        let (reference, is_new) = match made {
            Ok(made) => made,
            Err(error) => return Context::new("create", parent).fail(responder, &error),
        };
        let inode = reference.inode();
        let valid = self.config.metadata_ttl;
        if is_new {
            let handle = FileHandle::new(inode.clone(), writes(flags), true, None);
            let fh = self.take_handle(&mut inode.state(), handle);
            let open = OpenOut {
                fh,
                open_flags: self.close_mode().open_flags(true),
                ..OpenOut::default()
            };
            return responder.create(&reference.entry(valid), &open);
        }
        let this = self.this();
        let context = Context::of("create", inode);
        let work = async move {
            let open = this.open_inode(reference.inode(), flags, creation.now);
            let open = open.await?;
            Ok((reference.entry(valid), open))
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
        flags: u32,
        creation: Creation,
    ) -> FsResult<(Reference, bool)> {
        let exclusive = flags & libc::O_EXCL as u32 != 0;
        let known = self
            .names
            .cache()
            .get(dir.ino(), name, creation.now.instant);
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
        match self.new_file(dir, name, creation) {
            Ok(reference) => Ok((reference, true)),
            Err(FsError::Exists) if !exclusive => {
                let child = self.inodes.child(dir.ino(), name);
                let child = child.and_then(|child| self.inodes.refer(&child));
                Ok((child.ok_or(FsError::Exists)?, false))
            }
            Err(error) => Err(error),
        }
    }

    /// A file that is not at the store yet.
    ///
    /// # Errors
    /// `Exists` if the name is known to be taken.
    pub(super) fn new_file(
        &self,
        dir: &Arc<Inode>,
        name: &str,
        creation: Creation,
    ) -> FsResult<Reference> {
        let key = file_key(&dir.key(), name.as_bytes())?;
        self.free_here(dir, name)?;
        let now = creation.now;
        let attr = creation.attr(FileAttr::file(&self.defaults, 0, now.clock));
        let metadata = Arc::new(Metadata {
            content_type: Some(content_type(name).to_owned()),
            ..Metadata::default()
        });
        dir.state().touch(now.clock);
        self.names
            .cache()
            .creations(dir.ino())
            .lock()
            .created(name, now.instant);
        let dirty = self.writer.begin(Key::new(key), Base::Absent);
        let shown = Shown::new(attr, None, Some(metadata), now.instant);
        Ok(self.enter(dir, name, shown, Some(dirty)))
    }

    /// Whether a name is free as far as this mount knows better than the store.
    ///
    /// # Errors
    /// `Exists` if it is not.
    pub(super) fn free_here(&self, dir: &Inode, name: &str) -> FsResult<()> {
        match self.inodes.child(dir.ino(), name) {
            Some(child) if child.state().takes_name() => Err(FsError::Exists),
            _ => Ok(()),
        }
    }

    /// A reference to the new inode of a name that this mount made.
    pub(super) fn enter(
        &self,
        dir: &Arc<Inode>,
        name: &str,
        shown: Shown,
        dirty: Option<Arc<DirtyFile>>,
    ) -> Reference {
        let reference = self.inodes.insert(NewInode {
            dir: dir.clone(),
            name: name.into(),
            shown,
            dirty,
        });
        self.prune();
        reference
    }

    pub(in crate::fs) fn mkdir(
        &self,
        parent: u64,
        name: &[u8],
        creation: Creation,
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
            let reference = this.make_directory(&dir, &name, creation).await?;
            Ok(reference.entry(this.config.metadata_ttl))
        };
        self.spawn(context, responder, work, |responder, entry| {
            responder.entry(&entry);
        });
    }

    /// Waits for the store.
    async fn make_directory(
        &self,
        dir: &Arc<Inode>,
        name: &str,
        creation: Creation,
    ) -> FsResult<Reference> {
        let key = Key::new(directory_prefix(&dir.key(), name.as_bytes())?);
        let attr = FileAttr::directory(&self.defaults, creation.now.clock);
        let attr = creation.attr(attr);
        let marker = Metadata {
            content_type: Some(DIRECTORY_TYPE.to_owned()),
            ..Metadata::default()
        };
        let metadata = attr.to_metadata(&marker, false);
        let put = self
            .store
            .put(&key, Vec::new(), &metadata, &Condition::Absent);
        match lost::confirm(&*self.store, &key, put.await).await {
            Ok(_) => {}
            Err(error) if error.kind == StoreErrorKind::Changed => return Err(FsError::Exists),
            Err(error) => return Err(error.into()),
        }
        // The store was waited for: what was asked of it before does not know this.
        let now = Now::read();
        dir.state().touch(now.clock);
        self.names
            .cache()
            .changed(dir.ino(), name, Some(NameTarget::Directory));
        let shown = Shown::new(attr, None, Some(Arc::new(metadata)), now.instant);
        let reference = self.enter(dir, name, shown, None);
        // Nothing is in it yet, and this mount is the first to know.
        let ino = reference.inode().ino();
        let nothing = Fact {
            what: WholeListing::new(),
            since: now.instant,
            origin: FactOrigin::OwnChange,
        };
        self.names.cache().put_listing(ino, nothing);
        Ok(reference)
    }
}
