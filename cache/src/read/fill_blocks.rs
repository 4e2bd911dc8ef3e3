//! What a completed fill has of each block, until that is at rest.

use std::sync::Arc;

use crate::extent::Extent;
use crate::memory::BLOCK;
use crate::pieces::{self, PieceList, PlacedPiece};

/// Fills up to this size are copied together when they come to rest: a few pages would otherwise
/// keep the connection's whole receive buffer alive.
const COMPACT_MAX: u64 = 128 << 10;

/// A part of a block that a fill has brought.
#[derive(Debug)]
pub(super) struct FillBlock {
    pub(super) index: u64,
    pub(super) extent: Extent,
    pub(super) pieces: Arc<PieceList>,
    /// How many of its bytes have been read.
    read: u64,
    /// It was handed out to be put to rest.
    leaving: bool,
}

/// A block on its way to rest.
#[derive(Debug)]
pub(super) struct RestingBlock {
    pub(super) index: u64,
    pub(super) pieces: Arc<PieceList>,
    /// All of it has been read.
    pub(super) read: bool,
}

impl FillBlock {
    /// What `list`, which are all pieces of `extent`, has of each block. `read` says how many bytes of
    /// each were read already.
    pub(super) fn split(extent: Extent, list: &[PlacedPiece], read: &[u64]) -> Vec<Self> {
        (extent.offset / BLOCK..)
            .zip(read)
            .map(|(index, read)| {
                let block = Extent::new(index * BLOCK, BLOCK);
                // The first and last blocks are computed from the extent, so that they all meet it.
                let part = block.intersect(extent).expect("a block of the fill");
                let mut pieces = pieces::cut(list, part);
                if extent.len <= COMPACT_MAX {
                    pieces = pieces::compact(&pieces);
                }
                Self {
                    index,
                    extent: part,
                    pieces: Arc::new(PieceList::new(pieces)),
                    read: *read,
                    leaving: false,
                }
            })
            .collect()
    }

    /// Whether the byte at `offset` is in it.
    pub(super) fn has(&self, offset: u64) -> bool {
        self.extent.contains(Extent::new(offset, 1))
    }

    /// Counts bytes as read from `offset` on, at most `len`.
    pub(super) fn count_read(&mut self, offset: u64, len: u64) {
        self.read += self.pieces.run(offset, len);
    }

    /// Adds itself to `rest` if it has been read or must leave, the first time.
    pub(super) fn leave(&mut self, must: bool, rest: &mut Vec<RestingBlock>) {
        let read = self.read >= self.extent.len;
        if (read || must) && !self.leaving {
            self.leaving = true;
            rest.push(RestingBlock {
                index: self.index,
                pieces: self.pieces.clone(),
                read,
            });
        }
    }
}

/// How many blocks `extent`, which is not empty, touches.
pub(super) fn block_count(extent: Extent) -> usize {
    ((extent.end() - 1) / BLOCK - extent.offset / BLOCK + 1) as usize
}
