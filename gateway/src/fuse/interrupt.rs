//! Who wants to know of INTERRUPT, which ones came too early, and which callers are to be let go.
//!
//! The kernel sends INTERRUPT over `/dev/fuse` with the number of the request whose caller gave up
//! (a signal came, and the caller can be released only by an answer). The request itself may come
//! over the ring, so INTERRUPT can overtake it, or come before its handler began to watch. Early
//! ones are therefore remembered, [`EARLY_MAX`] of them; the kernel numbers requests upwards and
//! never twice, so one that is never asked for does no harm and is pushed out by later ones.
//!
//! Only requests that wait are watched, so the table stays small and hits never touch it.
//!
//! An answer of EINTR reaches the program: FUSE restarts nothing, and few programs expect it of mkdir
//! or stat. INTERRUPT, however, comes for any signal, for the ticking of a timer too. So a caller that
//! is about to end is let go at once, and one that handles the signal only if its answer does not come
//! within [`GRACE`]: a store that stands still can be given up on, one that answers never fails a call.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use self::caller::CallerState;

mod caller;

/// How long an answer may still take when the caller has a signal to handle, or cannot be looked at.
const GRACE: Duration = Duration::from_secs(1);

/// How often the caller is looked at: the kernel sends one INTERRUPT, and its death may come after.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How many INTERRUPTs that nobody watches for are remembered.
const EARLY_MAX: usize = 256;

/// All watches of one connection.
#[derive(Debug, Default)]
pub(crate) struct Interrupts {
    /// Guards both collections; a leaf in the lock order, held for a few instructions.
    table: Mutex<WatchTable>,
    received: AtomicU64,
}

#[derive(Debug, Default)]
struct WatchTable {
    watched: HashMap<u64, (usize, Arc<Watch>)>,
    early: VecDeque<u64>,
}

#[derive(Debug, Default)]
struct Watch {
    fired: AtomicBool,
    notify: Notify,
}

impl Watch {
    fn fire(&self) {
        self.fired.store(true, Ordering::Release);
        self.notify.notify_waiters();
    }
}

impl Interrupts {
    /// The kernel says that the caller of `unique` gave up.
    pub(crate) fn fire(&self, unique: u64) {
        self.received.fetch_add(1, Ordering::Relaxed);
        let watch = {
            let mut table = self.table.lock();
            let Some((_, watch)) = table.watched.get(&unique) else {
                if table.early.len() == EARLY_MAX {
                    table.early.pop_front();
                }
                table.early.push_back(unique);
                return;
            };
            Arc::clone(watch)
        };
        watch.fire();
    }

    /// Begins to watch for `unique`, whose caller is the thread `caller`, or 0 if the kernel does not say.
    pub(crate) fn watch(self: &Arc<Self>, unique: u64, caller: u32) -> Interrupt {
        let mut table = self.table.lock();
        let (watchers, watch) = table.watched.entry(unique).or_default();
        *watchers += 1;
        let watch = Arc::clone(watch);
        if let Some(index) = table.early.iter().position(|early| *early == unique) {
            table.early.remove(index);
            watch.fire();
        }
        Interrupt {
            unique,
            caller,
            since: None,
            watch,
            interrupts: Arc::clone(self),
        }
    }

    /// How many INTERRUPTs came.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// Becomes ready when the caller of the request is to be let go. Owned, `Send`.
#[derive(Debug)]
pub struct Interrupt {
    unique: u64,
    caller: u32,
    /// When the INTERRUPT was noticed.
    since: Option<Instant>,
    watch: Arc<Watch>,
    interrupts: Arc<Interrupts>,
}

impl Interrupt {
    /// Waits until the caller is to be let go: it has a signal that ends it, or has had one to handle for
    /// a second. Never returns if that never happens. May be dropped and called again at any time.
    pub async fn interrupted(&mut self) {
        self.fired().await;
        let since = *self.since.get_or_insert_with(Instant::now);
        loop {
            match caller::look(self.caller) {
                CallerState::Ends => return,
                CallerState::Handles | CallerState::Unknown if since.elapsed() >= GRACE => return,
                _ => sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// Waits until INTERRUPT has come.
    async fn fired(&self) {
        let mut notified = pin!(self.watch.notify.notified());
        // Listed as a waiter before the flag is read, so that no INTERRUPT falls in between.
        notified.as_mut().enable();
        if !self.watch.fired.load(Ordering::Acquire) {
            notified.await;
        }
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        let mut table = self.interrupts.table.lock();
        if let Some((watchers, _)) = table.watched.get_mut(&self.unique) {
            *watchers -= 1;
            if *watchers == 0 {
                table.watched.remove(&self.unique);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    impl Interrupt {
        fn has_fired(&self) -> bool {
            self.fired().now_or_never().is_some()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_interrupt_wakes_its_request_and_no_other() {
        let interrupts = Arc::new(Interrupts::default());
        let mut one = interrupts.watch(2, 0);
        let mut other = interrupts.watch(4, 0);
        assert!(one.interrupted().now_or_never().is_none());
        let waiting = tokio::spawn(async move { one.interrupted().await });
        tokio::task::yield_now().await;
        interrupts.fire(2);
        waiting.await.expect("the waiter ends");
        assert!(other.interrupted().now_or_never().is_none());
        assert!(!other.has_fired());
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_go_on_gets_the_time_for_an_answer() {
        let interrupts = Arc::new(Interrupts::default());
        let begun = Instant::now();
        let mut unknown = interrupts.watch(2, 0);
        let mut waits = interrupts.watch(4, std::process::id());
        interrupts.fire(2);
        interrupts.fire(4);
        unknown.interrupted().await;
        assert!((GRACE..2 * GRACE).contains(&begun.elapsed()));
        // This process has no signal to handle.
        let waited = tokio::time::timeout(Duration::from_mins(1), waits.interrupted()).await;
        waited.expect_err("it waits for its answer");
    }

    #[test]
    fn an_interrupt_that_came_before_the_watch_counts() {
        let interrupts = Arc::new(Interrupts::default());
        interrupts.fire(8);
        assert!(interrupts.watch(8, 0).has_fired());
        assert!(!interrupts.watch(8, 0).has_fired(), "it counts once");
    }

    #[test]
    fn the_memory_of_early_interrupts_is_bounded() {
        let interrupts = Arc::new(Interrupts::default());
        for unique in 0..10 * EARLY_MAX as u64 {
            interrupts.fire(unique);
        }
        assert_eq!(interrupts.table.lock().early.len(), EARLY_MAX);
        assert!(!interrupts.watch(0, 0).has_fired());
        assert!(interrupts.watch(10 * EARLY_MAX as u64 - 1, 0).has_fired());
    }

    #[test]
    fn watches_that_are_dropped_leave_nothing_behind() {
        let interrupts = Arc::new(Interrupts::default());
        let first = interrupts.watch(6, 0);
        let second = interrupts.watch(6, 0);
        drop(first);
        interrupts.fire(6);
        assert!(second.has_fired());
        drop(second);
        assert!(interrupts.table.lock().watched.is_empty());
    }
}
