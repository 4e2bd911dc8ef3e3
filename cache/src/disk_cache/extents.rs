//! What is held of one object: extents, each with its checksum and how far it is trusted. Pure.
//!
//! Extents are disjoint, in order, and none crosses a multiple of [`UNIT`]; neighbours within one
//! unit that are trusted alike become one, with the checksum of both, so the list stays as short as
//! the object allows however small the reads were that filled it. Room is charged by whole pages,
//! because that is how filesystems take it.
//!
//! How an extent's trust moves: `Unverified` (an earlier run wrote it, a crash may have torn it)
//! -> `Verified` (its checksum was compared with what the disk gave) or gone. `Written` (this run
//! wrote it) -> `Verified` the first time it is read after it left the page cache.

use crc_fast::CrcAlgorithm;

use crate::extent::Extent;

/// The unit of checksums: an extent never crosses a multiple of this many bytes. It is what the
/// first read of an extent must read whole, so larger costs latency; smaller costs memory.
pub(crate) const UNIT: u64 = 1 << 20;

/// Room is charged by pages of this many bytes.
pub(crate) const PAGE: u64 = 4096;

/// The checksum of extents.
pub(crate) const CRC: CrcAlgorithm = CrcAlgorithm::Crc64Nvme;

/// How far the bytes on disk are trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// By nobody yet.
    Unverified,
    /// They were written by this run and may be served from the page cache.
    Written,
    /// They were read back and compared.
    Verified,
}

/// An extent that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) offset: u64,
    pub(crate) crc: u64,
    pub(crate) len: u32,
    pub(crate) trust: Trust,
}

impl Held {
    pub(crate) fn extent(&self) -> Extent {
        Extent::new(self.offset, u64::from(self.len))
    }

    fn end(&self) -> u64 {
        self.offset + u64::from(self.len)
    }

    /// Whether it is an extent that may stand in a list at all.
    pub(crate) fn is_valid(&self) -> bool {
        self.len > 0
            && u64::from(self.len) <= UNIT
            && self.offset.checked_add(UNIT).is_some()
            && self.offset / UNIT == (self.end() - 1) / UNIT
    }

    /// The room of the pages that it touches.
    pub(crate) fn charge(&self) -> u64 {
        charge(self.extent())
    }

    /// This one and the one right behind it as one; `None` if they do not belong together.
    fn join(&self, next: &Held) -> Option<Held> {
        let neighbours = self.end() == next.offset
            && self.offset / UNIT == next.offset / UNIT
            && self.trust == next.trust;
        neighbours.then(|| Held {
            offset: self.offset,
            crc: crc_fast::checksum_combine(CRC, self.crc, next.crc, u64::from(next.len)),
            len: self.len + next.len,
            trust: self.trust,
        })
    }
}

/// The room of the pages that `extent` touches.
pub(crate) fn charge(extent: Extent) -> u64 {
    if extent.is_empty() {
        return 0;
    }
    extent.end().div_ceil(PAGE) * PAGE - extent.offset / PAGE * PAGE
}

/// What an insertion did to the list, for the index on disk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Inserted {
    /// Offsets of extents that are part of `held` now.
    pub(crate) absorbed: Vec<u64>,
    /// What stands in the list.
    pub(crate) held: Held,
}

/// All that is held of one object.
#[derive(Debug, Default)]
pub(crate) struct HeldList {
    list: Vec<Held>,
    bytes: u64,
    charged: u64,
    unverified: usize,
}

impl HeldList {
    /// Bytes held.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Room charged.
    pub(crate) fn charged(&self) -> u64 {
        self.charged
    }

    pub(crate) fn count(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn unverified(&self) -> usize {
        self.unverified
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Held> {
        self.list.iter()
    }

    fn first_at(&self, offset: u64) -> usize {
        self.list.partition_point(|held| held.end() <= offset)
    }

    /// The extents that hold all of `extent` between them; `None` if a byte is missing.
    pub(crate) fn covering(&self, extent: Extent) -> Option<&[Held]> {
        let first = self.first_at(extent.offset);
        let mut at = extent.offset;
        let mut count = 0;
        while at < extent.end() {
            let held = self.list.get(first + count)?;
            if held.offset > at {
                return None;
            }
            at = held.end();
            count += 1;
        }
        Some(&self.list[first..first + count])
    }

    /// Whether all of `extent` is held.
    pub(crate) fn holds(&self, extent: Extent) -> bool {
        self.covering(extent).is_some()
    }

    /// Whether all of `extent` is held and may be served from the page cache.
    pub(crate) fn is_ready(&self, extent: Extent) -> bool {
        self.covering(extent)
            .is_some_and(|all| all.iter().all(|held| held.trust != Trust::Unverified))
    }

    /// What of `extent` is missing, in order, not cut at units.
    pub(crate) fn gaps(&self, extent: Extent) -> Vec<Extent> {
        let mut gaps = Vec::new();
        let mut at = extent.offset;
        for held in &self.list[self.first_at(extent.offset)..] {
            if held.offset >= extent.end() {
                break;
            }
            if at < held.offset {
                gaps.push(Extent::between(at, held.offset));
            }
            at = at.max(held.end());
        }
        if at < extent.end() {
            gaps.push(Extent::between(at, extent.end()));
        }
        gaps
    }

    /// The room that goes back when nothing of `extent` is held any more: `extent` up to the ends
    /// of its pages, as far as nothing else lies on them.
    pub(crate) fn room_around(&self, extent: Extent) -> Extent {
        let start = extent.offset / PAGE * PAGE;
        let end = extent.end().div_ceil(PAGE) * PAGE;
        let is_free = |from: u64, to: u64| {
            let next = self.list.get(self.first_at(from));
            next.is_none_or(|held| held.offset >= to)
        };
        Extent::between(
            if is_free(start, extent.offset) {
                start
            } else {
                extent.offset
            },
            if is_free(extent.end(), end) {
                end
            } else {
                extent.end()
            },
        )
    }

    /// Puts an extent where nothing is held; false, and nothing changes, if something is or if the
    /// extent is not valid. Does not join it with its neighbours.
    pub(crate) fn put(&mut self, held: Held) -> bool {
        if !held.is_valid() {
            return false;
        }
        let index = self.first_at(held.offset);
        if self
            .list
            .get(index)
            .is_some_and(|next| next.offset < held.end())
        {
            return false;
        }
        if self.list.is_empty() {
            // Most objects are small and have one extent.
            self.list.reserve_exact(1);
        }
        self.list.insert(index, held);
        self.count_in(held);
        true
    }

    /// As [`HeldList::put`], and joins it with its neighbours. `None` if something is there.
    pub(crate) fn insert(&mut self, held: Held) -> Option<Inserted> {
        if !self.put(held) {
            return None;
        }
        let mut index = self.first_at(held.offset);
        let mut inserted = Inserted {
            absorbed: Vec::new(),
            held,
        };
        if let Some(joined) = self.join_at(index) {
            inserted.absorbed.push(self.list[index + 1].offset);
            self.replace_pair(index, joined);
        }
        if index > 0
            && let Some(joined) = self.join_at(index - 1)
        {
            inserted.absorbed.push(self.list[index].offset);
            index -= 1;
            self.replace_pair(index, joined);
        }
        inserted.held = self.list[index];
        inserted.absorbed.retain(|offset| *offset != held.offset);
        Some(inserted)
    }

    fn join_at(&self, index: usize) -> Option<Held> {
        self.list[index].join(self.list.get(index + 1)?)
    }

    fn replace_pair(&mut self, index: usize, joined: Held) {
        let next = self.list.remove(index + 1);
        self.count_out(next);
        self.count_out(self.list[index]);
        self.list[index] = joined;
        self.count_in(joined);
    }

    /// Takes out exactly `held`, trust included. False if it does not stand there (any more).
    pub(crate) fn remove(&mut self, held: &Held) -> bool {
        let index = self.first_at(held.offset);
        if self.list.get(index) != Some(held) {
            return false;
        }
        self.list.remove(index);
        self.count_out(*held);
        true
    }

    /// Trusts the extent whose bytes were compared; one that has changed meanwhile stays as it is.
    pub(crate) fn verified(&mut self, held: &Held) {
        let index = self.first_at(held.offset);
        if self.list.get(index) == Some(held) {
            self.count_out(*held);
            self.list[index].trust = Trust::Verified;
            self.count_in(self.list[index]);
        }
    }

    /// Takes out everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn count_in(&mut self, held: Held) {
        self.bytes += u64::from(held.len);
        self.charged += held.charge();
        self.unverified += usize::from(held.trust == Trust::Unverified);
    }

    fn count_out(&mut self, held: Held) {
        self.bytes -= u64::from(held.len);
        self.charged -= held.charge();
        self.unverified -= usize::from(held.trust == Trust::Unverified);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn held(offset: u64, data: &[u8], trust: Trust) -> Held {
        Held {
            offset,
            crc: crc_fast::checksum(CRC, data),
            len: data.len() as u32,
            trust,
        }
    }

    #[test]
    fn an_extent_across_units_or_without_bytes_is_refused() {
        let mut list = HeldList::default();
        assert!(!list.put(held(UNIT - 1, b"ab", Trust::Written)));
        assert!(!list.put(held(0, b"", Trust::Written)));
        assert!(!list.put(held(u64::MAX - 1, b"a", Trust::Written)));
        assert!(list.put(held(UNIT - 2, b"ab", Trust::Written)));
    }

    #[test]
    fn neighbours_of_two_units_stay_apart() {
        let mut list = HeldList::default();
        list.insert(held(UNIT - 2, b"ab", Trust::Written)).unwrap();
        let inserted = list.insert(held(UNIT, b"cd", Trust::Written)).unwrap();
        assert!(inserted.absorbed.is_empty());
        assert_eq!(list.count(), 2);
        assert_eq!(list.covering(Extent::new(UNIT - 1, 2)).unwrap().len(), 2);
    }

    #[test]
    fn the_room_around_an_extent_ends_where_others_lie() {
        let mut list = HeldList::default();
        list.put(held(PAGE + 10, b"ab", Trust::Written));
        let gap = Extent::new(PAGE + 20, PAGE);
        let room = Extent::between(PAGE + 20, 3 * PAGE);
        assert_eq!(list.room_around(gap), room);
        let gap = Extent::new(10, PAGE);
        assert_eq!(list.room_around(gap), Extent::between(0, PAGE + 10));
        let whole = Extent::new(3 * PAGE, PAGE);
        assert_eq!(list.room_around(whole), whole);
    }

    #[test]
    fn only_what_was_compared_becomes_verified() {
        let mut list = HeldList::default();
        let one = held(0, b"ab", Trust::Unverified);
        list.put(one);
        assert!(!list.is_ready(Extent::new(0, 1)));
        list.verified(&held(0, b"xx", Trust::Unverified));
        assert_eq!(list.unverified(), 1);
        list.verified(&one);
        assert!(list.is_ready(Extent::new(0, 2)));
        assert!(!list.remove(&one), "its trust has changed");
    }

    proptest! {
        /// Whatever is inserted, in whatever order: the list agrees with an array of bytes, joined
        /// checksums are those of the joined bytes, the index on disk that follows `Inserted`
        /// holds the same list, and sums are sums.
        #[test]
        fn list_agrees_with_an_array_of_bytes(
            ops in proptest::collection::vec((0..300u64, 1..60u64, any::<bool>(), any::<bool>()), 0..40),
            at in 0..300u64,
            len in 0..60u64,
        ) {
            // Around a unit's end, so that both sides are met.
            let base = UNIT - 150;
            let bytes: Vec<u8> = (0..400).map(|i| (i * 7 % 251) as u8).collect();
            let slice = |extent: Extent| {
                &bytes[(extent.offset - base) as usize..(extent.end() - base) as usize]
            };
            let mut list = HeldList::default();
            let mut on_disk = std::collections::BTreeMap::new();
            let mut model = vec![false; 400];
            for (offset, len, insert, trusted) in ops {
                let extent = Extent::new(base + offset, len);
                if insert {
                    for gap in list.gaps(extent) {
                        let cut = gap.end().min((gap.offset / UNIT + 1) * UNIT);
                        for part in [Extent::between(gap.offset, cut), Extent::between(cut, gap.end())] {
                            if part.is_empty() {
                                continue;
                            }
                            let trust = if trusted { Trust::Written } else { Trust::Verified };
                            let inserted = list.insert(held(part.offset, slice(part), trust)).unwrap();
                            for offset in inserted.absorbed {
                                on_disk.remove(&offset);
                            }
                            on_disk.insert(inserted.held.offset, inserted.held);
                            for i in part.offset..part.end() {
                                model[(i - base) as usize] = true;
                            }
                        }
                    }
                    continue;
                }
                let first = list.iter().find(|held| held.offset >= extent.offset).copied();
                if let Some(first) = first {
                    prop_assert!(list.remove(&first));
                    on_disk.remove(&first.offset);
                    for i in first.offset..first.end() {
                        model[(i - base) as usize] = false;
                    }
                }
            }
            for one in list.iter() {
                prop_assert!(one.is_valid());
                prop_assert_eq!(one.crc, crc_fast::checksum(CRC, slice(one.extent())));
            }
            prop_assert!(list.iter().eq(on_disk.values()));
            prop_assert_eq!(list.bytes(), model.iter().filter(|here| **here).count() as u64);
            prop_assert_eq!(list.charged(), list.iter().map(Held::charge).sum::<u64>());
            let extent = Extent::new(base + at, len);
            let here = &model[at as usize..(at + len) as usize];
            prop_assert_eq!(list.covering(extent).is_some(), here.iter().all(|here| *here));
            let missing: u64 = list.gaps(extent).iter().map(|gap| gap.len).sum();
            prop_assert_eq!(missing, here.iter().filter(|here| !**here).count() as u64);
        }
    }
}
