//! Memory that is asked for before it is used. A [`Budget`] is a pool of bytes; a [`Grant`] is a
//! piece of it that goes back when dropped. A [`Share`] is a budget's part with a bound of its own,
//! so that no one use of memory can take all of it: fills and dirty bytes draw on one pool, each
//! within its share.
//!
//! A grant larger than the share would never come, so it is cut to the share's size: one use at a
//! time goes through even where the budget is smaller than one unit.
//!
//! A [`Balloon`] (the word is that of virtual machines) takes memory away from a budget and its shares
//! while the process needs it for something that is in no budget, and gives it back. A part that nobody
//! takes away is always left to each share, and grants are cut to that. What is in use it cannot take;
//! until that comes back nobody gets more of it who does not wait for it, so that readahead makes room at
//! once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit in which memory is counted; below it everything costs one.
const UNIT: u64 = 4096;

/// A pool of bytes.
#[derive(Debug, Clone)]
pub struct Budget {
    pool: Arc<Semaphore>,
    units: u32,
    /// How much of it, and of each of its shares, a balloon may take.
    balloon_max: u32,
}

/// A part of a [`Budget`] with a bound of its own.
#[derive(Debug, Clone)]
pub struct Share {
    own: Budget,
    parent: Budget,
    /// What a balloon wants of it and has not got yet, in bytes.
    wanted: Arc<AtomicU64>,
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
        Self::with_balloon(bytes, 0)
    }

    /// A pool of `bytes` of which, and of each of whose shares, a [`Balloon`] may take up to
    /// `balloon_max`.
    pub fn with_balloon(bytes: u64, balloon_max: u64) -> Self {
        let units = units(bytes);
        Self {
            pool: Arc::new(Semaphore::new(units as usize)),
            units,
            balloon_max: u32::try_from(balloon_max / UNIT)
                .unwrap_or(units)
                .min(units - 1),
        }
    }

    /// A part of it that never holds more than `bytes` at once.
    pub fn share(&self, bytes: u64) -> Share {
        let bytes = bytes.min(u64::from(self.units) * UNIT);
        Share {
            own: Budget::with_balloon(bytes, u64::from(self.balloon_max) * UNIT),
            parent: self.clone(),
            wanted: Arc::default(),
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

    /// The units of a grant of `bytes`: no more than there always are.
    fn cut(&self, bytes: u64) -> u32 {
        units(bytes).min(self.own.units - self.own.balloon_max)
    }

    /// How many bytes of the share are in use.
    pub fn used(&self) -> u64 {
        self.bound() - self.own.free()
    }

    /// `bytes` now, or `None` if they are not free, or are to be withheld. Never waits.
    pub fn try_take(&self, bytes: u64) -> Option<Grant> {
        let count = self.cut(bytes);
        let wanted = self.wanted.load(Ordering::Relaxed);
        if wanted > 0 && self.own.free() < wanted + u64::from(count) * UNIT {
            return None;
        }
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
        let count = self.cut(bytes);
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

/// Memory that is withheld from a budget and its shares.
#[derive(Debug)]
pub struct Balloon {
    budget: Withheld,
    shares: Vec<(Share, Withheld)>,
    max: u64,
}

/// What is withheld from one pool.
#[derive(Debug)]
struct Withheld {
    pool: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Withheld {
    fn of(budget: &Budget) -> Self {
        Self {
            pool: budget.pool.clone(),
            permit: None,
        }
    }

    fn units(&self) -> usize {
        self.permit
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits)
    }

    fn set(&mut self, wanted: usize) {
        let held = self.units();
        if let Some(permit) = &mut self.permit {
            drop(permit.split(held.saturating_sub(wanted)));
        }
        let more = wanted
            .saturating_sub(held)
            .min(self.pool.available_permits());
        let taken = self.pool.clone().try_acquire_many_owned(more as u32).ok();
        match (&mut self.permit, taken) {
            (Some(permit), Some(taken)) => permit.merge(taken),
            (permit @ None, taken) => *permit = taken,
            (Some(_), None) => {}
        }
    }
}

impl Balloon {
    /// Nothing is withheld at first. `shares` are those of `budget`.
    pub fn new(budget: &Budget, shares: &[Share]) -> Self {
        Self {
            budget: Withheld::of(budget),
            shares: shares
                .iter()
                .map(|share| (share.clone(), Withheld::of(&share.own)))
                .collect(),
            max: u64::from(budget.balloon_max) * UNIT,
        }
    }

    /// Withholds `bytes` from now on, or as much as may be; what is in use is left out. Never waits: to be
    /// called again.
    pub fn set(&mut self, bytes: u64) {
        let wanted = (bytes.min(self.max) / UNIT) as usize;
        self.budget.set(wanted);
        for (share, withheld) in &mut self.shares {
            withheld.set(wanted);
            let missing = (wanted - withheld.units()) as u64 * UNIT;
            share.wanted.store(missing, Ordering::Relaxed);
        }
    }

    /// How many bytes may be withheld.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// How many bytes are withheld.
    pub fn bytes(&self) -> u64 {
        self.budget.units() as u64 * UNIT
    }

    /// How many bytes others have of the shares.
    pub fn used(&self) -> u64 {
        self.shares
            .iter()
            .map(|(share, withheld)| share.used().saturating_sub(withheld.units() as u64 * UNIT))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balloon_takes_what_is_free_and_leaves_each_share_its_own() {
        let budget = Budget::with_balloon(12 * UNIT, 4 * UNIT);
        let shares = [budget.share(8 * UNIT), budget.share(8 * UNIT)];
        let mut balloon = Balloon::new(&budget, &shares);
        let held = shares[0].try_take(4 * UNIT).unwrap();
        balloon.set(100 * UNIT);
        assert_eq!((balloon.bytes(), balloon.used()), (4 * UNIT, 4 * UNIT));
        assert!(shares[0].try_take(1).is_none());
        // As large as it comes, and however large it is.
        let other = shares[1].try_take(1 << 40).unwrap();
        assert_eq!((balloon.used(), budget.free()), (8 * UNIT, 0));
        drop((held, other));
        balloon.set(UNIT);
        assert_eq!((balloon.bytes(), balloon.used()), (UNIT, 0));
        assert_eq!(budget.free(), 11 * UNIT);
        let _most = shares[0].try_take(4 * UNIT).unwrap();
        let more = shares[0].try_take(3 * UNIT).unwrap();
        balloon.set(4 * UNIT);
        assert_eq!(
            balloon.bytes(),
            4 * UNIT,
            "that share's rest is in use, the budget's is not"
        );
        assert_eq!(balloon.used(), 7 * UNIT);
        drop(more);
        assert!(
            shares[0].try_take(1).is_none(),
            "what came back is the balloon's, though it has not taken it yet"
        );
        balloon.set(0);
        assert_eq!((balloon.bytes(), budget.free()), (0, 8 * UNIT));
    }

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
