//! One GET on its way, and what it brought until that is at rest.
//!
//! A fill is made before its request is sent, so that every reader of its bytes joins it. Bytes
//! arrive in ascending order; a reader gets its pieces as soon as the last of them is here, however
//! much the fill still has to bring. A reader that goes away leaves no trace but an unread answer.
//!
//! Phases: *in flight* (pieces grow), then *complete* (pieces stand by block, each kept until it has
//! been read once, or until its reader is gone or memory is wanted), then *over* (everything is at rest
//! in memory, or it failed, or nobody wanted it). The grant follows the bytes: all of it while in flight
//! and while they wait for the disk, then a block's share less for each block that comes to rest.
//!
//! A fill knows no object: whoever works with one has the record that it belongs to (`record.rs`).
//! Everything is under one lock, taken for list operations only. It comes after the record's lock; under it
//! only that of the disk's queue is taken, which is a leaf.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::fill_blocks::RestingBlock;
use super::fill_state::{
    CompletedFill, CopySource, FetchReservation, FillPhase, FillState, FillWaiter, nearest,
};
use crate::budget::Grant;
use crate::extent::Extent;
use crate::memory::Keep;
use crate::pieces::PlacedPiece;
use crate::store::{StoreError, StoreResult};

/// For whom bytes are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FillOwner {
    /// The stream's number.
    pub(super) stream: u64,
    /// Its run, or 0.
    pub(super) run: u64,
}

/// What a fill says to a reader that wants bytes of it.
#[derive(Debug)]
pub(super) enum Join {
    /// The bytes are here: [`Fill::copy`] gives them.
    Here,
    /// They are on their way.
    Wait(oneshot::Receiver<StoreResult<Vec<PlacedPiece>>>),
    /// They are no longer here: at rest, or to be fetched anew.
    Gone,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Fill {
    pub(super) extent: Extent,
    pub(super) owner: FillOwner,
    /// It has more than was asked for.
    pub(super) ahead: bool,
    /// It belongs to a scan longer than memory: what has been read of it does not come to rest.
    pub(super) scan: bool,
    state: Mutex<FillState>,
}

impl Fill {
    pub(super) fn new(
        extent: Extent,
        owner: FillOwner,
        ahead: bool,
        scan: bool,
        reservation: FetchReservation,
    ) -> Arc<Self> {
        Arc::new(Self {
            extent,
            owner,
            ahead,
            scan,
            state: Mutex::new(FillState::new(extent, reservation)),
        })
    }

    /// Whether memory has been granted for it.
    pub(super) fn is_granted(&self) -> bool {
        self.state.lock().memory.is_some()
    }

    /// The memory that its bytes take.
    pub(super) fn grant(&self, grant: Grant) {
        self.state.lock().memory = Some(grant);
    }

    /// How to end its task.
    pub(super) fn set_abort(&self, abort: AbortHandle) {
        self.state.lock().abort = Some(abort);
    }

    /// What the cache had fetched in all when this became complete.
    pub(super) fn completed_at(&self) -> u64 {
        self.state.lock().completed_at
    }

    /// Whether the byte at `offset` is here now.
    pub(super) fn has(&self, offset: u64) -> bool {
        let state = self.state.lock();
        match &state.phase {
            FillPhase::InFlight(_) => self.extent.offset <= offset && offset < state.arrived,
            FillPhase::Complete(blocks) => blocks.iter().any(|block| block.has(offset)),
            FillPhase::Over => false,
        }
    }

    /// What is here or on its way.
    pub(super) fn live(&self) -> Vec<Extent> {
        match &self.state.lock().phase {
            FillPhase::InFlight(_) => vec![self.extent],
            FillPhase::Complete(blocks) => blocks.iter().map(|block| block.extent).collect(),
            FillPhase::Over => Vec::new(),
        }
    }

    /// Whether `offset` is here or on its way; if not, where after it something of this is.
    pub(super) fn covers(&self, offset: u64) -> Result<(), u64> {
        match &self.state.lock().phase {
            FillPhase::InFlight(_) => nearest([self.extent].into_iter(), offset),
            FillPhase::Complete(blocks) => nearest(blocks.iter().map(|block| block.extent), offset),
            FillPhase::Over => Err(u64::MAX),
        }
    }

    /// Copies what is here from `offset` on into `buf`. Gives how many bytes; blocks that have now
    /// been read to the last byte are added to `rest`.
    pub(super) fn copy(&self, offset: u64, buf: &mut [u8], rest: &mut Vec<RestingBlock>) -> usize {
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let buf = &mut buf[done..];
            // The lock ends with this line: the copying needs none.
            let source = {
                let mut state = self.state.lock();
                state.source(at, buf.len() as u64, self.ahead, rest)
            };
            let len = match source {
                CopySource::Nothing => break,
                CopySource::Block(pieces) => pieces.copy(at, buf),
                CopySource::Pieces(pieces) => {
                    let mut len = 0;
                    for piece in &pieces {
                        buf[len..len + piece.len()].copy_from_slice(piece);
                        len += piece.len();
                    }
                    len
                }
            };
            if len == 0 {
                break;
            }
            done += len;
        }
        done
    }

    /// Asks for `extent`, which lies within the fill's.
    pub(super) fn join(&self, extent: Extent) -> Join {
        let state = &mut *self.state.lock();
        match &state.phase {
            FillPhase::Complete(blocks) if blocks.iter().any(|block| block.has(extent.offset)) => {
                Join::Here
            }
            FillPhase::Complete(_) | FillPhase::Over => Join::Gone,
            FillPhase::InFlight(_) if extent.end() <= state.arrived => Join::Here,
            FillPhase::InFlight(_) => {
                // Readers that gave up; their count is bounded by this.
                state.waiters.retain(|waiter| !waiter.answer.is_closed());
                let (answer, receiver) = oneshot::channel();
                state.waiters.push(FillWaiter { extent, answer });
                Join::Wait(receiver)
            }
        }
    }

    /// Takes the next bytes. False if nobody wants them any more.
    pub(super) fn push(&self, chunk: Bytes) -> bool {
        let state = &mut *self.state.lock();
        if !matches!(state.phase, FillPhase::InFlight(_)) {
            return false;
        }
        state.push(chunk);
        true
    }

    /// How many bytes are still to come.
    pub(super) fn missing(&self) -> u64 {
        self.extent.end() - self.state.lock().arrived
    }

    /// All bytes are here. Gives them for the disk, with their place in its queue, and the blocks to put
    /// to rest now: those that have been read, or all if `release` or nobody asked to keep them. `None` if
    /// it was over.
    pub(super) fn complete(&self, release: bool, fetched: u64) -> Option<CompletedFill> {
        self.state.lock().complete(release, self.ahead, fetched)
    }

    /// Lets go of the blocks in `rest`, which are at rest now. True if that was the last.
    pub(super) fn rested(&self, rest: &[RestingBlock]) -> bool {
        let state = &mut *self.state.lock();
        let FillPhase::Complete(blocks) = &mut state.phase else {
            return true;
        };
        blocks.retain(|block| !rest.iter().any(|rested| rested.index == block.index));
        let over = blocks.is_empty();
        if over {
            state.phase = FillPhase::Over;
        }
        state.shrink_grant();
        over
    }

    /// All its bytes are about to wait for the disk, and are paid for until what is given is dropped.
    pub(super) fn pay_until_stored(self: &Arc<Self>) -> Keep {
        self.state.lock().awaits_disk = true;
        Arc::new(PaidUntilStored(self.clone()))
    }

    /// Nobody is going to read on: gives all blocks that are to be put to rest. A fill in flight is
    /// ended if nobody waits for it and most of it is still to come.
    pub(super) fn orphan(&self) -> Vec<RestingBlock> {
        let mut rest = Vec::new();
        let abort = self.give_up(&mut rest);
        // Without the lock: a task that is dropped on the spot takes it.
        if let Some(abort) = abort {
            abort.abort();
        }
        rest
    }

    fn give_up(&self, rest: &mut Vec<RestingBlock>) -> Option<AbortHandle> {
        let state = &mut *self.state.lock();
        match &mut state.phase {
            FillPhase::InFlight(_) => {
                state.keep_unread = false;
                state.waiters.retain(|waiter| !waiter.answer.is_closed());
                let here = state.arrived - self.extent.offset;
                if state.waiters.is_empty() && here < self.extent.len / 2 {
                    state.end();
                    return state.abort.take();
                }
            }
            FillPhase::Complete(blocks) => {
                for block in blocks {
                    block.leave(true, rest);
                }
            }
            FillPhase::Over => {}
        }
        None
    }

    /// It will bring no more. Readers whose bytes have not arrived get `error`.
    pub(super) fn fail(&self, error: &StoreError) {
        let state = &mut *self.state.lock();
        if !matches!(state.phase, FillPhase::InFlight(_)) {
            return;
        }
        state.end();
        state.abort = None;
        for waiter in state.waiters.drain(..) {
            // Whoever dropped the receiver gave up waiting.
            let _ = waiter.answer.send(Err(error.duplicate()));
        }
    }

    /// Whether nothing can be had of it.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state.lock().phase, FillPhase::Over)
    }
}

/// The bytes of a fill that wait for the disk.
#[derive(Debug)]
struct PaidUntilStored(Arc<Fill>);

impl Drop for PaidUntilStored {
    fn drop(&mut self) {
        let state = &mut *self.0.state.lock();
        state.awaits_disk = false;
        state.shrink_grant();
    }
}
