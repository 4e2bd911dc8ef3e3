//! What `ackfs stats` shows: the counters of all rooms, in a shape that travels over the control socket as
//! JSON. Durations are in seconds, sizes in bytes, and both say so in their names. The sections are made
//! by `table.rs`.

use serde::{Deserialize, Serialize};

use super::description::Reading;
use super::table::{
    CloseReport, DiskReport, FilesReport, ReadReport, TransportReport, WriteReport,
};

/// One mount at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Where the mount is.
    pub dir: String,
    /// What it shows.
    pub source: String,
    /// For how long it has been serving.
    pub uptime_seconds: f64,
    /// The door to the kernel.
    pub transport: TransportReport,
    /// What close() means.
    pub close: CloseReport,
    /// The kernel's operations, those that came at least once.
    pub operations: Vec<OperationReport>,
    /// Reading.
    pub read: ReadReport,
    /// The disk cache, if there is one.
    pub disk: Option<DiskReport>,
    /// Writing.
    pub write: WriteReport,
    /// Names and handles.
    pub files: FilesReport,
    /// Requests to the store by kind, those that were sent at least once.
    pub store: Vec<StoreReport>,
}

impl Report {
    /// The counter `section.field`; `None` if there is none of that name, or no such thing in the mount.
    pub fn reading(&self, name: &str) -> Option<Reading> {
        let (section, field) = name.split_once('.')?;
        match section {
            "transport" => self.transport.reading(field),
            "close" => self.close.reading(field),
            "read" => self.read.reading(field),
            "disk" => self.disk.as_ref()?.reading(field),
            "write" => self.write.reading(field),
            "files" => self.files.reading(field),
            _ => None,
        }
    }
}

/// One kind of the kernel's operations.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OperationReport {
    /// Its name, as `READ`.
    pub name: String,
    /// How many came.
    pub count: u64,
    /// How many were answered by an errno; a look-up that finds no name is answered without one.
    pub errors: u64,
    /// Half of them were answered within this; a bound of a bucket.
    pub p50_seconds: f64,
    /// All but one of a hundred were.
    pub p99_seconds: f64,
}

/// One kind of requests to the store.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreReport {
    /// Its name, as `get`.
    pub name: String,
    /// How many were sent.
    pub count: u64,
    /// How many failed for good, "not there" and "changed" included.
    pub errors: u64,
    /// How many failed and were sent again.
    pub retries: u64,
    /// Half of them were answered within this; a bound of a bucket.
    pub p50_seconds: f64,
    /// All but one of a hundred were.
    pub p99_seconds: f64,
}
