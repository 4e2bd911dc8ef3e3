//! Why an operation failed, by what the caller may do about it; the errno of each, which stands here and
//! nowhere else; and the one log line of each failed answer. Code tells failures apart by their variant,
//! never by a number.
//!
//! A look-up that failed at the store is never "no such name": `NotFound` is turned into absence where
//! absence was asked for, by the code that asked.

use std::error::Error as StdError;

use ackfs_cache::dirty::WriteError;
use ackfs_cache::store::{StoreError, StoreErrorKind};
use nix::errno::Errno;
use tracing::{debug, warn};

use crate::fuse::Responder;

/// Why an operation failed. What came from somewhere else is kept for the log.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// What the kernel took the name for does not hold any more; see `look_again`.
    #[error("the name has to be looked up again")]
    LookAgain,
    /// The store does not have that version any more, or has another one in its place: bytes of two versions
    /// are not mixed, and a version that somebody else put is not overwritten unseen.
    #[error(transparent)]
    VersionGone(StoreError),
    /// The file has neither a version in the store nor bytes here.
    #[error("neither a version nor bytes")]
    NoContent,
    /// There is nothing of that name.
    #[error("no such name")]
    NoSuchName,
    /// The name is taken.
    #[error("the name is taken")]
    Exists,
    /// The directory holds names.
    #[error("the directory is not empty")]
    NotEmpty,
    /// This is not done to a directory.
    #[error("a directory")]
    IsDirectory,
    /// This is done to directories only.
    #[error("not a directory")]
    NotDirectory,
    /// The name is longer than the kernel takes, or the key longer than a store does.
    #[error("the name is too long")]
    NameTooLong,
    /// Keys are UTF-8, and the name is not.
    #[error("the name is not UTF-8")]
    NotUtf8,
    /// As between filesystems: the caller copies and removes by itself, as mv(1) does.
    #[error("has to be copied and removed")]
    AcrossFilesystems,
    /// This makes no sense for what the inode is, or with these flags.
    #[error("not for what this is")]
    Invalid,
    /// There is no such open handle, or it was not opened for this.
    #[error("no such handle")]
    BadHandle,
    /// Nothing may be changed: the mount is read-only, or is about to end.
    #[error("read-only")]
    ReadOnly,
    /// A bucket has no counterpart of it, for whoever asks.
    #[error("not permitted")]
    NotPermitted,
    /// Not done here. The kernel remembers that and does without, by other means or for good.
    #[error("not supported")]
    Unsupported,
    /// The caller gave up waiting.
    #[error("interrupted")]
    Interrupted,
    /// Somebody else changes it at the same time.
    #[error("changed by somebody else at the same time")]
    Contended,
    /// It is open, and its readers' bytes cannot be kept for them; why.
    #[error("{0}")]
    InUse(String),
    /// An earlier publish failed when nobody waited for it any more; why.
    #[error("{0}")]
    LateFailure(String),
    /// There is no local room for written bytes.
    #[error(transparent)]
    NoRoom(WriteError),
    /// Written bytes cannot be had: the local disk failed, or there is none and they are not kept.
    #[error(transparent)]
    Staging(WriteError),
    /// Larger than an object can be.
    #[error(transparent)]
    TooLarge(Box<dyn StdError + Send + Sync>),
    /// The store refuses these credentials.
    #[error(transparent)]
    Denied(StoreError),
    /// The store failed in another way; its kind says which.
    #[error(transparent)]
    Store(StoreError),
}

/// What an operation gives.
pub type FsResult<T> = Result<T, FsError>;

/// Has the kernel look the name up again and try the call once more.
///
/// An answer can bring the kernel only what its operation has room for: one to OPEN no size, no mode and no
/// other inode. Where what the kernel was told of a name does not hold any more, the answer is ESTALE. Its VFS
/// then walks the path a second time with LOOKUP_REVAL (`do_filp_open` in fs/namei.c, elsewhere
/// `retry_estale` in include/linux/namei.h), under which `fuse_dentry_revalidate` sends a LOOKUP for every
/// name on the path, however long it was to be believed. There is one second try and no third: its failure is
/// the caller's, ESTALE included. So who answers this has first seen to it that the look-up finds what is
/// right: what is known of the name was just asked for, or is dropped.
///
/// A handle has no name to be looked up: to who holds one ESTALE says that its version is gone, and the
/// kernel does not try again.
pub(in crate::fs) fn look_again() -> FsError {
    FsError::LookAgain
}

impl From<StoreError> for FsError {
    fn from(error: StoreError) -> Self {
        match error.kind {
            StoreErrorKind::NotFound | StoreErrorKind::Changed => Self::VersionGone(error),
            StoreErrorKind::Denied => Self::Denied(error),
            StoreErrorKind::TooLarge => Self::TooLarge(Box::new(error)),
            StoreErrorKind::Throttled
            | StoreErrorKind::Timeout
            | StoreErrorKind::NoSpace
            | StoreErrorKind::Rejected
            | StoreErrorKind::Broken => Self::Store(error),
        }
    }
}

impl From<WriteError> for FsError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Store(error) => error.into(),
            WriteError::NoRoom(_) => Self::NoRoom(error),
            WriteError::Staging(_) | WriteError::SentAway | WriteError::Lost => {
                Self::Staging(error)
            }
            WriteError::TooLarge => Self::TooLarge(Box::new(error)),
        }
    }
}

impl FsError {
    /// What the caller is told.
    fn errno(&self) -> Errno {
        match self {
            Self::LookAgain | Self::NoContent => Errno::ESTALE,
            Self::NoSuchName => Errno::ENOENT,
            Self::Exists => Errno::EEXIST,
            Self::NotEmpty => Errno::ENOTEMPTY,
            Self::IsDirectory => Errno::EISDIR,
            Self::NotDirectory => Errno::ENOTDIR,
            Self::NameTooLong => Errno::ENAMETOOLONG,
            Self::NotUtf8 => Errno::EILSEQ,
            Self::AcrossFilesystems => Errno::EXDEV,
            Self::Invalid => Errno::EINVAL,
            Self::BadHandle => Errno::EBADF,
            Self::ReadOnly => Errno::EROFS,
            Self::NotPermitted => Errno::EPERM,
            Self::Unsupported => Errno::ENOSYS,
            Self::Interrupted => Errno::EINTR,
            Self::Contended | Self::InUse(_) => Errno::EBUSY,
            Self::LateFailure(_) | Self::Staging(_) => Errno::EIO,
            Self::NoRoom(_) => Errno::ENOSPC,
            Self::TooLarge(_) => Errno::EFBIG,
            Self::VersionGone(error) | Self::Denied(error) | Self::Store(error) => match error.kind
            {
                StoreErrorKind::NotFound | StoreErrorKind::Changed => Errno::ESTALE,
                StoreErrorKind::Denied => Errno::EACCES,
                StoreErrorKind::Throttled | StoreErrorKind::Timeout => Errno::ETIMEDOUT,
                StoreErrorKind::TooLarge => Errno::EFBIG,
                StoreErrorKind::NoSpace => Errno::EDQUOT,
                StoreErrorKind::Rejected | StoreErrorKind::Broken => Errno::EIO,
            },
        }
    }

    /// Where it came from; `None` where the errno says all.
    fn cause(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::VersionGone(error) | Self::Denied(error) | Self::Store(error) => Some(error),
            Self::NoRoom(error) | Self::Staging(error) => Some(error),
            Self::TooLarge(error) => Some(error.as_ref()),
            Self::InUse(_) | Self::LateFailure(_) => Some(self),
            Self::LookAgain
            | Self::NoContent
            | Self::NoSuchName
            | Self::Exists
            | Self::NotEmpty
            | Self::IsDirectory
            | Self::NotDirectory
            | Self::NameTooLong
            | Self::NotUtf8
            | Self::AcrossFilesystems
            | Self::Invalid
            | Self::BadHandle
            | Self::ReadOnly
            | Self::NotPermitted
            | Self::Unsupported
            | Self::Interrupted
            | Self::Contended => None,
        }
    }

    /// It and all that it came from, on one line.
    pub fn chain(&self) -> String {
        self.cause().map_or_else(|| self.to_string(), chain)
    }

    /// Whether trying the same again may help.
    pub fn worth_retrying(&self) -> bool {
        match self {
            Self::NoRoom(_) | Self::Staging(_) => true,
            Self::Store(error) => error.kind != StoreErrorKind::Rejected,
            _ => false,
        }
    }

    /// Answers with it, and writes no line: for what is no failure of ours.
    pub fn answer(&self, responder: Responder) {
        responder.error(self.errno() as i32);
    }

    /// The one log line of a failed answer. Those that are no failure of ours ("no such name" and the like)
    /// are logged at debug.
    pub fn log(&self, op: &'static str, ino: u64, key: &str) {
        let errno = self.errno();
        match self.cause() {
            Some(cause) => {
                let cause = chain(cause);
                warn!(op, ino, key, ?errno, cause, "answered with an error");
            }
            None => debug!(op, ino, key, ?errno, "answered with an error"),
        }
    }
}

fn chain(error: &(dyn StdError + 'static)) -> String {
    // What stands behind a store's error are the SDK's words for the same.
    let is_whole = |error: &(dyn StdError + 'static)| error.is::<StoreError>();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_its_errno() {
        let table = [
            (StoreErrorKind::NotFound, Errno::ESTALE),
            (StoreErrorKind::Changed, Errno::ESTALE),
            (StoreErrorKind::Denied, Errno::EACCES),
            (StoreErrorKind::Throttled, Errno::ETIMEDOUT),
            (StoreErrorKind::Timeout, Errno::ETIMEDOUT),
            (StoreErrorKind::TooLarge, Errno::EFBIG),
            (StoreErrorKind::NoSpace, Errno::EDQUOT),
            (StoreErrorKind::Rejected, Errno::EIO),
            (StoreErrorKind::Broken, Errno::EIO),
        ];
        for (kind, errno) in table {
            let error = || StoreError::new(kind, "said no");
            assert_eq!(FsError::from(error()).errno(), errno, "{kind}");
            let written = FsError::from(WriteError::Store(error()));
            assert_eq!(written.errno(), errno, "{kind}");
        }
        let full = std::io::Error::from_raw_os_error(libc::ENOSPC);
        let table = [
            (WriteError::NoRoom(full), Errno::ENOSPC),
            (
                WriteError::Staging(std::io::ErrorKind::Other.into()),
                Errno::EIO,
            ),
            (WriteError::TooLarge, Errno::EFBIG),
        ];
        for (error, errno) in table {
            assert_eq!(FsError::from(error).errno(), errno);
        }
    }

    #[test]
    fn the_chain_names_every_cause_once() {
        let inner = StoreError::new(StoreErrorKind::Timeout, "no answer in 60 s");
        let error = FsError::from(WriteError::Store(inner));
        assert_eq!(error.chain(), "timed out: no answer in 60 s");
        let late = FsError::LateFailure("it was so".to_owned());
        assert_eq!(late.chain(), "it was so");
        let failed = FsError::from(WriteError::Staging(std::io::Error::other("a bad block")));
        assert!(
            failed.chain().ends_with("or name another: a bad block"),
            "{}",
            failed.chain()
        );
    }
}
