//! What a mount is to do, decided once. Flags win over `ACKFS_...` variables, these over the TOML
//! file of `--config`; what nobody set gets its default here; then the whole is checked, and every
//! contradiction is one line with its cause and its fix. Nothing else in the program reads the
//! environment or the command line (AWS's own chain of credentials, region and endpoint apart, which
//! the SDK reads).
//!
//! Deciding is pure: [`Config::decide`] takes [`Flags`] and a [`Host`] and asks nobody.
//!
//! Memory: `--memory` is what clean and dirty bytes may take. A quarter is for clean blocks at rest and for
//! the few that wait for the disk unpaid, three quarters are one budget that fills and dirty bytes draw on,
//! each at most two thirds of it, so that neither starves the other. What the process takes beyond 64 MiB
//! for names, records and connections comes out of that budget: see `daemon/ballast.rs`.

pub mod flags;
pub mod host;
pub mod layers;
pub mod units;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ArgMatches;

pub use crate::s3::{Checksum, PathStyle};
pub use flags::{CloseWaitsFor, Flags, LogFormat, OnConflict, Sse, Transport};
pub use host::Host;
pub use units::Source;
use units::{GIB, MIB, Mode, Size, Span};

/// Default of `--memory`, in bytes.
const MEMORY: u64 = 128 * MIB;
/// Below this no two parts of 5 MiB fit beside what is clean.
const MEMORY_MIN: u64 = 16 * MIB;
/// What the process takes beside `--memory`: code, stacks, connections, tables, in bytes.
pub(crate) const MEMORY_BESIDE: u64 = 64 * MIB;
/// Default of `--cache-size`, in bytes.
const CACHE_SIZE: u64 = 10 * GIB;
/// Default of `--readahead-max`, in bytes.
const READAHEAD: u64 = 64 * MIB;
/// Default of `--part-size`, in bytes.
const PART_SIZE: u64 = 8 * MIB;
/// S3's bounds of a part, in bytes ("Amazon S3 multipart upload limits").
const PART_SIZES: std::ops::RangeInclusive<u64> = 5 * MIB..=5 * GIB;
/// What is kept of a name takes so many bytes: its inode, its metadata, what the store said of it.
const NAME_COST: u64 = 1536;
/// A few directories' worth of names are known however little memory there is.
const NAMES_MIN: usize = 4096;
const DAY: Duration = Duration::from_hours(24);

/// Why there is no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A flag or variable is bad, or two contradict each other.
    #[error("{0}")]
    Usage(String),
    /// The file of `--config` cannot be read or is bad.
    #[error("{0}")]
    File(String),
}

/// Settings that are well written and cannot be had: out of bounds, or at odds with each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(
    /// One line with cause and fix; settings stand in it as flags, `--part-size`.
    pub String,
);

/// A mount, whole and valid.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The bucket and prefix.
    pub source: Source,
    /// The mount point, absolute.
    pub dir: PathBuf,
    /// How the store is reached.
    pub store: StoreConfig,
    /// Local room.
    pub cache: CacheConfig,
    /// What the kernel and its users see.
    pub mount: MountConfig,
    /// What happens when somebody else's version is found at publishing.
    pub on_conflict: OnConflict,
    /// What close() waits for.
    pub close_waits_for: CloseWaitsFor,
    /// How long the end of the mount waits for uploads.
    pub drain_timeout: Duration,
    /// Logging.
    pub log: LogConfig,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// Whether the command returns when the mount serves.
    pub background: bool,
    /// Where the control socket goes and where others' are looked for.
    pub runtime_dirs: Vec<PathBuf>,
}

/// How the store is reached. What is `None` is left to AWS's own chain.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the fields are the flags of the same names")]
pub struct StoreConfig {
    pub endpoint_url: Option<String>,
    pub region: Option<String>,
    pub profile: Option<String>,
    pub path_style: PathStyle,
    pub no_sign_request: bool,
    pub requester_pays: bool,
    pub sse: Option<Sse>,
    pub sse_kms_key_id: Option<String>,
    pub storage_class: Option<String>,
    pub acl: Option<String>,
    pub checksum: Checksum,
    pub max_requests: u32,
    pub timeout: Duration,
}

/// Local room: disk and memory, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheConfig {
    /// The directory of all caches; each bucket, prefix and endpoint has its own inside.
    pub dir: PathBuf,
    /// Whether the user named it: then a second owner is an error, else it takes a fresh one.
    pub dir_is_given: bool,
    /// What the disk cache may hold; 0 is no disk cache.
    pub size: u64,
    /// `--memory`.
    pub memory: u64,
    /// How far a stream is read ahead.
    pub readahead_max: u64,
    /// The size of a part.
    pub part_size: u64,
}

/// What the kernel and its users see.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the flags of the same names")]
pub struct MountConfig {
    pub read_only: bool,
    pub allow_other: bool,
    pub mount_options: Vec<String>,
    pub uid: u32,
    pub gid: u32,
    pub file_mode: u32,
    pub dir_mode: u32,
    pub metadata_ttl: Duration,
    pub negative_ttl: Duration,
    pub transport: Transport,
    pub queue_depth: u32,
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// Directives of `tracing_subscriber::EnvFilter`.
    pub level: String,
}

impl CacheConfig {
    /// Memory for clean blocks at rest, in bytes.
    pub fn clean_max(&self) -> u64 {
        self.memory / 4 - self.queued_max() / 6
    }

    /// How many bytes may wait for the disk, or are on their way to it from the store. A sixth of them are
    /// in no budget.
    pub fn queued_max(&self) -> u64 {
        match self.size {
            0 => 0,
            _ => self.memory / 8 * 3,
        }
    }

    /// The budget of fills and dirty bytes together, in bytes.
    pub fn budget(&self) -> u64 {
        self.memory - self.memory / 4
    }

    /// What may be taken away from the budget and its shares, in bytes: each is left what the other could
    /// not take from it anyway.
    pub fn ballast_max(&self) -> u64 {
        self.budget() - self.share()
    }

    /// Of how many names something is known at most.
    pub fn names_max(&self) -> usize {
        ((self.memory / 8 / NAME_COST) as usize).max(NAMES_MIN)
    }

    /// Memory for the records of what the disk holds, in bytes.
    pub fn records_max(&self) -> u64 {
        self.memory / 16 * 3
    }

    /// What fills, and what dirty bytes, may hold of the budget at most, in bytes.
    pub fn share(&self) -> u64 {
        share_of(self.memory)
    }
}

fn share_of(memory: u64) -> u64 {
    (memory - memory / 4) / 3 * 2
}

impl Config {
    /// The configuration of a mount of `source` on `dir`. Reads the file of `--config`.
    ///
    /// # Errors
    /// As [`ConfigError`]: one line with cause and fix, which names the file or the variable that a bad
    /// value came from.
    pub fn load(
        source: Source,
        dir: &Path,
        command_line: &ArgMatches,
        host: &Host,
    ) -> Result<Self, ConfigError> {
        let (flags, origins) = layers::merge(command_line, host)?;
        Self::decide(source, dir, flags, host).map_err(|unfit| origins.blame(&unfit))
    }

    /// Decides what `flags` leave open, and checks the whole. Asks nobody but `host`.
    ///
    /// # Errors
    /// One line with cause and fix.
    pub fn decide(source: Source, dir: &Path, flags: Flags, host: &Host) -> Result<Self, Unfit> {
        let dir = absolute(dir)?;
        let cache = decide_cache(&flags, host)?;
        Ok(Self {
            dir,
            cache,
            store: decide_store(&flags)?,
            mount: decide_mount(&flags, host)?,
            on_conflict: flags.on_conflict.unwrap_or(OnConflict::Fail),
            close_waits_for: flags.close_waits_for.unwrap_or(CloseWaitsFor::Store),
            drain_timeout: span(flags.drain_timeout, Duration::from_mins(5)),
            log: LogConfig {
                format: flags.log_format.unwrap_or(LogFormat::Text),
                level: decide_log_level(flags.log_level, host),
            },
            metrics: flags.metrics,
            background: flags.background.unwrap_or(false),
            runtime_dirs: host.runtime_dirs(),
            source,
        })
    }

    /// The name of this mount's directory among the caches: the bucket to be read by people, and a
    /// digest of bucket, prefix and endpoint that keeps different stores apart. `endpoint` is the
    /// one really in use.
    pub fn cache_name(&self, endpoint: &str) -> String {
        let Source { bucket, prefix } = &self.source;
        format!("{bucket}-{}", digest(&[bucket, prefix, endpoint]))
    }
}

/// 16 hexadecimal digits that name `parts`.
pub fn digest(parts: &[&str]) -> String {
    use std::fmt::Write;

    use md5::{Digest, Md5};

    let mut hash = Md5::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize()[..8]
        .iter()
        .fold(String::with_capacity(16), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn absolute(path: &Path) -> Result<PathBuf, Unfit> {
    std::path::absolute(path)
        .map_err(|error| Unfit(format!("{}: {error}; name a directory", path.display())))
}

/// What is shown between opens may be this old.
const METADATA_TTL: Duration = Duration::from_secs(1);
/// "No such name" is asked for each time: an open sees all that was published before it.
const NEGATIVE_TTL: Duration = Duration::ZERO;

fn span(value: Option<Span>, default: Duration) -> Duration {
    value.map_or(default, |Span(time)| time)
}

fn decide_store(flags: &Flags) -> Result<StoreConfig, Unfit> {
    if flags.sse_kms_key_id.is_some() && !matches!(flags.sse, Some(Sse::Kms | Sse::KmsDsse)) {
        return usage("--sse-kms-key-id needs --sse aws:kms or aws:kms:dsse: add it");
    }
    let no_sign_request = flags.no_sign_request.unwrap_or(false);
    if no_sign_request && flags.profile.is_some() {
        return usage(
            "--no-sign-request uses no credentials and --profile names some: leave one out",
        );
    }
    let timeout = span(flags.store_timeout, Duration::from_mins(1));
    if !(Duration::from_secs(1)..=Duration::from_hours(1)).contains(&timeout) {
        return usage("--store-timeout is out of bounds: use 1s to 1h");
    }
    Ok(StoreConfig {
        endpoint_url: flags.endpoint_url.clone(),
        region: flags.region.clone(),
        profile: flags.profile.clone(),
        path_style: flags.path_style.unwrap_or(PathStyle::Auto),
        no_sign_request,
        requester_pays: flags.requester_pays.unwrap_or(false),
        sse: flags.sse,
        sse_kms_key_id: flags.sse_kms_key_id.clone(),
        storage_class: flags.storage_class.clone(),
        acl: flags.acl.clone(),
        checksum: flags.checksum.unwrap_or(Checksum::Auto),
        max_requests: flags.max_requests.unwrap_or(64),
        timeout,
    })
}

fn decide_cache(flags: &Flags, host: &Host) -> Result<CacheConfig, Unfit> {
    let memory = decide_memory(flags.memory, host)?;
    let share = share_of(memory);

    let part_size = flags.part_size.map_or(PART_SIZE, |Size(bytes)| bytes);
    if !PART_SIZES.contains(&part_size) {
        return usage(format!(
            "--part-size {} is out of S3's bounds: use 5MiB to 5GiB",
            Size(part_size)
        ));
    }
    if part_size > share {
        let wanted = Size(part_size.saturating_mul(2).next_multiple_of(MIB));
        return usage(format!(
            "--part-size {} does not fit into --memory {}, half of which is for writes: lower the \
             one or raise the other to {wanted}",
            Size(part_size),
            Size(memory)
        ));
    }
    let readahead_max = match flags.readahead_max {
        None => READAHEAD.min(share),
        Some(Size(bytes)) if bytes <= share => bytes,
        Some(size) => {
            return usage(format!(
                "--readahead-max {size} does not fit into --memory {}, half of which is for reads: \
                 use at most {}",
                Size(memory),
                Size(share)
            ));
        }
    };

    let dir = match (&flags.cache_dir, host.cache_home()) {
        (Some(dir), _) => absolute(dir)?,
        (None, Some(dir)) => dir,
        (None, None) => {
            return usage("no place for the cache, HOME is not set: give --cache-dir");
        }
    };
    let size = match flags.cache_size {
        Some(Size(0)) => 0,
        Some(Size(bytes)) if bytes >= PART_SIZE => bytes,
        Some(size) => {
            return usage(format!(
                "--cache-size {size} holds nothing of use: use at least 8MiB, or 0 for no disk cache"
            ));
        }
        // A disk without room is no reason not to start: the cache goes on without storing.
        None => (host.free_bytes)(&dir)
            .map_or(CACHE_SIZE, |free| CACHE_SIZE.min(free / 10))
            .max(PART_SIZE),
    };
    Ok(CacheConfig {
        dir,
        dir_is_given: flags.cache_dir.is_some(),
        size,
        memory,
        readahead_max,
        part_size,
    })
}

fn decide_memory(wanted: Option<Size>, host: &Host) -> Result<u64, Unfit> {
    let limit = host.memory_limit;
    let Some(Size(memory)) = wanted else {
        let bound = limit.map_or(MEMORY, |limit| MEMORY.min(limit / 4));
        return Ok(bound.max(MEMORY_MIN));
    };
    if memory < MEMORY_MIN {
        return usage(format!(
            "--memory {} is too little: use at least 16MiB",
            Size(memory)
        ));
    }
    match limit {
        Some(limit) if memory.saturating_add(MEMORY_BESIDE) > limit => usage(format!(
            "--memory {} and 64 MiB beside it exceed the cgroup's limit of {}: lower it, or raise \
             the limit",
            Size(memory),
            Size(limit)
        )),
        _ => match host.memory_total {
            Some(total) if memory > total => usage(format!(
                "--memory {} is more than this machine has, {}: lower it",
                Size(memory),
                Size(total)
            )),
            _ => Ok(memory),
        },
    }
}

fn decide_mount(flags: &Flags, host: &Host) -> Result<MountConfig, Unfit> {
    let ttl = |name: &str, value, default: Duration| {
        let time = span(value, default);
        if time > DAY {
            return usage(format!("{name} is out of bounds: use 0 to 1d"));
        }
        Ok(time)
    };
    Ok(MountConfig {
        read_only: flags.read_only.unwrap_or(false),
        allow_other: flags.allow_other.unwrap_or(false),
        mount_options: flags
            .mount_options
            .iter()
            .flat_map(|list| list.split(',').map(str::to_owned))
            .collect(),
        uid: flags.uid.unwrap_or(host.uid),
        gid: flags.gid.unwrap_or(host.gid),
        file_mode: flags.file_mode.map_or(0o644, |Mode(bits)| bits),
        dir_mode: flags.dir_mode.map_or(0o755, |Mode(bits)| bits),
        metadata_ttl: ttl("--metadata-ttl", flags.metadata_ttl, METADATA_TTL)?,
        negative_ttl: ttl("--negative-ttl", flags.negative_ttl, NEGATIVE_TTL)?,
        transport: flags.transport.unwrap_or(Transport::Auto),
        queue_depth: flags.queue_depth.unwrap_or(64),
    })
}

/// What the libraries tell at info ackfs tells itself; their warnings are kept. Those of aws_config are
/// about credentials, those of the HTTP client about answers that are none, and both are in Rust's debug
/// format; what fails by them says the same in words.
const QUIET: &str = "aws_config=error,aws_smithy_http_client=error,aws_smithy_runtime=warn,\
                     aws_sdk_s3=warn,hyper_util=warn,fuser=warn";

fn decide_log_level(wanted: Option<String>, host: &Host) -> String {
    let level = wanted
        .or_else(|| host.var("RUST_LOG").map(str::to_owned))
        .unwrap_or_else(|| "info".to_owned());
    match level.as_str() {
        "info" => format!("info,{QUIET}"),
        "warn" => "warn,aws_config=error,aws_smithy_http_client=error".to_owned(),
        _ => level,
    }
}

fn usage<T>(why: impl Into<String>) -> Result<T, Unfit> {
    Err(Unfit(why.into()))
}

#[cfg(test)]
mod tests;
