//! How an object is cut into the parts of a multipart upload. Pure: nothing is sent from here.
//!
//! S3 takes 10,000 parts of 5 MiB to 5 GiB and an object of 5 TiB. A writer that uploads while it
//! writes does not know the size that the object will have, so its parts follow a [`PartLayout`]:
//!
//! ```text
//! numbers 1..=5000        the configured part size P (8 MiB: the first 39 GiB)
//! then 400 numbers each   2P, 4P, 8P, ... but never above 5 GiB
//! ```
//!
//! The first half is equal because some stores (R2) want equal parts, and because every ordinary
//! object ends there. The second half doubles often enough to reach 5 TiB from any P that S3
//! allows. Where the size is known before the first part is sent, [`crate::plan`] cuts the object.
//!
//! `upload` says which parts the store has; `early` says which one a sequential writer has left
//! behind.

use std::collections::BTreeMap;

use crate::extent::Extent;

pub(crate) mod early;
pub(crate) mod upload;

/// What the store takes. A struct, so that tests can shrink it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreLimits {
    /// The smallest part but for the last, in bytes.
    pub part_min: u64,
    /// The largest part, in bytes.
    pub part_max: u64,
    /// The largest part number.
    pub parts_max: u32,
    /// The largest object, in bytes.
    pub object_max: u64,
}

impl StoreLimits {
    /// S3's own (S3 user guide, "Amazon S3 multipart upload limits").
    pub const S3: Self = Self {
        part_min: 5 << 20,
        part_max: 5 << 30,
        parts_max: 10_000,
        object_max: 5 << 40,
    };

    /// The part size nearest to `wanted` that the store takes.
    pub fn part_size(&self, wanted: u64) -> u64 {
        wanted.clamp(self.part_min, self.part_max)
    }
}

/// Where each part of one upload begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartLayout {
    first: u64,
    part_max: u64,
    /// How many parts have the first size.
    equal: u32,
    /// How many parts each further step has; 0 if there is none.
    step: u32,
    parts_max: u32,
}

impl PartLayout {
    /// For an object whose size is not known: equal parts, then growing ones.
    pub fn growing(part_size: u64, limits: &StoreLimits) -> Self {
        Self {
            first: limits.part_size(part_size),
            part_max: limits.part_max,
            equal: (limits.parts_max / 2).max(1),
            step: (limits.parts_max / 25).max(1),
            parts_max: limits.parts_max,
        }
    }

    /// For an object of `size` bytes: equal parts, larger than `part_size` only if that many
    /// would be too many. `None` if the store does not take such an object.
    pub fn equal(size: u64, part_size: u64, limits: &StoreLimits) -> Option<Self> {
        let least = size.div_ceil(u64::from(limits.parts_max));
        // In whole MiB, so that equal objects are cut alike and buffers are not straddled.
        let rounded = least.next_multiple_of(1 << 20).min(limits.part_max);
        let wanted = limits.part_size(part_size);
        let first = if least <= wanted { wanted } else { rounded };
        (size <= limits.object_max && first >= least).then_some(Self {
            first,
            part_max: limits.part_max,
            equal: limits.parts_max,
            step: 0,
            parts_max: limits.parts_max,
        })
    }

    /// The size of the first part, in bytes.
    pub fn first_size(&self) -> u64 {
        self.first
    }

    /// The steps of the ladder: the first number, how many, the size of each.
    fn steps(&self) -> impl Iterator<Item = (u32, u32, u64)> {
        let (first, part_max, step, parts_max) =
            (self.first, self.part_max, self.step, self.parts_max);
        let mut next = 1;
        let mut size = first;
        let mut count = self.equal;
        std::iter::from_fn(move || {
            let here = (next, count.min((parts_max + 1).saturating_sub(next)), size);
            if here.1 == 0 {
                return None;
            }
            next += here.1;
            count = step;
            size = size.saturating_mul(2).min(part_max);
            Some(here)
        })
    }

    /// The extent of part `number` (from 1); empty past the last number.
    pub fn part(&self, number: u32) -> Extent {
        let mut offset = 0;
        for (first, count, size) in self.steps() {
            if number < first + count {
                return Extent::new(offset + u64::from(number - first) * size, size);
            }
            offset += u64::from(count) * size;
        }
        Extent::new(offset, 0)
    }

    /// The number of the part that holds `offset`; one past the last number if none does.
    pub fn number_at(&self, offset: u64) -> u32 {
        let mut start = 0;
        for (first, count, size) in self.steps() {
            let end = start + u64::from(count) * size;
            if offset < end {
                return first + ((offset - start) / size) as u32;
            }
            start = end;
        }
        self.parts_max + 1
    }

    /// The largest object that these parts can make, in bytes.
    pub fn reach(&self) -> u64 {
        self.steps()
            .map(|(_, count, size)| u64::from(count) * size)
            .sum()
    }
}

/// An upload that was begun before: how it is cut, and which parts the store has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BegunUpload {
    /// How it was cut while the size was not known.
    pub layout: PartLayout,
    /// By number, the extent of each part that is there and was not dirtied since.
    pub sent: BTreeMap<u32, Extent>,
}
