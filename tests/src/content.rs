//! Bytes whose every position tells which bytes they are.
//!
//! A file's content is a function of a seed and the offset, so a reader checks any range of any
//! file without holding the file, and bytes of two versions can never be taken for each other.
//! The generator is splitmix64: no dependency, the same on every machine, printed seeds repeat.

use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

/// One step of splitmix64.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The bytes `[offset, offset + len)` of the endless content that `seed` names.
pub fn bytes_at(seed: u64, offset: u64, len: usize) -> Vec<u8> {
    let first = offset / 8;
    let words = (offset % 8 + len as u64).div_ceil(8);
    let seed = mix(seed);
    let mut bytes = Vec::with_capacity(words as usize * 8);
    for word in first..first + words {
        bytes.extend_from_slice(&mix(seed ^ word).to_le_bytes());
    }
    let skip = (offset % 8) as usize;
    bytes.drain(..skip);
    bytes.truncate(len);
    bytes
}

/// The first `len` bytes of the content that `seed` names.
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    bytes_at(seed, 0, len)
}

/// Panics with the first position where `found` is not the content of `seed` from `offset`.
pub fn check_at(seed: u64, offset: u64, found: &[u8]) {
    let wanted = bytes_at(seed, offset, found.len());
    if let Some(at) = wanted
        .iter()
        .zip(found)
        .position(|(wanted, found)| wanted != found)
    {
        panic!(
            "byte {} of {} from offset {offset} is {:#04x}, not {:#04x} (seed {seed})",
            at,
            found.len(),
            found[at],
            wanted[at]
        );
    }
}

/// Compares whole contents without printing megabytes when they differ.
pub fn assert_same(found: &[u8], wanted: &[u8], what: &str) {
    if found == wanted {
        return;
    }
    let at = found.iter().zip(wanted).position(|(a, b)| a != b);
    panic!(
        "{what}: {} bytes found, {} wanted, first difference at {:?}",
        found.len(),
        wanted.len(),
        at
    );
}

/// Random numbers from a seed.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// Numbers that `seed` names.
    pub fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    /// Numbers of a seed that is printed, and that `ACKFS_TEST_SEED` repeats.
    pub fn printed(what: &str) -> Self {
        let seed = env::var("ACKFS_TEST_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            now.map_or(1, |now| now.as_nanos() as u64 & 0xffff_ffff)
        });
        println!("{what}: seed {seed}; repeat with ACKFS_TEST_SEED={seed}");
        Self::new(seed)
    }

    /// The next number.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.word() % bound
    }

    /// True once in `of` times.
    pub fn once_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    /// One of `choices`, which are not empty.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes, bytes_at};

    #[test]
    fn any_range_is_a_cut_of_the_whole() {
        let whole = bytes(7, 100);
        for offset in 0..40 {
            for len in 0..50 {
                assert_eq!(bytes_at(7, offset as u64, len), whole[offset..offset + len]);
            }
        }
    }

    #[test]
    fn two_seeds_differ_everywhere_that_matters() {
        let (one, two) = (bytes(1, 4096), bytes(2, 4096));
        let same = one.iter().zip(&two).filter(|(a, b)| a == b).count();
        assert!(same < 64, "{same} of 4096 bytes are the same");
    }
}
