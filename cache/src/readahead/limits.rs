//! How much is fetched at once and ahead, and on which boundaries.

use crate::extent::Extent;

/// The largest fetch, in bytes. One ranged GET of this size amortises a request on every store, and
/// four of them in flight reach what the SDK reaches.
pub const UNIT: u64 = 8 << 20;
/// Offsets and lengths of fetches are whole pages, since the kernel's page cache reads those.
pub(super) const PAGE: u64 = 4096;
/// Objects up to this size are fetched whole by the first read that misses: the request costs more
/// than the bytes.
pub const SMALL_MAX: u64 = 1 << 20;
/// What is fetched beyond the first read at offset 0.
pub(super) const START: u64 = 1 << 20;
/// How far out of order an access of a long run may be.
pub(super) const SLACK: u64 = 4 << 20;
/// How far behind its head a run still takes accesses, and how far behind it unread bytes are kept.
pub(super) const BEHIND: u64 = 8 << 20;

/// Bounds that may differ from access to access, since memory comes and goes.
#[derive(Debug, Clone, Copy)]
pub struct ReadaheadLimits {
    /// The largest fetch, in bytes; [`UNIT`] where there is memory for several.
    pub unit: u64,
    /// How much may be outstanding or unread ahead of one run, in bytes.
    pub ahead_max: u64,
}

/// `offset` rounded down to a multiple of `step`.
pub(super) fn down(offset: u64, step: u64) -> u64 {
    offset - offset % step
}

/// `offset` rounded up to a multiple of `step`.
pub(super) fn up(offset: u64, step: u64) -> u64 {
    down(offset.saturating_add(step - 1), step)
}

/// The pages that hold `extent`, within `size`.
pub fn pages(extent: Extent, size: u64) -> Extent {
    Extent::between(down(extent.offset, PAGE), up(extent.end(), PAGE).min(size))
}
