//! Slots as everybody but the kernel sees them: [`RingShared`] is what a ring thread shares with the
//! tokens it gives out, [`Token`] is one request that is held in a slot.
//!
//! ```text
//! completion -> Delivered -> Token -> Answered -> COMMIT_AND_FETCH
//! ```
//! None of the three can be copied, and each is made from the one before it: so a slot's memory has one
//! owner at a time. From the completion to the commit that is not the kernel: [`Delivered`] is the right
//! to take the request, the token alone may touch the memory, and [`Answered`] is the right to give the
//! slot back. The answer's header and payload are written by whoever answers; the slot then goes to the
//! ring thread, by a list of its own thread if it is that one, by the mailbox otherwise, and whoever
//! receives it sees all that was written before.

#![allow(
    unsafe_code,
    reason = "a slot's memory is shared with the kernel; a token gives out slices of it"
)]

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::{ptr, slice};

use tracing::error;

use super::arena::Arena;
use super::mailbox::{Answered, Mailbox};
use crate::fuse::abi::request::InHeader;
use crate::fuse::abi::ring::EntInOut;
use crate::fuse::abi::{OutHeader, opcode};
use crate::fuse::context::ConnectionContext;
use crate::fuse::stats::Counts;

/// What a ring thread shares. Slots are counted from 0 within the thread.
#[derive(Debug)]
pub(crate) struct RingShared {
    pub(super) arena: Arc<Arena>,
    /// The number in the arena of this thread's slot 0.
    first: u32,
    pub(crate) mailbox: Mailbox,
    pub(crate) counts: Counts,
    context: OnceLock<Arc<ConnectionContext>>,
    slots: Box<[SlotWords]>,
    /// Slots that the kernel was given.
    pub(crate) registered: AtomicU64,
    /// Slots that ended by an error while the mount lived.
    pub(crate) lost: AtomicU64,
    /// Bytes of payloads that are resident, as far as we wrote them.
    pub(crate) resident: AtomicU64,
}

/// One slot's words that other threads read or write.
#[derive(Debug, Default)]
struct SlotWords {
    /// When its request came, in milliseconds of the ring's clock; 0 while it holds none.
    since: AtomicU64,
    /// Bytes of the payload that were written since its room was last given back.
    touched: AtomicU32,
}

thread_local! {
    /// What was answered on this thread, if it is a ring thread, and whose it is.
    static LOCAL: RefCell<LocalAnswers> = const {
        RefCell::new(LocalAnswers {
            owner: ptr::null(),
            answered: Vec::new(),
            bytes: 0,
        })
    };
}

struct LocalAnswers {
    owner: *const RingShared,
    answered: Vec<Answered>,
    bytes: usize,
}

impl RingShared {
    pub(crate) fn new(arena: Arc<Arena>, first: u32, slots: u32, mailbox: Mailbox) -> Arc<Self> {
        Arc::new(Self {
            arena,
            first,
            mailbox,
            counts: Counts::default(),
            context: OnceLock::new(),
            slots: (0..slots).map(|_| SlotWords::default()).collect(),
            registered: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            resident: AtomicU64::new(0),
        })
    }

    /// The connection that is served, from now on.
    pub(crate) fn attach(&self, context: &Arc<ConnectionContext>) {
        let _ = self.context.set(Arc::clone(context));
    }

    fn context(&self) -> &ConnectionContext {
        self.context
            .get()
            .expect("a ring thread is attached before it registers slots")
    }

    /// The slot's number in the arena.
    pub(super) fn place(&self, slot: u32) -> u32 {
        self.first + slot
    }

    /// Bytes of the slot's payload that may be resident.
    pub(crate) fn touched(&self, slot: u32) -> u32 {
        self.slots[slot as usize].touched.load(Ordering::Relaxed)
    }

    /// Gives the room of the slot's payload back. Only for slots that are the kernel's, and only where it
    /// cannot write into them before this returns.
    pub(crate) fn give_payload_back(&self, slot: u32) -> nix::Result<()> {
        self.arena.punch(self.place(slot))?;
        self.slots[slot as usize]
            .touched
            .store(0, Ordering::Relaxed);
        Ok(())
    }

    fn touch(&self, slot: u32, len: usize) {
        let touched = &self.slots[slot as usize].touched;
        if touched.load(Ordering::Relaxed) < len as u32 {
            touched.store(len as u32, Ordering::Relaxed);
        }
    }

    /// How many slots are held, and since when the oldest is.
    pub(crate) fn held(&self) -> (u64, Option<u64>) {
        let times = self
            .slots
            .iter()
            .map(|slot| slot.since.load(Ordering::Relaxed))
            .filter(|since| *since != 0);
        times.fold((0, None), |(count, oldest), since| {
            (
                count + 1,
                Some(oldest.map_or(since, |old: u64| old.min(since))),
            )
        })
    }

    /// Makes this thread the ring's own: answers made on it are listed without a wake-up.
    pub(crate) fn own_thread(self: &Arc<Self>) {
        LOCAL.with_borrow_mut(|local| local.owner = Arc::as_ptr(self));
    }

    /// Undoes [`RingShared::own_thread`].
    pub(crate) fn disown_thread() {
        LOCAL.with_borrow_mut(|local| {
            local.owner = ptr::null();
            local.answered.clear();
        });
    }

    /// Moves what was answered on this thread to the end of `answered`.
    pub(crate) fn take_local(answered: &mut Vec<Answered>) {
        LOCAL.with_borrow_mut(|local| {
            answered.append(&mut local.answered);
            local.bytes = 0;
        });
    }

    /// How many answers wait on this thread, and how many bytes they have.
    pub(crate) fn local_waiting() -> (usize, usize) {
        LOCAL.with_borrow(|local| (local.answered.len(), local.bytes))
    }
}

/// A slot whose completion has come with a request that nobody has taken yet.
#[derive(Debug)]
pub(crate) struct Delivered(u32);

impl Delivered {
    /// To be made once for each completion of a slot's entry, and for nothing else: [`Token::take`] relies
    /// on it.
    pub(super) fn new(slot: u32) -> Self {
        Self(slot)
    }

    pub(crate) fn slot(&self) -> u32 {
        self.0
    }
}

/// A request that is held in a slot.
#[derive(Debug)]
pub(crate) struct Token {
    shared: Arc<RingShared>,
    slot: u32,
    /// Length of what the kernel put into the payload; 0 once the payload was given out to write.
    input: usize,
    /// Whether the input is a WRITE's data.
    write: bool,
    /// Length of the room that was given out to write.
    room: usize,
}

impl Token {
    /// Takes the request that the kernel has delivered, at `now_ms` of the ring's clock, and its header.
    pub(crate) fn take(
        shared: &Arc<RingShared>,
        delivered: Delivered,
        now_ms: u64,
    ) -> (InHeader, Self) {
        let Delivered(slot) = delivered;
        let area = shared.arena.header(shared.place(slot));
        // SAFETY: the header area is mapped and aligned for both structs (`in_out` begins it); every bit
        // pattern is valid for both. The slot's completion has come and was not taken before, which is
        // what a `Delivered` is, so the kernel does not write there until the slot is committed.
        let (header, entry) = unsafe {
            let header = area.cast::<InHeader>().read();
            (header, (&raw const (*area).ring_ent_in_out).read())
        };
        let input = (entry.payload_sz as usize).min(shared.arena.payload_len());
        shared.slots[slot as usize]
            .since
            .store(now_ms, Ordering::Relaxed);
        shared.touch(slot, input);
        let token = Self {
            shared: Arc::clone(shared),
            slot,
            input,
            write: header.opcode == opcode::WRITE,
            room: 0,
        };
        (header, token)
    }

    /// The operation's fixed struct, and what is left there of earlier ones.
    pub(crate) fn op_in(&self) -> &[u8; 128] {
        let area = self.shared.arena.header(self.shared.place(self.slot));
        // SAFETY: mapped while `shared` is held; the kernel has given the slot away, and our answer
        // does not touch `op_in`.
        unsafe { &(*area).op_in }
    }

    pub(crate) fn context(&self) -> &ConnectionContext {
        self.shared.context()
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// What the kernel put into the payload.
    pub(crate) fn input(&self) -> &[u8] {
        let payload = self.shared.arena.payload(self.shared.place(self.slot));
        // SAFETY: the payload is mapped while `shared` is held and `input` is within it. Nobody
        // writes to it: the kernel has given the slot away, and `buffer` wants `&mut self`.
        unsafe { slice::from_raw_parts(payload, self.input) }
    }

    pub(crate) fn data(&self) -> &[u8] {
        if self.write { self.input() } else { &[] }
    }

    pub(crate) fn buffer(&mut self, len: usize) -> &mut [u8] {
        let len = len.min(self.shared.arena.payload_len());
        self.input = 0;
        self.room = self.room.max(len);
        self.shared.touch(self.slot, len);
        let payload = self.shared.arena.payload(self.shared.place(self.slot));
        // SAFETY: mapped while `shared` is held, `len` is within it, and `&mut self` makes this the
        // only slice of it: the kernel has given the slot away.
        unsafe { slice::from_raw_parts_mut(payload, len) }
    }

    pub(crate) fn send(mut self, unique: u64, bytes: &[u8]) {
        let room = self.buffer(bytes.len());
        if room.len() < bytes.len() {
            error!(unique, len = bytes.len(), "answer longer than the payload");
            return self.commit(unique, libc::EIO, 0);
        }
        room.copy_from_slice(bytes);
        self.commit(unique, 0, bytes.len());
    }

    pub(crate) fn send_filled(self, unique: u64, len: usize) {
        let len = len.min(self.room);
        self.commit(unique, 0, len);
    }

    pub(crate) fn send_error(self, unique: u64, errno: i32) {
        self.commit(unique, errno, 0);
    }

    /// Writes the answer's header and gives the slot to its ring thread.
    fn commit(self, unique: u64, errno: i32, len: usize) {
        let place = self.shared.place(self.slot);
        let header = self.shared.arena.header(place);
        let out = OutHeader {
            len: (size_of::<OutHeader>() + len) as u32,
            error: -errno,
            unique,
        };
        let entry = EntInOut {
            commit_id: unique,
            payload_sz: len as u32,
            ..EntInOut::default()
        };
        // SAFETY: the header area is mapped and aligned for both structs (`in_out` begins it), and
        // is this token's alone.
        unsafe {
            header.cast::<OutHeader>().write(out);
            (&raw mut (*header).ring_ent_in_out).write(entry);
        }
        self.shared
            .arena
            .last_done(place)
            .store(unique, Ordering::Relaxed);
        self.shared.slots[self.slot as usize]
            .since
            .store(0, Ordering::Relaxed);
        // Not to be had while a thread ends and drops what it held: then it is no ring thread's.
        let own = LOCAL.try_with(|local| {
            let mut local = local.borrow_mut();
            let own = ptr::eq(local.owner, Arc::as_ptr(&self.shared));
            if own {
                local.answered.push(Answered::new(self.slot));
                local.bytes += len;
            }
            own
        });
        if !own.unwrap_or(false) && self.shared.mailbox.post(Answered::new(self.slot)) {
            self.shared
                .counts
                .mailbox_wakes
                .fetch_add(1, Ordering::Relaxed);
        }
    }
}
