//! Reads of at most one unit whose bytes are looked at and not kept: bounded in memory, with a few
//! buffers used again.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};

use super::extents::{PAGE, UNIT};
use crate::disk::{Disk, DiskFile};
use crate::extent::Extent;

/// Memory for reads under way, in bytes: sixteen units at once keep a disk's queue busy.
const READS_MAX: u64 = 16 * UNIT;

/// Buffers of one unit that are kept for the next read.
const SPARE_BUFFERS_MAX: usize = 4;

/// Units that can be verified at the same time.
const TURNS: usize = 32;

/// See the module.
#[derive(Debug)]
pub(crate) struct UnitReads {
    disk: Arc<dyn Disk>,
    /// One permit a page. Never closed.
    memory: Semaphore,
    spare: Mutex<Vec<Vec<u8>>>,
    turns: [AsyncMutex<()>; TURNS],
}

impl UnitReads {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        Self {
            disk,
            memory: Semaphore::new((READS_MAX / PAGE) as usize),
            spare: Mutex::default(),
            turns: std::array::from_fn(|_| AsyncMutex::default()),
        }
    }

    /// Whoever verifies `unit` of object `number` holds this, so that others wait for the answer
    /// instead of reading the unit again. A few units share one.
    pub(crate) fn turn(&self, number: u64, unit: u64) -> &AsyncMutex<()> {
        &self.turns[number.wrapping_mul(7).wrapping_add(unit) as usize % TURNS]
    }

    /// Reads `extent` and gives what `see` makes of its bytes. Waits for memory and the disk.
    ///
    /// # Errors
    /// The disk's; `UnexpectedEof` if the file ends before.
    pub(crate) async fn read<T>(
        &self,
        file: &DiskFile,
        extent: Extent,
        see: impl FnOnce(&[u8]) -> T,
    ) -> io::Result<T> {
        debug_assert!(extent.len <= UNIT);
        let pages = extent.len.div_ceil(PAGE) as u32;
        let _memory = self.memory.acquire_many(pages).await;
        let large = extent.len > UNIT / 4;
        let spare = large.then(|| self.spare.lock().pop()).flatten();
        let mut buf = spare.unwrap_or_default();
        buf.resize(extent.len as usize, 0);
        let (result, buf) = self.disk.read_at(file, extent.offset, buf).await;
        let seen = result.map(|()| see(&buf));
        if large && buf.capacity() > 0 {
            let mut spare = self.spare.lock();
            if spare.len() < SPARE_BUFFERS_MAX {
                spare.push(buf);
            }
        }
        seen
    }
}
