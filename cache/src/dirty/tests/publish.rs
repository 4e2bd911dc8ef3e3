//! What a publish promises, and what its failure keeps.

use super::*;

#[tokio::test]
async fn a_small_file_is_one_put_and_nothing_else() {
    let world = world();
    let file = world.create();
    assert!(file.write_now(0, b"hello"));
    assert!(file.is_dirty());
    let published = file.publish(named("x")).await.unwrap().unwrap();
    assert!(published.clean && !file.is_dirty());
    assert_eq!(published.size, 5);
    assert_eq!(world.store.bytes("f").unwrap(), "hello");
    assert_eq!(world.store.metadata("f").unwrap(), named("x"));
    assert_eq!(world.store.calls(), [(Call::Put, "f".to_owned())]);
}

#[tokio::test]
async fn a_created_file_publishes_no_bytes_and_a_clean_one_asks_nothing() {
    let world = world();
    let file = world.create();
    assert!(file.is_dirty());
    let first = publish(&file).await.unwrap();
    assert_eq!(world.store.bytes("f").unwrap().len(), 0);
    world.store.calls();
    assert_eq!(publish(&file).await.unwrap(), first);
    assert_eq!(world.store.calls(), []);
}

#[tokio::test]
async fn holes_read_and_publish_as_zeros() {
    let world = world();
    let file = world.create();
    file.write(100, b"abc").await.unwrap();
    file.set_size(200).unwrap();
    file.write(20_000, b"d").await.unwrap();
    let mut expected = vec![0; 20_001];
    expected[100..103].copy_from_slice(b"abc");
    expected[20_000] = b'd';
    assert_eq!(contents(&file).await, expected);
    publish(&file).await.unwrap();
    assert_eq!(world.store.bytes("f").unwrap(), expected);
}

#[tokio::test]
async fn writes_during_a_publish_stay_dirty_and_are_not_in_it() {
    for size in [100, 5 * PART] {
        let world = world();
        let file = world.create();
        let before = pattern(size, 1);
        file.write(0, &before).await.unwrap();
        let gates = [
            world.store.gate(Call::Put),
            world.store.gate(Call::Complete),
        ];
        let task = tokio::spawn({
            let file = file.clone();
            async move { publish(&file).await }
        });
        settle().await;
        assert!(file.write_now(10, b"later"));
        gates.iter().for_each(crate::store::memory::Gate::open);
        let published = task.await.unwrap().unwrap().unwrap();
        assert!(!published.clean && file.is_dirty());
        assert_eq!(world.store.bytes("f").unwrap(), before);
        assert!(publish(&file).await.unwrap().unwrap().clean);
        let mut after = before;
        after[10..15].copy_from_slice(b"later");
        assert_eq!(world.store.bytes("f").unwrap(), after);
    }
}

#[tokio::test]
async fn concurrent_publishes_send_once() {
    let world = world();
    let file = world.create();
    file.write(0, b"x").await.unwrap();
    let publishes = (0..4).map(|_| publish(&file));
    for published in futures_util::future::join_all(publishes).await {
        assert!(published.unwrap().unwrap().clean);
    }
    assert_eq!(world.count(Call::Put), 1);
}

#[tokio::test]
async fn a_failed_publish_keeps_the_bytes_and_the_next_one_sends_them() {
    for size in [100, 5 * PART] {
        for call in [
            Call::Put,
            Call::CreateMultipart,
            Call::PutPart,
            Call::Complete,
        ] {
            let world = world();
            let file = world.create();
            let bytes = pattern(size, 3);
            file.write(0, &bytes).await.unwrap();
            world
                .store
                .inject(call, Fault::Fail(StoreErrorKind::Denied));
            let whole = size <= 2 * PART;
            let result = publish(&file).await;
            assert_eq!(result.is_err(), whole == (call == Call::Put), "{call:?}");
            assert_eq!(file.is_dirty(), result.is_err());
            assert_eq!(contents(&file).await, bytes);
            publish(&file).await.unwrap();
            assert!(!file.is_dirty());
            assert_eq!(world.store.bytes("f").unwrap(), bytes);
            assert_eq!(world.store.uploads(), 0);
        }
    }
}

#[tokio::test]
async fn a_part_that_failed_leaves_the_others_for_the_next_try() {
    let world = world();
    let file = world.create();
    world
        .store
        .inject(Call::CreateMultipart, Fault::Fail(StoreErrorKind::Denied));
    let bytes = pattern(10 * PART, 3);
    file.write(0, &bytes).await.unwrap();
    settle().await;
    world
        .store
        .inject(Call::PutPart, Fault::Fail(StoreErrorKind::Timeout));
    world.store.calls();
    assert_eq!(
        kind(&publish(&file).await.unwrap_err()),
        Some(StoreErrorKind::Timeout)
    );
    let first = world.count(Call::PutPart);
    publish(&file).await.unwrap();
    let second = world.count(Call::PutPart);
    assert!(first > 1);
    assert_eq!(first - 1 + second, 10);
    assert_eq!(world.store.bytes("f").unwrap(), bytes);
}

#[tokio::test]
async fn a_retry_sends_what_was_written_after_the_failure() {
    let world = world();
    let file = world.create();
    let mut bytes = pattern(6 * PART, 3);
    file.write(0, &bytes).await.unwrap();
    let gate = world.store.gate(Call::Complete);
    world
        .store
        .inject(Call::Complete, Fault::Fail(StoreErrorKind::Denied));
    let task = tokio::spawn({
        let file = file.clone();
        async move { publish(&file).await }
    });
    settle().await;
    // The part is in the store already, as it was sealed.
    file.write(PART, b"during").await.unwrap();
    gate.open();
    task.await.unwrap().unwrap_err();
    bytes[PART as usize..][..6].copy_from_slice(b"during");
    publish(&file).await.unwrap();
    assert_eq!(world.store.bytes("f").unwrap(), bytes);
}

#[tokio::test]
async fn a_lost_race_fails_and_nothing_of_theirs_is_overwritten() {
    for size in [10, 5 * PART] {
        let world = world();
        let file = world.create();
        let bytes = pattern(size, 3);
        file.write(0, &bytes).await.unwrap();
        world.store.plant("f", "theirs");
        for _ in 0..2 {
            let error = publish(&file).await.unwrap_err();
            assert_eq!(kind(&error), Some(StoreErrorKind::Changed));
            assert_eq!(world.store.bytes("f").unwrap(), "theirs");
            assert_eq!(world.store.uploads(), 0);
        }
        assert_eq!(contents(&file).await, bytes);
    }
}

#[tokio::test]
async fn overwrite_mode_replaces_theirs() {
    let world = Setup {
        on_conflict: OnConflict::Overwrite,
        ..Setup::default()
    }
    .build();
    let file = world.create();
    file.write(0, b"ours").await.unwrap();
    world.store.plant("f", "theirs");
    publish(&file).await.unwrap();
    assert_eq!(world.store.bytes("f").unwrap(), "ours");
}

#[tokio::test]
async fn each_publish_asks_for_the_version_that_the_last_one_made() {
    let world = world();
    let file = world.create();
    for round in 0..3 {
        file.write(round, b"x").await.unwrap();
        publish(&file).await.unwrap();
    }
    world.store.plant("f", "theirs");
    file.write(0, b"y").await.unwrap();
    let error = publish(&file).await.unwrap_err();
    assert_eq!(kind(&error), Some(StoreErrorKind::Changed));
}

/// The store takes the object and its answer is lost. The next try must not take our own version
/// for somebody else's: applications would see ESTALE for a file that nobody else touched.
#[tokio::test]
async fn a_lost_answer_is_found_to_be_ours() {
    for (size, call) in [(10, Call::Put), (5 * PART, Call::Complete)] {
        let world = world();
        let file = world.create();
        let mut bytes = pattern(size, 3);
        file.write(0, &bytes).await.unwrap();
        world
            .store
            .inject(call, Fault::FailAfter(StoreErrorKind::Timeout));
        publish(&file).await.unwrap_err();
        assert!(file.is_dirty());
        world.store.calls();
        let published = publish(&file).await.unwrap().unwrap();
        assert!(published.clean);
        assert_eq!(world.count(call), 0, "it is there already");
        assert_eq!(world.store.uploads(), 0);

        // The same with bytes written before the next try.
        file.write(0, b"1").await.unwrap();
        world
            .store
            .inject(call, Fault::FailAfter(StoreErrorKind::Broken));
        publish(&file).await.unwrap_err();
        file.write(2, b"2").await.unwrap();
        assert!(publish(&file).await.unwrap().unwrap().clean);
        bytes[0] = b'1';
        bytes[2] = b'2';
        assert_eq!(world.store.bytes("f").unwrap(), bytes);
        assert_eq!(world.store.uploads(), 0);
    }
}

#[tokio::test]
async fn a_lost_answer_does_not_excuse_somebody_elses_version() {
    let world = world();
    let file = world.create();
    file.write(0, b"ours").await.unwrap();
    world
        .store
        .inject(Call::Put, Fault::FailAfter(StoreErrorKind::Timeout));
    publish(&file).await.unwrap_err();
    world.store.plant("f", "thrs");
    let error = publish(&file).await.unwrap_err();
    assert_eq!(kind(&error), Some(StoreErrorKind::Changed));
    assert_eq!(world.store.bytes("f").unwrap(), "thrs");
}

#[tokio::test]
async fn a_renamed_dirty_file_is_published_under_its_new_name() {
    let world = world();
    let file = world.create();
    file.write(0, &pattern(5 * PART, 1)).await.unwrap();
    settle().await;
    assert_eq!(world.store.uploads(), 1);
    let etag = world.store.plant("g", "old");
    file.retarget(Key::new("g"), Base::Replace { etag }).await;
    assert_eq!(world.store.uploads(), 0);
    let published = publish(&file).await.unwrap().unwrap();
    assert_eq!(published.id.key, Key::new("g"));
    assert_eq!(world.store.bytes("g").unwrap(), pattern(5 * PART, 1));
    assert!(world.store.bytes("f").is_none());
}

#[tokio::test]
async fn a_discarded_file_asks_nothing_and_can_still_be_read() {
    let world = world();
    let file = world.create();
    file.write(0, &pattern(5 * PART, 1)).await.unwrap();
    settle().await;
    file.discard().await;
    assert_eq!(world.store.uploads(), 0);
    assert!(!file.is_dirty());
    world.store.calls();
    file.write(0, &pattern(5 * PART, 2)).await.unwrap();
    assert_eq!(publish(&file).await.unwrap(), None);
    assert_eq!(contents(&file).await, pattern(5 * PART, 2));
    assert_eq!(world.store.calls(), []);
}

#[tokio::test]
async fn stats_follow_every_change() {
    let world = world();
    assert_eq!(world.writer.stats(), WriteStats::default());
    let file = world.create();
    file.write(0, &[1; 100]).await.unwrap();
    let stats = world.writer.stats();
    assert_eq!((stats.dirty_bytes, stats.dirty_files), (100, 1));
    let oldest = stats.oldest_dirty.unwrap();
    file.write(50, &[2; 100]).await.unwrap();
    assert_eq!(world.writer.stats().oldest_dirty, Some(oldest));
    world
        .store
        .inject(Call::Put, Fault::Fail(StoreErrorKind::Denied));
    publish(&file).await.unwrap_err();
    assert_eq!(world.writer.stats().oldest_dirty, Some(oldest));
    assert_eq!(world.writer.stats().failed, 1);
    publish(&file).await.unwrap();
    let expected = WriteStats {
        published: 1,
        failed: 1,
        uploaded_bytes: 150,
        ..WriteStats::default()
    };
    assert_eq!(world.writer.stats(), expected);
    drop(file);
    assert_eq!(world.writer.stats(), expected);
}

#[tokio::test]
async fn a_file_past_the_stores_limit_is_refused_when_it_is_written() {
    let world = world();
    let file = world.create();
    let max = LIMITS.object_max;
    assert!(!file.write_now(max - 1, b"ab"));
    for error in [
        file.write(max - 1, b"ab").await.unwrap_err(),
        file.write(u64::MAX, b"ab").await.unwrap_err(),
        file.set_size(max + 1).unwrap_err(),
    ] {
        assert!(matches!(error, WriteError::TooLarge));
    }
    assert_eq!(file.size(), 0);
}

#[tokio::test]
async fn a_publish_that_was_dropped_half_way_does_no_harm() {
    for call in [
        Call::Put,
        Call::CreateMultipart,
        Call::PutPart,
        Call::Complete,
    ] {
        let world = world();
        let file = world.create();
        let size = if call == Call::Put { 10 } else { 6 * PART };
        let mut bytes = pattern(size, 3);
        let gate = world.store.gate(call);
        file.write(0, &bytes).await.unwrap();
        let task = tokio::spawn({
            let file = file.clone();
            async move { publish(&file).await }
        });
        settle().await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        file.write(3, b"more").await.unwrap();
        bytes[3..7].copy_from_slice(b"more");
        gate.open();
        assert!(publish(&file).await.unwrap().unwrap().clean);
        assert_eq!(world.store.bytes("f").unwrap(), bytes);
    }
}
