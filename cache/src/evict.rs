//! Which objects leave the disk when room is needed. Pure: it is told what there is and gives what
//! goes.
//!
//! Whole objects go, least recently used first. An object that was used again some time after it
//! came gets a second chance: it is passed over once, loses that standing, and goes the next time
//! unless it was used again. So one long scan of new objects does not push out what is read every
//! day. Objects whose file somebody holds open (the kernel's passthrough) are pinned: evicting
//! them would give no room back.

/// What is known of an object that might go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The room that it gives back, in bytes.
    pub bytes: u64,
    /// How many records of extents it gives back.
    pub extents: usize,
    /// When it was last used, by any clock that only grows.
    pub last_used: u64,
    /// Whether it was used again after it came, since it was last passed over.
    pub used_again: bool,
    /// Whether it must stay.
    pub pinned: bool,
}

/// What is to be won by eviction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Room on disk.
    Bytes,
    /// Records of extents.
    Extents,
    /// Records of objects.
    Objects,
}

impl Measure {
    fn of(self, candidate: &Candidate) -> u64 {
        match self {
            Self::Bytes => candidate.bytes,
            Self::Extents => candidate.extents as u64,
            Self::Objects => 1,
        }
    }
}

/// What goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Eviction {
    /// Indices of the candidates to evict.
    pub victims: Vec<usize>,
    /// Indices of those that were passed over: their `used_again` is spent.
    pub spared: Vec<usize>,
}

/// Chooses candidates that give at least `need` together. `None` if all that may go would not be
/// enough: then nothing should go in vain.
pub fn choose(candidates: &[Candidate], measure: Measure, need: u64) -> Option<Eviction> {
    let mut order: Vec<usize> = (0..candidates.len())
        .filter(|&index| !candidates[index].pinned && measure.of(&candidates[index]) > 0)
        .collect();
    order.sort_unstable_by_key(|&index| (candidates[index].last_used, index));
    let mut eviction = Eviction::default();
    let mut freed = 0;
    for &index in &order {
        if freed >= need {
            return Some(eviction);
        }
        if candidates[index].used_again {
            eviction.spared.push(index);
        } else {
            eviction.victims.push(index);
            freed += measure.of(&candidates[index]);
        }
    }
    let mut spared = std::mem::take(&mut eviction.spared).into_iter();
    while freed < need {
        let index = spared.next()?;
        eviction.victims.push(index);
        freed += measure.of(&candidates[index]);
    }
    eviction.spared = spared.collect();
    Some(eviction)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(bytes: u64, last_used: u64) -> Candidate {
        Candidate {
            bytes,
            extents: 1,
            last_used,
            used_again: false,
            pinned: false,
        }
    }

    #[test]
    fn the_least_recently_used_go_first_and_no_more_than_needed() {
        let candidates = [candidate(10, 3), candidate(10, 1), candidate(10, 2)];
        assert_eq!(
            choose(&candidates, Measure::Bytes, 11).unwrap().victims,
            [1, 2]
        );
        assert_eq!(
            choose(&candidates, Measure::Bytes, 0).unwrap(),
            Eviction::default()
        );
    }

    #[test]
    fn what_was_used_again_is_passed_over_once() {
        let mut candidates = [candidate(10, 1), candidate(10, 2), candidate(10, 3)];
        candidates[0].used_again = true;
        let eviction = choose(&candidates, Measure::Bytes, 10).unwrap();
        assert_eq!((eviction.victims, eviction.spared), (vec![1], vec![0]));
        let eviction = choose(&candidates, Measure::Bytes, 30).unwrap();
        assert_eq!((eviction.victims, eviction.spared), (vec![1, 2, 0], vec![]));
    }

    #[test]
    fn nothing_goes_if_all_would_not_be_enough() {
        let mut candidates = [candidate(10, 1), candidate(10, 2)];
        candidates[1].pinned = true;
        assert_eq!(choose(&candidates, Measure::Bytes, 11), None);
        assert_eq!(
            choose(&candidates, Measure::Bytes, 10).unwrap().victims,
            [0]
        );
    }

    #[test]
    fn records_are_won_by_their_number() {
        let mut candidates = [candidate(10, 1), candidate(10, 2)];
        candidates[1].extents = 5;
        let victims = |measure, need| choose(&candidates, measure, need).unwrap().victims;
        assert_eq!(victims(Measure::Extents, 2), [0, 1]);
        assert_eq!(victims(Measure::Objects, 1), [0]);
    }

    proptest! {
        /// What is chosen is enough, holds nothing pinned and nothing twice, and without its last
        /// victim it would not be enough.
        #[test]
        fn an_eviction_is_enough_and_not_more(
            raw in proptest::collection::vec((0..50u64, 0..20u64, any::<bool>(), any::<bool>()), 0..30),
            need in 0..600u64,
        ) {
            let candidates: Vec<Candidate> = raw
                .into_iter()
                .map(|(bytes, last_used, used_again, pinned)| Candidate {
                    bytes,
                    extents: 1,
                    last_used,
                    used_again,
                    pinned,
                })
                .collect();
            let all: u64 = candidates.iter().filter(|c| !c.pinned).map(|c| c.bytes).sum();
            let Some(eviction) = choose(&candidates, Measure::Bytes, need) else {
                prop_assert!(all < need);
                return Ok(());
            };
            let bytes = |indices: &[usize]| -> u64 {
                indices.iter().map(|&i| candidates[i].bytes).sum()
            };
            prop_assert!(bytes(&eviction.victims) >= need);
            if let Some((_, rest)) = eviction.victims.split_last() {
                prop_assert!(bytes(rest) < need);
            }
            let mut seen: Vec<usize> =
                eviction.victims.iter().chain(&eviction.spared).copied().collect();
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(seen.len(), eviction.victims.len() + eviction.spared.len());
            prop_assert!(seen.iter().all(|&i| !candidates[i].pinned));
        }
    }
}
