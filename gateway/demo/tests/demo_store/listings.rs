//! Listings: order, pages, delimiters, and what an entry says.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ackfs_demo::DemoConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::types::EncodingType;

use super::{BUCKET, outcome, put, refused, start};

/// All pages of a listing: keys, common prefixes, number of pages.
async fn walk(
    client: &Client,
    prefix: &str,
    delimiter: Option<&str>,
    max: i32,
) -> (Vec<String>, Vec<String>, usize) {
    let (mut keys, mut prefixes, mut pages) = (Vec::new(), Vec::new(), 0);
    let mut token = None;
    loop {
        let page = client
            .list_objects_v2()
            .bucket(BUCKET)
            .prefix(prefix)
            .set_delimiter(delimiter.map(str::to_owned))
            .max_keys(max)
            .set_continuation_token(token)
            .send()
            .await
            .unwrap();
        pages += 1;
        let count = page.contents().len() + page.common_prefixes().len();
        assert_eq!(page.key_count(), Some(count as i32));
        assert!(count <= max as usize);
        keys.extend(
            page.contents()
                .iter()
                .map(|object| object.key().unwrap().to_owned()),
        );
        prefixes.extend(
            page.common_prefixes()
                .iter()
                .map(|prefix| prefix.prefix().unwrap().to_owned()),
        );
        token = page.next_continuation_token().map(str::to_owned);
        assert_eq!(token.is_some(), page.is_truncated().unwrap());
        if token.is_none() {
            return (keys, prefixes, pages);
        }
    }
}

#[tokio::test]
async fn ten_thousand_keys_are_paged_with_and_without_delimiter() {
    let (server, client) = start(DemoConfig::default()).await;
    let mut all = BTreeSet::new();
    for index in 0..10_000 {
        let key = if index % 4 == 0 {
            format!("plain-{index:05}")
        } else {
            format!("dir-{:03}/file-{index:05}", index % 500)
        };
        server.put(BUCKET, &key, "").await.unwrap();
        all.insert(key);
    }
    let (keys, prefixes, pages) = walk(&client, "", None, 1000).await;
    assert!(
        keys.iter().eq(all.iter()),
        "byte order, nothing twice, nothing missing"
    );
    assert_eq!((prefixes.len(), pages), (0, 10));

    let (keys, prefixes, pages) = walk(&client, "", Some("/"), 700).await;
    let directories: BTreeSet<_> = all
        .iter()
        .filter_map(|key| key.split_once('/'))
        .map(|(dir, _)| format!("{dir}/"))
        .collect();
    assert!(prefixes.iter().eq(directories.iter()));
    assert!(keys.iter().eq(all.iter().filter(|key| !key.contains('/'))));
    assert_eq!(pages, (directories.len() + 2500).div_ceil(700));

    let (keys, prefixes, _) = walk(&client, "dir-001/", Some("/"), 3).await;
    assert!(
        keys.iter()
            .eq(all.iter().filter(|key| key.starts_with("dir-001/")))
    );
    assert!(prefixes.is_empty());
}

#[tokio::test]
async fn a_million_keys_below_ten_directories_are_ten_steps() {
    let (server, client) = start(DemoConfig::default()).await;
    // Debug builds make 100,000 in the time a release build makes a million.
    let count = if cfg!(debug_assertions) {
        100_000
    } else {
        1_000_000
    };
    for index in 0..count {
        let key = format!("{}/{index:07}", index % 10);
        server.put(BUCKET, &key, "").await.unwrap();
    }
    let begin = Instant::now();
    walk(&client, "", None, 1000).await;
    let scan = begin.elapsed();
    // The machine may stand still during some of them.
    let mut seek = Duration::MAX;
    for _ in 0..20 {
        let begin = Instant::now();
        let (keys, prefixes, pages) = walk(&client, "", Some("/"), 1000).await;
        assert_eq!((keys.len(), prefixes.len(), pages), (0, 10, 1));
        seek = seek.min(begin.elapsed());
    }
    println!("{count} keys: a listing by seek {seek:?}, a full walk {scan:?}");
    assert!(
        seek < scan / 20,
        "a listing by delimiter must not walk what lies below: {seek:?} {scan:?}"
    );
}

#[tokio::test]
async fn a_key_its_namesake_directory_and_marker_are_all_listed() {
    let (_server, client) = start(DemoConfig::default()).await;
    for key in ["a", "a/", "a/b", "ab"] {
        put(&client, key, key).await;
    }
    let (keys, prefixes, _) = walk(&client, "", Some("/"), 1000).await;
    assert_eq!(
        (keys, prefixes),
        (vec!["a".into(), "ab".into()], vec!["a/".into()])
    );
    let (keys, _, _) = walk(&client, "a/", Some("/"), 1000).await;
    assert_eq!(keys, ["a/", "a/b"]);
    for key in ["a", "a/", "a/b"] {
        let got = client
            .get_object()
            .bucket(BUCKET)
            .key(key)
            .send()
            .await
            .unwrap();
        assert_eq!(got.body.collect().await.unwrap().into_bytes(), key);
    }
}

#[tokio::test]
async fn entries_say_what_head_says() {
    let (_server, client) = start(DemoConfig::default()).await;
    let etag = put(&client, "key", "hello").await;
    let page = client
        .list_objects_v2()
        .bucket(BUCKET)
        .send()
        .await
        .unwrap();
    let head = client
        .head_object()
        .bucket(BUCKET)
        .key("key")
        .send()
        .await
        .unwrap();
    let entry = &page.contents()[0];
    assert_eq!(
        (entry.e_tag(), entry.size()),
        (Some(etag.as_str()), Some(5))
    );
    assert_eq!(entry.last_modified(), head.last_modified());
}

#[tokio::test]
async fn pages_begin_where_they_are_told() {
    let (_server, client) = start(DemoConfig::default()).await;
    for key in ["a", "b", "c/1", "c/2", "d"] {
        put(&client, key, "").await;
    }
    let after = client
        .list_objects_v2()
        .bucket(BUCKET)
        .start_after("b")
        .send()
        .await
        .unwrap();
    assert_eq!(after.contents()[0].key(), Some("c/1"));
    let none = client
        .list_objects_v2()
        .bucket(BUCKET)
        .max_keys(0)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (none.is_truncated(), none.key_count()),
        (Some(false), Some(0))
    );
    let bad = client
        .list_objects_v2()
        .bucket(BUCKET)
        .continuation_token("%")
        .send()
        .await;
    assert_eq!(outcome(bad), refused(400, "InvalidArgument"));

    let page = client
        .list_objects()
        .bucket(BUCKET)
        .delimiter("/")
        .max_keys(3)
        .send()
        .await
        .unwrap();
    assert_eq!(page.common_prefixes()[0].prefix(), Some("c/"));
    let marker = page.next_marker().unwrap();
    let page = client
        .list_objects()
        .bucket(BUCKET)
        .delimiter("/")
        .marker(marker)
        .send()
        .await
        .unwrap();
    assert_eq!(page.contents()[0].key(), Some("d"));
    assert_eq!(page.common_prefixes().len(), 0);
}

#[tokio::test]
async fn names_are_encoded_on_request() {
    let (_server, client) = start(DemoConfig::default()).await;
    put(&client, "a b/é", "").await;
    let page = client
        .list_objects_v2()
        .bucket(BUCKET)
        .encoding_type(EncodingType::Url)
        .send()
        .await
        .unwrap();
    assert_eq!(page.contents()[0].key(), Some("a%20b/%C3%A9"));
    let page = client
        .list_objects_v2()
        .bucket(BUCKET)
        .send()
        .await
        .unwrap();
    assert_eq!(page.contents()[0].key(), Some("a b/é"));
}
