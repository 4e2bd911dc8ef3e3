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
    /// When it was last used, by any clock that only grows.
    pub last_used: u64,
    /// Whether it was used again after it came, since it was last passed over.
    pub used_again: bool,
    /// Whether it must stay.
    pub pinned: bool,
}

/// What goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// Indices of the candidates to evict.
    pub victims: Vec<usize>,
    /// Indices of those that were passed over: their `used_again` is spent.
    pub spared: Vec<usize>,
}

/// Chooses candidates that give at least `need` bytes together. `None` if all that may go would
/// not be enough: then nothing should go in vain.
pub fn choose(candidates: &[Candidate], need: u64) -> Option<Choice> {
    let mut order: Vec<usize> = (0..candidates.len())
        .filter(|&index| !candidates[index].pinned && candidates[index].bytes > 0)
        .collect();
    order.sort_unstable_by_key(|&index| (candidates[index].last_used, index));
    let mut choice = Choice::default();
    let mut freed = 0;
    for &index in &order {
        if freed >= need {
            return Some(choice);
        }
        if candidates[index].used_again {
            choice.spared.push(index);
        } else {
            choice.victims.push(index);
            freed += candidates[index].bytes;
        }
    }
    let mut spared = std::mem::take(&mut choice.spared).into_iter();
    while freed < need {
        let index = spared.next()?;
        choice.victims.push(index);
        freed += candidates[index].bytes;
    }
    choice.spared = spared.collect();
    Some(choice)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(bytes: u64, last_used: u64) -> Candidate {
        Candidate {
            bytes,
            last_used,
            used_again: false,
            pinned: false,
        }
    }

    #[test]
    fn the_least_recently_used_go_first_and_no_more_than_needed() {
        let candidates = [candidate(10, 3), candidate(10, 1), candidate(10, 2)];
        assert_eq!(choose(&candidates, 11).unwrap().victims, [1, 2]);
        assert_eq!(choose(&candidates, 0).unwrap(), Choice::default());
    }

    #[test]
    fn what_was_used_again_is_passed_over_once() {
        let mut candidates = [candidate(10, 1), candidate(10, 2), candidate(10, 3)];
        candidates[0].used_again = true;
        let choice = choose(&candidates, 10).unwrap();
        assert_eq!((choice.victims, choice.spared), (vec![1], vec![0]));
        let choice = choose(&candidates, 30).unwrap();
        assert_eq!((choice.victims, choice.spared), (vec![1, 2, 0], vec![]));
    }

    #[test]
    fn nothing_goes_if_all_would_not_be_enough() {
        let mut candidates = [candidate(10, 1), candidate(10, 2)];
        candidates[1].pinned = true;
        assert_eq!(choose(&candidates, 11), None);
        assert_eq!(choose(&candidates, 10).unwrap().victims, [0]);
    }

    proptest! {
        /// What is chosen is enough, holds nothing pinned and nothing twice, and without its last
        /// victim it would not be enough.
        #[test]
        fn a_choice_is_enough_and_not_more(
            raw in proptest::collection::vec((0..50u64, 0..20u64, any::<bool>(), any::<bool>()), 0..30),
            need in 0..600u64,
        ) {
            let candidates: Vec<Candidate> = raw
                .into_iter()
                .map(|(bytes, last_used, used_again, pinned)| Candidate {
                    bytes,
                    last_used,
                    used_again,
                    pinned,
                })
                .collect();
            let all: u64 = candidates.iter().filter(|c| !c.pinned).map(|c| c.bytes).sum();
            let Some(choice) = choose(&candidates, need) else {
                prop_assert!(all < need);
                return Ok(());
            };
            let bytes = |indices: &[usize]| -> u64 {
                indices.iter().map(|&i| candidates[i].bytes).sum()
            };
            prop_assert!(bytes(&choice.victims) >= need);
            if let Some((_, rest)) = choice.victims.split_last() {
                prop_assert!(bytes(rest) < need);
            }
            let mut seen: Vec<usize> =
                choice.victims.iter().chain(&choice.spared).copied().collect();
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(seen.len(), choice.victims.len() + choice.spared.len());
            prop_assert!(seen.iter().all(|&i| !candidates[i].pinned));
        }
    }
}
