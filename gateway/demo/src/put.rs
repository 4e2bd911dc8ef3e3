//! PutObject: the body first, then condition and swap as one step.

use std::sync::Arc;

use s3s::dto::{ChecksumType, PutObjectInput, PutObjectOutput};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::checksum::{Algorithm, put_sums, sums_of};
use super::condition::WriteCondition;
use super::object::{Headers, Object, USER_METADATA_LEN_MAX, headers_of, now, put_encryption};
use super::receive::{Claims, receive};
use super::store::{Change, Store};

/// AWS's limit on an object put, or copied, in one request: 5 GiB.
pub(super) const PUT_LEN_MAX: u64 = 5 << 30;

/// PutObject. Waits for the client.
pub(super) async fn put(
    store: &Arc<Store>,
    request: S3Request<PutObjectInput>,
) -> S3Result<S3Response<PutObjectOutput>> {
    let S3Request {
        mut input,
        headers: http_headers,
        trailing_headers,
        ..
    } = request;
    if input
        .content_length
        .is_some_and(|len| len as u64 > PUT_LEN_MAX)
    {
        return Err(s3_error!(
            EntityTooLarge,
            "Your proposed upload exceeds the maximum allowed size"
        ));
    }
    let also = input
        .checksum_algorithm
        .as_ref()
        .and_then(|name| Algorithm::parse(name.as_str()));
    let claims = Claims {
        content_length: input.content_length,
        content_md5: input.content_md5.as_deref(),
        sums: sums_of!(input),
        headers: &http_headers,
        trailers: trailing_headers.as_ref(),
        also,
    };
    let received = receive(input.body.take(), claims).await?;
    let headers = headers_of!(input);
    check_headers(&headers)?;

    let mut output = PutObjectOutput {
        size: None,
        checksum_type: Some(ChecksumType::from_static(ChecksumType::FULL_OBJECT)),
        sse_customer_algorithm: headers.sse_customer_algorithm.clone(),
        sse_customer_key_md5: headers.sse_customer_key_md5.clone(),
        ..Default::default()
    };
    put_sums!(output, &received.sums);
    put_encryption!(output, &headers);
    let object = Object {
        etag: received.etag,
        content: received.content,
        modified: now(),
        headers: Arc::new(headers),
        sums: received.sums,
        part_lens: Vec::new(),
    };
    output.e_tag = Some(object.etag());
    let condition = WriteCondition {
        if_match: input.if_match,
        if_none_match: input.if_none_match,
    };
    store.commit(Change {
        bucket: input.bucket,
        key: input.key,
        condition: store.quirks().on_write(condition)?,
        object: Some(object),
        ends: None,
    })?;
    Ok(S3Response::new(output))
}

/// Refuses headers that S3 would not keep.
///
/// # Errors
/// MetadataTooLarge.
pub(super) fn check_headers(headers: &Headers) -> S3Result<()> {
    if headers.user_len() > USER_METADATA_LEN_MAX {
        return Err(s3_error!(
            MetadataTooLarge,
            "Your metadata headers exceed the maximum allowed metadata size"
        ));
    }
    Ok(())
}
