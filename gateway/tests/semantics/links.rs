//! Symbolic links, FIFOs and sockets.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, lchown, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use ackfs_cache::store::StoreErrorKind;
use ackfs_cache::store::memory::{Call, Fault};
use nix::sys::stat::{Mode, SFlag};

use crate::memory_mount::{MemoryMount, errno, names, on_both_doors, with_ttl};

/// A link as AWS's gateways describe one.
const OURS: &[(&str, &str)] = &[("file-permissions", "0120777")];
/// A link as s3fs describes one.
const S3FS: &[(&str, &str)] = &[("mode", "41471"), ("mtime", "12")];

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).unwrap().is_symlink()
}

fn permissions(mount: &MemoryMount, key: &str) -> String {
    mount.store.metadata(key).unwrap().user["file-permissions"].to_owned()
}

#[test]
fn a_link_is_one_put_and_is_there_when_symlink_returns() {
    on_both_doors(|mount| {
        symlink("over/there", mount.path("l")).unwrap();
        assert_eq!(mount.writes(), [(Call::Put, "l".to_owned())]);
        assert_eq!(mount.store.bytes("l").unwrap(), "over/there");
        let metadata = mount.store.metadata("l").unwrap();
        assert_eq!(&metadata.user["file-permissions"], "0120777");
        assert_eq!(&metadata.user["file-owner"], "0");
        let stat = fs::symlink_metadata(mount.path("l")).unwrap();
        assert!(stat.is_symlink());
        assert_eq!((stat.len(), stat.mode() & 0o7777), (10, 0o777));
        for _ in 0..3 {
            let target = fs::read_link(mount.path("l")).unwrap();
            assert_eq!(target, Path::new("over/there"));
        }
        assert!(mount.store.count_called(Call::Get) <= 1);
        assert_eq!(names(mount.dir.path()), ["l"]);
        assert_eq!(errno(File::open(mount.path("l"))), libc::ENOENT);
        assert_eq!(errno(symlink("x", mount.path("l"))), libc::EEXIST);
        assert_eq!(mount.store.bytes("l").unwrap(), "over/there");
    });
}

#[test]
fn a_link_is_not_made_over_what_is_there_nor_where_nothing_may_be_made() {
    on_both_doors(|mount| {
        let taken = Fault::Fail(StoreErrorKind::Changed);
        mount.store.inject(Call::Put, taken);
        assert_eq!(errno(symlink("x", mount.path("l"))), libc::EEXIST);
        let refusal = Fault::Fail(StoreErrorKind::Denied);
        mount.store.inject(Call::Put, refusal);
        assert_eq!(errno(symlink("x", mount.path("l"))), libc::EACCES);
        assert!(!mount.path("l").exists());
        // A name that is only here is taken as well.
        let file = File::create(mount.path("f")).unwrap();
        assert_eq!(errno(symlink("x", mount.path("f"))), libc::EEXIST);
        drop(file);
        let long = "x".repeat(4096);
        assert_eq!(errno(symlink(long, mount.path("l"))), libc::ENAMETOOLONG);
        let longest = "x".repeat(4095);
        symlink(&longest, mount.path("l")).unwrap();
        assert_eq!(fs::read_link(mount.path("l")).unwrap(), Path::new(&longest));
        mount.filesystem.refuse_writers();
        assert_eq!(errno(symlink("x", mount.path("m"))), libc::EROFS);
    });
}

#[test]
fn links_are_followed() {
    on_both_doors(|mount| {
        fs::create_dir(mount.path("d")).unwrap();
        fs::write(mount.path("d/f"), "file").unwrap();
        symlink("d/f", mount.path("relative")).unwrap();
        symlink(mount.path("d/f"), mount.path("absolute")).unwrap();
        symlink("../relative", mount.path("d/chain")).unwrap();
        symlink("d", mount.path("dir")).unwrap();
        symlink("two", mount.path("one")).unwrap();
        symlink("one", mount.path("two")).unwrap();
        for name in ["relative", "absolute", "d/chain", "dir/f", "dir/chain"] {
            assert_eq!(fs::read(mount.path(name)).unwrap(), b"file", "{name}");
        }
        assert_eq!(names(&mount.path("dir")), ["chain", "f"]);
        assert_eq!(errno(fs::read(mount.path("one"))), libc::ELOOP);
        let mut options = OpenOptions::new();
        let nofollow = options.read(true).custom_flags(libc::O_NOFOLLOW);
        assert_eq!(errno(nofollow.open(mount.path("relative"))), libc::ELOOP);
        fs::write(mount.path("dir/chain"), "new").unwrap();
        assert_eq!(mount.store.bytes("d/f").unwrap(), "new");
        // What a dangling link leads to can be made through it.
        symlink("d/made", mount.path("dangling")).unwrap();
        fs::write(mount.path("dangling"), "made").unwrap();
        assert_eq!(mount.store.bytes("d/made").unwrap(), "made");
        assert_eq!(mount.store.bytes("dangling").unwrap(), "d/made");
    });
}

#[test]
fn links_are_removed_replaced_and_renamed_by_themselves() {
    on_both_doors(|mount| {
        fs::write(mount.path("f"), "file").unwrap();
        fs::create_dir(mount.path("d")).unwrap();
        symlink("f", mount.path("l")).unwrap();
        fs::rename(mount.path("l"), mount.path("d/moved")).unwrap();
        assert_eq!(mount.store.bytes("d/moved").unwrap(), "f");
        assert_eq!(permissions(mount, "d/moved"), "0120777");
        assert_eq!(
            fs::read_link(mount.path("d/moved")).unwrap(),
            Path::new("f")
        );
        assert!(is_link(&mount.path("d/moved")));
        // `ln -sf`: a link is put beside and renamed over.
        symlink("../f", mount.path("d/new")).unwrap();
        fs::rename(mount.path("d/new"), mount.path("d/moved")).unwrap();
        assert_eq!(fs::read(mount.path("d/moved")).unwrap(), b"file");
        fs::remove_file(mount.path("d/moved")).unwrap();
        assert_eq!(mount.store.bytes("d/moved"), None);
        assert_eq!(fs::read(mount.path("f")).unwrap(), b"file");
        // A link and a file take each other's name, and with the old name the old type goes.
        symlink("f", mount.path("x")).unwrap();
        fs::rename(mount.path("f"), mount.path("x")).unwrap();
        assert!(!is_link(&mount.path("x")));
        assert_eq!(fs::read(mount.path("x")).unwrap(), b"file");
        symlink("nowhere", mount.path("y")).unwrap();
        fs::rename(mount.path("y"), mount.path("x")).unwrap();
        assert!(is_link(&mount.path("x")));
        assert_eq!(names(mount.dir.path()), ["d", "x"]);
    });
}

#[test]
fn owner_and_time_of_a_link_are_its_own() {
    on_both_doors(|mount| {
        fs::write(mount.path("f"), "file").unwrap();
        symlink("f", mount.path("l")).unwrap();
        lchown(mount.path("l"), Some(7), Some(8)).unwrap();
        let time = nix::sys::time::TimeSpec::new(1000, 5);
        let no_follow = nix::sys::stat::UtimensatFlags::NoFollowSymlink;
        let here = nix::fcntl::AT_FDCWD;
        nix::sys::stat::utimensat(here, &mount.path("l"), &time, &time, no_follow).unwrap();
        let stat = fs::symlink_metadata(mount.path("l")).unwrap();
        assert_eq!((stat.uid(), stat.gid(), stat.mtime()), (7, 8, 1000));
        assert!(stat.is_symlink());
        let metadata = mount.store.metadata("l").unwrap();
        assert_eq!(&metadata.user["file-permissions"], "0120777");
        assert_eq!(&metadata.user["file-owner"], "7");
        assert_eq!(&metadata.user["file-mtime"], "1000000000005ns");
        assert_eq!(fs::read_link(mount.path("l")).unwrap(), Path::new("f"));
        assert_eq!(fs::metadata(mount.path("l")).unwrap().uid(), 0);
    });
}

#[test]
fn links_of_other_clients_are_read() {
    on_both_doors(|mount| {
        mount.store.plant("f", "file");
        mount.store.plant_with("aws", "f", OURS);
        mount.store.plant_with("s3fs", "f\n", S3FS);
        // The listing that comes with this look-up shows the others as objects.
        assert!(fs::metadata(mount.path("f")).unwrap().is_file());
        for name in ["aws", "s3fs"] {
            let target = fs::read_link(mount.path(name)).unwrap();
            assert_eq!(target, Path::new("f"), "{name}");
            assert_eq!(fs::read(mount.path(name)).unwrap(), b"file", "{name}");
        }
        // What cannot be a target is shown with its bytes, and a device never.
        mount.store.plant_with("long", vec![b'x'; 4096], OURS);
        mount.store.plant_with("empty", "", OURS);
        let device = &[("file-permissions", "0020666")];
        mount.store.plant_with("device", "", device);
        for (name, len) in [("long", 4096), ("empty", 0), ("device", 0)] {
            let stat = fs::symlink_metadata(mount.path(name)).unwrap();
            assert!(stat.is_file() && stat.len() == len, "{name}");
        }
    });
}

/// Listings show no metadata, and ten thousand small files must not cost ten thousand HEADs: so a name
/// that only a listing has shown is a file until it is opened.
#[test]
fn a_listed_link_is_a_file_until_somebody_looks_and_then_its_directory_is_looked_at_closely() {
    on_both_doors(|mount| {
        for key in ["d/a", "d/b", "d/c"] {
            mount.store.plant_with(key, "../f", OURS);
        }
        mount.store.plant("d/plain", "small");
        mount.store.plant("d/large", vec![0; 5000]);
        mount.store.plant("f", "file");
        mount.store.calls();
        let list = || -> Vec<bool> {
            let entries = fs::read_dir(mount.path("d")).unwrap();
            let mut links: Vec<_> = entries
                .map(|entry| {
                    let entry = entry.unwrap();
                    (entry.file_name(), entry.file_type().unwrap().is_symlink())
                })
                .collect();
            links.sort();
            links.into_iter().map(|(_, is_link)| is_link).collect()
        };
        assert_eq!(list(), [false; 5]);
        // Only the directory was looked up: its name, and its marker.
        assert!(mount.store.count_called(Call::Head) <= 2);
        // The kernel holds it for a file; the open finds out and the path is walked again.
        assert_eq!(fs::read(mount.path("d/a")).unwrap(), b"file");
        assert!(is_link(&mount.path("d/a")));
        let mut options = OpenOptions::new();
        let nofollow = options.read(true).custom_flags(libc::O_NOFOLLOW);
        assert_eq!(errno(nofollow.open(mount.path("d/b"))), libc::ELOOP);
        assert!(is_link(&mount.path("d/b")));
        mount.store.calls();
        // Name, not metadata: 'a' and 'b' are known, 'c' and 'plain' are asked for, once.
        for _ in 0..2 {
            let listed = list();
            assert_eq!(listed[..2], [true; 2]);
            assert_eq!(listed[3..], [false; 2]);
        }
        assert!(mount.store.count_called(Call::Head) <= 2);
    });
}

#[test]
fn a_directory_in_which_a_link_was_met_is_asked_for_the_type_of_its_small_objects_once() {
    on_both_doors(|mount| {
        for key in ["d/a", "d/b", "d/c"] {
            mount.store.plant_with(key, "../f", OURS);
        }
        mount.store.plant("d/plain", "small");
        mount.store.plant("d/large", vec![0; 5000]);
        // A listing comes with the first of these look-ups, and shows the others as objects.
        for name in ["d/a", "d/b"] {
            let target = fs::read_link(mount.path(name)).unwrap();
            assert_eq!(target, Path::new("../f"), "{name}");
        }
        mount.store.calls();
        for _ in 0..2 {
            let mut links = Vec::new();
            for entry in fs::read_dir(mount.path("d")).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_symlink() {
                    links.push(entry.file_name().into_string().unwrap());
                }
                assert_eq!(
                    entry.metadata().unwrap().is_symlink(),
                    links.contains(&entry.file_name().into_string().unwrap())
                );
            }
            links.sort();
            assert_eq!(links, ["a", "b", "c"]);
        }
        let calls = mount.store.calls();
        let heads: Vec<_> = calls.iter().filter(|it| it.0 == Call::Head).collect();
        let want = [
            (Call::Head, "d/c".to_owned()),
            (Call::Head, "d/plain".to_owned()),
        ];
        assert_eq!(heads.len(), 2, "{calls:?}");
        assert!(want.iter().all(|it| heads.contains(&it)), "{calls:?}");
    });
}

#[test]
fn a_link_that_somebody_replaced_before_it_was_read_is_read_as_it_is_now() {
    on_both_doors(|mount| {
        mount.store.plant_with("l", "old", OURS);
        assert!(is_link(&mount.path("l")));
        mount.store.plant_with("l", "newer", OURS);
        assert_eq!(fs::read_link(mount.path("l")).unwrap(), Path::new("newer"));
    });
}

#[test]
fn an_object_that_becomes_a_link_or_ceases_to_be_one_gets_a_new_inode() {
    with_ttl(Duration::ZERO, |mount| {
        mount.store.plant("x", "f");
        let file = fs::symlink_metadata(mount.path("x")).unwrap();
        assert!(file.is_file());
        mount.store.plant_with("x", "f", OURS);
        let link = fs::symlink_metadata(mount.path("x")).unwrap();
        assert!(link.is_symlink());
        assert_ne!(file.ino(), link.ino());
        mount.store.plant("x", "f");
        assert!(!is_link(&mount.path("x")));
        assert_eq!(fs::read(mount.path("x")).unwrap(), b"f");
    });
}

#[test]
fn fifos_and_sockets_are_made_and_used_and_device_nodes_are_refused() {
    on_both_doors(|mount| {
        let fifo = mount.path("fifo");
        nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o640)).unwrap();
        assert_eq!(mount.store.bytes("fifo").unwrap(), "");
        assert_eq!(permissions(mount, "fifo"), "0010640");
        let stat = fs::metadata(&fifo).unwrap();
        assert!(stat.file_type().is_fifo() && stat.mode() & 0o7777 == 0o640);
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| fs::write(&fifo, "through").unwrap());
            assert_eq!(fs::read(&fifo).unwrap(), b"through");
            writing.join().unwrap();
        });
        let listener = UnixListener::bind(mount.path("socket")).unwrap();
        assert_eq!(permissions(mount, "socket")[..3], *"014");
        let mut client = UnixStream::connect(mount.path("socket")).unwrap();
        let mut server = listener.accept().unwrap().0;
        client.write_all(b"hello").unwrap();
        let mut found = [0; 5];
        server.read_exact(&mut found).unwrap();
        assert_eq!(&found, b"hello");
        let stat = fs::metadata(mount.path("socket")).unwrap();
        assert!(stat.file_type().is_socket());
        fs::rename(&fifo, mount.path("moved")).unwrap();
        let stat = fs::metadata(mount.path("moved")).unwrap();
        assert!(stat.file_type().is_fifo());
        for name in ["moved", "socket"] {
            fs::remove_file(mount.path(name)).unwrap();
            assert_eq!(mount.store.bytes(name), None);
        }
        let device = mount.path("null");
        let made = nix::sys::stat::mknod(&device, SFlag::S_IFCHR, Mode::S_IRUSR, 0x103);
        assert_eq!(made, Err(nix::errno::Errno::EPERM));
        let made = nix::sys::stat::mknod(&device, SFlag::S_IFREG, Mode::S_IRUSR, 0);
        assert_eq!(made, Ok(()));
        assert_eq!(permissions(mount, "null"), "0100400");
    });
}
