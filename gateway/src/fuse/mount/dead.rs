//! The directory before the mount, freed of the dead mount that an earlier ackfs left.
//!
//! A server that was killed leaves its mount behind; every access says ENOTCONN. Only what
//! `/proc/self/mountinfo` calls `fuse.ackfs` is taken away: somebody else's dead mount is theirs.

use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::MntFlags;
use tracing::info;

use super::error::MountError;
use super::mount_table::{FS_TYPE, topmost};
use super::umount::umount;

/// More dead mounts on one directory than this are not ours to dig through.
const STACKED_MAX: usize = 16;

/// `dir` without symbolic links, free of dead mounts of ours.
pub(super) fn clear(dir: &Path) -> Result<PathBuf, MountError> {
    for _ in 0..STACKED_MAX {
        match fs::metadata(dir) {
            Ok(metadata) if metadata.is_dir() => {
                return dir.canonicalize().map_err(|source| MountError::Failed {
                    dir: dir.to_owned(),
                    source,
                });
            }
            Ok(_) => return Err(MountError::NotDirectory(dir.to_owned())),
            Err(cause) if is_dead(&cause) => detach(dir)?,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
                return Err(MountError::Missing(dir.to_owned()));
            }
            Err(source) => {
                return Err(MountError::Failed {
                    dir: dir.to_owned(),
                    source,
                });
            }
        }
    }
    Err(MountError::Dead(dir.to_owned()))
}

/// What a request gets at a mount that nobody serves; while the kernel takes the connection down, by
/// the last two names.
pub const DEAD: [Errno; 3] = [Errno::ENOTCONN, Errno::ECONNABORTED, Errno::ECANCELED];

fn is_dead(cause: &std::io::Error) -> bool {
    cause
        .raw_os_error()
        .is_some_and(|raw| DEAD.contains(&Errno::from_raw(raw)))
}

fn detach(dir: &Path) -> Result<(), MountError> {
    let failed = |source: std::io::Error| MountError::Failed {
        dir: dir.to_owned(),
        source,
    };
    let place = canonical_of_dead(dir).map_err(failed)?;
    let found = topmost(&place).ok().flatten();
    if found.is_none_or(|mount| mount.fs_type != FS_TYPE) {
        return Err(MountError::Dead(dir.to_owned()));
    }
    info!(dir = %place.display(), "detaching the dead mount of an earlier ackfs");
    umount(&place, MntFlags::MNT_DETACH).map_err(|error| match error.raw_os_error() {
        Some(_) => failed(error),
        // fusermount3 said no: somebody else mounted it.
        None => MountError::Dead(dir.to_owned()),
    })
}

/// The path of a directory that cannot be looked at: its parent's, and its name.
fn canonical_of_dead(dir: &Path) -> std::io::Result<PathBuf> {
    let absolute = std::path::absolute(dir)?;
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
        _ => Ok(absolute),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_or_nothing_is_no_place_to_mount() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        fs::write(&file, "").expect("a file");
        assert!(matches!(clear(&file), Err(MountError::NotDirectory(_))));
        let absent = dir.path().join("absent");
        assert!(matches!(clear(&absent), Err(MountError::Missing(_))));
    }
}
