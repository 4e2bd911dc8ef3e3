//! Tests of the whole store: against a server that answers what a script says ([`server`]), and
//! against a real MinIO where `ACKFS_TEST_MINIO` names one.

use std::sync::Arc;
use std::time::Duration;

use ackfs_cache::object::{ETag, Key, ObjectId};
use ackfs_cache::store::{Body, StoreResult};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};

use super::connect::{self, StoreLocation};
use super::core::Core;
use super::{Capabilities, ConnectError, S3Config, S3Store};

mod bucket;
mod connecting;
mod copying;
mod lost;
mod minio;
mod minio_parts;
mod probing;
mod reading;
mod server;
mod speed;
mod tls;
mod trouble;
mod writing;

/// What the chain would give for `endpoint_url` with these credentials.
fn location(endpoint_url: &str, access: &str, secret: &str) -> StoreLocation {
    let sdk = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
            access, secret, None, None, "test",
        )))
        .build();
    let http = if endpoint_url.starts_with("https") {
        connect::https_client(64, None).unwrap()
    } else {
        connect::http_client(64)
    };
    StoreLocation {
        sdk,
        region: Region::from_static("us-east-1"),
        endpoint_url: Some(endpoint_url.to_owned()),
        path_style: true,
        temporary: false,
        http,
    }
}

/// The store there, proved as a mount does it.
async fn connected(
    location: &StoreLocation,
    config: &S3Config,
    prefix: &str,
) -> Result<(Arc<S3Store>, Capabilities), ConnectError> {
    let (core, capabilities) = location.connect(config, prefix).await?;
    Ok((Arc::new(S3Store { core }), capabilities))
}

/// A store at `endpoint_url` that nobody has asked anything yet.
fn store_with(
    endpoint_url: &str,
    config: &S3Config,
    change: impl FnOnce(&mut Core),
) -> Arc<S3Store> {
    let location = location(endpoint_url, "minioadmin", "minioadmin");
    let mut core = location.core(config, String::new(), Region::from_static("us-east-1"));
    change(Arc::get_mut(&mut core).unwrap());
    Arc::new(S3Store { core })
}

/// The same with a time limit that no busy machine reaches.
fn store(endpoint_url: &str) -> Arc<S3Store> {
    store_with(endpoint_url, &quick(), |_core| {})
}

fn quick() -> S3Config {
    S3Config {
        store_timeout: Duration::from_mins(1),
        ..S3Config::new("bucket")
    }
}

fn id(key: &str, etag: &str) -> ObjectId {
    ObjectId::new(Key::new(key), ETag::new(etag))
}

async fn collect(body: &mut dyn Body) -> StoreResult<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
