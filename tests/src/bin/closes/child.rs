//! What other processes do with a file: this program, started by itself as `closes child DEED ...`.
//! Children that a test talks to say a line on standard error when they are where they should be, and
//! wait for one on standard input.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::mem::forget;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitCode, ExitStatus, Stdio};
use std::{env, io};

use ackfs_tests::posix::{self, Mapping};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::stage::zeros;

/// The word that makes this program a child.
pub(crate) const WORD: &str = "child";

/// What a mapping holds that was stored to.
pub(crate) const STORED: &[u8] = b"stored after the close";
/// How large the mapped file is.
pub(crate) const MAPPED_LEN: usize = 8192;

/// What [`STORED`] makes of the mapped file.
pub(crate) fn mapped() -> Vec<u8> {
    let mut bytes = vec![0; MAPPED_LEN];
    bytes[100..100 + STORED.len()].copy_from_slice(STORED);
    bytes
}

/// Maps `file`, closes it and stores to the mapping.
pub(crate) fn close_and_store(file: File) -> Mapping {
    let mut mapping = Mapping::new(&file, MAPPED_LEN).expect("mmap");
    assert_eq!(posix::close(file), Ok(()));
    mapping.store(100, STORED);
    mapping
}

/// A child that is talked to.
#[derive(Debug)]
pub(crate) struct Spoken {
    process: Child,
    tell: ChildStdin,
    hear: BufReader<std::process::ChildStderr>,
}

impl Spoken {
    /// Starts a child with `file` as its standard output, and gives it up here: when the child has
    /// said its first line, nobody but it has this reference.
    pub(crate) fn start(deed: &[&str], file: Option<File>) -> Self {
        let mut command = Command::new(env::current_exe().expect("this program has a path"));
        posix::die_with_parent(&mut command);
        command.arg(WORD).args(deed);
        command.stdin(Stdio::piped()).stderr(Stdio::piped());
        command.stdout(file.map_or_else(Stdio::null, Stdio::from));
        let mut process = command.spawn().expect("this program runs");
        // The command has the file as well.
        drop(command);
        let tell = process.stdin.take().expect("a pipe");
        let hear = BufReader::new(process.stderr.take().expect("a pipe"));
        Self {
            process,
            tell,
            hear,
        }
    }

    /// Waits for a line, which is `wanted`.
    pub(crate) fn hear(&mut self, wanted: &str) {
        let mut line = String::new();
        self.hear.read_line(&mut line).expect("the child speaks");
        assert_eq!(line.trim_end(), wanted, "what the child says");
    }

    /// Lets it go on.
    pub(crate) fn go(&mut self) {
        self.tell.write_all(b"go\n").expect("the child listens");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id() as i32), signal).expect("the child runs");
    }

    /// Waits for its end, as a shell does.
    pub(crate) fn wait(mut self) -> ExitStatus {
        self.process.wait().expect("it is our child")
    }
}

/// A child that does its deed and ends; waits for that.
pub(crate) fn done(deed: &[&str], file: Option<File>) {
    assert!(Spoken::start(deed, file).wait().success(), "{deed:?}");
}

/// The child's main function.
pub(crate) fn run(words: &[String]) -> ExitCode {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        // Has the file, does nothing with it, and exits.
        ["exit"] => {}
        // Writes to the file that it was given, and exits or closes it first.
        ["write", text, end] => {
            say("ready");
            wait();
            io::stdout().write_all(text.as_bytes()).expect("write");
            io::stdout().flush().expect("write");
            if end == "close" {
                close_stdout();
                say("closed");
                wait();
            }
        }
        // Has a file of its own, and exits without closing it.
        ["leave", path, text] => forget(write(path, text)),
        // The same, and becomes another program: the file is closed on exec.
        ["exec", path, text] => {
            forget(write(path, text));
            let this = env::current_exe().expect("this program has a path");
            let error = Command::new(this).args([WORD, "say"]).exec();
            panic!("exec: {error}");
        }
        ["say"] => {
            say("another program");
            wait();
        }
        // Stores to a mapping after the close; then unmaps it, or leaves that to the exit.
        ["map", path, end] => {
            let mapping = close_and_store(zeros(Path::new(path), MAPPED_LEN as u64));
            say("stored");
            wait();
            if end == "exit" {
                forget(mapping);
            } else {
                drop(mapping);
                say("unmapped");
                wait();
            }
        }
        _ => panic!("no such deed: {words:?}"),
    }
    ExitCode::SUCCESS
}

fn write(path: &str, text: &str) -> File {
    let mut file = File::create(path).expect("create");
    file.write_all(text.as_bytes()).expect("write");
    file
}

fn say(line: &str) {
    eprintln!("{line}");
}

fn wait() {
    let mut line = String::new();
    io::stdin().read_line(&mut line).expect("the parent speaks");
}

/// close(2) of standard output; std has no word for it.
#[allow(unsafe_code)]
fn close_stdout() {
    // SAFETY: nothing in this process writes to standard output after this, and std takes a closed
    // one for an empty one.
    let file = unsafe { OwnedFd::from_raw_fd(1) };
    posix::close(file.into()).expect("close");
}
