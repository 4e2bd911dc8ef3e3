//! An open file of a disk. A [`DiskFile`] is shared by cloning, and its bytes stay readable after
//! its name is gone: an evicted object's readers keep what they opened.
//!
//! The calls here that touch the disk block, and are for the disk's own threads, for the cache's
//! writer (which has a thread) and for opening the cache. [`DiskFile::read_now`] is the exception: it
//! never waits and is for everybody.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::direct::{self, Direct};
use super::sim_file::SimFile;
use super::{cached, nowait, vectored};
use crate::extent::Extent;

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

/// An open file. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DiskFile {
    backing: Backing,
}

#[derive(Debug, Clone)]
enum Backing {
    /// `direct` for files that are written past the page cache.
    Real {
        file: Arc<File>,
        direct: Option<Direct>,
    },
    Sim(Arc<SimFile>),
}

impl DiskFile {
    pub(super) fn real(file: File) -> Self {
        Self {
            backing: Backing::Real {
                file: Arc::new(file),
                direct: None,
            },
        }
    }

    pub(super) fn simulated(file: Arc<SimFile>) -> Self {
        Self {
            backing: Backing::Sim(file),
        }
    }

    /// Fills `buf` from `offset` if all of it is in the page cache; `buf`'s content is undefined
    /// after a `false`. Never waits.
    pub fn read_now(&self, offset: u64, buf: &mut [u8]) -> bool {
        match &self.backing {
            Backing::Real { file, .. } => nowait::read_now(file, offset, buf),
            Backing::Sim(file) => file.read_now(offset, buf),
        }
    }

    /// The operating system's file; `None` on a simulated disk.
    pub fn os_file(&self) -> Option<&Arc<File>> {
        match &self.backing {
            Backing::Real { file, .. } => Some(file),
            Backing::Sim(_) => None,
        }
    }

    /// The way past the page cache, if there is one.
    pub(super) fn direct(&self) -> Option<&Direct> {
        match &self.backing {
            Backing::Real { direct, .. } => direct.as_ref(),
            Backing::Sim(_) => None,
        }
    }

    /// Whether somebody else holds it too.
    pub(crate) fn is_shared(&self) -> bool {
        match &self.backing {
            Backing::Real { file, .. } => Arc::strong_count(file) > 1,
            Backing::Sim(file) => Arc::strong_count(file) > 1,
        }
    }

    /// Fills `buf` from `offset`. Blocks on the disk.
    pub(crate) fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        match &self.backing {
            Backing::Real { file, .. } => file.read_exact_at(buf, offset),
            Backing::Sim(file) => file.read_exact_at(offset, buf),
        }
    }

    /// Writes all of `data` at `offset`. Blocks on the disk.
    pub(crate) fn write_all_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match &self.backing {
            Backing::Real { file, .. } => file.write_all_at(data, offset),
            Backing::Sim(file) => file.write(offset, data),
        }
    }

    /// Writes all of `pieces` from `offset` on. Blocks on the disk.
    pub(crate) fn write_pieces_at(&self, offset: u64, pieces: Vec<Bytes>) -> io::Result<()> {
        match &self.backing {
            Backing::Real { file, direct } => write(file, direct.as_ref(), offset, pieces),
            Backing::Sim(file) => {
                let mut at = offset;
                for piece in pieces {
                    file.write(at, &piece)?;
                    at += piece.len() as u64;
                }
                Ok(())
            }
        }
    }

    /// Puts the bytes on the disk. Blocks on it.
    pub(crate) fn sync_data(&self) -> io::Result<()> {
        match &self.backing {
            Backing::Real { file, .. } => file.sync_data(),
            Backing::Sim(file) => file.sync(),
        }
    }

    /// Cuts or extends. Blocks on the disk.
    pub(crate) fn set_len(&self, len: u64) -> io::Result<()> {
        match &self.backing {
            Backing::Real { file, .. } => file.set_len(len),
            Backing::Sim(file) => file.set_len(len),
        }
    }

    /// The length in bytes. Blocks on the disk.
    pub(crate) fn len(&self) -> io::Result<u64> {
        match &self.backing {
            Backing::Real { file, .. } => Ok(file.metadata()?.len()),
            Backing::Sim(file) => Ok(file.len()),
        }
    }

    /// See [`super::Disk::punch`]. Blocks on the disk.
    pub(crate) fn punch(&self, extent: Extent) -> io::Result<()> {
        match &self.backing {
            Backing::Real { file, .. } => call_fallocate(file, PUNCH, extent),
            Backing::Sim(file) => file.punch(extent),
        }
    }
}

/// Room without a change of length.
pub(super) const ALLOCATE: FallocateFlags = FallocateFlags::FALLOC_FL_KEEP_SIZE;

/// A hole without a change of length.
pub(super) const PUNCH: FallocateFlags =
    FallocateFlags::FALLOC_FL_PUNCH_HOLE.union(FallocateFlags::FALLOC_FL_KEEP_SIZE);

pub(super) fn call_fallocate(file: &File, flags: FallocateFlags, extent: Extent) -> io::Result<()> {
    if extent.is_empty() {
        return Ok(());
    }
    loop {
        // off_t is signed: what lies past its end cannot hold bytes.
        let offset = i64::try_from(extent.offset).map_err(|_| Errno::EFBIG)?;
        let len = i64::try_from(extent.len).unwrap_or(i64::MAX - offset);
        match fallocate(file, flags, offset, len) {
            Err(Errno::EINTR) => {}
            result => return Ok(result?),
        }
    }
}

/// Writes all of `pieces` from `offset` on, past the page cache where that is possible. Blocks on the
/// disk.
pub(super) fn write(
    file: &File,
    direct: Option<&Direct>,
    offset: u64,
    pieces: Vec<Bytes>,
) -> io::Result<()> {
    let Some(direct) = direct else {
        return cached::write(file, offset, pieces);
    };
    for run in direct::runs(offset, pieces) {
        if let Some(file) = direct.takes(&run) {
            let begun = Instant::now();
            let result = vectored::write_all(file, run.offset, run.pieces.clone(), usize::MAX);
            if !direct.wrote(run.len, begun.elapsed(), &result) {
                result?;
                continue;
            }
        }
        cached::write(file, run.offset, run.pieces)?;
    }
    Ok(())
}

/// Opens a real file. Blocks on the disk.
pub(super) fn open_real(path: &Path, how: OpenHow) -> io::Result<DiskFile> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    let file = match how {
        OpenHow::Existing => options.open(path)?,
        OpenHow::Create => options.create(true).truncate(false).open(path)?,
        OpenHow::Anonymous => match options.custom_flags(libc::O_TMPFILE).open(path) {
            Ok(file) => file,
            Err(error) if lacks_tmpfile(&error) => open_unlinked(path)?,
            Err(error) => return Err(error),
        },
    };
    // Files without a name are for staging, and seldom read.
    let direct = (how == OpenHow::Anonymous).then(|| Direct::of(&file));
    Ok(DiskFile {
        backing: Backing::Real {
            direct: direct.flatten(),
            file: Arc::new(file),
        },
    })
}

/// Filesystems without O_TMPFILE answer EOPNOTSUPP, old kernels EISDIR (open(2)).
fn lacks_tmpfile(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)
    )
}

/// A file that is made under a name of its own and loses it at once.
fn open_unlinked(dir: &Path) -> io::Result<File> {
    use std::sync::atomic::{AtomicU64, Ordering};

    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!(".staging-{}-{number}", std::process::id()));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        match options.open(&path) {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
            // Left by a process of the same number that was killed in between: never ours.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_pieces_are_written_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let file = open_real(dir.path(), OpenHow::Anonymous).unwrap();
        let pieces: Vec<Bytes> = (0..3000u32)
            .map(|i| Bytes::copy_from_slice(&i.to_le_bytes()[..(i % 5).min(4) as usize]))
            .collect();
        let whole = pieces.concat();
        file.write_pieces_at(7, pieces).unwrap();
        let mut back = vec![0; whole.len()];
        file.read_exact_at(7, &mut back).unwrap();
        assert_eq!(back, whole);
        assert_eq!(file.len().unwrap(), 7 + whole.len() as u64);
    }
}
