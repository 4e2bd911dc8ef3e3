//! Parts, sent and copied, against a real MinIO.

use ackfs_cache::extent::Extent;
use ackfs_cache::object::{ETag, Key, ObjectId};
use ackfs_cache::store::{
    BoxFuture, Condition, Later, ObjectStore, PartBytes, StoreErrorKind, UploadId,
};
use ackfs_cache::upload::lost::confirm;
use bytes::Bytes;

use super::bucket::{TestBucket, metadata};
use crate::s3::{Checksum, Honoured, S3Config};

/// What is copied of the source.
const COPIED: Extent = Extent {
    offset: 100,
    len: 5 << 20,
};

async fn bucket(checksum: Checksum) -> TestBucket {
    TestBucket::new(S3Config {
        checksum,
        ..S3Config::new("")
    })
    .await
}

/// 6 MiB to copy from.
async fn source(bucket: &TestBucket) -> (ObjectId, Vec<u8>) {
    let bytes: Vec<u8> = (0..6 << 20).map(|i: u32| (i >> 8) as u8).collect();
    let etag = bucket.put("source", &bytes, &Condition::None).await;
    (ObjectId::new(Key::new("source"), etag.unwrap()), bytes)
}

/// 5 MiB, of which some are read when their turn comes.
fn piece() -> Vec<PartBytes> {
    let later = || Box::pin(async { Ok(Bytes::from(vec![2; 2 << 20])) }) as BoxFuture<'_, _>;
    vec![
        PartBytes::Here(vec![1; 3 << 20].into()),
        PartBytes::Later(Later::new(2 << 20, later)),
    ]
}

#[tokio::test]
#[ignore = "needs MinIO; tests/run runs them"]
async fn parts_copied_parts_and_conditions_make_an_object() {
    for checksum in [Checksum::Auto, Checksum::WhenRequired] {
        let bucket = bucket(checksum).await;
        let store = &bucket.store;
        let key = Key::new("big");
        let (source, source_bytes) = source(&bucket).await;
        let upload = store.create_multipart(&key, &metadata()).await.unwrap();
        let last = vec![PartBytes::Here(Bytes::from_static(b"end"))];
        let two = store.copy_part(&key, &upload, 2, &source, COPIED).await;
        assert_eq!(store.part_copies(), Honoured::Yes);
        let one = store.put_part(&key, &upload, 1, piece()).await;
        let three = store.put_part(&key, &upload, 3, last).await;
        let parts = [three.unwrap(), one.unwrap(), two.unwrap()];
        let there = bucket.put("big", b"x", &Condition::None).await.unwrap();
        let refused = store
            .complete(&key, &upload, &parts, &Condition::Absent)
            .await;
        assert_eq!(
            refused.unwrap_err().kind,
            StoreErrorKind::Changed,
            "{checksum:?}"
        );
        let condition = Condition::Matches(there);
        let etag = store
            .complete(&key, &upload, &parts, &condition)
            .await
            .unwrap();
        // Asked again, as if the answer had been lost.
        let again = store
            .complete(&key, &upload, &parts, &Condition::None)
            .await;
        let confirmed = confirm(&**store, &key, again).await;
        assert_eq!(confirmed.unwrap(), etag, "{checksum:?}");
        let bytes = bucket.read("big", &etag).await;
        assert_eq!(bytes.len(), (10 << 20) + 3);
        assert!(bytes[5 << 20..10 << 20] == source_bytes[100..100 + (5 << 20)]);
        assert_eq!(store.head(&key).await.unwrap().metadata, metadata());
        bucket.remove().await;
    }
}

#[tokio::test]
#[ignore = "needs MinIO; tests/run runs them"]
async fn refused_parts_say_why_and_an_upload_is_given_up_twice() {
    let bucket = bucket(Checksum::Auto).await;
    let store = &bucket.store;
    let key = Key::new("big");
    let (source, _) = source(&bucket).await;
    let upload = store.create_multipart(&key, &metadata()).await.unwrap();
    let corrupted = store
        .core
        .client
        .upload_part()
        .bucket(&bucket.config.bucket)
        .key("big")
        .upload_id(&upload.0)
        .part_number(1)
        .checksum_crc64_nvme("AAAAAAAAAAA=")
        .body(Bytes::from_static(b"changed on the way").into())
        .send();
    assert!(
        corrupted.await.is_err(),
        "checksums are checked unannounced"
    );
    let stale = ObjectId::new(source.key.clone(), ETag::new("\"00\""));
    let gone = ObjectId::new(Key::new("gone"), source.etag.clone());
    let unknown = UploadId("unknown".into());
    for (upload, source, kind) in [
        (&upload, &stale, StoreErrorKind::Changed),
        (&upload, &gone, StoreErrorKind::Changed),
        (&unknown, &source, StoreErrorKind::NotFound),
    ] {
        let refused = store.copy_part(&key, upload, 4, source, COPIED).await;
        assert_eq!(refused.unwrap_err().kind, kind, "{source:?}");
    }
    store.abort(&key, &upload).await.unwrap();
    store.abort(&key, &upload).await.unwrap();
    bucket.remove().await;
}

/// Asked for by name the checksum is announced, and MinIO wants it of every part, which a copied one has not.
#[tokio::test]
#[ignore = "needs MinIO; tests/run runs them"]
async fn a_part_that_cannot_be_copied_is_sent_under_its_number() {
    let bucket = bucket(Checksum::Crc32).await;
    let store = &bucket.store;
    let key = Key::new("big");
    let (source, bytes) = source(&bucket).await;
    let upload = store.create_multipart(&key, &metadata()).await.unwrap();
    let two = store.copy_part(&key, &upload, 2, &source, COPIED).await;
    assert_eq!(two.unwrap_err().kind, StoreErrorKind::Rejected);
    assert_eq!(store.part_copies(), Honoured::No);
    let sent = vec![PartBytes::Here(bytes[100..100 + (5 << 20)].to_vec().into())];
    let one = store.put_part(&key, &upload, 1, piece()).await;
    let two = store.put_part(&key, &upload, 2, sent).await;
    let parts = [one.unwrap(), two.unwrap()];
    let done = store.complete(&key, &upload, &parts, &Condition::Absent);
    let etag = done.await.unwrap();
    assert_eq!(bucket.read("big", &etag).await.len(), 10 << 20);
    bucket.remove().await;
}
