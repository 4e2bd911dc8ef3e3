//! What the store's codes and statuses mean.
//!
//! S3's codes are in "Error responses" of the S3 API reference; those of MinIO and the others are
//! the ones that are met in practice. A code decides before the status; stores send statuses
//! without a code for HEAD, whose answer has no body, and from the proxies before them.

use ackfs_cache::store::StoreErrorKind;

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
}
