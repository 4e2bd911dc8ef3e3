//! Files over a version that is in the store.

use super::*;
use crate::extent::Extent;

fn keep(world: &World, bytes: Vec<u8>) -> Arc<DirtyFile> {
    let size = bytes.len() as u64;
    let etag = world.store.plant("f", bytes);
    let id = ObjectId::new(Key::new("f"), etag);
    world.writer.begin(Key::new("f"), Base::Keep { id, size })
}

#[tokio::test]
async fn a_kept_base_is_fetched_once_for_all_writers() {
    let world = world();
    let mut bytes = pattern(20 << 10, 1);
    let file = keep(&world, bytes.clone());
    assert!(!file.is_dirty());
    assert_eq!(file.size(), 20 << 10);
    assert!(!file.write_now(5, b"x"));
    let writes = (0..8u64).map(|i| {
        let file = file.clone();
        async move { file.write(i * 100, &[i as u8; 10]).await }
    });
    for written in futures_util::future::join_all(writes).await {
        written.unwrap();
    }
    assert_eq!(world.count(Call::Get), 1);
    for i in 0..8 {
        bytes[i * 100..][..10].fill(i as u8);
    }
    assert_eq!(contents(&file).await, bytes);
    assert!(file.write_now(0, &bytes[..1]));
    publish(&file).await.unwrap();
    assert_eq!(world.store.bytes("f").unwrap(), bytes);
}

#[tokio::test]
async fn a_base_that_does_not_come_leaves_the_file_clean_and_untouched() {
    for fault in [
        Fault::Fail(StoreErrorKind::Timeout),
        Fault::CutBody(70_000, StoreErrorKind::Broken),
    ] {
        let world = world();
        let bytes = pattern(200 << 10, 1);
        let file = keep(&world, bytes.clone());
        world.store.inject(Call::Get, fault);
        file.write(5, b"x").await.unwrap_err();
        assert!(!file.is_dirty());
        assert_eq!(file.size(), 200 << 10);
        assert_eq!(world.share.used(), 0);
        file.write(5, b"x").await.unwrap();
        assert!(file.is_dirty());
        let mut expected = bytes;
        expected[5] = b'x';
        assert_eq!(contents(&file).await, expected);
    }
}

#[tokio::test]
async fn a_base_that_was_replaced_is_never_mixed_in() {
    let world = world();
    let file = keep(&world, pattern(1000, 1));
    world.store.plant("f", pattern(1000, 2));
    let error = file.write(5, b"x").await.unwrap_err();
    assert_eq!(kind(&error), Some(StoreErrorKind::Changed));
    assert!(!file.is_dirty());
}

#[tokio::test]
async fn a_cut_fetches_only_what_stays() {
    let world = world();
    let bytes = pattern(100 << 10, 1);
    let file = keep(&world, bytes.clone());
    file.set_size(1000).await.unwrap();
    assert!(file.is_dirty());
    assert_eq!(file.size(), 1000);
    assert_eq!(contents(&file).await, bytes[..1000]);
    publish(&file).await.unwrap();
    assert_eq!(world.store.bytes("f").unwrap(), bytes[..1000]);
}

#[tokio::test]
async fn a_cut_to_nothing_fetches_nothing_and_still_asks_for_the_base() {
    let world = world();
    let file = keep(&world, pattern(1000, 1));
    file.set_size(0).await.unwrap();
    assert_eq!(world.store.calls(), []);
    assert!(file.is_dirty());
    file.write(0, b"new").await.unwrap();
    world.store.plant("f", "theirs");
    let error = publish(&file).await.unwrap_err();
    assert_eq!(kind(&error), Some(StoreErrorKind::Changed));
}

#[tokio::test]
async fn setting_the_size_that_it_has_changes_nothing() {
    let world = world();
    let file = keep(&world, pattern(1000, 1));
    file.set_size(1000).await.unwrap();
    assert!(!file.is_dirty());
    assert_eq!(world.store.calls(), []);
}

#[tokio::test]
async fn changed_metadata_alone_are_a_copy_in_the_store() {
    let world = world();
    let bytes = pattern(1000, 1);
    let file = keep(&world, bytes.clone());
    file.touch();
    assert!(file.is_dirty());
    let published = file.publish(named("x")).await.unwrap().unwrap();
    assert!(published.clean);
    assert_eq!(world.store.calls(), [(Call::Copy, "f".to_owned())]);
    assert_eq!(world.store.bytes("f").unwrap(), bytes);
    assert_eq!(world.store.metadata("f"), Some(named("x")));
    // The copy is the base now.
    file.write(0, b"x").await.unwrap();
    publish(&file).await.unwrap();
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
async fn a_clean_file_gives_up_its_memory_to_writers_and_fetches_it_again() {
    let world = Setup {
        memory: 64 * KIB,
        ..Setup::default()
    }
    .build();
    let file = world.create();
    let mut bytes = pattern(40_000, 1);
    file.write(0, &bytes).await.unwrap();
    publish(&file).await.unwrap();
    let other = world.writer.begin(Key::new("other"), Base::Absent);
    other.write(0, &vec![1; 40_000]).await.unwrap();
    assert!(!file.is_dirty());
    assert_eq!(file.size(), 40_000);
    publish(&other).await.unwrap();
    file.write(1, b"x").await.unwrap();
    bytes[1] = b'x';
    assert_eq!(contents(&file).await, bytes);
}

#[tokio::test]
async fn a_base_larger_than_memory_is_fetched_into_staging() {
    let world = Setup {
        memory: 256 * KIB,
        staging: true,
        ..Setup::default()
    }
    .build();
    let mut bytes = pattern(2 << 20, 1);
    let file = keep(&world, bytes.clone());
    file.write(1 << 20, b"x").await.unwrap();
    bytes[1 << 20] = b'x';
    assert_eq!(contents(&file).await, bytes);
    publish(&file).await.unwrap();
    assert_eq!(world.store.bytes("f").unwrap(), bytes);
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
    assert!(file.base_is_away());
}
