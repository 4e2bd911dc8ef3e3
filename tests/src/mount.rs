//! A mount: one gateway process, one directory.
//!
//! The gateway is the real binary, run as a user runs it, and nothing is known of it but its
//! command line, its exit status and what it prints. A mount is ready when its ready line has
//! been read from its standard output, and not before. What it says on standard error is kept and
//! shown when the test that owns it fails.
//!
//! Dropping a mount detaches the directory and kills the process, in that order, whatever state
//! both are in: a gateway that hangs cannot hang its test's end.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;
use std::{fmt, fs, thread};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::{Output, ackfs_bin, clean, first_line, wait};
use crate::process::{self, Memory};
use crate::sandbox;

/// How long a mount may take until its ready line; seconds on a busy machine.
const READY_MAX: Duration = Duration::from_mins(1);

/// How long a gateway may take to end by itself; its drain limit is below.
pub const EXIT_MAX: Duration = Duration::from_mins(1);

/// The way between kernel and gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// FUSE over io_uring.
    Uring,
    /// read(2) and write(2) on /dev/fuse.
    Classic,
}

impl Door {
    /// What `--transport` calls it.
    pub fn flag(self) -> &'static str {
        match self {
            Door::Uring => "uring",
            Door::Classic => "classic",
        }
    }
}

/// How to mount: the store, the door, and every flag.
#[derive(Debug, Clone)]
pub struct Options {
    /// `BUCKET` or `BUCKET/PREFIX`.
    pub source: String,
    endpoint: String,
    binary: Option<PathBuf>,
    door: Option<Door>,
    dir: Option<PathBuf>,
    cache: Option<PathBuf>,
    flags: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    deny_io_uring: bool,
}

impl Options {
    /// A mount of `source` from the store at `endpoint`, with the test stores' credentials.
    pub fn new(source: &str, endpoint: &str, access_key: &str, secret_key: &str) -> Self {
        let env = [
            ("AWS_ACCESS_KEY_ID", access_key),
            ("AWS_SECRET_ACCESS_KEY", secret_key),
            // Nothing of this machine's own configuration, and no questions to a cloud.
            ("AWS_CONFIG_FILE", "/dev/null"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ];
        Self {
            source: source.to_owned(),
            endpoint: endpoint.to_owned(),
            binary: None,
            door: None,
            dir: None,
            cache: None,
            flags: Vec::new(),
            env: env.map(|(name, value)| (name.into(), value.into())).into(),
            deny_io_uring: false,
        }
    }

    /// By this binary of the gateway; without it by [`ackfs_bin`].
    #[must_use]
    pub fn binary(mut self, binary: &Path) -> Self {
        self.binary = Some(binary.to_owned());
        self
    }

    /// Through this door.
    #[must_use]
    pub fn door(mut self, door: Door) -> Self {
        self.door = Some(door);
        self
    }

    /// Through the door that the gateway chooses, or that [`Options::flags`] name.
    #[must_use]
    pub fn any_door(mut self) -> Self {
        self.door = None;
        self
    }

    /// At this directory, which exists; without it at a fresh one.
    #[must_use]
    pub fn at(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    /// With this cache directory; without it with a fresh one.
    #[must_use]
    pub fn cache(mut self, dir: &Path) -> Self {
        self.cache = Some(dir.to_owned());
        self
    }

    /// With another endpoint.
    #[must_use]
    pub fn endpoint(mut self, endpoint: &str) -> Self {
        endpoint.clone_into(&mut self.endpoint);
        self
    }

    /// Of another bucket or prefix.
    #[must_use]
    pub fn source(mut self, source: &str) -> Self {
        source.clone_into(&mut self.source);
        self
    }

    /// With one more word on the command line, or several, separated by blanks.
    #[must_use]
    pub fn flags(mut self, words: &str) -> Self {
        self.flags
            .extend(words.split_whitespace().map(OsString::from));
        self
    }

    /// With one more variable in its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.retain(|(other, _)| other != name);
        self.env.push((name.into(), value.into()));
        self
    }

    /// Where io_uring_setup(2) is denied.
    #[must_use]
    pub fn denying_io_uring(mut self) -> Self {
        self.deny_io_uring = true;
        self
    }

    /// Starts the gateway and waits until it serves.
    pub fn mount(self) -> Mount {
        match self.try_mount() {
            Ok(mount) => mount,
            Err(refusal) => panic!("the mount failed: {refusal}"),
        }
    }

    /// Starts the gateway; `Err` is what it said and its status if it ended before it served.
    pub fn try_mount(self) -> Result<Mount, Refusal> {
        let dir_owned = self.dir.is_none().then(|| sandbox::dir("mnt-"));
        let cache_owned = self.cache.is_none().then(|| sandbox::dir("cache-"));
        let runtime = sandbox::dir("run-");
        let pick = |given: &Option<PathBuf>, owned: &Option<tempfile::TempDir>| {
            given
                .clone()
                .or_else(|| Some(owned.as_ref()?.path().to_owned()))
                .expect("one is given")
        };
        let dir = pick(&self.dir, &dir_owned);
        let cache = pick(&self.cache, &cache_owned);

        let binary = self.binary.clone().unwrap_or_else(ackfs_bin);
        let mut command = sandbox::command(binary);
        command
            .arg("mount")
            .arg(format!("s3://{}", self.source))
            .arg(&dir)
            .args(["--endpoint-url", &self.endpoint])
            .arg("--cache-dir")
            .arg(&cache);
        if let Some(door) = self.door {
            command.args(["--transport", door.flag()]);
        }
        if self.deny_io_uring {
            crate::posix::deny_io_uring(&mut command);
        }
        clean(&mut command);
        // Control sockets of parallel tests stay apart.
        command
            .args(&self.flags)
            .env("XDG_RUNTIME_DIR", runtime.path())
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = sandbox::spawn(command).expect("the gateway's binary can be started");
        let (ready, output) = first_line(child.stdout.take().expect("stdout is a pipe"));
        let log = Output::of(child.stderr.take().expect("stderr is a pipe"));
        let mut mount = Mount {
            child,
            dir,
            ready: String::new(),
            log,
            output,
            kept: Kept {
                _dir: dir_owned,
                cache: cache_owned,
                runtime,
            },
        };
        match ready.recv_timeout(READY_MAX) {
            Ok(line) => {
                if let Some(door) = self.door {
                    let wanted = door.flag();
                    assert!(
                        line.contains(wanted),
                        "asked for {wanted}, ready line is {line:?}"
                    );
                }
                mount.ready = line;
                Ok(mount)
            }
            Err(_) => Err(mount.refusal()),
        }
    }
}

/// A gateway that ended before it served.
#[derive(Debug)]
pub struct Refusal {
    /// Its exit status; `None` if it had to be killed.
    pub code: Option<i32>,
    /// What it wrote to standard error.
    pub words: Vec<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => writeln!(f, "ackfs ended with status {code}")?,
            None => writeln!(f, "ackfs neither served nor ended in {READY_MAX:?}")?,
        }
        for line in &self.words {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}

/// Directories that live as long as their mount.
#[derive(Debug)]
struct Kept {
    _dir: Option<tempfile::TempDir>,
    cache: Option<tempfile::TempDir>,
    runtime: tempfile::TempDir,
}

/// A gateway that serves a directory.
#[derive(Debug)]
pub struct Mount {
    child: Child,
    dir: PathBuf,
    ready: String,
    log: Output,
    output: Output,
    // Last: removed when the process is gone and the directory is detached.
    kept: Kept,
}

impl Mount {
    /// The mounted directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path below the mounted directory.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(name)
    }

    /// The line it printed when it was ready.
    pub fn ready_line(&self) -> &str {
        &self.ready
    }

    /// Whether the last close publishes and each closer waits for RELEASE: a kernel with the patches.
    pub fn in_release_mode(&self) -> bool {
        self.ready.contains(", mode release,")
    }

    /// The cache directory, if it is the mount's own.
    pub fn cache_dir(&self) -> Option<&Path> {
        self.kept.cache.as_ref().map(tempfile::TempDir::path)
    }

    /// The runtime directory its control socket is in.
    pub fn runtime_dir(&self) -> &Path {
        self.kept.runtime.path()
    }

    /// The gateway's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The gateway's memory.
    pub fn memory(&self) -> Memory {
        process::memory(self.pid()).expect("the gateway runs")
    }

    /// What it has written to standard error so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// What it has written to standard output after the ready line.
    pub fn output(&self) -> Vec<String> {
        self.output.lines()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).expect("the gateway runs");
    }

    /// Kills it and waits for its end; the directory stays mounted and dead.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Unmounts the directory as umount(8) does and waits until the gateway has ended.
    pub fn unmount(mut self) -> ExitStatus {
        umount2(&self.dir, MntFlags::empty()).expect("the directory can be unmounted");
        self.wait(EXIT_MAX)
    }

    /// Waits for the gateway's end.
    pub fn wait(&mut self, time_max: Duration) -> ExitStatus {
        let status = wait(&mut self.child, time_max);
        status.unwrap_or_else(|| panic!("ackfs has not ended in {time_max:?}"))
    }

    /// True if the directory is a mount point now.
    pub fn is_mounted(&self) -> bool {
        is_mounted(&self.dir)
    }

    fn refusal(mut self) -> Refusal {
        let code = wait(&mut self.child, EXIT_MAX).and_then(|status| status.code());
        self.detach();
        self.kill();
        Refusal {
            code,
            // Also from a machine where the thread that reads them gets no turn for a while.
            words: self.log.finished_in(EXIT_MAX),
        }
    }

    fn detach(&self) {
        if is_mounted(&self.dir) {
            let _ = umount2(&self.dir, MntFlags::MNT_DETACH);
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.detach();
        self.kill();
        let panicked = self
            .log
            .lines()
            .iter()
            .any(|line| line.contains("panicked at"));
        if panicked || thread::panicking() {
            eprintln!("--- {} (pid {}) said:", self.dir.display(), self.pid());
            eprintln!("    {}", self.ready);
            for line in self.log.finished() {
                eprintln!("    {line}");
            }
        }
        assert!(!panicked || thread::panicking(), "the gateway panicked");
    }
}

/// True if something is mounted at `dir` now.
pub fn is_mounted(dir: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let dir = dir.to_string_lossy();
    mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(&*dir))
}
