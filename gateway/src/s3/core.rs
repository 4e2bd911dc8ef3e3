//! What every call shares: the client, the permits, the counters, and what was learnt about the endpoint.
//! Context only: what is done with it stands in the files of the calls. Bodies hold it too, so that they can
//! go on by themselves.

use std::fmt;

use aws_sdk_s3::Client;
use aws_sdk_s3::types::{ObjectCannedAcl, RequestPayer, ServerSideEncryption, StorageClass};

use super::checksum::ChecksumPolicy;
use super::conditions::{Conditions, PartCopies};
use super::config::S3Config;
use super::permits::Permits;
use super::stats::Recorder;

/// What every call shares.
pub(super) struct Core {
    pub(super) client: Client,
    pub(super) config: S3Config,
    /// The mount's prefix: probes write below it, nothing else looks at it.
    pub(super) prefix: String,
    pub(super) permits: Permits,
    pub(super) recorder: Recorder,
    pub(super) policy: ChecksumPolicy,
    /// Which conditions the endpoint honours.
    pub(super) conditions: Conditions,
    /// Whether the endpoint copies parts.
    pub(super) part_copies: PartCopies,
    /// The largest object that is copied in one request, and the parts of larger ones: S3's bounds, smaller in
    /// tests.
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
}
