//! One ring thread: its io_uring, its queues, and the loop that carries requests in and answers
//! out.
//!
//! ```text
//!          kernel's ──CQE──▶ held ──answer──▶ answered ──COMMIT_AND_FETCH submitted──▶ kernel's
//!             └──CQE with an error──▶ gone
//! ```
//! A turn of the loop: take every CQE; hand each request to the handler, which answers hits at
//! once; queue a COMMIT_AND_FETCH for every answer made here or sent by mail; register more slots
//! where few are free; then one system call submits all of it and waits. With DEFER_TASKRUN the
//! kernel touches slots only inside that call, and delivers requests (copies them into slots) there
//! too, which is why only this thread submits and why it never waits for anything else.
//!
//! A slot is held until its request is answered, and the kernel picks the slot, so room for hits
//! beside many misses is made by registering more slots while half of a queue's are held. A request
//! that found no free slot waits in the kernel for the next commit of its queue, not for a new
//! slot; that is why it is done early.

#![allow(
    unsafe_code,
    reason = "submission entries carry addresses that must outlive them"
)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use io_uring::squeue::{Entry128, PushError};
use io_uring::{cqueue, opcode as sqe, types};
use tracing::{debug, error, warn};

use super::queue::{Queue, QueueState};
use super::slot::{Shared, Token};
use super::sqe::{Ring, UserDataOf, build, uring_cmd, with_len};
use crate::fuse::abi::ring::{CMD_COMMIT_AND_FETCH, CMD_REGISTER, CmdReq, ReqHeader};
use crate::fuse::connection::Connection;
use crate::fuse::{Request, Responder};

/// `user_data` of the poll on the mailbox's eventfd; slots have their numbers.
const WAKE: u64 = u64::MAX;

/// Answers go out with the wait at the end of a turn, unless so many bytes wait: copying more
/// before the first caller is let go would only add to its time.
const FLUSH_BYTES: usize = 256 << 10;

/// As above, by count.
const FLUSH_ANSWERS: usize = 16;

/// A slot as its ring thread sees it.
#[derive(Debug, Clone, Copy)]
struct SlotState {
    queue: u16,
    place: Place,
    /// Number of the request that it holds or held last.
    unique: u64,
    /// Turn of the loop in which it was last committed.
    used: u64,
    /// Bytes of its payload that count as resident.
    resident: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Not registered yet.
    Unused,
    Kernel,
    Held,
    Gone,
}

/// One ring thread's state. Lives on that thread only.
pub(super) struct RingThread {
    ring: Ring,
    /// The kernel writes into slots inside our system calls only (DEFER_TASKRUN).
    deferred: bool,
    shared: Arc<Shared>,
    queues: Vec<QueueState>,
    slots: Vec<SlotState>,
    /// Header area and payload of each slot, as REGISTER wants them; never moved.
    iovecs: Box<[[libc::iovec; 2]]>,
    resident: u64,
    resident_max: u64,
    epoch: Instant,
    turn: u64,
    /// The kernel takes its slots back: nothing is registered any more.
    ending: bool,
    /// CQEs of this turn, reused.
    batch: Vec<(u64, i32, u32)>,
    /// Answered slots, reused.
    answered: Vec<u32>,
    /// The `/dev/fuse` descriptor is file 0 of the ring.
    fuse: Option<OwnedFd>,
}

impl RingThread {
    /// Builds the ring on this thread, which from then on is the only one that may use it.
    pub(super) fn new(
        shared: Arc<Shared>,
        queues: Vec<Queue>,
        resident_max: u64,
        short_payload: bool,
    ) -> io::Result<Self> {
        let cap: u32 = queues.iter().map(|queue| queue.cap).sum();
        let first_slots: u32 = queues.iter().map(|queue| queue.depth).sum();
        let (ring, deferred) = build(first_slots.min(256), cap + 8)?;
        let mut slots = Vec::with_capacity(cap as usize);
        for (index, queue) in queues.iter().enumerate() {
            let state = SlotState {
                queue: index as u16,
                place: Place::Unused,
                unique: 0,
                used: 0,
                resident: 0,
            };
            slots.extend(std::iter::repeat_n(state, queue.cap as usize));
        }
        let payload_len = if short_payload {
            4096
        } else {
            shared.arena.payload_len()
        };
        let iovecs = (0..cap)
            .map(|slot| {
                let place = shared.place(slot);
                [
                    libc::iovec {
                        iov_base: shared.arena.header(place).cast(),
                        iov_len: size_of::<ReqHeader>(),
                    },
                    libc::iovec {
                        iov_base: shared.arena.payload(place).cast(),
                        iov_len: payload_len,
                    },
                ]
            })
            .collect();
        Ok(Self {
            ring,
            deferred,
            shared,
            queues: queues.into_iter().map(QueueState::new).collect(),
            slots,
            iovecs,
            resident: 0,
            resident_max,
            epoch: Instant::now(),
            turn: 0,
            ending: false,
            batch: Vec::new(),
            answered: Vec::new(),
            fuse: None,
        })
    }

    /// Registers every queue's first slots. Requests may come from the moment the last thread has
    /// done so.
    ///
    /// # Errors
    /// A queue has no slot: the kernel serves over `/dev/fuse` then.
    pub(super) fn register(
        &mut self,
        fuse: OwnedFd,
        connection: &Arc<Connection>,
    ) -> io::Result<()> {
        self.shared.attach(connection);
        let fuse = self.fuse.insert(fuse);
        self.ring.submitter().register_files(&[fuse.as_raw_fd()])?;
        self.poll_mailbox();
        for queue in 0..self.queues.len() {
            self.grow(queue, self.queues[queue].layout.depth);
        }
        self.submit(0);
        self.collect();
        let refused = self
            .batch
            .iter()
            .find(|(data, result, _)| *data != WAKE && *result < 0)
            .map(|(_, result, _)| io::Error::from_raw_os_error(-result));
        for queue in &self.queues {
            if queue.gone == queue.registered {
                return Err(refused.unwrap_or_else(|| io::ErrorKind::NotConnected.into()));
            }
        }
        Ok(())
    }

    /// Serves until told to stop.
    pub(super) fn run(&mut self) {
        self.shared.own_thread();
        while !self.shared.mailbox.stopped() {
            self.turn += 1;
            self.handle_batch();
            self.commit_answered();
            for queue in 0..self.queues.len() {
                let wanted = self.queues[queue].wants();
                if wanted > 0 && !self.ending {
                    self.grow(queue, wanted);
                }
            }
            let wait = self.shared.mailbox.may_sleep();
            self.submit(usize::from(wait));
            self.shared.mailbox.awake();
            self.collect();
            self.trim();
        }
        self.shared.mailbox.close();
        Shared::disown_thread();
        self.shared.registered.store(0, Ordering::Relaxed);
    }

    /// Takes every CQE and marks what became ours.
    fn collect(&mut self) {
        for cqe in self.ring.completion() {
            let (data, result) = (cqe.user_data(), cqe.result());
            self.batch.push((data, result, cqe.flags()));
            let Some(slot) = self.slots.get_mut(data as usize) else {
                continue;
            };
            let queue = &mut self.queues[usize::from(slot.queue)];
            if result < 0 {
                slot.place = Place::Gone;
                queue.gone += 1;
            } else {
                slot.place = Place::Held;
                queue.held += 1;
            }
        }
    }

    fn handle_batch(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let now_ms = self.now_ms();
        let mut batch = std::mem::take(&mut self.batch);
        for (data, result, flags) in batch.drain(..) {
            if data == WAKE {
                self.shared.mailbox.drain();
                if !cqueue::more(flags) {
                    self.poll_mailbox();
                }
            } else if result < 0 {
                self.lose(data as u32, result);
            } else {
                self.serve(data as u32, now_ms);
                let (answers, bytes) = Shared::ready();
                if answers >= FLUSH_ANSWERS || bytes >= FLUSH_BYTES {
                    self.commit_answered();
                    self.submit(0);
                }
            }
        }
        // Early submits may have let the kernel complete more; those are taken next turn.
        self.batch = batch;
    }

    /// Hands the request that came in `slot` to the handler.
    fn serve(&mut self, slot: u32, now_ms: u64) {
        // SAFETY: the slot's CQE was just taken, each CQE is taken once, and the next comes only
        // after the slot was committed.
        let (header, token) = unsafe { Token::take(&self.shared, slot, now_ms) };
        self.slots[slot as usize].unique = header.unique;
        let decoded = Request::decode(&header, token.op_in(), token.input());
        let responder = Responder::ring(token, &header);
        self.shared
            .connection()
            .dispatch(&self.shared.counts, header.opcode, decoded, responder);
    }

    /// Queues a commit for every slot that was answered, here or elsewhere.
    fn commit_answered(&mut self) {
        let mut answered = std::mem::take(&mut self.answered);
        Shared::take_ready(&mut answered);
        self.shared.mailbox.take(&mut answered);
        for slot in answered.drain(..) {
            let state = &mut self.slots[slot as usize];
            debug_assert_eq!(state.place, Place::Held);
            state.place = Place::Kernel;
            state.used = self.turn;
            let touched = self.shared.touched(slot);
            if touched > state.resident {
                self.resident += u64::from(touched - state.resident);
                state.resident = touched;
                self.shared.resident.store(self.resident, Ordering::Relaxed);
            }
            let queue = &mut self.queues[usize::from(state.queue)];
            queue.held -= 1;
            let command = CmdReq {
                commit_id: state.unique,
                qid: queue.layout.qid,
                ..CmdReq::default()
            };
            let entry = uring_cmd(CMD_COMMIT_AND_FETCH, &command, None)
                .build()
                .user_data_of(slot);
            self.push(&entry);
        }
        self.answered = answered;
    }

    /// Registers `count` more slots of a queue.
    fn grow(&mut self, queue: usize, count: u32) {
        let state = &mut self.queues[queue];
        let first = state.layout.first + state.registered;
        state.registered += count;
        let command = CmdReq {
            qid: state.layout.qid,
            ..CmdReq::default()
        };
        for slot in first..first + count {
            self.slots[slot as usize].place = Place::Kernel;
            let iovec = self.iovecs[slot as usize].as_ptr();
            let entry = uring_cmd(CMD_REGISTER, &command, Some(iovec as u64)).build();
            let entry = with_len(entry, self.iovecs[slot as usize].len() as u32);
            self.push(&entry.user_data_of(slot));
        }
        self.shared
            .registered
            .fetch_add(u64::from(count), Ordering::Relaxed);
    }

    /// The kernel gave a slot up.
    fn lose(&mut self, slot: u32, result: i32) {
        self.shared.registered.fetch_sub(1, Ordering::Relaxed);
        match -result {
            // The connection has ended; the device thread will hear of it and stop us.
            libc::ENOTCONN | libc::ECANCELED | libc::ECONNABORTED => {
                self.ending = true;
                debug!(slot, result, "slot returned at the end");
            }
            errno => {
                self.shared.lost.fetch_add(1, Ordering::Relaxed);
                let errno = nix::errno::Errno::from_raw(errno);
                warn!(slot, %errno, "the kernel refused a slot");
            }
        }
    }

    /// Watches the mailbox's eventfd until told otherwise.
    fn poll_mailbox(&mut self) {
        let entry = sqe::PollAdd::new(types::Fd(self.shared.mailbox.fd()), libc::POLLIN as u32)
            .multi(true)
            .build()
            .user_data(WAKE);
        self.push(&entry.into());
    }

    fn push(&mut self, entry: &Entry128) {
        // SAFETY: what the entry points to outlives the ring: `iovecs`, and the slots' memory in
        // the arena that `shared` holds, are dropped after `ring`, whose field comes first.
        while let Err(PushError { .. }) = unsafe { self.ring.submission().push(entry) } {
            self.submit(0);
        }
    }

    /// Submits everything, and waits for `want` CQEs.
    fn submit(&mut self, want: usize) {
        let Err(cause) = self.ring.submit_and_wait(want) else {
            return;
        };
        // EBUSY, EAGAIN: CQEs must be taken first. The loop does that and comes back.
        let passing = [libc::EINTR, libc::EBUSY, libc::EAGAIN].map(Some);
        if !passing.contains(&cause.raw_os_error()) {
            error!(%cause, "io_uring_enter failed");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Gives payloads' room back while more of it is resident than may be: of the slots that were
    /// idle longest first, since the kernel takes the slot that it got last.
    ///
    /// Only between two system calls that submitted everything: then idle slots are the kernel's,
    /// hold no answer that it has yet to read, and it cannot write into them.
    fn trim(&mut self) {
        if self.resident <= self.resident_max
            || !self.deferred
            || !self.ring.submission().is_empty()
        {
            return;
        }
        let mut idle: Vec<u32> = (0..self.slots.len() as u32)
            .filter(|slot| {
                let state = &self.slots[*slot as usize];
                state.place == Place::Kernel && state.resident > 0
            })
            .collect();
        idle.sort_unstable_by_key(|slot| self.slots[*slot as usize].used);
        for slot in idle {
            if self.resident <= self.resident_max / 2 {
                break;
            }
            if let Err(errno) = self.shared.arena.punch(self.shared.place(slot)) {
                debug!(slot, %errno, "payload not given back");
                break;
            }
            let state = &mut self.slots[slot as usize];
            self.resident -= u64::from(state.resident);
            state.resident = 0;
            self.shared.untouch(slot);
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
