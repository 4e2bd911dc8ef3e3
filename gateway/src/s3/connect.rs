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

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ackfs_cache::store::StoreErrorKind;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::imds::region::ImdsRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    Credentials, ProvideCredentials, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use parking_lot::RwLock;
use tracing::{info, warn};

use super::S3Store;
use super::config::S3Config;
use super::copy::{COPY_OBJECT_MAX, COPY_PART_LEN};
use super::core::Core;
use super::error::{Failure, Retry};
use super::explain::{self, Asked};
pub use super::explain::{ConnectError, ConnectErrorKind};
use super::list::sound;
use super::lost::Remembered;
use super::part_copy::PartCopies;
use super::payload::Policy;
use super::permits::Permits;
use super::probe::ConditionalSupport;
use super::request::Ended;
use super::stats::{Kind, Recorder};

/// How long a TCP connection and its TLS may take (the SDK's own default since 2026).
const CONNECT_MAX: Duration = Duration::from_millis(3100);

/// How long a mount waits for a store that does not answer before it gives up.
pub(super) const CHECK_MAX: Duration = Duration::from_secs(15);

/// How long finding credentials may take: a machine's role takes a few requests.
const CREDENTIALS_MAX: Duration = Duration::from_secs(15);

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

impl S3Store {
    /// Finds the bucket and proves that it can be used. Keys below `prefix` are what the mount
    /// will see; it may be empty.
    ///
    /// # Errors
    /// One line with cause and fix. Waits for the store, for 15 seconds at most where it does not
    /// answer.
    pub async fn connect(
        config: S3Config,
        prefix: impl Into<String>,
    ) -> Result<(Arc<S3Store>, Capabilities), ConnectError> {
        Found::by_chain(&config)
            .await?
            .connect(config, prefix.into())
            .await
    }
}

/// What the chain gave.
pub(super) struct Found {
    pub(super) sdk: SdkConfig,
    pub(super) region: Region,
    pub(super) endpoint_url: Option<String>,
    pub(super) path_style: bool,
    /// Whether the credentials have a session token.
    pub(super) temporary: bool,
    pub(super) http: SharedHttpClient,
}

impl Found {
    /// Proves that the bucket can be used from here.
    pub(super) async fn connect(
        self,
        config: S3Config,
        prefix: String,
    ) -> Result<(Arc<S3Store>, Capabilities), ConnectError> {
        let found = self;
        let mut core = found.core(&config, prefix.clone(), found.region.clone());
        if let Err(failure) = check(&core).await {
            let region = explain::other_region(&failure, found.region.as_ref());
            let Some(region) = region else {
                return Err(found.explain(&config, failure));
            };
            info!(
                bucket = config.bucket,
                region, "the bucket is in another region than asked for; following it there"
            );
            let region = Region::new(region);
            core = found.core(&config, prefix, region);
            check(&core)
                .await
                .map_err(|failure| found.explain(&config, failure))?;
        }
        if !config.read_only
            && let Err(error) = core.probe_conditional_writes().await
        {
            warn!(%error, "whether the endpoint honours conditional writes could not be found out");
        }
        let capabilities = Capabilities {
            endpoint_url: found.endpoint_url.clone(),
            region: core
                .client
                .config()
                .region()
                .map_or_else(String::new, ToString::to_string),
            path_style: found.path_style,
            conditional: *core.support.read(),
        };
        Ok((Arc::new(S3Store { core }), capabilities))
    }

    async fn by_chain(config: &S3Config) -> Result<Self, ConnectError> {
        let endpoint_in_environment = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]
            .into_iter()
            .filter(|_name| !explain::is_true("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"))
            .find_map(|name| std::env::var(name).ok().filter(|url| !url.is_empty()));
        let endpoint_url = config.endpoint_url.clone().or(endpoint_in_environment);
        if let Some(url) = &endpoint_url {
            explain::check_endpoint(url)?;
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
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .http_client(http.clone())
            .region(region_chain(config, endpoint_url.is_some(), &http));
        if let Some(profile) = &config.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(url) = &endpoint_url {
            loader = loader.endpoint_url(url);
        }
        if config.no_sign_request {
            loader = loader.no_credentials();
        }
        let sdk = loader.load().await;
        let endpoint_url = endpoint_url.or_else(|| sdk.endpoint_url().map(str::to_owned));
        let region = match (sdk.region(), &endpoint_url) {
            (Some(region), _) => region.clone(),
            (None, _) => Region::from_static("us-east-1"),
        };
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
        let http = if plain {
            http_client(config.max_requests)
        } else {
            http
        };
        Ok(Self {
            path_style: config.path_style.is_on(endpoint_url.is_some()),
            sdk,
            region,
            endpoint_url,
            temporary,
            http,
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
            policy: Policy::new(config.checksum, custom),
            support: RwLock::new(ConditionalSupport::presumed(custom)),
            part_copies: PartCopies::default(),
            remembered: Remembered::default(),
            copy_object_max: COPY_OBJECT_MAX,
            copy_part_len: COPY_PART_LEN,
        })
    }

    fn explain(&self, config: &S3Config, failure: Failure) -> ConnectError {
        explain::explain(
            &Asked {
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
async fn check(core: &Core) -> Result<(), Failure> {
    let call = super::request::Call {
        limit: core.config.store_timeout.min(CHECK_MAX),
        attempt_limit: core.config.store_timeout.min(CHECK_MAX),
        ..core.call_any(Kind::List, None)
    };
    let Ended { result, .. } = core
        .run(call, || async {
            let answer = core
                .client
                .list_objects_v2()
                .bucket(&core.config.bucket)
                .prefix(&core.prefix)
                .max_keys(1)
                .set_request_payer(core.payer())
                .send()
                .await;
            match answer.map_err(Failure::from_sdk).and_then(sound) {
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

/// Whether credentials can be had at all, before a request fails for the lack of them. The services that
/// give them out (STS, SSO) speak https: where they were asked, `no_authorities` is why they failed.
async fn check_credentials(
    sdk: &SdkConfig,
    config: &S3Config,
    no_authorities: Option<ConnectError>,
) -> Result<Credentials, ConnectError> {
    let Some(provider) = sdk.credentials_provider() else {
        return Err(no_credentials(config, None));
    };
    match tokio::time::timeout(CREDENTIALS_MAX, provider.provide_credentials()).await {
        Ok(Ok(credentials)) => Ok(credentials),
        Ok(Err(error)) => match no_authorities.filter(|_| explain::wanted_https(&error)) {
            Some(no_authorities) => Err(no_authorities),
            None => Err(no_credentials(config, Some(&error))),
        },
        Err(_elapsed) => Err(no_credentials(config, None)),
    }
}

/// Why the chain gave none. Its last link is the machine's metadata service, whose failure stands for
/// all that was missing before it; so the mistakes that people make are looked for first.
fn no_credentials(config: &S3Config, error: Option<&CredentialsError>) -> ConnectError {
    let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(half) = explain::half_a_key(var) {
        return half;
    }
    let profile = config.profile.clone().or_else(|| var("AWS_PROFILE"));
    if let Some(name) = &profile {
        let files = explain::profile_files(var);
        let texts = files
            .iter()
            .filter_map(|file| std::fs::read_to_string(file).ok());
        if !texts
            .into_iter()
            .any(|text| explain::names_profile(&text, name))
        {
            return explain::no_profile(name, &files);
        }
    }
    explain::no_credentials(profile.as_deref(), error)
}

/// A client for both schemes. Trusts the system's authorities and those in `ca_bundle`.
///
/// # Errors
/// `NoAuthorities` if there are none: the client would panic, or refuse every certificate. `Tls` if the
/// bundle cannot be used.
pub(super) fn https_client(
    max_requests: usize,
    ca_bundle: Option<&Path>,
) -> Result<SharedHttpClient, ConnectError> {
    let system = rustls_native_certs::load_native_certs();
    let mut trust = TrustStore::empty().with_native_roots(!system.certs.is_empty());
    match ca_bundle {
        Some(path) => {
            // The client would panic at a file without certificates.
            let read = rustls_native_certs::load_certs_from_paths(Some(path), None);
            if read.certs.is_empty() || !read.errors.is_empty() {
                return Err(explain::bad_ca_bundle(path, &read.errors));
            }
            let pem =
                std::fs::read(path).map_err(|error| explain::bad_ca_bundle(path, &[error]))?;
            trust.add_pem_certificate(pem);
        }
        None if system.certs.is_empty() => return Err(explain::no_authorities(&system.errors)),
        None => {}
    }
    let context = TlsContext::builder()
        .with_trust_store(trust)
        .build()
        .map_err(explain::bad_tls)?;
    Ok(aws_smithy_http_client::Builder::new()
        .pool_max_idle_per_host(idle_max(max_requests))
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .tls_context(context)
        .build_https())
}

/// How many connections are kept for the next request. Each keeps its read buffer, which after a long
/// answer is 400 KiB: as many as there may be requests would be a fifth of the default of `--memory`.
fn idle_max(max_requests: usize) -> usize {
    (max_requests / 4).max(16).min(max_requests)
}

pub(super) fn http_client(max_requests: usize) -> SharedHttpClient {
    aws_smithy_http_client::Builder::new()
        .pool_max_idle_per_host(idle_max(max_requests))
        .build_http()
}

fn is_plain(url: &str) -> bool {
    url.get(..7)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"))
}

/// Whether `url` is one of AWS's own endpoints (a VPC endpoint, FIPS, dual stack).
fn is_aws(url: &str) -> bool {
    let host = url
        .split_once("://")
        .map_or(url, |(_scheme, rest)| rest)
        .split(['/', ':', '?'])
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    [".amazonaws.com", ".amazonaws.com.cn", ".api.aws"]
        .iter()
        .any(|domain| host.ends_with(domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_awss_own_hosts_are_presumed_to_honour_everything() {
        assert!(is_aws("https://s3.eu-west-1.amazonaws.com"));
        assert!(is_aws(
            "https://bucket.vpce-1.s3.us-east-1.vpce.amazonaws.com:443/x"
        ));
        assert!(!is_aws("https://amazonaws.com.example.org"));
        assert!(!is_aws("http://127.0.0.1:9000"));
    }
}
