//! Who does the work: the bare SDK, ackfs through one of its doors, a native file, or a peer.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use ackfs_tests::minio::USER;
use ackfs_tests::mount::is_mounted;
use ackfs_tests::{Door, Mount, Options, sandbox};
use anyhow::{Context as _, Result, bail};
use nix::mount::{MntFlags, umount2};

use crate::{BUCKET, Bench};

/// One column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// The bare SDK: the reference.
    Sdk,
    /// A file on the local disk, in the page cache: the reference of reading again.
    Native,
    /// ackfs through this door.
    Ackfs(Door),
    /// Somebody else.
    Peer(Peer),
}

impl Subject {
    /// The head of its column.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Subject::Sdk => "bare SDK",
            Subject::Native => "local file",
            Subject::Ackfs(Door::Uring) => "ackfs, ring",
            Subject::Ackfs(Door::Classic) => "ackfs, classic",
            Subject::Peer(peer) => peer.program(),
        }
    }

    /// A fresh mount of the bench's bucket, for those who mount.
    pub(crate) fn mount(self, bench: &Bench) -> Result<Served> {
        match self {
            Subject::Sdk | Subject::Native => bail!("{} mounts nothing", self.name()),
            Subject::Ackfs(door) => {
                let options = Options::new(BUCKET, &bench.minio.endpoint(), USER, USER).door(door);
                let mount = options
                    .try_mount()
                    .map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
                Ok(Served::Ackfs(mount))
            }
            Subject::Peer(peer) => peer.mount(&bench.minio.endpoint()),
        }
    }
}

/// A gateway of somebody else, used as its own documentation says for MinIO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// awslabs/mountpoint-s3.
    MountS3,
    /// s3fs-fuse.
    S3fs,
    /// yandex-cloud/geesefs.
    Geesefs,
    /// rclone mount, its cache off: the only mode whose close() waits for the store.
    Rclone,
}

impl Peer {
    const ALL: [Peer; 4] = [Peer::MountS3, Peer::S3fs, Peer::Geesefs, Peer::Rclone];

    /// Those that are on `PATH`.
    pub(crate) fn found() -> Vec<Peer> {
        let path = env::var_os("PATH").unwrap_or_default();
        let on_path =
            |peer: &Peer| env::split_paths(&path).any(|dir| dir.join(peer.program()).is_file());
        Self::ALL.into_iter().filter(on_path).collect()
    }

    fn program(self) -> &'static str {
        match self {
            Peer::MountS3 => "mount-s3",
            Peer::S3fs => "s3fs",
            Peer::Geesefs => "geesefs",
            Peer::Rclone => "rclone",
        }
    }

    fn mount(self, endpoint: &str) -> Result<Served> {
        let dir = sandbox::dir("peer-");
        let path = dir.path();
        let mut command = sandbox::command(self.program());
        match self {
            Peer::MountS3 => {
                command
                    .arg(BUCKET)
                    .arg(path)
                    .args(["--endpoint-url", endpoint, "-f"]);
                command.args(["--force-path-style", "--region", "us-east-1"]);
                command.args(["--allow-delete", "--allow-overwrite"])
            }
            Peer::S3fs => command.arg(BUCKET).arg(path).args([
                "-f",
                "-o",
                &format!("url={endpoint},use_path_request_style"),
            ]),
            Peer::Geesefs => command
                .args(["-f", "--endpoint", endpoint, "--list-type", "2", BUCKET])
                .arg(path),
            Peer::Rclone => command
                .arg("mount")
                .arg(format!(
                    ":s3,provider=Minio,env_auth,endpoint=\"{endpoint}\":{BUCKET}"
                ))
                .arg(path)
                .args(["--vfs-cache-mode", "off"]),
        };
        for (name, value) in [
            ("AWS_ACCESS_KEY_ID", USER),
            ("AWS_SECRET_ACCESS_KEY", USER),
            // s3fs before 1.92 knows only these.
            ("AWSACCESSKEYID", USER),
            ("AWSSECRETACCESSKEY", USER),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ] {
            command.env(name, value);
        }
        // The endpoint speaks plain HTTP, and rclone refuses to start with one.
        command.env_remove("AWS_CA_BUNDLE");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = sandbox::spawn(command).context("it cannot be started")?;
        let mut served = Served::Peer { child, dir };
        let begin = Instant::now();
        while !is_mounted(served.dir()) {
            let Served::Peer { child, .. } = &mut served else {
                unreachable!("made above")
            };
            if let Some(status) = child.try_wait()? {
                bail!("{} ended with {status}", self.program());
            }
            if begin.elapsed() > Duration::from_secs(30) {
                bail!("{} has not mounted in 30 s", self.program());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(served)
    }
}

/// A mount that serves; unmounted and ended when dropped.
#[derive(Debug)]
pub(crate) enum Served {
    /// Ours.
    Ackfs(Mount),
    /// Somebody else's.
    Peer {
        /// Its process.
        child: Child,
        /// Where it is mounted.
        dir: tempfile::TempDir,
    },
}

impl Served {
    /// The mounted directory.
    pub(crate) fn dir(&self) -> &Path {
        match self {
            Served::Ackfs(mount) => mount.dir(),
            Served::Peer { dir, .. } => dir.path(),
        }
    }

    /// A path below it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// The gateway's process.
    pub(crate) fn pid(&self) -> u32 {
        match self {
            Served::Ackfs(mount) => mount.pid(),
            Served::Peer { child, .. } => child.id(),
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Ours does it by itself.
        if let Served::Peer { child, dir } = self {
            let _ = umount2(dir.path(), MntFlags::MNT_DETACH);
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
