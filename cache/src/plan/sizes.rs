//! How long the parts of a fresh cut are, and an object cut into parts of these sizes.
//!
//! Stretches that are sent have parts of one size from their start on, so that a file that is all
//! written is cut into equal parts. Stretches that are copied have nearly equal parts, because the
//! smallest part is the bound there. Where the changes are so scattered that there would be too
//! many parts, all sizes are doubled until there are not: then fewer gaps are long enough to be
//! copied.

use super::{PartStep, PlanRequest, PlannedPart};
use crate::extent::Extent;
use crate::parts::{PartLayout, StoreLimits};

/// How long the pieces of an object are.
pub(super) struct CutSizes {
    /// No part but the last is shorter.
    pub(super) part_min: u64,
    /// No part is longer.
    part_max: u64,
    /// Shorter gaps are sent, not copied. The smallest part; more if there are too many parts.
    pub(super) gap_min: u64,
    /// How long parts are that are sent.
    send: u64,
    /// No copy is longer.
    copy_max: u64,
}

impl CutSizes {
    /// The sizes that are tried first. An object that is all sent, or all copied, has not too many
    /// parts of these.
    pub(super) fn first(request: &PlanRequest<'_>, layout: &PartLayout) -> Self {
        let StoreLimits {
            part_min,
            part_max,
            parts_max,
            ..
        } = *request.limits;
        // Copies take at most half of the numbers. They have room for two of the smallest parts, so
        // that no piece of what is longer than one copy is shorter than the smallest part.
        let half = request.size.div_ceil(u64::from(parts_max)) * 2;
        Self {
            part_min,
            part_max,
            gap_min: part_min,
            send: layout.first_size(),
            copy_max: request.copy_max.max(half).max(2 * part_min).min(part_max),
        }
    }

    /// What is tried next if there were too many parts.
    pub(super) fn doubled(self, limits: &StoreLimits) -> Self {
        Self {
            gap_min: self.gap_min * 2,
            send: limits.part_size(self.send * 2),
            copy_max: limits.part_size(self.copy_max * 2),
            ..self
        }
    }

    /// In how many requests `len` bytes are copied.
    pub(super) fn copies(&self, len: u64) -> u64 {
        len.div_ceil(self.copy_max)
    }

    /// By how many bytes `len` would have to be less to be copied in one request less.
    pub(super) fn copy_tail(&self, len: u64) -> u64 {
        len - (self.copies(len) - 1) * self.copy_max
    }

    /// In how many parts a group of `len` bytes is sent. What is too short at its end joins the
    /// part before it, unless it `ends` the object.
    pub(super) fn sends(&self, len: u64, ends: bool) -> u64 {
        let tail = len % self.send;
        let joins = !ends
            && len > self.send
            && (1..self.part_min).contains(&tail)
            && self.send + tail <= self.part_max;
        len.div_ceil(self.send) - u64::from(joins)
    }

    /// The parts of an object in which `groups` are sent and all else is copied.
    pub(super) fn cut(&self, size: u64, groups: &[Extent]) -> Vec<PlannedPart> {
        let mut parts = Vec::new();
        let mut copied_from = 0;
        for group in groups {
            self.push_copies(&mut parts, Extent::between(copied_from, group.offset));
            self.push_sends(&mut parts, *group, group.end() == size);
            copied_from = group.end();
        }
        self.push_copies(&mut parts, Extent::between(copied_from, size));
        parts
    }

    /// `extent` in copies that are nearly equal.
    fn push_copies(&self, parts: &mut Vec<PlannedPart>, extent: Extent) {
        let count = self.copies(extent.len);
        let start = |index: u64| extent.offset + extent.len * index / count;
        push_parts(parts, PartStep::Copy, count, extent.end(), start);
    }

    /// `extent` in parts of the same size but for the last one, or the last two.
    fn push_sends(&self, parts: &mut Vec<PlannedPart>, extent: Extent, ends: bool) {
        let count = self.sends(extent.len, ends);
        // A last part that is too short, and too long together with its neighbour, takes of that.
        let least = if ends { 1 } else { self.part_min };
        let last = extent.end() - least.min(extent.len);
        let start = |index: u64| (extent.offset + index * self.send).min(last);
        push_parts(parts, PartStep::Send, count, extent.end(), start);
    }
}

/// Adds `count` parts that begin where `start` says, the last of which ends at `end`.
fn push_parts(
    parts: &mut Vec<PlannedPart>,
    step: PartStep,
    count: u64,
    end: u64,
    start: impl Fn(u64) -> u64,
) {
    for index in 0..count {
        let until = if index + 1 < count {
            start(index + 1)
        } else {
            end
        };
        parts.push(PlannedPart {
            number: parts.len() as u32 + 1,
            extent: Extent::between(start(index), until),
            step,
        });
    }
}
