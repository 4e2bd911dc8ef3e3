//! How a file's bytes become an object: one PutObject, or a multipart upload, and of which parts.
//! This file decides and computes; it sends nothing. `publish` and `early` send.
//!
//! S3 takes 10,000 parts of 5 MiB to 5 GiB and an object of 5 TiB. A writer that uploads while it
//! writes does not know the size that the object will have, so its parts follow a [`Ladder`]:
//!
//! ```text
//! numbers 1..=5000        the configured part size P (8 MiB: the first 39 GiB)
//! then 400 numbers each   2P, 4P, 8P, ... but never above 5 GiB
//! ```
//!
//! The first half is equal because some stores (R2) want equal parts, and because every ordinary
//! object ends there. The second half doubles often enough to reach 5 TiB from any P that S3
//! allows. Where the size is known before the first part is sent, all parts are equal instead.
//!
//! A part whose staged bytes fit what is set aside to read them back is a whole body in memory when
//! it is sent. Past the first half parts outgrow that sooner or later; of those the staged bytes are
//! read while they are sent, so memory does not follow from S3's limits.

use std::collections::BTreeSet;

use crate::extent::Extent;

mod attempt;
mod body;
mod early;
pub mod lost;
pub(crate) mod parts;
mod publish;

/// What the store takes. A struct, so that tests can shrink it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The smallest part but for the last, in bytes.
    pub part_min: u64,
    /// The largest part, in bytes.
    pub part_max: u64,
    /// The largest part number.
    pub parts_max: u32,
    /// The largest object, in bytes.
    pub object_max: u64,
}

impl Limits {
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
pub struct Ladder {
    first: u64,
    part_max: u64,
    /// How many parts have the first size.
    equal: u32,
    /// How many parts each further step has; 0 if there is none.
    step: u32,
    parts_max: u32,
}

impl Ladder {
    /// For an object whose size is not known: equal parts, then growing ones.
    pub fn growing(part_size: u64, limits: &Limits) -> Self {
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
    pub fn equal(size: u64, part_size: u64, limits: &Limits) -> Option<Self> {
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

/// What a publish sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// The whole object in one request.
    Put,
    /// A multipart upload.
    Multipart {
        /// How its parts are cut.
        ladder: Ladder,
        /// All parts in order.
        parts: Vec<PlannedPart>,
    },
}

/// One part of a [`Plan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedPart {
    /// From 1.
    pub number: u32,
    /// The object's bytes that it holds.
    pub extent: Extent,
    /// Whether the store has it already, as it is now.
    pub sent: bool,
}

/// An upload that was begun before: how it is cut, and which parts the store has with their sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// How it is cut.
    pub ladder: Ladder,
    /// Number and size in bytes of each part that is there and not dirtied since.
    pub sent: BTreeSet<(u32, u64)>,
}

/// What to send so that the store holds an object of `size` bytes. `None` if it takes none so
/// large. Objects of up to `put_max` bytes are sent whole; larger ones, and those whose upload has
/// `begun`, in parts. An upload that cannot hold `size` is not gone on with.
pub fn plan(
    size: u64,
    put_max: u64,
    part_size: u64,
    limits: &Limits,
    begun: Option<&Begun>,
) -> Option<Plan> {
    if size > limits.object_max {
        return None;
    }
    if size <= put_max {
        return Some(Plan::Put);
    }
    let begun = begun.filter(|begun| size <= begun.ladder.reach());
    let ladder = match begun {
        Some(begun) => begun.ladder,
        None => Ladder::equal(size, part_size, limits)?,
    };
    let parts = (1..=ladder.number_at(size - 1))
        .map(|number| {
            let whole = ladder.part(number);
            let extent = Extent::between(whole.offset, whole.end().min(size));
            PlannedPart {
                number,
                extent,
                sent: begun.is_some_and(|begun| begun.sent.contains(&(number, extent.len))),
            }
        })
        .collect();
    Some(Plan::Multipart { ladder, parts })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(size: u64, part_size: u64, limits: &Limits, begun: Option<&Begun>) {
        let plan = plan(size, limits.part_min, part_size, limits, begun).unwrap();
        let Plan::Multipart { parts, .. } = plan else {
            assert!(size <= limits.part_min);
            return;
        };
        let mut at = 0;
        for (index, part) in parts.iter().enumerate() {
            assert_eq!(part.number as usize, index + 1);
            assert_eq!(part.extent.offset, at);
            assert!(part.extent.len > 0 && part.extent.len <= limits.part_max);
            if index + 1 < parts.len() {
                assert!(part.extent.len >= limits.part_min);
            }
            at = part.extent.end();
        }
        assert_eq!(at, size);
        assert!(parts.len() <= limits.parts_max as usize);
    }

    proptest! {
        /// Every byte is in exactly one part, in order; S3's limits hold for every size that S3
        /// takes and for every part size, whether the upload was begun early or not.
        #[test]
        fn parts_cover_every_byte_once_within_the_limits(
            size in prop_oneof![0..=64u64 << 20, 0..=5u64 << 40],
            part_size in prop_oneof![0..=64u64 << 20, 0..=8u64 << 30],
            early in any::<bool>(),
        ) {
            let begun = Begun {
                ladder: Ladder::growing(part_size, &Limits::S3),
                sent: BTreeSet::new(),
            };
            check(size, part_size, &Limits::S3, early.then_some(&begun));
        }

        /// The two directions of the ladder agree.
        #[test]
        fn number_at_finds_the_part(offset in 0..5u64 << 40, part_size in 5u64 << 20..=64 << 20) {
            let ladder = Ladder::growing(part_size, &Limits::S3);
            let number = ladder.number_at(offset);
            prop_assert!(ladder.part(number).contains(Extent::new(offset, 1)));
        }
    }

    #[test]
    fn the_ladder_reaches_the_largest_object_from_any_part_size() {
        for mib in 5..=64 {
            let ladder = Ladder::growing(mib << 20, &Limits::S3);
            assert!(ladder.reach() >= Limits::S3.object_max, "{mib} MiB");
        }
    }

    #[test]
    fn the_first_five_thousand_parts_are_equal() {
        let ladder = Ladder::growing(8 << 20, &Limits::S3);
        assert!((1..=5000).all(|number| ladder.part(number).len == 8 << 20));
        assert_eq!(ladder.part(5001).len, 16 << 20);
        assert_eq!(ladder.number_at(u64::MAX), 10_001);
    }

    #[test]
    fn a_part_whose_size_differs_is_sent_again() {
        let limits = Limits {
            part_min: 4,
            part_max: 100,
            parts_max: 10,
            object_max: 1000,
        };
        let begun = Begun {
            ladder: Ladder::growing(4, &limits),
            sent: BTreeSet::from([(1, 4), (2, 3)]),
        };
        let Some(Plan::Multipart { parts, .. }) = plan(10, 4, 4, &limits, Some(&begun)) else {
            panic!("not in parts");
        };
        let sent: Vec<bool> = parts.iter().map(|part| part.sent).collect();
        assert_eq!(sent, [true, false, false]);
    }

    #[test]
    fn an_object_past_the_limit_has_no_plan() {
        assert!(plan((5 << 40) + 1, 0, 8 << 20, &Limits::S3, None).is_none());
    }
}
