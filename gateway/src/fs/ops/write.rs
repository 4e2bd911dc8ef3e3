//! Writing, and publishing: making the store hold the file as it is. Who asks for a publish, and what
//! the askers are told, is `flush`'s.

use std::sync::Arc;
use std::time::SystemTime;

use ackfs_cache::dirty::{Base, DirtyFile};
use ackfs_cache::object::Key;

use crate::fs::Filesystem;
use crate::fs::error::{FsError, FsResult};
use crate::fs::table::inode::Inode;
use crate::fs::task::Context;
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
}

/// Bytes were written: the time of it, and no close has told of them.
fn wrote(inode: &Inode) {
    let mut state = inode.state.lock();
    state.attr.modify(SystemTime::now());
    state.mtime_set = false;
    state.told = None;
}
