//! The requests of a multipart upload. What they decide is in `multipart`; here are their clothes.

use std::collections::BTreeSet;
use std::sync::Arc;

use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, ChecksumAlgorithm, ChecksumType,
    CommonPrefix, CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CopyPartResult,
    CreateMultipartUploadInput, CreateMultipartUploadOutput, ListMultipartUploadsInput,
    ListMultipartUploadsOutput, ListPartsInput, ListPartsOutput, MultipartUpload,
    Part as PartEntry, Range as ByteRange, UploadPartCopyInput, UploadPartCopyOutput,
    UploadPartInput, UploadPartOutput,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::bucket::owner;
use super::checksum::{Algorithm, put_sums, sums_of};
use super::condition::WriteCondition;
use super::content::Content;
use super::copy::{source, source_condition};
use super::faults::Miscopying;
use super::list::{Names, page_max};
use super::multipart::{Part, Upload, check_number, no_such_upload, part_algorithm};
use super::object::{headers_of, now, put_encryption};
use super::put::{PUT_LEN_MAX, check_headers};
use super::receive::{Claims, hash, receive};
use super::store::{Change, Store};

/// CreateMultipartUpload.
pub(super) async fn create(
    store: &Arc<Store>,
    request: S3Request<CreateMultipartUploadInput>,
) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
    let input = request.input;
    let headers = headers_of!(input);
    check_headers(&headers)?;
    let algorithm = input
        .checksum_algorithm
        .as_ref()
        .map(ChecksumAlgorithm::as_str);
    let upload = Upload::new(
        headers,
        algorithm,
        input.checksum_type.as_ref().map(ChecksumType::as_str),
    )?;
    let mut output = CreateMultipartUploadOutput {
        bucket: Some(input.bucket.clone()),
        key: Some(input.key.clone()),
        upload_id: Some(store.upload_id()),
        checksum_algorithm: upload
            .algorithm
            .map(|algorithm| ChecksumAlgorithm::from_static(algorithm.name())),
        checksum_type: upload.algorithm.map(|_| checksum_type(upload.composite)),
        sse_customer_algorithm: upload.headers.sse_customer_algorithm.clone(),
        sse_customer_key_md5: upload.headers.sse_customer_key_md5.clone(),
        ..Default::default()
    };
    put_encryption!(output, &upload.headers);
    let id = output.upload_id.clone().unwrap_or_default();
    store.with(&input.bucket, |bucket| {
        bucket.uploads.insert((input.key.into(), id), upload);
        Ok(())
    })?;
    Ok(S3Response::new(output))
}

/// UploadPart. Waits for the client.
pub(super) async fn part(
    store: &Arc<Store>,
    request: S3Request<UploadPartInput>,
) -> S3Result<S3Response<UploadPartOutput>> {
    let S3Request {
        mut input,
        headers: http_headers,
        trailing_headers,
        ..
    } = request;
    check_number(input.part_number)?;
    let algorithm = store.with(&input.bucket, |bucket| {
        bucket
            .upload(&input.key, &input.upload_id)
            .map(|it| part_algorithm(it))
    });
    let claims = Claims {
        content_length: input.content_length,
        content_md5: input.content_md5.as_deref(),
        sums: sums_of!(input),
        headers: &http_headers,
        trailers: trailing_headers.as_ref(),
        also: algorithm.as_ref().ok().copied(),
    };
    // Read even if the upload is not there: an answer before the end of the body is lost on many clients.
    let received = receive(input.body.take(), claims).await?;
    if received.content.len() > PUT_LEN_MAX {
        return Err(s3_error!(
            EntityTooLarge,
            "Your proposed upload exceeds the maximum allowed size"
        ));
    }
    let part = Part {
        etag: received.etag,
        content: received.content,
        sums: received.sums,
        modified: now(),
    };
    let mut output = UploadPartOutput {
        e_tag: Some(etag(&part)),
        ..Default::default()
    };
    let shown = received.claimed.unwrap_or(algorithm?);
    put_sums!(output, &part.sums.only(shown));
    store.with(&input.bucket, |bucket| {
        let upload = bucket.upload(&input.key, &input.upload_id)?;
        upload.accepts(received.claimed)?;
        put_encryption!(output, &upload.headers);
        upload.parts.insert(input.part_number, part);
        Ok(())
    })?;
    Ok(S3Response::new(output))
}

/// UploadPartCopy. As on AWS a range is copied only from a source that is larger than the smallest part.
pub(super) async fn part_copy(
    store: &Arc<Store>,
    request: S3Request<UploadPartCopyInput>,
) -> S3Result<S3Response<UploadPartCopyOutput>> {
    let S3Request {
        input, extensions, ..
    } = request;
    check_number(input.part_number)?;
    let algorithm = store.with(&input.bucket, |bucket| {
        bucket
            .upload(&input.key, &input.upload_id)
            .map(|it| part_algorithm(it))
    })?;
    let source = source(store, &input.copy_source, &source_condition!(input))?;
    let range = match &input.copy_source_range {
        None => 0..source.content.len(),
        Some(_) if source.content.len() <= store.part_len_min => {
            return Err(s3_error!(
                InvalidRequest,
                "The specified copy source is not supported as a byte-range copy source"
            ));
        }
        Some(text) => copy_range(text, source.content.len())?,
    };
    if range.end - range.start > PUT_LEN_MAX {
        return Err(s3_error!(
            InvalidRequest,
            "The specified copy source is larger than the maximum allowable size for a copy source: {PUT_LEN_MAX}"
        ));
    }
    let (range, damaged) = match extensions.get::<Miscopying>() {
        Some(miscopying) => miscopying.strike(range, source.content.len()),
        None => (range, None),
    };
    let mut content = Content::new(source.content.slice(range));
    if let Some(at) = damaged {
        content = content.with_a_bit_flipped(at);
    }
    let (md5, sums) = hash(&content, [algorithm]).await;
    let part = Part {
        etag: md5,
        content,
        sums,
        modified: now(),
    };
    let mut result = CopyPartResult {
        e_tag: Some(etag(&part)),
        last_modified: Some(part.modified.into()),
        ..Default::default()
    };
    put_sums!(result, &part.sums);
    let mut output = UploadPartCopyOutput {
        copy_part_result: Some(result),
        ..Default::default()
    };
    store.with(&input.bucket, |bucket| {
        let upload = bucket.upload(&input.key, &input.upload_id)?;
        put_encryption!(output, &upload.headers);
        upload.parts.insert(input.part_number, part);
        Ok(())
    })?;
    Ok(S3Response::new(output))
}

/// CompleteMultipartUpload.
pub(super) async fn complete(
    store: &Arc<Store>,
    request: S3Request<CompleteMultipartUploadInput>,
) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
    let input = request.input;
    let upload = store.with(&input.bucket, |bucket| {
        bucket.upload(&input.key, &input.upload_id).cloned()
    })?;
    let object = upload.assemble(&input, store.part_len_min)?;
    let mut output = CompleteMultipartUploadOutput {
        location: Some(format!("/{}/{}", input.bucket, input.key)),
        bucket: Some(input.bucket.clone()),
        key: Some(input.key.clone()),
        e_tag: Some(object.etag()),
        checksum_type: Some(checksum_type(upload.composite)),
        ..Default::default()
    };
    put_sums!(output, &object.sums);
    put_encryption!(output, &object.headers);
    let condition = WriteCondition {
        if_match: input.if_match,
        if_none_match: input.if_none_match,
    };
    store.commit(Change {
        bucket: input.bucket,
        key: input.key,
        condition: store.quirks().on_write(condition)?,
        object: Some(object),
        ends: Some(input.upload_id),
    })?;
    Ok(S3Response::new(output))
}

/// AbortMultipartUpload.
pub(super) async fn abort(
    store: &Arc<Store>,
    request: S3Request<AbortMultipartUploadInput>,
) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
    let input = request.input;
    store.with(&input.bucket, |bucket| {
        let id = (input.key.into(), input.upload_id);
        bucket
            .uploads
            .remove(&id)
            .map(drop)
            .ok_or_else(no_such_upload)
    })?;
    Ok(S3Response::with_status(
        AbortMultipartUploadOutput::default(),
        http::StatusCode::NO_CONTENT,
    ))
}

/// ListMultipartUploads.
pub(super) async fn list(
    store: &Arc<Store>,
    request: S3Request<ListMultipartUploadsInput>,
) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
    let input = request.input;
    let max = page_max(input.max_uploads)?;
    let names = Names::new(input.encoding_type.as_ref());
    let prefix = input.prefix.clone().unwrap_or_default();
    let delimiter = input
        .delimiter
        .as_deref()
        .filter(|delimiter| !delimiter.is_empty());
    let key_marker = input.key_marker.clone().unwrap_or_default();
    // Without an upload id the marker skips all uploads of its key; without a key it does not count.
    let id_marker = input.upload_id_marker.clone();
    let skipped = |key: &str, id: &str| match &id_marker {
        _ if key_marker.is_empty() => false,
        Some(marker) => (key, id) <= (key_marker.as_str(), marker.as_str()),
        None => key <= key_marker.as_str(),
    };
    let mut uploads = Vec::new();
    let mut prefixes = BTreeSet::new();
    let mut last: Option<(String, String)> = None;
    let mut truncated = false;
    store.with(&input.bucket, |bucket| {
        for ((key, id), upload) in &bucket.uploads {
            let Some(rest) = key.strip_prefix(prefix.as_str()) else {
                continue;
            };
            let common = delimiter
                .and_then(|it| rest.find(it).map(|at| &key[..prefix.len() + at + it.len()]));
            // A marker inside a common prefix has shown all of it.
            let shown = |common: &str| prefixes.contains(common) || key_marker.starts_with(common);
            if skipped(key, id) || common.is_some_and(shown) {
                continue;
            }
            if uploads.len() + prefixes.len() >= max {
                truncated = max > 0;
                break;
            }
            last = Some((key.to_string(), id.clone()));
            match common {
                Some(common) => _ = prefixes.insert(common.to_owned()),
                None => uploads.push(describe(&names, key, id, upload)),
            }
        }
        Ok(())
    })?;
    let (next_key_marker, next_upload_id_marker) = last.filter(|_| truncated).unzip();
    Ok(S3Response::new(ListMultipartUploadsOutput {
        bucket: Some(input.bucket),
        prefix: input.prefix.map(|prefix| names.encode(&prefix)),
        delimiter: input.delimiter.map(|delimiter| names.encode(&delimiter)),
        key_marker: input.key_marker.map(|marker| names.encode(&marker)),
        upload_id_marker: input.upload_id_marker,
        next_key_marker: next_key_marker.map(|marker| names.encode(&marker)),
        next_upload_id_marker,
        max_uploads: Some(input.max_uploads.unwrap_or(super::list::PAGE_MAX)),
        is_truncated: Some(truncated),
        uploads: Some(uploads),
        common_prefixes: Some(
            prefixes
                .iter()
                .map(|prefix| CommonPrefix {
                    prefix: Some(names.encode(prefix)),
                })
                .collect(),
        ),
        encoding_type: input.encoding_type,
        request_charged: None,
    }))
}

/// ListParts.
pub(super) async fn list_parts(
    store: &Arc<Store>,
    request: S3Request<ListPartsInput>,
) -> S3Result<S3Response<ListPartsOutput>> {
    let input = request.input;
    let max = page_max(input.max_parts)?;
    let after = input.part_number_marker.unwrap_or(0);
    let upload = store.with(&input.bucket, |bucket| {
        bucket.upload(&input.key, &input.upload_id).cloned()
    })?;
    let mut following = upload.parts.iter().filter(|(number, _)| **number > after);
    let parts: Vec<_> = following
        .by_ref()
        .take(max)
        .map(|(number, part)| {
            let mut entry = PartEntry {
                part_number: Some(*number),
                e_tag: Some(etag(part)),
                size: Some(part.content.len() as i64),
                last_modified: Some(part.modified.into()),
                ..Default::default()
            };
            put_sums!(entry, &part.sums);
            entry
        })
        .collect();
    let truncated = max > 0 && following.next().is_some();
    Ok(S3Response::new(ListPartsOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        max_parts: Some(input.max_parts.unwrap_or(super::list::PAGE_MAX)),
        part_number_marker: input.part_number_marker,
        next_part_number_marker: parts
            .last()
            .and_then(|part| part.part_number)
            .filter(|_| truncated),
        is_truncated: Some(truncated),
        parts: Some(parts),
        owner: Some(owner()),
        checksum_algorithm: upload
            .algorithm
            .map(|algorithm| ChecksumAlgorithm::from_static(algorithm.name())),
        checksum_type: upload.algorithm.map(|_| checksum_type(upload.composite)),
        ..Default::default()
    }))
}

fn describe(names: &Names, key: &str, id: &str, upload: &Upload) -> MultipartUpload {
    let named = |algorithm: Algorithm| ChecksumAlgorithm::from_static(algorithm.name());
    MultipartUpload {
        key: Some(names.encode(key)),
        upload_id: Some(id.to_owned()),
        initiated: Some(upload.initiated.into()),
        owner: Some(owner()),
        checksum_algorithm: upload.algorithm.map(named),
        checksum_type: upload.algorithm.map(|_| checksum_type(upload.composite)),
        ..Default::default()
    }
}

fn etag(part: &Part) -> s3s::dto::ETag {
    s3s::dto::ETag::Strong(part.etag.clone())
}

fn checksum_type(composite: bool) -> ChecksumType {
    ChecksumType::from_static(if composite {
        ChecksumType::COMPOSITE
    } else {
        ChecksumType::FULL_OBJECT
    })
}

/// `bytes=FIRST-LAST`, both given and both inside: what AWS takes for the range of a part.
fn copy_range(text: &str, len: u64) -> S3Result<std::ops::Range<u64>> {
    let Ok(ByteRange::Int {
        first,
        last: Some(last),
    }) = ByteRange::parse(text)
    else {
        return Err(s3_error!(
            InvalidArgument,
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the \
             zero-based offsets of the first and last bytes to copy"
        ));
    };
    if last >= len {
        return Err(s3_error!(
            InvalidArgument,
            "Range specified is not valid for source object of size: {len}"
        ));
    }
    Ok(first..last + 1)
}
