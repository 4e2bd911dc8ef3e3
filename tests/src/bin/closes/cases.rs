//! Each kind of close, on a kernel that makes closers wait.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use ackfs_tests::content::bytes;
use ackfs_tests::demo::{Effect, On};
use ackfs_tests::mount::EXIT_MAX;
use ackfs_tests::posix::{close, errno};
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::Case;
use crate::child::{MAPPED_LEN, Spoken, close_and_store, done, mapped};
use crate::stage::{LATENCY, Stage, mode_of};

/// The bound of what an exiting process waits for, in seconds.
const EXIT_TIMEOUT: &str = "/proc/sys/fs/fuse/sync_release_exit_timeout";

/// A death is quick, also under QEMU; the store hangs for as long as a case wants.
const QUICK: Duration = Duration::from_secs(20);

/// In the order in which they are tried.
pub(crate) const CASES: &[Case] = &[
    ("a plain close", plain_close),
    ("an empty file", empty),
    ("dup: the last close only", dup),
    ("dup2 over the last descriptor", dup2),
    ("a file that is changed: one PUT for two closes", changed),
    ("fork: a child closes last", child_closes_last),
    ("fork: a child exits last", child_exits_last),
    ("fork: children that only exit", children_that_only_exit),
    ("a shell's redirection: one PUT", |stage| {
        shell(stage, Some(1));
    }),
    ("a process that exits", process_exit),
    ("exec of what is closed on it", exec),
    (
        "two threads that close the last two descriptors at once",
        at_once,
    ),
    ("mmap, close, store, munmap", munmap),
    ("mmap, close, store, exit", exit_with_mapping),
    ("two opens of one file", two_opens),
    ("fsync before the last close", fsync),
    ("a large file", large),
    ("many closers at once", many),
    (
        "reads are answered while many closers wait",
        reads_meanwhile,
    ),
    ("a refused PUT comes out of the last close", refused),
    (
        "a PUT refused at munmap is told by the next open",
        refused_at_munmap,
    ),
    (
        "kill -9 of the gateway frees a closer that waits",
        gateway_killed,
    ),
    ("a closer that waits can be killed", closer_killed),
    ("an exit waits a bounded time", exit_is_bounded),
    (
        "SIGTERM of the gateway publishes what no last close has",
        drained,
    ),
    ("stats and doctor say so", told),
    ("disable_sync_release makes it flush", disabled),
];

pub(crate) fn plain_close(stage: &Stage) {
    let body = bytes(1, 10_000);
    let file = stage.create("plain", &body);
    stage.is_untouched("plain");
    let begin = Instant::now();
    assert_eq!(close(file), Ok(()));
    let took = begin.elapsed();
    stage.is_there("plain", &body, 1);
    assert!(
        took >= LATENCY,
        "a close of {took:?} cannot have seen the store"
    );
}

fn empty(stage: &Stage) {
    assert_eq!(close(stage.create("empty", b"")), Ok(()));
    stage.is_there("empty", b"", 1);
}

fn dup(stage: &Stage) {
    let file = stage.create("dup", b"one ");
    let mut dup = file.try_clone().expect("dup");
    let third = dup.try_clone().expect("dup");
    assert_eq!(close(file), Ok(()));
    dup.write_all(b"two").expect("write");
    assert_eq!(close(third), Ok(()));
    stage.is_untouched("dup");
    assert_eq!(close(dup), Ok(()));
    stage.is_there("dup", b"one two", 1);
}

fn dup2(stage: &Stage) {
    let file = stage.create("dup2", b"gone by dup2");
    let null = File::open("/dev/null").expect("there is a null");
    let mut target = OwnedFd::from(file);
    nix::unistd::dup2(&null, &mut target).expect("dup2");
    stage.is_there("dup2", b"gone by dup2", 1);
}

fn changed(stage: &Stage) {
    stage.witness().put("changed", b"0123456789");
    let before = stage.puts("changed");
    let mut options = File::options();
    let mut file = options
        .write(true)
        .open(stage.path("changed"))
        .expect("open");
    file.write_all(b"abc").expect("write");
    let dup = file.try_clone().expect("dup");
    assert_eq!(close(file), Ok(()));
    assert_eq!(stage.puts("changed"), before);
    assert_eq!(close(dup), Ok(()));
    stage.is_there("changed", b"abc3456789", before + 1);
}

fn child_closes_last(stage: &Stage) {
    let file = stage.create("child-closes", b"parent ");
    let dup = file.try_clone().expect("dup");
    let mut child = Spoken::start(&["write", "child", "close"], Some(dup));
    child.hear("ready");
    assert_eq!(close(file), Ok(()));
    stage.is_untouched("child-closes");
    child.go();
    child.hear("closed");
    stage.is_there("child-closes", b"parent child", 1);
    child.go();
    assert!(child.wait().success());
    stage.is_there("child-closes", b"parent child", 1);
}

fn child_exits_last(stage: &Stage) {
    let file = stage.create("child-exits", b"parent ");
    let dup = file.try_clone().expect("dup");
    let mut child = Spoken::start(&["write", "child", "exit"], Some(dup));
    child.hear("ready");
    assert_eq!(close(file), Ok(()));
    stage.is_untouched("child-exits");
    child.go();
    assert!(child.wait().success());
    stage.is_there("child-exits", b"parent child", 1);
}

fn children_that_only_exit(stage: &Stage) {
    let mut file = stage.create("only-exit", b"");
    let mut wanted = Vec::new();
    for part in b'a'..b'f' {
        file.write_all(&[part; 1000]).expect("write");
        wanted.extend_from_slice(&[part; 1000]);
        done(&["exit"], Some(file.try_clone().expect("dup")));
    }
    stage.is_untouched("only-exit");
    assert_eq!(close(file), Ok(()));
    stage.is_there("only-exit", &wanted, 1);
}

/// Without `puts` any number of them will do.
pub(crate) fn shell(stage: &Stage, puts: Option<usize>) {
    let scripts: [(&str, &str, &[u8]); 3] = [
        ("sh-group", "(echo a; echo b) > sh-group", b"a\nb\n"),
        (
            "sh-nested",
            "(echo a; (exit 0); sh -c 'echo b'; (echo c); cat /dev/null; true) > sh-nested",
            b"a\nb\nc\n",
        ),
        (
            "sh-exec",
            "exec 3> sh-exec; echo 1 >&3; (exit 0); (echo 2 >&3); echo 3 >&3; exec 3>&-",
            b"1\n2\n3\n",
        ),
    ];
    for (key, script, wanted) in scripts {
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(stage.dir());
        let status = command
            .stdin(Stdio::null())
            .status()
            .expect("there is a shell");
        assert!(status.success(), "{script}");
        stage.is_there(key, wanted, puts.unwrap_or_else(|| stage.puts(key)));
    }
}

fn process_exit(stage: &Stage) {
    let path = stage.path("exit");
    done(&["leave", &path.to_string_lossy(), "left behind"], None);
    stage.is_there("exit", b"left behind", 1);
}

fn exec(stage: &Stage) {
    let path = stage.path("exec");
    let mut child = Spoken::start(&["exec", &path.to_string_lossy(), "closed on exec"], None);
    child.hear("another program");
    stage.is_there("exec", b"closed on exec", 1);
    child.go();
    assert!(child.wait().success());
}

/// Neither FLUSH may be the last one then; RELEASE has the bytes, and one of the two waits for it.
fn at_once(stage: &Stage) {
    for round in 0..8 {
        let key = format!("at-once-{round}");
        let file = stage.create(&key, b"both");
        let dup = file.try_clone().expect("dup");
        let together = Barrier::new(2);
        thread::scope(|scope| {
            for file in [file, dup] {
                let together = &together;
                scope.spawn(move || {
                    together.wait();
                    assert_eq!(close(file), Ok(()));
                });
            }
        });
        stage.is_there(&key, b"both", 1);
    }
}

fn munmap(stage: &Stage) {
    let mapping = close_and_store(stage.create_zeros("munmap", MAPPED_LEN as u64));
    stage.is_untouched("munmap");
    drop(mapping);
    stage.is_there("munmap", &mapped(), 1);
}

fn exit_with_mapping(stage: &Stage) {
    let path = stage.path("exit-mapped");
    let mut child = Spoken::start(&["map", &path.to_string_lossy(), "exit"], None);
    child.hear("stored");
    stage.is_untouched("exit-mapped");
    child.go();
    assert!(child.wait().success());
    stage.is_there("exit-mapped", &mapped(), 1);
}

fn two_opens(stage: &Stage) {
    let left = stage.create("two-opens", b"left ");
    let mut options = File::options();
    let right = options.append(true).open(stage.path("two-opens"));
    let mut right = right.expect("open");
    right.write_all(b"right ").expect("write");
    assert_eq!(close(left), Ok(()));
    stage.is_there("two-opens", b"left right ", 1);
    right.write_all(b"again").expect("write");
    assert_eq!(close(right), Ok(()));
    stage.is_there("two-opens", b"left right again", 2);
}

fn fsync(stage: &Stage) {
    let file = stage.create("fsync", b"synced");
    let dup = file.try_clone().expect("dup");
    file.sync_all().expect("fsync");
    stage.is_there("fsync", b"synced", 1);
    assert_eq!(close(file), Ok(()));
    assert_eq!(close(dup), Ok(()));
    stage.is_there("fsync", b"synced", 1);
}

/// In parts: a close that is not the last sends the full ones and completes nothing.
fn large(stage: &Stage) {
    let body = bytes(7, (16 << 20) + 5_000);
    let file = stage.create("large", &body);
    let dup = file.try_clone().expect("dup");
    assert_eq!(close(file), Ok(()));
    assert_eq!(
        stage.witness().head("large"),
        None,
        "large before its last close"
    );
    assert_eq!(close(dup), Ok(()));
    let found = stage.witness().get("large").expect("large is there");
    ackfs_tests::content::assert_same(&found, &body, "large");
    let completed = stage.demo().server().count("CompleteMultipartUpload");
    assert_eq!(completed, 1, "uploads that were completed");
    assert_eq!(stage.puts("large"), 3 + 1, "three parts and the completion");
}

fn many(stage: &Stage) {
    thread::scope(|scope| {
        for writer in 0..8_u64 {
            scope.spawn(move || {
                for round in 0..4_u64 {
                    let key = format!("many-{writer}-{round}");
                    let body = bytes(writer * 100 + round, 3_000);
                    assert_eq!(close(stage.create(&key, &body)), Ok(()));
                    stage.is_there(&key, &body, 1);
                }
            });
        }
    });
}

/// More closers wait, on one processor, than its queue has slots at first: a queue that did not grow, or
/// a door whose thread uploads, would hold the reader up.
///
/// Nothing is started while a closer has its file open. This case used to run `ackfs stats` over and over,
/// and stood still now and then: the command was forked with a copy of a closer's descriptor, the closer
/// was faster, and so the command's exec was the last to give the file up. It waited for the store, as it
/// must, and the case, which alone can heal the store, waited for the command.
fn reads_meanwhile(stage: &Stage) {
    const CLOSERS: u64 = 24;
    /// A PUT that hangs longer may be sent again.
    const HANGS_MIN: Duration = Duration::from_secs(15);
    let mount = stage.options().flags("--queue-depth 16").mount();
    fs::write(mount.path("hit"), "in memory").expect("write");
    assert_eq!(fs::read(mount.path("hit")).expect("read"), b"in memory");
    let every = sched_getaffinity(Pid::from_raw(0)).expect("the processors");
    let mut first = CpuSet::new();
    first.set(0).expect("there is a first one");
    sched_setaffinity(Pid::from_raw(0), &first).expect("it may be chosen");
    let _unpinned = Finally(|| {
        sched_setaffinity(Pid::from_raw(0), &every).expect("they may be chosen");
    });
    let hang = stage.demo().fault(On::Put, None, Effect::HangBefore, None);
    let begun = Instant::now();
    let back = AtomicU64::new(0);
    let mut again = false;
    thread::scope(|scope| {
        // The scope waits for the closers and they for the store, also when a claim fails.
        let healed = Finally(|| stage.demo().heal());
        for closer in 0..CLOSERS {
            let (mount, back) = (&mount, &back);
            scope.spawn(move || {
                let path = mount.path(format!("closer-{closer}"));
                drop(close_and_store(crate::stage::zeros(
                    &path,
                    MAPPED_LEN as u64,
                )));
                back.fetch_add(1, Ordering::SeqCst);
            });
        }
        // The mapping keeps every close from being the last, so each PUT belongs to a RELEASE.
        stage.demo().wait_fired(&hang, CLOSERS);
        let begin = Instant::now();
        assert_eq!(fs::read(mount.path("hit")).expect("read"), b"in memory");
        assert_eq!(fs::metadata(mount.path("hit")).expect("stat").len(), 9);
        let took = begin.elapsed();
        let early = back.load(Ordering::SeqCst);
        drop(healed);
        again = begun.elapsed() > HANGS_MIN;
        assert!(took < QUICK, "a read took {took:?}");
        assert_eq!(early, 0, "closers that did not wait");
    });
    for closer in 0..CLOSERS {
        let key = format!("closer-{closer}");
        let puts = if again { stage.puts(&key) } else { 1 };
        stage.is_there(&key, &mapped(), puts);
    }
}

/// Runs when it is dropped, however its scope is left.
struct Finally<F: FnMut()>(F);

impl<F: FnMut()> Drop for Finally<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn refused(stage: &Stage) {
    let causes = [
        ("AccessDenied", Errno::EACCES),
        ("QuotaExceeded", Errno::EDQUOT),
    ];
    for (code, wanted) in causes {
        let key = format!("refused-{code}");
        let fault = stage
            .demo()
            .fault(On::Put, Some(&key), Effect::refuse(403, code), Some(1));
        let file = stage.create(&key, b"refused");
        let dup = file.try_clone().expect("dup");
        assert_eq!(close(file), Ok(()), "{code}: not the last");
        stage.is_untouched(&key);
        assert_eq!(close(dup), Err(wanted), "{code}");
        stage.demo().wait_fired(&fault, 1);
    }
}

fn refused_at_munmap(stage: &Stage) {
    let old = bytes(9, MAPPED_LEN);
    stage.witness().put("stuck", &old);
    let path = stage.path("stuck");
    let mut options = File::options();
    let file = options.read(true).write(true).open(&path).expect("open");
    let refusal = Effect::refuse(403, "AccessDenied");
    let fault = stage.demo().fault(On::Put, Some("stuck"), refusal, Some(1));
    drop(close_and_store(file));
    stage.demo().wait_fired(&fault, 1);
    let told = File::open(&path).expect_err("nobody was told yet");
    assert_eq!(errno(&told), Errno::EIO);
    let mut found = Vec::new();
    let mut file = File::open(&path).expect("it is told once");
    file.read_to_end(&mut found).expect("read");
    assert!(found == old, "what is in the store is shown");
}

/// A closer that waits in RELEASE: the mapping kept its close from being the last. Runs `end` when it
/// does wait, and gives how long it took the closer to come back after that.
fn while_munmap_waits(stage: &Stage, mount: &ackfs_tests::Mount, key: &str, end: impl FnOnce()) {
    let fault = stage
        .demo()
        .fault(On::Put, Some(key), Effect::HangBefore, None);
    let file = crate::stage::zeros(&mount.path(key), MAPPED_LEN as u64);
    let (back, returned) = channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            drop(close_and_store(file));
            back.send(()).expect("the other side waits");
        });
        stage.demo().wait_fired(&fault, 1);
        assert!(returned.try_recv().is_err(), "munmap waits for its RELEASE");
        end();
        returned.recv_timeout(QUICK).expect("the closer is freed");
    });
}

fn gateway_killed(stage: &Stage) {
    let mut mount = stage.options().mount();
    let pid = nix::unistd::Pid::from_raw(mount.pid() as i32);
    while_munmap_waits(stage, &mount, "killed", || {
        nix::sys::signal::kill(pid, Signal::SIGKILL).expect("the gateway runs");
    });
    assert_eq!(stage.witness().head("killed"), None);
    mount.kill();
}

fn closer_killed(stage: &Stage) {
    let fault = stage
        .demo()
        .fault(On::Put, Some("closer"), Effect::HangBefore, None);
    let path = stage.path("closer");
    let mut child = Spoken::start(&["map", &path.to_string_lossy(), "munmap"], None);
    child.hear("stored");
    child.go();
    stage.demo().wait_fired(&fault, 1);
    child.signal(Signal::SIGKILL);
    let begin = Instant::now();
    assert!(!child.wait().success());
    assert!(begin.elapsed() < QUICK, "it died in {:?}", begin.elapsed());
    assert_eq!(stage.witness().head("closer"), None, "the store hangs");
    // The RELEASE goes on.
    stage.demo().heal();
    stage.comes("closer", &mapped());
}

fn exit_is_bounded(stage: &Stage) {
    let before = fs::read_to_string(EXIT_TIMEOUT).expect("a kernel with the patches");
    fs::write(EXIT_TIMEOUT, "2").expect("root may set it");
    let fault = stage
        .demo()
        .fault(On::Put, Some("bounded"), Effect::HangBefore, None);
    let path = stage.path("bounded");
    let mut child = Spoken::start(&["map", &path.to_string_lossy(), "exit"], None);
    child.hear("stored");
    child.go();
    stage.demo().wait_fired(&fault, 1);
    let begin = Instant::now();
    assert!(child.wait().success());
    let took = begin.elapsed();
    fs::write(EXIT_TIMEOUT, before.trim()).expect("root may set it");
    assert!(took < QUICK, "it ended after {took:?}");
    assert_eq!(stage.witness().head("bounded"), None, "the store hangs");
    stage.demo().heal();
    stage.comes("bounded", &mapped());
}

fn drained(stage: &Stage) {
    let mut mount = stage.options().mount();
    let mut file = File::create(mount.path("drained")).expect("create");
    file.write_all(b"drained").expect("write");
    let dup = file.try_clone().expect("dup");
    assert_eq!(close(file), Ok(()));
    stage.is_untouched("drained");
    mount.signal(Signal::SIGTERM);
    assert_eq!(mount.wait(EXIT_MAX).code(), Some(0));
    stage.is_there("drained", b"drained", 1);
    drop(dup);
}

fn told(stage: &Stage) {
    let stats = stage.ackfs(&["stats", "--json", &stage.dir()]);
    assert!(stats.contains("\"close\":{\"mode\":\"release\""), "{stats}");
    let found = stage.ackfs(&["doctor"]);
    let line = found.lines().find(|line| line.contains("close mode"));
    let line = line.unwrap_or_else(|| panic!("no line about it in\n{found}"));
    assert!(line.starts_with("ok") && line.contains("release"), "{line}");
}

fn disabled(stage: &Stage) {
    let flag = "--mount-options disable_sync_release";
    let mount = stage.options().flags(flag).mount();
    assert_eq!(mode_of(&mount), "flush (mounted with disable_sync_release)");
    let mut file = File::create(mount.path("disabled")).expect("create");
    file.write_all(b"each close").expect("write");
    let dup = file.try_clone().expect("dup");
    assert_eq!(close(file), Ok(()));
    stage.is_there("disabled", b"each close", 1);
    assert_eq!(close(dup), Ok(()));
    stage.is_there("disabled", b"each close", 1);
    assert!(mount.unmount().success());
}
