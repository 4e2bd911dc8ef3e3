//! The transport on real mounts, through both doors: what the null handler says is what callers
//! see, and trouble (a slow handler, a panic, a killed server, a kernel that refuses) hurts nobody
//! but the request it happens to.
//!
//! Needs root, `/dev/fuse` and a kernel with FUSE over io_uring, and says so where it lacks them.
//! Waits are for events; the one bound, [`PATIENCE`], only turns a hang into a failure.

#[path = "../examples/null/handler.rs"]
mod handler;

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ackfs::fuse::TransportStats;
use ackfs::fuse::abi::opcode;
use ackfs::fuse::mount::{MountError, MountOptions, Mounted, Transport, Unmounted};
use nix::mount::MsFlags;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use handler::{FILE_SIZE, FILES, Gate, Null, byte_of};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// Makes each test twice, once for each door.
macro_rules! both_doors {
    ($($name:ident)*) => {
        mod uring {
            $(#[test] fn $name() { super::$name(super::Transport::Uring); })*
        }
        mod classic {
            $(#[test] fn $name() { super::$name(super::Transport::Classic); })*
        }
    };
}

both_doors! {
    callers_see_what_the_handler_answers
    large_reads_and_writes_keep_their_bytes
    a_panic_or_a_forgotten_answer_is_eio_for_that_request_only
    a_waiting_read_answers_eintr_when_its_caller_is_signalled
    hits_are_answered_while_200_reads_wait
    a_killed_server_frees_its_callers_and_its_directory
    unmount_ends_every_thread
    a_busy_mount_goes_on_until_its_last_file_is_closed
    force_frees_callers_that_wait
    an_invalidated_name_is_looked_up_again_and_forgotten
    a_backing_file_is_read_without_us
    a_descriptor_that_is_mounted_already_is_served_and_left_to_its_owner
}

/// A mount of the null handler on a directory of its own.
struct Fixture {
    mounted: Mounted,
    null: Arc<Null>,
    gate: Arc<Gate>,
    runtime: tokio::runtime::Runtime,
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new(transport: Transport) -> Self {
        Self::with(&MountOptions {
            transport,
            ..MountOptions::default()
        })
    }

    fn with(options: &MountOptions) -> Self {
        require_privileges();
        let dir = tempfile::tempdir().expect("a directory");
        let (mounted, null, gate, runtime) = serve(dir.path(), options);
        Self {
            mounted,
            null,
            gate,
            runtime,
            dir,
        }
    }

    /// Waits until `count` requests wait at the gate.
    fn wait_for(&self, count: usize) {
        let waiting = async { tokio::time::timeout(PATIENCE, self.gate.waiting(count)).await };
        self.runtime.block_on(waiting).expect("they come");
    }

    /// The transport's counts once every file is closed and no request is being served: the kernel
    /// sends RELEASE and RELEASEDIR behind the back of the one who closes.
    fn settled(&self) -> TransportStats {
        let begun = Instant::now();
        loop {
            let stats = self.mounted.stats();
            let closed = |open: u32, release: u32| {
                let (open, release) = (open as usize, release as usize);
                stats.requests[open] == stats.errors[open] + stats.requests[release]
            };
            if closed(opcode::OPEN, opcode::RELEASE)
                && closed(opcode::OPENDIR, opcode::RELEASEDIR)
                && stats.slots_held == 0
            {
                return stats;
            }
            assert!(begun.elapsed() < PATIENCE, "not settled: {stats:?}");
            thread::yield_now();
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn serve(
    dir: &Path,
    options: &MountOptions,
) -> (Mounted, Arc<Null>, Arc<Gate>, tokio::runtime::Runtime) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .expect("a runtime");
    let gate = Arc::new(Gate::default());
    let null = Arc::new(Null {
        slow: Some((runtime.handle().clone(), Arc::clone(&gate))),
        ..Null::default()
    });
    let mounted = Mounted::mount(dir, options).expect("it can be mounted");
    mounted.serve(null.clone()).expect("threads start");
    let ring = options.transport != Transport::Classic && !options.fault_short_payload;
    assert_eq!(mounted.info().ring, ring, "{:?}", mounted.info());
    (mounted, null, gate, runtime)
}

fn require_privileges() {
    assert!(
        nix::unistd::geteuid().is_root() && Path::new("/dev/fuse").exists(),
        "mounting needs root and /dev/fuse: run the tests as root, in a container with \
         --device /dev/fuse --cap-add SYS_ADMIN"
    );
    let switch = "/sys/module/fuse/parameters/enable_uring";
    let on = fs::read_to_string(switch).expect("a kernel with FUSE over io_uring (6.14)");
    if on.trim() != "Y" {
        fs::write(switch, "Y").expect("root may switch enable_uring on");
    }
}

/// Runs `work` on a thread; its result, or a panic if it hangs.
fn bounded<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(PATIENCE).expect("it must not hang")
}

fn errno<T>(result: std::io::Result<T>) -> i32 {
    let error = result.err().expect("an error");
    error.raw_os_error().expect("one of the kernel")
}

fn callers_see_what_the_handler_answers(transport: Transport) {
    let mount = Fixture::new(transport);
    let mut names: Vec<_> = fs::read_dir(mount.dir.path())
        .expect("a listing")
        .map(|entry| entry.expect("a name").file_name())
        .map(|name| name.into_string().expect("UTF-8"))
        .collect();
    names.sort();
    let mut expected: Vec<_> = (0..FILES).map(|number| format!("file{number}")).collect();
    expected.extend(["backed", "panic", "slow"].map(str::to_owned));
    expected.sort();
    assert_eq!(names, expected);

    let metadata = fs::metadata(mount.path("file3")).expect("attributes");
    assert_eq!((metadata.len(), metadata.mode()), (FILE_SIZE, 0o100_644));
    assert_eq!(metadata.mtime(), 1_000_000_000);
    assert_eq!(metadata.blocks(), FILE_SIZE / 512);
    assert_eq!(errno(fs::metadata(mount.path("absent"))), libc::ENOENT);
    assert_eq!(errno(fs::create_dir(mount.path("dir"))), libc::ENOSYS);
    let statfs = nix::sys::statfs::statfs(mount.dir.path()).expect("statfs");
    assert_eq!(statfs.maximum_name_length(), 255);

    let info = mount.mounted.info();
    let stats = mount.settled();
    assert!(stats.requests[opcode::LOOKUP as usize] >= 2);
    assert!(stats.errors[opcode::LOOKUP as usize] >= 1);
    assert_eq!(stats.errors[opcode::MKDIR as usize], 1);
    assert_eq!(stats.undecodable + stats.panics + stats.abandoned, 0);
    assert!(info.kernel_minor >= 36);
    if transport == Transport::Uring {
        assert_eq!(stats.slots, u64::from(info.queues * info.depth));
        assert_eq!(stats.device_requests, 0);
    } else {
        assert_eq!(stats.device_requests, stats.requests_total());
        assert!(info.reason.is_some());
    }
}

fn large_reads_and_writes_keep_their_bytes(transport: Transport) {
    let mount = Fixture::new(transport);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(mount.path("file5"))
        .expect("it opens");
    let mut bytes = vec![0; 5 << 20];
    file.read_exact_at(&mut bytes, 12_345).expect("bytes");
    assert!(bytes.iter().all(|byte| *byte == byte_of(5)));
    // Every WRITE compares its data with the file's byte and fails if one differs.
    file.write_all_at(&bytes, 777)
        .expect("the bytes arrived whole");
    bytes[0] ^= 1;
    assert_eq!(errno(file.write_all_at(&bytes, 0)), libc::EILSEQ);
    // The end of the file cuts the last read short.
    file.seek(SeekFrom::Start(FILE_SIZE - 10)).expect("a seek");
    assert_eq!(file.read(&mut bytes).expect("bytes"), 10);
    assert_eq!(file.read(&mut bytes).expect("the end"), 0);
}

fn a_panic_or_a_forgotten_answer_is_eio_for_that_request_only(transport: Transport) {
    let mount = Fixture::new(transport);
    let mut file = File::open(mount.path("panic")).expect("it opens");
    for _ in 0..3 {
        assert_eq!(errno(file.read(&mut [0; 10])), libc::EIO);
    }
    assert_eq!(errno(fs::remove_file(mount.path("file1"))), libc::EIO);
    assert!(mount.path("file1").exists(), "the mount goes on");
    let stats = mount.mounted.stats();
    assert_eq!((stats.panics, stats.abandoned), (3, 1));
}

/// FOPEN_DIRECT_IO makes the caller wait for the answer itself, and the kernel sends INTERRUPT.
fn a_waiting_read_answers_eintr_when_its_caller_is_signalled(transport: Transport) {
    let mount = Fixture::new(transport);
    let script = "$SIG{USR1} = sub {}; open(F, '<', $ARGV[0]) or exit 1; \
                  defined(sysread(F, $b, 4)) and exit 2; exit($! == 4 ? 42 : 3);";
    let mut caller = Command::new("perl")
        .args(["-e", script])
        .arg(mount.path("slow"))
        .spawn()
        .expect("perl is part of Debian's base");
    mount.wait_for(1);
    let pid = Pid::from_raw(caller.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGUSR1).expect("it lives");
    let status = bounded(move || caller.wait().expect("it ends"));
    assert_eq!(status.code(), Some(42), "the read says EINTR");
    assert_eq!(mount.mounted.stats().interrupts, 1);
    // The kernel would send no INTERRUPT again if one were ever answered with ENOSYS.
    let mut killed = Command::new("cat")
        .arg(mount.path("slow"))
        .stdout(Stdio::null())
        .spawn()
        .expect("cat");
    mount.wait_for(1);
    killed.kill().expect("it lives");
    bounded(move || killed.wait().expect("it ends"));
}

/// All readers on one CPU, so that they share one queue: 200 held slots where 64 were registered.
fn hits_are_answered_while_200_reads_wait(transport: Transport) {
    let mount = Fixture::new(transport);
    let slow = mount.path("slow");
    let readers: Vec<_> = (1..=200)
        .map(|count| {
            let slow = slow.clone();
            let reader = thread::Builder::new()
                .stack_size(128 << 10)
                .spawn(move || {
                    pin_to(0);
                    let mut bytes = [0; 4];
                    let mut file = File::open(slow).expect("it opens");
                    (file.read(&mut bytes).expect("bytes"), bytes)
                })
                .expect("a thread");
            mount.wait_for(count);
            reader
        })
        .collect();
    for _ in 0..3 {
        let other = mount.path("file0");
        let len = bounded(move || {
            pin_to(0);
            fs::metadata(other).expect("attributes").len()
        });
        assert_eq!(len, FILE_SIZE);
    }
    if transport == Transport::Uring {
        let stats = mount.mounted.stats();
        assert_eq!(stats.slots_held, 200);
        assert!(stats.slots > stats.slots_held + 8, "{stats:?}");
        assert!(stats.longest_held > Duration::ZERO);
    }
    mount.gate.open();
    for reader in readers {
        assert_eq!(reader.join().expect("no panic"), (4, *b"slow"));
    }
    let stats = mount.settled();
    assert_eq!(stats.requests[opcode::RELEASE as usize], 200);
}

fn pin_to(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).expect("a CPU");
    sched_setaffinity(Pid::from_raw(0), &set).expect("it is ours");
}

/// The story of every OOM kill: callers must get an error, and the next ackfs the directory.
fn a_killed_server_frees_its_callers_and_its_directory(transport: Transport) {
    require_privileges();
    let dir = tempfile::tempdir().expect("a directory");
    let (mut server, mut lines) = spawn_server(dir.path(), transport);
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let slow = dir.path().join("slow");
            thread::spawn(move || File::open(slow).and_then(|mut file| file.read(&mut [0; 4])))
        })
        .collect();
    lines.until("waiting");
    server.kill().expect("it lives");
    server.wait().expect("it is dead");
    for reader in readers {
        bounded(move || errno(reader.join().expect("no panic")));
    }
    assert_eq!(errno(fs::metadata(dir.path())), libc::ENOTCONN);

    let options = MountOptions {
        transport,
        ..MountOptions::default()
    };
    let (mounted, _null, _gate, _runtime) = serve(dir.path(), &options);
    assert!(dir.path().join("file0").exists());
    drop(mounted);
    let left = fs::read_dir(dir.path()).expect("a plain directory");
    assert_eq!(left.count(), 0, "no mount is left below");
}

struct Lines(BufReader<std::process::ChildStdout>);

impl Lines {
    fn until(&mut self, word: &str) {
        let mut line = String::new();
        while !line.contains(word) {
            line.clear();
            let len = self.0.read_line(&mut line).expect("its output");
            assert_ne!(len, 0, "the server ended before it said {word}");
        }
    }
}

fn spawn_server(dir: &Path, transport: Transport) -> (Child, Lines) {
    let mut server = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "serves_until_killed", "--ignored", "--nocapture"])
        .env("DOORS_DIR", dir)
        .env(
            "DOORS_CLASSIC",
            i32::from(transport == Transport::Classic).to_string(),
        )
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test runs again");
    let mut lines = Lines(BufReader::new(server.stdout.take().expect("a pipe")));
    lines.until("ready");
    (server, lines)
}

#[test]
#[ignore = "the server of another test, in a process of its own"]
fn serves_until_killed() {
    let dir = PathBuf::from(std::env::var_os("DOORS_DIR").expect("set by the other test"));
    let classic = std::env::var("DOORS_CLASSIC").is_ok_and(|value| value == "1");
    let options = MountOptions {
        transport: if classic {
            Transport::Classic
        } else {
            Transport::Uring
        },
        ..MountOptions::default()
    };
    let (mounted, _null, gate, runtime) = serve(&dir, &options);
    let mut out = std::io::stdout();
    writeln!(out, "ready").expect("a pipe");
    runtime.block_on(gate.waiting(4));
    writeln!(out, "waiting").expect("a pipe");
    mounted.wait();
}

fn unmount_ends_every_thread(transport: Transport) {
    let mount = Fixture::new(transport);
    assert!(mount.path("file0").exists());
    let unmounted = mount.mounted.unmount(false).expect("nobody uses it");
    assert_eq!(unmounted, Unmounted::Ended);
    let again = mount.mounted.unmount(false).expect("twice is once");
    assert_eq!(again, Unmounted::Ended);
    // Joins them all.
    let mounted = mount.mounted;
    let mounted = bounded(move || {
        mounted.wait();
        mounted
    });
    assert_eq!(mount.null.destroyed.load(Ordering::Relaxed), 1);
    assert!(!mounted.connected());
    assert_eq!(mounted.stats().slots, 0);
    // Nothing but this test holds the handler any more.
    drop(mounted);
    assert_eq!(Arc::strong_count(&mount.null), 1);
}

fn a_busy_mount_goes_on_until_its_last_file_is_closed(transport: Transport) {
    let mount = Fixture::new(transport);
    let mut file = File::open(mount.path("file2")).expect("it opens");
    assert!(!mount.mounted.unmount_idle().expect("busy is no error"));
    assert!(mount.path("file2").exists(), "and nothing has happened");
    let unmounted = mount.mounted.unmount(false).expect("busy is no error");
    assert_eq!(unmounted, Unmounted::Detached);
    assert!(!mount.path("file2").exists(), "the directory is free");
    let mut bytes = [0; 100];
    file.read_exact(&mut bytes).expect("bytes");
    assert!(bytes.iter().all(|byte| *byte == byte_of(2)));
    drop(file);
    let mounted = mount.mounted;
    bounded(move || mounted.wait());
    assert_eq!(mount.null.destroyed.load(Ordering::Relaxed), 1);
}

fn force_frees_callers_that_wait(transport: Transport) {
    let mount = Fixture::new(transport);
    let slow = mount.path("slow");
    let reader = thread::spawn(move || {
        let mut file = File::open(slow).expect("it opens");
        file.read(&mut [0; 4])
    });
    mount.wait_for(1);
    let unmounted = mount.mounted.unmount(true).expect("force finds a way");
    assert_eq!(unmounted, Unmounted::Ended);
    bounded(move || errno(reader.join().expect("no panic")));
    let mounted = mount.mounted;
    let mounted = bounded(move || {
        mounted.wait();
        mounted
    });
    // The answer of the read comes after the end, and goes nowhere.
    mount.gate.open();
    mount.runtime.shutdown_timeout(PATIENCE);
    drop(mounted);
}

fn an_invalidated_name_is_looked_up_again_and_forgotten(transport: Transport) {
    let mount = Fixture::new(transport);
    assert!(mount.path("file4").exists());
    let kernel = mount.mounted.kernel();
    assert!(kernel.invalidate_inode(6));
    assert!(kernel.invalidate_range(6, 0, 4096));
    assert!(kernel.invalidate_entry(1, b"file4"));
    let mut forgotten = mount.null.forgotten.subscribe();
    mount.runtime.block_on(async {
        let forgotten = forgotten.wait_for(|count| *count > 0);
        let forgotten = tokio::time::timeout(PATIENCE, forgotten).await;
        drop(forgotten.expect("FORGET comes").expect("the handler lives"));
    });
    assert!(mount.path("file4").exists());
}

fn a_backing_file_is_read_without_us(transport: Transport) {
    let mount = Fixture::new(transport);
    assert!(mount.mounted.info().passthrough);
    let mut backing = tempfile::tempfile().expect("a file");
    backing.write_all(b"from the disk").expect("room");
    let kernel = mount.mounted.kernel();
    let id = kernel.open_backing(&backing).expect("root may");
    assert!(id.id() > 0);
    mount.null.backing.set(id).expect("once");
    let bytes = fs::read(mount.path("backed")).expect("bytes");
    assert_eq!(bytes, b"from the disk");
    let reads = mount.mounted.stats().requests[opcode::READ as usize];
    assert_eq!(reads, 0);
}

#[test]
fn a_refused_register_falls_back_to_the_device() {
    let mount = Fixture::with(&MountOptions {
        fault_short_payload: true,
        ..MountOptions::default()
    });
    let path = mount.path("file1");
    let bytes = bounded(move || {
        let mut bytes = vec![0; 3 << 20];
        let file = File::open(path).expect("it opens");
        file.read_exact_at(&mut bytes, 0).expect("bytes");
        bytes
    });
    assert!(bytes.iter().all(|byte| *byte == byte_of(1)));
    let info = mount.mounted.info();
    assert!(!info.ring && info.reason.is_some(), "{info:?}");
    let stats = mount.settled();
    assert_eq!(stats.slots, 0);
    assert_eq!(stats.device_requests, stats.requests_total());
    assert!(mount.mounted.unmount_idle().expect("it is idle"));
    let unmounted = mount.mounted.unmount(false).expect("twice is once");
    assert_eq!(unmounted, Unmounted::Ended);
}

/// Forty writes of 1 MiB are held at a time and fill forty payloads, more than may stay in memory.
#[test]
fn payloads_give_their_memory_back_beyond_the_bound() {
    const BOUND: u64 = 16 << 20;
    let mount = Fixture::with(&MountOptions {
        memory_bound: Some(BOUND),
        ..MountOptions::default()
    });
    let max_write = mount.mounted.info().max_write as usize;
    let writers: Vec<_> = (1..=40)
        .map(|count| {
            let slow = mount.path("slow");
            let writer = thread::spawn(move || {
                let file = OpenOptions::new().write(true).open(slow);
                let file = file.expect("it opens");
                file.write_at(&vec![7; max_write], 0).expect("room")
            });
            mount.wait_for(count);
            writer
        })
        .collect();
    mount.gate.open();
    for writer in writers {
        assert_eq!(writer.join().expect("no panic"), max_write);
    }
    // A ring thread looks when it has something to do.
    for cpu in 0..mount.mounted.info().queues {
        let path = mount.path("file0");
        bounded(move || {
            pin_to(cpu as usize);
            fs::metadata(path).expect("attributes")
        });
    }
    let resident = mount.mounted.stats().payload_resident;
    assert!(resident > 0 && resident <= BOUND, "{resident} bytes");
}

#[test]
fn a_mount_that_was_never_served_goes_away() {
    require_privileges();
    for transport in [Transport::Uring, Transport::Classic] {
        let dir = tempfile::tempdir().expect("a directory");
        let options = MountOptions {
            transport,
            ..MountOptions::default()
        };
        let mounted = Mounted::mount(dir.path(), &options).expect("it can be mounted");
        bounded(move || drop(mounted));
        let left = fs::read_dir(dir.path()).expect("a plain directory");
        assert_eq!(left.count(), 0);
    }
}

#[test]
fn a_mount_that_others_took_away_is_not_unmounted_again() {
    let mount = Fixture::new(Transport::Auto);
    let dir = mount.dir.path();
    let umount = Command::new("umount").arg(dir).status();
    assert!(umount.expect("umount").success());
    mount.mounted.wait();
    // Somebody mounts there before we drop ours.
    let tmpfs = Command::new("mount")
        .args(["-t", "tmpfs", "later"])
        .arg(dir)
        .status();
    assert!(tmpfs.expect("mount").success());
    drop(mount.mounted);
    let statfs = nix::sys::statfs::statfs(dir).expect("statfs");
    assert_eq!(statfs.filesystem_type(), nix::sys::statfs::TMPFS_MAGIC);
    nix::mount::umount(dir).expect("it is still there");
}

/// As `mount.fuse3 -o drop_privileges` and CSI drivers do it: the kernel is told of the mount by one program,
/// and the descriptor is handed to another.
fn a_descriptor_that_is_mounted_already_is_served_and_left_to_its_owner(transport: Transport) {
    require_privileges();
    let dir = tempfile::tempdir().expect("a directory");
    let device = File::options().read(true).write(true).open("/dev/fuse");
    let device = OwnedFd::from(device.expect("/dev/fuse opens"));
    let fd = device.as_raw_fd();
    let options = format!("fd={fd},rootmode=40000,user_id=0,group_id=0");
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    let theirs = nix::mount::mount(
        Some("theirs"),
        dir.path(),
        Some("fuse"),
        flags,
        Some(&*options),
    );
    theirs.expect("root may mount");
    let options = MountOptions {
        transport,
        ..MountOptions::default()
    };
    let mounted = Mounted::adopt(device, Path::new("/dev/fd/3"), &options).expect("INIT comes");
    mounted
        .serve(Arc::new(Null::default()))
        .expect("threads start");
    assert_eq!(mounted.dir(), None);
    assert_eq!(mounted.info().ring, transport == Transport::Uring);
    let mut found = [0; 4096];
    let file = File::open(dir.path().join("file1")).expect("it is served");
    file.read_exact_at(&mut found, 0).expect("bytes");
    assert_eq!(found, [byte_of(1); 4096]);
    drop(file);

    assert_eq!(
        mounted.unmount(true).expect("nothing to do"),
        Unmounted::NotOurs
    );
    assert!(mounted.unmount_idle().expect("nothing to do"));
    assert!(mounted.connected(), "it is not ours to take away");
    nix::mount::umount(dir.path()).expect("nobody uses it");
    bounded(move || mounted.wait());
}

#[test]
fn a_directory_that_is_not_there_is_told_by_name() {
    let absent = Path::new("/nowhere/at/all");
    let refused = Mounted::mount(absent, &MountOptions::default());
    assert!(matches!(refused, Err(MountError::Missing(path)) if path == absent));
}
