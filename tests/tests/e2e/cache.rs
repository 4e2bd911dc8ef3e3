//! The local cache: it makes things faster, never different, and it can be lost, full or broken.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use ackfs_tests::content::{assert_same, bytes, bytes_at, check_at};
use ackfs_tests::posix::close;
use ackfs_tests::tmpfs::TmpFs;
use ackfs_tests::{World, claims, process, sandbox};

claims! {
    DEMO:
        a_restart_finds_a_warm_cache,
        what_changed_while_nobody_looked_is_fetched,
        a_corrupted_cache_is_fetched_again,
        a_cut_cache_is_fetched_again,
        a_broken_index_is_not_the_end,
        a_full_cache_disk_is_not_the_end,
        a_cache_stays_within_its_size,
        a_cache_that_is_in_use_is_refused,
        a_mount_without_a_disk_cache_works,
        reading_stays_within_the_memory_budget,
        writing_stays_within_the_memory_budget,
        large_parts_stay_within_the_memory_budget;
}

const MIB: usize = 1 << 20;

/// Every regular file below `dir`.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("list") {
            let entry = entry.expect("list");
            let kind = entry.file_type().expect("stat");
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found
}

/// Reads `name` whole through a mount with this cache directory and ends the mount in good order,
/// so that what it knows is on disk. Gives the bytes that the store sent meanwhile.
fn read_through(world: &World, cache: &Path, name: &str, seed: u64, len: usize) -> u64 {
    let mount = world.mount_with(world.options().cache(cache));
    let before = world.demo().requests();
    assert_same(
        &fs::read(mount.path(name)).expect("read"),
        &bytes(seed, len),
        name,
    );
    let cost = world.demo().requests() - before;
    assert!(mount.unmount().success());
    cost.bytes_out
}

fn a_restart_finds_a_warm_cache(world: &World) {
    let len = 20 * MIB;
    world.demo().fill_one("file", 1, len);
    let cache = sandbox::dir("cache-");
    let cold = read_through(world, cache.path(), "file", 1, len);
    assert!(cold >= len as u64);
    let warm = read_through(world, cache.path(), "file", 1, len);
    assert!(warm < 2 * MIB as u64, "a warm cache fetches {warm} bytes");
}

fn what_changed_while_nobody_looked_is_fetched(world: &World) {
    let len = 9 * MIB;
    let cache = sandbox::dir("cache-");
    for seed in 1..4 {
        world.demo().fill_one("file", seed, len);
        read_through(world, cache.path(), "file", seed, len);
    }
}

fn a_corrupted_cache_is_fetched_again(world: &World) {
    let len = 20 * MIB;
    world.demo().fill_one("file", 1, len);
    let cache = sandbox::dir("cache-");
    read_through(world, cache.path(), "file", 1, len);
    // Every place where the object's bytes lie is changed, one bit in each 64 KiB.
    let mut changed = 0;
    for path in files(cache.path()) {
        let found = fs::read(&path).expect("read");
        if found.len() < MIB {
            continue;
        }
        let file = File::options().write(true).open(&path).expect("open");
        for offset in (100..found.len()).step_by(65_536) {
            let is_content = found[offset..].len() >= 4_096
                && (0..len).step_by(65_536).any(|at| {
                    let at = at + offset % 65_536;
                    at + 64 <= len && found[offset..offset + 64] == bytes_at(1, at as u64, 64)
                });
            if is_content {
                file.write_all_at(&[found[offset] ^ 4], offset as u64)
                    .expect("write");
                changed += 1;
            }
        }
    }
    assert!(changed > 0, "the cache holds the object's bytes somewhere");
    let fetched = read_through(world, cache.path(), "file", 1, len);
    assert!(fetched > 0, "bad bytes are fetched again");
}

fn a_cut_cache_is_fetched_again(world: &World) {
    let len = 20 * MIB;
    world.demo().fill_one("file", 1, len);
    let cache = sandbox::dir("cache-");
    read_through(world, cache.path(), "file", 1, len);
    for path in files(cache.path()) {
        let size = fs::metadata(&path).expect("stat").len();
        if size > 10 * MIB as u64 {
            File::options()
                .write(true)
                .open(&path)
                .expect("open")
                .set_len(size / 2)
                .expect("cut");
        }
    }
    read_through(world, cache.path(), "file", 1, len);
}

/// An index that is garbage is set aside, and the mount serves: a cache is only a cache.
fn a_broken_index_is_not_the_end(world: &World) {
    let len = 9 * MIB;
    world.demo().fill_one("file", 1, len);
    let cache = sandbox::dir("cache-");
    read_through(world, cache.path(), "file", 1, len);
    for path in files(cache.path()) {
        let size = fs::metadata(&path).expect("stat").len() as usize;
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if size > 0 && !name.contains("lock") {
            fs::write(&path, bytes(99, size)).expect("write");
        }
    }
    read_through(world, cache.path(), "file", 1, len);
}

fn a_full_cache_disk_is_not_the_end(world: &World) {
    let small = TmpFs::new(6 * MIB);
    let len = 30 * MIB;
    world.demo().fill_one("file", 1, len);
    let mount = world.mount_with(world.options().cache(small.path()));
    for _ in 0..2 {
        assert_same(
            &fs::read(mount.path("file")).expect("read"),
            &bytes(1, len),
            "file",
        );
    }
    // Writing goes on too, or says that there is no room; it never says yes and loses bytes.
    let mut file = File::create(mount.path("written")).expect("create");
    let written = file.write_all(&bytes(2, len));
    match (written, close(file)) {
        (Ok(()), Ok(())) => {
            assert_same(
                &world.witness().get("written").expect("there"),
                &bytes(2, len),
                "written",
            );
        }
        (written, closed) => {
            let no_room = nix::errno::Errno::ENOSPC;
            let said = written.is_err_and(|error| ackfs_tests::posix::errno(&error) == no_room);
            assert!(
                said || closed == Err(no_room),
                "the reason is said: {closed:?}"
            );
        }
    }
}

fn a_cache_stays_within_its_size(world: &World) {
    let cache = sandbox::dir("cache-");
    let name = |index: u64| format!("file-{index}");
    for index in 0..10 {
        world.demo().fill_one(&name(index), index, 12 * MIB);
    }
    let options = world.options().cache(cache.path());
    let mount = world.mount_with(options.flags("--cache-size 32MiB"));
    for index in 0..10 {
        let found = fs::read(mount.path(name(index))).expect("read");
        assert_same(&found, &bytes(index, 12 * MIB), "a cached file");
    }
    use std::os::unix::fs::MetadataExt as _;
    let on_disk = || -> u64 {
        let blocks = |path: &PathBuf| fs::metadata(path).map_or(0, |stat| stat.blocks() * 512);
        files(cache.path()).iter().map(blocks).sum()
    };
    // The index has a few MiB of its own.
    crate::eventually("the cache is within its size", || {
        on_disk() <= 40 * MIB as u64
    });
    assert_same(
        &fs::read(mount.path("file-0")).expect("read"),
        &bytes(0, 12 * MIB),
        "evicted",
    );
}

fn a_cache_that_is_in_use_is_refused(world: &World) {
    let cache = sandbox::dir("cache-");
    let mount = world.mount_with(world.options().cache(cache.path()));
    let refusal = world.try_mount(world.options().cache(cache.path()));
    let refusal = refusal.expect_err("one cache has one owner");
    let words = refusal.words.join("\n");
    assert!(words.contains("in use"), "{words}");
    assert!(
        words.contains(&*cache.path().to_string_lossy()),
        "it names the directory: {words}"
    );
    assert!(refusal.code.is_some_and(|code| code != 0));
    fs::write(mount.path("file"), "x").expect("the first mount is not disturbed");
}

fn a_mount_without_a_disk_cache_works(world: &World) {
    let len = 20 * MIB;
    world.demo().fill_one("file", 1, len);
    let mount = world.mount_with(world.options().flags("--cache-size 0"));
    assert_same(
        &fs::read(mount.path("file")).expect("read"),
        &bytes(1, len),
        "file",
    );
    fs::write(mount.path("new"), bytes(2, len)).expect("write");
    assert_same(
        &world.witness().get("new").expect("there"),
        &bytes(2, len),
        "new",
    );
}

fn reading_stays_within_the_memory_budget(world: &World) {
    let len = 400 * MIB;
    world.demo().fill_one("file", 1, len);
    let mount = world.mount_with(world.options().flags("--memory 64MiB"));
    process::reset_peak(mount.pid());
    let file = File::open(mount.path("file")).expect("open");
    let mut part = vec![0; MIB];
    std::thread::scope(|scope| {
        for reader in 1..4 {
            let file = &file;
            scope.spawn(move || {
                let mut part = vec![0; MIB];
                for index in 0..40 {
                    let offset = ((reader * 90 + index) * MIB) as u64;
                    file.read_exact_at(&mut part, offset).expect("read");
                    check_at(1, offset, &part);
                }
            });
        }
    });
    for offset in (0..len).step_by(MIB) {
        file.read_exact_at(&mut part, offset as u64).expect("read");
        if offset % (16 * MIB) == 0 {
            check_at(1, offset as u64, &part);
        }
    }
    let peak = mount.memory().peak_kib / 1024;
    assert!(peak <= 64 + 64, "--memory and 64 MiB, not {peak} MiB");
}

fn writing_stays_within_the_memory_budget(world: &World) {
    let mount = world.mount_with(world.options().flags("--memory 64MiB"));
    process::reset_peak(mount.pid());
    std::thread::scope(|scope| {
        for writer in 0..4_u64 {
            let mount = &mount;
            scope.spawn(move || {
                let mut file = File::create(mount.path(format!("{writer}"))).expect("create");
                for index in 0..50 {
                    let part = bytes_at(writer, index * MIB as u64, MIB);
                    file.write_all(&part).expect("write");
                }
                assert_eq!(close(file), Ok(()));
            });
        }
    });
    let peak = mount.memory().peak_kib / 1024;
    assert!(peak <= 64 + 64, "--memory and 64 MiB, not {peak} MiB");
    for writer in 0..4 {
        let found = world.witness().get(&format!("{writer}")).expect("there");
        assert_same(&found, &bytes(writer, 50 * MIB), "a written file");
    }
}

/// A part was read back from the staging file whole before it was sent, however little memory had
/// been set aside for that.
fn large_parts_stay_within_the_memory_budget(world: &World) {
    let flags = "--memory 128MiB --part-size 64MiB";
    let mount = world.mount_with(world.options().flags(flags));
    process::reset_peak(mount.pid());
    std::thread::scope(|scope| {
        for writer in 0..2_u64 {
            let mount = &mount;
            scope.spawn(move || {
                let mut file = File::create(mount.path(format!("{writer}"))).expect("create");
                for index in 0..300 {
                    let part = bytes_at(writer, index * MIB as u64, MIB);
                    file.write_all(&part).expect("write");
                }
                assert_eq!(close(file), Ok(()));
            });
        }
    });
    let peak = mount.memory().peak_kib / 1024;
    assert!(peak <= 128 + 64, "--memory and 64 MiB, not {peak} MiB");
    for writer in 0..2 {
        let found = world.witness().get(&format!("{writer}")).expect("there");
        assert_same(&found, &bytes(writer, 300 * MIB), "a written file");
    }
}
