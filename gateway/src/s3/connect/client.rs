//! HTTP clients: which authorities they trust, how many idle connections they keep.

use std::path::Path;

use aws_sdk_s3::config::SharedHttpClient;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};

use crate::s3::connect_error::{ConnectError, ConnectErrorKind};
use crate::s3::error::chain;

/// A client for both schemes. Trusts the system's authorities and those in `ca_bundle`.
///
/// # Errors
/// `NoAuthorities` if there are none: the client would panic, or refuse every certificate. `Tls` if the
/// bundle cannot be used.
pub(in crate::s3) fn https_client(
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
                return Err(bad_ca_bundle(path, &read.errors));
            }
            let pem = std::fs::read(path).map_err(|error| bad_ca_bundle(path, &[error]))?;
            trust.add_pem_certificate(pem);
        }
        None if system.certs.is_empty() => return Err(no_authorities(&system.errors)),
        None => {}
    }
    let context = TlsContext::builder()
        .with_trust_store(trust)
        .build()
        .map_err(bad_tls)?;
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

pub(in crate::s3) fn http_client(max_requests: usize) -> SharedHttpClient {
    aws_smithy_http_client::Builder::new()
        .pool_max_idle_per_host(idle_max(max_requests))
        .build_http()
}

/// https is needed, and no authority is trusted that could vouch for it. `errors` are those of looking
/// for the system's certificates.
fn no_authorities(errors: &[rustls_native_certs::Error]) -> ConnectError {
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
fn bad_ca_bundle(path: &Path, errors: &[impl std::error::Error + 'static]) -> ConnectError {
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
fn bad_tls(error: impl std::error::Error + Send + Sync + 'static) -> ConnectError {
    ConnectError {
        source: Some(Box::new(error)),
        ..ConnectError::new(
            ConnectErrorKind::Tls,
            "TLS cannot be set up",
            "check the certificates in AWS_CA_BUNDLE and of the system (package ca-certificates)",
        )
    }
}
