//! Finding the store: endpoint, region, credentials, a client, and proof that all of it works.
//!
//! The chain is AWS's: what is given, then the environment (`AWS_*`), then the profile, then the
//! machine's role. A custom endpoint gets the region `us-east-1` and path style unless told
//! otherwise, because that is what MinIO and its kin expect, and nobody asks a cloud's metadata
//! service for a region then.
//!
//! Before a mount is made the bucket is listed once, one key below the prefix: the cheapest request
//! that needs all that a mount needs, and whose refusal carries a body with a code (HEAD's does
//! not). A bucket in another region is followed once. Every other failure ends as a
//! [`ConnectError`]: one line with what is wrong and what mends it (`explain.rs`).

use std::sync::Arc;
use std::time::Duration;

use ackfs_cache::store::StoreErrorKind;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::imds::region::ImdsRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient,
    StalledStreamProtectionConfig,
};
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use tracing::{info, warn};

use super::checksum::ChecksumPolicy;
use super::conditions::{ConditionalSupport, Conditions, PartCopies};
use super::config::S3Config;
use super::connect_error::{ConnectError, ConnectErrorKind, ConnectTarget};
use super::copy::{COPY_OBJECT_MAX, COPY_PART_LEN};
use super::core::Core;
use super::endpoint::{check_endpoint, is_aws, is_plain};
use super::error::{RequestFailure, Retry};
use super::explain;
use super::list::sound;
use super::permits::Permits;
use super::request::CallEnd;
use super::stats::{Recorder, RequestKind};

mod client;
mod credentials;

pub(super) use client::{http_client, https_client};
use credentials::check_credentials;

/// How long a TCP connection and its TLS may take (the SDK's own default since 2026).
const CONNECT_MAX: Duration = Duration::from_millis(3100);

/// How long an upload may stand still before its connection is given up.
const STALL_GRACE: Duration = Duration::from_secs(20);

/// What a mount finds at its endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// The endpoint's URL; `None` for AWS's own.
    pub endpoint_url: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// Whether URLs hold the bucket in their path.
    pub path_style: bool,
    /// Which conditions are honoured.
    pub conditional: ConditionalSupport,
}

/// Where the store is and who asks, as the chain says.
pub(super) struct StoreLocation {
    pub(super) sdk: SdkConfig,
    pub(super) region: Region,
    pub(super) endpoint_url: Option<String>,
    pub(super) path_style: bool,
    /// Whether the credentials have a session token.
    pub(super) temporary: bool,
    pub(super) http: SharedHttpClient,
}

impl StoreLocation {
    /// Proves that the bucket can be used from here. Keys below `prefix` are what the mount will see.
    pub(super) async fn connect(
        &self,
        config: &S3Config,
        prefix: &str,
    ) -> Result<(Arc<Core>, Capabilities), ConnectError> {
        let mut core = self.core(config, prefix.to_owned(), self.region.clone());
        if let Err(failure) = check(&core).await {
            let Some(region) = explain::other_region(&failure, self.region.as_ref()) else {
                return Err(self.explain(config, failure));
            };
            info!(
                bucket = config.bucket,
                region, "the bucket is in another region than asked for; following it there"
            );
            core = self.core(config, prefix.to_owned(), Region::new(region));
            check(&core)
                .await
                .map_err(|failure| self.explain(config, failure))?;
        }
        if !config.read_only
            && let Err(error) = core.probe_conditional_writes().await
        {
            warn!(%error, "whether the endpoint honours conditional writes could not be found out");
        }
        let region = core.client.config().region();
        let capabilities = Capabilities {
            endpoint_url: self.endpoint_url.clone(),
            region: region.map_or_else(String::new, ToString::to_string),
            path_style: self.path_style,
            conditional: core.conditions.support(),
        };
        Ok((core, capabilities))
    }

    /// Asks the chain.
    pub(super) async fn by_chain(config: &S3Config) -> Result<Self, ConnectError> {
        let given = config.endpoint_url.clone().or_else(endpoint_in_environment);
        if let Some(url) = &given {
            check_endpoint(url).map_err(|why| explain::bad_endpoint(url, why))?;
        }
        let ca_bundle = config
            .ca_bundle
            .clone()
            .or_else(|| std::env::var_os("AWS_CA_BUNDLE").map(Into::into));
        // Whether https is needed is known once the profile is read: until then, and for an endpoint
        // that speaks http, a machine without certificates does.
        let (http, no_authorities) = match https_client(config.max_requests, ca_bundle.as_deref()) {
            Ok(http) => (http, None),
            Err(error) if error.kind == ConnectErrorKind::NoAuthorities => {
                (http_client(config.max_requests), Some(error))
            }
            Err(error) => return Err(error),
        };
        let sdk = load(config, given.as_deref(), &http).await;
        let endpoint_url = given.or_else(|| sdk.endpoint_url().map(str::to_owned));
        let plain = endpoint_url.as_deref().is_some_and(is_plain);
        let no_authorities = match no_authorities {
            Some(error) if !plain => return Err(error),
            other => other,
        };
        let temporary = !config.no_sign_request
            && check_credentials(&sdk, config, no_authorities)
                .await?
                .session_token()
                .is_some();
        let region = sdk.region().cloned();
        Ok(Self {
            path_style: config.path_style.is_on(endpoint_url.is_some()),
            region: region.unwrap_or_else(|| Region::from_static("us-east-1")),
            sdk,
            endpoint_url,
            temporary,
            http: if plain {
                http_client(config.max_requests)
            } else {
                http
            },
        })
    }

    pub(super) fn core(&self, config: &S3Config, prefix: String, region: Region) -> Arc<Core> {
        let mut builder = aws_sdk_s3::config::Builder::from(&self.sdk)
            .http_client(self.http.clone())
            .region(region)
            .force_path_style(self.path_style)
            // Attempts are made, timed and counted here, see `request.rs`.
            .retry_config(RetryConfig::disabled())
            // A body that stands still is seen by its reader, see `get.rs`.
            .stalled_stream_protection(
                StalledStreamProtectionConfig::enabled()
                    .upload_enabled(true)
                    .download_enabled(false)
                    .grace_period(STALL_GRACE)
                    .build(),
            )
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(CONNECT_MAX)
                    .build(),
            )
            // Checksums of uploads are computed here, see `payload.rs`.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenSupported);
        if let Some(url) = &self.endpoint_url {
            builder = builder.endpoint_url(url);
        }
        if config.no_sign_request {
            builder = builder.allow_no_auth();
        }
        let custom = self.endpoint_url.as_deref().is_some_and(|url| !is_aws(url));
        Arc::new(Core {
            client: Client::from_conf(builder.build()),
            config: config.clone(),
            prefix,
            permits: Permits::new(config.max_requests),
            recorder: Recorder::default(),
            policy: ChecksumPolicy::new(config.checksum, custom),
            conditions: Conditions::presumed(custom),
            part_copies: PartCopies::default(),
            copy_object_max: COPY_OBJECT_MAX,
            copy_part_len: COPY_PART_LEN,
        })
    }

    fn explain(&self, config: &S3Config, failure: RequestFailure) -> ConnectError {
        explain::explain(
            &ConnectTarget {
                bucket: &config.bucket,
                endpoint_url: self.endpoint_url.as_deref(),
                region: self.region.as_ref(),
                signed: !config.no_sign_request,
                temporary: self.temporary,
            },
            failure,
        )
    }
}

/// The endpoint that AWS's variables name.
fn endpoint_in_environment() -> Option<String> {
    let ignored = std::env::var("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")
        .is_ok_and(|value| value.eq_ignore_ascii_case("true"));
    ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]
        .into_iter()
        .filter(|_name| !ignored)
        .find_map(|name| std::env::var(name).ok().filter(|url| !url.is_empty()))
}

/// What AWS's chain makes of what is given.
async fn load(config: &S3Config, endpoint_url: Option<&str>, http: &SharedHttpClient) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http.clone())
        .region(region_chain(config, endpoint_url.is_some(), http));
    if let Some(profile) = &config.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(url) = endpoint_url {
        loader = loader.endpoint_url(url);
    }
    if config.no_sign_request {
        loader = loader.no_credentials();
    }
    loader.load().await
}

/// Where the region comes from. A custom endpoint does not ask the machine's metadata service.
fn region_chain(
    config: &S3Config,
    custom_endpoint: bool,
    http: &SharedHttpClient,
) -> RegionProviderChain {
    let given = RegionProviderChain::first_try(config.region.clone().map(Region::new));
    let mut profile = ProfileFileRegionProvider::builder();
    if let Some(name) = &config.profile {
        profile = profile.profile_name(name);
    }
    let chain = given
        .or_else(EnvironmentVariableRegionProvider::new())
        .or_else(profile.build());
    if custom_endpoint {
        chain.or_else(Region::from_static("us-east-1"))
    } else {
        // It takes no client from the loader, and the SDK is built without one of its own.
        let imds = ProviderConfig::default().with_http_client(http.clone());
        chain.or_else(ImdsRegionProvider::builder().configure(&imds).build())
    }
}

/// Lists one key. What is broken for good is not tried again; what is busy is, for a while.
async fn check(core: &Core) -> Result<(), RequestFailure> {
    let CallEnd { result, .. } = core
        .run(core.check_call(RequestKind::List, None), || async {
            let answer = core
                .client
                .list_objects_v2()
                .bucket(&core.config.bucket)
                .prefix(&core.prefix)
                .max_keys(1)
                .set_request_payer(core.payer())
                .send()
                .await;
            match answer.map_err(RequestFailure::from_sdk).and_then(sound) {
                Ok(_page) => Ok(()),
                Err(mut failure) => {
                    // A mount that cannot reach its store says so at once.
                    if failure.status.is_none() && failure.error.kind != StoreErrorKind::Timeout {
                        failure.retry = Retry::Never;
                    }
                    Err(failure)
                }
            }
        })
        .await;
    result
}
