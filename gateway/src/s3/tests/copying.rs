//! Parts that the store copies by itself, and stores that cannot.

use std::sync::Arc;
use std::time::Duration;

use ackfs_cache::extent::Extent;
use ackfs_cache::object::Key;
use ackfs_cache::store::{ObjectStore, Part, StoreErrorKind, StoreResult, UploadId};

use super::server::{Answer, Asked, Server};
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
async fn copying(size: u64) -> Server {
    Server::start(move |_at, asked: &Asked| match asked.method.as_str() {
        "GET" => Answer::new(200).body(format!(
            "<ListPartsResult><Part><PartNumber>2</PartNumber><Size>{size}</Size></Part>\
             </ListPartsResult>"
        )),
        _ => Answer::new(200).body(COPIED),
    })
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
    let asked = server.asked().remove(0);
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

#[tokio::test]
async fn a_copied_part_is_asked_for_again_after_a_lost_answer() {
    let script = vec![
        Answer::lost(),
        Answer::error(200, "InternalError"),
        Answer::error(503, "SlowDown"),
        Answer::new(200).body(COPIED),
        Answer::new(200).body("<ListPartsResult></ListPartsResult>"),
    ];
    let server = Server::scripted(script).await;
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
        let server = Server::scripted(vec![Answer::error(status, code)]).await;
        let error = copy_part(&store(&server.url), 1).await.unwrap_err();
        assert_eq!(error.kind, kind, "{status} {code}: {error}");
        assert_eq!(server.asked().len(), 1);
    }
}

#[tokio::test]
async fn a_store_that_does_not_copy_parts_is_asked_once() {
    let missing = "<Error><Code>InvalidArgument</Code><Message>checksum missing, want \"CRC32\", got \
                   \"\"</Message></Error>";
    for refusal in [
        Answer::error(501, "NotImplemented"),
        Answer::new(405),
        Answer::new(400).body(missing),
        // It took the request for an empty part.
        Answer::new(200).header("ETag", "\"part\""),
    ] {
        let server = Server::scripted(vec![refusal]).await;
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
    let server = Server::scripted(vec![Answer::new(400).body(small)]).await;
    let store = store(&server.url);
    let error = copy_part(&store, 1).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Rejected, "{error}");
    assert_eq!(store.part_copies(), Honoured::Unknown);
}

/// A look at the parts needs a permission of its own, and none of the copies.
#[tokio::test]
async fn a_copied_part_that_may_not_be_looked_at_is_believed() {
    let script = vec![
        Answer::new(200).body(COPIED),
        Answer::error(403, "AccessDenied"),
        Answer::new(200).body(COPIED),
    ];
    let server = Server::scripted(script).await;
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
        assert!(call.limit > 2 * call.attempt_limit - store_timeout);
    }
}
