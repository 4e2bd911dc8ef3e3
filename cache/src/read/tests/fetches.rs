//! What is asked of the store for what is read.

use super::*;

#[tokio::test]
async fn random_reads_fetch_exactly_their_pages() {
    let world = ReadWorld::new(64 * MIB, 64 * MIB);
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
    world.at_rest().await;
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
fn covered_once(world: &ReadWorld, size: u64) {
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
        let world = ReadWorld::new(clean_max, fills);
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
        world.at_rest().await;
        assert!(world.cache.stats().memory_bytes <= clean_max);
    }
}

#[tokio::test]
async fn readers_out_of_order_fetch_each_byte_once() {
    let world = ReadWorld::new(32 * MIB, 48 * MIB);
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
    let world = ReadWorld::new(64 * MIB, 48 * MIB);
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
    let world = ReadWorld::new(64 * MIB, 48 * MIB);
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
    let world = ReadWorld::new(64 * MIB, 48 * MIB);
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
    let world = ReadWorld::new(64 * MIB, 48 * MIB);
    let (stream, _) = world.open("a", 100 * MIB);
    for at in (MIB..100 * MIB).step_by(MIB as usize) {
        read(&stream, at, 8192).await.unwrap();
    }
    assert_eq!(world.cache.stats().fetched_bytes, 99 * 8192);
}

#[tokio::test]
async fn readahead_of_a_closed_stream_is_given_up() {
    let world = ReadWorld::new(4 * MIB, 64 * MIB);
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
