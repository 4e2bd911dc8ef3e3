//! Which stretches of a file are sent, so that the fewest bytes move, and of the ways to move as few
//! the one with the fewest requests.
//!
//! *Runs* must be sent: written bytes and zeros, together with the stretches of the base between
//! them that are too short to be copied. Between two runs lies a *gap*, which can be copied. A
//! *group* is a stretch that is sent: one run, or several with the gaps between them. All that no
//! group holds is copied. A group that is shorter than the smallest part, and does not end the
//! object, is padded with base bytes from the gaps beside it, and of such a gap at least the
//! smallest part must remain. Every valid cut is such a list of groups; padding beyond that length
//! only moves more. So the cheapest list is looked for, from the left to the right.
//!
//! What lies left of a copied gap touches what lies right of it in one way: how many bytes of the
//! gap its last group takes as padding. Padding costs the same on either side, so a group takes as
//! much as it can on the left, which leaves most to the groups that follow. It may take more on the
//! right; that is of use only where the rest of the gap then needs one copy less. So a [`GroupEnd`]
//! knows a range of bytes that its group may take, and of two ends at one gap the dearer is worth
//! remembering only if it can take less.
//!
//! The best list has no group with more than two gaps inside. If there were three, the one in the
//! middle could be copied: either side of it still holds a gap, so neither needs padding, and twice
//! the gap's bytes are saved. So each gap looks back over three runs, and the time is linear in the
//! spans: 200,000 of them take about 20 ms.

use std::ops::RangeInclusive;

use super::sizes::CutSizes;
use super::{FileSpan, PlanCost, SpanOrigin};
use crate::extent::Extent;

/// How many runs a group has at most: two gaps lie between them.
const GROUP_RUNS: usize = 3;

/// How many ends are remembered of one gap at most. Files that are written at random need up to
/// four. Only files made for it, whose runs and gaps are all just too short for their padding, need
/// more, without a bound; there this one costs less than 0.01 % of the bytes that move.
const CHOICES_MAX: usize = 8;

/// The stretches of a file of `size` bytes that are sent in the cheapest cut, in order. The rest of
/// it is copied.
pub(super) fn cheapest(spans: &[FileSpan], size: u64, sizes: &CutSizes) -> Vec<Extent> {
    GroupSearch::new(spans, size, sizes).best()
}

/// A stretch that must be sent.
struct NeededRun {
    extent: Extent,
    /// How many bytes that must be sent lie left of its end. The other bytes of runs are the gaps
    /// that are too short to be copied.
    needed: u64,
}

/// The runs of a file: between any two of them, and before the first unless it begins the file, lie
/// at least `gap_min` bytes of the base.
fn needed_runs(spans: &[FileSpan], gap_min: u64) -> Vec<NeededRun> {
    let mut runs: Vec<NeededRun> = Vec::new();
    let mut needed = 0;
    let written = |span: &&FileSpan| span.origin != SpanOrigin::Base && !span.extent.is_empty();
    for span in spans.iter().filter(written) {
        needed += span.extent.len;
        let before = runs.last().map_or(0, |run| run.extent.end());
        let copied = span.extent.offset - before >= gap_min;
        let start = if copied { span.extent.offset } else { before };
        match runs.last_mut() {
            Some(run) if !copied => {
                run.extent = Extent::between(run.extent.offset, span.extent.end());
                run.needed = needed;
            }
            _ => runs.push(NeededRun {
                extent: Extent::between(start, span.extent.end()),
                needed,
            }),
        }
    }
    runs
}

/// One way to make all that lies left of a gap that is copied (or of the object's end): the last
/// group and what is best before it.
#[derive(Debug, Clone, Copy, Default)]
struct GroupEnd {
    /// Of the groups and the copies between them, not yet of the gap's own.
    cost: PlanCost,
    /// The fewest bytes of the gap that the group may take as padding.
    taken_min: u64,
    /// The most of them at the same cost.
    taken_max: u64,
    /// With how many bytes, left and right together, the group is padded.
    padding: u64,
    /// The group's first run; the gap with the same number lies before it.
    first: usize,
    /// Which of the [`GroupSearch::ends`] is at that gap. `None`: the group begins the object.
    before: Option<usize>,
}

/// The search for the cheapest groups. Gap `n` lies before run `n`, and the last gap behind the last
/// run; the first and the last may be empty.
struct GroupSearch<'a> {
    sizes: &'a CutSizes,
    size: u64,
    runs: Vec<NeededRun>,
    /// What is worth remembering of all gaps so far, in the gaps' order.
    ends: Vec<GroupEnd>,
    /// For each gap, where its own begin in `ends`.
    at_gap: Vec<usize>,
}

impl<'a> GroupSearch<'a> {
    fn new(spans: &[FileSpan], size: u64, sizes: &'a CutSizes) -> Self {
        let runs = needed_runs(spans, sizes.gap_min);
        let mut search = Self {
            sizes,
            size,
            ends: Vec::with_capacity(runs.len() + 1),
            at_gap: Vec::with_capacity(runs.len() + 2),
            runs,
        };
        search.at_gap.push(0);
        if !search.gap(0).is_empty() {
            search.ends.push(GroupEnd::default());
        }
        search.at_gap.push(search.ends.len());
        search
    }

    /// The cheapest groups, in order.
    fn best(mut self) -> Vec<Extent> {
        let last = self.runs.len();
        let mut candidates = Vec::new();
        for gap in 1..=last {
            if !self.gap(gap).is_empty() {
                self.collect(gap, false, &mut candidates);
                self.remember(&mut candidates);
            }
            self.at_gap.push(self.ends.len());
        }
        self.collect(last, true, &mut candidates);
        let end = candidates.into_iter().min_by_key(|end| end.cost);
        let mut groups = self.trace(end.expect("everything can be sent"));
        groups.reverse();
        groups
    }

    /// Which bytes of the base lie in gap `index`.
    fn gap(&self, index: usize) -> Extent {
        let start = match index {
            0 => 0,
            _ => self.runs[index - 1].extent.end(),
        };
        Extent::between(start, self.run_start(index))
    }

    /// Where run `index` begins; the object's end behind the last one.
    fn run_start(&self, index: usize) -> u64 {
        self.runs
            .get(index)
            .map_or(self.size, |run| run.extent.offset)
    }

    /// How many bytes must be sent before run `index`.
    fn needed_before(&self, index: usize) -> u64 {
        index
            .checked_sub(1)
            .map_or(0, |last| self.runs[last].needed)
    }

    /// How many bytes of gap `index` may be taken as padding so that the rest can be copied.
    fn spare(&self, index: usize) -> u64 {
        let ends = index == self.runs.len();
        self.gap(index).len - if ends { 1 } else { self.sizes.gap_min }
    }

    /// How many bytes must be taken of gap `index` so that its copy is one request less, if that
    /// can be.
    fn surplus(&self, index: usize) -> Option<u64> {
        let surplus = self.sizes.copy_tail(self.gap(index).len);
        (surplus <= self.spare(index)).then_some(surplus)
    }

    /// All groups that can be the last one left of `gap`, or the one that ends the object. Of those
    /// one has no runs: it stands for a last gap that is copied.
    fn collect(&self, gap: usize, ends: bool, candidates: &mut Vec<GroupEnd>) {
        for first in gap.saturating_sub(GROUP_RUNS)..gap + usize::from(ends) {
            if first == 0 {
                candidates.extend(self.group(first, None, gap, ends));
            }
            for before in self.at_gap[first]..self.at_gap[first + 1] {
                candidates.extend(self.group(first, Some(before), gap, ends));
            }
        }
    }

    /// The group of the runs from `first` up to `gap`, or to the object's end, after `before`.
    /// `None` if it cannot be padded so far.
    fn group(
        &self,
        first: usize,
        before: Option<usize>,
        gap: usize,
        ends: bool,
    ) -> Option<GroupEnd> {
        let start = before.map_or(0, |_| self.run_start(first));
        let end = if ends {
            self.size
        } else {
            self.gap(gap).offset
        };
        let (padding, spare) = if ends {
            (0, 0)
        } else {
            let padding = self.sizes.part_min.saturating_sub(end - start);
            (padding, self.spare(gap))
        };
        let len = end - start + padding;
        let (cost, left) = self.up_to(first, before, padding);
        let taken_min = padding - left.end();
        (taken_min <= spare).then(|| GroupEnd {
            cost: PlanCost {
                moved: cost.moved + 2 * len - (self.needed_before(gap) - self.needed_before(first)),
                requests: cost.requests + self.sizes.sends(len, ends),
            },
            taken_min,
            taken_max: (padding - left.start()).min(spare),
            padding,
            first,
            before,
        })
    }

    /// What lies left of a group that begins with run `first` and needs `padding`: what it costs, gap
    /// included, and how many bytes of the gap the group can take at that cost, at least and at most.
    fn up_to(
        &self,
        first: usize,
        before: Option<usize>,
        padding: u64,
    ) -> (PlanCost, RangeInclusive<u64>) {
        let Some(before) = before.map(|index| &self.ends[index]) else {
            return (PlanCost::default(), 0..=0);
        };
        let most = padding.min(self.spare(first) - before.taken_min);
        // At the most one request is saved, for less than a copy's bytes are taken.
        let saves = self
            .surplus(first)
            .filter(|surplus| *surplus <= before.taken_max + most);
        let cost = PlanCost {
            requests: before.cost.requests + self.sizes.copies(self.gap(first).len)
                - u64::from(saves.is_some()),
            ..before.cost
        };
        let least = saves.map_or(0, |surplus| surplus.saturating_sub(before.taken_max));
        (cost, least..=most)
    }

    /// Keeps those of the `candidates` for which there is none that takes no more of the gap and is
    /// cheaper, or as cheap and free to take as much. To take more saves one request at the most,
    /// so a cheaper one without that freedom is no worse.
    fn remember(&mut self, candidates: &mut Vec<GroupEnd>) {
        candidates.sort_by_key(|end| (end.taken_min, end.cost, u64::MAX - end.taken_max));
        let first = self.ends.len();
        for end in candidates.drain(..) {
            let worth = self.ends[first..].last().is_none_or(|best| {
                end.cost < best.cost || end.cost == best.cost && end.taken_max > best.taken_max
            });
            if worth && self.ends.len() - first == CHOICES_MAX {
                // The first takes least, so that one stays possible to the end of the chain.
                self.ends.remove(first + 1);
            }
            if worth {
                self.ends.push(end);
            }
        }
    }

    /// The groups that lead to `end`, which ends the object, the last of them first. Padding goes to
    /// the right as little as the costs that were counted allow.
    fn trace(&self, mut end: GroupEnd) -> Vec<Extent> {
        let mut groups = Vec::new();
        let mut stop = self.size;
        let mut taken = 0;
        loop {
            let left = end.padding - taken;
            let start = end.before.map_or(0, |_| self.run_start(end.first) - left);
            if start < stop {
                groups.push(Extent::between(start, stop));
            }
            let Some(before) = end.before.filter(|_| end.first > 0) else {
                return groups;
            };
            let before = self.ends[before];
            taken = self
                .surplus(end.first)
                .filter(|surplus| *surplus <= before.taken_max + left)
                .map_or(0, |surplus| surplus.saturating_sub(left))
                .max(before.taken_min);
            stop = self.gap(end.first).offset + taken;
            end = before;
        }
    }
}
