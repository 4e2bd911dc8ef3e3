//! Which operation a request is, told from its line and headers.
//!
//! s3s finds this out too, but only after the place where faults must act; so the front tells it by itself. Names are
//! those of the S3 API.

use http::{HeaderMap, Method};

/// A request's target in S3's terms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Target {
    /// Name of the operation, `Other` for what the store does not serve.
    pub(super) operation: &'static str,
    pub(super) bucket: String,
    /// The key; for listings the prefix.
    pub(super) key: String,
}

impl Target {
    /// Tells the target of a path-style request.
    pub(super) fn of(method: &Method, path: &str, query: &str, headers: &HeaderMap) -> Self {
        let path = decode(path.strip_prefix('/').unwrap_or(path), false);
        let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
        let parameter = |name: &str| parameter(query, name);
        let has = |name| parameter(name).is_some();
        let copies = headers.contains_key("x-amz-copy-source");
        let operation = match (method.as_str(), bucket.is_empty(), key.is_empty()) {
            ("GET", true, _) => "ListBuckets",
            ("PUT", false, true) if query_is_plain(query) => "CreateBucket",
            ("HEAD", false, true) => "HeadBucket",
            ("DELETE", false, true) if query_is_plain(query) => "DeleteBucket",
            ("POST", false, true) if has("delete") => "DeleteObjects",
            ("GET", false, true) if has("location") => "GetBucketLocation",
            ("GET", false, true) if has("uploads") => "ListMultipartUploads",
            ("GET", false, true) if has("list-type") => "ListObjectsV2",
            ("GET", false, true) if query_is_listing(query) => "ListObjects",
            ("GET", false, false) if has("uploadId") => "ListParts",
            ("GET", false, false) if query_is_object(query) => "GetObject",
            ("HEAD", false, false) => "HeadObject",
            ("PUT", false, false) if has("partNumber") && copies => "UploadPartCopy",
            ("PUT", false, false) if has("partNumber") => "UploadPart",
            ("PUT", false, false) if query_is_plain(query) && copies => "CopyObject",
            ("PUT", false, false) if query_is_plain(query) => "PutObject",
            ("DELETE", false, false) if has("uploadId") => "AbortMultipartUpload",
            ("DELETE", false, false) if query_is_object(query) => "DeleteObject",
            ("POST", false, false) if has("uploads") => "CreateMultipartUpload",
            ("POST", false, false) if has("uploadId") => "CompleteMultipartUpload",
            _ => "Other",
        };
        let key = if operation.starts_with("List") && key.is_empty() {
            parameter("prefix").unwrap_or_default()
        } else {
            key.to_owned()
        };
        Self {
            operation,
            bucket: bucket.to_owned(),
            key,
        }
    }
}

/// The names that select another operation than the plain one; everything else is a parameter of the plain one.
const SUBRESOURCES: [&str; 22] = [
    "accelerate",
    "acl",
    "analytics",
    "attributes",
    "cors",
    "encryption",
    "intelligent-tiering",
    "inventory",
    "legal-hold",
    "lifecycle",
    "logging",
    "metrics",
    "notification",
    "object-lock",
    "ownershipControls",
    "policy",
    "publicAccessBlock",
    "renameObject",
    "replication",
    "retention",
    "tagging",
    "versioning",
];

fn names(query: &str) -> impl Iterator<Item = &str> {
    query
        .split('&')
        .map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name))
}

fn query_is_plain(query: &str) -> bool {
    !names(query).any(|name| SUBRESOURCES.contains(&name))
}

fn query_is_listing(query: &str) -> bool {
    query_is_plain(query) && !names(query).any(|name| name == "versions")
}

fn query_is_object(query: &str) -> bool {
    query_is_plain(query) && !names(query).any(|name| name == "torrent")
}

/// The value of a query parameter, decoded; empty if it has none.
pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
        (found == name).then(|| decode(value, true))
    })
}

/// Undoes percent-encoding; what is not well formed stays as it is.
fn decode(text: &str, plus_is_space: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|pair| std::str::from_utf8(pair).ok());
        match (
            bytes[at],
            hex.and_then(|pair| u8::from_str_radix(pair, 16).ok()),
        ) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) if plus_is_space => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(method: &str, target: &str, copies: bool) -> Target {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut headers = HeaderMap::new();
        if copies {
            headers.insert("x-amz-copy-source", "b/k".parse().unwrap());
        }
        Target::of(&method.parse().unwrap(), path, query, &headers)
    }

    #[test]
    fn requests_are_told_apart() {
        let cases = [
            ("GET", "/", "ListBuckets"),
            ("PUT", "/b", "CreateBucket"),
            ("PUT", "/b/", "CreateBucket"),
            ("PUT", "/b?versioning", "Other"),
            ("GET", "/b?list-type=2&prefix=x", "ListObjectsV2"),
            ("GET", "/b?prefix=x", "ListObjects"),
            ("GET", "/b?uploads=", "ListMultipartUploads"),
            ("GET", "/b?location", "GetBucketLocation"),
            ("POST", "/b?delete=", "DeleteObjects"),
            ("GET", "/b/k?x-id=GetObject", "GetObject"),
            ("GET", "/b/k?tagging", "Other"),
            ("GET", "/b/k?uploadId=u", "ListParts"),
            ("HEAD", "/b/k", "HeadObject"),
            ("PUT", "/b/k?x-id=PutObject", "PutObject"),
            ("PUT", "/b/k?partNumber=1&uploadId=u", "UploadPart"),
            ("POST", "/b/k?uploads", "CreateMultipartUpload"),
            ("POST", "/b/k?uploadId=u", "CompleteMultipartUpload"),
            ("DELETE", "/b/k?uploadId=u", "AbortMultipartUpload"),
            ("DELETE", "/b/k", "DeleteObject"),
        ];
        for (method, target, want) in cases {
            assert_eq!(
                operation(method, target, false).operation,
                want,
                "{method} {target}"
            );
        }
        assert_eq!(operation("PUT", "/b/k", true).operation, "CopyObject");
        assert_eq!(
            operation("PUT", "/b/k?partNumber=1&uploadId=u", true).operation,
            "UploadPartCopy"
        );
    }

    #[test]
    fn keys_and_prefixes_are_decoded() {
        assert_eq!(operation("GET", "/b/d%C3%A9/+%20x", false).key, "dé/+ x");
        assert_eq!(
            operation("GET", "/b?list-type=2&prefix=a%2Fb+c", false).key,
            "a/b c"
        );
    }
}
