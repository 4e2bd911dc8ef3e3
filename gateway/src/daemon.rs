//! The life of a mount, and the only place where the rooms are joined: the directory is looked at, the
//! store connected, the cache opened, then the kernel mounts and is served, until somebody unmounts.
//! What can fail is done before the mount, cheapest first, so that a mistake costs no round trip and
//! leaves nothing behind.
//!
//! [`Daemon::start`] gives a mount that serves; [`Daemon::run`] stays with it to its end (`life`).
//! [`mountpoint`] knows what is mounted where, [`room`] takes the room on disk.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ackfs_cache::budget::{Ballast, Budget};
use ackfs_cache::dirty::{self, WriteConfig, Writer};
use ackfs_cache::disk::{self, Staging};
use ackfs_cache::index::{DiskCache, DiskError};
use ackfs_cache::read::{ReadCache, ReadConfig};
use ackfs_cache::store::ObjectStore;
use tokio::runtime::Handle as Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::units::Size;
use crate::config::{CloseWaitsFor, Config, OnConflict, StoreConfig, Transport};
use crate::control::{Answer, Asked, Socket, Status};
use crate::fs::{CloseMode, Filesystem, FsConfig};
use crate::fuse::mount::{self, MountOptions, Mounted, mount_table};
use crate::heap;
use crate::metrics::{Metrics, Report, RoomStats, close_mode_of, listener, transport_of};
use crate::s3::{self, ConditionalSupport, ConnectError, Honoured, S3Config, S3Store};

pub use self::life::End;
use self::room::Room;

mod ballast;
mod life;
pub mod mountpoint;
pub mod room;

/// What payloads of the ring may keep in memory, in bytes: half of what the process may take beside
/// `--memory`.
const PAYLOADS: u64 = 32 << 20;
/// The kernel's readahead of the mount: one request of the largest size.
const READAHEAD_KB: u32 = 1024;
/// Threads that talk to the store. They wait more than they work.
const WORKERS_MAX: usize = 4;
/// Parts of one file under way at once.
const PARTS_IN_FLIGHT: usize = 4;

/// How long after work began memory is weighed, and how often while there is more: an idle mount wakes for
/// it twice. Six readers that begin together take 100 MiB in 200 ms.
const MEMORY_LOOK_AFTER: Duration = Duration::from_millis(100);
/// After so many looks what is old or free is given up, whether memory is short or not.
const TIDY_EACH: u32 = 10;
/// And when no work has come for so long.
const QUIET: Duration = Duration::from_secs(1);

/// Why a mount did not start. Each says cause and fix in one line.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The directory is not one to mount on.
    #[error(transparent)]
    Dir(#[from] mountpoint::DirError),
    /// The store cannot be reached, or refuses us.
    #[error(transparent)]
    Store(#[from] ConnectError),
    /// The cache directory cannot be had.
    #[error("{0}{hint}", hint = cache_hint(.0))]
    Cache(DiskError),
    /// The kernel did not mount.
    #[error(transparent)]
    Mount(#[from] mount::MountError),
    /// The metrics listener cannot have its address.
    #[error("--metrics {0}: {1}; choose another address")]
    Metrics(SocketAddr, #[source] io::Error),
    /// A signal came before it served.
    #[error("stopped by {0} before it was mounted")]
    Stopped(&'static str),
    /// The system refused threads, signals or descriptors.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// What mends it, where the error does not say.
fn cache_hint(error: &DiskError) -> &'static str {
    match error {
        DiskError::InUse(_) | DiskError::TooNew(..) => "",
        DiskError::Io(..) => "; give a --cache-dir that can be written, or --cache-size 0",
    }
}

/// A mount that serves.
#[derive(Debug)]
pub struct Daemon {
    // Dropped in this order; the runtime last, so that tasks outlive what they serve.
    parts: Parts,
    asked: mpsc::Receiver<Asked>,
    /// Those who asked for the unmount and wait for its end.
    waiting: Vec<mpsc::Sender<Answer>>,
    signals: life::Signals,
    control: Option<JoinHandle<()>>,
    ready: Ready,
    drain_timeout: std::time::Duration,
    runtime: tokio::runtime::Runtime,
}

/// The rooms of a mount, joined. Cheap to clone.
#[derive(Debug, Clone)]
struct Parts {
    mounted: Arc<Mounted>,
    fs: Arc<Filesystem>,
    store: Arc<S3Store>,
    reader: Arc<ReadCache>,
    writer: Arc<Writer>,
    disk: Option<Arc<DiskCache>>,
    metrics: Arc<Metrics>,
    withheld: Arc<AtomicU64>,
}

/// What a mount is, for the line that says so.
#[derive(Debug, Clone)]
pub struct Ready {
    /// As `s3://BUCKET/PREFIX`.
    pub source: String,
    /// Where it is mounted.
    pub dir: PathBuf,
    /// Where the store is.
    pub endpoint: String,
    /// `uring` or `classic`, as it really is.
    pub transport: &'static str,
    /// Why it is not the ring, or empty.
    pub transport_reason: String,
    /// What close() waits for.
    pub close_waits_for: CloseWaitsFor,
    /// Which close does.
    pub close_mode: CloseMode,
    /// Why the mode is not `release`, or empty.
    pub close_reason: String,
    /// Whether the store honours the conditions that a close sends.
    pub conditional_writes: Honoured,
    /// `--memory`, in bytes.
    pub memory: u64,
    /// The room on disk and its bound in bytes, if there is one.
    pub disk: Option<(PathBuf, u64)>,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let close = match self.close_waits_for {
            CloseWaitsFor::Store => "close waits for the store",
        };
        let reason = match &*self.close_reason {
            "" => String::new(),
            reason => format!(" ({reason})"),
        };
        write!(
            f,
            "ready: {} on {}, endpoint {}, transport {}, {close}, mode {}{reason}, \
             conditional writes {}, cache {} in memory",
            self.source,
            self.dir.display(),
            self.endpoint,
            self.transport,
            self.close_mode.as_str(),
            self.conditional_writes,
            Size(self.memory),
        )?;
        match &self.disk {
            Some((dir, size)) => write!(f, " and {} in {}", Size(*size), dir.display())?,
            None => write!(f, ", none on disk")?,
        }
        match self.metrics {
            Some(address) => write!(f, ", metrics http://{address}/metrics"),
            None => Ok(()),
        }
    }
}

/// A mount that serves, but for the runtime that it does it on.
struct Begun {
    parts: Parts,
    asked: mpsc::Receiver<Asked>,
    signals: life::Signals,
    control: Option<JoinHandle<()>>,
    ready: Ready,
}

impl Daemon {
    /// Mounts and serves as `config` says. Waits for the store and the disk; SIGTERM and SIGINT end
    /// the wait at once, also for a process that the kernel does not end by itself (PID 1 of a
    /// container).
    ///
    /// # Errors
    /// As [`StartError`]; nothing is left mounted then.
    pub fn start(config: &Config) -> Result<Self, StartError> {
        let dir = mountpoint::resolve(&config.dir).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => mountpoint::DirError::Missing(config.dir.clone()),
            io::ErrorKind::NotADirectory => mountpoint::DirError::NotADirectory(config.dir.clone()),
            _ => mountpoint::DirError::Io(config.dir.clone(), error),
        })?;
        if mountpoint::check(&dir)? {
            tracing::warn!(dir = %dir.display(), "the directory is not empty; the mount hides what is in it");
        }
        mountpoint::check_cache(&dir, &config.cache)?;
        raise_descriptors();
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers.clamp(2, WORKERS_MAX))
            .thread_name("worker")
            .enable_all()
            .build()?;
        let begun = {
            let _entered = runtime.enter();
            Self::begin(config, dir, runtime.handle())
        };
        match begun {
            Ok(begun) => Ok(Self {
                parts: begun.parts,
                asked: begun.asked,
                waiting: Vec::new(),
                signals: begun.signals,
                control: begun.control,
                ready: begun.ready,
                drain_timeout: config.drain_timeout,
                runtime,
            }),
            Err(error) => {
                // Dropping it would wait for a name's resolution or a disk that nobody waits for.
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    fn begin(config: &Config, dir: PathBuf, runtime: &Runtime) -> Result<Begun, StartError> {
        let mut signals = life::Signals::new()?;
        let handle = runtime.clone();
        let metrics = Arc::new(Metrics::default());
        let socket = bind_control(config, &dir)?;

        let s3 = s3_config(&config.source.bucket, &config.store, config.mount.read_only);
        let connecting = S3Store::connect(s3, &config.source.prefix);
        let (store, found) = runtime.block_on(signals.unless(connecting))??;
        // The store is ours alone, so nobody was first.
        let _ = store.set_telemetry(metrics.store_telemetry());
        let endpoint = found
            .endpoint_url
            .unwrap_or_else(|| format!("AWS S3 in {}", found.region));
        let (cache, name) = (config.cache.clone(), config.cache_name(&endpoint));
        let taking = runtime.spawn_blocking(move || Room::take(&cache, &name));
        let room = runtime
            .block_on(signals.unless(taking))?
            .map_err(io::Error::other)?
            .map_err(StartError::Cache)?;
        let disk = room.as_ref().map(|room| room.disk.clone());

        let staging = match &room {
            Some(room) => Some(Arc::new(Staging::new(&room.staging_dir, disk::shared()?))),
            None => None,
        };

        let cache = &config.cache;
        let budget = Budget::with_ballast(cache.budget(), cache.ballast_max());
        let shares = [budget.share(cache.share()), budget.share(cache.share())];
        let ballast = Ballast::new(&budget, &shares);
        let [fills, dirty] = shares;
        let objects: Arc<dyn ObjectStore> = store.clone();
        let reader = ReadCache::new(
            ReadConfig {
                clean_max: config.cache.clean_max(),
                fills,
                readahead_max: config.cache.readahead_max,
            },
            objects.clone(),
            disk.clone(),
            handle.clone(),
        );
        let writer = Writer::new(
            WriteConfig {
                memory: dirty,
                part_size: config.cache.part_size,
                parts_in_flight_max: PARTS_IN_FLIGHT,
                staging,
                on_conflict: match config.on_conflict {
                    OnConflict::Fail => dirty::OnConflict::Fail,
                    OnConflict::Overwrite => dirty::OnConflict::Overwrite,
                },
            },
            objects.clone(),
            reader.clone(),
            handle.clone(),
        );
        let fs = Filesystem::new(
            fs_config(config),
            objects,
            reader.clone(),
            writer.clone(),
            handle,
        );

        let listening = match config.metrics {
            Some(address) => Some(
                std::net::TcpListener::bind(address)
                    .map_err(|error| StartError::Metrics(address, error))?,
            ),
            None => None,
        };
        let mounted = Arc::new(mount(config, &dir, runtime, &mut signals)?);
        fs.attach(mounted.kernel());
        let (close_mode, close_reason) = close_mode_of(&mounted.info());
        fs.set_close_mode(close_mode);
        mounted.serve_recorded(fs.clone(), metrics.transport_telemetry())?;
        let info = mounted.info();
        let (transport, reason) = transport_of(&info);
        let mut ready = Ready {
            source: config.source.to_string(),
            dir,
            endpoint,
            transport,
            transport_reason: reason.to_owned(),
            close_waits_for: config.close_waits_for,
            close_mode,
            close_reason,
            conditional_writes: conditional_writes(&found.conditional),
            memory: config.cache.memory,
            disk: room.map(|room| (room.dir, config.cache.size)),
            metrics: None,
        };
        let mut keeper = ballast::Keeper::new(ballast, config.cache.memory, &reader, &writer);
        let parts = Parts {
            withheld: keeper.withheld(),
            mounted,
            fs,
            store,
            reader,
            writer,
            disk,
            metrics,
        };
        if let Some(listening) = listening {
            let page = parts.clone();
            let (address, serving) = listener::listen(listening, move || page.page())?;
            ready.metrics = Some(address);
            tokio::spawn(serving);
        }
        let (worked, fs) = (parts.fs.worked(), Arc::downgrade(&parts.fs));
        tokio::spawn(async move {
            let tidy = || {
                if let Some(fs) = fs.upgrade() {
                    fs.tidy();
                }
                heap::trim();
            };
            // Since memory was tidied.
            let mut looks = 0;
            loop {
                let work = worked.notified();
                if looks == 0 {
                    work.await;
                } else if tokio::time::timeout(QUIET, work).await.is_err() {
                    tidy();
                    looks = 0;
                    continue;
                }
                tokio::time::sleep(MEMORY_LOOK_AFTER).await;
                looks += 1;
                if keeper.look() || looks % TIDY_EACH == 0 {
                    tidy();
                }
            }
        });
        let (ask, asked) = mpsc::channel(8);
        let control = socket.map(|socket| tokio::spawn(socket.serve(ask)));
        Ok(Begun {
            parts,
            asked,
            signals,
            control,
            ready,
        })
    }

    /// What the mount is.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// The counters now.
    pub fn report(&self) -> Report {
        self.parts.report(&self.ready)
    }
}

impl Parts {
    fn snapshot(&self) -> RoomStats {
        RoomStats {
            info: self.mounted.info(),
            transport: self.mounted.stats(),
            read: self.reader.stats(),
            disk: self.disk.as_ref().map(|disk| disk.stats()),
            write: self.writer.stats(),
            files: self.fs.stats(),
            store: self.store.stats(),
            withheld: self.withheld.load(Ordering::Relaxed),
        }
    }

    fn page(&self) -> String {
        self.metrics.render(&self.snapshot())
    }

    fn report(&self, ready: &Ready) -> Report {
        self.metrics.report(
            &self.snapshot(),
            &ready.dir.to_string_lossy(),
            &ready.source,
        )
    }
}

impl Ready {
    fn status(&self) -> Status {
        Status {
            dir: self.dir.to_string_lossy().into_owned(),
            source: self.source.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// The least that is known of the conditions that a close relies on.
pub fn conditional_writes(support: &ConditionalSupport) -> Honoured {
    let all = [
        support.put_if_absent,
        support.put_if_match,
        support.multipart,
    ];
    if all.contains(&Honoured::No) {
        Honoured::No
    } else if all.contains(&Honoured::Unknown) {
        Honoured::Unknown
    } else {
        Honoured::Yes
    }
}

/// The store's configuration as its client wants it.
pub fn s3_config(bucket: &str, store: &StoreConfig, read_only: bool) -> S3Config {
    use crate::config::{Checksum, PathStyle};

    S3Config {
        endpoint_url: store.endpoint_url.clone(),
        region: store.region.clone(),
        profile: store.profile.clone(),
        path_style: match store.path_style {
            PathStyle::Auto => s3::PathStyle::Auto,
            PathStyle::Always => s3::PathStyle::Always,
            PathStyle::Never => s3::PathStyle::Never,
        },
        no_sign_request: store.no_sign_request,
        requester_pays: store.requester_pays,
        sse: store.sse.map(|sse| sse.header().to_owned()),
        sse_kms_key_id: store.sse_kms_key_id.clone(),
        storage_class: store.storage_class.clone(),
        acl: store.acl.clone(),
        checksum: match store.checksum {
            Checksum::Auto => s3::Checksum::Auto,
            Checksum::Crc64nvme => s3::Checksum::Crc64Nvme,
            Checksum::Crc32 => s3::Checksum::Crc32,
            Checksum::WhenRequired => s3::Checksum::WhenRequired,
        },
        max_requests: store.max_requests as usize,
        store_timeout: store.timeout,
        read_only,
        ..S3Config::new(bucket)
    }
}

fn fs_config(config: &Config) -> FsConfig {
    FsConfig {
        prefix: config.source.prefix.clone(),
        uid: config.mount.uid,
        gid: config.mount.gid,
        file_mode: config.mount.file_mode,
        dir_mode: config.mount.dir_mode,
        metadata_ttl: config.mount.metadata_ttl,
        negative_ttl: config.mount.negative_ttl,
        read_only: config.mount.read_only,
        names_max: config.cache.names_max(),
    }
}

fn mount_options(config: &Config) -> MountOptions {
    MountOptions {
        source: config.source.to_string(),
        allow_other: config.mount.allow_other,
        read_only: config.mount.read_only,
        transport: match config.mount.transport {
            Transport::Auto => mount::Transport::Auto,
            Transport::Uring => mount::Transport::Uring,
            Transport::Classic => mount::Transport::Classic,
        },
        queue_depth: Some(config.mount.queue_depth),
        memory_bound: Some(PAYLOADS),
        readahead_kb: Some(READAHEAD_KB),
        extra: config.mount.mount_options.clone(),
        ..MountOptions::default()
    }
}

/// Mounts, unless a signal comes first. What the kernel is just doing is waited for, so that no dead
/// mount stays behind, until a second signal.
fn mount(
    config: &Config,
    dir: &Path,
    runtime: &Runtime,
    signals: &mut life::Signals,
) -> Result<Mounted, StartError> {
    let (dir, options) = (dir.to_owned(), mount_options(config));
    runtime.block_on(async {
        let mut mounting = runtime.spawn_blocking(move || Mounted::mount(&dir, &options));
        match signals.unless(&mut mounting).await {
            Ok(mounted) => Ok(mounted.map_err(io::Error::other)??),
            Err(stopped) => {
                tokio::select! {
                    // Dropping it unmounts.
                    mounted = mounting => drop(mounted),
                    _ = signals.next() => {}
                }
                Err(stopped)
            }
        }
    })
}

/// A mount without a control socket is worth having; one on a directory that another ackfs serves
/// is not.
fn bind_control(config: &Config, dir: &Path) -> Result<Option<Socket>, StartError> {
    match Socket::bind(&config.runtime_dirs, dir) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let what = (config.source.to_string(), mount_table::FS_TYPE.to_owned());
            Err(mountpoint::DirError::Mounted(dir.to_owned(), what.0, what.1).into())
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
