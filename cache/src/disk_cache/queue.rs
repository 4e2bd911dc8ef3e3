//! The writer's queue: what ring threads and runtime workers want done on disk, in the order in which
//! they said so, but for small writes that can wait (`deferred.rs`). Bytes to store are bounded and
//! refused past the bound (`backlog.rs`); all other jobs are small and at most one an object. Adding
//! never waits.
//!
//! Bytes that wait are paid for by whoever brought them, out of its budget, until they are on disk. If
//! the budget is short the queue gives up the oldest of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::backlog::Backlog;
use super::deferred::{self, DeferredWrites};
use super::job::{PendingWrite, WriterJob};
use crate::object::ObjectId;

/// The part of the queue's bytes that may be deferred.
const DEFERRED_PART: u64 = 6;

/// What came out of the queue.
#[derive(Debug)]
pub(crate) enum NextJob {
    Job(WriterJob),
    /// The deadline passed.
    Idle,
    /// Closed, and nothing is left.
    Closed,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct JobQueue {
    /// A leaf lock. What pays for bytes may take locks when it is dropped: it is dropped without this one.
    state: Mutex<JobQueueState>,
    added: Condvar,
    /// Bytes were taken out, or a reservation ended.
    taken: Notify,
}

#[derive(Debug)]
struct JobQueueState {
    jobs: VecDeque<WriterJob>,
    deferred: DeferredWrites,
    /// Of the writes in both.
    backlog: Backlog,
    /// What the bytes belong to that were taken out last and may still be on their way.
    storing: Option<ObjectId>,
    closed: bool,
}

impl JobQueueState {
    /// What was deferred waits no longer.
    fn release_deferred(&mut self) {
        while let Some(write) = self.deferred.pop() {
            self.jobs.push_back(WriterJob::Write(write));
        }
    }

    /// The job to do now.
    fn pop(&mut self, now: Instant) -> Option<WriterJob> {
        self.jobs.pop_front().or_else(|| {
            let all = self.closed.then(|| self.deferred.pop()).flatten();
            all.or_else(|| self.deferred.take(now))
                .map(WriterJob::Write)
        })
    }

    /// `newer` is about to be added. A deferred write of the same key must not come after it: one of
    /// the same version goes before it, an older version is given back as needless.
    fn overtake(&mut self, newer: &PendingWrite, now: Instant) -> Option<PendingWrite> {
        let older = self.deferred.remove(&newer.id.key)?;
        if older.id == newer.id {
            self.jobs.push_back(WriterJob::Write(older));
            return None;
        }
        self.backlog.remove(&older, now);
        Some(older)
    }
}

/// A place in the queue for bytes that are being fetched. Dropping it gives the place back.
#[derive(Debug)]
pub struct QueueReservation {
    queue: Arc<JobQueue>,
    len: u64,
}

impl Drop for QueueReservation {
    fn drop(&mut self) {
        self.queue.state.lock().backlog.end_reservation(self.len);
        self.queue.taken.notify_waiters();
    }
}

impl JobQueue {
    /// For at most `bytes_max` bytes that wait or are reserved.
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self {
            state: Mutex::new(JobQueueState {
                jobs: VecDeque::new(),
                deferred: DeferredWrites::new(bytes_max / DEFERRED_PART),
                backlog: Backlog::new(bytes_max),
                storing: None,
                closed: false,
            }),
            added: Condvar::new(),
            taken: Notify::new(),
        }
    }

    /// Reserves a place for `len` bytes that are about to be fetched. `None` if there is none, unless
    /// they `must` come, or the disk is slower than the store and nobody waits for it any more.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        len: u64,
        must: bool,
        now: Instant,
    ) -> Option<QueueReservation> {
        let reserved = self.state.lock().backlog.reserve(len, must, now);
        reserved.then(|| QueueReservation {
            queue: self.clone(),
            len,
        })
    }

    /// Adds bytes to store; false if they are not taken: the queue is closed, or full.
    pub(crate) fn add_write(
        &self,
        write: PendingWrite,
        reservation: Option<QueueReservation>,
        now: Instant,
    ) -> bool {
        let mut state = self.state.lock();
        if state.closed || state.backlog.refuses(&write, reservation.is_some()) {
            drop(state);
            return false;
        }
        state.backlog.add(&write, now);
        let needless = state.overtake(&write, now);
        state.jobs.push_back(WriterJob::Write(write));
        drop(state);
        // Only now: in between the bytes are counted twice, never not at all.
        drop((reservation, needless));
        self.added.notify_one();
        true
    }

    /// Adds bytes that can wait, if they are all of a small object, until less is published; false as
    /// above.
    pub(crate) fn add_deferred(&self, write: PendingWrite, now: Instant) -> bool {
        // Of several parts each would take the place of the one before.
        if write.extent.len > deferred::LEN_MAX || write.extent.len < write.size {
            return self.add_write(write, None, now);
        }
        let mut state = self.state.lock();
        if state.closed || state.backlog.refuses(&write, false) {
            drop(state);
            return false;
        }
        state.backlog.add(&write, now);
        let needless = state.deferred.put(write, now);
        if let Some(older) = &needless {
            state.backlog.remove(older, now);
        }
        // A writer that sleeps wakes up by itself when the first of them is due, and looks again.
        let wake = state.deferred.count() == 1 || state.deferred.is_over();
        drop(state);
        drop(needless);
        if wake {
            self.added.notify_one();
        }
        true
    }

    /// Adds a job that stores nothing; false if the queue is closed.
    pub(crate) fn add(&self, job: WriterJob) -> bool {
        debug_assert!(job.as_write().is_none(), "bytes are counted");
        let mut state = self.state.lock();
        if state.closed {
            drop(state);
            return false;
        }
        if matches!(job, WriterJob::Sync { .. }) {
            state.release_deferred();
        }
        state.jobs.push_back(job);
        drop(state);
        self.added.notify_one();
        true
    }

    /// Gives up the oldest bytes that somebody pays for. False if there are none.
    pub(crate) fn shed(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        let is_paid = |job: &WriterJob| job.as_write().is_some_and(|write| write.keep.is_some());
        let job = match state.jobs.iter().position(is_paid) {
            Some(index) => state.jobs.remove(index),
            None => state.deferred.pop().map(WriterJob::Write),
        };
        let Some(write) = job.as_ref().and_then(WriterJob::as_write) else {
            return false;
        };
        state.backlog.remove(write, now);
        drop(state);
        self.taken.notify_waiters();
        true
    }

    /// Gives up what waits to be stored of `id`.
    pub(crate) fn cancel(&self, id: &ObjectId, now: Instant) {
        let mut state = self.state.lock();
        let of_id = |job: &WriterJob| job.as_write().is_some_and(|write| write.id == *id);
        let (mut given_up, rest) = std::mem::take(&mut state.jobs)
            .into_iter()
            .partition::<VecDeque<WriterJob>, _>(of_id);
        state.jobs = rest;
        if state.deferred.has(id) {
            given_up.extend(state.deferred.remove(&id.key).map(WriterJob::Write));
        }
        for write in given_up.iter().filter_map(WriterJob::as_write) {
            state.backlog.remove(write, now);
        }
        drop(state);
        self.taken.notify_waiters();
    }

    /// Whether bytes of `id` wait to be stored or are being stored.
    pub(crate) fn has(&self, id: &ObjectId) -> bool {
        let state = self.state.lock();
        let of_id = |job: &WriterJob| job.as_write().is_some_and(|write| write.id == *id);
        state.storing.as_ref() == Some(id) || state.deferred.has(id) || state.jobs.iter().any(of_id)
    }

    /// See [`Backlog::is_far_behind`].
    pub(crate) fn is_far_behind(&self, now: Instant) -> bool {
        self.state.lock().backlog.is_far_behind(now)
    }

    /// Waits until the disk is no longer far behind, or nobody waits for it any more.
    pub(crate) async fn caught_up(&self) {
        loop {
            let taken = self.taken.notified();
            tokio::pin!(taken);
            taken.as_mut().enable();
            let left = {
                let (state, now) = (self.state.lock(), Instant::now());
                if state.closed || !state.backlog.is_far_behind(now) {
                    return;
                }
                state.backlog.patience_left(now)
            };
            // Either the disk took some, or its time is up: look again.
            let _ = tokio::time::timeout(left, taken).await;
        }
    }

    /// Waits until bytes leave the queue. False if nobody pays for any that are in it, or none leave
    /// it within `patience`.
    pub(crate) async fn progresses(&self, patience: Duration) -> bool {
        let taken = self.taken.notified();
        tokio::pin!(taken);
        taken.as_mut().enable();
        if !self.state.lock().backlog.has_paid() {
            return false;
        }
        tokio::time::timeout(patience, taken).await.is_ok()
    }

    /// The next job. Waits for one, until `deadline` if there is one.
    pub(crate) fn next(&self, deadline: Option<Instant>) -> NextJob {
        let mut state = self.state.lock();
        state.storing = None;
        loop {
            let now = Instant::now();
            if let Some(job) = state.pop(now) {
                if let Some(write) = job.as_write() {
                    state.storing = Some(write.id.clone());
                    state.backlog.remove(write, now);
                    self.taken.notify_waiters();
                }
                return NextJob::Job(job);
            }
            if state.closed {
                return NextJob::Closed;
            }
            if deadline.is_some_and(|deadline| deadline <= now) {
                return NextJob::Idle;
            }
            match [deadline, state.deferred.due()].into_iter().flatten().min() {
                None => self.added.wait(&mut state),
                Some(until) => {
                    // Whether it was woken or is late, it looks again.
                    self.added.wait_until(&mut state, until);
                }
            }
        }
    }

    /// Takes no more jobs; those that are in it still come out.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.added.notify_all();
        self.taken.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
