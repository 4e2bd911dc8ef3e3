//! Against a real MinIO: `ACKFS_TEST_MINIO` is its URL, with minioadmin's default credentials or
//! those of `ACKFS_TEST_MINIO_USER` and `ACKFS_TEST_MINIO_PASSWORD`. Every test makes its own
//! bucket and removes it.

use std::env;
use std::sync::Arc;

use ackfs_cache::extent::Extent;
use ackfs_cache::object::{ETag, Key, ObjectId};
use ackfs_cache::store::{
    BoxFuture, Condition, CopyMetadata, Later, ListRequest, Metadata, ObjectStore, PartBytes,
    Priority, StoreErrorKind, UploadId,
};
use ackfs_cache::upload::lost::settle;
use bytes::Bytes;

use super::{collect, connected, location};
use crate::s3::core::Core;
use crate::s3::request::random;
use crate::s3::{Capabilities, Checksum, ConnectErrorKind, Honoured, S3Config, S3Store};

pub(super) fn endpoint() -> String {
    env::var("ACKFS_TEST_MINIO").expect("ACKFS_TEST_MINIO is the URL of a MinIO; see tests/run")
}

pub(super) fn credentials() -> (String, String) {
    let of = |name| env::var(name).unwrap_or_else(|_unset| "minioadmin".to_owned());
    (of("ACKFS_TEST_MINIO_USER"), of("ACKFS_TEST_MINIO_PASSWORD"))
}

/// A bucket of its own.
pub(super) struct TestBucket {
    pub(super) store: Arc<S3Store>,
    pub(super) capabilities: Capabilities,
    config: S3Config,
}

impl TestBucket {
    pub(super) async fn new(config: S3Config) -> Self {
        let config = S3Config {
            bucket: format!("ackfs-test-{:016x}", random()),
            ..config
        };
        let (access, secret) = credentials();
        let location = location(&endpoint(), &access, &secret);
        let core = location.core(&config, String::new(), location.region.clone());
        let made = core.client.create_bucket().bucket(&config.bucket).send();
        made.await.unwrap();
        let (store, capabilities) = connected(&location, &config, "").await.unwrap();
        Self {
            store,
            capabilities,
            config,
        }
    }

    fn changed(&self, change: impl FnOnce(&mut Core)) -> Arc<S3Store> {
        let (access, secret) = credentials();
        let location = location(&endpoint(), &access, &secret);
        let mut core = location.core(&self.config, String::new(), location.region.clone());
        change(Arc::get_mut(&mut core).unwrap());
        Arc::new(S3Store { core })
    }

    async fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        let mut token = None;
        loop {
            let request = ListRequest {
                prefix: String::new(),
                delimited: false,
                token,
                start_after: None,
                keys_max: 3,
            };
            let page = self.store.list(request).await.unwrap();
            keys.extend(page.entries.into_iter().map(|entry| entry.key));
            token = page.next;
            if token.is_none() {
                return keys;
            }
        }
    }

    pub(super) async fn remove(self) {
        for key in self.keys().await {
            self.store.delete(&Key::new(key), None).await.unwrap();
        }
        let client = &self.store.core.client;
        let removed = client.delete_bucket().bucket(&self.config.bucket).send();
        removed.await.unwrap();
    }

    async fn put(
        &self,
        key: &str,
        body: &[u8],
        condition: &Condition,
    ) -> Result<ETag, StoreErrorKind> {
        let body = vec![Bytes::copy_from_slice(body)];
        self.store
            .put(&Key::new(key), body, &Metadata::default(), condition)
            .await
            .map_err(|error| error.kind)
    }

    async fn read(&self, key: &str, etag: &ETag) -> Vec<u8> {
        let id = ObjectId::new(Key::new(key), etag.clone());
        let extent = Extent::new(0, 1 << 40);
        let mut fetched = self
            .store
            .get(&id, extent, Priority::Interactive)
            .await
            .unwrap();
        collect(fetched.body.as_mut()).await.unwrap()
    }
}

fn metadata() -> Metadata {
    Metadata {
        user: [("file-mode", "0644")].into_iter().collect(),
        content_type: Some("text/plain".into()),
        content_encoding: Some("gzip".into()),
        cache_control: Some("no-store".into()),
        content_disposition: Some("attachment".into()),
        content_language: Some("de".into()),
    }
}

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
async fn parts_copied_parts_and_conditions_make_an_object() {
    for checksum in [Checksum::Auto, Checksum::Crc32, Checksum::WhenRequired] {
        let bucket = TestBucket::new(S3Config {
            checksum,
            ..S3Config::new("")
        })
        .await;
        let store = &bucket.store;
        let key = Key::new("big");
        let source_bytes: Vec<u8> = (0..6 << 20).map(|i: u32| (i >> 8) as u8).collect();
        let source_etag = bucket
            .put("source", &source_bytes, &Condition::None)
            .await
            .unwrap();
        let source = ObjectId::new(Key::new("source"), source_etag);

        let upload = store.create_multipart(&key, &metadata()).await.unwrap();
        // Some of it is read when its turn comes.
        let later = || Box::pin(async { Ok(Bytes::from(vec![2; 2 << 20])) }) as BoxFuture<'_, _>;
        let piece = vec![
            PartBytes::Here(vec![1; 3 << 20].into()),
            PartBytes::Later(Later::new(2 << 20, later)),
        ];
        let last = vec![PartBytes::Here(Bytes::from_static(b"end"))];
        let second = store
            .copy_part(&key, &upload, 2, &source, Extent::new(100, 5 << 20))
            .await;
        if checksum == Checksum::Crc32 {
            // SeenRequest for by name the checksum is announced, and MinIO wants it of every part.
            assert_eq!(second.unwrap_err().kind, StoreErrorKind::Rejected);
            assert_eq!(store.part_copies(), Honoured::No);
            // The part that was refused is sent, and the upload is sound.
            let sent = source_bytes[100..100 + (5 << 20)].to_vec();
            let parts = [
                store.put_part(&key, &upload, 1, piece).await.unwrap(),
                store
                    .put_part(&key, &upload, 2, vec![PartBytes::Here(sent.into())])
                    .await
                    .unwrap(),
            ];
            let done = store.complete(&key, &upload, &parts, &Condition::Absent);
            let etag = done.await.unwrap();
            assert_eq!(bucket.read("big", &etag).await.len(), 10 << 20);
            bucket.remove().await;
            continue;
        }
        assert_eq!(store.part_copies(), Honoured::Yes);
        let corrupted = bucket
            .store
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
        let (one, two, three) = (
            store.put_part(&key, &upload, 1, piece).await.unwrap(),
            second.unwrap(),
            store.put_part(&key, &upload, 3, last).await.unwrap(),
        );
        let stale = ObjectId::new(source.key.clone(), ETag::new("\"00\""));
        let refused = store.copy_part(&key, &upload, 4, &stale, Extent::new(0, 5 << 20));
        assert_eq!(refused.await.unwrap_err().kind, StoreErrorKind::Changed);
        let gone = ObjectId::new(Key::new("gone"), source.etag.clone());
        let refused = store.copy_part(&key, &upload, 4, &gone, Extent::new(0, 5 << 20));
        assert_eq!(refused.await.unwrap_err().kind, StoreErrorKind::Changed);
        let unknown = UploadId("unknown".into());
        let refused = store.copy_part(&key, &unknown, 4, &source, Extent::new(0, 5 << 20));
        assert_eq!(refused.await.unwrap_err().kind, StoreErrorKind::NotFound);
        let parts = [three, one, two];
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
        // SeenRequest again, as if the answer had been lost.
        let again = store
            .complete(&key, &upload, &parts, &Condition::None)
            .await;
        let settled = settle(&**store, &key, again).await;
        assert_eq!(settled.unwrap(), etag, "{checksum:?}");
        let bytes = bucket.read("big", &etag).await;
        assert_eq!(bytes.len(), (10 << 20) + 3);
        assert!(bytes[5 << 20..10 << 20] == source_bytes[100..100 + (5 << 20)]);
        assert_eq!(store.head(&key).await.unwrap().metadata, metadata());

        let upload = store.create_multipart(&key, &metadata()).await.unwrap();
        store.abort(&key, &upload).await.unwrap();
        store.abort(&key, &upload).await.unwrap();
        bucket.remove().await;
    }
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
