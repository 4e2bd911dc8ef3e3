//! Multipart uploads.

use ackfs_demo::DemoConfig;
use ackfs_demo::faults::{Effect, Miscopy, Rule};
use aws_sdk_s3::Client;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart,
};

use super::{BUCKET, body, fine, outcome, put, refused, small_parts, start};

/// Uploads parts numbered from 1 and leaves the upload open: its id and the list that completes it.
pub(super) async fn upload(
    client: &Client,
    key: &str,
    parts: &[&str],
) -> (String, CompletedMultipartUpload) {
    let id = create(client, key).await;
    let mut list = CompletedMultipartUpload::builder();
    for (index, part) in parts.iter().enumerate() {
        list = list.parts(send(client, key, &id, index as i32 + 1, part).await);
    }
    (id, list.build())
}

async fn create(client: &Client, key: &str) -> String {
    client
        .create_multipart_upload()
        .bucket(BUCKET)
        .key(key)
        .send()
        .await
        .unwrap()
        .upload_id
        .unwrap()
}

async fn send(client: &Client, key: &str, id: &str, number: i32, bytes: &str) -> CompletedPart {
    let part = client
        .upload_part()
        .bucket(BUCKET)
        .key(key)
        .upload_id(id)
        .part_number(number);
    let answer = part.body(body(bytes)).send().await.unwrap();
    CompletedPart::builder()
        .part_number(number)
        .set_e_tag(answer.e_tag)
        .set_checksum_crc32(answer.checksum_crc32)
        .set_checksum_crc64_nvme(answer.checksum_crc64_nvme)
        .build()
}

fn list(parts: impl IntoIterator<Item = CompletedPart>) -> CompletedMultipartUpload {
    CompletedMultipartUpload::builder()
        .set_parts(Some(parts.into_iter().collect()))
        .build()
}

async fn complete(
    client: &Client,
    key: &str,
    id: &str,
    list: CompletedMultipartUpload,
) -> (u16, String) {
    let complete = client
        .complete_multipart_upload()
        .bucket(BUCKET)
        .key(key)
        .upload_id(id);
    outcome(complete.multipart_upload(list).send().await)
}

#[tokio::test]
async fn parts_become_an_object_with_the_etag_of_s3() {
    let (server, client) = small_parts().await;
    let id = client
        .create_multipart_upload()
        .bucket(BUCKET)
        .key("key")
        .content_type("text/plain")
        .metadata("m", "1")
        .send()
        .await
        .unwrap()
        .upload_id
        .unwrap();
    // Sent backwards, with a gap, and one twice: the later one counts.
    let last = send(&client, "key", &id, 9, "!").await;
    send(&client, "key", &id, 3, "wrong").await;
    let second = send(&client, "key", &id, 3, "world").await;
    let first = send(&client, "key", &id, 1, "hello").await;
    assert_eq!(
        server.object(BUCKET, "key"),
        None,
        "nothing is there before completion"
    );
    assert_eq!(
        complete(&client, "key", &id, list([first, second, last])).await,
        fine()
    );
    let stored = server.object(BUCKET, "key").unwrap();
    assert_eq!(stored.bytes, "helloworld!");
    assert_eq!(stored.parts, 3);
    assert_eq!(stored.metadata["m"], "1");
    // printf of the three binary MD5s through md5sum
    assert_eq!(stored.etag, "0fe6b306db3706d84493a6b930bb5ea8-3");
    assert!(server.uploads(BUCKET).is_empty());
    let part = client
        .get_object()
        .bucket(BUCKET)
        .key("key")
        .part_number(2)
        .send()
        .await
        .unwrap();
    assert_eq!(part.parts_count(), Some(3));
    assert_eq!(part.content_range(), Some("bytes 5-9/11"));
    assert_eq!(part.body.collect().await.unwrap().into_bytes(), "world");
}

#[tokio::test]
async fn wrong_completions_are_refused_and_leave_the_upload() {
    let (server, client) = small_parts().await;
    let (id, whole) = upload(&client, "key", &["hello", "tiny", "end"]).await;
    let parts = whole.parts().to_vec();
    let some = |indices: &[usize]| list(indices.iter().map(|index| parts[*index].clone()));
    let small = complete(&client, "key", &id, some(&[0, 1, 2])).await;
    assert_eq!(small, refused(400, "EntityTooSmall"));
    let order = complete(&client, "key", &id, some(&[2, 0])).await;
    assert_eq!(order, refused(400, "InvalidPartOrder"));
    let twice = complete(&client, "key", &id, some(&[0, 0])).await;
    assert_eq!(twice, refused(400, "InvalidPartOrder"));
    let none = complete(&client, "key", &id, some(&[])).await;
    assert_eq!(none, refused(400, "MalformedXML"));
    let mut alien = parts[0].clone();
    alien.e_tag = Some("\"00000000000000000000000000000000\"".into());
    assert_eq!(
        complete(&client, "key", &id, list([alien])).await,
        refused(400, "InvalidPart")
    );
    let mut missing = parts[0].clone();
    missing.part_number = Some(7);
    assert_eq!(
        complete(&client, "key", &id, list([missing])).await,
        refused(400, "InvalidPart")
    );
    let sized = client
        .complete_multipart_upload()
        .bucket(BUCKET)
        .key("key")
        .upload_id(&id);
    let sized = sized
        .mpu_object_size(4)
        .multipart_upload(some(&[0, 1]))
        .send()
        .await;
    assert_eq!(outcome(sized), refused(400, "InvalidRequest"));
    assert_eq!(server.object(BUCKET, "key"), None);
    let sized = client
        .complete_multipart_upload()
        .bucket(BUCKET)
        .key("key")
        .upload_id(&id);
    let sized = sized
        .mpu_object_size(9)
        .multipart_upload(some(&[0, 1]))
        .send()
        .await;
    assert_eq!(outcome(sized), fine());
    assert_eq!(server.object(BUCKET, "key").unwrap().bytes, "hellotiny");
}

#[tokio::test]
async fn parts_below_five_mib_are_too_small_by_default() {
    let (_server, client) = start(DemoConfig::default()).await;
    let (id, whole) = upload(&client, "key", &["hello", "x"]).await;
    assert_eq!(
        complete(&client, "key", &id, whole).await,
        refused(400, "EntityTooSmall")
    );
}

#[tokio::test]
async fn an_aborted_upload_is_gone() {
    let (server, client) = small_parts().await;
    let (id, whole) = upload(&client, "key", &["hello", "x"]).await;
    let abort = || {
        client
            .abort_multipart_upload()
            .bucket(BUCKET)
            .key("key")
            .upload_id(&id)
    };
    abort().send().await.unwrap();
    let gone = refused(404, "NoSuchUpload");
    assert_eq!(outcome(abort().send().await), gone);
    assert_eq!(complete(&client, "key", &id, whole).await, gone);
    let part = client
        .upload_part()
        .bucket(BUCKET)
        .key("key")
        .upload_id(&id)
        .part_number(1);
    assert_eq!(
        outcome(part.body(body(vec![0; 1 << 20])).send().await),
        gone
    );
    assert!(server.uploads(BUCKET).is_empty());
    for number in [0, 10_001] {
        let part = client
            .upload_part()
            .bucket(BUCKET)
            .key("key")
            .upload_id(&id)
            .part_number(number);
        assert_eq!(outcome(part.send().await), refused(400, "InvalidArgument"));
    }
}

#[tokio::test]
async fn parts_are_copied_by_range_from_one_version() {
    let (server, client) = small_parts().await;
    let etag = put(&client, "source", "0123456789").await;
    let id = create(&client, "key").await;
    let copy = |number| {
        client
            .upload_part_copy()
            .bucket(BUCKET)
            .key("key")
            .upload_id(&id)
            .part_number(number)
            .copy_source("bucket/source")
    };
    let stale = copy(1).copy_source_if_match("\"0\"").send().await;
    assert_eq!(outcome(stale), refused(412, "PreconditionFailed"));
    let outside = copy(1).copy_source_range("bytes=5-10").send().await;
    assert_eq!(outcome(outside), refused(400, "InvalidArgument"));
    let open = copy(1).copy_source_range("bytes=5-").send().await;
    assert_eq!(outcome(open), refused(400, "InvalidArgument"));
    let mut parts = Vec::new();
    for (number, range) in [(1, Some("bytes=2-6")), (2, None)] {
        let answer = copy(number)
            .copy_source_if_match(&etag)
            .set_copy_source_range(range.map(str::to_owned));
        let result = answer.send().await.unwrap().copy_part_result.unwrap();
        let part = CompletedPart::builder()
            .part_number(number)
            .set_e_tag(result.e_tag);
        parts.push(part.set_checksum_crc32(result.checksum_crc32).build());
    }
    assert_eq!(complete(&client, "key", &id, list(parts)).await, fine());
    assert_eq!(
        server.object(BUCKET, "key").unwrap().bytes,
        "234560123456789"
    );
}

#[tokio::test]
async fn a_range_is_copied_only_from_a_source_larger_than_the_smallest_part() {
    let (server, client) = start(DemoConfig::default()).await;
    let id = create(&client, "key").await;
    for (len, want) in [
        (5 << 20, refused(400, "InvalidRequest")),
        ((5 << 20) + 1, fine()),
    ] {
        server.put(BUCKET, "source", vec![7; len]).await.unwrap();
        let copy = client
            .upload_part_copy()
            .bucket(BUCKET)
            .key("key")
            .upload_id(&id);
        let copy = copy.part_number(1).copy_source("bucket/source");
        let part = copy.clone().copy_source_range("bytes=0-9").send().await;
        assert_eq!(outcome(part), want, "{len}");
        // All of it may be copied, however small it is.
        assert_eq!(outcome(copy.send().await), fine(), "{len}");
    }
}

#[tokio::test]
async fn a_store_may_refuse_to_copy_parts() {
    let (server, client) = small_parts().await;
    put(&client, "source", "0123456789").await;
    let id = create(&client, "key").await;
    let refusal = Effect::refuse(501, "NotImplemented");
    let fault = server.faults().add(Rule::new(refusal).on("UploadPartCopy"));
    let copy = client
        .upload_part_copy()
        .bucket(BUCKET)
        .key("key")
        .upload_id(&id);
    let copy = copy
        .part_number(1)
        .copy_source("bucket/source")
        .send()
        .await;
    assert_eq!(outcome(copy), refused(501, "NotImplemented"));
    assert_eq!(fault.fired(), 1);
}

#[tokio::test]
async fn a_store_may_copy_parts_wrongly_and_say_nothing() {
    let (server, client) = small_parts().await;
    put(&client, "source", "0123456789").await;
    let short = Miscopy::Short { missing: 2 };
    for (how, want) in [
        (Miscopy::Corrupt { at: 1 }, "22456"),
        (short, "234"),
        (Miscopy::Whole, "0123456789"),
    ] {
        let fault = server.faults().add(
            Rule::new(Effect::Miscopy(how))
                .times(1)
                .on("UploadPartCopy"),
        );
        let id = create(&client, "key").await;
        let copy = client
            .upload_part_copy()
            .bucket(BUCKET)
            .key("key")
            .upload_id(&id);
        let copy = copy.part_number(1).copy_source("bucket/source");
        let copied = copy.copy_source_range("bytes=2-6").send().await.unwrap();
        assert_eq!(fault.fired(), 1, "{how:?}");
        let result = copied.copy_part_result.unwrap();
        let part = CompletedPart::builder()
            .part_number(1)
            .set_e_tag(result.e_tag);
        let part = part.set_checksum_crc32(result.checksum_crc32).build();
        assert_eq!(complete(&client, "key", &id, list([part])).await, fine());
        assert_eq!(server.object(BUCKET, "key").unwrap().bytes, want, "{how:?}");
    }
}

#[tokio::test]
async fn the_bytes_of_each_operation_are_counted_as_they_go_by() {
    let (server, client) = small_parts().await;
    server
        .put(BUCKET, "source", vec![7; 1_000_000])
        .await
        .unwrap();
    assert_eq!(
        server.traffic(),
        [].into(),
        "what goes past the wire is no traffic"
    );
    let id = create(&client, "key").await;
    let part = client
        .upload_part()
        .bucket(BUCKET)
        .key("key")
        .upload_id(&id)
        .part_number(1);
    part.body(body(vec![1; 300_000])).send().await.unwrap();
    let copy = client
        .upload_part_copy()
        .bucket(BUCKET)
        .key("key")
        .upload_id(&id)
        .part_number(2);
    copy.copy_source("bucket/source")
        .copy_source_range("bytes=0-499999")
        .send()
        .await
        .unwrap();
    let sent = server.traffic_of("UploadPart");
    assert_eq!(sent.requests, 1);
    // The SDK sends a signed stream, whose chunks have heads.
    assert!((300_000..301_000).contains(&sent.received), "{sent:?}");
    let copied = server.traffic_of("UploadPartCopy");
    assert_eq!((copied.requests, copied.received), (1, 0));
    assert!(copied.sent < 1000, "{copied:?}");

    let cut = server
        .faults()
        .add(Rule::new(Effect::CutBody { after: 5000 }));
    let whole = client
        .get_object()
        .bucket(BUCKET)
        .key("source")
        .send()
        .await
        .unwrap();
    assert!(whole.body.collect().await.is_err());
    cut.wait_fired(1).await;
    assert_eq!(server.traffic_of("GetObject").sent, 5000);
}

#[tokio::test]
async fn whole_object_checksums_are_joined_from_parts() {
    let (_server, client) = small_parts().await;
    let create = client.create_multipart_upload().bucket(BUCKET).key("key");
    let create = create
        .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
        .checksum_type(ChecksumType::FullObject);
    let id = create.send().await.unwrap().upload_id.unwrap();
    let mut parts = Vec::new();
    for (number, bytes) in [(1, "hello"), (2, " world")] {
        let part = |algorithm| {
            let part = client
                .upload_part()
                .bucket(BUCKET)
                .key("key")
                .upload_id(&id);
            part.part_number(number)
                .checksum_algorithm(algorithm)
                .body(body(bytes))
                .send()
        };
        let wrong = part(ChecksumAlgorithm::Crc32).await;
        assert_eq!(outcome(wrong), refused(400, "InvalidRequest"));
        let etag = part(ChecksumAlgorithm::Crc64Nvme).await.unwrap().e_tag;
        parts.push(
            CompletedPart::builder()
                .part_number(number)
                .set_e_tag(etag)
                .build(),
        );
    }
    assert_eq!(complete(&client, "key", &id, list(parts)).await, fine());

    let plain = client
        .put_object()
        .bucket(BUCKET)
        .key("plain")
        .body(body("hello world"));
    let plain = plain
        .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
        .send()
        .await
        .unwrap();
    let head = client
        .head_object()
        .bucket(BUCKET)
        .key("key")
        .checksum_mode(ChecksumMode::Enabled);
    let head = head.send().await.unwrap();
    assert_eq!(head.checksum_crc64_nvme(), plain.checksum_crc64_nvme());
    assert_eq!(head.checksum_type(), Some(&ChecksumType::FullObject));

    // A copy of it is an object of one piece, with a plain ETag.
    let copy = client
        .copy_object()
        .bucket(BUCKET)
        .key("copy")
        .copy_source("bucket/key")
        .send()
        .await;
    let copied = copy.unwrap().copy_object_result.unwrap();
    assert_eq!(copied.e_tag, plain.e_tag);
}

#[tokio::test]
async fn uploads_and_parts_are_listed_in_pages() {
    let (_server, client) = small_parts().await;
    let mut made = Vec::new();
    for key in ["b", "a", "b", "dir/1", "dir/2"] {
        made.push((key.to_owned(), create(&client, key).await));
    }
    made.sort();
    let mut seen = Vec::new();
    let (mut key, mut id) = (None, None);
    loop {
        let page = client
            .list_multipart_uploads()
            .bucket(BUCKET)
            .max_uploads(2);
        let page = page
            .set_key_marker(key)
            .set_upload_id_marker(id)
            .send()
            .await
            .unwrap();
        let entry = |upload: &aws_sdk_s3::types::MultipartUpload| {
            (
                upload.key().unwrap().to_owned(),
                upload.upload_id().unwrap().to_owned(),
            )
        };
        seen.extend(page.uploads().iter().map(entry));
        if page.is_truncated() != Some(true) {
            break;
        }
        (key, id) = (page.next_key_marker, page.next_upload_id_marker);
    }
    assert_eq!(seen, made);
    let rolled = client
        .list_multipart_uploads()
        .bucket(BUCKET)
        .delimiter("/")
        .send()
        .await
        .unwrap();
    assert_eq!(rolled.uploads().len(), 3);
    assert_eq!(rolled.common_prefixes()[0].prefix(), Some("dir/"));

    let (id, _) = upload(&client, "parts", &["one", "three", "five!"]).await;
    let list = || {
        client
            .list_parts()
            .bucket(BUCKET)
            .key("parts")
            .upload_id(&id)
    };
    let page = list().max_parts(2).send().await.unwrap();
    let sizes: Vec<_> = page
        .parts()
        .iter()
        .map(|part| (part.part_number(), part.size()))
        .collect();
    assert_eq!(sizes, [(Some(1), Some(3)), (Some(2), Some(5))]);
    assert_eq!(page.is_truncated(), Some(true));
    let page = list()
        .part_number_marker(page.next_part_number_marker().unwrap())
        .send()
        .await
        .unwrap();
    assert_eq!(page.parts()[0].part_number(), Some(3));
}

#[tokio::test]
async fn a_composite_checksum_needs_each_parts_value() {
    let (_server, client) = small_parts().await;
    let create = client.create_multipart_upload().bucket(BUCKET).key("key");
    let create = create
        .checksum_algorithm(ChecksumAlgorithm::Crc32)
        .send()
        .await
        .unwrap();
    assert_eq!(create.checksum_type(), Some(&ChecksumType::Composite));
    let id = create.upload_id.unwrap();
    let parts = [
        send(&client, "key", &id, 1, "hello").await,
        send(&client, "key", &id, 2, "!").await,
    ];
    let mut bare = parts.clone();
    bare[0].checksum_crc32 = None;
    assert_eq!(
        complete(&client, "key", &id, list(bare)).await,
        refused(400, "InvalidRequest")
    );
    let mut wrong = parts.clone();
    wrong[0].checksum_crc32 = wrong[1].checksum_crc32.clone();
    assert_eq!(
        complete(&client, "key", &id, list(wrong)).await,
        refused(400, "InvalidPart")
    );
    assert_eq!(complete(&client, "key", &id, list(parts)).await, fine());
    let head = client
        .head_object()
        .bucket(BUCKET)
        .key("key")
        .checksum_mode(ChecksumMode::Enabled);
    let head = head.send().await.unwrap();
    assert_eq!(head.checksum_type(), Some(&ChecksumType::Composite));
    assert!(head.checksum_crc32().unwrap().ends_with("-2"));
}
