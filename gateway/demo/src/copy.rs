//! CopyObject, and the source of any copy.
//!
//! The source is one version, taken under the lock; the destination is written like a put, with its own conditions.
//! s3s 0.14 does not know the destination's conditions (AWS has them since late 2025), so they are read from the headers.

use std::sync::Arc;

use http::HeaderMap;
use s3s::dto::{
    ChecksumType, CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopySource, ETagCondition,
    MetadataDirective,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::checksum::{Algorithm, put_sums};
use super::condition::{ReadCondition, WriteCondition, precondition_failed};
use super::get::check_version;
use super::object::{Headers, Object, headers_of, now, put_encryption};
use super::put::{PUT_LEN_MAX, check_headers};
use super::receive::{hash, header};
use super::store::{Change, Store};

/// Reads the conditions on the source that copies have in common.
macro_rules! source_condition {
    ($input:expr) => {
        $crate::condition::ReadCondition {
            matching: $input.copy_source_if_match.clone(),
            none_match: $input.copy_source_if_none_match.clone(),
            modified_since: $input.copy_source_if_modified_since.clone(),
            unmodified_since: $input.copy_source_if_unmodified_since.clone(),
        }
    };
}

pub(super) use source_condition;

/// CopyObject.
pub(super) async fn copy(
    store: &Arc<Store>,
    request: S3Request<CopyObjectInput>,
) -> S3Result<S3Response<CopyObjectOutput>> {
    let S3Request {
        input,
        headers: http_headers,
        ..
    } = request;
    let source = source(store, &input.copy_source, &source_condition!(input))?;
    if source.content.len() > PUT_LEN_MAX {
        return Err(s3_error!(
            InvalidRequest,
            "The specified copy source is larger than the maximum allowable size for a copy source: {PUT_LEN_MAX}"
        ));
    }
    let headers = target_headers(&input, &source.headers)?;
    let object = copied(&input, &source, headers).await;

    let condition = WriteCondition {
        if_match: condition(&http_headers, "if-match")?,
        if_none_match: condition(&http_headers, "if-none-match")?,
    };
    let mut result = CopyObjectResult {
        e_tag: Some(object.etag()),
        last_modified: Some(object.modified()),
        checksum_type: Some(ChecksumType::from_static(ChecksumType::FULL_OBJECT)),
        ..Default::default()
    };
    put_sums!(result, &object.sums);
    let mut output = CopyObjectOutput {
        copy_object_result: Some(result),
        ..Default::default()
    };
    put_encryption!(output, &object.headers);
    store.commit(Change {
        bucket: input.bucket,
        key: input.key,
        condition: store.quirks().on_copy(condition)?,
        object: Some(object),
        ends: None,
    })?;
    Ok(S3Response::new(output))
}

/// The object that a copy reads.
///
/// # Errors
/// NoSuchBucket, NoSuchKey, PreconditionFailed if a condition on the source does not hold.
pub(super) fn source(
    store: &Store,
    source: &CopySource,
    condition: &ReadCondition,
) -> S3Result<Arc<Object>> {
    let CopySource::Bucket {
        bucket,
        key,
        version_id,
    } = source
    else {
        return Err(s3_error!(
            NotImplemented,
            "Access points are not implemented by the demo store"
        ));
    };
    check_version(version_id.as_deref())?;
    let object = store.object(bucket, key)?;
    condition
        .check(&object)
        .map_err(|_| precondition_failed())?;
    Ok(object)
}

/// The headers of the copy: the source's, or with REPLACE the request's.
fn target_headers(input: &CopyObjectInput, source: &Headers) -> S3Result<Headers> {
    let asked = headers_of!(input);
    let replace = input
        .metadata_directive
        .as_ref()
        .is_some_and(|directive| directive.as_str() == MetadataDirective::REPLACE);
    // Class, encryption and redirection are never taken over from the source.
    let headers = if replace {
        asked
    } else {
        Headers {
            storage_class: asked.storage_class,
            server_side_encryption: asked.server_side_encryption,
            ssekms_key_id: asked.ssekms_key_id,
            bucket_key_enabled: asked.bucket_key_enabled,
            sse_customer_algorithm: asked.sse_customer_algorithm,
            sse_customer_key_md5: asked.sse_customer_key_md5,
            website_redirect_location: asked.website_redirect_location,
            ..source.clone()
        }
    };
    check_headers(&headers)?;
    let to_itself = matches!(&input.copy_source, CopySource::Bucket { bucket, key, .. }
        if **bucket == *input.bucket && **key == *input.key);
    let changes = replace
        || headers.storage_class.is_some()
        || headers.server_side_encryption.is_some()
        || headers.website_redirect_location.is_some();
    if to_itself && !changes {
        return Err(s3_error!(
            InvalidRequest,
            "This copy request is illegal because it is trying to copy an object to itself without changing the \
             object's metadata, storage class, website redirect location or encryption attributes."
        ));
    }
    Ok(headers)
}

/// A copy is an object put in one piece: its ETag is an MD5 and its checksum one of the whole.
async fn copied(input: &CopyObjectInput, source: &Object, headers: Headers) -> Object {
    let wanted = input
        .checksum_algorithm
        .as_ref()
        .and_then(|name| Algorithm::parse(name.as_str()));
    let known = !source.sums.composite
        && source
            .sums
            .algorithms()
            .any(|known| wanted.is_none_or(|it| it == known));
    let (etag, sums) = if source.part_lens.is_empty() && known {
        let sums = wanted.map_or_else(|| source.sums.clone(), |wanted| source.sums.only(wanted));
        (source.etag.clone(), sums)
    } else {
        let algorithm = wanted
            .or(source.sums.algorithms().next())
            .unwrap_or(Algorithm::Crc64nvme);
        hash(&source.content, [algorithm]).await
    };
    Object {
        etag,
        content: source.content.clone(),
        modified: now(),
        headers: Arc::new(headers),
        sums,
        part_lens: Vec::new(),
    }
}

fn condition(headers: &HeaderMap, name: &str) -> S3Result<Option<ETagCondition>> {
    let Some(text) = header(headers, name) else {
        return Ok(None);
    };
    let condition = ETagCondition::parse_http_header(text.as_bytes());
    condition
        .map(Some)
        .map_err(|error| s3_error!(error, InvalidArgument, "invalid header: {name}"))
}
