//! Serves an attached connection: requests flow, then metrics, the memory guard and the control socket are
//! started beside them.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::assemble::{Assembled, Rooms};
use super::description::{MountDescription, conditional_writes};
use super::error::StartError;
use crate::config::Config;
use crate::control::{ControlSocket, PendingRequest};
use crate::fuse::mount::Mounted;
use crate::metrics::{Report, RoomStats, close_mode_of, listener, transport_of};

/// A mount that serves, and its rooms. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Serving {
    pub(super) mounted: Arc<Mounted>,
    pub(super) rooms: Rooms,
}

/// The listeners that are bound before the mount: what they lack is known before anything is mounted.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) control: Option<ControlSocket>,
    pub(super) metrics: Option<TcpListener>,
}

/// What came of [`serve`].
#[derive(Debug)]
pub(super) struct ServedMount {
    pub(super) serving: Serving,
    pub(super) description: MountDescription,
    pub(super) requests: mpsc::Receiver<PendingRequest>,
    pub(super) control: Option<JoinHandle<()>>,
}

/// Lets requests flow on `mounted`, which is shown as `dir`. Runs inside a tokio runtime.
pub(super) fn serve(
    config: &Config,
    assembled: Assembled,
    mounted: Mounted,
    dir: PathBuf,
    listeners: Listeners,
) -> Result<ServedMount, StartError> {
    let rooms = &assembled.rooms;
    let fs = &rooms.fs;
    fs.attach(mounted.kernel());
    let (close_mode, _) = close_mode_of(&mounted.info());
    fs.set_close_mode(close_mode);
    mounted.serve_recorded(fs.clone(), rooms.metrics.transport_telemetry())?;
    let mut description = describe(config, &assembled, &mounted, dir);
    let Assembled { rooms, guard, .. } = assembled;
    tokio::spawn(guard.watch(Arc::downgrade(&rooms.fs), rooms.fs.worked()));
    let serving = Serving {
        mounted: Arc::new(mounted),
        rooms,
    };
    if let Some(socket) = listeners.metrics {
        let page = serving.clone();
        let (address, listening) = listener::listen(socket, move || page.page())?;
        description.metrics = Some(address);
        tokio::spawn(listening);
    }
    let (ask, requests) = mpsc::channel(8);
    let control = listeners.control;
    let control = control.map(|socket| tokio::spawn(socket.serve(ask)));
    Ok(ServedMount {
        serving,
        description,
        requests,
        control,
    })
}

fn describe(
    config: &Config,
    assembled: &Assembled,
    mounted: &Mounted,
    dir: PathBuf,
) -> MountDescription {
    let info = mounted.info();
    let (transport, reason) = transport_of(&info);
    let (close_mode, close_reason) = close_mode_of(&info);
    let cache_dir = assembled.cache_dir.as_ref();
    MountDescription {
        source: config.source.to_string(),
        dir,
        endpoint: assembled.endpoint.clone(),
        transport,
        transport_reason: reason.to_owned(),
        close_waits_for: config.close_waits_for,
        close_mode,
        close_reason,
        conditional_writes: conditional_writes(assembled.found.conditional),
        memory: config.cache.memory,
        disk: cache_dir.map(|dir| (dir.path.clone(), config.cache.size)),
        metrics: None,
    }
}

impl Serving {
    fn stats(&self) -> RoomStats {
        let rooms = &self.rooms;
        RoomStats {
            info: self.mounted.info(),
            transport: self.mounted.stats(),
            read: rooms.reader.stats(),
            disk: rooms.disk.as_ref().map(|disk| disk.stats()),
            write: rooms.writer.stats(),
            files: rooms.fs.stats(),
            store: rooms.store.stats(),
            withheld: rooms.withheld_bytes(),
        }
    }

    /// The page for Prometheus.
    pub(super) fn page(&self) -> String {
        self.rooms.metrics.render(&self.stats())
    }

    /// The counters now.
    pub(super) fn report(&self, description: &MountDescription) -> Report {
        let dir = description.dir.to_string_lossy();
        let metrics = &self.rooms.metrics;
        metrics.report(&self.stats(), &dir, &description.source)
    }
}
