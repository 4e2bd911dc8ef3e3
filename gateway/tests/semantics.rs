//! What the filesystem means, on real mounts over a store in memory that counts and lies: so that a
//! test can say "one PUT and nothing else", and fail a request at the very place it means.
//!
//! Each test runs on both doors. They need root, /dev/fuse and, for the ring, `enable_uring`.

#[path = "semantics/contended.rs"]
mod contended;
#[path = "semantics/going.rs"]
mod going;
#[path = "semantics/links.rs"]
mod links;
#[path = "semantics/mapped.rs"]
mod mapped;
mod memory_mount;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::time::{Duration, Instant};

use ackfs_cache::store::StoreErrorKind;
use ackfs_cache::store::memory::{Call, Fault};

use memory_mount::{
    close, errno, in_release_mode, map_shared, names, on_both_doors, read_write, with_ttl,
};

#[test]
fn a_small_file_is_one_put_and_is_there_when_close_returns() {
    on_both_doors(|mount| {
        let _ = names(mount.dir.path());
        mount.store.calls();
        let mut file = File::create(mount.path("a")).unwrap();
        file.write_all(b"hello").unwrap();
        assert_eq!(
            mount.store.bytes("a"),
            None,
            "nothing is uploaded before close"
        );
        close(file).unwrap();
        assert_eq!(mount.store.bytes("a").unwrap(), "hello");
        let calls = mount.store.calls();
        let puts = calls.iter().filter(|(call, _)| *call == Call::Put).count();
        assert_eq!(puts, 1, "{calls:?}");
        assert!(calls.len() <= 3, "{calls:?}");
        assert_eq!(fs::read(mount.path("a")).unwrap(), b"hello");
    });
}

#[test]
fn many_new_files_cost_one_put_each_and_a_listing_for_all() {
    on_both_doors(|mount| {
        // A pause ends a run of creations (two seconds, `fs/names/creations.rs`), and a busy machine makes some:
        // the next eight names are then asked for again, by a HEAD and a listing each.
        let mut pauses = 0;
        for index in 0..50 {
            let begun = Instant::now();
            fs::write(mount.path(&format!("f{index}")), "x").unwrap();
            pauses += usize::from(begun.elapsed() > Duration::from_secs(1));
        }
        let calls = mount.store.calls();
        let puts = calls.iter().filter(|(call, _)| *call == Call::Put).count();
        assert_eq!(puts, 50);
        let calls_max = 70 + 20 * pauses;
        assert!(
            calls.len() <= calls_max,
            "{} calls for 50 files and {pauses} pauses",
            calls.len()
        );
    });
}

#[test]
fn dup_then_close_publishes_once() {
    on_both_doors(|mount| {
        let mut file = File::create(mount.path("a")).unwrap();
        file.write_all(b"1").unwrap();
        let dup = file.try_clone().unwrap();
        close(file).unwrap();
        close(dup).unwrap();
        assert_eq!(mount.writes(), [(Call::Put, "a".to_owned())]);
    });
}

#[test]
fn a_reader_s_close_does_not_publish_the_writer_s_half() {
    on_both_doors(|mount| {
        let mut file = File::create(mount.path("a")).unwrap();
        file.write_all(b"half").unwrap();
        let reader = File::open(mount.path("a")).unwrap();
        let mut text = String::new();
        (&reader).read_to_string(&mut text).unwrap();
        assert_eq!(text, "half", "a second descriptor reads what was written");
        close(reader).unwrap();
        assert_eq!(mount.store.bytes("a"), None);
        close(file).unwrap();
        assert_eq!(mount.store.bytes("a").unwrap(), "half");
    });
}

#[test]
fn a_refused_put_is_the_answer_of_close_and_the_next_close_tries_again() {
    on_both_doors(|mount| {
        let mut file = File::create(mount.path("a")).unwrap();
        file.write_all(b"1").unwrap();
        let dup = file.try_clone().unwrap();
        mount
            .store
            .inject(Call::Put, Fault::Fail(StoreErrorKind::Denied));
        assert_eq!(errno(close(file)), libc::EACCES);
        assert_eq!(mount.filesystem.unsaved().len(), 1);
        close(dup).unwrap();
        assert_eq!(mount.store.bytes("a").unwrap(), "1");
        assert!(mount.filesystem.unsaved().is_empty());
    });
}

#[test]
fn every_cause_comes_out_of_close_as_its_errno() {
    on_both_doors(|mount| {
        let table = [
            (StoreErrorKind::Denied, libc::EACCES),
            (StoreErrorKind::Changed, libc::ESTALE),
            (StoreErrorKind::Timeout, libc::ETIMEDOUT),
            (StoreErrorKind::NoSpace, libc::EDQUOT),
            (StoreErrorKind::Broken, libc::EIO),
            (StoreErrorKind::TooLarge, libc::EFBIG),
        ];
        for (index, (kind, want)) in table.into_iter().enumerate() {
            let mut file = File::create(mount.path(&format!("f{index}"))).unwrap();
            file.write_all(b"1").unwrap();
            mount.store.inject(Call::Put, Fault::Fail(kind));
            assert_eq!(errno(close(file)), want, "{kind}");
            // What RELEASE tries again must not meet the next fault.
            mount.drain_until_closed();
        }
    });
}

#[test]
fn a_lost_race_is_estale_and_the_winner_stays() {
    on_both_doors(|mount| {
        mount.store.plant("b", "1");
        let mut file = File::create(mount.path("a")).unwrap();
        file.write_all(b"ours").unwrap();
        mount.store.plant("a", "theirs");
        assert_eq!(errno(close(file)), libc::ESTALE);
        assert_eq!(mount.store.bytes("a").unwrap(), "theirs");
        // The same for one that was there before.
        let mut file = OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(mount.path("b"))
            .unwrap();
        file.write_all(b"ours").unwrap();
        mount.store.plant("b", "theirs");
        assert_eq!(errno(close(file)), libc::ESTALE);
        assert_eq!(mount.store.bytes("b").unwrap(), "theirs");
        assert_eq!(fs::read(mount.path("b")).unwrap(), b"theirs");
    });
}

#[test]
fn every_open_sees_the_newest_version_even_with_a_long_ttl() {
    on_both_doors(|mount| {
        mount.store.plant("a", "one");
        assert_eq!(fs::read(mount.path("a")).unwrap(), b"one");
        mount.store.plant("a", "other");
        assert_eq!(fs::read(mount.path("a")).unwrap(), b"other");
        mount.store.uproot("a");
        assert_eq!(errno(File::open(mount.path("a"))), libc::ENOENT);
    });
}

#[test]
fn an_open_file_keeps_its_version_and_a_new_open_gets_the_new_one() {
    on_both_doors(|mount| {
        let old = vec![b'o'; 300_000];
        let new = vec![b'n'; 300_000];
        mount.store.plant("a", old.clone());
        let first = File::open(mount.path("a")).unwrap();
        let mut head = vec![0; 4096];
        first.read_exact_at(&mut head, 0).unwrap();
        assert_eq!(head, &old[..4096]);
        mount.store.plant("a", new.clone());
        assert_eq!(fs::read(mount.path("a")).unwrap(), new);
        // Old bytes or ESTALE, never new ones.
        for page in 0..70 {
            let mut buf = vec![0; 4096];
            match first.read_at(&mut buf, page * 4096) {
                Ok(len) => assert!(
                    buf[..len].iter().all(|byte| *byte == b'o'),
                    "mixed at {page}"
                ),
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ESTALE)),
            }
        }
        assert_eq!(fs::read(mount.path("a")).unwrap(), new);
    });
}

/// Between close(2) and its RELEASE, and as long as any descriptor was kept, an open took what had been
/// published here for the newest version without asking.
#[test]
fn an_open_sees_what_somebody_else_put_while_a_writer_is_not_released() {
    on_both_doors(|mount| {
        for name in ["read", "write", "cut", "append"] {
            let path = mount.path(name);
            let mut writer = read_write(&path);
            writer.write_all(b"ours").unwrap();
            let kept = writer.try_clone().unwrap();
            close(writer).unwrap();
            mount.store.plant(name, "theirs, longer");
            mount.store.calls();
            let mut options = OpenOptions::new();
            match name {
                "write" => options.write(true),
                "cut" => options.write(true).truncate(true),
                "append" => options.append(true),
                _ => &mut options,
            };
            let mut file = options.read(true).open(&path).unwrap();
            let heads = mount.store.count_called(Call::Head);
            // The first finds another version, and the kernel opens that.
            assert_eq!(heads, 2, "{name}");
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            let now = if name == "cut" { "" } else { "theirs, longer" };
            assert_eq!(text, now, "{name}");
            if name != "read" {
                file.write_all(b"!").unwrap();
                file.sync_all().unwrap();
                let now = format!("{now}!");
                assert_eq!(mount.store.bytes(name).unwrap(), now, "{name}");
            }
            drop(file);
            // The writer of the old version keeps it, and loses the race that it did not see.
            let mut old = [0; 4];
            kept.read_exact_at(&mut old, 0).unwrap();
            assert_eq!(&old, b"ours", "{name}");
            kept.write_all_at(b"late", 0).unwrap();
            assert_eq!(errno(close(kept)), libc::ESTALE, "{name}");
            // Whoever looks the file up again gets what is in the store.
            mount.drain_until_closed();
            let now = mount.store.bytes(name).unwrap();
            assert_eq!(fs::read(&path).unwrap(), now, "{name}");
        }
    });
}

#[test]
fn a_truncation_by_name_is_of_what_somebody_else_put_meanwhile() {
    on_both_doors(|mount| {
        let mut writer = File::create(mount.path("a")).unwrap();
        writer.write_all(b"ours").unwrap();
        writer.sync_all().unwrap();
        mount.store.plant("a", "theirs, longer");
        nix::unistd::truncate(&mount.path("a"), 6).unwrap();
        assert_eq!(mount.store.bytes("a").unwrap(), "theirs");
    });
}

/// The conflict is met when the bytes are published, not before.
#[test]
fn an_open_finds_bytes_that_are_not_published_yet_whatever_the_store_has() {
    on_both_doors(|mount| {
        let mut writer = File::create(mount.path("a")).unwrap();
        writer.write_all(b"ours").unwrap();
        writer.sync_all().unwrap();
        writer.write_all(b" and more").unwrap();
        mount.store.plant("a", "theirs");
        mount.store.calls();
        assert_eq!(fs::read(mount.path("a")).unwrap(), b"ours and more");
        assert_eq!(mount.store.calls(), []);
        assert_eq!(errno(close(writer)), libc::ESTALE);
    });
}

#[test]
fn a_look_up_that_failed_is_never_enoent() {
    with_ttl(Duration::ZERO, |mount| {
        let table = [
            (StoreErrorKind::Denied, libc::EACCES),
            (StoreErrorKind::Timeout, libc::ETIMEDOUT),
            (StoreErrorKind::Broken, libc::EIO),
        ];
        for call in [Call::Head, Call::List] {
            for (kind, want) in table {
                mount.store.inject(call, Fault::Fail(kind));
                assert_eq!(
                    errno(fs::metadata(mount.path("x"))),
                    want,
                    "{call:?} {kind}"
                );
            }
        }
        assert_eq!(errno(fs::metadata(mount.path("x"))), libc::ENOENT);
    });
}

#[test]
fn a_bucket_shows_as_it_is() {
    on_both_doors(|mount| {
        for key in [
            "top",
            "dir/",
            "dir/in",
            "implicit/deep/file",
            "both",
            "both/x",
            "odd//y",
        ] {
            mount.store.plant(key, key.to_owned());
        }
        assert_eq!(
            names(mount.dir.path()),
            ["both", "dir", "implicit", "odd", "top"]
        );
        assert_eq!(names(&mount.path("dir")), ["in"]);
        assert_eq!(names(&mount.path("both")), ["x"]);
        assert_eq!(names(&mount.path("odd")), [] as [&str; 0]);
        assert_eq!(
            fs::read(mount.path("implicit/deep/file")).unwrap(),
            b"implicit/deep/file"
        );
        assert!(fs::metadata(mount.path("both")).unwrap().is_dir());
        let stats = mount.filesystem.stats();
        assert!(
            stats.hidden_keys >= 1 && stats.shadowed_files >= 1,
            "{stats:?}"
        );
    });
}

#[test]
fn directories_are_made_and_removed_at_the_store() {
    on_both_doors(|mount| {
        fs::create_dir(mount.path("d")).unwrap();
        assert_eq!(mount.store.bytes("d/").unwrap().len(), 0);
        assert_eq!(errno(fs::create_dir(mount.path("d"))), libc::EEXIST);
        fs::write(mount.path("d/f"), "1").unwrap();
        assert_eq!(errno(fs::remove_dir(mount.path("d"))), libc::ENOTEMPTY);
        fs::remove_file(mount.path("d/f")).unwrap();
        // A foreign key makes it not empty, whatever is believed here.
        mount.store.plant("d/foreign", "1");
        assert_eq!(errno(fs::remove_dir(mount.path("d"))), libc::ENOTEMPTY);
        mount.store.uproot("d/foreign");
        fs::remove_dir(mount.path("d")).unwrap();
        assert_eq!(mount.store.bytes("d/"), None);
        assert_eq!(errno(fs::metadata(mount.path("d"))), libc::ENOENT);
    });
}

#[test]
fn a_directory_with_an_unpublished_file_is_not_empty_and_shows_it() {
    on_both_doors(|mount| {
        fs::create_dir(mount.path("d")).unwrap();
        let file = File::create(mount.path("d/new")).unwrap();
        assert_eq!(names(&mount.path("d")), ["new"]);
        assert_eq!(errno(fs::remove_dir(mount.path("d"))), libc::ENOTEMPTY);
        close(file).unwrap();
        assert_eq!(names(&mount.path("d")), ["new"]);
    });
}

/// A truncation by name is published at once. The release of another descriptor in that time must not
/// let the file go.
#[test]
fn a_truncation_is_not_lost_when_another_descriptor_is_closed_meanwhile() {
    on_both_doors(|mount| {
        mount.store.plant("a", "0123456789");
        let writer = OpenOptions::new()
            .write(true)
            .open(mount.path("a"))
            .unwrap();
        let gate = mount.store.gate(Call::Put);
        mount.store.calls();
        std::thread::scope(|scope| {
            let path = mount.path("a");
            let cutting = scope.spawn(move || nix::unistd::truncate(&path, 4));
            while !mount.store.calls().iter().any(|it| it.0 == Call::Put) {
                std::thread::yield_now();
            }
            let closing = scope.spawn(move || close(writer));
            gate.open();
            cutting.join().unwrap().unwrap();
            closing.join().unwrap().unwrap();
        });
        assert_eq!(mount.store.bytes("a").unwrap(), "0123");
        assert_eq!(fs::read(mount.path("a")).unwrap(), b"0123");
    });
}

#[test]
fn an_unlinked_file_goes_on_for_who_has_it_open_and_is_never_published() {
    on_both_doors(|mount| {
        let mut file = read_write(&mount.path("t"));
        file.write_all(b"scratch").unwrap();
        fs::remove_file(mount.path("t")).unwrap();
        file.write_all(b" more").unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "scratch more");
        file.sync_all().unwrap();
        close(file).unwrap();
        assert_eq!(mount.store.bytes("t"), None);
        assert_eq!(mount.writes(), []);
    });
}

#[test]
fn opening_for_writing_and_not_writing_changes_nothing() {
    on_both_doors(|mount| {
        mount.store.plant("a", "1");
        close(
            OpenOptions::new()
                .write(true)
                .open(mount.path("a"))
                .unwrap(),
        )
        .unwrap();
        assert_eq!(mount.writes(), []);
    });
}

#[test]
fn mode_owner_and_time_travel_with_the_object() {
    on_both_doors(|mount| {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        close(options.open(mount.path("a")).unwrap()).unwrap();
        let metadata = mount.store.metadata("a").unwrap();
        assert_eq!(metadata.user.get("file-permissions").unwrap(), "0100600");
        fs::set_permissions(mount.path("a"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(
            fs::metadata(mount.path("a")).unwrap().mode() & 0o7777,
            0o755
        );
        let metadata = mount.store.metadata("a").unwrap();
        assert_eq!(metadata.user.get("file-permissions").unwrap(), "0100755");
        let file = File::options().write(true).open(mount.path("a")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1000))
            .unwrap();
        close(file).unwrap();
        assert_eq!(fs::metadata(mount.path("a")).unwrap().mtime(), 1000);
        let metadata = mount.store.metadata("a").unwrap();
        assert_eq!(metadata.user.get("file-mtime").unwrap(), "1000000000000ns");
    });
}

#[test]
fn ten_thousand_names_are_listed_with_their_sizes_and_without_heads() {
    on_both_doors(|mount| {
        for index in 0..10_000 {
            mount
                .store
                .plant(&format!("n{index:05}"), vec![0; index % 7]);
        }
        let mut count = 0;
        for entry in fs::read_dir(mount.dir.path()).unwrap() {
            let entry = entry.unwrap();
            let index: usize = entry.file_name().to_str().unwrap()[1..].parse().unwrap();
            assert_eq!(entry.metadata().unwrap().len(), (index % 7) as u64);
            count += 1;
        }
        assert_eq!(count, 10_000);
        let heads = mount
            .store
            .calls()
            .iter()
            .filter(|(call, _)| *call == Call::Head)
            .count();
        assert_eq!(heads, 0);
    });
}

/// The publish of a RELEASE had sealed the file when its mode was changed: nobody published the mode, and
/// the file stayed dirty with no writer left.
#[test]
fn a_mode_that_is_changed_while_the_last_release_publishes_is_published_too() {
    with_ttl(Duration::ZERO, |mount| {
        let path = mount.path("m");
        let file = read_write(&path);
        file.set_len(4096).unwrap();
        let mut map = map_shared(&file, 4096);
        close(file).unwrap();
        map.write(0, b"late");
        let gate = mount.store.gate(Call::Put);
        mount.store.calls();
        drop(map);
        while mount.store.count_called(Call::Put) == 0 {
            std::thread::yield_now();
        }
        std::thread::scope(|scope| {
            let mode = fs::Permissions::from_mode(0o600);
            let changing = scope.spawn(|| fs::set_permissions(&path, mode).unwrap());
            while fs::metadata(&path).unwrap().mode() & 0o7777 != 0o600 {
                std::thread::yield_now();
            }
            gate.open();
            changing.join().unwrap();
        });
        let metadata = mount.store.metadata("m").unwrap();
        assert_eq!(&metadata.user["file-permissions"], "0100600");
        assert_eq!(&mount.store.bytes("m").unwrap()[..4], b"late");
        assert!(mount.filesystem.unsaved().is_empty());
    });
}

/// What comes of it where the kernel says FUSE_FLUSH_LAST is told in `src/fs/close/tests.rs`.
#[test]
fn in_release_mode_a_dup_ed_file_is_one_put_though_no_flush_is_the_last() {
    in_release_mode(|mount| {
        let mut file = File::create(mount.path("a")).unwrap();
        file.write_all(b"one ").unwrap();
        let mut dup = file.try_clone().unwrap();
        close(file).unwrap();
        assert_eq!(mount.writes(), []);
        dup.write_all(b"two").unwrap();
        close(dup).unwrap();
        mount.drain_until_closed();
        assert_eq!(mount.store.bytes("a").unwrap(), "one two");
        assert_eq!(mount.writes(), [(Call::Put, "a".to_owned())]);
        assert_eq!(mount.filesystem.stats().lost_files, 0);
    });
}

#[test]
fn in_release_mode_a_mapping_stored_to_after_the_close_is_one_put() {
    in_release_mode(|mount| {
        let file = read_write(&mount.path("m"));
        file.set_len(8192).unwrap();
        let mut map = map_shared(&file, 8192);
        close(file).unwrap();
        map.write(0, b"late");
        assert_eq!(mount.writes(), []);
        drop(map);
        mount.drain_until_closed();
        assert_eq!(&mount.store.bytes("m").unwrap()[..4], b"late");
        assert_eq!(mount.writes(), [(Call::Put, "m".to_owned())]);
    });
}

#[test]
fn refusing_writers_leaves_readers_alone() {
    on_both_doors(|mount| {
        mount.store.plant("a", "1");
        mount.filesystem.refuse_writers();
        assert_eq!(errno(File::create(mount.path("b"))), libc::EROFS);
        let open = OpenOptions::new().write(true).open(mount.path("a"));
        assert_eq!(errno(open), libc::EROFS);
        assert_eq!(fs::read(mount.path("a")).unwrap(), b"1");
    });
}
