//! Handles: one for each open(2). A file's handle knows its inode and keeps the state of its
//! reading; a directory's keeps its listing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use ackfs_cache::dirty::DirtyFile;
use ackfs_cache::object::ObjectId;
use ackfs_cache::read::{ReadCache, Stream};
use parking_lot::{Mutex, RwLock};

use crate::fs::ops::flush::LastFlush;
use crate::fs::table::inode::Inode;

/// An open file.
#[derive(Debug)]
pub struct FileHandle {
    /// What is open.
    pub inode: Arc<Inode>,
    /// Whether it may be written.
    pub writable: bool,
    /// Whether its closes publish: it may be written, or its open made or cut the file.
    pub publishes: bool,
    /// Whether the kernel reads the backing file by itself.
    pub passthrough: bool,
    /// How the last FLUSH was answered. The kernel says of one FLUSH of a handle that it is the last.
    last_flush: OnceLock<LastFlush>,
    /// The reading of the inode's version; made anew when that changes.
    stream: Mutex<Option<Arc<Stream>>>,
}

/// Where a read finds its bytes.
#[derive(Debug)]
pub enum Source {
    /// In what was written here.
    Dirty(Arc<DirtyFile>),
    /// In a version of the object.
    Clean(Arc<Stream>),
}

impl Source {
    /// Whether both are the same place.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Dirty(one), Self::Dirty(other)) => Arc::ptr_eq(one, other),
            (Self::Clean(one), Self::Clean(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// The version in the store that is asked for bytes that are not here; `None` if all are.
    pub fn object(&self) -> Option<ObjectId> {
        match self {
            Self::Dirty(dirty) => dirty.away(),
            Self::Clean(stream) => Some(stream.object().clone()),
        }
    }
}

impl FileHandle {
    /// A handle on `inode`.
    pub fn new(inode: Arc<Inode>, writable: bool, publishes: bool, passthrough: bool) -> Self {
        Self {
            inode,
            writable,
            publishes,
            passthrough,
            last_flush: OnceLock::new(),
            stream: Mutex::new(None),
        }
    }

    /// The last FLUSH is about to be answered so.
    pub fn flushed_last(&self, how: LastFlush) {
        // A second one would be the kernel's mistake; the first stays.
        let _ = self.last_flush.set(how);
    }

    /// How the last FLUSH was answered; `None` if none was said to be the last.
    pub fn last_flush(&self) -> Option<LastFlush> {
        self.last_flush.get().copied()
    }

    /// Where a read finds its bytes now; `None` if the file has neither version nor bytes.
    /// Never waits.
    pub fn source(&self, reader: &Arc<ReadCache>) -> Option<Source> {
        let state = self.inode.state.lock();
        if let Some(dirty) = &state.dirty {
            return Some(Source::Dirty(dirty.clone()));
        }
        let etag = state.version.as_ref()?;
        let mut stream = self.stream.lock();
        if let Some(stream) = stream.as_ref()
            && stream.object().etag == *etag
            && stream.object().key.as_str() == &*state.key
        {
            return Some(Source::Clean(stream.clone()));
        }
        let fresh = Arc::new(reader.stream(state.object()?, state.attr.size));
        *stream = Some(fresh.clone());
        Some(Source::Clean(fresh))
    }
}

/// All handles of one kind by their numbers, which are never used twice.
#[derive(Debug)]
pub struct Handles<T> {
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
    pub fn insert(&self, handle: T) -> u64 {
        let fh = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.write().insert(fh, Arc::new(handle));
        fh
    }

    /// The handle of that number.
    pub fn get(&self, fh: u64) -> Option<Arc<T>> {
        self.open.read().get(&fh).cloned()
    }

    /// Takes the handle out.
    pub fn remove(&self, fh: u64) -> Option<Arc<T>> {
        self.open.write().remove(&fh)
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.open.read().len()
    }
}
