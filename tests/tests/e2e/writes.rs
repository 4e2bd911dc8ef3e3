//! Writing: any offset, any order, any length; what was written is read, by everybody, at once.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::thread;

use ackfs_tests::content::{Rng, assert_same, bytes, bytes_at, check_at};
use ackfs_tests::posix::{close, drop_pages, errno};
use ackfs_tests::{World, claims, process};
use nix::errno::Errno;

claims! {
    EVERY:
        writes_in_any_order_make_the_file,
        holes_read_as_zero,
        what_is_written_is_read_through_every_descriptor,
        truncation_both_ways_is_the_files_length,
        an_existing_object_can_be_appended_to,
        an_existing_object_can_be_written_in_the_middle,
        a_file_of_many_parts_is_one_object,
        the_beginning_can_change_after_its_part_has_left,
        bytes_beyond_the_memory_budget_spill,
        copies_by_tools_are_the_same;
    DEMO:
        a_file_larger_than_the_store_takes_is_refused,
        a_sequential_writer_uploads_while_it_writes,
        scattered_writes_stay_within_the_memory_budget;
}

const MIB: usize = 1 << 20;

fn read_write(path: &Path) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .expect("open")
}

fn writes_in_any_order_make_the_file(world: &World) {
    let mount = world.mount();
    let mut random = Rng::printed("orders");
    for round in 0..6 {
        let len = 1 + random.below(300_000) as usize;
        let wanted = bytes(round, len);
        let mut cuts: Vec<usize> = (0..20).map(|_| random.below(len as u64) as usize).collect();
        cuts.extend([0, len]);
        cuts.sort_unstable();
        let mut pieces: Vec<(usize, usize)> = cuts
            .windows(2)
            .map(|cut| (cut[0], cut[1]))
            .filter(|(a, b)| a < b)
            .collect();
        for last in (1..pieces.len()).rev() {
            pieces.swap(last, random.below(last as u64 + 1) as usize);
        }
        let file = File::create(mount.path("file")).expect("create");
        for (from, to) in pieces {
            file.write_all_at(&wanted[from..to], from as u64)
                .expect("write");
        }
        assert_eq!(close(file), Ok(()));
        let found = world.witness().get("file").expect("there");
        assert_same(&found, &wanted, &format!("round {round}"));
    }
}

fn holes_read_as_zero(world: &World) {
    let mount = world.mount();
    let file = read_write(&mount.path("sparse"));
    let mut wanted = vec![0; 3 * MIB + 10];
    for (offset, word) in [
        (5, &b"first"[..]),
        (MIB + 1, b"second"),
        (3 * MIB, b"0123456789"),
    ] {
        file.write_all_at(word, offset as u64).expect("write");
        wanted[offset..offset + word.len()].copy_from_slice(word);
    }
    let mut found = vec![1; wanted.len()];
    file.read_exact_at(&mut found, 0).expect("read");
    assert_same(&found, &wanted, "before close");
    assert_eq!(close(file), Ok(()));
    assert_same(
        &world.witness().get("sparse").expect("there"),
        &wanted,
        "in the bucket",
    );
    assert_same(
        &fs::read(mount.path("sparse")).expect("read"),
        &wanted,
        "read again",
    );
}

fn what_is_written_is_read_through_every_descriptor(world: &World) {
    let mount = world.mount();
    let path = mount.path("file");
    let mut writer = File::create(&path).expect("create");
    let mut reader = File::open(&path).expect("open for reading while it is written");
    let mut wanted = Vec::new();
    let mut found = Vec::new();
    for round in 0..20 {
        let part = bytes(round, 7_001);
        writer.write_all(&part).expect("write");
        wanted.extend_from_slice(&part);
        reader.read_to_end(&mut found).expect("read");
        assert_same(&found, &wanted, "through the other descriptor");
        assert_eq!(
            fs::metadata(&path).expect("stat").len(),
            wanted.len() as u64
        );
    }
    assert_eq!(close(writer), Ok(()));
    reader.seek(SeekFrom::Start(0)).expect("seek");
    found.clear();
    reader.read_to_end(&mut found).expect("read");
    assert_same(&found, &wanted, "after the writer's close");
}

fn truncation_both_ways_is_the_files_length(world: &World) {
    let (mount, witness) = (world.mount(), world.witness());
    witness.put("file", &bytes(1, 50_000));
    let path = mount.path("file");
    let file = read_write(&path);
    file.set_len(20_000).expect("cut");
    assert_eq!(file.metadata().expect("fstat").len(), 20_000);
    file.set_len(30_000).expect("grow");
    file.write_all_at(b"end", 29_997).expect("write");
    let mut wanted = bytes(1, 20_000);
    wanted.resize(30_000, 0);
    wanted[29_997..].copy_from_slice(b"end");
    let mut found = vec![1; 30_000];
    file.read_exact_at(&mut found, 0).expect("read");
    assert_same(&found, &wanted, "what was cut off does not come back");
    assert_eq!(close(file), Ok(()));
    assert_same(
        &witness.get("file").expect("there"),
        &wanted,
        "in the bucket",
    );
    // By path, without a descriptor that writes.
    nix::unistd::truncate(&path, 7).expect("truncate");
    assert_eq!(fs::metadata(&path).expect("stat").len(), 7);
    crate::eventually("the truncation is in the bucket", || {
        witness.head("file").expect("there").size == 7
    });
    assert_same(&fs::read(&path).expect("read"), &bytes(1, 7), "by path");
}

fn an_existing_object_can_be_appended_to(world: &World) {
    let (mount, witness) = (world.mount(), world.witness());
    let mut wanted = bytes(1, 12 * MIB);
    witness.put("file", &wanted);
    for round in 0..4 {
        let mut file = OpenOptions::new()
            .append(true)
            .open(mount.path("file"))
            .expect("open");
        let part = bytes(round + 10, 1_000);
        file.write_all(&part).expect("append");
        assert_eq!(close(file), Ok(()));
        wanted.extend_from_slice(&part);
        assert_same(
            &witness.get("file").expect("there"),
            &wanted,
            &format!("round {round}"),
        );
    }
}

fn an_existing_object_can_be_written_in_the_middle(world: &World) {
    let (mount, witness) = (world.mount(), world.witness());
    let mut wanted = bytes(1, 20 * MIB + 33);
    witness.put("file", &wanted);
    let file = read_write(&mount.path("file"));
    for (offset, len) in [
        (0, 10),
        (MIB * 7, MIB * 2),
        (20 * MIB + 20, 13),
        (MIB * 12 + 1, 1),
    ] {
        let part = bytes(offset as u64 + 5, len);
        file.write_all_at(&part, offset as u64).expect("write");
        wanted[offset..offset + len].copy_from_slice(&part);
        // Unchanged bytes beside it are read through the same descriptor.
        let mut around = vec![0; 4_000.min(wanted.len() - offset)];
        file.read_exact_at(&mut around, offset as u64)
            .expect("read");
        assert_same(
            &around,
            &wanted[offset..offset + around.len()],
            "around the write",
        );
    }
    assert_eq!(close(file), Ok(()));
    assert_same(
        &witness.get("file").expect("there"),
        &wanted,
        "in the bucket",
    );
}

fn a_file_of_many_parts_is_one_object(world: &World) {
    let mount = world.mount_with(world.options().flags("--part-size 5MiB"));
    let len = 33 * MIB + 77;
    let mut file = File::create(mount.path("large")).expect("create");
    let mut random = Rng::printed("pieces");
    let mut at = 0;
    while at < len {
        let piece = (1 + random.below(500_000) as usize).min(len - at);
        file.write_all(&bytes_at(3, at as u64, piece))
            .expect("write");
        at += piece;
    }
    assert_eq!(close(file), Ok(()));
    let witness = world.witness();
    assert_same(
        &witness.get("large").expect("there"),
        &bytes(3, len),
        "in the bucket",
    );
    assert_eq!(witness.uploads("large"), [], "no upload is left open");
    assert_same(
        &fs::read(mount.path("large")).expect("read"),
        &bytes(3, len),
        "read again",
    );
}

/// A sequential writer's first parts are on their way, then the header is patched: what archive
/// and media writers do.
fn the_beginning_can_change_after_its_part_has_left(world: &World) {
    let mount = world.mount_with(world.options().flags("--part-size 5MiB"));
    let len = 24 * MIB;
    let mut wanted = bytes(3, len);
    let mut file = File::create(mount.path("patched")).expect("create");
    for offset in (0..len).step_by(MIB) {
        file.write_all(&wanted[offset..offset + MIB])
            .expect("write");
    }
    for offset in [0, 11 * MIB + 3] {
        file.seek(SeekFrom::Start(offset as u64)).expect("seek");
        file.write_all(b"patched").expect("write");
        wanted[offset..offset + 7].copy_from_slice(b"patched");
    }
    file.set_len(len as u64 - 5).expect("cut");
    wanted.truncate(len - 5);
    assert_eq!(close(file), Ok(()));
    assert_same(
        &world.witness().get("patched").expect("there"),
        &wanted,
        "in the bucket",
    );
}

/// 200 MB in an order that no upload can follow, under a budget of 64 MiB.
fn bytes_beyond_the_memory_budget_spill(world: &World) {
    let mount = world.mount_with(world.options().flags("--memory 64MiB"));
    process::reset_peak(mount.pid());
    let len = 200_000_000_u64;
    let piece = 1_000_000_u64;
    let file = read_write(&mount.path("spilled"));
    for index in (0..len / piece).rev() {
        let offset = index * piece;
        file.write_all_at(&bytes_at(8, offset, piece as usize), offset)
            .expect("write");
    }
    let mut found = vec![0; 100_000];
    for offset in [0, 77_777_777, len - 100_000] {
        file.read_exact_at(&mut found, offset).expect("read");
        check_at(8, offset, &found);
    }
    assert_eq!(close(file), Ok(()));
    let peak = mount.memory().peak_kib / 1024;
    assert!(peak <= 64 + 64, "--memory and 64 MiB, not {peak} MiB");
    let witness = world.witness();
    assert_eq!(witness.head("spilled").expect("there").size, len);
    for offset in (0..len).step_by(20_000_000) {
        check_at(
            8,
            offset,
            &witness.get_range("spilled", offset, 50_000).expect("there"),
        );
    }
}

/// The C library kept what was freed: three files written at random places in random sizes, with syncs
/// between, left 172 MiB in a gateway that had 64 MiB to itself, and that only grew.
fn scattered_writes_stay_within_the_memory_budget(world: &World) {
    let mount = world.mount_with(world.options().flags("--memory 64MiB"));
    process::reset_peak(mount.pid());
    let len: u64 = 64 << 20;
    thread::scope(|scope| {
        for seed in 0..3 {
            let path = mount.path(format!("scattered-{seed}"));
            scope.spawn(move || {
                let mut random = Rng::new(seed);
                let mut file = read_write(&path);
                for step in 1..=300 {
                    let piece = [100, 4096, 65536, 1 << 20, 3 << 20][random.below(5) as usize];
                    let offset = random.below(len - piece);
                    if random.below(3) > 0 {
                        let bytes = bytes_at(seed, offset, piece as usize);
                        file.write_all_at(&bytes, offset).expect("write");
                    } else {
                        let mut found = vec![0; piece as usize];
                        file.read_at(&mut found, offset).expect("read");
                    }
                    if step % 60 == 0 {
                        assert_eq!(close(file), Ok(()));
                        file = read_write(&path);
                        drop_pages(&file);
                    }
                }
            });
        }
    });
    let peak = mount.memory().peak_kib / 1024;
    assert!(peak <= 64 + 64, "--memory and 64 MiB, not {peak} MiB");
}

fn copies_by_tools_are_the_same(world: &World) {
    use std::process::Command;

    let mount = world.mount();
    let script = "set -e
        head -c 3000000 /dev/urandom > a
        cp a b; cmp a b
        dd if=a of=c bs=77777 status=none; cmp a c
        cat a b > d; cmp -n 3000000 a d; test $(stat -c %s d) = 6000000
        tar cf e.tar a b; mkdir out; tar xf e.tar -C out; cmp a out/a; cmp b out/b
        dd if=/dev/zero of=c bs=1 seek=1000 count=10 conv=notrunc status=none
        if cmp -s a c; then exit 1; fi
        mv out/a moved; cmp a moved; truncate -s 1000 moved; cmp -n 1000 a moved
        sed -i s/x/y/ b 2>/dev/null; rm -r out";
    let status = Command::new("sh")
        .args(["-c", script])
        .current_dir(mount.dir())
        .output();
    let output = status.expect("sh runs");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
}

fn a_file_larger_than_the_store_takes_is_refused(world: &World) {
    let mount = world.mount();
    let file = File::create(mount.path("huge")).expect("create");
    // S3's limit is 5 TiB an object.
    let error = file.set_len((5 << 40) + 1).expect_err("too large");
    assert_eq!(errno(&error), Errno::EFBIG);
    let error = file.write_all_at(b"x", 5 << 40).expect_err("too large");
    assert_eq!(errno(&error), Errno::EFBIG);
    assert_eq!(close(file), Ok(()));
    assert_eq!(world.witness().head("huge").map(|head| head.size), Some(0));
}

fn a_sequential_writer_uploads_while_it_writes(world: &World) {
    let mount = world.mount_with(world.options().flags("--part-size 5MiB"));
    let mut file = File::create(mount.path("large")).expect("create");
    for index in 0..32 {
        file.write_all(&bytes(index, MIB)).expect("write");
    }
    crate::eventually("parts are in the store before close", || {
        world.demo().requests().part >= 2
    });
    assert_eq!(world.witness().head("large"), None, "and the object is not");
    assert_eq!(close(file), Ok(()));
    assert_eq!(
        world.witness().head("large").map(|head| head.size),
        Some(32 << 20)
    );
}
