//! One open handle: reads of 4 KiB to a few MiB, answered from wherever the bytes are.
//!
//! Each access is noted first, which may begin readahead. Then the bytes are looked for in order of
//! cost: what a fill holds, what is at rest in memory, the disk, and last the store. Parts of one
//! read may come from different places; what is missing is begun as one fetch for each gap.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::ReadCache;
use super::fetch::Want;
use super::fill::{Fill, Join, Owner, Rest};
use super::object::Object;
use crate::extent::Extent;
use crate::memory::BLOCK;
use crate::object::ObjectId;
use crate::readahead::{Pattern, Plan, pages};
use crate::store::{StoreError, StoreErrorKind, StoreResult};

/// Reads longer than this look first whether their last byte is here: copying most of a large read
/// in vain costs more than the look.
const LOOK_FIRST: u64 = 64 << 10;
/// A run shorter than this cannot have filled the disk tier's queue by itself.
const OUTRUN_MIN: u64 = 32 << 20;
/// A read looks again when bytes that it found are gone by the time that it takes them. Each such
/// turn is a race lost to another thread; so many in a row are not races.
const FRUITLESS_MAX: usize = 1000;

/// One reader of one object.
#[derive(Debug)]
pub struct Stream {
    cache: Arc<ReadCache>,
    pub(super) object: Arc<Object>,
    size: u64,
    number: u64,
    pattern: Mutex<Pattern>,
}

/// What a read took from where, in bytes.
#[derive(Debug, Default)]
struct Taken {
    memory: u64,
    disk: u64,
    store: u64,
}

impl Stream {
    pub(super) fn new(cache: Arc<ReadCache>, object: Arc<Object>, size: u64, number: u64) -> Self {
        object.streams.fetch_add(1, Ordering::Relaxed);
        Self {
            cache,
            number,
            pattern: Mutex::new(Pattern::new(size)),
            object,
            size,
        }
    }

    /// What is read.
    pub fn object(&self) -> &ObjectId {
        &self.object.id
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads into `buf` what is here, and notes the access for readahead. Gives how many bytes were
    /// read (fewer than `buf` only at the end of the object), or `None` if any of them is not here;
    /// then they are being fetched, unless the disk has them, and [`Stream::read`] waits for them.
    /// Never waits; fetches ahead in the background.
    pub fn read_now(&self, offset: u64, buf: &mut [u8]) -> Option<usize> {
        let extent = self.within(offset, buf.len());
        if extent.is_empty() {
            return Some(0);
        }
        let plan = self.note(extent);
        let buf = &mut buf[..extent.len as usize];
        let mut taken = Taken::default();
        let here = self.copy_all(extent, buf, &mut taken);
        self.follow(&plan, extent);
        if !here {
            if !self.outruns_disk(&plan) {
                self.demand(extent, &plan, true);
            }
            return None;
        }
        self.count(&taken);
        Some(extent.len as usize)
    }

    /// Reads into `buf`. Gives how many bytes were read: fewer than `buf` only at the end.
    ///
    /// # Errors
    /// `Changed` or `NotFound` if the version is gone from the store and the bytes are not here;
    /// others as the store's. Waits for the store. Cancel-safe: dropping it gives up waiting, and
    /// the fetch goes on for others and for the cache.
    pub async fn read(&self, offset: u64, buf: &mut [u8]) -> StoreResult<usize> {
        let whole = self.within(offset, buf.len());
        let mut taken = Taken::default();
        let mut at = whole.offset;
        // One unit at a time, so that no single fetch is larger than memory.
        let step = self.cache.limits().unit;
        while at < whole.end() {
            let extent = Extent::between(at, whole.end().min(at.saturating_add(step)));
            let from = (at - offset) as usize;
            let buf = &mut buf[from..from + extent.len as usize];
            self.wait_all(extent, buf, &mut taken).await?;
            at = extent.end();
        }
        self.count(&taken);
        Ok(whole.len as usize)
    }

    fn within(&self, offset: u64, len: usize) -> Extent {
        let start = offset.min(self.size);
        Extent::between(start, offset.saturating_add(len as u64).min(self.size))
    }

    fn note(&self, extent: Extent) -> Plan {
        let limits = self.cache.limits();
        self.pattern.lock().access(extent, limits)
    }

    fn want(&self, asked: Extent, plan: &Plan) -> Want {
        let clean_max = self.cache.config.clean_max;
        Want {
            owner: Owner {
                stream: self.number,
                run: plan.run,
            },
            asked,
            must: false,
            disk: true,
            scan: self.size > clean_max && plan.consumed > clean_max / 2,
        }
    }

    /// Does what `plan` says about what lies beyond `asked`.
    fn follow(&self, plan: &Plan, asked: Extent) {
        let mine = |fill: &Fill| fill.owner.stream == self.number;
        if !plan.ended.is_empty() {
            let over = |fill: &Fill| mine(fill) && plan.ended.contains(&fill.owner.run);
            self.cache.orphan(&self.object, over);
        }
        if plan.ahead.is_empty() {
            return;
        }
        let passed = |fill: &Fill| {
            mine(fill) && fill.owner.run == plan.run && fill.extent.end() <= plan.behind
        };
        self.cache.orphan(&self.object, passed);
        let want = self.want(pages(asked, self.size), plan);
        for extent in &plan.ahead {
            if let Some(left) = self.cache.fetch(&self.object, *extent, want) {
                self.pattern.lock().retreat(plan.run, left);
                return;
            }
        }
    }

    /// Whether this is a long sequential read that the disk tier cannot follow now. Its readahead has
    /// stopped; if each of its reads fetched what it misses, the disk would leave out just that.
    fn outruns_disk(&self, plan: &Plan) -> bool {
        let long = plan.run > 0 && plan.consumed >= OUTRUN_MIN;
        let disk = self.cache.disk.as_ref().filter(|_| long);
        disk.is_some_and(|disk| disk.is_far_behind())
    }

    /// Sees to it that what of `extent` is neither here nor on disk is on its way.
    fn demand(&self, extent: Extent, plan: &Plan, disk: bool) {
        let want = self.want(pages(extent, self.size), plan);
        // A small object is fetched whole; of others nothing that comes before.
        let wide = match plan.run {
            0 => plan.demand,
            _ => Extent::between(want.asked.offset, plan.demand.end()),
        };
        if wide.len > want.asked.len {
            // What lies beyond may find no memory, which is no harm.
            let _ = self.cache.fetch(&self.object, wide, Want { disk, ..want });
        }
        let want = Want {
            must: true,
            disk,
            ..want
        };
        let left = self.cache.fetch(&self.object, want.asked, want);
        debug_assert!(left.is_none(), "what must be fetched waits for memory");
    }

    /// Copies what is in memory or has arrived, from `offset` on. Gives how many bytes.
    fn copy(&self, offset: u64, buf: &mut [u8]) -> Result<usize, Extent> {
        let end = offset + buf.len() as u64;
        let found = self.object.find(offset);
        let next = match found {
            Ok(fill) => {
                let mut rest = Rest::new();
                let len = fill.copy(offset, buf, &mut rest);
                self.cache.rest(&fill, rest);
                if len > 0 {
                    return Ok(len);
                }
                end
            }
            Err(next) => next,
        };
        match self.cache.memory.copy(self.object.number, offset, buf) {
            0 => Err(Extent::between(offset, end.min(next))),
            len => Ok(len),
        }
    }

    /// Copies all of `extent` into `buf` if it is here. Never waits.
    fn copy_all(&self, extent: Extent, buf: &mut [u8], taken: &mut Taken) -> bool {
        if extent.len > LOOK_FIRST && !self.has(extent.end() - 1) {
            return false;
        }
        let mut done = 0;
        while done < buf.len() {
            match self.copy(extent.offset + done as u64, &mut buf[done..]) {
                Ok(len) => {
                    taken.memory += len as u64;
                    done += len;
                }
                Err(gap) => {
                    let buf = &mut buf[done..done + gap.len as usize];
                    let disk = self.cache.disk.as_ref();
                    if !disk.is_some_and(|disk| disk.read_now(&self.object.id, gap.offset, buf)) {
                        return false;
                    }
                    taken.disk += gap.len;
                    done += gap.len as usize;
                }
            }
        }
        true
    }

    fn has(&self, offset: u64) -> bool {
        let byte = Extent::new(offset, 1);
        let disk = self.cache.disk.as_ref();
        self.object.find(offset).is_ok_and(|fill| fill.has(offset))
            || self.cache.memory.run(self.object.number, offset, 1) > 0
            || disk.is_some_and(|disk| disk.holds(&self.object.id, byte))
    }

    /// Fills `buf` with `extent`. Waits for the disk and the store.
    async fn wait_all(&self, extent: Extent, buf: &mut [u8], taken: &mut Taken) -> StoreResult<()> {
        let plan = self.note(extent);
        self.follow(&plan, extent);
        let mut disk = self.cache.disk.as_ref();
        let (mut done, mut before, mut fruitless) = (0, 0, 0);
        while done < buf.len() {
            if done > before {
                (before, fruitless) = (done, 0);
            } else {
                fruitless += 1;
            }
            if fruitless > FRUITLESS_MAX {
                let why = "bytes were dropped as often as they were fetched; raise --memory";
                return Err(StoreError::new(StoreErrorKind::Broken, why));
            }
            let at = extent.offset + done as u64;
            let gap = match self.copy(at, &mut buf[done..]) {
                Ok(len) => {
                    taken.memory += len as u64;
                    done += len;
                    continue;
                }
                Err(gap) => gap,
            };
            if let Ok(fill) = self.object.find(at) {
                let part = Extent::between(at, extent.end().min(fill.extent.end()));
                let Join::Wait(answer) = fill.join(part) else {
                    continue;
                };
                // A fill that ended without an answer was given up between two looks; look again.
                let Ok(pieces) = answer.await else {
                    tokio::task::yield_now().await;
                    continue;
                };
                for piece in pieces? {
                    buf[done..done + piece.len()].copy_from_slice(&piece);
                    taken.store += piece.len() as u64;
                    done += piece.len();
                }
                continue;
            }
            let part = Extent::between(at, gap.end().min((at / BLOCK + 1) * BLOCK));
            if let Some(tier) = disk.filter(|tier| tier.holds(&self.object.id, part)) {
                let buf = &mut buf[done..done + part.len as usize];
                if tier.read(&self.object.id, at, buf).await {
                    taken.disk += part.len;
                    done += part.len as usize;
                } else {
                    // Corrupt or unreadable: the store has the truth.
                    disk = None;
                }
                continue;
            }
            if let Some(tier) = disk.filter(|_| self.outruns_disk(&plan)) {
                tier.caught_up().await;
            }
            self.demand(Extent::between(at, extent.end()), &plan, disk.is_some());
        }
        Ok(())
    }

    fn count(&self, taken: &Taken) {
        let counters = &self.cache.counters;
        let reads = match taken.store {
            0 => &counters.hits,
            _ => &counters.misses,
        };
        reads.fetch_add(1, Ordering::Relaxed);
        for (counter, bytes) in [
            (&counters.memory_hit, taken.memory),
            (&counters.disk_hit, taken.disk),
            (&counters.miss, taken.store),
        ] {
            if bytes > 0 {
                counter.fetch_add(bytes, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.object.streams.fetch_sub(1, Ordering::Relaxed);
        let mine = |fill: &Fill| fill.owner.stream == self.number;
        self.cache.orphan(&self.object, mine);
    }
}
