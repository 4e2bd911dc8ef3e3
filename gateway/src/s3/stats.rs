//! What the store was asked and how that went: counters for `ackfs stats` and the metrics page.
//! Counting costs an atomic addition; nothing here waits or locks.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use ackfs_cache::store::StoreErrorKind;
use metrics::Histogram;

use super::error::RequestFailure;
use super::permits::{self, Permits};

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// HeadObject.
    Head,
    /// GetObject.
    Get,
    /// ListObjectsV2.
    List,
    /// PutObject.
    Put,
    /// CreateMultipartUpload.
    Create,
    /// UploadPart.
    Part,
    /// UploadPartCopy.
    CopyPart,
    /// CompleteMultipartUpload.
    Complete,
    /// AbortMultipartUpload.
    Abort,
    /// CopyObject.
    Copy,
    /// DeleteObject.
    Delete,
    /// GetObjectTagging.
    Tagging,
    /// ListParts.
    ListParts,
}

impl RequestKind {
    /// Every kind, in the order of [`StoreTelemetry::latency`] and [`StoreStats::kinds`].
    pub const ALL: [RequestKind; 13] = [
        RequestKind::Head,
        RequestKind::Get,
        RequestKind::List,
        RequestKind::Put,
        RequestKind::Create,
        RequestKind::Part,
        RequestKind::CopyPart,
        RequestKind::Complete,
        RequestKind::Abort,
        RequestKind::Copy,
        RequestKind::Delete,
        RequestKind::Tagging,
        RequestKind::ListParts,
    ];

    /// The kind as a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            RequestKind::Head => "head",
            RequestKind::Get => "get",
            RequestKind::List => "list",
            RequestKind::Put => "put",
            RequestKind::Create => "create",
            RequestKind::Part => "part",
            RequestKind::CopyPart => "copy_part",
            RequestKind::Complete => "complete",
            RequestKind::Abort => "abort",
            RequestKind::Copy => "copy",
            RequestKind::Delete => "delete",
            RequestKind::Tagging => "tagging",
            RequestKind::ListParts => "list_parts",
        }
    }
}

/// Where latencies go. The default records nothing.
#[derive(Debug, Default)]
pub struct StoreTelemetry {
    /// Seconds from a request's start to its answer (to the first byte for a GET), one histogram
    /// for each of [`RequestKind::ALL`] in that order. A kind without one is not recorded.
    pub latency: Vec<Histogram>,
}

/// How requests of one kind went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindStats {
    /// Which.
    pub kind: RequestKind,
    /// Requests that were answered well.
    pub ok: u64,
    /// Requests that failed and were sent again.
    pub retried: u64,
    /// Requests whose answer is that there is no such object.
    pub absent: u64,
    /// Requests whose answer is that the condition does not hold.
    pub changed: u64,
    /// Requests that failed for good.
    pub failed: u64,
}

impl KindStats {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.ok + self.retried + self.absent + self.changed + self.failed
    }
}

/// What the requests of one priority are doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PriorityStats {
    /// Which: `interactive`, `readahead` or `upload`.
    pub priority: &'static str,
    /// Requests under way.
    pub in_flight: usize,
    /// Requests that wait for a permit.
    pub waiting: usize,
}

/// All that was counted, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreStats {
    /// By kind, in the order of [`RequestKind::ALL`].
    pub kinds: Vec<KindStats>,
    /// By priority.
    pub priorities: Vec<PriorityStats>,
    /// Bytes of objects sent in requests that were answered well.
    pub bytes_up: u64,
    /// Bytes of objects received.
    pub bytes_down: u64,
    /// Bodies that were cut and asked for again from where they ended.
    pub resumed: u64,
}

#[derive(Debug, Default)]
struct KindCounters {
    ok: AtomicU64,
    retried: AtomicU64,
    absent: AtomicU64,
    changed: AtomicU64,
    failed: AtomicU64,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Ok,
    Retried,
    Absent,
    Changed,
    Failed,
}

impl Outcome {
    /// That of a request which is not sent again. That an object is not there, or is another one, is
    /// the answer to a question; that an upload is not there, or the bucket, is a failure.
    pub(super) fn of(failure: &RequestFailure) -> Self {
        match (failure.error.kind, failure.code.as_deref()) {
            (_, Some("NoSuchUpload")) => Outcome::Failed,
            (_, Some("ConditionalRequestConflict")) => Outcome::Changed,
            (StoreErrorKind::NotFound, _) => Outcome::Absent,
            (StoreErrorKind::Changed, _) => Outcome::Changed,
            _ => Outcome::Failed,
        }
    }
}

/// The counters themselves.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    kinds: [KindCounters; RequestKind::ALL.len()],
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    resumed: AtomicU64,
    telemetry: OnceLock<StoreTelemetry>,
}

impl Recorder {
    pub(super) fn set_telemetry(&self, telemetry: StoreTelemetry) -> Result<(), StoreTelemetry> {
        self.telemetry.set(telemetry)
    }

    pub(super) fn request(&self, kind: RequestKind, outcome: Outcome, latency: Duration) {
        let counters = &self.kinds[kind as usize];
        match outcome {
            Outcome::Ok => &counters.ok,
            Outcome::Retried => &counters.retried,
            Outcome::Absent => &counters.absent,
            Outcome::Changed => &counters.changed,
            Outcome::Failed => &counters.failed,
        }
        .fetch_add(1, Relaxed);
        if let Some(histogram) = self
            .telemetry
            .get()
            .and_then(|telemetry| telemetry.latency.get(kind as usize))
        {
            histogram.record(latency.as_secs_f64());
        }
    }

    pub(super) fn up(&self, bytes: u64) {
        self.bytes_up.fetch_add(bytes, Relaxed);
    }

    pub(super) fn down(&self, bytes: u64) {
        self.bytes_down.fetch_add(bytes, Relaxed);
    }

    pub(super) fn resumed(&self) {
        self.resumed.fetch_add(1, Relaxed);
    }

    pub(super) fn snapshot(&self, permits: &Permits) -> StoreStats {
        let (in_flight, waiting) = permits.usage();
        StoreStats {
            kinds: RequestKind::ALL
                .into_iter()
                .zip(&self.kinds)
                .map(|(kind, counters)| KindStats {
                    kind,
                    ok: counters.ok.load(Relaxed),
                    retried: counters.retried.load(Relaxed),
                    absent: counters.absent.load(Relaxed),
                    changed: counters.changed.load(Relaxed),
                    failed: counters.failed.load(Relaxed),
                })
                .collect(),
            priorities: permits::ALL
                .into_iter()
                .enumerate()
                .map(|(at, priority)| PriorityStats {
                    priority: permits::name(priority),
                    in_flight: in_flight[at],
                    waiting: waiting[at],
                })
                .collect(),
            bytes_up: self.bytes_up.load(Relaxed),
            bytes_down: self.bytes_down.load(Relaxed),
            resumed: self.resumed.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::codes::{Retry, judge};

    /// A look for a name that is not there counted as a failure, and no alert on failures was of use.
    #[test]
    fn only_what_is_no_answer_has_failed() {
        let outcome = |code: Option<&str>, status| {
            let (kind, _) = judge(code, status);
            let mut failure = RequestFailure::new(kind, Retry::Never, "");
            failure.code = code.map(str::to_owned);
            Outcome::of(&failure)
        };
        for (code, status, wanted) in [
            (None, 404, Outcome::Absent),
            (Some("NoSuchKey"), 404, Outcome::Absent),
            (None, 412, Outcome::Changed),
            (Some("PreconditionFailed"), 412, Outcome::Changed),
            (Some("ConditionalRequestConflict"), 409, Outcome::Changed),
            (Some("NoSuchUpload"), 404, Outcome::Failed),
            (Some("NoSuchBucket"), 404, Outcome::Failed),
            (Some("AccessDenied"), 403, Outcome::Failed),
            (Some("SlowDown"), 503, Outcome::Failed),
            (None, 409, Outcome::Failed),
        ] {
            assert_eq!(outcome(code, status), wanted, "{code:?} {status}");
        }
    }

    #[test]
    fn kinds_stand_at_their_own_index() {
        for (at, kind) in RequestKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at, "{kind:?}");
        }
    }
}
