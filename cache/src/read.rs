//! Clean bytes of one version of an object, from wherever they are: memory, a fetch under way, the
//! disk, the store.
//!
//! A [`Stream`] is one open handle. [`Stream::read_now`] runs on a ring thread: it copies what is
//! here and never waits; if something is missing it has already begun to fetch it when it says so.
//! [`Stream::read`] then waits, joined to whatever fetch brings the bytes, and is answered when the
//! last byte that it asked for has arrived.
//!
//! The parts: [`crate::readahead`] decides how far to fetch; `object` keeps one table of fills per
//! object, so that no two fetches overlap; `fill` is one GET and its readers; `fetch` finds memory
//! and brings the bytes; [`crate::memory`] keeps them afterwards.
//!
//! A byte is copied once, from the connection's buffer into the reader's. Memory in use is bounded
//! by [`ReadConfig::clean_max`] for what is at rest, the share [`ReadConfig::fills`] for what is
//! under way or unread, and one kernel request's length for each waiting reader.
//!
//! Order of locks: a stream's pattern; an object's table of fills; a fill. None is held while bytes
//! are copied, a request is sent, or another cache is asked, but that the table's is held while
//! memory is looked through for what is missing.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::budget::Share;
use crate::disk_cache::DiskCache;
use crate::extent::Extent;
use crate::memory::{BLOCK, Keep, Memory, Pieces};
use crate::object::ObjectId;
use crate::readahead::UNIT;
use crate::store::ObjectStore;

mod fetch;
mod fill;
#[cfg(test)]
mod model;
mod object;
mod stream;
#[cfg(test)]
mod tests;

use fetch::Held;
use object::Objects;
pub use stream::Stream;

/// What is adopted in pieces smaller than this is copied, so that it does not keep alive the larger
/// buffers that it may be cut from.
const ADOPT_COPY_MAX: u64 = 128 << 10;

/// An object that lacks more than this on disk is not looked for in memory: 64 looks at most.
const GAPS_MAX: u64 = 64 * BLOCK;

/// Objects smaller than this are not waited for: the disk's queue may hold as much.
const SETTLE_MIN: u64 = 32 << 20;

/// How long an open waits for the disk: a few times what the queue's bytes take on a disk that
/// takes them into the page cache.
const SETTLE_MAX: Duration = Duration::from_millis(200);

/// For how long those who need memory wait for a disk that holds some.
const DISK_PATIENCE: Duration = Duration::from_millis(200);

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
struct Counters {
    memory_hit: AtomicU64,
    disk_hit: AtomicU64,
    miss: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    fetched: AtomicU64,
}

/// Clean bytes of objects: from memory, from disk, from the store.
#[derive(Debug)]
pub struct ReadCache {
    config: ReadConfig,
    store: Arc<dyn ObjectStore>,
    disk: Option<Arc<DiskCache>>,
    runtime: tokio::runtime::Handle,
    memory: Memory,
    objects: Arc<Objects>,
    held: Mutex<Held>,
    /// How many readers wait for memory.
    hungry: AtomicUsize,
    streams: AtomicU64,
    counters: Counters,
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
            memory: Memory::new(config.clean_max),
            config,
            store,
            disk,
            runtime,
            objects: Arc::default(),
            held: Mutex::default(),
            hungry: AtomicUsize::new(0),
            streams: AtomicU64::new(0),
            counters: Counters::default(),
        })
    }

    /// Begins reading `object`, which is `size` bytes long. One per open handle: it keeps the
    /// readahead's state. Never waits, asks the store nothing.
    pub fn stream(self: &Arc<Self>, object: ObjectId, size: u64) -> Stream {
        let number = self.streams.fetch_add(1, Ordering::Relaxed);
        Stream::new(self.clone(), self.objects.open(&object, size), size, number)
    }

    /// Takes bytes of `object` that the caller has at hand (just published), so that reading them
    /// asks the store nothing. Keeps what fits. `keep` pays for the bytes: it is dropped when they need it
    /// no longer, and what has no `keep` is not stored on the disk beyond a few MiB. Never waits.
    pub fn adopt(
        &self,
        object: &ObjectId,
        size: u64,
        pieces: Vec<(Extent, Bytes)>,
        keep: Option<&Keep>,
    ) {
        let mut pieces: Vec<(u64, Bytes)> = pieces
            .into_iter()
            .filter(|(extent, bytes)| {
                !extent.is_empty() && extent.len == bytes.len() as u64 && extent.end() <= size
            })
            .map(|(extent, bytes)| (extent.offset, bytes))
            .collect();
        pieces.sort_unstable_by_key(|(offset, _)| *offset);
        if let Some(disk) = &self.disk {
            for run in runs(&pieces) {
                let list: Vec<Bytes> = run.iter().map(|(_, bytes)| bytes.clone()).collect();
                let len = list.iter().map(|bytes| bytes.len() as u64).sum();
                disk.store_deferred(
                    object,
                    size,
                    Extent::new(run[0].0, len),
                    list,
                    keep.cloned(),
                );
            }
        }
        let object = self.objects.open(object, size);
        let keep: Keep = object.clone();
        let mut room = self.config.clean_max;
        for (index, list) in by_block(pieces) {
            let len = list.iter().map(|(_, bytes)| bytes.len() as u64).sum();
            // What comes last would only push out what came first.
            let Some(left) = room.checked_sub(len) else {
                break;
            };
            room = left;
            let list = if list.len() as u64 * ADOPT_COPY_MAX > len {
                fill::compact(list)
            } else {
                list
            };
            self.memory
                .insert(object.number, &keep, index, &Arc::new(Pieces::new(list)));
        }
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
        if let Some(object) = self.objects.find(object) {
            self.objects.part(&object);
            self.orphan(&object, |_| true);
            self.memory.forget(object.number, object.size);
        }
    }

    /// The bytes of `extent`, which lies in one block of `object`, if memory or the disk has all of
    /// them. Nothing is fetched and no readahead begins. Waits for the disk.
    pub async fn peek(&self, object: &ObjectId, extent: Extent) -> Option<Vec<u8>> {
        let mut buf = vec![0; extent.len as usize];
        if let Some(object) = self.objects.find(object)
            && self.memory.run(object.number, extent.offset, extent.len) == extent.len
            && self.memory.copy(object.number, extent.offset, &mut buf) == buf.len()
        {
            return Some(buf);
        }
        let disk = self.disk.as_ref()?;
        let held = disk.holds(object, extent) && disk.read(object, extent.offset, &mut buf).await;
        held.then_some(buf)
    }

    /// The file that holds all of `object`, verified, for the kernel's passthrough; `None` if it
    /// is not whole on disk or not yet verified (which this begins). Never waits.
    pub fn whole_file(&self, object: &ObjectId, size: u64) -> Option<Arc<File>> {
        let disk = self.disk.as_ref()?;
        let file = disk.whole_file(object, size);
        if file.is_none() {
            self.fill_gaps(disk, object, size);
        }
        file
    }

    /// Gives a disk that has nearly all of a large `object` the moment that it needs for the rest,
    /// so that [`ReadCache::whole_file`] finds it: reading it by passthrough saves many times that.
    /// Waits for the disk, a fifth of a second at most.
    pub async fn settle(&self, object: &ObjectId, size: u64) {
        let Some(disk) = self.disk.as_ref().filter(|_| size >= SETTLE_MIN) else {
            return;
        };
        if disk.gaps(object, GAPS_MAX).is_empty() {
            return;
        }
        self.fill_gaps(disk, object, size);
        // Too slow is no error: this open is served without passthrough.
        let _ = tokio::time::timeout(SETTLE_MAX, disk.stored(object)).await;
    }

    /// Stores what a disk that was behind has left out and memory still has. Without this an object
    /// of which memory holds the rest would never be whole: what is read from memory is not stored.
    fn fill_gaps(&self, disk: &DiskCache, object: &ObjectId, size: u64) {
        let gaps = disk.gaps(object, GAPS_MAX);
        let Some(known) = self.objects.find(object).filter(|_| !gaps.is_empty()) else {
            return;
        };
        for gap in gaps {
            for index in gap.offset / BLOCK..gap.end().div_ceil(BLOCK) {
                let Some(pieces) = self.memory.get(known.number, index) else {
                    continue;
                };
                for run in runs(pieces.list()) {
                    let list: Vec<Bytes> = run.iter().map(|(_, bytes)| bytes.clone()).collect();
                    let len = list.iter().map(|bytes| bytes.len() as u64).sum();
                    disk.store(object, size, Extent::new(run[0].0, len), list);
                }
            }
        }
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

/// Pieces in order, grouped into runs without gaps of at most a unit.
fn runs(pieces: &[(u64, Bytes)]) -> impl Iterator<Item = &[(u64, Bytes)]> {
    pieces.chunk_by(|(a, bytes), (b, _)| a + bytes.len() as u64 == *b && a / UNIT == b / UNIT)
}

/// Pieces in order, cut at blocks.
fn by_block(pieces: Vec<(u64, Bytes)>) -> Vec<(u64, Vec<(u64, Bytes)>)> {
    let mut blocks: Vec<(u64, Vec<(u64, Bytes)>)> = Vec::new();
    for (mut offset, mut bytes) in pieces {
        while !bytes.is_empty() {
            let index = offset / BLOCK;
            let len = ((index + 1) * BLOCK - offset).min(bytes.len() as u64);
            let head = (offset, bytes.split_to(len as usize));
            match blocks.last_mut() {
                Some((last, list)) if *last == index => list.push(head),
                _ => blocks.push((index, vec![head])),
            }
            offset += len;
        }
    }
    blocks
}
