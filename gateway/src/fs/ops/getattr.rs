//! Attributes, of an inode and of the whole.

use std::time::Instant;

use crate::fs::Filesystem;
use crate::fs::attr::Kind;
use crate::fs::error::FsError;
use crate::fs::task::Context;
use crate::fuse::Responder;
use crate::fuse::abi::StatfsOut;

impl Filesystem {
    pub(in crate::fs) fn getattr(&self, ino: u64, responder: Responder) {
        let inode = match self.inode(ino) {
            Ok(inode) => inode,
            Err(error) => return Context::new("getattr", ino).fail(responder, &error),
        };
        let now = Instant::now();
        {
            let state = inode.state.lock();
            let valid = self.names.cache().remaining(true, state.checked, now);
            // An open file shows the version that was opened; a directory has nothing at the store.
            // What a listing showed is without mode and owner: the kernel asks here before it refuses
            // somebody (`fuse_permission`), so they are looked for.
            let is_shown = Self::is_root(ino) || state.metadata.is_some();
            let settled = (inode.kind == Kind::Directory && is_shown)
                || state.is_local()
                || state.handles > 0
                || state.unlinked
                || (!valid.is_zero() && state.metadata.is_some());
            if settled {
                let valid = if inode.kind == Kind::Directory {
                    self.config.metadata_ttl
                } else {
                    valid
                };
                let attr = inode.attr(&state);
                drop(state);
                return responder.attr(&attr, valid);
            }
        }
        let this = self.this();
        self.spawn_interruptible(
            Context::of("getattr", &inode),
            responder,
            async move {
                if inode.kind == Kind::Directory {
                    // Here the kernel is told, whatever it was told before.
                    let shown = this.names.show_access(&inode).await;
                    shown.or_else(|error| match error {
                        FsError::LookAgain => Ok(()),
                        _ => Err(error),
                    })?;
                } else {
                    this.check(&inode, Some(u64::MAX)).await?;
                }
                let attr = inode.attr(&inode.state.lock());
                Ok((attr, this.config.metadata_ttl))
            },
            |responder, (attr, valid)| responder.attr(&attr, valid),
        );
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
            namelen: crate::fs::names::key::NAME_LEN_MAX as u32,
            frsize: BLOCK,
            ..StatfsOut::default()
        });
    }
}
