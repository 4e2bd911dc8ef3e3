//! The local disk, as the cache and the staging of dirty bytes see it: files that are read and
//! written at an offset, without ever holding up the caller's thread.
//!
//! [`Disk`] is the seam. Behind it stand three: [`uring`] (threads of tokio-uring, the usual one),
//! [`blocking`] (threads that call pread(2) and pwritev(2), where io_uring is denied) and [`sim`]
//! (a disk in memory that forgets what was not synced and lies on request, for tests). Nobody
//! outside sees a type of tokio-uring.
//!
//! What the disk says is translated here, once: [`is_full`] is the only meaning that others ask for, and
//! nobody outside looks at an errno.
//!
//! What every implementer holds true:
//! - Paths are whole paths; files are shared by cloning a [`DiskFile`], and stay readable after
//!   their name is gone.
//! - A write that succeeded is seen by every read that begins after it. It survives a crash only
//!   after [`Disk::sync_data`]; until then any part of it may be lost.
//! - A write that failed may have written any part of its bytes.
//! - Dropping a future gives up waiting; what was begun may still happen.
//! - Work under way is bounded; past the bound, callers wait.
//!
//! The futures need no runtime around them: they may be awaited on any executor.

use std::io;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

pub mod blocking;
mod cached;
mod device;
pub(crate) mod direct;
mod engine;
mod file;
mod nowait;
mod platter;
pub mod sim;
mod sim_file;
pub mod staging;
#[cfg(test)]
mod tests;
pub mod uring;
mod vectored;
pub(crate) mod wait;

pub use device::{Disk, DiskFuture, DiskKind, FilesystemSpace, is_full};
pub use file::{DiskFile, OpenHow};
pub use staging::{Staging, StagingFile};

/// Starts a disk of `threads` threads: tokio-uring if the kernel lets it really start, else
/// blocking calls. [`Disk::kind`] says which. The threads wait without any wake-ups while there is
/// nothing to do and end when the last handle is dropped.
///
/// # Errors
/// When not even a thread can be started.
pub fn start(threads: usize) -> io::Result<Arc<dyn Disk>> {
    match uring::UringDisk::start(threads) {
        Ok(disk) => Ok(Arc::new(disk)),
        Err(error) => {
            tracing::info!(%error, "io_uring is denied here, disk files use blocking calls");
            Ok(Arc::new(blocking::BlockingDisk::start(threads)?))
        }
    }
}

/// How many threads the process-wide disk has. Two, so that one long call does not hold up the
/// other files; more would not make a disk faster than its own queue.
const SHARED_THREADS: usize = 2;

/// The process-wide disk, started at its first use; cache and staging share its threads. It ends
/// with its last holder.
///
/// # Errors
/// As [`start`].
pub fn shared() -> io::Result<Arc<dyn Disk>> {
    struct Shared(Option<Weak<dyn Disk>>);
    // Guards only the slot and the start-up; never held while a disk works.
    static SHARED: Mutex<Shared> = Mutex::new(Shared(None));
    let mut slot = SHARED.lock();
    if let Some(disk) = slot.0.as_ref().and_then(Weak::upgrade) {
        return Ok(disk);
    }
    let disk = start(SHARED_THREADS)?;
    slot.0 = Some(Arc::downgrade(&disk));
    Ok(disk)
}
