//! What the cache's callers and its keeper share, and how bytes are read.
//!
//! A read trusts an extent only after its checksum was compared, once a run. Whoever needs an
//! extent first reads it whole and compares; others who need the same unit meanwhile wait for that
//! instead of reading it again. An extent that differs is dropped: if an earlier run wrote it, it
//! alone (a crash tore it); if this run wrote it, the whole object, because then the disk has lost
//! what it took.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};

use super::DiskConfig;
use super::extents::{CRC, Held, PAGE, Trust, UNIT};
use super::files::OpenFiles;
use super::map::ObjectMap;
use super::object::Object;
use super::queue::{Job, Queue};
use crate::disk::{Disk, DiskFile, OpenHow};
use crate::extent::Extent;
use crate::object::ObjectId;

/// Memory for reads under way, in bytes: sixteen units at once keep a disk's queue busy.
const READS_MAX: u64 = 16 * UNIT;

/// What memory knows of an object and of an extent, in bytes.
const OBJECT_COST: u64 = 400;
const EXTENT_COST: u64 = 24;

/// Buffers of one unit that are kept for the next read.
const SPARE_BUFFERS_MAX: usize = 4;

/// Units that can be compared at the same time.
const TURNS: usize = 32;

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    /// The directory of the objects' files.
    pub(crate) objects: PathBuf,
    pub(crate) size_max: u64,
    /// Objects that memory knows at most, and their extents.
    pub(crate) objects_max: usize,
    pub(crate) extents_max: usize,
    pub(crate) map: ObjectMap,
    pub(crate) queue: Arc<Queue>,
    pub(crate) files: OpenFiles,
    /// The clock of uses: counts stores.
    pub(crate) tick: AtomicU64,
    pub(crate) counters: Counters,
    reads: Semaphore,
    spare: Mutex<Vec<Vec<u8>>>,
    turns: [AsyncMutex<()>; TURNS],
}

/// See [`super::DiskStats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) used: AtomicU64,
    pub(crate) evicted: AtomicU64,
    pub(crate) corrupt: AtomicU64,
    pub(crate) skipped: AtomicU64,
}

impl Counters {
    pub(crate) fn skip(&self) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
    }
}

impl Shared {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        objects: PathBuf,
        config: &DiskConfig,
        tick: u64,
    ) -> Self {
        Self {
            disk,
            objects,
            size_max: config.size_max,
            objects_max: ((config.memory / 2 / OBJECT_COST) as usize).max(1),
            extents_max: ((config.memory / 2 / EXTENT_COST) as usize).max(1),
            map: ObjectMap::default(),
            queue: Arc::new(Queue::new(config.queued_max)),
            files: OpenFiles::new(),
            tick: AtomicU64::new(tick),
            counters: Counters::default(),
            reads: Semaphore::new((READS_MAX / PAGE) as usize),
            spare: Mutex::default(),
            turns: std::array::from_fn(|_| AsyncMutex::default()),
        }
    }

    /// Notes that `object` was used now.
    pub(crate) fn touch(&self, object: &Object) {
        object.touch(self.tick.load(Ordering::Relaxed));
    }

    /// Takes `object` out of the map; the keeper removes its file.
    pub(crate) fn retire(&self, object: &Arc<Object>) {
        if self.map.remove(object) {
            self.queue.add(Job::Retire(object.clone()), None);
        }
    }

    /// Has the keeper open and verify `object`, unless it is about to.
    pub(crate) fn verify_later(&self, object: &Arc<Object>) {
        if !object.verifying.swap(true, Ordering::Relaxed)
            && !self.queue.add(Job::Verify(object.clone()), None)
        {
            object.verifying.store(false, Ordering::Relaxed);
        }
    }

    /// See [`super::DiskCache::read`].
    pub(crate) async fn read(&self, id: &ObjectId, offset: u64, buf: &mut [u8]) -> bool {
        let Some(object) = self.map.find(id) else {
            return false;
        };
        let extent = Extent::new(offset, buf.len() as u64);
        if !object.content.read().held.holds(extent) {
            return false;
        }
        let Some(file) = self.open(&object).await else {
            return false;
        };
        self.touch(&object);
        if !self.prove(&object, &file, extent).await {
            return false;
        }
        if file.read_now(offset, buf) {
            return true;
        }
        // In pieces, so that one long read does not take all the memory for reads.
        let mut at = offset;
        for piece in buf.chunks_mut(UNIT as usize) {
            let read = self.read_piece(&file, Extent::new(at, piece.len() as u64), |bytes| {
                piece.copy_from_slice(bytes);
            });
            if let Err(error) = read.await {
                self.lost(&object, &error);
                return false;
            }
            at += piece.len() as u64;
        }
        true
    }

    /// The object's file if it is open, or can be opened without the disk. Never waits.
    pub(crate) fn open_now(&self, object: &Arc<Object>) -> Option<DiskFile> {
        if let Some(file) = object.content.read().file.clone() {
            return Some(file);
        }
        let file = self.disk.open_cached(&object.path(&self.objects))?;
        Some(self.files.keep(object, file))
    }

    /// The object's open file. `None` if it cannot be opened; if it is gone, so is the object.
    pub(crate) async fn open(&self, object: &Arc<Object>) -> Option<DiskFile> {
        if let Some(file) = self.open_now(object) {
            return Some(file);
        }
        let path = object.path(&self.objects);
        match self.disk.open(&path, OpenHow::Existing).await {
            Ok(file) => Some(self.files.keep(object, file)),
            Err(error) => {
                // A retired object's file is gone, as it should be.
                if error.kind() != io::ErrorKind::NotFound || !object.content.read().retired {
                    self.lost(object, &error);
                }
                None
            }
        }
    }

    /// Compares what holds `extent` with its checksums as far as that was not done. False if a byte
    /// is missing or differs. Waits for the disk.
    async fn prove(&self, object: &Arc<Object>, file: &DiskFile, extent: Extent) -> bool {
        // An extent that joins another while we look at it has to be looked at again; that ends
        // when its unit is full.
        loop {
            let Some(needed) = unproven(object, extent) else {
                return false;
            };
            if needed.is_empty() {
                return true;
            }
            for held in needed {
                if self.verify(object, file, held).await == Verdict::Bad {
                    return false;
                }
            }
        }
    }

    /// Compares an extent with its checksum, unless that was done; drops it if it differs or cannot
    /// be read. Waits for the disk.
    pub(crate) async fn verify(
        &self,
        object: &Arc<Object>,
        file: &DiskFile,
        held: Held,
    ) -> Verdict {
        let unit = held.offset / UNIT;
        let turn = object.number.wrapping_mul(7).wrapping_add(unit) as usize % TURNS;
        let _turn = self.turns[turn].lock().await;
        match unproven(object, held.extent()).as_deref() {
            Some([]) => return Verdict::Good,
            Some([same]) if *same == held => {}
            Some(_) => return Verdict::Changed,
            None => return Verdict::Bad,
        }
        let read = self.read_piece(file, held.extent(), |bytes| crc_fast::checksum(CRC, bytes));
        match read.await {
            Ok(crc) if crc == held.crc => {
                object.content.write().held.verified(&held);
                Verdict::Good
            }
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                self.lost(object, &error);
                Verdict::Bad
            }
            _ => {
                self.differs(object, held);
                Verdict::Bad
            }
        }
    }

    /// Reads at most a unit and shows it to `see`.
    async fn read_piece<T>(
        &self,
        file: &DiskFile,
        extent: Extent,
        see: impl FnOnce(&[u8]) -> T,
    ) -> io::Result<T> {
        let pages = extent.len.div_ceil(PAGE) as u32;
        // The semaphore is never closed, so permits come.
        let _memory = self.reads.acquire_many(pages).await;
        let large = extent.len > UNIT / 4;
        let spare = large.then(|| self.spare.lock().pop()).flatten();
        let mut buf = spare.unwrap_or_default();
        buf.resize(extent.len as usize, 0);
        let (result, buf) = self.disk.read_at(file, extent.offset, buf).await;
        let seen = result.map(|()| see(&buf));
        if large && buf.capacity() > 0 {
            let mut spare = self.spare.lock();
            if spare.len() < SPARE_BUFFERS_MAX {
                spare.push(buf);
            }
        }
        seen
    }

    fn differs(&self, object: &Arc<Object>, held: Held) {
        let removed = object.content.write().held.remove(&held);
        if !removed {
            return;
        }
        self.counters.corrupt.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            object = ?object.id,
            extent = ?held.extent(),
            "cached bytes differ from their checksum and are dropped"
        );
        self.queue.add(
            Job::Punch {
                object: object.clone(),
                held,
            },
            None,
        );
        if held.trust == Trust::Written {
            self.retire(object);
        }
    }

    /// The disk does not give an object's bytes any more.
    fn lost(&self, object: &Arc<Object>, error: &io::Error) {
        tracing::warn!(object = ?object.id, %error, "a cached object cannot be read and is dropped");
        self.retire(object);
    }
}

/// What became of an extent that was to be verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Its checksum is right.
    Good,
    /// It is part of another extent now.
    Changed,
    /// It is gone.
    Bad,
}

/// The extents among those that hold `extent` that are not verified; `None` if a byte is missing.
fn unproven(object: &Object, extent: Extent) -> Option<Vec<Held>> {
    let content = object.content.read();
    let all = content.held.covering(extent)?;
    let unproven = all.iter().filter(|held| held.trust != Trust::Verified);
    Some(unproven.copied().collect())
}
