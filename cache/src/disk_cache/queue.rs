//! The keeper's queue: what ring threads and runtime workers want done on disk, in the order in
//! which they said so, but for small stores that can wait (`deferred.rs`). Bytes to store are bounded and
//! refused past the bound; all other jobs are small and at most one an object. Adding never waits.
//!
//! Bytes that wait are paid for by whoever brought them, out of its budget, until they are on disk. If
//! the budget is short the queue gives up the oldest of them. What nobody pays for has a bound of its own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, oneshot};

use super::deferred::{self, Later};
use super::extents::Held;
use super::object::Object;
use crate::extent::Extent;
use crate::memory::Keep;
use crate::object::ObjectId;

/// Bytes that wait to be stored or are expected, with the default memory. As much as readahead may have
/// under way then: on a disk that keeps up the queue is empty and nothing is held back.
pub(crate) const QUEUED_BYTES_MAX: u64 = 48 << 20;

/// The part of the queue's bytes that need not be paid for.
const UNPAID_PART: u64 = 6;

/// The part of them that may wait for others (`deferred.rs`).
const LATER_PART: u64 = 6;

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
    /// What pays for their memory.
    pub(crate) keep: Option<Keep>,
}

impl Store {
    /// Its bytes if nobody pays for them.
    fn unpaid(&self) -> u64 {
        match self.keep {
            Some(_) => 0,
            None => self.extent.len,
        }
    }
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
#[derive(Debug)]
pub(crate) struct Queue {
    /// A leaf lock, but for what is kept with bytes: it is dropped without the lock.
    inner: Mutex<Inner>,
    added: Condvar,
    /// Bytes were taken out.
    taken: Notify,
}

#[derive(Debug)]
struct Inner {
    jobs: VecDeque<Job>,
    later: Later,
    /// Bytes that may wait or be expected.
    bytes_max: u64,
    /// Those that wait, in both.
    stores: usize,
    /// Their bytes.
    bytes: u64,
    /// Those that nobody pays for.
    unpaid: u64,
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
        if self.bytes <= self.bytes_max / 2 {
            self.behind_since = None;
        } else if self.behind_since.is_none() {
            self.behind_since = Some(Instant::now());
        }
    }

    /// Whether `store` is too much. One that is larger than the bound goes alone, if it is paid for.
    fn is_full_for(&self, store: &Store, others: u64) -> bool {
        let len = store.extent.len;
        let full = self.bytes + others + len > self.bytes_max || self.stores >= QUEUED_STORES_MAX;
        let unpaid = store.keep.is_none() && self.unpaid + len > self.bytes_max / UNPAID_PART;
        unpaid || full && self.stores > 0
    }

    /// `store` is in it.
    fn count(&mut self, store: &Store) {
        self.bytes += store.extent.len;
        self.unpaid += store.unpaid();
        self.stores += 1;
        self.weigh();
    }

    /// `store` is not in it any more.
    fn uncount(&mut self, store: &Store) {
        self.bytes -= store.extent.len;
        self.unpaid -= store.unpaid();
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
    /// For at most `bytes_max` bytes that wait or are expected.
    pub(crate) fn new(bytes_max: u64) -> Self {
        let inner = Inner {
            jobs: VecDeque::new(),
            later: Later::new(bytes_max / LATER_PART),
            bytes_max,
            stores: 0,
            bytes: 0,
            unpaid: 0,
            expected: 0,
            storing: None,
            behind_since: None,
            closed: false,
        };
        Self {
            inner: Mutex::new(inner),
            added: Condvar::new(),
            taken: Notify::new(),
        }
    }

    /// Gives up the oldest bytes that somebody pays for. False if there are none.
    pub(crate) fn shed(&self) -> bool {
        let mut inner = self.inner.lock();
        let is_paid = |job: &Job| matches!(job, Job::Store(store) if store.keep.is_some());
        let store = match inner.jobs.iter().position(is_paid) {
            Some(index) => inner.jobs.remove(index),
            None => inner.later.pop().map(Job::Store),
        };
        let Some(Job::Store(store)) = &store else {
            return false;
        };
        inner.uncount(store);
        drop(inner);
        self.taken.notify_waiters();
        true
    }

    /// Waits until a job that stores leaves the queue. False if none is in it that is paid for, or none
    /// left it within `patience`.
    pub(crate) async fn goes_on(&self, patience: Duration) -> bool {
        let taken = self.taken.notified();
        tokio::pin!(taken);
        taken.as_mut().enable();
        {
            let inner = self.inner.lock();
            if inner.bytes == inner.unpaid {
                return false;
            }
        }
        tokio::time::timeout(patience, taken).await.is_ok()
    }

    /// Reserves room for `len` bytes that are about to be fetched. `None` if there is none, unless
    /// they `must` come, or the disk is slower than the store and nobody waits for it any more.
    pub(crate) fn expect(self: &Arc<Self>, len: u64, must: bool, now: Instant) -> Option<Expected> {
        let mut inner = self.inner.lock();
        let hopeless = inner.is_hopeless(now);
        // One that is larger than the bound goes alone.
        let taken = inner.bytes + inner.expected;
        if taken > 0 && taken + len > inner.bytes_max && !must && !hopeless {
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
        let mut needless = None;
        let mut inner = self.inner.lock();
        if inner.closed {
            drop(inner);
            return false;
        }
        match &job {
            Job::Store(store) => {
                let others = if reserved == 0 { inner.expected } else { 0 };
                if inner.is_full_for(store, others) {
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
                        needless = Some(older);
                    }
                }
            }
            Job::Sync { .. } => inner.hurry(),
            Job::Retire(_) | Job::Punch { .. } | Job::Verify(_) => {}
        }
        inner.jobs.push_back(job);
        drop(inner);
        // Only now: between the two the bytes are counted twice, never not at all.
        drop((expected, needless));
        self.added.notify_one();
        true
    }

    /// Adds bytes that can wait, if they are all of a small object, until less is published; false as
    /// above.
    pub(crate) fn add_later(&self, store: Store, now: Instant) -> bool {
        // Of parts the next one would take the place of the one before.
        if store.extent.len > deferred::LEN_MAX || store.extent.len < store.size {
            return self.add(Job::Store(store), None);
        }
        let mut inner = self.inner.lock();
        let others = inner.expected;
        if inner.closed || inner.is_full_for(&store, others) {
            drop(inner);
            return false;
        }
        inner.count(&store);
        let needless = inner.later.put(store, now);
        if let Some(older) = &needless {
            inner.uncount(older);
        }
        // Who sleeps wakes up by itself when the first of them would be due, and looks again.
        let wanted = inner.later.count() == 1 || inner.later.is_over();
        drop(inner);
        drop(needless);
        if wanted {
            self.added.notify_one();
        }
        true
    }

    /// Takes out what waits to be stored of `id`.
    pub(crate) fn cancel(&self, id: &ObjectId) {
        let mut inner = self.inner.lock();
        let of_id = |job: &Job| matches!(job, Job::Store(store) if store.id == *id);
        let (mut given_up, rest) = std::mem::take(&mut inner.jobs)
            .into_iter()
            .partition::<VecDeque<Job>, _>(of_id);
        inner.jobs = rest;
        if inner.later.has(id) {
            given_up.extend(inner.later.remove(&id.key).map(Job::Store));
        }
        for job in &given_up {
            if let Job::Store(store) = job {
                inner.uncount(store);
            }
        }
        drop(inner);
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
        !inner.is_hopeless(now) && inner.bytes > inner.bytes_max / 4 * 3
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
                if inner.closed || inner.is_hopeless(now) || inner.bytes <= inner.bytes_max / 4 * 3
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
mod tests;
