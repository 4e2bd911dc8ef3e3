//! `ackfs mount`: in the foreground, one process from start to end. With `--background` it starts
//! itself once more, waits for that one's ready line or its end, and repeats what it said: no fork of
//! a process with threads, and the status and reason of a mount that cannot be come back.

use std::error::Error;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, IsTerminal};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use ackfs_cache::disk_cache::DiskError;
use clap::ArgMatches;

use crate::config::Config;
use crate::control::files;
use crate::daemon::{Daemon, End, StartError};
use crate::logging::{self, Syslog};
use crate::s3::ConnectErrorKind;

use super::{Exit, Failure, Host, MountArgs};

/// Runs the command. In the foreground it ends with the mount.
pub(super) fn run(
    args: MountArgs,
    matches: &ArgMatches,
    host: &Host,
    argv: &[OsString],
) -> Result<(), Failure> {
    // Mistakes on the command line are told by this process, without the detour.
    let config = Config::load(args.source, &args.dir, matches, host)?;
    if config.background && !args.in_background {
        return start_in_background(argv);
    }
    if args.in_background {
        logging::start_plain(&config.log);
        leave_directory();
    } else {
        logging::start(&config.log);
    }
    let daemon = Daemon::start(&config)?;
    if args.with_parent {
        end_with_stdin();
    }
    if args.in_background {
        // Not before: Ctrl-C at the command that waits for us is meant for us too.
        leave_terminal();
    }
    let log = if args.in_background {
        Log::choose()
    } else {
        Log::Stays
    };
    let said = logging::try_say(&daemon.ready().to_string());
    if args.in_background {
        if let Err(error) = said {
            let ended = finish(&daemon.stop());
            let message = format!("the command that started it is gone ({error}); unmounted");
            return ended.and(Err(Failure::plain(message)));
        }
        leave_output(log);
    }
    finish(&daemon.run())
}

/// The command's result of a mount that ended.
pub(super) fn finish(end: &End) -> Result<(), Failure> {
    if end.is_clean() {
        return Ok(());
    }
    let mut message = format!("{} not saved", files(end.unsaved.len() + end.lost as usize));
    for file in &end.unsaved {
        message.push_str("\n  ");
        message.push_str(&file.to_string());
    }
    if end.lost > 0 {
        message.push_str("\n  the log names those that could not be saved after their last close");
    }
    Err(Failure::new(Exit::Unsaved, message))
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let exit = match &error {
            StartError::Store(error) => match error.kind {
                ConnectErrorKind::BadEndpoint => Exit::Usage,
                ConnectErrorKind::NoCredentials
                | ConnectErrorKind::BadCredentials
                | ConnectErrorKind::ExpiredToken
                | ConnectErrorKind::Denied
                | ConnectErrorKind::ClockSkew => Exit::Denied,
                ConnectErrorKind::NoSuchBucket
                | ConnectErrorKind::WrongRegion
                | ConnectErrorKind::Unreachable
                | ConnectErrorKind::Timeout
                | ConnectErrorKind::NoAuthorities
                | ConnectErrorKind::Tls
                | ConnectErrorKind::NotTls
                | ConnectErrorKind::NeedsTls
                | ConnectErrorKind::NotS3
                | ConnectErrorKind::Store => Exit::Unavailable,
            },
            StartError::Cache(DiskError::InUse(_) | DiskError::TooNew(..) | DiskError::Io(..))
            | StartError::Dir(_)
            | StartError::Mount(_) => Exit::CannotMount,
            StartError::Metrics(..) => Exit::Usage,
            StartError::Stopped("SIGINT") => Exit::Interrupted,
            StartError::Stopped(_) => Exit::Terminated,
            StartError::System(_) => Exit::Failed,
        };
        if let Some(cause) = error.source() {
            tracing::debug!(%error, %cause, "cannot mount");
        }
        let words = error.to_string().replace('\n', "; ");
        match &error {
            StartError::Store(refused) if refused.kind == ConnectErrorKind::BadCredentials => {
                Self::new(exit, format!("bad credentials: {words}"))
            }
            _ => Self::new(exit, words),
        }
    }
}

fn start_in_background(argv: &[OsString]) -> Result<(), Failure> {
    let failure =
        |error: std::io::Error| Failure::plain(format!("cannot start in the background: {error}"));
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
        Some(code) => Err(Failure::new(Exit::of(code), "")),
        None => Err(Failure::plain(format!(
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

/// When whoever holds our stdin has gone, so should we, in order.
fn end_with_stdin() {
    let watcher = std::thread::Builder::new().name("parent".into());
    let watching = watcher.spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM);
    });
    if let Err(error) = watching {
        tracing::warn!(%error, "no thread to watch the parent");
    }
}

/// A session of our own: the terminal's Ctrl-C and hang-up are not for us.
fn leave_terminal() {
    if let Err(error) = nix::unistd::setsid() {
        tracing::debug!(%error, "the background process stays in its session");
    }
}

/// No directory is held.
fn leave_directory() {
    if let Err(error) = std::env::set_current_dir("/") {
        tracing::debug!(%error, "the background process stays in its directory");
    }
}

/// Where the log of a background process goes when it leaves its output.
#[derive(Debug)]
enum Log {
    /// Where it went before.
    Stays,
    /// It went to a terminal that is left.
    Moves(Syslog),
    /// The same, and there is no syslog.
    Ends,
}

impl Log {
    /// Looks, and tells the terminal if nobody will hear of what happens from here.
    fn choose() -> Self {
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

/// Whoever waits for the end of our output goes on. Log lines stay where they were sent, if that is
/// not a terminal.
fn leave_output(log: Log) {
    let Ok(null) = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
    else {
        return;
    };
    let _ = nix::unistd::dup2_stdout(&null);
    match log {
        Log::Stays => return,
        Log::Moves(syslog) => logging::move_to(syslog),
        Log::Ends => {}
    }
    let _ = nix::unistd::dup2_stderr(&null);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::UnsavedFile;
    use crate::s3::ConnectError;

    #[test]
    fn what_is_not_saved_is_listed_by_name() {
        assert_eq!(finish(&End::default()), Ok(()));
        let end = End {
            unsaved: vec![UnsavedFile {
                key: "a/b".into(),
                size: 3,
                cause: Some("timed out".into()),
            }],
            lost: 1,
        };
        let failure = finish(&end).unwrap_err();
        assert_eq!(failure.exit, Exit::Unsaved);
        assert!(
            failure.message.starts_with("2 files not saved"),
            "{failure}"
        );
        assert!(
            failure.message.contains("a/b (3 bytes): timed out"),
            "{failure}"
        );
    }

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

    #[test]
    fn a_start_that_failed_has_the_status_of_its_cause() {
        let store = |kind| {
            StartError::Store(ConnectError {
                kind,
                message: "it does not work".into(),
                fix: "mend it".into(),
                source: Some("the cause".into()),
            })
        };
        for (error, exit) in [
            (store(ConnectErrorKind::Denied), Exit::Denied),
            (store(ConnectErrorKind::NoSuchBucket), Exit::Unavailable),
            (store(ConnectErrorKind::BadEndpoint), Exit::Usage),
            (
                StartError::Cache(DiskError::InUse("/c".into())),
                Exit::CannotMount,
            ),
            (StartError::Stopped("SIGINT"), Exit::Interrupted),
            (StartError::Stopped("SIGTERM"), Exit::Terminated),
        ] {
            let failure = Failure::from(error);
            assert_eq!(failure.exit, exit, "{failure}");
            assert_eq!(failure.message.lines().count(), 1);
        }
    }
}
