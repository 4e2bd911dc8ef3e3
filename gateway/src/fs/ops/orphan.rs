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
use crate::fs::table::Departure;
use crate::fs::table::inode::Inode;
use crate::fs::table::inode::state::InodeState;
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

impl Filesystem {
    /// Brings the bytes of `inode` here if somebody has it open. Waits for the store and the disk.
    ///
    /// # Errors
    /// `InUse` if there is no room for them; the store's; `Interrupted`. Nothing has changed then.
    async fn bring(&self, inode: &Inode, interrupt: &mut Interrupt) -> FsResult<Brought> {
        let (file, version) = {
            let state = inode.state();
            if !state.has_readers_here() {
                return Ok(Brought::default());
            }
            let file = state.written().dirty().cloned().or_else(|| {
                let (id, size) = (state.object()?, state.shown().attr().size);
                let key = Key::new(state.key().clone());
                Some(self.writer.begin(key, Base::Keep { id, size }))
            });
            (file, state.shown().version().cloned())
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
            if self.inodes.leave(inode, |state| depart(state, &brought)) {
                return Ok((guards, brought));
            }
        }
        let cause = "it changes faster than its readers' bytes can be kept; try again";
        Err(FsError::InUse(cause.to_owned()))
    }

    /// The object is gone: no name leads to `inode` any more.
    pub(in crate::fs) async fn gone(&self, inode: &Arc<Inode>, brought: Brought) {
        self.inodes.remove(inode);
        let dirty = inode.state().written().dirty().cloned();
        if let Some(dirty) = dirty {
            // Whoever has it open goes on reading and writing it here; nothing is published.
            dirty.discard().await;
        }
        drop(brought);
        self.finish_writing(inode);
    }

    /// The store refused: the object is still there.
    pub(in crate::fs) fn stay(&self, inode: &Arc<Inode>, brought: Brought) {
        self.inodes.stay(inode);
        drop(brought);
        self.finish_writing(inode);
    }
}

/// Whether what was brought is what the file's readers need.
fn depart(state: &InodeState, brought: &Brought) -> Departure {
    if !state.has_readers_here() {
        return Departure::AsItIs;
    }
    let Some(file) = &brought.file else {
        return Departure::Refused;
    };
    match state.written().dirty() {
        Some(dirty) if Arc::ptr_eq(dirty, file) => Departure::AsItIs,
        None if state.shown().version() == brought.version.as_ref() => match brought.held {
            Some(_) => Departure::With(file.clone()),
            None => Departure::AsItIs,
        },
        _ => Departure::Refused,
    }
}
