//! Copying inside the store.
//!
//! The source is looked at first: its size decides between one CopyObject and a copy in parts (S3
//! copies at most 5 GiB at once) and how long an answer is waited for; its storage class and
//! encryption are asked for again, because a copy gets the bucket's defaults otherwise; and a copy
//! in parts takes nothing along by itself, neither metadata nor tags.

use ackfs_cache::extent::Extent;
use ackfs_cache::object::{ETag, Key, ObjectId};
use ackfs_cache::store::{
    Condition, CopyMetadata, Metadata, Part, StoreError, StoreErrorKind, StoreResult, UploadId,
};
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::types::{MetadataDirective, ServerSideEncryption};
use futures_util::{StreamExt, TryStreamExt};

use super::answer::etag;
use super::checksum::SumKind;
use super::conditional::Write;
use super::conditions::Honoured;
use super::core::Core;
use super::error::RequestFailure;
use super::fingerprint;
use super::head::{metadata as metadata_of, size};
use super::headers::{with_condition, with_metadata};
use super::multipart::Traits;
use super::part_copy::encode;
use super::request::CallEnd;
use super::stats::RequestKind;

/// The largest object that CopyObject copies (S3 user guide, "Copying objects").
pub(super) const COPY_OBJECT_MAX: u64 = 5 << 30;

/// How much one part of a copy holds: large, because no byte of it passes through here.
pub(super) const COPY_PART_LEN: u64 = 512 << 20;

/// How many parts of one copy are under way at once.
const COPY_PARTS_AT_ONCE: usize = 8;

/// The most parts an upload may have.
const PARTS_MAX: u64 = 10_000;

impl Core {
    /// Makes `target` a copy; see [`ackfs_cache::store::ObjectStore::copy`].
    pub(super) async fn copy(
        &self,
        source: &ObjectId,
        target: &Key,
        metadata: CopyMetadata,
        condition: &Condition,
    ) -> StoreResult<ETag> {
        let shown = &self.pinned(source).await?;
        let write = Write {
            key: target,
            condition,
            honoured: self.conditions.support().copy(condition),
        };
        if size(shown) > self.copy_object_max {
            if write.honoured == Honoured::No {
                self.check_target(target, condition).await?;
            }
            return self
                .copy_in_parts(source, target, &metadata, condition, shown)
                .await;
        }
        let (ours, metadata) = (|| fingerprint::of_copy(shown), &metadata);
        let copied = self
            .write_under(write, ours, |condition| async move {
                self.copy_once(source, target, metadata, &condition, shown)
                    .await
            })
            .await;
        match copied {
            Err(error) if wants_parts(&error) => {
                self.copy_in_parts(source, target, metadata, condition, shown)
                    .await
            }
            copied => copied,
        }
    }

    /// What HEAD shows of `source`. `Changed` if that is no longer its version.
    async fn pinned(&self, source: &ObjectId) -> StoreResult<HeadObjectOutput> {
        let shown = self.head_output(&source.key).await.into_result()?;
        let now = shown.e_tag.as_deref();
        if now.is_some_and(|etag| source.etag.is_same(etag)) {
            return Ok(shown);
        }
        let message = format!("the source is now {}", now.unwrap_or_default());
        Err(StoreError::new(StoreErrorKind::Changed, message).with_key(&source.key))
    }

    async fn copy_once(
        &self,
        source: &ObjectId,
        target: &Key,
        metadata: &CopyMetadata,
        condition: &Condition,
        shown: &HeadObjectOutput,
    ) -> CallEnd<ETag> {
        let traits = self.traits_of_copy(shown);
        let call = self.copy_call(RequestKind::Copy, target, size(shown));
        self.run(call, || {
            let request = self
                .client
                .copy_object()
                .bucket(&self.config.bucket)
                .key(target.as_str())
                .copy_source(self.copy_source(&source.key))
                .copy_source_if_match(source.etag.as_str())
                .set_request_payer(self.payer())
                .set_storage_class(traits.storage_class.clone())
                .set_server_side_encryption(traits.sse.clone())
                .set_ssekms_key_id(traits.sse_kms_key_id.clone())
                .set_acl(self.acl());
            let request = match metadata {
                CopyMetadata::Keep => request,
                CopyMetadata::Replace(metadata) => with_metadata!(
                    request.metadata_directive(MetadataDirective::Replace),
                    metadata
                ),
            };
            let request = with_condition!(request, condition);
            async move {
                let output = request.send().await.map_err(RequestFailure::from_sdk)?;
                let etag_text = output
                    .copy_object_result
                    .as_ref()
                    .and_then(|result| result.e_tag.as_deref());
                etag(target, etag_text).map_err(RequestFailure::from)
            }
        })
        .await
    }

    async fn copy_in_parts(
        &self,
        source: &ObjectId,
        target: &Key,
        metadata: &CopyMetadata,
        condition: &Condition,
        shown: &HeadObjectOutput,
    ) -> StoreResult<ETag> {
        let metadata = match metadata {
            CopyMetadata::Keep => metadata_of(shown),
            CopyMetadata::Replace(metadata) => metadata.clone(),
        };
        let mut traits = self.traits_of_copy(shown);
        traits.tagging = self.tagging(&source.key, shown).await;
        let upload = self.begin_copy(target, &metadata, &traits).await?;
        let copied = self.copy_parts(source, target, &upload, size(shown)).await;
        let done = match copied {
            Ok(parts) => self.complete(target, &upload, &parts, condition).await,
            Err(error) => Err(error),
        };
        if done.is_err()
            && let Err(error) = self.abort(target, &upload).await
        {
            tracing::warn!(
                key = ?target, upload = upload.0, %error,
                "the upload of a copy that failed could not be given up and takes room in the \
                 bucket; a lifecycle rule for incomplete uploads removes it"
            );
        }
        done
    }

    /// Without a checksum: the store has the bytes already and checks them by itself.
    async fn begin_copy(
        &self,
        target: &Key,
        metadata: &Metadata,
        traits: &Traits,
    ) -> StoreResult<UploadId> {
        self.create_once(target, metadata, traits, SumKind::Md5)
            .await
            .into_result()
    }

    async fn copy_parts(
        &self,
        source: &ObjectId,
        target: &Key,
        upload: &UploadId,
        size: u64,
    ) -> StoreResult<Vec<Part>> {
        let len = self.copy_part_len.max(size.div_ceil(PARTS_MAX)).max(1);
        let mut parts: Vec<_> = futures_util::stream::iter(0..size.div_ceil(len))
            .map(|at| {
                let extent = Extent::between(at * len, ((at + 1) * len).min(size));
                self.copy_part(target, upload, at as u32 + 1, source, extent)
            })
            .buffer_unordered(COPY_PARTS_AT_ONCE)
            .try_collect()
            .await?;
        parts.sort_by_key(|part| part.number);
        Ok(parts)
    }

    /// What a copy of the object that HEAD shows is to be like: as the mount was told, else like
    /// the source.
    fn traits_of_copy(&self, shown: &HeadObjectOutput) -> Traits {
        let mut traits = self.traits();
        if traits.storage_class.is_none() {
            traits.storage_class.clone_from(&shown.storage_class);
        }
        // AES256 is what the bucket does anyway; asking for it would only trouble stores that
        // have no encryption.
        if traits.sse.is_none()
            && matches!(
                shown.server_side_encryption,
                Some(ServerSideEncryption::AwsKms | ServerSideEncryption::AwsKmsDsse)
            )
        {
            traits.sse.clone_from(&shown.server_side_encryption);
            traits.sse_kms_key_id.clone_from(&shown.ssekms_key_id);
        }
        traits
    }

    /// The tags of the object that HEAD shows, as `x-amz-tagging` has them.
    async fn tagging(&self, key: &Key, shown: &HeadObjectOutput) -> Option<String> {
        if shown.tag_count.unwrap_or(0) == 0 {
            return None;
        }
        let tags = self
            .run(self.call(RequestKind::Tagging, key), || {
                let request = self
                    .client
                    .get_object_tagging()
                    .bucket(&self.config.bucket)
                    .key(key.as_str())
                    .set_request_payer(self.payer());
                async move { request.send().await.map_err(RequestFailure::from_sdk) }
            })
            .await
            .into_result();
        match tags {
            Ok(output) => Some(
                output
                    .tag_set
                    .iter()
                    .map(|tag| format!("{}={}", encode(&tag.key, ""), encode(&tag.value, "")))
                    .collect::<Vec<_>>()
                    .join("&"),
            ),
            Err(error) => {
                tracing::warn!(?key, %error, "the tags of an object are lost in its copy");
                None
            }
        }
    }
}

/// Whether the refusal says that a server-side copy of this size needs parts.
fn wants_parts(error: &StoreError) -> bool {
    error.kind == StoreErrorKind::TooLarge || error.message.contains("copy source is larger")
}
