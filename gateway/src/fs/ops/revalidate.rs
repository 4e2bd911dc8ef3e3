//! Asking the store which version of a file there is now.

use std::sync::Arc;
use std::time::Instant;

use ackfs_cache::object::Key;

use crate::fs::Filesystem;
use crate::fs::attr::{FileAttr, Kind};
use crate::fs::error::{FsResult, look_again};
use crate::fs::names::cache::NameTarget;
use crate::fs::table::inode::Inode;

impl Filesystem {
    /// [`Filesystem::revalidate`], or with `moves_max` [`Filesystem::check`], where the store has all that is
    /// known here. Waits for a publish under way: what it makes is no news.
    ///
    /// # Errors
    /// As [`Filesystem::revalidate`].
    pub(in crate::fs) async fn revalidate_published(
        &self,
        inode: &Arc<Inode>,
        moves_max: Option<u64>,
    ) -> FsResult<()> {
        if !inode.state.lock().is_the_stores() {
            return Ok(());
        }
        let _guard = inode.publishing.lock().await;
        self.check(inode, moves_max).await
    }

    /// Asks the store which version there is now, unless more is known here. If it is another one, or if
    /// its metadata say that it is of another type, the inode is detached and the kernel has to
    /// look the name up again: it gets a new inode, and its size with it. Who has the old one
    /// open keeps it, and what they have written.
    ///
    /// # Errors
    /// [`look_again`] as said, also when the object is gone; others as the store's.
    pub(in crate::fs) async fn revalidate(&self, inode: &Arc<Inode>) -> FsResult<()> {
        self.check(inode, None).await
    }

    /// [`Filesystem::revalidate`], but an inode that nobody has open shows the newest version if that has no
    /// more than `moves_max` bytes: an answer to GETATTR brings the kernel the new size, and an open may do
    /// without ([`Filesystem::show_newest`]).
    pub(in crate::fs) async fn check(
        &self,
        inode: &Arc<Inode>,
        moves_max: Option<u64>,
    ) -> FsResult<()> {
        let (key, place) = {
            let state = inode.state.lock();
            if !state.is_the_stores() {
                return Ok(());
            }
            (
                Key::new(state.key.clone()),
                (state.parent, state.name.clone()),
            )
        };
        let begun = Instant::now();
        let info = self.names.head(&key).await?;
        let mut state = inode.state.lock();
        if !state.is_the_stores() || *state.key != *key.as_str() {
            return Ok(());
        }
        let Some(info) = info else {
            drop(state);
            self.names.cache().put(place.0, &place.1, None, begun);
            self.inodes.detach(inode);
            return Err(look_again());
        };
        let (etag, size, modified) = (info.etag.clone(), info.size, info.modified);
        let what = NameTarget::File {
            etag: etag.clone(),
            size,
            modified,
        };
        self.names.cache().put(place.0, &place.1, Some(what), begun);
        let metadata = self.names.saw(place.0, key, info, begun);
        let is_alike = Kind::of_object(&metadata, size) == inode.kind;
        let is_same = state.version.as_ref() == Some(&etag);
        let moves =
            moves_max.is_some_and(|max| size <= max) && state.handles == 0 && state.dirty.is_none();
        if !is_alike || !(is_same || moves) {
            // The kernel holds this inode's old size, and an answer to OPEN cannot change that.
            drop(state);
            self.counters
                .changed_opens
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.inodes.detach(inode);
            return Err(look_again());
        }
        if !is_same {
            inode.size_is_untold(&mut state);
        }
        if !is_same || state.metadata.is_none() || state.checked <= begun {
            let attr = FileAttr::file(&self.defaults, size, modified);
            state.attr = attr.with_metadata(&metadata);
            state.metadata = Some(metadata);
            state.version = Some(etag);
        }
        state.checked = state.checked.max(begun);
        Ok(())
    }
}
