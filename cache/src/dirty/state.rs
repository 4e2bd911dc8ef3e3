//! What is true of one dirty file, under one lock: its bytes, what was changed since which publish,
//! and what of it the store has already. Pure but for the clock: whoever holds the lock decides here
//! and waits elsewhere.
//!
//! Changes are counted. A publish seals the file at a count; the file is dirty while its count is
//! past the published one. So "clean" is exact, whatever was written meanwhile.
//!
//! ```text
//! write ──> changes += 1 ──> seal (sealed = changes) ──> published = sealed
//!                                └── failed: stays dirty, the parts sent stay usable
//! ```

use std::time::SystemTime;

use super::layers::{BaseLayer, Layers, SealedLayers};
use super::{Base, Published};
use crate::extent::Extent;
use crate::object::{Key, ObjectId};
use crate::parts::early::EarlyParts;
use crate::parts::upload::MultipartUpload;
use crate::store::{Condition, Fingerprint, Metadata};

/// A version on its way to the store.
#[derive(Debug)]
pub(crate) struct Sealed {
    /// What is sent.
    pub(crate) version: SealedLayers,
    /// When the oldest change in it was made that is not published.
    since: Option<SystemTime>,
    /// The last change that was in the base when it was sealed.
    pub(crate) published: u64,
    /// What was dirtied after it was sealed, from the first to the last byte.
    late: Option<Extent>,
    /// The smallest size that the file had since.
    cut: u64,
}

/// A version that may have reached the store: its publish failed without a clear answer.
#[derive(Debug, Clone)]
pub(crate) struct UnclearPublish {
    /// What was sent.
    pub(crate) version: SealedLayers,
    /// The count of changes in it.
    pub(crate) changes: u64,
    /// What was sent beside it.
    pub(crate) metadata: Metadata,
    /// How the object is known that it made.
    pub(crate) fingerprint: Fingerprint,
    /// The smallest size that the file had since.
    pub(crate) cut: u64,
}

/// How many unclear publishes are remembered: a second one may fail without an answer before the first
/// arrives.
const UNCLEAR_MAX: usize = 2;

/// See the module.
#[derive(Debug)]
pub(crate) struct FileState {
    pub(crate) key: Key,
    /// What the next publish asks for.
    pub(crate) condition: Condition,
    pub(crate) layers: Layers,
    changes: u64,
    published: u64,
    /// When the oldest unpublished change was made, if it is not in `sealed`.
    dirty_since: Option<SystemTime>,
    pub(crate) sealed: Option<Sealed>,
    /// Versions that may have reached the store, the oldest first.
    pub(crate) unclear: Vec<UnclearPublish>,
    pub(crate) upload: Option<MultipartUpload>,
    pub(crate) early: EarlyParts,
    /// What an upload that begins early is created with.
    pub(crate) metadata: Metadata,
    pub(crate) last: Option<Published>,
    /// Nobody wants it published any more.
    pub(crate) orphan: bool,
    /// Writers at work, and holders: the content must not go away under them.
    pub(crate) pins: u32,
}

impl FileState {
    /// A file over `base`; dirty unless it keeps the base.
    pub(crate) fn new(key: Key, base: Base) -> Self {
        let mut state = Self {
            key,
            condition: Condition::Absent,
            layers: Layers::default(),
            changes: 0,
            published: 0,
            dirty_since: None,
            sealed: None,
            unclear: Vec::new(),
            upload: None,
            early: EarlyParts::default(),
            metadata: Metadata::default(),
            last: None,
            orphan: false,
            pins: 0,
        };
        match base {
            Base::Absent => state.change(),
            Base::Replace { etag } => {
                state.condition = Condition::Matches(etag);
                state.change();
            }
            Base::Keep { id, size } => {
                state.condition = Condition::Matches(id.etag.clone());
                let kept = size;
                state.layers.set_base(BaseLayer { id, size, kept }, size);
            }
        }
        state
    }

    /// The file changed.
    pub(crate) fn change(&mut self) {
        self.changes += 1;
        if self.dirty_since.is_none() {
            self.dirty_since = Some(SystemTime::now());
        }
    }

    /// Bytes in `extent` changed.
    pub(crate) fn dirtied(&mut self, extent: Extent) {
        self.change();
        if let Some(sealed) = &mut self.sealed {
            // What is sent now is the sealed version; its parts are right for it.
            sealed.late = Some(match sealed.late {
                None => extent,
                Some(late) => {
                    Extent::between(late.offset.min(extent.offset), late.end().max(extent.end()))
                }
            });
        } else if let Some(upload) = &mut self.upload {
            upload.dirtied(extent);
        }
    }

    /// Whether a publish has something to send.
    pub(crate) fn is_dirty(&self) -> bool {
        self.changes > self.published && !self.orphan
    }

    /// Whether a publish or an early upload is under way.
    pub(crate) fn is_sending(&self) -> bool {
        self.sealed.is_some() || self.early.running
    }

    /// The end of the last part that the store has or is being sent; 0 if there is none.
    pub(crate) fn sent_until(&self) -> u64 {
        self.upload.as_ref().map_or(0, MultipartUpload::reached)
    }

    /// Whether a part is on its way to the store.
    pub(crate) fn has_part_on_its_way(&self) -> bool {
        self.upload.as_ref().is_some_and(MultipartUpload::is_busy)
    }

    /// The number of the next change.
    pub(crate) fn next_change(&self) -> u64 {
        self.changes + 1
    }

    /// Sets the size: what is cut is gone, what is added is zeros.
    pub(crate) fn resize(&mut self, size: u64) {
        let before = self.layers.size();
        self.layers.set_size(size);
        self.early.cut(size);
        if let Some(sealed) = &mut self.sealed {
            sealed.cut = sealed.cut.min(size);
        }
        for unclear in &mut self.unclear {
            unclear.cut = unclear.cut.min(size);
        }
        self.dirtied(if size < before {
            Extent::between(size, u64::MAX)
        } else {
            Extent::between(before, size)
        });
    }

    /// Whether a change of `extent` would have a part sent again of which this side has not all bytes
    /// any more. Without its parts from `extent`'s start on the file may lose them all.
    pub(crate) fn would_break_sent(&self, extent: Extent) -> bool {
        let upload = self.upload.as_ref();
        let touched = upload.and_then(|upload| upload.touched(extent));
        touched.is_some_and(|touched| {
            let cut_away = extent.contains(touched) && extent.end() == u64::MAX;
            !cut_away && self.layers.is_sent_away(touched)
        })
    }

    /// Gives up the memory of buffers of which the store has all bytes in parts, up to some bytes of them.
    /// None while a publish is under way: its parts may be those of an older version.
    pub(crate) fn give_up_sent(&mut self, bytes: u64) {
        let Some(upload) = self.upload.as_ref().filter(|_| self.sealed.is_none()) else {
            return;
        };
        let sent = |extent| upload.holds(extent);
        let buffers = self.layers.sent_buffers(bytes, sent);
        for buffer in &buffers {
            drop(buffer.sent_away());
        }
        if !buffers.is_empty() {
            self.layers.join_sent();
        }
    }

    /// The smallest size that the file had since it was sealed.
    pub(crate) fn cut_since_seal(&self) -> u64 {
        self.sealed.as_ref().map_or(u64::MAX, |sealed| sealed.cut)
    }

    /// Whether bytes were given up that an upload had, and the upload is no more.
    pub(crate) fn is_lost(&self) -> bool {
        self.upload.is_none() && self.layers.is_sent_away(Extent::new(0, u64::MAX))
    }

    /// Whether the store has the file's bytes, and a publish has to bring metadata only.
    pub(crate) fn is_its_base(&self) -> bool {
        self.layers.is_its_base(self.published)
    }

    /// The count of changes.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether all changes up to the count `changes` are in the store.
    pub(crate) fn has_published(&self, changes: u64) -> bool {
        self.published >= changes
    }

    /// When the oldest change that is not published was made.
    pub(crate) fn dirty_since(&self) -> Option<SystemTime> {
        let sealed = self.sealed.as_ref().and_then(|sealed| sealed.since);
        sealed.or(self.dirty_since).filter(|_| self.is_dirty())
    }

    /// Seals the file as it is now.
    pub(crate) fn seal(&mut self) {
        debug_assert!(self.sealed.is_none());
        self.sealed = Some(Sealed {
            version: self.layers.seal(),
            since: self.dirty_since.take(),
            published: self.published,
            late: None,
            cut: u64::MAX,
        });
    }

    /// The sealed version did not get published: it is dirty as before, and parts that were
    /// dirtied since are to be sent again.
    pub(crate) fn unseal(&mut self) -> Option<SealedLayers> {
        let sealed = self.sealed.take()?;
        self.dirty_since = sealed.since.or(self.dirty_since);
        if let (Some(upload), Some(late)) = (&mut self.upload, sealed.late) {
            upload.dirtied(late);
        }
        Some(sealed.version)
    }

    /// The sealed version is in the store as `id`, which is the base from now on. Gives it back.
    pub(crate) fn published_sealed(&mut self, id: ObjectId, changes: u64) -> Option<SealedLayers> {
        let sealed = self.sealed.take()?;
        let size = sealed.version.size;
        self.rebase(id.clone(), size, sealed.cut);
        self.published(id, size, changes);
        Some(sealed.version)
    }

    /// A version may have reached the store: the next try looks first.
    pub(crate) fn became_unclear(&mut self, publish: UnclearPublish) {
        if self.unclear.len() == UNCLEAR_MAX {
            self.unclear.remove(0);
        }
        self.unclear.push(publish);
    }

    /// The unclear publish that ended with these changes has made `id` after all: it is the base from now
    /// on.
    pub(crate) fn published_unclear(&mut self, id: ObjectId, changes: u64) {
        let found = self.unclear.iter().find(|it| it.changes == changes);
        if let Some((size, cut)) = found.map(|it| (it.version.size, it.cut)) {
            self.rebase(id.clone(), size, cut);
            self.published(id, size, changes);
        }
    }

    /// The base is in the store once more, as `id`, with other metadata.
    pub(crate) fn published_metadata(&mut self, id: ObjectId, changes: u64) {
        self.layers.move_base(id.clone());
        let size = self.layers.base().map_or(0, |base| base.size);
        self.published(id, size, changes);
    }

    /// What is in the store as `id` lies below what was written since, as far as it was not cut.
    fn rebase(&mut self, id: ObjectId, size: u64, cut: u64) {
        let kept = size.min(cut);
        let whole = self.layers.size();
        self.layers.set_base(BaseLayer { id, size, kept }, whole);
    }

    fn published(&mut self, id: ObjectId, size: u64, changes: u64) {
        self.published = changes;
        if self.changes == changes {
            self.dirty_since = None;
        } else if self.dirty_since.is_none() {
            self.dirty_since = Some(SystemTime::now());
        }
        self.condition = Condition::Matches(id.etag.clone());
        self.last = Some(Published {
            id,
            size,
            modified: SystemTime::now(),
            clean: self.changes == changes,
        });
        self.unclear.clear();
        self.early.published();
        self.layers.drop_sent();
    }

    /// The next publish goes under `key` and asks for `base`. What the file keeps of the version that
    /// it went over stays in the store as that, or with [`Base::Keep`] as the version named there.
    pub(crate) fn retarget(&mut self, key: Key, base: Base) {
        self.key = key;
        self.unclear.clear();
        match base {
            Base::Absent => self.condition = Condition::Absent,
            Base::Replace { etag } => self.condition = Condition::Matches(etag),
            Base::Keep { id, .. } => {
                self.condition = Condition::Matches(id.etag.clone());
                self.layers.move_base(id);
                return;
            }
        }
        if self.changes == self.published {
            self.change();
        }
    }

    /// Gives up bytes that the base has too. Whether there were any.
    pub(crate) fn reclaim(&mut self) -> bool {
        let is_spare = !self.orphan && self.pins == 0 && self.sealed.is_none();
        is_spare && self.layers.drop_published(self.published)
    }
}
