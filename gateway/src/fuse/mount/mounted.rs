//! A mounted directory, from the answer to INIT to the end of its connection.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fuser::Session;
use nix::mount::MntFlags;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use parking_lot::Mutex;
use tracing::{info, warn};

use super::connect::{self, Connected, TransportInfo};
use super::dead;
use super::error::{MountError, UnmountError};
use super::init::Init;
use super::kernel::Kernel;
use super::options::MountOptions;
use super::sizing::Sizing;
use super::umount::umount;
use crate::fuse::connection::Connection;
use crate::fuse::context::ConnectionContext;
use crate::fuse::doors::{Rings, Threads};
use crate::fuse::handler::Handler;
use crate::fuse::stats::TransportStats;
use crate::fuse::telemetry::Telemetry;

/// What [`Mounted::unmount`] achieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmounted {
    /// The connection ends now.
    Ended,
    /// The directory is free, but files were open: the connection ends when the last is closed.
    Detached,
    /// Nothing was done: another program made the mount and takes it away. The connection ends with this
    /// process, or with the unmount.
    NotOurs,
}

/// A mounted directory.
#[derive(Debug)]
pub struct Mounted {
    /// `None` if another program mounted it.
    dir: Option<PathBuf>,
    fd: OwnedFd,
    /// fuser's session, for the unmount. Taken once; held while the mount is taken away.
    session: Mutex<Option<Session<Init>>>,
    info: Mutex<TransportInfo>,
    sizing: Sizing,
    kernel: Kernel,
    /// Prepared by `mount`, used by `serve`.
    rings: Mutex<Option<Rings>>,
    threads: Mutex<Option<Threads>>,
}

impl Mounted {
    /// Mounts on `dir`. Nothing is served before [`Mounted::serve`]: call that at once, since
    /// whoever touches the mount waits. A dead mount that an earlier ackfs left on `dir` is taken
    /// away first.
    ///
    /// # Errors
    /// See [`MountError`]. Nothing is left mounted then.
    pub fn mount(dir: &Path, options: &MountOptions) -> Result<Self, MountError> {
        let dir = dead::clear(dir)?;
        let connected = connect::mount(&dir, options)?;
        Ok(Self::new(Some(dir), connected))
    }

    /// Takes a `/dev/fuse` that another program has mounted, and will unmount: what decided about the
    /// mount (source, subtype, options of mount(2)) was theirs, what INIT decides is of `options`. `shown`
    /// names it in errors. Waits for the kernel's INIT, which comes with the mount.
    ///
    /// # Errors
    /// See [`MountError`]. The descriptor is closed then, which ends its mount.
    pub fn adopt(fd: OwnedFd, shown: &Path, options: &MountOptions) -> Result<Self, MountError> {
        Ok(Self::new(None, connect::adopt(fd, shown, options)?))
    }

    fn new(dir: Option<PathBuf>, connected: Connected) -> Self {
        Self {
            dir,
            fd: connected.fd,
            session: Mutex::new(Some(connected.session)),
            info: Mutex::new(connected.info),
            sizing: connected.sizing,
            kernel: connected.kernel,
            rings: Mutex::new(connected.rings),
            threads: Mutex::new(None),
        }
    }

    /// Starts the threads that serve `handler`. Returns when requests flow; waits for a few system
    /// calls only. A second call does nothing.
    ///
    /// # Errors
    /// A thread could not be started. The mount is of no use then; drop it.
    pub fn serve(&self, handler: Arc<dyn Handler>) -> io::Result<()> {
        self.serve_recorded(handler, Telemetry::default())
    }

    /// As [`Mounted::serve`], with every answer recorded to `telemetry`.
    ///
    /// # Errors
    /// As [`Mounted::serve`].
    pub fn serve_recorded(
        &self,
        handler: Arc<dyn Handler>,
        telemetry: Telemetry,
    ) -> io::Result<()> {
        let mut threads = self.threads.lock();
        if threads.is_some() {
            return Ok(());
        }
        let connection = Connection::new(handler, ConnectionContext::new(telemetry));
        let (rings, geometry) = (self.rings.lock().take(), self.sizing.geometry());
        let (started, reason) = Threads::start(&self.fd, connection, rings, &geometry)?;
        if let Some(reason) = reason {
            warn!(%reason, "the kernel refused the ring; serving over /dev/fuse");
            let mut info = self.info.lock();
            info.ring = false;
            info.reason = Some(reason);
            info.depth = 0;
            info.queues = 0;
        }
        self.kernel.start()?;
        *threads = Some(started);
        Ok(())
    }

    /// Where it is mounted, without symbolic links; `None` if another program mounted it.
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// The transport as it really is; final once [`Mounted::serve`] has returned.
    pub fn info(&self) -> TransportInfo {
        self.info.lock().clone()
    }

    /// What can be said to the kernel unasked.
    pub fn kernel(&self) -> Kernel {
        self.kernel.clone()
    }

    /// The counters now.
    pub fn stats(&self) -> TransportStats {
        let mut stats = TransportStats::default();
        if let Some(threads) = &*self.threads.lock() {
            threads.add_to(&mut stats);
        }
        stats.notifications_dropped = self.kernel.dropped();
        stats
    }

    /// Waits until the kernel has ended the connection (unmounted and no file open any more, or
    /// aborted) and every thread has gone. Returns at once if nothing was ever served.
    pub fn wait(&self) {
        let connection = self.threads.lock().as_ref().map(Threads::connection);
        if let Some(connection) = connection {
            connection.wait();
        }
        self.kernel.stop();
        let threads = self.threads.lock();
        if let Some(threads) = &*threads {
            threads.join();
        }
    }

    /// Whether the kernel still holds the connection. Never waits.
    pub fn connected(&self) -> bool {
        connected(self.fd.as_fd())
    }

    /// Unmounts. Busy: the directory is detached and the connection goes on until the last file
    /// is closed. With `force` the connection is aborted instead: callers that wait get an error,
    /// and what the handler has not yet saved it must save without them. Must not be called from a
    /// handler. May wait for the kernel to take its requests back.
    ///
    /// # Errors
    /// The kernel or fusermount3 refused.
    pub fn unmount(&self, force: bool) -> Result<Unmounted, UnmountError> {
        let Some(mut session) = self.session.lock().take() else {
            return Ok(Unmounted::Ended);
        };
        let Some(dir) = &self.dir else {
            return Ok(if self.connected() {
                Unmounted::NotOurs
            } else {
                Unmounted::Ended
            });
        };
        if !self.connected() {
            forget(session);
            return Ok(Unmounted::Ended);
        }
        if force {
            let ended = unmount_now(dir, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH);
            forget(session);
            return ended.map(|()| Unmounted::Ended);
        }
        // However this ends, the session has given its mount up and will not try again when
        // dropped.
        match session.unmount() {
            Ok(()) if self.connected() => Ok(Unmounted::Detached),
            Ok(()) => Ok(Unmounted::Ended),
            Err(cause) => {
                info!(dir = %dir.display(), %cause, "busy; detaching");
                unmount_now(dir, MntFlags::MNT_DETACH)?;
                Ok(if self.connected() {
                    Unmounted::Detached
                } else {
                    Unmounted::Ended
                })
            }
        }
    }

    /// Unmounts if nobody uses the directory, as umount(8) does. Gives whether nothing is mounted any
    /// more; if somebody does, everything goes on as before. A mount that another program made is left to
    /// it, as if nothing were mounted. Must not be called from a handler. May wait for the kernel to take
    /// its requests back.
    ///
    /// # Errors
    /// The kernel or fusermount3 refused for another reason; everything goes on as before.
    pub fn unmount_idle(&self) -> Result<bool, UnmountError> {
        let mut session = self.session.lock();
        if let (Some(_), Some(dir), true) = (&*session, &self.dir, self.connected()) {
            match unmount_now(dir, MntFlags::empty()) {
                Err(refused) if refused.source.kind() == io::ErrorKind::ResourceBusy => {
                    return Ok(false);
                }
                other => other?,
            }
        }
        if let Some(session) = session.take() {
            forget(session);
        }
        Ok(true)
    }
}

impl Drop for Mounted {
    /// Unmounts what is still mounted and waits for the threads unless files are still open.
    fn drop(&mut self) {
        match self.unmount(false) {
            Ok(Unmounted::Ended) => self.wait(),
            Ok(Unmounted::Detached | Unmounted::NotOurs) => self.kernel.stop(),
            Err(cause) => {
                warn!(%cause, "mount left behind");
                self.kernel.stop();
            }
        }
    }
}

/// Drops a session whose mount is gone. Its own drop would call umount(2) on the path once more
/// (it takes a dead connection for a live mount), and take away whatever is mounted there by now;
/// so it is leaked: a descriptor and a few hundred bytes, once in the life of a mount.
fn forget(session: Session<Init>) {
    std::mem::forget(session);
}

fn connected(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::empty())];
    // Only POLLERR can be reported, and fuse_dev_poll reports it exactly when not connected.
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(0))
}

/// Takes the mount on `dir` away. One that is no mount any more is: somebody was faster (EINVAL).
fn unmount_now(dir: &Path, flags: MntFlags) -> Result<(), UnmountError> {
    match umount(dir, flags) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        other => other.map_err(|source| UnmountError {
            dir: dir.to_owned(),
            source,
        }),
    }
}
