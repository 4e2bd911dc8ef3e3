//! The directories' part: the one to mount on, and the cache's.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::config::units::Size;
use crate::config::{CacheConfig, Config, S3Uri};
use crate::daemon::mountpoint;
use crate::fuse::mount::{self, mount_table};

use super::check::Check;

/// What a mount needs of the directories that it was given.
pub(super) fn checks(config: &Config) -> Vec<Check> {
    vec![directory(&config.dir, &config.source), cache(config)]
}

fn directory(dir: &Path, wanted: &S3Uri) -> Check {
    let name = "directory";
    let shown = dir.display();
    let resolved = mountpoint::resolve(dir)
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => mountpoint::DirError::Missing(dir.to_owned()),
            _ => mountpoint::DirError::Io(dir.to_owned(), error),
        })
        .and_then(|dir| mountpoint::check(&dir));
    match resolved {
        Ok(false) => Check::ok(name, format!("{shown} can be mounted on")),
        Ok(true) => Check::warn(
            name,
            format!("{shown} is not empty; a mount hides what is in it"),
            "name an empty directory",
        ),
        Err(mountpoint::DirError::Missing(_)) => Check::fail(
            name,
            format!("{shown} does not exist"),
            format!("mkdir -p {shown}"),
        ),
        Err(mountpoint::DirError::Mounted(_, source, fs_type)) => {
            mounted(dir, &source, &fs_type, wanted)
        }
        Err(error) => Check::fail(name, error.to_string(), "name another directory"),
    }
}

/// `source` is mounted on `dir` and alive.
fn mounted(dir: &Path, source: &str, fs_type: &str, wanted: &S3Uri) -> Check {
    let name = "directory";
    let shown = dir.display();
    let ours = fs_type == mount_table::FS_TYPE;
    if ours && source == mount::shown_source(&wanted.to_string()) {
        return Check::ok(name, format!("an ackfs serves {wanted} on {shown}"));
    }
    let umount = if ours { "ackfs umount" } else { "umount" };
    Check::fail(
        name,
        format!("{shown} has {source} ({fs_type}) mounted on it"),
        format!("{umount} {shown}, or name another directory"),
    )
}

fn cache(config: &Config) -> Check {
    let name = "cache directory";
    let cache = &config.cache;
    if cache.size == 0 {
        return Check::ok(name, "none, as --cache-size 0 asks");
    }
    let held = mountpoint::resolve(&config.dir).map(|dir| mountpoint::check_cache(&dir, cache));
    if let Ok(Err(_)) = held {
        return Check::fail(
            name,
            format!("{} lies in the directory to mount on", cache.dir.display()),
            "give a --cache-dir outside of it, or --cache-size 0",
        );
    }
    room_on_disk(cache)
}

/// Whether the cache can be made there and has the room that it may be asked for.
fn room_on_disk(cache: &CacheConfig) -> Check {
    let name = "cache directory";
    let dir = &cache.dir;
    let shown = dir.display();
    // What is not there yet is made by the mount; then what stands above it counts.
    let Some(there) = dir.ancestors().find(|dir| dir.exists()) else {
        return Check::fail(
            name,
            format!("{shown} cannot be made"),
            "give another --cache-dir",
        );
    };
    if !there.is_dir() {
        return Check::fail(
            name,
            format!("{} is not a directory", there.display()),
            "give another --cache-dir, or --cache-size 0",
        );
    }
    if let Err(error) = nix::unistd::access(there, nix::unistd::AccessFlags::W_OK) {
        let owner = fs::metadata(there).map_or(0, |metadata| metadata.uid());
        return Check::fail(
            name,
            format!(
                "{} cannot be written: {} (its owner is {owner})",
                there.display(),
                error.desc()
            ),
            "give a --cache-dir that can be written, or --cache-size 0",
        );
    }
    let free = nix::sys::statvfs::statvfs(there)
        .map_or(0, |stat| stat.blocks_available() * stat.fragment_size());
    if free < cache.size {
        return Check::warn(
            name,
            format!(
                "{shown} has {} free and may be asked for {}",
                Size(free),
                Size(cache.size)
            ),
            "lower --cache-size, or give a --cache-dir with more room",
        );
    }
    Check::ok(
        name,
        format!("{shown}, {} of {} free", Size(cache.size), Size(free)),
    )
}

#[cfg(test)]
mod tests {
    use super::super::check::CheckStatus;
    use super::*;
    use crate::fuse::mount::mount_table::FS_TYPE;

    /// README's own order is mount, then doctor: it called the mount that it should praise a failure.
    #[test]
    fn a_mount_that_serves_what_was_asked_for_is_no_failure() {
        let data: S3Uri = "s3://data/a,b".parse().unwrap();
        let check = mounted(Path::new("/mnt"), "s3://data/a_b/", FS_TYPE, &data);
        assert_eq!(check.status, CheckStatus::Ok);
        assert!(check.found.contains("serves s3://data/a,b/"), "{check:?}");
        for (source, fs_type) in [("s3://other", FS_TYPE), ("s3://data/a_b/", "fuse.s3fs")] {
            let check = mounted(Path::new("/mnt"), source, fs_type, &data);
            assert_eq!(check.status, CheckStatus::Fail, "{check:?}");
        }
        let others = mounted(Path::new("/mnt"), "x", "fuse.sshfs", &data);
        assert!(others.mend.unwrap().starts_with("umount /mnt"));
    }
}
