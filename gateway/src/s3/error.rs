//! From what the SDK says to what the caller may do about it.
//!
//! A request that failed is judged once, here, in three ways. Its *kind* is what comes out in a
//! [`StoreError`]. Its *retry* says whether the same request may do better: until the time limit
//! (the store is busy or away), a few times only (an answer that made no sense; it will hardly
//! make more sense after a minute), or never. And it is *unsure* when the store may have done what
//! was asked although no good answer came back; a condition that fails after that may have failed
//! because of ourselves (`lost.rs`).
//!
//! S3's codes are in "Error responses" of the S3 API reference; those of MinIO and the others are
//! the ones that are met in practice. A code decides before the status; stores send statuses
//! without a code for HEAD, whose answer has no body, and from the proxies before them.

use std::error::Error as StdError;

use ackfs_cache::store::{StoreError, StoreErrorKind};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::RequestId;
use aws_smithy_runtime_api::http::Response;

/// Whether the same request may do better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// Until the time limit.
    UntilDeadline,
    /// A few times: see `request::FEW_MAX`.
    Few,
    /// It would fail again.
    Never,
}

/// A request that failed, judged.
#[derive(Debug)]
pub(super) struct Failure {
    /// What comes out if this is the last word.
    pub(super) error: StoreError,
    /// Whether to ask again.
    pub(super) retry: Retry,
    /// Whether the store may have done it all the same.
    pub(super) unsure: bool,
    /// The store's code, if it gave one.
    pub(super) code: Option<String>,
    /// The answer's status, if there was one.
    pub(super) status: Option<u16>,
    /// Where the bucket is, as the store says: `x-amz-bucket-region`.
    pub(super) region: Option<String>,
    /// Where the answer redirects to.
    pub(super) location: Option<String>,
    /// The beginning of the answer's body, where it was not S3's XML.
    pub(super) body: Option<String>,
}

/// What MinIO says within an internal error when its drive filled while it wrote.
const NO_SPACE: &str = "no space left on device";

impl Failure {
    /// A failure that no answer of the store stands behind.
    pub(super) fn new(kind: StoreErrorKind, retry: Retry, message: impl Into<String>) -> Self {
        Self {
            error: StoreError::new(kind, message),
            retry,
            unsure: false,
            code: None,
            status: None,
            region: None,
            location: None,
            body: None,
        }
    }

    /// No answer within the time of one attempt.
    pub(super) fn timeout(limit: std::time::Duration) -> Self {
        Self {
            unsure: true,
            ..Self::new(
                StoreErrorKind::Timeout,
                Retry::UntilDeadline,
                format!("no answer within {limit:.1?}"),
            )
        }
    }

    /// What `error` means.
    pub(super) fn from_sdk<E>(error: SdkError<E, Response>) -> Self
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        let mut failure = match &error {
            SdkError::ServiceError(service) => Self::from_answer(service.err(), service.raw()),
            SdkError::ResponseError(response) => Self {
                unsure: true,
                status: Some(response.raw().status().as_u16()),
                ..Self::new(
                    StoreErrorKind::Broken,
                    Retry::Few,
                    format!("the answer made no sense: {}", chain(&error)),
                )
            },
            SdkError::TimeoutError(_) => Self {
                unsure: true,
                ..Self::new(
                    StoreErrorKind::Timeout,
                    Retry::UntilDeadline,
                    format!("no answer in time: {}", chain(&error)),
                )
            },
            SdkError::DispatchFailure(dispatch) => {
                if let Some(failure) = Self::from_credentials(&error) {
                    failure
                } else {
                    let (kind, retry) = if dispatch.is_timeout() {
                        (StoreErrorKind::Timeout, Retry::UntilDeadline)
                    } else if dispatch.is_io() || dispatch.as_other().is_some() {
                        (StoreErrorKind::Broken, Retry::UntilDeadline)
                    } else if dispatch.is_user() {
                        (StoreErrorKind::Rejected, Retry::Never)
                    } else {
                        (StoreErrorKind::Broken, Retry::Few)
                    };
                    Self {
                        unsure: true,
                        ..Self::new(kind, retry, format!("no answer: {}", chain(&error)))
                    }
                }
            }
            // The request could not even be built: a key or a header that HTTP cannot carry, or
            // credentials that could not be had.
            _ => Self::from_credentials(&error).unwrap_or_else(|| {
                Self::new(
                    StoreErrorKind::Rejected,
                    Retry::Never,
                    format!("the request could not be built: {}", chain(&error)),
                )
            }),
        };
        failure.error.source = Some(Box::new(error));
        failure
    }

    fn from_answer<E>(error: &E, raw: &Response) -> Self
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let status = raw.status().as_u16();
        let code = error.code();
        let full = error.message().is_some_and(|it| it.contains(NO_SPACE));
        let (kind, retry) = match code {
            Some("InternalError") if full => (StoreErrorKind::NoSpace, Retry::Never),
            _ => judge(code, status),
        };
        let location = raw.headers().get("location").map(str::to_owned);
        let region = raw.headers().get("x-amz-bucket-region").map(str::to_owned);
        let message = match (code, error.message()) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(code), None) => code.to_owned(),
            (None, _) if status < 300 => format!("the answer made no sense: {}", chain(error)),
            (None, _) if status < 400 => redirect(status, location.as_deref(), region.as_deref()),
            (None, _) => format!("status {status}"),
        };
        let mut failure = Self::new(kind, retry, message);
        failure.unsure = !(300..500).contains(&status);
        failure.error.request_id = raw
            .headers()
            .request_id()
            .or_else(|| raw.headers().get("x-amz-id-2"))
            .map(str::to_owned);
        if code.is_none() {
            failure.body = raw
                .body()
                .bytes()
                .map(|body| String::from_utf8_lossy(&body[..body.len().min(512)]).into_owned());
        }
        failure.code = code.map(str::to_owned);
        failure.status = Some(status);
        failure.region = region;
        failure.location = location;
        failure
    }

    /// The failure to get credentials, if that is what `error` came from.
    fn from_credentials(error: &(dyn StdError + 'static)) -> Option<Self> {
        let credentials = links(error).find_map(|link| link.downcast_ref::<CredentialsError>())?;
        let retry = match credentials {
            CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_) => {
                Retry::UntilDeadline
            }
            _ => Retry::Never,
        };
        Some(Self::new(
            StoreErrorKind::Denied,
            retry,
            format!("no credentials: {}", chain(credentials)),
        ))
    }

    /// Whether this is a refusal that leaving the checksum header away may cure.
    pub(super) fn may_dislike_checksum(&self) -> bool {
        matches!(self.status, Some(400 | 501))
            && matches!(
                self.code.as_deref(),
                None | Some(
                    "NotImplemented"
                        | "InvalidArgument"
                        | "InvalidRequest"
                        | "InvalidHeader"
                        | "InvalidDigest"
                        | "BadRequest"
                        | "UnsupportedHeader"
                        | "XNotImplemented"
                )
            )
    }

    /// Whether the refusal says that a server-side copy of this size needs parts.
    pub(super) fn wants_part_copy(&self) -> bool {
        matches!(self.code.as_deref(), Some("EntityTooLarge"))
            || (self.code.as_deref() == Some("InvalidRequest")
                && self.error.message.contains("copy source is larger"))
    }
}

fn redirect(status: u16, location: Option<&str>, region: Option<&str>) -> String {
    match (location, region) {
        (_, Some(region)) => {
            format!("status {status}: the bucket is in region {region}; give --region {region}")
        }
        (Some(location), None) => format!(
            "status {status}: the endpoint redirects to {location}; give the store's own \
             --endpoint-url"
        ),
        (None, None) => format!("status {status}: the endpoint redirects to nowhere"),
    }
}

/// What an answer with `code` and `status` means.
pub(super) fn judge(code: Option<&str>, status: u16) -> (StoreErrorKind, Retry) {
    use Retry::{Few, Never, UntilDeadline};
    use StoreErrorKind::{
        Broken, Changed, Denied, NoSpace, NotFound, Rejected, Throttled, Timeout, TooLarge,
    };
    match code.unwrap_or_default() {
        "NoSuchKey" | "NoSuchUpload" | "NoSuchVersion" | "NotFound" => (NotFound, Never),
        // Not "not found": a whole bucket that is away must never look like a file that is not
        // there.
        "NoSuchBucket" => (Rejected, Never),
        "PreconditionFailed" => (Changed, Never),
        // Archived: it has to be restored first.
        "InvalidObjectState" => (Rejected, Never),
        // Another write to the key is under way; S3 asks to send the request again.
        "ConditionalRequestConflict" | "OperationAborted" => (Broken, UntilDeadline),
        "AccessDenied"
        | "AccountProblem"
        | "AllAccessDisabled"
        | "AuthorizationHeaderMalformed"
        | "ExpiredToken"
        | "Forbidden"
        | "InvalidAccessKeyId"
        | "InvalidSecurity"
        | "InvalidToken"
        | "InvalidTokenId"
        | "NotSignedUp"
        | "RequestExpired"
        | "RequestTimeTooSkewed"
        | "SignatureDoesNotMatch"
        | "TokenRefreshRequired"
        | "UnauthorizedAccess" => (Denied, Never),
        "SlowDown"
        | "SlowDownRead"
        | "SlowDownWrite"
        | "ServiceUnavailable"
        | "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestLimitExceeded"
        | "RequestThrottled"
        | "TooManyRequests"
        | "TooManyRequestsException"
        | "BandwidthLimitExceeded"
        | "XMinioServerNotInitialized" => (Throttled, UntilDeadline),
        "RequestTimeout" | "RequestTimeoutException" => (Timeout, UntilDeadline),
        "EntityTooLarge" | "KeyTooLongError" | "MaxMessageLengthExceeded" | "MetadataTooLarge" => {
            (TooLarge, Never)
        }
        "InsufficientStorage"
        | "QuotaExceeded"
        | "StorageFull"
        | "XMinioStorageFull"
        | "XMinioAdminBucketQuotaExceeded" => (NoSpace, Never),
        "InternalError" | "InternalFailure" | "InternalServerError" => (Broken, UntilDeadline),
        // The bytes changed on the way.
        "BadDigest"
        | "XAmzContentChecksumMismatch"
        | "XAmzContentSHA256Mismatch"
        | "IncompleteBody" => (Broken, Few),
        "" => match status {
            401 | 403 => (Denied, Never),
            404 => (NotFound, Never),
            408 => (Timeout, UntilDeadline),
            409 => (Broken, Few),
            412 => (Changed, Never),
            413 => (TooLarge, Never),
            429 | 503 => (Throttled, UntilDeadline),
            504 => (Timeout, UntilDeadline),
            507 => (NoSpace, Never),
            300..500 | 501 | 505 => (Rejected, Never),
            // 2xx comes here when the body of the answer could not be read.
            ..300 => (Broken, Few),
            500.. => (Broken, UntilDeadline),
        },
        _ => match status {
            412 => (Changed, Never),
            413 => (TooLarge, Never),
            429 | 503 => (Throttled, UntilDeadline),
            507 => (NoSpace, Never),
            500 | 502 | 504 => (Broken, UntilDeadline),
            // Completion and copy answer 200 first and fail in the body.
            ..300 => (Broken, Few),
            401 | 403 => (Denied, Never),
            _ => (Rejected, Never),
        },
    }
}

/// `error` and what it came from, to the end.
pub(super) fn links<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// What the SDK's and hyper's own wrappers say: which of their layers the error went through, and
/// nothing of the cause that stands below them.
const WRAPPERS: [&str; 5] = [
    "dispatch failure",
    "response error",
    "io error",
    "client error (Connect)",
    "client error (SendRequest)",
];

/// The messages of `error` and of what it came from, each once and without those of mere wrappers.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    for link in links(error) {
        let message = link.to_string();
        let wraps = link.source().is_some() && WRAPPERS.contains(&message.as_str());
        if wraps || text.contains(&message) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&message);
    }
    text
}

impl From<StoreError> for Failure {
    /// An answer that came and made no sense.
    fn from(error: StoreError) -> Self {
        Self {
            error,
            unsure: true,
            ..Self::new(StoreErrorKind::Broken, Retry::Few, String::new())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every code and status that is met, and what may be done about it.
    #[test]
    fn codes_and_statuses_mean_what_the_caller_may_do() {
        use Retry::{Few, Never, UntilDeadline};
        use StoreErrorKind::{
            Broken, Changed, Denied, NoSpace, NotFound, Rejected, Throttled, Timeout, TooLarge,
        };
        for (code, status, kind, retry) in [
            ("NoSuchKey", 404, NotFound, Never),
            ("NoSuchUpload", 404, NotFound, Never),
            ("NoSuchVersion", 404, NotFound, Never),
            ("NotFound", 404, NotFound, Never),
            ("", 404, NotFound, Never),
            ("NoSuchBucket", 404, Rejected, Never),
            ("PreconditionFailed", 412, Changed, Never),
            ("", 412, Changed, Never),
            ("SomethingNew", 412, Changed, Never),
            ("ConditionalRequestConflict", 409, Broken, UntilDeadline),
            ("OperationAborted", 409, Broken, UntilDeadline),
            ("", 409, Broken, Few),
            ("AccessDenied", 403, Denied, Never),
            ("InvalidAccessKeyId", 403, Denied, Never),
            ("SignatureDoesNotMatch", 403, Denied, Never),
            ("ExpiredToken", 400, Denied, Never),
            ("InvalidToken", 400, Denied, Never),
            ("InvalidTokenId", 403, Denied, Never),
            ("RequestTimeTooSkewed", 403, Denied, Never),
            ("AuthorizationHeaderMalformed", 400, Denied, Never),
            ("KMS.DisabledException", 403, Denied, Never),
            ("", 403, Denied, Never),
            ("", 401, Denied, Never),
            ("SlowDown", 503, Throttled, UntilDeadline),
            ("SlowDownWrite", 503, Throttled, UntilDeadline),
            ("TooManyRequests", 429, Throttled, UntilDeadline),
            ("", 429, Throttled, UntilDeadline),
            ("", 503, Throttled, UntilDeadline),
            ("ServiceUnavailable", 503, Throttled, UntilDeadline),
            ("RequestTimeout", 400, Timeout, UntilDeadline),
            ("", 408, Timeout, UntilDeadline),
            ("", 504, Timeout, UntilDeadline),
            ("EntityTooLarge", 400, TooLarge, Never),
            ("KeyTooLongError", 400, TooLarge, Never),
            ("MetadataTooLarge", 400, TooLarge, Never),
            ("", 413, TooLarge, Never),
            ("XMinioStorageFull", 507, NoSpace, Never),
            ("QuotaExceeded", 403, NoSpace, Never),
            ("XMinioAdminBucketQuotaExceeded", 400, NoSpace, Never),
            ("", 507, NoSpace, Never),
            ("InternalError", 500, Broken, UntilDeadline),
            // In the body of a 200, as completion and copy have it.
            ("InternalError", 200, Broken, UntilDeadline),
            ("SlowDown", 200, Throttled, UntilDeadline),
            ("", 500, Broken, UntilDeadline),
            ("", 502, Broken, UntilDeadline),
            ("", 200, Broken, Few),
            ("BadDigest", 400, Broken, Few),
            ("XAmzContentChecksumMismatch", 400, Broken, Few),
            ("IncompleteBody", 400, Broken, Few),
            ("NotImplemented", 501, Rejected, Never),
            ("", 501, Rejected, Never),
            ("InvalidArgument", 400, Rejected, Never),
            ("InvalidPart", 400, Rejected, Never),
            ("EntityTooSmall", 400, Rejected, Never),
            ("InvalidObjectState", 403, Rejected, Never),
            ("XMinioInvalidObjectName", 400, Rejected, Never),
            ("InvalidRange", 416, Rejected, Never),
            ("PermanentRedirect", 301, Rejected, Never),
            ("", 301, Rejected, Never),
            ("", 307, Rejected, Never),
        ] {
            let judged = judge(Some(code).filter(|code| !code.is_empty()), status);
            assert_eq!(judged, (kind, retry), "{code} {status}");
        }
    }

    #[test]
    fn every_status_has_a_meaning_and_only_some_are_sent_again() {
        for status in 100..600 {
            let (kind, retry) = judge(None, status);
            let again = matches!(status, 408 | 409 | 429) || !(300..500).contains(&status);
            let final_5xx = matches!(status, 501 | 505 | 507);
            assert_eq!(
                retry != Retry::Never,
                again && !final_5xx,
                "{status} {kind:?}"
            );
        }
    }

    #[test]
    fn a_chain_says_each_thing_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer: inner")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("inner"));
        assert_eq!(chain(&error), "outer: inner");
    }

    #[test]
    fn a_chain_leaves_wrappers_out_unless_they_are_all_there_is() {
        #[derive(Debug, thiserror::Error)]
        #[error("dispatch failure")]
        struct Wrapper(#[source] std::io::Error);
        let error = Wrapper(std::io::Error::other("no route"));
        assert_eq!(chain(&error), "no route");
        let error = Wrapper(std::io::Error::other("io error"));
        assert_eq!(chain(&error), "io error");
    }
}
