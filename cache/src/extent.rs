//! Ranges of bytes. An [`Extent`] is `[offset, offset + len)`; an [`ExtentMap`] says what lies
//! where in a file, without overlaps. Pure: no I/O, no clock, no locks.
//!
//! The map keeps its entries disjoint and sorted. Inserting cuts what was there before; a value
//! that is cut is asked for the piece that stays by [`Slice`], so that a value that points into a
//! buffer or a file can move its own start.

use std::collections::BTreeMap;
use std::fmt;

/// `[offset, offset + len)` in bytes. `offset + len` never overflows.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extent {
    /// The first byte.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
}

impl Extent {
    /// `[offset, offset + len)`, cut at `u64::MAX`.
    pub fn new(offset: u64, len: u64) -> Self {
        Self {
            offset,
            len: len.min(u64::MAX - offset),
        }
    }

    /// `[start, end)`; empty if `end <= start`.
    pub fn between(start: u64, end: u64) -> Self {
        Self {
            offset: start,
            len: end.saturating_sub(start),
        }
    }

    /// The first byte after it.
    pub fn end(&self) -> u64 {
        self.offset + self.len
    }

    /// Whether it holds no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it holds all of `other`.
    pub fn contains(&self, other: Extent) -> bool {
        self.offset <= other.offset && other.end() <= self.end()
    }

    /// What both hold; `None` if that is nothing.
    pub fn intersect(&self, other: Extent) -> Option<Extent> {
        let both = Extent::between(self.offset.max(other.offset), self.end().min(other.end()));
        (!both.is_empty()).then_some(both)
    }
}

impl fmt::Debug for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.offset, self.end())
    }
}

/// A value that covers an extent and can be cut to a part of it.
pub trait Slice: Clone {
    /// The value of `len` bytes that begin `skip` bytes into this one.
    #[must_use]
    fn slice(&self, skip: u64, len: u64) -> Self;
}

impl Slice for () {
    fn slice(&self, _skip: u64, _len: u64) -> Self {}
}

impl Slice for bytes::Bytes {
    fn slice(&self, skip: u64, len: u64) -> Self {
        let skip = skip as usize;
        bytes::Bytes::slice(self, skip..skip + len as usize)
    }
}

/// What lies where in a file: disjoint extents in order, each with its value.
#[derive(Clone)]
pub struct ExtentMap<T> {
    /// By start: the length and the value. No two overlap, none is empty.
    entries: BTreeMap<u64, (u64, T)>,
    /// The sum of all lengths.
    len: u64,
}

impl<T: Slice> Default for ExtentMap<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Slice> ExtentMap<T> {
    /// An empty map.
    pub fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            len: 0,
        }
    }

    /// How many bytes are covered.
    pub fn covered(&self) -> u64 {
        self.len
    }

    /// How many entries there are.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is covered.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All entries in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (Extent, &T)> {
        self.entries
            .iter()
            .map(|(&offset, (len, value))| (Extent { offset, len: *len }, value))
    }

    /// Puts `value` at `extent`; what was there before is cut away. An empty extent changes
    /// nothing.
    pub fn insert(&mut self, extent: Extent, value: T) {
        if extent.is_empty() {
            return;
        }
        self.remove(extent);
        self.len += extent.len;
        self.entries.insert(extent.offset, (extent.len, value));
    }

    /// Takes out what lies in `extent` and gives it, cut to it, in order.
    pub fn remove(&mut self, extent: Extent) -> Vec<(Extent, T)> {
        if extent.is_empty() {
            return Vec::new();
        }
        let first = self
            .entries
            .range(..extent.offset)
            .next_back()
            .filter(|(start, (len, _))| **start + *len > extent.offset)
            .map_or(extent.offset, |(start, _)| *start);
        let starts: Vec<u64> = self
            .entries
            .range(first..extent.end())
            .map(|(start, _)| *start)
            .collect();
        let mut removed = Vec::with_capacity(starts.len());
        for start in starts {
            let Some((len, value)) = self.entries.remove(&start) else {
                continue;
            };
            let whole = Extent { offset: start, len };
            let Some(cut) = whole.intersect(extent) else {
                continue;
            };
            if start < cut.offset {
                let head = cut.offset - start;
                self.entries.insert(start, (head, value.slice(0, head)));
            }
            if cut.end() < whole.end() {
                let tail = whole.end() - cut.end();
                self.entries
                    .insert(cut.end(), (tail, value.slice(cut.end() - start, tail)));
            }
            self.len -= cut.len;
            removed.push((cut, value.slice(cut.offset - start, cut.len)));
        }
        removed
    }

    /// Takes out everything at and after `len`.
    pub fn truncate(&mut self, len: u64) -> Vec<(Extent, T)> {
        self.remove(Extent::between(len, u64::MAX))
    }

    /// What lies in `extent`, cut to it, in order, with the gaps as `None`. The pieces cover
    /// `extent` without overlap.
    pub fn pieces(&self, extent: Extent) -> Vec<(Extent, Option<T>)> {
        let mut pieces = Vec::new();
        let mut at = extent.offset;
        let first = self
            .entries
            .range(..=extent.offset)
            .next_back()
            .map_or(extent.offset, |(start, _)| *start);
        for (&start, (len, value)) in self.entries.range(first..extent.end().max(first)) {
            let whole = Extent {
                offset: start,
                len: *len,
            };
            let Some(cut) = whole.intersect(extent) else {
                continue;
            };
            if at < cut.offset {
                pieces.push((Extent::between(at, cut.offset), None));
            }
            pieces.push((cut, Some(value.slice(cut.offset - start, cut.len))));
            at = cut.end();
        }
        if at < extent.end() {
            pieces.push((Extent::between(at, extent.end()), None));
        }
        pieces
    }

    /// The parts of `extent` that nothing covers, in order.
    pub fn gaps(&self, extent: Extent) -> Vec<Extent> {
        self.pieces(extent)
            .into_iter()
            .filter_map(|(extent, value)| value.is_none().then_some(extent))
            .collect()
    }

    /// Whether every byte of `extent` is covered.
    pub fn covers(&self, extent: Extent) -> bool {
        let mut at = extent.offset;
        while at < extent.end() {
            match self.entries.range(..=at).next_back() {
                Some((start, (len, _))) if start + len > at => at = start + len,
                _ => return false,
            }
        }
        true
    }
}

impl<T: Slice + fmt::Debug> fmt::Debug for ExtentMap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Op {
        Insert(u64, u64, u8),
        Remove(u64, u64),
        Truncate(u64),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            (0..200u64, 0..60u64, any::<u8>()).prop_map(|(o, l, v)| Op::Insert(o, l, v)),
            (0..200u64, 0..60u64).prop_map(|(o, l)| Op::Remove(o, l)),
            (0..260u64).prop_map(Op::Truncate),
        ];
        proptest::collection::vec(op, 0..40)
    }

    proptest! {
        /// The map agrees with an array of bytes under any sequence of operations, values are cut
        /// at the right place, and the pieces of any extent cover it exactly.
        #[test]
        fn map_agrees_with_an_array_of_bytes(ops in ops(), at in 0..260u64, len in 0..80u64) {
            let mut model = vec![None::<u8>; 400];
            let mut map = ExtentMap::<bytes::Bytes>::new();
            for op in ops {
                match op {
                    Op::Insert(offset, len, seed) => {
                        let bytes: Vec<u8> = (0..len).map(|i| seed.wrapping_add(i as u8)).collect();
                        for (i, byte) in bytes.iter().enumerate() {
                            model[offset as usize + i] = Some(*byte);
                        }
                        map.insert(Extent::new(offset, len), bytes.into());
                    }
                    Op::Remove(offset, len) => {
                        for slot in &mut model[offset as usize..(offset + len) as usize] {
                            *slot = None;
                        }
                        map.remove(Extent::new(offset, len));
                    }
                    Op::Truncate(len) => {
                        for slot in &mut model[len as usize..] {
                            *slot = None;
                        }
                        map.truncate(len);
                    }
                }
            }
            let extent = Extent::new(at, len);
            let mut seen = at;
            for (piece, value) in map.pieces(extent) {
                prop_assert_eq!(piece.offset, seen);
                prop_assert!(!piece.is_empty());
                seen = piece.end();
                for i in 0..piece.len {
                    let byte = value.as_ref().map(|value| value[i as usize]);
                    prop_assert_eq!(byte, model[(piece.offset + i) as usize]);
                }
            }
            prop_assert_eq!(seen, extent.end());
            let covered = model.iter().filter(|byte| byte.is_some()).count() as u64;
            prop_assert_eq!(map.covered(), covered);
            let all = model[at as usize..(at + len) as usize].iter().all(Option::is_some);
            prop_assert_eq!(map.covers(extent), all);
        }
    }
}
