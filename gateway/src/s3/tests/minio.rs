//! Against a real MinIO. Every test makes its own bucket and removes it.

use std::sync::Arc;

use ackfs_cache::extent::Extent;
use ackfs_cache::object::{ETag, Key, ObjectId};
use ackfs_cache::store::{
    Condition, CopyMetadata, ListRequest, Metadata, ObjectStore, Priority, StoreErrorKind,
};
use bytes::Bytes;

use super::bucket::{TestBucket, credentials, endpoint, metadata};
use super::{connected, location};
use crate::s3::{Checksum, ConnectErrorKind, Honoured, S3Config};

#[tokio::test]
#[ignore = "needs MinIO; tests/run runs them"]
async fn what_was_put_is_read_listed_and_removed() {
    let bucket = TestBucket::new(S3Config::new("")).await;
    let store = &bucket.store;
    for checksum in [Checksum::Auto, Checksum::Crc32, Checksum::WhenRequired] {
        let other = TestBucket::new(S3Config {
            checksum,
            ..S3Config::new("")
        })
        .await;
        let etag = other.put("key", b"bytes", &Condition::None).await.unwrap();
        assert_eq!(other.read("key", &etag).await, b"bytes");
        other.remove().await;
    }
    let key = Key::new("dir/a b+ü%2F");
    let body = vec![Bytes::from_static(b"hello "), Bytes::from_static(b"world")];
    let etag = store
        .put(&key, body, &metadata(), &Condition::Absent)
        .await
        .unwrap();
    let info = store.head(&key).await.unwrap();
    assert_eq!((info.size, &info.etag), (11, &etag));
    assert_eq!(info.metadata, metadata());
    let age = info.modified.elapsed().unwrap_or_default();
    assert!(age.as_secs() < 60, "{age:?}");
    assert_eq!(bucket.read(key.as_str(), &etag).await, b"hello world");
    let empty = bucket.put("empty", b"", &Condition::Absent).await.unwrap();
    assert_eq!(store.head(&Key::new("empty")).await.unwrap().etag, empty);
    let page = store
        .list(ListRequest {
            prefix: String::new(),
            delimited: true,
            token: None,
            start_after: None,
            keys_max: 1000,
        })
        .await
        .unwrap();
    assert_eq!(page.prefixes, ["dir/"]);
    assert_eq!(page.entries[0].key, "empty");
    assert_eq!(page.entries[0].etag, empty);
    store.delete(&key, Some(&etag)).await.unwrap();
    store.delete(&key, None).await.unwrap();
    let gone = store.head(&key).await.unwrap_err();
    assert_eq!(gone.kind, StoreErrorKind::NotFound);
    bucket.remove().await;
}

#[tokio::test]
#[ignore = "needs MinIO; tests/run runs them"]
async fn conditions_hold_and_the_probe_leaves_nothing() {
    let bucket = TestBucket::new(S3Config::new("")).await;
    assert_eq!(bucket.capabilities.conditional.writes(), Honoured::Yes);
    let copies = bucket.store.probe_part_copies().await.unwrap();
    assert_eq!(copies, Honoured::Yes);
    assert_eq!(bucket.keys().await, [""; 0]);
    let first = bucket.put("key", b"1", &Condition::Absent).await.unwrap();
    let changed = Err(StoreErrorKind::Changed);
    assert_eq!(bucket.put("key", b"2", &Condition::Absent).await, changed);
    let stale = Condition::Matches(ETag::new("\"00000000000000000000000000000000\""));
    assert_eq!(bucket.put("key", b"2", &stale).await, changed);
    assert_eq!(bucket.put("missing", b"2", &stale).await, changed);
    let mine = Condition::Matches(first.clone());
    let second = bucket.put("key", b"2", &mine).await.unwrap();
    let id = ObjectId::new(Key::new("key"), first);
    let old = bucket
        .store
        .get(&id, Extent::new(0, 1), Priority::Interactive);
    assert_eq!(old.await.unwrap_err().kind, StoreErrorKind::Changed);
    let stale = bucket.store.delete(&Key::new("key"), Some(&id.etag)).await;
    assert_eq!(stale.unwrap_err().kind, StoreErrorKind::Changed);
    assert_eq!(bucket.read("key", &second).await, b"2");
    bucket.remove().await;
}

#[tokio::test]
#[ignore = "needs MinIO; tests/run runs them"]
async fn of_racing_creators_exactly_one_wins() {
    let bucket = Arc::new(TestBucket::new(S3Config::new("")).await);
    for round in 0..8 {
        let racers: Vec<_> = (0..16_u8)
            .map(|racer| {
                let bucket = Arc::clone(&bucket);
                tokio::spawn(async move {
                    let key = format!("race-{round}");
                    bucket.put(&key, &[racer], &Condition::Absent).await.is_ok()
                })
            })
            .collect();
        let mut winners = 0;
        for racer in racers {
            winners += u32::from(racer.await.unwrap());
        }
        assert_eq!(winners, 1, "round {round}");
    }
    Arc::into_inner(bucket).unwrap().remove().await;
}

#[tokio::test]
#[ignore = "needs MinIO; tests/run runs them"]
async fn copies_keep_or_replace_metadata_in_one_piece_or_in_parts() {
    let bucket = TestBucket::new(S3Config::new("")).await;
    let in_parts = bucket.changed(|core| {
        core.copy_object_max = 1;
        core.copy_part_len = 5 << 20;
    });
    let bytes: Vec<u8> = (0..12 << 20).map(|i: u32| (i >> 7) as u8).collect();
    let from = Key::new("from ü+");
    let etag = bucket
        .store
        .put(
            &from,
            vec![bytes.clone().into()],
            &metadata(),
            &Condition::None,
        )
        .await
        .unwrap();
    let source = ObjectId::new(from.clone(), etag);
    let client = &bucket.store.core.client;
    let tag = aws_sdk_s3::types::Tag::builder()
        .key("a b")
        .value("1+2=3")
        .build()
        .unwrap();
    let tags = aws_sdk_s3::types::Tagging::builder()
        .tag_set(tag.clone())
        .build()
        .unwrap();
    client
        .put_object_tagging()
        .bucket(&bucket.config.bucket)
        .key(from.as_str())
        .tagging(tags)
        .send()
        .await
        .unwrap();
    let other = Metadata {
        user: [("file-mode", "0600")].into_iter().collect(),
        ..Metadata::default()
    };
    for (at, store) in [&bucket.store, &in_parts].into_iter().enumerate() {
        let kept = Key::new(format!("kept-{at}"));
        let etag = store
            .copy(&source, &kept, CopyMetadata::Keep, &Condition::Absent)
            .await
            .unwrap();
        assert!(bucket.read(kept.as_str(), &etag).await == bytes);
        assert_eq!(
            store.head(&kept).await.unwrap().metadata,
            metadata(),
            "{at}"
        );
        let output = client
            .get_object_tagging()
            .bucket(&bucket.config.bucket)
            .key(kept.as_str())
            .send()
            .await
            .unwrap();
        assert_eq!(output.tag_set, std::slice::from_ref(&tag), "{at}");
        let error = store
            .copy(&source, &kept, CopyMetadata::Keep, &Condition::Absent)
            .await
            .unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Changed);
        let replaced = CopyMetadata::Replace(other.clone());
        let condition = Condition::Matches(etag);
        store
            .copy(&source, &kept, replaced, &condition)
            .await
            .unwrap();
        let user = store.head(&kept).await.unwrap().metadata.user;
        assert_eq!(user, other.user, "{at}");
    }
    let uploads = client
        .list_multipart_uploads()
        .bucket(&bucket.config.bucket)
        .send();
    assert_eq!(uploads.await.unwrap().uploads().len(), 0);
    bucket.remove().await;
}

#[tokio::test]
#[ignore = "needs MinIO; tests/run runs them"]
async fn strange_keys_are_listed_as_they_are() {
    let bucket = TestBucket::new(S3Config::new("")).await;
    let mut keys = vec![
        "a",
        "a b",
        "a+b",
        "a%20b",
        "c/b",
        "dir/",
        "é\u{1}\n",
        "ü&<>\"'",
        "~",
    ];
    for key in &keys {
        bucket.put(key, b"x", &Condition::Absent).await.unwrap();
    }
    keys.sort_unstable();
    let mut listed = bucket.keys().await;
    listed.sort_unstable();
    assert_eq!(listed, keys);
    bucket.remove().await;
}

#[tokio::test]
#[ignore = "needs MinIO; tests/run runs them"]
async fn a_real_refusal_is_explained() {
    let config = S3Config::new("ackfs-test-no-such-bucket");
    let (access, secret) = credentials();
    for (access, secret, kind) in [
        (
            access.as_str(),
            secret.as_str(),
            ConnectErrorKind::NoSuchBucket,
        ),
        ("nobody", &secret, ConnectErrorKind::BadCredentials),
        (&access, "wrong-secret", ConnectErrorKind::BadCredentials),
    ] {
        let location = location(&endpoint(), access, secret);
        let error = connected(&location, &config, "").await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
    }
}
