//! Two mounts, one key: a write is never lost in silence.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::Barrier;
use std::thread;

use ackfs_tests::content::{assert_same, bytes};
use ackfs_tests::posix::{close, errno};
use ackfs_tests::{Mount, World, claims};
use nix::errno::Errno;

use crate::rounds;

claims! {
    EVERY:
        two_mounts_that_race_on_one_key_never_both_win,
        two_large_uploads_that_race_never_both_win,
        a_foreign_put_between_open_and_close_is_not_overwritten,
        a_foreign_object_that_appeared_is_not_overwritten,
        a_foreign_delete_between_open_and_close_is_seen,
        the_loser_can_write_again_after_a_new_open;
}

/// Both have the key open before either closes, so exactly one close can be the first.
fn race(world: &World, left: &Mount, right: &Mount, key: &str, round: u64, len: usize) {
    let barrier = Barrier::new(2);
    // Whatever fails in one, both come to both barriers.
    let run = |mount: &Mount, seed: u64| -> Result<(), Errno> {
        let file = File::create(mount.path(key));
        barrier.wait();
        let written = file.and_then(|mut file| {
            file.write_all(&bytes(seed, len))?;
            Ok(file)
        });
        barrier.wait();
        close(written.map_err(|error| errno(&error))?)
    };
    let (one, two) = thread::scope(|scope| {
        let one = scope.spawn(|| run(left, round * 2));
        let two = scope.spawn(|| run(right, round * 2 + 1));
        (one.join().expect("no panic"), two.join().expect("no panic"))
    });
    let winner = match (one, two) {
        (Ok(()), Err(Errno::ESTALE)) => round * 2,
        (Err(Errno::ESTALE), Ok(())) => round * 2 + 1,
        other => panic!("round {round}: one wins and one gets ESTALE, not {other:?}"),
    };
    let found = world
        .witness()
        .get(key)
        .expect("the winner's object is there");
    assert_same(
        &found,
        &bytes(winner, len),
        &format!("round {round}: the winner's bytes"),
    );
}

fn two_mounts_that_race_on_one_key_never_both_win(world: &World) {
    let (left, right) = (world.mount(), world.mount());
    for round in 0..rounds("ACKFS_TEST_RACES", 50) as u64 {
        // Every fourth round begins with no object: If-None-Match instead of If-Match.
        if round % 4 == 0 {
            world.witness().delete("key");
        }
        race(world, &left, &right, "key", round, 2_000);
    }
}

/// The same through multipart uploads, whose condition is on the completion.
fn two_large_uploads_that_race_never_both_win(world: &World) {
    let options = || world.options().flags("--part-size 5MiB");
    let (left, right) = (world.mount_with(options()), world.mount_with(options()));
    for round in 0..4 {
        race(world, &left, &right, "large", round, 11 << 20);
    }
    assert_eq!(
        world.witness().uploads("large"),
        [],
        "the loser's upload is aborted"
    );
}

fn a_foreign_put_between_open_and_close_is_not_overwritten(world: &World) {
    let mount = world.mount();
    world.witness().put("key", b"before");
    let mut file = File::create(mount.path("key")).expect("open");
    file.write_all(b"mine").expect("write");
    world.witness().put("key", b"foreign");
    assert_eq!(close(file), Err(Errno::ESTALE));
    assert_eq!(world.witness().get("key").as_deref(), Some(&b"foreign"[..]));
}

fn a_foreign_object_that_appeared_is_not_overwritten(world: &World) {
    let mount = world.mount();
    let mut file = File::create(mount.path("new")).expect("create");
    file.write_all(b"mine").expect("write");
    world.witness().put("new", b"foreign");
    assert_eq!(close(file), Err(Errno::ESTALE));
    assert_eq!(world.witness().get("new").as_deref(), Some(&b"foreign"[..]));
}

fn a_foreign_delete_between_open_and_close_is_seen(world: &World) {
    let mount = world.mount();
    world.witness().put("key", b"before");
    let mut file = File::create(mount.path("key")).expect("open");
    file.write_all(b"mine").expect("write");
    world.witness().delete("key");
    assert_eq!(close(file), Err(Errno::ESTALE));
    assert_eq!(
        world.witness().head("key"),
        None,
        "what was deleted stays deleted"
    );
}

fn the_loser_can_write_again_after_a_new_open(world: &World) {
    let mount = world.mount();
    let path = mount.path("key");
    let mut file = File::create(&path).expect("create");
    file.write_all(b"lost").expect("write");
    world.witness().put("key", b"foreign");
    assert_eq!(close(file), Err(Errno::ESTALE));
    let mut file = OpenOptions::new()
        .append(true)
        .open(&path)
        .expect("open again");
    file.write_all(b" and mine").expect("write");
    assert_eq!(close(file), Ok(()));
    assert_eq!(
        world.witness().get("key").as_deref(),
        Some(&b"foreign and mine"[..])
    );
}
