//! What is being written to a file: its bytes that the store does not have, who writes them, and what
//! became of publishing them.

use std::sync::Arc;
use std::time::SystemTime;

use ackfs_cache::dirty::DirtyFile;
use ackfs_cache::store::Metadata;

use super::InodeState;
use crate::fs::attr::Kind;

/// See the module.
#[derive(Debug, Default)]
pub(in crate::fs) struct Written {
    /// The bytes. They stay after a publish until the last writer is gone.
    dirty: Option<Arc<DirtyFile>>,
    failure: Option<PublishFailure>,
    /// Whether somebody set the modification time by hand: only then is it published.
    pub(super) mtime_set: bool,
    /// Handles whose closes publish; and who changes the file without a handle, while that lasts.
    /// Who takes the last one away publishes what is dirty then: both are looked at under one lock.
    writers: u32,
}

/// Why the last publish failed.
#[derive(Debug)]
struct PublishFailure {
    cause: String,
    /// What a close or fsync was told of it, if nothing was written since.
    told: Option<Severity>,
}

/// Of a failure that its caller knows of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fs) enum Severity {
    /// Trying again may help.
    Passing,
    /// Trying again would fail again: a lost race, a refusal.
    Final,
}

/// What of a file was given up.
#[derive(Debug)]
pub(in crate::fs) struct GivenUp {
    /// The bytes, if there were any.
    pub(in crate::fs) dirty: Option<Arc<DirtyFile>>,
    /// Why they are not in the store; `None` if nothing was to be published.
    pub(in crate::fs) cause: Option<String>,
}

impl Written {
    /// Where what is written goes; `None` if nothing was written that the store does not have.
    pub(in crate::fs) fn dirty(&self) -> Option<&Arc<DirtyFile>> {
        self.dirty.as_ref()
    }

    /// Why the last publish failed. With nothing dirty left it is a late failure: the bytes were given
    /// up after their last close, and the next open tells of it.
    pub(in crate::fs) fn cause(&self) -> Option<&str> {
        self.failure.as_ref().map(|failure| failure.cause.as_str())
    }

    /// What a close or fsync was told of the failure, if nothing was written since.
    pub(in crate::fs) fn told(&self) -> Option<Severity> {
        self.failure.as_ref()?.told
    }

    /// Whether somebody set the modification time by hand since the bytes last changed.
    pub(in crate::fs) fn mtime_set(&self) -> bool {
        self.mtime_set
    }

    /// Whether somebody writes the file: what is dirty when the last of them goes is theirs to publish.
    pub(in crate::fs) fn has_writers(&self) -> bool {
        self.writers > 0
    }

    pub(super) fn assert_invariants(&self, kind: Kind) {
        debug_assert!(
            kind == Kind::File || self.dirty.is_none(),
            "only files have bytes that are written"
        );
    }

    fn take_cause(&mut self) -> Option<String> {
        self.failure.take().map(|failure| failure.cause)
    }

    fn forget_told(&mut self) {
        if let Some(failure) = &mut self.failure {
            failure.told = None;
        }
    }

    pub(super) fn join(&mut self) {
        self.writers += 1;
    }

    /// Whether that was the last.
    pub(super) fn part(&mut self) -> bool {
        self.writers -= 1;
        self.writers == 0
    }
}

impl InodeState {
    /// From now on what is written goes to `dirty`.
    pub(in crate::fs::table) fn begin_writing(&mut self, dirty: Arc<DirtyFile>) {
        debug_assert!(
            self.written.dirty.is_none(),
            "what was written is forgotten"
        );
        self.written.dirty = Some(dirty);
        self.brief_upload();
    }

    /// An upload that begins while the file is written has to know the attributes that it is to publish.
    pub(in crate::fs) fn brief_upload(&self) {
        if let Some(dirty) = &self.written.dirty {
            dirty.set_metadata(self.metadata_to_publish());
        }
    }

    /// Bytes were written: the time of it, and no close has told of them.
    pub(in crate::fs) fn wrote(&mut self, now: SystemTime) {
        self.touch(now);
        self.written.mtime_set = false;
        self.written.forget_told();
    }

    /// None of the bytes are wanted, those in the kernel's pages neither.
    pub(in crate::fs) fn truncated(&mut self, now: SystemTime) {
        self.wrote(now);
        self.told.pages = None;
    }

    /// Who changes the file without a handle is one of its writers while that lasts.
    pub(in crate::fs) fn join_writers(&mut self) {
        self.written.join();
    }

    /// The end of that. Whether it was the last writer.
    pub(in crate::fs) fn part_writers(&mut self) -> bool {
        self.written.part()
    }

    /// What is to be published of the file, if anything may be.
    pub(in crate::fs) fn to_publish(&self) -> Option<(Arc<DirtyFile>, Metadata)> {
        let dirty = self
            .written
            .dirty
            .clone()
            .filter(|_| !self.life.is_gone())?;
        Some((dirty, self.metadata_to_publish()))
    }

    /// The store has the file. Gives why it had not before, if a publish failed.
    pub(in crate::fs) fn publish_succeeded(&mut self) -> Option<String> {
        self.written.take_cause()
    }

    /// The store has not got the file. `told` is what the caller who waits for it is told; who was told of
    /// an earlier failure still is.
    pub(in crate::fs) fn publish_failed(&mut self, cause: String, told: Option<Severity>) {
        let told = told.or(self.written.told());
        self.written.failure = Some(PublishFailure { cause, told });
    }

    /// Who waits from now on was not told of what failed before.
    pub(in crate::fs) fn forget_told(&mut self) {
        self.written.forget_told();
    }

    /// A failure that no close could tell of: the next open does, once.
    pub(in crate::fs) fn take_late_failure(&mut self) -> Option<String> {
        match self.written.dirty {
            Some(_) => None,
            None => self.written.take_cause(),
        }
    }

    /// The file is the store's again if the last writer is gone and nothing is dirty. The bytes of a file
    /// that has no name any more stay until the last handle is closed: nobody else has them.
    pub(in crate::fs::table) fn finish_writing(&mut self) -> Option<Arc<DirtyFile>> {
        let is_wanted = self.life.is_ending() && self.handles > 0;
        let is_needless = !self.is_dirty() || self.life.is_gone();
        if self.written.has_writers() || is_wanted || !is_needless {
            return None;
        }
        let dirty = self.written.dirty.take()?;
        self.shown.attr.size = dirty.size();
        Some(dirty)
    }

    /// The bytes cannot be kept any longer. `failed` is why, if nobody waits to be told: the next open is.
    pub(in crate::fs::table) fn give_up(&mut self, failed: Option<String>) -> GivenUp {
        let was_told = self.written.told().is_some();
        let before = self.written.take_cause();
        if let Some(cause) = failed.clone().filter(|_| !was_told) {
            self.publish_failed(cause, None);
        }
        self.told.pages = None;
        self.shown.metadata = None;
        GivenUp {
            dirty: self.written.dirty.take(),
            cause: failed.or(before),
        }
    }
}
