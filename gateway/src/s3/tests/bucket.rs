//! A bucket of its own in a real MinIO for each test: `ACKFS_TEST_MINIO` is its URL, with minioadmin's default
//! credentials or those of `ACKFS_TEST_MINIO_USER` and `ACKFS_TEST_MINIO_PASSWORD`.

use std::env;
use std::sync::Arc;

use ackfs_cache::extent::Extent;
use ackfs_cache::object::{ETag, Key, ObjectId};
use ackfs_cache::store::{Condition, ListRequest, Metadata, ObjectStore, Priority, StoreErrorKind};
use bytes::Bytes;

use super::{collect, connected, location};
use crate::s3::core::Core;
use crate::s3::request::random;
use crate::s3::{Capabilities, S3Config, S3Store};

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
    pub(super) config: S3Config,
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

    pub(super) fn changed(&self, change: impl FnOnce(&mut Core)) -> Arc<S3Store> {
        let (access, secret) = credentials();
        let location = location(&endpoint(), &access, &secret);
        let mut core = location.core(&self.config, String::new(), location.region.clone());
        change(Arc::get_mut(&mut core).unwrap());
        Arc::new(S3Store { core })
    }

    pub(super) async fn keys(&self) -> Vec<String> {
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

    pub(super) async fn put(
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

    pub(super) async fn read(&self, key: &str, etag: &ETag) -> Vec<u8> {
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

/// Every field filled.
pub(super) fn metadata() -> Metadata {
    Metadata {
        user: [("file-mode", "0644")].into_iter().collect(),
        content_type: Some("text/plain".into()),
        content_encoding: Some("gzip".into()),
        cache_control: Some("no-store".into()),
        content_disposition: Some("attachment".into()),
        content_language: Some("de".into()),
    }
}
