//! Certificates that are for another name, expired, of an authority that nobody trusts, or an authority's
//! own. They are made for these tests and good for nothing else: `elsewhere.pem` is for
//! `elsewhere.example`, signed by the authority beside it; `expired.pem` was for `localhost` in 2020;
//! `self_signed.pem` is what `openssl req -x509` makes for `localhost`.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{connect, connected, location, quick};
use crate::s3::{ConnectError, ConnectErrorKind};

const AUTHORITY: &str = include_str!("authority.pem");
const ELSEWHERE: &str = include_str!("elsewhere.pem");
const EXPIRED: &str = include_str!("expired.pem");
const SELF_SIGNED: &str = include_str!("self_signed.pem");

/// A server that shakes hands with this certificate and key, and says no more; its URL.
async fn server(pem: &str) -> (String, JoinHandle<()>) {
    let chain = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .unwrap();
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        while let Ok((stream, _peer)) = listener.accept().await {
            let _refused_by_the_client = acceptor.accept(stream).await;
        }
    });
    (format!("https://localhost:{port}"), task)
}

/// Why a client that trusts `bundle` too refuses the server at `url`.
async fn connect_to(url: &str, bundle: Option<&str>) -> ConnectError {
    let mut location = location(url, "access", "secret");
    if let Some(pem) = bundle {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), pem).unwrap();
        location.http = connect::https_client(4, Some(file.path())).unwrap();
    }
    let error = connected(&location, &quick(), "").await.unwrap_err();
    assert_eq!(error.kind, ConnectErrorKind::Tls, "{error}");
    let line = error.to_string();
    for noise in [
        "dispatch failure",
        "io error",
        "client error",
        "Error(",
        "{",
    ] {
        assert!(!line.contains(noise), "{noise} is in {line}");
    }
    error
}

#[tokio::test]
async fn a_certificate_of_another_name_is_told_with_the_name() {
    let (url, server) = server(ELSEWHERE).await;
    let error = connect_to(&url, Some(AUTHORITY)).await;
    assert!(error.message.contains("is for another name"), "{error}");
    assert!(
        error.message.ends_with("only valid for elsewhere.example"),
        "{error}"
    );
    server.abort();
}

#[tokio::test]
async fn an_authority_that_nobody_trusts_is_told_with_the_way_to_trust_it() {
    let (url, server) = server(ELSEWHERE).await;
    let error = connect_to(&url, None).await;
    assert!(error.message.contains("not trusted"), "{error}");
    assert!(error.fix.contains("AWS_CA_BUNDLE"), "{error}");
    server.abort();
}

/// AWS_CA_BUNDLE was named as the fix, and it changes nothing.
#[tokio::test]
async fn an_expired_certificate_is_told_with_its_time() {
    let (url, server) = server(EXPIRED).await;
    for bundle in [None, Some(EXPIRED), Some(AUTHORITY)] {
        let error = connect_to(&url, bundle).await;
        assert!(error.message.contains("has expired"), "{error}");
        assert!(error.message.contains("2021-01-01T00:00:00Z"), "{error}");
        assert!(
            error.fix.contains("renew") && error.fix.contains("clock"),
            "{error}"
        );
        assert!(!error.fix.contains("AWS_CA_BUNDLE"), "{error}");
    }
    server.abort();
}

/// What `openssl req -x509` makes is an authority, and is refused as a server's whether it is trusted or
/// not: AWS_CA_BUNDLE was named as the fix, and it changes nothing.
#[tokio::test]
async fn a_server_that_shows_an_authority_s_certificate_is_told_to_reissue_it() {
    let (url, server) = server(SELF_SIGNED).await;
    for bundle in [None, Some(SELF_SIGNED)] {
        let error = connect_to(&url, bundle).await;
        assert!(error.message.contains("an authority's"), "{error}");
        assert!(error.fix.contains("basicConstraints=CA:FALSE"), "{error}");
        assert!(error.fix.contains("does not help"), "{error}");
    }
    server.abort();
}

#[tokio::test]
async fn a_bundle_that_cannot_be_read_is_told() {
    let missing = std::path::Path::new("/no/such/bundle.pem");
    let error = connect::https_client(4, Some(missing)).unwrap_err();
    assert_eq!(error.kind, ConnectErrorKind::Tls);
    assert!(error.to_string().contains("/no/such/bundle.pem"), "{error}");
    let empty = tempfile::NamedTempFile::new().unwrap();
    let error = connect::https_client(4, Some(empty.path())).unwrap_err();
    assert_eq!(error.kind, ConnectErrorKind::Tls);
    assert!(error.message.contains("no certificates in"), "{error}");
}
