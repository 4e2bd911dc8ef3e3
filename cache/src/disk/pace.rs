//! Leaving a fast way alone for a while when it turns out to be slow, and trying it again later: the
//! decision behind direct writes (a slow disk) and long ones (memory that is not at hand).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Whether to go a way that is mostly fast. Shared by all that go there.
#[derive(Debug)]
pub(super) struct Pace {
    /// What the way must take in a second to be gone again at once, in bytes.
    rate_min: u64,
    /// How much goes the other way after it was slower, in bytes.
    rest: u64,
    /// How much is still to go the other way.
    left: AtomicU64,
}

impl Pace {
    pub(super) const fn new(rate_min: u64, rest: u64) -> Self {
        Self {
            rate_min,
            rest,
            left: AtomicU64::new(0),
        }
    }

    /// Whether the next `len` bytes are to go that way.
    pub(super) fn wants(&self, len: u64) -> bool {
        let left = self.left.load(Ordering::Relaxed);
        if left > 0 && left < u64::MAX {
            // Two at once may count one of them only; it is a matter of pace.
            self.left.store(left.saturating_sub(len), Ordering::Relaxed);
        }
        left == 0
    }

    /// `len` bytes went that way and took `time`.
    pub(super) fn took(&self, len: u64, time: Duration) {
        if u128::from(len) * 1_000_000 < u128::from(self.rate_min) * time.as_micros() {
            self.left.store(self.rest, Ordering::Relaxed);
        }
    }

    /// The way is closed.
    pub(super) fn never(&self) {
        self.left.store(u64::MAX, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_way_is_left_alone_for_a_while() {
        let (rest, step) = (64 << 20, 4 << 20);
        let pace = Pace::new(256 << 20, rest);
        assert!(pace.wants(step));
        pace.took(step, Duration::from_millis(10));
        assert!(pace.wants(step));
        pace.took(step, Duration::from_millis(100));
        let rested = (0..100).take_while(|_| !pace.wants(step)).count();
        assert_eq!(rested as u64, rest / step);
        pace.never();
        assert!((0..100).all(|_| !pace.wants(step)));
    }
}
