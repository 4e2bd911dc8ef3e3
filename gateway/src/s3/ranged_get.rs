//! Asking for one extent of one version, by `Range` and `If-Match`, and believing the answer only if it is that:
//! the version, where the range begins, how long it is.

use ackfs_cache::extent::Extent;
use ackfs_cache::object::ObjectId;
use ackfs_cache::store::{Priority, StoreError, StoreErrorKind, StoreResult};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::types::ChecksumMode;
use aws_smithy_types::body::SdkBody;

use super::call::CallSpec;
use super::core::Core;
use super::error::{RequestFailure, Retry};
use super::permits::Permit;
use super::stats::RequestKind;

/// An answer that was checked.
pub(super) struct OpenedBody {
    pub(super) stream: SdkBody,
    pub(super) permit: Permit,
    /// The object's whole size.
    pub(super) size: u64,
    /// The first byte after the last one that will come.
    pub(super) end: u64,
    /// Whether a checksum of the whole object stands behind the last byte.
    pub(super) summed: bool,
}

impl Core {
    /// Sends the GET and checks its answer.
    pub(super) async fn open(
        &self,
        id: &ObjectId,
        extent: Extent,
        priority: Priority,
    ) -> StoreResult<OpenedBody> {
        let call = CallSpec {
            priority,
            ..self.call(RequestKind::Get, &id.key)
        };
        let ended = self
            .run_holding(call, |permit| async move {
                let output = self
                    .client
                    .get_object()
                    .bucket(&self.config.bucket)
                    .key(id.key.as_str())
                    .set_range(range_of(extent))
                    .if_match(id.etag.as_str())
                    .checksum_mode(ChecksumMode::Enabled)
                    .set_request_payer(self.payer())
                    .send()
                    .await
                    .map_err(RequestFailure::from_sdk)?;
                check(output, id, extent, permit)
            })
            .await;
        match ended.result {
            Ok(opened) => Ok(opened),
            // The object is shorter than where the extent begins. The caller knows its size, so
            // it is another version; a store that looks at the range first says it this way.
            Err(failure) if failure.status == Some(416) => {
                let now = self.head(&id.key).await?;
                Err(if id.etag.is_same(now.etag.as_str()) {
                    failure.error
                } else {
                    StoreError::new(
                        StoreErrorKind::Changed,
                        format!("the object is now {} with {} bytes", now.etag, now.size),
                    )
                    .with_key(&id.key)
                })
            }
            Err(failure) => Err(failure.error),
        }
    }
}

/// Believes an answer only if it is what was asked for.
#[expect(
    clippy::result_large_err,
    reason = "a failure is moved a few times for each request that failed, no more"
)]
fn check(
    output: GetObjectOutput,
    id: &ObjectId,
    extent: Extent,
    permit: Permit,
) -> Result<OpenedBody, RequestFailure> {
    let wrong = |message: String| {
        let message = format!("the answer does not fit what was asked: {message}");
        RequestFailure::new(StoreErrorKind::Broken, Retry::Few, message)
    };
    if let Some(etag) = &output.e_tag
        && !id.etag.is_same(etag)
    {
        return Err(RequestFailure::new(
            StoreErrorKind::Changed,
            Retry::Never,
            format!("the object is now {etag}; the endpoint ignores If-Match"),
        ));
    }
    let len = u64::try_from(output.content_length.unwrap_or(-1))
        .map_err(|_negative| wrong("no Content-Length".to_owned()))?;
    let (begin, size) = match output.content_range.as_deref() {
        Some(range) => {
            parse_range(range).ok_or_else(|| wrong(format!("Content-Range is {range:?}")))?
        }
        // Without a range the answer is the whole object; its beginning will do.
        None => (0, len),
    };
    let end = extent.end().min(size);
    let whole = begin == 0 && len == size;
    let fits = begin == extent.offset && end > begin && begin + len == end;
    if !(fits || whole && extent.offset == 0 && end > 0) {
        return Err(wrong(format!(
            "{len} bytes from {begin} of {size} in place of {extent:?}"
        )));
    }
    let summed = whole
        && end == size
        && [
            &output.checksum_crc64_nvme,
            &output.checksum_crc32,
            &output.checksum_crc32_c,
            &output.checksum_sha1,
            &output.checksum_sha256,
        ]
        .iter()
        .any(|sum| sum.is_some());
    Ok(OpenedBody {
        stream: output.body.into_inner(),
        permit,
        size,
        end,
        summed,
    })
}

/// The `Range` header; none for the whole object, because only then a checksum comes with it.
fn range_of(extent: Extent) -> Option<String> {
    let whole = extent.offset == 0 && extent.end() == u64::MAX;
    (!whole).then(|| format!("bytes={}-{}", extent.offset, extent.end() - 1))
}

/// The first byte and the whole size in `bytes 0-9/100`.
fn parse_range(range: &str) -> Option<(u64, u64)> {
    let (span, size) = range.strip_prefix("bytes ")?.split_once('/')?;
    let (begin, end) = span.split_once('-')?;
    let (begin, end, size): (u64, u64, u64) =
        (begin.parse().ok()?, end.parse().ok()?, size.parse().ok()?);
    (begin <= end && end < size).then_some((begin, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sound_content_ranges_are_read() {
        assert_eq!(parse_range("bytes 0-9/100"), Some((0, 100)));
        assert_eq!(parse_range("bytes 99-99/100"), Some((99, 100)));
        for wrong in [
            "",
            "bytes",
            "bytes 0-9",
            "bytes 0-9/*",
            "bytes 9-0/100",
            "bytes 0-100/100",
            "bytes */100",
            "0-9/100",
            "bytes 0-99999999999999999999/100",
        ] {
            assert_eq!(parse_range(wrong), None, "{wrong}");
        }
    }
}
