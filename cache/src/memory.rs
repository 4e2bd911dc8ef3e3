//! Clean bytes at rest in memory, in blocks of 1 MiB of an object, bounded by their bytes.
//!
//! A block is a list of pieces as the store's connection gave them: they are not joined, so bytes
//! are copied once, into the reader's buffer. A block may have gaps: small random reads put pieces
//! of a few pages into it, which are weighed as what they are. [`Pieces`] never change; putting
//! more bytes into a block makes a new list.
//!
//! The blocks live in moka with least-recently-used eviction. Its frequency filter was not taken:
//! it refuses fresh blocks when the cache is full of old ones, and bytes that were just written or
//! just read are the ones that are asked for again; the reader keeps long scans out by itself.
//! Two habits of moka are worked around. It applies inserts in batches of 64, which could be 64 MiB
//! too many: [`Memory::insert`] settles it in time. And it destroys evicted values later, by epochs: the
//! eviction listener empties a block at once, and whoever holds the emptied block sees a miss.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;

use crate::extent::{Extent, ExtentMap};

/// The size of a block in bytes, and what its offset is a multiple of.
pub const BLOCK: u64 = 1 << 20;
/// What a piece costs beside its bytes: its list entry and its buffer's header.
const PIECE_COST: u64 = 96;
/// What a block costs beside its pieces: moka's entry, its key, its links.
const BLOCK_COST: u64 = 384;

/// Something that is kept alive as long as bytes of it are held.
pub type Keep = Arc<dyn Any + Send + Sync>;

/// Bytes of one block, in order, without overlap, possibly with gaps.
#[derive(Debug, Default)]
pub struct Pieces {
    /// Each with its offset in the object.
    list: Vec<(u64, Bytes)>,
    bytes: u64,
}

impl Pieces {
    /// Of pieces in order that do not overlap.
    pub fn new(list: Vec<(u64, Bytes)>) -> Self {
        let bytes = list.iter().map(|(_, piece)| piece.len() as u64).sum();
        Self { list, bytes }
    }

    /// How many bytes there are.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The pieces, each with its offset in the object.
    pub(crate) fn list(&self) -> &[(u64, Bytes)] {
        &self.list
    }

    /// Copies the bytes from `offset` on into `buf`, up to the first gap. Gives how many.
    pub fn copy(&self, offset: u64, buf: &mut [u8]) -> usize {
        copy(&self.list, offset, buf)
    }

    /// How many bytes follow `offset` without a gap, at most `len`.
    pub fn run(&self, offset: u64, len: u64) -> u64 {
        let mut at = offset;
        let end = offset.saturating_add(len);
        for (start, piece) in &self.list[first(&self.list, offset)..] {
            if *start > at || at >= end {
                break;
            }
            at = at.max(start + piece.len() as u64);
        }
        at.min(end) - offset
    }

    /// These with `newer` put over them.
    fn merged(&self, newer: &Pieces) -> Pieces {
        let mut map = ExtentMap::new();
        for (offset, piece) in self.list.iter().chain(&newer.list) {
            map.insert(Extent::new(*offset, piece.len() as u64), piece.clone());
        }
        Pieces::new(
            map.iter()
                .map(|(extent, piece)| (extent.offset, piece.clone()))
                .collect(),
        )
    }

    fn weight(&self) -> u64 {
        self.bytes + self.list.len() as u64 * PIECE_COST + BLOCK_COST
    }
}

/// The index of the first piece that ends after `offset`.
pub(crate) fn first(list: &[(u64, Bytes)], offset: u64) -> usize {
    list.partition_point(|(start, piece)| start + piece.len() as u64 <= offset)
}

/// Copies from a list of pieces in order, up to the first gap. Gives how many bytes.
pub(crate) fn copy(list: &[(u64, Bytes)], offset: u64, buf: &mut [u8]) -> usize {
    let mut done = 0;
    for (start, piece) in &list[first(list, offset)..] {
        let at = offset + done as u64;
        if *start > at || done == buf.len() {
            break;
        }
        let from = &piece[(at - start) as usize..];
        let len = from.len().min(buf.len() - done);
        buf[done..done + len].copy_from_slice(&from[..len]);
        done += len;
    }
    done
}

#[derive(Debug)]
struct Block {
    /// Emptied when it is evicted.
    pieces: Mutex<Arc<Pieces>>,
    weight: u32,
    _keep: Keep,
}

/// See the module. Objects go by a number that the caller gives; a number is never used again.
#[derive(Debug)]
pub struct Memory {
    blocks: Cache<(u64, u64), Arc<Block>>,
    bytes: Arc<AtomicU64>,
    /// Bytes inserted since moka was last settled, and how many there may be.
    unsettled: AtomicU64,
    unsettled_max: u64,
}

impl Memory {
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

    /// Room for `bytes_max` bytes, what the bookkeeping takes included.
    pub fn new(bytes_max: u64) -> Self {
        let bytes = Arc::new(AtomicU64::new(0));
        let left = bytes.clone();
        let unsettled_max = (bytes_max / 16).min(BLOCK);
        let blocks = Cache::builder()
            // With no capacity moka would take nothing and tell the listener nothing.
            .max_capacity((bytes_max - unsettled_max).max(1))
            .weigher(|_, block: &Arc<Block>| block.weight)
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener(move |_, block: Arc<Block>, _: RemovalCause| {
                let pieces = std::mem::take(&mut *block.pieces.lock());
                left.fetch_sub(pieces.bytes, Ordering::Relaxed);
            })
            .build();
        Self {
            blocks,
            bytes,
            unsettled: AtomicU64::new(0),
            unsettled_max,
        }
    }

    /// How many bytes are held.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The pieces of block `index` of `object`.
    pub fn get(&self, object: u64, index: u64) -> Option<Arc<Pieces>> {
        // A block that was replaced between the look-up and the lock is found empty; its successor
        // is there by then.
        for _ in 0..3 {
            let block = self.blocks.get(&(object, index))?;
            let pieces = block.pieces.lock().clone();
            if pieces.bytes > 0 {
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
    pub fn insert(&self, object: u64, keep: &Keep, index: u64, pieces: &Arc<Pieces>) {
        if pieces.bytes == 0 {
            return;
        }
        self.blocks.entry((object, index)).and_upsert_with(|held| {
            let held = held.map(|entry| entry.into_value().pieces.lock().clone());
            let pieces = match held {
                Some(held) if held.bytes > 0 => Arc::new(held.merged(pieces)),
                _ => pieces.clone(),
            };
            // Counted here and not by the caller: this runs exactly once for each value.
            self.bytes.fetch_add(pieces.bytes, Ordering::Relaxed);
            Arc::new(Block {
                weight: u32::try_from(pieces.weight()).unwrap_or(u32::MAX),
                pieces: Mutex::new(pieces),
                _keep: keep.clone(),
            })
        });
        let unsettled = self.unsettled.fetch_add(pieces.bytes, Ordering::Relaxed) + pieces.bytes;
        if unsettled > self.unsettled_max {
            self.unsettled.store(0, Ordering::Relaxed);
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
        let held: Vec<u64> = self
            .blocks
            .iter()
            .filter(|(key, _)| key.0 == object)
            .map(|(key, _)| key.1)
            .collect();
        for index in held {
            self.blocks.invalidate(&(object, index));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1 << 10;

    fn keep() -> Keep {
        Arc::new(())
    }

    fn pieces(offset: u64, len: usize, fill: u8) -> Arc<Pieces> {
        Arc::new(Pieces::new(vec![(offset, vec![fill; len].into())]))
    }

    #[test]
    fn bytes_never_exceed_the_bound() {
        for bound in [0, 300 << 10, 4 << 20] {
            let memory = Memory::new(bound);
            for index in 0..40u64 {
                let len = [1 << 20, 4096, 700 * KIB][index as usize % 3];
                memory.insert(0, &keep(), index, &pieces(index * BLOCK, len, 1));
                assert!(memory.bytes() <= bound, "{} of {bound}", memory.bytes());
            }
        }
    }

    #[test]
    fn what_is_given_up_is_gone_at_once_however_much_it_is() {
        let memory = Memory::new(64 << 20);
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
        let memory = Memory::new(1 << 20);
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
        let memory = Memory::new((5 << 20) + (512 << 10));
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
        let memory = Memory::new(4 << 20);
        let held: Vec<Bytes> = (0..50).map(|_| Bytes::from(vec![1; 1 << 20])).collect();
        for (index, bytes) in (0..).zip(&held) {
            let pieces = Pieces::new(vec![(index * BLOCK, bytes.clone())]);
            memory.insert(0, &keep(), index, &Arc::new(pieces));
        }
        let shared = held.iter().filter(|bytes| !bytes.is_unique()).count();
        assert!((2..=4).contains(&shared), "{shared}");
        memory.forget(0, 50 << 20);
        assert_eq!(memory.bytes(), 0);
        assert!(held.iter().all(Bytes::is_unique));
    }
}
