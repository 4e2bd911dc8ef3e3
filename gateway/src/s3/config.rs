//! What the store needs to be told. The flags of `ackfs mount` that are about the store land here,
//! already parsed; the rest of this module asks nobody else. Credentials, region and profile that
//! are not given come from AWS's own chain, see `connect.rs`.

use std::path::PathBuf;
use std::time::Duration;

use ackfs_cache::store::STORE_TIMEOUT;
use clap::ValueEnum;

/// `--path-style`: how the bucket is named in a request's URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum PathStyle {
    /// In the path with an endpoint of one's own, in the host name with AWS.
    #[default]
    Auto,
    /// `http://HOST/BUCKET/KEY`.
    #[value(help = "http://HOST/BUCKET/KEY")]
    Always,
    /// `http://BUCKET.HOST/KEY`.
    #[value(help = "http://BUCKET.HOST/KEY")]
    Never,
}

impl PathStyle {
    /// Whether the bucket is in the path, at a custom endpoint or at AWS.
    pub(super) fn is_on(self, custom_endpoint: bool) -> bool {
        match self {
            Self::Auto => custom_endpoint,
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// `--checksum`: which checksum goes with what is uploaded, so that the store refuses bytes that changed on the
/// way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Checksum {
    /// CRC-64/NVME; a custom endpoint that refuses it once gets `WhenRequired` from then on.
    #[default]
    #[value(help = "What the store takes")]
    Auto,
    /// CRC-64/NVME, never anything else.
    #[value(name = "crc64nvme", help = "CRC-64/NVME")]
    Crc64Nvme,
    /// CRC-32, never anything else.
    #[value(help = "CRC-32")]
    Crc32,
    /// None of the newer headers. `Content-MD5` guards the bytes, which every store knows, at a
    /// much higher price in CPU.
    #[value(help = "Only where S3 demands one")]
    WhenRequired,
}

/// Where the bucket is and how to speak to it.
#[derive(Debug, Clone)]
pub struct S3Config {
    /// The bucket's name.
    pub bucket: String,
    /// The store's URL; `None` for AWS, or for what `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`
    /// or the profile say.
    pub endpoint_url: Option<String>,
    /// The bucket's region; `None` for AWS's chain, or `us-east-1` with a custom endpoint.
    pub region: Option<String>,
    /// The profile in AWS's configuration files.
    pub profile: Option<String>,
    /// How the bucket is named in URLs.
    pub path_style: PathStyle,
    /// Send requests without a signature: for public buckets.
    pub no_sign_request: bool,
    /// The requester pays: `x-amz-request-payer`.
    pub requester_pays: bool,
    /// `x-amz-server-side-encryption` of what is written: `AES256`, `aws:kms`, `aws:kms:dsse`.
    pub sse: Option<String>,
    /// The KMS key of what is written.
    pub sse_kms_key_id: Option<String>,
    /// The storage class of what is written.
    pub storage_class: Option<String>,
    /// The canned ACL of what is written.
    pub acl: Option<String>,
    /// The checksum of what is written.
    pub checksum: Checksum,
    /// How many requests may be under way at once.
    pub max_requests: usize,
    /// How long a call may take, retries included; bodies beyond 1 MiB get more by their size.
    pub store_timeout: Duration,
    /// Whether nothing is ever written: the endpoint's conditional writes are then not probed.
    pub read_only: bool,
    /// A file of further PEM certificates to trust; `None` for `AWS_CA_BUNDLE`, if that is set.
    pub ca_bundle: Option<PathBuf>,
}

impl S3Config {
    /// How many requests may be under way at once, unless told otherwise. About 30 ranged GETs
    /// fill a 25 Gbit/s link at AWS; the rest is room for uploads and look-ups beside them.
    pub const MAX_REQUESTS: usize = 64;

    /// `bucket` with every default.
    pub fn new(bucket: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            endpoint_url: None,
            region: None,
            profile: None,
            path_style: PathStyle::Auto,
            no_sign_request: false,
            requester_pays: false,
            sse: None,
            sse_kms_key_id: None,
            storage_class: None,
            acl: None,
            checksum: Checksum::Auto,
            max_requests: Self::MAX_REQUESTS,
            store_timeout: STORE_TIMEOUT,
            read_only: false,
            ca_bundle: None,
        }
    }
}
