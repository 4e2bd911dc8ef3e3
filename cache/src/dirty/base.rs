//! Brings a file's base here before the first write that keeps some of it: from the read cache what
//! it has, else by ranged GETs of 8 MiB with `If-Match`, several at once, into the file's buffers
//! and on to the staging file.
//!
//! The fetch runs in a task of its own: the waiters join it, and one that gives up does not stop
//! it. Until it has succeeded the content is not looked at, and reads go to the store's bytes; so a
//! fetch that fails leaves the file as it was, and clean.
//!
//! A cut that comes first is fetched for: only what stays is brought, and the cut is done with it.

use std::io;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::watch;

use super::file::Inner;
use super::memory::duplicate;
use super::state::{Arrival, Source};
use super::{DirtyFile, WriteError};
use crate::extent::Extent;
use crate::memory::BLOCK;
use crate::object::ObjectId;
use crate::store::{Priority, StoreError, StoreErrorKind};

/// One GET, in bytes: the reference of what the SDK reaches at four in flight.
const FETCH: u64 = 8 << 20;
const FETCHES_MAX: usize = 4;

impl Inner {
    /// Has the first `keep` bytes of the base here and cuts the rest; all of it if it is no
    /// larger. Waits for the store, memory and the disk.
    ///
    /// # Errors
    /// As [`WriteError`]; the file is then as before.
    pub(crate) async fn bring_base(self: &Arc<Self>, keep: u64) -> Result<(), WriteError> {
        let mut done = {
            let mut state = self.state.lock();
            match &state.source {
                Source::Here => return Ok(()),
                Source::Coming { done, .. } => done.clone(),
                Source::Away { id, size } => {
                    let (id, size) = (id.clone(), *size);
                    let (arrive, done) = watch::channel(None);
                    state.source = Source::Coming {
                        id: id.clone(),
                        size,
                        done: done.clone(),
                    };
                    let inner = self.clone();
                    self.writer.runtime.spawn(async move {
                        let task = Arriving { inner, arrive };
                        task.run(id, size, keep).await;
                    });
                    done
                }
            }
        };
        let arrival = done.wait_for(Option::is_some).await;
        match arrival.as_deref() {
            Ok(Some(Ok(()))) => Ok(()),
            Ok(Some(Err(error))) => Err(duplicate_error(error)),
            _ => Err(broken("the fetch of the base ended early")),
        }
    }

    /// Fetches `extent` of `id` into the content, from the read cache as far as it has it.
    async fn fetch(self: &Arc<Self>, id: &ObjectId, extent: Extent) -> Result<(), WriteError> {
        let mut at = extent.offset;
        while at < extent.end() {
            let part = Extent::between(at, extent.end().min((at / BLOCK + 1) * BLOCK));
            let Some(bytes) = self.writer.reader.peek(id, part).await else {
                break;
            };
            for bytes in bytes.chunks(self.writer.memory.pool.buffer_max as usize) {
                self.fill(at, bytes).await?;
                at += bytes.len() as u64;
            }
        }
        if at == extent.end() {
            return Ok(());
        }
        let store = &self.writer.store;
        let rest = Extent::between(at, extent.end());
        let mut fetched = store.get(id, rest, Priority::Interactive).await?;
        while let Some(bytes) = fetched.body.chunk().await? {
            if bytes.len() as u64 > extent.end() - at {
                return Err(broken("the store sent more than was asked for"));
            }
            for bytes in bytes.chunks(self.writer.memory.pool.buffer_max as usize) {
                self.fill(at, bytes).await?;
                at += bytes.len() as u64;
            }
        }
        if at != extent.end() {
            return Err(broken("the store sent less than was asked for"));
        }
        Ok(())
    }

    /// Puts bytes of the base into the content.
    async fn fill(self: &Arc<Self>, offset: u64, data: &[u8]) -> Result<(), WriteError> {
        let memory = &self.writer.memory;
        let mut paid = None;
        loop {
            let done = {
                let mut take = |least: u64, liked: u64| {
                    if paid.is_some() {
                        return paid.take();
                    }
                    let now = |bytes| memory.take_now(&self.meter, bytes);
                    now(liked).or_else(|| now(least))
                };
                let content = &mut self.state.lock().content;
                content.write(offset, data, &memory.pool, &mut take)
            };
            self.writer.free_memory();
            match done {
                Ok(()) => return Ok(()),
                Err(need) => paid = Some(self.reserve(need.least).await?),
            }
        }
    }
}

/// The task of a fetch. However it ends, the file is in order and the waiters know.
struct Arriving {
    inner: Arc<Inner>,
    arrive: watch::Sender<Arrival>,
}

impl Arriving {
    async fn run(self, id: ObjectId, size: u64, keep: u64) {
        let inner = &self.inner;
        // A publish of changed metadata replaces the version that is fetched: one at a time.
        let publishing = inner.publishing.lock().await;
        let (id, size) = match &inner.state.lock().source {
            Source::Coming { id, size, .. } => (id.clone(), *size),
            _ => (id, size),
        };
        let keep = keep.min(size);
        inner.state.lock().content.clear(keep);
        let starts = (0..keep).step_by(FETCH as usize);
        let mut fetches = stream::iter(starts)
            .map(|start| {
                let extent = Extent::between(start, keep.min(start + FETCH));
                let id = &id;
                async move {
                    // Whoever wanted it may be gone, and the file may be large.
                    if inner.state.lock().orphan {
                        return Err(broken("nobody wants the file any more"));
                    }
                    inner.fetch(id, extent).await
                }
            })
            .buffer_unordered(FETCHES_MAX);
        let mut result = Ok(());
        while let Some(fetched) = fetches.next().await {
            if fetched.is_err() {
                result = fetched;
                break;
            }
        }
        drop(fetches);
        {
            let mut state = inner.state.lock();
            if result.is_ok() {
                state.source = Source::Here;
                state.here = Some(id);
                if keep < size {
                    state.dirtied(Extent::between(keep, u64::MAX));
                }
            } else {
                state.content.clear(size);
                state.source = Source::Away { id, size };
            }
        }
        drop(publishing);
        self.arrive.send_replace(Some(result.map_err(Arc::new)));
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        // Only a panic or the runtime's end leaves the file so.
        let mut state = self.inner.state.lock();
        if let Source::Coming { id, size, .. } = &state.source {
            let (id, size) = (id.clone(), *size);
            if self.arrive.borrow().is_none() {
                state.content.clear(size);
                state.source = Source::Away { id, size };
            }
        }
    }
}

/// Keeps all bytes of a file here while it lives.
#[derive(Debug)]
pub struct Held(Arc<Inner>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.state.lock().pins -= 1;
    }
}

impl DirtyFile {
    /// Brings the base here and keeps the bytes from being given up while the result lives: for a
    /// file whose object is about to go. After [`DirtyFile::discard`] they stay without it. Waits
    /// for the store, memory and the disk; what the read cache has is not asked for again.
    ///
    /// # Errors
    /// As [`WriteError`]; the file is then as before. ENOSPC comes before anything is fetched if
    /// the base fits neither the memory nor what the staging disk has left.
    pub async fn hold(&self) -> Result<Held, WriteError> {
        let away = {
            let mut state = self.inner.state.lock();
            state.pins += 1;
            match &state.source {
                Source::Away { size, .. } => *size,
                Source::Coming { .. } | Source::Here => 0,
            }
        };
        let held = Held(self.inner.clone());
        let writer = &self.inner.writer;
        if away > writer.memory.file_max {
            let free = match &writer.config.staging {
                Some(staging) => staging.free().await.map_err(WriteError::Staging)?,
                None => 0,
            };
            if away > free {
                let full = io::Error::from_raw_os_error(libc::ENOSPC);
                return Err(WriteError::Staging(full));
            }
        }
        self.inner.bring_base(u64::MAX).await?;
        Ok(held)
    }

    /// The version in the store that bytes of the file are still to come from; `None` if all are here.
    /// It changes with [`DirtyFile::retarget`]. Never waits.
    pub fn away(&self) -> Option<ObjectId> {
        match &self.inner.state.lock().source {
            Source::Here => None,
            Source::Away { id, .. } | Source::Coming { id, .. } => Some(id.clone()),
        }
    }

    /// Whether the bytes of the base are still in the store only.
    pub fn base_is_away(&self) -> bool {
        !matches!(self.inner.state.lock().source, Source::Here)
    }
}

fn broken(message: &str) -> WriteError {
    WriteError::Store(StoreError::new(StoreErrorKind::Broken, message))
}

/// A second error like this one, for each of several waiters.
fn duplicate_error(error: &WriteError) -> WriteError {
    match error {
        WriteError::Store(error) => WriteError::Store(error.duplicate()),
        WriteError::Staging(error) => WriteError::Staging(duplicate(error)),
        WriteError::TooLarge => WriteError::TooLarge,
    }
}
