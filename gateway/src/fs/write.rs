//! Writing, and the promise: FLUSH and fsync answer when the store has the bytes.
//!
//! FLUSH comes once per close(2), so a dup'ed descriptor brings several; only one that finds dirty
//! bytes publishes. A handle that cannot write never publishes: its close says nothing about the
//! writer's bytes. What mmap dirties after the last FLUSH is published at RELEASE, which nobody
//! waits for on a stock kernel: a failure there makes the file stuck, and the next open says so.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use ackfs_cache::dirty::{Base, DirtyFile, Published, WriteError};
use ackfs_cache::object::Key;
use ackfs_cache::store::Metadata;
use tracing::{error, info};

use super::error::{self, FsError, FsResult};
use super::inode::{Inode, Told};
use super::known::Listed;
use super::open::RELEASE_RETRY_AFTER;
use super::{Context, Filesystem};
use crate::fuse::Responder;

impl Filesystem {
    pub(super) fn write(&self, ino: u64, fh: u64, offset: u64, responder: Responder) {
        let handle = self.files.get(fh).filter(|handle| handle.writable);
        let Some(handle) = handle else {
            return responder.error(libc::EBADF);
        };
        let dirty = match self.dirty_of(&handle.inode) {
            Ok(dirty) => dirty,
            Err(error) => return Context::new("write", ino).fail(responder, &error),
        };
        let len = responder.data().len() as u32;
        if dirty.write_now(offset, responder.data()) {
            wrote(&handle.inode);
            return responder.written(len);
        }
        let context = Context::of("write", &handle.inode);
        self.runtime.spawn(async move {
            let result = dirty.write(offset, responder.data()).await;
            if result.is_ok() {
                wrote(&handle.inode);
            }
            let result = result.map(|()| len).map_err(FsError::from);
            context.finish(responder, result, Responder::written);
        });
    }

    /// What is written to the inode goes here. Begun when it is first asked for.
    ///
    /// # Errors
    /// ESTALE if there is nothing to write to.
    pub(super) fn dirty_of(&self, inode: &Arc<Inode>) -> FsResult<Arc<DirtyFile>> {
        let dirty = {
            let mut state = inode.state.lock();
            if let Some(dirty) = &state.dirty {
                return Ok(dirty.clone());
            }
            let id = state.object().ok_or(FsError::plain(libc::ESTALE))?;
            let base = Base::Keep {
                id,
                size: state.attr.size,
            };
            let dirty = self.writer.begin(Key::new(state.key.as_str()), base);
            state.begin_writing(dirty.clone());
            dirty
        };
        self.inodes.unsettled(inode);
        Ok(dirty)
    }

    pub(super) fn flush(&self, ino: u64, fh: u64, responder: Responder) {
        let Some(handle) = self.files.get(fh) else {
            return responder.error(libc::EBADF);
        };
        if !handle.writable {
            return responder.empty();
        }
        self.publish_for("flush", ino, &handle.inode, responder);
    }

    pub(super) fn fsync(&self, ino: u64, fh: u64, responder: Responder) {
        let Some(handle) = self.files.get(fh) else {
            return responder.error(libc::EBADF);
        };
        // Unlike close, fsync is about the file and not about the descriptor.
        self.publish_for("fsync", ino, &handle.inode, responder);
    }

    fn publish_for(&self, op: &'static str, ino: u64, inode: &Arc<Inode>, responder: Responder) {
        let dirty = {
            let state = inode.state.lock();
            state.dirty.as_ref().is_some_and(|dirty| dirty.is_dirty())
        };
        if !dirty {
            return responder.empty();
        }
        let _ = ino;
        let context = Context::of(op, inode);
        let (this, inode) = (self.this(), inode.clone());
        let work = async move {
            let result = this.publish_once(&inode).await;
            inode.state.lock().told = result.as_ref().err().map(|failed| {
                if error::worth_retrying(failed) {
                    Told::Passing
                } else {
                    Told::Final
                }
            });
            Ok(result?)
        };
        self.spawn(context, responder, work, |responder, ()| responder.empty());
    }

    /// Makes the store hold the file as it is now. Nothing dirty, nothing asked.
    ///
    /// # Errors
    /// The store's, or ESTALE for a lost race; the bytes are still here.
    pub(super) async fn publish(&self, inode: &Arc<Inode>) -> FsResult<()> {
        Ok(self.publish_once(inode).await?)
    }

    async fn publish_once(&self, inode: &Arc<Inode>) -> Result<(), WriteError> {
        let _guard = inode.publishing.lock().await;
        let (dirty, metadata) = {
            let state = inode.state.lock();
            let Some(dirty) = state.dirty.clone().filter(|_| !state.unlinked) else {
                return Ok(());
            };
            (dirty, state.metadata_now())
        };
        // A multipart upload has the metadata that it began with. If they changed since, the bytes
        // go under the old ones and the store copies them onto themselves with the new: cheaper
        // than sending them again.
        if let Some(early) = dirty.early_metadata()
            && early != metadata
        {
            dirty.publish(early).await?;
            dirty.touch();
        }
        match dirty.publish(metadata.clone()).await {
            Ok(Some(published)) => {
                self.published(inode, &published, metadata);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(failed) => {
                inode.state.lock().stuck = Some(error::chain(&failed));
                Err(failed)
            }
        }
    }

    /// The store has the file: what is known of it is entered.
    fn published(&self, inode: &Inode, published: &Published, metadata: Metadata) {
        let (parent, name, attached, mtime) = {
            let mut state = inode.state.lock();
            if let Some(cause) = state.stuck.take() {
                info!(key = state.key, cause, "published after an earlier failure");
            }
            state.told = None;
            if !state.mtime_set && published.clean {
                // No later than the store's own time of it, which is what others see.
                state.attr.mtime = state.attr.mtime.min(published.modified);
            }
            state.attr.size = published.size;
            state.version = Some(published.id.etag.clone());
            state.kernel_pages = state.version.clone();
            state.checked = Instant::now();
            // In memory the time is kept with the version either way, so that it does not jump to
            // the store's when the inode is made anew.
            let kept = Arc::new(state.attr.to_metadata(&metadata, true));
            state.metadata = Some(kept.clone());
            self.known.put_metadata(published.id.clone(), kept);
            (
                state.parent,
                state.name.clone(),
                state.attached,
                published.modified,
            )
        };
        if attached {
            let what = Listed::File {
                etag: published.id.etag.clone(),
                size: published.size,
                modified: mtime,
            };
            self.known.changed(parent, &name, Some(what));
        }
    }

    /// The last writer is gone and nothing is dirty: the file is the store's again. The bytes of a
    /// file that has no name any more stay until the last handle is closed: nobody else has them.
    pub(super) fn settle(&self, inode: &Arc<Inode>) {
        {
            let mut state = inode.state.lock();
            let clean = state.dirty.as_ref().is_some_and(|dirty| !dirty.is_dirty());
            let is_wanted = (state.unlinked || state.leaving) && state.handles > 0;
            if state.writers > 0 || is_wanted || !(clean || state.unlinked) {
                return;
            }
            if let Some(dirty) = state.dirty.take() {
                state.attr.size = dirty.size();
            }
        }
        self.inodes.settled(inode);
        self.inodes.collect(inode);
    }

    /// RELEASE of the last writer found dirty bytes: published here, tried twice if that may help,
    /// then given up.
    pub(super) async fn publish_after_last_close(&self, inode: &Arc<Inode>) {
        let told = inode.state.lock().told;
        if told == Some(Told::Final) {
            // The closer knows, and trying again would fail again.
            return self.give_up(inode, None).await;
        }
        let mut result = self.publish_once(inode).await;
        if result.as_ref().is_err_and(error::worth_retrying) {
            tokio::time::sleep(RELEASE_RETRY_AFTER).await;
            result = self.publish_once(inode).await;
        }
        match result {
            Ok(()) => self.settle(inode),
            // Somebody opened it again: their close tries again.
            Err(_) if inode.state.lock().writers > 0 => {}
            Err(failed) => self.give_up(inode, Some(failed)).await,
        }
    }

    /// The bytes cannot be kept any longer.
    pub(super) async fn give_up(&self, inode: &Arc<Inode>, failed: Option<WriteError>) {
        let (dirty, told, key, stuck) = {
            let mut state = inode.state.lock();
            (
                state.dirty.take(),
                state.told,
                state.key.clone(),
                state.stuck.clone(),
            )
        };
        if let Some(dirty) = dirty {
            if let Some(cause) = failed.as_ref().map(|failed| error::chain(failed)).or(stuck) {
                let size = dirty.size();
                error!(key, size, cause, "lost: written, and not in the store");
                self.counters.lost_files.fetch_add(1, Ordering::Relaxed);
            }
            dirty.discard().await;
        }
        let gone = {
            let mut state = inode.state.lock();
            state.kernel_pages = None;
            state.metadata = None;
            state.told = None;
            match &failed {
                Some(failed) if told.is_none() => state.stuck = Some(error::chain(failed)),
                _ => state.stuck = None,
            }
            state.version.is_none()
        };
        self.inodes.settled(inode);
        if gone {
            self.inodes.detach(inode);
        }
        self.inodes.collect(inode);
    }
}

/// Bytes were written: the time of it, and no close has told of them.
fn wrote(inode: &Inode) {
    let mut state = inode.state.lock();
    state.attr.mtime = SystemTime::now();
    state.mtime_set = false;
    state.told = None;
}
