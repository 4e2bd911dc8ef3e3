//! How much waits for the disk, and whether more may. Pure: time is passed as `now`.
//!
//! Bytes that wait and bytes that are being fetched with a reservation share one bound; a fetch that
//! arrives turns its reservation into bytes that wait. What nobody pays for has a bound of its own,
//! and so has the number of writes, for each takes memory beside its bytes.
//!
//! A disk that has more than half of the bound to write is *behind*. Whoever reads a long way waits for
//! it, but not for longer than [`PATIENCE`]: a disk that has not caught up by then is slower than the
//! store, and reading goes on at the store's speed; what the disk cannot take is left out.

use std::time::{Duration, Instant};

use super::job::PendingWrite;

/// The bound with the default memory, in bytes. As much as readahead may have under way then: on a disk
/// that keeps up the queue is empty and nothing is held back.
pub(crate) const QUEUED_BYTES_MAX: u64 = 48 << 20;

/// The part of the bound that need not be paid for.
const UNPAID_PART: u64 = 6;

/// For how long a disk that is behind is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Writes that wait at most.
const WRITES_MAX: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(super) struct Backlog {
    /// Bytes that may wait or be reserved.
    bytes_max: u64,
    /// How many writes wait.
    writes: usize,
    /// Their bytes.
    bytes: u64,
    /// Of these, what nobody pays for.
    unpaid: u64,
    /// Bytes that are being fetched and have their place.
    reserved: u64,
    /// Since when more than half of the bytes that may wait do.
    behind_since: Option<Instant>,
}

impl Backlog {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            writes: 0,
            bytes: 0,
            unpaid: 0,
            reserved: 0,
            behind_since: None,
        }
    }

    /// Whether there is no place for `write`. One with a reservation does not compete with those of
    /// others. One that is larger than the bound goes alone, if it is paid for.
    pub(super) fn refuses(&self, write: &PendingWrite, has_reservation: bool) -> bool {
        let len = write.extent.len;
        let others = if has_reservation { 0 } else { self.reserved };
        let full = self.bytes + others + len > self.bytes_max || self.writes >= WRITES_MAX;
        let unpaid = write.unpaid_bytes();
        let unpaid_full = unpaid > 0 && self.unpaid + unpaid > self.bytes_max / UNPAID_PART;
        unpaid_full || full && self.writes > 0
    }

    /// `write` waits from now on.
    pub(super) fn add(&mut self, write: &PendingWrite, now: Instant) {
        self.bytes += write.extent.len;
        self.unpaid += write.unpaid_bytes();
        self.writes += 1;
        self.changed(now);
    }

    /// `write` waits no longer.
    pub(super) fn remove(&mut self, write: &PendingWrite, now: Instant) {
        debug_assert!(self.writes > 0 && self.bytes >= write.extent.len);
        self.bytes -= write.extent.len;
        self.unpaid -= write.unpaid_bytes();
        self.writes -= 1;
        self.changed(now);
    }

    /// Reserves a place for `len` bytes that are about to be fetched. False if there is none, unless
    /// they `must` come or the disk is waited for no longer. A fetch that is larger than the bound goes
    /// alone.
    pub(super) fn reserve(&mut self, len: u64, must: bool, now: Instant) -> bool {
        let taken = self.bytes + self.reserved;
        let full = taken > 0 && taken + len > self.bytes_max;
        if full && !must && !self.is_hopeless(now) {
            return false;
        }
        self.reserved += len;
        true
    }

    /// A reservation ends.
    pub(super) fn end_reservation(&mut self, len: u64) {
        debug_assert!(self.reserved >= len);
        self.reserved -= len;
    }

    /// Whether the disk is far behind and worth waiting for. Reservations do not count: streams that
    /// reserve again and again would hold up one that waits for ever.
    pub(super) fn is_far_behind(&self, now: Instant) -> bool {
        !self.is_hopeless(now) && self.bytes > self.bytes_max / 4 * 3
    }

    /// How long the disk is still waited for.
    pub(super) fn patience_left(&self, now: Instant) -> Duration {
        let since = self.behind_since.unwrap_or(now);
        PATIENCE.saturating_sub(now.saturating_duration_since(since))
    }

    /// Whether somebody pays for bytes that wait.
    pub(super) fn has_paid(&self) -> bool {
        self.bytes > self.unpaid
    }

    /// The disk is slower than the store, and nobody waits for it any more.
    fn is_hopeless(&self, now: Instant) -> bool {
        self.behind_since.is_some() && self.patience_left(now).is_zero()
    }

    fn changed(&mut self, now: Instant) {
        if self.bytes <= self.bytes_max / 2 {
            self.behind_since = None;
        } else {
            self.behind_since.get_or_insert(now);
        }
        debug_assert!(self.unpaid <= self.bytes);
        debug_assert!(self.writes > 0 || self.bytes == 0);
    }

    /// Writes, their bytes, and those of them that nobody pays for.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, u64, u64) {
        (self.writes, self.bytes, self.unpaid)
    }

    #[cfg(test)]
    pub(super) const PATIENCE: Duration = PATIENCE;
}
