//! Who may send a request now. The number of requests under way is bounded, and a long upload or a
//! readahead never stands in the way of a caller who waits for a few bytes.
//!
//! Of `total` permits uploads hold at most a half and readahead at most three quarters. Both
//! together leave an eighth free, so that an interactive request nearly always finds a permit at
//! once; when none is free it is the first to get the next one. After [`PASSED_MAX`] interactive
//! requests in a row that went past a waiting background request, one of those has its turn, so
//! that nobody waits for ever. Within a priority the first to come is the first to go.
//!
//! A permit covers a request from its first byte to the last byte of its answer. It is given back
//! while a call waits before its next attempt.

use std::collections::VecDeque;
use std::sync::Arc;

use ackfs_cache::store::Priority;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// How many interactive requests in a row may go past a waiting background request.
const PASSED_MAX: u32 = 8;

/// How many priorities there are.
const PRIORITIES: usize = 3;

/// The priorities in order of [`index`].
pub(super) const ALL: [Priority; PRIORITIES] =
    [Priority::Interactive, Priority::Readahead, Priority::Upload];

/// The priority as a metric's label.
pub(super) fn name(priority: Priority) -> &'static str {
    match priority {
        Priority::Interactive => "interactive",
        Priority::Readahead => "readahead",
        Priority::Upload => "upload",
    }
}

fn index(priority: Priority) -> usize {
    match priority {
        Priority::Interactive => 0,
        Priority::Readahead => 1,
        Priority::Upload => 2,
    }
}

/// Hands out permits.
#[derive(Debug, Clone)]
pub(super) struct Permits(Arc<PermitPool>);

#[derive(Debug)]
struct PermitPool {
    /// How many permits there are.
    total: usize,
    /// How many of them each priority may hold.
    each_max: [usize; PRIORITIES],
    /// How many of them readahead and uploads may hold together.
    background_max: usize,
    /// A leaf: nothing else is locked under it.
    state: Mutex<PoolState>,
}

#[derive(Debug, Default)]
struct PoolState {
    in_use: [usize; PRIORITIES],
    waiting: [VecDeque<oneshot::Sender<Permit>>; PRIORITIES],
    /// Interactive requests in a row that went past a waiting background request.
    passed: u32,
    /// Which background priority has the next turn.
    turn: usize,
}

/// The right to have one request under way. Dropping it passes it on.
#[derive(Debug)]
pub(super) struct Permit {
    pool: Arc<PermitPool>,
    priority: Priority,
}

impl Permits {
    /// `total` permits, at least one.
    pub(super) fn new(total: usize) -> Self {
        let total = total.max(1);
        let reserved = if total == 1 { 0 } else { (total / 8).max(1) };
        Self(Arc::new(PermitPool {
            total,
            each_max: [total, (total * 3 / 4).max(1), (total / 2).max(1)],
            background_max: total - reserved,
            state: Mutex::default(),
        }))
    }

    /// A permit of `priority`. Waits for its turn; dropping the future gives the place up.
    pub(super) async fn acquire(&self, priority: Priority) -> Permit {
        let receiver = {
            let mut state = self.0.state.lock();
            let first = state.waiting[index(priority)].is_empty();
            if first && self.0.has_room(&state, priority) {
                state.in_use[index(priority)] += 1;
                drop(state);
                return Permit {
                    pool: Arc::clone(&self.0),
                    priority,
                };
            }
            let (sender, receiver) = oneshot::channel();
            state.waiting[index(priority)].push_back(sender);
            receiver
        };
        receiver
            .await
            .expect("a waiter is taken from its queue only to be granted")
    }

    /// How many permits each priority holds and how many requests wait for one, in order of [`ALL`].
    pub(super) fn usage(&self) -> ([usize; PRIORITIES], [usize; PRIORITIES]) {
        let state = self.0.state.lock();
        let waiting = [0, 1, 2].map(|priority: usize| state.waiting[priority].len());
        (state.in_use, waiting)
    }
}

impl PermitPool {
    fn has_room(&self, state: &PoolState, priority: Priority) -> bool {
        let used: usize = state.in_use.iter().sum();
        let background = used - state.in_use[index(Priority::Interactive)];
        used < self.total
            && state.in_use[index(priority)] < self.each_max[index(priority)]
            && (priority == Priority::Interactive || background < self.background_max)
    }

    /// The next waiter that may go, with its permit counted. Waiters that gave up are dropped.
    fn next(&self, state: &mut PoolState) -> Option<(Priority, oneshot::Sender<Permit>)> {
        for queue in &mut state.waiting {
            while queue.front().is_some_and(oneshot::Sender::is_closed) {
                queue.pop_front();
            }
        }
        let ready = |state: &PoolState, priority: Priority| {
            !state.waiting[index(priority)].is_empty() && self.has_room(state, priority)
        };
        let background = match state.turn {
            0 => [Priority::Upload, Priority::Readahead],
            _ => [Priority::Readahead, Priority::Upload],
        }
        .into_iter()
        .find(|priority| ready(state, *priority));
        let priority = match (ready(state, Priority::Interactive), background) {
            (true, Some(priority)) if state.passed >= PASSED_MAX => priority,
            (true, _) => Priority::Interactive,
            (false, priority) => priority?,
        };
        if priority == Priority::Interactive {
            state.passed = if background.is_some() {
                state.passed + 1
            } else {
                0
            };
        } else {
            state.passed = 0;
            state.turn = usize::from(priority == Priority::Upload);
        }
        let sender = state.waiting[index(priority)].pop_front()?;
        state.in_use[index(priority)] += 1;
        Some((priority, sender))
    }

    fn release(self: &Arc<Self>, priority: Priority) {
        let mut granted = Vec::new();
        {
            let mut state = self.state.lock();
            state.in_use[index(priority)] -= 1;
            while let Some(next) = self.next(&mut state) {
                granted.push(next);
            }
        }
        // A waiter that gave up just now hands its permit back in `Permit::drop`, so this must
        // happen outside the lock.
        for (priority, sender) in granted {
            let _gave_up = sender.send(Permit {
                pool: Arc::clone(self),
                priority,
            });
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.pool.release(self.priority);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    async fn fill(permits: &Permits, priority: Priority) -> Vec<Permit> {
        let mut taken = Vec::new();
        while let Some(permit) = permits.acquire(priority).now_or_never() {
            taken.push(permit);
        }
        taken
    }

    #[tokio::test]
    async fn uploads_hold_a_half_and_readahead_three_quarters_at_most() {
        let permits = Permits::new(64);
        let uploads = fill(&permits, Priority::Upload).await;
        assert_eq!(uploads.len(), 32);
        drop(uploads);
        assert_eq!(fill(&permits, Priority::Readahead).await.len(), 48);
        assert_eq!(fill(&permits, Priority::Interactive).await.len(), 64);
    }

    #[tokio::test]
    async fn background_requests_leave_room_for_interactive_ones() {
        let permits = Permits::new(64);
        let _readahead = fill(&permits, Priority::Readahead).await;
        let _uploads = fill(&permits, Priority::Upload).await;
        assert_eq!(fill(&permits, Priority::Interactive).await.len(), 8);
    }

    #[tokio::test]
    async fn one_permit_serves_every_priority_in_turn() {
        let permits = Permits::new(1);
        for priority in ALL {
            drop(permits.acquire(priority).await);
        }
    }

    #[tokio::test]
    async fn interactive_goes_first_and_background_is_not_starved() {
        let permits = Permits::new(1);
        let taken = permits.acquire(Priority::Interactive).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for priority in
            std::iter::once(Priority::Upload).chain(std::iter::repeat_n(Priority::Interactive, 12))
        {
            let (permits, order) = (permits.clone(), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                let _permit = permits.acquire(priority).await;
                order.lock().push(priority);
            }));
            tokio::task::yield_now().await;
        }
        drop(taken);
        for task in tasks {
            task.await.unwrap();
        }
        let place = order
            .lock()
            .iter()
            .position(|priority| *priority == Priority::Upload);
        assert_eq!(place, Some(PASSED_MAX as usize));
    }

    #[tokio::test]
    async fn a_waiter_that_gives_up_leaves_nothing_behind() {
        let permits = Permits::new(1);
        let taken = permits.acquire(Priority::Upload).await;
        let waiters: Vec<_> = (0..100)
            .map(|_| {
                let permits = permits.clone();
                tokio::spawn(async move { permits.acquire(Priority::Upload).await })
            })
            .collect();
        tokio::task::yield_now().await;
        for waiter in &waiters {
            waiter.abort();
        }
        for waiter in waiters {
            assert!(waiter.await.unwrap_err().is_cancelled());
        }
        drop(taken);
        assert!(
            permits
                .acquire(Priority::Interactive)
                .now_or_never()
                .is_some()
        );
        assert_eq!(permits.usage(), ([0; 3], [0; 3]));
    }
}
