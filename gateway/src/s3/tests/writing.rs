//! Writing to a store that loses answers, and beside others who write too.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ackfs_cache::object::{ETag, Key};
use ackfs_cache::store::{
    Condition, CopyMetadata, Later, Metadata, ObjectStore, Part, PartBytes, StoreErrorKind,
    UploadId,
};
use base64::Engine;
use bytes::Bytes;

use super::server::{Answer, Asked, Server};
use super::{id, quick, store, store_with};
use crate::s3::{Checksum, Honoured, S3Config};

/// MD5 of `hello`.
const HELLO: &str = "\"5d41402abc4b2a76b9719d911017c592\"";

fn hello() -> Vec<Bytes> {
    vec![Bytes::from_static(b"he"), Bytes::from_static(b"llo")]
}

fn head(etag: &str, len: u64) -> Answer {
    Answer::new(200)
        .header("ETag", etag)
        .header("Content-Length", len.to_string())
}

fn failed() -> Answer {
    Answer::error(412, "PreconditionFailed")
}

async fn put(
    store: &Arc<crate::s3::S3Store>,
    condition: &Condition,
) -> ackfs_cache::store::StoreResult<ETag> {
    let key = Key::new("key");
    store
        .put(&key, hello(), &Metadata::default(), condition)
        .await
}

/// Bytes that are not in memory are read for the checksum and again for each attempt.
#[tokio::test]
async fn a_part_that_is_read_while_it_is_sent_is_sent_again_from_its_beginning() {
    let script = vec![
        Answer::error(503, "SlowDown"),
        Answer::lost(),
        Answer::new(200).header("ETag", "\"part\""),
    ];
    let server = Server::scripted(script).await;
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
    let asked = server.asked();
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
    let server = Server::scripted(Vec::new()).await;
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
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn a_put_sends_its_chunks_with_length_checksum_and_condition() {
    let server = Server::scripted(vec![Answer::new(200).header("ETag", HELLO)]).await;
    let store = store(&server.url);
    let mut metadata = Metadata::default();
    metadata.user.insert("file-mode", "0644");
    metadata.content_type = Some("text/plain".into());
    let key = Key::new("key");
    store
        .put(&key, hello(), &metadata, &Condition::Absent)
        .await
        .unwrap();
    let asked = server.asked().remove(0);
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
    let server = Server::scripted(vec![Answer::new(200).header("ETag", HELLO)]).await;
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
    let asked = server.asked().remove(0);
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

/// Symptom: close() said ESTALE though the bucket held exactly what was written. Cause: the first
/// attempt had won and its answer was lost, so the second one's 412 was about ourselves.
#[tokio::test]
async fn a_lost_answer_after_the_commit_is_a_success() {
    for condition in [Condition::Absent, Condition::Matches(ETag::new("\"old\""))] {
        let script = vec![Answer::lost(), failed(), head(HELLO, 5)];
        let server = Server::scripted(script).await;
        let etag = put(&store(&server.url), &condition).await.unwrap();
        assert_eq!(etag.as_str(), HELLO);
        assert_eq!(server.methods(), ["PUT", "PUT", "HEAD"]);
    }
}

#[tokio::test]
async fn a_500_after_the_commit_is_a_success_too() {
    let script = vec![
        Answer::error(500, "InternalError"),
        failed(),
        head(HELLO, 5),
    ];
    let server = Server::scripted(script).await;
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
    let server = Server::scripted(vec![Answer::lost(), failed(), shown]).await;
    let etag = put(&store(&server.url), &Condition::Absent).await.unwrap();
    assert_eq!(etag.as_str(), "\"kms-etag\"");
    assert!(server.asked()[2].header("x-amz-checksum-mode").is_some());
}

#[tokio::test]
async fn a_foreign_412_is_changed() {
    // Without a lost answer nothing needs to be looked at, even if the bytes are the same.
    let server = Server::scripted(vec![failed(), head(HELLO, 5)]).await;
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
        Answer::new(404),
    ] {
        let server = Server::scripted(vec![Answer::lost(), failed(), shown]).await;
        let error = put(&store(&server.url), &Condition::Absent)
            .await
            .unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Changed, "{error}");
    }
}

#[tokio::test]
async fn a_key_that_is_gone_is_changed_for_if_match() {
    let server = Server::scripted(vec![Answer::error(404, "NoSuchKey")]).await;
    let condition = Condition::Matches(ETag::new("\"old\""));
    let error = put(&store(&server.url), &condition).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Changed);
}

#[tokio::test]
async fn if_it_cannot_be_told_who_won_it_is_no_changed() {
    let script = vec![Answer::lost(), failed(), Answer::error(403, "AccessDenied")];
    let server = Server::scripted(script).await;
    let error = put(&store(&server.url), &Condition::Absent)
        .await
        .unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Denied);
    assert!(error.message.contains("cannot tell"), "{error}");
}

/// Symptom: a close failed with EIO while the store was away, and every later close of the same
/// file failed with ESTALE. Cause: the first close's write had been carried out, and the second
/// one did not know it for its own.
#[tokio::test]
async fn a_later_call_knows_what_an_earlier_one_left_behind() {
    let config = S3Config {
        store_timeout: Duration::from_secs(3),
        ..quick()
    };
    // The same bytes again: a success. Other bytes: they replace the earlier ones and no others.
    for same in [true, false] {
        let away = std::sync::atomic::AtomicBool::new(true);
        let away = Arc::new(away);
        let switch = Arc::clone(&away);
        let server = Server::start(move |_at, asked: &Asked| {
            if switch.load(std::sync::atomic::Ordering::Relaxed) {
                return Answer::lost();
            }
            match (asked.method.as_str(), asked.header("if-match")) {
                ("HEAD", _) => head(HELLO, 5),
                ("PUT", Some(HELLO)) => Answer::new(200).header("ETag", "\"new\""),
                _ => failed(),
            }
        })
        .await;
        let store = store_with(&server.url, &config, |_core| {});
        let error = put(&store, &Condition::Absent).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Broken, "{error}");
        away.store(false, std::sync::atomic::Ordering::Relaxed);
        let body = if same {
            hello()
        } else {
            vec![Bytes::from_static(b"more")]
        };
        let key = Key::new("key");
        let metadata = Metadata::default();
        let etag = store
            .put(&key, body, &metadata, &Condition::Absent)
            .await
            .unwrap();
        assert_eq!(etag.as_str(), if same { HELLO } else { "\"new\"" });
    }
}

#[tokio::test]
async fn auto_checksums_fall_back_once_and_stay_there() {
    let server = Server::start(|_at, asked| {
        if asked.header("x-amz-checksum-crc64nvme").is_some() {
            Answer::error(501, "NotImplemented")
        } else if asked.header("content-md5").is_some() {
            Answer::new(200).header("ETag", HELLO)
        } else {
            Answer::error(400, "InvalidRequest")
        }
    })
    .await;
    let store = store(&server.url);
    put(&store, &Condition::Absent).await.unwrap();
    put(&store, &Condition::Absent).await.unwrap();
    assert_eq!(server.asked().len(), 3);
    // Asked for by name, it is not replaced.
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
    let server = Server::start(|_at, asked| {
        if asked.method == "HEAD" {
            return head("\"theirs\"", 3);
        }
        if asked.header("if-match").is_some() || asked.header("if-none-match").is_some() {
            return Answer::error(501, "NotImplemented");
        }
        Answer::new(200).header("ETag", HELLO)
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

fn parts() -> Vec<Part> {
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

async fn complete(
    store: &Arc<crate::s3::S3Store>,
    condition: &Condition,
) -> ackfs_cache::store::StoreResult<ETag> {
    let upload = UploadId("upload".into());
    store
        .complete(&Key::new("key"), &upload, &parts(), condition)
        .await
}

fn joined() -> String {
    let digests: Vec<[u8; 16]> = [HELLO, "\"7d793037a0760186574b0282f2f435e7\""]
        .iter()
        .map(|etag| crate::s3::payload::md5_of_etag(etag).unwrap())
        .collect();
    format!("\"{}\"", crate::s3::payload::multipart_etag(&digests))
}

#[tokio::test]
async fn a_completion_names_its_parts_in_order_with_checksums_and_size() {
    let done = "<CompleteMultipartUploadResult><ETag>&quot;x-2&quot;</ETag>\
                </CompleteMultipartUploadResult>";
    let server = Server::scripted(vec![Answer::new(200).body(done)]).await;
    let etag = complete(&store(&server.url), &Condition::Absent)
        .await
        .unwrap();
    assert_eq!(etag.as_str(), "\"x-2\"");
    let asked = server.asked().remove(0);
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
async fn a_lost_completion_is_a_success() {
    for gone in [Answer::error(404, "NoSuchUpload"), failed()] {
        let script = vec![Answer::lost(), gone, head(&joined(), 10)];
        let server = Server::scripted(script).await;
        let etag = complete(&store(&server.url), &Condition::Absent)
            .await
            .unwrap();
        assert_eq!(etag.as_str(), joined());
    }
}

#[tokio::test]
async fn a_completion_that_fails_in_a_200_is_tried_again() {
    let inner = "<Error><Code>InternalError</Code><Message>try again</Message></Error>";
    let done = "<CompleteMultipartUploadResult><ETag>&quot;x-2&quot;</ETag>\
                </CompleteMultipartUploadResult>";
    let script = vec![Answer::new(200).body(inner), Answer::new(200).body(done)];
    let server = Server::scripted(script).await;
    complete(&store(&server.url), &Condition::Absent)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_upload_that_is_gone_for_other_reasons_is_not_found() {
    let script = vec![Answer::error(404, "NoSuchUpload"), head("\"theirs\"", 10)];
    let server = Server::scripted(script).await;
    let error = complete(&store(&server.url), &Condition::None)
        .await
        .unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::NotFound);
    let server = Server::scripted(vec![failed()]).await;
    let error = complete(&store(&server.url), &Condition::Absent)
        .await
        .unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Changed);
}

#[tokio::test]
async fn giving_up_an_unknown_upload_is_a_success() {
    let server = Server::scripted(vec![Answer::error(404, "NoSuchUpload")]).await;
    let upload = UploadId("upload".into());
    let key = Key::new("key");
    store(&server.url).abort(&key, &upload).await.unwrap();
}

#[tokio::test]
async fn a_copy_pins_its_source_and_keeps_what_the_store_would_drop() {
    let shown = head("\"v1\"", 5)
        .header("x-amz-storage-class", "STANDARD_IA")
        .header("x-amz-server-side-encryption", "aws:kms")
        .header("x-amz-server-side-encryption-aws-kms-key-id", "key-1");
    let done = "<CopyObjectResult><ETag>&quot;v2&quot;</ETag></CopyObjectResult>";
    let script = vec![shown, Answer::new(404), Answer::new(200).body(done)];
    let server = Server::scripted(script).await;
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
    let asked = server.asked().remove(2);
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
    let server = Server::scripted(vec![head("\"v2\"", 5)]).await;
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
    let server = Server::scripted(vec![head("\"v1\"", 5), head("\"x\"", 5)]).await;
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

#[tokio::test]
async fn a_conditional_delete_looks_first_where_the_store_would_not() {
    let key = Key::new("key");
    let etag = ETag::new("\"v1\"");
    let server = Server::scripted(vec![head("\"v2\"", 5)]).await;
    let error = store(&server.url)
        .delete(&key, Some(&etag))
        .await
        .unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Changed);
    assert_eq!(server.methods(), ["HEAD"]);
    let server = Server::scripted(vec![head("\"v1\"", 5), Answer::new(204)]).await;
    store(&server.url).delete(&key, Some(&etag)).await.unwrap();
    assert_eq!(server.methods(), ["HEAD", "DELETE"]);
    // Where it is honoured it is sent, and what our own lost answer removed is removed.
    let script = vec![Answer::lost(), failed(), Answer::new(404)];
    let server = Server::scripted(script).await;
    let store = store_with(&server.url, &quick(), |core| {
        core.support.get_mut().delete = Honoured::Yes;
    });
    store.delete(&key, Some(&etag)).await.unwrap();
    assert_eq!(server.asked()[0].header("if-match"), Some("\"v1\""));
}

#[tokio::test]
async fn the_probe_writes_nothing_where_conditions_are_honoured() {
    for refusal in [Answer::error(404, "NoSuchKey"), failed()] {
        let server = Server::scripted(vec![refusal]).await;
        let store = store(&server.url);
        assert_eq!(store.conditional_support().writes(), Honoured::Unknown);
        let support = store.probe_conditional_writes().await.unwrap();
        assert_eq!(support.writes(), Honoured::Yes);
        assert_eq!(support.copy_target, Honoured::No);
        assert_eq!(server.methods(), ["PUT"]);
    }
}

#[tokio::test]
async fn the_probe_removes_what_a_careless_store_made() {
    let server = Server::start(|_at, asked| match asked.method.as_str() {
        "DELETE" => Answer::new(204),
        _ => Answer::new(200).header("ETag", HELLO),
    })
    .await;
    let store = store(&server.url);
    let support = store.probe_conditional_writes().await.unwrap();
    assert_eq!(support.writes(), Honoured::No);
    assert_eq!(server.methods(), ["PUT", "PUT", "DELETE"]);
    let keys: std::collections::BTreeSet<_> = server
        .asked()
        .iter()
        .map(|asked| asked.target.split('?').next().unwrap().to_owned())
        .collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
    assert!(
        keys.first().unwrap().starts_with("/bucket/.ackfs-probe-"),
        "{keys:?}"
    );
}

#[tokio::test]
async fn where_writing_is_not_allowed_the_probe_says_unknown() {
    let server = Server::scripted(vec![Answer::error(403, "AccessDenied")]).await;
    let support = store(&server.url).probe_conditional_writes().await.unwrap();
    assert_eq!(support.writes(), Honoured::Unknown);
}
