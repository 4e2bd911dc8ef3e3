//! Clean bytes at rest in memory, in blocks of 1 MiB of an object, bounded by their bytes.
//!
//! A block is a list of pieces as the store's connection gave them. It may have gaps: small random reads
//! put pieces of a few pages into it, which are weighed as what they are.
//!
//! The blocks live in moka with least-recently-used eviction. Its frequency filter was not taken:
//! it refuses fresh blocks when the cache is full of old ones, and bytes that were just written or
//! just read are the ones that are asked for again; the reader keeps long scans out by itself.
//! Two habits of moka are worked around. It applies inserts in batches of 64, which could be 64 MiB
//! too many: [`BlockCache::insert`] has it apply them in time. And it destroys evicted values later, by
//! epochs: the eviction listener empties a block at once, and whoever has the emptied block sees a miss.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;

use crate::pieces::PieceList;

/// The size of a block in bytes, and what its offset is a multiple of.
pub const BLOCK: u64 = 1 << 20;
/// What a piece costs beside its bytes: its list entry and its buffer's header.
const PIECE_COST: u64 = 96;
/// What a block costs beside its pieces: moka's entry, its key, its links.
const BLOCK_COST: u64 = 384;

/// Something that is kept alive as long as bytes of it are held.
pub type Keep = Arc<dyn Any + Send + Sync>;

#[derive(Debug)]
struct MemoryBlock {
    /// Emptied when it is evicted.
    pieces: Mutex<Arc<PieceList>>,
    weight: u32,
    _keep: Keep,
}

fn weight(pieces: &PieceList) -> u64 {
    pieces.bytes() + pieces.list().len() as u64 * PIECE_COST + BLOCK_COST
}

/// See the module. Objects go by a number that the caller gives; a number is never used again.
#[derive(Debug)]
pub struct BlockCache {
    blocks: Cache<(u64, u64), Arc<MemoryBlock>>,
    bytes: Arc<AtomicU64>,
    /// Bytes inserted that moka may not have applied yet, and how many there may be.
    unapplied: AtomicU64,
    unapplied_max: u64,
}

impl BlockCache {
    /// Room for `bytes_max` bytes, what the bookkeeping takes included.
    pub fn new(bytes_max: u64) -> Self {
        let bytes = Arc::new(AtomicU64::new(0));
        let left = bytes.clone();
        let unapplied_max = (bytes_max / 16).min(BLOCK);
        let blocks = Cache::builder()
            // With no capacity moka would take nothing and tell the listener nothing.
            .max_capacity((bytes_max - unapplied_max).max(1))
            .weigher(|_, block: &Arc<MemoryBlock>| block.weight)
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener(move |_, block: Arc<MemoryBlock>, _: RemovalCause| {
                let pieces = std::mem::take(&mut *block.pieces.lock());
                left.fetch_sub(pieces.bytes(), Ordering::Relaxed);
            })
            .build();
        Self {
            blocks,
            bytes,
            unapplied: AtomicU64::new(0),
            unapplied_max,
        }
    }

    /// What the blocks weigh, bookkeeping included.
    pub fn weight(&self) -> u64 {
        self.blocks.weighted_size()
    }

    /// Gives up all blocks.
    pub fn clear(&self) {
        self.blocks.invalidate_all();
        // Each run of moka's ends after a tenth of a second, however much is left.
        let mut before = u64::MAX;
        while before > 0 {
            self.blocks.run_pending_tasks();
            let left = self.blocks.entry_count();
            if left >= before {
                return;
            }
            before = left;
        }
    }

    /// How many bytes are held.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The pieces of block `index` of `object`.
    pub fn get(&self, object: u64, index: u64) -> Option<Arc<PieceList>> {
        // A block that was replaced between the look-up and the lock is found empty; its successor
        // is there by then.
        for _ in 0..3 {
            let block = self.blocks.get(&(object, index))?;
            let pieces = block.pieces.lock().clone();
            if pieces.bytes() > 0 {
                return Some(pieces);
            }
        }
        None
    }

    /// Copies the bytes of `object` from `offset` on into `buf`, up to the block's end or the first
    /// gap. Gives how many.
    pub fn copy(&self, object: u64, offset: u64, buf: &mut [u8]) -> usize {
        self.get(object, offset / BLOCK)
            .map_or(0, |pieces| pieces.copy(offset, buf))
    }

    /// How many bytes of `object` from `offset` on are here, at most `len`, up to the block's end.
    pub fn run(&self, object: u64, offset: u64, len: u64) -> u64 {
        self.get(object, offset / BLOCK)
            .map_or(0, |pieces| pieces.run(offset, len))
    }

    /// Puts `pieces`, which lie in block `index`, beside what is there of it. May evict.
    pub fn insert(&self, object: u64, keep: &Keep, index: u64, pieces: &Arc<PieceList>) {
        if pieces.bytes() == 0 {
            return;
        }
        self.blocks.entry((object, index)).and_upsert_with(|older| {
            let older = older.map(|entry| entry.into_value().pieces.lock().clone());
            let pieces = match older {
                Some(older) if older.bytes() > 0 => Arc::new(older.merged(pieces)),
                _ => pieces.clone(),
            };
            // Counted here and not by the caller: this runs exactly once for each value.
            self.bytes.fetch_add(pieces.bytes(), Ordering::Relaxed);
            Arc::new(MemoryBlock {
                weight: u32::try_from(weight(&pieces)).unwrap_or(u32::MAX),
                pieces: Mutex::new(pieces),
                _keep: keep.clone(),
            })
        });
        let unapplied =
            self.unapplied.fetch_add(pieces.bytes(), Ordering::Relaxed) + pieces.bytes();
        if unapplied > self.unapplied_max {
            self.unapplied.store(0, Ordering::Relaxed);
            self.blocks.run_pending_tasks();
        }
    }

    /// Drops the blocks of `object`, which is `size` bytes long.
    pub fn forget(&self, object: u64, size: u64) {
        let count = size.div_ceil(BLOCK);
        if count <= self.blocks.entry_count().max(64) {
            for index in 0..count {
                self.blocks.invalidate(&(object, index));
            }
            return;
        }
        let indices: Vec<u64> = self
            .blocks
            .iter()
            .filter(|(key, _)| key.0 == object)
            .map(|(key, _)| key.1)
            .collect();
        for index in indices {
            self.blocks.invalidate(&(object, index));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const KIB: usize = 1 << 10;

    fn keep() -> Keep {
        Arc::new(())
    }

    fn pieces(offset: u64, len: usize, fill: u8) -> Arc<PieceList> {
        Arc::new(PieceList::new(vec![(offset, vec![fill; len].into())]))
    }

    #[test]
    fn bytes_never_exceed_the_bound() {
        for bound in [0, 300 << 10, 4 << 20] {
            let memory = BlockCache::new(bound);
            for index in 0..40u64 {
                let len = [1 << 20, 4096, 700 * KIB][index as usize % 3];
                memory.insert(0, &keep(), index, &pieces(index * BLOCK, len, 1));
                assert!(memory.bytes() <= bound, "{} of {bound}", memory.bytes());
            }
        }
    }

    #[test]
    fn what_is_given_up_is_gone_at_once_however_much_it_is() {
        let memory = BlockCache::new(64 << 20);
        for number in 0..5_000 {
            memory.insert(number, &keep(), 0, &pieces(0, 100, 1));
        }
        assert_eq!(memory.bytes(), 500_000);
        memory.clear();
        assert_eq!((memory.bytes(), memory.weight()), (0, 0));
        assert_eq!(memory.run(7, 0, 100), 0);
        memory.insert(7, &keep(), 0, &pieces(0, 100, 2));
        assert_eq!(memory.run(7, 0, 100), 100, "there is room again");
    }

    #[test]
    fn small_reads_are_weighed_as_what_they_are_and_add_up() {
        let memory = BlockCache::new(1 << 20);
        for page in [3u64, 1, 2, 5] {
            let at = page * 4096;
            memory.insert(7, &keep(), 0, &pieces(at, 4096, page as u8));
        }
        assert_eq!(memory.bytes(), 4 * 4096);
        let mut buf = vec![0; 5 * 4096];
        assert_eq!(memory.copy(7, 4096 + 10, &mut buf), 3 * 4096 - 10);
        assert_eq!((buf[0], buf[4096], buf[8192]), (1, 2, 3));
        assert_eq!(memory.run(7, 4096, 1 << 20), 3 * 4096);
        assert_eq!(memory.run(7, 4 * 4096, 1), 0);
        assert_eq!(memory.copy(8, 4096, &mut buf), 0, "another object");
    }

    #[test]
    fn the_least_recently_read_goes_first() {
        // Room for five blocks and their bookkeeping.
        let memory = BlockCache::new((5 << 20) + (512 << 10));
        let insert = |index| memory.insert(0, &keep(), index, &pieces(index * BLOCK, 1 << 20, 1));
        (0..5).for_each(insert);
        assert_eq!(memory.run(0, 0, 1), 1);
        (5..8).for_each(insert);
        let here: Vec<u64> = (0..8)
            .filter(|at| memory.run(0, at * BLOCK, 1) > 0)
            .collect();
        assert_eq!(here, [0, 4, 5, 6, 7]);
    }

    #[test]
    fn evicted_bytes_are_let_go_at_once() {
        let memory = BlockCache::new(4 << 20);
        let held: Vec<Bytes> = (0..50).map(|_| Bytes::from(vec![1; 1 << 20])).collect();
        for (index, bytes) in (0..).zip(&held) {
            let pieces = PieceList::new(vec![(index * BLOCK, bytes.clone())]);
            memory.insert(0, &keep(), index, &Arc::new(pieces));
        }
        let shared = held.iter().filter(|bytes| !bytes.is_unique()).count();
        assert!((2..=4).contains(&shared), "{shared}");
        memory.forget(0, 50 << 20);
        assert_eq!(memory.bytes(), 0);
        assert!(held.iter().all(Bytes::is_unique));
    }
}
