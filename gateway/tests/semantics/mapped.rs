//! Mappings whose file is renamed, or given another mode, by this same mount while the kernel writes
//! them back. Its inode lock keeps write(2) away from both, and not what the FLUSH of a close(2)
//! begins: `fuse_flush` (fs/fuse/file.c) writes the pages back before it takes the lock.
//!
//! The bytes stored were lost: they came over a version that the mount itself replaced or removed
//! meanwhile, and close(2) blamed somebody else's change.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::thread;

use ackfs_cache::store::StoreErrorKind;
use ackfs_cache::store::memory::{Call, Fault};

use crate::memory_mount::{Map, MemoryMount, close, errno, map_shared, on_both_doors};

const LEN: usize = 12 << 20;

/// A file that is open for both and has been stored to through a mapping, which is not written back
/// yet. Most of it is in the store only.
fn stored(mount: &MemoryMount) -> (File, Map) {
    mount.store.plant("a", vec![b'o'; LEN]);
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true);
    let file = options.open(mount.path("a")).unwrap();
    let mut map = map_shared(&file, LEN);
    map.write(0, b"new");
    mount.store.calls();
    (file, map)
}

fn until(happened: impl Fn() -> bool) {
    while !happened() {
        thread::yield_now();
    }
}

fn await_call(mount: &MemoryMount, call: Call) {
    until(|| mount.store.count_called(call) > 0);
}

/// Waits until the mapping's bytes are here.
fn await_write(mount: &MemoryMount) {
    until(|| !mount.filesystem.unsaved().is_empty());
}

/// Closes a second descriptor, which writes the mapping back.
fn write_back(file: &File) -> std::io::Result<()> {
    close(file.try_clone().unwrap())
}

fn forbid(mount: &MemoryMount) {
    fs::set_permissions(mount.path("a"), fs::Permissions::from_mode(0o600)).unwrap();
}

fn mode_stored(mount: &MemoryMount) -> String {
    mount.store.metadata("a").unwrap().user["file-permissions"].to_owned()
}

fn assert_stored(mount: &MemoryMount, name: &str) {
    let bytes = mount.store.bytes(name).unwrap();
    assert_eq!(bytes.len(), LEN);
    assert_eq!(&bytes[..3], b"new");
    assert!(bytes[3..].iter().all(|byte| *byte == b'o'));
    assert_eq!(mount.filesystem.stats().lost_files, 0);
}

#[test]
fn what_is_written_back_while_a_mode_is_copied_is_published_over_the_copy() {
    on_both_doors(|mount| {
        let (file, map) = stored(mount);
        let copy = mount.store.gate(Call::Copy);
        thread::scope(|scope| {
            let changing = scope.spawn(|| forbid(mount));
            await_call(mount, Call::Copy);
            let closing = scope.spawn(|| write_back(&file));
            await_write(mount);
            copy.open();
            changing.join().unwrap();
            closing.join().unwrap().unwrap();
        });
        drop(map);
        close(file).unwrap();
        assert_stored(mount, "a");
        assert_eq!(mode_stored(mount), "0100600");
    });
}

#[test]
fn what_is_written_back_while_its_file_is_renamed_is_published_over_the_copy() {
    on_both_doors(|mount| {
        let (file, map) = stored(mount);
        let copy = mount.store.gate(Call::Copy);
        thread::scope(|scope| {
            let renaming = scope.spawn(|| fs::rename(mount.path("a"), mount.path("b")));
            await_call(mount, Call::Copy);
            let closing = scope.spawn(|| write_back(&file));
            await_write(mount);
            copy.open();
            renaming.join().unwrap().unwrap();
            closing.join().unwrap().unwrap();
        });
        drop(map);
        close(file).unwrap();
        assert_stored(mount, "b");
        assert_eq!(mount.store.bytes("a"), None);
    });
}

#[test]
fn bytes_of_a_base_that_a_rename_removes_while_they_come_are_found_under_the_new_name() {
    on_both_doors(|mount| {
        let (file, map) = stored(mount);
        let mut options = OpenOptions::new();
        let options = options.read(true).custom_flags(libc::O_DIRECT);
        let reader = options.open(mount.path("a")).unwrap();
        let (delete, get) = (mount.store.gate(Call::Delete), mount.store.gate(Call::Get));
        thread::scope(|scope| {
            let renaming = scope.spawn(|| fs::rename(mount.path("a"), mount.path("b")));
            await_call(mount, Call::Delete);
            mount.store.calls();
            let closing = scope.spawn(|| write_back(&file));
            await_write(mount);
            let reading = scope.spawn(|| {
                let mut page = vec![0; 4096];
                reader.read_exact_at(&mut page, 6 << 20).map(|()| page)
            });
            await_call(mount, Call::Get);
            delete.open();
            until(|| mount.store.bytes("a").is_none());
            get.open();
            renaming.join().unwrap().unwrap();
            assert_eq!(reading.join().unwrap().unwrap(), vec![b'o'; 4096]);
            closing.join().unwrap().unwrap();
        });
        drop(map);
        close(file).unwrap();
        assert_stored(mount, "b");
        assert_eq!(mount.store.bytes("a"), None);
    });
}

#[test]
fn what_is_written_back_while_a_rename_fails_is_published_under_the_old_name() {
    on_both_doors(|mount| {
        let (file, map) = stored(mount);
        let copy = mount.store.gate(Call::Copy);
        let refusal = Fault::Fail(StoreErrorKind::Denied);
        mount.store.inject(Call::Delete, refusal);
        thread::scope(|scope| {
            let renaming = scope.spawn(|| fs::rename(mount.path("a"), mount.path("b")));
            await_call(mount, Call::Copy);
            let closing = scope.spawn(|| write_back(&file));
            await_write(mount);
            copy.open();
            assert_eq!(errno(renaming.join().unwrap()), libc::EACCES);
            closing.join().unwrap().unwrap();
        });
        drop(map);
        close(file).unwrap();
        assert_stored(mount, "a");
        assert_eq!(mount.store.bytes("b").unwrap(), vec![b'o'; LEN]);
    });
}
