//! Publishing: making the store hold a file as it is. Who asks for it, and when, is `flush`'s; what comes of
//! it is entered here, and so is what becomes of bytes that the store does not get.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ackfs_cache::dirty::{Base, DirtyFile, Published};
use ackfs_cache::object::ObjectId;
use ackfs_cache::store::Metadata;
use tracing::{error, info};

use crate::fs::Filesystem;
use crate::fs::error::{FsError, FsResult};
use crate::fs::names::cache::NameTarget;
use crate::fs::now::Now;
use crate::fs::table::inode::Inode;
use crate::fs::table::inode::state::shown::{Lineage, Shown};
use crate::fs::table::inode::state::written::{GivenUp, Severity};

/// Who waits for a publish, and is told if it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PublishWaiter {
    /// A close or fsync: the file remembers that it was told.
    Closer,
    /// Who changed the file by name, or nobody.
    Other,
}

impl Filesystem {
    /// Makes the store hold the file as it is now. Nothing dirty, nothing asked.
    ///
    /// # Errors
    /// The store's, or `VersionGone` for a lost race; the bytes are still here.
    pub(super) async fn publish(&self, inode: &Arc<Inode>, waiter: PublishWaiter) -> FsResult<()> {
        let _guard = inode.publishing().lock().await;
        let Some((dirty, metadata)) = inode.state().to_publish() else {
            return Ok(());
        };
        match send(&dirty, &metadata).await {
            Ok(None) => Ok(()),
            Ok(Some(published)) => {
                self.published(inode, &published, &metadata);
                Ok(())
            }
            Err(failed) => {
                self.publish_failed(inode, &failed, waiter);
                Err(failed)
            }
        }
    }

    /// The store has the file: what is known of it is entered.
    fn published(&self, inode: &Inode, published: &Published, metadata: &Metadata) {
        // The store was waited for: what was asked of it before does not know this.
        let now = Now::read();
        let (parent, name, has_name) = {
            let mut state = inode.state();
            if let Some(cause) = state.publish_succeeded() {
                let key = &**state.key();
                info!(key, cause, "published after an earlier failure");
            }
            let mut attr = state.shown().attr();
            if !state.written().mtime_set() && published.clean {
                // No later than the store's own time of it, which is what others see.
                attr.mtime = attr.mtime.min(published.modified);
            }
            attr.size = published.size;
            let version = Some(published.id.etag.clone());
            let kept = Arc::new(attr.to_kept(metadata));
            self.names
                .metadata()
                .made(published.id.clone(), kept.clone());
            let shown = Shown::new(attr, version, Some(kept), now.instant);
            state.show(shown, Lineage::SameBytes);
            (
                state.parent(),
                state.name().clone(),
                state.life().has_name(),
            )
        };
        if has_name {
            let what = NameTarget::File {
                etag: published.id.etag.clone(),
                size: published.size,
                modified: published.modified,
            };
            self.names.cache().published(parent, &name, what);
        }
    }

    fn publish_failed(&self, inode: &Inode, failed: &FsError, waiter: PublishWaiter) {
        let told = match waiter {
            PublishWaiter::Closer if failed.worth_retrying() => Some(Severity::Passing),
            PublishWaiter::Closer => Some(Severity::Final),
            PublishWaiter::Other => None,
        };
        let (parent, name, has_name) = {
            let mut state = inode.state();
            state.publish_failed(failed.chain(), told);
            (
                state.parent(),
                state.name().clone(),
                state.life().has_name(),
            )
        };
        if has_name && matches!(failed, FsError::VersionGone(_)) {
            // What was believed of the name is wrong; the next look-up asks.
            self.names.cache().drop_name(parent, &name);
        }
    }

    /// Publishes what was changed by name, which no handle's close does, and lets the file go. What
    /// fails is given up, for its caller is told, unless somebody writes the file: their close tries
    /// again.
    ///
    /// # Errors
    /// As [`Filesystem::publish`].
    pub(super) async fn publish_by_name(&self, inode: &Arc<Inode>) -> FsResult<()> {
        let published = self.publish(inode, PublishWaiter::Other).await;
        if published.is_ok() {
            self.finish_writing(inode);
        } else if !inode.state().written().has_writers() {
            self.give_up(inode, None).await;
        }
        published
    }

    /// The file is the store's again, if its last writer is gone and nothing is dirty.
    pub(super) fn finish_writing(&self, inode: &Arc<Inode>) {
        drop(self.inodes.finish_writing(inode));
    }

    /// The bytes cannot be kept any longer. Waits for the store to take back an upload under way, when
    /// whoever opens the name finds it without them already. `failed` is why, if nobody was told yet.
    pub(super) async fn give_up(&self, inode: &Arc<Inode>, failed: Option<FsError>) {
        let failed = failed.map(|failed| failed.chain());
        let GivenUp { dirty, cause } = self.inodes.give_up(inode, failed);
        let Some(dirty) = dirty else {
            return;
        };
        if let Some(cause) = cause {
            let (key, size) = (&*inode.key(), dirty.size());
            error!(key, size, cause, "lost: written, and not in the store");
            self.counters.lost_files.fetch_add(1, Relaxed);
        }
        dirty.discard().await;
    }
}

async fn send(dirty: &DirtyFile, metadata: &Metadata) -> FsResult<Option<Published>> {
    // A multipart upload has the metadata that it began with. If they changed since, the bytes
    // go under the old ones and the store copies them onto themselves with the new: cheaper
    // than sending them again.
    if let Some(early) = dirty.early_metadata()
        && early != *metadata
    {
        dirty.publish(early).await?;
        dirty.touch();
    }
    Ok(dirty.publish(metadata.clone()).await?)
}

/// What is written to the file goes over `base` from now on: this mount's copy of the version that it
/// went over before. Under the inode's `publishing`. Waits for a fetch of that version under way.
pub(super) async fn rebase(dirty: &DirtyFile, base: &ObjectId) {
    let (id, size) = (base.clone(), dirty.size());
    dirty
        .retarget(base.key.clone(), Base::Keep { id, size })
        .await;
}
