//! `close()` is an acknowledgement: when it returned 0, the bytes are in the bucket.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ackfs_tests::content::{assert_same, bytes};
use ackfs_tests::posix::{Mapping, close};
use ackfs_tests::{World, claims};

use crate::{eventually, rounds};

claims! {
    EVERY:
        every_close_is_in_the_bucket,
        a_dup_publishes_at_each_close_or_at_the_last,
        a_child_that_only_exits_does_not_seal_the_file,
        redirections_of_sh_are_in_the_bucket_when_sh_has_ended,
        two_appending_descriptors_lose_no_line,
        msync_publishes_a_mapping,
        a_mapping_written_after_the_last_close_is_published,
        fsync_publishes_and_writing_goes_on,
        an_empty_file_is_an_empty_object,
        a_file_made_or_cut_by_who_only_reads_is_in_the_bucket,
        two_mounts_see_each_others_closes;
    DEMO:
        a_close_without_changes_asks_the_store_for_nothing,
        a_small_file_costs_one_put;
}

/// 2,000 closes through each door in a full run: half of them new objects, half overwritten with a
/// body of another length, each looked at by HEAD and by GET at once.
fn every_close_is_in_the_bucket(world: &World) {
    let mount = world.mount();
    let rounds = rounds("ACKFS_TEST_CLOSES", 120);
    thread::scope(|scope| {
        for writer in 0..4 {
            let (mount, witness) = (&mount, world.witness());
            scope.spawn(move || {
                for round in 0..rounds / 4 {
                    let key = format!("w{writer}-{:04}", round / 2);
                    let seed = (writer * 100_000 + round) as u64;
                    let body = bytes(seed, 100 + (seed as usize * 7_919) % 30_000);
                    let mut file = File::create(mount.path(&key)).expect("create");
                    file.write_all(&body).expect("write");
                    assert_eq!(close(file), Ok(()), "close of {key}");
                    let head = witness
                        .head(&key)
                        .unwrap_or_else(|| panic!("{key} is missing"));
                    assert_eq!(head.size, body.len() as u64, "{key} is stale");
                    let found = witness
                        .get(&key)
                        .unwrap_or_else(|| panic!("{key} is missing"));
                    assert_same(&found, &body, &key);
                }
            });
        }
    });
}

/// At each close that finds dirty bytes where the kernel cannot tell which one is the last.
fn a_dup_publishes_at_each_close_or_at_the_last(world: &World) {
    let mount = world.mount();
    let each = !mount.in_release_mode();
    let mut file = File::create(mount.path("dup")).expect("create");
    let mut twin = file.try_clone().expect("dup");
    file.write_all(b"one ").expect("write");
    assert_eq!(close(file), Ok(()));
    let early = world.witness().get("dup");
    assert_eq!(early.as_deref(), each.then_some(&b"one "[..]));
    twin.write_all(b"two")
        .expect("write through the other descriptor");
    assert_eq!(close(twin), Ok(()));
    assert_eq!(world.witness().get("dup").as_deref(), Some(&b"one two"[..]));
}

/// The child's exit sends a FLUSH in the middle of the parent's writes.
fn a_child_that_only_exits_does_not_seal_the_file(world: &World) {
    let mount = world.mount();
    let mut file = File::create(mount.path("forked")).expect("create");
    for part in 0..5_u8 {
        file.write_all(&[b'a' + part; 1000]).expect("write");
        let inherited = Stdio::from(file.try_clone().expect("dup"));
        let status = Command::new("true")
            .stdout(inherited)
            .status()
            .expect("true runs");
        assert!(status.success());
    }
    assert_eq!(close(file), Ok(()));
    let wanted: Vec<u8> = (0..5_u8).flat_map(|part| [b'a' + part; 1000]).collect();
    assert_same(
        &world.witness().get("forked").expect("there"),
        &wanted,
        "forked",
    );
}

fn redirections_of_sh_are_in_the_bucket_when_sh_has_ended(world: &World) {
    let mount = world.mount();
    let sh = |script: &str| {
        let status = Command::new("sh")
            .args(["-c", script])
            .current_dir(mount.dir())
            .status();
        assert!(status.expect("sh runs").success(), "{script}");
    };
    let witness = world.witness();
    // Children write and exit while others still hold the descriptor.
    sh("(echo a; (exit 0); sh -c 'echo b'; true; (echo c) ) > out");
    assert_eq!(witness.get("out").as_deref(), Some(&b"a\nb\nc\n"[..]));
    sh("echo d >> out; (echo e; true) >> out");
    assert_eq!(witness.get("out").as_deref(), Some(&b"a\nb\nc\nd\ne\n"[..]));
    sh("exec 3>three; echo 1 >&3; (exit 0); (echo 2 >&3); echo 3 >&3; exec 3>&-");
    assert_eq!(witness.get("three").as_deref(), Some(&b"1\n2\n3\n"[..]));
    sh("seq 1 20000 | sort -n | tee copy > numbers");
    let mut numbers = String::new();
    for number in 1..=20_000 {
        writeln!(numbers, "{number}").expect("a string takes any text");
    }
    assert_same(
        &witness.get("numbers").expect("there"),
        numbers.as_bytes(),
        "numbers",
    );
    assert_same(
        &witness.get("copy").expect("there"),
        numbers.as_bytes(),
        "copy",
    );
    sh(": > out");
    assert_eq!(witness.get("out").as_deref(), Some(&b""[..]));
}

fn two_appending_descriptors_lose_no_line(world: &World) {
    let mount = world.mount();
    let path = mount.path("log");
    fs::write(&path, "begin\n").expect("write");
    let lines = 300;
    thread::scope(|scope| {
        for name in ["left", "right"] {
            let path = &path;
            scope.spawn(move || {
                let mut file = OpenOptions::new().append(true).open(path).expect("open");
                for line in 0..lines {
                    file.write_all(format!("{name} {line}\n").as_bytes())
                        .expect("append");
                }
                assert_eq!(close(file), Ok(()), "close of {name}");
            });
        }
    });
    let found = String::from_utf8(world.witness().get("log").expect("there")).expect("text");
    assert!(found.starts_with("begin\n"));
    assert_eq!(found.lines().count(), 1 + 2 * lines);
    for name in ["left", "right"] {
        let own: Vec<&str> = found
            .lines()
            .filter(|line| line.starts_with(name))
            .collect();
        let wanted: Vec<String> = (0..lines).map(|line| format!("{name} {line}")).collect();
        assert_eq!(own, wanted, "the lines of {name} are whole and in order");
    }
}

fn msync_publishes_a_mapping(world: &World) {
    let mount = world.mount();
    world.witness().put("mapped", &bytes(5, 20_000));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(mount.path("mapped"))
        .expect("open");
    let mut map = Mapping::new(&file, 20_000).expect("mmap");
    let mut wanted = bytes(5, 20_000);
    assert_eq!(map.load(19_999), wanted[19_999]);
    for (offset, word) in [(0, &b"first"[..]), (9_000, b"middle"), (19_996, b"last")] {
        map.store(offset, word);
        wanted[offset..offset + word.len()].copy_from_slice(word);
    }
    assert_eq!(map.sync(), Ok(()));
    assert_same(
        &world.witness().get("mapped").expect("there"),
        &wanted,
        "after msync",
    );
    map.store(100, b"again");
    wanted[100..105].copy_from_slice(b"again");
    assert_eq!(map.sync(), Ok(()));
    drop(map);
    assert_eq!(close(file), Ok(()));
    assert_same(
        &world.witness().get("mapped").expect("there"),
        &wanted,
        "after close",
    );
}

/// `mmap; close; store; munmap` sends a WRITE after the last FLUSH and then only RELEASE. Nobody
/// waits for that one on a stock kernel, so the claim is "soon" there, and "at once" where closers wait.
fn a_mapping_written_after_the_last_close_is_published(world: &World) {
    let mount = world.mount();
    let path = mount.path("late");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path);
    let mut file = file.expect("create");
    file.write_all(&bytes(6, 10_000)).expect("write");
    let mut map = Mapping::new(&file, 10_000).expect("mmap");
    assert_eq!(close(file), Ok(()));
    if !mount.in_release_mode() {
        let found = world.witness().get("late").expect("there");
        assert_same(&found, &bytes(6, 10_000), "at close");
    }
    map.store(5_000, b"after the last close");
    drop(map);
    let mut wanted = bytes(6, 10_000);
    wanted[5_000..5_020].copy_from_slice(b"after the last close");
    if mount.in_release_mode() {
        let found = world.witness().get("late").expect("there");
        return assert_same(&found, &wanted, "at munmap");
    }
    eventually("the mapping's bytes are in the bucket", || {
        world.witness().get("late").expect("there") == wanted
    });
}

fn fsync_publishes_and_writing_goes_on(world: &World) {
    let mount = world.mount();
    let mut file = File::create(mount.path("synced")).expect("create");
    let mut wanted = Vec::new();
    for round in 0..4_u64 {
        let part = bytes(round, 3_000);
        file.write_all(&part).expect("write");
        wanted.extend_from_slice(&part);
        file.sync_all().expect("fsync");
        assert_same(
            &world.witness().get("synced").expect("there"),
            &wanted,
            "after fsync",
        );
    }
    file.seek(SeekFrom::Start(1_000)).expect("seek");
    file.write_all(b"rewritten").expect("write");
    wanted[1_000..1_009].copy_from_slice(b"rewritten");
    assert_eq!(close(file), Ok(()));
    assert_same(
        &world.witness().get("synced").expect("there"),
        &wanted,
        "after close",
    );
}

fn an_empty_file_is_an_empty_object(world: &World) {
    world.witness().put("emptied", b"something");
    let mount = world.mount();
    assert_eq!(
        close(File::create(mount.path("touched")).expect("create")),
        Ok(())
    );
    assert_eq!(world.witness().get("touched").as_deref(), Some(&b""[..]));
    // And a file that loses its bytes is one too.
    assert_eq!(
        close(File::create(mount.path("emptied")).expect("truncate")),
        Ok(())
    );
    assert_eq!(world.witness().get("emptied").as_deref(), Some(&b""[..]));
}

fn a_file_made_or_cut_by_who_only_reads_is_in_the_bucket(world: &World) {
    let mount = world.mount();
    let witness = world.witness();
    witness.put("cut", b"bytes");
    for (name, flag) in [("made", libc::O_CREAT), ("cut", libc::O_TRUNC)] {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(flag);
        let file = options.open(mount.path(name)).expect("open");
        assert_eq!(close(file), Ok(()), "close of {name}");
        let head = witness.head(name);
        assert_eq!(head.map(|head| head.size), Some(0), "{name}");
    }
}

fn two_mounts_see_each_others_closes(world: &World) {
    let (left, right) = (world.mount(), world.mount());
    for round in 0..40_u64 {
        let (writer, reader) = if round % 2 == 0 {
            (&left, &right)
        } else {
            (&right, &left)
        };
        let body = bytes(round, 500 + (round as usize * 977) % 9_000);
        let mut file = File::create(writer.path("ball")).expect("create");
        file.write_all(&body).expect("write");
        assert_eq!(close(file), Ok(()));
        let mut found = Vec::new();
        let mut file = File::open(reader.path("ball")).unwrap_or_else(|error| {
            panic!("round {round}: the other mount opens what a close has published: {error}")
        });
        file.read_to_end(&mut found).expect("read");
        assert_same(&found, &body, &format!("round {round}"));
    }
}

fn a_close_without_changes_asks_the_store_for_nothing(world: &World) {
    let mount = world.mount();
    let path = mount.path("quiet");
    fs::write(&path, "here").expect("write");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .expect("open");
    let before = world.demo().requests();
    let twin = file.try_clone().expect("dup");
    assert_eq!(close(twin), Ok(()));
    assert_eq!(
        file.sync_all()
            .map_err(|error| ackfs_tests::posix::errno(&error)),
        Ok(())
    );
    assert_eq!(close(file), Ok(()));
    let cost = world.demo().requests() - before;
    assert_eq!(cost.total(), 0, "closes of a clean file cost {cost:?}");
}

/// One PUT a file and at most two look-ups beside it; far fewer look-ups when many names are made
/// in one small directory, because its listing answers them.
fn a_small_file_costs_one_put(world: &World) {
    let mount = world.mount();
    fs::create_dir(mount.path("dir")).expect("mkdir");
    fs::write(mount.path("dir/first"), "x").expect("write");
    let before = world.demo().requests();
    let files = 50;
    let begun = Instant::now();
    let mut pauses = 0;
    for index in 0..files {
        let one = Instant::now();
        let mut file = File::create(mount.path(format!("dir/{index}"))).expect("create");
        file.write_all(&bytes(index, 10_000)).expect("write");
        assert_eq!(close(file), Ok(()));
        pauses += u64::from(one.elapsed() > Duration::from_secs(1));
    }
    let cost = world.demo().requests() - before;
    assert_eq!(cost.put, files, "one PUT a file: {cost:?}");
    let lookups = cost.head + cost.list;
    // A pause of two seconds ends a run of creations (`fs/names/creations.rs`): the next names are asked for
    // again, by a HEAD and a listing each. And a listing is believed for a second.
    let slack = 20 * pauses + 2 * begun.elapsed().as_secs();
    assert!(
        lookups <= files + slack,
        "far fewer look-ups than two a file: {cost:?}"
    );
    assert_eq!(cost.total() - lookups, files, "and nothing else: {cost:?}");
}
