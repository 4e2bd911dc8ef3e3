//! What the parts of the read path share: the tiers where bytes are, the records of objects, the counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::record::ObjectRecords;
use super::unread::UnreadFills;
use crate::budget::Share;
use crate::disk_cache::DiskCache;
use crate::extent::Extent;
use crate::memory::BlockCache;
use crate::object::ObjectId;
use crate::store::ObjectStore;

/// For how long those who need memory wait for a disk that holds some.
pub(super) const DISK_PATIENCE: Duration = Duration::from_millis(200);

/// Bounds of the read path.
#[derive(Debug, Clone)]
pub struct ReadConfig {
    /// Memory for clean blocks at rest, in bytes.
    pub clean_max: u64,
    /// What fills may hold while they are under way.
    pub fills: Share,
    /// How far one sequential stream is read ahead at most, in bytes.
    pub readahead_max: u64,
}

/// Counters since the start, and levels now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadStats {
    /// Reads answered from memory, in bytes.
    pub memory_hit_bytes: u64,
    /// Reads answered from the disk cache, in bytes.
    pub disk_hit_bytes: u64,
    /// Reads that waited for the store, in bytes.
    pub miss_bytes: u64,
    /// Reads answered from memory or disk.
    pub hits: u64,
    /// Reads that waited for the store.
    pub misses: u64,
    /// Bytes fetched from the store, readahead included.
    pub fetched_bytes: u64,
    /// Extents that were dropped because their checksum differed.
    pub corrupt_extents: u64,
    /// Clean bytes in memory now.
    pub memory_bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct ReadCounters {
    pub(super) memory_hit: AtomicU64,
    pub(super) disk_hit: AtomicU64,
    pub(super) miss: AtomicU64,
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) fetched: AtomicU64,
}

/// Clean bytes of objects: from memory, from disk, from the store.
#[derive(Debug)]
pub struct ReadCache {
    pub(super) config: ReadConfig,
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) disk: Option<Arc<DiskCache>>,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) memory: BlockCache,
    pub(super) records: Arc<ObjectRecords>,
    pub(super) unread: UnreadFills,
    /// How many readers wait for memory.
    pub(super) memory_waiters: AtomicUsize,
    /// Numbers of streams.
    pub(super) streams: AtomicU64,
    pub(super) counters: ReadCounters,
}

impl ReadCache {
    /// A cache over `store`, with a disk tier if there is one. Fetches run on `runtime`.
    pub fn new(
        config: ReadConfig,
        store: Arc<dyn ObjectStore>,
        disk: Option<Arc<DiskCache>>,
        runtime: tokio::runtime::Handle,
    ) -> Arc<Self> {
        Arc::new(Self {
            memory: BlockCache::new(config.clean_max),
            config,
            store,
            disk,
            runtime,
            records: Arc::default(),
            unread: UnreadFills::default(),
            memory_waiters: AtomicUsize::new(0),
            streams: AtomicU64::new(0),
            counters: ReadCounters::default(),
        })
    }

    /// Gives up bytes that wait for the disk and are paid for by others, who need the memory; but waits a
    /// moment for the disk to go on by itself. Whether it did or there were any.
    pub(crate) async fn shed_patiently(&self) -> bool {
        match &self.disk {
            Some(disk) => disk.progresses(DISK_PATIENCE).await || disk.shed(),
            None => false,
        }
    }

    /// Gives up the clean bytes at rest, which the disk or the store has. Never waits.
    pub fn give_up_resting(&self) {
        self.memory.clear();
    }

    /// What clean bytes at rest take, bookkeeping included.
    pub fn resting_bytes(&self) -> u64 {
        self.memory.weight()
    }

    /// Drops what is held of `object`: this version is gone for good.
    pub fn forget(&self, object: &ObjectId) {
        if let Some(disk) = &self.disk {
            disk.forget(object);
        }
        if let Some(record) = self.records.find(object) {
            self.records.detach(&record);
            self.orphan(&record, |_| true);
            self.memory.forget(record.number, record.size);
        }
    }

    /// The bytes of `extent`, which lies in one block of `object`, if memory or the disk has all of
    /// them. Nothing is fetched and no readahead begins. Waits for the disk.
    pub async fn peek(&self, object: &ObjectId, extent: Extent) -> Option<Vec<u8>> {
        let mut buf = vec![0; extent.len as usize];
        if let Some(record) = self.records.find(object)
            && self.memory.run(record.number, extent.offset, extent.len) == extent.len
            && self.memory.copy(record.number, extent.offset, &mut buf) == buf.len()
        {
            return Some(buf);
        }
        let disk = self.disk.as_ref()?;
        let here = disk.holds(object, extent) && disk.read(object, extent.offset, &mut buf).await;
        here.then_some(buf)
    }

    /// The counters.
    pub fn stats(&self) -> ReadStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let disk = self.disk.as_ref().map(|disk| disk.stats());
        ReadStats {
            memory_hit_bytes: get(&counters.memory_hit),
            disk_hit_bytes: get(&counters.disk_hit),
            miss_bytes: get(&counters.miss),
            hits: get(&counters.hits),
            misses: get(&counters.misses),
            fetched_bytes: get(&counters.fetched),
            corrupt_extents: disk.map_or(0, |disk| disk.corrupt_extents),
            memory_bytes: self.memory.bytes(),
        }
    }
}
