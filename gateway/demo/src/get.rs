//! GetObject and HeadObject: the same decision, with and without the bytes.
//!
//! The object is taken out of the map by one short hold of the lock; what the client then reads, however slowly, is that
//! version, shared and not copied.

use std::ops::Range;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode};
use s3s::dto::{
    ChecksumMode, ChecksumType, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput,
    Range as ByteRange, StreamingBlob, Timestamp, TimestampFormat,
};
use s3s::{S3Error, S3Request, S3Response, S3Result, s3_error};

use super::checksum::put_sums;
use super::condition::{ReadCondition, ReadRefusal, precondition_failed};
use super::content::Outgoing;
use super::object::{Object, put_headers};
use super::store::Store;

/// What part of an object a request means.
struct PartOfBody {
    range: Range<u64>,
    /// `Content-Range`, if it is not the whole.
    content_range: Option<String>,
    parts_count: Option<i32>,
}

/// Reads the conditions that get and head have in common.
macro_rules! read_condition {
    ($input:expr) => {
        ReadCondition {
            matching: $input.if_match.clone(),
            none_match: $input.if_none_match.clone(),
            modified_since: $input.if_modified_since.clone(),
            unmodified_since: $input.if_unmodified_since.clone(),
        }
    };
}

/// Fills what get and head have in common.
macro_rules! put_answer {
    ($output:expr, $object:expr, $part:expr, $checksum_mode:expr) => {{
        put_headers!($output, $object);
        $output.content_length = Some(($part.range.end - $part.range.start) as i64);
        $output.content_range = $part.content_range.clone();
        $output.parts_count = $part.parts_count;
        // A checksum is one of the whole object, so it goes with the whole object only.
        let wanted = $checksum_mode
            .as_ref()
            .is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED);
        if wanted && $part.content_range.is_none() {
            put_sums!($output, &$object.sums);
            let kind = if $object.sums.composite {
                ChecksumType::COMPOSITE
            } else {
                ChecksumType::FULL_OBJECT
            };
            $output.checksum_type = Some(ChecksumType::from_static(kind));
        }
    }};
}

/// GetObject.
pub(super) async fn get(
    store: &Arc<Store>,
    request: S3Request<GetObjectInput>,
) -> S3Result<S3Response<GetObjectOutput>> {
    let input = request.input;
    check_version(input.version_id.as_deref())?;
    let object = store.object(&input.bucket, &input.key)?;
    read_condition!(input)
        .check(&object)
        .map_err(|refusal| refused(refusal, &object))?;
    let part = select(&object, input.range, input.part_number)?;
    let mut output = GetObjectOutput::default();
    put_answer!(output, &object, part, input.checksum_mode);
    output.body = Some(StreamingBlob::new(Outgoing::new(
        object.content.slice(part.range),
    )));
    Ok(S3Response::new(output))
}

/// HeadObject.
pub(super) async fn head(
    store: &Arc<Store>,
    request: S3Request<HeadObjectInput>,
) -> S3Result<S3Response<HeadObjectOutput>> {
    let input = request.input;
    check_version(input.version_id.as_deref())?;
    let object = store.object(&input.bucket, &input.key)?;
    read_condition!(input)
        .check(&object)
        .map_err(|refusal| refused(refusal, &object))?;
    let part = select(&object, input.range, input.part_number)?;
    let mut output = HeadObjectOutput::default();
    put_answer!(output, &object, part, input.checksum_mode);
    let status = if part.content_range.is_some() {
        StatusCode::PARTIAL_CONTENT
    } else {
        StatusCode::OK
    };
    Ok(S3Response::with_status(output, status))
}

/// Refuses versions: nothing here has more than one, which AWS calls `null`.
///
/// # Errors
/// NoSuchVersion.
pub(super) fn check_version(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some("null") => Ok(()),
        Some(_) => Err(s3_error!(
            NoSuchVersion,
            "The specified version does not exist."
        )),
    }
}

fn refused(refusal: ReadRefusal, object: &Object) -> S3Error {
    match refusal {
        ReadRefusal::Failed => precondition_failed(),
        ReadRefusal::NotModified => {
            let mut error = s3_error!(NotModified);
            let mut headers = HeaderMap::new();
            let etag = HeaderValue::try_from(format!("\"{}\"", object.etag))
                .expect("an etag is hexadecimal");
            headers.insert(http::header::ETAG, etag);
            headers.insert(http::header::LAST_MODIFIED, http_date(&object.modified()));
            error.set_headers(headers);
            error
        }
    }
}

/// A time as HTTP writes it.
pub(super) fn http_date(time: &Timestamp) -> HeaderValue {
    let mut text = Vec::new();
    time.format(TimestampFormat::HttpDate, &mut text)
        .expect("writing to memory cannot fail");
    HeaderValue::from_maybe_shared(text).expect("a date is visible ASCII")
}

fn select(
    object: &Object,
    range: Option<ByteRange>,
    part_number: Option<i32>,
) -> S3Result<PartOfBody> {
    let len = object.content.len();
    let (range, parts_count) = match (range, part_number) {
        (Some(_), Some(_)) => {
            return Err(s3_error!(
                InvalidRequest,
                "Cannot specify both Range header and partNumber query parameter"
            ));
        }
        (None, None) => {
            return Ok(PartOfBody {
                range: 0..len,
                content_range: None,
                parts_count: None,
            });
        }
        (Some(range), None) => (range.check(len).map_err(|_| unsatisfiable(len))?, None),
        (None, Some(number)) => (
            part_range(object, number)?,
            Some(object.part_lens.len() as i32),
        ),
    };
    if range.is_empty() {
        return Ok(PartOfBody {
            range,
            content_range: None,
            parts_count,
        });
    }
    let content_range = Some(format!("bytes {}-{}/{len}", range.start, range.end - 1));
    Ok(PartOfBody {
        range,
        content_range,
        parts_count: parts_count.filter(|count| *count > 0),
    })
}

fn part_range(object: &Object, number: i32) -> S3Result<Range<u64>> {
    if object.part_lens.is_empty() && number == 1 {
        return Ok(0..object.content.len());
    }
    let index = usize::try_from(number)
        .ok()
        .and_then(|number| number.checked_sub(1));
    let Some(len) = index.and_then(|index| object.part_lens.get(index)) else {
        let message = "The requested partnumber is not satisfiable";
        let code = s3s::S3ErrorCode::Custom("InvalidPartNumber".into());
        let mut error = S3Error::with_message(code, message);
        error.set_status_code(StatusCode::RANGE_NOT_SATISFIABLE);
        return Err(error);
    };
    let start = object.part_lens.iter().take(index.unwrap_or(0)).sum();
    Ok(start..start + len)
}

fn unsatisfiable(len: u64) -> S3Error {
    let mut error = s3_error!(InvalidRange, "The requested range is not satisfiable");
    let mut headers = HeaderMap::new();
    let value = HeaderValue::try_from(format!("bytes */{len}")).expect("digits are visible ASCII");
    headers.insert(http::header::CONTENT_RANGE, value);
    headers.insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/xml"),
    );
    error.set_headers(headers);
    error
}
