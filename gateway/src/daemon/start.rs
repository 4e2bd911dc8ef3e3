//! The start of a mount: what can fail is done before the mount, cheapest first, so that a mistake costs no
//! round trip and leaves nothing behind.
//!
//! ```text
//! checks -> assemble -> attach -> serve
//! ```

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;

use tokio::runtime::Handle as Runtime;

use super::assemble::assemble;
use super::attach::{Attachment, attach};
use super::error::StartError;
use super::life::Daemon;
use super::mountpoint::{self, DirError};
use super::serve::{Listeners, ServedMount, serve};
use super::signals::Signals;
use crate::config::Config;
use crate::control::ControlSocket;
use crate::fuse::mount::mount_table::FS_TYPE;

/// Threads that talk to the store. They wait more than they work.
const WORKERS_MAX: usize = 4;

impl Daemon {
    /// Mounts and serves as `config` says. Waits for the store and the disk; SIGTERM and SIGINT end
    /// the wait at once, also for a process that the kernel does not end by itself (PID 1 of a
    /// container).
    ///
    /// # Errors
    /// As [`StartError`]; nothing is left mounted then.
    pub fn start(config: &Config) -> Result<Self, StartError> {
        let dir = mountpoint::resolve(&config.dir).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => DirError::Missing(config.dir.clone()),
            io::ErrorKind::NotADirectory => DirError::NotADirectory(config.dir.clone()),
            _ => DirError::Io(config.dir.clone(), error),
        })?;
        if mountpoint::check(&dir)? {
            tracing::warn!(dir = %dir.display(), "the directory is not empty; the mount hides what is in it");
        }
        mountpoint::check_cache(&dir, &config.cache)?;
        Self::start_on(config, Attachment::Directory(dir))
    }

    /// As [`Daemon::start`], on a `/dev/fuse` that another program has mounted and will unmount;
    /// `config.dir` is its name for people. It has no control socket, since that is found by the
    /// directory of a mount.
    ///
    /// # Errors
    /// As [`StartError`]; the descriptor is closed then.
    pub fn adopt(config: &Config, fd: OwnedFd) -> Result<Self, StartError> {
        Self::start_on(config, Attachment::Descriptor(fd, config.dir.clone()))
    }

    fn start_on(config: &Config, attachment: Attachment) -> Result<Self, StartError> {
        raise_descriptors();
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers.clamp(2, WORKERS_MAX))
            .thread_name("worker")
            .enable_all()
            .build()?;
        let begun = {
            let _entered = runtime.enter();
            begin(config, attachment, runtime.handle())
        };
        match begun {
            Ok((served, signals)) => Ok(Self::new(served, signals, config.drain_timeout, runtime)),
            Err(error) => {
                // Dropping it would wait for a name's resolution or a disk that nobody waits for.
                runtime.shutdown_background();
                Err(error)
            }
        }
    }
}

fn begin(
    config: &Config,
    attachment: Attachment,
    runtime: &Runtime,
) -> Result<(ServedMount, Signals), StartError> {
    let mut signals = Signals::new()?;
    let (dir, control) = match &attachment {
        Attachment::Directory(dir) => (dir.clone(), bind_control(config, dir)?),
        Attachment::Descriptor(_, shown) => (shown.clone(), None),
    };
    let assembled = assemble(config, runtime, &mut signals)?;
    let metrics = bind_metrics(config)?;
    let mounted = attach(config, attachment, runtime, &mut signals)?;
    let listeners = Listeners { control, metrics };
    let served = serve(config, assembled, mounted, dir, listeners)?;
    Ok((served, signals))
}

fn bind_metrics(config: &Config) -> Result<Option<TcpListener>, StartError> {
    let Some(address) = config.metrics else {
        return Ok(None);
    };
    let bound = TcpListener::bind(address);
    bound
        .map(Some)
        .map_err(|error| StartError::Metrics(address, error))
}

/// A mount without a control socket is worth having; one on a directory that another ackfs serves
/// is not.
fn bind_control(config: &Config, dir: &Path) -> Result<Option<ControlSocket>, StartError> {
    match ControlSocket::bind(&config.runtime_dirs, dir) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let what = (config.source.to_string(), FS_TYPE.to_owned());
            Err(DirError::Mounted(dir.to_owned(), what.0, what.1).into())
        }
        Err(error) => {
            tracing::warn!(%error, "no control socket: ackfs stats and umount cannot ask this mount");
            Ok(None)
        }
    }
}

/// Every open file and connection takes a descriptor; the usual soft limit of 1,024 is for select(2).
fn raise_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::debug!(%error, soft, hard, "the limit of open files stays as it is");
    }
}
