//! Files that the kernel reads from the cache file by itself: faster, and never another file.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::time::Duration;

use ackfs_tests::command::run_ackfs;
use ackfs_tests::content::{assert_same, bytes};
use ackfs_tests::posix::{Mapping, close};
use ackfs_tests::{Mount, World, claims};

claims! {
    DEMO:
        a_cached_file_is_passed_through,
        a_file_that_is_written_beside_passthrough_stays_one_file,
        what_is_written_beside_passthrough_is_seen_by_the_next_open,
        a_file_truncated_by_name_beside_passthrough_is_seen_by_the_next_open,
        a_mapping_of_a_writer_beside_passthrough_is_published,
        readers_that_are_passed_through_keep_a_removed_file;
}

const LEN: usize = 3 << 20;

/// How many opens the kernel was left to serve.
fn passed_through(mount: &Mount) -> u64 {
    let dir = mount.dir().to_string_lossy().into_owned();
    let runtime = mount.runtime_dir().to_string_lossy().into_owned();
    let env = [("XDG_RUNTIME_DIR", &*runtime)];
    let asked = run_ackfs(&["stats", "--json", &dir], &env, Duration::from_mins(1));
    let (code, report, words) = asked.expect("stats ends");
    assert_eq!(code, Some(0), "{words}");
    let (_, rest) = report
        .split_once("\"passthrough_opens\":")
        .unwrap_or_else(|| panic!("not in {report}"));
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
    digits
        .and_then(|digits| digits.parse().ok())
        .expect("a number")
}

/// A mount with the object `name` in its cache, and a reader that is passed through.
fn reader(world: &World, name: &str) -> (Mount, File) {
    world.demo().fill_one(name, 1, LEN);
    let mount = world.mount();
    let found = fs::read(mount.path(name)).expect("read");
    assert_same(&found, &bytes(1, LEN), name);
    let mut reader = None;
    crate::eventually("an open is passed through", || {
        // Only one handle at a time: another that is not passed through would forbid it.
        reader = None;
        let before = passed_through(&mount);
        reader = Some(File::open(mount.path(name)).expect("open"));
        passed_through(&mount) > before
    });
    (mount, reader.expect("it was opened"))
}

fn assert_reads(file: &File, len: usize, seed: u64) {
    let mut found = vec![0; len + 1];
    let mut done = 0;
    loop {
        match file.read_at(&mut found[done..], done as u64).expect("read") {
            0 => break,
            len => done += len,
        }
    }
    assert_same(&found[..done], &bytes(seed, len), "an open file");
}

fn ino(path: &Path) -> u64 {
    fs::metadata(path).expect("stat").ino()
}

fn a_cached_file_is_passed_through(world: &World) {
    let (mount, first) = reader(world, "file");
    let before = passed_through(&mount);
    let second = File::open(mount.path("file")).expect("open");
    assert_eq!(passed_through(&mount), before + 1);
    assert_reads(&first, LEN, 1);
    assert_reads(&second, LEN, 1);
}

/// Who opened a file for writing that readers were passed through got another inode: the file had
/// two numbers, as if it had been replaced, and each write beside a reader made one more.
fn a_file_that_is_written_beside_passthrough_stays_one_file(world: &World) {
    let (mount, reader) = reader(world, "file");
    let path = mount.path("file");
    let number = ino(&path);
    assert_eq!(reader.metadata().expect("fstat").ino(), number);
    for round in 2..5 {
        let before = passed_through(&mount);
        let mut writer = File::create(&path).expect("open for writing");
        assert_eq!(writer.metadata().expect("fstat").ino(), number);
        writer.write_all(&bytes(round, LEN)).expect("write");
        let mut beside = vec![0; 4096];
        let open = File::open(&path).expect("open");
        open.read_exact_at(&mut beside, 0).expect("read");
        assert_same(&beside, &bytes(round, 4096), "what is being written");
        assert_eq!(close(writer), Ok(()));
        assert_reads(&open, LEN, round);
        assert_eq!(ino(&path), number, "after the close");
        // The reader has the version that it opened, and stat of it says so.
        let stat = reader.metadata().expect("fstat");
        assert_eq!((stat.ino(), stat.len()), (number, LEN as u64));
        assert_reads(&reader, LEN, 1);
        assert_eq!(passed_through(&mount), before, "once is enough");
    }
    let listed = fs::read_dir(mount.dir()).expect("list").next();
    let listed = listed.expect("one name").expect("list");
    assert_eq!(std::os::unix::fs::DirEntryExt::ino(&listed), number);
}

fn what_is_written_beside_passthrough_is_seen_by_the_next_open(world: &World) {
    let (mount, reader) = reader(world, "file");
    let mut writer = OpenOptions::new()
        .append(true)
        .open(mount.path("file"))
        .expect("open for appending");
    writer.write_all(b"the end").expect("write");
    assert_eq!(close(writer), Ok(()));
    let mut whole = bytes(1, LEN);
    whole.extend_from_slice(b"the end");
    assert_same(&fs::read(mount.path("file")).expect("read"), &whole, "file");
    assert_same(
        &world.witness().get("file").expect("there"),
        &whole,
        "the object",
    );
    assert_reads(&reader, LEN, 1);
}

/// truncate(2) changed the inode of the readers that were passed through, and who opened the file
/// afterwards was passed through to the old bytes.
fn a_file_truncated_by_name_beside_passthrough_is_seen_by_the_next_open(world: &World) {
    let (mount, reader) = reader(world, "file");
    let cut = LEN - 5000;
    nix::unistd::truncate(&mount.path("file"), cut as i64).expect("truncate");
    let open = File::open(mount.path("file")).expect("open");
    assert_eq!(open.metadata().expect("fstat").len(), cut as u64);
    assert_reads(&open, cut, 1);
    let found = world.witness().get("file").expect("there");
    assert_same(&found, &bytes(1, cut), "the object");
    assert_reads(&reader, LEN, 1);
}

fn a_mapping_of_a_writer_beside_passthrough_is_published(world: &World) {
    let (mount, reader) = reader(world, "file");
    let mut options = OpenOptions::new();
    let writer = options.read(true).write(true);
    let writer = writer.open(mount.path("file")).expect("open");
    let mut map = Mapping::new(&writer, LEN).expect("map");
    map.store(LEN - 100, b"stored");
    map.sync().expect("msync");
    drop(map);
    assert_eq!(close(writer), Ok(()));
    let mut whole = bytes(1, LEN);
    whole[LEN - 100..][..6].copy_from_slice(b"stored");
    let found = world.witness().get("file").expect("there");
    assert_same(&found, &whole, "the object");
    assert_reads(&reader, LEN, 1);
}

fn readers_that_are_passed_through_keep_a_removed_file(world: &World) {
    let (mount, reader) = reader(world, "file");
    fs::remove_file(mount.path("file")).expect("unlink");
    assert_eq!(reader.metadata().expect("fstat").nlink(), 0);
    // Another object of that name pushes the old one out of the cache.
    fs::write(mount.path("file"), bytes(2, LEN)).expect("write");
    for _ in 0..3 {
        assert_same(
            &fs::read(mount.path("file")).expect("read"),
            &bytes(2, LEN),
            "file",
        );
    }
    assert_reads(&reader, LEN, 1);
}
