//! The keeper's queue: what ring threads and runtime workers want done on disk, in the order in
//! which they said so. Bytes to store are bounded and refused past the bound; all other jobs are
//! small and at most one an object. Adding never waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, oneshot};

use super::held::Held;
use super::object::Object;
use crate::extent::Extent;
use crate::object::ObjectId;

/// Bytes that wait to be stored or are expected. As much as readahead may have under way with the
/// default memory: on a disk that keeps up the queue is empty and nothing is held back.
pub(crate) const QUEUED_BYTES_MAX: u64 = 48 << 20;

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
    /// Bytes were taken out.
    taken: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    jobs: VecDeque<Job>,
    stores: usize,
    bytes: u64,
    /// Bytes that are being fetched.
    expected: u64,
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

    /// The disk is slower than the store, and nobody waits for it any more.
    fn is_hopeless(&self, now: Instant) -> bool {
        self.behind_since
            .is_some_and(|since| now.saturating_duration_since(since) >= PATIENCE)
    }
}

/// Room in the queue for bytes that are being fetched. Dropping it gives the room back.
#[derive(Debug)]
pub struct Expected {
    queue: Arc<Queue>,
    len: u64,
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.queue.inner.lock().expected -= self.len;
        self.queue.taken.notify_waiters();
    }
}

impl Queue {
    /// Reserves room for `len` bytes that are about to be fetched. `None` if there is none, unless
    /// they `must` come, or the disk is slower than the store and nobody waits for it any more.
    pub(crate) fn expect(self: &Arc<Self>, len: u64, must: bool, now: Instant) -> Option<Expected> {
        let mut inner = self.inner.lock();
        let hopeless = inner.is_hopeless(now);
        // One that is larger than the bound goes alone.
        let taken = inner.bytes + inner.expected;
        if taken > 0 && taken + len > QUEUED_BYTES_MAX && !must && !hopeless {
            return None;
        }
        inner.expected += len;
        drop(inner);
        Some(Expected {
            queue: self.clone(),
            len,
        })
    }

    /// Adds a job; false if it is not taken: the queue is closed, or full of bytes. Bytes that are
    /// `expected` have their room.
    pub(crate) fn add(&self, job: Job, expected: Option<Expected>) -> bool {
        let reserved = expected.as_ref().map_or(0, |expected| expected.len);
        let mut inner = self.inner.lock();
        if inner.closed {
            drop(inner);
            return false;
        }
        if let Job::Store { extent, .. } = &job {
            let others = if reserved == 0 { inner.expected } else { 0 };
            let full = inner.bytes + others + extent.len > QUEUED_BYTES_MAX
                || inner.stores >= QUEUED_STORES_MAX;
            if full && inner.stores > 0 {
                drop(inner);
                return false;
            }
            inner.bytes += extent.len;
            inner.stores += 1;
            inner.weigh();
        }
        inner.jobs.push_back(job);
        drop(inner);
        // Only now: between the two the bytes are counted twice, never not at all.
        drop(expected);
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
        self.taken.notify_waiters();
    }

    /// Whether bytes of `id` wait to be stored or are being stored.
    pub(crate) fn has(&self, id: &ObjectId) -> bool {
        let inner = self.inner.lock();
        let waits = |job: &Job| matches!(job, Job::Store { id: stored, .. } if stored == id);
        inner.storing.as_ref() == Some(id) || inner.jobs.iter().any(waits)
    }

    /// Whether the disk is far behind, and worth waiting for. What is only expected does not count:
    /// streams that reserve again and again would hold up one that waits for ever.
    pub(crate) fn is_full(&self, now: Instant) -> bool {
        let inner = self.inner.lock();
        !inner.is_hopeless(now) && inner.bytes > QUEUED_BYTES_MAX / 4 * 3
    }

    /// Waits until the disk is no longer that far behind, or nobody waits for it any more.
    pub(crate) async fn roomy(&self) {
        loop {
            let taken = self.taken.notified();
            tokio::pin!(taken);
            taken.as_mut().enable();
            let now = Instant::now();
            let since = {
                let inner = self.inner.lock();
                if inner.closed || inner.is_hopeless(now) || inner.bytes <= QUEUED_BYTES_MAX / 4 * 3
                {
                    return;
                }
                inner.behind_since.unwrap_or(now)
            };
            let left = PATIENCE.saturating_sub(now.saturating_duration_since(since));
            // Either the disk took some, or its time is up: look again.
            let _ = tokio::time::timeout(left, taken).await;
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
                    self.taken.notify_waiters();
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
        self.taken.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

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
        assert!(queue.add(store("a", QUEUED_BYTES_MAX * 2), None));
        assert!(!queue.add(store("b", 1), None));
        assert!(matches!(queue.next(None), Next::Job(Job::Store { .. })));
        assert!(queue.add(store("b", QUEUED_BYTES_MAX), None));
        assert!(!queue.add(store("c", 1), None));
        queue.cancel(&ObjectId::new(Key::new("b"), ETag::new("e")));
        assert!(queue.add(store("c", 1), None));
    }

    #[test]
    fn expected_bytes_have_their_room_and_others_are_refused_for_them() {
        let queue = Arc::new(Queue::default());
        let now = Instant::now();
        let half = QUEUED_BYTES_MAX / 2;
        let first = queue.expect(half, false, now).unwrap();
        let second = queue.expect(half, false, now).unwrap();
        assert!(queue.expect(1, false, now).is_none());
        assert!(
            !queue.is_full(now),
            "nobody waits for what is only expected"
        );
        assert!(queue.add(store("a", half), Some(first)));
        assert!(!queue.add(store("b", 1), None), "the room is another's");
        assert!(queue.add(store("c", half), Some(second)));
        assert!(matches!(queue.next(None), Next::Job(Job::Store { .. })));
        drop(queue.expect(half, false, now).unwrap());
        assert!(queue.add(store("d", half), None), "it was given back");
    }

    #[test]
    fn patience_with_a_slow_disk_ends() {
        let queue = Arc::new(Queue::default());
        assert!(queue.add(store("a", QUEUED_BYTES_MAX), None));
        let now = Instant::now();
        assert!(queue.expect(1, false, now).is_none() && queue.is_full(now));
        assert!(queue.expect(1, true, now).is_some());
        let late = now + PATIENCE;
        assert!(queue.expect(1, false, late).is_some() && !queue.is_full(late));
    }

    #[tokio::test(start_paused = true)]
    async fn who_outran_the_disk_waits_for_room_and_not_for_a_disk_that_stands_still() {
        let mut context = Context::from_waker(Waker::noop());
        let queue = Queue::default();
        queue.roomy().await;
        queue.add(store("a", QUEUED_BYTES_MAX / 2), None);
        queue.add(store("b", QUEUED_BYTES_MAX / 2), None);
        let mut waits = std::pin::pin!(queue.roomy());
        assert!(waits.as_mut().poll(&mut context).is_pending());
        queue.next(None);
        assert!(waits.as_mut().poll(&mut context).is_ready());
        queue.add(store("c", QUEUED_BYTES_MAX / 2), None);
        let mut waits = std::pin::pin!(queue.roomy());
        assert!(waits.as_mut().poll(&mut context).is_pending());
        queue.close();
        assert!(waits.as_mut().poll(&mut context).is_ready());
    }

    #[test]
    fn an_objects_bytes_are_there_until_the_next_job_is_asked_for() {
        let queue = Queue::default();
        let id = |key: &str| ObjectId::new(Key::new(key), ETag::new("e"));
        queue.add(store("a", 1), None);
        queue.add(store("b", 1), None);
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
        queue.add(store("a", 1), None);
        queue.close();
        assert!(!queue.add(store("b", 1), None));
        assert!(matches!(queue.next(None), Next::Job(_)));
        assert!(matches!(queue.next(None), Next::Closed));
    }

    #[test]
    fn waiting_ends_at_the_deadline() {
        let queue = Queue::default();
        assert!(matches!(queue.next(Some(Instant::now())), Next::Idle));
    }
}
