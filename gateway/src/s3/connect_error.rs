//! Why a store cannot be used: one line with what is wrong, and what mends it.

use std::fmt;

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
    pub(super) fn new(
        kind: ConnectErrorKind,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            message: message.into(),
            fix: fix.into(),
            source: None,
        }
    }
}

/// What a connection is made to, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectTarget<'a> {
    pub(super) bucket: &'a str,
    pub(super) endpoint_url: Option<&'a str>,
    pub(super) region: &'a str,
    pub(super) signed: bool,
    /// Whether the credentials are temporary: a session token is among them.
    pub(super) temporary: bool,
}

impl fmt::Display for ConnectTarget<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.endpoint_url {
            Some(url) => f.write_str(url),
            None => write!(f, "AWS S3 in region {}", self.region),
        }
    }
}
