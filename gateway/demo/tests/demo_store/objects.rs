//! Objects: what is put is what is got, headers included; what is wrong is refused before it replaces anything.

use ackfs_demo::{DemoConfig, Quirks};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, MetadataDirective, ServerSideEncryption, StorageClass,
};

use super::{BUCKET, Identity, body, client, fine, outcome, put, refused, start};

#[tokio::test]
async fn what_is_put_is_got_with_all_its_headers() {
    let (server, client) = start(DemoConfig::default()).await;
    let answer = client
        .put_object()
        .bucket(BUCKET)
        .key("dir/é +%&=.txt")
        .body(body("hello"))
        .content_type("text/plain")
        .content_encoding("gzip")
        .cache_control("no-store")
        .content_disposition("inline")
        .content_language("de")
        .metadata("file-mtime", "1700000000")
        .storage_class(StorageClass::StandardIa)
        .server_side_encryption(ServerSideEncryption::AwsKms)
        .ssekms_key_id("key-1")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.e_tag(), Some("\"5d41402abc4b2a76b9719d911017c592\""));
    assert_eq!(answer.ssekms_key_id(), Some("key-1"));
    let head = client
        .head_object()
        .bucket(BUCKET)
        .key("dir/é +%&=.txt")
        .send()
        .await
        .unwrap();
    assert_eq!(head.content_length(), Some(5));
    assert_eq!(head.content_type(), Some("text/plain"));
    assert_eq!(head.content_encoding(), Some("gzip"));
    assert_eq!(head.cache_control(), Some("no-store"));
    assert_eq!(head.content_disposition(), Some("inline"));
    assert_eq!(head.content_language(), Some("de"));
    assert_eq!(head.metadata().unwrap()["file-mtime"], "1700000000");
    assert_eq!(head.storage_class(), Some(&StorageClass::StandardIa));
    assert_eq!(
        head.server_side_encryption(),
        Some(&ServerSideEncryption::AwsKms)
    );
    let got = client
        .get_object()
        .bucket(BUCKET)
        .key("dir/é +%&=.txt")
        .send()
        .await
        .unwrap();
    assert_eq!(got.last_modified(), head.last_modified());
    assert_eq!(got.body.collect().await.unwrap().into_bytes(), "hello");
    assert_eq!(
        server.object(BUCKET, "dir/é +%&=.txt").unwrap().metadata["file-mtime"],
        "1700000000"
    );
}

#[tokio::test]
async fn ranges_are_cut_as_http_says() {
    let (_server, client) = start(DemoConfig::default()).await;
    put(&client, "key", "0123456789").await;
    put(&client, "empty", "").await;
    let cases = [
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=3-5", "345", "bytes 3-5/10"),
        ("bytes=8-", "89", "bytes 8-9/10"),
        ("bytes=8-100", "89", "bytes 8-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=-30", "0123456789", "bytes 0-9/10"),
    ];
    for (range, want, content_range) in cases {
        let got = client
            .get_object()
            .bucket(BUCKET)
            .key("key")
            .range(range)
            .send()
            .await
            .unwrap();
        assert_eq!(got.content_range(), Some(content_range), "{range}");
        assert_eq!(got.content_length(), Some(want.len() as i64), "{range}");
        assert_eq!(
            got.body.collect().await.unwrap().into_bytes(),
            want,
            "{range}"
        );
    }
    for (key, range) in [
        ("key", "bytes=10-"),
        ("key", "bytes=-0"),
        ("empty", "bytes=0-0"),
    ] {
        let answer = client
            .get_object()
            .bucket(BUCKET)
            .key(key)
            .range(range)
            .send()
            .await;
        assert_eq!(
            outcome(answer),
            refused(416, "InvalidRange"),
            "{key} {range}"
        );
    }
}

#[tokio::test]
async fn missing_things_are_named() {
    let (server, client) = start(DemoConfig::default()).await;
    let get = |bucket: &str| client.get_object().bucket(bucket).key("gone");
    assert_eq!(outcome(get(BUCKET).send().await), refused(404, "NoSuchKey"));
    assert_eq!(
        outcome(get("nobucket").send().await),
        refused(404, "NoSuchBucket")
    );
    assert_eq!(
        outcome(client.head_object().bucket(BUCKET).key("gone").send().await).0,
        404
    );
    assert_eq!(
        outcome(client.head_bucket().bucket("nobucket").send().await).0,
        404
    );
    let put = client
        .put_object()
        .bucket("nobucket")
        .key("k")
        .body(body(vec![0; 3 << 20]));
    assert_eq!(outcome(put.send().await), refused(404, "NoSuchBucket"));
    let listed = client.list_objects_v2().bucket("nobucket").send().await;
    assert_eq!(outcome(listed), refused(404, "NoSuchBucket"));
    let long = client
        .put_object()
        .bucket(BUCKET)
        .key("k".repeat(1025))
        .send()
        .await;
    assert_eq!(outcome(long), refused(400, "KeyTooLongError"));
    let longest = client
        .put_object()
        .bucket(BUCKET)
        .key("k".repeat(1024))
        .send()
        .await;
    assert_eq!(outcome(longest), fine());
    let fat = client
        .put_object()
        .bucket(BUCKET)
        .key("k")
        .metadata("m", "v".repeat(2048))
        .send()
        .await;
    assert_eq!(outcome(fat), refused(400, "MetadataTooLarge"));
    assert!(
        server
            .requests()
            .iter()
            .all(|record| record.status.is_some())
    );
}

#[tokio::test]
async fn every_answer_has_a_request_id() {
    let (_server, client) = start(DemoConfig::default()).await;
    use aws_sdk_s3::operation::RequestId as _;
    let good = client.list_buckets().send().await.unwrap();
    assert!(good.request_id().is_some());
    let bad = client
        .get_object()
        .bucket(BUCKET)
        .key("gone")
        .send()
        .await
        .unwrap_err();
    assert!(bad.request_id().is_some());
    let bad = client
        .head_object()
        .bucket(BUCKET)
        .key("gone")
        .send()
        .await
        .unwrap_err();
    assert!(bad.request_id().is_some());
}

#[tokio::test]
async fn strangers_are_turned_away_with_the_true_reason() {
    let (server, _client) = start(DemoConfig::default()).await;
    let wrong_secret = Identity {
        secret_key: "wrong".into(),
        ..Identity::default()
    };
    let wrong_key = Identity {
        access_key: "nobody".into(),
        ..Identity::default()
    };
    // Large bodies too: the answer must arrive although the body was not wanted.
    for len in [0, 8 << 20] {
        let put = |identity| {
            client(&server, identity)
                .put_object()
                .bucket(BUCKET)
                .key("k")
                .body(body(vec![1; len]))
        };
        assert_eq!(
            outcome(put(&wrong_secret).send().await),
            refused(403, "SignatureDoesNotMatch")
        );
        assert_eq!(
            outcome(put(&wrong_key).send().await),
            refused(403, "InvalidAccessKeyId")
        );
    }
    assert_eq!(server.keys(BUCKET, ""), [""; 0]);
}

#[tokio::test]
async fn unsigned_requests_need_an_open_server() {
    for (anonymous, want) in [(false, refused(403, "AccessDenied")), (true, fine())] {
        let (server, _) = start(DemoConfig {
            anonymous,
            ..DemoConfig::default()
        })
        .await;
        let config = aws_sdk_s3::Config::builder()
            .behavior_version_latest()
            .allow_no_auth()
            .region(aws_sdk_s3::config::Region::new("us-east-1"))
            .endpoint_url(server.endpoint())
            .force_path_style(true)
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build();
        let client = aws_sdk_s3::Client::from_conf(config);
        assert_eq!(
            outcome(client.list_objects_v2().bucket(BUCKET).send().await),
            want
        );
    }
}

#[tokio::test]
async fn the_wrong_region_is_told_the_right_one() {
    let (server, client) = start(DemoConfig::default()).await;
    server.set_quirks(Quirks {
        region: Some("eu-central-1".into()),
        ..Quirks::default()
    });
    let put = client
        .put_object()
        .bucket(BUCKET)
        .key("k")
        .body(body("x"))
        .send()
        .await;
    assert_eq!(outcome(put), refused(400, "AuthorizationHeaderMalformed"));
    let head = client
        .head_bucket()
        .bucket(BUCKET)
        .send()
        .await
        .unwrap_err();
    let raw = head.raw_response().unwrap();
    assert_eq!(raw.status().as_u16(), 301);
    assert_eq!(
        raw.headers().get("x-amz-bucket-region"),
        Some("eu-central-1")
    );
    let right = super::client(
        &server,
        &Identity {
            region: "eu-central-1".into(),
            ..Identity::default()
        },
    );
    let put = right
        .put_object()
        .bucket(BUCKET)
        .key("k")
        .body(body("x"))
        .send()
        .await;
    assert_eq!(outcome(put), fine());
}

#[tokio::test]
async fn a_wrong_checksum_leaves_the_old_object() {
    let (server, client) = start(DemoConfig::default()).await;
    put(&client, "key", "old").await;
    let put = || {
        client
            .put_object()
            .bucket(BUCKET)
            .key("key")
            .body(body("new"))
    };
    let bad = refused(400, "BadDigest");
    assert_eq!(outcome(put().checksum_crc32("AAAAAA==").send().await), bad);
    assert_eq!(
        outcome(put().checksum_crc32_c("AAAAAA==").send().await),
        bad
    );
    assert_eq!(
        outcome(put().checksum_crc64_nvme("AAAAAAAAAAA=").send().await),
        bad
    );
    assert_eq!(
        outcome(
            put()
                .checksum_sha1("AAAAAAAAAAAAAAAAAAAAAAAAAAA=")
                .send()
                .await
        ),
        bad
    );
    let sha256 = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert_eq!(outcome(put().checksum_sha256(sha256).send().await), bad);
    assert_eq!(
        outcome(put().content_md5("AAAAAAAAAAAAAAAAAAAAAA==").send().await),
        bad
    );
    assert_eq!(
        outcome(put().content_md5("nonsense").send().await),
        refused(400, "InvalidDigest")
    );
    assert_eq!(
        outcome(put().checksum_crc32("AAAA").send().await),
        refused(400, "InvalidRequest")
    );
    assert_eq!(server.object(BUCKET, "key").unwrap().bytes, "old");
}

#[tokio::test]
async fn checksums_are_kept_and_shown() {
    let (_server, client) = start(DemoConfig::default()).await;
    let put = |algorithm| {
        client
            .put_object()
            .bucket(BUCKET)
            .key("key")
            .body(body("hello"))
            .checksum_algorithm(algorithm)
    };
    let head = || {
        client
            .head_object()
            .bucket(BUCKET)
            .key("key")
            .checksum_mode(ChecksumMode::Enabled)
            .send()
    };
    assert_eq!(
        put(ChecksumAlgorithm::Crc32)
            .send()
            .await
            .unwrap()
            .checksum_crc32(),
        Some("NhCmhg==")
    );
    assert_eq!(head().await.unwrap().checksum_crc32(), Some("NhCmhg=="));
    put(ChecksumAlgorithm::Crc32C).send().await.unwrap();
    assert_eq!(head().await.unwrap().checksum_crc32_c(), Some("mnG7TA=="));
    put(ChecksumAlgorithm::Sha1).send().await.unwrap();
    assert_eq!(
        head().await.unwrap().checksum_sha1(),
        Some("qvTGHdzF6KLavt4PO0gs2a6pQ00=")
    );
    put(ChecksumAlgorithm::Crc64Nvme).send().await.unwrap();
    assert!(head().await.unwrap().checksum_crc64_nvme().is_some());
    // A whole read is validated by the SDK against this value, a ranged one has none.
    let ranged = client
        .get_object()
        .bucket(BUCKET)
        .key("key")
        .range("bytes=0-1");
    assert_eq!(ranged.send().await.unwrap().checksum_crc64_nvme(), None);
}

#[tokio::test]
async fn streamed_bodies_are_checked_by_their_trailers() {
    let (server, client) = start(DemoConfig::default()).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let bytes: Vec<u8> = (0..3_000_000u32).map(|index| (index % 251) as u8).collect();
    std::fs::write(file.path(), &bytes).unwrap();
    let put = || async {
        let stream = ByteStream::read_from()
            .path(file.path())
            .build()
            .await
            .unwrap();
        client
            .put_object()
            .bucket(BUCKET)
            .key("key")
            .body(stream)
            .send()
            .await
    };
    assert!(put().await.unwrap().checksum_crc32().is_some());
    assert_eq!(server.object(BUCKET, "key").unwrap().bytes, bytes);
    let got = client
        .get_object()
        .bucket(BUCKET)
        .key("key")
        .send()
        .await
        .unwrap();
    assert_eq!(
        got.content_encoding(),
        None,
        "aws-chunked is not the object's"
    );
    assert_eq!(got.body.collect().await.unwrap().into_bytes(), bytes);

    server.set_quirks(Quirks {
        trailers_refused: true,
        ..Quirks::default()
    });
    assert_eq!(outcome(put().await), refused(501, "NotImplemented"));
}

#[tokio::test]
async fn copies_take_or_replace_metadata() {
    let (server, client) = start(DemoConfig::default()).await;
    let source = client
        .put_object()
        .bucket(BUCKET)
        .key("a b/é")
        .body(body("hello"));
    let source = source
        .content_type("text/plain")
        .metadata("m", "1")
        .send()
        .await
        .unwrap();
    let copy = || {
        client
            .copy_object()
            .bucket(BUCKET)
            .copy_source("bucket/a%20b/%C3%A9")
    };
    let copied = copy().key("copy").send().await.unwrap();
    assert_eq!(copied.copy_object_result().unwrap().e_tag(), source.e_tag());
    assert_eq!(server.object(BUCKET, "copy").unwrap().metadata["m"], "1");

    let replace = || {
        copy()
            .metadata_directive(MetadataDirective::Replace)
            .metadata("n", "2")
    };
    replace().key("copy").send().await.unwrap();
    let stored = server.object(BUCKET, "copy").unwrap();
    assert_eq!(stored.metadata.keys().collect::<Vec<_>>(), ["n"]);
    assert_eq!(stored.content_type, None);

    let to_itself = copy().key("a b/é").send().await;
    assert_eq!(outcome(to_itself), refused(400, "InvalidRequest"));
    replace().key("a b/é").send().await.unwrap();
    assert_eq!(server.object(BUCKET, "a b/é").unwrap().bytes, "hello");
    assert_eq!(server.object(BUCKET, "a b/é").unwrap().metadata["n"], "2");

    let missing = client
        .copy_object()
        .bucket(BUCKET)
        .key("x")
        .copy_source("bucket/gone");
    assert_eq!(outcome(missing.send().await), refused(404, "NoSuchKey"));
}

#[tokio::test]
async fn buckets_come_and_go() {
    let (server, client) = start(DemoConfig::default()).await;
    client
        .create_bucket()
        .bucket("second")
        .send()
        .await
        .unwrap();
    let again = client.create_bucket().bucket("second").send().await;
    assert_eq!(outcome(again), refused(409, "BucketAlreadyOwnedByYou"));
    let names: Vec<_> = client
        .list_buckets()
        .send()
        .await
        .unwrap()
        .buckets()
        .iter()
        .map(|bucket| bucket.name().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["bucket", "second"]);
    server.put("second", "k", "x").await.unwrap();
    let full = client.delete_bucket().bucket("second").send().await;
    assert_eq!(outcome(full), refused(409, "BucketNotEmpty"));
    server.delete("second", "k").unwrap();
    client
        .delete_bucket()
        .bucket("second")
        .send()
        .await
        .unwrap();
    assert_eq!(
        outcome(client.head_bucket().bucket("second").send().await).0,
        404
    );
    client
        .get_bucket_location()
        .bucket(BUCKET)
        .send()
        .await
        .unwrap();
    assert!(server.create_bucket("No_Bucket").is_err());
}

#[tokio::test]
async fn requests_are_counted_and_recorded() {
    let (server, client) = start(DemoConfig::default()).await;
    let etag = put(&client, "key", "hello").await;
    client
        .get_object()
        .bucket(BUCKET)
        .key("key")
        .range("bytes=1-2")
        .if_match(&etag)
        .send()
        .await
        .unwrap();
    assert_eq!(server.count("PutObject"), 1);
    assert_eq!(
        server.traffic().into_keys().collect::<Vec<_>>(),
        ["GetObject", "PutObject"]
    );
    let records = server.requests();
    assert_eq!(
        (records[0].operation, records[0].key.as_str()),
        ("PutObject", "key")
    );
    assert_eq!(
        (records[0].body_len, records[0].status),
        (Some(5), Some(200))
    );
    assert_eq!(records[1].range.as_deref(), Some("bytes=1-2"));
    assert_eq!(records[1].if_match, Some(etag));
    assert_eq!(
        (records[1].answer_len, records[1].status),
        (Some(2), Some(206))
    );
    let traffic = server.traffic_of("GetObject");
    assert_eq!(
        (traffic.requests, traffic.received, traffic.sent),
        (1, 0, 2)
    );
    server.reset_requests();
    assert_eq!(server.count("PutObject"), 0);
    assert!(server.requests().is_empty());
}
