//! Publishing: makes the store hold the file as it is, on the condition that its base asks for.
//!
//! ```text
//! only metadata changed ──> copy ───────────────────────────────────────┐
//! seal ──> plan ──> put ────────────────────────────────────────────────┤
//!               └─> begin ──> parts sent and copied ──> complete ───────┴──> the new base
//! ```
//!
//! One publish a file at a time. Whatever fails, the bytes are still here and the file is as dirty
//! as before; parts that arrived are kept for the next try. An upload that the store does not know
//! any more begins anew, once.
//!
//! A store that copies no ranges is found out by the first that it refuses: the plan is made again
//! without. So it is where the version to copy from is gone but all of its bytes that are needed are
//! here.
//!
//! An answer that was lost is the hard case; [`super::unclear`] settles it before the next try.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::body::bytes_to_read;
use super::lost;
use crate::dirty::buffer::PieceBytes;
use crate::dirty::file::WrittenFile;
use crate::dirty::state::UnclearPublish;
use crate::dirty::{Base, DirtyFile, OnConflict, Published, WriteError};
use crate::extent::Extent;
use crate::memory::Keep;
use crate::object::{ETag, Key, ObjectId};
use crate::parts::upload::{MultipartUpload, PartClaim};
use crate::plan::{PartStep, PlanRequest, PlannedPart, PublishPlan, plan};
use crate::store::{
    Condition, CopyMetadata, Fingerprint, Metadata, StoreError, StoreErrorKind, UploadId,
};

/// The store copies ranges of up to so many bytes in one request: it works at several at once, and each
/// is answered well within the time that a request may take.
const COPY_MAX: u64 = 256 << 20;

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
struct PublishFailure {
    error: WriteError,
    during: During,
    /// The object may be there all the same, and is known by this.
    lost: Option<Box<Fingerprint>>,
}

/// What a try was about when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum During {
    /// The copy of a range.
    Copying,
    /// The request that makes the object.
    Completing,
    /// Anything else.
    Sending,
}

impl From<WriteError> for PublishFailure {
    fn from(error: WriteError) -> Self {
        Self {
            error,
            during: During::Sending,
            lost: None,
        }
    }
}

impl From<StoreError> for PublishFailure {
    fn from(error: StoreError) -> Self {
        WriteError::Store(error).into()
    }
}

impl PublishFailure {
    /// Of the request that makes the object.
    fn last(mut error: StoreError) -> Self {
        let lost = error.lost.take();
        Self {
            error: WriteError::Store(error),
            during: During::Completing,
            lost,
        }
    }

    fn is_refusal(&self) -> bool {
        matches!(&self.error, WriteError::Store(error) if error.is_refusal())
    }

    fn is(&self, kind: StoreErrorKind) -> bool {
        matches!(&self.error, WriteError::Store(error) if error.kind == kind)
    }
}

impl WrittenFile {
    /// Publishes what is dirty; whether there was anything. The caller holds `publishing`.
    async fn publish(self: &Arc<Self>, metadata: &Metadata) -> Result<bool, WriteError> {
        let (wanted, unclear) = {
            let mut state = self.state.lock();
            // A publish that was dropped half-way.
            state.unseal();
            if !state.is_dirty() {
                return Ok(false);
            }
            if self.writer.config.staging.is_none() && state.is_lost() {
                return Err(WriteError::Lost);
            }
            state.metadata = metadata.clone();
            (state.changes(), !state.unclear.is_empty())
        };
        let done = || self.state.lock().has_published(wanted);
        if unclear && self.settle_unclear().await? && done() {
            return Ok(true);
        }
        match self.send(metadata).await {
            Ok(()) => Ok(true),
            // A request of this try may have won, or the try before it have arrived after we looked.
            Err(error) if error.is_refusal() && !self.state.lock().unclear.is_empty() => {
                let gone = error.is(StoreErrorKind::NotFound);
                if !self.settle_unclear().await? && !gone {
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
    async fn send(self: &Arc<Self>, metadata: &Metadata) -> Result<(), PublishFailure> {
        if self.send_metadata(metadata).await? {
            return Ok(());
        }
        let (key, changes) = {
            let mut state = self.state.lock();
            state.seal();
            (state.key.clone(), state.changes())
        };
        match self.send_sealed(&key, metadata).await {
            Ok(etag) => {
                self.sealed_is_there(ObjectId::new(key, etag), changes);
                // Only a file that was cut after its upload began still has one.
                self.abandon_upload().await;
                Ok(())
            }
            Err(failure) => {
                let mut state = self.state.lock();
                let cut = state.cut_since_seal();
                let version = state.unseal();
                if let (Some(lost), Some(version)) = (&failure.lost, version) {
                    state.became_unclear(UnclearPublish {
                        version,
                        changes,
                        metadata: metadata.clone(),
                        fingerprint: (**lost).clone(),
                        cut,
                    });
                }
                Err(failure)
            }
        }
    }

    /// The sealed version is in the store as `id`: what memory has of it serves its readers.
    fn sealed_is_there(&self, id: ObjectId, changes: u64) {
        let version = self.state.lock().published_sealed(id.clone(), changes);
        let Some(version) = version else {
            return;
        };
        for (run, paid) in version.in_memory() {
            let keep: Keep = Arc::new(paid);
            self.writer
                .reader
                .adopt(&id, version.size, run, Some(&keep));
        }
    }

    /// If only metadata changed, has the store copy the bytes that it has. Whether that was so.
    async fn send_metadata(&self, metadata: &Metadata) -> Result<bool, PublishFailure> {
        let (source, key, changes) = {
            let state = self.state.lock();
            match state.layers.base() {
                Some(base) if state.is_its_base() => {
                    (base.id.clone(), state.key.clone(), state.changes())
                }
                _ => return Ok(false),
            }
        };
        let store = &self.writer.store;
        let replace = CopyMetadata::Replace(metadata.clone());
        let condition = self.condition();
        let copied = store.copy(&source, &key, replace, &condition).await;
        let etag = match lost::confirm(&**store, &key, copied).await {
            Ok(etag) => etag,
            // The version is gone, but not its bytes: they may go over another one.
            Err(error) if error.kind == StoreErrorKind::Changed && self.goes_elsewhere(&source) => {
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        let id = ObjectId::new(key, etag);
        self.state.lock().published_metadata(id, changes);
        Ok(true)
    }

    /// Whether the publish asks for another version than `base`, so that it need not fail where that one
    /// is gone; and all bytes of the file are here.
    fn goes_elsewhere(&self, base: &ObjectId) -> bool {
        let elsewhere = match self.condition() {
            Condition::Matches(etag) => etag != base.etag,
            Condition::None | Condition::Absent => true,
        };
        elsewhere && !self.state.lock().layers.is_missing_some()
    }

    /// Makes the object of the sealed version, with what the store has of it as far as that helps.
    async fn send_sealed(
        self: &Arc<Self>,
        key: &Key,
        metadata: &Metadata,
    ) -> Result<ETag, PublishFailure> {
        let mut copies = self.may_copy();
        loop {
            let plan = self.plan(copies, metadata).await;
            let parts = match plan.ok_or(WriteError::TooLarge)? {
                PublishPlan::Put => return self.send_whole(key, metadata).await,
                PublishPlan::Multipart { parts } => parts,
            };
            let copied = parts.iter().any(|part| part.step == PartStep::Copy);
            let failure = match self.send_parts(key, metadata, &parts).await {
                Ok(etag) => return Ok(etag),
                Err(failure) => failure,
            };
            if !copied || !self.can_do_without_copies(&failure) {
                return Err(failure);
            }
            copies = false;
        }
    }

    /// Whether the store copies ranges of the base. S3 does so only of objects larger than the smallest
    /// part.
    fn may_copy(&self) -> bool {
        let state = self.state.lock();
        let base = state
            .sealed
            .as_ref()
            .and_then(|sealed| sealed.version.base.as_ref());
        let is_large = base.is_some_and(|base| base.size > self.writer.limits.part_min);
        is_large && self.writer.copies_ranges()
    }

    /// Whether a try that failed may go well without copies, and it was these that it failed by.
    fn can_do_without_copies(&self, failure: &PublishFailure) -> bool {
        if failure.is(StoreErrorKind::Rejected) && failure.during != During::Sending {
            self.writer.refuse_copies(&failure.error);
            return true;
        }
        let base = {
            let state = self.state.lock();
            let sealed = state.sealed.as_ref();
            sealed.and_then(|sealed| sealed.version.base.clone())
        };
        failure.is(StoreErrorKind::Changed)
            && failure.during == During::Copying
            && base.is_some_and(|base| self.goes_elsewhere(&base.id))
    }

    /// What to send. An upload that was begun with another key or other metadata is given up, and so is
    /// one that a single request makes needless.
    async fn plan(&self, copies: bool, metadata: &Metadata) -> Option<PublishPlan> {
        // An early upload that is being created is there after this, and no other will be.
        let _creating = self.creating.lock().await;
        let fits = |upload: &&MultipartUpload, key: &Key| {
            upload.metadata == *metadata && upload.key == *key
        };
        let (plan, goes_on) = {
            let state = self.state.lock();
            let sealed = state.sealed.as_ref();
            let sealed = sealed.expect("a publish seals before it plans");
            let upload = state.upload.as_ref().filter(|it| fits(it, &state.key));
            let begun = upload.map(MultipartUpload::begun);
            let writer = &self.writer;
            let plan = plan(&PlanRequest {
                size: sealed.version.size,
                spans: &sealed.version.spans(sealed.published),
                part_size: writer.layout.first_size(),
                put_max: writer.put_max,
                copy_max: COPY_MAX.min(writer.limits.part_max),
                copies,
                limits: &writer.limits,
                begun: begun.as_ref(),
                keep_sent: writer.config.staging.is_none() && sealed.version.is_sent_in_part(),
            });
            (plan, begun.is_some())
        };
        if !goes_on || matches!(plan, Some(PublishPlan::Put)) {
            self.abandon_upload().await;
        }
        plan
    }

    /// The sealed version in one request; in one part, if more of it is to be read first than may be in
    /// memory at once.
    async fn send_whole(
        self: &Arc<Self>,
        key: &Key,
        metadata: &Metadata,
    ) -> Result<ETag, PublishFailure> {
        let (size, found) = self.find_sealed();
        if bytes_to_read(&found) > self.writer.memory.readback.bound() {
            let part = PlannedPart {
                number: 1,
                extent: Extent::new(0, size),
                step: PartStep::Send,
            };
            return self.send_parts(key, metadata, &[part]).await;
        }
        let mut body = self.request_body(found).await?;
        let bytes = std::mem::take(&mut body.bytes);
        let condition = self.condition();
        let store = &self.writer.store;
        let put = store.put(key, bytes, metadata, &condition).await;
        let put = lost::confirm(&**store, key, put).await;
        let etag = put.map_err(PublishFailure::last)?;
        self.writer.count_uploaded(size);
        Ok(etag)
    }

    /// The sealed version's size, and where its bytes are.
    fn find_sealed(&self) -> (u64, Vec<(Extent, PieceBytes)>) {
        let state = self.state.lock();
        let sealed = state.sealed.as_ref();
        let version = &sealed.expect("a publish seals before it sends").version;
        (version.size, version.find(Extent::new(0, version.size)))
    }

    /// The sealed version in parts.
    async fn send_parts(
        self: &Arc<Self>,
        key: &Key,
        metadata: &Metadata,
        parts: &[PlannedPart],
    ) -> Result<ETag, PublishFailure> {
        let mut fresh = false;
        loop {
            {
                let _creating = self.creating.lock().await;
                self.begin_upload(metadata, self.writer.layout).await?;
            }
            let failure = match self.send_missing(parts).await {
                Ok(()) => match self.complete(key, parts).await {
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
            let copied = parts.iter().any(|part| part.step == PartStep::Copy);
            let refused = copied && failure.is(StoreErrorKind::Rejected);
            if fresh || !gone || refused || failure.lost.is_some() {
                return Err(failure);
            }
            fresh = true;
        }
    }

    /// Sends or has copied every part that the store does not have as it is. Parts on their way are
    /// waited for. After an error nothing more is begun, but what is on its way arrives.
    async fn send_missing(self: &Arc<Self>, parts: &[PlannedPart]) -> Result<(), PublishFailure> {
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
                    match upload.claim(part.number, part.extent) {
                        PartClaim::Sent => {}
                        PartClaim::Busy => busy = true,
                        PartClaim::Yours => {
                            let (id, key) = (upload.id.clone(), upload.key.clone());
                            sends.push(self.transfer(id, key, *part));
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
                        failure.get_or_insert(error);
                    }
                }
                () = moved => {}
            }
        }
    }

    /// Sends a part that was claimed, or has the store copy it.
    async fn transfer(
        self: &Arc<Self>,
        id: UploadId,
        key: Key,
        part: PlannedPart,
    ) -> Result<(), PublishFailure> {
        match part.step {
            PartStep::Copy => {
                let copied = self.copy_part(id, key, part.number, part.extent).await;
                copied.map_err(|error| PublishFailure {
                    during: During::Copying,
                    ..PublishFailure::from(error)
                })
            }
            PartStep::Send | PartStep::Sent => {
                let sent = self.send_part(id, key, part.number, part.extent).await;
                sent.map_err(PublishFailure::from)
            }
        }
    }

    /// Makes the object of `parts`.
    async fn complete(&self, key: &Key, parts: &[PlannedPart]) -> Result<ETag, PublishFailure> {
        let (id, all) = {
            let state = self.state.lock();
            let upload = state.upload.as_ref();
            let planned = parts.iter().map(|part| (part.number, part.extent));
            let all = upload.and_then(|it| Some((it.id.clone(), it.all(planned)?)));
            all.ok_or_else(|| StoreError::new(StoreErrorKind::NotFound, "parts are missing"))?
        };
        let condition = self.condition();
        let store = &self.writer.store;
        let completed = store.complete(key, &id, &all, &condition).await;
        let completed = lost::confirm(&**store, key, completed).await;
        let etag = completed.map_err(PublishFailure::last)?;
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
