//! The machine's part: kernel, `/dev/fuse`, the ring, rights, limits. What is decided from
//! text (a release, `/proc/self/status`) is decided by functions that take the text.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit};

use crate::config::units::Size;
use crate::config::{self, Config, Host};
use crate::fuse::mount::{
    self, DISABLE_SYNC_RELEASE, NoSyncRelease, Transport, Unavailable, probe, probe_setup, switch,
    sync_release,
};

use super::check::Check;

/// The kernel that FUSE-over-io_uring came with.
const RING_SINCE: (u32, u32) = (6, 14);
/// Open files that a busy mount may need: one for each file in use and each connection.
const DESCRIPTORS_MIN: u64 = 65536;
/// `CAP_SYS_ADMIN` in the masks of `/proc/self/status`.
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// What a mount needs of the machine.
pub(super) fn checks(host: &Host, config: Option<&Config>) -> Vec<Check> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let admin = mask(&status, "CapEff:").is_some_and(|mask| mask & CAP_SYS_ADMIN != 0);
    let classic = config.is_some_and(|config| config.mount.transport == Transport::Classic);
    let mut checks = vec![kernel(), device()];
    if !classic {
        checks.push(enable_uring());
        checks.push(io_uring_setup());
    }
    let helper = fusermount3(host);
    let held = mask(&status, "NoNewPrivs:") == Some(1);
    checks.push(rights(admin, helper.as_deref(), held));
    checks.push(helper_check(admin, helper.as_deref()));
    if !host.is_root() && config.is_some_and(|config| config.mount.allow_other) {
        checks.push(allow_other());
    }
    let wanted = !config.is_some_and(|config| {
        let options = &config.mount.mount_options;
        options.iter().any(|option| option == DISABLE_SYNC_RELEASE)
    });
    checks.push(close_mode(sync_release(), wanted));
    checks.extend([descriptors(), memory(host, config), pages()]);
    checks
}

fn kernel() -> Check {
    let release = nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    match version(&release) {
        Some(found) if found >= RING_SINCE => Check::ok("kernel", release),
        _ => Check::warn(
            "kernel",
            format!("{release} has no FUSE-over-io_uring, so the transport is classic"),
            "boot Linux 6.14 or newer",
        ),
    }
}

/// Major and minor of a release as `6.18.44-x`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn device() -> Check {
    let name = "/dev/fuse";
    match mount::device() {
        Ok(()) => Check::ok(name, "opens"),
        Err(why) => Check::fail(name, why.to_string(), why.mend()),
    }
}

fn enable_uring() -> Check {
    let name = "enable_uring";
    let switch = switch();
    match fs::read_to_string(&switch) {
        Ok(text) if matches!(text.trim(), "Y" | "1") => Check::ok(name, "on"),
        Ok(_) => Check::warn(name, "off, so the transport is classic", turn_on(&switch)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Check::warn(
            name,
            "this kernel has no such switch, so the transport is classic",
            "modprobe fuse, or boot Linux 6.14 or newer with CONFIG_FUSE_IO_URING=y",
        ),
        Err(error) => Check::warn(name, error.to_string(), "mount /sys to see it"),
    }
}

/// The commands that switch it on, now and at the next boot. `switch` stands below its module's name.
fn turn_on(switch: &Path) -> String {
    let module = switch.ancestors().nth(2).and_then(Path::file_name);
    let module = module.unwrap_or_default().to_string_lossy();
    format!(
        "echo Y | sudo tee {}; to keep it: echo options {module} enable_uring=1 | sudo tee \
         /etc/modprobe.d/{module}.conf",
        switch.display()
    )
}

fn io_uring_setup() -> Check {
    let name = "io_uring_setup";
    match probe_setup().and_then(|()| probe()) {
        Ok(()) => Check::ok(name, "works, with entries of 128 bytes"),
        Err(Unavailable::Setup { why, mend }) => {
            Check::warn(name, format!("{why}, so the transport is classic"), mend)
        }
        Err(why) => Check::warn(name, format!("works, but: {why}"), "see the line above"),
    }
}

/// `held` is no_new_privs: what is executed gets no rights by its set-user-id bit.
fn rights(admin: bool, helper: Option<&Path>, held: bool) -> Check {
    let name = "right to mount";
    if admin {
        Check::ok(name, "CAP_SYS_ADMIN")
    } else if held {
        Check::fail(
            name,
            "no CAP_SYS_ADMIN, and no_new_privs keeps fusermount3 from being root",
            mount::WITHOUT_NO_NEW_PRIVS,
        )
    } else if helper.is_some() {
        Check::ok(name, "by fusermount3")
    } else {
        Check::fail(
            name,
            "neither CAP_SYS_ADMIN nor fusermount3",
            "sudo apt-get install fuse3 (or dnf, apk); in a container: --cap-add SYS_ADMIN",
        )
    }
}

fn helper_check(admin: bool, helper: Option<&Path>) -> Check {
    let name = "fusermount3";
    match helper.map(|path| (path, fs::metadata(path))) {
        Some((path, Ok(metadata))) if metadata.permissions().mode() & 0o4000 != 0 => {
            Check::ok(name, path.display().to_string())
        }
        Some((path, Ok(_))) if !admin => Check::fail(
            name,
            format!("{} is not set-user-id root", path.display()),
            format!("sudo chmod u+s {}", path.display()),
        ),
        Some((path, _)) => Check::ok(name, format!("{}, not needed here", path.display())),
        None if admin => Check::ok(name, "not installed, not needed here"),
        None => Check::fail(
            name,
            "not installed",
            "sudo apt-get install fuse3 (or dnf, apk)",
        ),
    }
}

/// Where fusermount3 is.
fn fusermount3(host: &Host) -> Option<PathBuf> {
    let path = host.var("PATH").unwrap_or("/usr/bin:/bin");
    let mut files = std::env::split_paths(path).map(|dir| dir.join("fusermount3"));
    files.find(|file| file.is_file())
}

fn allow_other() -> Check {
    let name = "user_allow_other";
    let text = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    if text.lines().any(|line| line.trim() == "user_allow_other") {
        return Check::ok(name, "in /etc/fuse.conf");
    }
    Check::fail(
        name,
        "--allow-other without root needs it in /etc/fuse.conf",
        "echo user_allow_other | sudo tee -a /etc/fuse.conf",
    )
}

/// What close() will mean: a warning where it could mean more.
fn close_mode(found: Result<(), NoSyncRelease>, wanted: bool) -> Check {
    let name = "close mode";
    let (why, mend) = match found {
        Ok(()) if wanted => {
            return Check::ok(
                name,
                "release: the last close uploads; exit and munmap are waited for",
            );
        }
        Ok(()) | Err(NoSyncRelease::Disabled) => {
            let found = format!("flush, as --mount-options {DISABLE_SYNC_RELEASE} asks");
            return Check::ok(name, found);
        }
        Err(cause @ NoSyncRelease::UserNamespace) => (
            cause,
            "mount as root outside of the user namespace, and hand the directory in",
        ),
        Err(cause @ NoSyncRelease::NotOffered) => (
            cause,
            "load the fuse module of kernel/, or boot a kernel with its patches: kernel/README.md",
        ),
    };
    Check::warn(
        name,
        format!(
            "flush: {why}, so every close uploads and what mmap stores later is not waited for"
        ),
        mend,
    )
}

fn descriptors() -> Check {
    let name = "open files";
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if hard < DESCRIPTORS_MIN => Check::warn(
            name,
            format!("the hard limit is {hard}"),
            format!("ulimit -Hn {DESCRIPTORS_MIN} as root, or LimitNOFILE= in the unit"),
        ),
        Ok((_, hard)) => Check::ok(name, format!("up to {hard}")),
        Err(error) => Check::warn(name, error.to_string(), "ulimit -n"),
    }
}

fn memory(host: &Host, config: Option<&Config>) -> Check {
    let memory = config.map_or(config::MEMORY, |config| config.cache.memory);
    let used = memory + config::MEMORY_BESIDE;
    match host.memory_limit {
        None => Check::ok("memory", "no cgroup limit"),
        Some(limit) if limit >= used => {
            Check::ok("memory", format!("the cgroup's limit is {}", Size(limit)))
        }
        Some(limit) => Check::warn(
            "memory",
            format!(
                "a mount takes up to {} and the cgroup's limit is {}",
                Size(used),
                Size(limit)
            ),
            "raise the limit, or lower --memory",
        ),
    }
}

fn pages() -> Check {
    let name = "max_pages_limit";
    match fs::read_to_string("/proc/sys/fs/fuse/max_pages_limit") {
        Ok(text) if text.trim().parse().is_ok_and(|pages: u32| pages < 256) => Check::warn(
            name,
            format!("requests are at most {} pages", text.trim()),
            "sudo sysctl fs.fuse.max_pages_limit=256",
        ),
        Ok(text) => Check::ok(name, format!("{} pages", text.trim())),
        Err(_) => Check::ok(name, "256 pages, the kernel's own bound"),
    }
}

/// The number behind `field` in `/proc/self/status`; the capability masks are hexadecimal.
fn mask(status: &str, field: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    u64::from_str_radix(value.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::super::check::CheckStatus;
    use super::*;

    #[test]
    fn a_release_is_compared_by_its_numbers() {
        assert_eq!(version("6.18.44"), Some((6, 18)));
        assert_eq!(version("6.9-rc1"), Some((6, 9)));
        assert!(version("6.9.1-generic").unwrap() < RING_SINCE);
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn masks_of_the_status_file_are_read() {
        let status = "Name:\tx\nCapEff:\t000001ffffffffff\nSeccomp:\t2\n";
        assert_eq!(
            mask(status, "CapEff:").unwrap() & CAP_SYS_ADMIN,
            CAP_SYS_ADMIN
        );
        assert_eq!(mask(status, "Seccomp:"), Some(2));
        assert_eq!(mask(status, "Nothing:"), None);
    }

    #[test]
    fn the_module_that_serves_is_switched_on() {
        let commands = turn_on(Path::new("/sys/module/ackfs_fuse/parameters/enable_uring"));
        assert!(
            commands.contains("options ackfs_fuse enable_uring=1"),
            "{commands}"
        );
        assert!(
            commands.ends_with("/etc/modprobe.d/ackfs_fuse.conf"),
            "{commands}"
        );
    }

    #[test]
    fn the_close_mode_is_told_with_its_reason() {
        let line = |found, wanted| close_mode(found, wanted).line();
        assert!(line(Ok(()), true).starts_with("ok    close mode           release"));
        assert!(line(Ok(()), false).contains("disable_sync_release"));
        let stock = line(Err(NoSyncRelease::NotOffered), true);
        assert!(
            stock.starts_with("warn") && stock.contains("does not offer"),
            "{stock}"
        );
        let user = line(Err(NoSyncRelease::UserNamespace), true);
        assert!(
            user.contains("unprivileged") && user.contains("mend: mount as root"),
            "{user}"
        );
    }

    #[test]
    fn without_rights_and_helper_there_is_no_mount() {
        assert_eq!(rights(false, None, false).status, CheckStatus::Fail);
        assert_eq!(rights(true, None, false).status, CheckStatus::Ok);
        let helper = Some(Path::new("/bin/fusermount3"));
        assert_eq!(rights(false, helper, false).status, CheckStatus::Ok);
        assert_eq!(helper_check(true, None).status, CheckStatus::Ok);
        assert_eq!(helper_check(false, None).status, CheckStatus::Fail);
    }

    /// It said "ok, by fusermount3" where every mount failed.
    #[test]
    fn under_no_new_privs_fusermount3_gives_no_right() {
        let helper = Some(Path::new("/bin/fusermount3"));
        let check = rights(false, helper, true);
        assert_eq!(check.status, CheckStatus::Fail);
        assert!(check.line().contains("no_new_privs"), "{}", check.line());
        assert_eq!(rights(true, helper, true).status, CheckStatus::Ok);
        assert_eq!(mask("NoNewPrivs:\t1\n", "NoNewPrivs:"), Some(1));
    }
}
