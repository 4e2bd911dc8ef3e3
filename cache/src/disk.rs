//! The local disk, as the cache and the staging of dirty bytes see it: files that are read and
//! written at an offset, without ever holding up the caller's thread.
//!
//! [`Disk`] is the seam. Behind it stand three: [`uring`] (threads of tokio-uring, the usual one),
//! [`blocking`] (threads that call pread(2) and pwritev(2), where io_uring is denied) and [`sim`]
//! (a disk in memory that forgets what was not synced and lies on request, for tests). Nobody
//! outside sees a type of tokio-uring.
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

use std::fmt;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::extent::Extent;

pub mod blocking;
mod cached;
pub(crate) mod direct;
mod engine;
mod file;
mod nowait;
mod pace;
pub mod sim;
pub mod staging;
pub mod uring;
pub(crate) mod wait;

pub use file::DiskFile;
pub use staging::{Staging, StagingFile};

/// A boxed future, so that the trait can be used as `dyn Disk`.
pub type DiskFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How a file is opened. All are opened for reading and writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenHow {
    /// It is there.
    Existing,
    /// It is made if it is not there. Its directory is there.
    Create,
    /// A file without a name in the directory that the path names; gone when its last
    /// [`DiskFile`] is dropped.
    Anonymous,
}

/// Which implementer serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskKind {
    /// tokio-uring threads.
    Uring,
    /// Threads of blocking calls.
    Blocking,
    /// The simulated disk of tests.
    Sim,
}

impl fmt::Display for DiskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uring => "io_uring",
            Self::Blocking => "blocking calls",
            Self::Sim => "simulated",
        })
    }
}

/// A disk. Every call that gives a future waits for it.
///
/// # Errors
/// Every call gives the operating system's error; what is special to one call stands there.
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// Which implementer this is.
    fn kind(&self) -> DiskKind;

    /// Opens a file for reading and writing.
    fn open<'a>(&'a self, path: &'a Path, how: OpenHow) -> DiskFuture<'a, io::Result<DiskFile>>;

    /// Opens a file that is there if the kernel knows it by heart. Never waits.
    fn open_cached(&self, path: &Path) -> Option<DiskFile>;

    /// Makes a directory and those above it. One that is there is a success.
    fn make_dir<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, io::Result<()>>;

    /// The names in a directory, in no order.
    fn list<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, io::Result<Vec<String>>>;

    /// Removes a file's name. One that is not there is a success.
    fn remove<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, io::Result<()>>;

    /// Gives a file another name, replacing what was there.
    fn rename<'a>(&'a self, source: &'a Path, target: &'a Path) -> DiskFuture<'a, io::Result<()>>;

    /// Fills `buf` (its length) from `offset`. `UnexpectedEof` if the file ends before. The buffer
    /// comes back either way.
    fn read_at<'a>(
        &'a self,
        file: &'a DiskFile,
        offset: u64,
        buf: Vec<u8>,
    ) -> DiskFuture<'a, (io::Result<()>, Vec<u8>)>;

    /// Writes all of `pieces`, one after the other, from `offset` on.
    fn write_at<'a>(
        &'a self,
        file: &'a DiskFile,
        offset: u64,
        pieces: Vec<Bytes>,
    ) -> DiskFuture<'a, io::Result<()>>;

    /// Puts the file's bytes, and all that is needed to find them again, on the disk.
    fn sync_data<'a>(&'a self, file: &'a DiskFile) -> DiskFuture<'a, io::Result<()>>;

    /// Gives the room of `extent` back; it reads as zero from then on. The length stays.
    fn punch<'a>(&'a self, file: &'a DiskFile, extent: Extent) -> DiskFuture<'a, io::Result<()>>;

    /// Cuts the file or extends it with zeros.
    fn truncate<'a>(&'a self, file: &'a DiskFile, len: u64) -> DiskFuture<'a, io::Result<()>>;

    /// The room of the filesystem that holds `path`: free for us, and in all, in bytes.
    fn space<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, io::Result<FilesystemSpace>>;
}

/// Whether `error` says that there is no room: the filesystem is full, or our share of it is.
pub fn is_full(error: &io::Error) -> bool {
    let kind = error.kind();
    matches!(
        kind,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// A filesystem's room in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilesystemSpace {
    /// What an unprivileged process may still write.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

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

#[cfg(test)]
mod tests;
