//! The demo's mount: this program once more, as a user would start it, and the directories that it
//! needs. The mount ends with us, however we end: it watches its stdin, which is a pipe that we hold.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::config::Host;
use crate::daemon::mountpoint;
use crate::fuse::mount::Transport;

use super::super::exit::{CliError, Exit};

/// The demo's bucket.
pub(super) const BUCKET: &str = "ackfs-demo";
/// How long the mount may take to end; its own limit is below.
const END_MAX: Duration = Duration::from_secs(20);

/// Directories that go away with the demo.
#[derive(Debug)]
pub(super) struct Places {
    /// The mount point, resolved.
    pub(super) dir: PathBuf,
    /// Whether we made it.
    dir_is_ours: bool,
    /// Holds the cache, and the mount point if nobody named one.
    root: PathBuf,
}

impl Places {
    /// Makes what is not there, but for what stands above a `dir` that was given.
    pub(super) fn make(dir: Option<&Path>) -> Result<Self, CliError> {
        let refused = |error: io::Error| {
            let message = format!("cannot make a directory to mount on: {error}");
            CliError::new(Exit::CannotMount, message)
        };
        let root = nix::unistd::mkdtemp(&std::env::temp_dir().join("ackfs-demo-XXXXXX"))
            .map_err(|errno| refused(errno.into()))?;
        // From here on dropping it removes what was made.
        let mut places = Self {
            dir: root.join("mnt"),
            dir_is_ours: false,
            root,
        };
        if let Some(dir) = dir {
            places.dir = std::path::absolute(dir).map_err(refused)?;
        }
        let dir = &places.dir;
        if !dir.exists() && !mountpoint::is_dead(dir) {
            std::fs::create_dir(dir).map_err(|error| match (error.kind(), dir.parent()) {
                (io::ErrorKind::NotFound, Some(above)) => {
                    let above = above.display();
                    let message = format!("{above} does not exist: make it with mkdir -p {above}");
                    CliError::new(Exit::CannotMount, message)
                }
                _ => refused(error),
            })?;
            places.dir_is_ours = true;
        }
        places.dir = mountpoint::resolve(&places.dir).map_err(refused)?;
        Ok(places)
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        // Never through a mount that is still there: it would remove what is in the bucket.
        if self.dir_is_ours && std::fs::remove_dir(&self.dir).is_err() {
            return;
        }
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

/// The mount's process. Dropping it ends the mount.
#[derive(Debug)]
pub(super) struct Child {
    process: Process,
    dir: PathBuf,
    ended: bool,
}

impl Child {
    /// Mounts the demo's bucket and waits until it serves.
    pub(super) fn mount(
        host: &Host,
        endpoint: &str,
        (access_key, secret_key): &(String, String),
        places: &Places,
        door: Transport,
    ) -> Result<Self, CliError> {
        let failed =
            |error: io::Error| CliError::plain(format!("the mount does not start: {error}"));
        let door = match door {
            Transport::Auto => "auto",
            Transport::Uring => "uring",
            Transport::Classic => "classic",
        };
        let args: Vec<OsString> = vec![
            "mount".into(),
            format!("s3://{BUCKET}").into(),
            places.dir.clone().into(),
            "--endpoint-url".into(),
            endpoint.into(),
            "--cache-dir".into(),
            places.root.join("cache").into(),
            "--cache-size=1GiB".into(),
            "--transport".into(),
            door.into(),
            // The tour provokes an error and tells of it itself.
            "--log-level=off".into(),
            "--drain-timeout=5s".into(),
            "--with-parent".into(),
        ];
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        for name in host.env.keys() {
            // Nothing of the user's own configuration, and no request of theirs to a cloud.
            if name.starts_with("ACKFS_") || name.starts_with("AWS_") {
                command.env_remove(name);
            }
        }
        let mut process = command
            .args(args)
            // Ctrl-C is for us: the mount serves until the tour has ended, and is ended then.
            .process_group(0)
            .env("AWS_ACCESS_KEY_ID", access_key)
            .env("AWS_SECRET_ACCESS_KEY", secret_key)
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let output = process.stdout.take();
        let mut child = Self {
            process,
            dir: places.dir.clone(),
            ended: false,
        };
        let mut ready = String::new();
        if let Some(output) = output {
            BufReader::new(output)
                .read_line(&mut ready)
                .map_err(failed)?;
        }
        if ready.is_empty() {
            // It has told why on the stderr that it shares with us.
            let code = child.end().map_err(failed)?.code();
            return Err(CliError::new(code.map_or(Exit::Failed, Exit::of), ""));
        }
        Ok(child)
    }

    /// Ends the mount in order.
    pub(super) fn stop(mut self) -> Result<(), CliError> {
        match self.end() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(CliError::plain(format!("the mount ended with {status}"))),
            Err(error) => Err(CliError::plain(format!("the mount does not end: {error}"))),
        }
    }

    fn end(&mut self) -> io::Result<ExitStatus> {
        self.ended = true;
        // Gone already if it was never ready.
        let _ = kill(Pid::from_raw(self.process.id() as i32), Signal::SIGTERM);
        let began = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            if began.elapsed() > END_MAX {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.process.kill()?;
        let status = self.process.wait();
        if mountpoint::is_dead(&self.dir) {
            mountpoint::detach(&self.dir)?;
        }
        status
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ackfs demo /nonexist/deep/dir` left /nonexist/deep behind.
    #[test]
    fn what_the_demo_makes_goes_with_it_and_it_makes_no_more() {
        let above = tempfile::tempdir().unwrap();
        let dir = above.path().join("dir");
        let places = Places::make(Some(&dir)).unwrap();
        assert!(dir.is_dir() && places.root.is_dir());
        let root = places.root.clone();
        drop(places);
        assert!(!dir.exists() && !root.exists());

        let failure = Places::make(Some(&above.path().join("deep/dir"))).unwrap_err();
        assert_eq!(failure.exit, Exit::CannotMount);
        assert!(failure.message.contains("mkdir -p"), "{failure}");
        assert_eq!(std::fs::read_dir(above.path()).unwrap().count(), 0);

        std::fs::create_dir(&dir).unwrap();
        drop(Places::make(Some(&dir)).unwrap());
        assert!(dir.exists(), "it was there before");
    }
}
