//! From a wish for bytes to bytes at rest: what is missing, memory for it, the GET, its end.
//!
//! Memory comes first. Readahead takes it only if it is there; bytes that somebody waits for wait
//! for memory, and while they do, nothing else may sit on it: what is held unread is put to rest,
//! oldest first, and fills that become whole are put to rest at once. A flying fill always ends by
//! itself (the store bounds its calls), so such a wait ends too; it is bounded all the same.
//!
//! A waiting reader says so (`hungry`) before it looks for held fills, and a fill that becomes whole
//! shows itself among the held before it looks at `hungry`: one of the two sees the other.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use tokio::time::Instant;

use super::fill::{self, Fill, Owner, Paid, Rest};
use super::object::Object;
use super::{DISK_PATIENCE, ReadCache};
use crate::budget::Grant;
use crate::disk_cache::QueueReservation;
use crate::extent::Extent;
use crate::memory::{BLOCK, Keep};
use crate::readahead::{Limits, SMALL_MAX, UNIT};
use crate::store::{Lane, STORE_TIMEOUT, StoreError, StoreErrorKind, StoreResult};

/// Why bytes are fetched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Want {
    pub(super) owner: Owner,
    /// What somebody waits for; it may lie outside of what is fetched.
    pub(super) asked: Extent,
    /// `asked` is fetched even if memory must be waited for.
    pub(super) must: bool,
    /// What the disk holds is not fetched.
    pub(super) disk: bool,
    /// See [`Fill::scan`].
    pub(super) scan: bool,
}

/// All of an object.
const WHOLE: Extent = Extent {
    offset: 0,
    len: u64::MAX,
};

impl Want {
    fn fill(&self, object: &Arc<Object>, extent: Extent, paid: Paid) -> Arc<Fill> {
        let ahead = !self.asked.contains(extent) && object.size > SMALL_MAX;
        Fill::new(object.clone(), extent, self.owner, ahead, self.scan, paid)
    }
}

/// Fills that hold unread bytes, oldest first, some of them gone.
pub(super) type Held = VecDeque<Weak<Fill>>;

impl ReadCache {
    /// How far readahead may go now. Each run may hold twice what is free in the share: one alone
    /// gets two thirds of it, and several come to equal parts without knowing of one another.
    pub(super) fn limits(&self) -> Limits {
        let bound = self.config.fills.bound();
        let unit = if bound >= 4 * UNIT {
            UNIT
        } else {
            (bound / 4).next_multiple_of(64 << 10)
        };
        let free = bound - self.config.fills.used().min(bound);
        Limits {
            unit,
            ahead_max: self.config.readahead_max.min(2 * free).min(bound / 4 * 3),
        }
    }

    /// Begins to fetch what of `extent` is neither here nor on its way. Gives the first part for
    /// which there was no memory. Never waits.
    pub(super) fn fetch(
        self: &Arc<Self>,
        object: &Arc<Object>,
        extent: Extent,
        want: Want,
    ) -> Option<Extent> {
        let on_disk = self.on_disk(object, extent, want.disk);
        let elsewhere = |at: u64, len: u64| {
            let held = on_disk
                .iter()
                .find(|held| held.contains(Extent::new(at, 1)));
            match held {
                Some(held) => (held.end() - at).min(len),
                None => self.memory.run(object.number, at, len),
            }
        };
        let make = |gap: Extent| {
            if let Some(grant) = self.config.fills.try_take(gap.len)
                && let Ok(expected) = self.expect(gap, want.must)
            {
                let grant = Some(grant);
                return Some(want.fill(object, gap, Paid { grant, expected }));
            }
            let part = gap.intersect(want.asked).filter(|_| want.must)?;
            let expected = self.expect(part, true).ok()?;
            let grant = None;
            Some(want.fill(object, part, Paid { grant, expected }))
        };
        let (made, stopped) = object.add(extent, elsewhere, make);
        let fills = &self.config.fills;
        if !made.is_empty() && fills.used() > fills.bound() / 4 * 3 || stopped.is_some() {
            self.reclaim_stale();
        }
        for fill in made {
            let lane = match fill.extent.intersect(want.asked) {
                Some(_) => Lane::Interactive,
                None => Lane::Readahead,
            };
            let task = self.runtime.spawn(self.clone().run(fill.clone(), lane));
            fill.set_abort(task.abort_handle());
        }
        stopped
    }

    /// Room on the disk for a fetch of `extent`, if there is a disk. `Err` if it is behind.
    fn expect(&self, extent: Extent, must: bool) -> Result<Option<QueueReservation>, ()> {
        match &self.disk {
            None => Ok(None),
            Some(disk) => disk.reserve(extent.len, must).map(Some).ok_or(()),
        }
    }

    /// The parts of `extent` that the disk holds, by block.
    fn on_disk(&self, object: &Object, extent: Extent, look: bool) -> Vec<Extent> {
        let Some(disk) = self.disk.as_ref().filter(|_| look) else {
            return Vec::new();
        };
        let mut held = Vec::new();
        let mut at = extent.offset;
        while at < extent.end() {
            let part = Extent::between(at, extent.end().min((at / BLOCK + 1) * BLOCK));
            if disk.holds(&object.id, part) {
                held.push(part);
            }
            at = part.end();
        }
        held
    }

    fn run(
        self: Arc<Self>,
        fill: Arc<Fill>,
        lane: Lane,
    ) -> impl Future<Output = ()> + Send + 'static {
        // Made before the task first runs, so that a task that never runs is noticed too.
        let end = End(fill);
        async move {
            let fill = &end.0;
            match self.bring(fill, lane).await {
                Ok(true) => self.finish(fill),
                Ok(false) => {}
                Err(error) => {
                    let (object, extent) = (&fill.object.id, fill.extent);
                    tracing::debug!(?object, ?extent, %error, "fetch failed");
                    fill.fail(&error);
                }
            }
        }
    }

    /// Brings all bytes of `fill`; false if nobody wants them any more.
    async fn bring(&self, fill: &Fill, lane: Lane) -> StoreResult<bool> {
        if !fill.granted() {
            fill.grant(self.demand(fill.extent.len).await?);
        }
        let id = &fill.object.id;
        // A store sends an object's checksum with the whole object only, and knows that it is the
        // whole when it is asked for without an end.
        let whole = fill.extent == Extent::between(0, fill.object.size);
        let asked = if whole { WHOLE } else { fill.extent };
        let mut body = self.store.get(id, asked, lane).await?.body;
        while let Some(chunk) = body.chunk().await? {
            let len = chunk.len() as u64;
            if len > fill.missing() {
                return Err(wrong(fill, "more bytes than were asked for"));
            }
            self.counters.fetched.fetch_add(len, Ordering::Relaxed);
            if !fill.push(chunk) {
                return Ok(false);
            }
        }
        if fill.missing() > 0 {
            return Err(wrong(fill, "fewer bytes than were asked for"));
        }
        Ok(true)
    }

    fn finish(&self, fill: &Arc<Fill>) {
        self.show_held(fill);
        let release = self.hungry.load(Ordering::SeqCst) > 0;
        let fetched = self.counters.fetched.load(Ordering::Relaxed);
        let (all, rest, expected) = fill.complete(release, fetched);
        if let Some(disk) = self.disk.as_ref().filter(|_| !all.is_empty()) {
            let size = fill.object.size;
            let keep = Some(fill.queued());
            disk.store_reserved(&fill.object.id, size, fill.extent, all, keep, expected);
        }
        self.rest(fill, rest);
    }

    /// Puts blocks of `fill` to rest.
    pub(super) fn rest(&self, fill: &Arc<Fill>, rest: Rest) {
        if rest.is_empty() {
            return;
        }
        let object = &fill.object;
        let keep: Keep = object.clone();
        // Readers of the same object who come later may want what a scan leaves behind.
        let alone = object.streams.load(Ordering::Relaxed) <= 1;
        for block in &rest {
            if !(block.read && fill.scan && alone) {
                self.memory
                    .insert(object.number, &keep, block.index, &block.pieces);
            }
        }
        if fill.rested(&rest) {
            object.remove(fill);
        }
    }

    /// Gives up what `which` fills of `object` hold unread.
    pub(super) fn orphan(&self, object: &Object, which: impl Fn(&Fill) -> bool) {
        for fill in object.fills(which) {
            self.rest(&fill, fill.orphan());
            if fill.over() {
                object.remove(&fill);
            }
        }
    }

    /// Memory for bytes that somebody waits for.
    async fn demand(&self, len: u64) -> StoreResult<Grant> {
        let _hungry = Hungry::new(self);
        let bound = self.config.fills.bound();
        let enough = len.min(bound);
        while bound - self.config.fills.used().min(bound) < enough {
            let Some(fill) = self.oldest_held() else {
                break;
            };
            self.rest(&fill, fill.orphan());
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

    fn show_held(&self, fill: &Arc<Fill>) {
        let mut held = self.held.lock();
        if held.len() % 256 == 255 {
            held.retain(|weak| weak.upgrade().is_some_and(|fill| !fill.over()));
        }
        held.push_back(Arc::downgrade(fill));
    }

    fn oldest_held(&self) -> Option<Arc<Fill>> {
        let mut held = self.held.lock();
        while let Some(weak) = held.pop_front() {
            if let Some(fill) = weak.upgrade().filter(|fill| !fill.over()) {
                return Some(fill);
            }
        }
        None
    }

    /// Puts the oldest held fill to rest if it has been outlived: the cache has fetched twice what
    /// may be in flight since it became whole, and its reader has not come. Without this, handles
    /// that were read from and then left open would leave ever less to those that are in use.
    fn reclaim_stale(&self) {
        let fetched = self.counters.fetched.load(Ordering::Relaxed);
        let oldest = {
            let mut held = self.held.lock();
            while held
                .front()
                .is_some_and(|weak| weak.upgrade().is_none_or(|fill| fill.over()))
            {
                held.pop_front();
            }
            held.front().and_then(Weak::upgrade)
        };
        if let Some(fill) = oldest
            && fill
                .whole_at()
                .saturating_add(2 * self.config.fills.bound())
                < fetched
        {
            self.rest(&fill, fill.orphan());
        }
    }
}

fn wrong(fill: &Fill, what: &str) -> StoreError {
    StoreError::new(
        StoreErrorKind::Broken,
        format!("the answer to {:?} had {what}", fill.extent),
    )
    .with_key(&fill.object.id.key)
}

/// Ends a fill whose task ends, however it ends.
struct End(Arc<Fill>);

impl Drop for End {
    fn drop(&mut self) {
        let fill = &self.0;
        fill.fail(&fill::abandoned());
        if fill.over() {
            fill.object.remove(fill);
        }
    }
}

/// Says that somebody waits for memory.
struct Hungry<'a>(&'a ReadCache);

impl<'a> Hungry<'a> {
    fn new(cache: &'a ReadCache) -> Self {
        cache.hungry.fetch_add(1, Ordering::SeqCst);
        Self(cache)
    }
}

impl Drop for Hungry<'_> {
    fn drop(&mut self) {
        self.0.hungry.fetch_sub(1, Ordering::SeqCst);
    }
}
