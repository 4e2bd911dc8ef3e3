//! Files whose object is about to go, by unlink or by a rename over it, while they are open: those
//! who have one open keep its bytes, as on any filesystem. The store would answer them 404, so the
//! bytes are brought here before it is asked to delete anything.
//!
//! ```text
//! bring    the bytes come into memory and the staging file; files are opened and closed meanwhile
//! leave    under the inode's `publishing`: nothing has changed since, so from now on all reads find
//!          what was brought; opens and publishes wait
//! ...      the store deletes, or copies over it
//! gone     no name leads to the inode; the bytes stay until its last handle is closed
//! stay     the store refused: everything is as before
//! ```
//! Handles that the kernel serves from the cache file by itself need none of it: that file stays
//! for them.

use std::sync::Arc;

use ackfs_cache::dirty::{Base, DirtyFile, HeldBytes};
use ackfs_cache::object::{ETag, Key};

use crate::fs::Filesystem;
use crate::fs::error::{FsError, FsResult};
use crate::fs::table::inode::{Inode, State};
use crate::fuse::Interrupt;

/// How often the bytes are brought anew because the file changed meanwhile.
const TRIES_MAX: usize = 8;

/// What was brought of one inode. Nothing, if nobody needs it.
#[derive(Debug, Default)]
pub(in crate::fs) struct Brought {
    file: Option<Arc<DirtyFile>>,
    /// `None` beside a file: the object was gone before us, and the bytes with it.
    held: Option<HeldBytes>,
    version: Option<ETag>,
}

/// Whether somebody has the file open who reads it by way of us.
fn is_needed(state: &State) -> bool {
    let has_bytes = state.dirty.is_some() || state.version.is_some();
    state.handles > 0 && state.backing.is_none() && has_bytes
}

impl Filesystem {
    /// Brings the bytes of `inode` here if somebody has it open. Waits for the store and the disk.
    ///
    /// # Errors
    /// `InUse` if there is no room for them; the store's; `Interrupted`. Nothing has changed then.
    async fn bring(&self, inode: &Inode, interrupt: &mut Interrupt) -> FsResult<Brought> {
        let (file, version) = {
            let state = inode.state.lock();
            if !is_needed(&state) {
                return Ok(Brought::default());
            }
            let file = state.dirty.clone().or_else(|| {
                let (id, size) = (state.object()?, state.attr.size);
                let key = Key::new(state.key.clone());
                Some(self.writer.begin(key, Base::Keep { id, size }))
            });
            (file, state.version.clone())
        };
        let Some(file) = file else {
            return Ok(Brought::default());
        };
        let held = tokio::select! {
            held = file.hold() => held,
            () = interrupt.interrupted() => return Err(FsError::Interrupted),
        };
        let held = match held.map_err(FsError::from) {
            Ok(held) => Some(held),
            Err(FsError::VersionGone(_)) => None,
            Err(FsError::NoRoom(_)) => {
                return Err(FsError::InUse(format!(
                    "it is open, and there is no local room for its {} bytes, which its readers would \
                     lose; close it, or give --cache-dir more room",
                    file.size()
                )));
            }
            Err(error) => return Err(error),
        };
        Ok(Brought {
            file: Some(file),
            held,
            version,
        })
    }

    /// Brings the bytes of `inode` here if somebody has it open, and makes it leave. `lock` takes
    /// the `publishing` of all inodes that the caller changes, `inode`'s among them. After this
    /// comes [`Filesystem::gone`] or [`Filesystem::stay`], before the guards are dropped.
    ///
    /// # Errors
    /// `InUse` if there is no room, or if the file changes faster than it is brought; the store's;
    /// `Interrupted`. Nothing has changed then.
    pub(in crate::fs) async fn leave<G, L: Future<Output = G>>(
        &self,
        inode: &Inode,
        interrupt: &mut Interrupt,
        lock: impl Fn() -> L,
    ) -> FsResult<(G, Brought)> {
        for _ in 0..TRIES_MAX {
            let brought = self.bring(inode, interrupt).await?;
            let guards = lock().await;
            if begin_to_leave(&mut inode.state.lock(), &brought) {
                return Ok((guards, brought));
            }
        }
        let cause = "it changes faster than its readers' bytes can be kept; try again";
        Err(FsError::InUse(cause.to_owned()))
    }

    /// The object is gone: no name leads to `inode` any more.
    pub(in crate::fs) async fn gone(&self, inode: &Arc<Inode>, brought: Brought) {
        let dirty = {
            let mut state = inode.state.lock();
            state.leaving = false;
            state.unlinked = true;
            state.dirty.clone()
        };
        self.inodes.detach(inode);
        if let Some(dirty) = dirty {
            // Whoever has it open goes on reading and writing it here; nothing is published.
            dirty.discard().await;
        }
        drop(brought);
        self.settle(inode);
    }

    /// The store refused: the object is still there.
    pub(in crate::fs) fn stay(&self, inode: &Arc<Inode>, brought: Brought) {
        inode.state.lock().leaving = false;
        drop(brought);
        self.settle(inode);
    }
}

/// From now on everybody finds what was brought. False if that is not what is needed.
fn begin_to_leave(state: &mut State, brought: &Brought) -> bool {
    if is_needed(state) {
        let Some(file) = &brought.file else {
            return false;
        };
        match &state.dirty {
            Some(dirty) if Arc::ptr_eq(dirty, file) => {}
            None if state.version == brought.version => {
                if brought.held.is_some() {
                    state.begin_writing(file.clone());
                }
            }
            _ => return false,
        }
    }
    state.leaving = true;
    true
}
