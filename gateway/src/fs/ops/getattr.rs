//! Attributes, of an inode and of the whole.

use super::revalidate::Reply;
use crate::fs::Filesystem;
use crate::fs::error::FsError;
use crate::fs::names::key::NAME_LEN_MAX;
use crate::fs::now::Now;
use crate::fs::task::Context;
use crate::fuse::Responder;
use crate::fuse::abi::StatfsOut;

impl Filesystem {
    pub(in crate::fs) fn getattr(&self, ino: u64, now: Now, responder: Responder) {
        let inode = match self.inode(ino) {
            Ok(inode) => inode,
            Err(error) => return Context::new("getattr", ino).fail(responder, &error),
        };
        {
            let mut state = inode.state();
            let valid = self.valid_for(&state, now.instant);
            // An open file shows the version that was opened; a directory has nothing at the store.
            // What a listing showed is without mode and owner: the kernel asks here before it refuses
            // somebody (`fuse_permission`), so they are looked for.
            let is_whole = if inode.is_directory() {
                state.has_shown_access()
            } else {
                !valid.is_zero() && state.shown().metadata().is_some()
            };
            if is_whole || state.is_local() || state.life().is_gone() || state.handles() > 0 {
                let attr = state.tell_attr();
                drop(state);
                let valid = if inode.is_directory() {
                    self.config.metadata_ttl
                } else {
                    valid
                };
                return responder.attr(&attr, valid);
            }
        }
        let this = self.this();
        let context = Context::of("getattr", &inode);
        let work = async move {
            if inode.is_directory() {
                // Here the kernel is told, whatever it was told before.
                match this.names.show_access(&inode).await {
                    Ok(()) | Err(FsError::LookAgain) => {}
                    Err(error) => return Err(error),
                }
            } else {
                this.check(&inode, Reply::TellsAttr).await?;
            }
            let attr = inode.state().tell_attr();
            Ok((attr, this.config.metadata_ttl))
        };
        self.spawn_interruptible(context, responder, work, |responder, (attr, valid)| {
            responder.attr(&attr, valid);
        });
    }

    pub(in crate::fs) fn statfs(responder: Responder) {
        // A bucket has no size: df shows one that nobody fills.
        const BLOCK: u32 = 4096;
        const BLOCKS: u64 = (1 << 60) / BLOCK as u64;
        responder.statfs(&StatfsOut {
            blocks: BLOCKS,
            bfree: BLOCKS,
            bavail: BLOCKS,
            files: 1 << 40,
            ffree: 1 << 40,
            bsize: BLOCK,
            namelen: NAME_LEN_MAX as u32,
            frsize: BLOCK,
            ..StatfsOut::default()
        });
    }
}
