//! Listing. Keys are asked for URL-encoded, because XML 1.0 cannot carry every character that a
//! key may hold: a single control character in one key would otherwise break the listing of its
//! whole directory. A store that does not know the option does not say so in its answer, and its
//! keys are then taken as they stand.

use ackfs_cache::object::ETag;
use ackfs_cache::store::{
    ListEntry, ListPage, ListRequest, StoreError, StoreErrorKind, StoreResult,
};
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::types::{EncodingType, Object};

use super::answer::time;
use super::core::Core;
use super::error::{RequestFailure, Retry};
use super::stats::RequestKind;

/// The most keys that S3 gives at once.
const KEYS_MAX: u32 = 1000;

impl Core {
    /// One page; see [`ackfs_cache::store::ObjectStore::list`].
    pub(super) async fn list(&self, request: ListRequest) -> StoreResult<ListPage> {
        let request = &request;
        let output = self
            .run(self.call_any(RequestKind::List, None), || async move {
                self.client
                    .list_objects_v2()
                    .bucket(&self.config.bucket)
                    .prefix(&request.prefix)
                    .set_delimiter(request.delimited.then(|| "/".to_owned()))
                    .set_continuation_token(request.token.clone())
                    .set_start_after(
                        request
                            .start_after
                            .clone()
                            .filter(|_key| request.token.is_none()),
                    )
                    .max_keys(request.keys_max.clamp(1, KEYS_MAX) as i32)
                    .encoding_type(EncodingType::Url)
                    .set_request_payer(self.payer())
                    .send()
                    .await
                    .map_err(RequestFailure::from_sdk)
                    .and_then(sound)
            })
            .await
            .into_result()?;
        let encoded = output.encoding_type == Some(EncodingType::Url);
        let decode = |text: Option<String>| {
            let text = text.unwrap_or_default();
            if encoded { decode(&text) } else { Some(text) }
        };
        let unreadable = || {
            let message = "the listing holds a key that is not URL-encoded UTF-8";
            StoreError::new(StoreErrorKind::Broken, message)
        };
        let truncated = output.is_truncated.unwrap_or(false);
        let mut page = ListPage {
            next: output.next_continuation_token.filter(|_token| truncated),
            ..ListPage::default()
        };
        for object in output.contents.unwrap_or_default() {
            page.entries.push(ListEntry {
                key: decode(object.key).ok_or_else(unreadable)?,
                // Without one the entry equals no version, and an open asks again.
                etag: ETag::new(object.e_tag.unwrap_or_default()),
                size: object.size.unwrap_or(0).max(0) as u64,
                modified: time(object.last_modified.as_ref()),
            });
        }
        for prefix in output.common_prefixes.unwrap_or_default() {
            page.prefixes
                .push(decode(prefix.prefix).ok_or_else(unreadable)?);
        }
        Ok(page)
    }
}

/// Lets a page through only if it is whole. The SDK's XML reader takes a document that breaks off,
/// or a web page, for an empty listing; and an empty listing means that every file is gone.
#[expect(
    clippy::result_large_err,
    reason = "a failure is moved a few times for each request that failed, no more"
)]
pub(super) fn sound(page: ListObjectsV2Output) -> Result<ListObjectsV2Output, RequestFailure> {
    let broken = |why: String| {
        let message = format!("the answer made no sense: {why}");
        Err(RequestFailure {
            status: Some(200),
            ..RequestFailure::new(StoreErrorKind::Broken, Retry::Few, message)
        })
    };
    let Some(truncated) = page.is_truncated else {
        return broken("it is no listing, or one that breaks off".to_owned());
    };
    let count = page.contents().len() + page.common_prefixes().len();
    if let Some(announced) = page.key_count
        && usize::try_from(announced) != Ok(count)
    {
        return broken(format!(
            "the listing announces {announced} keys and holds {count}"
        ));
    }
    let half = |object: &Object| {
        object.key.is_none() || object.size.is_none() || object.last_modified.is_none()
    };
    if page.contents().iter().any(half) {
        return broken("the listing breaks off within a key".to_owned());
    }
    if truncated && page.next_continuation_token.is_none() {
        return broken("the listing is cut off and does not say where it goes on".to_owned());
    }
    Ok(page)
}

/// `text` with `%XX` and `+` as S3 encodes keys. `None` if that is not UTF-8.
fn decode(text: &str) -> Option<String> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Some(text.to_owned());
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
                (high * 16 + low) as u8
            }
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_decoded_as_s3_encodes_them() {
        assert_eq!(decode("plain/key").as_deref(), Some("plain/key"));
        assert_eq!(decode("a+b%2Bc%20d").as_deref(), Some("a b+c d"));
        assert_eq!(decode("%01%C3%A9").as_deref(), Some("\u{1}é"));
        assert_eq!(decode("%ff"), None);
        assert_eq!(decode("%4"), None);
        assert_eq!(decode("%+1"), None);
    }
}
