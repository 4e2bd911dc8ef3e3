//! Errors to errno, in one place, and the one log line of each failed answer. Errno numbers stand
//! nowhere else in `fs` but as constants that an operation itself decides on (ENOENT, ENOTEMPTY).
//!
//! A look-up that failed at the store is never ENOENT: `NotFound` is turned into absence where
//! absence was asked for, by the code that asked.

use std::error::Error as StdError;

use ackfs_cache::dirty::WriteError;
use ackfs_cache::store::{StoreError, StoreErrorKind};
use tracing::{debug, warn};

/// A positive errno.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

/// Why an operation failed: what the caller is told, and the cause for the log.
#[derive(Debug)]
pub struct FsError {
    /// What the caller is told.
    pub errno: Errno,
    /// Where it came from; `None` where the errno says all (ENOENT, EEXIST).
    pub cause: Option<Box<dyn StdError + Send + Sync>>,
}

/// What an operation gives.
pub type FsResult<T> = Result<T, FsError>;

impl FsError {
    /// An error that needs no cause.
    pub fn plain(errno: i32) -> Self {
        Self {
            errno: Errno(errno),
            cause: None,
        }
    }
}

impl From<Errno> for FsError {
    fn from(errno: Errno) -> Self {
        Self { errno, cause: None }
    }
}

impl From<StoreError> for FsError {
    fn from(error: StoreError) -> Self {
        Self {
            errno: store_errno(error.kind),
            cause: Some(Box::new(error)),
        }
    }
}

impl From<WriteError> for FsError {
    fn from(error: WriteError) -> Self {
        Self {
            errno: write_errno(&error),
            cause: Some(Box::new(error)),
        }
    }
}

/// What the caller is told when the store fails.
pub fn store_errno(kind: StoreErrorKind) -> Errno {
    Errno(match kind {
        // The object was there when it was opened: whoever reads on has a stale handle.
        StoreErrorKind::NotFound | StoreErrorKind::Changed => libc::ESTALE,
        StoreErrorKind::Denied => libc::EACCES,
        StoreErrorKind::Throttled | StoreErrorKind::Timeout => libc::ETIMEDOUT,
        StoreErrorKind::TooLarge => libc::EFBIG,
        StoreErrorKind::NoSpace => libc::EDQUOT,
        StoreErrorKind::Rejected | StoreErrorKind::Broken => libc::EIO,
    })
}

/// What the caller is told when writing or publishing fails.
pub fn write_errno(error: &WriteError) -> Errno {
    match error {
        WriteError::Store(error) => store_errno(error.kind),
        WriteError::Staging(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
            Errno(libc::ENOSPC)
        }
        WriteError::Staging(_) => Errno(libc::EIO),
        WriteError::TooLarge => Errno(libc::EFBIG),
    }
}

/// Whether trying the publish again may help.
pub fn worth_retrying(error: &WriteError) -> bool {
    match error {
        WriteError::Store(error) => match error.kind {
            StoreErrorKind::Throttled
            | StoreErrorKind::Timeout
            | StoreErrorKind::NoSpace
            | StoreErrorKind::Broken => true,
            StoreErrorKind::NotFound
            | StoreErrorKind::Changed
            | StoreErrorKind::Denied
            | StoreErrorKind::TooLarge
            | StoreErrorKind::Rejected => false,
        },
        WriteError::Staging(_) => true,
        WriteError::TooLarge => false,
    }
}

/// Whether somebody else changed or removed the object that this was to replace.
pub fn is_lost_race(error: &WriteError) -> bool {
    match error {
        WriteError::Store(error) => matches!(
            error.kind,
            StoreErrorKind::NotFound | StoreErrorKind::Changed
        ),
        WriteError::Staging(_) | WriteError::TooLarge => false,
    }
}

/// An error and all that it came from, on one line.
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    // What stands behind a store's error are the SDK's words for the same.
    let is_whole = |error: &(dyn StdError + 'static)| {
        let write = error.downcast_ref();
        error.is::<StoreError>() || matches!(write, Some(WriteError::Store(_)))
    };
    let mut text = error.to_string();
    let mut source = error.source().filter(|_| !is_whole(error));
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source().filter(|_| !is_whole(cause));
    }
    text
}

/// The one log line of a failed answer. Answers that are no failure of ours (ENOENT and the like)
/// are logged at debug.
pub fn log(op: &'static str, ino: u64, key: &str, error: &FsError) {
    let errno = nix::errno::Errno::from_raw(error.errno.0);
    match &error.cause {
        Some(cause) => {
            let cause = chain(cause.as_ref());
            warn!(op, ino, key, ?errno, cause, "answered with an error");
        }
        None => debug!(op, ino, key, ?errno, "answered with an error"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_its_errno() {
        let table = [
            (StoreErrorKind::NotFound, libc::ESTALE),
            (StoreErrorKind::Changed, libc::ESTALE),
            (StoreErrorKind::Denied, libc::EACCES),
            (StoreErrorKind::Throttled, libc::ETIMEDOUT),
            (StoreErrorKind::Timeout, libc::ETIMEDOUT),
            (StoreErrorKind::TooLarge, libc::EFBIG),
            (StoreErrorKind::NoSpace, libc::EDQUOT),
            (StoreErrorKind::Rejected, libc::EIO),
            (StoreErrorKind::Broken, libc::EIO),
        ];
        for (kind, errno) in table {
            assert_eq!(store_errno(kind), Errno(errno), "{kind}");
        }
        let full = std::io::Error::from_raw_os_error(libc::ENOSPC);
        assert_eq!(write_errno(&WriteError::Staging(full)), Errno(libc::ENOSPC));
        assert_eq!(write_errno(&WriteError::TooLarge), Errno(libc::EFBIG));
    }

    #[test]
    fn the_chain_names_every_cause_once() {
        let inner = StoreError::new(StoreErrorKind::Timeout, "no answer in 60 s");
        let error = FsError::from(WriteError::Store(inner));
        let text = chain(error.cause.as_ref().unwrap().as_ref());
        assert_eq!(text, "timed out: no answer in 60 s");
    }
}
