//! Publishing: makes the store hold the file as it is, on the condition that its base asks for.
//!
//! ```text
//! seal ──> plan ──> Put ────────────────────────────────┐
//!               └─> begin ──> parts ──> complete ───────┴──> the new base
//! ```
//!
//! One publish a file at a time. Whatever fails, the bytes are still here and the file is as dirty
//! as before; parts that arrived are kept for the next try. An upload that the store does not know
//! any more begins anew, once.
//!
//! An answer that was lost is the hard case; [`super::attempt`] finds out before the next try.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::parts::Claim;
use super::{Ladder, Plan, PlannedPart, lost, plan};
use crate::dirty::file::Inner;
use crate::dirty::state::{Attempt, Source};
use crate::dirty::{Base, DirtyFile, OnConflict, Published, WriteError};
use crate::extent::Extent;
use crate::memory::Keep;
use crate::object::{ETag, Key, ObjectId};
use crate::store::{Condition, CopyMetadata, Fingerprint, Metadata, StoreError, StoreErrorKind};

impl DirtyFile {
    /// Makes the store hold the file as it is now, with the condition that the base asks for, and
    /// makes what was published the new base. What is written meanwhile stays dirty. If nothing is
    /// dirty it gives the last publish, asking the store nothing; `None` if there was none.
    /// One at a time: a second caller waits, then sends only what is still dirty.
    ///
    /// A multipart upload has the metadata that it was created with. If an early one was created
    /// with others than `metadata`, the file is sent anew; see [`DirtyFile::early_metadata`].
    ///
    /// # Errors
    /// `Store(Changed)` if somebody else's version is there. The bytes stay dirty after any error.
    /// Waits for the store. Must not be dropped half-way: run it in a task of its own.
    pub async fn publish(&self, metadata: Metadata) -> Result<Option<Published>, WriteError> {
        let inner = &self.inner;
        let _one = inner.publishing.lock().await;
        let result = inner.publish(&metadata).await;
        match &result {
            Ok(true) => inner.writer.count_published(),
            Ok(false) => {}
            Err(_) => inner.writer.count_failed(),
        }
        inner.writer.progress.notify_waiters();
        // What is clean now can be given up for those who wait.
        inner.writer.tidy();
        result?;
        let state = inner.state.lock();
        let clean = !state.is_dirty();
        Ok(state.last.clone().map(|last| Published { clean, ..last }))
    }

    /// The metadata that an upload under way was created with. A publish with the same ones goes on
    /// with it; with others it sends the file anew. Never waits.
    pub fn early_metadata(&self) -> Option<Metadata> {
        let state = self.inner.state.lock();
        state.upload.as_ref().map(|upload| upload.metadata.clone())
    }

    /// What an upload that begins before the publish is created with. To be told before the first
    /// write; a publish remembers its own for the next time. Never waits.
    pub fn set_metadata(&self, metadata: Metadata) {
        self.inner.state.lock().metadata = metadata;
    }

    /// The next publish goes under `key`, asking that `base` is there (the file was renamed).
    /// A multipart upload under the old key is aborted. Waits for a publish under way.
    ///
    /// With [`Base::Keep`] a clean file stays clean; with any other it is dirty. Bytes that are
    /// still in the store under the old name are copied there by the publish, so the old object
    /// must stay until then.
    pub async fn retarget(&self, key: Key, base: Base) {
        let inner = &self.inner;
        let _one = inner.publishing.lock().await;
        inner.abandon_all().await;
        inner.state.lock().retarget(key, base);
    }

    /// Gives up what is dirty: aborts uploads under way. For a file that was removed, or whose last
    /// handle is gone after a publish that failed. The bytes can still be read and written until
    /// the file is dropped, but nothing makes it dirty any more. Waits for a publish under way.
    pub async fn discard(&self) {
        let inner = &self.inner;
        inner.state.lock().orphan = true;
        let _one = inner.publishing.lock().await;
        inner.abandon_all().await;
    }
}

/// What became of a try.
struct Failure {
    error: WriteError,
    /// The object may be there all the same, and is known by this.
    lost: Option<Box<Fingerprint>>,
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        let lost = None;
        Self { error, lost }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        WriteError::Store(error).into()
    }
}

impl Failure {
    /// Of the request that makes the object.
    fn last(mut error: StoreError) -> Self {
        let lost = error.lost.take();
        let error = WriteError::Store(error);
        Self { error, lost }
    }

    fn is_refusal(&self) -> bool {
        matches!(&self.error, WriteError::Store(error) if error.is_refusal())
    }

    fn is(&self, kind: StoreErrorKind) -> bool {
        matches!(&self.error, WriteError::Store(error) if error.kind == kind)
    }
}

impl Inner {
    /// Publishes what is dirty; whether there was anything. The caller holds `publishing`.
    async fn publish(self: &Arc<Self>, metadata: &Metadata) -> Result<bool, WriteError> {
        let (wanted, unclear) = {
            let mut state = self.state.lock();
            // A publish that was dropped half-way.
            state.unseal();
            if !state.is_dirty() {
                return Ok(false);
            }
            state.metadata = metadata.clone();
            (state.changes(), !state.attempts.is_empty())
        };
        let done = || self.state.lock().has_published(wanted);
        if unclear && self.confirm_attempt().await? && done() {
            return Ok(true);
        }
        match self.send(metadata).await {
            Ok(()) => Ok(true),
            // An attempt of this try may have won, or the try before it have arrived after we looked.
            Err(error) if error.is_refusal() && !self.state.lock().attempts.is_empty() => {
                let gone = error.is(StoreErrorKind::NotFound);
                if !self.confirm_attempt().await? && !gone {
                    return Err(error.error);
                }
                if !done() {
                    self.send(metadata).await.map_err(|error| error.error)?;
                }
                Ok(true)
            }
            Err(error) => Err(error.error),
        }
    }

    /// What the store is asked to hold true.
    fn condition(&self) -> Condition {
        match self.writer.config.on_conflict {
            OnConflict::Fail => self.state.lock().condition.clone(),
            OnConflict::Overwrite => Condition::None,
        }
    }

    /// One try.
    async fn send(self: &Arc<Self>, metadata: &Metadata) -> Result<(), Failure> {
        if self.send_metadata(metadata).await? {
            return Ok(());
        }
        let (key, size, changes) = {
            let mut state = self.state.lock();
            state.seal();
            (state.key.clone(), state.content.size(), state.changes())
        };
        let sent = match self.plan(size, metadata).await {
            None => Err(WriteError::TooLarge.into()),
            Some(Plan::Put) => self.send_whole(&key, size, metadata).await,
            Some(Plan::Multipart { ladder, parts }) => {
                self.send_parts(&key, metadata, ladder, parts).await
            }
        };
        match sent {
            Ok(etag) => {
                let id = ObjectId::new(key, etag);
                let version = self.state.lock().published(id.clone(), size, changes);
                let runs = version.map(|version| version.in_memory());
                for (run, paid) in runs.unwrap_or_default() {
                    let keep: Keep = Arc::new(paid);
                    self.writer.reader.adopt(&id, size, run, Some(&keep));
                }
                // Only a file that was cut after its upload began still has one.
                self.abandon_upload().await;
                Ok(())
            }
            Err(failure) => {
                let mut state = self.state.lock();
                let version = state.unseal();
                if let (Some(lost), Some(version)) = (&failure.lost, version) {
                    state.attempted(Attempt {
                        version,
                        changes,
                        metadata: metadata.clone(),
                        fingerprint: (**lost).clone(),
                    });
                }
                Err(failure)
            }
        }
    }

    /// If only metadata changed and the bytes are still in the store, has the store copy them.
    /// Whether that was so.
    async fn send_metadata(&self, metadata: &Metadata) -> Result<bool, Failure> {
        let (source, size, key, changes) = {
            let state = self.state.lock();
            let (Source::Away { id, size } | Source::Coming { id, size, .. }) = &state.source
            else {
                return Ok(false);
            };
            (id.clone(), *size, state.key.clone(), state.changes())
        };
        let store = &self.writer.store;
        let replace = CopyMetadata::Replace(metadata.clone());
        let condition = self.condition();
        let copied = store.copy(&source, &key, replace, &condition).await;
        let etag = lost::confirm(&**store, &key, copied).await?;
        let id = ObjectId::new(key, etag);
        let mut state = self.state.lock();
        match &mut state.source {
            Source::Away { id: base, .. } | Source::Coming { id: base, .. } => *base = id.clone(),
            Source::Here => {}
        }
        state.published(id, size, changes);
        Ok(true)
    }

    /// What to send. An upload that was begun with another key or other metadata is given up, and
    /// so is one that cannot hold the file.
    async fn plan(&self, size: u64, metadata: &Metadata) -> Option<Plan> {
        // An early upload that is being created is there after this, and no other will be.
        let _creating = self.creating.lock().await;
        let plan = |begun| {
            let writer = &self.writer;
            let part_size = writer.ladder.first_size();
            plan(size, writer.put_max, part_size, &writer.limits, begun)
        };
        let begun = {
            let state = self.state.lock();
            let upload = state.upload.as_ref();
            let fits = upload.filter(|it| it.metadata == *metadata && it.key == state.key);
            fits.map(super::parts::Upload::begun)
        };
        match (plan(begun.as_ref())?, begun) {
            (Plan::Put, _) => Some(Plan::Put),
            (Plan::Multipart { ladder, parts }, Some(begun)) if begun.ladder == ladder => {
                Some(Plan::Multipart { ladder, parts })
            }
            (anew, _) => {
                self.abandon_upload().await;
                Some(anew)
            }
        }
    }

    /// The sealed version in one request.
    async fn send_whole(&self, key: &Key, size: u64, metadata: &Metadata) -> Result<ETag, Failure> {
        let found = self.find_sealed(Extent::new(0, size));
        let mut payload = self.payload(found).await?;
        let bytes = std::mem::take(&mut payload.bytes);
        let condition = self.condition();
        let store = &self.writer.store;
        let put = store.put(key, bytes, metadata, &condition).await;
        let put = lost::confirm(&**store, key, put).await;
        let etag = put.map_err(Failure::last)?;
        self.writer.count_uploaded(size);
        Ok(etag)
    }

    fn find_sealed(&self, extent: Extent) -> Vec<(Extent, Option<crate::dirty::buffer::Found>)> {
        let state = self.state.lock();
        let sealed = state.sealed.as_ref();
        sealed
            .expect("a publish seals before it sends")
            .version
            .find(extent)
    }

    /// The sealed version in parts.
    async fn send_parts(
        &self,
        key: &Key,
        metadata: &Metadata,
        ladder: Ladder,
        parts: Vec<PlannedPart>,
    ) -> Result<ETag, Failure> {
        let mut fresh = false;
        loop {
            {
                let _creating = self.creating.lock().await;
                self.begin_upload(metadata, ladder).await?;
            }
            let failure = match self.send_missing(&parts).await {
                Ok(()) => match self.complete(key, parts.len() as u32).await {
                    Ok(etag) => return Ok(etag),
                    Err(failure) => failure,
                },
                Err(failure) => failure,
            };
            // Unknown to the store, or its parts are not what we think: begin anew, once.
            let gone = failure.is(StoreErrorKind::NotFound) || failure.is(StoreErrorKind::Rejected);
            if gone || failure.is(StoreErrorKind::Changed) {
                self.abandon_upload().await;
            }
            if fresh || !gone || failure.lost.is_some() {
                return Err(failure);
            }
            fresh = true;
        }
    }

    /// Sends every part that the store does not have as it is. Parts on their way are waited for.
    /// After an error nothing more is begun, but what is on its way arrives.
    async fn send_missing(&self, parts: &[PlannedPart]) -> Result<(), Failure> {
        let mut sends = FuturesUnordered::new();
        let mut failure = None;
        loop {
            let moved = self.parts_moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            let mut busy = false;
            {
                let mut state = self.state.lock();
                let Some(upload) = &mut state.upload else {
                    return Err(StoreError::new(StoreErrorKind::NotFound, "no upload").into());
                };
                for part in parts {
                    if failure.is_some() || sends.len() >= self.writer.config.parts_in_flight_max {
                        break;
                    }
                    match upload.claim(part.number, part.extent.len) {
                        Claim::Sent => {}
                        Claim::Busy => busy = true,
                        Claim::Yours => {
                            let (id, key) = (upload.id.clone(), upload.key.clone());
                            sends.push(self.send_part(id, key, part.number, part.extent));
                        }
                    }
                }
                busy |= upload.is_busy();
            }
            if sends.is_empty() && (!busy || failure.is_some()) {
                return failure.map_or(Ok(()), Err);
            }
            tokio::select! {
                Some(sent) = sends.next() => {
                    if let Err(error) = sent {
                        failure.get_or_insert(Failure::from(error));
                    }
                }
                () = moved => {}
            }
        }
    }

    /// Makes the object of parts 1 to `last`.
    async fn complete(&self, key: &Key, last: u32) -> Result<ETag, Failure> {
        let (id, parts) = {
            let state = self.state.lock();
            let upload = state.upload.as_ref();
            let all = upload.and_then(|it| Some((it.id.clone(), it.all(last)?)));
            all.ok_or_else(|| StoreError::new(StoreErrorKind::NotFound, "parts are missing"))?
        };
        let condition = self.condition();
        let store = &self.writer.store;
        let completed = store.complete(key, &id, &parts, &condition).await;
        let completed = lost::confirm(&**store, key, completed).await;
        let etag = completed.map_err(Failure::last)?;
        self.writer.uploads.lock().remove(&id);
        self.state.lock().upload = None;
        Ok(etag)
    }

    /// Gives up whatever upload there is or is about to be. The caller holds `publishing`, and has
    /// made sure that no other begins if that matters.
    pub(crate) async fn abandon_all(&self) {
        let _creating = self.creating.lock().await;
        self.abandon_upload().await;
    }
}
