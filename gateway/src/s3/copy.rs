//! Copying inside the store.
//!
//! The source is looked at first: its size decides between one CopyObject and a copy in parts (S3
//! copies at most 5 GiB at once) and how long an answer is waited for; its storage class and
//! encryption are asked for again, because a copy gets the bucket's defaults otherwise; and a copy
//! in parts takes nothing along by itself, neither metadata nor tags.

use ackfs_cache::extent::Extent;
use ackfs_cache::object::{ETag, Key, ObjectId};
use ackfs_cache::store::{
    Condition, CopyMetadata, Metadata, StoreError, StoreErrorKind, StoreResult, UploadId,
};
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::types::{MetadataDirective, ServerSideEncryption};
use futures_util::{StreamExt, TryStreamExt};

use super::core::{Core, etag, metadata as metadata_of, same_etag};
use super::error::Failure;
use super::lost::{Fingerprint, Verdict};
use super::multipart::Traits;
use super::payload::Choice;
use super::probe::Honoured;
use super::put::{refused, with_condition, with_metadata};
use super::request::Ended;
use super::stats::Kind;

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
        let shown = self.head_output(&source.key).await.settle()?;
        if !shown
            .e_tag
            .as_deref()
            .is_some_and(|etag| same_etag(etag, source.etag.as_str()))
        {
            let now = shown.e_tag.unwrap_or_default();
            let message = format!("the source is now {now}");
            return Err(StoreError::new(StoreErrorKind::Changed, message).with_key(&source.key));
        }
        let size = shown.content_length.unwrap_or(0).max(0) as u64;
        let mut sent = condition;
        if *condition != Condition::None && self.support.read().copy_target != Honoured::Yes {
            self.check_target(target, condition).await?;
            sent = &Condition::None;
        }
        if size > self.copy_object_max {
            return self
                .copy_in_parts(source, target, &metadata, condition, &shown)
                .await;
        }
        let Ended { result, unsure } = self
            .copy_once(source, target, &metadata, sent, &shown)
            .await;
        match result {
            Ok(etag) => {
                self.remembered.forget(target);
                Ok(etag)
            }
            Err(failure) if failure.wants_part_copy() => {
                self.copy_in_parts(source, target, &metadata, condition, &shown)
                    .await
            }
            Err(failure) if refused(&failure, sent) && unsure => {
                let ours = || Fingerprint::of_copy(&shown);
                match self.whose(target, ours, unsure, failure).await? {
                    Verdict::Ours(etag) => Ok(etag),
                    Verdict::Theirs(error) => Err(error),
                    Verdict::Predecessor(etag) => {
                        let message = format!("an earlier write of ours is there as {etag}");
                        Err(StoreError::new(StoreErrorKind::Changed, message).with_key(target))
                    }
                }
            }
            Err(failure) => Err(failure.error),
        }
    }

    async fn copy_once(
        &self,
        source: &ObjectId,
        target: &Key,
        metadata: &CopyMetadata,
        condition: &Condition,
        shown: &HeadObjectOutput,
    ) -> Ended<ETag> {
        let size = shown.content_length.unwrap_or(0).max(0) as u64;
        let traits = self.traits_of_copy(shown);
        let call = self.copy_call(Kind::Copy, target, size);
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
                let output = request.send().await.map_err(Failure::from_sdk)?;
                let etag_text = output
                    .copy_object_result
                    .as_ref()
                    .and_then(|result| result.e_tag.as_deref());
                etag(target, etag_text).map_err(Failure::from)
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
        let size = shown.content_length.unwrap_or(0).max(0) as u64;
        let copied = self.copy_parts(source, target, &upload, size).await;
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
        self.create_once(target, metadata, traits, Choice::Md5)
            .await
            .settle()
    }

    async fn copy_parts(
        &self,
        source: &ObjectId,
        target: &Key,
        upload: &UploadId,
        size: u64,
    ) -> StoreResult<Vec<ackfs_cache::store::Part>> {
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
            .run(self.call(Kind::Tagging, key), || {
                let request = self
                    .client
                    .get_object_tagging()
                    .bucket(&self.config.bucket)
                    .key(key.as_str())
                    .set_request_payer(self.payer());
                async move { request.send().await.map_err(Failure::from_sdk) }
            })
            .await
            .settle();
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

    /// `key` as `x-amz-copy-source` has it.
    pub(super) fn copy_source(&self, key: &Key) -> String {
        format!("{}/{}", self.config.bucket, encode(key.as_str(), "/"))
    }
}

/// `text` URL-encoded, but for the unreserved characters of RFC 3986 and those in `kept`.
fn encode(text: &str, kept: &str) -> String {
    use std::fmt::Write;

    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        let plain = char::from(byte);
        if byte.is_ascii_alphanumeric() || "-._~".contains(plain) || kept.contains(plain) {
            encoded.push(plain);
        } else {
            let _infallible = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_sources_are_encoded_byte_by_byte() {
        assert_eq!(encode("a/b c+d", "/"), "a/b%20c%2Bd");
        assert_eq!(encode("é%", ""), "%C3%A9%25");
    }
}
