//! What a write sends, and what it makes of what the store does not know.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ackfs_cache::object::{ETag, Key};
use ackfs_cache::store::{
    Condition, Later, Metadata, ObjectStore, Part, PartBytes, StoreErrorKind, UploadId,
};
use ackfs_cache::upload::lost::confirm;
use base64::Engine;
use bytes::Bytes;

use super::server::{ScriptedAnswer, ScriptedServer};
use super::{quick, store, store_with};
use crate::s3::{Checksum, Honoured, S3Config};

/// MD5 of `hello`.
pub(super) const HELLO: &str = "\"5d41402abc4b2a76b9719d911017c592\"";

pub(super) fn hello() -> Vec<Bytes> {
    vec![Bytes::from_static(b"he"), Bytes::from_static(b"llo")]
}

pub(super) fn head(etag: &str, len: u64) -> ScriptedAnswer {
    ScriptedAnswer::new(200)
        .header("ETag", etag)
        .header("Content-Length", len.to_string())
}

pub(super) fn failed() -> ScriptedAnswer {
    ScriptedAnswer::error(412, "PreconditionFailed")
}

/// A put as the cache makes it: a lost answer is looked after.
pub(super) async fn put(
    store: &Arc<crate::s3::S3Store>,
    condition: &Condition,
) -> ackfs_cache::store::StoreResult<ETag> {
    let key = Key::new("key");
    let metadata = Metadata::default();
    let put = store.put(&key, hello(), &metadata, condition);
    confirm(&**store, &key, put.await).await
}

/// Bytes that are not in memory are read for the checksum and again for each attempt.
#[tokio::test]
async fn a_part_that_is_read_while_it_is_sent_is_sent_again_from_its_beginning() {
    let script = vec![
        ScriptedAnswer::error(503, "SlowDown"),
        ScriptedAnswer::lost(),
        ScriptedAnswer::new(200).header("ETag", "\"part\""),
    ];
    let server = ScriptedServer::scripted(script).await;
    let (upload, key) = (UploadId("upload".into()), Key::new("key"));
    let reads = Arc::new(AtomicUsize::new(0));
    let count = reads.clone();
    let later = Later::new(3, move || {
        count.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(Bytes::from_static(b"llo")) })
    });
    let body = vec![
        PartBytes::Here(Bytes::from_static(b"he")),
        PartBytes::Later(later),
    ];
    let store = store(&server.url);
    let part = store.put_part(&key, &upload, 1, body).await.unwrap();
    assert_eq!((part.size, part.etag.as_str()), (5, "\"part\""));
    let asked = server.requests();
    assert_eq!(asked.len(), 3);
    let hello = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, b"hello");
    let sum = base64::engine::general_purpose::STANDARD.encode(hello.to_be_bytes());
    for asked in asked {
        assert_eq!(asked.body, b"hello");
        assert_eq!(asked.header("content-length"), Some("5"));
        assert_eq!(asked.header("x-amz-checksum-crc64nvme"), Some(&*sum));
    }
    assert_eq!(reads.load(Ordering::Relaxed), 4, "once for the checksum");
}

#[tokio::test]
async fn a_part_that_cannot_be_read_is_not_sent() {
    let server = ScriptedServer::scripted(Vec::new()).await;
    let later = Later::new(3, || {
        let unreadable =
            ackfs_cache::store::StoreError::new(StoreErrorKind::Broken, "the disk failed");
        Box::pin(async { Err(unreadable) })
    });
    let (upload, key) = (UploadId("upload".into()), Key::new("key"));
    let body = vec![PartBytes::Later(later)];
    let store = store(&server.url);
    let error = store.put_part(&key, &upload, 1, body).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Broken);
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_put_sends_its_chunks_with_length_checksum_and_condition() {
    let server =
        ScriptedServer::scripted(vec![ScriptedAnswer::new(200).header("ETag", HELLO)]).await;
    let store = store(&server.url);
    let mut metadata = Metadata::default();
    metadata.user.insert("file-mode", "0644");
    metadata.content_type = Some("text/plain".into());
    let key = Key::new("key");
    store
        .put(&key, hello(), &metadata, &Condition::Absent)
        .await
        .unwrap();
    let asked = server.requests().remove(0);
    assert_eq!(asked.body, b"hello");
    for (name, value) in [
        ("content-length", "5"),
        ("content-type", "text/plain"),
        ("x-amz-meta-file-mode", "0644"),
        ("if-none-match", "*"),
        ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
    ] {
        assert_eq!(asked.header(name), Some(value), "{name}");
    }
    assert!(asked.header("x-amz-checksum-crc64nvme").is_some());
    assert!(
        asked
            .header("authorization")
            .unwrap()
            .contains("x-amz-checksum-crc64nvme")
    );
    assert_eq!(asked.header("transfer-encoding"), None);
    assert_eq!(asked.header("content-encoding"), None);
}

#[tokio::test]
async fn what_the_mount_was_told_goes_with_every_write() {
    let server =
        ScriptedServer::scripted(vec![ScriptedAnswer::new(200).header("ETag", HELLO)]).await;
    let config = S3Config {
        requester_pays: true,
        sse: Some("aws:kms".into()),
        sse_kms_key_id: Some("key-1".into()),
        storage_class: Some("STANDARD_IA".into()),
        acl: Some("bucket-owner-full-control".into()),
        checksum: Checksum::WhenRequired,
        ..quick()
    };
    let store = store_with(&server.url, &config, |_core| {});
    put(&store, &Condition::None).await.unwrap();
    let asked = server.requests().remove(0);
    for (name, value) in [
        ("x-amz-request-payer", "requester"),
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-server-side-encryption-aws-kms-key-id", "key-1"),
        ("x-amz-storage-class", "STANDARD_IA"),
        ("x-amz-acl", "bucket-owner-full-control"),
        ("content-md5", "XUFAKrxLKna5cZ2REBfFkg=="),
    ] {
        assert_eq!(asked.header(name), Some(value), "{name}");
    }
    assert_eq!(asked.header("x-amz-checksum-crc64nvme"), None);
    assert_eq!(asked.header("x-amz-checksum-crc32"), None);
}

#[tokio::test]
async fn a_key_that_is_gone_is_changed_for_if_match() {
    let server = ScriptedServer::scripted(vec![ScriptedAnswer::error(404, "NoSuchKey")]).await;
    let condition = Condition::Matches(ETag::new("\"old\""));
    let error = put(&store(&server.url), &condition).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Changed);
}

#[tokio::test]
async fn auto_checksums_fall_back_once_and_stay_there() {
    let server = ScriptedServer::start(|_at, asked| {
        if asked.header("x-amz-checksum-crc64nvme").is_some() {
            ScriptedAnswer::error(501, "NotImplemented")
        } else if asked.header("content-md5").is_some() {
            ScriptedAnswer::new(200).header("ETag", HELLO)
        } else {
            ScriptedAnswer::error(400, "InvalidRequest")
        }
    })
    .await;
    let store = store(&server.url);
    put(&store, &Condition::Absent).await.unwrap();
    put(&store, &Condition::Absent).await.unwrap();
    assert_eq!(server.requests().len(), 3);
    // SeenRequest for by name, it is not replaced.
    let config = S3Config {
        checksum: Checksum::Crc64Nvme,
        ..quick()
    };
    let strict = store_with(&server.url, &config, |_core| {});
    let error = put(&strict, &Condition::Absent).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Rejected);
}

#[tokio::test]
async fn an_endpoint_without_conditions_is_looked_at_first() {
    let server = ScriptedServer::start(|_at, asked| {
        if asked.method == "HEAD" {
            return head("\"theirs\"", 3);
        }
        if asked.header("if-match").is_some() || asked.header("if-none-match").is_some() {
            return ScriptedAnswer::error(501, "NotImplemented");
        }
        ScriptedAnswer::new(200).header("ETag", HELLO)
    })
    .await;
    let config = S3Config {
        checksum: Checksum::WhenRequired,
        ..quick()
    };
    let store = store_with(&server.url, &config, |_core| {});
    let condition = Condition::Matches(ETag::new("\"theirs\""));
    put(&store, &condition).await.unwrap();
    assert_eq!(server.methods(), ["PUT", "HEAD", "PUT"]);
    assert_eq!(store.conditional_support().writes(), Honoured::No);
    let error = put(&store, &Condition::Absent).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Changed);
    let condition = Condition::Matches(ETag::new("\"older\""));
    let error = put(&store, &condition).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Changed);
}

pub(super) fn parts() -> Vec<Part> {
    // Out of order: completion sorts them.
    [(2, "\"7d793037a0760186574b0282f2f435e7\""), (1, HELLO)]
        .map(|(number, etag)| Part {
            number,
            etag: ETag::new(etag),
            checksum: Some(("x-amz-checksum-crc64nvme".into(), "AAAAAAAAAAA=".into())),
            size: 5,
        })
        .into()
}

/// The same for a completion.
pub(super) async fn complete(
    store: &Arc<crate::s3::S3Store>,
    condition: &Condition,
) -> ackfs_cache::store::StoreResult<ETag> {
    let (key, upload) = (Key::new("key"), UploadId("upload".into()));
    let completed = store.complete(&key, &upload, &parts(), condition).await;
    confirm(&**store, &key, completed).await
}

#[tokio::test]
async fn a_completion_names_its_parts_in_order_with_checksums_and_size() {
    let done = "<CompleteMultipartUploadResult><ETag>&quot;x-2&quot;</ETag>\
                </CompleteMultipartUploadResult>";
    let server = ScriptedServer::scripted(vec![ScriptedAnswer::new(200).body(done)]).await;
    let etag = complete(&store(&server.url), &Condition::Absent)
        .await
        .unwrap();
    assert_eq!(etag.as_str(), "\"x-2\"");
    let asked = server.requests().remove(0);
    let body = String::from_utf8(asked.body.clone()).unwrap();
    let first = body.find("5d41402abc4b2a76b9719d911017c592").unwrap();
    let second = body.find("7d793037a0760186574b0282f2f435e7").unwrap();
    assert!(first < second, "{body}");
    assert!(
        body.contains("<ChecksumCRC64NVME>AAAAAAAAAAA=</ChecksumCRC64NVME>"),
        "{body}"
    );
    assert_eq!(asked.header("x-amz-mp-object-size"), Some("10"));
    assert_eq!(asked.header("if-none-match"), Some("*"));
}

#[tokio::test]
async fn a_completion_that_fails_in_a_200_is_tried_again() {
    let inner = "<Error><Code>InternalError</Code><Message>try again</Message></Error>";
    let done = "<CompleteMultipartUploadResult><ETag>&quot;x-2&quot;</ETag>\
                </CompleteMultipartUploadResult>";
    let script = vec![
        ScriptedAnswer::new(200).body(inner),
        ScriptedAnswer::new(200).body(done),
    ];
    let server = ScriptedServer::scripted(script).await;
    complete(&store(&server.url), &Condition::Absent)
        .await
        .unwrap();
}

#[tokio::test]
async fn giving_up_an_unknown_upload_is_a_success() {
    let server = ScriptedServer::scripted(vec![ScriptedAnswer::error(404, "NoSuchUpload")]).await;
    let upload = UploadId("upload".into());
    let key = Key::new("key");
    store(&server.url).abort(&key, &upload).await.unwrap();
}

#[tokio::test]
async fn a_conditional_delete_looks_first_where_the_store_would_not() {
    let key = Key::new("key");
    let etag = ETag::new("\"v1\"");
    let server = ScriptedServer::scripted(vec![head("\"v2\"", 5)]).await;
    let error = store(&server.url)
        .delete(&key, Some(&etag))
        .await
        .unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Changed);
    assert_eq!(server.methods(), ["HEAD"]);
    let server = ScriptedServer::scripted(vec![head("\"v1\"", 5), ScriptedAnswer::new(204)]).await;
    store(&server.url).delete(&key, Some(&etag)).await.unwrap();
    assert_eq!(server.methods(), ["HEAD", "DELETE"]);
    // Where it is honoured it is sent, and what our own lost answer removed is removed.
    let script = vec![ScriptedAnswer::lost(), failed(), ScriptedAnswer::new(404)];
    let server = ScriptedServer::scripted(script).await;
    let store = store(&server.url);
    store.core.conditions.delete_is_honoured();
    store.delete(&key, Some(&etag)).await.unwrap();
    assert_eq!(server.requests()[0].header("if-match"), Some("\"v1\""));
}
