//! Files that are removed or replaced while they are open.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread;

use ackfs_cache::store::StoreErrorKind;
use ackfs_cache::store::memory::{Call, Fault};

use crate::memory_mount::{MemoryMount, close, errno, names, on_both_doors};

const MIB: usize = 1 << 20;

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 7 + i / 4099 + seed) as u8).collect()
}

/// A file of 12 MiB, open, of which the first page has been read.
fn open_and_begun(mount: &MemoryMount, name: &str) -> (File, Vec<u8>) {
    let bytes = pattern(12 * MIB, 1);
    mount.store.plant(name, bytes.clone());
    let file = File::open(mount.path(name)).unwrap();
    let mut page = [0; 4096];
    file.read_exact_at(&mut page, 0).unwrap();
    assert_eq!(page, bytes[..4096]);
    (file, bytes)
}

fn assert_whole(file: &File, bytes: &[u8]) {
    let mut found = vec![0; bytes.len() + 1];
    let mut done = 0;
    loop {
        match file.read_at(&mut found[done..], done as u64).unwrap() {
            0 => break,
            len => done += len,
        }
    }
    assert!(found[..done] == *bytes, "{done} bytes");
}

fn remove(path: &Path, mount: &MemoryMount, how: &str) -> std::io::Result<()> {
    match how {
        "unlink" => fs::remove_file(path),
        _ => {
            fs::write(mount.path("other"), "other").unwrap();
            fs::rename(mount.path("other"), path)
        }
    }
}

#[test]
fn a_removed_file_stays_for_its_readers_when_its_writers_are_gone() {
    on_both_doors(|mount| {
        let mut writer = File::create(mount.path("a")).unwrap();
        writer.write_all(b"before").unwrap();
        let reader = File::open(mount.path("a")).unwrap();
        fs::remove_file(mount.path("a")).unwrap();
        writer.write_all(b", after").unwrap();
        writer.sync_all().unwrap();
        close(writer).unwrap();
        assert_whole(&reader, b"before, after");
        // The name is free for another file, which is none of the old one's.
        let mut fresh = File::create(mount.path("a")).unwrap();
        fresh.write_all(b"fresh").unwrap();
        drop(reader);
        while mount.filesystem.stats().file_handles > 1 {
            thread::yield_now();
        }
        assert_eq!(names(mount.dir.path()), ["a"]);
        close(fresh).unwrap();
        assert_eq!(mount.store.bytes("a").unwrap(), "fresh");
    });
}

#[test]
fn a_removed_object_can_be_written_by_who_has_it_open_and_is_never_published() {
    on_both_doors(|mount| {
        let mut bytes = pattern(3 * MIB, 2);
        mount.store.plant("a", bytes.clone());
        let options = OpenOptions::new().read(true).write(true).to_owned();
        let file = options.open(mount.path("a")).unwrap();
        fs::remove_file(mount.path("a")).unwrap();
        file.write_all_at(b"changed", 2 << 20).unwrap();
        bytes[2 << 20..][..7].copy_from_slice(b"changed");
        assert_whole(&file, &bytes);
        file.set_len(2 << 20).unwrap();
        assert_whole(&file, &bytes[..2 << 20]);
        file.sync_all().unwrap();
        mount.store.calls();
        close(file).unwrap();
        mount.drain_until_closed();
        assert_eq!(mount.store.bytes("a"), None);
        assert_eq!(mount.writes(), []);
    });
}

/// Without room for the bytes the file stays: its readers were promised them.
#[test]
fn a_file_too_large_to_keep_for_its_readers_is_busy_until_they_close_it() {
    on_both_doors(|mount| {
        for how in ["unlink", "rename"] {
            // This mount has no staging and 32 MiB for written bytes.
            let bytes = pattern(30 * MIB, 3);
            mount.store.plant(how, bytes.clone());
            let file = File::open(mount.path(how)).unwrap();
            assert_eq!(
                errno(remove(&mount.path(how), mount, how)),
                libc::EBUSY,
                "{how}"
            );
            assert_whole(&file, &bytes);
            assert_eq!(mount.store.bytes(how).unwrap(), bytes);
            drop(file);
            while mount.filesystem.stats().file_handles > 0 {
                thread::yield_now();
            }
            remove(&mount.path(how), mount, how).unwrap();
        }
    });
}

#[test]
fn a_file_that_the_store_does_not_remove_is_as_before() {
    on_both_doors(|mount| {
        let (reader, bytes) = open_and_begun(mount, "a");
        let writer = OpenOptions::new()
            .write(true)
            .open(mount.path("a"))
            .unwrap();
        let refusal = || Fault::Fail(StoreErrorKind::Denied);
        mount.store.inject(Call::Delete, refusal());
        assert_eq!(errno(fs::remove_file(mount.path("a"))), libc::EACCES);
        mount.store.inject(Call::Copy, refusal());
        assert_eq!(
            errno(remove(&mount.path("a"), mount, "rename")),
            libc::EACCES
        );
        assert_whole(&reader, &bytes);
        assert_eq!(reader.metadata().unwrap().nlink(), 1);
        writer.write_all_at(b"changed", 0).unwrap();
        close(writer).unwrap();
        assert_eq!(mount.store.bytes("a").unwrap()[..7], *b"changed");
        assert_eq!(
            fs::metadata(mount.path("a")).unwrap().ino(),
            reader.metadata().unwrap().ino()
        );
    });
}

/// A read that was on its way to the store while its file was renamed met ESTALE: the old name was
/// gone, and the reader was not told of the new one.
#[test]
fn a_read_under_way_while_its_file_is_renamed_finds_the_bytes() {
    on_both_doors(|mount| {
        let bytes = pattern(MIB, 4);
        mount.store.plant("a", bytes.clone());
        // Of a read through its pages the kernel tries a second time by itself.
        let mut options = OpenOptions::new();
        let options = options.read(true).custom_flags(libc::O_DIRECT);
        let file = options.open(mount.path("a")).unwrap();
        let gate = mount.store.gate(Call::Get);
        mount.store.calls();
        let reading = {
            let file = file.try_clone().unwrap();
            thread::spawn(move || {
                let mut page = vec![0; 4096];
                file.read_exact_at(&mut page, 512_000).map(|()| page)
            })
        };
        while !mount
            .store
            .calls()
            .iter()
            .any(|(call, _)| *call == Call::Get)
        {
            thread::yield_now();
        }
        fs::rename(mount.path("a"), mount.path("b")).unwrap();
        gate.open();
        let page = reading.join().unwrap().unwrap();
        assert!(page == bytes[512_000..][..4096]);
    });
}

/// A rename copies the newest version. One that was replaced by somebody else kept the old size,
/// and the kernel the old pages.
#[test]
fn a_file_that_somebody_replaced_is_renamed_as_it_is_now() {
    on_both_doors(|mount| {
        mount.store.plant("a", "old");
        assert_eq!(fs::read(mount.path("a")).unwrap(), b"old");
        mount.store.plant("a", "new and longer");
        fs::rename(mount.path("a"), mount.path("b")).unwrap();
        assert_eq!(fs::read(mount.path("b")).unwrap(), b"new and longer");
        assert_eq!(fs::metadata(mount.path("b")).unwrap().len(), 14);
        assert!(!mount.path("a").exists());
    });
}

#[test]
fn a_rename_that_did_not_end_leaves_both_names() {
    on_both_doors(|mount| {
        fs::write(mount.path("a"), "a").unwrap();
        mount
            .store
            .inject(Call::Delete, Fault::Fail(StoreErrorKind::Denied));
        assert_eq!(
            errno(fs::rename(mount.path("a"), mount.path("b"))),
            libc::EACCES
        );
        assert_eq!(fs::read(mount.path("b")).unwrap(), b"a");
        assert_eq!(fs::read(mount.path("a")).unwrap(), b"a");
        assert_eq!(names(mount.dir.path()), ["a", "b"]);
    });
}
