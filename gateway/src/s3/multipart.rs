//! Writing an object in parts.
//!
//! An upload is announced with the checksum its parts will carry, because S3 refuses parts with a
//! checksum that was not announced. Completion names every part's ETag and checksum, and the sum
//! of the sizes (`x-amz-mp-object-size`), so that S3 refuses an object that is not exactly what
//! was sent.
//!
//! A completion whose answer was lost has taken the upload away: asked again, the store no longer
//! knows it.

use ackfs_cache::object::{ETag, Key};
use ackfs_cache::store::{
    Condition, Metadata, Part, PartBytes, StoreError, StoreErrorKind, StoreResult, UploadId,
};
use aws_sdk_s3::types::{
    CompletedMultipartUpload, CompletedPart, ServerSideEncryption, StorageClass,
};

use super::answer::etag;
use super::checksum::{CRC32, CRC64NVME, SumKind};
use super::conditional::Write;
use super::core::Core;
use super::error::RequestFailure;
use super::fingerprint;
use super::headers::{with_condition, with_metadata};
use super::part_body::PartBody;
use super::request::CallEnd;
use super::stats::RequestKind;

/// What a new object is to be like beside its metadata.
#[derive(Debug, Clone, Default)]
pub(super) struct Traits {
    pub(super) storage_class: Option<StorageClass>,
    pub(super) sse: Option<ServerSideEncryption>,
    pub(super) sse_kms_key_id: Option<String>,
    /// URL-encoded, as `x-amz-tagging` has it.
    pub(super) tagging: Option<String>,
}

impl Core {
    /// What is written is like this, unless it is a copy.
    pub(super) fn traits(&self) -> Traits {
        Traits {
            storage_class: self.storage_class(),
            sse: self.sse(),
            sse_kms_key_id: self.config.sse_kms_key_id.clone(),
            tagging: None,
        }
    }

    /// Begins an upload; see [`ackfs_cache::store::ObjectStore::create_multipart`]. If the answer
    /// is lost and the request repeated, the first upload stays behind without parts; a lifecycle
    /// rule of the bucket removes such.
    pub(super) async fn create_multipart(
        &self,
        key: &Key,
        metadata: &Metadata,
    ) -> StoreResult<UploadId> {
        let traits = &self.traits();
        self.with_any_sum(|kind| self.create_once(key, metadata, traits, kind))
            .await
            .into_result()
    }

    pub(super) async fn create_once(
        &self,
        key: &Key,
        metadata: &Metadata,
        traits: &Traits,
        kind: SumKind,
    ) -> CallEnd<UploadId> {
        self.run(self.call(RequestKind::Create, key), || {
            let request = self
                .client
                .create_multipart_upload()
                .bucket(&self.config.bucket)
                .key(key.as_str())
                .set_checksum_algorithm(self.policy.announced(kind))
                .set_request_payer(self.payer())
                .set_server_side_encryption(traits.sse.clone())
                .set_ssekms_key_id(traits.sse_kms_key_id.clone())
                .set_storage_class(traits.storage_class.clone())
                .set_tagging(traits.tagging.clone())
                .set_acl(self.acl());
            let request = with_metadata!(request, metadata);
            async move {
                let output = request.send().await.map_err(RequestFailure::from_sdk)?;
                output.upload_id.map(UploadId).ok_or_else(|| {
                    RequestFailure::from(StoreError::new(
                        StoreErrorKind::Broken,
                        "the store began an upload and did not name it",
                    ))
                })
            }
        })
        .await
    }

    /// Uploads one part; see [`ackfs_cache::store::ObjectStore::put_part`].
    pub(super) async fn put_part(
        &self,
        key: &Key,
        upload: &UploadId,
        number: u32,
        body: Vec<PartBytes>,
    ) -> StoreResult<Part> {
        let body = &PartBody::new(body);
        let part = self
            .with_any_sum(|kind| self.part_once(key, upload, number, body, kind))
            .await
            .into_result()?;
        self.recorder.up(body.len());
        Ok(part)
    }

    async fn part_once(
        &self,
        key: &Key,
        upload: &UploadId,
        number: u32,
        body: &PartBody,
        kind: SumKind,
    ) -> CallEnd<Part> {
        let sum = match body.sum(kind).await {
            Ok(sum) => sum,
            Err(error) => return CallEnd::unsent(error),
        };
        let checksum = sum.named();
        let (crc64, crc32, md5) = sum.columns();
        let call = self.upload_call(RequestKind::Part, key, body.len());
        self.run(call, || {
            let request = self
                .client
                .upload_part()
                .bucket(&self.config.bucket)
                .key(key.as_str())
                .upload_id(&upload.0)
                .part_number(number as i32)
                .body(body.body())
                .set_checksum_crc64_nvme(crc64.clone())
                .set_checksum_crc32(crc32.clone())
                .set_content_md5(md5.clone())
                .set_request_payer(self.payer());
            let checksum = checksum.clone();
            async move {
                let output = request.send().await.map_err(RequestFailure::from_sdk)?;
                Ok(Part {
                    number,
                    etag: etag(key, output.e_tag.as_deref()).map_err(RequestFailure::from)?,
                    checksum,
                    size: body.len(),
                })
            }
        })
        .await
    }

    /// Makes the object of its parts; see [`ackfs_cache::store::ObjectStore::complete`].
    pub(super) async fn complete(
        &self,
        key: &Key,
        upload: &UploadId,
        parts: &[Part],
        condition: &Condition,
    ) -> StoreResult<ETag> {
        let write = Write {
            key,
            condition,
            honoured: self.conditions.support().complete(condition),
        };
        let ours = || fingerprint::of_parts(parts);
        self.write_under(write, ours, |condition| async move {
            self.complete_once(key, upload, parts, &condition).await
        })
        .await
    }

    async fn complete_once(
        &self,
        key: &Key,
        upload: &UploadId,
        parts: &[Part],
        condition: &Condition,
    ) -> CallEnd<ETag> {
        let mut named: Vec<_> = parts.iter().map(completed).collect();
        named.sort_by_key(CompletedPart::part_number);
        let named = CompletedMultipartUpload::builder()
            .set_parts(Some(named))
            .build();
        let size: u64 = parts.iter().map(|part| part.size).sum();
        let call = self.copy_call(RequestKind::Complete, key, size);
        self.run(call, || {
            let request = self
                .client
                .complete_multipart_upload()
                .bucket(&self.config.bucket)
                .key(key.as_str())
                .upload_id(&upload.0)
                .multipart_upload(named.clone())
                .mpu_object_size(i64::try_from(size).unwrap_or(i64::MAX))
                .set_request_payer(self.payer());
            let request = with_condition!(request, condition);
            async move {
                let output = request.send().await.map_err(RequestFailure::from_sdk)?;
                etag(key, output.e_tag.as_deref()).map_err(RequestFailure::from)
            }
        })
        .await
    }

    /// Gives an upload up; see [`ackfs_cache::store::ObjectStore::abort`].
    pub(super) async fn abort(&self, key: &Key, upload: &UploadId) -> StoreResult<()> {
        let ended = self
            .run(self.call(RequestKind::Abort, key), || {
                let request = self
                    .client
                    .abort_multipart_upload()
                    .bucket(&self.config.bucket)
                    .key(key.as_str())
                    .upload_id(&upload.0)
                    .set_request_payer(self.payer());
                async move { request.send().await.map_err(RequestFailure::from_sdk) }
            })
            .await;
        match ended.into_result() {
            Ok(_output) => Ok(()),
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn completed(part: &Part) -> CompletedPart {
    let sum = |header: &str| {
        part.checksum
            .as_ref()
            .filter(|(name, _value)| name == header)
            .map(|(_name, value)| value.clone())
    };
    CompletedPart::builder()
        .part_number(part.number as i32)
        .e_tag(part.etag.as_str())
        .set_checksum_crc64_nvme(sum(CRC64NVME))
        .set_checksum_crc32(sum(CRC32))
        .build()
}
