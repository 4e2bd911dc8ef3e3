//! A mount's life: probe, mount, INIT, serve, wait, unmount.
//!
//! fuser's `Session` calls mount(2) or fusermount3 and answers INIT; its own loop is not run. What
//! INIT says cannot be taken back, and after FUSE_OVER_IO_URING the kernel lets no request through
//! until every queue is registered. So everything of the ring that can fail is done before: memory
//! is mapped and every ring thread has built its io_uring when the flag is asked for. If REGISTER
//! is refused after all, the kernel goes back to `/dev/fuse` by itself, and so do we.
//!
//! ```text
//! mount(dir, options)   probe -> rings prepared -> mount, INIT -> readahead      nothing is served yet
//! serve(handler)        device thread(s) -> REGISTER everywhere, or fall back    requests flow
//! wait()                until the kernel ends the connection and all threads have gone
//! unmount_idle()        umount(2); busy: nothing happens
//! unmount(force)        umount(2); busy: detached, lives on until the last file is closed
//! ```

mod dead;
mod init;
mod kernel;
mod options;
mod probe;
mod refusal;
mod release;
mod threads;
mod umount;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fuser::{Config, MountOption, Session, SessionACL};
use nix::mount::MntFlags;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use parking_lot::Mutex;
use tracing::{info, warn};

use self::init::{Init, Negotiated};
use self::threads::Threads;
use super::connection::Connection;
use super::ring::Rings;
use super::{Handler, Telemetry, TransportStats};

pub use self::dead::DEAD;
pub use self::kernel::{BackingId, Kernel};
pub use self::options::{MountOptions, Transport};
pub use self::probe::{Unavailable, probe, probe_setup, switch};
pub use self::refusal::{NoDevice, WITHOUT_NO_NEW_PRIVS, device};
pub use self::release::{DISABLE_SYNC_RELEASE, NoSyncRelease, sync_release};
pub use self::umount::umount;

/// Why a directory could not be mounted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// There is no such directory.
    #[error("{0} does not exist; create the directory first")]
    Missing(PathBuf),
    /// It is there but no directory.
    #[error("{0} is not a directory; name a directory to mount on")]
    NotDirectory(PathBuf),
    /// A mount of another program died there.
    #[error("{0} holds a dead mount of another program; run `umount -l {0}` first")]
    Dead(PathBuf),
    /// The kernel has no FUSE, or this container may not see it.
    #[error("/dev/fuse cannot be opened: {0}; {mend}", mend = .0.mend())]
    NoDevice(NoDevice),
    /// mount(2) refused, and fusermount3 did not help.
    #[error("mounting on {dir} was refused: {why}; {mend}")]
    Refused {
        /// Where.
        dir: PathBuf,
        /// Why, in words.
        why: String,
        /// What mends it.
        mend: String,
    },
    /// The ring was asked for by name and cannot be had.
    #[error("transport uring is not available: {0}")]
    NoRing(Unavailable),
    /// Anything else.
    #[error("mounting {dir} failed: {source}; run ackfs doctor, which looks for what is missing")]
    Failed {
        /// Where.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Why a mount could not be taken away.
#[derive(Debug, thiserror::Error)]
#[error("unmounting {dir} failed: {source}")]
pub struct UnmountError {
    dir: PathBuf,
    source: io::Error,
}

/// What [`Mounted::unmount`] achieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmounted {
    /// The connection ends now.
    Ended,
    /// The directory is free, but files were open: the connection ends when the last is closed.
    Detached,
}

/// The transport as it really is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportInfo {
    /// Whether requests come over io_uring.
    pub ring: bool,
    /// Why they do not.
    pub reason: Option<String>,
    /// Slots a queue begins with; 0 without the ring.
    pub depth: u32,
    /// Kernel queues; 0 without the ring.
    pub queues: u32,
    /// Largest WRITE and READ in bytes.
    pub max_write: u32,
    /// Readahead and asynchronous requests that the kernel lets be under way at a time.
    pub max_background: u16,
    /// Whether files may be opened with a backing file.
    pub passthrough: bool,
    /// Whether closers wait for the RELEASE of files opened with FOPEN_SYNC_RELEASE, or why not.
    pub sync_release: Result<(), NoSyncRelease>,
    /// The kernel's minor version of the protocol: 7.x.
    pub kernel_minor: u32,
    /// The mount's readahead window in KiB, if it could be read.
    pub readahead_kb: Option<u32>,
}

/// A mounted directory.
#[derive(Debug)]
pub struct Mounted {
    dir: PathBuf,
    fd: OwnedFd,
    /// fuser's session, for the unmount. Taken once; held while the mount is taken away.
    session: Mutex<Option<Session<Init>>>,
    info: Mutex<TransportInfo>,
    options: MountOptions,
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
        let plan = options.plan();
        let (rings, reason) = prepare(options, &plan)?;
        let negotiated = Arc::new(Mutex::new(Negotiated::default()));
        let init = Init::new(options, &plan, rings.is_some(), Arc::clone(&negotiated));
        // fuser logs an error of its own where it is not there.
        device().map_err(MountError::NoDevice)?;
        let session = Session::new(init, &dir, &config(options))
            .map_err(|source| refusal::explain(&dir, options, &source))?;
        let failed = |source: io::Error| MountError::Failed {
            dir: dir.clone(),
            source,
        };
        let fd = session.as_fd().try_clone_to_owned().map_err(failed)?;
        let device = fd.try_clone().map_err(failed)?;
        let negotiated = *negotiated.lock();
        let (rings, reason) = match rings {
            Some(rings) if negotiated.ring => (Some(rings), None),
            Some(_) => {
                let cause = Unavailable::NotOffered;
                if options.transport == Transport::Uring {
                    drop(session);
                    return Err(MountError::NoRing(cause));
                }
                (None, Some(cause.to_string()))
            }
            None => (None, reason),
        };
        let readahead_kb = dead::readahead(&dir, options.readahead_kb);
        let info = TransportInfo {
            ring: rings.is_some(),
            reason,
            depth: rings.as_ref().map_or(0, |_| plan.depth),
            queues: rings.as_ref().map_or(0, |_| plan.queues),
            max_write: plan.max_write,
            max_background: plan.max_background,
            passthrough: negotiated.passthrough,
            sync_release: if negotiated.sync_release {
                Ok(())
            } else {
                Err(release::why_not_on(&dir))
            },
            kernel_minor: negotiated.minor,
            readahead_kb,
        };
        let kernel = Kernel::new(session.notifier(), device, negotiated);
        Ok(Self {
            dir,
            fd,
            session: Mutex::new(Some(session)),
            info: Mutex::new(info),
            options: options.clone(),
            kernel,
            rings: Mutex::new(rings),
            threads: Mutex::new(None),
        })
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
        let connection = Connection::new(handler, telemetry);
        let plan = self.options.plan();
        let (started, reason) =
            Threads::start(&self.fd, connection, self.rings.lock().take(), &plan)?;
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

    /// Where it is mounted, without symbolic links.
    pub fn dir(&self) -> &Path {
        &self.dir
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
        if !self.connected() {
            forget(session);
            return Ok(Unmounted::Ended);
        }
        if force {
            let ended = self.umount(MntFlags::MNT_FORCE | MntFlags::MNT_DETACH);
            forget(session);
            return ended.map(|()| Unmounted::Ended);
        }
        // However this ends, the session has given its mount up and will not try again when
        // dropped.
        match session.unmount() {
            Ok(()) if self.connected() => Ok(Unmounted::Detached),
            Ok(()) => Ok(Unmounted::Ended),
            Err(cause) => {
                info!(dir = %self.dir.display(), %cause, "busy; detaching");
                self.umount(MntFlags::MNT_DETACH)?;
                Ok(if self.connected() {
                    Unmounted::Detached
                } else {
                    Unmounted::Ended
                })
            }
        }
    }

    /// Unmounts if nobody uses the directory, as umount(8) does. Gives whether nothing is mounted any
    /// more; if somebody does, everything goes on as before. Must not be called from a handler. May
    /// wait for the kernel to take its requests back.
    ///
    /// # Errors
    /// The kernel or fusermount3 refused for another reason; everything goes on as before.
    pub fn unmount_idle(&self) -> Result<bool, UnmountError> {
        let mut session = self.session.lock();
        if session.is_some() && self.connected() {
            match self.umount(MntFlags::empty()) {
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

    fn umount(&self, flags: MntFlags) -> Result<(), UnmountError> {
        match umount(&self.dir, flags) {
            // EINVAL: it is no mount any more, somebody was faster.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            other => other.map_err(|source| UnmountError {
                dir: self.dir.clone(),
                source,
            }),
        }
    }

    /// A file that can back opens of an inode, see [`Kernel::open_backing`].
    ///
    /// # Errors
    /// As there.
    pub fn open_backing(&self, file: &File) -> io::Result<BackingId> {
        self.kernel.open_backing(file)
    }
}

impl Drop for Mounted {
    /// Unmounts what is still mounted and waits for the threads unless files are still open.
    fn drop(&mut self) {
        match self.unmount(false) {
            Ok(Unmounted::Ended) => self.wait(),
            Ok(Unmounted::Detached) => self.kernel.stop(),
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

/// The rings if they are wanted and can be had, and the reason why not.
fn prepare(
    options: &MountOptions,
    plan: &options::Plan,
) -> Result<(Option<Rings>, Option<String>), MountError> {
    if options.transport == Transport::Classic {
        return Ok((None, Some("classic was asked for".to_owned())));
    }
    let prepared = probe().and_then(|()| {
        Rings::prepare(&plan.geometry()).map_err(|cause| Unavailable::Rings(cause.to_string()))
    });
    match prepared {
        Ok(rings) => Ok((Some(rings), None)),
        Err(cause) if options.transport == Transport::Uring => Err(MountError::NoRing(cause)),
        Err(cause) => {
            warn!(reason = %cause, "FUSE over io_uring is not available; serving over /dev/fuse");
            Ok((None, Some(cause.to_string())))
        }
    }
}

fn config(options: &MountOptions) -> Config {
    let mut config = Config::default();
    config.acl = if options.allow_other {
        SessionACL::All
    } else {
        SessionACL::Owner
    };
    config.mount_options = vec![
        MountOption::FSName(shown_source(&options.source)),
        // As a plain option it reaches the kernel on both ways: the type reads fuse.ackfs.
        MountOption::CUSTOM("subtype=ackfs".to_owned()),
        // The kernel checks modes before it asks us.
        MountOption::DefaultPermissions,
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoAtime,
    ];
    if options.read_only {
        config.mount_options.push(MountOption::RO);
    }
    let extra = options.extra.iter().cloned().map(MountOption::CUSTOM);
    config.mount_options.extend(extra);
    config
}

/// What mountinfo shows for `source`: commas separate options on fusermount3's command line.
pub fn shown_source(source: &str) -> String {
    source.replace(',', "_")
}
