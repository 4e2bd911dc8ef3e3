//! Every metric of ackfs, once: what it says, its unit, its name, where it is read. From here come the
//! page for Prometheus, the report of `ackfs stats --json`, and the lines of `ackfs stats`.
//!
//! Names end in their unit. Labels take few values, known beforehand; a key or a path is never one. The
//! names of the report's fields travel over the control socket: fields may be added, never renamed.

use std::time::{Duration, SystemTime};

use ackfs_cache::dirty::WriteStats;

use super::description::{
    LabelledSeries, Labels, MetricKind, Reading, Series, counters, field_type, series,
};
use super::room_stats::{RoomStats, resident_bytes};
use crate::fs::CloseMode;
use crate::fuse::abi::opcode;
use crate::fuse::mount::TransportInfo;

counters! {
    /// The door to the kernel.
    section TransportReport {
        words {
            /// `uring` or `classic`.
            name = now => transport_of(&now.info).0.to_owned();
            /// Why it is not the ring, or empty.
            reason = now => transport_of(&now.info).1.to_owned();
        }
        /// Slots that the kernel was given.
        slots: Level Count "ackfs_fuse_slots" = now => now.transport.slots;
        /// Slots whose request is not answered yet.
        slots_held: Level Count "ackfs_fuse_slots_held" = now => now.transport.slots_held;
        /// How long the oldest unanswered request is held.
        longest_held_seconds: Level Seconds "ackfs_fuse_slot_longest_held_seconds"
            = now => now.transport.longest_held.as_secs_f64();
        /// Requests that their callers gave up.
        interrupts: Total Count "ackfs_fuse_interrupts_total" = now => now.transport.interrupts;
        /// Operations that panicked and were answered EIO.
        panics: Total Count "ackfs_fuse_panics_total" = now => now.transport.panics;
    }

    /// What close() means.
    section CloseReport {
        words {
            /// `flush` or `release`.
            mode = now => close_mode_of(&now.info).0.as_str().to_owned();
            /// Why it is not `release`, or empty.
            reason = now => close_mode_of(&now.info).1;
        }
        /// Publishes that a RELEASE began; their failures are told to no close.
        release_publishes: Total Count "ackfs_release_publishes_total"
            = now => now.files.release_publishes;
    }

    /// Reading.
    section ReadReport {
        /// Reads answered from memory or disk.
        hits: Total Count "ackfs_read_hits_total" = now => now.read.hits;
        /// Reads that waited for the store.
        misses: Total Count "ackfs_read_misses_total" = now => now.read.misses;
        /// Bytes read from memory.
        memory_hit_bytes: Total Bytes "ackfs_read_memory_hit_bytes_total"
            = now => now.read.memory_hit_bytes;
        /// Bytes read from the disk cache.
        disk_hit_bytes: Total Bytes "ackfs_read_disk_hit_bytes_total"
            = now => now.read.disk_hit_bytes;
        /// Bytes whose readers waited for the store.
        miss_bytes: Total Bytes "ackfs_read_miss_bytes_total" = now => now.read.miss_bytes;
        /// Bytes fetched from the store, readahead included.
        fetched_bytes: Total Bytes "ackfs_read_fetched_bytes_total"
            = now => now.read.fetched_bytes;
        /// Clean bytes in memory.
        memory_bytes: Level Bytes "ackfs_read_memory_bytes" = now => now.read.memory_bytes;
        /// Cached extents whose checksum differed; dropped and fetched again.
        corrupt_extents: Total Count "ackfs_read_corrupt_extents_total"
            = now => now.read.corrupt_extents;
    }

    /// The disk cache, if there is one.
    section DiskReport {
        /// Bytes of objects in the disk cache.
        used_bytes: Level Bytes "ackfs_disk_bytes" = now => now.disk?.used_bytes;
        /// What the disk cache may hold.
        size_max_bytes: Level Bytes "ackfs_disk_max_bytes" = now => now.disk?.size_max;
        /// Bytes evicted from the disk cache.
        evicted_bytes: Total Bytes "ackfs_disk_evicted_bytes_total"
            = now => now.disk?.evicted_bytes;
        /// Extents not stored because the disk was full, failing or behind.
        skipped_extents: Total Count "ackfs_disk_skipped_extents_total"
            = now => now.disk?.skipped_extents;
    }

    /// Writing.
    section WriteReport {
        /// Written bytes that are not in the store.
        dirty_bytes: Level Bytes "ackfs_dirty_bytes" = now => now.write.dirty_bytes;
        /// Of these, bytes staged on disk.
        staged_bytes: Level Bytes "ackfs_dirty_staged_bytes" = now => now.write.staged_bytes;
        /// Files with such bytes.
        dirty_files: Level Count "ackfs_dirty_files" = now => now.write.dirty_files;
        /// For how long the oldest of them has been dirty; 0 without any.
        oldest_dirty_seconds: Level Seconds "ackfs_dirty_oldest_seconds"
            = now => oldest_dirty(&now.write).as_secs_f64();
        /// Files made whole in the store.
        published: Total Count "ackfs_publishes_total" = now => now.write.published;
        /// Publishes that failed.
        failed: Total Count "ackfs_publish_failures_total" = now => now.write.failed;
        /// Bytes of files sent to the store.
        uploaded_bytes: Total Bytes "ackfs_uploaded_bytes_total" = now => now.write.uploaded_bytes;
        /// Bytes that the store copied from the version before, instead of being sent.
        copied_bytes: Total Bytes "ackfs_copied_bytes_total" = now => now.write.copied_bytes;
        /// Bytes of the version before that were fetched to be sent between changed ones.
        refetched_bytes: Total Bytes "ackfs_refetched_bytes_total" = now => now.write.refetched_bytes;
    }

    /// Names and handles.
    section FilesReport {
        /// Inodes held.
        inodes: Level Count "ackfs_inodes" = now => now.files.inodes;
        /// Open files.
        file_handles: Level Count "ackfs_file_handles" = now => now.files.file_handles;
        /// Open directories.
        dir_handles: Level Count "ackfs_dir_handles" = now => now.files.dir_handles;
        /// Files whose last publish failed and whose bytes are still held.
        stuck_files: Level Count "ackfs_stuck_files" = now => now.files.stuck_files;
        /// Files whose bytes were given up after their last close; must be 0.
        lost_files: Total Count "ackfs_lost_files_total" = now => now.files.lost_files;
        /// Keys met in listings that cannot be names.
        hidden_keys: Total Count "ackfs_hidden_keys_total" = now => now.files.hidden_keys;
        /// Files met in listings that a directory of the same name hides.
        shadowed_files: Total Count "ackfs_shadowed_files_total" = now => now.files.shadowed_files;
        /// Opens that the kernel serves from the cache file by itself.
        passthrough_opens: Total Count "ackfs_passthrough_opens_total"
            = now => now.files.passthrough_opens;
    }

    page {
        /// Slots that ended by an error of the kernel.
        Total Count "ackfs_fuse_slots_lost_total" = now => now.transport.slots_lost;
        /// Requests that came over /dev/fuse.
        Total Count "ackfs_fuse_device_requests_total" = now => now.transport.device_requests;
        /// Requests that made no sense; answered EIO.
        Total Count "ackfs_fuse_undecodable_total" = now => now.transport.undecodable;
        /// Requests dropped unanswered; answered EIO.
        Total Count "ackfs_fuse_abandoned_total" = now => now.transport.abandoned;
        /// Answers that woke a sleeping ring thread.
        Total Count "ackfs_fuse_mailbox_wakes_total" = now => now.transport.mailbox_wakes;
        /// Ring threads that the watchdog woke.
        Total Count "ackfs_fuse_watchdog_wakes_total" = now => now.transport.watchdog_wakes;
        /// Invalidations dropped because their queue was full.
        Total Count "ackfs_fuse_notifications_dropped_total"
            = now => now.transport.notifications_dropped;
        /// Opens that found another version than the one known.
        Total Count "ackfs_changed_opens_total" = now => now.files.changed_opens;
        /// Bytes of objects sent to the store.
        Total Bytes "ackfs_store_sent_bytes_total" = now => now.store.bytes_up;
        /// Bytes of objects received from it.
        Total Bytes "ackfs_store_received_bytes_total" = now => now.store.bytes_down;
        /// Bodies that were cut and asked for again from where they ended.
        Total Count "ackfs_store_resumed_bodies_total" = now => now.store.resumed;
        /// Part of --memory that names, records and connections need.
        Level Bytes "ackfs_memory_withheld_bytes" = now => now.withheld;
        /// Memory of the process.
        Level Bytes "process_resident_memory_bytes" = _now => resident_bytes()?;
    }
}

/// Every metric with labels. All are counts.
pub(super) const LABELLED: &[LabelledSeries] = &[
    LabelledSeries {
        name: "ackfs_build_info",
        help: "1, with the version.",
        kind: MetricKind::Level,
        read: |_| one([("version", env!("CARGO_PKG_VERSION"))]),
    },
    LabelledSeries {
        name: "ackfs_fuse_transport_info",
        help: "1, with the door to the kernel and why it is not the ring.",
        kind: MetricKind::Level,
        read: |now| {
            let (transport, reason) = transport_of(&now.info);
            one([("transport", transport), ("reason", reason)])
        },
    },
    LabelledSeries {
        name: "ackfs_close_mode_info",
        help: "1, with what close() means here and why it is not release.",
        kind: MetricKind::Level,
        read: |now| {
            let (mode, reason) = close_mode_of(&now.info);
            one([("mode", mode.as_str()), ("reason", &reason)])
        },
    },
    LabelledSeries {
        name: "ackfs_fuse_requests_total",
        help: "The kernel's requests by operation.",
        kind: MetricKind::Total,
        read: |now| by_operation(now, |operation| operation.requests),
    },
    LabelledSeries {
        name: "ackfs_fuse_errors_total",
        help: "Of these, answered by an errno; a look-up that finds no name is answered without one.",
        kind: MetricKind::Total,
        read: |now| by_operation(now, |operation| operation.errors),
    },
    LabelledSeries {
        name: "ackfs_store_requests_total",
        help: "Requests to the store by kind and outcome: ok, absent (there is no such object), \
               changed (a condition did not hold), retried, failed.",
        kind: MetricKind::Total,
        read: by_outcome,
    },
    LabelledSeries {
        name: "ackfs_store_requests_in_flight",
        help: "Requests under way by lane.",
        kind: MetricKind::Level,
        read: |now| {
            let priorities = now.store.priorities.iter();
            priorities
                .map(|it| (labels([("lane", it.priority)]), it.in_flight as u64))
                .collect()
        },
    },
    LabelledSeries {
        name: "ackfs_store_requests_waiting",
        help: "Requests that wait for their turn, by lane.",
        kind: MetricKind::Level,
        read: |now| {
            let priorities = now.store.priorities.iter();
            priorities
                .map(|it| (labels([("lane", it.priority)]), it.waiting as u64))
                .collect()
        },
    },
];

/// The latencies of the kernel's operations: name, label, help.
pub(super) const OPERATION_LATENCY: [&str; 3] = [
    "ackfs_fuse_latency_seconds",
    "op",
    "From a request's arrival to its answer.",
];
/// Those of requests to the store.
pub(super) const STORE_LATENCY: [&str; 3] = [
    "ackfs_store_latency_seconds",
    "kind",
    "From a request's start to the store's answer, to the first byte for get.",
];

/// The lines of `ackfs stats`, each with its name. In braces stands a counter as `section.field`, shown
/// in its unit; `/s` and counters, for what they grew by in a second; or a word of `cli/stats.rs`.
pub const LINES: [(&str, &str); 10] = [
    ("mount", "{source} on {dir}, up {uptime}"),
    (
        "transport",
        "{transport}, {transport.slots_held} of {transport.slots} slots held, the longest for \
         {transport.longest_held_seconds}",
    ),
    (
        "close",
        "mode {close mode}, {close.release_publishes} published at RELEASE",
    ),
    (
        "reads",
        "{read.memory_hit_bytes} from memory, {read.disk_hit_bytes} from disk, {read.miss_bytes} \
         waited for{/s read.memory_hit_bytes read.disk_hit_bytes read.miss_bytes}; hit ratio {hit \
         ratio}",
    ),
    ("fetched", "{read.fetched_bytes}{/s read.fetched_bytes}"),
    ("cache", "{read.memory_bytes} in memory, {disk}"),
    (
        "dirty",
        "{write.dirty_files} files, {write.dirty_bytes} ({write.staged_bytes} staged), the oldest for \
         {write.oldest_dirty_seconds}",
    ),
    (
        "published",
        "{write.published} files, {write.uploaded_bytes}{/s write.uploaded_bytes}; {write.failed} \
         failed",
    ),
    (
        "copied",
        "{write.copied_bytes} by the store, {write.refetched_bytes} fetched to be sent again",
    ),
    (
        "files",
        "{files.file_handles} open, {files.stuck_files} stuck, {files.lost_files} lost, \
         {files.hidden_keys} keys hidden, {files.shadowed_files} shadowed",
    ),
];

/// One of the kernel's operations.
pub(super) struct OperationCounts {
    pub(super) name: &'static str,
    pub(super) requests: u64,
    pub(super) errors: u64,
}

/// Those that came at least once.
pub(super) fn operations(now: &RoomStats) -> impl Iterator<Item = OperationCounts> {
    let counts = now.transport.requests.iter().zip(&now.transport.errors);
    let named = counts
        .enumerate()
        .map(|(number, (requests, errors))| OperationCounts {
            name: opcode::name(number as u32),
            requests: *requests,
            errors: *errors,
        });
    named.filter(|operation| operation.requests + operation.errors > 0)
}

fn by_operation(now: &RoomStats, count: fn(&OperationCounts) -> u64) -> Vec<(Labels, u64)> {
    operations(now)
        .map(|operation| (labels([("op", operation.name)]), count(&operation)))
        .collect()
}

fn by_outcome(now: &RoomStats) -> Vec<(Labels, u64)> {
    let outcomes = now.store.kinds.iter().flat_map(|kind| {
        let outcomes = [
            ("ok", kind.ok),
            ("absent", kind.absent),
            ("changed", kind.changed),
            ("retried", kind.retried),
            ("failed", kind.failed),
        ];
        outcomes.map(|(outcome, count)| {
            let labels = labels([("kind", kind.kind.as_str()), ("outcome", outcome)]);
            (labels, count)
        })
    });
    outcomes.collect()
}

fn labels<const N: usize>(pairs: [(&'static str, &str); N]) -> Labels {
    pairs
        .into_iter()
        .map(|(name, value)| (name, value.to_owned()))
        .collect()
}

/// What an `_info` metric says.
fn one<const N: usize>(pairs: [(&'static str, &str); N]) -> Vec<(Labels, u64)> {
    vec![(labels(pairs), 1)]
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
