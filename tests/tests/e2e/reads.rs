//! Reading: every byte is the right one in whatever order it is asked for, and no more is fetched
//! than a reader needs.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::thread;

use ackfs_tests::content::{Rng, assert_same, bytes, check_at};
use ackfs_tests::posix::drop_pages;
use ackfs_tests::{World, claims};
use nix::fcntl::{OFlag, PosixFadviseAdvice, posix_fadvise};

claims! {
    EVERY:
        a_file_read_in_any_order_is_the_object,
        sizes_around_every_boundary_are_read_whole,
        many_readers_of_one_file_each_get_their_bytes,
        many_files_at_once_are_each_their_own,
        direct_reads_are_the_object,
        a_read_past_the_end_is_short,
        a_mapped_file_is_the_object;
    DEMO:
        random_reads_fetch_little_more_than_they_need,
        readers_that_come_together_share_one_fetch,
        a_sequential_read_fetches_each_byte_once,
        a_small_read_does_not_wait_for_a_long_upload;
}

const MIB: usize = 1 << 20;

fn a_file_read_in_any_order_is_the_object(world: &World) {
    let len = 36 * MIB + 4_321;
    world.witness().put("file", &bytes(1, len));
    let mount = world.mount_with(world.options().flags("--memory 64MiB"));
    let mut random = Rng::printed("orders");
    let file = File::open(mount.path("file")).expect("open");
    let mut page = vec![0; 300_000];
    let mut check = |offset: u64, size: usize| {
        let size = size.min(len - offset as usize);
        file.read_exact_at(&mut page[..size], offset).expect("read");
        check_at(1, offset, &page[..size]);
    };
    // Random, with lengths that fit nothing.
    for _ in 0..150 {
        let offset = random.below(len as u64);
        check(offset, 1 + random.below(70_000) as usize);
    }
    drop_pages(&file);
    // Backward.
    for index in (0..len / 262_144).rev() {
        check(index as u64 * 262_144, 262_144);
    }
    drop_pages(&file);
    // Strided: a column of a table.
    for offset in (0..len as u64).step_by(3 * MIB / 4) {
        check(offset, 5_000);
    }
    drop_pages(&file);
    // Two streams in one file, forward.
    for step in 0..64 {
        check(step * 131_072, 131_072);
        check(18 * MIB as u64 + step * 131_072, 131_072);
    }
    drop_pages(&file);
    // The whole.
    let found = fs::read(mount.path("file")).expect("read");
    assert_same(&found, &bytes(1, len), "the whole");
}

fn sizes_around_every_boundary_are_read_whole(world: &World) {
    let sizes = [
        0,
        1,
        4_095,
        4_096,
        4_097,
        131_071,
        131_073,
        MIB - 1,
        MIB,
        MIB + 1,
        8 * MIB - 1,
        8 * MIB,
        8 * MIB + 1,
        16 * MIB + 5,
    ];
    for size in sizes {
        let key = format!("{size}");
        world.witness().put(&key, &bytes(size as u64, size));
    }
    let mount = world.mount();
    for size in sizes {
        let key = format!("{size}");
        let file = fs::read(mount.path(&key)).expect("read");
        assert_same(&file, &bytes(size as u64, size), &key);
        let mut file = File::open(mount.path(&key)).expect("open");
        if size > 0 {
            file.seek(SeekFrom::End(-1)).expect("seek");
        }
        let mut last = Vec::new();
        file.read_to_end(&mut last).expect("read");
        assert_eq!(last.len(), size.min(1));
        check_at(size as u64, size.saturating_sub(1) as u64, &last);
    }
}

fn many_readers_of_one_file_each_get_their_bytes(world: &World) {
    let len = 20 * MIB;
    world.witness().put("file", &bytes(9, len));
    let mount = world.mount();
    thread::scope(|scope| {
        for reader in 0..8_u64 {
            let mount = &mount;
            scope.spawn(move || {
                let file = File::open(mount.path("file")).expect("open");
                let mut random = Rng::new(reader);
                let mut page = vec![0; 100_000];
                for step in 0..60 {
                    // Half of the readers stream, half jump.
                    let offset = if reader % 2 == 0 {
                        step * page.len() as u64
                    } else {
                        random.below((len - page.len()) as u64)
                    };
                    file.read_exact_at(&mut page, offset).expect("read");
                    check_at(9, offset, &page);
                }
            });
        }
    });
}

fn many_files_at_once_are_each_their_own(world: &World) {
    for index in 0..64 {
        world.witness().put(
            &format!("dir/{index}"),
            &bytes(index, 30_000 + index as usize),
        );
    }
    let mount = world.mount();
    thread::scope(|scope| {
        for reader in 0..8 {
            let mount = &mount;
            scope.spawn(move || {
                for index in (0..64_u64).map(|step| (step + reader * 8) % 64) {
                    let found = fs::read(mount.path(format!("dir/{index}"))).expect("read");
                    assert_same(&found, &bytes(index, 30_000 + index as usize), "a file");
                }
            });
        }
    });
}

fn direct_reads_are_the_object(world: &World) {
    let len = 9 * MIB + 100;
    world.witness().put("file", &bytes(4, len));
    let mount = world.mount();
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_DIRECT.bits())
        .open(mount.path("file"))
        .expect("open with O_DIRECT");
    let mut found = vec![0; len];
    file.read_exact_at(&mut found, 0).expect("read");
    assert_same(&found, &bytes(4, len), "read past the page cache");
}

fn a_read_past_the_end_is_short(world: &World) {
    world.witness().put("file", &bytes(4, 5_000));
    let mount = world.mount();
    let file = File::open(mount.path("file")).expect("open");
    let mut page = vec![0; 4_096];
    assert_eq!(file.read_at(&mut page, 4_096).expect("read"), 904);
    assert_eq!(file.read_at(&mut page, 5_000).expect("read"), 0);
    assert_eq!(file.read_at(&mut page, 1 << 40).expect("read"), 0);
}

fn a_mapped_file_is_the_object(world: &World) {
    let len = 10 * MIB;
    world.witness().put("file", &bytes(4, len));
    let mount = world.mount();
    // cmp maps nothing, grep and git do; a shared mapping for writing is the strictest of them.
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(mount.path("file"));
    let file = file.expect("open");
    let map = ackfs_tests::posix::Mapping::new(&file, len).expect("mmap");
    let mut random = Rng::new(3);
    for _ in 0..300 {
        let offset = random.below(len as u64);
        check_at(4, offset, &[map.load(offset as usize)]);
    }
}

/// Reads of 4 KiB at random places of a large file: what is fetched stays near what is read.
fn random_reads_fetch_little_more_than_they_need(world: &World) {
    let len = 256 * MIB;
    world.demo().fill_one("file", 7, len);
    let mount = world.mount();
    let file = File::open(mount.path("file")).expect("open");
    // The kernel's own readahead is not ours to answer for.
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM).expect("advice is taken");
    let mut random = Rng::printed("places");
    let before = world.demo().requests();
    let mut page = vec![0; 4_096];
    let reads = 200;
    for _ in 0..reads {
        let offset = random.below(len as u64 / 4_096) * 4_096;
        file.read_exact_at(&mut page, offset).expect("read");
        check_at(7, offset, &page);
    }
    let cost = world.demo().requests() - before;
    assert!(cost.get <= reads + 4, "one GET a read: {cost:?}");
    let each = cost.bytes_out / reads;
    assert!(each <= 256 * 1024, "a read of 4 KiB fetches {each} bytes");
}

fn readers_that_come_together_share_one_fetch(world: &World) {
    let len = 8 * MIB;
    world.demo().fill_one("file", 7, len);
    let mount = world.mount();
    let before = world.demo().requests();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let found = fs::read(mount.path("file")).expect("read");
                assert_same(&found, &bytes(7, len), "file");
            });
        }
    });
    let cost = world.demo().requests() - before;
    let fetched = cost.bytes_out as f64 / len as f64;
    assert!(
        fetched < 1.3,
        "eight readers fetch the file {fetched:.2} times: {cost:?}"
    );
}

fn a_sequential_read_fetches_each_byte_once(world: &World) {
    let len = 128 * MIB;
    world.demo().fill_one("file", 7, len);
    let mount = world.mount();
    let before = world.demo().requests();
    let mut file = File::open(mount.path("file")).expect("open");
    let mut part = vec![0; MIB];
    for offset in (0..len).step_by(MIB) {
        file.read_exact(&mut part).expect("read");
        check_at(7, offset as u64, &part);
    }
    let cost = world.demo().requests() - before;
    let fetched = cost.bytes_out as f64 / len as f64;
    assert!(
        fetched < 1.05,
        "the file is fetched {fetched:.2} times: {cost:?}"
    );
    // Units of 8 MiB, and smaller ones while readahead grows.
    assert!(cost.get <= 16 + 16, "{cost:?}");
}

fn a_small_read_does_not_wait_for_a_long_upload(world: &World) {
    use std::io::Write as _;
    use std::sync::atomic::{AtomicBool, Ordering};

    use ackfs_tests::demo::{Demo, Effect, On};

    /// Parts of one upload that are on their way at a time.
    const PARTS_IN_FLIGHT: u64 = 4;
    /// The scope waits for the writer and the writer for the store, also when a claim fails.
    struct Healed<'a>(&'a Demo);
    impl Drop for Healed<'_> {
        fn drop(&mut self) {
            self.0.heal();
        }
    }

    for index in 0..20 {
        world
            .witness()
            .put(&format!("small/{index}"), &bytes(index, 1_000));
    }
    let hang = world.demo().fault(On::Part, None, Effect::HangBefore, None);
    let mount = world.mount_with(world.options().flags("--part-size 5MiB --memory 128MiB"));
    let writing = AtomicBool::new(true);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = File::create(mount.path("large")).expect("create");
            for index in 0..60 {
                file.write_all(&bytes(index, MIB)).expect("write");
            }
            assert_eq!(ackfs_tests::posix::close(file), Ok(()));
            writing.store(false, Ordering::Release);
        });
        let healed = Healed(world.demo());
        // From here on the upload holds all requests that it may hold, and gives none back.
        world.demo().wait_fired(&hang, PARTS_IN_FLIGHT);
        for index in 0..20 {
            let found = fs::read(mount.path(format!("small/{index}"))).expect("read");
            assert_same(&found, &bytes(index, 1_000), "a small file");
        }
        assert!(writing.load(Ordering::Acquire), "the upload still hangs");
        assert_eq!(hang.fired(), PARTS_IN_FLIGHT, "and none was tried again");
        drop(healed);
    });
}
