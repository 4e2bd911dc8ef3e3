//! What the disk cache is told, why it cannot be opened, and what it counts.

use std::io;
use std::path::PathBuf;

use super::backlog::QUEUED_BYTES_MAX;

/// Where and how much.
#[derive(Debug, Clone)]
pub struct DiskConfig {
    /// The directory; made if it is not there. One owner at a time.
    pub dir: PathBuf,
    /// How many bytes of objects it may hold.
    pub size_max: u64,
    /// Memory for the records of what it holds, in bytes: half for some 400 bytes an object, half for 24
    /// bytes an extent. Past that, what was used least lately is evicted.
    pub memory: u64,
    /// How many bytes may wait for the disk or be on their way from the store. A sixth of them
    /// need not be in anybody's budget.
    pub queued_max: u64,
}

impl DiskConfig {
    /// With the memory that the default of `--memory` gives it.
    pub fn new(dir: impl Into<PathBuf>, size_max: u64) -> Self {
        Self {
            dir: dir.into(),
            size_max,
            memory: 24 << 20,
            queued_max: QUEUED_BYTES_MAX,
        }
    }
}

/// Why the disk tier cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Another process holds the directory.
    #[error("cache directory {0} is in use by another ackfs; give each mount its own --cache-dir")]
    InUse(PathBuf),
    /// It was written by a newer version of ackfs.
    #[error(
        "cache directory {0} has format {1}, newer than this ackfs knows; use another --cache-dir or remove it"
    )]
    TooNew(PathBuf, u64),
    /// It cannot be made, read or written.
    #[error("cache directory {0}: {1}")]
    Io(PathBuf, #[source] io::Error),
}

/// Levels now and counters since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskStats {
    /// Room that objects take on disk, in whole pages.
    pub used_bytes: u64,
    /// The bound.
    pub size_max: u64,
    /// Bytes evicted.
    pub evicted_bytes: u64,
    /// Extents whose checksum differed.
    pub corrupt_extents: u64,
    /// Extents that were not stored because the disk was full, failing or behind.
    pub skipped_extents: u64,
}
