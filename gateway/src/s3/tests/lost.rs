//! Answers that are lost: what the store is told to have done, and by whose hand (`upload::lost` of the cache).

use ackfs_cache::object::ETag;
use ackfs_cache::store::{Condition, StoreErrorKind};

use super::server::{ScriptedAnswer, ScriptedServer};
use super::store;
use super::writing::{HELLO, complete, failed, head, put};
use crate::s3::checksum::{md5_of_etag, multipart_etag};

/// Symptom: close() said ESTALE though the bucket held exactly what was written. Cause: the first
/// attempt had won and its answer was lost, so the second one's 412 was about ourselves.
#[tokio::test]
async fn a_lost_answer_after_the_commit_is_a_success() {
    for condition in [Condition::Absent, Condition::Matches(ETag::new("\"old\""))] {
        let script = vec![ScriptedAnswer::lost(), failed(), head(HELLO, 5)];
        let server = ScriptedServer::scripted(script).await;
        let etag = put(&store(&server.url), &condition).await.unwrap();
        assert_eq!(etag.as_str(), HELLO);
        assert_eq!(server.methods(), ["PUT", "PUT", "HEAD"]);
    }
}

#[tokio::test]
async fn a_500_after_the_commit_is_a_success_too() {
    let script = vec![
        ScriptedAnswer::error(500, "InternalError"),
        failed(),
        head(HELLO, 5),
    ];
    let server = ScriptedServer::scripted(script).await;
    put(&store(&server.url), &Condition::Absent).await.unwrap();
}

#[tokio::test]
async fn a_lost_answer_is_known_by_its_checksum_where_etags_are_no_md5() {
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, b"hello");
    let crc = {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(crc.to_be_bytes())
    };
    let shown = head("\"kms-etag\"", 5).header("x-amz-checksum-crc64nvme", crc);
    let server = ScriptedServer::scripted(vec![ScriptedAnswer::lost(), failed(), shown]).await;
    let etag = put(&store(&server.url), &Condition::Absent).await.unwrap();
    assert_eq!(etag.as_str(), "\"kms-etag\"");
    assert!(server.requests()[2].header("x-amz-checksum-mode").is_some());
}

#[tokio::test]
async fn a_foreign_412_is_changed() {
    // Without a lost answer nothing needs to be looked at, even if the bytes are the same.
    let server = ScriptedServer::scripted(vec![failed(), head(HELLO, 5)]).await;
    let error = put(&store(&server.url), &Condition::Absent)
        .await
        .unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Changed);
    assert_eq!(server.methods(), ["PUT"]);
    // After a lost answer the object that is there has other bytes, or another size.
    for shown in [
        head("\"0123456789abcdef0123456789abcdef\"", 5),
        head(HELLO, 6),
        head("\"kms-etag\"", 5),
        ScriptedAnswer::new(404),
    ] {
        let server = ScriptedServer::scripted(vec![ScriptedAnswer::lost(), failed(), shown]).await;
        let error = put(&store(&server.url), &Condition::Absent)
            .await
            .unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Changed, "{error}");
    }
}

#[tokio::test]
async fn if_it_cannot_be_told_who_won_it_is_no_changed() {
    let script = vec![
        ScriptedAnswer::lost(),
        failed(),
        ScriptedAnswer::error(403, "AccessDenied"),
    ];
    let server = ScriptedServer::scripted(script).await;
    let error = put(&store(&server.url), &Condition::Absent)
        .await
        .unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Denied);
    assert!(error.message.contains("cannot tell"), "{error}");
}

fn joined() -> String {
    let digests: Vec<[u8; 16]> = [HELLO, "\"7d793037a0760186574b0282f2f435e7\""]
        .iter()
        .map(|etag| md5_of_etag(etag).unwrap())
        .collect();
    format!("\"{}\"", multipart_etag(&digests))
}

#[tokio::test]
async fn a_lost_completion_is_a_success() {
    for gone in [ScriptedAnswer::error(404, "NoSuchUpload"), failed()] {
        let script = vec![ScriptedAnswer::lost(), gone, head(&joined(), 10)];
        let server = ScriptedServer::scripted(script).await;
        let etag = complete(&store(&server.url), &Condition::Absent)
            .await
            .unwrap();
        assert_eq!(etag.as_str(), joined());
    }
}

#[tokio::test]
async fn an_upload_that_is_gone_for_other_reasons_is_not_found() {
    let script = vec![
        ScriptedAnswer::error(404, "NoSuchUpload"),
        head("\"theirs\"", 10),
    ];
    let server = ScriptedServer::scripted(script).await;
    let error = complete(&store(&server.url), &Condition::None)
        .await
        .unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::NotFound);
    let server = ScriptedServer::scripted(vec![failed()]).await;
    let error = complete(&store(&server.url), &Condition::Absent)
        .await
        .unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Changed);
}

/// A call that ends without an answer says how the object would be known, for the next one.
#[tokio::test]
async fn a_call_that_ends_unsure_tells_what_it_would_have_made() {
    use ackfs_cache::object::Key;
    use ackfs_cache::store::{Metadata, ObjectStore};

    let script = vec![
        ScriptedAnswer::error(500, "InternalError"),
        ScriptedAnswer::error(403, "AccessDenied"),
    ];
    let server = ScriptedServer::scripted(script).await;
    let store = store(&server.url);
    let (key, body, metadata) = (
        Key::new("key"),
        super::writing::hello(),
        Metadata::default(),
    );
    let put = store.put(&key, body, &metadata, &Condition::Absent).await;
    let error = put.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Denied);
    let ours = error.lost.unwrap();
    assert_eq!((ours.size, ours.etag.unwrap().as_str()), (5, HELLO));
}
