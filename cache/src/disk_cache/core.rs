//! What the cache's callers and its writer share: the objects by key, the queue between the two, the
//! open files, the counters. Callers read and take objects out of the map; only the writer puts objects
//! in and changes what is on disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::job::WriterJob;
use super::map::ObjectMap;
use super::object::CachedObject;
use super::open_files::OpenFiles;
use super::queue::JobQueue;
use super::unit_reads::UnitReads;
use crate::disk::Disk;

/// See the module.
#[derive(Debug)]
pub(crate) struct CacheCore {
    pub(crate) disk: Arc<dyn Disk>,
    /// The directory of the objects' files.
    pub(crate) objects_dir: PathBuf,
    pub(crate) map: ObjectMap,
    pub(crate) queue: Arc<JobQueue>,
    pub(crate) files: OpenFiles,
    pub(crate) reads: UnitReads,
    pub(crate) counters: DiskCounters,
    /// The clock of uses: counts writes.
    tick: AtomicU64,
}

/// See [`super::DiskStats`].
#[derive(Debug, Default)]
pub(crate) struct DiskCounters {
    pub(crate) used: AtomicU64,
    pub(crate) evicted: AtomicU64,
    pub(crate) corrupt: AtomicU64,
    pub(crate) skipped: AtomicU64,
}

impl DiskCounters {
    /// An extent was not stored.
    pub(crate) fn skip(&self) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
    }
}

impl CacheCore {
    /// Nothing is in it. `queued_max` bounds the queue; the clock of uses goes on from `tick`.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        objects_dir: PathBuf,
        queued_max: u64,
        tick: u64,
    ) -> Self {
        Self {
            reads: UnitReads::new(disk.clone()),
            disk,
            objects_dir,
            map: ObjectMap::default(),
            queue: Arc::new(JobQueue::new(queued_max)),
            files: OpenFiles::new(),
            counters: DiskCounters::default(),
            tick: AtomicU64::new(tick),
        }
    }

    /// The clock of uses.
    pub(crate) fn tick(&self) -> u64 {
        self.tick.load(Ordering::Relaxed)
    }

    /// Moves the clock of uses on.
    pub(crate) fn count_write(&self) {
        self.tick.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that `object` was used now.
    pub(crate) fn touch(&self, object: &CachedObject) {
        object.touch(self.tick());
    }

    /// Takes `object` out of the map; the writer removes its file.
    pub(crate) fn retire(&self, object: &Arc<CachedObject>) {
        if self.map.remove(object) {
            self.queue.add(WriterJob::Retire(object.clone()));
        }
    }

    /// Has the writer open and verify `object`, unless it is about to.
    pub(crate) fn queue_verification(&self, object: &Arc<CachedObject>) {
        if object.begin_verification() && !self.queue.add(WriterJob::Verify(object.clone())) {
            object.end_verification();
        }
    }
}
