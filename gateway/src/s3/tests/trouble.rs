//! A store that is busy, broken, slow or absurd, and one that is busy with others.

use std::sync::Arc;
use std::time::Duration;

use ackfs_cache::extent::Extent;
use ackfs_cache::object::Key;
use ackfs_cache::store::{
    Condition, Later, Metadata, ObjectStore, PartBytes, Priority, StoreErrorKind, UploadId,
};
use bytes::Bytes;
use tokio::sync::Semaphore;

use super::server::{ScriptedAnswer, ScriptedServer};
use super::{id, quick, store, store_with};
use crate::s3::{RequestKind, S3Config, StoreTelemetry};

fn head() -> ScriptedAnswer {
    ScriptedAnswer::new(200)
        .header("ETag", "\"v1\"")
        .header("Content-Length", "5")
}

#[tokio::test]
async fn a_busy_store_is_asked_again() {
    for (status, code) in [
        (503, "SlowDown"),
        (500, "InternalError"),
        (429, "TooManyRequests"),
        (400, "RequestTimeout"),
        (409, "ConditionalRequestConflict"),
        (409, "OperationAborted"),
    ] {
        let busy = ScriptedAnswer::error(status, code);
        let script = vec![
            busy.clone(),
            busy,
            ScriptedAnswer::new(200).header("ETag", "\"v1\""),
        ];
        let server = ScriptedServer::scripted(script).await;
        let store = store(&server.url);
        let etag = store
            .put(
                &Key::new("key"),
                vec![Bytes::from_static(b"bytes")],
                &Metadata::default(),
                &Condition::Absent,
            )
            .await
            .unwrap();
        assert_eq!(etag.as_str(), "\"v1\"");
        let counted = store.stats().kinds[RequestKind::Put as usize];
        assert_eq!((counted.ok, counted.retried, counted.failed), (1, 2, 0));
        for asked in server.requests() {
            assert_eq!(asked.body, b"bytes", "each attempt sends the whole body");
        }
    }
}

/// MinIO has a code for a drive that is nearly full, and none for one that filled while it wrote.
#[tokio::test]
async fn a_store_whose_drive_filled_is_not_asked_again() {
    let full = "<Error><Code>InternalError</Code><Message>We encountered an internal error, please try \
                again.: cause(no space left on device)</Message></Error>";
    let server = ScriptedServer::scripted(vec![ScriptedAnswer::new(500).body(full)]).await;
    let store = store(&server.url);
    let key = Key::new("key");
    let metadata = Metadata::default();
    let body = vec![Bytes::from_static(b"bytes")];
    let put = store.put(&key, body, &metadata, &Condition::None).await;
    assert_eq!(put.unwrap_err().kind, StoreErrorKind::NoSpace);
    assert_eq!(store.stats().kinds[RequestKind::Put as usize].retried, 0);
}

#[tokio::test]
async fn more_than_three_attempts_are_made_while_there_is_time() {
    let mut script = vec![ScriptedAnswer::new(503); 5];
    script.push(ScriptedAnswer::lost());
    script.push(head());
    let server = ScriptedServer::scripted(script).await;
    store(&server.url).head(&Key::new("key")).await.unwrap();
    assert_eq!(server.requests().len(), 7);
}

#[tokio::test]
async fn a_call_ends_at_its_time_limit_with_what_was_wrong() {
    let config = S3Config {
        store_timeout: Duration::from_secs(3),
        ..quick()
    };
    let cases = [
        (
            ScriptedAnswer::hang(),
            StoreErrorKind::Timeout,
            "no answer within",
        ),
        (
            ScriptedAnswer::error(503, "SlowDown"),
            StoreErrorKind::Throttled,
            "status 503",
        ),
        (
            ScriptedAnswer::error(500, "InternalError"),
            StoreErrorKind::Broken,
            "status 500",
        ),
        (ScriptedAnswer::lost(), StoreErrorKind::Broken, "no answer"),
    ];
    let calls = cases.map(async |(answer, kind, word)| {
        let server = ScriptedServer::scripted(vec![answer]).await;
        let store = store_with(&server.url, &config, |_core| {});
        let error = store.head(&Key::new("key")).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(word), "{error}");
        assert!(
            server.requests().len() > 1,
            "one hanging attempt leaves time for others"
        );
    });
    let all = futures_util::future::join_all(calls);
    let all = tokio::time::timeout(Duration::from_mins(1), all).await;
    all.expect("each call has 3 s");
}

/// The last attempt gets the time that is left, which may be too little for any store.
#[tokio::test]
async fn an_attempt_that_was_cut_short_does_not_hide_what_was_wrong() {
    let config = S3Config {
        store_timeout: Duration::from_secs(3),
        ..quick()
    };
    let began = std::time::Instant::now();
    let server = ScriptedServer::start(move |_at, _asked| {
        if began.elapsed() < Duration::from_millis(2200) {
            ScriptedAnswer::error(500, "InternalError")
        } else {
            ScriptedAnswer::hang()
        }
    })
    .await;
    let store = store_with(&server.url, &config, |_core| {});
    let error = store.head(&Key::new("key")).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Broken, "{error}");
    assert!(error.message.contains("status 500"), "{error}");
    assert!(error.message.contains("gave up after"), "{error}");
}

#[tokio::test]
async fn malformed_xml_is_broken_after_three_looks() {
    let server = ScriptedServer::scripted(vec![
        ScriptedAnswer::new(200).body("<ListBucketResult><Con"),
    ])
    .await;
    let request = ackfs_cache::store::ListRequest {
        prefix: String::new(),
        delimited: true,
        token: None,
        start_after: None,
        keys_max: 10,
    };
    let error = store(&server.url).list(request).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Broken, "{error}");
    assert!(error.message.contains("made no sense"), "{error}");
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn rubbish_in_place_of_http_is_broken() {
    let server =
        ScriptedServer::scripted(vec![ScriptedAnswer::raw("SSH-2.0-OpenSSH_9.2\r\n\r\n")]).await;
    let config = S3Config {
        store_timeout: Duration::from_millis(600),
        ..quick()
    };
    let store = store_with(&server.url, &config, |_core| {});
    let error = store.head(&Key::new("key")).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Broken, "{error}");
}

#[tokio::test]
async fn redirects_are_told_and_not_followed() {
    let server = ScriptedServer::start(|_at, _asked| {
        ScriptedAnswer::new(307).header("Location", "http://127.0.0.1:1/elsewhere")
    })
    .await;
    let error = store(&server.url).head(&Key::new("key")).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Rejected, "{error}");
    assert!(
        error
            .message
            .contains("redirects to http://127.0.0.1:1/elsewhere"),
        "{error}"
    );
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn errors_carry_the_key_the_request_and_the_code() {
    let server = ScriptedServer::scripted(vec![ScriptedAnswer::error(403, "AccessDenied")]).await;
    let key = Key::new("dir/file");
    let id = ackfs_cache::object::ObjectId::new(key, ackfs_cache::object::ETag::new("\"v1\""));
    let error = store(&server.url)
        .get(&id, Extent::new(0, 1), Priority::Interactive)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "access denied (\"dir/file\", request REQUEST7): AccessDenied: because AccessDenied"
    );
    assert!(error.source.is_some());
}

#[tokio::test]
async fn a_missing_bucket_never_looks_like_a_missing_file() {
    let server = ScriptedServer::scripted(vec![ScriptedAnswer::error(404, "NoSuchBucket")]).await;
    let id = id("key", "\"v1\"");
    let error = store(&server.url)
        .get(&id, Extent::new(0, 1), Priority::Interactive)
        .await
        .unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Rejected);
}

/// All uploads that may be under way hang at the store, and many more wait; a small read still
/// goes through at once.
#[tokio::test]
async fn a_long_upload_does_not_starve_small_reads() {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let server = ScriptedServer::start(move |_at, asked| match asked.method.as_str() {
        "PUT" => ScriptedAnswer::new(200).header("ETag", "\"p\"").gate(&held),
        _ => ScriptedAnswer::range(asked, b"12345", "\"v1\""),
    })
    .await;
    let config = S3Config {
        max_requests: 8,
        ..quick()
    };
    let store = store_with(&server.url, &config, |_core| {});
    let upload = ackfs_cache::store::UploadId("upload".to_owned());
    let uploads: Vec<_> = (1..=40)
        .map(|number| {
            let (store, upload) = (Arc::clone(&store), upload.clone());
            tokio::spawn(async move {
                let body = vec![PartBytes::Here(vec![7; 100_000].into())];
                let key = Key::new("big");
                store.put_part(&key, &upload, number, body).await
            })
        })
        .collect();
    while server.requests().len() < 4 {
        tokio::task::yield_now().await;
    }
    let id = id("small", "\"v1\"");
    for _read in 0..20 {
        let extent = Extent::new(0, 5);
        let mut fetched = store.get(&id, extent, Priority::Interactive).await.unwrap();
        assert_eq!(
            super::collect(fetched.body.as_mut()).await.unwrap(),
            b"12345"
        );
    }
    let priorities = store.stats().priorities;
    assert_eq!((priorities[2].in_flight, priorities[2].waiting), (4, 36));
    gate.add_permits(40);
    for upload in uploads {
        upload.await.unwrap().unwrap();
    }
    assert_eq!(store.stats().bytes_up, 40 * 100_000);
}

#[tokio::test]
async fn a_body_keeps_its_permit_until_it_is_read_or_dropped() {
    let server =
        ScriptedServer::start(|_at, asked| ScriptedAnswer::range(asked, &[1; 100], "\"v1\"")).await;
    let store = store(&server.url);
    let id = id("key", "\"v1\"");
    let in_flight = || store.stats().priorities[0].in_flight;
    let extent = Extent::new(0, 100);
    let mut read = store.get(&id, extent, Priority::Interactive).await.unwrap();
    let dropped = store.get(&id, extent, Priority::Interactive).await.unwrap();
    assert_eq!(in_flight(), 2);
    drop(dropped);
    assert_eq!(in_flight(), 1);
    super::collect(read.body.as_mut()).await.unwrap();
    assert_eq!(in_flight(), 0);
}

#[tokio::test]
async fn latencies_go_to_the_handles_that_were_given_once() {
    let server = ScriptedServer::scripted(vec![head()]).await;
    let store = store(&server.url);
    assert!(store.set_telemetry(StoreTelemetry::default()).is_ok());
    assert!(store.set_telemetry(StoreTelemetry::default()).is_err());
    store.head(&Key::new("key")).await.unwrap();
    assert_eq!(store.stats().kinds[RequestKind::Head as usize].ok, 1);
}

/// A store that was full answered before it had the body, and took its time with the rest: until then the
/// connection kept all of it, of one refused part after the other.
#[tokio::test]
async fn the_bytes_of_a_request_that_was_answered_early_are_free() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    struct Piece(
        Vec<u8>,
        #[allow(dead_code, reason = "its count is looked at")] Arc<()>,
    );
    impl AsRef<[u8]> for Piece {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.windows(4).any(|window| window == b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let body = "<Error><Code>AccessDenied</Code></Error>";
            let len = body.len();
            let answer = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {len}\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.unwrap();
            // The rest of the body is never read, and the connection stays.
            open.push(stream);
        }
    });
    let store = store(&url);
    let alive = Arc::new(());
    let piece = || Bytes::from_owner(Piece(vec![7; 1 << 20], alive.clone()));
    let key = Key::new("key");
    let pieces: Vec<Bytes> = (0..16).map(|_| piece()).collect();
    let metadata = Metadata::default();
    let put = store.put(&key, pieces, &metadata, &Condition::None);
    assert_eq!(put.await.unwrap_err().kind, StoreErrorKind::Denied);
    // One may be in the connection's hands.
    assert!(
        Arc::strong_count(&alive) <= 1 + 2,
        "{}",
        Arc::strong_count(&alive)
    );
    let later = || {
        let piece = piece();
        PartBytes::Later(Later::new(1 << 20, move || {
            let piece = piece.clone();
            Box::pin(async move { Ok(piece) })
        }))
    };
    let parts = (0..16).map(|_| later()).collect();
    let upload = UploadId("upload".into());
    let part = store.put_part(&key, &upload, 1, parts);
    assert_eq!(part.await.unwrap_err().kind, StoreErrorKind::Denied);
    assert!(
        Arc::strong_count(&alive) <= 1 + 4,
        "{}",
        Arc::strong_count(&alive)
    );
    server.abort();
}
