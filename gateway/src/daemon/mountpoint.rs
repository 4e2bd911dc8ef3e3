//! The directory that is to be mounted on: its one name, and whether it can be mounted on. Nothing
//! here touches a mounted filesystem that may hang: a dead or stuck mount is recognised by its line in
//! mountinfo and by one statfs(2), which FUSE answers ENOTCONN when its server is gone.

use std::io;
use std::path::{Path, PathBuf};

use nix::mount::MntFlags;
use nix::sys::statfs::{self, FsType, statfs};

use crate::config::CacheConfig;
use crate::config::path::lies_in;
use crate::fuse::mount::mount_table::{FS_TYPE, topmost};
use crate::fuse::mount::{DEAD, umount};

/// `dir` absolute and without symbolic links, so that a mount and those who look for it later use
/// one name. Asks nothing of what is mounted on `dir` itself: only what stands above it is resolved,
/// and `dir` by readlink(2), which does not reach a FUSE server.
///
/// # Errors
/// What stands above `dir` is not there.
pub fn resolve(dir: &Path) -> io::Result<PathBuf> {
    let mut dir = std::path::absolute(dir)?;
    // Bounded as the kernel bounds it (MAXSYMLINKS).
    for _ in 0..40 {
        let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
            return dir.canonicalize();
        };
        let parent = parent.canonicalize()?;
        dir = parent.join(name);
        match std::fs::read_link(&dir) {
            Ok(target) => dir = parent.join(target),
            Err(_) => return Ok(dir),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

/// Why a directory cannot be mounted on.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// It is not there.
    #[error("{0} does not exist: make it with mkdir -p {0}")]
    Missing(PathBuf),
    /// It is something else.
    #[error("{0} is not a directory: name an empty directory")]
    NotADirectory(PathBuf),
    /// A living mount is on it.
    #[error(
        "{0} already has {1} ({2}) mounted on it: unmount that first, or name another directory"
    )]
    Mounted(PathBuf, String, String),
    /// It is one that the gateway itself, or the whole machine, works with.
    #[error(
        "{0} is {1}, which ackfs itself needs: a mount would hide it; name an empty directory of \
         your own"
    )]
    Needed(PathBuf, &'static str),
    /// The cache would go through the mount into the bucket.
    #[error(
        "the cache directory {1} lies in {0}: the cache would be written through the mount; give a \
         --cache-dir outside of it, or --cache-size 0"
    )]
    HoldsCache(PathBuf, PathBuf),
    /// It cannot be looked at.
    #[error("{0} cannot be looked at: {1}: name a directory that can be reached")]
    Io(PathBuf, #[source] io::Error),
}

/// Looks at `dir`, which is resolved, before a mount. Gives whether it holds names, which the mount
/// will hide. A dead mount of an earlier ackfs is left to [`crate::fuse::mount`], which detaches it.
///
/// # Errors
/// As [`DirError`].
pub fn check(dir: &Path) -> Result<bool, DirError> {
    let io = |error| DirError::Io(dir.to_owned(), error);
    if let Some(mount) = topmost(dir).map_err(io)? {
        if mount.fs_type == FS_TYPE && is_dead(dir) {
            return Ok(false);
        }
        // Mounting over a root or a volume is what containers do with good reason; over another
        // FUSE mount it is a mistake.
        if mount.fs_type.starts_with("fuse") {
            return Err(DirError::Mounted(
                dir.to_owned(),
                mount.source,
                mount.fs_type,
            ));
        }
    }
    let metadata = std::fs::metadata(dir).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => DirError::Missing(dir.to_owned()),
        io::ErrorKind::NotADirectory => DirError::NotADirectory(dir.to_owned()),
        _ => io(error),
    })?;
    if !metadata.is_dir() {
        return Err(DirError::NotADirectory(dir.to_owned()));
    }
    if let Some(what) = needed(dir) {
        return Err(DirError::Needed(dir.to_owned(), what));
    }
    // A directory that may not be listed can be mounted on all the same.
    Ok(std::fs::read_dir(dir).is_ok_and(|mut names| names.next().is_some()))
}

/// Looks whether the room that `cache` speaks of would lie in `dir`, which is resolved. The gateway
/// would wait for itself then.
///
/// # Errors
/// `HoldsCache`.
pub fn check_cache(dir: &Path, cache: &CacheConfig) -> Result<(), DirError> {
    if cache.size > 0 && lies_in(&cache.dir, dir) {
        return Err(DirError::HoldsCache(dir.to_owned(), cache.dir.clone()));
    }
    Ok(())
}

/// Filesystems that the kernel speaks through. A mount on one of them hides from every process what
/// it asks the kernel there: we look for our own mount in /proc, and for its readahead in /sys.
const KERNEL_OWN: [(FsType, &str); 6] = [
    (statfs::PROC_SUPER_MAGIC, "a directory of procfs"),
    (statfs::SYSFS_MAGIC, "a directory of sysfs"),
    (statfs::CGROUP_SUPER_MAGIC, "a directory of cgroupfs"),
    (statfs::CGROUP2_SUPER_MAGIC, "a directory of cgroupfs"),
    (statfs::DEBUGFS_MAGIC, "a directory of debugfs"),
    (statfs::SECURITYFS_MAGIC, "a directory of securityfs"),
];

/// What `dir` is, if nothing may be mounted over it.
fn needed(dir: &Path) -> Option<&'static str> {
    if dir == Path::new("/") {
        return Some("the root of all directories");
    }
    if dir == Path::new("/dev") {
        return Some("the directory of devices");
    }
    let fs_type = statfs(dir).ok()?.filesystem_type();
    let known = KERNEL_OWN.into_iter().find(|(own, _)| *own == fs_type);
    known.map(|(_, what)| what)
}

/// Whether the server of the FUSE mount on `dir` is gone.
pub fn is_dead(dir: &Path) -> bool {
    statfs(dir).is_err_and(|cause| DEAD.contains(&cause))
}

/// Unmounts `dir` now; what is open there stays open on nothing. As root by umount2(2), else by
/// fusermount3.
///
/// # Errors
/// The kernel's or fusermount3's refusal.
pub fn detach(dir: &Path) -> io::Result<()> {
    umount(dir, MntFlags::MNT_DETACH)
}

/// Unmounts `dir` if nobody uses it.
///
/// # Errors
/// `ResourceBusy` if somebody does; the kernel's or fusermount3's other refusals.
pub fn unmount(dir: &Path) -> io::Result<()> {
    umount(dir, MntFlags::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_that_cannot_be_mounted_on_are_told_apart() {
        let root = tempfile::tempdir().unwrap();
        let dir = resolve(root.path()).unwrap();
        assert!(!check(&dir).unwrap());
        std::fs::write(dir.join("file"), "x").unwrap();
        assert!(check(&dir).unwrap());
        assert!(matches!(check(&dir.join("no")), Err(DirError::Missing(_))));
        assert!(matches!(
            check(&dir.join("file")),
            Err(DirError::NotADirectory(_))
        ));
        assert!(matches!(
            check(&dir.join("file/x")),
            Err(DirError::NotADirectory(_))
        ));
    }

    /// `ackfs mount s3://data /proc` mounted, then hung where it looked for its own mount, and left a
    /// dead /proc to the whole machine.
    #[test]
    fn what_the_machine_works_with_is_not_mounted_over() {
        for dir in ["/", "/dev", "/proc", "/proc/self", "/proc/sys/fs", "/sys"] {
            let refused = check(&resolve(Path::new(dir)).unwrap());
            let Err(DirError::Needed(..)) = &refused else {
                panic!("{dir}: {refused:?}");
            };
            let words = refused.unwrap_err().to_string();
            assert_eq!(words.lines().count(), 1, "{words}");
            assert!(words.contains("name an empty directory"), "{words}");
        }
    }

    /// The gateway read and wrote its cache through its own mount, into the bucket, and hung.
    #[test]
    fn a_directory_that_holds_the_cache_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let dir = resolve(root.path()).unwrap().join("mnt");
        std::fs::create_dir(&dir).unwrap();
        let mut cache = CacheConfig {
            dir: dir.join("not/yet/there"),
            dir_is_given: true,
            size: 1,
            memory: 0,
            readahead_max: 0,
            part_size: 0,
        };
        let error = check_cache(&dir, &cache).unwrap_err();
        assert!(matches!(error, DirError::HoldsCache(..)), "{error}");
        cache.size = 0;
        assert!(check_cache(&dir, &cache).is_ok(), "nothing is written");
        cache.size = 1;
        cache.dir = root.path().join("cache");
        assert!(check_cache(&dir, &cache).is_ok());
        cache.dir = root.path().to_owned();
        assert!(check_cache(&dir, &cache).is_ok(), "beside it, not in it");
    }

    #[test]
    fn a_directory_has_one_name() {
        let root = tempfile::tempdir().unwrap();
        let real = resolve(root.path()).unwrap().join("real");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink("real", root.path().join("link")).unwrap();
        std::os::unix::fs::symlink("loop", root.path().join("loop")).unwrap();
        assert_eq!(resolve(&root.path().join("link")).unwrap(), real);
        assert_eq!(resolve(&root.path().join("link/.")).unwrap(), real);
        assert_eq!(resolve(&real.join("../real")).unwrap(), real);
        assert!(resolve(&root.path().join("loop")).is_err());
    }
}
