//! What is said over the control socket: one [`ControlRequest`] and its [`ControlReply`]s, each a line of JSON. Both
//! sides are this program, but not always the same version of it: fields may be added, never renamed.

use serde::{Deserialize, Serialize};

use crate::config::units::Size;
use crate::metrics::Report;

/// What may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum ControlRequest {
    /// Who are you?
    Status,
    /// All counters.
    Stats,
    /// The counters as Prometheus takes them.
    Metrics,
    /// Save everything and unmount.
    Unmount {
        /// Do not wait for anything.
        force: bool,
    },
}

/// What is answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum ControlReply {
    /// To [`ControlRequest::Status`].
    Status(Status),
    /// To [`ControlRequest::Stats`].
    Stats(Box<Report>),
    /// To [`ControlRequest::Metrics`].
    Metrics {
        /// The exposition text.
        text: String,
    },
    /// To [`ControlRequest::Unmount`], every few seconds until it is done.
    Progress(DrainProgress),
    /// To [`ControlRequest::Unmount`], at its end.
    Unmounted {
        /// What is not in the store.
        unsaved: Vec<UnsavedFile>,
    },
    /// To [`ControlRequest::Unmount`], if the drain took too long: the mount goes on.
    StillMounted {
        /// What is not in the store.
        unsaved: Vec<UnsavedFile>,
    },
    /// To anything.
    Failed {
        /// Cause and fix.
        message: String,
    },
}

/// Who serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Where the mount is.
    pub dir: String,
    /// What it shows, as `s3://BUCKET/PREFIX`.
    pub source: String,
    /// The daemon's process.
    pub pid: u32,
    /// The daemon's version.
    pub version: String,
}

/// What is left to save.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainProgress {
    /// Files with bytes that are not in the store.
    pub files: u64,
    /// These bytes.
    pub bytes: u64,
}

/// A file whose bytes are not in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsavedFile {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// Why the last try failed.
    pub cause: Option<String>,
}

impl std::fmt::Display for DrainProgress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let size = Size(self.bytes);
        write!(f, "{} left to save ({size})", files(self.files as usize))
    }
}

impl std::fmt::Display for UnsavedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes)", self.key, self.size)?;
        match &self.cause {
            Some(cause) => write!(f, ": {cause}"),
            None => write!(f, ": no time was left"),
        }
    }
}

/// "1 file", "2 files".
pub fn files(count: usize) -> String {
    match count {
        1 => "1 file".to_owned(),
        count => format!("{count} files"),
    }
}
