//! What the transport counts. Each door thread has [`Counts`] of its own, so that counting a hit
//! touches no cache line of another CPU; [`TransportStats`] is their sum at one moment.

use std::array::from_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::abi::opcode;

/// One door thread's counters.
#[derive(Debug)]
pub(crate) struct Counts {
    requests: [AtomicU64; opcode::TABLE],
    errors: [AtomicU64; opcode::TABLE],
    pub(crate) panics: AtomicU64,
    pub(crate) undecodable: AtomicU64,
    pub(crate) abandoned: AtomicU64,
    pub(crate) mailbox_wakes: AtomicU64,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            requests: from_fn(|_| AtomicU64::new(0)),
            errors: from_fn(|_| AtomicU64::new(0)),
            panics: AtomicU64::new(0),
            undecodable: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
            mailbox_wakes: AtomicU64::new(0),
        }
    }
}

impl Counts {
    pub(crate) fn request(&self, opcode: u32) {
        self.requests[opcode::slot(opcode)].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn error(&self, opcode: u32) {
        self.errors[opcode::slot(opcode)].fetch_add(1, Ordering::Relaxed);
    }

    /// Adds these counters to `stats`.
    pub(crate) fn add_to(&self, stats: &mut TransportStats) {
        for (sum, count) in stats.requests.iter_mut().zip(&self.requests) {
            *sum += count.load(Ordering::Relaxed);
        }
        for (sum, count) in stats.errors.iter_mut().zip(&self.errors) {
            *sum += count.load(Ordering::Relaxed);
        }
        stats.panics += self.panics.load(Ordering::Relaxed);
        stats.undecodable += self.undecodable.load(Ordering::Relaxed);
        stats.abandoned += self.abandoned.load(Ordering::Relaxed);
        stats.mailbox_wakes += self.mailbox_wakes.load(Ordering::Relaxed);
    }
}

/// The transport's counters at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportStats {
    /// Requests that came, by opcode ([`opcode::name`]); slot 0 has the unknown ones.
    pub requests: [u64; opcode::TABLE],
    /// Answers that were an errno, by opcode; a LOOKUP's ENOENT is one.
    pub errors: [u64; opcode::TABLE],
    /// Requests that came over `/dev/fuse`, FORGET and INTERRUPT not counted.
    pub device_requests: u64,
    /// Slots that the kernel was given, over all queues.
    pub slots: u64,
    /// Slots whose request is not answered yet.
    pub slots_held: u64,
    /// How long the oldest of them is held.
    pub longest_held: Duration,
    /// Slots that ended by an error of the kernel while the mount lived.
    pub slots_lost: u64,
    /// Bytes of slots' payloads that are kept in memory.
    pub payload_resident: u64,
    /// INTERRUPTs that came.
    pub interrupts: u64,
    /// Requests that got EIO because a panic took their responder along, in the handler or in a task.
    pub panics: u64,
    /// Requests that could not be decoded; they got EIO.
    pub undecodable: u64,
    /// Requests that their handler dropped unanswered; they got EIO.
    pub abandoned: u64,
    /// Answers that had to wake a sleeping ring thread.
    pub mailbox_wakes: u64,
    /// Times the watchdog woke a ring thread that slept over a held slot or a full mailbox.
    pub watchdog_wakes: u64,
    /// Invalidations that were dropped because their queue was full.
    pub notifications_dropped: u64,
}

impl Default for TransportStats {
    fn default() -> Self {
        Self {
            requests: [0; opcode::TABLE],
            errors: [0; opcode::TABLE],
            device_requests: 0,
            slots: 0,
            slots_held: 0,
            longest_held: Duration::ZERO,
            slots_lost: 0,
            payload_resident: 0,
            interrupts: 0,
            panics: 0,
            undecodable: 0,
            abandoned: 0,
            mailbox_wakes: 0,
            watchdog_wakes: 0,
            notifications_dropped: 0,
        }
    }
}

impl TransportStats {
    /// All requests.
    pub fn requests_total(&self) -> u64 {
        self.requests.iter().sum()
    }

    /// All answers that were an errno.
    pub fn errors_total(&self) -> u64 {
        self.errors.iter().sum()
    }
}
