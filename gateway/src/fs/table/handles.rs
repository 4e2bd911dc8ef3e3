//! Handles: one for each open(2). A file's handle knows its inode and keeps the state of its reading.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use ackfs_cache::dirty::DirtyFile;
use ackfs_cache::object::{ETag, ObjectId};
use ackfs_cache::read::{ReadCache, Stream};
use parking_lot::{Mutex, RwLock};

use super::inode::Inode;
use super::inode::state::InodeState;

/// An open file.
#[derive(Debug)]
pub(in crate::fs) struct FileHandle {
    inode: Arc<Inode>,
    writable: bool,
    publishes: bool,
    last_flush: OnceLock<LastFlush>,
    /// The version that its OPEN showed, if the kernel was to drop the pages that it had then.
    fresh: Option<ETag>,
    /// Whether a request came by it.
    is_used: AtomicBool,
    /// The reading of the inode's version; made anew when that changes.
    stream: Mutex<Option<Arc<Stream>>>,
}

/// How the last FLUSH of a handle was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fs) enum LastFlush {
    /// All was in the store.
    Published,
    /// The closer was told of a failure.
    Failed,
}

/// Where a read finds its bytes.
#[derive(Debug)]
pub(in crate::fs) enum ByteSource {
    /// In what was written here.
    Dirty(Arc<DirtyFile>),
    /// In a version of the object.
    Clean(Arc<Stream>),
}

impl ByteSource {
    /// Whether both are the same place.
    pub(in crate::fs) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Dirty(one), Self::Dirty(other)) => Arc::ptr_eq(one, other),
            (Self::Clean(one), Self::Clean(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// The version in the store that is asked for bytes that are not here; `None` if all are.
    pub(in crate::fs) fn object(&self) -> Option<ObjectId> {
        match self {
            Self::Dirty(dirty) => dirty.away(),
            Self::Clean(stream) => Some(stream.object().clone()),
        }
    }
}

impl FileHandle {
    /// A handle on `inode`. Its closes publish if it may be written, or if its open made or cut the file.
    /// `fresh` is the version shown, if the answer to its OPEN does not let the kernel keep its pages.
    pub(in crate::fs) fn new(
        inode: Arc<Inode>,
        writable: bool,
        publishes: bool,
        fresh: Option<ETag>,
    ) -> Self {
        Self {
            inode,
            writable,
            publishes,
            last_flush: OnceLock::new(),
            fresh,
            is_used: AtomicBool::new(false),
            stream: Mutex::new(None),
        }
    }

    /// What is open.
    pub(in crate::fs) fn inode(&self) -> &Arc<Inode> {
        &self.inode
    }

    /// Whether it may be written.
    pub(in crate::fs) fn is_writable(&self) -> bool {
        self.writable
    }

    /// Whether its closes publish.
    pub(in crate::fs) fn publishes(&self) -> bool {
        self.publishes
    }

    /// The last FLUSH is about to be answered so. The kernel says of one FLUSH that it is the last; a
    /// second one would be its mistake, and the first stays.
    pub(in crate::fs) fn flushed_last(&self, how: LastFlush) {
        let _ = self.last_flush.set(how);
    }

    /// How the last FLUSH was answered; `None` if none was said to be the last.
    pub(in crate::fs) fn last_flush(&self) -> Option<LastFlush> {
        self.last_flush.get().copied()
    }

    /// Whether a request came by it.
    pub(in crate::fs) fn is_used(&self) -> bool {
        self.is_used.load(Relaxed)
    }

    /// A request comes by the handle: the kernel has taken the answer to its OPEN, and dropped the pages that
    /// it was to drop. Two answers to OPEN may get there in either order, so that is not known before.
    pub(in crate::fs) fn used(&self, state: &mut InodeState) {
        if !self.is_used()
            && !self.is_used.swap(true, Relaxed)
            && let Some(version) = &self.fresh
        {
            state.pages_are_fresh(version);
        }
    }

    /// Where a read finds its bytes now; `None` if the file has neither version nor bytes.
    /// Never waits.
    pub(in crate::fs) fn source(&self, reader: &Arc<ReadCache>) -> Option<ByteSource> {
        let mut state = self.inode.state();
        self.used(&mut state);
        if let Some(dirty) = state.written().dirty() {
            return Some(ByteSource::Dirty(dirty.clone()));
        }
        let etag = state.shown().version()?;
        let mut stream = self.stream.lock();
        if let Some(stream) = stream.as_ref()
            && stream.object().etag == *etag
            && stream.object().key.as_str() == &**state.key()
        {
            return Some(ByteSource::Clean(stream.clone()));
        }
        let size = state.shown().attr().size;
        let fresh = Arc::new(reader.stream(state.object()?, size));
        *stream = Some(fresh.clone());
        Some(ByteSource::Clean(fresh))
    }
}

/// All handles of one kind by their numbers, which are never used twice.
#[derive(Debug)]
pub(in crate::fs) struct Handles<T> {
    next: AtomicU64,
    open: RwLock<HashMap<u64, Arc<T>>>,
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self {
            next: AtomicU64::new(1),
            open: RwLock::default(),
        }
    }
}

impl<T> Handles<T> {
    /// Takes a handle in and gives its number.
    pub(in crate::fs) fn insert(&self, handle: T) -> u64 {
        let fh = self.next.fetch_add(1, Relaxed);
        self.open.write().insert(fh, Arc::new(handle));
        fh
    }

    /// The handle of that number.
    pub(in crate::fs) fn get(&self, fh: u64) -> Option<Arc<T>> {
        self.open.read().get(&fh).cloned()
    }

    /// Takes the handle out.
    pub(in crate::fs) fn remove(&self, fh: u64) -> Option<Arc<T>> {
        self.open.write().remove(&fh)
    }

    /// How many are open.
    pub(in crate::fs) fn count(&self) -> usize {
        self.open.read().len()
    }
}
