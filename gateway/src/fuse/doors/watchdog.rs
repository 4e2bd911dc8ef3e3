//! The watchdog: the one thread of the transport that wakes while nothing happens, once a second.
//!
//! Ring threads wait without a bound, so that an idle mount costs nothing. Should a wake-up ever be
//! lost (in us, or in the kernel on its way to a sleeping ring thread), whoever waits for that
//! request would wait for ever; so a ring thread that has slots held or mail unread is woken once a
//! second, finds what there is, and goes on. A thread that has nothing to do as far as we know may
//! have missed its first request all the same; one of those is woken every [`IDLE_PERIODS`]
//! seconds, in turn. Slots that are held for very long are told about.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tracing::warn;

use super::ring_member::RingMember;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);

/// Looks between two wakes of an idle ring thread.
const IDLE_PERIODS: usize = 10;

/// A request that takes longer is worth a line in the log, once.
const LONG: Duration = Duration::from_mins(2);

#[derive(Debug, Default)]
pub(super) struct Watchdog {
    stopped: Mutex<bool>,
    stop: Condvar,
    wakes: AtomicU64,
}

impl Watchdog {
    pub(super) fn spawn(
        self: &Arc<Self>,
        members: &Arc<[RingMember]>,
    ) -> io::Result<JoinHandle<()>> {
        let watchdog = Arc::clone(self);
        let members = Arc::clone(members);
        Builder::new()
            .name("fuse-watch".to_owned())
            .stack_size(256 << 10)
            .spawn(move || watchdog.run(&members))
    }

    pub(super) fn stop(&self) {
        *self.stopped.lock() = true;
        self.stop.notify_all();
    }

    pub(super) fn wakes(&self) -> u64 {
        self.wakes.load(Ordering::Relaxed)
    }

    fn run(&self, members: &[RingMember]) {
        let mut told = false;
        let mut looks = 0;
        let mut stopped = self.stopped.lock();
        while !*stopped {
            self.stop.wait_for(&mut stopped, PERIOD);
            if *stopped {
                return;
            }
            looks += 1;
            let turn =
                (looks % IDLE_PERIODS == 0).then(|| looks / IDLE_PERIODS % members.len().max(1));
            let mut longest = Duration::ZERO;
            for (index, member) in members.iter().enumerate() {
                let (held, oldest) = member.held();
                longest = longest.max(oldest);
                if (held > 0 && oldest >= PERIOD) || member.shared.mailbox.has_mail() {
                    self.wakes.fetch_add(1, Ordering::Relaxed);
                    member.shared.mailbox.wake();
                } else if turn == Some(index) {
                    member.shared.mailbox.wake();
                }
            }
            if longest >= LONG && !told {
                warn!(
                    seconds = longest.as_secs(),
                    "a request waits for its answer"
                );
            }
            told = longest >= LONG;
        }
    }
}
