//! Asking the store which version of a file there is now: for opens, which see all that was published before
//! them, and for those who change a file by name.
//!
//! An inode whose version is not the newest is detached, and the kernel has to look the name up again: it
//! gets a new inode, and its size with it. Who has the old one open keeps it, and what they have written.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use ackfs_cache::object::Key;

use crate::fs::Filesystem;
use crate::fs::attr::FileAttr;
use crate::fs::error::{FsResult, look_again};
use crate::fs::names::cache::NameTarget;
use crate::fs::table::inode::Inode;
use crate::fs::table::inode::state::shown::Shown;

/// What the reply to who asks can bring the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    /// Attributes, and so a new size: an inode that nobody has open moves to the newest version.
    TellsAttr,
    /// None, but it may do without: so does an inode for a version of no more than so many bytes. See
    /// [`Filesystem::show_newest`].
    OpensPastPages(u64),
    /// None.
    TellsNothing,
}

impl Filesystem {
    /// [`Filesystem::revalidate`], where the store has all that is known here. Waits for a publish under
    /// way: what it makes is no news.
    ///
    /// # Errors
    /// As [`Filesystem::revalidate`].
    pub(in crate::fs) async fn revalidate_published(&self, inode: &Arc<Inode>) -> FsResult<()> {
        self.check_published(inode, Reply::TellsNothing).await
    }

    /// [`Filesystem::revalidate_published`] for any reply.
    pub(super) async fn check_published(&self, inode: &Arc<Inode>, reply: Reply) -> FsResult<()> {
        if !inode.state().is_the_stores() {
            return Ok(());
        }
        let _guard = inode.publishing().lock().await;
        self.check(inode, reply).await
    }

    /// Asks the store which version there is now, unless more is known here. If it is another one, or if
    /// its metadata say that it is of another type, the inode is detached.
    ///
    /// # Errors
    /// [`look_again`] as said, also when the object is gone; others as the store's.
    pub(in crate::fs) async fn revalidate(&self, inode: &Arc<Inode>) -> FsResult<()> {
        self.check(inode, Reply::TellsNothing).await
    }

    /// [`Filesystem::revalidate`] for any reply.
    pub(super) async fn check(&self, inode: &Arc<Inode>, reply: Reply) -> FsResult<()> {
        let (key, parent, name) = {
            let state = inode.state();
            if !state.is_the_stores() {
                return Ok(());
            }
            let key = Key::new(state.key().clone());
            (key, state.parent(), state.name().clone())
        };
        let begun = Instant::now();
        let info = self.names.head(&key).await?;
        let is_shown = {
            let mut state = inode.state();
            if !state.is_the_stores() || **state.key() != *key.as_str() {
                return Ok(());
            }
            if let Some(info) = info {
                let (etag, size, modified) = (info.etag.clone(), info.size, info.modified);
                let what = NameTarget::File {
                    etag: etag.clone(),
                    size,
                    modified,
                };
                self.names.cache().put(parent, &name, Some(what), begun);
                let metadata = self.names.saw(parent, key, info, begun);
                let attr = FileAttr::file(&self.defaults, size, modified).with_metadata(&metadata);
                let found = Shown::new(attr, Some(etag), Some(metadata), begun);
                let may_move = match reply {
                    Reply::TellsAttr => true,
                    Reply::OpensPastPages(max) => size <= max,
                    Reply::TellsNothing => false,
                };
                let is_shown = state.revalidate(found, may_move);
                if !is_shown {
                    self.counters.changed_opens.fetch_add(1, Relaxed);
                }
                is_shown
            } else {
                self.names.cache().put(parent, &name, None, begun);
                false
            }
        };
        if is_shown {
            return Ok(());
        }
        self.inodes.detach(inode);
        Err(look_again())
    }
}
