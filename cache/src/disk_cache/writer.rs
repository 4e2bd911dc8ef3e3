//! The keeper: the one thread that changes what is on disk. It takes jobs from the queue in order,
//! so a file is never removed, punched and written at the same time, and it follows with the index.
//!
//! How bytes come in: room is made first (so the cache is never above its size), then they are
//! written as they are, their checksums are computed while the disk works, then memory says that
//! they are held, and within [`COMMIT_INTERVAL`] the index says so on disk. Data are not synced:
//! after a crash the checksums tell what arrived.
//!
//! How things go: out of the map, then the file's name, then the account, then the index. A crash
//! in between leaves a row without a file or a file without a row; opening drops both.
//!
//! When the index cannot be written (a full disk, most often), the cache goes on with what memory
//! knows, and the next batch tries to write the whole index anew. When bytes cannot be written they
//! are counted and left out; each change between well and ill is logged once.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join;

use super::catalog::{Catalog, Change};
use super::extents::{CRC, Held, Trust, UNIT, charge};
use super::layout::Layout;
use super::object::Object;
use super::queue::{Job, Next};
use super::shared::{Shared, Verdict};
use super::space::Room;
use crate::disk::wait::block_on;
use crate::disk::{DiskFile, OpenHow};
use crate::extent::Extent;
use crate::object::ObjectId;

/// How long the index may be behind. A crash costs that much warmth; each batch costs a sync.
pub(super) const COMMIT_INTERVAL: Duration = Duration::from_secs(5);

/// Changes that are written at once without waiting for the interval: bounds their memory.
const CHANGES_MAX: usize = 8192;

/// Extents that one turn of a verifying job compares at once; stores go on between turns.
const VERIFY_AT_ONCE: usize = 8;

/// The keeper's state.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(super) shared: Arc<Shared>,
    layout: Layout,
    /// `None` while the index on disk cannot be written.
    catalog: Option<Catalog>,
    pub(super) changes: Vec<Change>,
    /// When the index must be written.
    due: Option<Instant>,
    next_number: u64,
    pub(super) room: Room,
    /// Whether bytes are being refused by the disk.
    ill: bool,
    /// Whether the index is.
    index_ill: bool,
}

/// Closes the queue when the thread ends, whatever ended it: nobody waits for a keeper that is gone.
struct CloseAtEnd(Arc<Shared>);

impl Drop for CloseAtEnd {
    fn drop(&mut self) {
        self.0.queue.close();
        while let Next::Job(_) = self.0.queue.next(None) {}
    }
}

impl Keeper {
    pub(crate) fn new(
        shared: Arc<Shared>,
        layout: Layout,
        catalog: Option<Catalog>,
        next_number: u64,
    ) -> Self {
        Self {
            shared,
            layout,
            catalog,
            changes: Vec::new(),
            due: None,
            next_number,
            room: Room::default(),
            ill: false,
            index_ill: false,
        }
    }

    /// The thread: runs until the queue is closed and empty, then closes the index.
    pub(crate) fn serve(mut self) {
        let _close = CloseAtEnd(self.shared.clone());
        loop {
            match self.shared.queue.next(self.due) {
                Next::Job(job) => self.run(job),
                Next::Idle => {}
                Next::Closed => break,
            }
            let due = self.due.is_some_and(|due| due <= Instant::now());
            if due || self.changes.len() >= CHANGES_MAX {
                self.commit();
            }
        }
        self.note_uses();
        self.commit();
        if let Some(catalog) = self.catalog.take()
            && let Err(error) = catalog.mark_clean(true)
        {
            tracing::warn!(%error, "the cache index could not be closed; it is checked at the next start");
        }
    }

    fn run(&mut self, job: Job) {
        match job {
            Job::Store(store) => self.store(&store.id, store.size, store.extent, &store.pieces),
            Job::Retire(object) => self.retire(&object),
            Job::Punch { object, held } => self.punch(&object, &held),
            Job::Verify(object) => self.verify(&object),
            Job::Sync { index, reply } => {
                if index {
                    self.note_uses();
                    self.commit();
                }
                // Whoever asked may have given up.
                let _ = reply.send(());
            }
        }
    }

    fn change(&mut self, change: Change) {
        self.changes.push(change);
        self.due
            .get_or_insert_with(|| Instant::now() + COMMIT_INTERVAL);
    }

    fn store(&mut self, id: &ObjectId, size: u64, extent: Extent, pieces: &[Bytes]) {
        let Some(extent) = extent.intersect(Extent::new(0, size)) else {
            return;
        };
        let (object, is_new) = self.object(id, size);
        let gaps = object.content.read().held.gaps(extent);
        for gap in gaps {
            let bytes = cut(pieces, gap.offset - extent.offset, gap.len);
            match self.fill(&object, gap, bytes) {
                Ok(()) => self.well(),
                Err(refused) => {
                    self.shared.counters.skip();
                    self.refused(&refused);
                    break;
                }
            }
        }
        let empty = object.content.read().held.count() == 0;
        if is_new && !empty {
            self.shared.map.insert(object);
        } else if is_new {
            self.retire(&object);
        }
    }

    /// The object to add to; another version of it makes way.
    fn object(&mut self, id: &ObjectId, size: u64) -> (Arc<Object>, bool) {
        if let Some(object) = self.shared.map.by_key(&id.key) {
            if object.id == *id && object.size == size {
                return (object, false);
            }
            self.shared.map.remove(&object);
            self.retire(&object);
        }
        let number = self.next_number;
        self.next_number += 1;
        let tick = self.shared.tick.load(Ordering::Relaxed);
        let object = Arc::new(Object::new(number, id.clone(), size, tick));
        (object, true)
    }

    /// Stores `bytes` at `gap`, where nothing is held.
    fn fill(
        &mut self,
        object: &Arc<Object>,
        gap: Extent,
        bytes: Vec<Bytes>,
    ) -> Result<(), Refused> {
        let need = charge(gap);
        self.make_room(need, object)?;
        let mut crcs = Vec::new();
        let mut written = self.write(object, gap, bytes.clone(), &mut crcs);
        if written.as_ref().is_err_and(is_full) {
            self.clean(object, gap);
            self.make_room_on_full_disk(need, object)?;
            written = self.write(object, gap, bytes, &mut crcs);
        }
        if let Err(error) = written {
            self.clean(object, gap);
            return Err(Refused::Failed(error));
        }
        let is_first = object.content.read().held.count() == 0;
        if is_first {
            self.change(Change::Object(object.clone()));
        }
        for (part, crc) in units(gap).zip(crcs) {
            let held = Held {
                offset: part.offset,
                crc,
                len: part.len as u32,
                trust: Trust::Written,
            };
            self.hold(object, held);
        }
        Ok(())
    }

    fn hold(&mut self, object: &Arc<Object>, held: Held) {
        let mut content = object.content.write();
        let before = content.held.charged();
        let inserted = content.held.insert(held);
        let after = content.held.charged();
        drop(content);
        // Only the keeper inserts, and it looked for the gap: the extent stands there now.
        let Some(inserted) = inserted else { return };
        let used = &self.shared.counters.used;
        if after >= before {
            used.fetch_add(after - before, Ordering::Relaxed);
        } else {
            // Extents that shared a page were charged for it twice and have joined.
            used.fetch_sub(before - after, Ordering::Relaxed);
        }
        for offset in inserted.absorbed {
            self.change(Change::DropExtent(object.number, offset));
        }
        self.change(Change::Extent(object.number, inserted.held));
    }

    /// Writes, and computes the checksums of the units while the disk does.
    fn write(
        &self,
        object: &Arc<Object>,
        gap: Extent,
        bytes: Vec<Bytes>,
        crcs: &mut Vec<u64>,
    ) -> io::Result<()> {
        let file = self.file(object)?;
        let writing = self.shared.disk.write_at(&file, gap.offset, bytes.clone());
        let summing = async {
            if crcs.is_empty() {
                crcs.extend(units(gap).map(|part| {
                    let mut digest = crc_fast::Digest::new(CRC);
                    for piece in cut(&bytes, part.offset - gap.offset, part.len) {
                        digest.update(&piece);
                    }
                    digest.finalize()
                }));
            }
        };
        block_on(join(writing, summing)).0
    }

    /// The object's file; made if nothing is held of it yet.
    fn file(&self, object: &Arc<Object>) -> io::Result<DiskFile> {
        if object.content.read().held.count() > 0 {
            // A file made anew here would read as zeros where something is held.
            let file = block_on(self.shared.open(object));
            return file.ok_or_else(|| io::ErrorKind::NotFound.into());
        }
        if let Some(file) = object.content.read().file.clone() {
            return Ok(file);
        }
        let path = object.path(&self.shared.objects);
        let file = match block_on(self.shared.disk.open(&path, OpenHow::Create)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let dir: PathBuf = path.parent().map(Into::into).unwrap_or_default();
                block_on(self.shared.disk.make_dir(&dir))?;
                block_on(self.shared.disk.open(&path, OpenHow::Create))?
            }
            result => result?,
        };
        Ok(self.shared.files.keep(object, file))
    }

    /// Removes an object's file. It is out of the map already.
    pub(super) fn retire(&mut self, object: &Arc<Object>) {
        let mut content = object.content.write();
        if content.retired {
            return;
        }
        content.retired = true;
        let charged = content.held.charged();
        let was_held = content.held.count() > 0;
        content.held.clear();
        let file = content.file.take();
        drop(content);
        let path = object.path(&self.shared.objects);
        if let Err(error) = block_on(self.shared.disk.remove(&path)) {
            tracing::warn!(path = %path.display(), %error, "a cache file could not be removed");
        }
        // Frees the room, if nobody else holds it.
        drop(file);
        self.shared
            .counters
            .used
            .fetch_sub(charged, Ordering::Relaxed);
        if was_held {
            self.change(Change::DropObject(object.number));
        }
    }

    /// Gives back the room of an extent that a reader found to differ.
    fn punch(&mut self, object: &Arc<Object>, held: &Held) {
        if !object.content.read().retired {
            self.clean(object, held.extent());
        }
        self.shared
            .counters
            .used
            .fetch_sub(held.charge(), Ordering::Relaxed);
        self.change(Change::DropExtent(object.number, held.offset));
    }

    /// Gives back the room of what is not held in `extent`.
    fn clean(&self, object: &Arc<Object>, extent: Extent) {
        let Some(file) = block_on(self.shared.open(object)) else {
            return;
        };
        let content = object.content.read();
        let gaps = content.held.gaps(extent);
        let rooms: Vec<Extent> = gaps
            .into_iter()
            .map(|gap| content.held.room_around(gap))
            .collect();
        drop(content);
        for room in rooms {
            if let Err(error) = block_on(self.shared.disk.punch(&file, room)) {
                tracing::debug!(object = ?object.id, %error, "the disk cannot give room back");
            }
        }
    }

    /// Compares some of what is unverified; comes back for the rest.
    fn verify(&self, object: &Arc<Object>) {
        object.verifying.store(false, Ordering::Relaxed);
        let Some(file) = block_on(self.shared.open(object)) else {
            return;
        };
        let some: Vec<Held> = {
            let content = object.content.read();
            let unverified = content.held.iter();
            unverified
                .filter(|held| held.trust == Trust::Unverified)
                .take(VERIFY_AT_ONCE)
                .copied()
                .collect()
        };
        let compare = some
            .into_iter()
            .map(|held| self.shared.verify(object, &file, held));
        let verdicts = block_on(futures_util::future::join_all(compare));
        let whole = !verdicts.contains(&Verdict::Bad);
        if whole && object.content.read().held.unverified() > 0 {
            self.shared.verify_later(object);
        }
    }

    /// Tells the index when objects were last used.
    fn note_uses(&mut self) {
        for object in self.shared.map.all() {
            if object.use_is_unsaved() {
                self.change(Change::Object(object));
            }
        }
    }

    /// Writes the index.
    fn commit(&mut self) {
        self.due = None;
        let changes = std::mem::take(&mut self.changes);
        if changes.is_empty() {
            return;
        }
        let result = if let Some(catalog) = &self.catalog {
            catalog.apply(changes.iter())
        } else {
            let all = self.shared.map.all().into_iter();
            let made = self.layout.make_index(all);
            made.map(|catalog| self.catalog = Some(catalog))
        };
        match result {
            Ok(()) => {
                if std::mem::take(&mut self.index_ill) {
                    tracing::info!("the cache index can be written again");
                }
            }
            Err(error) => {
                // After a failed write redb refuses all others; memory knows everything.
                self.catalog = None;
                if !std::mem::replace(&mut self.index_ill, true) {
                    tracing::warn!(%error, "the cache index cannot be written: a restart now would find an older cache");
                }
            }
        }
    }

    fn well(&mut self) {
        if std::mem::take(&mut self.ill) {
            tracing::info!("the cache's disk takes bytes again");
        }
    }

    fn refused(&mut self, refused: &Refused) {
        // An object that fills the cache by itself is no illness of the disk.
        if matches!(refused, Refused::NoRoom) || std::mem::replace(&mut self.ill, true) {
            return;
        }
        tracing::warn!(
            reason = %refused,
            "the cache's disk takes no more bytes: going on without storing what is read"
        );
    }
}

/// Why bytes are not stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// Nothing in the cache may make way for it.
    #[error("nothing in the cache may make way")]
    NoRoom,
    /// Nothing can be evicted to make room on the filesystem.
    #[error("the filesystem is full; free some of it or use another --cache-dir")]
    Full,
    /// The disk failed.
    #[error("{0}")]
    Failed(io::Error),
}

/// The disk is full, or our share of it.
fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

/// `extent` cut at units.
fn units(extent: Extent) -> impl Iterator<Item = Extent> {
    let mut at = extent.offset;
    std::iter::from_fn(move || {
        let part = Extent::between(at, extent.end().min((at / UNIT + 1) * UNIT));
        at = part.end();
        (!part.is_empty()).then_some(part)
    })
}

/// `len` bytes of `pieces` after the first `skip`, without copying.
fn cut(pieces: &[Bytes], skip: u64, len: u64) -> Vec<Bytes> {
    let (mut skip, mut left) = (skip as usize, len as usize);
    let mut taken = Vec::new();
    for piece in pieces {
        let start = skip.min(piece.len());
        skip -= start;
        let end = piece.len().min(start + left);
        left -= end - start;
        if start < end {
            taken.push(piece.slice(start..end));
        }
        if left == 0 {
            break;
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_cover_an_extent_and_end_at_multiples() {
        let all: Vec<Extent> = units(Extent::between(UNIT - 1, 2 * UNIT + 5)).collect();
        assert_eq!(
            all,
            [
                Extent::between(UNIT - 1, UNIT),
                Extent::between(UNIT, 2 * UNIT),
                Extent::between(2 * UNIT, 2 * UNIT + 5),
            ]
        );
        assert_eq!(units(Extent::new(7, 0)).count(), 0);
    }

    #[test]
    fn cut_takes_across_pieces() {
        let pieces = [
            Bytes::from_static(b"abc"),
            Bytes::from_static(b"de"),
            Bytes::from_static(b"fgh"),
        ];
        for skip in 0..8 {
            for len in 0..=(8 - skip) {
                let taken = cut(&pieces, skip, len).concat();
                assert_eq!(taken, b"abcdefgh"[skip as usize..(skip + len) as usize]);
            }
        }
    }
}
