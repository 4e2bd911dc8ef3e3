//! Whether a close is waited for, whoever closes: the promise of the close mode `release`, on a kernel
//! with the patches of `kernel/`.
//!
//! ```text
//! closes [--stock] [--only WORD] [--skip WORD] ACKFS
//! ```
//!
//! ACKFS is the gateway's binary; it is run as a user runs it. The store is the demo server in this
//! process, 300 ms away, and a witness looks at it past the gateway. Each kind of close is tried
//! through both doors: when the system call (or the process's end) has returned, the object is there
//! with the right bytes, and the store has got exactly one PUT for it.
//!
//! It is made for a machine that has nothing: as root in an initramfs with /proc, /sys, /tmp, the
//! loopback interface, a shell and the file of certificates without which the SDK does not start
//! (`kernel/boot --memory 1024 --add /etc/ssl/certs/ca-certificates.crt --add ACKFS -- closes ACKFS`,
//! the binaries stripped, makes one). It prints a line for each case and ends
//! with "N passed, N failed"; with ACKFS_MINIO_BIN in the environment some are tried with that MinIO
//! too. Its status is 0 only if none failed. On a stock kernel it fails and says
//! so, except with `--stock`, which tries what holds there: each close that finds dirty bytes
//! publishes.

mod cases;
mod child;
mod minio;
mod stage;
mod stock;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{ExitCode, abort};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use std::{env, thread};

use ackfs_tests::Door;
use ackfs_tests::minio::MINIO_BIN;
use ackfs_tests::process::all_tasks;

use self::stage::Stage;

/// One kind of close.
type Case = (&'static str, fn(&Stage));

/// Turns a hang into a failure. The slowest case waits a few seconds; a machine that is translated by
/// QEMU is ten times slower.
const CASE_MAX: Duration = Duration::from_mins(2);

/// No case takes so long unless somebody is waited for who should not be.
const CASE_LONG: Duration = Duration::from_secs(40);

/// What the command line asked for.
#[derive(Debug, Default)]
struct Arguments {
    binary: PathBuf,
    stock: bool,
    only: Option<String>,
    skip: Option<String>,
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == child::WORD) {
        return child::run(&words[1..]);
    }
    let Some(arguments) = parse(words) else {
        eprintln!("usage: closes [--stock] [--only WORD] [--skip WORD] ACKFS");
        return ExitCode::FAILURE;
    };
    let (mut passed, mut failed) = (0, 0);
    for door in [Door::Classic, Door::Uring] {
        let (good, bad) = try_door(door, &arguments);
        passed += good;
        failed += bad;
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 && passed > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn parse(words: Vec<String>) -> Option<Arguments> {
    let mut arguments = Arguments::default();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        match &*word {
            "--stock" => arguments.stock = true,
            "--only" => arguments.only = Some(words.next()?),
            "--skip" => arguments.skip = Some(words.next()?),
            _ if word.starts_with('-') || !arguments.binary.as_os_str().is_empty() => return None,
            _ => arguments.binary = word.into(),
        }
    }
    arguments.binary.is_file().then_some(arguments)
}

/// Tries all cases through one door; how many held and how many did not.
fn try_door(door: Door, arguments: &Arguments) -> (usize, usize) {
    let name = door.flag();
    let begin = Instant::now();
    let staged = watched(&format!("{name} mount"), || {
        Stage::new(door, &arguments.binary)
    });
    let Some(stage) = staged else {
        println!("FAIL  {name:<8} mount");
        return (0, 1);
    };
    let wanted = if arguments.stock { "flush" } else { "release" };
    let mode = stage.mode();
    if !mode.starts_with(wanted) {
        println!("FAIL  {name:<8} mode: it is {mode}, and {wanted} is to be shown");
        return (0, 1);
    }
    println!(
        "ok    {name:<8} mode: {mode} ({:.1} s)",
        begin.elapsed().as_secs_f64()
    );
    let cases = if arguments.stock {
        stock::CASES
    } else {
        cases::CASES
    };
    let (mut passed, mut failed) = (1, 0);
    for (what, case) in cases {
        let named = |word: &Option<String>| word.as_ref().map(|word| what.contains(word));
        if named(&arguments.only) == Some(false) || named(&arguments.skip) == Some(true) {
            continue;
        }
        let begin = Instant::now();
        let held = watched(&format!("{name} {what}"), || case(&stage)).is_some();
        stage.demo().heal();
        stage.slow();
        let took = begin.elapsed().as_secs_f64();
        let word = if held { "ok  " } else { "FAIL" };
        println!("{word}  {name:<8} {what} ({took:.1} s)");
        passed += usize::from(held);
        failed += usize::from(!held);
    }
    if !arguments.stock && arguments.only.is_none() && env::var_os(MINIO_BIN).is_some() {
        let what = "dup, exit and munmap with MinIO";
        let held = watched(&format!("{name} {what}"), || {
            minio::closes(door, &arguments.binary);
        });
        let word = if held.is_some() { "ok  " } else { "FAIL" };
        println!("{word}  {name:<8} {what}");
        passed += usize::from(held.is_some());
        failed += usize::from(held.is_none());
    }
    (passed, failed)
}

/// Runs `work`; `None` if it panicked, which has told why. If it takes long, what every task waits for is
/// told: some that stand still go on by a limit of their own and would end without a word. If it hangs
/// this process ends, and its gateways with it: nothing else frees who waits for them.
fn watched<T>(what: &str, work: impl FnOnce() -> T) -> Option<T> {
    let watch = watch(what.to_owned());
    let result = catch_unwind(AssertUnwindSafe(work));
    drop(watch);
    result.ok()
}

fn watch(what: String) -> Sender<()> {
    let (alive, gone) = channel();
    thread::spawn(move || {
        if gone.recv_timeout(CASE_LONG) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        println!("{what} is under way for {CASE_LONG:?}:\n{}", all_tasks());
        if gone.recv_timeout(CASE_MAX.saturating_sub(CASE_LONG)) == Err(RecvTimeoutError::Timeout) {
            println!("FAIL  {what} hangs for {CASE_MAX:?}:\n{}", all_tasks());
            abort();
        }
    });
    alive
}
