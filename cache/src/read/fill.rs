//! One GET on its way, and what it brought until that is at rest.
//!
//! A fill is made before its request is sent, so that every reader of its bytes joins it. Bytes
//! arrive in ascending order; a reader gets its pieces as soon as the last of them is here, however
//! much the fill still has to bring. A reader that goes away leaves no trace but an unread answer.
//!
//! Phases: *flying* (pieces grow), then *whole* (pieces stand by block, each held until it has been
//! read once, or until its reader is gone or memory is wanted), then *over* (everything is at rest
//! in the memory tier, or it failed, or nobody wanted it). The grant follows the bytes: all of it
//! while flying and while they wait for the disk, then a block's share less for each block that comes to
//! rest.
//!
//! Everything is under one lock, held for list operations only. It comes after the table's lock
//! (`object.rs`); under it only that of the disk's queue is taken, which is a leaf.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::object::Object;
use crate::budget::Grant;
use crate::disk_cache::QueueReservation;
use crate::extent::Extent;
use crate::memory::{self, BLOCK, Keep, Pieces};
use crate::store::{StoreError, StoreErrorKind, StoreResult};

/// How many pieces are copied per look under the lock; they are cloned onto the stack, so that the
/// copying itself needs no lock.
const PIECES_MAX: usize = 16;
/// Fills up to this size are copied together when they come to rest: a few pages would otherwise
/// keep the connection's whole receive buffer alive.
const COMPACT_MAX: u64 = 128 << 10;

/// What was taken for a fetch before it began.
#[derive(Debug)]
pub(super) struct Paid {
    /// Memory, unless the fetch waits for it.
    pub(super) grant: Option<Grant>,
    /// Room on the disk, if there is one.
    pub(super) expected: Option<QueueReservation>,
}

/// For whom bytes are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    /// The stream's number.
    pub(super) stream: u64,
    /// Its run, or 0.
    pub(super) run: u64,
}

/// A block on its way to rest.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) index: u64,
    pub(super) pieces: Arc<Pieces>,
    /// All of it has been read.
    pub(super) read: bool,
}

/// Blocks on their way to rest.
pub(super) type Rest = Vec<Leaving>;

/// What a fill says to a reader that wants bytes of it.
#[derive(Debug)]
pub(super) enum Join {
    /// The bytes are here: `Fill::copy` gives them.
    Here,
    /// They are on their way.
    Wait(oneshot::Receiver<StoreResult<Vec<Bytes>>>),
    /// They are no longer here: at rest, or to be fetched anew.
    Gone,
}

#[derive(Debug)]
struct Waiter {
    extent: Extent,
    answer: oneshot::Sender<StoreResult<Vec<Bytes>>>,
}

/// A part of a block that this fill has brought.
#[derive(Debug)]
struct Part {
    index: u64,
    extent: Extent,
    pieces: Arc<Pieces>,
    /// How many of its bytes have been read.
    read: u64,
    /// It is being put to rest.
    leaving: bool,
}

impl Part {
    /// Puts itself into `rest` if it has been read or must leave, the first time.
    fn leave(&mut self, now: bool, rest: &mut Rest) {
        let read = self.read >= self.extent.len;
        if (read || now) && !self.leaving {
            self.leaving = true;
            rest.push(Leaving {
                index: self.index,
                pieces: self.pieces.clone(),
                read,
            });
        }
    }
}

#[derive(Debug)]
enum Phase {
    Flying(Vec<(u64, Bytes)>),
    Whole(Vec<Part>),
    Over,
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    /// The end of what has arrived.
    arrived: u64,
    /// What is unread is kept when it is whole: block by block for readahead, all or nothing for
    /// what was asked for.
    hold: bool,
    /// Somebody has read of it.
    touched: bool,
    waiters: Vec<Waiter>,
    /// Reads answered while flying, in bytes by block from the fill's first.
    read: Vec<u64>,
    grant: Option<Grant>,
    /// All its bytes wait to be stored on the disk.
    queued: bool,
    expected: Option<QueueReservation>,
    abort: Option<AbortHandle>,
    /// What the cache had fetched in all when this became whole.
    whole_at: u64,
}

impl Inner {
    /// Gives back what the grant has beyond what is held here.
    fn pay(&mut self) {
        let left: u64 = match &self.phase {
            _ if self.queued => return,
            Phase::Flying(_) => return,
            Phase::Whole(parts) => parts.iter().map(|part| part.pieces.bytes()).sum(),
            Phase::Over => 0,
        };
        match &mut self.grant {
            Some(grant) if left > 0 => grant.shrink(left),
            grant => *grant = None,
        }
    }
}

/// The bytes of a fill that wait for the disk.
#[derive(Debug)]
struct Queued(Arc<Fill>);

impl Drop for Queued {
    fn drop(&mut self) {
        let inner = &mut *self.0.inner.lock();
        inner.queued = false;
        inner.pay();
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Fill {
    pub(super) object: Arc<Object>,
    pub(super) extent: Extent,
    pub(super) owner: Owner,
    /// It holds more than was asked for.
    pub(super) ahead: bool,
    /// It belongs to a scan longer than memory: what has been read of it does not come to rest.
    pub(super) scan: bool,
    inner: Mutex<Inner>,
}

impl Fill {
    pub(super) fn new(
        object: Arc<Object>,
        extent: Extent,
        owner: Owner,
        ahead: bool,
        scan: bool,
        paid: Paid,
    ) -> Arc<Self> {
        let blocks = (extent.end() - 1) / BLOCK - extent.offset / BLOCK + 1;
        Arc::new(Self {
            object,
            extent,
            owner,
            ahead,
            scan,
            inner: Mutex::new(Inner {
                phase: Phase::Flying(Vec::new()),
                arrived: extent.offset,
                hold: true,
                touched: false,
                waiters: Vec::new(),
                read: vec![0; blocks as usize],
                grant: paid.grant,
                queued: false,
                expected: paid.expected,
                abort: None,
                whole_at: u64::MAX,
            }),
        })
    }

    fn block(&self, index: u64) -> Extent {
        let block = Extent::new(index * BLOCK, BLOCK);
        // Its first and last blocks are computed from the extent, so that they all meet it.
        block.intersect(self.extent).expect("a block of the fill")
    }

    /// Whether memory has been granted for it.
    pub(super) fn granted(&self) -> bool {
        self.inner.lock().grant.is_some()
    }

    /// The memory that its bytes take.
    pub(super) fn grant(&self, grant: Grant) {
        self.inner.lock().grant = Some(grant);
    }

    /// How to end its task.
    pub(super) fn set_abort(&self, abort: AbortHandle) {
        self.inner.lock().abort = Some(abort);
    }

    /// What the cache had fetched in all when this became whole.
    pub(super) fn whole_at(&self) -> u64 {
        self.inner.lock().whole_at
    }

    /// Whether the byte at `offset` is here now.
    pub(super) fn has(&self, offset: u64) -> bool {
        let inner = self.inner.lock();
        match &inner.phase {
            Phase::Flying(_) => self.extent.offset <= offset && offset < inner.arrived,
            Phase::Whole(parts) => parts
                .iter()
                .any(|part| part.extent.contains(Extent::new(offset, 1))),
            Phase::Over => false,
        }
    }

    /// What is here or on its way.
    pub(super) fn live(&self) -> Vec<Extent> {
        match &self.inner.lock().phase {
            Phase::Flying(_) => vec![self.extent],
            Phase::Whole(parts) => parts.iter().map(|part| part.extent).collect(),
            Phase::Over => Vec::new(),
        }
    }

    /// Whether `offset` is here or on its way; if not, where after it something of this is.
    pub(super) fn covers(&self, offset: u64) -> Result<(), u64> {
        let after = |extent: Extent| match extent {
            extent if extent.contains(Extent::new(offset, 1)) => Ok(()),
            extent if extent.offset > offset => Err(extent.offset),
            _ => Err(u64::MAX),
        };
        match &self.inner.lock().phase {
            Phase::Flying(_) => after(self.extent),
            Phase::Whole(parts) => parts
                .iter()
                .try_fold(u64::MAX, |next, part| match after(part.extent) {
                    Ok(()) => Err(()),
                    Err(start) => Ok(next.min(start)),
                })
                .map_or(Ok(()), Err),
            Phase::Over => Err(u64::MAX),
        }
    }

    /// Copies what is here from `offset` on into `buf`. Gives how many bytes; blocks that have now
    /// been read to the last byte are added to `rest`.
    pub(super) fn copy(&self, offset: u64, buf: &mut [u8], rest: &mut Rest) -> usize {
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let buf = &mut buf[done..];
            let len = match self.source(at, buf.len() as u64, rest) {
                Source::Nothing => break,
                Source::Block(pieces) => pieces.copy(at, buf),
                Source::Pieces(pieces) => {
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

    /// Some of what is here from `offset` on, at most `len` bytes, counted as read.
    fn source(&self, offset: u64, len: u64, rest: &mut Rest) -> Source {
        let inner = &mut *self.inner.lock();
        match &mut inner.phase {
            Phase::Flying(list) => {
                let mut pieces = [const { Bytes::new() }; PIECES_MAX];
                let (mut at, end) = (offset, offset + len);
                let from = memory::first(list, offset);
                for (slot, (start, piece)) in pieces.iter_mut().zip(&list[from..]) {
                    if at >= end {
                        break;
                    }
                    let skip = (at - start) as usize;
                    let len = (piece.len() - skip).min((end - at) as usize);
                    *slot = piece.slice(skip..skip + len);
                    at += len as u64;
                }
                self.count(&mut inner.read, Extent::between(offset, at));
                inner.touched |= at > offset;
                Source::Pieces(pieces)
            }
            Phase::Whole(parts) => {
                let Some(part) = parts
                    .iter_mut()
                    .find(|part| part.extent.contains(Extent::new(offset, 1)))
                else {
                    return Source::Nothing;
                };
                let held = part.pieces.clone();
                part.read += held.run(offset, len);
                for part in parts {
                    part.leave(!self.ahead, rest);
                }
                Source::Block(held)
            }
            Phase::Over => Source::Nothing,
        }
    }

    fn count(&self, read: &mut [u64], extent: Extent) {
        let first = self.extent.offset / BLOCK;
        let mut at = extent.offset;
        while at < extent.end() {
            let end = extent.end().min((at / BLOCK + 1) * BLOCK);
            read[(at / BLOCK - first) as usize] += end - at;
            at = end;
        }
    }

    /// Asks for `extent`, which lies within the fill's.
    pub(super) fn join(&self, extent: Extent) -> Join {
        let inner = &mut *self.inner.lock();
        match &inner.phase {
            Phase::Over => Join::Gone,
            Phase::Whole(parts)
                if parts
                    .iter()
                    .any(|part| part.extent.contains(Extent::new(extent.offset, 1))) =>
            {
                Join::Here
            }
            Phase::Whole(_) => Join::Gone,
            Phase::Flying(_) if extent.end() <= inner.arrived => Join::Here,
            Phase::Flying(_) => {
                // Readers that gave up; their count is bounded by this.
                inner.waiters.retain(|waiter| !waiter.answer.is_closed());
                let (answer, receiver) = oneshot::channel();
                inner.waiters.push(Waiter { extent, answer });
                Join::Wait(receiver)
            }
        }
    }

    /// Takes the next bytes. False if nobody wants them any more.
    pub(super) fn push(&self, chunk: Bytes) -> bool {
        let inner = &mut *self.inner.lock();
        let Phase::Flying(list) = &mut inner.phase else {
            return false;
        };
        if !chunk.is_empty() {
            list.push((inner.arrived, chunk.clone()));
            inner.arrived += chunk.len() as u64;
        }
        let arrived = inner.arrived;
        let mut index = 0;
        while index < inner.waiters.len() {
            if inner.waiters[index].extent.end() > arrived {
                index += 1;
                continue;
            }
            let waiter = inner.waiters.swap_remove(index);
            let Phase::Flying(list) = &inner.phase else {
                break;
            };
            let pieces = cut(list, waiter.extent);
            if waiter.answer.send(Ok(pieces)).is_ok() {
                self.count(&mut inner.read, waiter.extent);
                inner.touched = true;
            }
        }
        true
    }

    /// How many bytes are still to come.
    pub(super) fn missing(&self) -> u64 {
        self.extent.end() - self.inner.lock().arrived
    }

    /// All bytes are here. Gives them for the disk, the blocks to put to rest now (those that have
    /// been read, or all if `release` or nobody asked to hold them), and the room on the disk.
    pub(super) fn complete(
        &self,
        release: bool,
        fetched: u64,
    ) -> (Vec<Bytes>, Rest, Option<QueueReservation>) {
        let inner = &mut *self.inner.lock();
        let Phase::Flying(list) = std::mem::replace(&mut inner.phase, Phase::Over) else {
            return (Vec::new(), Rest::new(), None);
        };
        let all: Vec<Bytes> = list.iter().map(|(_, piece)| piece.clone()).collect();
        let release = release || !inner.hold || (inner.touched && !self.ahead);
        let first = self.extent.offset / BLOCK;
        let mut rest = Rest::new();
        let mut parts = Vec::with_capacity(inner.read.len());
        for (index, read) in (first..).zip(&inner.read) {
            let block = self.block(index);
            let mut pieces = Vec::new();
            let mut at = block.offset;
            for piece in cut(&list, block) {
                let len = piece.len() as u64;
                pieces.push((at, piece));
                at += len;
            }
            if self.extent.len <= COMPACT_MAX {
                pieces = compact(pieces);
            }
            let mut part = Part {
                index,
                extent: block,
                pieces: Arc::new(Pieces::new(pieces)),
                read: *read,
                leaving: false,
            };
            part.leave(release, &mut rest);
            parts.push(part);
        }
        inner.phase = Phase::Whole(parts);
        inner.abort = None;
        inner.whole_at = fetched;
        (all, rest, inner.expected.take())
    }

    /// Lets go of the blocks in `rest`, which are at rest now. True if that was the last.
    pub(super) fn rested(&self, rest: &Rest) -> bool {
        let inner = &mut *self.inner.lock();
        let Phase::Whole(parts) = &mut inner.phase else {
            return true;
        };
        parts.retain(|part| !rest.iter().any(|block| block.index == part.index));
        let over = parts.is_empty();
        if over {
            inner.phase = Phase::Over;
        }
        inner.pay();
        over
    }

    /// All its bytes are about to wait for the disk; they do until what is given is dropped.
    pub(super) fn queued(self: &Arc<Self>) -> Keep {
        self.inner.lock().queued = true;
        Arc::new(Queued(self.clone()))
    }

    /// Nobody is going to read on: gives all blocks that are to be put to rest. A flying fill is
    /// ended if nobody waits for it and most of it is still to come.
    pub(super) fn orphan(&self) -> Rest {
        let (rest, abort) = self.give_up();
        // Without the lock: a task that is dropped on the spot takes it.
        if let Some(abort) = abort {
            abort.abort();
        }
        rest
    }

    fn give_up(&self) -> (Rest, Option<AbortHandle>) {
        let mut rest = Rest::new();
        let mut abort = None;
        let inner = &mut *self.inner.lock();
        match &mut inner.phase {
            Phase::Flying(_) => {
                inner.hold = false;
                inner.waiters.retain(|waiter| !waiter.answer.is_closed());
                let here = inner.arrived - self.extent.offset;
                if inner.waiters.is_empty() && here < self.extent.len / 2 {
                    inner.phase = Phase::Over;
                    inner.grant = None;
                    inner.expected = None;
                    abort = inner.abort.take();
                }
            }
            Phase::Whole(parts) => {
                for part in parts {
                    part.leave(true, &mut rest);
                }
            }
            Phase::Over => {}
        }
        (rest, abort)
    }

    /// It will bring no more. Readers whose bytes have not arrived get `error`.
    pub(super) fn fail(&self, error: &StoreError) {
        let inner = &mut *self.inner.lock();
        if !matches!(inner.phase, Phase::Flying(_)) {
            return;
        }
        inner.phase = Phase::Over;
        inner.grant = None;
        inner.expected = None;
        inner.abort = None;
        for waiter in inner.waiters.drain(..) {
            // Whoever dropped the receiver gave up waiting.
            let _ = waiter.answer.send(Err(error.duplicate()));
        }
    }

    /// Whether nothing can be had of it.
    pub(super) fn over(&self) -> bool {
        matches!(self.inner.lock().phase, Phase::Over)
    }
}

/// Where to copy from, without the lock.
#[allow(
    clippy::large_enum_variant,
    reason = "it lives on the stack for one copy; a box would cost more"
)]
enum Source {
    Nothing,
    Pieces([Bytes; PIECES_MAX]),
    Block(Arc<Pieces>),
}

/// The pieces of `extent`, all of which `list` holds.
fn cut(list: &[(u64, Bytes)], extent: Extent) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    for (start, piece) in &list[memory::first(list, extent.offset)..] {
        let whole = Extent::new(*start, piece.len() as u64);
        let Some(cut) = whole.intersect(extent) else {
            break;
        };
        let skip = (cut.offset - start) as usize;
        pieces.push(piece.slice(skip..skip + cut.len as usize));
    }
    pieces
}

/// Copies of pieces in order, joined where one follows another: a gap stays a gap.
pub(super) fn compact(pieces: Vec<(u64, Bytes)>) -> Vec<(u64, Bytes)> {
    let adjacent = |before: &(u64, Bytes), after: &(u64, Bytes)| {
        before.0.checked_add(before.1.len() as u64) == Some(after.0)
    };
    pieces
        .chunk_by(adjacent)
        .map(|run| {
            let len = run.iter().map(|(_, piece)| piece.len()).sum();
            let mut joined = Vec::with_capacity(len);
            for (_, piece) in run {
                joined.extend_from_slice(piece);
            }
            (run[0].0, joined.into())
        })
        .collect()
}

/// What readers are told whose fetch ended without a word, by a panic or because the runtime is
/// shutting down.
pub(super) fn abandoned() -> StoreError {
    StoreError::new(StoreErrorKind::Broken, "the fetch was abandoned")
}
