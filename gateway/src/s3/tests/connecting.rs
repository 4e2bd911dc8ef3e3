//! Why a mount cannot reach its store: each reason in one line with its fix.

use std::sync::Arc;
use std::time::Duration;

use aws_config::Region;
use aws_sdk_s3::presigning::PresigningConfig;
use tokio::net::TcpListener;

use super::server::{ScriptedAnswer, ScriptedServer};
use super::{connected, location, quick};
use crate::s3::connect::StoreLocation;
use crate::s3::{
    Capabilities, ConnectError, ConnectErrorKind, Honoured, PathStyle, S3Config, S3Store,
};

const EMPTY: &str = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";

async fn connect(
    endpoint_url: &str,
    config: S3Config,
) -> Result<(Arc<S3Store>, Capabilities), ConnectError> {
    connected(
        &location(endpoint_url, "access", "secret"),
        &config,
        "prefix/",
    )
    .await
}

async fn fails(endpoint_url: &str, kind: ConnectErrorKind, words: &str) {
    let error = connect(endpoint_url, quick()).await.unwrap_err();
    assert_eq!(error.kind, kind, "{error} {:?}", error.source);
    let line = error.to_string();
    assert!(line.contains(words), "{line}");
    assert!(!line.contains('\n') && !line.ends_with('.'), "{line}");
    assert!(!error.fix.is_empty(), "{line}");
    for noise in ["dispatch failure", "io error", "client error", "{"] {
        assert!(!line.contains(noise), "{noise} is in {line}");
    }
}

#[tokio::test]
async fn a_store_that_answers_well_is_connected_and_probed() {
    let server = ScriptedServer::start(|_at, asked| match asked.method.as_str() {
        "GET" => ScriptedAnswer::new(200).body(EMPTY),
        _ => failed(),
    })
    .await;
    let (_store, capabilities) = connect(&server.url, quick()).await.unwrap();
    assert_eq!(capabilities.conditional.writes(), Honoured::Yes);
    assert_eq!(capabilities.region, "us-east-1");
    assert!(capabilities.path_style);
    let target = server.lines().remove(0);
    assert!(
        target.contains("/bucket/?") || target.contains("/bucket?"),
        "{target}"
    );
    assert!(
        target.contains("max-keys=1&") && target.contains("prefix=prefix%2F"),
        "{target}"
    );
    let config = S3Config {
        read_only: true,
        ..quick()
    };
    let (_store, capabilities) = connect(&server.url, config).await.unwrap();
    assert_eq!(capabilities.conditional.writes(), Honoured::Unknown);
    assert_eq!(server.methods(), ["GET", "PUT", "GET"]);
}

/// Where a request goes, without sending it.
async fn target(path_style: PathStyle, endpoint_url: Option<&str>) -> String {
    let location = StoreLocation {
        path_style: path_style.is_on(endpoint_url.is_some()),
        endpoint_url: endpoint_url.map(str::to_owned),
        ..location("http://unused", "access", "secret")
    };
    let core = location.core(&quick(), String::new(), Region::from_static("us-east-1"));
    let request = core.client.get_object().bucket("bucket").key("dir/key");
    let minute = PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
    let request = request.presigned(minute).await.unwrap();
    let (target, _query) = request.uri().split_once('?').unwrap();
    target.to_owned()
}

#[tokio::test]
async fn the_bucket_is_in_the_path_or_in_the_hosts_name() {
    let own = Some("http://store.example:9000");
    for path_style in [PathStyle::Auto, PathStyle::Always] {
        let wanted = "http://store.example:9000/bucket/dir/key";
        assert_eq!(target(path_style, own).await, wanted);
    }
    let wanted = "http://bucket.store.example:9000/dir/key";
    assert_eq!(target(PathStyle::Never, own).await, wanted);
    for path_style in [PathStyle::Auto, PathStyle::Never] {
        let wanted = "https://bucket.s3.us-east-1.amazonaws.com/dir/key";
        assert_eq!(target(path_style, None).await, wanted);
    }
    let wanted = "https://s3.us-east-1.amazonaws.com/bucket/dir/key";
    assert_eq!(target(PathStyle::Always, None).await, wanted);
}

fn failed() -> ScriptedAnswer {
    ScriptedAnswer::error(412, "PreconditionFailed")
}

#[tokio::test]
async fn each_refusal_is_explained() {
    use ConnectErrorKind::{
        BadCredentials, ClockSkew, Denied, ExpiredToken, NoSuchBucket, Store, WrongRegion,
    };
    for (status, code, kind, words) in [
        (
            404,
            "NoSuchBucket",
            NoSuchBucket,
            "there is no bucket \"bucket\" at http://",
        ),
        (400, "InvalidBucketName", NoSuchBucket, "there is no bucket"),
        (
            403,
            "InvalidAccessKeyId",
            BadCredentials,
            "does not know the access key",
        ),
        (
            403,
            "SignatureDoesNotMatch",
            BadCredentials,
            "the secret key is wrong",
        ),
        (400, "ExpiredToken", ExpiredToken, "expired"),
        (
            400,
            "InvalidToken",
            ExpiredToken,
            "get new temporary credentials",
        ),
        (
            403,
            "InvalidTokenId",
            ExpiredToken,
            "get new temporary credentials",
        ),
        (403, "RequestTimeTooSkewed", ClockSkew, "clock"),
        (403, "AccessDenied", Denied, "s3:ListBucket on bucket"),
        (400, "AuthorizationHeaderMalformed", WrongRegion, "--region"),
        (400, "InvalidArgument", Store, "because InvalidArgument"),
        (400, "InvalidArgument", Store, "check that --endpoint-url"),
    ] {
        let server = ScriptedServer::scripted(vec![ScriptedAnswer::error(status, code)]).await;
        fails(&server.url, kind, words).await;
        assert_eq!(
            server.requests().len(),
            1,
            "{code} is not worth a second try"
        );
    }
}

#[tokio::test]
async fn a_bucket_in_another_region_is_followed_once() {
    let server = ScriptedServer::start(|_at, asked| {
        let signed_for = asked.header("authorization").unwrap();
        if signed_for.contains("/eu-central-1/s3/") {
            ScriptedAnswer::new(200).body(EMPTY)
        } else {
            ScriptedAnswer::error(301, "PermanentRedirect")
                .header("x-amz-bucket-region", "eu-central-1")
        }
    })
    .await;
    let config = S3Config {
        read_only: true,
        ..quick()
    };
    let (_store, capabilities) = connect(&server.url, config).await.unwrap();
    assert_eq!(capabilities.region, "eu-central-1");

    let server = ScriptedServer::start(|at, _asked| {
        ScriptedAnswer::error(301, "PermanentRedirect")
            .header("x-amz-bucket-region", format!("r-{at}"))
    })
    .await;
    fails(
        &server.url,
        ConnectErrorKind::WrongRegion,
        "give --region r-1",
    )
    .await;
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn redirects_and_web_pages_are_not_s3() {
    let url = ScriptedServer::scripted(vec![
        ScriptedAnswer::new(302).header("Location", "http://example.org/login"),
    ])
    .await;
    fails(
        &url.url,
        ConnectErrorKind::NotS3,
        "redirects to http://example.org/login",
    )
    .await;
    for answer in [
        ScriptedAnswer::new(200).body("<html><body>Welcome</body></html>"),
        ScriptedAnswer::new(200).body("{\"not\": \"xml\"}"),
        ScriptedAnswer::new(200).body("<ListBucketResult><Cont"),
        ScriptedAnswer::new(404).body("<html>404 page not location</html>"),
    ] {
        let server = ScriptedServer::scripted(vec![answer]).await;
        fails(&server.url, ConnectErrorKind::NotS3, "is not S3").await;
    }
    let server =
        ScriptedServer::scripted(vec![ScriptedAnswer::raw("SSH-2.0-OpenSSH_9.2\r\n")]).await;
    fails(&server.url, ConnectErrorKind::NotS3, "does not speak http").await;
}

#[tokio::test]
async fn a_dead_endpoint_is_told_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    fails(&url, ConnectErrorKind::Unreachable, "nothing listens at").await;
    fails(
        "http://no-such-host.invalid:9000",
        ConnectErrorKind::Unreachable,
        "is not known",
    )
    .await;
}

#[tokio::test]
async fn a_slow_endpoint_is_told_when_the_time_is_over() {
    let server = ScriptedServer::scripted(vec![ScriptedAnswer::hang()]).await;
    let config = S3Config {
        store_timeout: std::time::Duration::from_millis(300),
        ..quick()
    };
    let error = connect(&server.url, config).await.unwrap_err();
    assert_eq!(error.kind, ConnectErrorKind::Timeout, "{error}");
    assert!(error.to_string().contains("does not answer"), "{error}");
}

#[tokio::test]
async fn a_busy_store_is_waited_for() {
    let script = vec![
        ScriptedAnswer::error(503, "SlowDown"),
        ScriptedAnswer::new(200).body(EMPTY),
    ];
    let server = ScriptedServer::scripted(script).await;
    let config = S3Config {
        read_only: true,
        ..quick()
    };
    connect(&server.url, config).await.unwrap();
}

#[tokio::test]
async fn https_spoken_to_http_and_the_reverse_are_told_apart() {
    let server = ScriptedServer::scripted(vec![ScriptedAnswer::new(200)]).await;
    let https = server.url.replace("http://", "https://");
    fails(&https, ConnectErrorKind::NotTls, "does not speak https").await;
    // What Go's and nginx's servers say.
    for answer in [
        ScriptedAnswer::new(400).body("Client sent an HTTP request to an HTTPS server.\n"),
        ScriptedAnswer::new(400).body("<html>The plain HTTP request was sent to HTTPS port</html>"),
    ] {
        let server = ScriptedServer::scripted(vec![answer]).await;
        fails(&server.url, ConnectErrorKind::NeedsTls, "https://").await;
    }
    // What is left of these answers when the server resets the connection, as MinIO's does, and what
    // OpenSSL's does: it closes. The cause was told as "made no sense: connection reset by peer", and
    // the way out not at all.
    for answer in [
        ScriptedAnswer::reset("HTTP/1.0 400 Bad Request\r\nContent-Length: 48\r\n\r\nClient sent"),
        ScriptedAnswer::reset("HTTP/1.0 400 Bad Request\r\n\r\n"),
        ScriptedAnswer::reset(""),
        ScriptedAnswer::lost(),
    ] {
        let server = ScriptedServer::scripted(vec![answer]).await;
        fails(&server.url, ConnectErrorKind::NeedsTls, "may speak https").await;
    }
    // A bare TLS alert is no HTTP; the way out is named all the same.
    let server =
        ScriptedServer::scripted(vec![ScriptedAnswer::raw([0x15, 3, 1, 0, 2, 2, 22])]).await;
    fails(&server.url, ConnectErrorKind::NotS3, "https://").await;
}

/// MinIO forgets the access key of a session with the session: an expired one was told as a wrong
/// AWS_ACCESS_KEY_ID.
#[tokio::test]
async fn an_access_key_of_a_session_that_is_not_known_may_have_expired() {
    let server =
        ScriptedServer::scripted(vec![ScriptedAnswer::error(403, "InvalidAccessKeyId")]).await;
    let mut location = location(&server.url, "access", "secret");
    location.temporary = true;
    let error = connected(&location, &quick(), "").await.unwrap_err();
    let line = error.to_string();
    for words in ["session has expired", "new temporary", "AWS_ACCESS_KEY_ID"] {
        assert!(line.contains(words), "{line}");
    }
}

#[tokio::test]
async fn a_url_that_is_none_is_told_with_how_it_should_be() {
    let config = S3Config {
        endpoint_url: Some("127.0.0.1:9000".to_owned()),
        ..quick()
    };
    let error = S3Store::connect(config, "").await.unwrap_err();
    assert_eq!(error.kind, ConnectErrorKind::BadEndpoint);
    let line = error.to_string();
    assert!(line.contains("has no http:// or https://"), "{line}");
}

#[tokio::test]
async fn unsigned_requests_carry_no_signature() {
    let server = ScriptedServer::scripted(vec![ScriptedAnswer::new(200).body(EMPTY)]).await;
    let config = S3Config {
        endpoint_url: Some(server.url.clone()),
        no_sign_request: true,
        read_only: true,
        ..quick()
    };
    let (_store, capabilities) = S3Store::connect(config, "").await.unwrap();
    assert_eq!(capabilities.region, "us-east-1");
    assert_eq!(server.requests()[0].header("authorization"), None);
}
