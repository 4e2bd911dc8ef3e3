//! One ring thread: its io_uring, its queues, and the loop that carries requests in and answers
//! out.
//!
//! ```text
//!          kernel's ──completion──▶ held ──answer──▶ answered ──COMMIT_AND_FETCH submitted──▶ kernel's
//!             └──completion with an error──▶ gone
//! ```
//! A turn of the loop: take every completion; hand each request to the handler, which answers hits at
//! once; queue a COMMIT_AND_FETCH for every answer made here or sent by mail; register more slots
//! where few are free; then one system call submits all of it and waits. The kernel touches slots and
//! delivers requests only inside that call (`ring/submission.rs`), which is why only this thread submits
//! and why it never waits for anything else.
//!
//! A slot is held until its request is answered, and the kernel picks the slot, so room for hits
//! beside many misses is made by registering more slots while half of a queue's are held. A request
//! that found no free slot waits in the kernel for the next commit of its queue, not for a new
//! slot; that is why it is done early.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tracing::{debug, warn};

use super::queue::{QueueLayout, QueueState};
use crate::fuse::connection::Connection;
use crate::fuse::reply::Responder;
use crate::fuse::request::Request;
use crate::fuse::ring::{Answered, Completion, Delivered, RingShared, SlotRing, Token};

/// Answers go out with the wait at the end of a turn, unless so many bytes wait: copying more
/// before the first caller is let go would only add to its time.
const FLUSH_BYTES: usize = 256 << 10;

/// As above, by count.
const FLUSH_ANSWERS: usize = 16;

/// A slot as its ring thread sees it.
#[derive(Debug, Clone, Copy)]
struct SlotState {
    queue: u16,
    owner: SlotOwner,
    /// Number of the request that it holds or held last.
    unique: u64,
    /// Turn of the loop in which it was last committed.
    used: u64,
    /// Bytes of its payload that count as resident.
    resident: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SlotOwner {
    /// Not registered yet.
    Nobody,
    Kernel,
    /// The request that it holds.
    Request,
    /// It is given up.
    Gone,
}

/// One ring thread's state. Lives on that thread only.
pub(super) struct RingThread {
    ring: SlotRing,
    shared: Arc<RingShared>,
    queues: Vec<QueueState>,
    slots: Vec<SlotState>,
    resident: u64,
    resident_max: u64,
    epoch: Instant,
    turn: u64,
    /// The kernel takes its slots back: nothing is registered any more.
    ending: bool,
    /// Completions of this turn, reused.
    batch: Vec<Completion>,
    /// Answered slots, reused.
    answered: Vec<Answered>,
}

impl RingThread {
    /// Builds the ring on this thread, which from then on is the only one that may use it.
    pub(super) fn new(
        shared: Arc<RingShared>,
        queues: Vec<QueueLayout>,
        resident_max: u64,
        short_payload: bool,
    ) -> io::Result<Self> {
        let cap: u32 = queues.iter().map(|queue| queue.cap).sum();
        let slots_first: u32 = queues.iter().map(|queue| queue.depth).sum();
        let ring = SlotRing::new(Arc::clone(&shared), cap, slots_first, short_payload)?;
        let mut slots = Vec::with_capacity(cap as usize);
        for (index, queue) in queues.iter().enumerate() {
            let state = SlotState {
                queue: index as u16,
                owner: SlotOwner::Nobody,
                unique: 0,
                used: 0,
                resident: 0,
            };
            slots.extend(std::iter::repeat_n(state, queue.cap as usize));
        }
        Ok(Self {
            ring,
            shared,
            queues: queues.into_iter().map(QueueState::new).collect(),
            slots,
            resident: 0,
            resident_max,
            epoch: Instant::now(),
            turn: 0,
            ending: false,
            batch: Vec::new(),
            answered: Vec::new(),
        })
    }

    /// Registers every queue's first slots with the connection behind `fuse`. Requests may come from the
    /// moment the last thread has done so.
    ///
    /// # Errors
    /// A queue has no slot: the kernel serves over `/dev/fuse` then.
    pub(super) fn register(&mut self, fuse: OwnedFd, connection: &Connection) -> io::Result<()> {
        self.shared.attach(connection.context());
        self.ring.attach(fuse)?;
        self.ring.poll_mailbox();
        for queue in 0..self.queues.len() {
            self.grow(queue, self.queues[queue].layout.depth);
        }
        self.ring.submit(0);
        self.collect();
        let refused = self.batch.iter().find_map(|completion| match completion {
            Completion::Refused { errno, .. } => Some(io::Error::from_raw_os_error(*errno)),
            _ => None,
        });
        for queue in &self.queues {
            if queue.gone == queue.registered {
                return Err(refused.unwrap_or_else(|| io::ErrorKind::NotConnected.into()));
            }
        }
        Ok(())
    }

    /// Serves until told to stop.
    pub(super) fn run(&mut self, connection: &Connection) {
        self.shared.own_thread();
        while !self.shared.mailbox.stopped() {
            self.turn += 1;
            self.handle_batch(connection);
            self.commit_answered();
            for queue in 0..self.queues.len() {
                let wanted = self.queues[queue].wants();
                if wanted > 0 && !self.ending {
                    self.grow(queue, wanted);
                }
            }
            let wait = self.shared.mailbox.may_sleep();
            self.ring.submit(usize::from(wait));
            self.shared.mailbox.awake();
            self.collect();
            self.trim();
        }
        self.shared.mailbox.close();
        RingShared::disown_thread();
        self.shared.registered.store(0, Ordering::Relaxed);
    }

    /// Takes every completion and marks what became ours.
    fn collect(&mut self) {
        for completion in self.ring.completions() {
            let slot = match &completion {
                Completion::Mail { .. } => None,
                Completion::Delivered(delivered) => Some((delivered.slot(), SlotOwner::Request)),
                Completion::Refused { slot, .. } => Some((*slot, SlotOwner::Gone)),
            };
            if let Some((slot, owner)) = slot {
                let slot = &mut self.slots[slot as usize];
                slot.owner = owner;
                let queue = &mut self.queues[usize::from(slot.queue)];
                match owner {
                    SlotOwner::Gone => queue.gone += 1,
                    _ => queue.held += 1,
                }
            }
            self.batch.push(completion);
        }
    }

    fn handle_batch(&mut self, connection: &Connection) {
        if self.batch.is_empty() {
            return;
        }
        let now_ms = self.now_ms();
        let mut batch = std::mem::take(&mut self.batch);
        for completion in batch.drain(..) {
            match completion {
                Completion::Mail { watched } => {
                    self.shared.mailbox.drain();
                    if !watched {
                        self.ring.poll_mailbox();
                    }
                }
                Completion::Refused { slot, errno } => self.lose(slot, errno),
                Completion::Delivered(delivered) => {
                    self.serve(delivered, now_ms, connection);
                    let (answers, bytes) = RingShared::local_waiting();
                    if answers >= FLUSH_ANSWERS || bytes >= FLUSH_BYTES {
                        self.commit_answered();
                        self.ring.submit(0);
                    }
                }
            }
        }
        // Early submits may have let the kernel complete more; those are taken next turn.
        self.batch = batch;
    }

    /// Hands the request that was delivered to the handler.
    fn serve(&mut self, delivered: Delivered, now_ms: u64, connection: &Connection) {
        let slot = delivered.slot();
        let (header, token) = Token::take(&self.shared, delivered, now_ms);
        self.slots[slot as usize].unique = header.unique;
        let decoded = Request::decode(&header, token.op_in(), token.input());
        let responder = Responder::ring(token, &header);
        connection.dispatch(&self.shared.counts, header.opcode, decoded, responder);
    }

    /// Queues a commit for every slot that was answered, here or elsewhere.
    fn commit_answered(&mut self) {
        let mut answered = std::mem::take(&mut self.answered);
        RingShared::take_local(&mut answered);
        self.shared.mailbox.take(&mut answered);
        for answered in answered.drain(..) {
            let slot = answered.slot();
            let state = &mut self.slots[slot as usize];
            debug_assert_eq!(state.owner, SlotOwner::Request);
            state.owner = SlotOwner::Kernel;
            state.used = self.turn;
            let touched = self.shared.touched(slot);
            if touched > state.resident {
                self.resident += u64::from(touched - state.resident);
                state.resident = touched;
                self.shared.resident.store(self.resident, Ordering::Relaxed);
            }
            let queue = &mut self.queues[usize::from(state.queue)];
            queue.held -= 1;
            self.ring.commit(answered, queue.layout.qid, state.unique);
        }
        self.answered = answered;
    }

    /// Registers `count` more slots of a queue.
    fn grow(&mut self, queue: usize, count: u32) {
        let state = &mut self.queues[queue];
        let first = state.layout.first + state.registered;
        state.registered += count;
        for slot in first..first + count {
            self.slots[slot as usize].owner = SlotOwner::Kernel;
            self.ring.register(slot, state.layout.qid);
        }
        self.shared
            .registered
            .fetch_add(u64::from(count), Ordering::Relaxed);
    }

    /// The kernel gave a slot up.
    fn lose(&mut self, slot: u32, errno: i32) {
        self.shared.registered.fetch_sub(1, Ordering::Relaxed);
        match errno {
            // The connection has ended; the device thread will hear of it and stop us.
            libc::ENOTCONN | libc::ECANCELED | libc::ECONNABORTED => {
                self.ending = true;
                debug!(slot, errno, "slot returned at the end");
            }
            errno => {
                self.shared.lost.fetch_add(1, Ordering::Relaxed);
                let errno = nix::errno::Errno::from_raw(errno);
                warn!(slot, %errno, "the kernel refused a slot");
            }
        }
    }

    /// Gives payloads' room back while more of it is resident than may be: of the slots that were
    /// idle longest first, since the kernel takes the slot that it got last.
    ///
    /// Only between two system calls that submitted everything: then idle slots are the kernel's,
    /// hold no answer that it has yet to read, and it cannot write into them.
    fn trim(&mut self) {
        if self.resident <= self.resident_max || !self.ring.is_quiet() {
            return;
        }
        let mut idle: Vec<u32> = (0..self.slots.len() as u32)
            .filter(|slot| {
                let state = &self.slots[*slot as usize];
                state.owner == SlotOwner::Kernel && state.resident > 0
            })
            .collect();
        idle.sort_unstable_by_key(|slot| self.slots[*slot as usize].used);
        for slot in idle {
            if self.resident <= self.resident_max / 2 {
                break;
            }
            if let Err(errno) = self.shared.give_payload_back(slot) {
                debug!(slot, %errno, "payload not given back");
                break;
            }
            let state = &mut self.slots[slot as usize];
            self.resident -= u64::from(state.resident);
            state.resident = 0;
        }
        self.shared.resident.store(self.resident, Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        self.epoch.elapsed().as_millis() as u64 + 1
    }

    pub(super) fn epoch(&self) -> Instant {
        self.epoch
    }
}
