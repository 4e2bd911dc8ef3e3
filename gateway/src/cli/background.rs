//! `--background`: the command starts itself once more, waits for that one's ready line or its end, and
//! repeats what it said: no fork of a process with threads, and the status and reason of a mount that
//! cannot be come back. The child then leaves the terminal, the directory and the output that it was
//! started with.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, IsTerminal};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use crate::logging::{self, Syslog};

use super::exit::{CliError, Exit};

/// Starts the child of these words, and waits until it serves or has ended.
pub(super) fn start(argv: &[OsString]) -> Result<(), CliError> {
    let failure =
        |error: std::io::Error| CliError::plain(format!("cannot start in the background: {error}"));
    let program = std::env::current_exe().map_err(failure)?;
    let mut child = Command::new(program)
        .args(in_background(argv))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failure)?;
    let mut ready = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output)
            .read_line(&mut ready)
            .map_err(failure)?;
    }
    if !ready.is_empty() {
        logging::say(ready.trim_end());
        return Ok(());
    }
    // It has told why on the stderr that it shares with us.
    let status = child.wait().map_err(failure)?;
    match status.code() {
        Some(code) => Err(CliError::new(Exit::of(code), "")),
        None => Err(CliError::plain(format!(
            "the mount was killed by signal {}",
            status.signal().unwrap_or_default()
        ))),
    }
}

/// The words of `argv`, for the child. What asked for the background may stand in the environment or a
/// file, which the child reads too, so one more word tells it that it is there.
fn in_background(argv: &[OsString]) -> Vec<OsString> {
    let mut words: Vec<OsString> = argv.iter().skip(1).cloned().collect();
    // After the name of the command: behind a `--` it would be no flag.
    words.insert(1.min(words.len()), OsString::from("--in-background"));
    words
}

/// A session of our own: the terminal's Ctrl-C and hang-up are not for us.
pub(super) fn leave_terminal() {
    if let Err(error) = nix::unistd::setsid() {
        tracing::debug!(%error, "the background process stays in its session");
    }
}

/// No directory is held.
pub(super) fn leave_directory() {
    if let Err(error) = std::env::set_current_dir("/") {
        tracing::debug!(%error, "the background process stays in its directory");
    }
}

/// Where the log of a background process goes when it leaves its output.
#[derive(Debug)]
pub(super) enum LogTarget {
    /// Where it went before.
    Stays,
    /// It went to a terminal that is left.
    Moves(Syslog),
    /// The same, and there is no syslog.
    Ends,
}

impl LogTarget {
    /// Looks, and tells the terminal if nobody will hear of what happens from here.
    pub(super) fn choose() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Stays;
        }
        if let Some(syslog) = logging::find_syslog() {
            return Self::Moves(syslog);
        }
        logging::tell(
            "ackfs: the log goes nowhere from here, for this machine has no syslog: to keep it, \
             start with 2>FILE, or without --background under a service manager",
        );
        Self::Ends
    }
}

/// Whoever waits for the end of our output goes on. LogTarget lines stay where they were sent, if that is
/// not a terminal.
pub(super) fn leave_output(log: LogTarget) {
    let Ok(null) = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
    else {
        return;
    };
    let _ = nix::unistd::dup2_stdout(&null);
    match log {
        LogTarget::Stays => return,
        LogTarget::Moves(syslog) => logging::move_to(syslog),
        LogTarget::Ends => {}
    }
    let _ = nix::unistd::dup2_stderr(&null);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_child_is_told_where_a_flag_is_a_flag() {
        let argv = ["ackfs", "mount", "--background", "--", "s3://b", "/m"].map(OsString::from);
        let wanted = [
            "mount",
            "--in-background",
            "--background",
            "--",
            "s3://b",
            "/m",
        ];
        assert_eq!(in_background(&argv), wanted);
    }
}
