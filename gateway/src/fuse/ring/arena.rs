//! The memory of all slots: one memfd, mapped once, at an address that a later process can ask for
//! again, so that a restart can find what its predecessor had in hand.
//!
//! ```text
//! base   | header area of slot 0 (288) | .. | last done (8) @320 | .. 512 | slot 1 | ..  to a page
//!        | payload of slot 0 | payload of slot 1 | ..
//! ```
//! Slots are numbered over all queues. Nothing is populated: room is taken as it is used, and
//! [`Arena::punch`] gives a payload's room back. Children do not inherit the mapping.
//!
//! Who may touch a slot's memory: the kernel while the slot is its own, which is only inside system
//! calls of the slot's ring thread; the one [`Token`](super::Token) while the request is held; the
//! ring thread between the two (`slot.rs`). This file only computes addresses.

#![allow(
    unsafe_code,
    reason = "a shared mapping that the kernel writes into has no safe form"
)]

use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};
use nix::unistd::ftruncate;

use crate::fuse::abi::ring::ReqHeader;

/// Where the mapping is asked for: far from heap, stacks and libraries on every 64-bit layout.
const HINT: usize = 0x6000_0000_0000;

/// Distance of the addresses tried when another mount of this process has the first.
const HINT_STEP: usize = 1 << 40;

/// How many addresses are tried before any will do.
const HINTS: usize = 8;

/// Room of a slot's header area, and where in it the last-done word lies.
const HEADER_STRIDE: usize = 512;
const LAST_DONE_AT: usize = 320;
const _: () = assert!(size_of::<ReqHeader>() <= LAST_DONE_AT && LAST_DONE_AT + 8 <= HEADER_STRIDE);

#[derive(Debug)]
pub(crate) struct Arena {
    base: NonNull<c_void>,
    len: usize,
    memfd: OwnedFd,
    slots: u32,
    payload: usize,
    payloads_at: usize,
}

// SAFETY: the mapping is plain memory that lives as long as the value; who may access which part
// is stated at the top of the file and kept by `Token` and `SlotRing`.
unsafe impl Send for Arena {}
// SAFETY: as above; the shared methods only compute addresses or use atomics.
unsafe impl Sync for Arena {}

impl Arena {
    /// Maps room for `slots` slots of `payload` bytes, a multiple of the page size.
    pub(crate) fn new(slots: u32, payload: usize) -> io::Result<Self> {
        let payloads_at = (slots as usize * HEADER_STRIDE).next_multiple_of(payload.max(4096));
        let len = payload
            .checked_mul(slots as usize)
            .and_then(|payloads| payloads.checked_add(payloads_at))
            .and_then(NonZeroUsize::new)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let memfd = memfd_create(c"ackfs-slots", MFdFlags::MFD_CLOEXEC)?;
        ftruncate(&memfd, len.get() as i64)?;
        let base = map(&memfd, len)?;
        let arena = Self {
            base,
            len: len.get(),
            memfd,
            slots,
            payload,
            payloads_at,
        };
        // SAFETY: the range is the mapping just made, and the advice changes no byte of it.
        unsafe { madvise(base, len.get(), MmapAdvise::MADV_DONTFORK) }?;
        Ok(arena)
    }

    pub(super) fn payload_len(&self) -> usize {
        self.payload
    }

    /// A slot's header area, aligned for it.
    pub(super) fn header(&self, slot: u32) -> *mut ReqHeader {
        self.at(slot as usize * HEADER_STRIDE, slot).cast()
    }

    /// A slot's payload, [`Arena::payload_len`] bytes.
    pub(super) fn payload(&self, slot: u32) -> *mut u8 {
        self.at(self.payload_at(slot), slot).cast()
    }

    /// The number of the last request that was answered through the slot.
    pub(super) fn last_done(&self, slot: u32) -> &AtomicU64 {
        let word = self.at(slot as usize * HEADER_STRIDE + LAST_DONE_AT, slot);
        // SAFETY: the word lies inside the mapping, is 8-byte aligned, is zero at first, is never
        // accessed but through this atomic, and lives as long as `self`.
        unsafe { AtomicU64::from_ptr(word.cast()) }
    }

    /// Gives the room of a slot's payload back; it reads as zeros then. Only for slots that are
    /// the kernel's, and only where the kernel cannot write into them before this returns.
    pub(super) fn punch(&self, slot: u32) -> nix::Result<()> {
        fallocate(
            &self.memfd,
            FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE,
            self.payload_at(slot) as i64,
            self.payload as i64,
        )
    }

    fn payload_at(&self, slot: u32) -> usize {
        self.payloads_at + slot as usize * self.payload
    }

    fn at(&self, offset: usize, slot: u32) -> *mut c_void {
        assert!(slot < self.slots, "slot {slot} of {}", self.slots);
        // SAFETY: `offset` belongs to a slot below `slots`, for which the mapping has room.
        unsafe { self.base.byte_add(offset) }.as_ptr()
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: `base` and `len` are the mapping; tokens and ring threads hold the arena by Arc,
        // so none is left that could access it, and a ring thread closes its ring, with which the
        // kernel gives up the slots, before it lets go.
        if let Err(errno) = unsafe { munmap(self.base, self.len) } {
            tracing::warn!(%errno, "memory of the slots not unmapped");
        }
    }
}

fn map(memfd: &OwnedFd, len: NonZeroUsize) -> nix::Result<NonNull<c_void>> {
    let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
    let hints = (0..HINTS).filter_map(|nth| NonZeroUsize::new(HINT + nth * HINT_STEP));
    let tries = hints
        .map(|hint| (Some(hint), flags | MapFlags::MAP_FIXED_NOREPLACE))
        .chain([(None, flags)]);
    let mut result = Err(nix::errno::Errno::ENOMEM);
    for (hint, flags) in tries {
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping: FIXED_NOREPLACE fails rather than replace another.
        result = unsafe { mmap(hint, len, prot, flags, memfd, 0) };
        if result.is_ok() {
            break;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    /// Memory that the arena has, in blocks of 512 bytes.
    fn blocks(arena: &Arena) -> i64 {
        nix::sys::stat::fstat(&arena.memfd).expect("ours").st_blocks
    }

    #[test]
    fn slots_do_not_overlap_and_take_no_room_before_use() {
        let (slots, payload) = (1000, 1 << 20);
        let arena = Arena::new(slots, payload).expect("1 GiB of address space");
        assert_eq!(blocks(&arena), 0);
        for slot in 0..slots {
            assert!(arena.header(slot).is_aligned());
            if slot > 0 {
                let step = arena.payload(slot).addr() - arena.payload(slot - 1).addr();
                assert_eq!(step, payload);
                let step = arena.header(slot).addr() - arena.header(slot - 1).addr();
                assert_eq!(step, HEADER_STRIDE);
            }
        }
        assert!(arena.header(slots - 1).addr() + HEADER_STRIDE <= arena.payload(0).addr());
        assert_eq!(blocks(&arena), 0);
        arena.last_done(7).store(9, Ordering::Relaxed);
        assert!(blocks(&arena) > 0);
        assert_eq!(arena.last_done(7).load(Ordering::Relaxed), 9);
    }

    #[test]
    fn a_punched_payload_gives_its_room_back_and_reads_as_zeros() {
        let arena = Arena::new(2, 64 << 10).expect("a mapping");
        // SAFETY: the test owns the arena, and the kernel knows nothing of it.
        let payload = unsafe { std::slice::from_raw_parts_mut(arena.payload(1), 64 << 10) };
        payload.fill(7);
        arena.punch(1).expect("memfd can punch");
        assert!(payload.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn two_arenas_live_side_by_side() {
        let one = Arena::new(4, 8192).expect("a mapping");
        let two = Arena::new(4, 8192).expect("a mapping");
        assert_ne!(one.header(0), two.header(0));
    }
}
