//! The object store over the AWS SDK.
//!
//! [`S3Store`] implements [`ObjectStore`]: what that trait promises is kept here. The SDK builds, signs and reads
//! single requests; everything around a request is ours.
//!
//! ```text
//! s3
//! connect
//! probe   copy   explain
//! get   put   multipart   part_copy   delete   list
//! ranged_get   conditional   fingerprint   part_body
//! head   payload
//! request
//! call
//! core
//! stats   checksum
//! error   permits   conditions   config   connect_error
//! codes   answer   headers   endpoint
//! ```
//!
//! A file uses files of the lines below its own, by their types or through `Core`'s methods, and none beside or
//! above it. `request` makes attempts until one succeeds or time is up (`call`), `permits` says who may send now,
//! `error` and `codes` what an answer means, `conditional` how a write with a condition is sent; `payload` and
//! `part_body` hold the bytes of an upload, `checksum` says how the store can tell that they arrived whole, and
//! `fingerprint` how an object of ours is known again. `connect` finds the endpoint and the credentials, `explain`
//! says in one line why that failed, `probe` finds out which conditions the endpoint honours, `conditions` knows.
//!
//! No word of FUSE, inodes or errno here, and no cache: a call goes to the store.

use std::fmt;
use std::sync::Arc;

use ackfs_cache::extent::Extent;
use ackfs_cache::object::{ETag, Key, ObjectId};
use ackfs_cache::store::{
    BoxFuture, Condition, CopyMetadata, Fetched, ListPage, ListRequest, Metadata, ObjectInfo,
    ObjectStore, Part, PartBytes, Priority, StoreResult, UploadId,
};
use bytes::Bytes;

mod answer;
mod call;
mod checksum;
mod codes;
mod conditional;
mod conditions;
mod config;
mod connect;
mod connect_error;
mod copy;
mod core;
mod delete;
mod endpoint;
mod error;
mod explain;
mod fingerprint;
mod get;
mod head;
mod headers;
mod list;
mod multipart;
mod part_body;
mod part_copy;
mod payload;
mod permits;
mod probe;
mod put;
mod ranged_get;
mod request;
mod stats;
#[cfg(test)]
mod tests;

pub use conditions::{ConditionalSupport, Honoured};
pub use config::{Checksum, PathStyle, S3Config};
pub use connect::Capabilities;
pub use connect_error::{ConnectError, ConnectErrorKind};
pub use endpoint::{BadEndpoint, check_endpoint};
pub use stats::{KindStats, PriorityStats, RequestKind, StoreStats, StoreTelemetry};

use self::connect::StoreLocation;
use self::core::Core;

/// One bucket of an S3 endpoint.
pub struct S3Store {
    core: Arc<Core>,
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Store")
            .field("bucket", &self.core.config.bucket)
            .field("prefix", &self.core.prefix)
            .finish_non_exhaustive()
    }
}

impl S3Store {
    /// Finds the bucket and proves that it can be used. Keys below `prefix` are what the mount
    /// will see; it may be empty.
    ///
    /// # Errors
    /// One line with cause and fix. Waits for the store, for 15 seconds at most where it does not
    /// answer.
    pub async fn connect(
        config: S3Config,
        prefix: impl Into<String>,
    ) -> Result<(Arc<S3Store>, Capabilities), ConnectError> {
        let location = StoreLocation::by_chain(&config).await?;
        let (core, capabilities) = location.connect(&config, &prefix.into()).await?;
        Ok((Arc::new(S3Store { core }), capabilities))
    }

    /// Which conditional writes the endpoint honours, by trying. Writes nothing where it honours
    /// them, else an empty object below the prefix for a moment. What it finds is used from then
    /// on. [`S3Store::connect`] has done it already unless the mount is read-only.
    ///
    /// # Errors
    /// As of a write that failed for a reason that says nothing about conditions. Waits for the
    /// store.
    pub async fn probe_conditional_writes(&self) -> StoreResult<ConditionalSupport> {
        self.core.probe_conditional_writes().await
    }

    /// What is known by now about the conditional writes of the endpoint. Never waits.
    pub fn conditional_support(&self) -> ConditionalSupport {
        self.core.conditions.support()
    }

    /// Whether the endpoint copies parts of objects, by trying. Writes nothing.
    ///
    /// # Errors
    /// As of an upload that failed for a reason that says nothing about copies. Waits for the store.
    pub async fn probe_part_copies(&self) -> StoreResult<Honoured> {
        self.core.probe_part_copies().await
    }

    /// Whether the endpoint copies parts of objects, as far as is known by now. Never waits.
    pub fn part_copies(&self) -> Honoured {
        self.core.part_copies.support()
    }

    /// What the store was asked so far and how that went. Never waits.
    pub fn stats(&self) -> StoreStats {
        self.core.recorder.snapshot(&self.core.permits)
    }

    /// Where latencies go from now on. Only the first call counts.
    ///
    /// # Errors
    /// Gives the handles back if there are some already.
    pub fn set_telemetry(&self, telemetry: StoreTelemetry) -> Result<(), StoreTelemetry> {
        self.core.recorder.set_telemetry(telemetry)
    }
}

impl ObjectStore for S3Store {
    fn head<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, StoreResult<ObjectInfo>> {
        Box::pin(self.core.head(key))
    }

    fn get<'a>(
        &'a self,
        id: &'a ObjectId,
        extent: Extent,
        priority: Priority,
    ) -> BoxFuture<'a, StoreResult<Fetched>> {
        Box::pin(self.core.get(id, extent, priority))
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, StoreResult<ListPage>> {
        Box::pin(self.core.list(request))
    }

    fn put<'a>(
        &'a self,
        key: &'a Key,
        body: Vec<Bytes>,
        metadata: &'a Metadata,
        condition: &'a Condition,
    ) -> BoxFuture<'a, StoreResult<ETag>> {
        Box::pin(self.core.put(key, body, metadata, condition))
    }

    fn create_multipart<'a>(
        &'a self,
        key: &'a Key,
        metadata: &'a Metadata,
    ) -> BoxFuture<'a, StoreResult<UploadId>> {
        Box::pin(self.core.create_multipart(key, metadata))
    }

    fn put_part<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        number: u32,
        body: Vec<PartBytes>,
    ) -> BoxFuture<'a, StoreResult<Part>> {
        Box::pin(self.core.put_part(key, upload, number, body))
    }

    fn copy_part<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        number: u32,
        source: &'a ObjectId,
        extent: Extent,
    ) -> BoxFuture<'a, StoreResult<Part>> {
        Box::pin(self.core.copy_part(key, upload, number, source, extent))
    }

    fn complete<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        parts: &'a [Part],
        condition: &'a Condition,
    ) -> BoxFuture<'a, StoreResult<ETag>> {
        Box::pin(self.core.complete(key, upload, parts, condition))
    }

    fn abort<'a>(&'a self, key: &'a Key, upload: &'a UploadId) -> BoxFuture<'a, StoreResult<()>> {
        Box::pin(self.core.abort(key, upload))
    }

    fn copy<'a>(
        &'a self,
        source: &'a ObjectId,
        target: &'a Key,
        metadata: CopyMetadata,
        condition: &'a Condition,
    ) -> BoxFuture<'a, StoreResult<ETag>> {
        Box::pin(self.core.copy(source, target, metadata, condition))
    }

    fn delete<'a>(
        &'a self,
        key: &'a Key,
        etag: Option<&'a ETag>,
    ) -> BoxFuture<'a, StoreResult<()>> {
        Box::pin(self.core.delete(key, etag))
    }
}
