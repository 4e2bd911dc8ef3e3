//! The read path over a store in memory: one claim a test.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use super::*;
use crate::budget::Budget;
use crate::object::Key;
use crate::store::memory::{Call, Fault, MemoryStore};
use crate::store::{Priority, StoreErrorKind, StoreResult};

mod disk;

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;

pub(super) struct World {
    pub(super) store: Arc<MemoryStore>,
    pub(super) cache: Arc<ReadCache>,
    pub(super) fills: Share,
}

/// Words that tell their offset.
pub(super) fn content(size: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size as usize + 8);
    for word in 0..size.div_ceil(8) {
        bytes.extend_from_slice(&(word.wrapping_mul(0x9E37_79B9_7F4A_7C15)).to_le_bytes());
    }
    bytes.truncate(size as usize);
    bytes
}

impl World {
    pub(super) fn new(clean_max: u64, fills: u64) -> Self {
        Self::with_disk(clean_max, fills, None)
    }

    pub(super) fn with_disk(clean_max: u64, fills: u64, disk: Option<Arc<DiskCache>>) -> Self {
        let store = MemoryStore::new();
        let fills = Budget::new(1 << 40).share(fills);
        let config = ReadConfig {
            clean_max,
            fills: fills.clone(),
            readahead_max: 64 * MIB,
        };
        let runtime = tokio::runtime::Handle::current();
        let cache = ReadCache::new(config, store.clone(), disk, runtime);
        Self {
            store,
            cache,
            fills,
        }
    }

    /// The reader is gone, and all that was fetched for it is at rest.
    async fn settled_after(&self, stream: Stream) {
        drop(stream);
        self.settled().await;
    }

    /// Every fetch has ended and nothing is held unread.
    pub(super) async fn settled(&self) {
        let start = std::time::Instant::now();
        while self.fills.used() > 0 {
            let used = self.fills.used();
            assert!(start.elapsed().as_secs() < 60, "{used} bytes still granted");
            tokio::task::yield_now().await;
        }
    }

    pub(super) fn plant(&self, key: &str, size: u64) -> (ObjectId, Vec<u8>) {
        let bytes = content(size);
        let etag = self.store.plant(key, bytes.clone());
        (ObjectId::new(Key::new(key), etag), bytes)
    }

    pub(super) fn open(&self, key: &str, size: u64) -> (Stream, Vec<u8>) {
        let (id, bytes) = self.plant(key, size);
        (self.cache.stream(id, size), bytes)
    }
}

/// Reads as the filesystem does: what is here at once, else by waiting.
pub(super) async fn read(stream: &Stream, offset: u64, len: u64) -> StoreResult<Vec<u8>> {
    let mut buf = vec![0xEE; len as usize];
    let got = match stream.read_now(offset, &mut buf) {
        Some(got) => got,
        None => stream.read(offset, &mut buf).await?,
    };
    buf.truncate(got);
    Ok(buf)
}

fn pending<F: Future>(future: &mut Pin<Box<F>>) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    future.as_mut().poll(&mut context).is_pending()
}

#[tokio::test]
async fn a_read_gives_the_objects_bytes_and_is_short_at_the_end() {
    let world = World::new(64 * MIB, 64 * MIB);
    let (stream, bytes) = world.open("a", 3 * MIB + 5);
    assert_eq!(read(&stream, 100, 1000).await.unwrap(), bytes[100..1100]);
    assert_eq!(read(&stream, 3 * MIB, MIB).await.unwrap(), bytes[3 << 20..]);
    assert_eq!(read(&stream, 4 * MIB, MIB).await.unwrap(), b"");
    assert_eq!(read(&stream, u64::MAX, MIB).await.unwrap(), b"");
    let (empty, _) = world.open("empty", 0);
    assert_eq!(read(&empty, 0, MIB).await.unwrap(), b"");
}

#[tokio::test]
async fn joined_readers_cost_one_get() {
    let world = World::new(64 * MIB, 64 * MIB);
    let (id, bytes) = world.plant("a", 600 * KIB);
    let gate = world.store.gate(Call::Get);
    let mut readers = Vec::new();
    for offset in 0..20 {
        let stream = world.cache.stream(id.clone(), bytes.len() as u64);
        readers.push(tokio::spawn(async move {
            let offset = offset * 20 * KIB;
            (offset, read(&stream, offset, 20 * KIB).await.unwrap())
        }));
    }
    tokio::task::yield_now().await;
    gate.open();
    for reader in readers {
        let (offset, got) = reader.await.unwrap();
        assert_eq!(got, bytes[offset as usize..][..20 << 10]);
    }
    assert_eq!(world.store.gets().len(), 1);
}

#[tokio::test]
async fn a_reader_is_answered_when_its_bytes_have_arrived() {
    let world = World::new(64 * MIB, 64 * MIB);
    let (stream, bytes) = world.open("a", 100 * MIB);
    let trickle = world.store.trickle();
    let mut buf = vec![0; 128 << 10];
    assert_eq!(stream.read_now(0, &mut buf), None);
    assert_eq!(world.store.calls().len(), 0, "nothing ran yet");
    let mut near = Box::pin(stream.read(0, &mut buf));
    assert!(pending(&mut near));
    trickle.let_through(128 * KIB - 1);
    for _ in 0..20 {
        tokio::task::yield_now().await;
        assert!(pending(&mut near));
    }
    trickle.let_through(128 * KIB);
    near.await.unwrap();
    assert_eq!(buf, bytes[..128 << 10]);
    let [(extent, priority)] = world.store.gets()[..] else {
        panic!("one GET")
    };
    assert_eq!(
        (extent, priority),
        (Extent::new(0, MIB + 128 * KIB), Priority::Interactive)
    );
    // What has arrived since is served without waiting.
    trickle.let_through(256 * KIB);
    while !stream.object.find(0).unwrap().has(256 * KIB - 1) {
        tokio::task::yield_now().await;
    }
    assert_eq!(stream.read_now(128 * KIB, &mut buf), Some(128 << 10));
    assert_eq!(buf, bytes[128 << 10..256 << 10]);
}

#[tokio::test]
async fn a_reader_that_gives_up_takes_nothing_from_others() {
    let world = World::new(64 * MIB, 64 * MIB);
    let (stream, bytes) = world.open("a", 100 * MIB);
    let gate = world.store.gate(Call::Get);
    let (mut first, mut second) = (vec![0; 4096], vec![0; 4096]);
    let mut quits = Box::pin(stream.read(50 * MIB, &mut first));
    let mut stays = Box::pin(stream.read(50 * MIB, &mut second));
    assert!(pending(&mut quits));
    assert!(pending(&mut stays));
    drop(quits);
    gate.open();
    assert_eq!(stays.await.unwrap(), 4096);
    assert_eq!(second, bytes[50 << 20..][..4096]);
    assert_eq!(world.store.gets().len(), 1);
}

#[tokio::test]
async fn a_cut_body_fails_only_those_whose_bytes_are_missing() {
    let world = World::new(64 * MIB, 64 * MIB);
    let (stream, bytes) = world.open("a", 100 * MIB);
    world
        .store
        .inject(Call::Get, Fault::CutBody(300 * KIB, StoreErrorKind::Broken));
    let mut bufs = [(); 3].map(|()| vec![0; 200 << 10]);
    let [one, two, three] = &mut bufs;
    let (one, two, three) = tokio::join!(
        stream.read(0, one),
        stream.read(100 * KIB, two),
        stream.read(200 * KIB, three),
    );
    assert_eq!(one.unwrap(), 200 << 10);
    assert_eq!(two.unwrap(), 200 << 10);
    assert_eq!(three.unwrap_err().kind, StoreErrorKind::Broken);
    assert_eq!(bufs[1], bytes[100 << 10..300 << 10]);
    // The error is not kept: the next one fetches again.
    assert_eq!(
        read(&stream, 200 * KIB, MIB).await.unwrap(),
        bytes[200 << 10..][..1 << 20]
    );
}

#[tokio::test]
async fn a_version_that_is_gone_fails_what_is_not_here_and_nothing_else() {
    let world = World::new(64 * MIB, 64 * MIB);
    let (stream, bytes) = world.open("a", 100 * MIB);
    assert_eq!(
        read(&stream, 50 * MIB, MIB).await.unwrap(),
        bytes[50 << 20..][..1 << 20]
    );
    world.store.plant("a", vec![7; 100 << 20]);
    let (mut one, mut two) = (vec![0; 4096], vec![0; 4096]);
    let (one, two) = tokio::join!(
        stream.read(80 * MIB, &mut one),
        stream.read(80 * MIB, &mut two)
    );
    assert_eq!(one.unwrap_err().kind, StoreErrorKind::Changed);
    assert_eq!(two.unwrap_err().kind, StoreErrorKind::Changed);
    assert_eq!(
        read(&stream, 50 * MIB, MIB).await.unwrap(),
        bytes[50 << 20..][..1 << 20]
    );
    world.store.uproot("a");
    let gone = read(&stream, 70 * MIB, 10).await.unwrap_err();
    assert_eq!(gone.kind, StoreErrorKind::NotFound);
}

#[tokio::test]
async fn a_changed_body_midway_never_mixes_versions() {
    let world = World::new(64 * MIB, 64 * MIB);
    let (stream, bytes) = world.open("a", 20 * MIB);
    world
        .store
        .inject(Call::Get, Fault::CutBody(MIB, StoreErrorKind::Changed));
    let mut good = 0;
    let mut changed = 0;
    for offset in (0..20 * MIB).step_by(256 << 10) {
        if offset == MIB {
            world.store.plant("a", vec![7; 20 << 20]);
        }
        match read(&stream, offset, 256 * KIB).await {
            Ok(got) => {
                assert_eq!(got, bytes[offset as usize..][..256 << 10]);
                good += 1;
            }
            Err(error) => {
                assert_eq!(error.kind, StoreErrorKind::Changed);
                changed += 1;
            }
        }
    }
    assert!(good >= 4 && changed > 0, "{good} good, {changed} changed");
}

#[tokio::test]
async fn random_reads_fetch_exactly_their_pages() {
    let world = World::new(64 * MIB, 64 * MIB);
    let (stream, bytes) = world.open("a", 200 * MIB);
    let mut wanted = Vec::new();
    for step in 1..500u64 {
        let offset = (step * 7919 * 4096 * 13) % (200 * MIB);
        assert_eq!(
            read(&stream, offset, 4096).await.unwrap(),
            bytes[offset as usize..][..4096]
        );
        wanted.push((Extent::new(offset, 4096), Priority::Interactive));
    }
    assert_eq!(world.store.gets(), wanted);
    world.settled().await;
    // All of it is held as what it is, and pins nothing of the bodies.
    assert_eq!(world.cache.stats().memory_bytes, 499 * 4096);
    assert_eq!(world.store.handed().0, 0);
    let mut buf = [0; 4096];
    assert_eq!(stream.read_now(wanted[7].0.offset, &mut buf), Some(4096));
    // A read that is not on whole pages fetches those that hold it.
    read(&stream, 12_289, 4096).await.unwrap();
    assert_eq!(world.store.gets()[0].0, Extent::new(12_288, 8192));
}

/// The store's GETs cover `[0, size)` once each.
fn covered_once(world: &World, size: u64) {
    let mut gets: Vec<Extent> = world.store.gets().iter().map(|(get, _)| *get).collect();
    gets.sort_unstable_by_key(|get| get.offset);
    let mut at = 0;
    for get in gets {
        assert_eq!(get.offset, at, "a gap or bytes fetched twice");
        at = get.end();
    }
    assert_eq!(at, size);
}

#[tokio::test]
async fn a_sequential_reader_fetches_each_byte_once_within_its_memory() {
    for (clean_max, fills, len) in [
        (32 * MIB, 48 * MIB, 128 * KIB),
        (8 * MIB, 16 * MIB, MIB),
        (MIB, 4 * MIB, 100_000),
        (0, 2 * MIB, 64 * KIB),
    ] {
        let world = World::new(clean_max, fills);
        let size = 100 * MIB + 12_345;
        let (stream, bytes) = world.open("a", size);
        let mut at = 0;
        while at < size {
            let got = read(&stream, at, len).await.unwrap();
            assert!(got == bytes[at as usize..][..got.len()]);
            at += got.len() as u64;
        }
        covered_once(&world, size);
        // A block more while it moves from one to the other.
        let most = world.store.handed().1 as u64;
        assert!(
            most <= clean_max + fills + MIB + len,
            "{most} for {clean_max} + {fills}"
        );
        drop(stream);
        world.settled().await;
        assert!(world.cache.stats().memory_bytes <= clean_max);
    }
}

#[tokio::test]
async fn readers_out_of_order_fetch_each_byte_once() {
    let world = World::new(32 * MIB, 48 * MIB);
    let size = 60 * MIB;
    let (stream, bytes) = world.open("a", size);
    let len = 128 * KIB;
    for group in 0..size / len / 4 {
        let mut bufs = [(); 4].map(|()| vec![0; len as usize]);
        let [a, b, c, d] = &mut bufs;
        let at = group * 4 * len;
        let order = [at + 2 * len, at, at + 3 * len, at + len];
        let (a, b, c, d) = tokio::join!(
            stream.read(order[0], a),
            stream.read(order[1], b),
            stream.read(order[2], c),
            stream.read(order[3], d),
        );
        assert!(
            [a, b, c, d]
                .into_iter()
                .all(|read| read.unwrap() as u64 == len)
        );
        for (at, buf) in order.into_iter().zip(&bufs) {
            assert!(buf[..] == bytes[at as usize..][..len as usize]);
        }
    }
    covered_once(&world, size);
}

#[tokio::test]
async fn two_streams_of_one_object_share_their_fetches() {
    let world = World::new(64 * MIB, 48 * MIB);
    let (id, bytes) = world.plant("a", 40 * MIB);
    let streams = [(); 2].map(|()| world.cache.stream(id.clone(), 40 * MIB));
    for at in (0..40 * MIB).step_by(256 << 10) {
        for stream in &streams {
            let got = read(stream, at, 256 * KIB).await.unwrap();
            assert!(got == bytes[at as usize..][..256 << 10]);
        }
    }
    covered_once(&world, 40 * MIB);
}

#[tokio::test]
async fn two_interleaved_runs_of_one_stream_fetch_each_byte_once() {
    let world = World::new(64 * MIB, 48 * MIB);
    let (stream, bytes) = world.open("a", 80 * MIB);
    for at in (0..40 * MIB).step_by(128 << 10) {
        for at in [at, at + 40 * MIB] {
            let got = read(&stream, at, 128 * KIB).await.unwrap();
            assert!(got == bytes[at as usize..][..128 << 10]);
        }
    }
    covered_once(&world, 80 * MIB);
}

#[tokio::test]
async fn a_backward_reader_fetches_each_byte_once() {
    let world = World::new(64 * MIB, 48 * MIB);
    let (stream, bytes) = world.open("a", 40 * MIB);
    for step in (0..640).rev() {
        let at = step * 64 * KIB;
        let got = read(&stream, at, 64 * KIB).await.unwrap();
        assert!(got == bytes[at as usize..][..64 << 10]);
    }
    assert!(
        world.store.gets().len() < 80,
        "pieces of a MiB, not of 64 KiB"
    );
    assert_eq!(world.cache.stats().fetched_bytes, 40 * MIB);
}

#[tokio::test]
async fn a_strided_reader_fetches_what_it_reads() {
    let world = World::new(64 * MIB, 48 * MIB);
    let (stream, _) = world.open("a", 100 * MIB);
    for at in (MIB..100 * MIB).step_by(MIB as usize) {
        read(&stream, at, 8192).await.unwrap();
    }
    assert_eq!(world.cache.stats().fetched_bytes, 99 * 8192);
}

#[tokio::test]
async fn a_demanded_read_takes_the_memory_of_readahead_nobody_reads() {
    let world = World::new(4 * MIB, 8 * MIB);
    let (idle, _) = world.open("idle", 100 * MIB);
    let (busy, bytes) = world.open("busy", 100 * MIB);
    for at in 0..4 {
        read(&idle, at * MIB, MIB).await.unwrap();
    }
    while world.store.handed().0 == 0 || world.fills.used() == 0 {
        tokio::task::yield_now().await;
    }
    // Far more than the share, all of it random, each read larger than what is free.
    for step in 1..40 {
        let at = (step * 7) % 90 * MIB;
        assert!(read(&busy, at, 3 * MIB).await.unwrap() == bytes[at as usize..][..3 << 20]);
    }
    drop((idle, busy));
    world.settled().await;
}

#[tokio::test]
async fn idle_handles_do_not_keep_a_busy_one_from_readahead() {
    let world = World::new(8 * MIB, 32 * MIB);
    let mut idle = Vec::new();
    for name in 0..12 {
        let (stream, _) = world.open(&format!("idle-{name}"), 16 * MIB);
        for at in 0..4 {
            read(&stream, at * MIB, MIB).await.unwrap();
        }
        idle.push(stream);
    }
    let (busy, _) = world.open("busy", 300 * MIB);
    for at in (0..300 * MIB).step_by(128 << 10) {
        if at == 200 * MIB {
            world.store.gets();
        }
        read(&busy, at, 128 * KIB).await.unwrap();
    }
    let gets = world.store.gets();
    assert!(
        gets.len() <= 100 / 8 + 1,
        "whole units in the end: {gets:?}"
    );
}

#[tokio::test]
async fn readahead_of_a_closed_stream_is_given_up() {
    let world = World::new(4 * MIB, 64 * MIB);
    let (stream, _) = world.open("a", 100 * MIB);
    for at in 0..8 {
        read(&stream, at * MIB, MIB).await.unwrap();
    }
    let gate = world.store.gate(Call::Get);
    for at in 8..16 {
        let mut buf = vec![0; MIB as usize];
        stream.read_now(at * MIB, &mut buf);
    }
    assert!(world.fills.used() > 0);
    drop(stream);
    tokio::task::yield_now().await;
    assert_eq!(
        world.fills.used(),
        0,
        "at once, with the store still silent"
    );
    gate.open();
}

#[tokio::test]
async fn records_go_with_the_last_of_their_bytes() {
    let world = World::new(2 * MIB, 8 * MIB);
    for name in 0..50 {
        let (stream, _) = world.open(&format!("{name}"), 500 * KIB);
        read(&stream, 0, 500 * KIB).await.unwrap();
    }
    let other = world.plant("other", 5 * MIB).0;
    world.cache.forget(&other);
    assert!(world.cache.stats().memory_bytes <= 2 * MIB);
    // Those that moka has evicted and not yet destroyed may linger.
    assert!(world.cache.objects.count() <= 50);
}

#[tokio::test]
async fn adopted_bytes_are_read_without_the_store() {
    let world = World::new(64 * MIB, 8 * MIB);
    let (id, bytes) = world.plant("a", 3 * MIB + 777);
    let size = bytes.len() as u64;
    let all = Bytes::from(bytes.clone());
    let cut = |from: u64, to: u64| {
        let piece = all.slice(from as usize..to as usize);
        (Extent::between(from, to), piece)
    };
    let pieces = vec![cut(MIB + 5, size), cut(0, 4096), cut(4096, MIB + 5)];
    world.cache.adopt(&id, size, pieces, None);
    let stream = world.cache.stream(id.clone(), size);
    let mut buf = vec![0; size as usize];
    assert_eq!(stream.read_now(0, &mut buf), Some(size as usize));
    assert!(buf == bytes);
    assert_eq!(world.store.calls(), []);
    drop(stream);
    world.cache.forget(&id);
    assert_eq!(world.cache.stats().memory_bytes, 0);
    let stream = world.cache.stream(id, size);
    assert!(read(&stream, 0, size).await.unwrap() == bytes);
    assert!(!world.store.gets().is_empty());
}

/// `adopt` takes pieces in any order and with gaps, but small ones of one block were copied together
/// as if each followed the one before, so the bytes after a gap were found where the gap is. The
/// publish hands over one run at a time and never met it. A gap stays a gap now, and is fetched.
#[tokio::test]
async fn adopted_pieces_with_a_gap_stay_where_they_belong() {
    let world = World::new(64 * MIB, 8 * MIB);
    let (id, bytes) = world.plant("a", 2 * MIB);
    let all = Bytes::from(bytes.clone());
    let cut = |from: u64, to: u64| {
        let piece = all.slice(from as usize..to as usize);
        (Extent::between(from, to), piece)
    };
    let pieces = vec![
        cut(0, 1000),
        cut(1000, 4096),
        cut(20_000, 30_000),
        cut(MIB + 5, MIB + 7),
    ];
    world.cache.adopt(&id, 2 * MIB, pieces, None);
    let stream = world.cache.stream(id, 2 * MIB);
    let mut buf = vec![0; 10_000];
    assert_eq!(stream.read_now(20_000, &mut buf), Some(10_000));
    assert!(buf == bytes[20_000..30_000]);
    assert_eq!(world.store.calls(), [], "what was adopted is here");
    assert!(read(&stream, 0, 2 * MIB).await.unwrap() == bytes);
}

#[tokio::test]
async fn adopting_more_than_memory_keeps_the_bound() {
    let world = World::new(4 * MIB, 8 * MIB);
    let (id, bytes) = world.plant("a", 20 * MIB);
    world.cache.adopt(
        &id,
        20 * MIB,
        vec![(Extent::new(0, 20 * MIB), bytes.into())],
        None,
    );
    let held = world.cache.stats().memory_bytes;
    assert!((2 * MIB..=4 * MIB).contains(&held), "{held}");
}

#[tokio::test]
async fn a_store_that_brings_too_little_is_an_error_and_no_bytes() {
    let world = World::new(4 * MIB, 8 * MIB);
    let etag = world.store.plant("short", content(MIB));
    let id = ObjectId::new(Key::new("short"), etag);
    // The handle believes in more bytes than the store has of this version.
    let stream = world.cache.stream(id, 3 * MIB);
    let error = read(&stream, 900 * KIB, 500 * KIB).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Broken);
    assert_eq!(read(&stream, 0, MIB).await.unwrap(), content(MIB));
}

#[test]
fn a_runtime_that_ends_answers_its_readers() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let other = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let world = {
        let _in = other.enter();
        World::new(MIB, 8 * MIB)
    };
    let (stream, _) = world.open("a", 5 * MIB);
    runtime.block_on(async {
        let mut buf = [0; 4096];
        let mut waits = Box::pin(stream.read(0, &mut buf));
        assert!(pending(&mut waits));
        other.shutdown_background();
        let error = waits.await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Broken);
    });
}
