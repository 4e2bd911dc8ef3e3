//! Why a store cannot be used, in one line, with what mends it.
//!
//! The first request of a mount can fail in a hundred ways, and its user has seen few of them. What
//! is known about the failure (the code, the status, the chain of causes) is turned into a
//! [`ConnectErrorKind`] here. TLS errors come through two layers as text only, so text it is that
//! tells them apart; the tests hold the text of the versions in Cargo.lock.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

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
    /// Whether the credentials are temporary: a session token is among them.
    pub(super) temporary: bool,
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
    // The metadata service is asked last and on every machine: that it does not answer, or refuses,
    // means no more than that there is no role either.
    let why = error
        .filter(|error| !matches!(error, CredentialsError::CredentialsNotLoaded(_)))
        .map(|error| chain(error))
        .filter(|why| !why.contains("IMDS"))
        .map_or_else(String::new, |why| {
            format!(": {}", why.trim_end_matches('.'))
        });
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

/// One half of a key is in the environment and the other is not, so AWS's chain passes it by and asks
/// the machine's role in the end, which explains nothing. `var` looks into the environment.
pub(super) fn half_a_key(var: impl Fn(&str) -> Option<String>) -> Option<ConnectError> {
    let set = |name| var(name).is_some_and(|value| !value.trim().is_empty());
    let secret = set("AWS_SECRET_ACCESS_KEY") || set("SECRET_ACCESS_KEY");
    let (there, missing) = match (set("AWS_ACCESS_KEY_ID"), secret) {
        (true, false) => ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        (false, true) => ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
        _ => return None,
    };
    Some(ConnectError::new(
        ConnectErrorKind::NoCredentials,
        format!("no credentials found: {there} is set and {missing} is missing"),
        format!("set {missing} too (and export it), or unset {there} to use a profile or a role"),
    ))
}

/// Where AWS keeps profiles: credentials and configuration. `var` looks into the environment.
pub(super) fn profile_files(var: impl Fn(&str) -> Option<String>) -> [PathBuf; 2] {
    let home = PathBuf::from(var("HOME").unwrap_or_else(|| "~".to_owned()));
    let file = |variable, otherwise| var(variable).map_or_else(|| home.join(otherwise), Into::into);
    [
        file("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"),
        file("AWS_CONFIG_FILE", ".aws/config"),
    ]
}

/// Whether one of AWS's files with this text has the profile: `[NAME]`, or `[profile NAME]` in the
/// configuration. aws-config says the same of a profile that is missing and of one without keys.
pub(super) fn names_profile(text: &str, name: &str) -> bool {
    text.lines().any(|line| {
        let section = line.trim().strip_prefix('[');
        section
            .and_then(|rest| rest.split_once(']'))
            .is_some_and(|(section, _comment)| {
                let section = section.trim();
                let of_config = section.strip_prefix("profile").map(str::trim);
                section == name || of_config == Some(name)
            })
    })
}

/// There is no such profile in `files`.
pub(super) fn no_profile(name: &str, files: &[PathBuf; 2]) -> ConnectError {
    let [credentials, config] = files;
    ConnectError::new(
        ConnectErrorKind::NoCredentials,
        format!(
            "no profile {name:?} in {} or {}",
            credentials.display(),
            config.display()
        ),
        format!("check --profile and AWS_PROFILE, or add it: aws configure --profile {name}"),
    )
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
        // MinIO knows the access key of a session as long as the session lasts, and AWS that of a user
        // as long as there is one.
        "InvalidAccessKeyId" if asked.temporary => (
            BadCredentials,
            format!("{asked} does not know the access key, or the session has expired"),
            "get new temporary credentials (for SSO: aws sso login), or check AWS_ACCESS_KEY_ID \
             and AWS_SESSION_TOKEN, and that they belong to this endpoint"
                .to_owned(),
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
        "ExpiredToken"
        | "TokenRefreshRequired"
        | "InvalidToken"
        | "InvalidTokenId"
        | "RequestExpired" => (
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
    use ConnectErrorKind::{NeedsTls, NotS3, NotTls, Unreachable};
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
    // Go's server (and MinIO's with it) answers 400 and closes before it has read the request, so the
    // kernel resets the connection and the body may be lost on the way; OpenSSL's closes without a word.
    let unreadable = failure.status == Some(400) && failure.body.is_none();
    let cut = matches!(io, Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe))
        || has("closed before message completed");
    if plain && failure.code.is_none() && (unreadable || failure.status.is_none() && cut) {
        return Some((
            NeedsTls,
            format!("{asked} closes the connection instead of answering: it may speak https"),
            "try --endpoint-url with https:// in place of http://; else check host and port, and \
             the proxy between"
                .to_owned(),
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
    if let Some((message, fix)) = by_certificate(asked, &cause) {
        return Some((ConnectErrorKind::Tls, message, fix));
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
    if io == Some(ErrorKind::ConnectionRefused) || has("Connection refused") {
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
        // The parser's own words are in Rust's debug format.
        let said = match failure.status {
            Some(status) if status < 300 => "its answer is no listing of a bucket",
            _ => &failure.error.message,
        };
        return Some((
            NotS3,
            format!("what answers at {asked} is not S3: {said}"),
            "check the host, port and path of --endpoint-url".to_owned(),
        ));
    }
    None
}

/// What is wrong with the store's certificate, and what mends it. The names are rustls's and webpki's.
fn by_certificate(asked: &Asked<'_>, cause: &str) -> Option<(String, String)> {
    let has = |text: &str| cause.contains(text);
    let (wrong, fix) = if has("not valid for name") || has("NotValidForName") {
        let dotted = asked.bucket.contains('.');
        (
            format!("is for another name{}", names_of(cause)),
            if dotted {
                "use the name that the certificate is for; a bucket with dots in its name needs \
                 --path-style always"
            } else {
                "use the name that the certificate is for, or reissue it for this one \
                 (subjectAltName)"
            },
        )
    } else if has("certificate expired") || has("Expired") {
        let since = time_after(cause, "not valid after ");
        (
            format!("has expired{since}"),
            "renew it, or check this machine's clock (date)",
        )
    } else if has("not valid yet") || has("NotValidYet") {
        let before = time_after(cause, "not valid before ");
        (
            format!("is not valid yet{before}"),
            "check this machine's clock (date)",
        )
    } else if has("CaUsedAsEndEntity") {
        (
            "is an authority's and not a server's (basicConstraints=CA:TRUE)".to_owned(),
            "reissue it with basicConstraints=CA:FALSE (openssl req -x509 -addext \
             basicConstraints=critical,CA:FALSE); AWS_CA_BUNDLE alone does not help",
        )
    } else if has("UnsupportedCertVersion") {
        (
            "is of an old version".to_owned(),
            "reissue it as X.509 version 3, with a subjectAltName",
        )
    } else if has("UnknownIssuer") {
        (
            "is not trusted: nobody knows who issued it".to_owned(),
            "name the authority's PEM file in AWS_CA_BUNDLE, or install it on the system",
        )
    } else if has("certificate") {
        (
            format!("is not trusted: {cause}"),
            "name the authority's PEM file in AWS_CA_BUNDLE, or install it on the system",
        )
    } else if has("TLS handshake") || has("tls handshake") || has("fatal alert") {
        let message = format!("no TLS with {asked}: {cause}");
        return Some((message, "check that it speaks TLS 1.2 or newer".to_owned()));
    } else {
        return None;
    };
    let message = format!("the certificate of {asked} {wrong}");
    Some((message, fix.to_owned()))
}

/// Which names the certificate is for: rustls has `...; certificate is only valid for
/// DnsName("a.example")`.
fn names_of(cause: &str) -> String {
    let Some((_, names)) = cause.split_once("; certificate is ") else {
        return String::new();
    };
    let mut names = names.replace("\")", "");
    for wrapper in ["DnsName(\"", "IpAddress(\"", "IpAddress("] {
        names = names.replace(wrapper, "");
    }
    format!(": it is {}", names.trim_end_matches(')'))
}

/// The time that stands behind `words` as seconds since 1970, as people read it.
fn time_after(cause: &str, words: &str) -> String {
    let seconds = cause.split_once(words).and_then(|(_, rest)| {
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    });
    let time = seconds.and_then(|seconds| {
        std::time::UNIX_EPOCH.checked_add(std::time::Duration::from_secs(seconds))
    });
    time.map_or_else(String::new, |time| {
        format!(": it is {words}{}", humantime::format_rfc3339_seconds(time))
    })
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
        kind => (
            ConnectErrorKind::Store,
            format!(
                "{asked} refused to list the bucket {:?}: {said}",
                asked.bucket
            ),
            match kind {
                StoreErrorKind::Throttled => "it is busy or starting: try again later",
                StoreErrorKind::Broken => {
                    "something is wrong with the store: look at its state and its log, then try again"
                }
                _ => {
                    "check that --endpoint-url, --region and the bucket's name belong together; the \
                     store's log may say more"
                }
            }
            .to_owned(),
        ),
    }
}
