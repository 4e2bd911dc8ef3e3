//! Which extents of one object are on disk, each with its checksum and how far it is trusted. Pure.
//!
//! Extents are disjoint, in order, and none crosses a multiple of [`UNIT`]. Neighbours within one
//! unit that are trusted alike are joined, with the checksum of both, so the list stays as short as
//! the object allows however small the reads were that filled it. Each extent is charged for the
//! whole pages that it touches, because filesystems allocate whole pages.
//!
//! How trust moves: `Unverified` (an earlier run wrote it, and a crash may have torn it) becomes
//! `Verified` when its checksum was compared with what the disk gave, or the extent is dropped.
//! `Written` (this run wrote it) becomes `Verified` when it is first read after it left the page cache.

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
    /// Nobody has compared them since this process started.
    Unverified,
    /// They were written by this run and may be served from the page cache.
    Written,
    /// They were read back and compared.
    Verified,
}

/// An extent of an object that is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CachedExtent {
    pub(crate) offset: u64,
    pub(crate) crc: u64,
    pub(crate) len: u32,
    pub(crate) trust: Trust,
}

impl CachedExtent {
    pub(crate) fn extent(&self) -> Extent {
        Extent::new(self.offset, u64::from(self.len))
    }

    fn end(&self) -> u64 {
        self.offset + u64::from(self.len)
    }

    /// Whether a list may have it: not empty, within one unit, not at the end of all offsets.
    pub(crate) fn is_valid(&self) -> bool {
        self.len > 0
            && u64::from(self.len) <= UNIT
            && self.offset.checked_add(UNIT).is_some()
            && self.offset / UNIT == (self.end() - 1) / UNIT
    }

    /// What it takes of the cache's bounds by itself.
    pub(crate) fn usage(&self) -> Usage {
        Usage {
            bytes: charge(self.extent()),
            extents: 1,
        }
    }

    /// This one and the one right behind it as one; `None` if they do not belong together.
    fn join(&self, next: &CachedExtent) -> Option<CachedExtent> {
        let neighbours = self.end() == next.offset
            && self.offset / UNIT == next.offset / UNIT
            && self.trust == next.trust;
        neighbours.then(|| CachedExtent {
            offset: self.offset,
            crc: crc_fast::checksum_combine(CRC, self.crc, next.crc, u64::from(next.len)),
            len: self.len + next.len,
            trust: self.trust,
        })
    }
}

/// What extents take of the cache's bounds: pages on disk, in bytes, and records in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) bytes: u64,
    pub(crate) extents: usize,
}

/// The bytes of the pages that `extent` touches.
pub(crate) fn charge(extent: Extent) -> u64 {
    if extent.is_empty() {
        return 0;
    }
    extent.end().div_ceil(PAGE) * PAGE - extent.offset / PAGE * PAGE
}

/// What an insertion did to the list, for the index on disk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Insertion {
    /// Offsets of extents that are part of `joined` now.
    pub(crate) absorbed: Vec<u64>,
    /// The extent that is in the list now.
    pub(crate) joined: CachedExtent,
}

/// The extents of one object that are on disk.
#[derive(Debug, Default)]
pub(crate) struct ExtentList {
    list: Vec<CachedExtent>,
    bytes: u64,
    charged: u64,
    unverified: usize,
}

impl ExtentList {
    /// How many bytes of the object are on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What the list takes of the cache's bounds.
    pub(crate) fn usage(&self) -> Usage {
        Usage {
            bytes: self.charged,
            extents: self.list.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn unverified(&self) -> usize {
        self.unverified
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &CachedExtent> {
        self.list.iter()
    }

    fn first_at(&self, offset: u64) -> usize {
        self.list.partition_point(|cached| cached.end() <= offset)
    }

    /// The extents that cover `extent`; `None` if a byte of it is missing.
    pub(crate) fn covering(&self, extent: Extent) -> Option<&[CachedExtent]> {
        let first = self.first_at(extent.offset);
        let mut at = extent.offset;
        let mut count = 0;
        while at < extent.end() {
            let cached = self.list.get(first + count)?;
            if cached.offset > at {
                return None;
            }
            at = cached.end();
            count += 1;
        }
        Some(&self.list[first..first + count])
    }

    /// Whether all of `extent` is on disk.
    pub(crate) fn covers(&self, extent: Extent) -> bool {
        self.covering(extent).is_some()
    }

    /// Whether all of `extent` is on disk and may be served from the page cache.
    pub(crate) fn is_ready(&self, extent: Extent) -> bool {
        self.covering(extent)
            .is_some_and(|all| all.iter().all(|cached| cached.trust != Trust::Unverified))
    }

    /// What of `extent` is missing, in order, not cut at units.
    pub(crate) fn gaps(&self, extent: Extent) -> Vec<Extent> {
        let mut gaps = Vec::new();
        let mut at = extent.offset;
        for cached in &self.list[self.first_at(extent.offset)..] {
            if cached.offset >= extent.end() {
                break;
            }
            if at < cached.offset {
                gaps.push(Extent::between(at, cached.offset));
            }
            at = at.max(cached.end());
        }
        if at < extent.end() {
            gaps.push(Extent::between(at, extent.end()));
        }
        gaps
    }

    /// What of the file can be given back to the filesystem when only what is in the list is needed
    /// of `extent`: its gaps, each widened to whole pages where no other extent lies on them.
    pub(crate) fn reclaimable(&self, extent: Extent) -> Vec<Extent> {
        let gaps = self.gaps(extent).into_iter();
        gaps.map(|gap| self.widened_to_pages(gap)).collect()
    }

    fn widened_to_pages(&self, extent: Extent) -> Extent {
        let start = extent.offset / PAGE * PAGE;
        let end = extent.end().div_ceil(PAGE) * PAGE;
        let is_free = |from: u64, to: u64| {
            let next = self.list.get(self.first_at(from));
            next.is_none_or(|cached| cached.offset >= to)
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

    /// Adds an extent without joining it with its neighbours. False, and nothing changes, if it
    /// overlaps another or is not valid.
    pub(crate) fn put(&mut self, cached: CachedExtent) -> bool {
        if !cached.is_valid() {
            return false;
        }
        let index = self.first_at(cached.offset);
        if self
            .list
            .get(index)
            .is_some_and(|next| next.offset < cached.end())
        {
            return false;
        }
        if self.list.is_empty() {
            // Most objects are small and have one extent.
            self.list.reserve_exact(1);
        }
        self.list.insert(index, cached);
        self.count_in(cached);
        true
    }

    /// Adds an extent and joins it with its neighbours. `None`, and nothing changes, if it overlaps
    /// another or is not valid.
    pub(crate) fn insert(&mut self, cached: CachedExtent) -> Option<Insertion> {
        if !self.put(cached) {
            return None;
        }
        let mut index = self.first_at(cached.offset);
        let mut absorbed = Vec::new();
        if let Some(joined) = self.join_at(index) {
            absorbed.push(self.list[index + 1].offset);
            self.replace_pair(index, joined);
        }
        if index > 0
            && let Some(joined) = self.join_at(index - 1)
        {
            absorbed.push(self.list[index].offset);
            index -= 1;
            self.replace_pair(index, joined);
        }
        absorbed.retain(|offset| *offset != cached.offset);
        Some(Insertion {
            absorbed,
            joined: self.list[index],
        })
    }

    fn join_at(&self, index: usize) -> Option<CachedExtent> {
        self.list[index].join(self.list.get(index + 1)?)
    }

    fn replace_pair(&mut self, index: usize, joined: CachedExtent) {
        let next = self.list.remove(index + 1);
        self.count_out(next);
        self.count_out(self.list[index]);
        self.list[index] = joined;
        self.count_in(joined);
    }

    /// Removes exactly `cached`, trust included. False if it is not in the list (any more).
    pub(crate) fn remove(&mut self, cached: &CachedExtent) -> bool {
        let index = self.first_at(cached.offset);
        if self.list.get(index) != Some(cached) {
            return false;
        }
        self.list.remove(index);
        self.count_out(*cached);
        true
    }

    /// Marks `cached`, whose bytes were compared, as verified; one that was
    /// joined or removed meanwhile stays as it is.
    pub(crate) fn mark_verified(&mut self, cached: &CachedExtent) {
        let index = self.first_at(cached.offset);
        if self.list.get(index) == Some(cached) {
            self.count_out(*cached);
            self.list[index].trust = Trust::Verified;
            self.count_in(self.list[index]);
        }
    }

    /// Removes everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn count_in(&mut self, cached: CachedExtent) {
        self.bytes += u64::from(cached.len);
        self.charged += charge(cached.extent());
        self.unverified += usize::from(cached.trust == Trust::Unverified);
    }

    fn count_out(&mut self, cached: CachedExtent) {
        self.bytes -= u64::from(cached.len);
        self.charged -= charge(cached.extent());
        self.unverified -= usize::from(cached.trust == Trust::Unverified);
    }
}

#[cfg(test)]
mod tests;
