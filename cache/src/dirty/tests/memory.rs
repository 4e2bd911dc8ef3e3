//! Memory and staging: what is bounded, who waits, who fails.

use std::time::Duration;

use super::*;
use crate::extent::Extent;
use crate::store::PartBytes;

#[tokio::test]
async fn appends_of_one_byte_share_buffers() {
    let world = world();
    let file = world.create();
    for at in 0..100_000 {
        assert!(file.write_now(at, &[at as u8]));
    }
    let extents = file.inner.state.lock().layers.count();
    assert!(extents < 20, "{extents} extents");
    let held = file.inner.meter.bytes();
    assert!(held < 300_000, "{held} bytes of memory");
    let expected: Vec<u8> = (0..100_000u64).map(|at| at as u8).collect();
    assert_eq!(contents(&file).await, expected);
}

#[tokio::test]
async fn small_appends_with_a_publish_after_each_share_memory() {
    let world = world();
    let file = world.create();
    for at in 0..200 {
        file.write(at * 10, &[at as u8; 10]).await.unwrap();
        publish(&file).await.unwrap();
    }
    assert!(file.inner.meter.bytes() <= 8192);
    assert_eq!(world.store.bytes("f").unwrap(), contents(&file).await);
}

#[tokio::test]
async fn rewriting_one_place_takes_no_more_memory() {
    let world = world();
    let file = world.create();
    for round in 0..10_000u64 {
        assert!(file.write_now(round % 7, &[round as u8; 4096]));
    }
    assert!(file.inner.meter.bytes() <= 3 * 4096);
}

#[tokio::test]
async fn a_sparse_tebibyte_takes_no_memory() {
    let world = world();
    let file = world.create();
    file.set_size(1 << 40).unwrap();
    assert_eq!(world.share.used(), world.writer.idle_bytes());
    file.write((1 << 40) - 3, b"end").await.unwrap();
    let mut buf = [9; 8];
    assert_eq!(file.read_now(1 << 39, &mut buf), Some(8));
    assert_eq!(buf, [0; 8]);
    assert_eq!(file.read_now((1 << 40) - 5, &mut buf), Some(5));
    assert_eq!(&buf[..5], b"\0\0end");
    assert_eq!(world.writer.stats().dirty_bytes, 3);
    settle().await;
    assert_eq!(world.store.calls(), []);
}

#[tokio::test]
async fn a_file_larger_than_memory_goes_through_staging_within_the_bound() {
    let world = Setup {
        memory: 256 * KIB,
        staging: true,
        ..Setup::default()
    }
    .build();
    let file = world.create();
    let bytes = pattern(3 << 20, 7);
    for (index, piece) in bytes.chunks(5000).enumerate() {
        file.write(index as u64 * 5000, piece).await.unwrap();
        assert!(file.inner.meter.bytes() <= 192 * KIB);
        assert!(world.share.used() <= 256 * KIB);
    }
    assert!(world.writer.stats().staged_bytes > 2 << 20);
    assert_eq!(contents(&file).await, bytes);
    publish(&file).await.unwrap();
    assert_eq!(world.store.bytes("f").unwrap(), bytes);
    world.disk.set_capacity(Some(10 << 20));
    drop(file);
    settle().await;
    assert_eq!(world.free().await, 10 << 20);
}

#[tokio::test]
async fn garbage_in_the_staging_file_is_given_back() {
    let world = Setup {
        memory: 256 * KIB,
        staging: true,
        ..Setup::default()
    }
    .build();
    // Ten times the file would not fit.
    world.disk.set_capacity(Some(3 << 20));
    let file = world.create();
    for round in 0..10 {
        for at in (0..1 << 20).step_by(8192) {
            file.write(at, &pattern(8192, round)).await.unwrap();
        }
    }
    file.set_size(0).unwrap();
    settle().await;
    assert_eq!(file.inner.staged(), 0);
    assert_eq!(world.free().await, 3 << 20);
    file.write(0, b"again").await.unwrap();
    publish(&file).await.unwrap();
    assert_eq!(world.store.bytes("f").unwrap(), "again");
}

#[tokio::test]
async fn a_full_staging_disk_fails_the_writer_and_not_the_publish() {
    let world = Setup {
        memory: 256 * KIB,
        staging: true,
        ..Setup::default()
    }
    .build();
    let file = world.create();
    let bytes = pattern(1 << 20, 7);
    file.write(0, &bytes).await.unwrap();
    world.disk.set_capacity(Some(0));
    let mut at = 1 << 20;
    let error = loop {
        match file.write(at, &[1; 4096]).await {
            Ok(()) => at += 4096,
            Err(error) => break error,
        }
    };
    assert!(is_full(&error), "{error:?}");
    assert_eq!(file.size(), at);
    publish(&file).await.unwrap();
    let stored = world.store.bytes("f").unwrap();
    assert_eq!(stored.len() as u64, at);
    assert_eq!(stored[..1 << 20], bytes);
    world.disk.set_capacity(None);
    file.write(at, &vec![1; 100_000]).await.unwrap();
}

#[tokio::test]
async fn a_staging_disk_that_cannot_be_read_fails_the_publish_and_keeps_the_file_dirty() {
    let world = Setup {
        memory: 256 * KIB,
        staging: true,
        ..Setup::default()
    }
    .build();
    let file = world.create();
    let gate = world.store.gate(Call::PutPart);
    let bytes = pattern(1 << 20, 7);
    file.write(0, &bytes).await.unwrap();
    world.disk.fail_reads(Some(libc::EIO));
    gate.open();
    let error = publish(&file).await.unwrap_err();
    assert!(matches!(error, WriteError::Staging(_)), "{error:?}");
    assert!(file.is_dirty());
    world.disk.fail_reads(None);
    publish(&file).await.unwrap();
    assert_eq!(world.store.bytes("f").unwrap(), bytes);
}

/// A writer that is faster than its upload had most of its bytes spilled before their turn came: they
/// went to the disk and back, and the close was late by that.
#[tokio::test(start_paused = true)]
async fn what_is_sent_soon_is_not_spilled_before() {
    let world = Setup {
        memory: 256 * KIB,
        staging: true,
        ..Setup::default()
    }
    .build();
    world.disk.fail_reads(Some(libc::EIO));
    let file = world.create();
    let bytes = pattern(2 << 20, 7);
    file.write(0, &bytes).await.unwrap();
    assert!(world.writer.stats().staged_bytes > 1 << 20);
    publish(&file).await.unwrap();
    assert_eq!(world.store.bytes("f").unwrap(), bytes);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stands_still_holds_a_writer_up_for_a_moment_only() {
    let world = Setup {
        memory: 256 * KIB,
        staging: true,
        ..Setup::default()
    }
    .build();
    let gate = world.store.gate(Call::PutPart);
    let file = world.create();
    let bytes = pattern(4 << 20, 7);
    let begun = tokio::time::Instant::now();
    file.write(0, &bytes).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(contents(&file).await, bytes);
    gate.open();
    publish(&file).await.unwrap();
    assert_eq!(world.store.bytes("f").unwrap(), bytes);
}

#[tokio::test]
async fn one_giant_writer_leaves_memory_for_small_files() {
    let world = Setup {
        memory: 256 * KIB,
        ..Setup::default()
    }
    .build();
    let giant = world.create();
    let mut at = 0;
    while giant.write_now(at, &[1; 8192]) {
        at += 8192;
    }
    let small = world.writer.begin(Key::new("small"), Base::Absent);
    assert!(small.write_now(0, &vec![2; 10_000]));
}

#[tokio::test]
async fn without_staging_what_cannot_be_sent_and_does_not_fit_fails_and_does_not_hang() {
    let world = Setup {
        memory: 64 * KIB,
        ..Setup::default()
    }
    .build();
    let file = world.create();
    let mut at = 0;
    let error = loop {
        // Every other page: no part is ever full.
        match file.write(at, &[1; 2048]).await {
            Ok(()) => at += 4096,
            Err(error) => break error,
        }
    };
    assert!(is_full(&error), "{error:?}");
    let size = at - 2048;
    assert_eq!(
        file.size(),
        size,
        "nothing of a failed write is in the file"
    );
    publish(&file).await.unwrap();
    assert_eq!(world.store.bytes("f").unwrap().len() as u64, size);
}

/// A file larger than memory without a disk: its parts go to the store, and the writer waits for them.
#[tokio::test]
async fn without_staging_a_sequential_writer_of_any_size_passes_through() {
    for (base, step) in [
        (None, 1000),
        (None, 4096),
        (None, 30_000),
        (Some(50 * PART + 5), 1000),
    ] {
        let world = Setup {
            memory: 64 * KIB,
            ..Setup::default()
        }
        .build();
        let mut bytes = pattern(base.unwrap_or(0), 3);
        let file = match base {
            None => world.create(),
            Some(size) => {
                let id = ObjectId::new(Key::new("f"), world.store.plant("f", bytes.clone()));
                world.writer.begin(Key::new("f"), Base::Keep { id, size })
            }
        };
        let new = pattern(1 << 20, 7);
        for piece in new.chunks(step) {
            file.write(bytes.len() as u64, piece).await.unwrap();
            bytes.extend_from_slice(piece);
            assert!(world.share.used() <= 64 * KIB);
        }
        publish(&file).await.unwrap();
        assert!(world.store.bytes("f").unwrap() == bytes, "{base:?} {step}");
        assert_eq!(world.store.uploads(), 0);
        // The store has it: it can be read and written like any other.
        assert!(contents(&file).await == bytes);
        file.write(3, b"again").await.unwrap();
        bytes[3..8].copy_from_slice(b"again");
        publish(&file).await.unwrap();
        assert!(world.store.bytes("f").unwrap() == bytes);
    }
}

/// The task that frees memory took what a part had brought to the store, and before it had given that back
/// the writer found nothing to give up, and no room: ENOSPC about once in a few hundred parts.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_staging_a_writer_that_is_freed_by_others_goes_on() {
    let world = Setup {
        memory: 32 * KIB,
        ..Setup::default()
    }
    .build();
    let bytes = pattern(4 << 20, 7);
    let file = world.create();
    for (index, piece) in bytes.chunks(1024).enumerate() {
        file.write(index as u64 * 1024, piece).await.unwrap();
    }
    let extents = file.inner.state.lock().layers.count();
    assert!(extents < 40, "{extents} extents");
    publish(&file).await.unwrap();
    assert!(world.store.bytes("f").unwrap() == bytes);
}

/// A file without staging that is larger than memory, and its bytes.
async fn passed_through(world: &World) -> (Arc<DirtyFile>, Vec<u8>) {
    let file = world.create();
    let bytes = pattern(512 << 10, 7);
    for (index, piece) in bytes.chunks(4096).enumerate() {
        file.write(index as u64 * 4096, piece).await.unwrap();
    }
    (file, bytes)
}

#[tokio::test]
async fn without_staging_what_was_sent_is_neither_read_nor_changed() {
    let world = Setup {
        memory: 64 * KIB,
        ..Setup::default()
    }
    .build();
    let (file, mut bytes) = passed_through(&world).await;
    let mut buf = [0; 100];
    let error = file.read(0, &mut buf).await.unwrap_err();
    assert!(matches!(error, WriteError::SentAway), "{error:?}");
    assert!(is_full(&file.write(5, b"x").await.unwrap_err()));
    assert!(is_full(&file.set_size(1000).unwrap_err()));
    // All of it may go, and so may whole parts at the end.
    file.set_size(100 * PART).unwrap();
    bytes.truncate(100 * PART as usize);
    publish(&file).await.unwrap();
    assert!(world.store.bytes("f").unwrap() == bytes);
    let (file, _) = passed_through(&world).await;
    file.set_size(0).unwrap();
    file.write(0, b"small").await.unwrap();
    let error = publish(&file).await.unwrap_err();
    assert_eq!(
        kind(&error),
        Some(StoreErrorKind::Changed),
        "the other made it"
    );
}

/// A try that failed can be repeated as long as the store has the parts; after that the bytes are lost,
/// and every close says so.
#[tokio::test]
async fn without_staging_a_lost_upload_is_told() {
    let world = Setup {
        memory: 64 * KIB,
        ..Setup::default()
    }
    .build();
    let (file, bytes) = passed_through(&world).await;
    world
        .store
        .inject(Call::Complete, Fault::Fail(StoreErrorKind::Denied));
    publish(&file).await.unwrap_err();
    publish(&file).await.unwrap();
    assert!(world.store.bytes("f").unwrap() == bytes);
    let (file, _) = passed_through(&world).await;
    let error = publish(&file).await.unwrap_err();
    assert_eq!(kind(&error), Some(StoreErrorKind::Changed));
    for _ in 0..2 {
        let error = publish(&file).await.unwrap_err();
        assert!(matches!(error, WriteError::Lost), "{error:?}");
        assert!(file.is_dirty());
    }
    assert_eq!(world.store.uploads(), 0);
    file.set_size(0).unwrap();
    file.retarget(Key::new("g"), Base::Absent).await;
    publish(&file).await.unwrap();
}

#[tokio::test]
async fn a_writer_waits_for_what_other_files_give_back() {
    let world = Setup {
        memory: 64 * KIB,
        ..Setup::default()
    }
    .build();
    let gate = world.store.gate(Call::CreateMultipart);
    let other = world.writer.begin(Key::new("other"), Base::Absent);
    other.write(0, &vec![1; 40_000]).await.unwrap();
    let file = world.create();
    let task = tokio::spawn({
        let file = file.clone();
        async move { file.write(0, &vec![2; 32_768]).await }
    });
    settle().await;
    assert!(!task.is_finished());
    gate.open();
    publish(&other).await.unwrap();
    task.await.unwrap().unwrap();
    publish(&file).await.unwrap();
    assert_eq!(contents(&file).await, vec![2; 32_768]);
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_waits_for_idle_files_gives_up_after_a_while() {
    let world = Setup {
        memory: 64 * KIB,
        ..Setup::default()
    }
    .build();
    let _gate = world.store.gate(Call::CreateMultipart);
    let other = world.writer.begin(Key::new("other"), Base::Absent);
    other.write(0, &vec![1; 40_000]).await.unwrap();
    let file = world.create();
    let error = file.write(0, &vec![2; 32_768]).await.unwrap_err();
    assert!(is_full(&error), "{error:?}");
}

/// Parts grow towards the end of a huge object. One that was staged was read into memory whole
/// before it was sent, however little had been set aside for that.
#[tokio::test]
async fn a_part_larger_than_the_readback_is_read_while_it_is_sent() {
    let setup = Setup {
        memory: 64 << 10,
        staging: true,
        ..Setup::default()
    };
    let world = setup.build();
    let readback = world.writer.memory.readback.clone();
    let file = world.create();
    let bytes = pattern(500 << 10, 1);
    file.write(0, &bytes).await.unwrap();
    settle().await;
    let whole = Extent::new(0, 500 << 10);
    let found = file.inner.state.lock().layers.find(whole);
    let payload = file.inner.part_body(found).await.unwrap();
    assert_eq!(payload.len, 500 << 10);
    assert_eq!(readback.used(), 0, "nothing is read before it is sent");
    for _ in 0..2 {
        let mut sent = Vec::new();
        for piece in &payload.pieces {
            let piece = piece.bytes().await.unwrap();
            assert!(readback.used() <= readback.bound());
            sent.extend_from_slice(&piece);
        }
        assert!(sent == bytes, "as often as it is sent");
    }
    assert_eq!(readback.used(), 0);
    world.disk.fail_reads(Some(libc::EIO));
    let last = payload
        .pieces
        .iter()
        .find(|piece| matches!(piece, PartBytes::Later(_)));
    let error = last.unwrap().bytes().await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Broken);
}

/// Published bytes that wait for a disk that hangs can be fetched again: whoever writes has the memory.
#[tokio::test]
async fn a_cache_disk_that_hangs_keeps_no_memory_from_writers() {
    let sim = SimDisk::new(1);
    let config = DiskConfig::new("/cache", 256 << 20);
    let cache = DiskCache::open_on(Arc::new(sim.clone()), config).unwrap();
    let world = Setup {
        cache: Some(cache.clone()),
        ..Setup::default()
    }
    .build();
    let held = sim.hold_writes().await;
    let bytes = pattern(1 << 20, 7);
    for number in 0..12 {
        let key = Key::new(format!("f{number}"));
        let file = world.writer.begin(key, Base::Absent);
        file.write(0, &bytes).await.unwrap();
        publish(&file).await.unwrap();
        drop(file);
        assert!(world.share.used() <= 4 << 20);
    }
    assert!(
        world.share.used() > world.writer.idle_bytes(),
        "what waits for the disk is paid for"
    );
    assert!(cache.stats().skipped_extents > 0);
    drop(held);
    cache.sync().await;
    settle().await;
    assert_eq!(world.share.used(), world.writer.idle_bytes());
}
