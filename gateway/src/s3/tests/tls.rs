//! Certificates that are for another name, or of an authority that nobody trusts. The server's
//! certificate is for `elsewhere.example`, signed by the authority beside it; both are made for
//! these tests and good for nothing else.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{connect, found, quick};
use crate::s3::{ConnectError, ConnectErrorKind};

const AUTHORITY: &str = include_str!("authority.pem");
const ELSEWHERE: &str = include_str!("elsewhere.pem");

/// A server that shakes hands and says no more; its URL.
async fn server() -> (String, JoinHandle<()>) {
    let chain = CertificateDer::pem_slice_iter(ELSEWHERE.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .unwrap();
    let key = PrivateKeyDer::from_pem_slice(ELSEWHERE.as_bytes()).unwrap();
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

async fn connect_to(url: &str, trusted: bool) -> ConnectError {
    let directory = tempfile::tempdir().unwrap();
    let bundle = directory.path().join("authority.pem");
    std::fs::write(&bundle, AUTHORITY).unwrap();
    let mut found = found(url, "access", "secret");
    if trusted {
        found.http = connect::https_client(4, Some(&bundle)).unwrap();
    }
    found.connect(quick(), String::new()).await.unwrap_err()
}

#[tokio::test]
async fn a_certificate_of_another_name_is_told_with_the_name() {
    let (url, server) = server().await;
    let error = connect_to(&url, true).await;
    assert_eq!(error.kind, ConnectErrorKind::Tls, "{error}");
    assert!(error.message.contains("is for another name"), "{error}");
    assert!(error.message.contains("elsewhere.example"), "{error}");
    server.abort();
}

#[tokio::test]
async fn an_authority_that_nobody_trusts_is_told_with_the_way_to_trust_it() {
    let (url, server) = server().await;
    let error = connect_to(&url, false).await;
    assert_eq!(error.kind, ConnectErrorKind::Tls, "{error}");
    assert!(error.message.contains("not trusted"), "{error}");
    assert!(error.fix.contains("AWS_CA_BUNDLE"), "{error}");
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
