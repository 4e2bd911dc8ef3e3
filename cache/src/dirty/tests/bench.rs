//! What the write path itself costs, against a store that takes everything and keeps nothing:
//! `cargo test --release -p ackfs-cache --lib dirty::tests::bench -- --ignored --nocapture`.

use std::time::Instant;

use bytes::Bytes;

use super::*;
use crate::disk::blocking::BlockingDisk;
use crate::extent::Extent;
use crate::read::ReadConfig;
use crate::store::{
    BoxFuture, Condition, CopyMetadata, Fetched, ListPage, ListRequest, ObjectInfo, Part,
    PartBytes, Priority, StoreResult,
};

#[derive(Debug)]
struct Nowhere;

fn refuse<'a, T: Send + 'a>() -> BoxFuture<'a, StoreResult<T>> {
    let error = StoreError::new(StoreErrorKind::Rejected, "this store keeps nothing");
    Box::pin(std::future::ready(Err(error)))
}

fn accept<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, StoreResult<T>> {
    Box::pin(async move {
        tokio::task::yield_now().await;
        Ok(value)
    })
}

#[rustfmt::skip]
impl ObjectStore for Nowhere {
    fn head<'a>(&'a self, _: &'a Key) -> BoxFuture<'a, StoreResult<ObjectInfo>> {
        refuse()
    }
    fn get<'a>(&'a self, _: &'a ObjectId, _: Extent, _: Priority) -> BoxFuture<'a, StoreResult<Fetched>> {
        refuse()
    }
    fn list(&self, _: ListRequest) -> BoxFuture<'_, StoreResult<ListPage>> {
        refuse()
    }
    fn put<'a>(&'a self, _: &'a Key, _: Vec<Bytes>, _: &'a Metadata, _: &'a Condition) -> BoxFuture<'a, StoreResult<ETag>> {
        accept(ETag::new("e"))
    }
    fn create_multipart<'a>(&'a self, _: &'a Key, _: &'a Metadata) -> BoxFuture<'a, StoreResult<UploadId>> {
        accept(UploadId("u".to_owned()))
    }
    fn put_part<'a>(&'a self, _: &'a Key, _: &'a UploadId, number: u32, _: Vec<PartBytes>) -> BoxFuture<'a, StoreResult<Part>> {
        accept(Part { number, etag: ETag::new("p"), checksum: None, size: 0 })
    }
    fn copy_part<'a>(&'a self, _: &'a Key, _: &'a UploadId, _: u32, _: &'a ObjectId, _: Extent) -> BoxFuture<'a, StoreResult<Part>> {
        refuse()
    }
    fn complete<'a>(&'a self, _: &'a Key, _: &'a UploadId, _: &'a [Part], _: &'a Condition) -> BoxFuture<'a, StoreResult<ETag>> {
        accept(ETag::new("e"))
    }
    fn abort<'a>(&'a self, _: &'a Key, _: &'a UploadId) -> BoxFuture<'a, StoreResult<()>> {
        accept(())
    }
    fn copy<'a>(&'a self, _: &'a ObjectId, _: &'a Key, _: CopyMetadata, _: &'a Condition) -> BoxFuture<'a, StoreResult<ETag>> {
        refuse()
    }
    fn delete<'a>(&'a self, _: &'a Key, _: Option<&'a ETag>) -> BoxFuture<'a, StoreResult<()>> {
        refuse()
    }
}

fn writer(memory: u64, staging: Option<Arc<Staging>>) -> Arc<Writer> {
    let store = Arc::new(Nowhere);
    let runtime = tokio::runtime::Handle::current();
    let reads = ReadConfig {
        clean_max: 1 << 20,
        fills: Budget::new(4 << 20).share(4 << 20),
        readahead_max: 0,
    };
    let config = WriteConfig {
        memory: Budget::new(memory).share(memory),
        part_size: 8 << 20,
        parts_in_flight_max: 4,
        staging,
        on_conflict: OnConflict::Fail,
    };
    let reader = ReadCache::new(reads, store.clone(), None, runtime.clone());
    Writer::new(config, store, reader, runtime)
}

/// User and system time of the process, in seconds.
fn cpu() -> f64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

async fn write_gibibyte(name: &str, writer: &Arc<Writer>, step: usize) {
    let data = vec![7; step];
    let (start, before) = (Instant::now(), cpu());
    let file = writer.begin(Key::new("f"), Base::Absent);
    let mut waited = 0;
    for at in (0..1 << 30).step_by(step) {
        if !file.write_now(at, &data) {
            waited += 1;
            file.write(at, &data).await.unwrap();
        }
    }
    let staged = writer.stats().staged_bytes >> 20;
    let wrote = start.elapsed().as_secs_f64();
    publish(&file).await.unwrap();
    println!(
        "{name}: 1 GiB in writes of {} KiB: {wrote:.2} s + publish {:.2} s, {:.2} CPU s/GiB, \
         {waited} writes waited, {staged} MiB staged",
        step >> 10,
        start.elapsed().as_secs_f64() - wrote,
        cpu() - before,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, by hand: cargo test --release -p ackfs-cache --lib -- --ignored --nocapture dirty::tests::bench"]
async fn sequential_writes_and_small_files() {
    for step in [4 << 10, 128 << 10, 1 << 20] {
        write_gibibyte("memory only", &writer(3 << 30, None), step).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(BlockingDisk::start(2).unwrap());
    for step in [4 << 10, 128 << 10, 1 << 20] {
        let staging = Arc::new(Staging::new(dir.path(), disk.clone()));
        write_gibibyte("64 MiB and staging", &writer(64 << 20, Some(staging)), step).await;
    }
    let writer = writer(64 << 20, None);
    let data = vec![7; 10_000];
    let (start, before) = (Instant::now(), cpu());
    let count = 20_000;
    for _ in 0..count {
        let file = writer.begin(Key::new("f"), Base::Absent);
        assert!(file.write_now(0, &data));
        publish(&file).await.unwrap();
    }
    println!(
        "10 kB files: {:.1} us each, {:.1} CPU us each",
        start.elapsed().as_secs_f64() * 1e6 / f64::from(count),
        (cpu() - before) * 1e6 / f64::from(count),
    );
}
