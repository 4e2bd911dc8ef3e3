//! What a mount is, once it serves: for the ready line and for who asks on the control socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::CloseWaitsFor;
use crate::config::units::Size;
use crate::control::Status;
use crate::fs::CloseMode;
use crate::s3::{ConditionalSupport, Honoured};

/// See the module.
#[derive(Debug, Clone)]
pub struct MountDescription {
    /// As `s3://BUCKET/PREFIX`.
    pub source: String,
    /// Where it is mounted.
    pub dir: PathBuf,
    /// Where the store is.
    pub endpoint: String,
    /// `uring` or `classic`, as it really is.
    pub transport: &'static str,
    /// Why it is not the ring, or empty.
    pub transport_reason: String,
    /// What close() waits for.
    pub close_waits_for: CloseWaitsFor,
    /// Which close does.
    pub close_mode: CloseMode,
    /// Why the mode is not `release`, or empty.
    pub close_reason: String,
    /// Whether the store honours the conditions that a close sends.
    pub conditional_writes: Honoured,
    /// `--memory`, in bytes.
    pub memory: u64,
    /// The room on disk and its bound in bytes, if there is one.
    pub disk: Option<(PathBuf, u64)>,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
}

impl fmt::Display for MountDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let close = match self.close_waits_for {
            CloseWaitsFor::Store => "close waits for the store",
        };
        let reason = match &*self.close_reason {
            "" => String::new(),
            reason => format!(" ({reason})"),
        };
        write!(
            f,
            "ready: {} on {}, endpoint {}, transport {}, {close}, mode {}{reason}, \
             conditional writes {}, cache {} in memory",
            self.source,
            self.dir.display(),
            self.endpoint,
            self.transport,
            self.close_mode.as_str(),
            self.conditional_writes,
            Size(self.memory),
        )?;
        match &self.disk {
            Some((dir, size)) => write!(f, " and {} in {}", Size(*size), dir.display())?,
            None => write!(f, ", none on disk")?,
        }
        match self.metrics {
            Some(address) => write!(f, ", metrics http://{address}/metrics"),
            None => Ok(()),
        }
    }
}

impl MountDescription {
    pub(super) fn status(&self) -> Status {
        Status {
            dir: self.dir.to_string_lossy().into_owned(),
            source: self.source.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// The least that is known of the conditions that a close relies on.
pub(super) fn conditional_writes(support: ConditionalSupport) -> Honoured {
    let all = [
        support.put_if_absent,
        support.put_if_match,
        support.multipart,
    ];
    if all.contains(&Honoured::No) {
        Honoured::No
    } else if all.contains(&Honoured::Unknown) {
        Honoured::Unknown
    } else {
        Honoured::Yes
    }
}
