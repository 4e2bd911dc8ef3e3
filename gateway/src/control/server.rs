//! The daemon's side of the control socket.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};

use super::address::{PATIENCE, at_short, beside, path_in, remove};
use super::messages::{ControlReply, ControlRequest};

/// Connections at once; more wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 8;
/// The longest request in bytes.
const REQUEST_MAX: u64 = 4096;

/// A request with the way back to whoever made it. Bounded: progress that nobody reads is dropped.
#[derive(Debug)]
pub struct PendingRequest {
    /// What is asked.
    pub request: ControlRequest,
    /// Where replies go.
    pub replies: mpsc::Sender<ControlReply>,
}

/// The socket that a daemon listens on; removed when dropped.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    listener: UnixListener,
}

impl ControlSocket {
    /// Makes the socket of the mount on `dir`, which is resolved, in the first of `runtime_dirs`
    /// that can be had and that the mount does not hide. Runs inside a tokio runtime.
    ///
    /// # Errors
    /// No directory can be had, or a living daemon serves `dir` already.
    pub fn bind(runtime_dirs: &[PathBuf], dir: &Path) -> io::Result<Self> {
        let mut failure = io::Error::other("the mount would hide it");
        for runtime_dir in beside(runtime_dirs, dir) {
            match Self::bind_in(runtime_dir, dir) {
                Ok(socket) => return Ok(socket),
                // Another directory would only hide that there are two.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
                Err(error) => {
                    let text = format!("{}: {error}", runtime_dir.display());
                    failure = io::Error::new(error.kind(), text);
                }
            }
        }
        Err(failure)
    }

    fn bind_in(runtime_dir: &Path, dir: &Path) -> io::Result<Self> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(runtime_dir)?;
        // A directory that another user made below /tmp could be swapped under us.
        let owner = std::fs::metadata(runtime_dir)?.uid();
        if owner != nix::unistd::geteuid().as_raw() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the directory is another user's",
            ));
        }
        let path = path_in(runtime_dir, dir);
        if at_short(&path, |path| BlockingStream::connect(path)).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another ackfs serves this directory",
            ));
        }
        remove(&path);
        let listener = at_short(&path, |path| UnixListener::bind(path))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { path, listener })
    }

    /// Takes connections and passes what they ask to `daemon`, until the task is dropped.
    pub async fn serve(self, daemon: mpsc::Sender<PendingRequest>) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let place = room.clone().acquire_owned().await.expect("never closed");
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let daemon = daemon.clone();
                    tokio::spawn(async move {
                        if let Err(error) = converse(stream, daemon).await {
                            tracing::debug!(%error, "a control connection ended early");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    // Out of descriptors: the next accept would fail at once, and again.
                    tracing::warn!(%error, "the control socket takes no connection");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

async fn converse(stream: UnixStream, daemon: mpsc::Sender<PendingRequest>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut reader = tokio::io::BufReader::new(read.take(REQUEST_MAX));
    tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await??;
    let (replies, mut incoming) = mpsc::channel(4);
    match serde_json::from_str(&line) {
        Ok(request) => {
            // The daemon is at its end if nobody takes it; the closed channel answers below.
            let _ = daemon.send(PendingRequest { request, replies }).await;
        }
        Err(error) => {
            let message = format!("request not understood: {error}");
            let _ = replies.send(ControlReply::Failed { message }).await;
            drop(replies);
        }
    }
    while let Some(reply) = incoming.recv().await {
        let mut line = serde_json::to_vec(&reply)?;
        line.push(b'\n');
        tokio::time::timeout(PATIENCE, write.write_all(&line)).await??;
        if matches!(reply, ControlReply::Unmounted { .. }) {
            // Open until the process ends: that end is what the client waits for, since only then
            // the cache directory is free for the next mount.
            std::mem::forget(write);
            return Ok(());
        }
    }
    write.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Client;
    use crate::control::messages::Status;

    /// A daemon that answers every question with `answer`.
    fn daemon(socket: ControlSocket, answer: ControlReply) -> tokio::task::JoinHandle<()> {
        let (send, mut asked) = mpsc::channel::<PendingRequest>(1);
        tokio::spawn(async move {
            while let Some(asked) = asked.recv().await {
                asked.replies.send(answer.clone()).await.unwrap();
            }
        });
        tokio::spawn(socket.serve(send))
    }

    fn status() -> ControlReply {
        ControlReply::Status(Status {
            dir: "/mnt".into(),
            source: "s3://data".into(),
            pid: 1,
            version: "0".into(),
        })
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_daemon_is_found_by_its_mount_path() {
        let root = tempfile::tempdir().unwrap();
        let dirs = [root.path().join("none/x"), root.path().join("run")];
        let socket = ControlSocket::bind(&dirs[1..], Path::new("/mnt")).unwrap();
        let serving = daemon(socket, status());
        let found = tokio::task::spawn_blocking(move || {
            assert!(
                Client::connect(&dirs, Path::new("/other"))
                    .unwrap()
                    .is_none()
            );
            let mut client = Client::connect(&dirs, Path::new("/mnt")).unwrap().unwrap();
            client.request(ControlRequest::Status).unwrap();
            assert!(
                matches!(client.reply().unwrap(), Some(ControlReply::Status(s)) if s.dir == "/mnt")
            );
            assert!(client.reply().unwrap().is_none());
            Client::all(&dirs).len()
        });
        assert_eq!(found.await.unwrap(), 1);
        serving.abort();
    }

    /// A socket's path ends at 107 bytes. A mount whose runtime directory was longer had no control
    /// socket: `ackfs umount` and `stats` did not find it.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_long_runtime_directory_has_its_socket() {
        let root = tempfile::tempdir().unwrap();
        let dirs = [root.path().join("long/".repeat(60)), root.path().join("b")];
        let socket = ControlSocket::bind(&dirs, Path::new("/mnt")).unwrap();
        assert!(
            dirs[0].exists() && !dirs[1].exists(),
            "the first one serves"
        );
        let error = ControlSocket::bind(&dirs, Path::new("/mnt")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let serving = daemon(socket, status());
        let found = tokio::task::spawn_blocking({
            let dirs = dirs.clone();
            move || {
                let mut client = Client::connect(&dirs, Path::new("/mnt")).unwrap().unwrap();
                client.request(ControlRequest::Status).unwrap();
                assert!(matches!(
                    client.reply().unwrap(),
                    Some(ControlReply::Status(_))
                ));
                Client::all(&dirs).len()
            }
        });
        assert_eq!(found.await.unwrap(), 1);
        serving.abort();
        let _ = serving.await;
        assert_eq!(std::fs::read_dir(&dirs[0]).unwrap().count(), 0);
        let none = Client::connect(&dirs, Path::new("/mnt")).unwrap();
        assert!(none.is_none());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_runtime_directory_that_the_mount_hides_is_passed_over() {
        let root = tempfile::tempdir().unwrap();
        let mnt = root.path().canonicalize().unwrap().join("mnt");
        let dirs = [mnt.join("run"), root.path().join("run")];
        let socket = ControlSocket::bind(&dirs, &mnt).unwrap();
        assert!(!dirs[0].exists() && dirs[1].exists());
        // The first one is the same in a dead mount: connecting there would fail by other words.
        std::fs::write(&mnt, "").unwrap();
        assert!(Client::connect(&dirs, &mnt).unwrap().is_some());
        drop(socket);
        let error = ControlSocket::bind(&dirs[..1], &mnt).unwrap_err();
        assert!(error.to_string().contains("hide"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_living_daemon_is_not_replaced_and_a_dead_one_is() {
        let root = tempfile::tempdir().unwrap();
        let dirs = [root.path().to_owned()];
        let mnt = Path::new("/mnt");
        let socket = ControlSocket::bind(&dirs, mnt).unwrap();
        let other = root.path().join("other");
        let error = ControlSocket::bind(&[dirs[0].clone(), other], mnt).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        // A killed daemon leaves its file: made here by a listener whose file is not removed.
        drop(socket);
        drop(std::os::unix::net::UnixListener::bind(path_in(&dirs[0], mnt)).unwrap());
        assert!(path_in(&dirs[0], mnt).exists());
        let socket = ControlSocket::bind(&dirs, mnt).unwrap();
        drop(socket);
        assert!(!path_in(&dirs[0], mnt).exists());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn garbage_is_answered_and_harms_nobody() {
        let root = tempfile::tempdir().unwrap();
        let dirs = [root.path().to_owned()];
        let serving = daemon(
            ControlSocket::bind(&dirs, Path::new("/mnt")).unwrap(),
            status(),
        );
        let asked = tokio::task::spawn_blocking(move || {
            for garbage in [&b"\n"[..], b"{}\n", b"\xff\xff\n", &[b'a'; 9000]] {
                let mut client = Client::connect(&dirs, Path::new("/mnt")).unwrap().unwrap();
                // The daemon may hang up before it has read all of a long one.
                let _ = client.send(garbage);
                assert!(!matches!(client.reply(), Ok(Some(ControlReply::Status(_)))));
            }
            let mut client = Client::connect(&dirs, Path::new("/mnt")).unwrap().unwrap();
            client.request(ControlRequest::Status).unwrap();
            client.reply().unwrap()
        });
        assert!(matches!(
            asked.await.unwrap(),
            Some(ControlReply::Status(_))
        ));
        serving.abort();
    }
}
