//! What a fill has and who waits for it, phase by phase. Pure: [`super::fill::Fill`] has it under a lock.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::fill_blocks::{FillBlock, RestingBlock, block_count};
use crate::budget::Grant;
use crate::disk_cache::QueueReservation;
use crate::extent::Extent;
use crate::memory::BLOCK;
use crate::pieces::{self, PieceList, PlacedPiece};
use crate::store::StoreResult;

/// How many pieces are copied per look under the lock; they are cloned onto the stack, so that the
/// copying itself needs no lock.
const PIECES_MAX: usize = 16;

/// What was taken for a fetch before it began.
#[derive(Debug)]
pub(super) struct FetchReservation {
    /// Memory, unless the fetch waits for it.
    pub(super) memory: Option<Grant>,
    /// A place in the disk's queue, if there is a disk.
    pub(super) queue: Option<QueueReservation>,
}

#[derive(Debug)]
pub(super) struct FillWaiter {
    pub(super) extent: Extent,
    pub(super) answer: oneshot::Sender<StoreResult<Vec<PlacedPiece>>>,
}

#[derive(Debug)]
pub(super) enum FillPhase {
    InFlight(Vec<PlacedPiece>),
    Complete(Vec<FillBlock>),
    Over,
}

/// See the module.
#[derive(Debug)]
pub(super) struct FillState {
    extent: Extent,
    pub(super) phase: FillPhase,
    /// The end of what has arrived.
    pub(super) arrived: u64,
    /// What is unread is kept when it is complete: block by block for readahead, all or nothing for
    /// what was asked for.
    pub(super) keep_unread: bool,
    /// Somebody has read of it.
    touched: bool,
    pub(super) waiters: Vec<FillWaiter>,
    /// Reads answered while in flight, in bytes by block from the fill's first.
    read: Vec<u64>,
    pub(super) memory: Option<Grant>,
    pub(super) queue: Option<QueueReservation>,
    /// All its bytes wait to be stored on the disk.
    pub(super) awaits_disk: bool,
    pub(super) abort: Option<AbortHandle>,
    /// What the cache had fetched in all when this became complete.
    pub(super) completed_at: u64,
}

impl FillState {
    /// Nothing has arrived.
    pub(super) fn new(extent: Extent, reservation: FetchReservation) -> Self {
        Self {
            extent,
            phase: FillPhase::InFlight(Vec::new()),
            arrived: extent.offset,
            keep_unread: true,
            touched: false,
            waiters: Vec::new(),
            read: vec![0; block_count(extent)],
            memory: reservation.memory,
            queue: reservation.queue,
            awaits_disk: false,
            abort: None,
            completed_at: u64::MAX,
        }
    }

    /// Ends it without bytes.
    pub(super) fn end(&mut self) {
        self.phase = FillPhase::Over;
        self.memory = None;
        self.queue = None;
    }

    /// Gives back what the grant has beyond the bytes that are here.
    pub(super) fn shrink_grant(&mut self) {
        let left: u64 = match &self.phase {
            _ if self.awaits_disk => return,
            FillPhase::InFlight(_) => return,
            FillPhase::Complete(blocks) => blocks.iter().map(|block| block.pieces.bytes()).sum(),
            FillPhase::Over => 0,
        };
        match &mut self.memory {
            Some(grant) if left > 0 => grant.shrink(left),
            grant => *grant = None,
        }
    }

    /// Some of what is here from `offset` on, at most `len` bytes, counted as read.
    pub(super) fn source(
        &mut self,
        offset: u64,
        len: u64,
        ahead: bool,
        rest: &mut Vec<RestingBlock>,
    ) -> CopySource {
        match &mut self.phase {
            FillPhase::InFlight(list) => {
                let mut pieces = [const { Bytes::new() }; PIECES_MAX];
                let (mut at, end) = (offset, offset + len);
                let from = pieces::first(list, offset);
                for (slot, (start, piece)) in pieces.iter_mut().zip(&list[from..]) {
                    if at >= end {
                        break;
                    }
                    let skip = (at - start) as usize;
                    let len = (piece.len() - skip).min((end - at) as usize);
                    *slot = piece.slice(skip..skip + len);
                    at += len as u64;
                }
                count_read(&mut self.read, self.extent, Extent::between(offset, at));
                self.touched |= at > offset;
                CopySource::Pieces(pieces)
            }
            FillPhase::Complete(blocks) => {
                let Some(block) = blocks.iter_mut().find(|block| block.has(offset)) else {
                    return CopySource::Nothing;
                };
                let pieces = block.pieces.clone();
                block.count_read(offset, len);
                for block in blocks {
                    block.leave(!ahead, rest);
                }
                CopySource::Block(pieces)
            }
            FillPhase::Over => CopySource::Nothing,
        }
    }

    /// Takes the next bytes, if it is in flight, and answers those who have all of theirs now.
    pub(super) fn push(&mut self, chunk: Bytes) {
        let FillPhase::InFlight(list) = &mut self.phase else {
            return;
        };
        if !chunk.is_empty() {
            let len = chunk.len() as u64;
            list.push((self.arrived, chunk));
            self.arrived += len;
        }
        let arrived = self.arrived;
        let has_all = |waiter: &mut FillWaiter| waiter.extent.end() <= arrived;
        for waiter in self.waiters.extract_if(.., has_all) {
            let pieces = pieces::cut(list, waiter.extent);
            if waiter.answer.send(Ok(pieces)).is_ok() {
                count_read(&mut self.read, self.extent, waiter.extent);
                self.touched = true;
            }
        }
    }

    /// See [`super::fill::Fill::complete`].
    pub(super) fn complete(
        &mut self,
        release: bool,
        ahead: bool,
        fetched: u64,
    ) -> Option<CompletedFill> {
        let FillPhase::InFlight(list) = std::mem::replace(&mut self.phase, FillPhase::Over) else {
            return None;
        };
        let release = release || !self.keep_unread || (self.touched && !ahead);
        let mut blocks = FillBlock::split(self.extent, &list, &self.read);
        let mut rest = Vec::new();
        for block in &mut blocks {
            block.leave(release, &mut rest);
        }
        self.phase = FillPhase::Complete(blocks);
        self.abort = None;
        self.completed_at = fetched;
        Some(CompletedFill {
            bytes: list.into_iter().map(|(_, piece)| piece).collect(),
            queue: self.queue.take(),
            rest,
        })
    }
}

/// Whether one of `extents` has `offset`; if not, where the next one begins.
pub(super) fn nearest(extents: impl Iterator<Item = Extent>, offset: u64) -> Result<(), u64> {
    let mut next = u64::MAX;
    for extent in extents {
        if extent.contains(Extent::new(offset, 1)) {
            return Ok(());
        }
        if extent.offset > offset {
            next = next.min(extent.offset);
        }
    }
    Err(next)
}

/// Counts `extent` as read in `read`, which has a count for each block of `whole`.
fn count_read(read: &mut [u64], whole: Extent, extent: Extent) {
    let first = whole.offset / BLOCK;
    let mut at = extent.offset;
    while at < extent.end() {
        let end = extent.end().min((at / BLOCK + 1) * BLOCK);
        read[(at / BLOCK - first) as usize] += end - at;
        at = end;
    }
}

/// A fill that has just become complete.
#[derive(Debug)]
pub(super) struct CompletedFill {
    pub(super) bytes: Vec<Bytes>,
    pub(super) queue: Option<QueueReservation>,
    pub(super) rest: Vec<RestingBlock>,
}

/// Where to copy from, without the lock.
#[allow(
    clippy::large_enum_variant,
    reason = "it lives on the stack for one copy; a box would cost more"
)]
pub(super) enum CopySource {
    Nothing,
    Pieces([Bytes; PIECES_MAX]),
    Block(Arc<PieceList>),
}
