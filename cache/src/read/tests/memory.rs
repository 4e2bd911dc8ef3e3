//! Whose memory it is, and what is adopted into it.

use super::*;

#[tokio::test]
async fn a_demanded_read_takes_the_memory_of_readahead_nobody_reads() {
    let world = ReadWorld::new(4 * MIB, 8 * MIB);
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
    world.at_rest().await;
}

#[tokio::test]
async fn idle_handles_do_not_keep_a_busy_one_from_readahead() {
    let world = ReadWorld::new(8 * MIB, 32 * MIB);
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
async fn records_go_with_the_last_of_their_bytes() {
    let world = ReadWorld::new(2 * MIB, 8 * MIB);
    for name in 0..50 {
        let (stream, _) = world.open(&format!("{name}"), 500 * KIB);
        read(&stream, 0, 500 * KIB).await.unwrap();
    }
    let other = world.plant("other", 5 * MIB).0;
    world.cache.forget(&other);
    assert!(world.cache.stats().memory_bytes <= 2 * MIB);
    // Those that moka has evicted and not yet destroyed may linger.
    assert!(world.cache.records.count() <= 50);
}

#[tokio::test]
async fn adopted_bytes_are_read_without_the_store() {
    let world = ReadWorld::new(64 * MIB, 8 * MIB);
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
    let world = ReadWorld::new(64 * MIB, 8 * MIB);
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
    let world = ReadWorld::new(4 * MIB, 8 * MIB);
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
