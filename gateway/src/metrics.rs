//! Every metric of ackfs: its name with the unit at the end, its labels, what it says. The rooms keep
//! counters of their own, because counting must cost them nothing; this file copies them when somebody
//! looks. Only latencies are recorded where they happen, through the handles of [`Metrics`].
//!
//! Nothing here runs by itself: a page that nobody asks for is never made, and no sample is kept.
//! Labels take few values, known beforehand; a key or a path is never one.

use std::time::{Duration, Instant, SystemTime};

use ackfs_cache::dirty::WriteStats;
use ackfs_cache::disk_cache::DiskStats;
use ackfs_cache::read::ReadStats;
use metrics::{Key, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::fs::{CloseMode, FsStats};
use crate::fuse::abi::opcode;
use crate::fuse::mount::TransportInfo;
use crate::fuse::{Telemetry, TransportStats};
use crate::s3::{RequestKind, StoreStats, StoreTelemetry};

use self::latency::{Family, Latencies};
pub use self::report::{
    CloseReport, DiskReport, FilesReport, OperationReport, ReadReport, Report, StoreReport,
    TransportReport, WriteReport,
};

pub mod latency;
pub mod listener;
pub mod report;

/// The counters of all rooms at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The transport as it is.
    pub info: TransportInfo,
    /// Its counters.
    pub transport: TransportStats,
    /// The read path's.
    pub read: ReadStats,
    /// The disk cache's, if there is one.
    pub disk: Option<DiskStats>,
    /// The write path's.
    pub write: WriteStats,
    /// The filesystem's.
    pub files: FsStats,
    /// The store's.
    pub store: StoreStats,
    /// Bytes that files' contents may not take, since the process needs them for something else.
    pub withheld: u64,
}

/// A metric without labels, and where its value is.
struct Single {
    name: &'static str,
    unit: Unit,
    help: &'static str,
    /// Only ever grows; else it is a level.
    grows: bool,
    /// `None`: there is no such thing in this mount.
    value: fn(&Snapshot) -> Option<f64>,
}

const fn total(
    name: &'static str,
    unit: Unit,
    help: &'static str,
    value: fn(&Snapshot) -> Option<f64>,
) -> Single {
    Single {
        name,
        unit,
        help,
        grows: true,
        value,
    }
}

const fn level(
    name: &'static str,
    unit: Unit,
    help: &'static str,
    value: fn(&Snapshot) -> Option<f64>,
) -> Single {
    Single {
        name,
        unit,
        help,
        grows: false,
        value,
    }
}

#[allow(
    clippy::unnecessary_wraps,
    reason = "the table holds one type of function"
)]
fn some(value: u64) -> Option<f64> {
    Some(value as f64)
}

#[rustfmt::skip]
const SINGLES: &[Single] = &[
    level("ackfs_fuse_slots", Unit::Count, "Slots that the kernel was given.",
          |s| some(s.transport.slots)),
    level("ackfs_fuse_slots_held", Unit::Count, "Slots whose request is not answered yet.",
          |s| some(s.transport.slots_held)),
    level("ackfs_fuse_slot_longest_held_seconds", Unit::Seconds,
          "How long the oldest unanswered request is held.",
          |s| Some(s.transport.longest_held.as_secs_f64())),
    total("ackfs_fuse_slots_lost_total", Unit::Count, "Slots that ended by an error of the kernel.",
          |s| some(s.transport.slots_lost)),
    total("ackfs_fuse_device_requests_total", Unit::Count, "Requests that came over /dev/fuse.",
          |s| some(s.transport.device_requests)),
    total("ackfs_fuse_interrupts_total", Unit::Count, "Requests that their callers gave up.",
          |s| some(s.transport.interrupts)),
    total("ackfs_fuse_panics_total", Unit::Count, "Operations that panicked and were answered EIO.",
          |s| some(s.transport.panics)),
    total("ackfs_fuse_undecodable_total", Unit::Count, "Requests that made no sense; answered EIO.",
          |s| some(s.transport.undecodable)),
    total("ackfs_fuse_abandoned_total", Unit::Count, "Requests dropped unanswered; answered EIO.",
          |s| some(s.transport.abandoned)),
    total("ackfs_fuse_mailbox_wakes_total", Unit::Count, "Answers that woke a sleeping ring thread.",
          |s| some(s.transport.mailbox_wakes)),
    total("ackfs_fuse_watchdog_wakes_total", Unit::Count, "Ring threads that the watchdog woke.",
          |s| some(s.transport.watchdog_wakes)),
    total("ackfs_fuse_notifications_dropped_total", Unit::Count,
          "Invalidations dropped because their queue was full.",
          |s| some(s.transport.notifications_dropped)),

    total("ackfs_read_hits_total", Unit::Count, "Reads answered from memory or disk.",
          |s| some(s.read.hits)),
    total("ackfs_read_misses_total", Unit::Count, "Reads that waited for the store.",
          |s| some(s.read.misses)),
    total("ackfs_read_memory_hit_bytes_total", Unit::Bytes, "Bytes read from memory.",
          |s| some(s.read.memory_hit_bytes)),
    total("ackfs_read_disk_hit_bytes_total", Unit::Bytes, "Bytes read from the disk cache.",
          |s| some(s.read.disk_hit_bytes)),
    total("ackfs_read_miss_bytes_total", Unit::Bytes, "Bytes whose readers waited for the store.",
          |s| some(s.read.miss_bytes)),
    total("ackfs_read_fetched_bytes_total", Unit::Bytes,
          "Bytes fetched from the store, readahead included.",
          |s| some(s.read.fetched_bytes)),
    level("ackfs_read_memory_bytes", Unit::Bytes, "Clean bytes in memory.",
          |s| some(s.read.memory_bytes)),
    total("ackfs_read_corrupt_extents_total", Unit::Count,
          "Cached extents whose checksum differed; dropped and fetched again.",
          |s| some(s.read.corrupt_extents)),

    level("ackfs_disk_bytes", Unit::Bytes, "Bytes of objects in the disk cache.",
          |s| some(s.disk?.used_bytes)),
    level("ackfs_disk_max_bytes", Unit::Bytes, "What the disk cache may hold.",
          |s| some(s.disk?.size_max)),
    total("ackfs_disk_evicted_bytes_total", Unit::Bytes, "Bytes evicted from the disk cache.",
          |s| some(s.disk?.evicted_bytes)),
    total("ackfs_disk_skipped_extents_total", Unit::Count,
          "Extents not stored because the disk was full, failing or behind.",
          |s| some(s.disk?.skipped_extents)),

    level("ackfs_dirty_bytes", Unit::Bytes, "Written bytes that are not in the store.",
          |s| some(s.write.dirty_bytes)),
    level("ackfs_dirty_staged_bytes", Unit::Bytes, "Of these, bytes staged on disk.",
          |s| some(s.write.staged_bytes)),
    level("ackfs_dirty_files", Unit::Count, "Files with such bytes.",
          |s| some(s.write.dirty_files)),
    level("ackfs_dirty_oldest_seconds", Unit::Seconds,
          "For how long the oldest of them has been dirty; 0 without any.",
          |s| Some(oldest_dirty(&s.write).as_secs_f64())),
    total("ackfs_publishes_total", Unit::Count, "Files made whole in the store.",
          |s| some(s.write.published)),
    total("ackfs_publish_failures_total", Unit::Count, "Publishes that failed.",
          |s| some(s.write.failed)),
    total("ackfs_release_publishes_total", Unit::Count,
          "Publishes that a RELEASE began; their failures are told to no close.",
          |s| some(s.files.release_publishes)),
    total("ackfs_uploaded_bytes_total", Unit::Bytes, "Bytes of files sent to the store.",
          |s| some(s.write.uploaded_bytes)),

    level("ackfs_inodes", Unit::Count, "Inodes held.", |s| some(s.files.inodes)),
    level("ackfs_file_handles", Unit::Count, "Open files.", |s| some(s.files.file_handles)),
    level("ackfs_dir_handles", Unit::Count, "Open directories.", |s| some(s.files.dir_handles)),
    level("ackfs_stuck_files", Unit::Count,
          "Files whose last publish failed and whose bytes are still held.",
          |s| some(s.files.stuck_files)),
    total("ackfs_lost_files_total", Unit::Count,
          "Files whose bytes were given up after their last close; must be 0.",
          |s| some(s.files.lost_files)),
    total("ackfs_hidden_keys_total", Unit::Count, "Keys met in listings that cannot be names.",
          |s| some(s.files.hidden_keys)),
    total("ackfs_shadowed_files_total", Unit::Count,
          "Files met in listings that a directory of the same name hides.",
          |s| some(s.files.shadowed_files)),
    total("ackfs_passthrough_opens_total", Unit::Count,
          "Opens that the kernel serves from the cache file by itself.",
          |s| some(s.files.passthrough_opens)),
    total("ackfs_changed_opens_total", Unit::Count,
          "Opens that found another version than the one known.",
          |s| some(s.files.changed_opens)),

    total("ackfs_store_sent_bytes_total", Unit::Bytes, "Bytes of objects sent to the store.",
          |s| some(s.store.bytes_up)),
    total("ackfs_store_received_bytes_total", Unit::Bytes, "Bytes of objects received from it.",
          |s| some(s.store.bytes_down)),
    total("ackfs_store_resumed_bodies_total", Unit::Count,
          "Bodies that were cut and asked for again from where they ended.",
          |s| some(s.store.resumed)),

    level("ackfs_memory_withheld_bytes", Unit::Bytes,
          "Part of --memory that names, records and connections need.", |s| some(s.withheld)),
    level("process_resident_memory_bytes", Unit::Bytes, "Memory of the process.",
          |_| resident_bytes().and_then(some)),
];

/// Metrics with labels: name, unit, help, whether it only grows.
#[rustfmt::skip]
const LABELLED: [(&str, Unit, &str, bool); 8] = [
    ("ackfs_build_info", Unit::Count, "1, with the version.", false),
    ("ackfs_fuse_transport_info", Unit::Count,
     "1, with the door to the kernel and why it is not the ring.", false),
    ("ackfs_close_mode_info", Unit::Count,
     "1, with what close() means here and why it is not release.", false),
    ("ackfs_fuse_requests_total", Unit::Count, "The kernel's requests by operation.", true),
    ("ackfs_fuse_errors_total", Unit::Count,
     "Of these, answered by an errno; a look-up that finds no name is answered without one.", true),
    ("ackfs_store_requests_total", Unit::Count,
     "Requests to the store by kind and outcome: ok, absent (there is no such object), changed (a \
      condition did not hold), retried, failed.", true),
    ("ackfs_store_requests_in_flight", Unit::Count, "Requests under way by lane.", false),
    ("ackfs_store_requests_waiting", Unit::Count, "Requests that wait for their turn, by lane.", false),
];

/// The metrics of one mount.
pub struct Metrics {
    began: Instant,
    recorder: PrometheusRecorder,
    page: PrometheusHandle,
    operations: Family,
    requests: Family,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics")
            .field("began", &self.began)
            .finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let singles = SINGLES.iter().map(|m| (m.name, m.unit, m.help, m.grows));
        for (name, unit, help, grows) in singles.chain(LABELLED) {
            if grows {
                recorder.describe_counter(name.into(), Some(unit), help.into());
            } else {
                recorder.describe_gauge(name.into(), Some(unit), help.into());
            }
        }
        Self {
            began: Instant::now(),
            page: recorder.handle(),
            recorder,
            operations: Family::new(
                "ackfs_fuse_latency_seconds",
                "op",
                "From a request's arrival to its answer.",
            ),
            requests: Family::new(
                "ackfs_store_latency_seconds",
                "kind",
                "From a request's start to the store's answer, to the first byte for get.",
            ),
        }
    }
}

impl Metrics {
    /// Where the transport records latencies. Errors it counts itself.
    pub fn transport_telemetry(&self) -> Telemetry {
        Telemetry {
            errors: Vec::new(),
            ..Telemetry::new(
                |name| self.operations.member(name),
                |_| metrics::Counter::noop(),
            )
        }
    }

    /// Where the store's client records latencies.
    pub fn store_telemetry(&self) -> StoreTelemetry {
        StoreTelemetry {
            latency: RequestKind::ALL
                .iter()
                .map(|kind| self.requests.member(kind.as_str()))
                .collect(),
        }
    }

    /// The page for Prometheus.
    pub fn render(&self, now: &Snapshot) -> String {
        for single in SINGLES {
            if let Some(value) = (single.value)(now) {
                self.set(single.name, &[], single.grows, value);
            }
        }
        self.set(
            "ackfs_build_info",
            &[("version", env!("CARGO_PKG_VERSION"))],
            false,
            1.0,
        );
        let (transport, reason) = transport_of(&now.info);
        let labels = [("transport", transport), ("reason", reason)];
        self.set("ackfs_fuse_transport_info", &labels, false, 1.0);
        let (mode, reason) = close_mode_of(&now.info);
        let labels = [("mode", mode.as_str()), ("reason", &*reason)];
        self.set("ackfs_close_mode_info", &labels, false, 1.0);
        for (number, requests) in now.transport.requests.iter().enumerate() {
            let errors = now.transport.errors[number];
            if *requests + errors > 0 {
                let op = [("op", opcode::name(number as u32))];
                self.set("ackfs_fuse_requests_total", &op, true, *requests as f64);
                self.set("ackfs_fuse_errors_total", &op, true, errors as f64);
            }
        }
        for kind in &now.store.kinds {
            let outcomes = [
                ("ok", kind.ok),
                ("absent", kind.absent),
                ("changed", kind.changed),
                ("retried", kind.retried),
                ("failed", kind.failed),
            ];
            for (outcome, count) in outcomes {
                let labels = [("kind", kind.kind.as_str()), ("outcome", outcome)];
                self.set("ackfs_store_requests_total", &labels, true, count as f64);
            }
        }
        for class in &now.store.priorities {
            let label = [("lane", class.priority)];
            self.set(
                "ackfs_store_requests_in_flight",
                &label,
                false,
                class.in_flight as f64,
            );
            self.set(
                "ackfs_store_requests_waiting",
                &label,
                false,
                class.waiting as f64,
            );
        }
        let mut page = self.page.render();
        self.operations.render(&mut page);
        self.requests.render(&mut page);
        page
    }

    /// What `ackfs stats` shows. `dir` and `source` name the mount.
    pub fn report(&self, now: &Snapshot, dir: &str, source: &str) -> Report {
        let (transport, reason) = transport_of(&now.info);
        let (close_mode, close_reason) = close_mode_of(&now.info);
        Report {
            dir: dir.to_owned(),
            source: source.to_owned(),
            uptime_seconds: self.began.elapsed().as_secs_f64(),
            transport: TransportReport {
                name: transport.to_owned(),
                reason: reason.to_owned(),
                slots: now.transport.slots,
                slots_held: now.transport.slots_held,
                longest_held_seconds: now.transport.longest_held.as_secs_f64(),
                interrupts: now.transport.interrupts,
                panics: now.transport.panics,
            },
            close: CloseReport {
                mode: close_mode.as_str().to_owned(),
                reason: close_reason,
                release_publishes: now.files.release_publishes,
            },
            operations: self.operations_of(&now.transport),
            read: ReadReport {
                hits: now.read.hits,
                misses: now.read.misses,
                memory_hit_bytes: now.read.memory_hit_bytes,
                disk_hit_bytes: now.read.disk_hit_bytes,
                miss_bytes: now.read.miss_bytes,
                fetched_bytes: now.read.fetched_bytes,
                memory_bytes: now.read.memory_bytes,
                corrupt_extents: now.read.corrupt_extents,
            },
            disk: now.disk.map(|disk| DiskReport {
                used_bytes: disk.used_bytes,
                size_max_bytes: disk.size_max,
                evicted_bytes: disk.evicted_bytes,
                skipped_extents: disk.skipped_extents,
            }),
            write: WriteReport {
                dirty_bytes: now.write.dirty_bytes,
                staged_bytes: now.write.staged_bytes,
                dirty_files: now.write.dirty_files,
                oldest_dirty_seconds: oldest_dirty(&now.write).as_secs_f64(),
                published: now.write.published,
                failed: now.write.failed,
                uploaded_bytes: now.write.uploaded_bytes,
            },
            files: FilesReport {
                inodes: now.files.inodes,
                file_handles: now.files.file_handles,
                dir_handles: now.files.dir_handles,
                stuck_files: now.files.stuck_files,
                lost_files: now.files.lost_files,
                hidden_keys: now.files.hidden_keys,
                shadowed_files: now.files.shadowed_files,
                passthrough_opens: now.files.passthrough_opens,
            },
            store: self.store_of(&now.store),
        }
    }

    fn operations_of(&self, stats: &TransportStats) -> Vec<OperationReport> {
        let latencies = self.operations.read();
        let counted = stats.requests.iter().zip(&stats.errors).enumerate();
        counted
            .filter(|(_, (requests, _))| **requests > 0)
            .map(|(number, (requests, errors))| {
                let name = opcode::name(number as u32);
                let (p50_seconds, p99_seconds) = quantiles(&latencies, name);
                OperationReport {
                    name: name.to_owned(),
                    count: *requests,
                    errors: *errors,
                    p50_seconds,
                    p99_seconds,
                }
            })
            .collect()
    }

    fn store_of(&self, stats: &StoreStats) -> Vec<StoreReport> {
        let latencies = self.requests.read();
        let asked = stats.kinds.iter().filter(|kind| kind.total() > 0);
        asked
            .map(|kind| {
                let (p50_seconds, p99_seconds) = quantiles(&latencies, kind.kind.as_str());
                StoreReport {
                    name: kind.kind.as_str().to_owned(),
                    count: kind.total(),
                    errors: kind.failed,
                    retries: kind.retried,
                    p50_seconds,
                    p99_seconds,
                }
            })
            .collect()
    }

    fn set(&self, name: &'static str, labels: &[(&'static str, &str)], grows: bool, value: f64) {
        static ORIGIN: Metadata<'static> =
            Metadata::new(module_path!(), Level::INFO, Some(module_path!()));
        let labels: Vec<Label> = labels
            .iter()
            .map(|(name, value)| Label::new(*name, (*value).to_owned()))
            .collect();
        let key = Key::from_parts(name, labels);
        if grows {
            self.recorder
                .register_counter(&key, &ORIGIN)
                .absolute(value as u64);
        } else {
            self.recorder.register_gauge(&key, &ORIGIN).set(value);
        }
    }
}

/// The door's name and why it is not the ring, or nothing.
pub fn transport_of(info: &TransportInfo) -> (&'static str, &str) {
    let name = if info.ring { "uring" } else { "classic" };
    (name, info.reason.as_deref().unwrap_or_default())
}

/// What close() means on this mount, and why it is not `release`, or nothing.
pub fn close_mode_of(info: &TransportInfo) -> (CloseMode, String) {
    match &info.sync_release {
        Ok(()) => (CloseMode::Release, String::new()),
        Err(cause) => (CloseMode::Flush, cause.to_string()),
    }
}

fn oldest_dirty(stats: &WriteStats) -> Duration {
    let age = |since| SystemTime::now().duration_since(since).ok();
    stats.oldest_dirty.and_then(age).unwrap_or_default()
}

fn quantiles(latencies: &[(String, Latencies)], name: &str) -> (f64, f64) {
    let found = latencies.iter().find(|(label, _)| label == name);
    let at = |share| {
        found
            .and_then(|(_, latencies)| latencies.quantile(share))
            .unwrap_or_default()
    };
    (at(0.5), at(0.99))
}

/// Memory of this process in bytes, shared pages included; `None` where that cannot be known.
pub fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    Some(pages * page as u64)
}

#[cfg(test)]
mod tests;
