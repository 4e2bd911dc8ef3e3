//! What was asked of the store: a counter for each operation and the latest requests, for tests that claim "one PUT a
//! close".
//!
//! A request is counted when its head arrives, before any fault; its record is completed when its answer is made. The log
//! keeps the latest [`RECORDS_MAX`]; the counters know all.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

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
    counts: BTreeMap<&'static str, u64>,
    active: usize,
    active_max: usize,
}

impl Requests {
    /// Logs a request that begins; the guard completes it.
    pub(super) fn begin(&self, record: RequestRecord) -> InProgress {
        let mut log = self.log.lock();
        *log.counts.entry(record.operation).or_default() += 1;
        if log.records.len() == RECORDS_MAX {
            log.records.pop_front();
            log.first += 1;
        }
        log.records.push_back(record);
        log.active += 1;
        log.active_max = log.active_max.max(log.active);
        InProgress {
            requests: self.clone(),
            number: log.first + log.records.len() as u64 - 1,
        }
    }

    /// The kept records, oldest first.
    pub(super) fn records(&self) -> Vec<RequestRecord> {
        self.log.lock().records.iter().cloned().collect()
    }

    /// How often each operation was asked for.
    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.log.lock().counts.clone()
    }

    /// How often one operation was asked for.
    pub(super) fn count(&self, operation: &str) -> u64 {
        self.log.lock().counts.get(operation).copied().unwrap_or(0)
    }

    /// Most requests that were handled at the same time.
    pub(super) fn active_max(&self) -> usize {
        self.log.lock().active_max
    }

    /// Forgets records and counters; requests in progress still count as active.
    pub(super) fn reset(&self) {
        let mut log = self.log.lock();
        log.first += log.records.len() as u64;
        log.records.clear();
        log.counts.clear();
        log.active_max = log.active;
    }
}

/// A request that is being handled; dropping it ends that.
#[derive(Debug)]
pub(super) struct InProgress {
    requests: Requests,
    number: u64,
}

impl InProgress {
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
        assert_eq!(requests.count("PutObject"), 1);
        assert_eq!(requests.active_max(), 2);
    }
}
