//! Why a store cannot be used, in one line, with what mends it.
//!
//! The first request of a mount can fail in a hundred ways, and its user has seen few of them. What
//! is known about the failure (the code, the status, the chain of causes) is turned into a
//! [`ConnectErrorKind`] here. TLS errors come through two layers as text only, so text it is that
//! tells them apart; the tests hold the text of the versions in Cargo.lock.

use std::fmt;
use std::path::Path;

use ackfs_cache::store::StoreErrorKind;
use aws_credential_types::provider::error::CredentialsError;

use super::error::{Failure, chain, links};

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectErrorKind {
    /// The endpoint's URL is none.
    BadEndpoint,
    /// No way of the chain gave credentials.
    NoCredentials,
    /// The access key is unknown or its secret is wrong.
    BadCredentials,
    /// The session token has expired.
    ExpiredToken,
    /// The credentials are good and not allowed to list the bucket.
    Denied,
    /// There is no such bucket.
    NoSuchBucket,
    /// The bucket is in another region, and following it there failed.
    WrongRegion,
    /// This machine's clock and the store's are too far apart.
    ClockSkew,
    /// No connection: refused, no such host, no route.
    Unreachable,
    /// The endpoint does not answer.
    Timeout,
    /// This machine trusts no authority, so no certificate can be checked.
    NoAuthorities,
    /// The certificate is for another name, expired, or of an authority that is not trusted.
    Tls,
    /// The URL says https and the endpoint speaks http.
    NotTls,
    /// The URL says http and the endpoint speaks https.
    NeedsTls,
    /// Something answers that is not S3.
    NotS3,
    /// The store understood and refused, or is busy or broken.
    Store,
}

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{message}; {fix}")]
pub struct ConnectError {
    /// What is wrong.
    pub kind: ConnectErrorKind,
    /// What is wrong, in words.
    pub message: String,
    /// What mends it.
    pub fix: String,
    /// What it came from.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ConnectError {
    fn new(kind: ConnectErrorKind, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            fix: fix.into(),
            source: None,
        }
    }
}

/// What was asked of whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) bucket: &'a str,
    pub(super) endpoint_url: Option<&'a str>,
    pub(super) region: &'a str,
    pub(super) signed: bool,
}

impl fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.endpoint_url {
            Some(url) => f.write_str(url),
            None => write!(f, "AWS S3 in region {}", self.region),
        }
    }
}

/// Refuses a URL that cannot be an endpoint's.
pub(super) fn check_endpoint(url: &str) -> Result<(), ConnectError> {
    let wrong = |why: &str| {
        Err(ConnectError::new(
            ConnectErrorKind::BadEndpoint,
            format!("the endpoint {url:?} {why}"),
            "give --endpoint-url as http://HOST:PORT or https://HOST",
        ))
    };
    let Some((scheme, rest)) = url.split_once("://") else {
        return wrong("has no http:// or https://");
    };
    if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
        return wrong("is neither http nor https");
    }
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() || host.starts_with(':') || host.contains(char::is_whitespace) {
        return wrong("has no host");
    }
    if host.contains('@') {
        return wrong("holds a user name; credentials do not go there");
    }
    Ok(())
}

/// Whether the environment says yes to `name`.
pub(super) fn is_true(name: &str) -> bool {
    std::env::var(name).is_ok_and(|value| value.eq_ignore_ascii_case("true"))
}

/// The region that the store names in its refusal, if that is news.
pub(super) fn other_region(failure: &Failure, asked: &str) -> Option<String> {
    let about_region = matches!(
        failure.code.as_deref(),
        Some(
            "PermanentRedirect"
                | "AuthorizationHeaderMalformed"
                | "IllegalLocationConstraintException"
        )
    ) || matches!(failure.status, Some(301 | 307));
    if !about_region {
        return None;
    }
    // MinIO and others name it in the message only: "... expecting 'eu-central-1'".
    let in_message = || {
        let (_before, after) = failure.error.message.rsplit_once("expecting '")?;
        let (region, _rest) = after.split_once('\'')?;
        Some(region.to_owned())
    };
    failure
        .region
        .clone()
        .or_else(in_message)
        .filter(|region| !region.is_empty() && region != asked)
}

/// No way of the chain gave credentials.
pub(super) fn no_credentials(
    profile: Option<&str>,
    error: Option<&CredentialsError>,
) -> ConnectError {
    let why = match error {
        None | Some(CredentialsError::CredentialsNotLoaded(_)) => String::new(),
        Some(error) => format!(": {}", chain(error).trim_end_matches('.')),
    };
    let of = profile.map_or_else(String::new, |profile| format!(" for profile {profile:?}"));
    ConnectError::new(
        ConnectErrorKind::NoCredentials,
        format!("no credentials found{of}{why}"),
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give --profile with a profile of \
         ~/.aws/credentials, or run with a role; for a public bucket give --no-sign-request",
    )
}

/// Whether getting credentials failed because a client that speaks http only was given an https URL.
pub(super) fn wanted_https(error: &CredentialsError) -> bool {
    // hyper's `HttpConnector`, see the module.
    chain(error).contains("scheme is not http")
}

/// https is needed, and no authority is trusted that could vouch for it. `errors` are those of looking
/// for the system's certificates.
pub(super) fn no_authorities(errors: &[rustls_native_certs::Error]) -> ConnectError {
    let why = errors
        .first()
        .map_or_else(String::new, |error| format!(": {}", chain(error)));
    ConnectError::new(
        ConnectErrorKind::NoAuthorities,
        format!("https cannot be used: this machine has no certificates of authorities{why}"),
        "install the package ca-certificates, or name a PEM file of them in SSL_CERT_FILE",
    )
}

/// The file of certificates cannot be read, or holds none.
pub(super) fn bad_ca_bundle(
    path: &Path,
    errors: &[impl std::error::Error + 'static],
) -> ConnectError {
    let path = path.display();
    ConnectError::new(
        ConnectErrorKind::Tls,
        match errors.first() {
            Some(error) => format!(
                "the certificates in {path} cannot be read: {}",
                chain(error)
            ),
            None => format!("there are no certificates in {path}"),
        },
        "name a readable PEM file in AWS_CA_BUNDLE, or unset it",
    )
}

/// TLS cannot be set up at all.
pub(super) fn bad_tls(error: impl std::error::Error + Send + Sync + 'static) -> ConnectError {
    ConnectError {
        source: Some(Box::new(error)),
        ..ConnectError::new(
            ConnectErrorKind::Tls,
            "TLS cannot be set up",
            "check the certificates in AWS_CA_BUNDLE and of the system (package ca-certificates)",
        )
    }
}

/// What a failed first request means.
pub(super) fn explain(asked: &Asked<'_>, failure: Failure) -> ConnectError {
    let (kind, message, fix) = by_code(asked, &failure)
        .or_else(|| by_cause(asked, &failure))
        .unwrap_or_else(|| by_kind(asked, &failure));
    ConnectError {
        kind,
        message,
        fix,
        source: Some(Box::new(failure.error)),
    }
}

type Explained = (ConnectErrorKind, String, String);

/// What the store itself says is wrong.
fn by_code(asked: &Asked<'_>, failure: &Failure) -> Option<Explained> {
    use ConnectErrorKind::{
        BadCredentials, ClockSkew, Denied, ExpiredToken, NoSuchBucket, WrongRegion,
    };
    let bucket = asked.bucket;
    let said = &failure.error.message;
    let (kind, message, fix) = match failure.code.as_deref()? {
        "NoSuchBucket" | "InvalidBucketName" => (
            NoSuchBucket,
            format!("there is no bucket {bucket:?} at {asked}"),
            "check its name and the endpoint, or make it first".to_owned(),
        ),
        "InvalidAccessKeyId" => (
            BadCredentials,
            format!("{asked} does not know the access key"),
            "check AWS_ACCESS_KEY_ID or the profile, and that they belong to this endpoint"
                .to_owned(),
        ),
        "SignatureDoesNotMatch" => (
            BadCredentials,
            format!("{asked} refuses the signature: the secret key is wrong"),
            "check AWS_SECRET_ACCESS_KEY or the profile".to_owned(),
        ),
        "ExpiredToken" | "TokenRefreshRequired" | "InvalidToken" | "RequestExpired" => (
            ExpiredToken,
            format!("the session token is expired or not valid at {asked}"),
            "get new temporary credentials (for SSO: aws sso login)".to_owned(),
        ),
        "RequestTimeTooSkewed" => (
            ClockSkew,
            format!("this machine's clock and that of {asked} are too far apart"),
            "set the clock, for example by chronyc makestep".to_owned(),
        ),
        "PermanentRedirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException" => {
            let fix = match &failure.region {
                Some(region) => format!("give --region {region}"),
                None => "give the bucket's own --region".to_owned(),
            };
            (
                WrongRegion,
                format!(
                    "the bucket {bucket:?} is not in region {}: {said}",
                    asked.region
                ),
                fix,
            )
        }
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "Forbidden" => {
            let fix = if asked.signed {
                format!(
                    "allow s3:ListBucket on {bucket}, s3:GetObject and s3:PutObject on {bucket}/*"
                )
            } else {
                "the bucket is not public: leave --no-sign-request away".to_owned()
            };
            (
                Denied,
                format!("the credentials may not list the bucket {bucket:?}: {said}"),
                fix,
            )
        }
        _ => return None,
    };
    Some((kind, message, fix))
}

/// What broke on the way.
fn by_cause(asked: &Asked<'_>, failure: &Failure) -> Option<Explained> {
    use ConnectErrorKind::{NeedsTls, NotS3, NotTls, Tls, Unreachable};
    let cause = failure
        .error
        .source
        .as_deref()
        .map(|source| chain(source))
        .unwrap_or_default();
    let has = |text: &str| cause.contains(text);
    let plain = asked
        .endpoint_url
        .is_some_and(|url| url.to_ascii_lowercase().starts_with("http://"));
    let io = failure.error.source.as_deref().and_then(|source| {
        links(source).find_map(|link| {
            link.downcast_ref::<std::io::Error>()
                .map(std::io::Error::kind)
        })
    });

    let speaks_tls = failure
        .body
        .as_deref()
        .is_some_and(|body| body.contains("HTTPS") || body.contains("https"));
    if plain && failure.status == Some(400) && speaks_tls {
        return Some((
            NeedsTls,
            format!("{asked} speaks https"),
            "give --endpoint-url with https:// in place of http://".to_owned(),
        ));
    }
    // What a TLS alert looks like to an HTTP client, and any other tongue.
    if plain && has("invalid HTTP") {
        return Some((
            NotS3,
            format!("{asked} does not speak http"),
            "give --endpoint-url with https:// if it speaks TLS; else check host and port"
                .to_owned(),
        ));
    }
    if has("corrupt message") || has("InvalidContentType") {
        return Some((
            NotTls,
            format!("{asked} does not speak https"),
            "give --endpoint-url with http:// if this is what you want".to_owned(),
        ));
    }
    if has("NotValidForName") || has("not valid for name") {
        return Some((
            Tls,
            format!("the certificate of {asked} is for another name: {cause}"),
            "use the name that the certificate is for".to_owned(),
        ));
    }
    if has("UnknownIssuer") || has("certificate") || has("TLS handshake") || has("tls handshake") {
        return Some((
            Tls,
            format!("the certificate of {asked} is not trusted: {cause}"),
            "name the authority's PEM file in AWS_CA_BUNDLE, or install it on the system"
                .to_owned(),
        ));
    }
    if has("dns error") || has("failed to lookup address") {
        return Some((
            Unreachable,
            format!("the host of {asked} is not known: {cause}"),
            "check the spelling, the name server, and --path-style always if the bucket's name \
             became part of the host"
                .to_owned(),
        ));
    }
    if io == Some(std::io::ErrorKind::ConnectionRefused) || has("Connection refused") {
        return Some((
            Unreachable,
            format!("nothing listens at {asked}: connection refused"),
            "start the store, or check the host and port of --endpoint-url".to_owned(),
        ));
    }
    if let Some(location) = &failure.location {
        return Some((
            NotS3,
            format!("{asked} redirects to {location}"),
            "give the store's own --endpoint-url; redirects are not followed".to_owned(),
        ));
    }
    let no_code = failure.code.is_none()
        && failure
            .status
            .is_some_and(|status| status < 400 || status == 404 || status == 405);
    if no_code {
        return Some((
            NotS3,
            format!(
                "what answers at {asked} is not S3: {}",
                failure.error.message
            ),
            "check the host, port and path of --endpoint-url".to_owned(),
        ));
    }
    None
}

/// What is left.
fn by_kind(asked: &Asked<'_>, failure: &Failure) -> Explained {
    let said = &failure.error.message;
    match failure.error.kind {
        StoreErrorKind::Timeout => (
            ConnectErrorKind::Timeout,
            format!("{asked} does not answer: {said}"),
            "check the host, the firewall and the proxy between".to_owned(),
        ),
        StoreErrorKind::Denied if failure.status.is_none() => (
            ConnectErrorKind::NoCredentials,
            said.clone(),
            "check the credentials' source, or give --no-sign-request for a public bucket"
                .to_owned(),
        ),
        StoreErrorKind::Denied => (
            ConnectErrorKind::Denied,
            format!(
                "{asked} denies access to the bucket {:?}: {said}",
                asked.bucket
            ),
            "check the credentials and their policy".to_owned(),
        ),
        StoreErrorKind::Broken if failure.status.is_none() => (
            ConnectErrorKind::Unreachable,
            format!("no connection to {asked}: {said}"),
            "check the host, the port and the network between".to_owned(),
        ),
        _ => (
            ConnectErrorKind::Store,
            format!(
                "{asked} refused to list the bucket {:?}: {said}",
                asked.bucket
            ),
            "see the store's own message".to_owned(),
        ),
    }
}
