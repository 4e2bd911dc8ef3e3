//! One open handle: reads of 4 KiB to a few MiB, answered from wherever the bytes are.
//!
//! Each access is noted first, which may begin readahead. Then the bytes are looked for in order of
//! cost: what a fill has, what is at rest in memory, the disk, and last the store. Parts of one
//! read may come from different places; what is missing is begun as one fetch for each gap.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::cache::ReadCache;
use super::fetch::FetchPurpose;
use super::fill::{Fill, FillOwner, Join};
use super::record::ObjectRecord;
use crate::extent::Extent;
use crate::memory::BLOCK;
use crate::object::ObjectId;
use crate::readahead::{Pattern, ReadPlan, pages};
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
    pub(super) record: Arc<ObjectRecord>,
    size: u64,
    number: u64,
    pattern: Mutex<Pattern>,
}

/// What a read took from where, in bytes.
#[derive(Debug, Default)]
struct BytesTaken {
    memory: u64,
    disk: u64,
    store: u64,
}

impl ReadCache {
    /// Begins reading `object`, which is `size` bytes long. One per open handle: it keeps the
    /// readahead's state. Never waits, asks the store nothing.
    pub fn stream(self: &Arc<Self>, object: ObjectId, size: u64) -> Stream {
        let record = self.records.open(&object, size);
        record.begin_stream();
        Stream {
            cache: self.clone(),
            record,
            size,
            number: self.streams.fetch_add(1, Ordering::Relaxed),
            pattern: Mutex::new(Pattern::new(size)),
        }
    }
}

impl Stream {
    /// What is read.
    pub fn object(&self) -> &ObjectId {
        &self.record.id
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
        let mut taken = BytesTaken::default();
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
        let mut taken = BytesTaken::default();
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

    fn note(&self, extent: Extent) -> ReadPlan {
        let limits = self.cache.limits();
        self.pattern.lock().access(extent, limits)
    }

    fn purpose(&self, asked: Extent, plan: &ReadPlan) -> FetchPurpose {
        let clean_max = self.cache.config.clean_max;
        FetchPurpose {
            owner: FillOwner {
                stream: self.number,
                run: plan.run,
            },
            asked,
            must: false,
            spare_disk: true,
            scan: self.size > clean_max && plan.consumed > clean_max / 2,
        }
    }

    /// Does what `plan` says about what lies beyond `asked`.
    fn follow(&self, plan: &ReadPlan, asked: Extent) {
        let mine = |fill: &Fill| fill.owner.stream == self.number;
        if !plan.ended.is_empty() {
            let over = |fill: &Fill| mine(fill) && plan.ended.contains(&fill.owner.run);
            self.cache.orphan(&self.record, over);
        }
        if plan.ahead.is_empty() {
            return;
        }
        let passed = |fill: &Fill| {
            mine(fill) && fill.owner.run == plan.run && fill.extent.end() <= plan.behind
        };
        self.cache.orphan(&self.record, passed);
        let purpose = self.purpose(pages(asked, self.size), plan);
        for extent in &plan.ahead {
            if let Some(left) = self.cache.fetch(&self.record, *extent, purpose) {
                self.pattern.lock().retreat(plan.run, left);
                return;
            }
        }
    }

    /// Whether this is a long sequential read that the disk tier cannot follow now. Its readahead has
    /// stopped; if each of its reads fetched what it misses, the disk would leave out just that.
    fn outruns_disk(&self, plan: &ReadPlan) -> bool {
        let long = plan.run > 0 && plan.consumed >= OUTRUN_MIN;
        let disk = self.cache.disk.as_ref().filter(|_| long);
        disk.is_some_and(|disk| disk.is_far_behind())
    }

    /// Sees to it that what of `extent` is neither here nor on disk is on its way.
    fn demand(&self, extent: Extent, plan: &ReadPlan, spare_disk: bool) {
        let purpose = self.purpose(pages(extent, self.size), plan);
        // A small object is fetched whole; of others nothing that comes before.
        let wide = match plan.run {
            0 => plan.demand,
            _ => Extent::between(purpose.asked.offset, plan.demand.end()),
        };
        let mut purpose = FetchPurpose {
            spare_disk,
            ..purpose
        };
        if wide.len > purpose.asked.len {
            // What lies beyond may find no memory, which is no harm.
            let _ = self.cache.fetch(&self.record, wide, purpose);
        }
        purpose.must = true;
        let left = self.cache.fetch(&self.record, purpose.asked, purpose);
        debug_assert!(left.is_none(), "what must be fetched waits for memory");
    }

    /// Copies what is in memory or has arrived, from `offset` on. Gives how many bytes.
    fn copy(&self, offset: u64, buf: &mut [u8]) -> Result<usize, Extent> {
        let end = offset + buf.len() as u64;
        let found = self.record.find(offset);
        let next = match found {
            Ok(fill) => {
                let mut rest = Vec::new();
                let len = fill.copy(offset, buf, &mut rest);
                self.cache.rest(&self.record, &fill, &rest);
                if len > 0 {
                    return Ok(len);
                }
                end
            }
            Err(next) => next,
        };
        match self.cache.memory.copy(self.record.number, offset, buf) {
            0 => Err(Extent::between(offset, end.min(next))),
            len => Ok(len),
        }
    }

    /// Copies all of `extent` into `buf` if it is here. Never waits.
    fn copy_all(&self, extent: Extent, buf: &mut [u8], taken: &mut BytesTaken) -> bool {
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
                    if !disk.is_some_and(|disk| disk.read_now(&self.record.id, gap.offset, buf)) {
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
        self.record.find(offset).is_ok_and(|fill| fill.has(offset))
            || self.cache.memory.run(self.record.number, offset, 1) > 0
            || disk.is_some_and(|disk| disk.holds(&self.record.id, byte))
    }

    /// Fills `buf` with `extent`. Waits for the disk and the store.
    async fn wait_all(
        &self,
        extent: Extent,
        buf: &mut [u8],
        taken: &mut BytesTaken,
    ) -> StoreResult<()> {
        let plan = self.note(extent);
        self.follow(&plan, extent);
        let mut use_disk = self.cache.disk.is_some();
        let (mut done, mut fruitless) = (0, 0);
        while done < buf.len() {
            let rest = Extent::between(extent.offset + done as u64, extent.end());
            let len = self
                .wait_some(rest, &mut buf[done..], &plan, &mut use_disk, taken)
                .await?;
            done += len;
            fruitless = if len == 0 { fruitless + 1 } else { 0 };
            if fruitless > FRUITLESS_MAX {
                let why = "bytes were dropped as often as they were fetched; raise --memory";
                return Err(StoreError::new(StoreErrorKind::Broken, why));
            }
        }
        Ok(())
    }

    /// One step towards `extent` in `buf`: takes what is here from its start on, or waits for what is
    /// nearest. Gives how many bytes; after a 0 look again.
    async fn wait_some(
        &self,
        extent: Extent,
        buf: &mut [u8],
        plan: &ReadPlan,
        use_disk: &mut bool,
        taken: &mut BytesTaken,
    ) -> StoreResult<usize> {
        let at = extent.offset;
        let gap = match self.copy(at, buf) {
            Ok(len) => {
                taken.memory += len as u64;
                return Ok(len);
            }
            Err(gap) => gap,
        };
        if let Ok(fill) = self.record.find(at) {
            let len = Self::wait_for_fill(&fill, extent, buf).await?;
            taken.store += len as u64;
            return Ok(len);
        }
        let disk = self.cache.disk.as_ref().filter(|_| *use_disk);
        let part = Extent::between(at, gap.end().min((at / BLOCK + 1) * BLOCK));
        if let Some(disk) = disk.filter(|disk| disk.holds(&self.record.id, part)) {
            let buf = &mut buf[..part.len as usize];
            if disk.read(&self.record.id, at, buf).await {
                taken.disk += part.len;
                return Ok(buf.len());
            }
            // Corrupt or unreadable: the store has the truth.
            *use_disk = false;
            return Ok(0);
        }
        if let Some(disk) = disk.filter(|_| self.outruns_disk(plan)) {
            disk.caught_up().await;
        }
        self.demand(extent, plan, *use_disk);
        Ok(0)
    }

    /// Waits until `fill` has brought what it has of `extent`. Gives how many bytes were copied; 0 if
    /// they are here or gone by now.
    async fn wait_for_fill(fill: &Fill, extent: Extent, buf: &mut [u8]) -> StoreResult<usize> {
        let part = Extent::between(extent.offset, extent.end().min(fill.extent.end()));
        let Join::Wait(answer) = fill.join(part) else {
            return Ok(0);
        };
        let Ok(pieces) = answer.await else {
            // A fill that ended without an answer was given up between two looks.
            tokio::task::yield_now().await;
            return Ok(0);
        };
        let mut done = 0;
        for (_, piece) in pieces? {
            buf[done..done + piece.len()].copy_from_slice(&piece);
            done += piece.len();
        }
        Ok(done)
    }

    fn count(&self, taken: &BytesTaken) {
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
        self.record.end_stream();
        let mine = |fill: &Fill| fill.owner.stream == self.number;
        self.cache.orphan(&self.record, mine);
    }
}
