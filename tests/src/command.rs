//! Programs run to their end: the gateway's binary above all, in an environment that says nothing to it.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, thread};

use crate::sandbox;

/// The environment variable that names the gateway's binary; without it the one in the target
/// directory that this program was built into is used.
pub const ACKFS_BIN: &str = "ACKFS_BIN";

/// Lines of a pipe that are kept.
const LOG_LINES_MAX: usize = 400;

/// The gateway's binary.
pub fn ackfs_bin() -> PathBuf {
    if let Some(bin) = env::var_os(ACKFS_BIN) {
        return bin.into();
    }
    // target/PROFILE/deps/NAME-HASH for a test, target/PROFILE/NAME for a program.
    let this = env::current_exe().expect("the kernel knows this program's path");
    let found = this
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("ackfs"));
    found
        .into_iter()
        .find(|bin| bin.is_file())
        .unwrap_or_else(|| {
            panic!(
                "no ackfs beside {}: run `cargo build -p ackfs` or set {ACKFS_BIN}",
                this.display()
            )
        })
}

/// Takes out of a command's environment what could configure a gateway from outside, and what the
/// tests are configured by.
pub fn clean(command: &mut Command) {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("AWS_") || text.starts_with("ACKFS_") {
            command.env_remove(&name);
        }
    }
}

/// Waits for a child's end, `None` if it has not come in time.
pub fn wait(child: &mut Child, time_max: Duration) -> Option<ExitStatus> {
    // std has no wait with a limit; a child's end has no other event without a signal handler.
    let begin = Instant::now();
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if begin.elapsed() > time_max {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs `ackfs` with `args` to its end, in a clean environment.
///
/// # Errors
/// If it has not ended in `time_max`; then it has been killed.
pub fn run_ackfs(
    args: &[&str],
    env: &[(&str, &str)],
    time_max: Duration,
) -> io::Result<(Option<i32>, String, String)> {
    let mut command = sandbox::command(ackfs_bin());
    clean(&mut command);
    run(command.args(args).envs(env.iter().copied()), time_max)
}

/// Runs a command to its end: exit status, standard output, standard error.
///
/// # Errors
/// If it cannot be started, or has not ended in `time_max`; then it has been killed.
pub fn run(command: &mut Command, time_max: Duration) -> io::Result<(Option<i32>, String, String)> {
    let mut whole = Command::new("true");
    std::mem::swap(command, &mut whole);
    whole
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = sandbox::spawn(whole)?;
    let output = Output::of(child.stdout.take().expect("stdout is a pipe"));
    let errors = Output::of(child.stderr.take().expect("stderr is a pipe"));
    let Some(status) = wait(&mut child, time_max) else {
        let _ = child.kill();
        let _ = child.wait();
        let words = errors.finished().join("\n");
        return Err(io::Error::new(io::ErrorKind::TimedOut, words));
    };
    Ok((
        status.code(),
        output.finished().join("\n"),
        errors.finished().join("\n"),
    ))
}

/// The last lines that a process has written to a pipe, read by a thread of its own.
#[derive(Debug)]
pub(crate) struct Output {
    lines: Arc<Mutex<VecDeque<String>>>,
    // Behind a lock so that a mount can be shared by a test's threads.
    end: Mutex<Receiver<()>>,
}

impl Output {
    /// Reads lines until the pipe's end.
    pub(crate) fn of(pipe: impl Read + Send + 'static) -> Self {
        Self::reading(BufReader::new(pipe), |_| false)
    }

    /// Reads lines until the pipe's end; those that `taken` wants are not kept.
    fn reading(
        mut pipe: BufReader<impl Read + Send + 'static>,
        mut taken: impl FnMut(&str) -> bool + Send + 'static,
    ) -> Self {
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        let (done, end) = channel();
        let kept = Arc::clone(&lines);
        thread::spawn(move || {
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                if taken(&text) {
                    continue;
                }
                let mut lines = kept.lock().unwrap_or_else(PoisonError::into_inner);
                if lines.len() == LOG_LINES_MAX {
                    lines.pop_front();
                }
                lines.push_back(text);
            }
            let _ = done.send(());
        });
        Self {
            lines,
            end: Mutex::new(end),
        }
    }

    /// The lines so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }

    /// The lines once the process has ended; a grandchild that keeps the pipe is not waited for.
    pub(crate) fn finished(&self) -> Vec<String> {
        self.finished_in(Duration::from_secs(2))
    }

    /// The lines once the process has ended, or after `time_max`.
    pub(crate) fn finished_in(&self, time_max: Duration) -> Vec<String> {
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = end.recv_timeout(time_max);
        self.lines()
    }
}

/// The first line of a pipe, when it comes, and the rest of it.
pub(crate) fn first_line(pipe: impl Read + Send + 'static) -> (Receiver<String>, Output) {
    let (first, ready) = channel();
    let mut first = Some(first);
    let log = Output::reading(BufReader::new(pipe), move |line| {
        first
            .take()
            .is_some_and(|first| first.send(line.to_owned()).is_ok())
    });
    // A pipe that ends without a line drops the sender with the closure, which ends the wait.
    (ready, log)
}
