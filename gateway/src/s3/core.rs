//! What every call shares: the client, the permits, the counters, and what was learnt about the
//! endpoint. Bodies hold it too, so that they can go on by themselves.

use std::fmt;

use ackfs_cache::object::{ETag, Key};
use ackfs_cache::store::{Metadata, ObjectInfo, StoreError, StoreErrorKind, StoreResult};
use aws_sdk_s3::Client;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::types::{
    ChecksumMode, ObjectCannedAcl, RequestPayer, ServerSideEncryption, StorageClass,
};
use aws_smithy_types::DateTime;
use parking_lot::RwLock;

use super::config::S3Config;
use super::error::Failure;
use super::lost::Remembered;
use super::part_copy::PartCopies;
use super::payload::Policy;
use super::permits::Permits;
use super::probe::ConditionalSupport;
use super::request::Ended;
use super::stats::{Kind, Recorder};

/// What every call shares.
pub(super) struct Core {
    pub(super) client: Client,
    pub(super) config: S3Config,
    /// The mount's prefix: probes write below it, nothing else looks at it.
    pub(super) prefix: String,
    pub(super) permits: Permits,
    pub(super) recorder: Recorder,
    pub(super) policy: Policy,
    /// What the endpoint honours. A leaf lock.
    pub(super) support: RwLock<ConditionalSupport>,
    /// Whether the endpoint copies parts.
    pub(super) part_copies: PartCopies,
    /// Writes that were left unsure when their call ended.
    pub(super) remembered: Remembered,
    /// The largest object that is copied in one request, and the parts of larger ones: S3's
    /// bounds, smaller in tests.
    pub(super) copy_object_max: u64,
    pub(super) copy_part_len: u64,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("bucket", &self.config.bucket)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Core {
    pub(super) fn payer(&self) -> Option<RequestPayer> {
        self.config
            .requester_pays
            .then_some(RequestPayer::Requester)
    }

    pub(super) fn sse(&self) -> Option<ServerSideEncryption> {
        self.config.sse.as_deref().map(ServerSideEncryption::from)
    }

    pub(super) fn storage_class(&self) -> Option<StorageClass> {
        self.config.storage_class.as_deref().map(StorageClass::from)
    }

    pub(super) fn acl(&self) -> Option<ObjectCannedAcl> {
        self.config.acl.as_deref().map(ObjectCannedAcl::from)
    }

    /// HEAD as the store answers it, with checksums if it keeps any.
    pub(super) async fn head_output(&self, key: &Key) -> Ended<HeadObjectOutput> {
        self.run(self.call(Kind::Head, key), || async {
            self.client
                .head_object()
                .bucket(&self.config.bucket)
                .key(key.as_str())
                .checksum_mode(ChecksumMode::Enabled)
                .set_request_payer(self.payer())
                .send()
                .await
                .map_err(Failure::from_sdk)
        })
        .await
    }

    /// The object at `key`. `NotFound` if there is none.
    pub(super) async fn head(&self, key: &Key) -> StoreResult<ObjectInfo> {
        let output = self.head_output(key).await.settle()?;
        info(key, output)
    }

    /// The same with `None` in place of `NotFound`.
    pub(super) async fn head_if_there(&self, key: &Key) -> StoreResult<Option<HeadObjectOutput>> {
        match self.head_output(key).await.settle() {
            Ok(output) => Ok(Some(output)),
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What HEAD shows as the rest of ackfs knows it.
fn info(key: &Key, output: HeadObjectOutput) -> StoreResult<ObjectInfo> {
    let size = u64::try_from(output.content_length.unwrap_or(-1)).map_err(|_negative| {
        StoreError::new(
            StoreErrorKind::Broken,
            "the store's answer to HEAD has no Content-Length",
        )
        .with_key(key)
    })?;
    Ok(ObjectInfo {
        etag: etag(key, output.e_tag.as_deref())?,
        size,
        modified: time(output.last_modified.as_ref()),
        metadata: metadata(&output),
    })
}

/// What travels beside the bytes of an object that HEAD shows.
pub(super) fn metadata(output: &HeadObjectOutput) -> Metadata {
    // Clients that upload with chunked signatures leave `aws-chunked` in the encoding at stores
    // that do not take it away; it says nothing about the object.
    let content_encoding = output
        .content_encoding
        .as_deref()
        .map(|encodings| {
            encodings
                .split(',')
                .map(str::trim)
                .filter(|encoding| !encoding.is_empty() && *encoding != "aws-chunked")
                .collect::<Vec<_>>()
                .join(", ")
        })
        .filter(|encodings| !encodings.is_empty());
    Metadata {
        user: output
            .metadata
            .iter()
            .flatten()
            .map(|(name, value)| (name.to_lowercase(), value))
            .collect(),
        content_type: output.content_type.clone(),
        content_encoding,
        cache_control: output.cache_control.clone(),
        content_disposition: output.content_disposition.clone(),
        content_language: output.content_language.clone(),
    }
}

/// An answer's ETag.
pub(super) fn etag(key: &Key, etag: Option<&str>) -> StoreResult<ETag> {
    match etag {
        Some(etag) => Ok(ETag::new(etag)),
        None => Err(StoreError::new(
            StoreErrorKind::Broken,
            "the store's answer has no ETag, so versions cannot be told apart",
        )
        .with_key(key)),
    }
}

/// Whether two ETags name one version: some answers quote them, some do not.
pub(super) fn same_etag(one: &str, other: &str) -> bool {
    let bare = |etag: &str| etag.trim_start_matches("W/").trim_matches('"').to_owned();
    bare(one) == bare(other)
}

/// The time of an answer; the epoch if it has none.
pub(super) fn time(time: Option<&DateTime>) -> std::time::SystemTime {
    time.and_then(|time| std::time::SystemTime::try_from(*time).ok())
        .unwrap_or(std::time::SystemTime::UNIX_EPOCH)
}
