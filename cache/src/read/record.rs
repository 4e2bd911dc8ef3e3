//! One record per object that is being read or of which bytes are in memory.
//!
//! Names are long and are compared once, when a stream begins: [`ObjectRecords`] gives each version of an
//! object one [`ObjectRecord`] with a number, and everything after that goes by the number. A record lives
//! as long as a stream, a fetch or a block at rest refers to it; the table knows it weakly, so the
//! table is as large as what is in memory, and no larger.
//!
//! The record has the table of the object's fills: disjoint, few, the newest last. Fills know nothing of
//! it. Its lock comes before a fill's and is held while the table is looked through or added to.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::fill::Fill;
use crate::extent::Extent;
use crate::memory::BLOCK;
use crate::object::ObjectId;

/// All records.
#[derive(Debug, Default)]
pub(super) struct ObjectRecords {
    table: Mutex<HashMap<ObjectId, Weak<ObjectRecord>>>,
    numbers: AtomicU64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct ObjectRecord {
    pub(super) id: ObjectId,
    pub(super) size: u64,
    /// Never used again.
    pub(super) number: u64,
    /// How many streams read it.
    streams: AtomicUsize,
    fills: Mutex<Vec<(Extent, Arc<Fill>)>>,
    /// How many fills there are, so that a look at none needs no lock.
    count: AtomicUsize,
    records: Weak<ObjectRecords>,
}

impl ObjectRecords {
    /// The record of `id`, whose object is `size` bytes long; made if there is none.
    pub(super) fn open(self: &Arc<Self>, id: &ObjectId, size: u64) -> Arc<ObjectRecord> {
        let mut table = self.table.lock();
        if let Some(record) = table.get(id).and_then(Weak::upgrade) {
            return record;
        }
        let record = Arc::new(ObjectRecord {
            id: id.clone(),
            size,
            number: self.numbers.fetch_add(1, Ordering::Relaxed),
            streams: AtomicUsize::new(0),
            fills: Mutex::default(),
            count: AtomicUsize::new(0),
            records: Arc::downgrade(self),
        });
        table.insert(id.clone(), Arc::downgrade(&record));
        record
    }

    /// The record of `id` if there is one.
    pub(super) fn find(&self, id: &ObjectId) -> Option<Arc<ObjectRecord>> {
        self.table.lock().get(id).and_then(Weak::upgrade)
    }

    /// Whoever asks for the object of `record` from now on gets a new record.
    pub(super) fn detach(&self, record: &ObjectRecord) {
        let mut table = self.table.lock();
        let same = |weak: &Weak<ObjectRecord>| std::ptr::eq(weak.as_ptr(), record);
        if table.get(&record.id).is_some_and(same) {
            table.remove(&record.id);
        }
    }

    /// How many records there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.table.lock().len()
    }
}

impl Drop for ObjectRecord {
    fn drop(&mut self) {
        if let Some(records) = self.records.upgrade() {
            records.detach(self);
        }
    }
}

impl ObjectRecord {
    pub(super) fn begin_stream(&self) {
        self.streams.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end_stream(&self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether two streams or more read it.
    pub(super) fn has_several_readers(&self) -> bool {
        self.streams.load(Ordering::Relaxed) > 1
    }

    /// The fill that has or will have `offset`, or where the next such byte is.
    pub(super) fn find(&self, offset: u64) -> Result<Arc<Fill>, u64> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Err(u64::MAX);
        }
        let mut next = u64::MAX;
        for (extent, fill) in self.fills.lock().iter() {
            if extent.end() <= offset {
                continue;
            }
            match fill.covers(offset) {
                Ok(()) => return Ok(fill.clone()),
                Err(start) => next = next.min(start),
            }
        }
        Err(next)
    }

    /// Takes `fill` out of the table.
    pub(super) fn remove(&self, fill: &Arc<Fill>) {
        let mut fills = self.fills.lock();
        fills.retain(|(_, known)| !Arc::ptr_eq(known, fill));
        self.count.store(fills.len(), Ordering::Release);
    }

    /// The fills for which `which` is true.
    pub(super) fn fills(&self, which: impl Fn(&Fill) -> bool) -> Vec<Arc<Fill>> {
        let fills = self.fills.lock();
        let found = fills.iter().filter(|(_, fill)| which(fill));
        found.map(|(_, fill)| fill.clone()).collect()
    }

    /// Adds fills for the parts of `extent` that no fill covers and that are not elsewhere. `elsewhere`
    /// says how many bytes from an offset on are (or 0), at most so many. `make` makes a fill of a part or
    /// of its beginning, or stops by `None`. Gives those made, and the first part for which none was.
    pub(super) fn add(
        &self,
        extent: Extent,
        elsewhere: impl Fn(u64, u64) -> u64,
        mut make: impl FnMut(Extent) -> Option<Arc<Fill>>,
    ) -> (Vec<Arc<Fill>>, Option<Extent>) {
        let mut made = Vec::new();
        let mut fills = self.fills.lock();
        fills.retain(|(_, fill)| !fill.is_over());
        let mut stopped = None;
        let near = fills
            .iter()
            .filter(|(other, _)| other.intersect(extent).is_some());
        let covered: Vec<Extent> = near.flat_map(|(_, fill)| fill.live()).collect();
        for gap in gaps(extent, covered, elsewhere) {
            let Some(fill) = make(gap) else {
                stopped = Some(gap);
                break;
            };
            fills.push((fill.extent, fill.clone()));
            made.push(fill);
        }
        self.count.store(fills.len(), Ordering::Release);
        (made, stopped)
    }
}

/// The parts of `extent` outside `covered` and not at rest, in order.
pub(super) fn gaps(
    extent: Extent,
    covered: Vec<Extent>,
    elsewhere: impl Fn(u64, u64) -> u64,
) -> Vec<Extent> {
    let mut covered: Vec<Extent> = covered
        .into_iter()
        .filter_map(|other| other.intersect(extent))
        .collect();
    covered.sort_unstable_by_key(|other| other.offset);
    covered.push(Extent::new(extent.end(), 0));
    let mut gaps: Vec<Extent> = Vec::new();
    let mut at = extent.offset;
    for other in covered {
        while at < other.offset {
            let here = elsewhere(at, other.offset - at).min(other.offset - at);
            if here > 0 {
                at += here;
                continue;
            }
            // Up to the block's end, where something may be at rest again.
            let end = other.offset.min((at / BLOCK + 1) * BLOCK);
            match gaps.last_mut() {
                Some(last) if last.end() == at => last.len += end - at,
                _ => gaps.push(Extent::between(at, end)),
            }
            at = end;
        }
        at = at.max(other.end());
    }
    gaps
}
