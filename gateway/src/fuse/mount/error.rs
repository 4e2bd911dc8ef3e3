//! Why a mount could not be made, or not be taken away. Each says cause and fix in one line.

use std::io;
use std::path::PathBuf;

use super::device_node::NoDevice;
use super::probe::Unavailable;

/// Why a directory could not be mounted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// There is no such directory.
    #[error("{0} does not exist; create the directory first")]
    Missing(PathBuf),
    /// It is there but no directory.
    #[error("{0} is not a directory; name a directory to mount on")]
    NotDirectory(PathBuf),
    /// A mount of another program died there.
    #[error("{0} holds a dead mount of another program; run `umount -l {0}` first")]
    Dead(PathBuf),
    /// The kernel has no FUSE, or this container may not see it.
    #[error("/dev/fuse cannot be opened: {0}; {mend}", mend = .0.mend())]
    NoDevice(NoDevice),
    /// mount(2) refused, and fusermount3 did not help.
    #[error("mounting on {dir} was refused: {why}; {mend}")]
    Refused {
        /// Where.
        dir: PathBuf,
        /// Why, in words.
        why: String,
        /// What mends it.
        mend: String,
    },
    /// The ring was asked for by name and cannot be had.
    #[error("transport uring is not available: {0}")]
    NoRing(Unavailable),
    /// Anything else.
    #[error("mounting {dir} failed: {source}; run ackfs doctor, which looks for what is missing")]
    Failed {
        /// Where.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Why a mount could not be taken away.
#[derive(Debug, thiserror::Error)]
#[error("unmounting {dir} failed: {source}")]
pub struct UnmountError {
    pub(super) dir: PathBuf,
    pub(super) source: io::Error,
}
