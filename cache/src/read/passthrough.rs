//! Whole files on disk, which the kernel reads by itself.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use super::cache::ReadCache;
use crate::disk_cache::DiskCache;
use crate::memory::BLOCK;
use crate::object::ObjectId;
use crate::pieces;
use crate::readahead::UNIT;

/// An object that lacks more than this on disk is not looked for in memory: 64 looks at most.
const GAPS_MAX: u64 = 64 * BLOCK;

/// Objects smaller than this are not waited for: the disk's queue may hold as much.
const WAIT_SIZE_MIN: u64 = 32 << 20;

/// How long an open waits for the disk: a few times what the queue's bytes take on a disk that
/// takes them into the page cache.
const WAIT_MAX: Duration = Duration::from_millis(200);

impl ReadCache {
    /// The file that holds all of `object`, verified, for the kernel's passthrough; `None` if it
    /// is not whole on disk or not yet verified (which this begins). Never waits.
    pub fn whole_file(&self, object: &ObjectId, size: u64) -> Option<Arc<File>> {
        let disk = self.disk.as_ref()?;
        let file = disk.whole_file(object, size);
        if file.is_none() {
            self.fill_gaps(disk, object, size);
        }
        file
    }

    /// Gives a disk that has nearly all of a large `object` the moment that it needs for the rest,
    /// so that [`ReadCache::whole_file`] finds it: reading it by passthrough saves many times that.
    /// Waits for the disk, a fifth of a second at most.
    pub async fn wait_for_whole_file(&self, object: &ObjectId, size: u64) {
        let Some(disk) = self.disk.as_ref().filter(|_| size >= WAIT_SIZE_MIN) else {
            return;
        };
        if disk.gaps(object, GAPS_MAX).is_empty() {
            return;
        }
        self.fill_gaps(disk, object, size);
        // Too slow is no error: this open is served without passthrough.
        let _ = tokio::time::timeout(WAIT_MAX, disk.stored(object)).await;
    }

    /// Stores what a disk that was behind has left out and memory still has. Without this an object
    /// of which memory has the rest would never be whole: what is read from memory is not stored.
    fn fill_gaps(&self, disk: &DiskCache, object: &ObjectId, size: u64) {
        let gaps = disk.gaps(object, GAPS_MAX);
        let Some(record) = self.records.find(object).filter(|_| !gaps.is_empty()) else {
            return;
        };
        let blocks = gaps
            .iter()
            .flat_map(|gap| gap.offset / BLOCK..gap.end().div_ceil(BLOCK));
        for pieces in blocks.filter_map(|index| self.memory.get(record.number, index)) {
            for run in pieces::runs(pieces.list(), UNIT) {
                let (extent, list) = pieces::as_extent(run);
                disk.store(object, size, extent, list);
            }
        }
    }
}
