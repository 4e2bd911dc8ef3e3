//! `ackfs mount`: one process from start to end; with `--background`, the child of one (`background`).

use std::error::Error;
use std::ffi::OsString;

use ackfs_cache::disk_cache::DiskError;
use clap::ArgMatches;

use crate::config::{Config, Host};
use crate::control::files;
use crate::daemon::{Daemon, MountOutcome, StartError};
use crate::logging;
use crate::s3::ConnectErrorKind;

use super::args::MountArgs;
use super::background::{self, LogTarget};
use super::exit::{CliError, Exit};

/// Runs the command. In the foreground it ends with the mount.
pub(super) fn run(
    args: MountArgs,
    matches: &ArgMatches,
    host: &Host,
    argv: &[OsString],
) -> Result<(), CliError> {
    // Mistakes on the command line are told by this process, without the detour.
    let config = Config::load(args.source, &args.dir, matches, host)?;
    if config.background && !args.in_background {
        return background::start(argv);
    }
    if args.in_background {
        logging::start_plain(&config.log);
        background::leave_directory();
    } else {
        logging::start(&config.log);
    }
    let daemon = Daemon::start(&config)?;
    if args.with_parent {
        end_with_stdin();
    }
    if args.in_background {
        // Not before: Ctrl-C at the command that waits for us is meant for us too.
        background::leave_terminal();
    }
    let log = if args.in_background {
        LogTarget::choose()
    } else {
        LogTarget::Stays
    };
    let said = logging::try_say(&daemon.description().to_string());
    if args.in_background {
        if let Err(error) = said {
            let ended = finish(&daemon.stop());
            let message = format!("the command that started it is gone ({error}); unmounted");
            return ended.and(Err(CliError::plain(message)));
        }
        background::leave_output(log);
    }
    finish(&daemon.run())
}

/// The command's result of a mount that ended.
pub(super) fn finish(end: &MountOutcome) -> Result<(), CliError> {
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
    Err(CliError::new(Exit::Unsaved, message))
}

impl From<StartError> for CliError {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::UnsavedFile;
    use crate::s3::ConnectError;

    #[test]
    fn what_is_not_saved_is_listed_by_name() {
        assert_eq!(finish(&MountOutcome::default()), Ok(()));
        let end = MountOutcome {
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
            let failure = CliError::from(error);
            assert_eq!(failure.exit, exit, "{failure}");
            assert_eq!(failure.message.lines().count(), 1);
        }
    }
}
