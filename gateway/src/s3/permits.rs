//! Who may send a request now. The number of requests under way is bounded, and a long upload or a
//! readahead never stands in the way of a caller who waits for a few bytes.
//!
//! Of `total` permits uploads hold at most a half and readahead at most three quarters. Both
//! together leave an eighth free, so that an interactive request nearly always finds a permit at
//! once; when none is free it is the first to get the next one. After [`PASSED_MAX`] interactive
//! requests in a row that went past a waiting background request, one of those has its turn, so
//! that nobody waits for ever. Within a lane the first to come is the first to go.
//!
//! A permit covers a request from its first byte to the last byte of its answer. It is given back
//! while a call waits before its next attempt.

use std::collections::VecDeque;
use std::sync::Arc;

use ackfs_cache::store::Lane;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// How many interactive requests in a row may go past a waiting background request.
const PASSED_MAX: u32 = 8;

/// How many lanes there are.
const LANES: usize = 3;

/// The lanes in order of [`index`].
pub(super) const ALL: [Lane; LANES] = [Lane::Interactive, Lane::Readahead, Lane::Upload];

/// The lane as a metric's label.
pub(super) fn name(lane: Lane) -> &'static str {
    match lane {
        Lane::Interactive => "interactive",
        Lane::Readahead => "readahead",
        Lane::Upload => "upload",
    }
}

fn index(lane: Lane) -> usize {
    match lane {
        Lane::Interactive => 0,
        Lane::Readahead => 1,
        Lane::Upload => 2,
    }
}

/// Hands out permits.
#[derive(Debug, Clone)]
pub(super) struct Lanes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// How many permits there are.
    total: usize,
    /// How many of them each lane may hold.
    lane_max: [usize; LANES],
    /// How many of them readahead and uploads may hold together.
    background_max: usize,
    /// A leaf: nothing else is locked under it.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    in_use: [usize; LANES],
    waiting: [VecDeque<oneshot::Sender<Permit>>; LANES],
    /// Interactive requests in a row that went past a waiting background request.
    passed: u32,
    /// Which background lane has the next turn.
    turn: usize,
}

/// The right to have one request under way. Dropping it passes it on.
#[derive(Debug)]
pub(super) struct Permit {
    shared: Arc<Shared>,
    lane: Lane,
}

impl Lanes {
    /// `total` permits, at least one.
    pub(super) fn new(total: usize) -> Self {
        let total = total.max(1);
        let reserved = if total == 1 { 0 } else { (total / 8).max(1) };
        Self(Arc::new(Shared {
            total,
            lane_max: [total, (total * 3 / 4).max(1), (total / 2).max(1)],
            background_max: total - reserved,
            state: Mutex::default(),
        }))
    }

    /// A permit of `lane`. Waits for its turn; dropping the future gives the place up.
    pub(super) async fn acquire(&self, lane: Lane) -> Permit {
        let receiver = {
            let mut state = self.0.state.lock();
            let first = state.waiting[index(lane)].is_empty();
            if first && self.0.has_room(&state, lane) {
                state.in_use[index(lane)] += 1;
                drop(state);
                return Permit {
                    shared: Arc::clone(&self.0),
                    lane,
                };
            }
            let (sender, receiver) = oneshot::channel();
            state.waiting[index(lane)].push_back(sender);
            receiver
        };
        receiver
            .await
            .expect("a waiter is taken from its queue only to be granted")
    }

    /// How many permits each lane holds and how many requests wait for one, in order of [`ALL`].
    pub(super) fn usage(&self) -> ([usize; LANES], [usize; LANES]) {
        let state = self.0.state.lock();
        let waiting = [0, 1, 2].map(|lane: usize| state.waiting[lane].len());
        (state.in_use, waiting)
    }
}

impl Shared {
    fn has_room(&self, state: &State, lane: Lane) -> bool {
        let used: usize = state.in_use.iter().sum();
        let background = used - state.in_use[index(Lane::Interactive)];
        used < self.total
            && state.in_use[index(lane)] < self.lane_max[index(lane)]
            && (lane == Lane::Interactive || background < self.background_max)
    }

    /// The next waiter that may go, with its permit counted. Waiters that gave up are dropped.
    fn next(&self, state: &mut State) -> Option<(Lane, oneshot::Sender<Permit>)> {
        for queue in &mut state.waiting {
            while queue.front().is_some_and(oneshot::Sender::is_closed) {
                queue.pop_front();
            }
        }
        let ready = |state: &State, lane: Lane| {
            !state.waiting[index(lane)].is_empty() && self.has_room(state, lane)
        };
        let background = match state.turn {
            0 => [Lane::Upload, Lane::Readahead],
            _ => [Lane::Readahead, Lane::Upload],
        }
        .into_iter()
        .find(|lane| ready(state, *lane));
        let lane = match (ready(state, Lane::Interactive), background) {
            (true, Some(lane)) if state.passed >= PASSED_MAX => lane,
            (true, _) => Lane::Interactive,
            (false, lane) => lane?,
        };
        if lane == Lane::Interactive {
            state.passed = if background.is_some() {
                state.passed + 1
            } else {
                0
            };
        } else {
            state.passed = 0;
            state.turn = usize::from(lane == Lane::Upload);
        }
        let sender = state.waiting[index(lane)].pop_front()?;
        state.in_use[index(lane)] += 1;
        Some((lane, sender))
    }

    fn release(self: &Arc<Self>, lane: Lane) {
        let mut granted = Vec::new();
        {
            let mut state = self.state.lock();
            state.in_use[index(lane)] -= 1;
            while let Some(next) = self.next(&mut state) {
                granted.push(next);
            }
        }
        // A waiter that gave up just now hands its permit back in `Permit::drop`, so this must
        // happen outside the lock.
        for (lane, sender) in granted {
            let _gave_up = sender.send(Permit {
                shared: Arc::clone(self),
                lane,
            });
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.release(self.lane);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    async fn fill(lanes: &Lanes, lane: Lane) -> Vec<Permit> {
        let mut permits = Vec::new();
        while let Some(permit) = lanes.acquire(lane).now_or_never() {
            permits.push(permit);
        }
        permits
    }

    #[tokio::test]
    async fn uploads_hold_a_half_and_readahead_three_quarters_at_most() {
        let lanes = Lanes::new(64);
        let uploads = fill(&lanes, Lane::Upload).await;
        assert_eq!(uploads.len(), 32);
        drop(uploads);
        assert_eq!(fill(&lanes, Lane::Readahead).await.len(), 48);
        assert_eq!(fill(&lanes, Lane::Interactive).await.len(), 64);
    }

    #[tokio::test]
    async fn background_requests_leave_room_for_interactive_ones() {
        let lanes = Lanes::new(64);
        let _readahead = fill(&lanes, Lane::Readahead).await;
        let _uploads = fill(&lanes, Lane::Upload).await;
        assert_eq!(fill(&lanes, Lane::Interactive).await.len(), 8);
    }

    #[tokio::test]
    async fn one_permit_serves_every_lane_in_turn() {
        let lanes = Lanes::new(1);
        for lane in ALL {
            drop(lanes.acquire(lane).await);
        }
    }

    #[tokio::test]
    async fn interactive_goes_first_and_background_is_not_starved() {
        let lanes = Lanes::new(1);
        let held = lanes.acquire(Lane::Interactive).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for lane in std::iter::once(Lane::Upload).chain(std::iter::repeat_n(Lane::Interactive, 12))
        {
            let (lanes, order) = (lanes.clone(), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                let _permit = lanes.acquire(lane).await;
                order.lock().push(lane);
            }));
            tokio::task::yield_now().await;
        }
        drop(held);
        for task in tasks {
            task.await.unwrap();
        }
        let place = order.lock().iter().position(|lane| *lane == Lane::Upload);
        assert_eq!(place, Some(PASSED_MAX as usize));
    }

    #[tokio::test]
    async fn a_waiter_that_gives_up_leaves_nothing_behind() {
        let lanes = Lanes::new(1);
        let held = lanes.acquire(Lane::Upload).await;
        let waiters: Vec<_> = (0..100)
            .map(|_| {
                let lanes = lanes.clone();
                tokio::spawn(async move { lanes.acquire(Lane::Upload).await })
            })
            .collect();
        tokio::task::yield_now().await;
        for waiter in &waiters {
            waiter.abort();
        }
        for waiter in waiters {
            assert!(waiter.await.unwrap_err().is_cancelled());
        }
        drop(held);
        assert!(lanes.acquire(Lane::Interactive).now_or_never().is_some());
        assert_eq!(lanes.usage(), ([0; 3], [0; 3]));
    }
}
