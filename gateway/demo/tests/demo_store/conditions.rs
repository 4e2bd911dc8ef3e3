//! Conditions on reads, writes, copies and deletions.

use ackfs_demo::{ConditionalWrites, DemoConfig, Quirks};
use aws_sdk_s3::types::{Delete, ObjectIdentifier};

use super::{BUCKET, body, fine, outcome, put, refused, small_parts, start};

const STALE: &str = "\"00000000000000000000000000000000\"";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_racing_creators_have_one_winner() {
    let (server, client) = start(DemoConfig::default()).await;
    for round in 0..8 {
        let key = format!("key-{round}");
        let racers: Vec<_> = (0..16)
            .map(|racer| {
                let put = client
                    .put_object()
                    .bucket(BUCKET)
                    .key(&key)
                    .if_none_match("*");
                tokio::spawn(put.body(body(format!("racer {racer}"))).send())
            })
            .collect();
        let mut winners = Vec::new();
        for (racer, task) in racers.into_iter().enumerate() {
            match outcome(task.await.unwrap()) {
                (200, _) => winners.push(racer),
                lost => assert_eq!(lost, refused(412, "PreconditionFailed")),
            }
        }
        assert_eq!(winners.len(), 1, "winners of {key}: {winners:?}");
        let stored = server.object(BUCKET, &key).unwrap();
        assert_eq!(stored.bytes, format!("racer {}", winners[0]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_racing_updaters_of_one_version_have_one_winner() {
    let (_server, client) = start(DemoConfig::default()).await;
    let mut etag = put(&client, "key", "0").await;
    for round in 0..8 {
        let racers: Vec<_> = (0..16)
            .map(|racer| {
                let put = client
                    .put_object()
                    .bucket(BUCKET)
                    .key("key")
                    .if_match(&etag);
                tokio::spawn(put.body(body(format!("{round} {racer}"))).send())
            })
            .collect();
        let mut next = Vec::new();
        for task in racers {
            next.extend(task.await.unwrap().ok().and_then(|answer| answer.e_tag));
        }
        assert_eq!(next.len(), 1, "round {round}");
        etag = next.remove(0);
    }
}

#[tokio::test]
async fn puts_honour_their_conditions() {
    let (server, client) = start(DemoConfig::default()).await;
    let etag = put(&client, "there", "old").await;
    let put = |key: &str| {
        client
            .put_object()
            .bucket(BUCKET)
            .key(key)
            .body(body("new"))
    };
    let failed = refused(412, "PreconditionFailed");
    assert_eq!(
        outcome(put("there").if_none_match("*").send().await),
        failed
    );
    assert_eq!(outcome(put("there").if_match(STALE).send().await), failed);
    assert_eq!(
        outcome(put("gone").if_match(STALE).send().await),
        refused(404, "NoSuchKey")
    );
    assert_eq!(server.object(BUCKET, "there").unwrap().bytes, "old");
    assert_eq!(server.object(BUCKET, "gone"), None);
    assert_eq!(outcome(put("there").if_match(&etag).send().await), fine());
    assert_eq!(outcome(put("gone").if_none_match("*").send().await), fine());
    let unsupported = put("there").if_none_match(&etag).send().await;
    assert_eq!(outcome(unsupported), refused(501, "NotImplemented"));
}

#[tokio::test]
async fn completions_honour_their_conditions() {
    let (server, client) = small_parts().await;
    let etag = put(&client, "there", "old").await;
    let upload = |key: &'static str| {
        let client = client.clone();
        async move { super::multipart::upload(&client, key, &["hello", "x"]).await }
    };
    let (id, list) = upload("there").await;
    let complete = |key: &str, id: &str| {
        client
            .complete_multipart_upload()
            .bucket(BUCKET)
            .key(key)
            .upload_id(id)
            .multipart_upload(list.clone())
    };
    let failed = refused(412, "PreconditionFailed");
    assert_eq!(
        outcome(complete("there", &id).if_match(STALE).send().await),
        failed
    );
    assert_eq!(
        outcome(complete("there", &id).if_none_match("*").send().await),
        failed
    );
    assert_eq!(server.object(BUCKET, "there").unwrap().bytes, "old");
    // A refused completion leaves the upload where it was.
    assert_eq!(server.uploads(BUCKET).len(), 1);
    assert_eq!(
        outcome(complete("there", &id).if_match(&etag).send().await),
        fine()
    );
    assert_eq!(server.object(BUCKET, "there").unwrap().bytes, "hellox");
    let again = complete("there", &id).send().await;
    assert_eq!(outcome(again), refused(404, "NoSuchUpload"));

    let (id, _) = upload("gone").await;
    let missing = complete("gone", &id).if_match(STALE).send().await;
    assert_eq!(outcome(missing), refused(404, "NoSuchKey"));
    assert_eq!(
        outcome(complete("gone", &id).if_none_match("*").send().await),
        fine()
    );
}

#[tokio::test]
async fn copies_honour_conditions_on_source_and_destination() {
    let (server, client) = start(DemoConfig::default()).await;
    let etag = put(&client, "source", "new").await;
    let there = put(&client, "there", "old").await;
    let copy = |key: &str| {
        client
            .copy_object()
            .copy_source("bucket/source")
            .bucket(BUCKET)
            .key(key)
    };
    let failed = refused(412, "PreconditionFailed");
    assert_eq!(
        outcome(copy("there").copy_source_if_match(STALE).send().await),
        failed
    );
    assert_eq!(
        outcome(copy("there").copy_source_if_none_match(&etag).send().await),
        failed
    );
    assert_eq!(
        outcome(copy("there").if_none_match("*").send().await),
        failed
    );
    assert_eq!(outcome(copy("there").if_match(STALE).send().await), failed);
    assert_eq!(
        outcome(copy("gone").if_match(STALE).send().await),
        refused(404, "NoSuchKey")
    );
    assert_eq!(server.object(BUCKET, "there").unwrap().bytes, "old");
    let held = copy("there")
        .copy_source_if_match(&etag)
        .if_match(&there)
        .send()
        .await;
    assert_eq!(outcome(held), fine());
    assert_eq!(server.object(BUCKET, "there").unwrap().bytes, "new");
    assert_eq!(
        outcome(copy("gone").if_none_match("*").send().await),
        fine()
    );
}

#[tokio::test]
async fn deletions_honour_their_conditions() {
    let (server, client) = start(DemoConfig::default()).await;
    let etag = put(&client, "there", "old").await;
    let delete = |key: &str| client.delete_object().bucket(BUCKET).key(key);
    let stale = delete("there").if_match(STALE).send().await;
    assert_eq!(outcome(stale), refused(412, "PreconditionFailed"));
    assert_eq!(
        outcome(delete("gone").if_match("*").send().await),
        refused(404, "NoSuchKey")
    );
    assert_eq!(outcome(delete("gone").send().await), fine());

    put(&client, "other", "x").await;
    let object = |key: &str, etag: &str| {
        ObjectIdentifier::builder()
            .key(key)
            .e_tag(etag)
            .build()
            .unwrap()
    };
    let list = Delete::builder()
        .objects(object("there", STALE))
        .objects(ObjectIdentifier::builder().key("other").build().unwrap())
        .build()
        .unwrap();
    let many = client
        .delete_objects()
        .bucket(BUCKET)
        .delete(list)
        .send()
        .await
        .unwrap();
    assert_eq!(many.errors()[0].code(), Some("PreconditionFailed"));
    assert_eq!(many.deleted()[0].key(), Some("other"));
    assert_eq!(server.keys(BUCKET, ""), ["there"]);

    assert_eq!(
        outcome(delete("there").if_match(&etag).send().await),
        fine()
    );
    assert_eq!(server.object(BUCKET, "there"), None);
}

#[tokio::test]
async fn reads_honour_their_conditions() {
    let (_server, client) = start(DemoConfig::default()).await;
    let etag = put(&client, "key", "0123456789").await;
    let get = || client.get_object().bucket(BUCKET).key("key");
    let head = || client.head_object().bucket(BUCKET).key("key");
    let failed = refused(412, "PreconditionFailed");
    assert_eq!(outcome(get().if_match(STALE).send().await), failed);
    assert_eq!(
        outcome(get().if_match(STALE).range("bytes=0-1").send().await),
        failed
    );
    assert_eq!(
        outcome(get().if_match(&etag).range("bytes=0-1").send().await),
        fine()
    );
    assert_eq!(outcome(get().if_none_match(STALE).send().await), fine());
    assert_eq!(outcome(get().if_none_match(&etag).send().await).0, 304);
    assert_eq!(outcome(head().if_none_match(&etag).send().await).0, 304);
    assert_eq!(outcome(head().if_match(STALE).send().await).0, 412);

    let refusal = get().if_none_match(&etag).send().await.unwrap_err();
    let shown = refusal.raw_response().unwrap().headers().get("etag");
    assert_eq!(
        shown,
        Some(etag.as_str()),
        "304 names the version that is still good"
    );
}

#[tokio::test]
async fn as_minio_it_ignores_conditions_of_copies_and_deletions() {
    let (server, client) = start(DemoConfig::default()).await;
    server.set_quirks(Quirks {
        conditional_writes: ConditionalWrites::Minio,
        ..Quirks::default()
    });
    put(&client, "source", "new").await;
    put(&client, "there", "old").await;
    let put = client
        .put_object()
        .bucket(BUCKET)
        .key("there")
        .if_none_match("*")
        .send()
        .await;
    assert_eq!(outcome(put), refused(412, "PreconditionFailed"));
    let copy = client
        .copy_object()
        .copy_source("bucket/source")
        .bucket(BUCKET)
        .key("there");
    assert_eq!(outcome(copy.if_none_match("*").send().await), fine());
    assert_eq!(server.object(BUCKET, "there").unwrap().bytes, "new");
    let delete = client
        .delete_object()
        .bucket(BUCKET)
        .key("there")
        .if_match(STALE)
        .send()
        .await;
    assert_eq!(outcome(delete), fine());
    assert_eq!(server.object(BUCKET, "there"), None);
}

#[tokio::test]
async fn without_conditional_writes_they_are_ignored_or_refused() {
    let (server, client) = start(DemoConfig::default()).await;
    put(&client, "there", "old").await;
    let put = || {
        client
            .put_object()
            .bucket(BUCKET)
            .key("there")
            .body(body("new"))
    };
    server.set_quirks(Quirks {
        conditional_writes: ConditionalWrites::Refused,
        ..Quirks::default()
    });
    let conditional = put().if_none_match("*").send().await;
    assert_eq!(outcome(conditional), refused(501, "NotImplemented"));
    assert_eq!(outcome(put().send().await), fine());
    server.set_quirks(Quirks {
        conditional_writes: ConditionalWrites::Ignored,
        ..Quirks::default()
    });
    assert_eq!(outcome(put().if_none_match("*").send().await), fine());
}
