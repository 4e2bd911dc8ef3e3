//! Who wants to know of INTERRUPT, and which ones came too early.
//!
//! The kernel sends INTERRUPT over `/dev/fuse` with the number of the request whose caller gave up
//! (a signal came, and the caller can be released only by an answer). The request itself may come
//! over the ring, so INTERRUPT can overtake it, or come before its handler began to watch. Early
//! ones are therefore remembered, [`EARLY_MAX`] of them; the kernel numbers requests upwards and
//! never twice, so one that is never asked for does no harm and is pushed out by later ones.
//!
//! Only requests that wait are watched, so the table stays small and hits never touch it.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// How many INTERRUPTs that nobody watches for are remembered.
const EARLY_MAX: usize = 256;

/// All watches of one connection.
#[derive(Debug, Default)]
pub(crate) struct Interrupts {
    /// Guards both collections; a leaf in the lock order, held for a few instructions.
    table: Mutex<Table>,
    received: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
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

    /// Begins to watch for `unique`.
    pub(crate) fn watch(self: &Arc<Self>, unique: u64) -> Interrupt {
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
            watch,
            interrupts: Arc::clone(self),
        }
    }

    /// How many INTERRUPTs came.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// Becomes ready when the kernel sends INTERRUPT for the request. Owned, `Send`.
#[derive(Debug)]
pub struct Interrupt {
    unique: u64,
    watch: Arc<Watch>,
    interrupts: Arc<Interrupts>,
}

impl Interrupt {
    /// Waits until the caller gave up. Never returns if that never happens. May be dropped and
    /// called again at any time.
    pub async fn interrupted(&mut self) {
        let mut notified = pin!(self.watch.notify.notified());
        // Listed as a waiter before the flag is read, so that no INTERRUPT falls in between.
        notified.as_mut().enable();
        if !self.is_interrupted() {
            notified.await;
        }
    }

    /// Whether the caller gave up already. Never waits.
    pub fn is_interrupted(&self) -> bool {
        self.watch.fired.load(Ordering::Acquire)
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

    #[tokio::test]
    async fn an_interrupt_wakes_its_request_and_no_other() {
        let interrupts = Arc::new(Interrupts::default());
        let mut one = interrupts.watch(2);
        let mut other = interrupts.watch(4);
        assert!(one.interrupted().now_or_never().is_none());
        let waiting = tokio::spawn(async move { one.interrupted().await });
        tokio::task::yield_now().await;
        interrupts.fire(2);
        waiting.await.expect("the waiter ends");
        assert!(other.interrupted().now_or_never().is_none());
        assert!(!other.is_interrupted());
    }

    #[tokio::test]
    async fn an_interrupt_that_came_before_the_watch_counts() {
        let interrupts = Arc::new(Interrupts::default());
        interrupts.fire(8);
        interrupts.watch(8).interrupted().await;
        assert!(!interrupts.watch(8).is_interrupted(), "it counts once");
    }

    #[test]
    fn the_memory_of_early_interrupts_is_bounded() {
        let interrupts = Arc::new(Interrupts::default());
        for unique in 0..10 * EARLY_MAX as u64 {
            interrupts.fire(unique);
        }
        assert_eq!(interrupts.table.lock().early.len(), EARLY_MAX);
        assert!(!interrupts.watch(0).is_interrupted());
        assert!(interrupts.watch(10 * EARLY_MAX as u64 - 1).is_interrupted());
    }

    #[test]
    fn watches_that_are_dropped_leave_nothing_behind() {
        let interrupts = Arc::new(Interrupts::default());
        let first = interrupts.watch(6);
        let second = interrupts.watch(6);
        drop(first);
        interrupts.fire(6);
        assert!(second.is_interrupted());
        drop(second);
        assert!(interrupts.table.lock().watched.is_empty());
    }
}
