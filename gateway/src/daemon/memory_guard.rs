//! Keeps the process within `--memory` and 64 MiB. What files' bytes take is granted before it is taken;
//! names, the records of the disk cache, connections' buffers and the heap's free pieces are not, and with
//! tens of thousands of files they are more than the 64 MiB hold. So now and then the process is weighed,
//! and what is beyond is withheld from the budgets. If that is not enough, the clean bytes at rest go: they
//! can be read from the disk again.
//!
//! What it is worth: 16,000 small files and then 160 MiB written and read with `--memory 32MiB`
//! (`tests/tests/e2e/memory.rs`, debug build) peak at 77 MiB with it, at 88 MiB when nobody weighs and only
//! the heap is trimmed, where 96 MiB are promised. A quarter of `--memory` withheld from the start made the
//! same work take more than twice as long.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ackfs_cache::budget::Balloon;
use ackfs_cache::dirty::Writer;
use ackfs_cache::read::ReadCache;
use tokio::sync::Notify;

use crate::config::MEMORY_BESIDE;
use crate::config::units::MIB;
use crate::fs::Filesystem;
use crate::heap;
use crate::metrics::resident_bytes;

/// Part of the 64 MiB that is left free, for what grows between two looks, in bytes.
const SPARE: u64 = 8 * MIB;
/// What is withheld no longer goes back in steps of so many bytes a look: memory that was needed once is
/// likely to be needed again.
const STEP: u64 = MIB / 8;

/// How long after work began memory is weighed, and how often while there is more: an idle mount wakes for
/// it twice. Six readers that begin together take 100 MiB in 200 ms.
const LOOK_AFTER: Duration = Duration::from_millis(100);
/// After so many looks what is old or free is given up, whether memory is short or not.
const LOOKS_PER_TIDY: u32 = 10;
/// And when no work has come for so long.
const QUIET: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct MemoryGuard {
    ballast: Balloon,
    reader: Weak<ReadCache>,
    writer: Weak<Writer>,
    /// `--memory` and 64 MiB.
    most: u64,
    wanted: u64,
    withheld: Arc<AtomicU64>,
}

/// What is to be withheld when `beside` bytes are in no budget and `before` were withheld.
fn wanted(beside: u64, before: u64) -> u64 {
    let beyond = (beside + SPARE).saturating_sub(MEMORY_BESIDE);
    beyond.max(before.saturating_sub(STEP))
}

impl MemoryGuard {
    pub(super) fn new(
        ballast: Balloon,
        memory: u64,
        reader: &Arc<ReadCache>,
        writer: &Arc<Writer>,
    ) -> Self {
        Self {
            ballast,
            reader: Arc::downgrade(reader),
            writer: Arc::downgrade(writer),
            most: memory + MEMORY_BESIDE,
            wanted: 0,
            withheld: Arc::default(),
        }
    }

    /// Weighs the process and withholds what has to be. Whether memory is short. Never waits.
    fn look(&mut self) -> bool {
        let rooms = (self.reader.upgrade(), self.writer.upgrade());
        let ((Some(reader), Some(writer)), Some(resident)) = (rooms, resident_bytes()) else {
            return false;
        };
        let granted = self.ballast.used().saturating_sub(writer.idle_bytes());
        let beside = resident.saturating_sub(granted + reader.resting_bytes());
        self.wanted = wanted(beside, self.wanted).min(self.ballast.max());
        self.ballast.set(self.wanted);
        self.withheld.store(self.ballast.bytes(), Ordering::Relaxed);
        if self.wanted == self.ballast.max() && resident + 2 * SPARE > self.most {
            reader.give_up_resting();
        }
        beside + SPARE > MEMORY_BESIDE
    }

    /// Weighs the process while there is work, of which `worked` tells. Never ends.
    pub(super) async fn watch(mut self, fs: Weak<Filesystem>, worked: Arc<Notify>) {
        let tidy = || {
            if let Some(fs) = fs.upgrade() {
                fs.tidy();
            }
            heap::trim();
        };
        // Since memory was tidied.
        let mut looks = 0;
        loop {
            let work = worked.notified();
            if looks == 0 {
                work.await;
            } else if tokio::time::timeout(QUIET, work).await.is_err() {
                tidy();
                looks = 0;
                continue;
            }
            tokio::time::sleep(LOOK_AFTER).await;
            looks += 1;
            if self.look() || looks % LOOKS_PER_TIDY == 0 {
                tidy();
            }
        }
    }

    /// How many bytes are withheld, kept up to date.
    pub(super) fn withheld(&self) -> Arc<AtomicU64> {
        self.withheld.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_is_withheld_at_once_and_given_back_slowly() {
        assert_eq!(wanted(0, 0), 0);
        assert_eq!(wanted(MEMORY_BESIDE - SPARE, 0), 0);
        assert_eq!(wanted(MEMORY_BESIDE, 0), SPARE);
        assert_eq!(wanted(MEMORY_BESIDE, 3 * SPARE), 3 * SPARE - STEP);
        assert_eq!(wanted(0, STEP / 2), 0);
    }
}
