//! Every setting of a mount, once. The same struct reads the command line, the environment and the
//! file: `--cache-size 1GiB`, `ACKFS_CACHE_SIZE=1GiB` and `cache-size = "1GiB"` go through one parser,
//! so a value that is good in one place is good in all. All fields are `Option`: what nobody set is
//! decided in [`Config`](super::Config), and the text here says how.

use std::net::SocketAddr;
use std::path::PathBuf;

use ackfs_cache::dirty::OnConflict;
use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use crate::fuse::mount::Transport;

use super::units::{Mode, Size, Span, listen_address};
use crate::s3::{BadEndpoint, Checksum, PathStyle, check_endpoint};

const STORE: &str = "The store";
const CACHE: &str = "Cache and memory";
const MOUNT: &str = "The mount";
const WRITE: &str = "Writing and closing";
const KERNEL: &str = "The kernel";
const RUN: &str = "Running";

/// The settings of a mount as one source gave them.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct Flags {
    /// Where the S3 service is, as http://HOST:PORT or https://HOST
    /// [default: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, the profile's, else AWS]
    #[arg(long, value_name = "URL", value_parser = endpoint_url, help_heading = STORE)]
    pub endpoint_url: Option<String>,
    /// The bucket's region [default: AWS's own settings; us-east-1 with an endpoint of your own]
    #[arg(long, value_name = "NAME", help_heading = STORE)]
    pub region: Option<String>,
    /// The profile of AWS's config and credentials files [default: AWS_PROFILE, else default]
    #[arg(long, value_name = "NAME", help_heading = STORE)]
    pub profile: Option<String>,
    /// Whether the bucket stands in the path or in the host name of requests
    /// [default: auto, which is the path with an endpoint of your own]
    #[arg(long, value_name = "WHEN", value_enum, help_heading = STORE)]
    pub path_style: Option<PathStyle>,
    /// Send requests without a signature, for public buckets [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", help_heading = STORE)]
    pub no_sign_request: Option<bool>,
    /// Agree to pay for the requests [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", help_heading = STORE)]
    pub requester_pays: Option<bool>,
    /// How the store encrypts new objects [default: as the bucket is set]
    #[arg(long, value_name = "KIND", value_enum, help_heading = STORE)]
    pub sse: Option<Sse>,
    /// The KMS key for --sse aws:kms [default: the account's own]
    #[arg(long, value_name = "ID", help_heading = STORE)]
    pub sse_kms_key_id: Option<String>,
    /// The storage class of new objects, as STANDARD_IA [default: the bucket's]
    #[arg(long, value_name = "CLASS", help_heading = STORE)]
    pub storage_class: Option<String>,
    /// The canned ACL of new objects, as bucket-owner-full-control [default: none is sent]
    #[arg(long, value_name = "ACL", help_heading = STORE)]
    pub acl: Option<String>,
    /// Which checksum travels with uploads; auto finds what the store takes [default: auto]
    #[arg(long, value_name = "KIND", value_enum, help_heading = STORE)]
    pub checksum: Option<Checksum>,
    /// How many requests to the store are under way at once, 1 to 1024 [default: 64]
    #[arg(long, value_name = "COUNT",
          value_parser = clap::value_parser!(u32).range(1..=1024), help_heading = STORE)]
    pub max_requests: Option<u32>,
    /// How long one call to the store may take, retries included, 1s to 1h [default: 60s]
    #[arg(long, value_name = "TIME", help_heading = STORE)]
    pub store_timeout: Option<Span>,

    /// Where clean bytes and staged writes are kept, in a directory for each bucket, prefix and
    /// endpoint [default: $XDG_CACHE_HOME/ackfs or ~/.cache/ackfs; /var/cache/ackfs as root]
    #[arg(long, value_name = "DIR", help_heading = CACHE)]
    pub cache_dir: Option<PathBuf>,
    /// How many bytes of objects the cache directory may hold, 0 for no disk cache and no staging:
    /// then a file written in order goes to the store part by part, and what else is written and not yet
    /// closed has to fit into a third of --memory, else ENOSPC
    /// [default: 10GiB or a tenth of the free space, whichever is less]
    #[arg(long, value_name = "SIZE", help_heading = CACHE)]
    pub cache_size: Option<Size>,
    /// Memory for clean and dirty bytes, at least 16MiB; the process takes up to 64MiB more
    /// [default: 128MiB, or a quarter of the cgroup's limit if that is less]
    #[arg(long, value_name = "SIZE", help_heading = CACHE)]
    pub memory: Option<Size>,
    /// How far a sequential reader is read ahead [default: 64MiB, at most half of --memory]
    #[arg(long, value_name = "SIZE", help_heading = CACHE)]
    pub readahead_max: Option<Size>,

    /// Refuse every change [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", help_heading = MOUNT)]
    pub read_only: Option<bool>,
    /// Let other users in; without root, /etc/fuse.conf must hold user_allow_other [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", help_heading = MOUNT)]
    pub allow_other: Option<bool>,
    /// More options for mount(2), as they are, separated by commas: disable_sync_release, on a kernel
    /// that knows it, for closes as on stock kernels [default: none]
    #[arg(long, value_name = "LIST", value_parser = mount_options, help_heading = MOUNT)]
    pub mount_options: Option<String>,
    /// Owner of files that name none, a user id [default: yours]
    #[arg(long, value_name = "ID", value_parser = user_id, help_heading = MOUNT)]
    pub uid: Option<u32>,
    /// Group of files that name none, a group id [default: yours]
    #[arg(long, value_name = "ID", value_parser = group_id, help_heading = MOUNT)]
    pub gid: Option<u32>,
    /// Permission bits of files that name none, octal [default: 0644]
    #[arg(long, value_name = "MODE", help_heading = MOUNT)]
    pub file_mode: Option<Mode>,
    /// Permission bits of directories that name none, octal [default: 0755]
    #[arg(long, value_name = "MODE", help_heading = MOUNT)]
    pub dir_mode: Option<Mode>,
    /// How long attributes and names are believed between opens, up to 1d; every open asks the
    /// store anyway [default: 1s]
    #[arg(long, value_name = "TIME", help_heading = MOUNT)]
    pub metadata_ttl: Option<Span>,
    /// How long a name that was not there is believed to be missing, up to 1d; 0 asks the store
    /// each time [default: 0s]
    #[arg(long, value_name = "TIME", help_heading = MOUNT)]
    pub negative_ttl: Option<Span>,

    /// What close() waits for: store [default: store]
    #[arg(long, value_name = "PLACE", value_parser = close_waits_for, help_heading = WRITE)]
    pub close_waits_for: Option<CloseWaitsFor>,
    /// What a close() does that finds somebody else's version in the store: fail (ESTALE) or
    /// overwrite [default: fail]
    #[arg(long, value_name = "ACTION", value_parser = on_conflict, help_heading = WRITE)]
    pub on_conflict: Option<OnConflict>,
    /// A part's size in multipart uploads, 5MiB to 5GiB; parts of very large files grow
    /// [default: 8MiB]
    #[arg(long, value_name = "SIZE", help_heading = WRITE)]
    pub part_size: Option<Size>,
    /// How long SIGTERM, SIGINT and umount wait for uploads before they list what is not saved and
    /// end with status 75 [default: 300s]
    #[arg(long, value_name = "TIME", help_heading = WRITE)]
    pub drain_timeout: Option<Span>,

    /// The door to the kernel: uring fails where FUSE-over-io_uring cannot be had, auto falls back
    /// to /dev/fuse with a warning [default: auto]
    #[arg(long, value_name = "DOOR", value_enum, help_heading = KERNEL)]
    pub transport: Option<Transport>,
    /// Slots of each kernel queue: requests of one CPU under way at once, 16 to 1024
    /// [default: 64]
    #[arg(long, value_name = "COUNT",
          value_parser = clap::value_parser!(u32).range(16..=1024), help_heading = KERNEL)]
    pub queue_depth: Option<u32>,

    /// How log lines look, on stderr [default: text]
    #[arg(long, value_name = "FORMAT", value_enum, help_heading = RUN)]
    pub log_format: Option<LogFormat>,
    /// What is logged: error, warn, info, debug, trace, or directives as ackfs=debug,warn
    /// [default: RUST_LOG, else info]
    #[arg(long, value_name = "LEVEL", value_parser = log_level, help_heading = RUN)]
    pub log_level: Option<String>,
    /// A TOML file with any of these settings, as cache-size = "1GiB"; flags and environment win
    /// [default: none]
    #[arg(long, value_name = "FILE", help_heading = RUN)]
    pub config: Option<PathBuf>,
    /// Serve metrics for Prometheus over HTTP on this address, IP:PORT or a port of the loopback
    /// [default: none]
    #[arg(long, value_name = "ADDR", value_parser = listen_address, help_heading = RUN)]
    pub metrics: Option<SocketAddr>,
    /// Return when the mount serves, with its status and reason if it cannot; log lines go to
    /// stderr, or to syslog if that is a terminal [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", help_heading = RUN)]
    pub background: Option<bool>,
}

/// `--sse`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sse {
    /// SSE-S3: the store's own keys.
    #[value(name = "AES256", alias = "aes256")]
    Aes256,
    /// SSE-KMS.
    #[value(name = "aws:kms")]
    Kms,
    /// DSSE-KMS: two layers.
    #[value(name = "aws:kms:dsse")]
    KmsDsse,
}

impl Sse {
    /// The value of `x-amz-server-side-encryption`.
    pub fn header(self) -> &'static str {
        match self {
            Self::Aes256 => "AES256",
            Self::Kms => "aws:kms",
            Self::KmsDsse => "aws:kms:dsse",
        }
    }
}

/// `--close-waits-for`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseWaitsFor {
    /// The object store has the bytes.
    Store,
}

/// `--transport`. The words stand here; what they mean, in the transport's own room.
impl ValueEnum for Transport {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Auto, Self::Uring, Self::Classic]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (name, help) = match self {
            Self::Auto => ("auto", "The ring where it can be had"),
            Self::Uring => ("uring", "The ring, or no mount"),
            Self::Classic => ("classic", "/dev/fuse"),
        };
        Some(PossibleValue::new(name).help(help))
    }
}

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

fn endpoint_url(text: &str) -> Result<String, String> {
    match check_endpoint(text) {
        Ok(()) => Ok(text.trim_end_matches('/').to_owned()),
        Err(BadEndpoint::NoScheme | BadEndpoint::OtherScheme) => Err(
            "an endpoint begins with http:// or https://, as https://s3.example.org:9000"
                .to_owned(),
        ),
        Err(BadEndpoint::NoHost) => {
            Err("an endpoint names a host, as https://s3.example.org:9000".to_owned())
        }
        Err(BadEndpoint::UserName) => Err(
            "credentials do not belong in the endpoint; use AWS_ACCESS_KEY_ID and \
             AWS_SECRET_ACCESS_KEY or a profile"
                .to_owned(),
        ),
    }
}

fn mount_options(text: &str) -> Result<String, String> {
    if text.split(',').any(str::is_empty) || text.contains(char::is_whitespace) {
        return Err(
            "options are separated by commas, as disable_sync_release,max_read=65536".to_owned(),
        );
    }
    Ok(text.to_owned())
}

fn user_id(text: &str) -> Result<u32, String> {
    id(text, "user", "id -u NAME")
}

fn group_id(text: &str) -> Result<u32, String> {
    id(text, "group", "getent group NAME")
}

/// The last number is (uid_t)-1, which means "nobody in particular" to the kernel's calls.
fn id(text: &str, kind: &str, command: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(id) if id < u32::MAX => Ok(id),
        _ => Err(format!(
            "a {kind} id is a number, 0 to 4294967294, as {command} shows it"
        )),
    }
}

fn close_waits_for(text: &str) -> Result<CloseWaitsFor, String> {
    match text {
        "store" => Ok(CloseWaitsFor::Store),
        "journal" => Err("journal is not offered yet; close() waits for the store".to_owned()),
        _ => Err("close() waits for the store: the value is store".to_owned()),
    }
}

fn on_conflict(text: &str) -> Result<OnConflict, String> {
    match text {
        "fail" => Ok(OnConflict::Fail),
        "overwrite" => Ok(OnConflict::Overwrite),
        "keep-both" => Err("keep-both is not offered yet; use fail or overwrite".to_owned()),
        _ => Err("the value is fail or overwrite".to_owned()),
    }
}

fn log_level(text: &str) -> Result<String, String> {
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) if !text.trim().is_empty() => Ok(text.to_owned()),
        _ => Err(
            "a level is error, warn, info, debug, trace or off; directives are as \
                  ackfs=debug,warn"
                .to_owned(),
        ),
    }
}
