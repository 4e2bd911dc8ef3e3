//! The writer: the one thread that changes what is on disk. It takes jobs from the queue in order, so a
//! file is never removed, punched and written at the same time, and the catalogue follows.
//!
//! How things go: out of the map, then the file's name, then the account, then the catalogue. A crash
//! in between leaves a row without a file or a file without a row; opening drops both. How they come is
//! in `store.rs`, who makes way for them in `make_room.rs`.
//!
//! When bytes cannot be written they are counted and left out; each change between well and ill is
//! logged once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::catalog::CatalogChange;
use super::catalog_updates::CatalogUpdates;
use super::core::CacheCore;
use super::extents::{CachedExtent, Trust, Usage};
use super::job::WriterJob;
use super::object::CachedObject;
use super::queue::NextJob;
use super::reader::Verification;
use super::space::Space;
use crate::disk::wait::block_on;
use crate::extent::Extent;

mod make_room;
mod store;

/// Extents that one turn of a verifying job compares at once; writes go on between turns.
const VERIFY_AT_ONCE: usize = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct CacheWriter {
    core: Arc<CacheCore>,
    updates: CatalogUpdates,
    space: Space,
    /// Larger than all numbers that were ever given.
    next_number: u64,
    /// The disk refuses bytes, and that was said.
    ill: bool,
}

/// Closes the queue when the thread ends, whatever ended it: nobody waits for a writer that is gone.
struct CloseAtEnd(Arc<CacheCore>);

impl Drop for CloseAtEnd {
    fn drop(&mut self) {
        self.0.queue.close();
        while let NextJob::Job(_) = self.0.queue.next(None) {}
    }
}

impl CacheWriter {
    pub(super) fn new(
        core: Arc<CacheCore>,
        updates: CatalogUpdates,
        space: Space,
        next_number: u64,
    ) -> Self {
        let writer = Self {
            core,
            updates,
            space,
            next_number,
            ill: false,
        };
        writer.publish_usage();
        writer
    }

    /// The thread: runs until the queue is closed and empty, then closes the catalogue.
    pub(super) fn serve(mut self) {
        let _close = CloseAtEnd(self.core.clone());
        loop {
            match self.core.queue.next(self.updates.due()) {
                NextJob::Job(job) => self.run(job),
                NextJob::Idle => {}
                NextJob::Closed => break,
            }
            if self.updates.is_due(Instant::now()) {
                self.commit();
            }
        }
        self.note_uses();
        self.commit();
        self.updates.close();
    }

    fn run(&mut self, job: WriterJob) {
        match job {
            WriterJob::Write(write) => self.store(&write),
            WriterJob::Retire(object) => self.retire(&object),
            WriterJob::Punch { object, cached } => self.punch(&object, &cached),
            WriterJob::Verify(object) => self.verify(&object),
            WriterJob::Sync { catalog, reply } => {
                if catalog {
                    self.note_uses();
                    self.commit();
                }
                // Whoever asked may have given up.
                let _ = reply.send(());
            }
        }
    }

    fn commit(&mut self) {
        let map = &self.core.map;
        self.updates.commit(|| map.all());
    }

    /// Tells the catalogue when objects were last used.
    fn note_uses(&mut self) {
        for object in self.core.map.all() {
            if object.use_is_unsaved() {
                self.updates.add(CatalogChange::Object(object));
            }
        }
    }

    /// An object's usage changed from `before` to `after`.
    fn account(&mut self, before: Usage, after: Usage) {
        self.space.account(before, after);
        self.publish_usage();
    }

    fn publish_usage(&self) {
        let used = self.space.used().bytes;
        self.core.counters.used.store(used, Ordering::Relaxed);
    }

    /// Removes an object's file. It is out of the map already.
    fn retire(&mut self, object: &Arc<CachedObject>) {
        let Some((usage, file)) = object.on_disk.write().retire() else {
            return;
        };
        let path = object.path(&self.core.objects_dir);
        if let Err(error) = block_on(self.core.disk.remove(&path)) {
            tracing::warn!(path = %path.display(), %error, "a cache file could not be removed");
        }
        // Frees the room, if nobody else holds it.
        drop(file);
        self.account(usage, Usage::default());
        if usage.extents > 0 {
            self.updates.add(CatalogChange::DropObject(object.number));
        }
    }

    /// Gives back the room of an extent that a reader found to differ.
    fn punch(&mut self, object: &Arc<CachedObject>, cached: &CachedExtent) {
        if !object.on_disk.read().is_retired() {
            self.give_back(object, cached.extent());
        }
        self.account(cached.usage(), Usage::default());
        self.updates
            .add(CatalogChange::DropExtent(object.number, cached.offset));
    }

    /// Gives the filesystem what of `extent` is not in the object's list.
    fn give_back(&self, object: &Arc<CachedObject>, extent: Extent) {
        let Some(file) = block_on(self.core.open(object)) else {
            return;
        };
        let reclaimable = object.on_disk.read().extents.reclaimable(extent);
        for extent in reclaimable {
            if let Err(error) = block_on(self.core.disk.punch(&file, extent)) {
                tracing::debug!(object = ?object.id, %error, "the disk cannot give room back");
            }
        }
    }

    /// Compares some of what is unverified; comes back for the rest.
    fn verify(&self, object: &Arc<CachedObject>) {
        object.end_verification();
        let Some(file) = block_on(self.core.open(object)) else {
            return;
        };
        let some: Vec<CachedExtent> = {
            let on_disk = object.on_disk.read();
            let all = on_disk.extents.iter();
            all.filter(|cached| cached.trust == Trust::Unverified)
                .take(VERIFY_AT_ONCE)
                .copied()
                .collect()
        };
        let compare = some
            .into_iter()
            .map(|cached| self.core.verify(object, &file, cached));
        let verified = block_on(futures_util::future::join_all(compare));
        let whole = !verified.contains(&Verification::Bad);
        if whole && object.on_disk.read().extents.unverified() > 0 {
            self.core.queue_verification(object);
        }
    }
}
