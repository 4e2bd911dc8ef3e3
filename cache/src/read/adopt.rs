//! Bytes that were published here become clean bytes of the new version, in memory and on disk.

use std::sync::Arc;

use bytes::Bytes;

use super::cache::ReadCache;
use crate::extent::Extent;
use crate::memory::{BLOCK, Keep};
use crate::object::ObjectId;
use crate::pieces::{self, PieceList, PlacedPiece};
use crate::readahead::UNIT;

/// What is adopted in pieces smaller than this is copied, so that it does not keep alive the larger
/// buffers that it may be cut from.
const COPY_MAX: u64 = 128 << 10;

impl ReadCache {
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
        let mut pieces: Vec<PlacedPiece> = pieces
            .into_iter()
            .filter(|(extent, bytes)| {
                !extent.is_empty() && extent.len == bytes.len() as u64 && extent.end() <= size
            })
            .map(|(extent, bytes)| (extent.offset, bytes))
            .collect();
        pieces.sort_unstable_by_key(|(offset, _)| *offset);
        if let Some(disk) = &self.disk {
            for run in pieces::runs(&pieces, UNIT) {
                let (extent, list) = pieces::as_extent(run);
                disk.store_deferred(object, size, extent, list, keep.cloned());
            }
        }
        let record = self.records.open(object, size);
        let keep: Keep = record.clone();
        let mut room = self.config.clean_max;
        for (index, list) in by_block(pieces) {
            let len = list.iter().map(|(_, bytes)| bytes.len() as u64).sum();
            // What comes last would only push out what came first.
            let Some(left) = room.checked_sub(len) else {
                break;
            };
            room = left;
            let list = if list.len() as u64 * COPY_MAX > len {
                pieces::compact(&list)
            } else {
                list
            };
            let list = Arc::new(PieceList::new(list));
            self.memory.insert(record.number, &keep, index, &list);
        }
    }
}

/// Pieces in order, cut at blocks.
fn by_block(pieces: Vec<PlacedPiece>) -> Vec<(u64, Vec<PlacedPiece>)> {
    let mut blocks: Vec<(u64, Vec<PlacedPiece>)> = Vec::new();
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
