//! Making a part of bytes that the store has already: UploadPartCopy.
//!
//! The source is pinned by its ETag, so a part never holds bytes of another version. Not every store
//! implements the request, and one that copies wrongly would damage objects in silence. So the first part
//! that an endpoint says it has copied is looked at in the upload, and its size compared, before it is
//! believed; an endpoint that refuses before it ever copied one, or copies wrongly, is not asked again as long
//! as the mount lives. Callers then get `Rejected` at once, and fetch the bytes and send them. A part from the
//! source's start may be all of it, as at an append: an endpoint that ignores ranges copies that rightly, so
//! it says nothing about the next one.
//!
//! MinIO refuses where the upload was created with a checksum, because it computes none for what it copies;
//! with `--checksum auto` none is announced there (`ChecksumPolicy::announced`).

use ackfs_cache::extent::Extent;
use ackfs_cache::object::{Key, ObjectId};
use ackfs_cache::store::{Part, StoreError, StoreErrorKind, StoreResult, UploadId};
use aws_sdk_s3::types::CopyPartResult;
use tracing::debug;

use super::answer::etag;
use super::checksum::{CRC32, CRC64NVME};
use super::conditions::Honoured;
use super::core::Core;
use super::error::{RequestFailure, Retry};
use super::request::CallEnd;
use super::stats::RequestKind;

impl Core {
    /// Makes a part of `extent` of `source`; see [`ackfs_cache::store::ObjectStore::copy_part`].
    pub(super) async fn copy_part(
        &self,
        key: &Key,
        upload: &UploadId,
        number: u32,
        source: &ObjectId,
        extent: Extent,
    ) -> StoreResult<Part> {
        if extent.is_empty() || self.part_copies.support() == Honoured::No {
            let why = if extent.is_empty() {
                "an empty extent is no part"
            } else {
                "this endpoint does not copy parts"
            };
            return Err(StoreError::new(StoreErrorKind::Rejected, why).with_key(key));
        }
        let copied = self
            .copy_part_once(key, upload, number, source, extent)
            .await;
        match copied.result {
            Ok(part) => self.believe(key, upload, part, extent).await,
            Err(failure) => Err(self.not_copied(failure)),
        }
    }

    /// The same, whatever is known about the endpoint.
    pub(super) async fn copy_part_once(
        &self,
        key: &Key,
        upload: &UploadId,
        number: u32,
        source: &ObjectId,
        extent: Extent,
    ) -> CallEnd<Part> {
        self.run(self.part_copy_call(key, extent.len), || {
            let request = self
                .client
                .upload_part_copy()
                .bucket(&self.config.bucket)
                .key(key.as_str())
                .upload_id(&upload.0)
                .part_number(number as i32)
                .copy_source(self.copy_source(&source.key))
                .copy_source_if_match(source.etag.as_str())
                .copy_source_range(format!("bytes={}-{}", extent.offset, extent.end() - 1))
                .set_request_payer(self.payer());
            async move {
                let output = request.send().await.map_err(RequestFailure::from_sdk)?;
                part(key, number, extent, output.copy_part_result)
            }
        })
        .await
    }

    /// Gives `part` if it is what was asked for; looks at it as long as the endpoint has not shown that it
    /// copies parts. `Rejected` if it is something else.
    async fn believe(
        &self,
        key: &Key,
        upload: &UploadId,
        part: Part,
        extent: Extent,
    ) -> StoreResult<Part> {
        if self.part_copies.support() == Honoured::Yes {
            return Ok(part);
        }
        match self.part_size(key, upload, part.number).await {
            Ok(Some(size)) if size != part.size => {
                let why = format!("a part of {} bytes came to hold {size}", part.size);
                self.part_copies.refused();
                return Err(StoreError::new(StoreErrorKind::Rejected, why).with_key(key));
            }
            Ok(_) if extent.offset > 0 => self.part_copies.proved(),
            Ok(_) => {}
            Err(error) => {
                debug!(%error, "a copied part could not be looked at");
                // It needs another permission (s3:ListMultipartUploadParts).
                if error.kind == StoreErrorKind::Denied {
                    self.part_copies.proved();
                }
            }
        }
        Ok(part)
    }

    /// How many bytes part `number` of an upload has; `None` if the store does not say.
    async fn part_size(
        &self,
        key: &Key,
        upload: &UploadId,
        number: u32,
    ) -> StoreResult<Option<u64>> {
        let output = self
            .run(self.call(RequestKind::ListParts, key), || {
                let request = self
                    .client
                    .list_parts()
                    .bucket(&self.config.bucket)
                    .key(key.as_str())
                    .upload_id(&upload.0)
                    .part_number_marker((number - 1).to_string())
                    .max_parts(1)
                    .set_request_payer(self.payer());
                async move { request.send().await.map_err(RequestFailure::from_sdk) }
            })
            .await
            .into_result()?;
        let part = output.parts().first();
        Ok(part
            .filter(|part| part.part_number == Some(number as i32))
            .and_then(|part| u64::try_from(part.size?).ok()))
    }

    /// What comes out of a copy that failed; takes note of an endpoint that does not copy parts.
    pub(super) fn not_copied(&self, failure: RequestFailure) -> StoreError {
        if self.part_copies.support() == Honoured::Unknown && refuses_every_copy(&failure) {
            self.part_copies.refused();
        }
        let mut error = failure.error;
        if error.kind == StoreErrorKind::NotFound && failure.code.as_deref() != Some("NoSuchUpload")
        {
            error.kind = StoreErrorKind::Changed;
        }
        error
    }

    /// `key` as `x-amz-copy-source` has it.
    pub(super) fn copy_source(&self, key: &Key) -> String {
        format!("{}/{}", self.config.bucket, encode(key.as_str(), "/"))
    }
}

/// The part that the store says it made.
#[expect(
    clippy::result_large_err,
    reason = "a failure is moved a few times for each request that failed, no more"
)]
fn part(
    key: &Key,
    number: u32,
    extent: Extent,
    result: Option<CopyPartResult>,
) -> Result<Part, RequestFailure> {
    // A store that knows nothing of copies takes the request for an empty part, whose ETag it gives in a
    // header alone.
    let Some(result) = result.filter(|result| result.e_tag.is_some()) else {
        let why = "the answer to a copy of a part does not tell its ETag";
        return Err(RequestFailure::new(
            StoreErrorKind::Rejected,
            Retry::Never,
            why,
        ));
    };
    let named = |name: &str, value: Option<String>| value.map(|value| (name.to_owned(), value));
    Ok(Part {
        number,
        etag: etag(key, result.e_tag.as_deref()).map_err(RequestFailure::from)?,
        checksum: named(CRC64NVME, result.checksum_crc64_nvme)
            .or_else(|| named(CRC32, result.checksum_crc32)),
        size: extent.len,
    })
}

/// Whether a refusal is about copies of parts as such, and not about this source: that it is archived, or
/// smaller than what S3 copies a range of (5 MiB), or ends before the extent does.
fn refuses_every_copy(failure: &RequestFailure) -> bool {
    failure.error.kind == StoreErrorKind::Rejected
        && failure.status != Some(416)
        && !matches!(
            failure.code.as_deref(),
            Some("InvalidObjectState" | "NoSuchBucket")
        )
        && !failure.error.message.contains("source")
}

/// `text` URL-encoded, but for the unreserved characters of RFC 3986 and those in `kept`.
pub(super) fn encode(text: &str, kept: &str) -> String {
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
