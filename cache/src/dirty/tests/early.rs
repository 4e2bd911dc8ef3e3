//! Parts sent while the file is written, and uploads that come to nothing.

use super::*;

async fn write_parts(file: &DirtyFile, from: u64, to: u64, seed: u8) {
    for at in (from * PART..to * PART).step_by(1024) {
        file.write(at, &pattern(1024, seed)).await.unwrap();
    }
    settle().await;
}

#[tokio::test]
async fn a_sequential_writer_sends_all_but_the_last_part_before_the_close() {
    let world = world();
    let file = world.create();
    write_parts(&file, 0, 1, 1).await;
    assert_eq!(world.store.calls(), [], "one part is no reason yet");
    write_parts(&file, 1, 10, 1).await;
    let calls = world.store.calls();
    assert_eq!(
        calls
            .iter()
            .filter(|it| it.0 == Call::CreateMultipart)
            .count(),
        1
    );
    assert_eq!(calls.iter().filter(|it| it.0 == Call::PutPart).count(), 9);
    publish(&file).await.unwrap();
    assert_eq!(world.count(Call::PutPart), 1);
    assert_eq!(world.store.bytes("f").unwrap(), contents(&file).await);
    assert_eq!(world.writer.uploads_under_way(), 0);
}

#[tokio::test]
async fn a_pause_sends_the_parts_that_are_full_and_publishes_nothing() {
    let world = world();
    let file = world.create();
    write_parts(&file, 0, 4, 1).await;
    file.write(4 * PART, b"the beginning of another")
        .await
        .unwrap();
    settle().await;
    assert_eq!(world.count(Call::PutPart), 3);
    file.pause();
    settle().await;
    assert_eq!(world.store.calls(), [(Call::PutPart, "f".to_owned())]);
    file.pause();
    settle().await;
    assert_eq!(world.store.calls(), [], "once");
    assert_eq!(world.store.bytes("f"), None, "nobody sees it yet");
    write_parts(&file, 4, 6, 2).await;
    publish(&file).await.unwrap();
    assert_eq!(world.store.bytes("f").unwrap(), contents(&file).await);
    assert_eq!(world.store.uploads(), 0);
}

#[tokio::test]
async fn a_pause_of_a_small_file_sends_nothing() {
    let world = world();
    for parts in [0, 1] {
        let file = world.create();
        write_parts(&file, 0, parts, 1).await;
        file.write(parts * PART, b"some").await.unwrap();
        file.pause();
        settle().await;
        assert_eq!(world.store.calls(), [], "{parts} parts and some");
    }
}

#[tokio::test]
async fn no_more_parts_are_under_way_than_allowed() {
    let world = world();
    let gate = world.store.gate(Call::PutPart);
    let file = world.create();
    write_parts(&file, 0, 20, 1).await;
    assert_eq!(world.count(Call::PutPart), 3);
    let task = tokio::spawn({
        let file = file.clone();
        async move { publish(&file).await }
    });
    settle().await;
    assert_eq!(world.count(Call::PutPart), 0);
    gate.open();
    task.await.unwrap().unwrap();
    assert_eq!(world.count(Call::PutPart), 17);
    assert_eq!(world.store.bytes("f").unwrap(), contents(&file).await);
}

#[tokio::test]
async fn a_part_that_is_overwritten_after_it_was_sent_is_sent_again() {
    let world = world();
    let file = world.create();
    write_parts(&file, 0, 8, 1).await;
    world.store.calls();
    file.write(PART + 5, b"again").await.unwrap();
    settle().await;
    assert_eq!(world.store.calls(), [], "not before the publish");
    publish(&file).await.unwrap();
    assert_eq!(world.count(Call::PutPart), 2);
    assert_eq!(world.store.bytes("f").unwrap(), contents(&file).await);
}

#[tokio::test]
async fn a_part_that_is_overwritten_on_its_way_is_sent_again() {
    let world = world();
    let gate = world.store.gate(Call::PutPart);
    let file = world.create();
    write_parts(&file, 0, 4, 1).await;
    file.write(5, b"again").await.unwrap();
    gate.open();
    publish(&file).await.unwrap();
    assert_eq!(world.store.bytes("f").unwrap(), contents(&file).await);
}

#[tokio::test]
async fn rewriting_the_whole_file_again_and_again_costs_one_early_upload() {
    let world = world();
    let file = world.create();
    for round in 0..20 {
        write_parts(&file, 0, 10, round).await;
    }
    assert!(world.count(Call::PutPart) <= 10);
    publish(&file).await.unwrap();
    assert_eq!(world.count(Call::PutPart), 10);
    assert_eq!(world.store.bytes("f").unwrap(), contents(&file).await);
}

#[tokio::test]
async fn random_writes_send_nothing_early() {
    let world = world();
    let file = world.create();
    file.set_size(100 * PART).unwrap();
    for i in 0..400 {
        file.write((i * 7919) % 100 * PART, &[1; 1024])
            .await
            .unwrap();
    }
    settle().await;
    assert_eq!(world.store.calls(), []);
}

#[tokio::test]
async fn a_file_cut_short_after_its_upload_began_is_one_put() {
    let world = world();
    let file = world.create();
    write_parts(&file, 0, 8, 1).await;
    file.set_size(10).unwrap();
    publish(&file).await.unwrap();
    assert_eq!(world.store.bytes("f").unwrap(), pattern(10, 1));
    assert_eq!(world.store.uploads(), 0);
}

#[tokio::test]
async fn a_cut_and_regrown_file_has_no_old_bytes() {
    let world = world();
    let file = world.create();
    write_parts(&file, 0, 8, 1).await;
    file.set_size(3 * PART + 7).unwrap();
    file.set_size(8 * PART).unwrap();
    publish(&file).await.unwrap();
    let mut expected = contents(&file).await;
    assert!(
        expected[3 * PART as usize + 7..]
            .iter()
            .all(|byte| *byte == 0)
    );
    assert_eq!(world.store.bytes("f").unwrap(), expected);
    expected.truncate(1);
    file.set_size(1).unwrap();
    publish(&file).await.unwrap();
    assert_eq!(world.store.bytes("f").unwrap(), expected);
}

#[tokio::test]
async fn other_metadata_at_the_publish_begin_a_new_upload() {
    let world = world();
    let file = world.create();
    file.set_metadata(named("early"));
    write_parts(&file, 0, 8, 1).await;
    assert_eq!(file.early_metadata(), Some(named("early")));
    world.store.calls();
    file.publish(named("late")).await.unwrap();
    assert_eq!(world.store.metadata("f"), Some(named("late")));
    assert_eq!(world.count(Call::PutPart), 8);
    assert_eq!(world.store.uploads(), 0);
}

#[tokio::test]
async fn the_same_metadata_at_the_publish_go_on_with_the_upload() {
    let world = world();
    let file = world.create();
    file.set_metadata(named("early"));
    write_parts(&file, 0, 8, 1).await;
    world.store.calls();
    file.publish(named("early")).await.unwrap();
    assert_eq!(world.count(Call::PutPart), 1);
    assert_eq!(world.store.metadata("f"), Some(named("early")));
}

#[tokio::test]
async fn an_upload_that_the_store_forgot_begins_anew() {
    let world = world();
    let file = world.create();
    write_parts(&file, 0, 8, 1).await;
    let uploads: Vec<_> = world.writer.uploads.lock().keys().cloned().collect();
    for id in uploads {
        world.store.abort(&Key::new("f"), &id).await.unwrap();
    }
    publish(&file).await.unwrap();
    assert_eq!(world.store.bytes("f").unwrap(), contents(&file).await);
    assert_eq!(world.writer.uploads_under_way(), 0);
}

#[tokio::test]
async fn an_early_refusal_fails_no_write_and_is_not_repeated() {
    let world = world();
    let file = world.create();
    world
        .store
        .inject(Call::CreateMultipart, Fault::Fail(StoreErrorKind::Denied));
    write_parts(&file, 0, 20, 1).await;
    assert_eq!(world.count(Call::CreateMultipart), 1);
    publish(&file).await.unwrap();
    assert_eq!(world.store.bytes("f").unwrap(), contents(&file).await);
}

#[tokio::test]
async fn the_last_reference_gone_aborts_the_upload() {
    for held in [false, true] {
        let world = world();
        let gate = world.store.gate(Call::PutPart);
        if !held {
            gate.open();
        }
        let file = world.create();
        write_parts(&file, 0, 8, 1).await;
        drop(file);
        gate.open();
        settle().await;
        assert_eq!(world.store.uploads(), 0);
        assert_eq!(world.writer.uploads_under_way(), 0);
        let idle = world.writer.idle_bytes();
        assert_eq!(world.share.used(), idle, "all memory is given back");
    }
}

#[tokio::test]
async fn a_reference_gone_while_the_upload_is_created_leaves_none() {
    let world = world();
    let gate = world.store.gate(Call::CreateMultipart);
    let file = world.create();
    write_parts(&file, 0, 8, 1).await;
    drop(file);
    gate.open();
    settle().await;
    assert_eq!(world.store.uploads(), 0);
}

#[tokio::test]
async fn an_abort_that_failed_is_tried_again_at_the_end() {
    let world = world();
    let file = world.create();
    write_parts(&file, 0, 8, 1).await;
    world
        .store
        .inject(Call::Abort, Fault::Fail(StoreErrorKind::Timeout));
    drop(file);
    settle().await;
    assert_eq!(world.writer.uploads_under_way(), 1);
    world.writer.abort_uploads().await.unwrap();
    assert_eq!(world.store.uploads(), 0);
    assert_eq!(world.writer.uploads_under_way(), 0);
}
