//! How far to read beyond what was asked. Pure: it sees offsets and gives extents; it knows no
//! store, no memory, no clock.
//!
//! A [`Pattern`] belongs to one open handle and watches its accesses. Accesses that continue one
//! another form a *run*; a handle may have several (two threads, or one program that reads the head
//! and the tail of a file in turn). A run that begins at offset 0 is taken for sequential at once,
//! any other after its second access, a backward one after its third. What a run may have
//! outstanding ahead of its reader (its *window*) is twice what it has read so far, at least
//! a mebibyte or a small first step, at most [`ReadaheadLimits::ahead_max`]: that much is fetched in vain
//! if the reader stops. The next fetch is due when half a window, or a whole unit, has
//! room again, so that a steady reader never runs dry.
//!
//! The kernel sends its readahead as several READs at once and from two threads, so a run takes
//! accesses that are out of order by as much as it has read itself, up to 4 MiB. What is skipped
//! is counted: a run that skips more than it reads (strides, random reads that happen to be near)
//! gets no readahead, and each of its reads fetches exactly its own pages.

use crate::extent::Extent;

mod limits;
mod run;
#[cfg(test)]
mod tests;

use limits::{BEHIND, PAGE, down};
pub use limits::{ReadaheadLimits, SMALL_MAX, UNIT, pages};
use run::{AccessRun, Direction};

/// Runs that have been recognised, per handle.
const RUNS_MAX: usize = 8;
/// Runs of a single access so far, per handle; every random read makes one.
const PROBES_MAX: usize = 4;
/// A run is over when its handle has made so many accesses elsewhere since.
const IDLE_ACCESSES: u64 = 512;
/// A run is over when its handle has read so many bytes elsewhere since.
const IDLE_BYTES: u64 = 64 << 20;

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

/// The accesses of one open handle.
#[derive(Debug)]
pub struct Pattern {
    size: u64,
    runs: Vec<AccessRun>,
    next_id: u64,
    accesses: u64,
    bytes: u64,
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

    /// Notes that `extent` was asked for; it is not empty and lies within the object. Noting an access
    /// again, as a read does that found nothing and then waits, takes its run no further.
    pub fn access(&mut self, extent: Extent, limits: ReadaheadLimits) -> ReadPlan {
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
        let (index, head) = self.find_or_begin(extent, &mut plan.ended);
        let run = &mut self.runs[index];
        run.used = (self.accesses, self.bytes);
        plan.run = run.id;
        plan.consumed = run.consumed;
        if !run.is_sequential() {
            run.pass();
            return plan;
        }
        plan.ahead = run.due(extent, head, self.size, limits);
        if run.direction != Direction::Backward {
            plan.behind = run.high.saturating_sub(BEHIND);
            // Bytes that were fetched ahead and dropped since are fetched again by more than a page.
            let again = extent
                .offset
                .saturating_add(limits.unit.min(run.window(limits)))
                .min(run.frontier);
            let end = down(again, PAGE).max(plan.demand.end());
            plan.demand = Extent::between(plan.demand.offset, end);
        }
        plan
    }

    /// The run that `extent` continues most closely, or a new one, and where its head was before. Runs
    /// that end for it and had readahead are added to `ended`.
    fn find_or_begin(&mut self, extent: Extent, ended: &mut Vec<u64>) -> (usize, u64) {
        let runs = self.runs.iter().enumerate();
        let nearest = runs
            .filter_map(|(index, run)| Some((run.distance(extent)?, index)))
            .min();
        if let Some((_, index)) = nearest {
            return (index, self.runs[index].take(extent));
        }
        self.end_idle(ended);
        (self.begin(extent, ended), extent.offset)
    }

    /// `extent` of `run`'s last plan, and what came after it in that plan, was not fetched: it
    /// becomes due again.
    pub fn retreat(&mut self, run: u64, extent: Extent) {
        if let Some(run) = self.runs.iter_mut().find(|known| known.id == run) {
            run.retreat(extent);
        }
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
        let probes = |run: &AccessRun| run.direction == Direction::Unknown && !run.from_start;
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
        let used = (self.accesses, self.bytes);
        self.runs.push(AccessRun::new(self.next_id, extent, used));
        self.next_id += 1;
        self.runs.len() - 1
    }
}
