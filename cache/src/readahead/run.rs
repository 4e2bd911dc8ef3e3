//! One run of accesses that continue one another: where it goes, and how far ahead of it to fetch.

use super::limits::{BEHIND, PAGE, ReadaheadLimits, SLACK, START, down, up};
use crate::extent::Extent;

/// The smallest window of a run that begins elsewhere than at offset 0; [`START`] is that of others.
const START_WITHIN: u64 = 128 << 10;
/// Backward runs fetch in pieces of this size, nearest first: bytes arrive in ascending order, so a
/// large piece would bring the ones asked for last.
const BACKWARD_STEP: u64 = 1 << 20;
/// The most that is fetched ahead of a backward run.
pub(super) const BACKWARD_MAX: u64 = 4 << 20;
/// A run is taken for backward when it has been continued so often.
const BACKWARD_HITS: u64 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Unknown,
    Forward,
    Backward,
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct AccessRun {
    pub(super) id: u64,
    pub(super) direction: Direction,
    /// What the accesses span.
    low: u64,
    pub(super) high: u64,
    /// Whether it began at offset 0.
    pub(super) from_start: bool,
    /// Bytes read, each counted once.
    pub(super) consumed: u64,
    /// Bytes of the span that were not read.
    skipped: u64,
    /// How often it was continued.
    hits: u64,
    /// Something was fetched ahead for it.
    pub(super) ahead: bool,
    /// Where the next fetch begins (forward) or ends (backward).
    pub(super) frontier: u64,
    /// The handle's count of accesses and bytes at the last one.
    pub(super) used: (u64, u64),
}

impl AccessRun {
    /// A run whose first access is `extent`.
    pub(super) fn new(id: u64, extent: Extent, used: (u64, u64)) -> Self {
        let from_start = extent.offset == 0;
        Self {
            id,
            direction: Direction::Unknown,
            low: extent.offset,
            high: extent.end(),
            from_start,
            consumed: extent.len,
            skipped: 0,
            hits: 0,
            ahead: false,
            frontier: if from_start { 0 } else { extent.end() },
            used,
        }
    }

    /// How far `extent` is from where this run would go on; `None` if it does not belong to it.
    pub(super) fn distance(&self, extent: Extent) -> Option<u64> {
        let near = (4 * extent.len).max(self.consumed.min(SLACK));
        let unknown = self.direction == Direction::Unknown;
        let forward = || {
            let inside = extent.offset >= self.low && extent.offset < self.high;
            let at = extent.offset;
            let fits = (at >= self.high && at - self.high <= near)
                || (inside && (unknown || self.high - at <= BEHIND));
            fits.then(|| at.abs_diff(self.high))
        };
        let backward = || {
            let end = extent.end();
            let inside = end > self.low && end <= self.high;
            let fits = (end <= self.low && self.low - end <= near)
                || (inside && (unknown || end - self.low <= BEHIND));
            fits.then(|| end.abs_diff(self.low))
        };
        match self.direction {
            Direction::Forward => forward(),
            Direction::Backward if self.hits >= BACKWARD_HITS => backward(),
            Direction::Backward | Direction::Unknown => forward().or_else(backward),
        }
    }

    /// Takes `extent` in. Gives where the span's head was before.
    pub(super) fn take(&mut self, extent: Extent) -> u64 {
        if self.is_unsure() {
            if extent.end() > self.high {
                // The first of a forward reader's accesses may come out of order too.
                if self.direction == Direction::Backward {
                    self.frontier = self.high;
                }
                self.direction = Direction::Forward;
            } else if extent.offset == 0 && self.low > 0 {
                self.restart_from_start(extent);
                return self.high;
            } else if self.direction == Direction::Unknown {
                if extent.offset >= self.low {
                    return self.high;
                }
                self.direction = Direction::Backward;
                self.frontier = up(self.low, PAGE);
            }
        }
        self.extend(extent)
    }

    /// Whether the direction may still turn out to be another.
    fn is_unsure(&self) -> bool {
        match self.direction {
            Direction::Forward => false,
            Direction::Backward => self.hits < BACKWARD_HITS,
            Direction::Unknown => true,
        }
    }

    /// The first bytes of the object came late: all of it is read from its start.
    fn restart_from_start(&mut self, extent: Extent) {
        self.direction = Direction::Forward;
        self.from_start = true;
        self.frontier = 0;
        self.consumed += self.low.min(extent.end());
        self.skipped += self.low.saturating_sub(extent.end());
        self.low = 0;
    }

    /// Extends the span by `extent` in the run's direction. Gives where its head was before.
    fn extend(&mut self, extent: Extent) -> u64 {
        let (head, new, gap) = if self.direction == Direction::Backward {
            let head = self.low;
            self.low = head.min(extent.offset);
            let new = head.min(extent.end()).saturating_sub(extent.offset);
            (head, new, head.saturating_sub(extent.end()))
        } else {
            let head = self.high;
            self.high = head.max(extent.end());
            let new = extent.end().saturating_sub(head.max(extent.offset));
            (head, new, extent.offset.saturating_sub(head))
        };
        self.consumed += new;
        self.skipped += gap;
        if new > 0 {
            self.hits += 1;
        } else {
            // A late one of several that came out of order, or a second look.
            let late = extent.len.min(self.skipped);
            self.skipped -= late;
            self.consumed += late;
        }
        head
    }

    fn is_dense(&self) -> bool {
        self.skipped <= self.consumed
    }

    pub(super) fn is_sequential(&self) -> bool {
        self.is_dense()
            && match self.direction {
                Direction::Forward => true,
                Direction::Backward => self.hits >= BACKWARD_HITS,
                Direction::Unknown => self.from_start,
            }
    }

    pub(super) fn window(&self, limits: ReadaheadLimits) -> u64 {
        let start = if self.from_start { START } else { START_WITHIN };
        let most = match self.direction {
            Direction::Backward => limits.ahead_max.min(BACKWARD_MAX),
            _ => limits.ahead_max,
        };
        self.consumed.saturating_mul(2).max(start).min(most)
    }

    /// What is due to be fetched ahead of `extent`, given where the head was before it.
    pub(super) fn due(
        &mut self,
        extent: Extent,
        head: u64,
        size: u64,
        limits: ReadaheadLimits,
    ) -> Vec<Extent> {
        let due = match self.direction {
            Direction::Backward => self.ahead_backward(extent, head, size, limits),
            Direction::Forward | Direction::Unknown => {
                self.ahead_forward(extent, head, size, limits)
            }
        };
        self.ahead |= !due.is_empty();
        due
    }

    /// It is not sequential: whatever is read of it is fetched as asked.
    pub(super) fn pass(&mut self) {
        self.frontier = match self.direction {
            Direction::Backward => self.frontier.min(up(self.low, PAGE)),
            Direction::Forward | Direction::Unknown => self.frontier.max(self.high),
        };
    }

    /// `extent`, and what came after it, was not fetched: it becomes due again.
    pub(super) fn retreat(&mut self, extent: Extent) {
        self.frontier = match self.direction {
            Direction::Backward => self.frontier.max(extent.end()),
            Direction::Forward | Direction::Unknown => self.frontier.min(extent.offset),
        };
    }

    fn ahead_forward(
        &mut self,
        extent: Extent,
        head: u64,
        size: u64,
        limits: ReadaheadLimits,
    ) -> Vec<Extent> {
        // What the reader has passed without readahead was fetched as asked.
        self.frontier = self.frontier.max(extent.offset.min(head));
        let window = self.window(limits);
        let granule = match window {
            _ if window >= 2 * limits.unit => limits.unit,
            _ if window >= 2 << 20 => 1 << 20,
            _ => PAGE,
        };
        let asked = up(self.high, PAGE).min(size);
        let reach = self.high.saturating_add(window);
        let target = if reach >= size {
            size
        } else {
            down(reach, granule).max(asked)
        };
        let due = self.frontier < self.high
            || target == size
            || target.saturating_sub(self.frontier) >= limits.unit.min(window / 2);
        let mut ahead = Vec::new();
        if !due || window == 0 {
            return ahead;
        }
        while self.frontier < target {
            let end = up(self.frontier + 1, limits.unit).min(target);
            ahead.push(Extent::between(down(self.frontier, PAGE), end));
            self.frontier = end;
        }
        ahead
    }

    fn ahead_backward(
        &mut self,
        extent: Extent,
        head: u64,
        size: u64,
        limits: ReadaheadLimits,
    ) -> Vec<Extent> {
        let asked = up(extent.end().max(head), PAGE).min(size);
        self.frontier = self.frontier.min(asked);
        let window = self.window(limits);
        let target = down(self.low.saturating_sub(window), PAGE);
        let room = self.frontier.saturating_sub(target);
        let due = self.frontier > self.low || target == 0 || room >= window / 2;
        let mut ahead = Vec::new();
        if !due || window == 0 {
            return ahead;
        }
        while self.frontier > target {
            let step = BACKWARD_STEP.min(limits.unit);
            let start = down(self.frontier - 1, step).max(target);
            ahead.push(Extent::between(start, self.frontier));
            self.frontier = start;
        }
        ahead
    }
}
