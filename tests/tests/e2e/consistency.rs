//! Close-to-open: an open sees all that was published by closes that ended before it, wherever
//! they were made; and one open file never shows bytes of two versions.

use std::fs::{self, File, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use ackfs_tests::content::{assert_same, bytes, bytes_at, check_at};
use ackfs_tests::posix::{self, close, drop_pages, errno};
use ackfs_tests::{World, claims, sandbox};
use nix::errno::Errno;
use nix::fcntl::OFlag;

claims! {
    EVERY:
        a_foreign_put_is_seen_by_the_next_open,
        a_foreign_overwrite_is_seen_by_the_next_open,
        a_foreign_overwrite_is_seen_while_an_earlier_writer_is_not_released,
        a_foreign_delete_is_seen_by_the_next_open,
        an_open_file_never_mixes_two_versions,
        an_open_file_whose_object_went_away_says_so,
        a_name_that_was_missing_is_found_when_it_appears,
        what_one_mount_removes_the_other_does_not_open,
        a_mode_that_another_mount_sets_is_seen_and_kept,
        metadata_of_the_same_bytes_are_seen_by_the_next_open,
        an_object_named_as_a_directory_that_was_emptied_is_found,
        a_prefix_named_as_a_file_being_written_does_not_take_it_from_its_writer,
        a_name_that_only_ever_was_a_file_is_never_a_directory;
    DEMO:
        a_missing_name_is_asked_for_once,
        an_unchanged_file_is_read_again_without_a_fetch,
        an_open_costs_at_most_one_round_trip;
}

fn a_foreign_put_is_seen_by_the_next_open(world: &World) {
    let mount = world.mount_with(world.options().flags("--negative-ttl 0s"));
    for round in 0..20 {
        let key = format!("new-{round}");
        let error = File::open(mount.path(&key)).expect_err("there is no such object yet");
        assert_eq!(errno(&error), Errno::ENOENT);
        world.witness().put(&key, &bytes(round, 2_000));
        let found = fs::read(mount.path(&key)).expect("the object is there now");
        assert_same(&found, &bytes(round, 2_000), &key);
    }
}

fn a_foreign_overwrite_is_seen_by_the_next_open(world: &World) {
    let mount = world.mount();
    for round in 0..30_u64 {
        // Longer, shorter and equally long bodies: attributes and pages must both be new.
        let len = [5_000, 9_000, 9_000, 100, 0, 20_000][round as usize % 6];
        world.witness().put("key", &bytes(round, len));
        let mut file = File::open(mount.path("key")).expect("open");
        let size = file.metadata().expect("fstat").len();
        assert_eq!(size, len as u64, "round {round}: the size after the open");
        let mut found = Vec::new();
        file.read_to_end(&mut found).expect("read");
        assert_same(&found, &bytes(round, len), &format!("round {round}"));
    }
}

/// RELEASE comes some time after the close(2) that published, or hours later if a descriptor is kept:
/// here by another process.
fn a_foreign_overwrite_is_seen_while_an_earlier_writer_is_not_released(world: &World) {
    let (mount, witness) = (world.mount(), world.witness());
    let ways = [
        OFlag::O_RDONLY,
        OFlag::O_RDWR,
        OFlag::O_RDWR | OFlag::O_TRUNC,
        OFlag::O_RDWR | OFlag::O_APPEND,
    ];
    for (round, way) in ways.into_iter().enumerate() {
        let key = format!("key-{round}");
        let mut file = File::create(mount.path(&key)).expect("create");
        file.write_all(&bytes(1, 5_000)).expect("write");
        let mut keeper = sandbox::command("cat");
        let kept = file.try_clone().expect("dup");
        keeper.stdout(kept).stdin(Stdio::piped());
        let mut keeper = sandbox::spawn(keeper).expect("cat runs");
        // The command above held a descriptor of its own, and the last close publishes where the kernel
        // tells which one it is: what is left to it here is to have published.
        file.sync_all().expect("fsync");
        assert_eq!(close(file), Ok(()));
        witness.put(&key, &bytes(2, 9_000));
        let mut found = Vec::new();
        let mut file = posix::open(&mount.path(&key), way).expect("open");
        file.read_to_end(&mut found).expect("read");
        let mut now = bytes(2, 9_000);
        if way.contains(OFlag::O_TRUNC) {
            now.clear();
        }
        assert_same(&found, &now, &key);
        if way.contains(OFlag::O_RDWR) {
            file.write_all(b"more").expect("write");
            assert_eq!(close(file), Ok(()), "{key}");
            now.extend_from_slice(b"more");
            assert_same(&witness.get(&key).expect("there"), &now, &key);
        }
        drop(keeper.stdin.take());
        assert!(keeper.wait().expect("cat ends").success());
        assert_same(&fs::read(mount.path(&key)).expect("read"), &now, &key);
    }
}

fn a_foreign_delete_is_seen_by_the_next_open(world: &World) {
    let mount = world.mount();
    world.witness().put("key", b"here");
    assert_eq!(fs::read(mount.path("key")).expect("read"), b"here");
    world.witness().delete("key");
    let error = File::open(mount.path("key")).expect_err("the object is gone");
    assert!(
        [Errno::ENOENT, Errno::ESTALE].contains(&errno(&error)),
        "{error}"
    );
    assert!(
        !fs::exists(mount.path("key")).expect("stat"),
        "and it stays gone"
    );
}

/// Old bytes or ESTALE, never bytes of the new version: the new one is as long as the old.
fn an_open_file_never_mixes_two_versions(world: &World) {
    let len = 40 << 20;
    world.witness().put("big", &bytes(1, len));
    let mount = world.mount_with(world.options().flags("--readahead-max 8MiB"));
    let old = File::open(mount.path("big")).expect("open");
    let mut page = vec![0; 4096];
    old.read_exact_at(&mut page, 0).expect("read the beginning");
    check_at(1, 0, &page);
    world.witness().put("big", &bytes(2, len));
    let mut refused = 0;
    for offset in (0..len as u64).step_by(1 << 20) {
        match old.read_exact_at(&mut page, offset) {
            Ok(()) => check_at(1, offset, &page),
            Err(error) => {
                assert_eq!(errno(&error), Errno::ESTALE, "at {offset}: {error}");
                refused += 1;
            }
        }
    }
    assert!(
        refused > 0,
        "40 MiB cannot all have been fetched for one page"
    );
    let new = File::open(mount.path("big")).expect("open again");
    for offset in (0..len as u64).step_by(1 << 20) {
        new.read_exact_at(&mut page, offset)
            .expect("the new open reads the new version");
        assert_eq!(page, bytes_at(2, offset, page.len()), "at {offset}");
    }
}

fn an_open_file_whose_object_went_away_says_so(world: &World) {
    let len = 40 << 20;
    world.witness().put("big", &bytes(1, len));
    let mount = world.mount_with(world.options().flags("--readahead-max 8MiB"));
    let file = File::open(mount.path("big")).expect("open");
    world.witness().delete("big");
    let mut page = vec![0; 4096];
    let error = file
        .read_exact_at(&mut page, len as u64 - 4096)
        .expect_err("nothing to read from");
    assert_eq!(errno(&error), Errno::ESTALE);
}

/// A negative dentry that the kernel holds ends by itself; an `O_CREAT` open asks in any case.
fn a_name_that_was_missing_is_found_when_it_appears(world: &World) {
    let mount = world.mount();
    assert!(!fs::exists(mount.path("late")).expect("stat"));
    world.witness().put("late", b"foreign");
    crate::eventually("the foreign object is seen", || {
        fs::exists(mount.path("late")).expect("stat")
    });
    assert_eq!(fs::read(mount.path("late")).expect("read"), b"foreign");
    let error = File::create_new(mount.path("late")).expect_err("it exists");
    assert_eq!(errno(&error), Errno::EEXIST);
}

fn what_one_mount_removes_the_other_does_not_open(world: &World) {
    let (left, right) = (world.mount(), world.mount());
    for round in 0..10 {
        let mut file = File::create(left.path("key")).expect("create");
        file.write_all(format!("{round}").as_bytes())
            .expect("write");
        assert_eq!(close(file), Ok(()));
        crate::eventually("the other mount sees the name", || {
            right.path("key").exists()
        });
        assert_eq!(
            fs::read(right.path("key")).expect("read"),
            format!("{round}").as_bytes()
        );
        fs::remove_file(left.path("key")).expect("unlink");
        assert!(File::open(right.path("key")).is_err(), "round {round}");
    }
}

/// The ETag is a digest of the bytes, so neither mount sees another version.
fn a_mode_that_another_mount_sets_is_seen_and_kept(world: &World) {
    world.witness().put("key", b"hello");
    let (here, there) = (world.mount(), world.mount());
    let mode = |path: &Path| fs::metadata(path).expect("stat").mode() & 0o7777;
    assert_eq!(mode(&there.path("key")), 0o644);
    assert_eq!(fs::read(there.path("key")).expect("read"), b"hello");
    let file = File::options()
        .write(true)
        .open(here.path("key"))
        .expect("open");
    file.set_permissions(Permissions::from_mode(0o600))
        .expect("fchmod");
    let day = UNIX_EPOCH + Duration::from_secs(86_400);
    file.set_modified(day).expect("futimens");
    close(file).expect("close");
    let file = File::open(there.path("key")).expect("open");
    let stat = file.metadata().expect("fstat");
    assert_eq!(stat.mode() & 0o7777, 0o600);
    assert_eq!(stat.modified().expect("mtime"), day);
    drop(file);
    let mut file = File::options()
        .append(true)
        .open(there.path("key"))
        .expect("open");
    file.write_all(b"!").expect("write");
    close(file).expect("close");
    let head = world.witness().head("key").expect("it is there");
    assert_eq!(head.metadata["file-permissions"], "0100600");
}

fn metadata_of_the_same_bytes_are_seen_by_the_next_open(world: &World) {
    let (mount, witness) = (world.mount(), world.witness());
    fs::write(mount.path("key"), "hello").expect("write");
    let path = mount.path("key");
    let before = fs::metadata(&path).expect("stat");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("chmod");
    let opened = |path: &Path| {
        File::open(path)
            .and_then(|file| file.metadata())
            .expect("open")
    };
    let same = opened(&path);
    assert_eq!(same.mode() & 0o7777, 0o600);
    assert_eq!(
        same.modified().expect("mtime"),
        before.modified().expect("mtime")
    );
    let headers = [
        ("x-amz-meta-file-permissions", "0100755"),
        ("x-amz-meta-file-mtime", "5000000000ns"),
    ];
    witness.put_with("key", b"hello", &headers).expect("put");
    let other = opened(&path);
    assert_eq!((other.mode() & 0o7777, other.mtime()), (0o755, 5));
}

fn an_object_named_as_a_directory_that_was_emptied_is_found(world: &World) {
    let witness = world.witness();
    let mount = world.mount_with(world.options().flags("--metadata-ttl 0s"));
    witness.put("dir/last", b"body");
    fs::remove_file(mount.path("dir/last")).expect("unlink");
    assert!(fs::metadata(mount.path("dir")).expect("stat").is_dir());
    witness.put("dir", b"now a file");
    assert_eq!(fs::read(mount.path("dir")).expect("read"), b"now a file");
}

fn a_prefix_named_as_a_file_being_written_does_not_take_it_from_its_writer(world: &World) {
    let (mount, witness) = (world.mount(), world.witness());
    let mut file = File::create(mount.path("name")).expect("create");
    file.write_all(b"half").expect("write");
    witness.put("name/below", b"foreign");
    let listed = fs::read_dir(mount.dir()).expect("opendir");
    let names: Vec<_> = listed
        .map(|entry| entry.expect("readdir").file_name())
        .collect();
    assert_eq!(names, ["name"]);
    assert!(fs::metadata(mount.path("name")).expect("stat").is_file());
    file.write_all(b" and half").expect("write");
    if world.is_demo() {
        assert_eq!(close(file), Ok(()));
        assert_eq!(witness.get("name").as_deref(), Some(&b"half and half"[..]));
    } else {
        // A MinIO of one disk cannot hold both.
        let _ = close(file);
    }
    drop(mount);
    assert_eq!(witness.get("name/below").as_deref(), Some(&b"foreign"[..]));
}

/// MinIO's listings show a prefix `name/` for a moment when an object `name` is put or deleted.
fn a_name_that_only_ever_was_a_file_is_never_a_directory(world: &World) {
    let mount = world.mount_with(world.options().flags("--metadata-ttl 0s"));
    let names = ["a", "b", "c", "d"].map(|name| format!("dir/{name}"));
    for name in &names {
        world.witness().put(name, b"");
    }
    let held = names
        .each_ref()
        .map(|name| File::open(mount.path(name)).expect("open"));
    let working = AtomicUsize::new(names.len());
    thread::scope(|scope| {
        for name in &names {
            let (witness, working) = (world.witness(), &working);
            scope.spawn(move || {
                for round in 0..60 {
                    witness.put(name, &bytes(round, [10, 300_000][round as usize % 2]));
                }
                working.fetch_sub(1, Ordering::Relaxed);
            });
        }
        while working.load(Ordering::Relaxed) > 0 {
            let listed = fs::read_dir(mount.path("dir")).expect("opendir");
            for entry in listed.map(|entry| entry.expect("readdir")) {
                let kind = entry.file_type().expect("a type");
                assert!(kind.is_file(), "{entry:?}: {kind:?}");
            }
            for name in &names {
                let stat = fs::metadata(mount.path(name)).expect("stat");
                assert!(stat.is_file(), "{name}");
            }
        }
    });
    drop(held);
}

fn a_missing_name_is_asked_for_once(world: &World) {
    let mount = world.mount_with(world.options().flags("--negative-ttl 60s"));
    assert!(!mount.path("missing").exists());
    let before = world.demo().requests();
    for _ in 0..100 {
        assert!(!mount.path("missing").exists());
    }
    let cost = world.demo().requests() - before;
    assert_eq!(cost.total(), 0, "a known absence costs nothing: {cost:?}");
    // But making it is not hindered, and then it is there.
    fs::write(mount.path("missing"), "made").expect("write");
    assert!(mount.path("missing").exists());
}

fn an_unchanged_file_is_read_again_without_a_fetch(world: &World) {
    world.witness().put("key", &bytes(3, 3 << 20));
    let mount = world.mount();
    assert_same(
        &fs::read(mount.path("key")).expect("read"),
        &bytes(3, 3 << 20),
        "cold",
    );
    let before = world.demo().requests();
    for _ in 0..5 {
        assert_same(
            &fs::read(mount.path("key")).expect("read"),
            &bytes(3, 3 << 20),
            "again",
        );
    }
    // And from our own cache, when the kernel's is gone.
    drop_pages(&File::open(mount.path("key")).expect("open"));
    assert_same(
        &fs::read(mount.path("key")).expect("read"),
        &bytes(3, 3 << 20),
        "without pages",
    );
    let cost = world.demo().requests() - before;
    // An open may bring the first bytes along with its check; a whole body it does not.
    assert!(
        cost.bytes_out < 1 << 20,
        "bytes that are here are not fetched: {cost:?}"
    );
}

fn an_open_costs_at_most_one_round_trip(world: &World) {
    world.witness().put("key", &bytes(3, 100_000));
    let mount = world.mount_with(world.options().flags("--metadata-ttl 60s"));
    assert_eq!(fs::read(mount.path("key")).expect("read").len(), 100_000);
    let before = world.demo().requests();
    for _ in 0..10 {
        assert_eq!(fs::read(mount.path("key")).expect("read").len(), 100_000);
    }
    let cost = world.demo().requests() - before;
    assert!(
        (1..=10).contains(&cost.total()),
        "every open asks, and asks once: {cost:?}"
    );
}
