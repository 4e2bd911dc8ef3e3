//! What a mount is to do, decided once. Flags win over `ACKFS_...` variables, these over the TOML
//! file of `--config`; what nobody set gets its default here; then the whole is checked, and every
//! contradiction is one line with its cause and its fix. Nothing else in the program reads the
//! environment or the command line (AWS's own chain of credentials, region and endpoint apart, which
//! the SDK reads).
//!
//! Deciding is pure: [`Config::decide`] takes [`Flags`] and a [`Host`] and asks nobody.

mod cache;
mod error;
pub mod flags;
pub mod host;
pub mod layers;
pub mod path;
pub mod units;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ArgMatches;

use ackfs_cache::dirty::OnConflict;

use crate::fuse::mount::Transport;

use self::error::usage;
use self::path::absolute;
use self::units::{Mode, Span};

pub use self::cache::CacheConfig;
pub(crate) use self::cache::{MEMORY, MEMORY_BESIDE};
pub use self::error::{ConfigError, Unfit};
pub use self::flags::{CloseWaitsFor, Flags, LogFormat, Sse};
pub use self::host::Host;
pub use self::units::S3Uri;
pub use crate::s3::{Checksum, PathStyle};

const DAY: Duration = Duration::from_hours(24);

/// A mount, whole and valid.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The bucket and prefix.
    pub source: S3Uri,
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

impl Config {
    /// The configuration of a mount of `source` on `dir`. Reads the file of `--config`.
    ///
    /// # Errors
    /// As [`ConfigError`]: one line with cause and fix, which names the file or the variable that a bad
    /// value came from.
    pub fn load(
        source: S3Uri,
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
    pub fn decide(source: S3Uri, dir: &Path, flags: Flags, host: &Host) -> Result<Self, Unfit> {
        let dir = absolute(dir)?;
        let cache = cache::decide(&flags, host)?;
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
        let S3Uri { bucket, prefix } = &self.source;
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

#[cfg(test)]
mod tests;
