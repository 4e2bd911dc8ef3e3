//! One record per object that is being read or of which bytes are in memory.
//!
//! Names are long and are compared once, when a stream begins: [`Objects`] gives each version of an
//! object one [`Object`] with a number, and everything after that goes by the number. A record lives
//! as long as a stream, a fill or a block at rest refers to it; the table holds it weakly, so the
//! table is as large as what is held, and no larger.
//!
//! The record has the table of the object's fills: disjoint, few, the newest last. Its lock comes
//! before a fill's and is held while the table is looked through or added to.

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
pub(super) struct Objects {
    table: Mutex<HashMap<ObjectId, Weak<Object>>>,
    numbers: AtomicU64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) id: ObjectId,
    pub(super) size: u64,
    /// Never used again.
    pub(super) number: u64,
    /// How many streams read it.
    pub(super) streams: AtomicUsize,
    fills: Mutex<Vec<(Extent, Arc<Fill>)>>,
    /// How many fills there are, so that a look at none needs no lock.
    count: AtomicUsize,
    objects: Weak<Objects>,
}

impl Objects {
    /// The record of `id`, whose object is `size` bytes long; made if there is none.
    pub(super) fn open(self: &Arc<Self>, id: &ObjectId, size: u64) -> Arc<Object> {
        let mut table = self.table.lock();
        if let Some(object) = table.get(id).and_then(Weak::upgrade) {
            return object;
        }
        let object = Arc::new(Object {
            id: id.clone(),
            size,
            number: self.numbers.fetch_add(1, Ordering::Relaxed),
            streams: AtomicUsize::new(0),
            fills: Mutex::default(),
            count: AtomicUsize::new(0),
            objects: Arc::downgrade(self),
        });
        table.insert(id.clone(), Arc::downgrade(&object));
        object
    }

    /// The record of `id` if there is one.
    pub(super) fn find(&self, id: &ObjectId) -> Option<Arc<Object>> {
        self.table.lock().get(id).and_then(Weak::upgrade)
    }

    /// Whoever asks for `object` from now on gets a new record.
    pub(super) fn part(&self, object: &Object) {
        let mut table = self.table.lock();
        let same = |weak: &Weak<Object>| std::ptr::eq(weak.as_ptr(), object);
        if table.get(&object.id).is_some_and(same) {
            table.remove(&object.id);
        }
    }

    /// How many records there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.table.lock().len()
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        if let Some(objects) = self.objects.upgrade() {
            objects.part(self);
        }
    }
}

impl Object {
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

    /// Adds fills for the parts of `extent` that no fill covers and that are not `elsewhere`, which
    /// says how many bytes from an offset on are at rest (or 0), at most so many. `make` makes a
    /// fill of a part or of its beginning, or stops the whole by `None`. Gives those made, and the first that was not.
    pub(super) fn add(
        &self,
        extent: Extent,
        elsewhere: impl Fn(u64, u64) -> u64,
        mut make: impl FnMut(Extent) -> Option<Arc<Fill>>,
    ) -> (Vec<Arc<Fill>>, Option<Extent>) {
        let mut made = Vec::new();
        let mut fills = self.fills.lock();
        fills.retain(|(_, fill)| !fill.over());
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
