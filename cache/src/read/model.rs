//! The read path against a model (the object's bytes) under random use, and its speed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use proptest::prelude::*;

use super::tests::{KIB, MIB, ReadWorld, read};
use super::*;
use crate::disk::sim::SimDisk;
use crate::disk_cache::{DiskCache, DiskConfig};
use crate::extent::Extent;
use crate::memory::BLOCK;
use crate::store::memory::{Call, Fault};
use crate::store::{StoreErrorKind, StoreResult};

#[derive(Debug, Clone)]
enum ReadOp {
    /// Reads at an offset by a handle.
    At(usize, u64, u64),
    /// Goes on where the handle's last read ended.
    On(usize, u64),
    /// Several reads at once, each where the one before it ends.
    Many(usize, Vec<u64>),
    /// Begins to wait for a read and gives up.
    Quit(usize, u64, u64),
    Reopen(usize),
    /// The next GET, or its body after so many bytes, breaks.
    Break(Option<u64>),
    Adopt(u64, u64),
    Forget,
    /// The disk must be waited for, or fails.
    DropCaches,
    FailReads(bool),
}

const HANDLES: usize = 3;

fn ops(size: u64) -> impl Strategy<Value = Vec<ReadOp>> {
    let handle = || 0..HANDLES;
    let len = || prop_oneof![1..200u64, Just(4096), 1..300 * KIB, Just(MIB), 0..3 * MIB];
    let op = prop_oneof![
        6 => (handle(), 0..size + 10, len()).prop_map(|(of, at, len)| ReadOp::At(of, at, len)),
        12 => (handle(), len()).prop_map(|(of, len)| ReadOp::On(of, len)),
        4 => (handle(), proptest::collection::vec(len(), 2..6))
            .prop_map(|(of, lens)| ReadOp::Many(of, lens)),
        2 => (handle(), 0..size, len()).prop_map(|(of, at, len)| ReadOp::Quit(of, at, len)),
        1 => handle().prop_map(ReadOp::Reopen),
        1 => proptest::option::of(0..MIB).prop_map(ReadOp::Break),
        1 => (0..size, 1..2 * MIB).prop_map(|(at, len)| ReadOp::Adopt(at, len)),
        1 => Just(ReadOp::Forget),
        1 => Just(ReadOp::DropCaches),
        1 => any::<bool>().prop_map(ReadOp::FailReads),
    ];
    proptest::collection::vec(op, 1..60)
}

/// Ok with the model's bytes, or the error that was injected.
fn agrees(got: StoreResult<Vec<u8>>, bytes: &[u8], offset: u64, len: u64, broken: bool) {
    let from = (offset as usize).min(bytes.len());
    let to = (offset.saturating_add(len) as usize).min(bytes.len());
    match got {
        Ok(got) => assert!(got == bytes[from..to], "bytes at {offset} + {len}"),
        Err(error) => assert!(broken && error.kind == StoreErrorKind::Broken, "{error}"),
    }
}

/// A cache on a disk in memory, of which the test keeps a handle.
fn sim(size_max: u64) -> (SimDisk, Arc<DiskCache>) {
    let disk = SimDisk::new(1);
    let config = DiskConfig::new("/cache", size_max);
    let cache = DiskCache::open_on(Arc::new(disk.clone()), config).unwrap();
    (disk, cache)
}

async fn run(size: u64, clean_max: u64, fills: u64, disk_max: Option<u64>, ops: Vec<ReadOp>) {
    let disk = disk_max.map(sim);
    let tier = disk.as_ref().map(|(_, tier)| tier.clone());
    let world = ReadWorld::with_disk(clean_max, fills, tier);
    let (id, bytes) = world.plant("a", size);
    let open = || world.cache.stream(id.clone(), size);
    let mut handles: Vec<(Stream, u64)> = (0..HANDLES).map(|_| (open(), 0)).collect();
    // An injected fault meets whichever GET comes next, readahead's too.
    let mut broken = false;
    for op in ops {
        match op {
            ReadOp::At(of, at, len) => {
                let got = read(&handles[of].0, at, len).await;
                agrees(got, &bytes, at, len, broken);
                handles[of].1 = at.saturating_add(len).min(size);
            }
            ReadOp::On(of, len) => {
                let at = handles[of].1;
                let got = read(&handles[of].0, at, len).await;
                agrees(got, &bytes, at, len, broken);
                handles[of].1 = (at + len) % size;
            }
            ReadOp::Many(of, lens) => {
                let (stream, at) = &mut handles[of];
                let mut reads = Vec::new();
                for len in lens {
                    let stream = &*stream;
                    let offset = *at;
                    reads.push(async move { (offset, len, read(stream, offset, len).await) });
                    *at = (*at + len) % size;
                }
                for (offset, len, got) in futures_util::future::join_all(reads).await {
                    agrees(got, &bytes, offset, len, broken);
                }
            }
            ReadOp::Quit(of, at, len) => {
                let mut buf = vec![0; len as usize];
                let read = handles[of].0.read(at, &mut buf);
                // Lets it come to its first wait.
                let _ = tokio::time::timeout(std::time::Duration::ZERO, read).await;
            }
            ReadOp::Reopen(of) => handles[of] = (open(), 0),
            ReadOp::Break(after) => {
                broken = true;
                let fault = match after {
                    Some(after) => Fault::CutBody(after, StoreErrorKind::Broken),
                    None => Fault::Fail(StoreErrorKind::Broken),
                };
                world.store.inject(Call::Get, fault);
            }
            ReadOp::Adopt(at, len) => {
                let extent = Extent::between(at, size.min(at + len));
                let piece = bytes[at as usize..extent.end() as usize].to_vec();
                world
                    .cache
                    .adopt(&id, size, vec![(extent, piece.into())], None);
            }
            ReadOp::Forget => world.cache.forget(&id),
            ReadOp::FailReads(fails) => {
                if let Some((disk, _)) = &disk {
                    disk.fail_reads(fails.then_some(5));
                }
            }
            ReadOp::DropCaches => {
                if let Some((disk, _)) = &disk {
                    disk.drop_caches();
                }
            }
        }
        assert!(world.fills.used() <= world.fills.bound());
        assert!(world.cache.stats().memory_bytes <= clean_max + BLOCK);
    }
    drop(handles);
    world.at_rest().await;
    if disk.is_some() {
        // What is queued for the disk has a bound of its own.
        return;
    }
    let most = world.store.handed().1 as u64;
    // Beside the bounds: five readers' own bytes, and a block on its way from one to the other.
    let bound = clean_max + world.fills.bound() + 5 * 3 * MIB + BLOCK;
    assert!(most <= bound, "{most} of {bound}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is read, by several handles, with faults, little memory and readers that give up:
    /// each read gives the object's bytes or the injected error, and memory stays within bounds.
    #[test]
    fn any_reads_give_the_objects_bytes(
        (size, ops) in prop_oneof![1..MIB + 5, MIB..12 * MIB]
            .prop_flat_map(|size| (Just(size), ops(size))),
        clean_max in prop_oneof![Just(0), Just(300 * KIB), Just(4 * MIB), Just(64 * MIB)],
        fills in prop_oneof![Just(64 * KIB), Just(MIB), Just(8 * MIB), Just(64 * MIB)],
        disk_max in proptest::option::of(prop_oneof![Just(2 * MIB), Just(64 * MIB)]),
    ) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(run(size, clean_max, fills, disk_max, ops));
    }
}

/// Ring threads and tasks at once: what interleaves only on real threads.
#[test]
fn readers_on_several_threads_get_the_objects_bytes() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let _in = runtime.enter();
    let world = ReadWorld::new(3 * MIB, 6 * MIB);
    let size = 30 * MIB + 17;
    let (id, bytes) = world.plant("a", size);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (world, id, bytes, stop) = (&world, &id, &bytes, &stop);
            let runtime = runtime.handle();
            scope.spawn(move || {
                let mut state = 0x9E37_79B9_7F4A_7C15 ^ thread;
                let mut random = move |below: u64| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state % below
                };
                let mut stream = world.cache.stream(id.clone(), size);
                let mut at = 0;
                for step in 0..1500 {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    if random(100) == 0 {
                        stream = world.cache.stream(id.clone(), size);
                    }
                    if random(8) == 0 || at >= size {
                        at = random(size);
                    }
                    let len = [4096, 128 * KIB, 1 + random(MIB)][step % 3];
                    let got = runtime.block_on(read(&stream, at, len)).unwrap();
                    let right = got == bytes[at as usize..][..got.len()];
                    if !right {
                        stop.store(true, Ordering::Relaxed);
                    }
                    assert!(right, "bytes at {at}");
                    at += got.len() as u64;
                }
            });
        }
    });
    runtime.block_on(world.at_rest());
}

/// What one cache brought and kept on disk serves the next one: whole, in part, and where it is
/// corrupt the store does.
#[tokio::test]
async fn the_disk_serves_what_it_holds_and_the_store_the_rest() {
    let (disk, tier) = sim(64 * MIB);
    let world = ReadWorld::with_disk(0, 16 * MIB, Some(tier.clone()));
    let size = 4 * MIB;
    let (id, bytes) = world.plant("a", size);
    let half = bytes[..2 << 20].to_vec();
    world.cache.adopt(
        &id,
        size,
        vec![(Extent::new(0, 2 * MIB), half.into())],
        None,
    );
    tier.sync().await;
    let stream = world.cache.stream(id.clone(), size);
    let mut buf = vec![0; 1 << 20];
    assert_eq!(stream.read_now(MIB, &mut buf), Some(1 << 20));
    assert!(buf == bytes[1 << 20..2 << 20]);
    disk.drop_caches();
    // Half of this one is on disk, which must be waited for, and half in the store.
    let across = read(&stream, 3 * MIB / 2, MIB).await.unwrap();
    assert!(across == bytes[3 << 19..5 << 19]);
    let gets = world.store.gets();
    assert!(
        gets.iter().all(|(get, _)| get.offset >= 2 * MIB),
        "{gets:?}"
    );
    let stats = world.cache.stats();
    assert!(stats.disk_hit_bytes >= 3 * MIB / 2 && stats.misses == 1);
    read(&stream, 2 * MIB, 2 * MIB).await.unwrap();
    world.at_rest().await;
    tier.sync().await;
    world.store.gets();

    // All of it is on disk now. Another start serves it without the store.
    drop(stream);
    drop(world);
    drop(tier);
    let open = || {
        let config = DiskConfig::new("/cache", 64 * MIB);
        DiskCache::open_on(Arc::new(disk.clone()), config).unwrap()
    };
    let tier = open();
    let world = ReadWorld::with_disk(0, 16 * MIB, Some(tier.clone()));
    assert_eq!(world.plant("a", size).0, id);
    let stream = world.cache.stream(id.clone(), size);
    assert!(read(&stream, 0, size).await.unwrap() == bytes);
    assert_eq!(world.store.gets(), []);
    drop((stream, world, tier));

    // One byte differs when the next one looks.
    let spoiled = disk
        .paths()
        .iter()
        .filter(|path| disk.corrupt(path, MIB + 7))
        .count();
    assert!(spoiled > 0);
    let tier = open();
    let world = ReadWorld::with_disk(0, 16 * MIB, Some(tier));
    world.plant("a", size);
    let stream = world.cache.stream(id, size);
    assert!(read(&stream, 0, size).await.unwrap() == bytes);
    assert!(!world.store.gets().is_empty());
    assert_eq!(world.cache.stats().corrupt_extents, 1);
}

#[test]
#[ignore = "a measurement, by hand: cargo test --release -p ackfs-cache --lib -- --ignored --nocapture read::model::bench"]
fn bench() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let _in = runtime.enter();
    hits(&ReadWorld::new(64 * MIB, 64 * MIB), &runtime);
    random(&ReadWorld::new(64 * MIB, 64 * MIB), &runtime);
    for len in [128 * KIB, MIB] {
        sequential(&ReadWorld::new(32 * MIB, 64 * MIB), &runtime, len);
    }
    let dir = tempfile::tempdir().unwrap();
    let config = DiskConfig::new(dir.path(), 4 << 30);
    let disk = DiskCache::open(config).unwrap();
    let world = ReadWorld::with_disk(32 * MIB, 64 * MIB, Some(disk.clone()));
    println!("with a disk tier in {}:", dir.path().display());
    sequential(&world, &runtime, 128 * KIB);
    runtime.block_on(disk.sync());
    println!("{:?}", disk.stats());
}

/// Seconds of CPU of all threads.
fn cpu() -> f64 {
    use nix::sys::resource::{UsageWho, getrusage};
    use nix::sys::time::TimeVal;
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

/// Misses of 4 KiB, each with its two hops, as the gateway has them.
fn random(world: &ReadWorld, runtime: &tokio::runtime::Runtime) {
    let size = 1 << 30;
    let id = world.plant("random", size).0;
    let stream = Arc::new(world.cache.stream(id, size));
    let (start, began, count) = (Instant::now(), cpu(), 20_000);
    for turn in 0..count {
        let at = (turn + 1) * 7919 * 13 % (size / 4096) * 4096;
        let mut buf = vec![0; 4096];
        assert_eq!(stream.read_now(at, &mut buf), None);
        let stream = stream.clone();
        let task = runtime.spawn(async move { stream.read(at, &mut buf).await });
        assert_eq!(runtime.block_on(task).unwrap().unwrap(), 4096);
    }
    println!(
        "miss 4 KiB, random: {:.0} us and {:.0} us CPU each",
        start.elapsed().as_micros() as f64 / count as f64,
        (cpu() - began) * 1e6 / count as f64,
    );
}

fn hits(world: &ReadWorld, runtime: &tokio::runtime::Runtime) {
    let size = 32 * MIB;
    let id = world.plant("hits", size).0;
    let stream = world.cache.stream(id.clone(), size);
    runtime.block_on(read(&stream, 0, size)).unwrap();
    runtime.block_on(async {
        for at in (0..size).step_by(128 << 10) {
            read(&stream, at, 128 * KIB).await.unwrap();
        }
    });
    for (name, step) in [("sequential", 4096), ("scattered", 7919 * 4096)] {
        for threads in [1, 2] {
            let count = 1_000_000u64;
            let began = cpu();
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    let stream = world.cache.stream(id.clone(), size);
                    scope.spawn(move || {
                        let mut buf = vec![0; 4096];
                        for turn in 0..count {
                            let at = turn * step % size;
                            assert_eq!(stream.read_now(at, &mut buf), Some(4096));
                        }
                    });
                }
            });
            let each = (cpu() - began) * 1e9 / (threads * count) as f64;
            println!("hit 4 KiB, {name}, {threads} threads: {each:.0} ns CPU each");
        }
    }
}

fn sequential(world: &ReadWorld, runtime: &tokio::runtime::Runtime, len: u64) {
    let size = 1 << 30;
    let id = world.plant("cold", size).0;
    for turn in 0..3 {
        world.cache.forget(&id);
        let stream = world.cache.stream(id.clone(), size);
        let mut buf = vec![0; len as usize];
        let (start, began) = (Instant::now(), cpu());
        let mut hops = 0;
        for at in (0..size).step_by(len as usize) {
            if stream.read_now(at, &mut buf).is_none() {
                hops += 1;
                let read = runtime.block_on(stream.read(at, &mut buf));
                assert_eq!(read.unwrap() as u64, len);
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "cold 1 GiB by {} KiB, turn {turn}: {:.0} MiB/s, {:.2} CPU s, {hops} of {} reads waited, most held {} MiB",
            len / KIB,
            1024.0 / seconds,
            cpu() - began,
            size / len,
            world.store.handed().1 as u64 / MIB,
        );
    }
}
