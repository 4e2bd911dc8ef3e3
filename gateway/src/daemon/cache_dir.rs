//! The cache directory that a mount takes: its own below `--cache-dir`, named by bucket and a digest of
//! bucket, prefix and endpoint. Mounts of different stores never meet there, and the same mount finds its
//! cache again.
//!
//! ```text
//! CACHE-DIR/BUCKET-DIGEST/blocks     the disk cache; its lock is the directory's
//! CACHE-DIR/BUCKET-DIGEST/staging    dirty bytes beyond the memory
//! CACHE-DIR/BUCKET-DIGEST.2/...      the directory of a second mount of the same at the same time
//! ```
//! A second mount of the same bucket works and has a fresh directory where nobody named one: who
//! mounts twice wants two mounts. Under a `--cache-dir` that somebody named it is an error: they
//! said which one, and it is taken.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ackfs_cache::disk_cache::{DiskCache, DiskConfig, DiskError};

use crate::config::CacheConfig;

/// Directories of one bucket at once, without a `--cache-dir` of their own.
const DIRS_MAX: u32 = 16;
/// How long a mount that is just ending may hold its directory: it saves what is in it.
const ENDING_MAX: Duration = Duration::from_secs(3);

/// A mount's cache directory.
#[derive(Debug, Clone)]
pub(super) struct CacheDir {
    /// It is all this mount's.
    pub(super) path: PathBuf,
    /// The disk cache.
    pub(super) disk: Arc<DiskCache>,
    /// Where dirty bytes go.
    pub(super) staging_dir: PathBuf,
}

impl CacheDir {
    /// Takes the directory `name` as `config` says. `None` if no disk is to be used. Blocks on the disk.
    ///
    /// # Errors
    /// As [`DiskError`]; each names the directory and what to do.
    pub(super) fn take(config: &CacheConfig, name: &str) -> Result<Option<Self>, DiskError> {
        if config.size == 0 {
            return Ok(None);
        }
        if config.dir_is_given {
            return Self::take_patiently(&config.dir.join(name), config).map(Some);
        }
        let mut taken = None;
        for number in 1..=DIRS_MAX {
            let dir = match number {
                1 => config.dir.join(name),
                number => config.dir.join(format!("{name}.{number}")),
            };
            match Self::open(&dir, config) {
                Err(DiskError::InUse(dir)) => taken = Some(dir),
                Ok(own) => {
                    if let Some(other) = taken {
                        tracing::warn!(
                            dir = %own.path.display(), in_use = %other.display(),
                            "another mount of this bucket has the cache; using a fresh one"
                        );
                    }
                    return Ok(Some(own));
                }
                Err(error) => return Err(error),
            }
        }
        Err(DiskError::InUse(
            taken.unwrap_or_else(|| config.dir.clone()),
        ))
    }

    fn take_patiently(dir: &Path, config: &CacheConfig) -> Result<Self, DiskError> {
        let began = Instant::now();
        loop {
            match Self::open(dir, config) {
                Err(DiskError::InUse(_)) if began.elapsed() < ENDING_MAX => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                other => return other,
            }
        }
    }

    fn open(dir: &Path, config: &CacheConfig) -> Result<Self, DiskError> {
        let staging_dir = dir.join("staging");
        std::fs::create_dir_all(&staging_dir).map_err(|error| DiskError::Io(dir.into(), error))?;
        let disk = DiskCache::open(DiskConfig {
            dir: dir.join("blocks"),
            size_max: config.size,
            memory: config.records_max(),
            queued_max: config.queued_max(),
        })?;
        Ok(Self {
            path: dir.to_owned(),
            disk,
            staging_dir,
        })
    }
}
