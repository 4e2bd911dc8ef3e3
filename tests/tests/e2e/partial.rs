//! Partial writes: what changes of a large object is sent, what stays is copied at the store, and nothing
//! is read to begin. Without a disk cache a writer streams.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::time::Duration;

use ackfs_tests::command::run_ackfs;
use ackfs_tests::content::{Rng, assert_same, bytes, bytes_at, check_at};
use ackfs_tests::demo::{ACCESS_KEY, Effect, Miscopy, On, RequestCounts, SECRET_KEY};
use ackfs_tests::posix::{close, errno};
use ackfs_tests::{Mount, World, claims, process, sandbox};
use nix::errno::Errno;

claims! {
    EVERY:
        any_change_around_the_limits_of_parts_makes_the_file,
        a_change_of_a_large_object_makes_the_file,
        changes_at_random_make_the_file,
        a_version_that_is_replaced_meanwhile_is_never_mixed_in,
        a_sequential_writer_streams_without_a_disk,
        a_scattered_writer_without_a_disk_has_enospc_at_the_write;
    DEMO:
        a_change_costs_what_changed,
        each_of_many_appends_costs_what_one_does,
        metadata_alone_moves_no_bytes,
        scattered_writes_send_the_parts_that_they_touch,
        a_write_reads_nothing_to_begin,
        a_store_that_copies_no_parts_is_asked_once,
        a_store_that_copies_parts_wrongly_is_found_out,
        a_failed_publish_of_what_was_streamed_is_told_at_each_close,
        an_append_streams_without_a_disk,
        a_change_of_what_was_streamed_is_refused_and_harms_nothing,
        what_was_streamed_may_be_cut_to_sent_parts_and_change_its_mode,
        a_sequential_writer_streams_with_little_memory,
        what_does_not_change_takes_no_room;
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// A file that is changed through the mount, and what it should hold.
struct Twin {
    file: File,
    wanted: Vec<u8>,
    seed: u64,
}

impl Twin {
    /// Opens the object `name`, which holds `wanted`, to read and write.
    fn open(mount: &Mount, name: &str, wanted: Vec<u8>) -> Self {
        let mut options = File::options();
        let file = options.read(true).write(true).open(mount.path(name));
        Self {
            file: file.expect("open"),
            wanted,
            seed: 100,
        }
    }

    fn len(&self) -> usize {
        self.wanted.len()
    }

    /// Writes `len` bytes that are nowhere else.
    fn write(&mut self, offset: usize, len: usize) {
        self.seed += 1;
        let part = bytes_at(self.seed, offset as u64, len);
        self.file.write_all_at(&part, offset as u64).expect("write");
        self.wanted.resize(self.len().max(offset + len), 0);
        self.wanted[offset..offset + len].copy_from_slice(&part);
    }

    fn set_len(&mut self, len: usize) {
        self.file.set_len(len as u64).expect("truncate");
        self.wanted.resize(len, 0);
    }

    /// Reads through the descriptor that writes.
    fn read(&self, offset: usize, len: usize) {
        let len = len.min(self.len() - offset);
        let mut found = vec![1; len];
        self.file
            .read_exact_at(&mut found, offset as u64)
            .expect("read");
        let wanted = &self.wanted[offset..offset + len];
        assert_same(&found, wanted, &format!("{len} bytes at {offset}"));
    }

    fn sync(&self) {
        self.file.sync_all().expect("fsync");
    }

    fn close(self) -> Vec<u8> {
        assert_eq!(close(self.file), Ok(()));
        self.wanted
    }
}

/// What is done to a file between open and close.
type Change = fn(&mut Twin);

const CHANGES: [(&str, Change); 6] = [
    ("append", |twin| twin.write(twin.len(), 4 * KIB)),
    ("overwrite the start", |twin| twin.write(0, 100)),
    ("overwrite the middle", |twin| {
        twin.write(twin.len() / 2 + 7, 5_000);
    }),
    ("grow", |twin| twin.set_len(twin.len() + 16 * MIB)),
    ("cut to half", |twin| twin.set_len(twin.len() / 2)),
    ("all at once", |twin| {
        let len = twin.len();
        twin.write(len / 3, 70_000);
        twin.read(len / 3 - 9_000, 100_000);
        twin.set_len(len / 2);
        twin.set_len(len + 3);
        twin.read(len / 2 - 10, 1_000);
        twin.write(len, 10);
        twin.write(11, 1);
        twin.read(0, 5_000);
    }),
];

fn any_change_around_the_limits_of_parts_makes_the_file(world: &World) {
    let (mount, witness) = (world.mount(), world.witness());
    for limit in [5 * MIB, 8 * MIB, 16 * MIB] {
        for len in [limit - 1, limit, limit + 1] {
            for (index, (what, change)) in CHANGES.iter().enumerate() {
                let name = format!("{len}-{index}");
                let body = bytes(1, len);
                witness.put(&name, &body);
                let mut twin = Twin::open(&mount, &name, body);
                change(&mut twin);
                let wanted = twin.close();
                let found = witness.get(&name).expect("there");
                assert_same(&found, &wanted, &format!("{what} of {len} bytes"));
            }
        }
    }
}

/// Changes of which parts leave while they are written, and publishes between.
const LONG_CHANGES: [(&str, Change); 4] = [
    ("overwrite the first half", |twin| {
        for at in (0..twin.len() / 2).step_by(MIB) {
            twin.write(at, MIB);
        }
    }),
    ("append a lot", |twin| {
        for _ in 0..40 {
            twin.write(twin.len(), MIB);
        }
    }),
    ("go back to the start", |twin| {
        for at in (20 * MIB..60 * MIB).step_by(MIB) {
            twin.write(at, MIB);
        }
        twin.write(3, 10);
        twin.write(22 * MIB, 10);
    }),
    ("publish between", |twin| {
        twin.write(twin.len(), 1_000);
        twin.sync();
        twin.write(10 * MIB, 1_000);
        twin.read(10 * MIB - 500, 2_000);
        twin.sync();
        twin.set_len(twin.len() - 20 * MIB);
        twin.sync();
        twin.write(twin.len() + 9 * MIB, 10);
    }),
];

fn a_change_of_a_large_object_makes_the_file(world: &World) {
    let (mount, witness) = (world.mount(), world.witness());
    let mut wanted = bytes(1, 64 * MIB);
    witness.put("file", &wanted);
    for (what, change) in CHANGES.into_iter().chain(LONG_CHANGES) {
        let mut twin = Twin::open(&mount, "file", wanted);
        change(&mut twin);
        wanted = twin.close();
        assert_same(&witness.get("file").expect("there"), &wanted, what);
    }
    // The mount reads its own.
    let found = fs::read(mount.path("file")).expect("read");
    assert_same(&found, &wanted, "read again");
    assert_no_upload(world, "file");
}

fn changes_at_random_make_the_file(world: &World) {
    let mut random = Rng::printed("changes");
    let flags = "--part-size 5MiB --memory 32MiB";
    let mount = world.mount_with(world.options().flags(flags));
    let mut wanted = bytes(1, 24 * MIB);
    world.witness().put("file", &wanted);
    for round in 0..crate::rounds("ACKFS_TEST_CHANGES", 12) {
        let mut twin = Twin::open(&mount, "file", wanted);
        let mut done = Vec::new();
        for _ in 0..=random.below(5) {
            let offset = random.below(twin.len() as u64 + MIB as u64 / 2) as usize;
            let len = *random.pick(&[1, 100, 4 * KIB, 300 * KIB, 3 * MIB, 9 * MIB]);
            let op = random.below(8);
            done.push((op, offset, len));
            match op {
                0..4 => twin.write(offset, len),
                4 => twin.write(twin.len(), len),
                5 => twin.set_len(offset.max(6 * MIB)),
                6 if offset < twin.len() => twin.read(offset, len),
                _ => twin.sync(),
            }
        }
        wanted = twin.close();
        let found = world.witness().get("file").expect("there");
        let what = format!("round {round}, of {done:?} (operation, offset, length)");
        assert_same(&found, &wanted, &what);
        if wanted.len() > 48 * MIB {
            nix::unistd::truncate(&mount.path("file"), 24 << 20).expect("truncate");
            wanted.truncate(24 * MIB);
            crate::eventually("the truncation is in the bucket", || {
                world.witness().head("file").expect("there").size == 24 << 20
            });
        }
    }
}

/// Uploads of a publish that failed are given up after the last close.
fn assert_no_upload(world: &World, name: &str) {
    crate::eventually("no upload is left open", || {
        world.witness().uploads(name).is_empty()
    });
}

/// What `change` asks of the store, publish included.
fn cost(world: &World, change: impl FnOnce()) -> RequestCounts {
    let before = world.demo().requests();
    change();
    world.demo().requests() - before
}

/// Asserts that `cost` is what a small change of an object of `len` bytes may cost.
fn assert_small(cost: &RequestCounts, len: usize, what: &str) {
    assert!(cost.wire < 24 << 20, "{what}: {cost:?}");
    let writes = cost.put + cost.create + cost.part + cost.part_copy + cost.complete;
    let writes_max = len.div_ceil(256 * MIB) as u64 + 5;
    assert!(writes <= writes_max, "{what}: {cost:?}");
}

fn a_change_costs_what_changed(world: &World) {
    let len = 64 * MIB;
    world.demo().fill_one("file", 1, len);
    let mount = world.mount();
    let mut wanted = bytes(1, len);
    for (what, change) in &CHANGES[..5] {
        let mut twin = Twin::open(&mount, "file", wanted);
        let before = world.demo().requests();
        change(&mut twin);
        wanted = twin.close();
        let cost = world.demo().requests() - before;
        println!("{what}: {cost:?}");
        assert_small(&cost, len, what);
        if *what != "overwrite the start" && *what != "overwrite the middle" {
            // What is padded up to a part's least size is of the base; these have nothing to pad.
            assert_eq!(cost.get, 0, "{what}: {cost:?}");
        }
        if *what == "grow" {
            assert!(cost.wire < 17 << 20, "zeros alone: {cost:?}");
        }
        let found = world.witness().get("file").expect("there");
        assert_same(&found, &wanted, what);
    }
}

/// A log that is opened, appended to and closed for each record.
fn each_of_many_appends_costs_what_one_does(world: &World) {
    let len = 64 * MIB;
    world.demo().fill_one("log", 1, len);
    let mount = world.mount();
    let mut wanted = bytes(1, len);
    for round in 0..20 {
        let record = bytes(round + 10, 100);
        let cost = cost(world, || {
            let file = File::options().append(true).open(mount.path("log"));
            let mut file = file.expect("open");
            file.write_all(&record).expect("append");
            assert_eq!(close(file), Ok(()));
        });
        wanted.extend_from_slice(&record);
        let what = format!("append {round}");
        assert_small(&cost, len, &what);
        assert_eq!(cost.get, 0, "{what}: {cost:?}");
        assert!(cost.wire < 64 << 10, "{what}: {cost:?}");
    }
    let found = world.witness().get("log").expect("there");
    assert_same(&found, &wanted, "the log");
}

fn metadata_alone_moves_no_bytes(world: &World) {
    let len = 64 * MIB;
    world.demo().fill_one("file", 1, len);
    let mount = world.mount();
    let cost = cost(world, || {
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(mount.path("file"), mode).expect("chmod");
    });
    assert_small(&cost, len, "chmod");
    assert_eq!(cost.get + cost.part + cost.put, 0, "{cost:?}");
    assert!(cost.wire < 64 << 10, "{cost:?}");
    let found = world.witness().get("file").expect("there");
    assert_same(&found, &bytes(1, len), "the bytes");
}

fn scattered_writes_send_the_parts_that_they_touch(world: &World) {
    let mut random = Rng::printed("places");
    let mount = world.mount();
    for (len, writes) in [(64 * MIB, 200), (128 * MIB, 8)] {
        let name = format!("file-{writes}");
        world.demo().fill_one(&name, 1, len);
        let mut twin = Twin::open(&mount, &name, bytes(1, len));
        let sent = || world.demo().server().traffic_of("UploadPart").received;
        let before = sent();
        let mut touched = vec![false; len.div_ceil(5 * MIB)];
        for _ in 0..writes {
            let offset = random.below((len / (4 * KIB)) as u64) as usize * 4 * KIB;
            twin.write(offset, 4 * KIB);
            for part in &mut touched[offset / (5 * MIB)..=(offset + 4 * KIB - 1) / (5 * MIB)] {
                *part = true;
            }
        }
        let wanted = twin.close();
        let sent = sent() - before;
        let parts = touched.iter().filter(|part| **part).count();
        let sent_max = (parts * 5 * MIB) as u64 / 10 * 11;
        assert!(sent < sent_max, "{sent} bytes for {parts} parts of 5 MiB");
        let found = world.witness().get(&name).expect("there");
        assert_same(&found, &wanted, &name);
    }
}

fn a_write_reads_nothing_to_begin(world: &World) {
    let len = 64 * MIB;
    world.demo().fill_one("file", 1, len);
    let mount = world.mount();
    let mut twin = Twin::open(&mount, "file", bytes(1, len));
    let cost = cost(world, || {
        twin.write(20 * MIB + 77, 10_000);
        twin.write(len - 10, 300);
        twin.set_len(len - 1_000);
        twin.set_len(len + 1_000);
    });
    assert_eq!(cost.get, 0, "{cost:?}");
    assert_eq!(cost.part + cost.put, 0, "{cost:?}");
    // What was written, and what stays on both sides of it, by one read.
    twin.read(20 * MIB - 50_000, 128 * KIB);
    twin.read(len - 60_000, 61_000);
    let wanted = twin.close();
    let found = world.witness().get("file").expect("there");
    assert_same(&found, &wanted, "in the bucket");
}

fn a_version_that_is_replaced_meanwhile_is_never_mixed_in(world: &World) {
    let (mount, witness) = (world.mount(), world.witness());
    let len = 24 * MIB;
    witness.put("file", &bytes(1, len));
    let mut twin = Twin::open(&mount, "file", bytes(1, len));
    twin.write(8 * MIB + 5, 1_000);
    let foreign = bytes(2, len);
    witness.put("file", &foreign);
    // Old bytes that are here may be given, and what is written; new ones never.
    let mut found = vec![0; 100_000];
    for offset in [0, 8 * MIB - 50_000, 8 * MIB + 5, 23 * MIB] {
        match twin.file.read_exact_at(&mut found, offset as u64) {
            Ok(()) => assert_same(
                &found,
                &twin.wanted[offset..offset + found.len()],
                "the version that was opened",
            ),
            Err(error) => assert_eq!(errno(&error), Errno::ESTALE, "at {offset}"),
        }
    }
    let twice = twin.file.try_clone().expect("dup");
    let synced = twin.file.sync_all().map_err(|error| errno(&error));
    assert_eq!(synced, Err(Errno::ESTALE));
    drop(twin);
    assert_eq!(close(twice), Err(Errno::ESTALE));
    assert_same(&witness.get("file").expect("there"), &foreign, "theirs");
    assert_no_upload(world, "file");
}

/// Lines of the log that say that the store does not copy parts.
fn lines_on_copies(mount: &Mount) -> Vec<String> {
    let log = mount.log().into_iter();
    log.filter(|line| line.contains("UploadPartCopy")).collect()
}

/// Changes an object in three ways and gives how many copies were asked for.
fn change_thrice(world: &World, mount: &Mount, name: &str) -> u64 {
    let len = 24 * MIB;
    world.demo().fill_one(name, 1, len);
    let mut wanted = bytes(1, len);
    let before = world.demo().requests();
    for (what, change) in [CHANGES[0], CHANGES[1], CHANGES[4]] {
        let mut twin = Twin::open(mount, name, wanted);
        change(&mut twin);
        wanted = twin.close();
        let found = world.witness().get(name).expect("there");
        assert_same(&found, &wanted, &format!("{what} of {name}"));
    }
    let cost = world.demo().requests() - before;
    assert_no_upload(world, name);
    cost.part_copy
}

fn a_store_that_copies_no_parts_is_asked_once(world: &World) {
    let refuse = Effect::refuse(501, "NotImplemented");
    world.demo().fault(On::PartCopy, None, refuse, None);
    let mount = world.mount();
    assert_eq!(change_thrice(world, &mount, "file"), 1);
    assert_eq!(change_thrice(world, &mount, "another"), 0);
    let lines = lines_on_copies(&mount);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("WARN"), "{lines:#?}");

    let dir = sandbox::dir("mnt-");
    let source = format!("s3://{}", world.witness().bucket());
    let (dir, endpoint) = (dir.path().to_string_lossy(), world.endpoint());
    let args = ["doctor", &source, &dir, "--endpoint-url", &endpoint];
    let keys = [
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
    ];
    let (_, output, _) = run_ackfs(&args, &keys, Duration::from_mins(1)).expect("doctor ends");
    let line = output.lines().find(|line| line.contains("UploadPartCopy"));
    assert!(
        line.is_some_and(|line| line.starts_with("warn")),
        "{output}"
    );
}

/// An append copies the whole object, which a store that ignores ranges does rightly; so it is not
/// believed by that.
fn a_store_that_copies_parts_wrongly_is_found_out(world: &World) {
    for miscopy in [Miscopy::Short { missing: 1 }, Miscopy::Whole] {
        let demo = world.demo();
        let fault = demo.fault(On::PartCopy, None, Effect::Miscopy(miscopy), None);
        let mount = world.mount();
        change_thrice(world, &mount, "file");
        assert_eq!(change_thrice(world, &mount, "another"), 0, "{miscopy:?}");
        let lines = lines_on_copies(&mount);
        assert_eq!(lines.len(), 1, "{miscopy:?}: {lines:#?}");
        fault.remove();
    }
}

/// Mounts without a disk cache, with 64 MiB of memory.
fn without_disk(world: &World) -> Mount {
    let flags = "--cache-size 0 --memory 64MiB";
    let mount = world.mount_with(world.options().flags(flags));
    process::reset_peak(mount.pid());
    mount
}

fn assert_peak(mount: &Mount, memory_mib: u64) {
    let peak = mount.memory().peak_kib / 1024;
    assert!(
        peak <= memory_mib + 64,
        "--memory and 64 MiB, not {peak} MiB"
    );
}

/// Writes the bytes of `seed` from `offset` to `end`, one after the other.
fn stream(file: &File, seed: u64, offset: usize, end: usize) {
    for at in (offset..end).step_by(MIB) {
        let part = bytes_at(seed, at as u64, MIB.min(end - at));
        file.write_all_at(&part, at as u64).expect("write");
    }
}

fn a_sequential_writer_streams_without_a_disk(world: &World) {
    let mount = without_disk(world);
    let len = 200 * MIB + 333;
    let file = File::create(mount.path("file")).expect("create");
    stream(&file, 5, 0, len);
    assert_eq!(close(file), Ok(()));
    assert_peak(&mount, 64);
    let witness = world.witness();
    let found = witness.get("file").expect("there");
    assert_eq!(found.len(), len);
    check_at(5, 0, &found);
    assert_no_upload(world, "file");
}

fn an_append_streams_without_a_disk(world: &World) {
    let base = 64 * MIB;
    world.demo().fill_one("file", 5, base);
    let mount = without_disk(world);
    let len = base + 120 * MIB;
    let file = File::options().write(true).open(mount.path("file"));
    let file = file.expect("open");
    let cost = cost(world, || {
        stream(&file, 5, base, len);
        assert_eq!(close(file), Ok(()));
    });
    assert_peak(&mount, 64);
    assert_eq!(cost.get, 0, "{cost:?}");
    let found = world.witness().get("file").expect("there");
    assert_eq!(found.len(), len);
    check_at(5, 0, &found);
}

fn a_scattered_writer_without_a_disk_has_enospc_at_the_write(world: &World) {
    let mount = without_disk(world);
    let (mut options, path) = (File::options(), mount.path("file"));
    let file = options.read(true).write(true).create_new(true).open(path);
    let mut wanted = vec![0; 100 * MIB];
    let file = file.expect("create");
    let mut refused = None;
    for at in (0..wanted.len()).step_by(MIB).rev() {
        let part = bytes_at(5, at as u64, MIB);
        // A write that is refused half-way says how far it came.
        match file.write_at(&part, at as u64) {
            Ok(written) => wanted[at..at + written].copy_from_slice(&part[..written]),
            Err(error) => {
                refused = Some(errno(&error));
                break;
            }
        }
    }
    assert_eq!(refused, Some(Errno::ENOSPC), "100 MiB do not fit");
    assert_eq!(close(file), Ok(()), "what was taken is published");
    assert_peak(&mount, 64);
    let found = world.witness().get("file").expect("there");
    assert_same(&found, &wanted, "what was taken");
}

/// As long as the store has the parts, another try makes the object of them. When they are gone, every
/// close says so.
fn a_failed_publish_of_what_was_streamed_is_told_at_each_close(world: &World) {
    let mount = without_disk(world);
    for (status, code, told, is_kept) in [
        (403, "AccessDenied", Errno::EACCES, true),
        (404, "NoSuchUpload", Errno::EIO, false),
    ] {
        let refuse = Effect::refuse(status, code);
        world.demo().fault(On::Complete, None, refuse, None);
        let file = File::create(mount.path(code)).expect("create");
        stream(&file, 5, 0, 150 * MIB);
        let synced = || file.sync_all().map_err(|error| errno(&error));
        assert_eq!(synced(), Err(told), "{code}");
        world.demo().heal();
        let wanted = if is_kept { Ok(()) } else { Err(Errno::EIO) };
        assert_eq!(synced(), wanted, "{code}, tried again");
        assert_eq!(close(file), wanted, "{code}");
        let there = world.witness().get(code);
        assert_eq!(there.is_some(), is_kept, "{code}");
        if let Some(found) = there {
            assert_eq!(found.len(), 150 * MIB);
            check_at(5, 0, &found);
        }
        assert_no_upload(world, code);
    }
    assert_peak(&mount, 64);
}

/// Its bytes are at the store, in parts that are no object yet, and nowhere else.
fn a_change_of_what_was_streamed_is_refused_and_harms_nothing(world: &World) {
    let mount = without_disk(world);
    let len = 120 * MIB + 7;
    let (mut options, path) = (File::options(), mount.path("file"));
    let file = options.read(true).write(true).create_new(true).open(path);
    let file = file.expect("create");
    stream(&file, 5, 0, len);
    let refused = file.write_all_at(b"header", 0).expect_err("it was sent");
    assert_eq!(errno(&refused), Errno::ENOSPC);
    let refused = file.set_len(3 * MIB as u64).expect_err("it was sent");
    assert_eq!(errno(&refused), Errno::ENOSPC);
    // What is still here is read and written as ever.
    let mut found = [0; 7];
    file.read_exact_at(&mut found, len as u64 - 7)
        .expect("read");
    check_at(5, len as u64 - 7, &found);
    // Of the rest the kernel may have pages.
    for offset in [0, MIB as u64] {
        match file.read_exact_at(&mut found, offset) {
            Ok(()) => check_at(5, offset, &found),
            Err(error) => assert_eq!(errno(&error), Errno::EIO, "at {offset}"),
        }
    }
    assert_eq!(close(file), Ok(()));
    let found = world.witness().get("file").expect("there");
    assert_eq!(found.len(), len);
    check_at(5, 0, &found);
    // Now it is an object, of which anything can be changed.
    let mut twin = Twin::open(&mount, "file", found);
    twin.write(0, 6);
    twin.write(60 * MIB, 10_000);
    twin.set_len(100 * MIB);
    let wanted = twin.close();
    assert_same(
        &world.witness().get("file").expect("there"),
        &wanted,
        "changed",
    );
}

/// Nothing but the parts at the store has these bytes, so they are gone on with, whatever it costs.
fn what_was_streamed_may_be_cut_to_sent_parts_and_change_its_mode(world: &World) {
    let mount = without_disk(world);
    for (name, len) in [("cut", 8 * MIB), ("whole", 120 * MIB)] {
        let file = File::create(mount.path(name)).expect("create");
        stream(&file, 5, 0, 120 * MIB);
        file.set_len(len as u64).expect("cut");
        // As cp -p does before it closes.
        let mode = fs::Permissions::from_mode(0o640);
        file.set_permissions(mode).expect("chmod");
        assert_eq!(close(file), Ok(()), "{name}");
        let found = world.witness().get(name).expect("there");
        assert_eq!(found.len(), len, "{name}");
        check_at(5, 0, &found);
    }
}

/// As little as holds one part beside what is being written.
fn a_sequential_writer_streams_with_little_memory(world: &World) {
    let flags = "--cache-size 0 --memory 32MiB";
    let mount = world.mount_with(world.options().flags(flags));
    let len = 60 * MIB + 1;
    let file = File::create(mount.path("file")).expect("create");
    stream(&file, 5, 0, len);
    assert_eq!(close(file), Ok(()));
    let found = world.witness().get("file").expect("there");
    assert_eq!(found.len(), len);
    check_at(5, 0, &found);
}

/// Neither in memory nor on the disk: of an object of many times the memory, and of a hole.
fn what_does_not_change_takes_no_room(world: &World) {
    let len = 160 * MIB;
    world.demo().fill_one("file", 1, len);
    let flags = "--memory 16MiB --cache-size 64MiB";
    let mount = world.mount_with(world.options().flags(flags));
    process::reset_peak(mount.pid());
    let mut wanted = bytes(1, len);
    let (mut options, path) = (File::options(), mount.path("file"));
    let file = options.read(true).write(true).open(path).expect("open");
    // The hole is not published: a store has none, and would be sent its zeros.
    file.set_len(3 << 30).expect("grow");
    for (index, offset) in [77, 40 * MIB, 130 * MIB + 5, 159 * MIB]
        .into_iter()
        .enumerate()
    {
        let part = bytes(index as u64 + 7, 4 * KIB);
        file.write_all_at(&part, offset as u64).expect("write");
        file.write_all_at(&part, (2 << 30) + offset as u64)
            .expect("write");
        wanted[offset..offset + part.len()].copy_from_slice(&part);
    }
    let mut found = vec![1; 100_000];
    file.read_exact_at(&mut found, 1 << 30).expect("read");
    assert_same(&found, &vec![0; 100_000], "the hole");
    file.set_len(len as u64).expect("cut");
    assert_eq!(close(file), Ok(()));
    assert_peak(&mount, 16);
    let found = world.witness().get("file").expect("there");
    assert_same(&found, &wanted, "in the bucket");
}
