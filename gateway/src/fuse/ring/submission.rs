//! One ring thread's io_uring, and what it submits: REGISTER and COMMIT_AND_FETCH of slots, the poll on
//! the mailbox. A [`SlotRing`] owns the memory that its entries point to and takes a slot back only from
//! whoever may give it, so its methods are safe.
//!
//! With DEFER_TASKRUN the kernel touches slots only inside [`SlotRing::submit`], and delivers requests
//! (copies them into slots) there too.

#![allow(
    unsafe_code,
    reason = "submission entries carry addresses that must outlive them, and REGISTER needs a field of \
              the entry that the io-uring crate cannot set"
)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::opcode::{PollAdd, UringCmd80};
use io_uring::squeue::{Entry128, PushError};
use io_uring::{IoUring, cqueue, types};
use tracing::error;
use zerocopy::IntoBytes;

use super::mailbox::Answered;
use super::slot::{Delivered, RingShared};
use crate::fuse::abi::ring::{CMD_COMMIT_AND_FETCH, CMD_REGISTER, CmdReq, ReqHeader};

/// `user_data` of the poll on the mailbox's eventfd; slots have their numbers.
const WAKE: u64 = u64::MAX;

/// A ring of 128-byte entries, as FUSE's commands need.
type Uring = IoUring<Entry128, cqueue::Entry>;

/// What the kernel says.
#[derive(Debug)]
pub(crate) enum Completion {
    /// The mailbox's eventfd was written. Whether it is watched on.
    Mail { watched: bool },
    /// A request has come.
    Delivered(Delivered),
    /// The kernel gave a slot up, by this errno.
    Refused { slot: u32, errno: i32 },
}

/// See the module. Lives on its thread only.
pub(crate) struct SlotRing {
    /// Dropped before what its entries point to.
    uring: Uring,
    /// The kernel writes into slots inside our system calls only (DEFER_TASKRUN).
    deferred: bool,
    /// Holds the slots' memory.
    shared: Arc<RingShared>,
    /// Header area and payload of each slot, as REGISTER wants them; never moved.
    iovecs: Box<[[libc::iovec; 2]]>,
    /// Which slots the kernel was given.
    registered: Box<[bool]>,
    /// The `/dev/fuse` descriptor is file 0 of the ring.
    fuse: Option<OwnedFd>,
}

impl SlotRing {
    /// Builds the ring on this thread, which from then on is the only one that may use it. It has `slots`
    /// slots, of which `slots_first` are registered at first.
    pub(crate) fn new(
        shared: Arc<RingShared>,
        slots: u32,
        slots_first: u32,
        short_payload: bool,
    ) -> io::Result<Self> {
        let (uring, deferred) = build(slots_first.min(256), slots + 8)?;
        let payload_len = if short_payload {
            4096
        } else {
            shared.arena.payload_len()
        };
        let iovecs = (0..slots).map(|slot| {
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
        });
        Ok(Self {
            uring,
            deferred,
            iovecs: iovecs.collect(),
            shared,
            registered: vec![false; slots as usize].into_boxed_slice(),
            fuse: None,
        })
    }

    /// Makes `fuse` the connection that commands go to.
    pub(crate) fn attach(&mut self, fuse: OwnedFd) -> io::Result<()> {
        let fuse = self.fuse.insert(fuse);
        self.uring.submitter().register_files(&[fuse.as_raw_fd()])
    }

    /// Gives `slot`, which it never had, to the kernel's queue `qid`.
    pub(crate) fn register(&mut self, slot: u32, qid: u16) {
        let had = std::mem::replace(&mut self.registered[slot as usize], true);
        assert!(!had, "slot {slot} is registered once");
        let command = CmdReq {
            qid,
            ..CmdReq::default()
        };
        let iovecs = &self.iovecs[slot as usize];
        let entry = uring_cmd(CMD_REGISTER, &command, Some(iovecs.as_ptr() as u64)).build();
        let entry = with_len(entry, iovecs.len() as u32);
        self.push(&entry.user_data(u64::from(slot)));
    }

    /// Gives an answered slot back, with the answer to request `unique`, and asks for the next one.
    pub(crate) fn commit(&mut self, answered: Answered, qid: u16, unique: u64) {
        let command = CmdReq {
            commit_id: unique,
            qid,
            ..CmdReq::default()
        };
        let entry = uring_cmd(CMD_COMMIT_AND_FETCH, &command, None).build();
        self.push(&entry.user_data(u64::from(answered.slot())));
    }

    /// Watches the mailbox's eventfd until told otherwise.
    pub(crate) fn poll_mailbox(&mut self) {
        let entry = PollAdd::new(types::Fd(self.shared.mailbox.fd()), libc::POLLIN as u32)
            .multi(true)
            .build()
            .user_data(WAKE);
        self.push(&entry.into());
    }

    /// Whether the kernel cannot touch a slot that is its own before the next [`SlotRing::submit`].
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.deferred && self.uring.submission().is_empty()
    }

    /// Submits everything, and waits for `want` completions.
    pub(crate) fn submit(&mut self, want: usize) {
        let Err(cause) = self.uring.submit_and_wait(want) else {
            return;
        };
        // EBUSY, EAGAIN: completions must be taken first. The thread's loop does that and comes back.
        let passing = [libc::EINTR, libc::EBUSY, libc::EAGAIN].map(Some);
        if !passing.contains(&cause.raw_os_error()) {
            error!(%cause, "io_uring_enter failed");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Every completion that has come.
    pub(crate) fn completions(&mut self) -> impl Iterator<Item = Completion> {
        self.uring.completion().map(|entry| {
            let (data, result) = (entry.user_data(), entry.result());
            if data == WAKE {
                let watched = cqueue::more(entry.flags());
                return Completion::Mail { watched };
            }
            let slot = data as u32;
            if result < 0 {
                let errno = -result;
                Completion::Refused { slot, errno }
            } else {
                Completion::Delivered(Delivered::new(slot))
            }
        })
    }

    fn push(&mut self, entry: &Entry128) {
        // SAFETY: what the entry points to outlives the ring: `iovecs`, and the slots' memory in the
        // arena that `shared` holds, are dropped after `uring`, whose field comes first. The slot's
        // memory is the kernel's from here on: `register` gives it once, `commit` takes an `Answered`.
        while let Err(PushError { .. }) = unsafe { self.uring.submission().push(entry) } {
            self.submit(0);
        }
    }
}

/// A command of FUSE for file 0.
fn uring_cmd(operation: u32, command: &CmdReq, addr: Option<u64>) -> UringCmd80 {
    let mut bytes = [0; 80];
    bytes[..size_of::<CmdReq>()].copy_from_slice(command.as_bytes());
    UringCmd80::new(types::Fixed(0), operation)
        .cmd(bytes)
        .addr(addr)
}

/// Sets the field `len` of an entry, for which `UringCmd80` has no setter: REGISTER wants the
/// number of iovecs there.
fn with_len(mut entry: Entry128, len: u32) -> Entry128 {
    /// `offsetof(struct io_uring_sqe, len)`.
    const LEN_AT: usize = 24;
    const _: () = assert!(size_of::<Entry128>() == 128 && LEN_AT + 4 <= 64);
    // SAFETY: Entry128 is repr(C) and begins with struct io_uring_sqe, whose `len` is a u32 at byte
    // 24; the write stays inside the entry, which is ours.
    unsafe {
        (&raw mut entry).byte_add(LEN_AT).cast::<u32>().write(len);
    }
    entry
}

/// The ring with as many of the wanted features as the kernel has; whether DEFER_TASKRUN is one.
fn build(entries: u32, completions: u32) -> io::Result<(Uring, bool)> {
    let mut result = Err(io::ErrorKind::Unsupported.into());
    // NO_SQARRAY came with 6.6, SINGLE_ISSUER with 6.0, DEFER_TASKRUN with 6.1.
    for (deferred, no_array) in [(true, true), (true, false), (false, false)] {
        let mut builder = Uring::builder();
        builder.setup_submit_all().setup_clamp();
        builder.setup_cqsize(completions.next_power_of_two());
        if deferred {
            builder.setup_single_issuer().setup_defer_taskrun();
        }
        if no_array {
            builder.setup_no_sqarray();
        }
        result = builder.build(entries.next_power_of_two());
        match &result {
            Err(cause) if cause.raw_os_error() == Some(libc::EINVAL) => {}
            _ => return result.map(|ring| (ring, deferred)),
        }
    }
    result.map(|ring| (ring, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_register_lands_where_the_kernel_looks() {
        let entry = uring_cmd(CMD_REGISTER, &CmdReq::default(), Some(0)).build();
        let entry = with_len(entry, 2);
        // SAFETY: an Entry128 is 128 initialised bytes.
        let bytes = unsafe { &*(&raw const entry).cast::<[u8; 128]>() };
        assert_eq!(bytes[24..28], 2u32.to_ne_bytes());
    }
}
