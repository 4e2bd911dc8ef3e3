//! A store with a directory: what was answered is there after a restart, and only that.

use std::path::Path;

use ackfs::demo::{DemoConfig, Server};
use aws_sdk_s3::Client;
use aws_sdk_s3::types::ChecksumMode;

use super::{BUCKET, body, outcome, put, refused, start};

async fn open(dir: &Path) -> (Server, Client) {
    start(DemoConfig {
        dir: Some(dir.to_owned()),
        part_len_min: 5,
        ..DemoConfig::default()
    })
    .await
}

fn files(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir.join(BUCKET)).unwrap();
    let mut names: Vec<_> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn objects_outlive_the_server_with_all_they_had() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = open(dir.path()).await;
    let plain = client
        .put_object()
        .bucket(BUCKET)
        .key("dir/é")
        .body(body("hello"));
    plain
        .metadata("m", "1")
        .content_type("text/plain")
        .send()
        .await
        .unwrap();
    let (id, list) = super::multipart::upload(&client, "parts", &["hello", "world"]).await;
    let complete = client
        .complete_multipart_upload()
        .bucket(BUCKET)
        .key("parts")
        .upload_id(id);
    complete.multipart_upload(list).send().await.unwrap();
    put(&client, "gone", "x").await;
    client
        .delete_object()
        .bucket(BUCKET)
        .key("gone")
        .send()
        .await
        .unwrap();
    put(&client, "dir/é2", "first").await;
    put(&client, "dir/é2", "second").await;
    let before: Vec<_> = ["dir/é", "parts", "dir/é2"]
        .map(|key| server.object(BUCKET, key))
        .into();
    let head = |client: &Client, key: &str| {
        client
            .head_object()
            .bucket(BUCKET)
            .key(key)
            .checksum_mode(ChecksumMode::Enabled)
            .send()
    };
    let heads = [
        head(&client, "dir/é").await.unwrap(),
        head(&client, "parts").await.unwrap(),
    ];
    server.stop().await;
    assert_eq!(
        files(dir.path()).len(),
        6,
        "three objects: old versions leave nothing behind"
    );

    let (server, client) = open(dir.path()).await;
    assert_eq!(server.keys(BUCKET, ""), ["dir/é", "dir/é2", "parts"]);
    let after: Vec<_> = ["dir/é", "parts", "dir/é2"]
        .map(|key| server.object(BUCKET, key))
        .into();
    assert_eq!(after, before);
    for (key, before) in ["dir/é", "parts"].into_iter().zip(heads) {
        let after = head(&client, key).await.unwrap();
        assert_eq!(after.checksum_crc32(), before.checksum_crc32());
        assert_eq!(after.last_modified(), before.last_modified());
        assert_eq!(after.content_type(), before.content_type());
    }
}

#[tokio::test]
async fn what_a_crash_left_half_done_is_swept_up() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = open(dir.path()).await;
    put(&client, "key", "hello").await;
    server.stop().await;
    std::fs::write(dir.path().join(BUCKET).join("data-99"), "orphan").unwrap();
    std::fs::write(dir.path().join(BUCKET).join("meta-00.tmp"), "half").unwrap();
    let (server, client) = open(dir.path()).await;
    assert_eq!(files(dir.path()).len(), 2);
    assert_eq!(server.keys(BUCKET, ""), ["key"]);
    // New numbers do not meet those that were seen.
    put(&client, "other", "x").await;
    assert!(files(dir.path()).contains(&"data-100".to_owned()));
}

#[tokio::test]
async fn broken_metadata_is_named_and_not_skipped() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).await.0.stop().await;
    std::fs::write(dir.path().join(BUCKET).join("meta-00"), "nonsense").unwrap();
    let config = DemoConfig {
        dir: Some(dir.path().to_owned()),
        ..DemoConfig::default()
    };
    let error = Server::start(config).await.unwrap_err();
    assert!(error.to_string().contains("meta-00"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn races_have_one_winner_on_disk_too() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = open(dir.path()).await;
    let racers: Vec<_> = (0..16)
        .map(|racer| {
            let put = client
                .put_object()
                .bucket(BUCKET)
                .key("key")
                .if_none_match("*");
            tokio::spawn(put.body(body(format!("racer {racer}"))).send())
        })
        .collect();
    let mut answers = Vec::new();
    for task in racers {
        answers.push(outcome(task.await.unwrap()));
    }
    let winner = answers.iter().position(|answer| answer.0 == 200).unwrap();
    answers.remove(winner);
    assert!(
        answers
            .iter()
            .all(|answer| *answer == refused(412, "PreconditionFailed"))
    );
    let stored = server.object(BUCKET, "key");
    server.stop().await;
    assert_eq!(files(dir.path()).len(), 2, "the losers' data is removed");
    let (server, _) = open(dir.path()).await;
    assert_eq!(server.object(BUCKET, "key"), stored);
    assert_eq!(stored.unwrap().bytes, format!("racer {winner}"));
}
