//! Writing: into the file's dirty bytes, on the ring thread while there is memory for them. Nothing is read
//! from the store to begin.

use std::sync::Arc;

use ackfs_cache::dirty::{Base, DirtyFile};
use ackfs_cache::object::Key;

use crate::fs::Filesystem;
use crate::fs::error::{FsError, FsResult};
use crate::fs::now::Now;
use crate::fs::table::handles::FileHandle;
use crate::fs::table::inode::Inode;
use crate::fs::task::Context;
use crate::fuse::Responder;

impl Filesystem {
    pub(in crate::fs) fn write(
        &self,
        ino: u64,
        fh: u64,
        offset: u64,
        now: Now,
        responder: Responder,
    ) {
        let handle = self.files.get(fh).filter(|handle| handle.is_writable());
        let Some(handle) = handle else {
            return FsError::BadHandle.answer(responder);
        };
        let dirty = match self.dirty_for(&handle) {
            Ok(dirty) => dirty,
            Err(error) => return Context::new("write", ino).fail(responder, &error),
        };
        let len = responder.data().len() as u32;
        if dirty.write_now(offset, responder.data()) {
            handle.inode().state().wrote(now.clock);
            return responder.written(len);
        }
        let context = Context::of("write", handle.inode());
        let this = self.this();
        self.run(async move {
            let result = this.write_waiting(handle.inode(), dirty, offset, responder.data());
            let result = result.await.map(|()| len);
            if result.is_ok() {
                // It waited for memory or the disk.
                handle.inode().state().wrote(Now::read().clock);
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
            drop(inode.publishing().lock().await);
            let now = self.dirty_of(inode)?;
            if Arc::ptr_eq(&now, &dirty) && now.away() == base {
                return Err(gone);
            }
            dirty = now;
        }
    }

    /// What is written by the handle goes here.
    ///
    /// # Errors
    /// As [`Filesystem::dirty_of`].
    fn dirty_for(&self, handle: &FileHandle) -> FsResult<Arc<DirtyFile>> {
        let mut state = handle.inode().state();
        handle.used(&mut state);
        if let Some(dirty) = state.written().dirty() {
            return Ok(dirty.clone());
        }
        drop(state);
        self.dirty_of(handle.inode())
    }

    /// What is written to the inode goes here. Begun when it is first asked for.
    ///
    /// # Errors
    /// `NoContent` if there is nothing to write to, or if the kernel reads the file by itself.
    pub(super) fn dirty_of(&self, inode: &Inode) -> FsResult<Arc<DirtyFile>> {
        if let Some(dirty) = inode.state().written().dirty() {
            return Ok(dirty.clone());
        }
        let begun = self.inodes.begin_writing(inode, |state| {
            let id = state.object()?;
            let key = Key::new(state.key().clone());
            let size = state.shown().attr().size;
            let is_here = state.told().backing().is_none();
            is_here.then(|| self.writer.begin(key, Base::Keep { id, size }))
        });
        begun.map(|(dirty, _)| dirty).ok_or(FsError::NoContent)
    }
}
