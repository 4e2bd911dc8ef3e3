//! A MinIO of our own.
//!
//! One serves all tests of a run, each in its own bucket; claims about an outage have their own. A port that was free a moment ago
//! may be taken by the time MinIO binds it, and another MinIO may be answering there: so the one
//! that answers counts only while *our* child lives, and another port is tried when it does not.
//! Readiness is asked for over HTTP (`ListBuckets`, about a second), never waited for blindly.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use crate::sandbox;
use crate::witness::Witness;

/// The environment variable that names MinIO's binary; without it `minio` on `PATH` is used.
pub const MINIO_BIN: &str = "ACKFS_MINIO_BIN";

/// Access key and secret key of every MinIO that tests start.
pub const USER: &str = "minioadmin";

/// The environment variable by which the runner tells its tests where the shared MinIO is.
pub const SHARED_ENDPOINT: &str = "ACKFS_TEST_MINIO";

/// Where the MinIO answers that all tests of a run share.
pub fn shared_endpoint() -> String {
    env::var(SHARED_ENDPOINT).unwrap_or_else(|_| panic!("{SHARED_ENDPOINT} is not set"))
}

/// How long a MinIO may take until it answers; it needs about a second on an idle machine.
const READY_MAX: Duration = Duration::from_mins(1);

/// A MinIO process with its own directory and port; killed when dropped.
#[derive(Debug)]
pub struct Minio {
    child: Child,
    port: u16,
    data: PathBuf,
    // Holds the log, and the data unless a restart brought its own.
    home: tempfile::TempDir,
}

impl Minio {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// If there is no such binary, or it does not come up; with the end of what it printed.
    pub fn start() -> io::Result<Minio> {
        let mut failure = String::new();
        for _ in 0..5 {
            match Self::try_start(free_port()?, None)? {
                Ok(minio) => return Ok(minio),
                Err(words) => failure = words,
            }
        }
        Err(io::Error::other(format!(
            "no MinIO after 5 ports: {failure}"
        )))
    }

    /// Kills it with its data kept, and starts it again on the same port and data.
    ///
    /// # Errors
    /// As [`Minio::start`].
    pub fn restart(&mut self) -> io::Result<()> {
        self.kill();
        let started = Self::try_start(self.port, Some(self.data.clone()))?;
        *self = started
            .map(|mut new| {
                // The data stay with the directory that holds them: keep the old owner.
                std::mem::swap(&mut new.home, &mut self.home);
                new
            })
            .map_err(io::Error::other)?;
        Ok(())
    }

    /// Kills it at once; requests in flight are cut.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its process, for processor time.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A client of `bucket` in this store.
    pub fn witness(&self, bucket: &str) -> Witness {
        Witness::new(&self.endpoint(), bucket, USER, USER)
    }

    fn try_start(port: u16, data: Option<PathBuf>) -> io::Result<Result<Minio, String>> {
        let dir = sandbox::dir("minio-");
        let log = dir.path().join("log");
        let data = data.unwrap_or_else(|| dir.path().join("data"));
        fs::create_dir_all(&data)?;
        let child = start_process(port, free_port()?, &data, &log)?;
        let mut minio = Minio {
            child,
            port,
            data,
            home: dir,
        };
        let witness = minio.witness("any");
        let begin = Instant::now();
        while begin.elapsed() < READY_MAX {
            if minio.child.try_wait()?.is_some() {
                return Ok(Err(tail(&log)));
            }
            // Ask first, then look again whether ours lives: a foreign one may have answered.
            if witness.store_answers() && minio.child.try_wait()?.is_none() {
                return Ok(Ok(minio));
            }
            // The store has no event for "ready"; this is the pause between two questions.
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Err(format!("no answer in {READY_MAX:?}: {}", tail(&log))))
    }
}

impl Drop for Minio {
    fn drop(&mut self) {
        self.kill();
    }
}

fn start_process(port: u16, console: u16, data: &Path, log: &Path) -> io::Result<Child> {
    let bin = env::var_os(MINIO_BIN).unwrap_or_else(|| "minio".into());
    let log = File::create(log)?;
    let mut command = sandbox::command(&bin);
    command
        .arg("server")
        .arg(data)
        .args(["--address", &format!("127.0.0.1:{port}")])
        .args([
            "--console-address",
            &format!("127.0.0.1:{console}"),
            "--quiet",
        ])
        .env("MINIO_ROOT_USER", USER)
        .env("MINIO_ROOT_PASSWORD", USER)
        // Nothing of this machine's own configuration, and no call home.
        .env("HOME", data.parent().unwrap_or(data))
        .env("MINIO_UPDATE", "off")
        .env("MINIO_BROWSER", "off")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    sandbox::spawn(command)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", bin.display())))
}

/// A port that was free a moment ago.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(8).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}
