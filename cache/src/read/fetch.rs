//! From a wish for bytes to bytes at rest: what is missing, memory for it, the GET, its end.
//!
//! Memory comes first. Readahead takes it only if it is there; bytes that somebody waits for wait
//! for memory, and while they do, nothing else may sit on it: what is unread is put to rest,
//! oldest first, and fills that become complete are put to rest at once. A fill in flight always ends by
//! itself (the store bounds its calls), so such a wait ends too; it is bounded all the same.
//!
//! A waiting reader counts itself (`memory_waiters`) before it looks for unread fills, and a fill that
//! becomes complete shows itself among the unread before it looks at that count: one of the two sees the
//! other.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::cache::{DISK_PATIENCE, ReadCache};
use super::fill::{Fill, FillOwner};
use super::fill_blocks::RestingBlock;
use super::fill_state::FetchReservation;
use super::record::ObjectRecord;
use crate::budget::Grant;
use crate::disk_cache::QueueReservation;
use crate::extent::Extent;
use crate::memory::{BLOCK, Keep};
use crate::readahead::{ReadaheadLimits, SMALL_MAX, UNIT};
use crate::store::{Priority, STORE_TIMEOUT, StoreError, StoreErrorKind, StoreResult};

/// Why bytes are fetched.
#[derive(Debug, Clone, Copy)]
pub(super) struct FetchPurpose {
    pub(super) owner: FillOwner,
    /// What somebody waits for; it may lie outside of what is fetched.
    pub(super) asked: Extent,
    /// `asked` is fetched even if memory must be waited for.
    pub(super) must: bool,
    /// What the disk has is not fetched.
    pub(super) spare_disk: bool,
    /// See [`Fill::scan`].
    pub(super) scan: bool,
}

/// All of an object.
const WHOLE: Extent = Extent {
    offset: 0,
    len: u64::MAX,
};

impl FetchPurpose {
    fn fill(&self, size: u64, extent: Extent, reservation: FetchReservation) -> Arc<Fill> {
        let ahead = !self.asked.contains(extent) && size > SMALL_MAX;
        Fill::new(extent, self.owner, ahead, self.scan, reservation)
    }
}

impl ReadCache {
    /// How far readahead may go now. Each run may hold twice what is free in the share: one alone
    /// gets two thirds of it, and several come to equal parts without knowing of one another.
    pub(super) fn limits(&self) -> ReadaheadLimits {
        let bound = self.config.fills.bound();
        let unit = if bound >= 4 * UNIT {
            UNIT
        } else {
            (bound / 4).next_multiple_of(64 << 10)
        };
        let free = bound - self.config.fills.used().min(bound);
        ReadaheadLimits {
            unit,
            ahead_max: self.config.readahead_max.min(2 * free).min(bound / 4 * 3),
        }
    }

    /// Begins to fetch what of `extent` is neither here nor on its way. Gives the first part for
    /// which there was no memory. Never waits.
    pub(super) fn fetch(
        self: &Arc<Self>,
        record: &Arc<ObjectRecord>,
        extent: Extent,
        purpose: FetchPurpose,
    ) -> Option<Extent> {
        let on_disk = self.on_disk(record, extent, purpose.spare_disk);
        let elsewhere = |at: u64, len: u64| {
            let part = on_disk
                .iter()
                .find(|part| part.contains(Extent::new(at, 1)));
            match part {
                Some(part) => (part.end() - at).min(len),
                None => self.memory.run(record.number, at, len),
            }
        };
        let make = |gap| self.make_fill(record.size, gap, purpose);
        let (made, stopped) = record.add(extent, elsewhere, make);
        let fills = &self.config.fills;
        if !made.is_empty() && fills.used() > fills.bound() / 4 * 3 || stopped.is_some() {
            self.reclaim_stale();
        }
        for fill in made {
            let priority = match fill.extent.intersect(purpose.asked) {
                Some(_) => Priority::Interactive,
                None => Priority::Readahead,
            };
            let run = self.clone().run(record.clone(), fill.clone(), priority);
            let task = self.runtime.spawn(run);
            fill.set_abort(task.abort_handle());
        }
        stopped
    }

    /// A fill of `gap` if there is memory for it; of what of it must be fetched, if that has to wait
    /// for memory; else `None`.
    fn make_fill(&self, size: u64, gap: Extent, purpose: FetchPurpose) -> Option<Arc<Fill>> {
        if let Some(grant) = self.config.fills.try_take(gap.len)
            && let Ok(queue) = self.reserve_queue(gap, purpose.must)
        {
            let memory = Some(grant);
            return Some(purpose.fill(size, gap, FetchReservation { memory, queue }));
        }
        let part = gap.intersect(purpose.asked).filter(|_| purpose.must)?;
        let queue = self.reserve_queue(part, true).ok()?;
        let memory = None;
        Some(purpose.fill(size, part, FetchReservation { memory, queue }))
    }

    /// A place in the disk's queue for a fetch of `extent`, if there is a disk. `Err` if it is behind.
    fn reserve_queue(&self, extent: Extent, must: bool) -> Result<Option<QueueReservation>, ()> {
        match &self.disk {
            None => Ok(None),
            Some(disk) => disk.reserve(extent.len, must).map(Some).ok_or(()),
        }
    }

    /// The parts of `extent` that the disk has, by block.
    fn on_disk(&self, record: &ObjectRecord, extent: Extent, look: bool) -> Vec<Extent> {
        let Some(disk) = self.disk.as_ref().filter(|_| look) else {
            return Vec::new();
        };
        let mut parts = Vec::new();
        let mut at = extent.offset;
        while at < extent.end() {
            let part = Extent::between(at, extent.end().min((at / BLOCK + 1) * BLOCK));
            if disk.holds(&record.id, part) {
                parts.push(part);
            }
            at = part.end();
        }
        parts
    }

    fn run(
        self: Arc<Self>,
        record: Arc<ObjectRecord>,
        fill: Arc<Fill>,
        priority: Priority,
    ) -> impl Future<Output = ()> + Send + 'static {
        // Made before the task first runs, so that a task that never runs is noticed too.
        let end = EndOfFetch { record, fill };
        async move {
            let EndOfFetch { record, fill } = &end;
            match self.bring(record, fill, priority).await {
                Ok(true) => self.finish(record, fill),
                Ok(false) => {}
                Err(error) => {
                    let (object, extent) = (&record.id, fill.extent);
                    tracing::debug!(?object, ?extent, %error, "fetch failed");
                    fill.fail(&error);
                }
            }
        }
    }

    /// Brings all bytes of `fill`; false if nobody wants them any more.
    async fn bring(
        &self,
        record: &ObjectRecord,
        fill: &Fill,
        priority: Priority,
    ) -> StoreResult<bool> {
        if !fill.is_granted() {
            fill.grant(self.wait_for_memory(fill.extent.len).await?);
        }
        let id = &record.id;
        // A store sends an object's checksum with the whole object only, and knows that it is the
        // whole when it is asked for without an end.
        let whole = fill.extent == Extent::between(0, record.size);
        let asked = if whole { WHOLE } else { fill.extent };
        let mut body = self.store.get(id, asked, priority).await?.body;
        while let Some(chunk) = body.chunk().await? {
            let len = chunk.len() as u64;
            if len > fill.missing() {
                return Err(wrong(record, fill, "more bytes than were asked for"));
            }
            self.counters.fetched.fetch_add(len, Ordering::Relaxed);
            if !fill.push(chunk) {
                return Ok(false);
            }
        }
        if fill.missing() > 0 {
            return Err(wrong(record, fill, "fewer bytes than were asked for"));
        }
        Ok(true)
    }

    fn finish(&self, record: &Arc<ObjectRecord>, fill: &Arc<Fill>) {
        self.unread.push(record, fill);
        let release = self.memory_waiters.load(Ordering::SeqCst) > 0;
        let fetched = self.counters.fetched.load(Ordering::Relaxed);
        let Some(completed) = fill.complete(release, fetched) else {
            return;
        };
        if let Some(disk) = &self.disk {
            disk.store_reserved(
                &record.id,
                record.size,
                fill.extent,
                completed.bytes,
                Some(fill.pay_until_stored()),
                completed.queue,
            );
        }
        self.rest(record, fill, &completed.rest);
    }

    /// Puts blocks of `fill` to rest.
    pub(super) fn rest(&self, record: &Arc<ObjectRecord>, fill: &Arc<Fill>, rest: &[RestingBlock]) {
        if rest.is_empty() {
            return;
        }
        let keep: Keep = record.clone();
        // Readers of the same object who come later may want what a scan leaves behind.
        let passed_for_good = fill.scan && !record.has_several_readers();
        for block in rest {
            if !(block.read && passed_for_good) {
                self.memory
                    .insert(record.number, &keep, block.index, &block.pieces);
            }
        }
        if fill.rested(rest) {
            record.remove(fill);
        }
    }

    /// Gives up what `which` fills of `record` have unread.
    pub(super) fn orphan(&self, record: &Arc<ObjectRecord>, which: impl Fn(&Fill) -> bool) {
        for fill in record.fills(which) {
            self.rest(record, &fill, &fill.orphan());
            if fill.is_over() {
                record.remove(&fill);
            }
        }
    }

    /// Memory for bytes that somebody waits for.
    async fn wait_for_memory(&self, len: u64) -> StoreResult<Grant> {
        let _waiter = MemoryWaiter::new(self);
        let bound = self.config.fills.bound();
        let enough = len.min(bound);
        while bound - self.config.fills.used().min(bound) < enough {
            let Some((record, fill)) = self.unread.pop_oldest() else {
                break;
            };
            self.rest(&record, &fill, &fill.orphan());
        }
        let take = self.config.fills.take(len);
        tokio::pin!(take);
        let began = Instant::now();
        while began.elapsed() < STORE_TIMEOUT {
            if let Ok(grant) = tokio::time::timeout(DISK_PATIENCE, &mut take).await {
                return Ok(grant);
            }
            // What waits for a disk that is behind can be fetched again.
            if let Some(disk) = &self.disk {
                disk.shed();
            }
        }
        Err(StoreError::new(
            StoreErrorKind::Timeout,
            "no memory for the read came free; raise --memory",
        ))
    }

    /// Puts the oldest unread fill to rest if it has been outlived: the cache has fetched twice what
    /// may be in flight since it became complete, and its reader has not come. Without this, handles
    /// that were read from and then left open would leave ever less to those that are in use.
    fn reclaim_stale(&self) {
        let fetched = self.counters.fetched.load(Ordering::Relaxed);
        let outlived = 2 * self.config.fills.bound();
        if let Some((record, fill)) = self.unread.oldest()
            && fill.completed_at().saturating_add(outlived) < fetched
        {
            self.rest(&record, &fill, &fill.orphan());
        }
    }
}

fn wrong(record: &ObjectRecord, fill: &Fill, what: &str) -> StoreError {
    StoreError::new(
        StoreErrorKind::Broken,
        format!("the answer to {:?} had {what}", fill.extent),
    )
    .with_key(&record.id.key)
}

/// Ends a fill whose task ends, however it ends. Keeps its object's record alive until then.
struct EndOfFetch {
    record: Arc<ObjectRecord>,
    fill: Arc<Fill>,
}

impl Drop for EndOfFetch {
    fn drop(&mut self) {
        // Heard only by readers whose fetch ended without a word: by a panic, or because the runtime
        // is shutting down.
        let abandoned = StoreError::new(StoreErrorKind::Broken, "the fetch was abandoned");
        self.fill.fail(&abandoned);
        if self.fill.is_over() {
            self.record.remove(&self.fill);
        }
    }
}

/// Says that somebody waits for memory.
struct MemoryWaiter<'a>(&'a ReadCache);

impl<'a> MemoryWaiter<'a> {
    fn new(cache: &'a ReadCache) -> Self {
        cache.memory_waiters.fetch_add(1, Ordering::SeqCst);
        Self(cache)
    }
}

impl Drop for MemoryWaiter<'_> {
    fn drop(&mut self) {
        self.0.memory_waiters.fetch_sub(1, Ordering::SeqCst);
    }
}
