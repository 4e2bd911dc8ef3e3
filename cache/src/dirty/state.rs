//! What is true of one dirty file, under one lock: its bytes, where its base is, what was changed
//! since which publish, and what of it the store has already. Pure but for the clock: whoever holds
//! the lock decides here and waits elsewhere.
//!
//! Changes are counted. A publish seals the file at a count; the file is dirty while its count is
//! past the published one. So "clean" is exact, whatever was written meanwhile.
//!
//! ```text
//! write ──> changes += 1 ──> seal (sealed = changes) ──> published = sealed
//!                                └── failed: stays dirty, the parts sent stay usable
//! ```

use std::time::SystemTime;

use tokio::sync::watch;

use super::content::{Content, Version};
use super::{Base, Published, WriteError};
use crate::extent::Extent;
use crate::object::{Key, ObjectId};
use crate::store::{Condition, Fingerprint, Metadata};
use crate::upload::parts::{Early, Upload};

/// Where the bytes of the base are that nobody overwrote.
#[derive(Debug)]
pub(crate) enum Source {
    /// All that belongs to the file is in its content.
    Here,
    /// In the store; the content is empty.
    Away { id: ObjectId, size: u64 },
    /// On their way; the content is not to be looked at yet.
    Coming {
        id: ObjectId,
        size: u64,
        done: watch::Receiver<Arrival>,
    },
}

/// How a fetch of the base ended; `None` while it goes on.
pub(crate) type Arrival = Option<Result<(), std::sync::Arc<WriteError>>>;

/// A version on its way to the store.
#[derive(Debug)]
pub(crate) struct Sealed {
    /// What is sent.
    pub(crate) version: Version,
    /// When the oldest change in it was made that is not published.
    since: Option<SystemTime>,
    /// What was dirtied after it was sealed, from the first to the last byte.
    late: Option<Extent>,
}

/// A version that may have reached the store: its publish failed without a clear answer.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    /// What was sent.
    pub(crate) version: Version,
    /// The count of changes in it.
    pub(crate) changes: u64,
    /// What was sent beside it.
    pub(crate) metadata: Metadata,
    /// How the object is known that it made.
    pub(crate) fingerprint: Fingerprint,
}

/// How many attempts are remembered: a second one may fail without an answer before the first arrives.
const ATTEMPTS_MAX: usize = 2;

/// See the module.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) key: Key,
    /// What the next publish asks for.
    pub(crate) condition: Condition,
    pub(crate) source: Source,
    pub(crate) content: Content,
    changes: u64,
    published: u64,
    /// When the oldest unpublished change was made, if it is not in `sealed`.
    dirty_since: Option<SystemTime>,
    pub(crate) sealed: Option<Sealed>,
    /// Versions that may have reached the store, oldest first.
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) upload: Option<Upload>,
    pub(crate) early: Early,
    /// What an upload that begins early is created with.
    pub(crate) metadata: Metadata,
    pub(crate) last: Option<Published>,
    /// The version in the store that a clean content equals.
    pub(crate) here: Option<ObjectId>,
    /// Nobody wants it published any more.
    pub(crate) orphan: bool,
    /// Writers at work, and holders: the content must not go away under them.
    pub(crate) pins: u32,
}

impl State {
    /// A file over `base`; dirty unless it keeps the base.
    pub(crate) fn new(key: Key, base: Base) -> Self {
        let mut state = Self {
            key,
            condition: Condition::Absent,
            source: Source::Here,
            content: Content::default(),
            changes: 0,
            published: 0,
            dirty_since: None,
            sealed: None,
            attempts: Vec::new(),
            upload: None,
            early: Early::default(),
            metadata: Metadata::default(),
            last: None,
            here: None,
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
                state.content.clear(size);
                state.source = Source::Away { id, size };
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
        self.upload.as_ref().map_or(0, Upload::reached)
    }

    /// Whether a part is on its way to the store.
    pub(crate) fn has_part_on_its_way(&self) -> bool {
        self.upload.as_ref().is_some_and(Upload::is_busy)
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
            version: self.content.seal(),
            since: self.dirty_since.take(),
            late: None,
        });
    }

    /// The sealed version did not get published: it is dirty as before, and parts that were
    /// dirtied since are to be sent again.
    pub(crate) fn unseal(&mut self) -> Option<Version> {
        let sealed = self.sealed.take()?;
        self.dirty_since = sealed.since.or(self.dirty_since);
        if let (Some(upload), Some(late)) = (&mut self.upload, sealed.late) {
            upload.dirtied(late);
        }
        Some(sealed.version)
    }

    /// A version may have reached the store: the next try looks first.
    pub(crate) fn attempted(&mut self, attempt: Attempt) {
        if self.attempts.len() == ATTEMPTS_MAX {
            self.attempts.remove(0);
        }
        self.attempts.push(attempt);
    }

    /// Changes up to the count `changes` are in the store as `id`, which is the base from now on.
    /// Gives the sealed version.
    pub(crate) fn published(&mut self, id: ObjectId, size: u64, changes: u64) -> Option<Version> {
        let sealed = self.sealed.take();
        self.published = changes;
        if self.changes == changes {
            self.dirty_since = None;
        } else if self.dirty_since.is_none() {
            self.dirty_since = Some(SystemTime::now());
        }
        self.condition = Condition::Matches(id.etag.clone());
        self.here = Some(id.clone());
        self.last = Some(Published {
            id,
            size,
            modified: SystemTime::now(),
            clean: self.changes == changes,
        });
        self.attempts.clear();
        self.early.published();
        sealed.map(|sealed| sealed.version)
    }

    /// The next publish goes under `key` over `base`.
    pub(crate) fn retarget(&mut self, key: Key, base: Base) {
        self.key = key;
        self.attempts.clear();
        self.here = None;
        let clean = self.changes == self.published;
        match base {
            Base::Absent => self.condition = Condition::Absent,
            Base::Replace { etag } => self.condition = Condition::Matches(etag),
            Base::Keep {
                id: base,
                size: len,
            } => {
                self.condition = Condition::Matches(base.etag.clone());
                match &mut self.source {
                    Source::Away { id, size } | Source::Coming { id, size, .. } => {
                        *id = base.clone();
                        *size = len;
                    }
                    Source::Here => {}
                }
                self.here = Some(base);
                return;
            }
        }
        if clean {
            self.change();
        }
    }

    /// Gives up the bytes of a clean file, which the store has too. Whether there were any.
    pub(crate) fn reclaim(&mut self) -> bool {
        let spare = matches!(self.source, Source::Here)
            && self.changes == self.published
            && !self.orphan
            && self.pins == 0
            && self.sealed.is_none()
            && self.content.covered() > 0;
        let Some(id) = self.here.clone().filter(|_| spare) else {
            return false;
        };
        let size = self.content.size();
        self.content.clear(size);
        self.source = Source::Away { id, size };
        true
    }
}
