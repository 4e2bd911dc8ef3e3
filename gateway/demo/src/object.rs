//! An object as it is stored, and the headers that travel with it.
//!
//! An `Object` never changes: a write makes a new one and swaps it in. `Headers` is what a client said about the object
//! and gets back word for word: content headers, user metadata, storage class, encryption. Three requests bring them
//! (put, create multipart upload, copy) and two answers carry them (get, head), all with the same field names, hence the
//! two macros. The encryption headers are echoed only: nothing is encrypted here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use s3s::dto::{ETag, Timestamp};

use super::checksum::Sums;
use super::content::Content;

/// One version of one key.
#[derive(Clone, Debug)]
pub(super) struct Object {
    /// Without quotes.
    pub(super) etag: String,
    pub(super) content: Content,
    /// Whole seconds, as HTTP dates are.
    pub(super) modified: SystemTime,
    pub(super) headers: Arc<Headers>,
    pub(super) sums: Sums,
    /// Lengths of the parts it was made of; empty if it was put in one piece.
    pub(super) part_lens: Vec<u64>,
}

impl Object {
    /// Its ETag as s3s wants it.
    pub(super) fn etag(&self) -> ETag {
        ETag::Strong(self.etag.clone())
    }

    /// Its time as s3s wants it.
    pub(super) fn modified(&self) -> Timestamp {
        self.modified.into()
    }
}

/// The current time in whole seconds.
pub(super) fn now() -> SystemTime {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

/// What the client said about an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Headers {
    pub(super) cache_control: Option<String>,
    pub(super) content_disposition: Option<String>,
    pub(super) content_encoding: Option<String>,
    pub(super) content_language: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) expires: Option<Timestamp>,
    pub(super) website_redirect_location: Option<String>,
    pub(super) storage_class: Option<String>,
    pub(super) server_side_encryption: Option<String>,
    pub(super) ssekms_key_id: Option<String>,
    pub(super) bucket_key_enabled: Option<bool>,
    pub(super) sse_customer_algorithm: Option<String>,
    pub(super) sse_customer_key_md5: Option<String>,
    /// User metadata without the `x-amz-meta-` prefix.
    pub(super) user: BTreeMap<String, String>,
}

/// The type AWS gives to what came without one.
pub(super) const CONTENT_TYPE_DEFAULT: &str = "binary/octet-stream";

/// AWS's limit on names and values of user metadata together, in bytes.
pub(super) const USER_METADATA_LEN_MAX: usize = 2048;

impl Headers {
    /// Bytes that count against [`USER_METADATA_LEN_MAX`].
    pub(super) fn user_len(&self) -> usize {
        self.user
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum()
    }
}

/// `aws-chunked` says how the body travelled, and is no property of the object.
pub(super) fn stored_encoding(encoding: Option<&str>) -> Option<String> {
    let kept: Vec<_> = encoding?
        .split(',')
        .map(str::trim)
        .filter(|coding| !coding.is_empty() && *coding != "aws-chunked")
        .collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

/// Reads the header fields that requests have in common.
macro_rules! headers_of {
    ($input:expr) => {
        $crate::object::Headers {
            cache_control: $input.cache_control.clone(),
            content_disposition: $input.content_disposition.clone(),
            content_encoding: $crate::object::stored_encoding($input.content_encoding.as_deref()),
            content_language: $input.content_language.clone(),
            content_type: $input.content_type.clone(),
            expires: $input.expires.clone(),
            website_redirect_location: $input.website_redirect_location.clone(),
            storage_class: $input
                .storage_class
                .as_ref()
                .map(|class| class.as_str().to_owned()),
            server_side_encryption: $input
                .server_side_encryption
                .as_ref()
                .map(|sse| sse.as_str().to_owned()),
            ssekms_key_id: $input.ssekms_key_id.clone(),
            bucket_key_enabled: $input.bucket_key_enabled,
            sse_customer_algorithm: $input.sse_customer_algorithm.clone(),
            sse_customer_key_md5: $input.sse_customer_key_md5.clone(),
            user: $input
                .metadata
                .clone()
                .unwrap_or_default()
                .into_iter()
                .collect(),
        }
    };
}

/// Fills the fields that describe how an object is encrypted; every answer about an object has them.
macro_rules! put_encryption {
    ($output:expr, $headers:expr) => {{
        let headers: &$crate::object::Headers = $headers;
        $output.server_side_encryption = headers.server_side_encryption.clone().map(Into::into);
        $output.ssekms_key_id = headers.ssekms_key_id.clone();
        $output.bucket_key_enabled = headers.bucket_key_enabled;
    }};
}

/// Fills the fields that get and head have in common.
macro_rules! put_headers {
    ($output:expr, $object:expr) => {{
        let object: &$crate::object::Object = $object;
        let headers = &object.headers;
        $output.accept_ranges = Some("bytes".to_owned());
        $output.e_tag = Some(object.etag());
        $output.last_modified = Some(object.modified());
        $output.cache_control = headers.cache_control.clone();
        $output.content_disposition = headers.content_disposition.clone();
        $output.content_encoding = headers.content_encoding.clone();
        $output.content_language = headers.content_language.clone();
        let content_type = headers.content_type.as_deref();
        $output.content_type = Some(
            content_type
                .unwrap_or($crate::object::CONTENT_TYPE_DEFAULT)
                .to_owned(),
        );
        $output.expires = headers.expires.clone();
        $output.website_redirect_location = headers.website_redirect_location.clone();
        // AWS leaves the header out for the class that needs no name.
        $output.storage_class = headers
            .storage_class
            .clone()
            .filter(|class| class != "STANDARD")
            .map(Into::into);
        $output.sse_customer_algorithm = headers.sse_customer_algorithm.clone();
        $output.sse_customer_key_md5 = headers.sse_customer_key_md5.clone();
        $output.metadata = Some(headers.user.clone().into_iter().collect());
        $crate::object::put_encryption!($output, headers);
    }};
}

pub(super) use {headers_of, put_encryption, put_headers};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transfer_coding_is_not_stored() {
        assert_eq!(stored_encoding(Some("aws-chunked")), None);
        assert_eq!(
            stored_encoding(Some("aws-chunked,gzip")).as_deref(),
            Some("gzip")
        );
        assert_eq!(stored_encoding(Some("gzip")).as_deref(), Some("gzip"));
        assert_eq!(stored_encoding(None), None);
    }
}
