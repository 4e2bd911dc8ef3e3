//! What the machine says that a configuration depends on: who runs us, the environment, how much
//! memory the cgroup leaves, how much room a filesystem has. Read once into a [`Host`], so that
//! [`Config`](super::Config) is decided from data and tests need no machine of their own.
//!
//! A cgroup's limit binds all below it, so the least on the way up counts. Inside a container the
//! path in `/proc/self/cgroup` may lie outside what is mounted; then the mounted root is ours.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The machine as one process sees it.
#[derive(Debug, Clone)]
pub struct Host {
    /// The environment; names and values that are not UTF-8 are left out.
    pub env: BTreeMap<String, String>,
    /// The effective user.
    pub uid: u32,
    /// The effective group.
    pub gid: u32,
    /// The memory that the cgroup allows, in bytes; `None` without a limit.
    pub memory_limit: Option<u64>,
    /// The machine's memory, in bytes, if it could be read.
    pub memory_total: Option<u64>,
    /// How many bytes an unprivileged writer may still store below a path that may not exist yet.
    pub free_bytes: fn(&Path) -> Option<u64>,
}

impl Host {
    /// Reads the machine. `env` is the process's environment.
    pub fn detect(env: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self {
            env: env
                .into_iter()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            memory_limit: memory_limit(Path::new("/")),
            memory_total: memory_total(Path::new("/")),
            free_bytes,
        }
    }

    /// The variable's value; empty counts as unset.
    pub fn var(&self, name: &str) -> Option<&str> {
        self.env
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// Whether we are root in our user namespace.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Where caches go if nobody says otherwise: `/var/cache/ackfs` as root, else
    /// `$XDG_CACHE_HOME/ackfs` or `~/.cache/ackfs`. `None` without a home.
    pub fn cache_home(&self) -> Option<PathBuf> {
        // The XDG specification has relative paths ignored.
        let absolute = |name| {
            self.var(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        if let Some(home) = absolute("XDG_CACHE_HOME") {
            return Some(home.join("ackfs"));
        }
        if self.is_root() {
            return Some(PathBuf::from("/var/cache/ackfs"));
        }
        Some(absolute("HOME")?.join(".cache/ackfs"))
    }

    /// Directories in which control sockets may stand, the one to make them in first.
    pub fn runtime_dirs(&self) -> Vec<PathBuf> {
        let own = self
            .var("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .map(|path| path.join("ackfs"));
        let shared = if self.is_root() {
            PathBuf::from("/run/ackfs")
        } else {
            PathBuf::from(format!("/tmp/ackfs-{}", self.uid))
        };
        own.into_iter().chain([shared]).collect()
    }
}

fn free_bytes(path: &Path) -> Option<u64> {
    let there = path.ancestors().find(|path| path.exists())?;
    let stat = nix::sys::statvfs::statvfs(there).ok()?;
    Some(stat.blocks_available() * stat.fragment_size())
}

/// `MemTotal` of `/proc/meminfo`, with the machine's files below `root`.
fn memory_total(root: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The least memory limit of our cgroup and those above it, v1 or v2, with the machine's files
/// below `root`.
fn memory_limit(root: &Path) -> Option<u64> {
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mut limits = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (mounted, file) = if controllers.is_empty() {
            ("sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        let top = root.join(mounted);
        let own = top.join(path.trim_start_matches('/'));
        // `ancestors` ends above `top`; what stands there is not a cgroup.
        limits.extend(
            own.ancestors()
                .take_while(|dir| dir.starts_with(&top))
                .filter_map(|dir| std::fs::read_to_string(dir.join(file)).ok())
                .filter_map(|text| text.trim().parse::<u64>().ok()),
        );
    }
    // v2 says "max", which does not parse; v1 says the largest multiple of a page.
    limits.into_iter().filter(|limit| *limit < 1 << 60).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_least_limit_on_the_way_up_counts() {
        let root = machine(&[
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/memory.max", "268435456\n"),
        ]);
        assert_eq!(memory_limit(root.path()), Some(256 << 20));
    }

    #[test]
    fn version_one_without_a_limit_has_none() {
        let root = machine(&[
            ("proc/self/cgroup", "3:cpu:/x\n2:memory:/x\n0::/\n"),
            (
                "sys/fs/cgroup/memory/x/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
        ]);
        assert_eq!(memory_limit(root.path()), None);
    }

    #[test]
    fn a_path_outside_the_container_falls_back_to_the_mounted_root() {
        let root = machine(&[
            ("proc/self/cgroup", "2:memory:/docker/0123\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "134217728\n"),
        ]);
        assert_eq!(memory_limit(root.path()), Some(128 << 20));
    }

    #[test]
    fn the_machine_s_memory_is_read_in_bytes() {
        let root = machine(&[("proc/meminfo", "MemTotal:        2048 kB\nMemFree: 1 kB\n")]);
        assert_eq!(memory_total(root.path()), Some(2 << 20));
        assert_eq!(memory_total(machine(&[]).path()), None);
    }

    #[test]
    fn a_machine_without_cgroups_has_no_limit() {
        assert_eq!(memory_limit(machine(&[]).path()), None);
    }

    #[test]
    fn caches_go_where_xdg_says_and_root_has_its_own_place() {
        let mut host = Host {
            env: BTreeMap::from([("HOME".to_owned(), "/home/a".to_owned())]),
            uid: 1000,
            gid: 1000,
            memory_limit: None,
            memory_total: None,
            free_bytes: |_| None,
        };
        assert_eq!(host.cache_home(), Some("/home/a/.cache/ackfs".into()));
        host.uid = 0;
        assert_eq!(host.cache_home(), Some("/var/cache/ackfs".into()));
        host.env.insert("XDG_CACHE_HOME".into(), "/c".into());
        assert_eq!(host.cache_home(), Some("/c/ackfs".into()));
        host.env.insert("XDG_CACHE_HOME".into(), "relative".into());
        host.uid = 1000;
        assert_eq!(host.cache_home(), Some("/home/a/.cache/ackfs".into()));
    }
}
