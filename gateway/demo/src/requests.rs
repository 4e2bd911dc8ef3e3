//! What was asked of the store: counters for each operation and the latest requests, for tests that claim "one PUT a
//! close" or "less than 24 MiB over the wire".
//!
//! A request is counted when its head arrives, before any fault; its record is completed when its answer is made. Bytes
//! are counted as the pieces of bodies go by, in the form that they have on the wire: chunks of a signed stream with
//! their heads, answers that are cut only so far. Heads of requests and answers are not counted. The log keeps the latest
//! [`RECORDS_MAX`] requests; the counters know all.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{AddAssign, Sub};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Most records that are kept.
pub const RECORDS_MAX: usize = 100_000;

/// One request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestRecord {
    /// Name in the S3 API, `PutObject` for example; `Other` for what the store does not serve.
    pub operation: &'static str,
    /// The bucket, empty for ListBuckets.
    pub bucket: String,
    /// The key; for listings the prefix.
    pub key: String,
    /// The raw query string.
    pub query: String,
    /// The `Range` header, or that of the copy's source.
    pub range: Option<String>,
    /// The `If-Match` header.
    pub if_match: Option<String>,
    /// The `If-None-Match` header.
    pub if_none_match: Option<String>,
    /// Length of the body that was announced, in bytes.
    pub body_len: Option<u64>,
    /// Status of the answer; `None` while it is being handled, and if the answer was lost or never made.
    pub status: Option<u16>,
    /// `Content-Length` of the answer, in bytes.
    pub answer_len: Option<u64>,
    /// Value of `x-amz-request-id`.
    pub request_id: String,
    /// True if a fault touched it.
    pub faulted: bool,
}

/// What requests came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// How many there were, faults included.
    pub requests: u64,
    /// Bytes of their bodies that arrived.
    pub received: u64,
    /// Bytes of the answers' bodies that went out.
    pub sent: u64,
}

impl Traffic {
    /// Bytes of bodies in both directions.
    pub fn bytes(&self) -> u64 {
        self.received + self.sent
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.received += other.received;
        self.sent += other.sent;
    }
}

impl Sub for Traffic {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            requests: self.requests - before.requests,
            received: self.received - before.received,
            sent: self.sent - before.sent,
        }
    }
}

/// Counts the traffic of one operation while it goes by.
#[derive(Debug, Default)]
pub(super) struct Meter {
    requests: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

impl Meter {
    /// A piece of a request's body has arrived.
    pub(super) fn received(&self, len: usize) {
        self.received.fetch_add(len as u64, Ordering::Relaxed);
    }

    /// A piece of an answer's body goes out.
    pub(super) fn sent(&self, len: usize) {
        self.sent.fetch_add(len as u64, Ordering::Relaxed);
    }

    fn read(&self) -> Traffic {
        Traffic {
            requests: self.requests.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
        }
    }
}

/// The log of a server.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests {
    log: Arc<Mutex<Log>>,
}

#[derive(Debug, Default)]
struct Log {
    /// Number of the first record that is kept.
    first: u64,
    records: VecDeque<RequestRecord>,
    meters: BTreeMap<&'static str, Arc<Meter>>,
    active: usize,
    active_max: usize,
}

impl Requests {
    /// Logs a request that begins; the guard completes it.
    pub(super) fn begin(&self, record: RequestRecord) -> InProgress {
        let mut log = self.log.lock();
        let meter = log.meters.entry(record.operation).or_default().clone();
        meter.requests.fetch_add(1, Ordering::Relaxed);
        if log.records.len() == RECORDS_MAX {
            log.records.pop_front();
            log.first += 1;
        }
        log.records.push_back(record);
        log.active += 1;
        log.active_max = log.active_max.max(log.active);
        InProgress {
            requests: self.clone(),
            meter,
            number: log.first + log.records.len() as u64 - 1,
        }
    }

    /// The kept records, oldest first.
    pub(super) fn records(&self) -> Vec<RequestRecord> {
        self.log.lock().records.iter().cloned().collect()
    }

    /// The traffic of each operation that was asked for.
    pub(super) fn traffic(&self) -> BTreeMap<&'static str, Traffic> {
        let log = self.log.lock();
        let read = |(operation, meter): (&&'static str, &Arc<Meter>)| (*operation, meter.read());
        log.meters.iter().map(read).collect()
    }

    /// The traffic of one operation.
    pub(super) fn traffic_of(&self, operation: &str) -> Traffic {
        let log = self.log.lock();
        let meter = log.meters.get(operation);
        meter.map_or_else(Traffic::default, |meter| meter.read())
    }

    /// Most requests that were handled at the same time.
    pub(super) fn active_max(&self) -> usize {
        self.log.lock().active_max
    }

    /// Forgets records and counters; requests in progress still count as active, and what they still move is not counted.
    pub(super) fn reset(&self) {
        let mut log = self.log.lock();
        log.first += log.records.len() as u64;
        log.records.clear();
        log.meters.clear();
        log.active_max = log.active;
    }
}

/// A request that is being handled; dropping it ends that.
#[derive(Debug)]
pub(super) struct InProgress {
    requests: Requests,
    meter: Arc<Meter>,
    number: u64,
}

impl InProgress {
    /// Where its bytes are counted.
    pub(super) fn meter(&self) -> Arc<Meter> {
        self.meter.clone()
    }

    /// Completes the record, if it is still kept.
    pub(super) fn update(&self, change: impl FnOnce(&mut RequestRecord)) {
        let mut log = self.requests.log.lock();
        let index = self
            .number
            .checked_sub(log.first)
            .and_then(|index| usize::try_from(index).ok());
        if let Some(record) = index.and_then(|index| log.records.get_mut(index)) {
            change(record);
        }
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.requests.log.lock().active -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put() -> RequestRecord {
        RequestRecord {
            operation: "PutObject",
            ..Default::default()
        }
    }

    #[test]
    fn a_reset_leaves_later_records_to_their_requests() {
        let requests = Requests::default();
        let before = requests.begin(put());
        requests.reset();
        let after = requests.begin(put());
        before.update(|record| record.status = Some(500));
        after.update(|record| record.status = Some(200));
        let records = requests.records();
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].status, Some(200));
        assert_eq!(requests.traffic_of("PutObject").requests, 1);
        assert_eq!(requests.active_max(), 2);
    }
}
