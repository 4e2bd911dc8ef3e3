//! unlink and rmdir. Both are at the store when they are answered. Who has a file open that is
//! removed keeps its bytes.

use ackfs_cache::object::Key;

use crate::fs::Filesystem;
use crate::fs::error::FsError;
use crate::fs::names::key::{directory_prefix, file_key};
use crate::fs::names::listing::page_of;
use crate::fs::now::Now;
use crate::fs::table::inode::Inode;
use crate::fs::task::Context;
use crate::fuse::Responder;

impl Filesystem {
    pub(in crate::fs) fn unlink(&self, parent: u64, name: &[u8], responder: Responder) {
        let (dir, name) = match self.writable().and_then(|()| self.place(parent, name)) {
            Ok(place) => place,
            Err(error) => return Context::new("unlink", parent).fail(responder, &error),
        };
        let this = self.this();
        let context = Context::below("unlink", &dir, &name);
        let mut interrupt = responder.interrupt();
        let work = async move {
            let key = Key::new(file_key(&dir.key(), name.as_bytes())?);
            let Some(inode) = this.inodes.child(dir.ino(), &name) else {
                this.store.delete(&key, None).await?;
                this.names.cache().changed(dir.ino(), &name, None);
                this.lost_a_name(&dir);
                return Ok(());
            };
            if inode.is_directory() {
                return Err(FsError::IsDirectory);
            }
            // A publish under way would bring the object back.
            let lock = || inode.publishing().lock();
            let (_guard, brought) = this.leave(&inode, &mut interrupt, lock).await?;
            let never_published = inode.state().shown().version().is_none();
            if !never_published && let Err(error) = this.store.delete(&key, None).await {
                this.stay(&inode, brought);
                return Err(error.into());
            }
            this.gone(&inode, brought).await;
            this.names.cache().changed(dir.ino(), &name, None);
            this.lost_a_name(&dir);
            Ok(())
        };
        self.spawn(context, responder, work, |responder, ()| responder.empty());
    }

    pub(in crate::fs) fn rmdir(&self, parent: u64, name: &[u8], responder: Responder) {
        let (dir, name) = match self.writable().and_then(|()| self.place(parent, name)) {
            Ok(place) => place,
            Err(error) => return Context::new("rmdir", parent).fail(responder, &error),
        };
        let this = self.this();
        let context = Context::below("rmdir", &dir, &name);
        let work = async move {
            let prefix = directory_prefix(&dir.key(), name.as_bytes())?;
            let child = this.inodes.child(dir.ino(), &name);
            if let Some(child) = &child {
                if !child.is_directory() {
                    return Err(FsError::NotDirectory);
                }
                if !this.inodes.local_names(child.ino()).is_empty() {
                    return Err(FsError::NotEmpty);
                }
            }
            // The marker and one more: what is known here may be old.
            let page = this.store.list(page_of(&prefix, false, 2)).await?;
            if page.entries.iter().any(|entry| entry.key != prefix) || page.next.is_some() {
                if let Some(child) = &child {
                    this.names.cache().drop_directory(child.ino());
                }
                return Err(FsError::NotEmpty);
            }
            if !page.entries.is_empty() {
                this.store.delete(&Key::new(prefix), None).await?;
            }
            if let Some(child) = child {
                this.names.cache().drop_directory(child.ino());
                this.inodes.remove(&child);
            }
            this.names.cache().changed(dir.ino(), &name, None);
            this.lost_a_name(&dir);
            Ok(())
        };
        self.spawn(context, responder, work, |responder, ()| responder.empty());
    }

    /// This mount took a name out of the directory.
    pub(super) fn lost_a_name(&self, dir: &Inode) {
        // The store was waited for.
        let now = Now::read();
        dir.state().touch(now.clock);
        self.inodes.empty(dir, now.instant);
    }
}
