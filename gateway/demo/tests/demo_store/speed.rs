//! How fast the store serves and takes; run by hand:
//! `cargo test -p ackfs-demo --release --test demo_store speed -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use ackfs_demo::DemoConfig;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};

use super::{BUCKET, start};

const MIB: u64 = 1 << 20;

fn cpu() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
    let of = |time: nix::sys::time::TimeVal| {
        Duration::from_secs(time.tv_sec() as u64) + Duration::from_micros(time.tv_usec() as u64)
    };
    of(usage.user_time()) + of(usage.system_time())
}

fn report(what: &str, bytes: u64, begin: Instant, cpu_before: Duration) {
    let (elapsed, used) = (
        begin.elapsed().as_secs_f64(),
        cpu().as_secs_f64() - cpu_before.as_secs_f64(),
    );
    let mib = bytes as f64 / MIB as f64;
    let gib = mib / 1024.0;
    println!(
        "{what}: {:.0} MiB/s, client and server together {:.2} CPU s/GiB",
        mib / elapsed,
        used / gib
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, by hand: cargo test --release -p ackfs-demo --test demo_store -- --ignored --nocapture speed"]
async fn speed_of_a_gibibyte() {
    let (server, client) = start(DemoConfig::default()).await;
    let (begin, before) = (Instant::now(), cpu());
    let parts = 64;
    let part = Bytes::from(vec![7u8; 16 * MIB as usize]);
    let create = client
        .create_multipart_upload()
        .bucket(BUCKET)
        .key("big")
        .send()
        .await
        .unwrap();
    let id = create.upload_id.unwrap();
    let sent: Vec<_> = stream::iter(1..=parts)
        .map(|number| {
            let request = client
                .upload_part()
                .bucket(BUCKET)
                .key("big")
                .upload_id(&id)
                .part_number(number);
            let part = part.clone();
            async move {
                let sent = request.body(part.into()).send().await.unwrap();
                aws_sdk_s3::types::CompletedPart::builder()
                    .part_number(number)
                    .set_e_tag(sent.e_tag)
                    .set_checksum_crc32(sent.checksum_crc32)
                    .build()
            }
        })
        .buffered(4)
        .collect()
        .await;
    let list = aws_sdk_s3::types::CompletedMultipartUpload::builder()
        .set_parts(Some(sent))
        .build();
    let complete = client
        .complete_multipart_upload()
        .bucket(BUCKET)
        .key("big")
        .upload_id(id);
    complete.multipart_upload(list).send().await.unwrap();
    report(
        "multipart, 4 parts of 16 MiB in flight",
        1024 * MIB,
        begin,
        before,
    );

    for (in_flight, len) in [(4, 8 * MIB), (1, 8 * MIB), (4, MIB), (1, 1024 * MIB)] {
        let (begin, before) = (Instant::now(), cpu());
        let total: u64 = stream::iter((0..1024 * MIB).step_by(len as usize))
            .map(|at| {
                let range = format!("bytes={at}-{}", at + len - 1);
                let get = client.get_object().bucket(BUCKET).key("big").range(range);
                async move {
                    let mut body = get.send().await.unwrap().body;
                    let mut got = 0;
                    while let Some(bytes) = body.next().await {
                        got += bytes.unwrap().len() as u64;
                    }
                    got
                }
            })
            .buffered(in_flight)
            .fold(0, |total, got| async move { total + got })
            .await;
        assert_eq!(total, 1024 * MIB);
        report(
            &format!("{in_flight} ranged GETs of {} MiB in flight", len / MIB),
            total,
            begin,
            before,
        );
    }
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, by hand: cargo test --release -p ackfs-demo --test demo_store -- --ignored --nocapture speed"]
async fn speed_of_small_puts() {
    let (_server, client) = start(DemoConfig::default()).await;
    for in_flight in [1, 8] {
        let (begin, before) = (Instant::now(), cpu());
        let count = 4000;
        stream::iter(0..count)
            .map(|index| {
                let put = client.put_object().bucket(BUCKET).key(format!("{index}"));
                async move { put.body(vec![7; 10_000].into()).send().await.unwrap() }
            })
            .buffer_unordered(in_flight)
            .for_each(|_| async {})
            .await;
        let (elapsed, used) = (begin.elapsed().as_secs_f64(), cpu().saturating_sub(before));
        let each = used.as_secs_f64() * 1000.0 / f64::from(count);
        println!(
            "{in_flight} in flight: {:.0} puts of 10 kB/s, {each:.2} ms CPU each",
            f64::from(count) / elapsed
        );
    }
}
