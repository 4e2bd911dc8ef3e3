//! How a command ends: a status that scripts and supervisors can tell apart, and one line.
//! The numbers are those of `sysexits.h` where it has a fitting one.

use std::fmt;
use std::process::ExitCode;

use crate::config::ConfigError;

/// An exit status that means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// A check or a step did not hold, or something failed that has no status of its own.
    Failed = 1,
    /// Bad command line or environment.
    Usage = 64,
    /// The store cannot be reached or has no such bucket.
    Unavailable = 69,
    /// The directory, `/dev/fuse` or the cache directory cannot be had.
    CannotMount = 73,
    /// Bytes that were written are not in the store.
    Unsaved = 75,
    /// The store refuses the credentials.
    Denied = 77,
    /// The file of `--config` is bad.
    Config = 78,
    /// SIGINT ended a start, with the number that shells give.
    Interrupted = 130,
    /// SIGTERM ended a start, with the number that shells give.
    Terminated = 143,
}

impl Exit {
    /// The status of that number, as another ackfs gave it.
    pub fn of(code: i32) -> Self {
        let known = [
            Self::Usage,
            Self::Unavailable,
            Self::CannotMount,
            Self::Unsaved,
            Self::Denied,
            Self::Config,
            Self::Interrupted,
            Self::Terminated,
        ];
        known
            .into_iter()
            .find(|exit| *exit as i32 == code)
            .unwrap_or(Self::Failed)
    }
}

/// The text of `--help` about exit statuses.
pub const HELP: &str = "\
Exit status:
   0  it worked; for mount: unmounted with everything saved
   1  a check or step failed
  64  bad command line or environment
  69  the store cannot be reached, or has no such bucket
  73  cannot mount: the directory, /dev/fuse, the rights or the cache directory
  75  bytes that were written are not in the store; each file is listed
  77  the store refuses the credentials
  78  the configuration file is bad
 130  SIGINT came before it was mounted
 143  SIGTERM came before it was mounted";

/// The text of `umount --help` about exit statuses.
pub const UMOUNT_HELP: &str = "\
Exit status:
   0  unmounted with everything saved
   1  not unmounted: nothing is mounted there, it is in use, or it may not be unmounted
  64  bad command line
  75  bytes that were written are not in the store; each file is listed, and whether it is still
      mounted";

/// A command that did not work: its status and what to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CliError {
    /// The process's status.
    pub exit: Exit,
    /// Lower case, cause and fix, no full stop; empty if all was said.
    pub message: String,
}

impl CliError {
    /// A failure with its line.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
        }
    }

    /// A failure without a status of its own.
    pub fn plain(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CliError {}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        let exit = match error {
            ConfigError::Usage(_) => Exit::Usage,
            ConfigError::File(_) => Exit::Config,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
