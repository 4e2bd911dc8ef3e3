//! Writing an object in parts.
//!
//! An upload is announced with the checksum its parts will carry, because S3 refuses parts with a
//! checksum that was not announced. Completion names every part's ETag and checksum, and the sum
//! of the sizes (`x-amz-mp-object-size`), so that S3 refuses an object that is not exactly what
//! was sent.
//!
//! A completion whose answer was lost has taken the upload away: asked again, the store no longer
//! knows it. Nobody else could have completed an upload of ours, so HEAD decides even if no
//! attempt of this call was left unsure.

use ackfs_cache::object::{ETag, Key};
use ackfs_cache::store::{
    Condition, Metadata, Part, PartBytes, StoreError, StoreErrorKind, StoreResult, UploadId,
};
use aws_sdk_s3::types::{
    CompletedMultipartUpload, CompletedPart, ServerSideEncryption, StorageClass,
};

use super::core::{Core, etag};
use super::error::Failure;
use super::lost::{Fingerprint, Verdict};
use super::part_body::PartBody;
use super::payload::{CRC32, CRC64NVME, Choice};
use super::probe::Honoured;
use super::put::{refused, with_condition, with_metadata};
use super::request::Ended;
use super::stats::Kind;

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
        let choice = self.policy.choice();
        let traits = self.traits();
        let first = self.create_once(key, metadata, &traits, choice).await;
        match &first.result {
            Err(failure) if self.policy.may_fall_back(choice) && failure.may_dislike_checksum() => {
                let second = self.create_once(key, metadata, &traits, Choice::Md5).await;
                if second.result.is_ok() {
                    self.policy.fall_back();
                }
                second.settle()
            }
            _ => first.settle(),
        }
    }

    pub(super) async fn create_once(
        &self,
        key: &Key,
        metadata: &Metadata,
        traits: &Traits,
        choice: Choice,
    ) -> Ended<UploadId> {
        self.run(self.call(Kind::Create, key), || {
            let request = self
                .client
                .create_multipart_upload()
                .bucket(&self.config.bucket)
                .key(key.as_str())
                .set_checksum_algorithm(self.policy.announced(choice))
                .set_request_payer(self.payer())
                .set_server_side_encryption(traits.sse.clone())
                .set_ssekms_key_id(traits.sse_kms_key_id.clone())
                .set_storage_class(traits.storage_class.clone())
                .set_tagging(traits.tagging.clone())
                .set_acl(self.acl());
            let request = with_metadata!(request, metadata);
            async move {
                let output = request.send().await.map_err(Failure::from_sdk)?;
                output.upload_id.map(UploadId).ok_or_else(|| {
                    Failure::from(StoreError::new(
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
        let payload = PartBody::new(body);
        let choice = self.policy.choice();
        let first = self.part_once(key, upload, number, &payload, choice).await;
        let part = match &first.result {
            Err(failure) if self.policy.may_fall_back(choice) && failure.may_dislike_checksum() => {
                let second = self
                    .part_once(key, upload, number, &payload, Choice::Md5)
                    .await;
                if second.result.is_ok() {
                    self.policy.fall_back();
                }
                second.settle()?
            }
            _ => first.settle()?,
        };
        self.recorder.up(payload.len());
        Ok(part)
    }

    async fn part_once(
        &self,
        key: &Key,
        upload: &UploadId,
        number: u32,
        payload: &PartBody,
        choice: Choice,
    ) -> Ended<Part> {
        let sum = match payload.sum(choice).await {
            Ok(sum) => sum,
            Err(error) => return Ended::unsent(error),
        };
        let checksum = sum.named();
        let (crc64, crc32, md5) = sum.columns();
        let call = self.upload_call(Kind::Part, key, payload.len());
        self.run(call, || {
            let request = self
                .client
                .upload_part()
                .bucket(&self.config.bucket)
                .key(key.as_str())
                .upload_id(&upload.0)
                .part_number(number as i32)
                .body(payload.body())
                .set_checksum_crc64_nvme(crc64.clone())
                .set_checksum_crc32(crc32.clone())
                .set_content_md5(md5.clone())
                .set_request_payer(self.payer());
            let checksum = checksum.clone();
            async move {
                let output = request.send().await.map_err(Failure::from_sdk)?;
                Ok(Part {
                    number,
                    etag: etag(key, output.e_tag.as_deref()).map_err(Failure::from)?,
                    checksum,
                    size: payload.len(),
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
        match self.complete_checked(key, upload, parts, condition).await? {
            Verdict::Ours(etag) => Ok(etag),
            Verdict::Theirs(error) => Err(error),
            Verdict::Predecessor(etag) => {
                let condition = Condition::Matches(etag);
                match self
                    .complete_checked(key, upload, parts, &condition)
                    .await?
                {
                    Verdict::Ours(etag) => Ok(etag),
                    Verdict::Theirs(error) => Err(error),
                    Verdict::Predecessor(_) => Err(StoreError::new(
                        StoreErrorKind::Changed,
                        "the object changes faster than it can be replaced",
                    )
                    .with_key(key)),
                }
            }
        }
    }

    async fn complete_checked(
        &self,
        key: &Key,
        upload: &UploadId,
        parts: &[Part],
        condition: &Condition,
    ) -> StoreResult<Verdict> {
        let mut sent = condition;
        if self.support.read().complete(condition) == Honoured::No {
            self.check_target(key, condition).await?;
            sent = &Condition::None;
        }
        let mut ended = self.complete_once(key, upload, parts, sent).await;
        if let Err(failure) = &ended.result
            && failure.status == Some(501)
            && *sent != Condition::None
            && self.unlearn_conditions()
        {
            self.check_target(key, condition).await?;
            let second = self.complete_once(key, upload, parts, &Condition::None);
            ended = second.await.after(ended.unsure);
        }
        let Ended { result, unsure } = ended;
        let ours = || Fingerprint::of_parts(parts);
        match result {
            Ok(etag) => {
                self.remembered.forget(key);
                Ok(Verdict::Ours(etag))
            }
            Err(failure) if failure.error.kind == StoreErrorKind::NotFound => {
                match self.whose(key, ours, true, failure).await? {
                    Verdict::Theirs(mut error) => {
                        error.kind = match condition {
                            Condition::Matches(_) => StoreErrorKind::Changed,
                            Condition::None | Condition::Absent => StoreErrorKind::NotFound,
                        };
                        Ok(Verdict::Theirs(error))
                    }
                    verdict => Ok(verdict),
                }
            }
            Err(failure) if refused(&failure, sent) => self.whose(key, ours, unsure, failure).await,
            Err(failure) => {
                if unsure {
                    self.remembered.remember(key, ours());
                }
                Err(failure.error)
            }
        }
    }

    async fn complete_once(
        &self,
        key: &Key,
        upload: &UploadId,
        parts: &[Part],
        condition: &Condition,
    ) -> Ended<ETag> {
        let mut named: Vec<_> = parts.iter().map(completed).collect();
        named.sort_by_key(CompletedPart::part_number);
        let named = CompletedMultipartUpload::builder()
            .set_parts(Some(named))
            .build();
        let size: u64 = parts.iter().map(|part| part.size).sum();
        let call = self.copy_call(Kind::Complete, key, size);
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
                let output = request.send().await.map_err(Failure::from_sdk)?;
                etag(key, output.e_tag.as_deref()).map_err(Failure::from)
            }
        })
        .await
    }

    /// Gives an upload up; see [`ackfs_cache::store::ObjectStore::abort`].
    pub(super) async fn abort(&self, key: &Key, upload: &UploadId) -> StoreResult<()> {
        let ended = self
            .run(self.call(Kind::Abort, key), || {
                let request = self
                    .client
                    .abort_multipart_upload()
                    .bucket(&self.config.bucket)
                    .key(key.as_str())
                    .upload_id(&upload.0)
                    .set_request_payer(self.payer());
                async move { request.send().await.map_err(Failure::from_sdk) }
            })
            .await;
        match ended.settle() {
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
