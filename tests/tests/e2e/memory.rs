//! Memory where there are many files: the kernel is asked to forget what nobody uses, and what names take
//! comes out of `--memory`.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;

use ackfs_tests::content::{assert_same, bytes, bytes_at};
use ackfs_tests::posix::close;
use ackfs_tests::{Mount, World, claims, process};

use super::eventually;

claims! {
    DEMO:
        the_kernel_forgets_what_nobody_uses,
        many_files_and_large_ones_stay_within_memory;
}

const MIB: usize = 1 << 20;

/// The value of a metric without labels.
fn metric(mount: &Mount, name: &str) -> u64 {
    let mut words = mount.ready_line().split([' ', ',']);
    let url = words.find(|word| word.ends_with("/metrics"));
    let mut page = ureq::get(url.expect("metrics are served")).call();
    let page = page
        .as_mut()
        .expect("an answer")
        .body_mut()
        .read_to_string();
    let page = page.expect("text");
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value: f64 = line.expect(name).parse().expect("a number");
    value as u64
}

/// A large machine's kernel keeps what it was ever told, and so did we. With the least memory 4,096 names
/// are enough.
fn the_kernel_forgets_what_nobody_uses(world: &World) {
    world.demo().fill("dir/", 12_000);
    world.demo().fill_one("home/file", 7, 1000);
    let flags = "--memory 16MiB --metrics 127.0.0.1:0";
    let mount = world.mount_with(world.options().flags(flags));
    let open = mount.path("dir/000000");
    let mut file = File::open(&open).expect("open");
    let number = file.metadata().expect("fstat").ino();
    // A process that is in a directory has it in hand, and the names above it.
    let mut sitter = Command::new("sh");
    sitter.args(["-c", "read line; cat file"]);
    sitter.current_dir(mount.path("home"));
    sitter.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut sitter = sitter.process_group(0).spawn().expect("sh starts");
    let home = fs::metadata(mount.path("home")).expect("stat").ino();

    let listed = || {
        let entries = fs::read_dir(mount.path("dir")).expect("opendir");
        for entry in entries {
            let entry = entry.expect("readdir");
            assert_eq!(entry.metadata().expect("stat").len(), 10, "{entry:?}");
        }
    };
    listed();
    eventually("the kernel has forgotten most of them", || {
        metric(&mount, "ackfs_inodes") <= 4096 + 64
    });

    let mut text = String::new();
    file.read_to_string(&mut text).expect("read");
    assert_eq!(text, "dir/000000");
    assert_eq!(
        fs::metadata(&open).expect("stat").ino(),
        number,
        "it is open"
    );
    assert_eq!(fs::metadata(mount.path("home")).expect("stat").ino(), home);
    sitter
        .stdin
        .take()
        .expect("a pipe")
        .write_all(b"go\n")
        .expect("write");
    let said = sitter.wait_with_output().expect("sh ends");
    assert!(said.status.success());
    assert_same(&said.stdout, &bytes(7, 1000), "the file beside");
    // What was forgotten is found again.
    for index in [1, 5_000, 11_999] {
        let name = format!("dir/{index:06}");
        assert_eq!(fs::read_to_string(mount.path(&name)).expect("read"), name);
    }
    listed();
}

/// Names, metadata and records of thousands of files, and then as many bytes as there may be.
fn many_files_and_large_ones_stay_within_memory(world: &World) {
    let mount = world.mount_with(world.options().flags("--memory 32MiB"));
    process::reset_peak(mount.pid());
    thread::scope(|scope| {
        for writer in 0..8 {
            let dir = mount.path(format!("d{writer}"));
            scope.spawn(move || {
                fs::create_dir(&dir).expect("mkdir");
                for index in 0..2_000 {
                    let file = dir.join(format!("a-name-that-is-not-short-{index:05}.dat"));
                    fs::write(file, [b'x'; 100]).expect("write");
                }
            });
        }
    });
    thread::scope(|scope| {
        for writer in 0..4_u64 {
            let mount = &mount;
            scope.spawn(move || {
                let path = mount.path(format!("{writer}"));
                let mut file = File::create(&path).expect("create");
                for index in 0..40 {
                    let part = bytes_at(writer, index * MIB as u64, MIB);
                    file.write_all(&part).expect("write");
                }
                assert_eq!(close(file), Ok(()));
                let found = fs::read(&path).expect("read");
                assert_same(&found, &bytes(writer, 40 * MIB), "a file read back");
            });
        }
    });
    let peak = mount.memory().peak_kib / 1024;
    assert!(peak <= 32 + 64, "--memory and 64 MiB, not {peak} MiB");
}
