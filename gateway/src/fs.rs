//! What a file means. No wire bytes and no HTTP here: requests come decoded from [`crate::fuse`],
//! bytes come from and go to [`ackfs_cache`].
//!
//! [`Filesystem::handle`] runs on a ring thread and never waits: what can be answered from what is
//! here is answered there, everything else takes its request along into a task. The rooms inside, of which
//! each knows only those below it:
//!
//! ```text
//! ops      the kernel's verbs, a file for each: what is asked, decided, answered
//! names    what the store said of names, and asking it
//! table    what the kernel holds: inodes, references, handles
//! attr, metadata, error    what stat shows; what the object carries; errno
//! ```

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use ackfs_cache::dirty::Writer;
use ackfs_cache::read::ReadCache;
use ackfs_cache::store::ObjectStore;
use tokio::runtime::Handle as Runtime;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use self::attr::{Defaults, FileAttr};
use self::error::{FsError, FsResult, look_again};
use self::names::{NameLimits, Namespace};
use self::now::Now;
use self::ops::create::Creation;
pub use self::ops::drain::Unsaved;
pub use self::ops::flush::CloseMode;
use self::ops::readdir::DirHandle;
use self::table::InodeTable;
use self::table::handles::{FileHandle, Handles};
use self::table::inode::Inode;
use crate::fuse::mount::Kernel;
use crate::fuse::{Handler, Op, Request, Responder};

pub mod attr;
pub mod error;
pub mod metadata;
pub mod names;
pub mod ops;

mod now;
mod table;
mod task;

/// How a bucket is shown.
#[derive(Debug, Clone)]
pub struct FsConfig {
    /// What all keys begin with: empty, or ending with `/`.
    pub prefix: String,
    /// Owner of what has none of its own.
    pub uid: u32,
    /// Group of what has none of its own.
    pub gid: u32,
    /// Permission bits of files that have none of their own.
    pub file_mode: u32,
    /// Permission bits of directories.
    pub dir_mode: u32,
    /// For how long what the store said of a name is believed without asking again.
    pub metadata_ttl: Duration,
    /// For how long the store's "no such name" is believed.
    pub negative_ttl: Duration,
    /// Whether nothing may be changed.
    pub read_only: bool,
    /// Of how many names something is kept here at most, as far as the kernel lets go of what it does not
    /// use: some 1.5 kB for each.
    pub names_max: usize,
}

/// Levels now and counters since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FsStats {
    /// Inodes held.
    pub inodes: u64,
    /// Open files.
    pub file_handles: u64,
    /// Open directories.
    pub dir_handles: u64,
    /// Files whose last publish failed and whose bytes are still here.
    pub stuck_files: u64,
    /// Files whose bytes were given up after their last close.
    pub lost_files: u64,
    /// Keys met in listings that cannot be names.
    pub hidden_keys: u64,
    /// Files met in listings that a directory of the same name shadows.
    pub shadowed_files: u64,
    /// Opens that the kernel serves from the cache file by itself.
    pub passthrough_opens: u64,
    /// Opens that found another version than the one known.
    pub changed_opens: u64,
    /// RELEASEs that found dirty bytes and published them; their failures are told to no closer.
    pub release_publishes: u64,
}

#[derive(Debug, Default)]
struct FsCounters {
    lost_files: AtomicU64,
    hidden_keys: AtomicU64,
    shadowed_files: AtomicU64,
    passthrough_opens: AtomicU64,
    changed_opens: AtomicU64,
    release_publishes: AtomicU64,
}

/// A bucket as a filesystem.
#[derive(Debug)]
pub struct Filesystem {
    this: Weak<Filesystem>,
    config: FsConfig,
    defaults: Defaults,
    store: Arc<dyn ObjectStore>,
    reader: Arc<ReadCache>,
    writer: Arc<Writer>,
    runtime: Runtime,
    kernel: OnceLock<Kernel>,
    close_mode: OnceLock<CloseMode>,
    inodes: Arc<InodeTable>,
    files: Handles<FileHandle>,
    dirs: Handles<DirHandle>,
    names: Namespace,
    refuse_writers: AtomicBool,
    /// Publishes that a RELEASE has begun: a drain waits for them.
    releases: TaskTracker,
    worked: Arc<Notify>,
    counters: FsCounters,
}

impl Filesystem {
    /// A filesystem over `store`. Tasks run on `runtime`.
    pub fn new(
        config: FsConfig,
        store: Arc<dyn ObjectStore>,
        reader: Arc<ReadCache>,
        writer: Arc<Writer>,
        runtime: Runtime,
    ) -> Arc<Self> {
        let defaults = Defaults {
            uid: config.uid,
            gid: config.gid,
            file_mode: config.file_mode & 0o7777,
            dir_mode: config.dir_mode & 0o7777,
        };
        let now = Now::read();
        let root = FileAttr::directory(&defaults, now.clock);
        let inodes = InodeTable::new(&config.prefix, root, now.instant);
        let limits = NameLimits {
            positive_ttl: config.metadata_ttl,
            negative_ttl: config.negative_ttl,
            names_max: config.names_max,
        };
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            names: Namespace::new(limits, store.clone(), inodes.clone(), runtime.clone()),
            inodes,
            config,
            defaults,
            store,
            reader,
            writer,
            runtime,
            kernel: OnceLock::new(),
            close_mode: OnceLock::new(),
            files: Handles::default(),
            dirs: Handles::default(),
            refuse_writers: AtomicBool::new(false),
            releases: TaskTracker::new(),
            worked: Arc::default(),
            counters: FsCounters::default(),
        })
    }

    /// Notifications and passthrough are at hand from now on. Called once, after the mount.
    pub fn attach(&self, kernel: Kernel) {
        // A second call would mean two mounts of one filesystem; the first stays.
        let _ = self.kernel.set(kernel);
    }

    /// What the kernel makes possible. Called once, after the mount and before requests come; without
    /// it the mode is [`CloseMode::Flush`].
    pub fn set_close_mode(&self, mode: CloseMode) {
        // As above: one filesystem is mounted once.
        let _ = self.close_mode.set(mode);
    }

    /// What close(2) and its kin mean on this mount.
    pub fn close_mode(&self) -> CloseMode {
        self.close_mode.get().copied().unwrap_or_default()
    }

    /// From now on opens for writing answer EROFS.
    pub fn refuse_writers(&self) {
        self.refuse_writers.store(true, Ordering::Release);
    }

    /// The counters.
    pub fn stats(&self) -> FsStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let stuck = self
            .unsaved()
            .iter()
            .filter(|file| file.cause.is_some())
            .count();
        FsStats {
            inodes: self.inodes.count() as u64,
            file_handles: self.files.count() as u64,
            dir_handles: self.dirs.count() as u64,
            stuck_files: stuck as u64,
            lost_files: load(&self.counters.lost_files),
            hidden_keys: load(&self.counters.hidden_keys),
            shadowed_files: load(&self.counters.shadowed_files),
            passthrough_opens: load(&self.counters.passthrough_opens),
            changed_opens: load(&self.counters.changed_opens),
            release_publishes: load(&self.counters.release_publishes),
        }
    }

    /// Asks the kernel to forget some inodes if there are too many. Called when one was made.
    fn prune(&self) {
        if let Some(kernel) = self.kernel.get().filter(|kernel| kernel.can_prune()) {
            let superfluous = self.inodes.superfluous(self.config.names_max);
            if !superfluous.is_empty() {
                kernel.prune(superfluous);
            }
        }
    }

    /// The inode of that number.
    fn inode(&self, ino: u64) -> FsResult<Arc<Inode>> {
        self.inodes.get(ino).ok_or_else(look_again)
    }

    /// Changes are allowed at all.
    fn writable(&self) -> FsResult<()> {
        let refused = self.config.read_only || self.refuse_writers.load(Ordering::Acquire);
        if refused {
            Err(FsError::ReadOnly)
        } else {
            Ok(())
        }
    }

    /// Gives up what is known of names and too old to be believed. To be called now and then while there is
    /// work. Never waits.
    pub fn tidy(&self) {
        self.names.cache().tidy();
    }

    /// Notified of each operation that does not answer at once.
    pub fn worked(&self) -> Arc<Notify> {
        self.worked.clone()
    }
}

impl Handler for Filesystem {
    fn handle(&self, request: Request, responder: Responder) {
        let ino = request.ino;
        let creation = |mode| Creation::new(mode, request.caller, Now::read());
        match request.op {
            Op::Lookup { name } => self.lookup(ino, &name, Now::read(), responder),
            Op::Getattr { .. } => self.getattr(ino, Now::read(), responder),
            Op::Setattr { set } => self.setattr(ino, set, Now::read(), responder),
            Op::Mkdir { name, mode, .. } => self.mkdir(ino, &name, creation(mode), responder),
            Op::Mknod { name, mode, .. } => self.mknod(ino, &name, creation(mode), responder),
            Op::Create {
                name, mode, flags, ..
            } => self.create(ino, &name, flags, creation(mode), responder),
            Op::Unlink { name } => self.unlink(ino, &name, responder),
            Op::Rmdir { name } => self.rmdir(ino, &name, responder),
            Op::Rename {
                name,
                new_parent,
                new_name,
                flags,
            } => {
                self.rename((ino, &name), (new_parent, &new_name), flags, responder);
            }
            Op::Open { flags } => self.open(ino, flags, Now::read(), responder),
            Op::Read {
                fh, offset, size, ..
            } => self.read(fh, offset, size, responder),
            Op::Write { fh, offset, .. } => self.write(ino, fh, offset, Now::read(), responder),
            Op::Flush { fh, last, .. } => self.flush(fh, last, responder),
            Op::Fsync { fh, .. } => self.fsync(fh, responder),
            Op::Release { fh, .. } => self.release(fh, responder),
            Op::Opendir { .. } => self.opendir(ino, responder),
            Op::Readdir { fh, offset, size } => self.readdir(fh, offset, size, false, responder),
            Op::Readdirplus { fh, offset, size } => self.readdir(fh, offset, size, true, responder),
            Op::Releasedir { fh } => {
                self.dirs.remove(fh);
                responder.empty();
            }
            // A directory's changes are at the store when they are answered.
            Op::Fsyncdir { .. } => responder.empty(),
            Op::Statfs => Self::statfs(responder),
            // symlink(7): the permissions of a link are all there, and mean nothing.
            Op::Symlink { name, target } => {
                self.symlink(ino, &name, target, creation(0o777), responder);
            }
            Op::Readlink => self.readlink(ino, responder),
            // link(2): "the filesystem does not support the creation of hard links".
            Op::Link { .. } => FsError::NotPermitted.answer(responder),
            // This is remembered by the kernel, which then answers by itself: access by mode
            // (default_permissions), no extended attributes, copy_file_range and fallocate by its
            // own means or EOPNOTSUPP, SEEK_DATA as without holes.
            Op::Setxattr { .. }
            | Op::Getxattr { .. }
            | Op::Listxattr { .. }
            | Op::Removexattr { .. }
            | Op::Access { .. }
            | Op::Fallocate { .. }
            | Op::Lseek { .. }
            | Op::CopyFileRange { .. }
            | Op::Syncfs
            | Op::Tmpfile { .. }
            | Op::Statx { .. }
            | Op::Unsupported { .. } => FsError::Unsupported.answer(responder),
        }
    }

    fn forget(&self, ino: u64, count: u64) {
        self.inodes.forget(ino, count);
    }
}
