//! What the disk cache may take, and how much has to make way for what comes. Pure: the writer asks,
//! acts, and tells what it did.
//!
//! Four bounds are kept before bytes are written: the cache's own size, the filesystem's last free bytes
//! (the *floor*, which is left to others), and the numbers of objects and of extents that memory has
//! to know. Where others have to go, the answer is a [`Shortfall`], and [`crate::evict`] chooses them.
//! What is given back is counted when the writer says so, which is after the disk has it.

use super::extents::Usage;
use crate::disk::FilesystemSpace;
use crate::evict::{Candidate, Eviction, Measure, choose};

/// Free bytes that the cache leaves to others on its filesystem: this, or a twentieth of it if that is
/// less.
const FLOOR: u64 = 1 << 30;

/// Bytes written between two looks at the filesystem, at most.
const LOOK_EVERY: u64 = 256 << 20;

/// Memory for the record of an object and of an extent, in bytes.
const OBJECT_RECORD: u64 = 400;
const EXTENT_RECORD: u64 = 24;

/// See the module.
#[derive(Debug)]
pub(crate) struct Space {
    size_max: u64,
    objects_max: usize,
    extents_max: usize,
    used: Usage,
    /// Bytes that may be written before the filesystem is looked at again.
    allowance: u64,
}

/// How much others have to give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shortfall {
    measure: Measure,
    /// Without so much it makes no sense.
    least: u64,
    /// A little more, so that not every write has to look for victims.
    wanted: u64,
}

impl Shortfall {
    fn of_bytes(least: u64, wanted: u64) -> Self {
        Self {
            measure: Measure::Bytes,
            least,
            wanted,
        }
    }

    /// Who goes. `None` if there are not enough who may.
    pub(crate) fn choose(&self, candidates: &[Candidate]) -> Option<Eviction> {
        choose(candidates, self.measure, self.wanted)
            .or_else(|| choose(candidates, self.measure, self.least))
    }
}

impl Space {
    /// At most `size_max` bytes on disk, and records that take at most `memory` bytes: half of that
    /// for objects, half for extents. `used` is there already.
    pub(crate) fn new(size_max: u64, memory: u64, used: Usage) -> Self {
        Self {
            size_max,
            objects_max: ((memory / 2 / OBJECT_RECORD) as usize).max(1),
            extents_max: ((memory / 2 / EXTENT_RECORD) as usize).max(1),
            used,
            allowance: 0,
        }
    }

    /// What the cache takes.
    pub(crate) fn used(&self) -> Usage {
        self.used
    }

    /// An object's usage changed from `before` to `after`.
    pub(crate) fn account(&mut self, before: Usage, after: Usage) {
        debug_assert!(self.used.bytes >= before.bytes && self.used.extents >= before.extents);
        self.used.bytes = self.used.bytes - before.bytes + after.bytes;
        self.used.extents = self.used.extents - before.extents + after.extents;
    }

    /// Whether an object of `size` bytes that takes `charged` may take `need` more. One that does not
    /// fit into the cache would push out everything and then itself, so it gets half.
    pub(crate) fn admits(&self, need: u64, charged: u64, size: u64) -> bool {
        let share = if size > self.size_max {
            self.size_max / 2
        } else {
            self.size_max
        };
        charged + need <= share
    }

    /// What has to go before `need` bytes fit into the cache's size.
    pub(crate) fn beyond_size(&self, need: u64) -> Option<Shortfall> {
        let over = (self.used.bytes + need).saturating_sub(self.size_max);
        (over > 0).then(|| Shortfall::of_bytes(over, over + self.size_max / 64))
    }

    /// What has to go because the cache was made smaller since it was filled.
    pub(crate) fn beyond_new_size(&self) -> Option<Shortfall> {
        let over = self.used.bytes.saturating_sub(self.size_max);
        (over > 0).then(|| Shortfall::of_bytes(over, over))
    }

    /// What has to go before another of `objects` objects can be known.
    pub(crate) fn beyond_objects(&self, objects: usize) -> Option<Shortfall> {
        let share = objects.div_ceil(32) as u64;
        (objects >= self.objects_max).then_some(Shortfall {
            measure: Measure::Objects,
            least: share,
            wanted: share,
        })
    }

    /// What has to go before more extents can be known.
    pub(crate) fn beyond_extents(&self) -> Option<Shortfall> {
        let over = (self.used.extents + 1).saturating_sub(self.extents_max) as u64;
        (over > 0).then(|| Shortfall {
            measure: Measure::Extents,
            least: over,
            wanted: over + (self.extents_max / 16) as u64,
        })
    }

    /// Takes `need` bytes from what the last look at the filesystem allowed. False if it is time for
    /// another.
    pub(crate) fn take_allowance(&mut self, need: u64) -> bool {
        let rest = self.allowance.checked_sub(need);
        self.allowance = rest.unwrap_or(self.allowance);
        rest.is_some()
    }

    /// What has to go before `need` bytes leave the floor alone, by a look at the filesystem.
    pub(crate) fn beyond_floor(&mut self, need: u64, look: FilesystemSpace) -> Option<Shortfall> {
        let floor = FLOOR.min(look.total / 20);
        let short = (floor + need).saturating_sub(look.free);
        if short > 0 {
            return Some(Shortfall::of_bytes(need.min(short), short));
        }
        self.allowance = ((look.free - floor - need) / 2).min(LOOK_EVERY);
        None
    }

    /// What has to go before a disk takes `need` bytes that said it is full, although it seemed to
    /// have room: somebody else was faster, or there is a quota.
    pub(crate) fn beyond_disk(&mut self, need: u64) -> Shortfall {
        self.allowance = 0;
        Shortfall::of_bytes(need, need + self.size_max / 64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn usage(bytes: u64, extents: usize) -> Usage {
        Usage { bytes, extents }
    }

    #[test]
    fn what_is_beyond_the_size_has_to_go_and_a_little_more_if_it_can() {
        let space = Space::new(64 * MIB, MIB, usage(60 * MIB, 1));
        assert_eq!(space.beyond_size(4 * MIB), None);
        let shortfall = space.beyond_size(5 * MIB).unwrap();
        assert_eq!((shortfall.least, shortfall.wanted), (MIB, 2 * MIB));
        let candidate = |bytes| Candidate {
            bytes,
            extents: 1,
            last_used: bytes,
            used_again: false,
            pinned: false,
        };
        let victims = |bytes: &[u64]| {
            let candidates: Vec<Candidate> = bytes.iter().copied().map(candidate).collect();
            shortfall
                .choose(&candidates)
                .map(|eviction| eviction.victims)
        };
        assert_eq!(victims(&[MIB, MIB + 1]), Some(vec![0, 1]));
        assert_eq!(victims(&[MIB]), Some(vec![0]), "the least will do");
        assert_eq!(victims(&[MIB - 1]), None);
    }

    #[test]
    fn an_object_larger_than_the_cache_gets_half_of_it() {
        let space = Space::new(64 * MIB, MIB, Usage::default());
        assert!(space.admits(MIB, 63 * MIB, 64 * MIB));
        assert!(!space.admits(MIB + 1, 63 * MIB, 64 * MIB));
        assert!(space.admits(MIB, 31 * MIB, 65 * MIB));
        assert!(!space.admits(MIB + 1, 31 * MIB, 65 * MIB));
    }

    #[test]
    fn records_are_bounded_by_the_memory_for_them() {
        let memory = 2 * 32 * OBJECT_RECORD;
        let mut space = Space::new(MIB, memory, Usage::default());
        assert_eq!(space.beyond_objects(31), None);
        assert_eq!(space.beyond_objects(32).unwrap().wanted, 1);
        let extents_max = (memory / 2 / EXTENT_RECORD) as usize;
        space.account(usage(0, 0), usage(0, extents_max - 1));
        assert_eq!(space.beyond_extents(), None);
        space.account(usage(0, 0), usage(0, 1));
        assert_eq!(space.beyond_extents().unwrap().least, 1);
        space.account(usage(0, 1), usage(0, 0));
        assert_eq!(space.beyond_extents(), None);
    }

    #[test]
    fn the_floor_is_left_to_others_and_the_filesystem_is_seldom_looked_at() {
        let mut space = Space::new(1 << 40, MIB, Usage::default());
        assert!(!space.take_allowance(1), "nothing is known at first");
        let look = |free| FilesystemSpace {
            free,
            total: 100 << 30,
        };
        let shortfall = space.beyond_floor(MIB, look(FLOOR)).unwrap();
        assert_eq!(shortfall.least, MIB);
        assert_eq!(space.beyond_floor(MIB, look(FLOOR + 3 * MIB)), None);
        assert!(space.take_allowance(MIB));
        assert!(
            !space.take_allowance(1),
            "half of what is free may be others'"
        );
        assert_eq!(space.beyond_floor(MIB, look(50 << 30)), None);
        assert!(space.take_allowance(LOOK_EVERY));
        assert_eq!(space.beyond_floor(MIB, look(50 << 30)), None);
        space.beyond_disk(MIB);
        assert!(!space.take_allowance(1));
    }
}
