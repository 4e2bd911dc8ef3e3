//! ListObjectsV2 and its elder: pages of `listing` in S3's clothes.
//!
//! A continuation token is the name to resume behind, in base64 so that clients keep their hands off it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use s3s::dto::{
    ChecksumAlgorithm, ChecksumType, CommonPrefix, EncodingType, ListObjectsInput,
    ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output, Object as ObjectEntry,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::bucket::owner;
use super::listing::{Entry, Query, page};
use super::object::Object;
use super::store::Store;

/// Most entries on a page, and how many there are if nobody says.
pub(super) const PAGE_MAX: i32 = 1000;

/// ListObjectsV2.
pub(super) async fn v2(
    store: &Arc<Store>,
    request: S3Request<ListObjectsV2Input>,
) -> S3Result<S3Response<ListObjectsV2Output>> {
    let input = request.input;
    let resume = input
        .continuation_token
        .as_deref()
        .map(read_token)
        .transpose()?;
    let after = resume.as_deref().or(input.start_after.as_deref());
    let max = page_max(input.max_keys)?;
    let names = Names::new(input.encoding_type.as_ref());
    let with_owner = input.fetch_owner.unwrap_or(false);
    let listed = collect(
        store,
        &input.bucket,
        input.prefix.as_deref(),
        input.delimiter.as_deref(),
        after,
        max,
        &names,
        with_owner,
    )?;
    Ok(S3Response::new(ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(names.encode(&input.prefix.unwrap_or_default())),
        max_keys: Some(input.max_keys.unwrap_or(PAGE_MAX)),
        key_count: Some((listed.objects.len() + listed.prefixes.len()) as i32),
        continuation_token: input.continuation_token,
        is_truncated: Some(listed.next.is_some()),
        next_continuation_token: listed.next.map(|next| BASE64.encode(next)),
        contents: Some(listed.objects),
        common_prefixes: Some(listed.prefixes),
        delimiter: input.delimiter.map(|delimiter| names.encode(&delimiter)),
        encoding_type: input.encoding_type,
        start_after: input.start_after.map(|after| names.encode(&after)),
        request_charged: None,
    }))
}

/// ListObjects, the first version.
pub(super) async fn v1(
    store: &Arc<Store>,
    request: S3Request<ListObjectsInput>,
) -> S3Result<S3Response<ListObjectsOutput>> {
    let input = request.input;
    let after = input.marker.as_deref().filter(|marker| !marker.is_empty());
    let max = page_max(input.max_keys)?;
    let names = Names::new(input.encoding_type.as_ref());
    let listed = collect(
        store,
        &input.bucket,
        input.prefix.as_deref(),
        input.delimiter.as_deref(),
        after,
        max,
        &names,
        true,
    )?;
    let truncated = listed.next.is_some();
    Ok(S3Response::new(ListObjectsOutput {
        name: Some(input.bucket),
        prefix: Some(names.encode(&input.prefix.unwrap_or_default())),
        marker: Some(names.encode(&input.marker.unwrap_or_default())),
        max_keys: Some(input.max_keys.unwrap_or(PAGE_MAX)),
        is_truncated: Some(truncated),
        contents: Some(listed.objects),
        common_prefixes: Some(listed.prefixes),
        // AWS names the next marker only where the last key does not do.
        next_marker: listed
            .next
            .filter(|_| input.delimiter.is_some())
            .map(|next| names.encode(&next)),
        delimiter: input.delimiter.map(|delimiter| names.encode(&delimiter)),
        encoding_type: input.encoding_type,
        request_charged: None,
    }))
}

struct Listed {
    objects: Vec<ObjectEntry>,
    prefixes: Vec<CommonPrefix>,
    next: Option<String>,
}

#[allow(
    clippy::too_many_arguments,
    reason = "the parameters of a listing are many, and two callers spell them"
)]
fn collect(
    store: &Store,
    bucket: &str,
    prefix: Option<&str>,
    delimiter: Option<&str>,
    after: Option<&str>,
    max: usize,
    names: &Names,
    with_owner: bool,
) -> S3Result<Listed> {
    let query = Query {
        prefix: prefix.unwrap_or_default(),
        delimiter: delimiter.filter(|delimiter| !delimiter.is_empty()),
        after,
        max,
    };
    store.with(bucket, |bucket| {
        let page = page(&bucket.objects, query);
        let (mut objects, mut prefixes) = (Vec::new(), Vec::new());
        for entry in page.entries {
            match entry {
                Entry::Key(key, object) => {
                    objects.push(describe(names.encode(key), object, with_owner));
                }
                Entry::CommonPrefix(prefix) => {
                    prefixes.push(CommonPrefix {
                        prefix: Some(names.encode(&prefix)),
                    });
                }
            }
        }
        Ok(Listed {
            objects,
            prefixes,
            next: page.next,
        })
    })
}

fn describe(key: String, object: &Object, with_owner: bool) -> ObjectEntry {
    let kind = if object.sums.composite {
        ChecksumType::COMPOSITE
    } else {
        ChecksumType::FULL_OBJECT
    };
    ObjectEntry {
        key: Some(key),
        e_tag: Some(object.etag()),
        size: Some(object.content.len() as i64),
        last_modified: Some(object.modified()),
        owner: with_owner.then(owner),
        storage_class: Some(
            object
                .headers
                .storage_class
                .clone()
                .unwrap_or_else(|| "STANDARD".to_owned())
                .into(),
        ),
        checksum_algorithm: Some(
            object
                .sums
                .algorithms()
                .map(|algorithm| ChecksumAlgorithm::from_static(algorithm.name()))
                .collect(),
        ),
        checksum_type: Some(ChecksumType::from_static(kind)),
        restore_status: None,
    }
}

/// The size of a page.
///
/// # Errors
/// InvalidArgument if it is negative.
pub(super) fn page_max(asked: Option<i32>) -> S3Result<usize> {
    let asked = asked.unwrap_or(PAGE_MAX);
    let asked = usize::try_from(asked).map_err(|error| {
        s3_error!(
            error,
            InvalidArgument,
            "Argument maxKeys must be an integer between 0 and 2147483647"
        )
    })?;
    Ok(asked.min(PAGE_MAX as usize))
}

fn read_token(token: &str) -> S3Result<String> {
    let name = BASE64
        .decode(token)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    name.ok_or_else(|| {
        s3_error!(
            InvalidArgument,
            "The continuation token provided is incorrect"
        )
    })
}

/// How names are written: as they are, or percent-encoded for clients that fear what XML cannot hold.
pub(super) struct Names {
    encoded: bool,
}

impl Names {
    /// As `encoding-type` asks.
    pub(super) fn new(encoding: Option<&EncodingType>) -> Self {
        Self {
            encoded: encoding.is_some_and(|encoding| encoding.as_str() == EncodingType::URL),
        }
    }

    /// Writes a name.
    pub(super) fn encode(&self, name: &str) -> String {
        use std::fmt::Write as _;
        if !self.encoded {
            return name.to_owned();
        }
        name.bytes()
            .fold(String::with_capacity(name.len()), |mut text, byte| {
                if byte.is_ascii_alphanumeric() || b"-_.*/".contains(&byte) {
                    text.push(char::from(byte));
                } else {
                    write!(text, "%{byte:02X}").expect("writing to a string cannot fail");
                }
                text
            })
    }
}
