//! Can the ring be had? Asked before INIT is answered, because afterwards there is no way back:
//! each cause by its name, with what mends it. The last word is INIT's own: the kernel offers the
//! flag only where it is switched on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use io_uring::{IoUring, cqueue, squeue};

/// Why FUSE over io_uring cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// The kernel's fuse module does not know it.
    #[error("this kernel has no FUSE over io_uring; it came with Linux 6.14")]
    Unknown,
    /// It is switched off.
    #[error("fuse's enable_uring is off; as root: echo Y > {}", .0.display())]
    Disabled(PathBuf),
    /// No ring can be made at all.
    #[error("io_uring_setup fails: {why}; {mend}")]
    Setup {
        /// Who or what denies it.
        why: String,
        /// What lifts that.
        mend: &'static str,
    },
    /// INIT did not offer it.
    #[error("the kernel did not offer FUSE over io_uring at INIT")]
    NotOffered,
    /// A ring thread could not make its queue or the slots' memory.
    #[error("the ring threads could not be set up: {0}")]
    Rings(String),
}

/// Whether the ring can be had, as far as can be told without a mount. Waits for no more than a ring's
/// set-up.
///
/// # Errors
/// The first cause that stands in the way.
pub fn probe() -> Result<(), Unavailable> {
    enabled(&module(Path::new("/sys/module")))?;
    probe_setup()
}

/// Whether this process may make a ring of entries as FUSE needs them. Waits for no more than its
/// set-up, on a thread of its own: a ring that was closed is taken apart later, by task work that the
/// kernel gives to the thread that made it (`io_ring_exit_work`, io_uring/io_uring.c), and that
/// interrupts like a signal whatever the thread waits for by then.
///
/// # Errors
/// [`Unavailable::Setup`].
pub fn probe_setup() -> Result<(), Unavailable> {
    thread::scope(|scope| {
        let prober = thread::Builder::new().name("probe".into());
        let built = prober.spawn_scoped(scope, || {
            IoUring::<squeue::Entry128, cqueue::Entry>::builder()
                .build(2)
                .map(drop)
        });
        built.and_then(|thread| thread.join().expect("building a ring does not panic"))
    })
    .map_err(|cause| setup_error(&cause))
}

/// The switch of the fuse module that serves: FUSE over io_uring is off where it reads N.
pub fn switch() -> PathBuf {
    module(Path::new("/sys/module")).join(SWITCH)
}

/// `kernel/module` makes `ackfs_fuse`, which serves in place of a fuse that is built in and put out of
/// action; the built-in one still has its directory then.
fn module(modules: &Path) -> PathBuf {
    let ours = modules.join("ackfs_fuse");
    if ours.exists() {
        ours
    } else {
        modules.join("fuse")
    }
}

/// In a module's directory.
const SWITCH: &str = "parameters/enable_uring";

fn enabled(module: &Path) -> Result<(), Unavailable> {
    if !module.exists() {
        // Not loaded yet, or no /sys in this container: INIT will tell.
        return Ok(());
    }
    let switch = module.join(SWITCH);
    match fs::read_to_string(&switch) {
        Ok(text) if matches!(text.trim(), "Y" | "y" | "1") => Ok(()),
        Ok(_) => Err(Unavailable::Disabled(switch)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Err(Unavailable::Unknown),
        Err(_) => Ok(()),
    }
}

fn setup_error(cause: &io::Error) -> Unavailable {
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let (why, mend) = denier(
        cause,
        disabled.as_deref().unwrap_or("0").trim(),
        is_filtered(&status),
    );
    Unavailable::Setup { why, mend }
}

/// Whether a seccomp filter is on (mode 2), by /proc/self/status.
fn is_filtered(status: &str) -> bool {
    let mode = status
        .lines()
        .find_map(|line| line.strip_prefix("Seccomp:"));
    mode.is_some_and(|mode| mode.trim() == "2")
}

/// Who denied io_uring_setup, and what mends it. Docker's profile answers EPERM, gVisor ENOSYS, some
/// profiles EACCES; the sysctl `disabled` is 1 for all outside a group and 2 for everybody.
fn denier(error: &io::Error, disabled: &str, filtered: bool) -> (String, &'static str) {
    match error.raw_os_error() {
        Some(libc::EPERM) if disabled != "0" => (
            format!("kernel.io_uring_disabled is {disabled}"),
            "sudo sysctl kernel.io_uring_disabled=0",
        ),
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS) if filtered => (
            "a seccomp filter denies it".to_owned(),
            "run the container with a seccomp profile that allows io_uring_setup, io_uring_enter \
             and io_uring_register",
        ),
        Some(libc::ENOSYS) => (
            "this kernel has no io_uring".to_owned(),
            "boot a kernel with CONFIG_IO_URING=y",
        ),
        Some(libc::ENOMEM) => (
            "no locked memory is left for it".to_owned(),
            "raise the limit: ulimit -l unlimited",
        ),
        _ => (
            error.to_string(),
            "look for a security module that denies io_uring",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_of_the_patches_is_asked_where_it_serves() {
        let modules = tempfile::tempdir().expect("a directory");
        let (stock, ours) = (
            modules.path().join("fuse"),
            modules.path().join("ackfs_fuse"),
        );
        fs::create_dir(&stock).expect("a directory");
        assert_eq!(module(modules.path()), stock);
        fs::create_dir(&ours).expect("a directory");
        assert_eq!(module(modules.path()), ours);
    }

    #[test]
    fn each_cause_is_told_by_its_name() {
        let module = tempfile::tempdir().expect("a directory");
        assert_eq!(enabled(&module.path().join("absent")), Ok(()));
        assert_eq!(enabled(module.path()), Err(Unavailable::Unknown));
        let parameters = module.path().join("parameters");
        fs::create_dir(&parameters).expect("a directory");
        let switch = parameters.join("enable_uring");
        fs::write(&switch, "N\n").expect("a file");
        let off = enabled(module.path()).expect_err("it is off");
        assert_eq!(off, Unavailable::Disabled(switch.clone()));
        assert!(
            off.to_string().ends_with(&*switch.to_string_lossy()),
            "{off}"
        );
        fs::write(parameters.join("enable_uring"), "Y\n").expect("a file");
        assert_eq!(enabled(module.path()), Ok(()));
    }

    #[test]
    fn who_denies_io_uring_is_told_apart() {
        let error = io::Error::from_raw_os_error;
        let (why, mend) = denier(&error(libc::EPERM), "2", true);
        assert!(why.contains("io_uring_disabled is 2") && mend.contains("sysctl"));
        for errno in [libc::EPERM, libc::EACCES, libc::ENOSYS] {
            let (why, _) = denier(&error(errno), "0", true);
            assert!(why.contains("seccomp"), "{why}");
        }
        let (why, _) = denier(&error(libc::ENOSYS), "0", false);
        assert!(why.contains("no io_uring"), "{why}");
        let (_, mend) = denier(&error(libc::ENOMEM), "0", false);
        assert!(mend.contains("ulimit"), "{mend}");
        assert!(is_filtered("Name:\tx\nSeccomp:\t2\n"));
        assert!(!is_filtered("Name:\tx\nSeccomp:\t0\n"));
        assert!(!is_filtered(""));
    }
}
