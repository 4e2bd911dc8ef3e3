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

use crate::world::{World, errno, names, on_both_doors, with_ttl};

/// A link as AWS's gateways describe one.
const OURS: &[(&str, &str)] = &[("file-permissions", "0120777")];
/// A link as s3fs describes one.
const S3FS: &[(&str, &str)] = &[("mode", "41471"), ("mtime", "12")];

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).unwrap().is_symlink()
}

fn permissions(world: &World, key: &str) -> String {
    world.store.metadata(key).unwrap().user["file-permissions"].to_owned()
}

#[test]
fn a_link_is_one_put_and_is_there_when_symlink_returns() {
    on_both_doors(|world| {
        symlink("over/there", world.path("l")).unwrap();
        assert_eq!(world.writes(), [(Call::Put, "l".to_owned())]);
        assert_eq!(world.store.bytes("l").unwrap(), "over/there");
        let metadata = world.store.metadata("l").unwrap();
        assert_eq!(&metadata.user["file-permissions"], "0120777");
        assert_eq!(&metadata.user["file-owner"], "0");
        let stat = fs::symlink_metadata(world.path("l")).unwrap();
        assert!(stat.is_symlink());
        assert_eq!((stat.len(), stat.mode() & 0o7777), (10, 0o777));
        for _ in 0..3 {
            let target = fs::read_link(world.path("l")).unwrap();
            assert_eq!(target, Path::new("over/there"));
        }
        assert!(world.store.count_called(Call::Get) <= 1);
        assert_eq!(names(world.dir.path()), ["l"]);
        assert_eq!(errno(File::open(world.path("l"))), libc::ENOENT);
        assert_eq!(errno(symlink("x", world.path("l"))), libc::EEXIST);
        assert_eq!(world.store.bytes("l").unwrap(), "over/there");
    });
}

#[test]
fn a_link_is_not_made_over_what_is_there_nor_where_nothing_may_be_made() {
    on_both_doors(|world| {
        let taken = Fault::Fail(StoreErrorKind::Changed);
        world.store.inject(Call::Put, taken);
        assert_eq!(errno(symlink("x", world.path("l"))), libc::EEXIST);
        let refusal = Fault::Fail(StoreErrorKind::Denied);
        world.store.inject(Call::Put, refusal);
        assert_eq!(errno(symlink("x", world.path("l"))), libc::EACCES);
        assert!(!world.path("l").exists());
        // A name that is only here is taken as well.
        let file = File::create(world.path("f")).unwrap();
        assert_eq!(errno(symlink("x", world.path("f"))), libc::EEXIST);
        drop(file);
        let long = "x".repeat(4096);
        assert_eq!(errno(symlink(long, world.path("l"))), libc::ENAMETOOLONG);
        let longest = "x".repeat(4095);
        symlink(&longest, world.path("l")).unwrap();
        assert_eq!(fs::read_link(world.path("l")).unwrap(), Path::new(&longest));
        world.filesystem.refuse_writers();
        assert_eq!(errno(symlink("x", world.path("m"))), libc::EROFS);
    });
}

#[test]
fn links_are_followed() {
    on_both_doors(|world| {
        fs::create_dir(world.path("d")).unwrap();
        fs::write(world.path("d/f"), "file").unwrap();
        symlink("d/f", world.path("relative")).unwrap();
        symlink(world.path("d/f"), world.path("absolute")).unwrap();
        symlink("../relative", world.path("d/chain")).unwrap();
        symlink("d", world.path("dir")).unwrap();
        symlink("two", world.path("one")).unwrap();
        symlink("one", world.path("two")).unwrap();
        for name in ["relative", "absolute", "d/chain", "dir/f", "dir/chain"] {
            assert_eq!(fs::read(world.path(name)).unwrap(), b"file", "{name}");
        }
        assert_eq!(names(&world.path("dir")), ["chain", "f"]);
        assert_eq!(errno(fs::read(world.path("one"))), libc::ELOOP);
        let mut options = OpenOptions::new();
        let nofollow = options.read(true).custom_flags(libc::O_NOFOLLOW);
        assert_eq!(errno(nofollow.open(world.path("relative"))), libc::ELOOP);
        fs::write(world.path("dir/chain"), "new").unwrap();
        assert_eq!(world.store.bytes("d/f").unwrap(), "new");
        // What a dangling link leads to can be made through it.
        symlink("d/made", world.path("dangling")).unwrap();
        fs::write(world.path("dangling"), "made").unwrap();
        assert_eq!(world.store.bytes("d/made").unwrap(), "made");
        assert_eq!(world.store.bytes("dangling").unwrap(), "d/made");
    });
}

#[test]
fn links_are_removed_replaced_and_renamed_by_themselves() {
    on_both_doors(|world| {
        fs::write(world.path("f"), "file").unwrap();
        fs::create_dir(world.path("d")).unwrap();
        symlink("f", world.path("l")).unwrap();
        fs::rename(world.path("l"), world.path("d/moved")).unwrap();
        assert_eq!(world.store.bytes("d/moved").unwrap(), "f");
        assert_eq!(permissions(world, "d/moved"), "0120777");
        assert_eq!(
            fs::read_link(world.path("d/moved")).unwrap(),
            Path::new("f")
        );
        assert!(is_link(&world.path("d/moved")));
        // `ln -sf`: a link is put beside and renamed over.
        symlink("../f", world.path("d/new")).unwrap();
        fs::rename(world.path("d/new"), world.path("d/moved")).unwrap();
        assert_eq!(fs::read(world.path("d/moved")).unwrap(), b"file");
        fs::remove_file(world.path("d/moved")).unwrap();
        assert_eq!(world.store.bytes("d/moved"), None);
        assert_eq!(fs::read(world.path("f")).unwrap(), b"file");
        // A link and a file take each other's name, and with the old name the old type goes.
        symlink("f", world.path("x")).unwrap();
        fs::rename(world.path("f"), world.path("x")).unwrap();
        assert!(!is_link(&world.path("x")));
        assert_eq!(fs::read(world.path("x")).unwrap(), b"file");
        symlink("nowhere", world.path("y")).unwrap();
        fs::rename(world.path("y"), world.path("x")).unwrap();
        assert!(is_link(&world.path("x")));
        assert_eq!(names(world.dir.path()), ["d", "x"]);
    });
}

#[test]
fn owner_and_time_of_a_link_are_its_own() {
    on_both_doors(|world| {
        fs::write(world.path("f"), "file").unwrap();
        symlink("f", world.path("l")).unwrap();
        lchown(world.path("l"), Some(7), Some(8)).unwrap();
        let time = nix::sys::time::TimeSpec::new(1000, 5);
        let no_follow = nix::sys::stat::UtimensatFlags::NoFollowSymlink;
        let here = nix::fcntl::AT_FDCWD;
        nix::sys::stat::utimensat(here, &world.path("l"), &time, &time, no_follow).unwrap();
        let stat = fs::symlink_metadata(world.path("l")).unwrap();
        assert_eq!((stat.uid(), stat.gid(), stat.mtime()), (7, 8, 1000));
        assert!(stat.is_symlink());
        let metadata = world.store.metadata("l").unwrap();
        assert_eq!(&metadata.user["file-permissions"], "0120777");
        assert_eq!(&metadata.user["file-owner"], "7");
        assert_eq!(&metadata.user["file-mtime"], "1000000000005ns");
        assert_eq!(fs::read_link(world.path("l")).unwrap(), Path::new("f"));
        assert_eq!(fs::metadata(world.path("l")).unwrap().uid(), 0);
    });
}

#[test]
fn links_of_other_clients_are_read() {
    on_both_doors(|world| {
        world.store.plant("f", "file");
        world.store.plant_with("aws", "f", OURS);
        world.store.plant_with("s3fs", "f\n", S3FS);
        // The listing that comes with this look-up shows the others as objects.
        assert!(fs::metadata(world.path("f")).unwrap().is_file());
        for name in ["aws", "s3fs"] {
            let target = fs::read_link(world.path(name)).unwrap();
            assert_eq!(target, Path::new("f"), "{name}");
            assert_eq!(fs::read(world.path(name)).unwrap(), b"file", "{name}");
        }
        // What cannot be a target is shown with its bytes, and a device never.
        world.store.plant_with("long", vec![b'x'; 4096], OURS);
        world.store.plant_with("empty", "", OURS);
        let device = &[("file-permissions", "0020666")];
        world.store.plant_with("device", "", device);
        for (name, len) in [("long", 4096), ("empty", 0), ("device", 0)] {
            let stat = fs::symlink_metadata(world.path(name)).unwrap();
            assert!(stat.is_file() && stat.len() == len, "{name}");
        }
    });
}

/// Listings show no metadata, and ten thousand small files must not cost ten thousand HEADs: so a name
/// that only a listing has shown is a file until it is opened.
#[test]
fn a_listed_link_is_a_file_until_somebody_looks_and_then_its_directory_is_looked_at_closely() {
    on_both_doors(|world| {
        for key in ["d/a", "d/b", "d/c"] {
            world.store.plant_with(key, "../f", OURS);
        }
        world.store.plant("d/plain", "small");
        world.store.plant("d/large", vec![0; 5000]);
        world.store.plant("f", "file");
        world.store.calls();
        let list = || -> Vec<bool> {
            let entries = fs::read_dir(world.path("d")).unwrap();
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
        assert!(world.store.count_called(Call::Head) <= 2);
        // The kernel holds it for a file; the open finds out and the path is walked again.
        assert_eq!(fs::read(world.path("d/a")).unwrap(), b"file");
        assert!(is_link(&world.path("d/a")));
        let mut options = OpenOptions::new();
        let nofollow = options.read(true).custom_flags(libc::O_NOFOLLOW);
        assert_eq!(errno(nofollow.open(world.path("d/b"))), libc::ELOOP);
        assert!(is_link(&world.path("d/b")));
        world.store.calls();
        // Name, not metadata: 'a' and 'b' are known, 'c' and 'plain' are asked for, once.
        for _ in 0..2 {
            let listed = list();
            assert_eq!(listed[..2], [true; 2]);
            assert_eq!(listed[3..], [false; 2]);
        }
        assert!(world.store.count_called(Call::Head) <= 2);
    });
}

#[test]
fn a_directory_in_which_a_link_was_met_is_asked_for_the_type_of_its_small_objects_once() {
    on_both_doors(|world| {
        for key in ["d/a", "d/b", "d/c"] {
            world.store.plant_with(key, "../f", OURS);
        }
        world.store.plant("d/plain", "small");
        world.store.plant("d/large", vec![0; 5000]);
        // A listing comes with the first of these look-ups, and shows the others as objects.
        for name in ["d/a", "d/b"] {
            let target = fs::read_link(world.path(name)).unwrap();
            assert_eq!(target, Path::new("../f"), "{name}");
        }
        world.store.calls();
        for _ in 0..2 {
            let mut links = Vec::new();
            for entry in fs::read_dir(world.path("d")).unwrap() {
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
        let calls = world.store.calls();
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
    on_both_doors(|world| {
        world.store.plant_with("l", "old", OURS);
        assert!(is_link(&world.path("l")));
        world.store.plant_with("l", "newer", OURS);
        assert_eq!(fs::read_link(world.path("l")).unwrap(), Path::new("newer"));
    });
}

#[test]
fn an_object_that_becomes_a_link_or_ceases_to_be_one_gets_a_new_inode() {
    with_ttl(Duration::ZERO, |world| {
        world.store.plant("x", "f");
        let file = fs::symlink_metadata(world.path("x")).unwrap();
        assert!(file.is_file());
        world.store.plant_with("x", "f", OURS);
        let link = fs::symlink_metadata(world.path("x")).unwrap();
        assert!(link.is_symlink());
        assert_ne!(file.ino(), link.ino());
        world.store.plant("x", "f");
        assert!(!is_link(&world.path("x")));
        assert_eq!(fs::read(world.path("x")).unwrap(), b"f");
    });
}

#[test]
fn fifos_and_sockets_are_made_and_used_and_device_nodes_are_refused() {
    on_both_doors(|world| {
        let fifo = world.path("fifo");
        nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o640)).unwrap();
        assert_eq!(world.store.bytes("fifo").unwrap(), "");
        assert_eq!(permissions(world, "fifo"), "0010640");
        let stat = fs::metadata(&fifo).unwrap();
        assert!(stat.file_type().is_fifo() && stat.mode() & 0o7777 == 0o640);
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| fs::write(&fifo, "through").unwrap());
            assert_eq!(fs::read(&fifo).unwrap(), b"through");
            writing.join().unwrap();
        });
        let listener = UnixListener::bind(world.path("socket")).unwrap();
        assert_eq!(permissions(world, "socket")[..3], *"014");
        let mut client = UnixStream::connect(world.path("socket")).unwrap();
        let mut server = listener.accept().unwrap().0;
        client.write_all(b"hello").unwrap();
        let mut found = [0; 5];
        server.read_exact(&mut found).unwrap();
        assert_eq!(&found, b"hello");
        let stat = fs::metadata(world.path("socket")).unwrap();
        assert!(stat.file_type().is_socket());
        fs::rename(&fifo, world.path("moved")).unwrap();
        let stat = fs::metadata(world.path("moved")).unwrap();
        assert!(stat.file_type().is_fifo());
        for name in ["moved", "socket"] {
            fs::remove_file(world.path(name)).unwrap();
            assert_eq!(world.store.bytes(name), None);
        }
        let device = world.path("null");
        let made = nix::sys::stat::mknod(&device, SFlag::S_IFCHR, Mode::S_IRUSR, 0x103);
        assert_eq!(made, Err(nix::errno::Errno::EPERM));
        let made = nix::sys::stat::mknod(&device, SFlag::S_IFREG, Mode::S_IRUSR, 0);
        assert_eq!(made, Ok(()));
        assert_eq!(permissions(world, "null"), "0100400");
    });
}
