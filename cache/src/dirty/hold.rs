//! Brings what only the base has of a file here, and keeps it: for a file whose object is about to go.
//! Ranged GETs of 8 MiB with `If-Match`, several at once, into the file's buffers and on to the
//! staging file; what the read cache has is not asked for again.
//!
//! What arrives is right as soon as it is there, so a fetch that fails or that nobody waits for any
//! more leaves the file as it was, with some of its bytes nearer. Meanwhile the file may be written,
//! cut and published: bytes that come late are taken only where nothing else lies, and only while the
//! base is the one that they were asked of.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::base::BaseReader;
use super::file::WrittenFile;
use super::{DirtyFile, WriteError};
use crate::extent::Extent;
use crate::object::ObjectId;
use crate::store::Priority;

/// One GET, in bytes: the reference of what the SDK reaches at four in flight.
const FETCH: u64 = 8 << 20;
const FETCHES_MAX: usize = 4;

/// Keeps all bytes of a file here while it lives.
#[derive(Debug)]
pub struct HeldBytes(Arc<WrittenFile>);

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.0.state.lock().pins -= 1;
    }
}

impl DirtyFile {
    /// Brings the base here and keeps the bytes from being given up while the result lives. After
    /// [`DirtyFile::discard`] they stay without it. Waits for the store, memory and the disk.
    ///
    /// # Errors
    /// As [`WriteError`]; the file is then as before. `NoRoom` comes before anything is fetched if what
    /// is missing fits neither the memory nor what the staging disk has left.
    pub async fn hold(&self) -> Result<HeldBytes, WriteError> {
        let inner = &self.inner;
        inner.state.lock().pins += 1;
        let held = HeldBytes(inner.clone());
        inner.has_room_for_missing().await?;
        loop {
            let (id, missing) = {
                let state = inner.state.lock();
                let missing = state.layers.missing();
                match state.layers.base() {
                    Some(base) if !missing.is_empty() => (base.id.clone(), missing),
                    _ => return Ok(held),
                }
            };
            let fetches = missing.into_iter().flat_map(in_fetches);
            let fetch = |extent| inner.fetch(&id, extent);
            let fetches = stream::iter(fetches.map(fetch)).buffer_unordered(FETCHES_MAX);
            let all: Result<(), WriteError> = fetches.try_collect().await;
            all?;
        }
    }

    /// The version in the store that bytes of the file are still to come from; `None` if all are here.
    /// It changes with a publish and with [`DirtyFile::retarget`]. Never waits.
    pub fn away(&self) -> Option<ObjectId> {
        let state = self.inner.state.lock();
        let base = state.layers.base()?;
        state.layers.is_missing_some().then(|| base.id.clone())
    }
}

/// `extent` in pieces of one GET each.
fn in_fetches(extent: Extent) -> impl Iterator<Item = Extent> {
    let starts = (extent.offset..extent.end()).step_by(FETCH as usize);
    starts.map(move |start| Extent::between(start, extent.end().min(start + FETCH)))
}

impl WrittenFile {
    /// Whether what is missing can be brought here at all.
    async fn has_room_for_missing(&self) -> Result<(), WriteError> {
        let missing = self.state.lock().layers.missing();
        let bytes: u64 = missing.iter().map(|extent| extent.len).sum();
        if bytes <= self.writer.memory.file_max {
            return Ok(());
        }
        let free = match &self.writer.config.staging {
            Some(staging) => staging.free().await.map_err(WriteError::staging)?,
            None => 0,
        };
        if bytes > free {
            return Err(WriteError::no_room());
        }
        Ok(())
    }

    /// Fetches `extent` of the base `id` into the layers.
    async fn fetch(self: &Arc<Self>, id: &ObjectId, extent: Extent) -> Result<(), WriteError> {
        let pool = &self.writer.memory.pool;
        let mut at = extent.offset;
        let mut reader = BaseReader::new(&self.writer, id, extent, Priority::Interactive);
        while let Some(bytes) = reader.chunk().await? {
            for bytes in bytes.chunks(pool.buffer_max as usize) {
                let len = bytes.len() as u64;
                let paid = self.reserve(len).await?;
                {
                    let layers = &mut self.state.lock().layers;
                    if layers.base().is_none_or(|base| base.id != *id) {
                        // Published or moved meanwhile: what is still missing is asked for anew.
                        return Ok(());
                    }
                    layers.fill(at, bytes, &paid, pool);
                }
                drop(paid);
                self.writer.free_memory();
                at += len;
            }
        }
        Ok(())
    }
}
