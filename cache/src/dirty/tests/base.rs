//! Files over a version that is in the store: what is fetched, what is sent, what the store copies.

use super::*;
use crate::extent::Extent;

fn keep(world: &World, bytes: Vec<u8>) -> Arc<DirtyFile> {
    let size = bytes.len() as u64;
    let etag = world.store.plant("f", bytes);
    let id = ObjectId::new(Key::new("f"), etag);
    world.writer.begin(Key::new("f"), Base::Keep { id, size })
}

/// The calls since the last look, without the key.
fn calls(world: &World) -> Vec<Call> {
    let calls = world.store.calls();
    calls.into_iter().map(|(call, _)| call).collect()
}

#[tokio::test]
async fn nothing_is_fetched_to_begin_a_write() {
    let world = world();
    let mut bytes = pattern(20 << 10, 1);
    let file = keep(&world, bytes.clone());
    assert!(!file.is_dirty());
    assert_eq!(file.size(), 20 << 10);
    for i in 0..8 {
        assert!(file.write_now(u64::from(i) * 100, &[i; 10]));
        bytes[usize::from(i) * 100..][..10].fill(i);
    }
    file.write(30 << 10, b"far").await.unwrap();
    bytes.resize(30 << 10, 0);
    bytes.extend_from_slice(b"far");
    file.set_size(29 << 10).unwrap();
    bytes.truncate(29 << 10);
    assert_eq!(calls(&world), []);
    assert_eq!(contents(&file).await, bytes);
    publish(&file).await.unwrap();
    assert_eq!(world.store.bytes("f").unwrap(), bytes);
}

#[tokio::test]
async fn a_change_of_a_small_object_is_one_put() {
    let world = world();
    let mut bytes = pattern(PART, 1);
    let file = keep(&world, bytes.clone());
    file.write(5, b"x").await.unwrap();
    file.write(1000, b"y").await.unwrap();
    bytes[5] = b'x';
    bytes[1000] = b'y';
    publish(&file).await.unwrap();
    // What lies between is fetched by one request.
    assert_eq!(calls(&world), [Call::Get, Call::Put]);
    assert_eq!(world.store.bytes("f").unwrap(), bytes);
    // From now on it is here.
    file.write(7, b"z").await.unwrap();
    bytes[7] = b'z';
    publish(&file).await.unwrap();
    assert_eq!(world.store.bytes("f").unwrap(), bytes);
}

#[tokio::test]
async fn an_append_to_a_large_object_sends_what_is_appended() {
    let world = world();
    let mut bytes = pattern(100 * PART + 7, 1);
    let file = keep(&world, bytes.clone());
    for round in 0..3 {
        file.write(bytes.len() as u64, b"line\n").await.unwrap();
        bytes.extend_from_slice(b"line\n");
        publish(&file).await.unwrap();
        let expected = [
            Call::CreateMultipart,
            Call::CopyPart,
            Call::PutPart,
            Call::Complete,
        ];
        assert_eq!(calls(&world), expected, "round {round}");
        assert_eq!(world.store.bytes("f").unwrap(), bytes);
    }
    assert_eq!(world.writer.stats().uploaded_bytes, 15);
    assert_eq!(world.writer.stats().refetched_bytes, 0);
}

#[tokio::test]
async fn a_change_in_the_middle_moves_little_more_than_a_part() {
    let world = world();
    let mut bytes = pattern(100 * PART, 1);
    let file = keep(&world, bytes.clone());
    file.write(50 * PART + 3, b"changed").await.unwrap();
    bytes[50 * PART as usize + 3..][..7].copy_from_slice(b"changed");
    publish(&file).await.unwrap();
    assert_eq!(world.store.bytes("f").unwrap(), bytes);
    let stats = world.writer.stats();
    assert_eq!(stats.uploaded_bytes, LIMITS.part_min);
    assert_eq!(stats.copied_bytes, 100 * PART - LIMITS.part_min);
    assert!(stats.refetched_bytes <= LIMITS.part_min);
}

#[tokio::test]
async fn a_cut_and_zeros_behind_it_fetch_nothing() {
    let world = world();
    let mut bytes = pattern(100 * PART, 1);
    let file = keep(&world, bytes.clone());
    file.set_size(50 * PART + 1).unwrap();
    assert!(file.is_dirty());
    file.set_size(60 * PART).unwrap();
    bytes.truncate(50 * PART as usize + 1);
    bytes.resize(60 * PART as usize, 0);
    assert_eq!(contents(&file).await, bytes);
    calls(&world);
    publish(&file).await.unwrap();
    assert_eq!(world.store.bytes("f").unwrap(), bytes);
    assert_eq!(world.count(Call::Get), 0);
    let stats = world.writer.stats();
    assert_eq!(stats.copied_bytes, 50 * PART + 1);
    // Published and cut again: what was zeros is cut too.
    file.set_size(55 * PART).unwrap();
    bytes.truncate(55 * PART as usize);
    publish(&file).await.unwrap();
    assert_eq!(world.store.bytes("f").unwrap(), bytes);
}

#[tokio::test]
async fn a_base_that_does_not_come_leaves_the_file_dirty_and_whole() {
    for fault in [
        Fault::Fail(StoreErrorKind::Timeout),
        Fault::CutBody(1000, StoreErrorKind::Broken),
    ] {
        let world = world();
        let mut bytes = pattern(PART, 1);
        let file = keep(&world, bytes.clone());
        file.write(5, b"x").await.unwrap();
        world.store.inject(Call::Get, fault);
        publish(&file).await.unwrap_err();
        assert!(file.is_dirty());
        publish(&file).await.unwrap();
        bytes[5] = b'x';
        assert_eq!(world.store.bytes("f").unwrap(), bytes);
    }
}

#[tokio::test]
async fn a_base_that_was_replaced_is_never_mixed_in() {
    for size in [1000, 100 * PART] {
        let world = world();
        let file = keep(&world, pattern(size, 1));
        let theirs = pattern(size, 2);
        world.store.plant("f", theirs.clone());
        file.write(5, b"x").await.unwrap();
        let mut buf = [0; 100];
        let error = file.read(0, &mut buf).await.unwrap_err();
        assert_eq!(kind(&error), Some(StoreErrorKind::Changed));
        let error = publish(&file).await.unwrap_err();
        assert_eq!(kind(&error), Some(StoreErrorKind::Changed));
        assert!(file.is_dirty());
        assert_eq!(world.store.bytes("f").unwrap(), theirs);
        assert_eq!(world.store.uploads(), 0);
    }
}

#[tokio::test]
async fn a_cut_to_nothing_fetches_nothing_and_still_asks_for_the_base() {
    let world = world();
    let file = keep(&world, pattern(1000, 1));
    file.set_size(0).unwrap();
    assert!(file.is_dirty());
    file.write(0, b"new").await.unwrap();
    assert_eq!(world.store.calls(), []);
    world.store.plant("f", "theirs");
    let error = publish(&file).await.unwrap_err();
    assert_eq!(kind(&error), Some(StoreErrorKind::Changed));
}

#[tokio::test]
async fn setting_the_size_that_it_has_changes_nothing() {
    let world = world();
    let file = keep(&world, pattern(1000, 1));
    file.set_size(1000).unwrap();
    assert!(!file.is_dirty());
    assert_eq!(world.store.calls(), []);
}

#[tokio::test]
async fn changed_metadata_alone_are_a_copy_in_the_store() {
    let world = world();
    let mut bytes = pattern(1000, 1);
    let file = keep(&world, bytes.clone());
    file.touch();
    assert!(file.is_dirty());
    let published = file.publish(named("x")).await.unwrap().unwrap();
    assert!(published.clean);
    assert_eq!(calls(&world), [Call::Copy]);
    assert_eq!(world.store.bytes("f").unwrap(), bytes);
    assert_eq!(world.store.metadata("f"), Some(named("x")));
    // The copy is the base now, and so is what is published over it.
    file.write(0, b"x").await.unwrap();
    bytes[0] = b'x';
    file.publish(named("x")).await.unwrap();
    assert_eq!(calls(&world), [Call::Get, Call::Put]);
    file.touch();
    file.publish(named("y")).await.unwrap();
    assert_eq!(calls(&world), [Call::Copy]);
    assert_eq!(world.store.bytes("f").unwrap(), bytes);
    assert_eq!(world.store.metadata("f"), Some(named("y")));
}

#[tokio::test]
async fn a_published_file_has_its_bytes_at_hand() {
    let world = world();
    let file = world.create();
    file.write(0, b"first").await.unwrap();
    publish(&file).await.unwrap();
    world.store.calls();
    assert!(file.write_now(5, b" second"));
    publish(&file).await.unwrap();
    assert_eq!(world.store.bytes("f").unwrap(), "first second");
    assert_eq!(world.count(Call::Get), 0);
}

#[tokio::test]
async fn what_is_published_gives_up_its_memory_to_writers_and_is_fetched_again() {
    let world = Setup {
        memory: 64 * KIB,
        ..Setup::default()
    }
    .build();
    let file = world.create();
    let mut bytes = pattern(30_000, 1);
    file.write(0, &bytes).await.unwrap();
    publish(&file).await.unwrap();
    let other = world.writer.begin(Key::new("other"), Base::Absent);
    other.write(0, &vec![1; 40_000]).await.unwrap();
    assert!(!file.is_dirty());
    assert_eq!(file.size(), 30_000);
    publish(&other).await.unwrap();
    file.write(1, b"x").await.unwrap();
    bytes[1] = b'x';
    assert_eq!(contents(&file).await, bytes);
}

#[tokio::test]
async fn a_few_bytes_of_a_base_larger_than_memory_need_no_staging() {
    let world = Setup {
        memory: 256 * KIB,
        ..Setup::default()
    }
    .build();
    let mut bytes = pattern(2 << 20, 1);
    let file = keep(&world, bytes.clone());
    file.write(1 << 20, b"x").await.unwrap();
    bytes[1 << 20] = b'x';
    publish(&file).await.unwrap();
    assert_eq!(world.store.bytes("f").unwrap(), bytes);
}

/// Who overwrites needs the version that they opened only for bytes that they have not got.
#[tokio::test]
async fn overwrite_mode_replaces_theirs_if_all_of_the_file_is_here() {
    for size in [1000, 20 * PART] {
        let world = Setup {
            on_conflict: OnConflict::Overwrite,
            ..Setup::default()
        }
        .build();
        let mut bytes = pattern(size, 1);
        let file = keep(&world, bytes.clone());
        file.write(5, b"x").await.unwrap();
        bytes[5] = b'x';
        world.store.plant("f", "theirs");
        let error = publish(&file).await.unwrap_err();
        assert_eq!(kind(&error), Some(StoreErrorKind::Changed));
        assert_eq!(world.store.bytes("f").unwrap(), "theirs");

        let file = keep(&world, bytes.clone());
        let _held = file.hold().await.unwrap();
        file.write(5, b"y").await.unwrap();
        bytes[5] = b'y';
        world.store.plant("f", "theirs");
        publish(&file).await.unwrap();
        assert_eq!(world.store.bytes("f").unwrap(), bytes);
        assert_eq!(world.store.uploads(), 0);
    }
}

/// A store that copies no ranges is asked once. The rest is as ever, and costs what it costs.
#[tokio::test]
async fn a_store_that_refuses_copies_is_asked_once() {
    let world = world();
    let mut bytes = pattern(20 * PART + 7, 1);
    let file = keep(&world, bytes.clone());
    world
        .store
        .inject(Call::CopyPart, Fault::Fail(StoreErrorKind::Rejected));
    for round in 0..2 {
        file.write(9 * PART + round, b"x").await.unwrap();
        bytes[(9 * PART + round) as usize] = b'x';
        publish(&file).await.unwrap();
        assert_eq!(world.store.bytes("f").unwrap(), bytes);
        assert_eq!(world.store.uploads(), 0);
        let asked = world.count(Call::CopyPart);
        assert_eq!(
            asked > 0,
            round == 0,
            "asked {asked} times in round {round}"
        );
    }
    assert!(world.writer.stats().copies_refused);
}

/// Some stores take only parts of one size: they refuse at the end.
#[tokio::test]
async fn a_store_that_refuses_what_was_copied_gets_the_bytes() {
    let world = world();
    let mut bytes = pattern(20 * PART + 7, 1);
    let file = keep(&world, bytes.clone());
    file.write(9 * PART, b"x").await.unwrap();
    bytes[9 * PART as usize] = b'x';
    world
        .store
        .inject(Call::Complete, Fault::Fail(StoreErrorKind::Rejected));
    publish(&file).await.unwrap();
    assert_eq!(world.store.bytes("f").unwrap(), bytes);
    assert!(world.writer.stats().copies_refused);
    assert_eq!(world.store.uploads(), 0);
}

#[tokio::test]
async fn a_held_base_outlives_its_object() {
    for staging in [false, true] {
        let setup = Setup {
            memory: 256 << 10,
            staging,
            ..Setup::default()
        };
        let world = setup.build();
        let bytes = pattern(100 << 10, 1);
        let file = keep(&world, bytes.clone());
        let held = file.hold().await.unwrap();
        assert!(!file.is_dirty());
        assert_eq!(file.away(), None);
        world.store.uproot("f");
        // Others want memory: what is clean would be given up, because the store had it too.
        let other = world.writer.begin(Key::new("g"), Base::Absent);
        other.write(0, &pattern(60 << 10, 2)).await.unwrap();
        world.writer.free_memory();
        settle().await;
        assert_eq!(contents(&file).await, bytes);
        file.discard().await;
        drop(held);
        world.writer.free_memory();
        settle().await;
        assert_eq!(contents(&file).await, bytes);
        file.write(5, b"x").await.unwrap();
        assert!(!file.is_dirty());
    }
}

#[tokio::test]
async fn a_file_is_held_around_what_was_written() {
    let world = world();
    let mut bytes = pattern(100 << 10, 1);
    let file = keep(&world, bytes.clone());
    file.write(50_000, b"written").await.unwrap();
    bytes[50_000..][..7].copy_from_slice(b"written");
    file.set_size(90_000).unwrap();
    bytes.truncate(90_000);
    let _held = file.hold().await.unwrap();
    world.store.uproot("f");
    assert_eq!(contents(&file).await, bytes);
}

#[tokio::test]
async fn a_held_base_is_taken_from_the_read_cache() {
    let world = world();
    let bytes = pattern(100 << 10, 1);
    let size = bytes.len() as u64;
    let id = ObjectId::new(Key::new("f"), world.store.plant("f", bytes.clone()));
    let whole = vec![(Extent::new(0, size), bytes.clone().into())];
    world.writer.reader.adopt(&id, size, whole, None);
    let file = world.writer.begin(Key::new("f"), Base::Keep { id, size });
    let _held = file.hold().await.unwrap();
    assert_eq!(world.count(Call::Get), 0);
    assert_eq!(contents(&file).await, bytes);
}

#[tokio::test]
async fn what_has_no_room_is_not_held_and_not_fetched() {
    let setup = Setup {
        memory: 64 << 10,
        ..Setup::default()
    };
    let world = setup.build();
    let file = keep(&world, pattern(100 << 10, 1));
    let error = file.hold().await.unwrap_err();
    assert!(is_full(&error), "{error}");
    assert_eq!(world.count(Call::Get), 0);
    assert!(file.away().is_some());
}
