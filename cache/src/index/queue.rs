//! The keeper's queue: what ring threads and runtime workers want done on disk, in the order in
//! which they said so. Bytes to store are bounded and refused past the bound; all other jobs are
//! small and at most one an object. Adding never waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::held::Held;
use super::object::Object;
use crate::extent::Extent;
use crate::object::ObjectId;

/// Bytes that wait to be stored.
pub(crate) const QUEUED_BYTES_MAX: u64 = 32 << 20;

/// How long readahead waits for a disk that is behind. A disk that has not caught up by then is
/// slower than the store: reading goes on at the store's speed, and what the disk cannot take is
/// left out.
const PATIENCE: Duration = Duration::from_secs(10);

/// Jobs to store that wait; each takes memory beside its bytes.
const QUEUED_STORES_MAX: usize = 4096;

/// What the keeper does.
#[derive(Debug)]
pub(crate) enum Job {
    /// Store these bytes.
    Store {
        id: ObjectId,
        size: u64,
        extent: Extent,
        pieces: Vec<Bytes>,
    },
    /// It is out of the map: remove its file.
    Retire(Arc<Object>),
    /// It was dropped from what is held: give its room back.
    Punch { object: Arc<Object>, held: Held },
    /// Open its file and compare what is unverified.
    Verify(Arc<Object>),
    /// Say when all before this is done, and with `index`, when the index is on disk too.
    Sync {
        index: bool,
        reply: oneshot::Sender<()>,
    },
}

/// What came out of the queue.
#[derive(Debug)]
pub(crate) enum Next {
    Job(Job),
    /// The deadline passed.
    Idle,
    /// Closed, and nothing is left.
    Closed,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// A leaf lock.
    inner: Mutex<Inner>,
    added: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    jobs: VecDeque<Job>,
    stores: usize,
    bytes: u64,
    /// What the bytes belong to that were taken out last and may still be on their way.
    storing: Option<ObjectId>,
    /// Since when more than half of the bytes that may wait do.
    behind_since: Option<Instant>,
    closed: bool,
}

impl Inner {
    /// Notes that `bytes` changed.
    fn weigh(&mut self) {
        if self.bytes <= QUEUED_BYTES_MAX / 2 {
            self.behind_since = None;
        } else if self.behind_since.is_none() {
            self.behind_since = Some(Instant::now());
        }
    }
}

impl Queue {
    /// Adds a job; false if it is not taken: the queue is closed, or full of bytes.
    pub(crate) fn add(&self, job: Job) -> bool {
        let mut inner = self.inner.lock();
        if inner.closed {
            return false;
        }
        if let Job::Store { extent, .. } = &job {
            // One that is larger than the bound goes through an empty queue.
            let full =
                inner.bytes + extent.len > QUEUED_BYTES_MAX || inner.stores >= QUEUED_STORES_MAX;
            if full && inner.stores > 0 {
                return false;
            }
            inner.bytes += extent.len;
            inner.stores += 1;
            inner.weigh();
        }
        inner.jobs.push_back(job);
        drop(inner);
        self.added.notify_one();
        true
    }

    /// Takes out what waits to be stored of `id`.
    pub(crate) fn cancel(&self, id: &ObjectId) {
        let mut inner = self.inner.lock();
        let (mut stores, mut bytes) = (0, 0);
        inner.jobs.retain(|job| match job {
            Job::Store {
                id: stored, extent, ..
            } if stored == id => {
                stores += 1;
                bytes += extent.len;
                false
            }
            _ => true,
        });
        inner.stores -= stores;
        inner.bytes -= bytes;
        inner.weigh();
    }

    /// Whether bytes of `id` wait to be stored or are being stored.
    pub(crate) fn has(&self, id: &ObjectId) -> bool {
        let inner = self.inner.lock();
        let waits = |job: &Job| matches!(job, Job::Store { id: stored, .. } if stored == id);
        inner.storing.as_ref() == Some(id) || inner.jobs.iter().any(waits)
    }

    /// How many more bytes readahead had better bring: what is queued now and that together fit.
    /// `None` without a limit: the disk is slower than the store, and nobody waits for it any more.
    pub(crate) fn room(&self, now: Instant) -> Option<u64> {
        let inner = self.inner.lock();
        match inner.behind_since {
            Some(since) if now.saturating_duration_since(since) >= PATIENCE => None,
            _ => Some(QUEUED_BYTES_MAX.saturating_sub(inner.bytes)),
        }
    }

    /// The next job. Waits for one, until `deadline` if there is one.
    pub(crate) fn next(&self, deadline: Option<Instant>) -> Next {
        let mut inner = self.inner.lock();
        inner.storing = None;
        loop {
            if let Some(job) = inner.jobs.pop_front() {
                if let Job::Store { id, extent, .. } = &job {
                    inner.storing = Some(id.clone());
                    inner.bytes -= extent.len;
                    inner.stores -= 1;
                    inner.weigh();
                }
                return Next::Job(job);
            }
            if inner.closed {
                return Next::Closed;
            }
            match deadline {
                None => self.added.wait(&mut inner),
                Some(deadline) => {
                    let waited = self.added.wait_until(&mut inner, deadline);
                    if waited.timed_out() && inner.jobs.is_empty() && !inner.closed {
                        return Next::Idle;
                    }
                }
            }
        }
    }

    /// Takes no more jobs; those that are in it still come out.
    pub(crate) fn close(&self) {
        self.inner.lock().closed = true;
        self.added.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{ETag, Key};

    fn store(key: &str, len: u64) -> Job {
        Job::Store {
            id: ObjectId::new(Key::new(key), ETag::new("e")),
            size: len,
            extent: Extent::new(0, len),
            pieces: Vec::new(),
        }
    }

    #[test]
    fn bytes_past_the_bound_are_refused_and_one_large_store_goes_through() {
        let queue = Queue::default();
        assert!(queue.add(store("a", QUEUED_BYTES_MAX * 2)));
        assert!(!queue.add(store("b", 1)));
        assert!(matches!(queue.next(None), Next::Job(Job::Store { .. })));
        assert!(queue.add(store("b", QUEUED_BYTES_MAX)));
        assert!(!queue.add(store("c", 1)));
        queue.cancel(&ObjectId::new(Key::new("b"), ETag::new("e")));
        assert!(queue.add(store("c", 1)));
    }

    #[test]
    fn room_shrinks_with_what_waits_and_patience_with_a_slow_disk_ends() {
        let queue = Queue::default();
        let now = Instant::now();
        assert_eq!(queue.room(now), Some(QUEUED_BYTES_MAX));
        assert!(queue.add(store("a", QUEUED_BYTES_MAX / 2 + 1)));
        assert_eq!(queue.room(now), Some(QUEUED_BYTES_MAX / 2 - 1));
        let late = Instant::now() + PATIENCE;
        assert_eq!(queue.room(late), None);
        assert!(matches!(queue.next(None), Next::Job(Job::Store { .. })));
        assert_eq!(queue.room(late), Some(QUEUED_BYTES_MAX));
    }

    #[test]
    fn an_objects_bytes_are_there_until_the_next_job_is_asked_for() {
        let queue = Queue::default();
        let id = |key: &str| ObjectId::new(Key::new(key), ETag::new("e"));
        queue.add(store("a", 1));
        queue.add(store("b", 1));
        assert!(queue.has(&id("a")) && queue.has(&id("b")) && !queue.has(&id("c")));
        queue.next(None);
        assert!(queue.has(&id("a")));
        queue.next(None);
        assert!(!queue.has(&id("a")) && queue.has(&id("b")));
        queue.next(Some(Instant::now()));
        assert!(!queue.has(&id("b")));
    }

    #[test]
    fn a_closed_queue_gives_what_is_left_and_takes_nothing() {
        let queue = Queue::default();
        queue.add(store("a", 1));
        queue.close();
        assert!(!queue.add(store("b", 1)));
        assert!(matches!(queue.next(None), Next::Job(_)));
        assert!(matches!(queue.next(None), Next::Closed));
    }

    #[test]
    fn waiting_ends_at_the_deadline() {
        let queue = Queue::default();
        assert!(matches!(queue.next(Some(Instant::now())), Next::Idle));
    }
}
