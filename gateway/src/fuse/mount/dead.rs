//! The directory before the mount and the mount's entry after it: takes away a dead mount that an
//! earlier ackfs left, raises the kernel's readahead, and reads the options that the mount has.
//!
//! A server that was killed leaves its mount behind; every access says ENOTCONN. Only what
//! `/proc/self/mountinfo` calls `fuse.ackfs` is taken away: somebody else's dead mount is theirs.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::MntFlags;
use tracing::{info, warn};

use super::{MountError, umount};

/// Our type in mountinfo.
const FSTYPE: &str = "fuse.ackfs";

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
    let ours = entry(&place).is_some_and(|entry| entry.fstype == FSTYPE);
    if !ours {
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

/// Raises the readahead window of the mount on `dir`, if asked and allowed; gives what it is then.
///
/// The kernel begins with 128 KiB and INIT cannot raise it; it decides how large sequential READs
/// are.
pub(super) fn readahead(dir: &Path, wanted_kb: Option<u32>) -> Option<u32> {
    let entry = entry(dir)?;
    let file = format!("/sys/class/bdi/{}/read_ahead_kb", entry.device);
    if let Some(kb) = wanted_kb
        && let Err(cause) = fs::write(&file, kb.to_string())
        && nix::unistd::geteuid().is_root()
    {
        warn!(file, kb, %cause, "readahead of the mount stays as it is");
    }
    fs::read_to_string(&file).ok()?.trim().parse().ok()
}

/// What mountinfo says of the topmost mount on a directory.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    /// MAJOR:MINOR.
    device: String,
    fstype: String,
    /// The filesystem's own options, those that mount(2) was given as text.
    options: String,
}

/// The filesystem's options of the mount on `dir`, as the kernel shows them.
pub(super) fn super_options(dir: &Path) -> Option<String> {
    entry(dir).map(|entry| entry.options)
}

fn entry(dir: &Path) -> Option<Entry> {
    find(&fs::read("/proc/self/mountinfo").ok()?, dir)
}

/// `36 35 98:0 / /mnt/dir rw,noatime shared:1 - fuse.ackfs s3://bucket rw,…`; the last line for a
/// directory is the topmost mount.
fn find(mountinfo: &[u8], dir: &Path) -> Option<Entry> {
    let wanted = dir.as_os_str().as_bytes();
    mountinfo
        .split(|byte| *byte == b'\n')
        .rev()
        .find_map(|line| {
            let mut fields = line.split(|byte| *byte == b' ');
            let device = fields.nth(2)?;
            let place = unescape(fields.nth(1)?);
            if place != wanted {
                return None;
            }
            let mut fields = fields.skip_while(|field| *field != b"-");
            let fstype = fields.nth(1)?;
            let options = fields.nth(1).unwrap_or_default();
            let text = |field| String::from_utf8_lossy(field).into_owned();
            Some(Entry {
                device: text(device),
                fstype: text(fstype),
                options: text(options),
            })
        })
}

/// Undoes mountinfo's octal escapes (`\040` for a space).
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let escaped = (*first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &[u8] = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        36 22 0:50 / /mnt/a rw,nosuid shared:1 - fuse.ackfs s3://b rw,user_id=0\n\
        37 22 0:51 / /mnt/with\\040space rw master:1 shared:2 - fuse.other x rw\n\
        38 36 0:52 / /mnt/a rw - fuse.ackfs s3://c rw,disable_sync_release\n";

    #[test]
    fn the_topmost_mount_of_a_directory_is_found() {
        let top = find(MOUNTINFO, Path::new("/mnt/a")).expect("it is there");
        assert_eq!((top.device.as_str(), top.fstype.as_str()), ("0:52", FSTYPE));
        assert_eq!(top.options, "rw,disable_sync_release");
        assert_eq!(find(MOUNTINFO, Path::new("/mnt")), None);
    }

    #[test]
    fn escaped_names_are_compared_as_names() {
        let found = find(MOUNTINFO, Path::new("/mnt/with space")).expect("it is there");
        assert_eq!(found.fstype, "fuse.other");
        assert_eq!(unescape(b"a\\134b\\"), b"a\\b\\");
    }

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
