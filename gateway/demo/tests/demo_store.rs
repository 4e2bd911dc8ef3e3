//! The store in process, seen by the AWS SDK over loopback: it must answer as AWS does, race as AWS does, and fail
//! exactly as it is told to. Other tests build on these answers, so each sentence about the store is a test here.

#[path = "demo_store/conditions.rs"]
mod conditions;
#[path = "demo_store/faults.rs"]
mod faults;
#[path = "demo_store/listings.rs"]
mod listings;
#[path = "demo_store/multipart.rs"]
mod multipart;
#[path = "demo_store/objects.rs"]
mod objects;
#[path = "demo_store/speed.rs"]
mod speed;

use std::fmt::Debug;
use std::time::Duration;

use ackfs_demo::{DemoConfig, Server};
use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{BehaviorVersion, Region};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

const BUCKET: &str = "bucket";

/// A server with one bucket, and a client that never retries.
async fn start(config: DemoConfig) -> (Server, Client) {
    let server = Server::start(config).await.unwrap();
    server.create_bucket(BUCKET).unwrap();
    let client = client(&server, &Identity::default());
    (server, client)
}

/// A server with one bucket whose parts may be small.
async fn small_parts() -> (Server, Client) {
    start(DemoConfig {
        part_len_min: 5,
        ..DemoConfig::default()
    })
    .await
}

/// Who a client says it is.
struct Identity {
    access_key: String,
    secret_key: String,
    region: String,
}

impl Default for Identity {
    fn default() -> Self {
        let DemoConfig {
            access_key,
            secret_key,
            ..
        } = DemoConfig::default();
        Self {
            access_key,
            secret_key,
            region: "us-east-1".to_owned(),
        }
    }
}

fn client(server: &Server, identity: &Identity) -> Client {
    let credentials = Credentials::new(
        &identity.access_key,
        &identity.secret_key,
        None,
        None,
        "test",
    );
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(identity.region.clone()))
        .endpoint_url(server.endpoint())
        .force_path_style(true)
        .credentials_provider(credentials)
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .retry_config(RetryConfig::disabled())
        .timeout_config(
            TimeoutConfig::builder()
                .operation_timeout(Duration::from_secs(30))
                .build(),
        )
        .build();
    Client::from_conf(config)
}

fn body(bytes: impl Into<Vec<u8>>) -> ByteStream {
    ByteStream::from(bytes.into())
}

async fn put(client: &Client, key: &str, bytes: &str) -> String {
    let answer = client
        .put_object()
        .bucket(BUCKET)
        .key(key)
        .body(body(bytes))
        .send()
        .await;
    answer.unwrap().e_tag.unwrap()
}

/// Status and error code of an answer: `(200, "")` if it was good, `(0, "")` if there was none.
fn outcome<T, E>(answer: Result<T, SdkError<E, HttpResponse>>) -> (u16, String)
where
    E: ProvideErrorMetadata + Debug,
{
    match answer {
        Ok(_) => (200, String::new()),
        Err(error) => {
            let status = error.raw_response().map_or(0, |raw| raw.status().as_u16());
            (status, error.code().unwrap_or_default().to_owned())
        }
    }
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

fn fine() -> (u16, String) {
    refused(200, "")
}
