//! Joins the rooms of a mount: the store is connected, the cache directory taken and opened, then memory is
//! divided among those who hold files' bytes. Nothing is mounted yet.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ackfs_cache::budget::{Balloon, Budget, Share};
use ackfs_cache::dirty::{WriteConfig, Writer};
use ackfs_cache::disk::{self, Staging};
use ackfs_cache::disk_cache::DiskCache;
use ackfs_cache::read::{ReadCache, ReadConfig};
use ackfs_cache::store::ObjectStore;
use tokio::runtime::Handle as Runtime;

use super::cache_dir::CacheDir;
use super::error::StartError;
use super::memory_guard::MemoryGuard;
use super::signals::Signals;
use crate::config::{Config, StoreConfig};
use crate::fs::{Filesystem, FsConfig};
use crate::metrics::Metrics;
use crate::s3::{Capabilities, S3Config, S3Store};

/// Parts of one file under way at once.
const PARTS_IN_FLIGHT: usize = 4;

/// The rooms of a mount, joined. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Rooms {
    pub(super) fs: Arc<Filesystem>,
    pub(super) store: Arc<S3Store>,
    pub(super) reader: Arc<ReadCache>,
    pub(super) writer: Arc<Writer>,
    pub(super) disk: Option<Arc<DiskCache>>,
    pub(super) metrics: Arc<Metrics>,
    /// What the memory guard withholds, in bytes.
    withheld: Arc<AtomicU64>,
}

impl Rooms {
    pub(super) fn withheld_bytes(&self) -> u64 {
        self.withheld.load(Ordering::Relaxed)
    }
}

/// The rooms, and what was found out while they were joined.
#[derive(Debug)]
pub(super) struct Assembled {
    pub(super) rooms: Rooms,
    pub(super) guard: MemoryGuard,
    pub(super) found: Capabilities,
    pub(super) endpoint: String,
    pub(super) cache_dir: Option<CacheDir>,
}

/// Waits for the store and the disk, unless a signal comes first.
pub(super) fn assemble(
    config: &Config,
    runtime: &Runtime,
    signals: &mut Signals,
) -> Result<Assembled, StartError> {
    let metrics = Arc::new(Metrics::default());
    let s3 = s3_config(&config.source.bucket, &config.store, config.mount.read_only);
    let connecting = S3Store::connect(s3, &config.source.prefix);
    let (store, mut found) = runtime.block_on(signals.unless(connecting))??;
    // The store is ours alone, so nobody was first.
    let _ = store.set_telemetry(metrics.store_telemetry());
    let endpoint = found
        .endpoint_url
        .take()
        .unwrap_or_else(|| format!("AWS S3 in {}", found.region));
    let cache_dir = take_cache_dir(config, &endpoint, runtime, signals)?;
    let disk = cache_dir.as_ref().map(|dir| dir.disk.clone());

    let cache = &config.cache;
    let budget = Budget::with_balloon(cache.budget(), cache.withheld_max());
    let shares = [budget.share(cache.share()), budget.share(cache.share())];
    let ballast = Balloon::new(&budget, &shares);
    let [fills, dirty] = shares;
    let objects: Arc<dyn ObjectStore> = store.clone();
    let reader = ReadCache::new(
        ReadConfig {
            clean_max: cache.clean_max(),
            fills,
            readahead_max: cache.readahead_max,
        },
        objects.clone(),
        disk.clone(),
        runtime.clone(),
    );
    let writer = Writer::new(
        write_config(config, dirty, cache_dir.as_ref())?,
        objects.clone(),
        reader.clone(),
        runtime.clone(),
    );
    let fs = Filesystem::new(
        fs_config(config),
        objects,
        reader.clone(),
        writer.clone(),
        runtime.clone(),
    );
    let guard = MemoryGuard::new(ballast, cache.memory, &reader, &writer);
    let rooms = Rooms {
        fs,
        store,
        reader,
        writer,
        disk,
        metrics,
        withheld: guard.withheld(),
    };
    Ok(Assembled {
        rooms,
        guard,
        found,
        endpoint,
        cache_dir,
    })
}

/// Takes the mount's cache directory; `None` if no disk is to be used.
fn take_cache_dir(
    config: &Config,
    endpoint: &str,
    runtime: &Runtime,
    signals: &mut Signals,
) -> Result<Option<CacheDir>, StartError> {
    let (cache, name) = (config.cache.clone(), config.cache_name(endpoint));
    let taking = runtime.spawn_blocking(move || CacheDir::take(&cache, &name));
    runtime
        .block_on(signals.unless(taking))?
        .map_err(io::Error::other)?
        .map_err(StartError::Cache)
}

fn write_config(
    config: &Config,
    memory: Share,
    cache_dir: Option<&CacheDir>,
) -> io::Result<WriteConfig> {
    let staging = match cache_dir {
        Some(dir) => Some(Arc::new(Staging::new(&dir.staging_dir, disk::shared()?))),
        None => None,
    };
    Ok(WriteConfig {
        memory,
        part_size: config.cache.part_size,
        parts_in_flight_max: PARTS_IN_FLIGHT,
        staging,
        on_conflict: config.on_conflict,
    })
}

/// The store's configuration as its client wants it.
pub fn s3_config(bucket: &str, store: &StoreConfig, read_only: bool) -> S3Config {
    S3Config {
        endpoint_url: store.endpoint_url.clone(),
        region: store.region.clone(),
        profile: store.profile.clone(),
        path_style: store.path_style,
        no_sign_request: store.no_sign_request,
        requester_pays: store.requester_pays,
        sse: store.sse.map(|sse| sse.header().to_owned()),
        sse_kms_key_id: store.sse_kms_key_id.clone(),
        storage_class: store.storage_class.clone(),
        acl: store.acl.clone(),
        checksum: store.checksum,
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
