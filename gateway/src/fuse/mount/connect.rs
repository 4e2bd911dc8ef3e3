//! Makes a connection whose INIT is answered, by a mount of ours or on a descriptor that another program
//! mounted. What both have in common is here: the rings are prepared before, and what INIT said decides
//! whether they are kept.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use fuser::{Config, MountOption, Session, SessionACL};
use parking_lot::Mutex;
use tracing::warn;

use super::device_node::device;
use super::error::MountError;
use super::init::{Init, Negotiated};
use super::kernel::Kernel;
use super::options::{MountOptions, Transport};
use super::probe::{Unavailable, probe};
use super::readahead::readahead;
use super::refusal;
use super::release::{self, NoSyncRelease};
use super::sizing::Sizing;
use crate::fuse::doors::Rings;

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

/// A connection that nobody serves yet.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) session: Session<Init>,
    pub(super) fd: OwnedFd,
    pub(super) kernel: Kernel,
    pub(super) rings: Option<Rings>,
    pub(super) sizing: Sizing,
    pub(super) info: TransportInfo,
}

/// Mounts on `dir`, which is without symbolic links.
pub(super) fn mount(dir: &Path, options: &MountOptions) -> Result<Connected, MountError> {
    let prepared = Prepared::new(options)?;
    // fuser logs an error of its own where it is not there.
    device().map_err(MountError::NoDevice)?;
    let session = Session::new(prepared.init(options), dir, &config(options))
        .map_err(|source| refusal::explain(dir, options, &source))?;
    let mut connected = prepared.finish(session, dir, options)?;
    connected.info.readahead_kb = readahead(dir, options.readahead_kb);
    if connected.info.sync_release.is_err() {
        connected.info.sync_release = Err(release::why_not_on(Some(dir)));
    }
    Ok(connected)
}

/// Answers INIT on `fd`, a `/dev/fuse` that is mounted already; `shown` names it in errors. Waits until
/// it is mounted. Where is not known here, so the kernel's readahead stays as it is.
pub(super) fn adopt(
    fd: OwnedFd,
    shown: &Path,
    options: &MountOptions,
) -> Result<Connected, MountError> {
    let prepared = Prepared::new(options)?;
    let init = prepared.init(options);
    let session = Session::from_fd(init, fd, acl(options), Config::default());
    let session = session.map_err(|source| failed(shown, source))?;
    prepared.finish(session, shown, options)
}

fn failed(dir: &Path, source: io::Error) -> MountError {
    MountError::Failed {
        dir: dir.to_owned(),
        source,
    }
}

/// All that can be had before INIT is answered.
struct Prepared {
    sizing: Sizing,
    rings: Option<Rings>,
    /// Why there are no rings.
    reason: Option<String>,
    /// What [`Init`] finds out.
    negotiated: Arc<Mutex<Negotiated>>,
}

impl Prepared {
    fn new(options: &MountOptions) -> Result<Self, MountError> {
        let sizing = Sizing::of(options);
        let (rings, reason) = prepare(options, &sizing)?;
        Ok(Self {
            sizing,
            rings,
            reason,
            negotiated: Arc::default(),
        })
    }

    fn init(&self, options: &MountOptions) -> Init {
        let negotiated = Arc::clone(&self.negotiated);
        Init::new(options, &self.sizing, self.rings.is_some(), negotiated)
    }

    /// The connection, once `session` has answered INIT.
    fn finish(
        self,
        session: Session<Init>,
        dir: &Path,
        options: &MountOptions,
    ) -> Result<Connected, MountError> {
        let fd = session.as_fd().try_clone_to_owned();
        let fd = fd.map_err(|source| failed(dir, source))?;
        let device = fd.try_clone().map_err(|source| failed(dir, source))?;
        let negotiated = *self.negotiated.lock();
        let (rings, reason) = match self.rings {
            Some(rings) if negotiated.ring => (Some(rings), None),
            Some(_) => {
                let cause = Unavailable::NotOffered;
                if options.transport == Transport::Uring {
                    return Err(MountError::NoRing(cause));
                }
                (None, Some(cause.to_string()))
            }
            None => (None, self.reason),
        };
        let sizing = self.sizing;
        let info = TransportInfo {
            ring: rings.is_some(),
            reason,
            depth: rings.as_ref().map_or(0, |_| sizing.depth),
            queues: rings.as_ref().map_or(0, |_| sizing.queues),
            max_write: sizing.max_write,
            max_background: sizing.max_background,
            passthrough: negotiated.passthrough,
            sync_release: if negotiated.sync_release {
                Ok(())
            } else {
                Err(release::why_not_on(None))
            },
            kernel_minor: negotiated.minor,
            readahead_kb: None,
        };
        Ok(Connected {
            kernel: Kernel::new(session.notifier(), device, negotiated),
            session,
            fd,
            rings,
            sizing,
            info,
        })
    }
}

/// The rings if they are wanted and can be had, and the reason why not.
fn prepare(
    options: &MountOptions,
    sizing: &Sizing,
) -> Result<(Option<Rings>, Option<String>), MountError> {
    if options.transport == Transport::Classic {
        return Ok((None, Some("classic was asked for".to_owned())));
    }
    let prepared = probe().and_then(|()| {
        Rings::prepare(&sizing.geometry()).map_err(|cause| Unavailable::Rings(cause.to_string()))
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

fn acl(options: &MountOptions) -> SessionACL {
    if options.allow_other {
        SessionACL::All
    } else {
        SessionACL::Owner
    }
}

fn config(options: &MountOptions) -> Config {
    let mut config = Config::default();
    config.acl = acl(options);
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
