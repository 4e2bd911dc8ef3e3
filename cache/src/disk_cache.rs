//! The disk tier: clean bytes in files of ours, and an index of what is in them.
//!
//! Each object has one sparse file; what of it is held is known by extents of at most 1 MiB, each
//! with its checksum. Memory knows all of it, so every look-up is answered without the disk, and a
//! hit is one preadv2(2) from the page cache into the reader's buffer. The index on disk follows in
//! batches and is read again at the next start, so a restart finds the cache warm.
//!
//! What holds:
//! - Nothing is served that was not compared with its checksum since this process started, or
//!   written by it. What differs is dropped and counted, and the reader asks the store.
//! - Used bytes never exceed `size_max`, and the filesystem's last free bytes are left to others.
//! - Nobody waits for storing: bytes are queued to one thread (`disk-keeper`), small ones that memory
//!   has too until no more of them come (`deferred.rs`). They are left out when it is behind, when the
//!   disk is full, or when it fails. Losing them costs a fetch, and an object with a hole cannot be
//!   passed through, so readahead reserves room first ([`DiskCache::expect`]).
//! - One process owns the directory. Files that somebody has open stay readable after eviction.
//!
//! Parts: extents and their trust are pure (`extents.rs`), as is the choice of victims
//! ([`crate::evict`]); `shared.rs` reads, `writer.rs` and `space.rs` change what is on disk,
//! `catalog.rs` is the index in redb, `layout.rs` finds or makes a directory.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::disk::{self, Disk, DiskKind};
use crate::extent::Extent;
use crate::memory::Keep;
use crate::object::ObjectId;

mod catalog;
mod deferred;
mod extents;
mod files;
mod layout;
mod map;
mod object;
mod queue;
mod shared;
mod space;
#[cfg(test)]
mod tests;
mod writer;

use layout::{Found, Layout};
pub use queue::Expected;
use queue::{Job, Store};
use shared::Shared;
use writer::Keeper;

/// Where and how much.
#[derive(Debug, Clone)]
pub struct DiskConfig {
    /// The directory; made if it is not there. One owner at a time.
    pub dir: PathBuf,
    /// How many bytes of objects it may hold.
    pub size_max: u64,
    /// Memory for the records of what it holds, in bytes: half for some 400 bytes an object, half for 24
    /// bytes an extent. Past that, what was used least lately is evicted.
    pub memory: u64,
    /// How many bytes may wait for the disk or be on their way from the store. A sixth of them
    /// need not be in anybody's budget.
    pub queued_max: u64,
}

impl DiskConfig {
    /// With the memory that the default of `--memory` gives it.
    pub fn new(dir: impl Into<PathBuf>, size_max: u64) -> Self {
        Self {
            dir: dir.into(),
            size_max,
            memory: 24 << 20,
            queued_max: queue::QUEUED_BYTES_MAX,
        }
    }
}

/// Why the disk tier cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Another process holds the directory.
    #[error("cache directory {0} is in use by another ackfs; give each mount its own --cache-dir")]
    InUse(PathBuf),
    /// It was written by a newer version of ackfs.
    #[error(
        "cache directory {0} has format {1}, newer than this ackfs knows; use another --cache-dir or remove it"
    )]
    TooNew(PathBuf, u64),
    /// It cannot be made, read or written.
    #[error("cache directory {0}: {1}")]
    Io(PathBuf, #[source] io::Error),
}

/// Clean bytes on disk: files of ours and an index of what is in them.
#[derive(Debug)]
pub struct DiskCache {
    shared: Arc<Shared>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    /// Says that the directory is ours until the keeper has ended. `None` on a simulated disk.
    lock: Mutex<Option<Flock<File>>>,
}

/// Levels now and counters since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskStats {
    /// Room that objects take on disk, in whole pages.
    pub used_bytes: u64,
    /// The bound.
    pub size_max: u64,
    /// Bytes evicted.
    pub evicted_bytes: u64,
    /// Extents whose checksum differed.
    pub corrupt_extents: u64,
    /// Extents that were not stored because the disk was full, failing or behind.
    pub skipped_extents: u64,
}

impl DiskCache {
    /// Opens or makes the cache in `config.dir`. A corrupted index is started anew with a warning.
    /// Blocks on the disk: call it before serving. Needs no runtime, and may be called inside one.
    ///
    /// # Errors
    /// As [`DiskError`].
    pub fn open(config: DiskConfig) -> Result<Arc<Self>, DiskError> {
        let io = |error| DiskError::Io(config.dir.clone(), error);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&config.dir)
            .map_err(io)?;
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(config.dir.join("lock"))
            .map_err(io)?;
        let lock = match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => return Err(DiskError::InUse(config.dir)),
            Err((_, error)) => return Err(io(error.into())),
        };
        let disk = disk::shared().map_err(io)?;
        let cache = Self::open_on(disk, config)?;
        *cache.lock.lock() = Some(lock);
        Ok(cache)
    }

    /// As [`DiskCache::open`], but on `disk`, and without asking whether the directory has another
    /// owner: for simulated disks.
    ///
    /// # Errors
    /// As [`DiskError`].
    pub fn open_on(disk: Arc<dyn Disk>, config: DiskConfig) -> Result<Arc<Self>, DiskError> {
        let io = |error| DiskError::Io(config.dir.clone(), error);
        let layout = Layout::new(disk.clone(), &config.dir);
        let found = layout.look().map_err(io)?;
        if let Found::Newer(version) = found {
            return Err(DiskError::TooNew(config.dir, version));
        }
        let opened = layout.open(&found).map_err(io)?;
        let last_used = opened.objects.iter().map(object::Object::last_used).max();
        let tick = last_used.map_or(0, |last| last.saturating_add(1));
        let shared = Arc::new(Shared::new(disk, layout.objects(), &config, tick));
        for object in opened.objects {
            let charged = object.content.read().held.charged();
            shared.counters.used.fetch_add(charged, Ordering::Relaxed);
            if let Some(older) = shared.map.insert(Arc::new(object)) {
                // A crash came between a new version and the end of the older one.
                shared.queue.add(Job::Retire(older), None);
            }
        }
        let mut keeper = Keeper::new(shared.clone(), layout, opened.catalog, opened.next_number);
        keeper.shrink();
        let thread = thread::Builder::new()
            .name("disk-keeper".to_owned())
            .spawn(move || keeper.serve())
            .map_err(io)?;
        Ok(Arc::new(Self {
            shared,
            keeper: Mutex::new(Some(thread)),
            lock: Mutex::new(None),
        }))
    }

    /// Which disk serves.
    pub fn disk_kind(&self) -> DiskKind {
        self.shared.disk.kind()
    }

    /// Whether all of `extent` of `object` is here. Never waits.
    pub fn holds(&self, object: &ObjectId, extent: Extent) -> bool {
        let found = self.shared.map.find(object);
        found.is_some_and(|object| object.content.read().held.holds(extent))
    }

    /// Reads `extent` into `buf` (its length) if it is here, verified, and in the page cache
    /// (`preadv2(RWF_NOWAIT)`). After a false, what `buf` holds is undefined. Never waits.
    pub fn read_now(&self, object: &ObjectId, offset: u64, buf: &mut [u8]) -> bool {
        let Some(object) = self.shared.map.find(object) else {
            return false;
        };
        let extent = Extent::new(offset, buf.len() as u64);
        let file = {
            let content = object.content.read();
            if !content.held.is_ready(extent) {
                return false;
            }
            content.file.clone()
        };
        self.shared.touch(&object);
        let file = file.or_else(|| self.shared.open_now(&object));
        file.is_some_and(|file| file.read_now(offset, buf))
    }

    /// Reads from the disk, verifying checksums on first use. False if it is not here or was found
    /// corrupted (it is then dropped); what `buf` holds is then undefined. Waits for the disk.
    pub async fn read(&self, object: &ObjectId, offset: u64, buf: &mut [u8]) -> bool {
        self.shared.read(object, offset, buf).await
    }

    /// Queues clean bytes to be stored: `extent` of `object`, whose whole size is `size`. Dropped,
    /// counted, if the disk is behind. A version of the object other than `object`'s is dropped.
    /// Never waits.
    pub fn store(&self, object: &ObjectId, size: u64, extent: Extent, pieces: Vec<Bytes>) {
        self.store_expected(object, size, extent, pieces, None, None);
    }

    /// As [`DiskCache::store`], for bytes that memory has too: small ones wait until no more of them come.
    /// `keep`, which pays for their memory, is dropped when they are on the disk or given up.
    pub fn store_later(
        &self,
        object: &ObjectId,
        size: u64,
        extent: Extent,
        pieces: Vec<Bytes>,
        keep: Option<Keep>,
    ) {
        let queue = &self.shared.queue;
        let add = |store| queue.add_later(store, Instant::now());
        self.add_store(object, size, extent, pieces, keep, add);
    }

    /// As [`DiskCache::store`], for bytes whose room was reserved; `keep` as above.
    pub fn store_expected(
        &self,
        object: &ObjectId,
        size: u64,
        extent: Extent,
        pieces: Vec<Bytes>,
        keep: Option<Keep>,
        expected: Option<Expected>,
    ) {
        let queue = &self.shared.queue;
        let add = |store| queue.add(Job::Store(store), expected);
        self.add_store(object, size, extent, pieces, keep, add);
    }

    /// Gives up the oldest bytes that wait to be stored and that somebody pays for, who needs the memory.
    /// False if there are none. Never waits.
    pub fn shed(&self) -> bool {
        let shed = self.shared.queue.shed();
        if shed {
            self.shared.counters.skip();
        }
        shed
    }

    fn add_store(
        &self,
        object: &ObjectId,
        size: u64,
        extent: Extent,
        pieces: Vec<Bytes>,
        keep: Option<Keep>,
        add: impl FnOnce(Store) -> bool,
    ) {
        let len: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        if len != extent.len {
            // A bug of the caller's must not become a hole that reads as zeros.
            tracing::error!(?object, ?extent, len, "bytes to cache are not their extent");
            return self.shared.counters.skip();
        }
        if extent.is_empty() || self.holds(object, extent) {
            return;
        }
        self.shared.tick.fetch_add(1, Ordering::Relaxed);
        let added = add(Store {
            id: object.clone(),
            size,
            extent,
            pieces,
            keep,
        });
        if !added {
            self.shared.counters.skip();
        }
    }

    /// Waits until bytes that somebody pays for leave the queue for the disk. False if none are in it, or
    /// none left it within `patience`.
    pub async fn goes_on(&self, patience: Duration) -> bool {
        self.shared.queue.goes_on(patience).await
    }

    /// Reserves room for `len` bytes that are about to be fetched, so that they are not left out.
    /// `None` if the disk is behind, unless they `must` be fetched. A disk that has been behind for
    /// ten seconds is slower than the store, and holds up nobody any more. Never waits.
    pub fn expect(&self, len: u64, must: bool) -> Option<Expected> {
        self.shared.queue.expect(len, must, Instant::now())
    }

    /// Whether the disk is so far behind that who reads a long way should wait for it. Never waits.
    pub fn is_full(&self) -> bool {
        self.shared.queue.is_full(Instant::now())
    }

    /// Waits until the disk has caught up with those who read, or is known to be slower than the
    /// store: ten seconds at most.
    pub async fn roomy(&self) {
        self.shared.queue.roomy().await;
    }

    /// Drops what is held of `object`. Never waits.
    pub fn forget(&self, object: &ObjectId) {
        self.shared.queue.cancel(object);
        if let Some(found) = self.shared.map.find(object) {
            self.shared.retire(&found);
        }
    }

    /// What is missing of `object` if something of it is held, and no more than `missing_max` bytes
    /// are missing; else nothing. Never waits.
    pub fn gaps(&self, object: &ObjectId, missing_max: u64) -> Vec<Extent> {
        let Some(object) = self.shared.map.find(object) else {
            return Vec::new();
        };
        let content = object.content.read();
        if object.size - content.held.bytes() > missing_max {
            return Vec::new();
        }
        content.held.gaps(Extent::new(0, object.size))
    }

    /// The file that holds all of `object`, verified. `None` if it is not whole or not verified
    /// yet; then verifying begins in the background. The file stays readable after eviction, and
    /// its object is not evicted while somebody holds it. Never waits.
    pub fn whole_file(&self, object: &ObjectId, size: u64) -> Option<Arc<File>> {
        let object = self.shared.map.find(object)?;
        let unverified = {
            let content = object.content.read();
            if object.size != size || size == 0 || content.held.bytes() != size {
                return None;
            }
            content.held.unverified()
        };
        self.shared.touch(&object);
        let file = (unverified == 0).then(|| self.shared.open_now(&object));
        let Some(file) = file.flatten() else {
            self.shared.verify_later(&object);
            return None;
        };
        file.os_file().cloned()
    }

    /// Waits until what is queued of `object` is stored, if anything is.
    pub async fn stored(&self, object: &ObjectId) {
        if self.shared.queue.has(object) {
            self.after_queue(false).await;
        }
    }

    /// Waits until what was queued is stored and the index is on disk.
    pub async fn sync(&self) {
        self.after_queue(true).await;
    }

    /// Waits until all that was queued is done.
    #[cfg(test)]
    pub(crate) async fn drain(&self) {
        self.after_queue(false).await;
    }

    async fn after_queue(&self, index: bool) {
        let (reply, done) = oneshot::channel();
        if self.shared.queue.add(Job::Sync { index, reply }, None) {
            // An error says that the keeper has ended: nothing more will be stored.
            let _ = done.await;
        }
    }

    /// Stores what is queued, writes the index and gives the directory up. The cache serves what
    /// it holds afterwards too, but takes nothing more. Blocks on the disk; dropping the cache
    /// does the same.
    pub fn close(&self) {
        self.shared.queue.close();
        let keeper = self.keeper.lock().take();
        if let Some(keeper) = keeper
            && keeper.join().is_err()
        {
            tracing::error!("the cache's keeper panicked; its last changes are lost");
        }
        drop(self.lock.lock().take());
    }

    /// The counters. Never waits.
    pub fn stats(&self) -> DiskStats {
        let counters = &self.shared.counters;
        DiskStats {
            used_bytes: counters.used.load(Ordering::Relaxed),
            size_max: self.shared.size_max,
            evicted_bytes: counters.evicted.load(Ordering::Relaxed),
            corrupt_extents: counters.corrupt.load(Ordering::Relaxed),
            skipped_extents: counters.skipped.load(Ordering::Relaxed),
        }
    }
}

impl Drop for DiskCache {
    fn drop(&mut self) {
        self.close();
    }
}
