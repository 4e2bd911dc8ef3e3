//! Why a mount did not start.

use std::io;
use std::net::SocketAddr;

use ackfs_cache::disk_cache::DiskError;

use super::mountpoint::DirError;
use crate::fuse::mount::MountError;
use crate::s3::ConnectError;

/// Why a mount did not start. Each says cause and fix in one line.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The directory is not one to mount on.
    #[error(transparent)]
    Dir(#[from] DirError),
    /// The store cannot be reached, or refuses us.
    #[error(transparent)]
    Store(#[from] ConnectError),
    /// The cache directory cannot be had.
    #[error("{0}{hint}", hint = cache_hint(.0))]
    Cache(DiskError),
    /// The kernel did not mount.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The metrics listener cannot have its address.
    #[error("--metrics {0}: {1}; choose another address")]
    Metrics(SocketAddr, #[source] io::Error),
    /// A signal came before it served.
    #[error("stopped by {0} before it was mounted")]
    Stopped(&'static str),
    /// The system refused threads, signals or descriptors.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// What mends it, where the error does not say.
fn cache_hint(error: &DiskError) -> &'static str {
    match error {
        DiskError::InUse(_) | DiskError::TooNew(..) => "",
        DiskError::Io(..) => "; give a --cache-dir that can be written, or --cache-size 0",
    }
}
