//! The seam: what every disk can do.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;

use bytes::Bytes;

use super::file::{DiskFile, OpenHow};
use crate::extent::Extent;

/// A boxed future, so that the trait can be used as `dyn Disk`.
pub type DiskFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

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
