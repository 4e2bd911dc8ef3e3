//! Local room for dirty bytes: files without a name, so that nothing is left behind whatever
//! happens to the process.
//!
//! A [`StagingFile`] is written and read at any offset; it is nobody's promise and is never
//! synced. Its room goes back when the last handle is dropped, or piecewise by
//! [`StagingFile::punch`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::device::Disk;
use super::file::{DiskFile, OpenHow};
use crate::extent::Extent;

/// Makes staging files in one directory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Staging {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
}

/// A file without a name. Cheap to clone; its room goes back with the last clone.
#[derive(Debug, Clone)]
pub struct StagingFile {
    file: DiskFile,
    disk: Arc<dyn Disk>,
}

impl Staging {
    /// Staging in `dir`, which is made with the first file, by way of `disk`
    /// ([`super::shared`] unless told otherwise).
    pub fn new(dir: impl Into<PathBuf>, disk: Arc<dyn Disk>) -> Self {
        Self {
            dir: dir.into(),
            disk,
        }
    }

    /// Where the files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// An empty file. Waits for the disk.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn create(&self) -> io::Result<StagingFile> {
        let file = match self.disk.open(&self.dir, OpenHow::Anonymous).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.disk.make_dir(&self.dir).await?;
                self.disk.open(&self.dir, OpenHow::Anonymous).await?
            }
            result => result?,
        };
        Ok(StagingFile {
            file,
            disk: self.disk.clone(),
        })
    }

    /// The room that the directory's filesystem has left, in bytes. Waits for the disk.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn free(&self) -> io::Result<u64> {
        Ok(self.disk.space(&self.dir).await?.free)
    }
}

impl StagingFile {
    /// Writes `pieces`, one after the other, from `offset` on. Waits for the disk.
    ///
    /// # Errors
    /// The operating system's; any part of `pieces` may then be written.
    pub async fn write(&self, offset: u64, pieces: Vec<Bytes>) -> io::Result<()> {
        self.disk.write_at(&self.file, offset, pieces).await
    }

    /// Fills `buf` from `offset`. Waits for the disk.
    ///
    /// # Errors
    /// `UnexpectedEof` past what was written; else the operating system's.
    pub async fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let bytes = self.read_bytes(offset, buf.len()).await?;
        buf.copy_from_slice(&bytes);
        Ok(())
    }

    /// `len` bytes from `offset`, for an upload's body. Waits for the disk.
    ///
    /// # Errors
    /// As [`StagingFile::read`].
    pub async fn read_bytes(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let (result, bytes) = self.disk.read_at(&self.file, offset, vec![0; len]).await;
        result?;
        Ok(bytes.into())
    }

    /// Fills `buf` from `offset` if all of it is in the page cache; `buf`'s content is undefined
    /// after a `false`. Never waits.
    pub fn read_now(&self, offset: u64, buf: &mut [u8]) -> bool {
        self.file.read_now(offset, buf)
    }

    /// Cuts the file or extends it with zeros. Waits for the disk.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn truncate(&self, len: u64) -> io::Result<()> {
        self.disk.truncate(&self.file, len).await
    }

    /// Gives the room of `extent` back; it reads as zero from then on. Waits for the disk.
    ///
    /// # Errors
    /// The operating system's; some filesystems cannot.
    pub async fn punch(&self, extent: Extent) -> io::Result<()> {
        self.disk.punch(&self.file, extent).await
    }
}
