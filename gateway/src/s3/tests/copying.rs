//! Copies that the store makes by itself, of objects and of parts, and stores that cannot.

use std::sync::Arc;
use std::time::Duration;

use ackfs_cache::extent::Extent;
use ackfs_cache::object::Key;
use ackfs_cache::store::{
    Condition, CopyMetadata, ObjectStore, Part, StoreErrorKind, StoreResult, UploadId,
};

use super::server::{ScriptedAnswer, ScriptedServer, SeenRequest};
use super::writing::head;
use super::{id, quick, store, store_with};
use crate::s3::{Honoured, S3Config, S3Store};

/// What stands in the answer to a copy.
const COPIED: &str = "<CopyPartResult><ETag>&quot;part&quot;</ETag>\
                      <ChecksumCRC64NVME>AAAAAAAAAAA=</ChecksumCRC64NVME></CopyPartResult>";

async fn copy_part(store: &Arc<S3Store>, number: u32) -> StoreResult<Part> {
    let (key, upload) = (Key::new("key"), UploadId("upload".into()));
    let source = id("dir/ü b", "\"v1\"");
    let extent = Extent::new(5 << 20, 8 << 20);
    store
        .copy_part(&key, &upload, number, &source, extent)
        .await
}

/// A store that copies, or says so: what it lists are parts of `size` bytes.
async fn copying(size: u64) -> ScriptedServer {
    ScriptedServer::start(
        move |_at, asked: &SeenRequest| match asked.method.as_str() {
            "GET" => ScriptedAnswer::new(200).body(format!(
                "<ListPartsResult><Part><PartNumber>2</PartNumber><Size>{size}</Size></Part>\
             </ListPartsResult>"
            )),
            _ => ScriptedAnswer::new(200).body(COPIED),
        },
    )
    .await
}

#[tokio::test]
async fn a_copied_part_pins_its_source_and_gives_the_stores_checksum() {
    let server = copying(8 << 20).await;
    let store = store(&server.url);
    assert_eq!(store.part_copies(), Honoured::Unknown);
    let part = copy_part(&store, 2).await.unwrap();
    assert_eq!((part.number, part.size), (2, 8 << 20));
    assert_eq!(part.etag.as_str(), "\"part\"");
    let (name, value) = part.checksum.unwrap();
    assert_eq!(
        (&*name, &*value),
        ("x-amz-checksum-crc64nvme", "AAAAAAAAAAA=")
    );
    let asked = server.requests().remove(0);
    for (name, value) in [
        ("x-amz-copy-source", "bucket/dir/%C3%BC%20b"),
        ("x-amz-copy-source-if-match", "\"v1\""),
        ("x-amz-copy-source-range", "bytes=5242880-13631487"),
    ] {
        assert_eq!(asked.header(name), Some(value), "{name}");
    }
    // Only the first one is looked at.
    copy_part(&store, 3).await.unwrap();
    assert_eq!(server.methods(), ["PUT", "GET", "PUT"]);
    assert_eq!(store.part_copies(), Honoured::Yes);
}

/// It may be the whole source, which an endpoint that ignores ranges copies rightly.
#[tokio::test]
async fn a_copy_from_the_start_says_nothing_about_ranges() {
    let server = copying(8 << 20).await;
    let store = store(&server.url);
    let (key, upload, source) = (
        Key::new("key"),
        UploadId("upload".into()),
        id("a", "\"v1\""),
    );
    for _ in 0..2 {
        let whole = Extent::new(0, 8 << 20);
        let copied = store.copy_part(&key, &upload, 2, &source, whole).await;
        assert_eq!(copied.unwrap().size, 8 << 20);
        assert_eq!(store.part_copies(), Honoured::Unknown);
    }
    assert_eq!(server.methods(), ["PUT", "GET", "PUT", "GET"]);
}

#[tokio::test]
async fn a_copied_part_is_asked_for_again_after_a_lost_answer() {
    let script = vec![
        ScriptedAnswer::lost(),
        ScriptedAnswer::error(200, "InternalError"),
        ScriptedAnswer::error(503, "SlowDown"),
        ScriptedAnswer::new(200).body(COPIED),
        ScriptedAnswer::new(200).body("<ListPartsResult></ListPartsResult>"),
    ];
    let server = ScriptedServer::scripted(script).await;
    copy_part(&store(&server.url), 1).await.unwrap();
    assert_eq!(server.methods(), ["PUT", "PUT", "PUT", "PUT", "GET"]);
}

#[tokio::test]
async fn a_source_that_changed_or_went_is_changed_and_an_unknown_upload_is_not_found() {
    for (status, code, kind) in [
        (412, "PreconditionFailed", StoreErrorKind::Changed),
        (200, "PreconditionFailed", StoreErrorKind::Changed),
        (404, "NoSuchKey", StoreErrorKind::Changed),
        (404, "NoSuchUpload", StoreErrorKind::NotFound),
    ] {
        let server = ScriptedServer::scripted(vec![ScriptedAnswer::error(status, code)]).await;
        let error = copy_part(&store(&server.url), 1).await.unwrap_err();
        assert_eq!(error.kind, kind, "{status} {code}: {error}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_store_that_does_not_copy_parts_is_asked_once() {
    let missing = "<Error><Code>InvalidArgument</Code><Message>checksum missing, want \"CRC32\", got \
                   \"\"</Message></Error>";
    for refusal in [
        ScriptedAnswer::error(501, "NotImplemented"),
        ScriptedAnswer::new(405),
        ScriptedAnswer::new(400).body(missing),
        // It took the request for an empty part.
        ScriptedAnswer::new(200).header("ETag", "\"part\""),
    ] {
        let server = ScriptedServer::scripted(vec![refusal]).await;
        let store = store(&server.url);
        for _ in 0..2 {
            let error = copy_part(&store, 1).await.unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Rejected, "{error}");
        }
        assert_eq!(server.methods(), ["PUT"]);
        assert_eq!(store.part_copies(), Honoured::No);
    }
}

#[tokio::test]
async fn a_store_that_copies_something_else_is_asked_once() {
    let server = copying(100 << 20).await;
    let store = store(&server.url);
    for _ in 0..2 {
        let error = copy_part(&store, 2).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Rejected, "{error}");
    }
    assert_eq!(server.methods(), ["PUT", "GET"]);
    assert_eq!(store.part_copies(), Honoured::No);
}

#[tokio::test]
async fn a_refusal_for_this_source_says_nothing_about_others() {
    let small = "<Error><Code>InvalidRequest</Code><Message>The specified copy source is not supported \
                 as a byte-range copy source</Message></Error>";
    let server = ScriptedServer::scripted(vec![ScriptedAnswer::new(400).body(small)]).await;
    let store = store(&server.url);
    let error = copy_part(&store, 1).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Rejected, "{error}");
    assert_eq!(store.part_copies(), Honoured::Unknown);
}

/// A look at the parts needs a permission of its own, and none of the copies.
#[tokio::test]
async fn a_copied_part_that_may_not_be_looked_at_is_believed() {
    let script = vec![
        ScriptedAnswer::new(200).body(COPIED),
        ScriptedAnswer::error(403, "AccessDenied"),
        ScriptedAnswer::new(200).body(COPIED),
    ];
    let server = ScriptedServer::scripted(script).await;
    let store = store(&server.url);
    copy_part(&store, 1).await.unwrap();
    copy_part(&store, 2).await.unwrap();
    assert_eq!(server.methods(), ["PUT", "GET", "PUT"]);
}

#[tokio::test]
async fn an_attempt_to_copy_may_take_a_minute_for_256_mib_and_leaves_time_for_another() {
    for store_timeout in [Duration::from_secs(1), Duration::from_mins(1)] {
        let config = S3Config {
            store_timeout,
            ..quick()
        };
        let store = store_with("http://127.0.0.1:1", &config, |_core| {});
        let key = Key::new("key");
        let call = store.core.part_copy_call(&key, 256 << 20);
        assert!(call.attempt_limit > Duration::from_mins(1));
        assert!(call.limit + store_timeout > 2 * call.attempt_limit);
    }
}

#[tokio::test]
async fn a_copy_pins_its_source_and_keeps_what_the_store_would_drop() {
    let shown = head("\"v1\"", 5)
        .header("x-amz-storage-class", "STANDARD_IA")
        .header("x-amz-server-side-encryption", "aws:kms")
        .header("x-amz-server-side-encryption-aws-kms-key-id", "key-1");
    let done = "<CopyObjectResult><ETag>&quot;v2&quot;</ETag></CopyObjectResult>";
    let script = vec![
        shown,
        ScriptedAnswer::new(404),
        ScriptedAnswer::new(200).body(done),
    ];
    let server = ScriptedServer::scripted(script).await;
    let source = id("dir/ü b", "\"v1\"");
    let etag = store(&server.url)
        .copy(
            &source,
            &Key::new("to"),
            CopyMetadata::Keep,
            &Condition::Absent,
        )
        .await
        .unwrap();
    assert_eq!(etag.as_str(), "\"v2\"");
    // The endpoint is not known to honour a copy's condition: the target is looked at first.
    assert_eq!(server.methods(), ["HEAD", "HEAD", "PUT"]);
    let asked = server.requests().remove(2);
    for (name, value) in [
        ("x-amz-copy-source", "bucket/dir/%C3%BC%20b"),
        ("x-amz-copy-source-if-match", "\"v1\""),
        ("x-amz-storage-class", "STANDARD_IA"),
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-server-side-encryption-aws-kms-key-id", "key-1"),
    ] {
        assert_eq!(asked.header(name), Some(value), "{name}");
    }
    assert_eq!(asked.header("if-none-match"), None);
    assert_eq!(asked.header("x-amz-metadata-directive"), None);
}

#[tokio::test]
async fn a_copy_of_another_version_or_onto_another_object_is_changed() {
    let source = id("from", "\"v1\"");
    let server = ScriptedServer::scripted(vec![head("\"v2\"", 5)]).await;
    let error = store(&server.url)
        .copy(
            &source,
            &Key::new("to"),
            CopyMetadata::Keep,
            &Condition::None,
        )
        .await
        .unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Changed);
    let server = ScriptedServer::scripted(vec![head("\"v1\"", 5), head("\"x\"", 5)]).await;
    let error = store(&server.url)
        .copy(
            &source,
            &Key::new("to"),
            CopyMetadata::Keep,
            &Condition::Absent,
        )
        .await
        .unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Changed);
    assert_eq!(server.methods(), ["HEAD", "HEAD"]);
}
