//! Writing, and publishing: making the store hold the file as it is. Who asks for a publish, and what
//! the askers are told, is `flush`'s.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use ackfs_cache::dirty::{Base, DirtyFile, Published};
use ackfs_cache::object::{Key, ObjectId};
use ackfs_cache::store::Metadata;
use tracing::info;

use crate::fs::error::{FsError, FsResult};
use crate::fs::names::cache::Listed;
use crate::fs::table::inode::Inode;
use crate::fs::{Context, Filesystem};
use crate::fuse::Responder;

impl Filesystem {
    pub(in crate::fs) fn write(&self, ino: u64, fh: u64, offset: u64, responder: Responder) {
        let handle = self.files.get(fh).filter(|handle| handle.writable);
        let Some(handle) = handle else {
            return FsError::BadHandle.answer(responder);
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
        let this = self.this();
        self.run(async move {
            let result = this.write_waiting(&handle.inode, dirty, offset, responder.data());
            let result = result.await.map(|()| len);
            if result.is_ok() {
                wrote(&handle.inode);
            }
            context.finish(responder, result, Responder::written);
        });
    }

    /// Writes to `dirty`. The kernel keeps write(2) away while this mount renames the file or changes its
    /// mode, but not what it writes back of a mapping. That may ask for a base which we move meanwhile:
    /// who finds it gone waits for what is under way, and tries again if the base was moved.
    async fn write_waiting(
        &self,
        inode: &Arc<Inode>,
        mut dirty: Arc<DirtyFile>,
        offset: u64,
        data: &[u8],
    ) -> FsResult<()> {
        loop {
            let base = dirty.away();
            let gone = match dirty.write(offset, data).await.map_err(FsError::from) {
                Err(gone @ FsError::VersionGone(_)) => gone,
                result => return result,
            };
            drop(inode.publishing.lock().await);
            let now = self.dirty_of(inode)?;
            if Arc::ptr_eq(&now, &dirty) && now.away() == base {
                return Err(gone);
            }
            dirty = now;
        }
    }

    /// What is written to the inode goes here. Begun when it is first asked for.
    ///
    /// # Errors
    /// `NoContent` if there is nothing to write to.
    pub(in crate::fs) fn dirty_of(&self, inode: &Arc<Inode>) -> FsResult<Arc<DirtyFile>> {
        let dirty = {
            let mut state = inode.state.lock();
            if let Some(dirty) = &state.dirty {
                return Ok(dirty.clone());
            }
            let id = state.object().ok_or(FsError::NoContent)?;
            let base = Base::Keep {
                id,
                size: state.attr.size,
            };
            let dirty = self.writer.begin(Key::new(state.key.clone()), base);
            state.begin_writing(dirty.clone());
            dirty
        };
        self.inodes.unsettled(inode);
        Ok(dirty)
    }

    /// Makes the store hold the file as it is now. Nothing dirty, nothing asked.
    ///
    /// # Errors
    /// The store's, or `VersionGone` for a lost race; the bytes are still here.
    pub(in crate::fs) async fn publish(&self, inode: &Arc<Inode>) -> FsResult<()> {
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
        match dirty.publish(metadata.clone()).await.map_err(FsError::from) {
            Ok(Some(published)) => {
                self.published(inode, &published, metadata);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(failed) => {
                let (parent, name, attached) = {
                    let mut state = inode.state.lock();
                    state.stuck = Some(failed.chain());
                    (state.parent, state.name.clone(), state.attached)
                };
                if attached && matches!(failed, FsError::VersionGone(_)) {
                    // What was believed of the name is wrong; the next look-up asks.
                    self.known.drop_name(parent, &name);
                }
                Err(failed)
            }
        }
    }

    /// The store has the file: what is known of it is entered.
    fn published(&self, inode: &Inode, published: &Published, metadata: Metadata) {
        let (parent, name, attached, mtime) = {
            let mut state = inode.state.lock();
            if let Some(cause) = state.stuck.take() {
                info!(
                    key = &*state.key,
                    cause, "published after an earlier failure"
                );
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
            let kept = Arc::new(state.attr.to_kept(&metadata));
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
}

/// What is written to the file goes over `base` from now on: this mount's copy of the version that it
/// went over before. Under the inode's `publishing`. Waits for a fetch of that version under way.
pub(in crate::fs) async fn rebase(dirty: &DirtyFile, base: &ObjectId) {
    let (id, size) = (base.clone(), dirty.size());
    dirty
        .retarget(base.key.clone(), Base::Keep { id, size })
        .await;
}

/// Bytes were written: the time of it, and no close has told of them.
fn wrote(inode: &Inode) {
    let mut state = inode.state.lock();
    state.attr.modify(SystemTime::now());
    state.mtime_set = false;
    state.told = None;
}
