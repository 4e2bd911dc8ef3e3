//! Where a mount's socket is, and how a path that is too long for a socket is reached.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::digest;
use crate::config::path::lies_in;

/// How long a client may take to ask, and to take an answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// The longest path of a socket in bytes: `sun_path` of unix(7) without the NUL at its end.
const SOCKET_PATH_MAX: usize = 107;

/// Those of `runtime_dirs` that do not lie in `dir`: a socket there would be made before the mount,
/// hidden by it, and looked for through it, in the bucket.
pub(super) fn beside<'a>(
    runtime_dirs: &'a [PathBuf],
    dir: &Path,
) -> impl Iterator<Item = &'a PathBuf> {
    runtime_dirs
        .iter()
        .filter(move |runtime_dir| !lies_in(runtime_dir, dir))
}

/// The socket's path for the mount on `dir`.
pub(super) fn path_in(runtime_dir: &Path, dir: &Path) -> PathBuf {
    runtime_dir.join(format!("{}.sock", digest(&[&dir.to_string_lossy()])))
}

/// Calls `work` with a path to the socket at `path` that fits into a `sockaddr_un`. A longer one is
/// reached by way of its directory's descriptor, which is open while `work` runs.
pub(super) fn at_short<T>(path: &Path, work: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().len() <= SOCKET_PATH_MAX {
        return work(path);
    }
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidFilename.into());
    };
    let dir = File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(dir)?;
    let short = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string());
    work(&short.join(name))
}

pub(super) fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(%error, path = %path.display(), "a control socket stays behind");
    }
}
