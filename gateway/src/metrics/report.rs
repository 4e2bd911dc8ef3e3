//! What `ackfs stats` shows: the counters of all rooms, in a shape of its own that travels over the
//! control socket as JSON. Durations are in seconds, sizes in bytes, and both say so in their names.

use serde::{Deserialize, Serialize};

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

/// See [`Report::transport`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(
    missing_docs,
    reason = "the fields are those of the transport's statistics"
)]
pub struct TransportReport {
    /// `uring` or `classic`.
    pub name: String,
    /// Why it is not the ring, or empty.
    pub reason: String,
    pub slots: u64,
    pub slots_held: u64,
    pub longest_held_seconds: f64,
    pub interrupts: u64,
    pub panics: u64,
}

/// See [`Report::close`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CloseReport {
    /// `flush` or `release`.
    pub mode: String,
    /// Why it is not `release`, or empty.
    pub reason: String,
    /// Publishes that a RELEASE began; their failures are told to no close.
    pub release_publishes: u64,
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

/// See [`Report::read`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(
    missing_docs,
    reason = "the fields are those of the read path's statistics"
)]
pub struct ReadReport {
    pub hits: u64,
    pub misses: u64,
    pub memory_hit_bytes: u64,
    pub disk_hit_bytes: u64,
    pub miss_bytes: u64,
    pub fetched_bytes: u64,
    pub memory_bytes: u64,
    pub corrupt_extents: u64,
}

/// See [`Report::disk`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(
    missing_docs,
    reason = "the fields are those of the disk cache's statistics"
)]
pub struct DiskReport {
    pub used_bytes: u64,
    pub size_max_bytes: u64,
    pub evicted_bytes: u64,
    pub skipped_extents: u64,
}

/// See [`Report::write`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(
    missing_docs,
    reason = "the fields are those of the write path's statistics"
)]
pub struct WriteReport {
    pub dirty_bytes: u64,
    pub staged_bytes: u64,
    pub dirty_files: u64,
    pub oldest_dirty_seconds: f64,
    pub published: u64,
    pub failed: u64,
    pub uploaded_bytes: u64,
}

/// See [`Report::files`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(
    missing_docs,
    reason = "the fields are those of the filesystem's statistics"
)]
pub struct FilesReport {
    pub inodes: u64,
    pub file_handles: u64,
    pub dir_handles: u64,
    pub stuck_files: u64,
    pub lost_files: u64,
    pub hidden_keys: u64,
    pub shadowed_files: u64,
    pub passthrough_opens: u64,
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
