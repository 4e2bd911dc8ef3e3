//! What the store costs beside the bare SDK, at the same MinIO, in one run, interleaved. Prints a
//! table of medians; fails only if this store needs far more CPU than the SDK alone.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ackfs_cache::extent::Extent;
use ackfs_cache::object::{Key, ObjectId};
use ackfs_cache::store::{Condition, Metadata, ObjectStore, PartBytes, Priority};
use aws_sdk_s3::Client;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use nix::sys::resource::{UsageWho, getrusage};

use super::bucket::{TestBucket, credentials, endpoint};
use super::{collect, connect};
use crate::s3::S3Config;

const MIB: u64 = 1 << 20;
const SIZE: u64 = 1024 * MIB;
const GET_LEN: u64 = 8 * MIB;
const PART_LEN: u64 = 16 * MIB;
const IN_FLIGHT: usize = 4;
const SMALL: usize = 10_000;
const SMALL_COUNT: usize = 640;
const ROUNDS: usize = 3;

/// What one piece of work took.
#[derive(Debug, Clone, Copy)]
struct Cost {
    time: Duration,
    cpu: Duration,
}

fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let of = |time: nix::sys::time::TimeVal| {
        Duration::from_secs(time.tv_sec() as u64) + Duration::from_micros(time.tv_usec() as u64)
    };
    of(usage.user_time()) + of(usage.system_time())
}

async fn cost(work: impl Future<Output = ()>) -> Cost {
    let (began, before) = (Instant::now(), cpu());
    work.await;
    Cost {
        time: began.elapsed(),
        cpu: cpu().saturating_sub(before),
    }
}

/// The SDK as it comes, but for the endpoint.
fn bare() -> Client {
    let (access, secret) = credentials();
    let location = super::location(&endpoint(), &access, &secret);
    let config = aws_sdk_s3::config::Builder::from(&location.sdk)
        .http_client(connect::http_client(64))
        .region(location.region.clone())
        .endpoint_url(endpoint())
        .force_path_style(true)
        .build();
    Client::from_conf(config)
}

fn extents(len: u64) -> impl Iterator<Item = Extent> {
    (0..SIZE / len).map(move |at| Extent::new(at * len, len))
}

async fn bare_get(client: &Client, bucket: &str) {
    futures_util::stream::iter(extents(GET_LEN))
        .map(|extent| async move {
            let range = format!("bytes={}-{}", extent.offset, extent.end() - 1);
            let request = client.get_object().bucket(bucket).key("big").range(range);
            let mut body = request.send().await.unwrap().body;
            let mut len = 0;
            while let Some(chunk) = body.try_next().await.unwrap() {
                len += chunk.len();
            }
            assert_eq!(len as u64, GET_LEN);
        })
        .buffer_unordered(IN_FLIGHT)
        .collect::<()>()
        .await;
}

async fn our_get(bucket: &TestBucket, id: &ObjectId) {
    futures_util::stream::iter(extents(GET_LEN))
        .map(|extent| async move {
            let fetched = bucket.store.get(id, extent, Priority::Readahead).await;
            let mut body = fetched.unwrap().body;
            let mut len = 0;
            while let Some(chunk) = body.chunk().await.unwrap() {
                len += chunk.len();
            }
            assert_eq!(len as u64, GET_LEN);
        })
        .buffer_unordered(IN_FLIGHT)
        .collect::<()>()
        .await;
}

/// Pieces of 128 KiB, as a writer's dirty bytes come.
fn pieces(bytes: &Bytes) -> Vec<Bytes> {
    (0..bytes.len())
        .step_by(128 << 10)
        .map(|at| bytes.slice(at..bytes.len().min(at + (128 << 10))))
        .collect()
}

async fn bare_upload(client: &Client, bucket: &str, part: &Bytes) {
    let create = client.create_multipart_upload().bucket(bucket).key("up");
    let upload = create.send().await.unwrap().upload_id.unwrap();
    let upload = &upload;
    let mut parts: Vec<_> = futures_util::stream::iter(1..=(SIZE / PART_LEN) as i32)
        .map(|number| async move {
            let request = client
                .upload_part()
                .bucket(bucket)
                .key("up")
                .upload_id(upload)
                .part_number(number)
                .body(part.clone().into());
            let output = request.send().await.unwrap();
            CompletedPart::builder()
                .part_number(number)
                .set_e_tag(output.e_tag)
                .set_checksum_crc32(output.checksum_crc32)
                .build()
        })
        .buffer_unordered(IN_FLIGHT)
        .collect()
        .await;
    parts.sort_by_key(CompletedPart::part_number);
    let parts = CompletedMultipartUpload::builder()
        .set_parts(Some(parts))
        .build();
    let complete = client.complete_multipart_upload().bucket(bucket).key("up");
    let complete = complete.upload_id(upload).multipart_upload(parts).send();
    complete.await.unwrap();
}

async fn our_upload(bucket: &TestBucket, part: &Bytes) {
    let (store, key) = (&bucket.store, &Key::new("up"));
    let upload = store
        .create_multipart(key, &Metadata::default())
        .await
        .unwrap();
    let upload = &upload;
    let parts: Vec<_> = futures_util::stream::iter(1..=(SIZE / PART_LEN) as u32)
        .map(|number| {
            let here = pieces(part).into_iter().map(PartBytes::Here);
            store.put_part(key, upload, number, here.collect())
        })
        .buffer_unordered(IN_FLIGHT)
        .try_collect()
        .await
        .unwrap();
    store
        .complete(key, upload, &parts, &Condition::None)
        .await
        .unwrap();
}

async fn bare_puts(client: &Client, bucket: &str, body: &Bytes, at_once: usize) {
    futures_util::stream::iter(0..SMALL_COUNT)
        .map(|at| async move {
            let request = client
                .put_object()
                .bucket(bucket)
                .key(format!("small-{at}"));
            request.body(body.clone().into()).send().await.unwrap();
        })
        .buffer_unordered(at_once)
        .collect::<()>()
        .await;
}

async fn our_puts(bucket: &TestBucket, body: &Bytes, at_once: usize) {
    futures_util::stream::iter(0..SMALL_COUNT)
        .map(|at| async move {
            let (key, metadata) = (Key::new(format!("small-{at}")), Metadata::default());
            let body = vec![body.clone()];
            let put = bucket.store.put(&key, body, &metadata, &Condition::None);
            put.await.unwrap();
        })
        .buffer_unordered(at_once)
        .collect::<()>()
        .await;
}

fn median(costs: &[Cost]) -> Cost {
    let middle = |of: fn(&Cost) -> Duration| {
        let mut all: Vec<_> = costs.iter().map(of).collect();
        all.sort_unstable();
        all[all.len() / 2]
    };
    Cost {
        time: middle(|cost| cost.time),
        cpu: middle(|cost| cost.cpu),
    }
}

fn report(name: &str, bare: &[Cost], ours: &[Cost], units: f64, unit: &str) {
    let (bare, ours) = (median(bare), median(ours));
    let rate = |cost: Cost| units / cost.time.as_secs_f64();
    println!(
        "{name:<24} SDK {:>7.0} {unit} {:>6.3} s CPU | ours {:>7.0} {unit} {:>6.3} s CPU | {:.2}x",
        rate(bare),
        bare.cpu.as_secs_f64(),
        rate(ours),
        ours.cpu.as_secs_f64(),
        rate(ours) / rate(bare),
    );
    assert!(
        ours.cpu.as_secs_f64() < 1.5 * bare.cpu.as_secs_f64() + 0.05,
        "{name} costs far more CPU than the SDK alone"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "a measurement, by hand, at a MinIO: ACKFS_TEST_MINIO=URL cargo test --release -p ackfs --lib -- --ignored --nocapture s3::tests::speed"]
async fn the_store_costs_little_beside_the_sdk() {
    let bucket = TestBucket::new(S3Config::new("")).await;
    let name = bucket.store.core.config.bucket.clone();
    let client = bare();
    let part = Bytes::from(
        (0..PART_LEN)
            .map(|i| ((i * 31) >> 5) as u8)
            .collect::<Vec<_>>(),
    );
    let small = part.slice(..SMALL);
    our_upload(&bucket, &part).await;
    client
        .copy_object()
        .bucket(&name)
        .key("big")
        .copy_source(format!("{name}/up"))
        .send()
        .await
        .unwrap();
    let key = Key::new("big");
    let etag = bucket.store.head(&key).await.unwrap().etag;
    let id = ObjectId::new(key, etag);
    let mut probe = bucket
        .store
        .get(&id, Extent::new(0, 10), Priority::Interactive)
        .await
        .unwrap();
    assert_eq!(collect(probe.body.as_mut()).await.unwrap(), part[..10]);

    let mut costs: Vec<[Vec<Cost>; 2]> = (0..4).map(|_| [Vec::new(), Vec::new()]).collect();
    for _round in 0..ROUNDS {
        costs[0][0].push(cost(bare_get(&client, &name)).await);
        costs[0][1].push(cost(our_get(&bucket, &id)).await);
        costs[1][0].push(cost(bare_puts(&client, &name, &small, 1)).await);
        costs[1][1].push(cost(our_puts(&bucket, &small, 1)).await);
        costs[2][0].push(cost(bare_puts(&client, &name, &small, 8)).await);
        costs[2][1].push(cost(our_puts(&bucket, &small, 8)).await);
        costs[3][0].push(cost(bare_upload(&client, &name, &part)).await);
        costs[3][1].push(cost(our_upload(&bucket, &part)).await);
    }
    let mib = (SIZE / MIB) as f64;
    report(
        "GET 1 GiB, 4 at once",
        &costs[0][0],
        &costs[0][1],
        mib,
        "MiB/s",
    );
    let count = SMALL_COUNT as f64;
    report(
        "PUT 640 x 10 kB",
        &costs[1][0],
        &costs[1][1],
        count,
        "/s   ",
    );
    report(
        "PUT 640 x 10 kB, 8",
        &costs[2][0],
        &costs[2][1],
        count,
        "/s   ",
    );
    report(
        "parts 1 GiB, 4 at once",
        &costs[3][0],
        &costs[3][1],
        mib,
        "MiB/s",
    );
    let _keep = Arc::clone(&bucket.store);
    bucket.remove().await;
}
