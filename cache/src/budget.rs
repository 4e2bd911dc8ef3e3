//! Memory that is asked for before it is used. A [`Budget`] is a pool of bytes; a [`Grant`] is a
//! piece of it that goes back when dropped. A [`Share`] is a budget's part with a bound of its own,
//! so that no one use of memory can take all of it: fills and dirty bytes draw on one pool, each
//! within its share.
//!
//! A grant larger than the share would never come, so it is cut to the share's size: one use at a
//! time goes through even where the budget is smaller than one unit.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit in which memory is counted; below it everything costs one.
const UNIT: u64 = 4096;

/// A pool of bytes.
#[derive(Debug, Clone)]
pub struct Budget {
    pool: Arc<Semaphore>,
    units: u32,
}

/// A part of a [`Budget`] with a bound of its own.
#[derive(Debug, Clone)]
pub struct Share {
    own: Budget,
    parent: Budget,
}

/// Bytes that may be used until this is dropped.
#[derive(Debug)]
pub struct Grant {
    bytes: u64,
    own: OwnedSemaphorePermit,
    parent: OwnedSemaphorePermit,
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT))
        .unwrap_or(u32::MAX >> 4)
        .max(1)
}

impl Budget {
    /// A pool of `bytes`.
    pub fn new(bytes: u64) -> Self {
        let units = units(bytes);
        Self {
            pool: Arc::new(Semaphore::new(units as usize)),
            units,
        }
    }

    /// A part of it that never holds more than `bytes` at once.
    pub fn share(&self, bytes: u64) -> Share {
        Share {
            own: Budget::new(bytes.min(u64::from(self.units) * UNIT)),
            parent: self.clone(),
        }
    }

    /// How many bytes nobody holds.
    pub fn free(&self) -> u64 {
        self.pool.available_permits() as u64 * UNIT
    }
}

impl Share {
    /// The share's bound in bytes.
    pub fn bound(&self) -> u64 {
        u64::from(self.own.units) * UNIT
    }

    /// How many bytes of the share are in use.
    pub fn used(&self) -> u64 {
        self.bound() - self.own.free()
    }

    /// `bytes` now, or `None` if they are not free. Never waits.
    pub fn try_take(&self, bytes: u64) -> Option<Grant> {
        let count = units(bytes).min(self.own.units);
        let own = self.own.pool.clone().try_acquire_many_owned(count).ok()?;
        let parent = self
            .parent
            .pool
            .clone()
            .try_acquire_many_owned(count)
            .ok()?;
        Some(Grant { bytes, own, parent })
    }

    /// `bytes`, when they are free. Waits for other grants to be dropped, in order of asking.
    pub async fn take(&self, bytes: u64) -> Grant {
        let count = units(bytes).min(self.own.units);
        // The pools are never closed, so waiting ends only with a permit. Own first: whoever waits
        // for the parent holds only its own share, which the others do not need.
        let own = self
            .own
            .pool
            .clone()
            .acquire_many_owned(count)
            .await
            .expect("pool is open");
        let parent = self
            .parent
            .pool
            .clone()
            .acquire_many_owned(count)
            .await
            .expect("pool is open");
        Grant { bytes, own, parent }
    }
}

impl Grant {
    /// How many bytes were asked for.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives back all but `bytes`.
    pub fn shrink(&mut self, bytes: u64) {
        let keep = units(bytes) as usize;
        for permit in [&mut self.own, &mut self.parent] {
            let spare = permit.num_permits().saturating_sub(keep);
            drop(permit.split(spare));
        }
        self.bytes = self.bytes.min(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_never_exceeds_its_bound() {
        let budget = Budget::new(16 * UNIT);
        let share = budget.share(8 * UNIT);
        let grant = share.try_take(8 * UNIT).unwrap();
        assert!(share.try_take(1).is_none());
        assert_eq!(budget.free(), 8 * UNIT);
        drop(grant);
        assert_eq!(share.used(), 0);
    }

    #[test]
    fn a_grant_larger_than_the_share_is_cut() {
        let share = Budget::new(4 * UNIT).share(2 * UNIT);
        assert!(share.try_take(1 << 40).is_some());
    }

    #[test]
    fn shrink_gives_back_the_rest() {
        let budget = Budget::new(8 * UNIT);
        let share = budget.share(8 * UNIT);
        let mut grant = share.try_take(8 * UNIT).unwrap();
        grant.shrink(3 * UNIT);
        assert_eq!(budget.free(), 5 * UNIT);
    }

    #[tokio::test]
    async fn take_waits_for_a_drop() {
        let share = Budget::new(2 * UNIT).share(2 * UNIT);
        let held = share.try_take(2 * UNIT).unwrap();
        let waiter = tokio::spawn({
            let share = share.clone();
            async move { share.take(UNIT).await.bytes() }
        });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        drop(held);
        assert_eq!(waiter.await.unwrap(), UNIT);
    }
}
