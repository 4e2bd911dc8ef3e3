//! Looking at an object: HEAD, and what it shows.

use ackfs_cache::object::Key;
use ackfs_cache::store::{Metadata, ObjectInfo, StoreError, StoreErrorKind, StoreResult};
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::types::{ChecksumMode, ChecksumType};

use super::answer::{etag, time};
use super::core::Core;
use super::error::RequestFailure;
use super::request::CallEnd;
use super::stats::RequestKind;

impl Core {
    /// HEAD as the store answers it, with checksums if it keeps any.
    pub(super) async fn head_output(&self, key: &Key) -> CallEnd<HeadObjectOutput> {
        self.run(self.call(RequestKind::Head, key), || async {
            self.client
                .head_object()
                .bucket(&self.config.bucket)
                .key(key.as_str())
                .checksum_mode(ChecksumMode::Enabled)
                .set_request_payer(self.payer())
                .send()
                .await
                .map_err(RequestFailure::from_sdk)
        })
        .await
    }

    /// The object at `key`. `NotFound` if there is none.
    pub(super) async fn head(&self, key: &Key) -> StoreResult<ObjectInfo> {
        let output = self.head_output(key).await.into_result()?;
        info(key, output)
    }

    /// The same with `None` in place of `NotFound`.
    pub(super) async fn head_if_there(&self, key: &Key) -> StoreResult<Option<HeadObjectOutput>> {
        match self.head_output(key).await.into_result() {
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
        checksum: whole_checksum(&output),
        modified: time(output.last_modified.as_ref()),
        metadata: metadata(&output),
    })
}

/// The size of the object that HEAD shows.
pub(super) fn size(shown: &HeadObjectOutput) -> u64 {
    shown.content_length.unwrap_or(0).max(0) as u64
}

/// The CRC-64/NVME of the whole object, if HEAD shows one.
pub(super) fn whole_checksum(shown: &HeadObjectOutput) -> Option<String> {
    shown
        .checksum_crc64_nvme
        .clone()
        .filter(|_crc| shown.checksum_type != Some(ChecksumType::Composite))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_of_parts_is_none_of_the_whole() {
        let shown = |checksum_type: ChecksumType| {
            HeadObjectOutput::builder()
                .checksum_crc64_nvme("sum")
                .checksum_type(checksum_type)
                .build()
        };
        let whole = whole_checksum(&shown(ChecksumType::FullObject));
        assert_eq!(whole.as_deref(), Some("sum"));
        assert_eq!(whole_checksum(&shown(ChecksumType::Composite)), None);
    }
}
