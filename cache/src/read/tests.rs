//! The read path over a store in memory: one claim a test. What every reader gets; [`fetches`] has what that
//! costs the store, [`memory`] and [`disk`] what it costs here.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::Bytes;

use super::*;
use crate::budget::{Budget, Share};
use crate::disk_cache::DiskCache;
use crate::extent::Extent;
use crate::object::{Key, ObjectId};
use crate::store::memory::{Call, Fault, MemoryStore};
use crate::store::{Priority, StoreErrorKind, StoreResult};

mod disk;
mod fetches;
mod memory;

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;

pub(super) struct ReadWorld {
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

impl ReadWorld {
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
    async fn at_rest_after(&self, stream: Stream) {
        drop(stream);
        self.at_rest().await;
    }

    /// Every fetch has ended and nothing is held unread.
    pub(super) async fn at_rest(&self) {
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
    let world = ReadWorld::new(64 * MIB, 64 * MIB);
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
    let world = ReadWorld::new(64 * MIB, 64 * MIB);
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
    let world = ReadWorld::new(64 * MIB, 64 * MIB);
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
    while !stream.record.find(0).unwrap().has(256 * KIB - 1) {
        tokio::task::yield_now().await;
    }
    assert_eq!(stream.read_now(128 * KIB, &mut buf), Some(128 << 10));
    assert_eq!(buf, bytes[128 << 10..256 << 10]);
}

#[tokio::test]
async fn a_reader_that_gives_up_takes_nothing_from_others() {
    let world = ReadWorld::new(64 * MIB, 64 * MIB);
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
    let world = ReadWorld::new(64 * MIB, 64 * MIB);
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
    let world = ReadWorld::new(64 * MIB, 64 * MIB);
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
    let world = ReadWorld::new(64 * MIB, 64 * MIB);
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
async fn a_store_that_brings_too_little_is_an_error_and_no_bytes() {
    let world = ReadWorld::new(4 * MIB, 8 * MIB);
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
        ReadWorld::new(MIB, 8 * MIB)
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
