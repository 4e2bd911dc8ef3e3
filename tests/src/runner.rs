//! Runs claims, each in a process of its own; the main function of end-to-end test programs.
//!
//! Why processes: a fork copies every descriptor of its process, and the exec or exit after it
//! closes the copies, which the gateway sees as a close of each file. Tests that share a process
//! and start programs would flush each other's half-written files. A process also ends for sure:
//! past the deadline it is killed, and what hung on its mounts with it.
//!
//! It takes what libtest takes (filters, `--exact`, `--skip`, `--test-threads`, `--list`,
//! `--nocapture`) and prints what libtest prints, so `cargo test` and scripts see nothing unusual.
//! One MinIO is started for all tests of a run that want one.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, thread};

use nix::mount::{MntFlags, umount2};

use crate::command::wait;
use crate::minio::{Minio, SHARED_ENDPOINT};
use crate::mount::Door;
use crate::sandbox;
use crate::world::{Claim, Kind, World};

/// How long one test may take: it only tells a hang. The slowest needs a minute on two idle cores.
const DEADLINE: Duration = Duration::from_mins(15);

/// A test: a claim tried on one kind of mount.
#[derive(Debug, Clone)]
struct Test {
    name: String,
    claim: fn(&World),
    kind: Kind,
    door: Door,
}

#[derive(Debug, Default)]
struct Arguments {
    filters: Vec<String>,
    skips: Vec<String>,
    exact: bool,
    list: bool,
    nocapture: bool,
    threads: usize,
    // One test, here and now: how the runner calls itself.
    run: Option<String>,
}

struct Failure {
    name: String,
    output: String,
}

/// Runs the claims of these modules as the command line says.
pub fn main(modules: &[(&str, &[Claim])]) -> ExitCode {
    let arguments = match parse(env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(word) => {
            eprintln!("{word} is not understood: filters, --exact, --skip, --test-threads, --list");
            return ExitCode::FAILURE;
        }
    };
    let tests = tests(modules);
    if let Some(name) = &arguments.run {
        let test = tests
            .iter()
            .find(|test| test.name == *name)
            .expect("the runner knows its tests");
        (test.claim)(&World::new(test.kind, test.door));
        return ExitCode::SUCCESS;
    }
    let total = tests.len();
    let chosen: Vec<Test> = tests
        .into_iter()
        .filter(|test| arguments.chooses(&test.name))
        .collect();
    if arguments.list {
        for test in &chosen {
            println!("{}: test", test.name);
        }
        return ExitCode::SUCCESS;
    }
    run(chosen, total, &arguments)
}

impl Arguments {
    fn chooses(&self, name: &str) -> bool {
        let matches = |filter: &String| {
            if self.exact {
                name == filter
            } else {
                name.contains(filter)
            }
        };
        (self.filters.is_empty() || self.filters.iter().any(matches))
            && !self.skips.iter().any(matches)
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let cores = thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let mut arguments = Arguments {
        threads: cores * 2,
        ..Arguments::default()
    };
    while let Some(word) = words.next() {
        let (flag, mut value) = match word.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (word.clone(), None),
        };
        let mut value = || {
            value
                .take()
                .or_else(|| words.next())
                .ok_or_else(|| word.clone())
        };
        match &*flag {
            "--exact" => arguments.exact = true,
            "--list" => arguments.list = true,
            "--nocapture" | "--no-capture" => arguments.nocapture = true,
            "--skip" => arguments.skips.push(value()?),
            "--run" => arguments.run = Some(value()?),
            "--test-threads" => {
                let count = value()?;
                arguments.threads = count.parse().ok().filter(|count| *count > 0).ok_or(count)?;
            }
            "--quiet" | "-q" => {}
            _ if word.starts_with('-') => return Err(word),
            _ => arguments.filters.push(word),
        }
    }
    Ok(arguments)
}

fn tests(modules: &[(&str, &[Claim])]) -> Vec<Test> {
    let mut tests = Vec::new();
    for (module, claims) in modules {
        for claim in *claims {
            for (kind, door) in claim.mounts {
                let store = match kind {
                    Kind::Demo => "demo",
                    Kind::Minio => "minio",
                };
                let name = format!("{module}::{}::{store}_{}", claim.name, door.flag());
                tests.push(Test {
                    name,
                    claim: claim.claim,
                    kind: *kind,
                    door: *door,
                });
            }
        }
    }
    tests
}

fn run(chosen: Vec<Test>, total: usize, arguments: &Arguments) -> ExitCode {
    let begin = Instant::now();
    let count = chosen.len();
    println!("\nrunning {count} tests");
    let minio = chosen
        .iter()
        .any(|test| test.kind == Kind::Minio)
        .then(Minio::start)
        .transpose();
    let minio = match minio {
        Ok(minio) => minio,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let endpoint = minio.as_ref().map(Minio::endpoint);
    let queue = Mutex::new(VecDeque::from(chosen));
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..arguments.threads {
            scope.spawn(|| {
                loop {
                    let next = queue
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .pop_front();
                    let Some(test) = next else { return };
                    let result = run_one(&test, endpoint.as_deref(), arguments.nocapture);
                    let word = if result.is_ok() { "ok" } else { "FAILED" };
                    println!("test {} ... {word}", test.name);
                    let _ = io::stdout().flush();
                    if let Err(output) = result {
                        let failure = Failure {
                            name: test.name,
                            output,
                        };
                        failures
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(failure);
                    }
                }
            });
        }
    });
    drop(minio);
    report(
        failures
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner),
        count,
        total,
        begin,
    )
}

/// Runs one test in a process; `Err` is what it printed.
fn run_one(test: &Test, endpoint: Option<&str>, nocapture: bool) -> Result<(), String> {
    // All that the test and its gateways write is below it.
    let dir = sandbox::dir("t-");
    let result = in_process(test, endpoint, nocapture, dir.path());
    sweep(dir.path());
    result
}

fn in_process(
    test: &Test,
    endpoint: Option<&str>,
    nocapture: bool,
    dir: &Path,
) -> Result<(), String> {
    let broken = |error: io::Error| format!("the test cannot be run: {error}");
    let log = dir.join("output");
    let output = File::create(&log).map_err(broken)?;
    let mut command = sandbox::command(env::current_exe().map_err(broken)?);
    command
        .args(["--run", &test.name])
        .env("TMPDIR", dir)
        .stdin(Stdio::null());
    if let Some(endpoint) = endpoint {
        command.env(SHARED_ENDPOINT, endpoint);
    }
    if !nocapture {
        command
            .stdout(output.try_clone().map_err(broken)?)
            .stderr(output);
    }
    let mut child = sandbox::spawn(command).map_err(broken)?;
    let status = wait(&mut child, DEADLINE);
    if status.is_some_and(|status| status.success()) {
        return Ok(());
    }
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let mut words = String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
    match status {
        Some(status) if status.code() != Some(101) => {
            let _ = writeln!(words, "the test ended with {status}");
        }
        Some(_) => {}
        None => {
            let _ = writeln!(
                words,
                "the test took longer than {DEADLINE:?} and was killed"
            );
        }
    }
    Err(words)
}

/// Detaches what is still mounted below `dir`; the test's own guardian may be at it too.
fn sweep(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for line in mounts.lines().rev() {
        if let Some(path) = line
            .split(' ')
            .nth(1)
            .filter(|path| Path::new(path).starts_with(dir))
        {
            let _ = umount2(path, MntFlags::MNT_DETACH);
        }
    }
}

fn report(mut failures: Vec<Failure>, count: usize, total: usize, begin: Instant) -> ExitCode {
    failures.sort_by(|one, two| one.name.cmp(&two.name));
    if !failures.is_empty() {
        println!("\nfailures:");
        for failure in &failures {
            println!(
                "\n---- {} ----\n{}",
                failure.name,
                failure.output.trim_end()
            );
        }
        println!("\nfailures:");
        for failure in &failures {
            println!("    {}", failure.name);
        }
    }
    let (failed, word) = (
        failures.len(),
        if failures.is_empty() { "ok" } else { "FAILED" },
    );
    println!(
        "\ntest result: {word}. {} passed; {failed} failed; 0 ignored; 0 measured; \
         {} filtered out; finished in {:.2}s\n",
        count - failed,
        total - count,
        begin.elapsed().as_secs_f64()
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn arguments_choose_as_libtest_does() {
        let words = ["close::", "--skip", "minio", "--test-threads=3"].map(str::to_owned);
        let arguments = parse(words.into_iter()).expect("these are understood");
        assert_eq!(arguments.threads, 3);
        assert!(arguments.chooses("close::a::demo_uring"));
        assert!(!arguments.chooses("close::a::minio_uring"));
        assert!(!arguments.chooses("names::a::demo_uring"));
        assert!(parse(["--bogus".to_owned()].into_iter()).is_err());
    }
}
