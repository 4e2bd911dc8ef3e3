//! Sends parts while the file is still written, so that the close of a large file waits for its
//! last parts only.
//!
//! One task a file, while there is something to send. It begins the multipart upload when the
//! second full part is there, and sends a part when the writer has moved past it by another one:
//! writers that go back do so by a header or a block, seldom by a whole part. A part that is dirtied
//! after it was sent is sent again at the publish and not before, so no pattern of writes costs
//! more than one early upload of the file. A writer that says that it pauses ([`DirtyFile::pause`])
//! has its full parts sent without moving past them. Nothing of this makes the object visible.
//!
//! EarlyParts sending never fails a write: when the store refuses something it stops, and the publish
//! tries again and reports.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::dirty::file::WrittenFile;
use crate::dirty::state::FileState;
use crate::dirty::{DirtyFile, WriteError};
use crate::extent::Extent;
use crate::object::Key;
use crate::parts::PartLayout;
use crate::parts::early::EarlyParts;
use crate::parts::upload::{MultipartUpload, PartClaim};
use crate::store::{Metadata, Part, StoreErrorKind, UploadId};

impl FileState {
    /// Notes a write for early sending. Whether there is a part to send now.
    pub(crate) fn wrote(&mut self, extent: Extent, layout: &PartLayout) -> bool {
        self.early.wrote(extent, layout.first_size());
        self.early_part(layout).is_some()
    }

    /// The next part to send early, if there is one. `layout` is that of an upload not yet begun.
    fn early_part(&mut self, layout: &PartLayout) -> Option<(u32, Extent)> {
        if self.orphan || self.sealed.is_some() {
            return None;
        }
        let layout = self.upload.as_ref().map_or(*layout, |upload| upload.layout);
        loop {
            let (number, part) = self.early.candidate(&layout)?;
            if self.layers.covers(part) {
                return Some((number, part));
            }
            // A hole, or a write that is late: the publish will send it.
            self.early.proposed(number);
        }
    }

    /// Asks for the next part to send early, and notes it as on its way.
    fn claim_early(&mut self) -> Option<(UploadId, Key, u32, Extent)> {
        loop {
            let layout = self.upload.as_ref()?.layout;
            let (number, part) = self.early_part(&layout)?;
            self.early.proposed(number);
            let upload = self.upload.as_mut()?;
            if upload.claim(number, part) == PartClaim::Yours {
                return Some((upload.id.clone(), upload.key.clone(), number, part));
            }
        }
    }
}

impl DirtyFile {
    /// The writer pauses, or may have ended: parts that it has filled are sent now instead of when it
    /// moves past them, so that the publish finds less to do. A file that will go in one request is
    /// left for that. The object stays as it is. Never waits.
    pub fn pause(&self) {
        self.inner.pause();
    }
}

impl WrittenFile {
    /// See [`DirtyFile::pause`].
    pub(crate) fn pause(self: &Arc<Self>) {
        self.pause_with(EarlyParts::paused);
    }

    /// The writer waits for memory: as [`WrittenFile::pause`], and without staging one part that it has
    /// filled is sent, for nothing else makes room.
    pub(crate) fn pause_for_memory(self: &Arc<Self>) {
        match self.writer.config.staging {
            Some(_) => self.pause(),
            None => self.pause_with(EarlyParts::paused_for_memory),
        }
    }

    fn pause_with(self: &Arc<Self>, pause: impl FnOnce(&mut EarlyParts)) {
        let begins = {
            let mut state = self.state.lock();
            pause(&mut state.early);
            state.early_part(&self.writer.layout).is_some()
        };
        if begins {
            self.send_early();
        }
    }

    /// Sends what can be sent early, in a task. Never waits.
    pub(crate) fn send_early(self: &Arc<Self>) {
        let ran = std::mem::replace(&mut self.state.lock().early.running, true);
        if ran {
            self.parts_moved.notify_waiters();
        } else {
            let inner = self.clone();
            self.writer.runtime.spawn(inner.run_early());
        }
    }

    async fn run_early(self: Arc<Self>) {
        let ran = Running(&self);
        let begun = {
            let _creating = self.creating.lock().await;
            let wanted = {
                let mut state = self.state.lock();
                // A publish may have begun meanwhile, or ended: then there is nothing to send early.
                let part = state.early_part(&self.writer.layout);
                part.map(|_| state.metadata.clone())
            };
            match wanted {
                Some(metadata) => self.begin_upload(&metadata, self.writer.layout).await,
                None => Ok(()),
            }
        };
        if begun.is_err() {
            self.state.lock().early.off = true;
        }
        let mut sends = FuturesUnordered::new();
        loop {
            let moved = self.parts_moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            {
                let mut state = self.state.lock();
                while sends.len() < self.writer.config.parts_in_flight_max
                    && let Some((id, key, number, part)) = state.claim_early()
                {
                    sends.push(self.send_part(id, key, number, part));
                }
                if sends.is_empty() {
                    state.early.running = false;
                    break;
                }
            }
            tokio::select! {
                Some(sent) = sends.next() => {
                    if sent.is_err() {
                        self.state.lock().early.off = true;
                    }
                }
                () = moved => {}
            }
        }
        drop(ran);
    }

    /// Begins a multipart upload unless there is one. The caller holds `creating`. Waits for the
    /// store.
    pub(crate) async fn begin_upload(
        &self,
        metadata: &Metadata,
        layout: PartLayout,
    ) -> Result<(), WriteError> {
        let key = {
            let state = self.state.lock();
            if state.upload.is_some() {
                return Ok(());
            }
            state.key.clone()
        };
        let id = self.writer.store.create_multipart(&key, metadata).await?;
        self.writer.uploads.lock().insert(id.clone(), key.clone());
        let upload = MultipartUpload::new(id, key, metadata.clone(), layout);
        self.state.lock().upload = Some(upload);
        Ok(())
    }

    /// Sends a part that was claimed: of the sealed version if there is one. Waits for the store.
    pub(crate) async fn send_part(
        self: &Arc<Self>,
        id: UploadId,
        key: Key,
        number: u32,
        extent: Extent,
    ) -> Result<(), WriteError> {
        let mut settle = SettlePart {
            inner: self,
            id,
            number,
            part: None,
        };
        let permit = self.sends.acquire().await;
        // Its bytes may be spilled from now on.
        self.writer.sends_moved.notify_waiters();
        let found = {
            let state = self.state.lock();
            match &state.sealed {
                Some(sealed) => sealed.version.find(extent),
                None => state.layers.find(extent),
            }
        };
        let mut body = self.part_body(found).await?;
        let pieces = std::mem::take(&mut body.pieces);
        let store = &self.writer.store;
        let part = store.put_part(&key, &settle.id, number, pieces).await?;
        drop(permit);
        self.writer.count_uploaded(body.len);
        settle.part = Some(Part {
            size: body.len,
            ..part
        });
        Ok(())
    }

    /// Has the store make a part that was claimed of what the sealed version keeps of its base. Waits for
    /// the store.
    pub(crate) async fn copy_part(
        &self,
        id: UploadId,
        key: Key,
        number: u32,
        extent: Extent,
    ) -> Result<(), WriteError> {
        let mut settle = SettlePart {
            inner: self,
            id,
            number,
            part: None,
        };
        let source = {
            let state = self.state.lock();
            let sealed = state.sealed.as_ref();
            let base = sealed.and_then(|sealed| sealed.version.base.as_ref());
            base.expect("only a sealed version over a base is copied")
                .id
                .clone()
        };
        let _permit = self.sends.acquire().await;
        let store = &self.writer.store;
        let copied = store.copy_part(&key, &settle.id, number, &source, extent);
        let part = copied.await?;
        self.writer.count_copied(extent.len);
        settle.part = Some(Part {
            size: extent.len,
            ..part
        });
        Ok(())
    }

    /// Gives up the upload under way, if there is one: waits for its parts, then aborts it. A store
    /// that does not answer keeps it on the writer's list.
    pub(crate) async fn abandon_upload(&self) {
        let upload = loop {
            let moved = self.parts_moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            {
                let mut state = self.state.lock();
                match &state.upload {
                    None => return,
                    Some(upload) if upload.is_busy() => {}
                    Some(_) => break state.upload.take(),
                }
            }
            moved.await;
        };
        if let Some(MultipartUpload { id, key, .. }) = upload {
            let _ = self.writer.abort(&key, &id).await;
        }
    }
}

/// However the sending of a part ends, the upload knows.
struct SettlePart<'a> {
    inner: &'a WrittenFile,
    id: UploadId,
    number: u32,
    part: Option<Part>,
}

impl Drop for SettlePart<'_> {
    fn drop(&mut self) {
        if let Some(upload) = &mut self.inner.state.lock().upload
            && upload.id == self.id
        {
            upload.settle(self.number, self.part.take());
        }
        self.inner.parts_moved.notify_waiters();
        let writer = &self.inner.writer;
        writer.sends_ended.fetch_add(1, Ordering::Relaxed);
        writer.sends_moved.notify_waiters();
        // What the store has can be given up for those who wait.
        writer.free_memory();
    }
}

/// However the task ends, nobody waits for it in vain.
struct Running<'a>(&'a WrittenFile);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.state.lock().early.running = false;
        }
        self.0.writer.progress.notify_waiters();
    }
}

impl crate::dirty::Writer {
    /// Gives up an upload at the store. One that the store does not know is given up already.
    pub(crate) async fn abort(&self, key: &Key, id: &UploadId) -> Result<(), WriteError> {
        match self.store.abort(key, id).await {
            Ok(()) => {}
            Err(error) if error.kind == StoreErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        self.uploads.lock().remove(id);
        Ok(())
    }
}
