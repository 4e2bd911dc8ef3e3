//! Why a store cannot be used, in one line, with what mends it.
//!
//! The first request of a mount can fail in a hundred ways, and its user has seen few of them. What
//! is known about the failure (the code, the status, the chain of causes) is turned into a
//! [`ConnectErrorKind`] here. TLS errors come through two layers as text only, so text it is that
//! tells them apart; the tests hold the text of the versions in Cargo.lock.

use std::io::ErrorKind;

use ackfs_cache::store::StoreErrorKind;

use super::connect_error::{ConnectError, ConnectErrorKind, ConnectTarget};
use super::endpoint::{BadEndpoint, is_plain};
use super::error::{RequestFailure, chain, links};

mod certificate;

use certificate::by_certificate;

/// The URL cannot be an endpoint's.
pub(super) fn bad_endpoint(url: &str, why: BadEndpoint) -> ConnectError {
    let why = match why {
        BadEndpoint::NoScheme => "has no http:// or https://",
        BadEndpoint::OtherScheme => "is neither http nor https",
        BadEndpoint::NoHost => "has no host",
        BadEndpoint::UserName => "holds a user name; credentials do not go there",
    };
    ConnectError::new(
        ConnectErrorKind::BadEndpoint,
        format!("the endpoint {url:?} {why}"),
        "give --endpoint-url as http://HOST:PORT or https://HOST",
    )
}

/// The region that the store names in its refusal, if that is news.
pub(super) fn other_region(failure: &RequestFailure, signed_for: &str) -> Option<String> {
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
        .filter(|region| !region.is_empty() && region != signed_for)
}

/// What a failed first request means.
pub(super) fn explain(target: &ConnectTarget<'_>, failure: RequestFailure) -> ConnectError {
    let (kind, message, fix) = by_code(target, &failure)
        .or_else(|| by_cause(target, &failure))
        .unwrap_or_else(|| by_kind(target, &failure));
    ConnectError {
        kind,
        message,
        fix,
        source: Some(Box::new(failure.error)),
    }
}

type Explained = (ConnectErrorKind, String, String);

/// What the store itself says is wrong.
fn by_code(target: &ConnectTarget<'_>, failure: &RequestFailure) -> Option<Explained> {
    use ConnectErrorKind::{
        BadCredentials, ClockSkew, Denied, ExpiredToken, NoSuchBucket, WrongRegion,
    };
    let bucket = target.bucket;
    let said = &failure.error.message;
    let (kind, message, fix) = match failure.code.as_deref()? {
        "NoSuchBucket" | "InvalidBucketName" => (
            NoSuchBucket,
            format!("there is no bucket {bucket:?} at {target}"),
            "check its name and the endpoint, or make it first".to_owned(),
        ),
        // MinIO knows the access key of a session as long as the session lasts, and AWS that of a user
        // as long as there is one.
        "InvalidAccessKeyId" if target.temporary => (
            BadCredentials,
            format!("{target} does not know the access key, or the session has expired"),
            "get new temporary credentials (for SSO: aws sso login), or check AWS_ACCESS_KEY_ID \
             and AWS_SESSION_TOKEN, and that they belong to this endpoint"
                .to_owned(),
        ),
        "InvalidAccessKeyId" => (
            BadCredentials,
            format!("{target} does not know the access key"),
            "check AWS_ACCESS_KEY_ID or the profile, and that they belong to this endpoint"
                .to_owned(),
        ),
        "SignatureDoesNotMatch" => (
            BadCredentials,
            format!("{target} refuses the signature: the secret key is wrong"),
            "check AWS_SECRET_ACCESS_KEY or the profile".to_owned(),
        ),
        "ExpiredToken"
        | "TokenRefreshRequired"
        | "InvalidToken"
        | "InvalidTokenId"
        | "RequestExpired" => (
            ExpiredToken,
            format!("the session token is expired or not valid at {target}"),
            "get new temporary credentials (for SSO: aws sso login)".to_owned(),
        ),
        "RequestTimeTooSkewed" => (
            ClockSkew,
            format!("this machine's clock and that of {target} are too far apart"),
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
                    target.region
                ),
                fix,
            )
        }
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "Forbidden" => {
            let fix = if target.signed {
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
fn by_cause(target: &ConnectTarget<'_>, failure: &RequestFailure) -> Option<Explained> {
    let source = failure.error.source.as_deref();
    let cause = source.map(|source| chain(source)).unwrap_or_default();
    let io = source.and_then(|source| {
        links(source).find_map(|link| {
            link.downcast_ref::<std::io::Error>()
                .map(std::io::Error::kind)
        })
    });
    by_scheme(target, failure, &cause, io)
        .or_else(|| {
            let (message, fix) = by_certificate(target, &cause)?;
            Some((ConnectErrorKind::Tls, message, fix))
        })
        .or_else(|| by_network(target, &cause, io))
        .or_else(|| by_stranger(target, failure))
}

/// The URL says http where https is spoken, or the other way round.
fn by_scheme(
    target: &ConnectTarget<'_>,
    failure: &RequestFailure,
    cause: &str,
    io: Option<ErrorKind>,
) -> Option<Explained> {
    use ConnectErrorKind::{NeedsTls, NotS3, NotTls};
    let has = |text: &str| cause.contains(text);
    let plain = target.endpoint_url.is_some_and(is_plain);

    let speaks_tls = failure
        .body
        .as_deref()
        .is_some_and(|body| body.contains("HTTPS") || body.contains("https"));
    if plain && failure.status == Some(400) && speaks_tls {
        return Some((
            NeedsTls,
            format!("{target} speaks https"),
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
            format!("{target} closes the connection instead of answering: it may speak https"),
            "try --endpoint-url with https:// in place of http://; else check host and port, and \
             the proxy between"
                .to_owned(),
        ));
    }
    // What a TLS alert looks like to an HTTP client, and any other tongue.
    if plain && has("invalid HTTP") {
        return Some((
            NotS3,
            format!("{target} does not speak http"),
            "give --endpoint-url with https:// if it speaks TLS; else check host and port"
                .to_owned(),
        ));
    }
    if has("corrupt message") || has("InvalidContentType") {
        return Some((
            NotTls,
            format!("{target} does not speak https"),
            "give --endpoint-url with http:// if this is what you want".to_owned(),
        ));
    }
    None
}

/// The endpoint cannot be reached.
fn by_network(target: &ConnectTarget<'_>, cause: &str, io: Option<ErrorKind>) -> Option<Explained> {
    use ConnectErrorKind::Unreachable;
    let has = |text: &str| cause.contains(text);
    if has("dns error") || has("failed to lookup address") {
        return Some((
            Unreachable,
            format!("the host of {target} is not known: {cause}"),
            "check the spelling, the name server, and --path-style always if the bucket's name \
             became part of the host"
                .to_owned(),
        ));
    }
    if io == Some(ErrorKind::ConnectionRefused) || has("Connection refused") {
        return Some((
            Unreachable,
            format!("nothing listens at {target}: connection refused"),
            "start the store, or check the host and port of --endpoint-url".to_owned(),
        ));
    }
    None
}

/// Something answers that is not S3.
fn by_stranger(target: &ConnectTarget<'_>, failure: &RequestFailure) -> Option<Explained> {
    use ConnectErrorKind::NotS3;
    if let Some(location) = &failure.location {
        return Some((
            NotS3,
            format!("{target} redirects to {location}"),
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
            format!("what answers at {target} is not S3: {said}"),
            "check the host, port and path of --endpoint-url".to_owned(),
        ));
    }
    None
}

/// What is left.
fn by_kind(target: &ConnectTarget<'_>, failure: &RequestFailure) -> Explained {
    let said = &failure.error.message;
    match failure.error.kind {
        StoreErrorKind::Timeout => (
            ConnectErrorKind::Timeout,
            format!("{target} does not answer: {said}"),
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
                "{target} denies access to the bucket {:?}: {said}",
                target.bucket
            ),
            "check the credentials and their policy".to_owned(),
        ),
        StoreErrorKind::Broken if failure.status.is_none() => (
            ConnectErrorKind::Unreachable,
            format!("no connection to {target}: {said}"),
            "check the host, the port and the network between".to_owned(),
        ),
        kind => (
            ConnectErrorKind::Store,
            format!(
                "{target} refused to list the bucket {:?}: {said}",
                target.bucket
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
