//! From what the SDK says to what the caller may do about it.
//!
//! A request that failed is judged once, here, in three ways. Its *kind* is what comes out in a
//! [`StoreError`]. Its *retry* says whether the same request may do better: until the time limit
//! (the store is busy or away), a few times only (an answer that made no sense; it will hardly
//! make more sense after a minute), or never. And it is *unsure* when the store may have done what
//! was asked although no good answer came back; a condition that fails after that may have failed
//! because of ourselves (`conditional`).
//!
//! What the store's codes mean stands in `codes`.

use std::error::Error as StdError;

use ackfs_cache::store::{StoreError, StoreErrorKind};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::RequestId;
use aws_smithy_runtime_api::client::result::DispatchFailure;
use aws_smithy_runtime_api::http::Response;

pub(super) use super::codes::Retry;
use super::codes::judge;

/// A request that failed, judged.
#[derive(Debug)]
pub(super) struct RequestFailure {
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

impl RequestFailure {
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
            SdkError::DispatchFailure(dispatch) => Self::from_credentials(&error)
                .unwrap_or_else(|| Self::from_dispatch(dispatch, &error)),
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

    /// The request went out, and no answer came back.
    fn from_dispatch(dispatch: &DispatchFailure, error: &(dyn StdError + 'static)) -> Self {
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
            ..Self::new(kind, retry, format!("no answer: {}", chain(error)))
        }
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

    /// Whether the store says that it knows no such upload.
    pub(super) fn is_unknown_upload(&self) -> bool {
        self.code.as_deref() == Some("NoSuchUpload")
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

impl From<StoreError> for RequestFailure {
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
