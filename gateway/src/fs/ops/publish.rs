//! Publishing: making the store hold a file as it is.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use ackfs_cache::dirty::{Base, DirtyFile, Published};
use ackfs_cache::object::ObjectId;
use ackfs_cache::store::Metadata;
use tracing::{error, info};

use crate::fs::Filesystem;
use crate::fs::error::{FsError, FsResult};
use crate::fs::names::cache::NameTarget;
use crate::fs::table::inode::Inode;

impl Filesystem {
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
                    self.names.cache().drop_name(parent, &name);
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
            self.names.metadata().made(published.id.clone(), kept);
            (
                state.parent,
                state.name.clone(),
                state.attached,
                published.modified,
            )
        };
        if attached {
            let what = NameTarget::File {
                etag: published.id.etag.clone(),
                size: published.size,
                modified: mtime,
            };
            self.names.cache().published(parent, &name, what);
        }
    }

    /// Publishes what was changed by name, which no handle's close does, and lets the file go. What
    /// fails is given up, for its caller is told, unless somebody writes the file: their close tries
    /// again.
    ///
    /// # Errors
    /// As [`Filesystem::publish`].
    pub(in crate::fs) async fn publish_by_name(&self, inode: &Arc<Inode>) -> FsResult<()> {
        let published = self.publish(inode).await;
        if published.is_ok() {
            self.settle(inode);
        } else if inode.state.lock().writers == 0 {
            self.give_up(inode, None).await;
        }
        published
    }

    /// The last writer is gone and nothing is dirty: the file is the store's again. The bytes of a
    /// file that has no name any more stay until the last handle is closed: nobody else has them.
    pub(in crate::fs) fn settle(&self, inode: &Arc<Inode>) {
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

    /// The bytes cannot be kept any longer. Waits for the store to take back an upload under way, when
    /// whoever opens the name finds it without them already.
    pub(in crate::fs) async fn give_up(&self, inode: &Arc<Inode>, failed: Option<FsError>) {
        let cause = failed.map(|failed| failed.chain());
        let (dirty, key, lost, gone) = {
            let mut state = inode.state.lock();
            let told = state.told.take();
            let stuck = state.stuck.take();
            state.stuck = cause.clone().filter(|_| told.is_none());
            state.kernel_pages = None;
            state.metadata = None;
            let gone = state.version.is_none();
            (state.dirty.take(), state.key.clone(), cause.or(stuck), gone)
        };
        self.inodes.settled(inode);
        if gone {
            self.inodes.detach(inode);
        }
        if let Some(dirty) = dirty {
            if let Some(cause) = lost {
                let size = dirty.size();
                error!(
                    key = &*key,
                    size, cause, "lost: written, and not in the store"
                );
                self.counters.lost_files.fetch_add(1, Relaxed);
            }
            dirty.discard().await;
        }
        self.inodes.collect(inode);
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
