//! Making room: the cache's own size, the filesystem's last free bytes, and the number of objects
//! and extents that memory has to know. All are kept before bytes are written, by evicting what
//! [`crate::evict`] chooses; where nothing can go, the bytes are not stored.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::object::Object;
use super::writer::{Keeper, Refused};
use crate::disk::wait::block_on;
use crate::evict::{Candidate, choose};

/// Free bytes that the cache leaves to others on its filesystem: this, or a twentieth if that is
/// less.
const FLOOR: u64 = 1 << 30;

/// Bytes written between two looks at the filesystem, at most.
const LOOK_EVERY: u64 = 256 << 20;

/// What is known of the room on the filesystem.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// Bytes that may be written before the next look.
    allowance: u64,
    /// Extents held, counted anew from time to time.
    extents: usize,
    /// Stores since they were counted.
    since_counted: usize,
}

impl Keeper {
    /// Makes room for `need` bytes of `object`, which itself stays.
    pub(super) fn make_room(&mut self, need: u64, object: &Arc<Object>) -> Result<(), Refused> {
        let size_max = self.shared.size_max;
        // An object that does not fit would push out everything and then itself.
        let share = if object.size > size_max {
            size_max / 2
        } else {
            size_max
        };
        if object.content.read().held.charged() + need > share {
            return Err(Refused::NoRoom);
        }
        self.bound_counts(object);
        let used = self.shared.counters.used.load(Ordering::Relaxed);
        let over = (used + need).saturating_sub(size_max);
        // A little more than needed, so that not every store has to look for victims.
        if over > 0
            && !self.evict(over + size_max / 64, Some(object))
            && !self.evict(over, Some(object))
        {
            return Err(Refused::NoRoom);
        }
        self.leave_the_floor(need, object)
    }

    /// The disk said that it is full although it seemed to have room: somebody else was faster, or
    /// there is a quota.
    pub(super) fn make_room_on_full_disk(
        &mut self,
        need: u64,
        object: &Arc<Object>,
    ) -> Result<(), Refused> {
        self.room.allowance = 0;
        if self.evict(need + self.shared.size_max / 64, Some(object))
            || self.evict(need, Some(object))
        {
            return Ok(());
        }
        Err(Refused::Full)
    }

    fn leave_the_floor(&mut self, need: u64, object: &Arc<Object>) -> Result<(), Refused> {
        if self.room.allowance >= need {
            self.room.allowance -= need;
            return Ok(());
        }
        let Ok(room) = block_on(self.shared.disk.room(&self.shared.objects)) else {
            // Nothing is known; the write will tell.
            return Ok(());
        };
        let floor = FLOOR.min(room.total / 20);
        let short = (floor + need).saturating_sub(room.free);
        if short == 0 {
            let spare = (room.free - floor - need) / 2;
            self.room.allowance = spare.min(LOOK_EVERY);
            return Ok(());
        }
        if self.evict(short, Some(object)) || self.evict(need, Some(object)) {
            return Ok(());
        }
        Err(Refused::Full)
    }

    /// Evicts at least `need` bytes of others than `kept`. False, and nothing goes, if there are
    /// not as many.
    fn evict(&mut self, need: u64, kept: Option<&Arc<Object>>) -> bool {
        self.evict_by(need, kept, |candidate| candidate.bytes)
    }

    fn evict_by(
        &mut self,
        need: u64,
        kept: Option<&Arc<Object>>,
        weight: impl Fn(&Candidate) -> u64,
    ) -> bool {
        let objects = self.shared.map.all();
        let candidates: Vec<Candidate> = objects
            .iter()
            .map(|object| {
                let candidate =
                    object.candidate(kept.is_some_and(|kept| Arc::ptr_eq(object, kept)));
                Candidate {
                    bytes: weight(&candidate),
                    ..candidate
                }
            })
            .collect();
        let Some(choice) = choose(&candidates, need) else {
            return false;
        };
        for index in choice.spared {
            objects[index].set_used_again(false);
        }
        for index in choice.victims {
            let victim = &objects[index];
            if self.shared.map.remove(victim) {
                let bytes = victim.content.read().held.charged();
                self.shared
                    .counters
                    .evicted
                    .fetch_add(bytes, Ordering::Relaxed);
            }
            self.retire(victim);
        }
        true
    }

    /// Keeps what memory has to know bounded.
    fn bound_counts(&mut self, kept: &Arc<Object>) {
        let objects = self.shared.map.count();
        if objects >= self.shared.objects_max {
            self.evict_by((objects / 32) as u64, Some(kept), |_| 1);
        }
        let extents_max = self.shared.extents_max;
        // A store adds few extents, so they need not be counted often.
        self.room.since_counted += 1;
        if self.room.since_counted * 64 < extents_max - self.room.extents.min(extents_max) {
            return;
        }
        self.room.since_counted = 0;
        self.room.extents = self.count_extents();
        while self.room.extents >= extents_max {
            let objects = self.shared.map.count() as u64;
            if objects <= 1 || !self.evict_by(objects.div_ceil(16), Some(kept), |_| 1) {
                break;
            }
            self.room.extents = self.count_extents();
        }
    }

    fn count_extents(&self) -> usize {
        let objects = self.shared.map.all();
        let counts = objects
            .iter()
            .map(|object| object.content.read().held.count());
        counts.sum()
    }

    /// Brings the cache below its size at opening: it may have been made smaller.
    pub(crate) fn shrink(&mut self) {
        let used = self.shared.counters.used.load(Ordering::Relaxed);
        let over = used.saturating_sub(self.shared.size_max);
        if over > 0 {
            self.evict(over, None);
        }
    }
}
