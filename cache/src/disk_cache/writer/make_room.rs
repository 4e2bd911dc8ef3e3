//! Room for bytes that are about to be written: what [`Space`] says is too much is evicted.
//!
//! [`Space`]: crate::disk_cache::space::Space

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::CacheWriter;
use crate::disk::wait::block_on;
use crate::disk_cache::object::CachedObject;
use crate::disk_cache::space::Shortfall;
use crate::evict::Candidate;

/// Why bytes are not stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreRefusal {
    /// Nothing in the cache may make way for them.
    #[error("nothing in the cache may make way")]
    NoRoom,
    /// Nothing can be evicted to make room on the filesystem.
    #[error("the filesystem is full; free some of it or use another --cache-dir")]
    Full,
    /// The disk failed.
    #[error("{0}")]
    Failed(io::Error),
}

impl CacheWriter {
    /// Makes room for `need` bytes of `object`, which itself stays. Blocks on the disk.
    pub(super) fn make_room(
        &mut self,
        need: u64,
        object: &Arc<CachedObject>,
    ) -> Result<(), StoreRefusal> {
        let charged = object.on_disk.read().extents.usage().bytes;
        if !self.space.admits(need, charged, object.size) {
            return Err(StoreRefusal::NoRoom);
        }
        // Where records cannot be won because all is in use, there are a few more of them.
        if let Some(shortfall) = self.space.beyond_objects(self.core.map.count()) {
            self.evict(shortfall, Some(object));
        }
        if let Some(shortfall) = self.space.beyond_extents() {
            self.evict(shortfall, Some(object));
        }
        if let Some(shortfall) = self.space.beyond_size(need)
            && !self.evict(shortfall, Some(object))
        {
            return Err(StoreRefusal::NoRoom);
        }
        self.leave_the_floor(need, object)
    }

    /// As above, for a disk that said it is full.
    pub(super) fn make_room_on_full_disk(
        &mut self,
        need: u64,
        object: &Arc<CachedObject>,
    ) -> Result<(), StoreRefusal> {
        let shortfall = self.space.beyond_disk(need);
        if self.evict(shortfall, Some(object)) {
            return Ok(());
        }
        Err(StoreRefusal::Full)
    }

    fn leave_the_floor(
        &mut self,
        need: u64,
        object: &Arc<CachedObject>,
    ) -> Result<(), StoreRefusal> {
        if self.space.take_allowance(need) {
            return Ok(());
        }
        let Ok(look) = block_on(self.core.disk.space(&self.core.objects_dir)) else {
            // Nothing is known; the write will tell.
            return Ok(());
        };
        match self.space.beyond_floor(need, look) {
            Some(shortfall) if !self.evict(shortfall, Some(object)) => Err(StoreRefusal::Full),
            _ => Ok(()),
        }
    }

    /// Brings the cache below its size at opening.
    pub(in crate::disk_cache) fn shrink(&mut self) {
        if let Some(shortfall) = self.space.beyond_new_size() {
            self.evict(shortfall, None);
        }
    }

    /// Evicts others than `kept`. False, and nothing goes, if there are not enough.
    fn evict(&mut self, shortfall: Shortfall, kept: Option<&Arc<CachedObject>>) -> bool {
        let objects = self.core.map.all();
        let is_kept = |object| kept.is_some_and(|kept| Arc::ptr_eq(object, kept));
        let candidates: Vec<Candidate> = objects
            .iter()
            .map(|object| object.candidate(is_kept(object)))
            .collect();
        let Some(eviction) = shortfall.choose(&candidates) else {
            return false;
        };
        for index in eviction.spared {
            objects[index].spend_second_chance();
        }
        for index in eviction.victims {
            let victim = &objects[index];
            if self.core.map.remove(victim) {
                let bytes = victim.on_disk.read().extents.usage().bytes;
                self.core
                    .counters
                    .evicted
                    .fetch_add(bytes, Ordering::Relaxed);
            }
            self.retire(victim);
        }
        true
    }
}
