//! Every fault does what it says, and nothing else.

use std::time::{Duration, Instant};

use ackfs_demo::DemoConfig;
use ackfs_demo::faults::{Effect, Rule};
use aws_sdk_s3::Client;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::get_object::GetObjectError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::{BUCKET, body, fine, outcome, put, refused, start};

async fn get(client: &Client, key: &str) -> Result<Vec<u8>, String> {
    let answer = client
        .get_object()
        .bucket(BUCKET)
        .key(key)
        .range("bytes=0-")
        .send()
        .await;
    let answer =
        answer.map_err(|error: SdkError<GetObjectError, HttpResponse>| error.to_string())?;
    match answer.body.collect().await {
        Ok(all) => Ok(all.to_vec()),
        Err(error) => Err(error.to_string()),
    }
}

#[tokio::test]
async fn errors_are_answered_as_often_as_asked_for() {
    let (server, client) = start(DemoConfig::default()).await;
    let put = || {
        client
            .put_object()
            .bucket(BUCKET)
            .key("dir/key")
            .body(body(vec![7; 4 << 20]))
            .send()
    };
    let faults = server.faults();
    let rule = Rule::new(Effect::slow_down())
        .on("PutObject")
        .key_prefix("dir/")
        .skip(1)
        .times(2);
    let fault = faults.add(rule);
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(outcome(put().await));
    }
    let slow = refused(503, "SlowDown");
    assert_eq!(answers, [fine(), slow.clone(), slow, fine()]);
    assert_eq!(fault.fired(), 2);
    fault.wait_fired(2).await;

    for (status, code) in [
        (500, "InternalError"),
        (403, "AccessDenied"),
        (400, "ExpiredToken"),
        (403, "QuotaExceeded"),
        (409, "ConditionalRequestConflict"),
    ] {
        faults.add(Rule::new(Effect::refuse(status, code)).times(1));
        assert_eq!(outcome(put().await), refused(status, code));
    }
    faults.add(Rule::new(Effect::internal_error()).times(1));
    assert_eq!(
        outcome(
            client
                .head_object()
                .bucket(BUCKET)
                .key("dir/key")
                .send()
                .await
        )
        .0,
        500
    );
    assert_eq!(server.count("PutObject"), 9, "refused requests count too");
    assert_eq!(
        server
            .requests()
            .iter()
            .filter(|record| record.faulted)
            .count(),
        8
    );
}

#[tokio::test]
async fn a_lost_answer_leaves_the_write() {
    let (server, client) = start(DemoConfig::default()).await;
    let lost = server
        .faults()
        .add(Rule::new(Effect::LoseAnswer).on("PutObject").times(1));
    let put = client
        .put_object()
        .bucket(BUCKET)
        .key("key")
        .body(body("hello"))
        .send()
        .await;
    assert_eq!(outcome(put).0, 0, "no answer at all");
    lost.wait_fired(1).await;
    assert_eq!(server.object(BUCKET, "key").unwrap().bytes, "hello");
    assert_eq!(server.requests()[0].status, None);
}

#[tokio::test]
async fn a_connection_closed_before_leaves_nothing() {
    let (server, client) = start(DemoConfig::default()).await;
    let closed = server.faults().add(Rule::new(Effect::CloseBefore).times(1));
    let put = client
        .put_object()
        .bucket(BUCKET)
        .key("key")
        .body(body("hello"))
        .send()
        .await;
    assert_eq!(outcome(put).0, 0);
    assert_eq!(closed.fired(), 1);
    assert_eq!(server.object(BUCKET, "key"), None);
}

#[tokio::test]
async fn a_cut_body_ends_early_and_loudly() {
    let (server, client) = start(DemoConfig::default()).await;
    server.put(BUCKET, "key", vec![7; 5 << 20]).await.unwrap();
    for after in [0, 1, 100_000, 3 << 20] {
        let cut = server.faults().add(
            Rule::new(Effect::CutBody { after })
                .on("GetObject")
                .times(1),
        );
        let answer = client
            .get_object()
            .bucket(BUCKET)
            .key("key")
            .range("bytes=0-")
            .send()
            .await;
        let mut answer = answer.unwrap();
        assert_eq!(
            answer.content_length(),
            Some(5 << 20),
            "the head promises all"
        );
        let mut got = 0;
        let error = loop {
            match answer.body.next().await {
                Some(Ok(bytes)) => got += bytes.len() as u64,
                Some(Err(error)) => break Some(error),
                None => break None,
            }
        };
        assert!(error.is_some(), "cut after {after} without an error");
        assert_eq!(got, after);
        cut.wait_fired(1).await;
    }
    assert_eq!(get(&client, "key").await.unwrap().len(), 5 << 20);
}

#[tokio::test]
async fn a_stalled_body_goes_on_when_released() {
    let (server, client) = start(DemoConfig::default()).await;
    let bytes: Vec<u8> = (0..3_000_000u32).map(|index| (index % 251) as u8).collect();
    server.put(BUCKET, "key", bytes.clone()).await.unwrap();
    let stall = server
        .faults()
        .add(Rule::new(Effect::StallBody { after: 1_500_000 }));
    let reader = tokio::spawn(async move { get(&client, "key").await });
    stall.wait_fired(1).await;
    assert!(!reader.is_finished());
    stall.release();
    assert!(reader.await.unwrap().unwrap() == bytes);
}

#[tokio::test]
async fn a_corrupted_body_differs_in_one_bit() {
    let (server, client) = start(DemoConfig::default()).await;
    put(&client, "key", "0123456789").await;
    server.faults().add(
        Rule::new(Effect::CorruptBody { at: 3 })
            .on("GetObject")
            .times(2),
    );
    assert_eq!(get(&client, "key").await.unwrap(), b"0122456789");
    // The SDK compares a whole read with the object's checksum.
    let whole = client
        .get_object()
        .bucket(BUCKET)
        .key("key")
        .send()
        .await
        .unwrap();
    assert!(whole.body.collect().await.is_err());
    assert_eq!(get(&client, "key").await.unwrap(), b"0123456789");
}

#[tokio::test]
async fn a_wrong_length_is_consistent_in_itself() {
    let (server, client) = start(DemoConfig::default()).await;
    put(&client, "key", "0123456789").await;
    for (delta, want) in [(-4, &b"012345"[..]), (3, b"0123456789\0\0\0")] {
        server.faults().add(
            Rule::new(Effect::WrongLength { delta })
                .on("GetObject")
                .times(1),
        );
        assert_eq!(get(&client, "key").await.unwrap(), want);
    }
    server.faults().add(
        Rule::new(Effect::WrongLength { delta: -4 })
            .on("HeadObject")
            .times(1),
    );
    let head = client
        .head_object()
        .bucket(BUCKET)
        .key("key")
        .send()
        .await
        .unwrap();
    assert_eq!(head.content_length(), Some(6));
}

#[tokio::test]
async fn malformed_xml_is_no_listing() {
    let (server, client) = start(DemoConfig::default()).await;
    server
        .faults()
        .add(Rule::new(Effect::Malformed).on("ListObjectsV2").times(1));
    let listed = client.list_objects_v2().bucket(BUCKET).send().await;
    assert_eq!(
        listed
            .unwrap_err()
            .raw_response()
            .unwrap()
            .status()
            .as_u16(),
        200
    );
    assert_eq!(
        outcome(client.list_objects_v2().bucket(BUCKET).send().await),
        fine()
    );
}

#[tokio::test]
async fn redirections_point_where_they_were_told_to() {
    let (server, client) = start(DemoConfig::default()).await;
    for (status, code) in [(301, "PermanentRedirect"), (307, "TemporaryRedirect")] {
        let redirect = Effect::Redirect {
            status,
            location: None,
        };
        let fault = server.faults().add(Rule::new(redirect).times(50));
        let answer = client
            .get_object()
            .bucket(BUCKET)
            .key("key")
            .send()
            .await
            .unwrap_err();
        let raw = answer.raw_response().unwrap();
        assert_eq!(raw.status().as_u16(), status);
        assert!(
            raw.headers()
                .get("location")
                .unwrap()
                .starts_with("/bucket/key")
        );
        assert!(fault.fired() >= 1);
        fault.remove();
        assert_eq!(
            outcome(client.get_object().bucket(BUCKET).key("key").send().await),
            refused(404, "NoSuchKey"),
            "after {code}"
        );
    }
}

#[tokio::test]
async fn hanging_requests_wait_for_their_release() {
    let (server, client) = start(DemoConfig::default()).await;
    let before = server
        .faults()
        .add(Rule::new(Effect::HangBefore).key("before"));
    let after = server
        .faults()
        .add(Rule::new(Effect::HangAfter).key("after"));
    let put = |key: &'static str| {
        let put = client.put_object().bucket(BUCKET).key(key).body(body("x"));
        tokio::spawn(put.send())
    };
    let (one, two) = (put("before"), put("after"));
    before.wait_fired(1).await;
    after.wait_fired(1).await;
    assert_eq!(
        server.keys(BUCKET, ""),
        ["after"],
        "one is not begun, the other is done"
    );
    assert!(!one.is_finished() && !two.is_finished());
    assert_eq!(server.active_max(), 2);
    before.release();
    assert_eq!(outcome(one.await.unwrap()), fine());
    server.faults().clear();
    assert_eq!(outcome(two.await.unwrap()), fine());
    assert_eq!(outcome(put("before").await.unwrap()), fine());
}

#[tokio::test]
async fn delays_are_waited_for_on_either_side() {
    let (server, client) = start(DemoConfig::default()).await;
    for effect in [
        Effect::DelayBefore(Duration::from_millis(80)),
        Effect::DelayAfter(Duration::from_millis(80)),
    ] {
        server.faults().add(Rule::new(effect).times(1));
        let begin = Instant::now();
        put(&client, "key", "x").await;
        assert!(begin.elapsed() >= Duration::from_millis(80));
    }
}

#[tokio::test]
async fn a_stopped_server_is_gone_and_its_port_free() {
    let (server, client) = start(DemoConfig::default()).await;
    put(&client, "key", "x").await;
    let hang = server
        .faults()
        .add(Rule::new(Effect::HangBefore).on("GetObject"));
    let waiting = {
        let get = client.get_object().bucket(BUCKET).key("key");
        tokio::spawn(get.send())
    };
    hang.wait_fired(1).await;
    let listen = server.address();
    server.stop().await;
    assert_ne!(outcome(waiting.await.unwrap()).0, 200);
    let (server, client) = start(DemoConfig {
        listen,
        ..DemoConfig::default()
    })
    .await;
    assert_eq!(server.address(), listen);
    put(&client, "key", "x").await;
}
