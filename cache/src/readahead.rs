//! How far to read beyond what was asked. Pure: it sees offsets and gives extents; it knows no
//! store, no memory, no clock.
//!
//! A [`Pattern`] belongs to one open handle and watches its accesses. Accesses that continue one
//! another form a *run*; a handle may have several (two threads, or one program that reads the head
//! and the tail of a file in turn). A run that begins at offset 0 is taken for sequential at once,
//! any other after its second access, a backward one after its third. What a run may have
//! outstanding ahead of its reader (its *window*) is twice what it has read so far, at least
//! [`START`] or a small first step, at most [`Limits::ahead_max`]: a reader that stops early costs
//! no more than twice what it took. The next fetch is due when half a window, or a whole unit, has
//! room again, so that a steady reader never runs dry.
//!
//! The kernel sends its readahead as several READs at once and from two threads, so a run takes
//! accesses that are out of order by up to [`SLACK`], as much as it has read itself. What is skipped
//! is counted: a run that skips more than it reads (strides, random reads that happen to be near)
//! gets no readahead, and each of its reads fetches exactly its own pages.

use crate::extent::Extent;

/// The largest fetch, in bytes. One ranged GET of this size amortises a request on every store, and
/// four of them in flight reach what the SDK reaches.
pub const UNIT: u64 = 8 << 20;
/// Offsets and lengths of fetches are whole pages, since the kernel's page cache reads those.
pub const PAGE: u64 = 4096;
/// Objects up to this size are fetched whole by the first read that misses: the request costs more
/// than the bytes.
pub const SMALL_MAX: u64 = 1 << 20;
/// What is fetched beyond the first read at offset 0.
pub const START: u64 = 1 << 20;
/// The same for a run that begins elsewhere and has just been recognised.
const START_WITHIN: u64 = 128 << 10;
/// How far out of order an access of a long run may be.
pub const SLACK: u64 = 4 << 20;
/// How far behind its head a run still takes accesses, and how far behind it unread bytes are kept.
pub const BEHIND: u64 = 8 << 20;
/// Backward runs fetch in pieces of this size, nearest first: bytes arrive in ascending order, so a
/// large piece would bring the ones asked for last.
const BACKWARD_STEP: u64 = 1 << 20;
/// The most that is fetched ahead of a backward run.
const BACKWARD_MAX: u64 = 4 << 20;
/// A run is taken for backward when it has been continued so often.
const BACKWARD_HITS: u64 = 2;
/// Runs that have been recognised, per handle.
const RUNS_MAX: usize = 8;
/// Runs of a single access so far, per handle; every random read makes one.
const PROBES_MAX: usize = 4;
/// A run is over when its handle has made so many accesses elsewhere since.
const IDLE_ACCESSES: u64 = 512;
/// A run is over when its handle has read so many bytes elsewhere since.
const IDLE_BYTES: u64 = 64 << 20;

/// Bounds that may differ from access to access, since memory comes and goes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest fetch, in bytes; [`UNIT`] where there is memory for several.
    pub unit: u64,
    /// How much may be outstanding or unread ahead of one run, in bytes.
    pub ahead_max: u64,
}

/// What to do about one access.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadPlan {
    /// The run that it belongs to, from 1; 0 for none.
    pub run: u64,
    /// How many bytes that run has read so far.
    pub consumed: u64,
    /// What to fetch now, nearest first. It may hold what was asked for.
    pub ahead: Vec<Extent>,
    /// What to fetch if any of what was asked for is not here: at least that.
    pub demand: Extent,
    /// Runs that are over and had readahead; what is unread of it may go.
    pub ended: Vec<u64>,
    /// Bytes of this run before here will hardly be read any more.
    pub behind: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Unknown,
    Forward,
    Backward,
}

#[derive(Debug, Clone)]
struct Run {
    id: u64,
    direction: Direction,
    /// What the accesses span.
    low: u64,
    high: u64,
    /// Whether it began at offset 0.
    from_start: bool,
    /// Bytes read, each counted once.
    consumed: u64,
    /// Bytes of the span that were not read.
    skipped: u64,
    /// How often it was continued.
    hits: u64,
    /// Something was fetched ahead for it.
    ahead: bool,
    /// Where the next fetch begins (forward) or ends (backward).
    frontier: u64,
    /// The handle's count of accesses and bytes at the last one.
    used: (u64, u64),
}

/// The accesses of one open handle.
#[derive(Debug)]
pub struct Pattern {
    size: u64,
    runs: Vec<Run>,
    next_id: u64,
    accesses: u64,
    bytes: u64,
}

fn down(offset: u64, step: u64) -> u64 {
    offset - offset % step
}

fn up(offset: u64, step: u64) -> u64 {
    down(offset.saturating_add(step - 1), step)
}

/// The pages that hold `extent`, within `size`.
pub fn pages(extent: Extent, size: u64) -> Extent {
    Extent::between(down(extent.offset, PAGE), up(extent.end(), PAGE).min(size))
}

impl Run {
    /// How far `extent` is from where this run would go on; `None` if it does not belong to it.
    fn distance(&self, extent: Extent) -> Option<u64> {
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
    fn take(&mut self, extent: Extent) -> u64 {
        let unsure = match self.direction {
            Direction::Forward => false,
            Direction::Backward => self.hits < BACKWARD_HITS,
            Direction::Unknown => true,
        };
        if unsure && extent.end() > self.high {
            // The first of a forward reader's accesses may come out of order too.
            if self.direction == Direction::Backward {
                self.frontier = self.high;
            }
            self.direction = Direction::Forward;
        } else if unsure && extent.offset == 0 && self.low > 0 {
            self.direction = Direction::Forward;
            self.from_start = true;
            self.frontier = 0;
            self.consumed += self.low.min(extent.end());
            self.skipped += self.low.saturating_sub(extent.end());
            self.low = 0;
            return self.high;
        } else if self.direction == Direction::Unknown {
            if extent.offset >= self.low {
                return self.high;
            }
            self.direction = Direction::Backward;
            self.frontier = up(self.low, PAGE);
        }
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

    fn dense(&self) -> bool {
        self.skipped <= self.consumed
    }

    fn sequential(&self) -> bool {
        self.dense()
            && match self.direction {
                Direction::Forward => true,
                Direction::Backward => self.hits >= BACKWARD_HITS,
                Direction::Unknown => self.from_start,
            }
    }

    fn window(&self, limits: Limits) -> u64 {
        let start = if self.from_start { START } else { START_WITHIN };
        let most = match self.direction {
            Direction::Backward => limits.ahead_max.min(BACKWARD_MAX),
            _ => limits.ahead_max,
        };
        self.consumed.saturating_mul(2).max(start).min(most)
    }

    /// What is due to be fetched ahead, given where the head was before this access.
    fn forward(&mut self, extent: Extent, head: u64, size: u64, limits: Limits) -> Vec<Extent> {
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

    fn backward(&mut self, extent: Extent, head: u64, size: u64, limits: Limits) -> Vec<Extent> {
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

impl Pattern {
    /// Of a handle on an object of `size` bytes.
    pub fn new(size: u64) -> Self {
        Self {
            size,
            runs: Vec::new(),
            next_id: 1,
            accesses: 0,
            bytes: 0,
        }
    }

    /// Takes note that `extent` was asked for; it is not empty and lies within the object. Noting
    /// the same access twice in a row changes nothing more.
    pub fn access(&mut self, extent: Extent, limits: Limits) -> ReadPlan {
        self.accesses += 1;
        self.bytes += extent.len;
        let mut plan = ReadPlan {
            run: 0,
            consumed: 0,
            ahead: Vec::new(),
            demand: pages(extent, self.size),
            ended: Vec::new(),
            behind: 0,
        };
        if self.size <= SMALL_MAX {
            plan.demand = Extent::new(0, self.size);
            return plan;
        }
        let found = self
            .runs
            .iter()
            .enumerate()
            .filter_map(|(index, run)| Some((run.distance(extent)?, index)))
            .min();
        let (index, head) = if let Some((_, index)) = found {
            let head = self.runs[index].take(extent);
            (index, head)
        } else {
            self.end_idle(&mut plan.ended);
            (self.begin(extent, &mut plan.ended), extent.offset)
        };
        let size = self.size;
        let run = &mut self.runs[index];
        run.used = (self.accesses, self.bytes);
        plan.run = run.id;
        plan.consumed = run.consumed;
        if !run.sequential() {
            run.frontier = match run.direction {
                Direction::Backward => run.frontier.min(up(run.low, PAGE)),
                _ => run.frontier.max(run.high),
            };
            return plan;
        }
        if run.direction == Direction::Backward {
            plan.ahead = run.backward(extent, head, size, limits);
            run.ahead |= !plan.ahead.is_empty();
            return plan;
        }
        plan.ahead = run.forward(extent, head, size, limits);
        run.ahead |= !plan.ahead.is_empty();
        plan.behind = run.high.saturating_sub(BEHIND);
        // Bytes that were fetched ahead and dropped since are fetched again by more than a page.
        let again = plan.demand.end().max(
            extent
                .offset
                .saturating_add(limits.unit.min(run.window(limits)))
                .min(run.frontier),
        );
        plan.demand = Extent::between(plan.demand.offset, down(again, PAGE).max(plan.demand.end()));
        plan
    }

    /// `extent` of `run`'s last plan, and what came after it in that plan, was not fetched: it
    /// becomes due again.
    pub fn retreat(&mut self, run: u64, extent: Extent) {
        let Some(run) = self.runs.iter_mut().find(|known| known.id == run) else {
            return;
        };
        run.frontier = match run.direction {
            Direction::Backward => run.frontier.max(extent.end()),
            _ => run.frontier.min(extent.offset),
        };
    }

    /// The runs that are under way.
    pub fn runs(&self) -> impl Iterator<Item = u64> {
        self.runs.iter().map(|run| run.id)
    }

    fn end_idle(&mut self, ended: &mut Vec<u64>) {
        let (accesses, bytes) = (self.accesses, self.bytes);
        self.runs.retain(|run| {
            let idle = accesses - run.used.0 > IDLE_ACCESSES || bytes - run.used.1 > IDLE_BYTES;
            if idle && run.ahead {
                ended.push(run.id);
            }
            !idle
        });
    }

    fn begin(&mut self, extent: Extent, ended: &mut Vec<u64>) -> usize {
        let probes = |run: &Run| run.direction == Direction::Unknown && !run.from_start;
        for (probe, most) in [(true, PROBES_MAX), (false, RUNS_MAX)] {
            if self.runs.iter().filter(|run| probes(run) == probe).count() < most {
                continue;
            }
            let oldest = self
                .runs
                .iter()
                .enumerate()
                .filter(|(_, run)| probes(run) == probe)
                .min_by_key(|(_, run)| run.used.0);
            if let Some((index, _)) = oldest {
                let run = self.runs.swap_remove(index);
                ended.extend(run.ahead.then_some(run.id));
            }
        }
        let from_start = extent.offset == 0;
        self.runs.push(Run {
            id: self.next_id,
            direction: Direction::Unknown,
            low: extent.offset,
            high: extent.end(),
            from_start,
            consumed: extent.len,
            skipped: 0,
            hits: 0,
            ahead: false,
            frontier: if from_start { 0 } else { extent.end() },
            used: (self.accesses, self.bytes),
        });
        self.next_id += 1;
        self.runs.len() - 1
    }
}

#[cfg(test)]
mod tests;
