//! The disk cache: clean bytes in files of ours, and a catalogue of what is in them.
//!
//! Each object has one sparse file; which of its bytes are there is known by extents of at most 1 MiB,
//! each with its checksum. Memory knows all of it, so every look-up is answered without the disk, and a
//! hit is one preadv2(2) from the page cache into the reader's buffer. The catalogue on disk follows in
//! batches and is read again at the next start, so a restart finds the cache warm.
//!
//! What holds:
//! - Nothing is served that was not compared with its checksum since this process started, or
//!   written by it. What differs is dropped and counted, and the reader asks the store.
//! - Used bytes never exceed `size_max`, and the filesystem's last free bytes are left to others.
//! - Nobody waits for storing: bytes are queued to one thread (`cache-writer`), small ones that memory
//!   has too until no more of them come (`deferred.rs`). They are left out when it is behind, when the
//!   disk is full, or when it fails. Losing them costs a fetch, and an object with a hole cannot be
//!   passed through, so readahead reserves a place in the queue first ([`DiskCache::reserve`]).
//! - One process owns the directory. Files that somebody has open stay readable after eviction.
//!
//! What decides is pure: extents and their trust (`extents.rs`), what fits and who makes way (`space.rs`,
//! [`crate::evict`]), what may wait (`backlog.rs`, `deferred.rs`). `reader.rs` reads; `writer.rs` alone
//! changes what is on disk; `catalog.rs` is the catalogue in redb, `directory.rs` finds or makes a
//! directory. Imports run one way: writer -> reader -> core -> queue -> {backlog, deferred} -> job -> object
//! -> extents, and writer -> catalog_updates -> directory -> catalog -> object.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::disk::{self, Disk};
use crate::extent::Extent;
use crate::memory::Keep;
use crate::object::ObjectId;

mod backlog;
mod catalog;
mod catalog_updates;
mod config;
mod core;
mod deferred;
mod directory;
mod extents;
mod job;
mod map;
mod object;
mod open_files;
mod queue;
mod reader;
mod space;
#[cfg(test)]
mod tests;
mod unit_reads;
mod writer;

use catalog_updates::CatalogUpdates;
pub use config::{DiskConfig, DiskError, DiskStats};
use core::CacheCore;
use directory::{CacheDirectory, DirectoryFormat};
use extents::Usage;
use job::{PendingWrite, WriterJob};
use object::CachedObject;
pub use queue::QueueReservation;
use space::Space;
use writer::CacheWriter;

/// Clean bytes on disk: files of ours and a catalogue of what is in them.
#[derive(Debug)]
pub struct DiskCache {
    core: Arc<CacheCore>,
    size_max: u64,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Says that the directory is ours until the writer has ended. `None` on a simulated disk.
    lock: Mutex<Option<File>>,
}

impl DiskCache {
    /// Opens or makes the cache in `config.dir`. A corrupted catalogue is started anew with a warning.
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
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DiskError::InUse(config.dir)),
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
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
        let directory = CacheDirectory::new(disk.clone(), &config.dir);
        let format = directory.format().map_err(io)?;
        if let DirectoryFormat::Newer(version) = format {
            return Err(DiskError::TooNew(config.dir, version));
        }
        let opened = directory.open(&format).map_err(io)?;
        let last_used = opened.objects.iter().map(CachedObject::last_used).max();
        let tick = last_used.map_or(0, |last| last.saturating_add(1));
        let core = CacheCore::new(disk, directory.objects_dir(), config.queued_max, tick);
        let core = Arc::new(core);
        let used = Self::insert_all(&core, opened.objects);
        let updates = CatalogUpdates::new(directory, opened.catalog);
        let space = Space::new(config.size_max, config.memory, used);
        let mut writer = CacheWriter::new(core.clone(), updates, space, opened.next_number);
        writer.shrink();
        let thread = thread::Builder::new()
            .name("cache-writer".to_owned())
            .spawn(move || writer.serve())
            .map_err(io)?;
        Ok(Arc::new(Self {
            core,
            size_max: config.size_max,
            writer: Mutex::new(Some(thread)),
            lock: Mutex::new(None),
        }))
    }

    /// Puts what was found at opening into the map. Gives what it takes.
    fn insert_all(core: &CacheCore, objects: Vec<CachedObject>) -> Usage {
        let mut used = Usage::default();
        for object in objects {
            let usage = object.on_disk.read().extents.usage();
            used.bytes += usage.bytes;
            used.extents += usage.extents;
            if let Some(older) = core.map.insert(Arc::new(object)) {
                // A crash came between a new version and the end of the older one.
                core.queue.add(WriterJob::Retire(older));
            }
        }
        used
    }

    /// Whether all of `extent` of `object` is here. Never waits.
    pub fn holds(&self, object: &ObjectId, extent: Extent) -> bool {
        let found = self.core.map.find(object);
        found.is_some_and(|object| object.on_disk.read().extents.covers(extent))
    }

    /// Reads `extent` into `buf` (its length) if it is here, verified, and in the page cache
    /// (`preadv2(RWF_NOWAIT)`). After a false, what `buf` holds is undefined. Never waits.
    pub fn read_now(&self, object: &ObjectId, offset: u64, buf: &mut [u8]) -> bool {
        let Some(object) = self.core.map.find(object) else {
            return false;
        };
        let extent = Extent::new(offset, buf.len() as u64);
        let file = {
            let on_disk = object.on_disk.read();
            if !on_disk.extents.is_ready(extent) {
                return false;
            }
            on_disk.file().cloned()
        };
        self.core.touch(&object);
        let file = file.or_else(|| self.core.open_now(&object));
        file.is_some_and(|file| file.read_now(offset, buf))
    }

    /// Reads from the disk, verifying checksums on first use. False if it is not here or was found
    /// corrupted (it is then dropped); what `buf` holds is then undefined. Waits for the disk.
    pub async fn read(&self, object: &ObjectId, offset: u64, buf: &mut [u8]) -> bool {
        self.core.read(object, offset, buf).await
    }

    /// Queues clean bytes to be stored: `extent` of `object`, whose whole size is `size`. Dropped,
    /// counted, if the disk is behind. A version of the object other than `object`'s is dropped.
    /// Never waits.
    pub fn store(&self, object: &ObjectId, size: u64, extent: Extent, pieces: Vec<Bytes>) {
        self.store_reserved(object, size, extent, pieces, None, None);
    }

    /// As [`DiskCache::store`], for bytes that memory has too: small ones wait until no more of them come.
    /// `keep`, which pays for their memory, is dropped when they are on the disk or given up.
    pub fn store_deferred(
        &self,
        object: &ObjectId,
        size: u64,
        extent: Extent,
        pieces: Vec<Bytes>,
        keep: Option<Keep>,
    ) {
        let queue = &self.core.queue;
        let add = |write| queue.add_deferred(write, Instant::now());
        self.queue_write(object, size, extent, pieces, keep, add);
    }

    /// As [`DiskCache::store`], for bytes that have a place in the queue; `keep` as above.
    pub fn store_reserved(
        &self,
        object: &ObjectId,
        size: u64,
        extent: Extent,
        pieces: Vec<Bytes>,
        keep: Option<Keep>,
        reservation: Option<QueueReservation>,
    ) {
        let queue = &self.core.queue;
        let add = |write| queue.add_write(write, reservation, Instant::now());
        self.queue_write(object, size, extent, pieces, keep, add);
    }

    /// Gives up the oldest bytes that wait to be stored and that somebody pays for, who needs the memory.
    /// False if there are none. Never waits.
    pub fn shed(&self) -> bool {
        let shed = self.core.queue.shed(Instant::now());
        if shed {
            self.core.counters.skip();
        }
        shed
    }

    fn queue_write(
        &self,
        object: &ObjectId,
        size: u64,
        extent: Extent,
        pieces: Vec<Bytes>,
        keep: Option<Keep>,
        add: impl FnOnce(PendingWrite) -> bool,
    ) {
        let len: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        if len != extent.len {
            // A bug of the caller's must not become a hole that reads as zeros.
            tracing::error!(?object, ?extent, len, "bytes to cache are not their extent");
            return self.core.counters.skip();
        }
        if extent.is_empty() || self.holds(object, extent) {
            return;
        }
        self.core.count_write();
        let added = add(PendingWrite {
            id: object.clone(),
            size,
            extent,
            pieces,
            keep,
        });
        if !added {
            self.core.counters.skip();
        }
    }

    /// Waits until bytes that somebody pays for leave the queue for the disk. False if none are in it, or
    /// none left it within `patience`.
    pub async fn progresses(&self, patience: Duration) -> bool {
        self.core.queue.progresses(patience).await
    }

    /// Reserves a place in the queue for `len` bytes that are about to be fetched, so that they are not
    /// left out. `None` if the disk is behind, unless they `must` be fetched. A disk that has been behind for
    /// ten seconds is slower than the store, and holds up nobody any more. Never waits.
    pub fn reserve(&self, len: u64, must: bool) -> Option<QueueReservation> {
        self.core.queue.reserve(len, must, Instant::now())
    }

    /// Whether the disk is so far behind that who reads a long way should wait for it. Never waits.
    pub fn is_far_behind(&self) -> bool {
        self.core.queue.is_far_behind(Instant::now())
    }

    /// Waits until the disk has caught up with those who read, or is known to be slower than the
    /// store: ten seconds at most.
    pub async fn caught_up(&self) {
        self.core.queue.caught_up().await;
    }

    /// Drops what is held of `object`. Never waits.
    pub fn forget(&self, object: &ObjectId) {
        self.core.queue.cancel(object, Instant::now());
        if let Some(found) = self.core.map.find(object) {
            self.core.retire(&found);
        }
    }

    /// What is missing of `object` if something of it is held, and no more than `missing_max` bytes
    /// are missing; else nothing. Never waits.
    pub fn gaps(&self, object: &ObjectId, missing_max: u64) -> Vec<Extent> {
        let Some(object) = self.core.map.find(object) else {
            return Vec::new();
        };
        let on_disk = object.on_disk.read();
        if object.size - on_disk.extents.bytes() > missing_max {
            return Vec::new();
        }
        on_disk.extents.gaps(Extent::new(0, object.size))
    }

    /// The file that holds all of `object`, verified. `None` if it is not whole or not verified
    /// yet; then verifying begins in the background. The file stays readable after eviction, and
    /// its object is not evicted while somebody holds it. Never waits.
    pub fn whole_file(&self, object: &ObjectId, size: u64) -> Option<Arc<File>> {
        let object = self.core.map.find(object)?;
        let unverified = {
            let on_disk = object.on_disk.read();
            if object.size != size || size == 0 || on_disk.extents.bytes() != size {
                return None;
            }
            on_disk.extents.unverified()
        };
        self.core.touch(&object);
        let file = (unverified == 0).then(|| self.core.open_now(&object));
        let Some(file) = file.flatten() else {
            self.core.queue_verification(&object);
            return None;
        };
        file.os_file().cloned()
    }

    /// Waits until what is queued of `object` is stored, if anything is.
    pub async fn stored(&self, object: &ObjectId) {
        if self.core.queue.has(object) {
            self.after_queue(false).await;
        }
    }

    /// Waits until what was queued is stored and the catalogue is on disk.
    pub async fn sync(&self) {
        self.after_queue(true).await;
    }

    /// Waits until all that was queued is done.
    #[cfg(test)]
    pub(crate) async fn drain(&self) {
        self.after_queue(false).await;
    }

    async fn after_queue(&self, catalog: bool) {
        let (reply, done) = oneshot::channel();
        if self.core.queue.add(WriterJob::Sync { catalog, reply }) {
            // An error says that the writer has ended: nothing more will be stored.
            let _ = done.await;
        }
    }

    /// Stores what is queued, writes the catalogue and gives the directory up. The cache serves what
    /// it holds afterwards too, but takes nothing more. Blocks on the disk; dropping the cache
    /// does the same.
    pub fn close(&self) {
        self.core.queue.close();
        let writer = self.writer.lock().take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!("the cache's writer panicked; its last changes are lost");
        }
        drop(self.lock.lock().take());
    }

    /// The counters. Never waits.
    pub fn stats(&self) -> DiskStats {
        let counters = &self.core.counters;
        DiskStats {
            used_bytes: counters.used.load(Ordering::Relaxed),
            size_max: self.size_max,
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
