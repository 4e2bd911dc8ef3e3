//! The keeper's queue: what ring threads and runtime workers want done on disk, in the order in
//! which they said so, but for small stores that can wait (`later.rs`). Bytes to store are bounded and
//! refused past the bound; all other jobs are small and at most one an object. Adding never waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, oneshot};

use super::held::Held;
use super::later::{self, Later};
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

/// Bytes to store: `extent` of `id`, whose whole size is `size`.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) id: ObjectId,
    pub(crate) size: u64,
    pub(crate) extent: Extent,
    pub(crate) pieces: Vec<Bytes>,
}

/// What the keeper does.
#[derive(Debug)]
pub(crate) enum Job {
    /// Store these bytes.
    Store(Store),
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
    later: Later,
    /// Those that wait, in both.
    stores: usize,
    /// Their bytes.
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

    /// Whether `len` bytes more are too many. One that is larger than the bound goes alone.
    fn is_full_for(&self, len: u64, others: u64) -> bool {
        let full = self.bytes + others + len > QUEUED_BYTES_MAX || self.stores >= QUEUED_STORES_MAX;
        full && self.stores > 0
    }

    /// `store` is in it.
    fn count(&mut self, store: &Store) {
        self.bytes += store.extent.len;
        self.stores += 1;
        self.weigh();
    }

    /// `store` is not in it any more.
    fn uncount(&mut self, store: &Store) {
        self.bytes -= store.extent.len;
        self.stores -= 1;
        self.weigh();
    }

    /// What can wait waits no longer.
    fn hurry(&mut self) {
        while let Some(store) = self.later.pop() {
            self.jobs.push_back(Job::Store(store));
        }
    }

    /// The job to do now.
    fn pop(&mut self, now: Instant) -> Option<Job> {
        self.jobs.pop_front().or_else(|| {
            let all = self.closed.then(|| self.later.pop()).flatten();
            all.or_else(|| self.later.take(now)).map(Job::Store)
        })
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
        match &job {
            Job::Store(store) => {
                let others = if reserved == 0 { inner.expected } else { 0 };
                if inner.is_full_for(store.extent.len, others) {
                    drop(inner);
                    return false;
                }
                inner.count(store);
                // It may be a newer version than one that waits, which must not come after it.
                if let Some(older) = inner.later.remove(&store.id.key) {
                    if older.id == store.id {
                        inner.jobs.push_back(Job::Store(older));
                    } else {
                        inner.uncount(&older);
                    }
                }
            }
            Job::Sync { .. } => inner.hurry(),
            Job::Retire(_) | Job::Punch { .. } | Job::Verify(_) => {}
        }
        inner.jobs.push_back(job);
        drop(inner);
        // Only now: between the two the bytes are counted twice, never not at all.
        drop(expected);
        self.added.notify_one();
        true
    }

    /// Adds bytes that can wait, if they are all of a small object, until less is published; false as
    /// above.
    pub(crate) fn add_later(&self, store: Store, now: Instant) -> bool {
        // Of parts the next one would take the place of the one before.
        if store.extent.len > later::LEN_MAX || store.extent.len < store.size {
            return self.add(Job::Store(store), None);
        }
        let mut inner = self.inner.lock();
        let others = inner.expected;
        if inner.closed || inner.is_full_for(store.extent.len, others) {
            drop(inner);
            return false;
        }
        inner.count(&store);
        if let Some(older) = inner.later.put(store, now) {
            inner.uncount(&older);
        }
        // Who sleeps wakes up by itself when the first of them would be due, and looks again.
        let wanted = inner.later.count() == 1 || inner.later.is_over();
        drop(inner);
        if wanted {
            self.added.notify_one();
        }
        true
    }

    /// Takes out what waits to be stored of `id`.
    pub(crate) fn cancel(&self, id: &ObjectId) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let (mut stores, mut bytes) = (0, 0);
        inner.jobs.retain(|job| match job {
            Job::Store(store) if store.id == *id => {
                stores += 1;
                bytes += store.extent.len;
                false
            }
            _ => true,
        });
        inner.stores -= stores;
        inner.bytes -= bytes;
        if inner.later.has(id)
            && let Some(store) = inner.later.remove(&id.key)
        {
            inner.uncount(&store);
        }
        inner.weigh();
        self.taken.notify_waiters();
    }

    /// Whether bytes of `id` wait to be stored or are being stored.
    pub(crate) fn has(&self, id: &ObjectId) -> bool {
        let inner = self.inner.lock();
        let waits = |job: &Job| matches!(job, Job::Store(store) if store.id == *id);
        inner.storing.as_ref() == Some(id) || inner.later.has(id) || inner.jobs.iter().any(waits)
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
            let now = Instant::now();
            if let Some(job) = inner.pop(now) {
                if let Job::Store(store) = &job {
                    inner.storing = Some(store.id.clone());
                    inner.uncount(store);
                    self.taken.notify_waiters();
                }
                return Next::Job(job);
            }
            if inner.closed {
                return Next::Closed;
            }
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Next::Idle;
            }
            match [deadline, inner.later.due()].into_iter().flatten().min() {
                None => self.added.wait(&mut inner),
                Some(until) => {
                    // Whether it was woken or is late, it looks again.
                    self.added.wait_until(&mut inner, until);
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

    fn version(key: &str, etag: &str, len: u64) -> Store {
        Store {
            id: ObjectId::new(Key::new(key), ETag::new(etag)),
            size: len,
            extent: Extent::new(0, len),
            pieces: Vec::new(),
        }
    }

    fn store(key: &str, len: u64) -> Job {
        Job::Store(version(key, "e", len))
    }

    /// The etags of what comes out now.
    fn out(queue: &Queue) -> Vec<String> {
        let next = || match queue.next(Some(Instant::now())) {
            Next::Job(Job::Store(store)) => Some(store.id.etag.as_str().to_owned()),
            Next::Job(job) => Some(format!("{job:?}")),
            Next::Idle | Next::Closed => None,
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn what_can_wait_waits_for_others_and_for_quiet() {
        let queue = Queue::default();
        let now = Instant::now();
        let id = |etag: &str| ObjectId::new(Key::new("a"), ETag::new(etag));
        let long = now + Duration::from_hours(1);
        assert!(queue.add_later(version("a", "late", 10), long));
        assert!(queue.has(&id("late")));
        assert!(queue.add(Job::Store(version("b", "first", 10)), None));
        assert_eq!(out(&queue), ["first"]);
        // Long ago is quiet enough.
        let past = now.checked_sub(Duration::from_secs(60)).expect("a past");
        assert!(queue.add_later(version("c", "then", 10), past));
        assert_eq!(out(&queue), ["late", "then"]);
        let large = version("d", "large", later::LEN_MAX + 1);
        assert!(queue.add_later(large, now));
        assert_eq!(out(&queue), ["large"], "its bytes cost more than its file");
        for offset in [0, 10] {
            let extent = Extent::new(offset, 10);
            let part = Store {
                extent,
                ..version("e", "part", 100)
            };
            assert!(queue.add_later(part, now));
        }
        assert_eq!(out(&queue), ["part", "part"], "none takes another's place");
        assert_eq!(queue.inner.lock().bytes, 0);
    }

    #[test]
    fn a_newer_version_never_comes_before_an_older_one() {
        let queue = Queue::default();
        let now = Instant::now();
        assert!(queue.add_later(version("a", "1", 10), now));
        assert!(queue.add_later(version("a", "2", 10), now));
        assert!(queue.add(Job::Store(version("a", "3", 10)), None));
        assert_eq!(out(&queue), ["3"]);
        assert!(queue.add_later(version("a", "4", 10), now));
        assert!(queue.add(Job::Store(version("a", "4", 5)), None));
        assert_eq!(out(&queue), ["4", "4"], "another part of the same version");
        assert!(queue.add_later(version("a", "5", 10), now));
        queue.cancel(&ObjectId::new(Key::new("a"), ETag::new("5")));
        assert_eq!(out(&queue), [""; 0]);
        let inner = queue.inner.lock();
        assert_eq!((inner.bytes, inner.stores), (0, 0));
    }

    #[test]
    fn who_waits_for_the_disk_and_who_closes_has_it_all_done() {
        let queue = Queue::default();
        let now = Instant::now();
        assert!(queue.add_later(version("a", "1", 10), now));
        let (reply, _done) = oneshot::channel();
        queue.add(
            Job::Sync {
                index: false,
                reply,
            },
            None,
        );
        assert!(matches!(queue.next(None), Next::Job(Job::Store(_))));
        assert!(matches!(queue.next(None), Next::Job(Job::Sync { .. })));
        assert!(queue.add_later(version("b", "2", 10), now));
        queue.close();
        assert!(!queue.add_later(version("c", "3", 10), now));
        assert!(matches!(queue.next(None), Next::Job(Job::Store(_))));
        assert!(matches!(queue.next(None), Next::Closed));
    }

    #[test]
    fn a_keeper_that_sleeps_wakes_up_for_what_waited() {
        let queue = Queue::default();
        queue.add_later(version("a", "1", 10), Instant::now());
        assert!(matches!(queue.next(None), Next::Job(Job::Store(_))));
    }

    #[test]
    fn bytes_past_the_bound_are_refused_and_one_large_store_goes_through() {
        let queue = Queue::default();
        assert!(queue.add(store("a", QUEUED_BYTES_MAX * 2), None));
        assert!(!queue.add(store("b", 1), None));
        assert!(matches!(queue.next(None), Next::Job(Job::Store(_))));
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
        assert!(matches!(queue.next(None), Next::Job(Job::Store(_))));
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
