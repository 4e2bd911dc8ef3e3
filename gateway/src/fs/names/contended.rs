//! Hot names: files that somebody replaces so often that the version that a look-up shows is gone when
//! it is opened or read. An answer to OPEN cannot change the size that the kernel holds, so it is
//! ESTALE, and the kernel tries once more: open(2) failed when the file was replaced twice in that time.
//!
//! A name where that happened is hot for a while. A look-up of it asks the store, has the bytes of a small
//! file brought here by that very version, and shows them in an inode of their own. Its OPEN then need
//! not ask: the look-up belongs to the same open(2), and sees all closes that ended before that began.
//!
//! That holds because every OPEN of such an inode is preceded by a look-up of its own, which asked after
//! it had come in: the kernel is told to believe the name for no time, and an inode whose name was ever
//! given out otherwise is not trusted (`Told::unasked`). Only who opens what it holds already looks
//! nothing up: a descriptor of O_PATH by /proc/self/fd, a file that is bind-mounted. So the OPEN has to
//! come at once ([`TRUST`]), and what such a one sees may be older by as much.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ackfs_cache::memory::BLOCK;
use ackfs_cache::object::{ETag, Key, ObjectId};
use ackfs_cache::store::StoreErrorKind;
use moka::sync::Cache;

use crate::fs::Filesystem;
use crate::fs::error::{FsError, FsResult};
use crate::fs::names::cache::Listed;
use crate::fs::table::inode::Inode;
use crate::fs::table::inode::state::InodeState;
use crate::fuse::abi::EntryOut;

/// For how long a name is hot after the last time that one of its versions was missed.
const HOT_FOR: Duration = Duration::from_secs(10);
/// How many names may be; beyond that the one that was asked for least is as any other.
const NAMES_MAX: u64 = 1000;
/// How long an OPEN may come after the answer to its look-up: the way to the kernel and back, and what
/// a busy machine adds.
const TRUST: Duration = Duration::from_millis(100);
/// For how long the kernel believes attributes: the version of the inode does not change.
const ATTR_VALID: Duration = Duration::from_secs(1);
/// Larger files are not brought by a look-up, in bytes: their reads may still miss the version.
const BRING_MAX: u64 = BLOCK;
/// How many versions of a file are asked for whose bytes are gone before they are here.
const TRIES_MAX: usize = 4;

/// See the module.
#[derive(Debug)]
pub(in crate::fs) struct HotNames(Cache<(u64, Arc<str>), ()>);

impl Default for HotNames {
    fn default() -> Self {
        let names = Cache::builder()
            .max_capacity(NAMES_MAX)
            .time_to_live(HOT_FOR);
        Self(names.build())
    }
}

impl HotNames {
    /// Whether a version of the name was missed lately. Never waits.
    pub(in crate::fs) fn holds(&self, dir: u64, name: &str) -> bool {
        self.0.contains_key(&(dir, name.into()))
    }
}

/// Whether an OPEN that comes now may take the version shown for what the store has.
pub(in crate::fs) fn is_asked(state: &InodeState, now: Instant) -> bool {
    state.is_asked(TRUST, now)
}

impl Filesystem {
    /// An open or a read failed: its name is hot if that is because the version was gone.
    pub(in crate::fs) fn note_missed(&self, inode: &Inode, error: &FsError) {
        let state = inode.state();
        let is_missed = matches!(error, FsError::LookAgain | FsError::VersionGone(_));
        if is_missed && !state.life().is_gone() {
            let place = (state.parent(), state.name().clone());
            self.hot.0.insert(place, ());
        }
    }

    /// Looks up a name that is hot. `None` if there is no such object: then it is a name as any other.
    /// Waits for the store.
    pub(in crate::fs) async fn look_up_hot(
        &self,
        dir: &Arc<Inode>,
        name: &str,
    ) -> FsResult<Option<EntryOut>> {
        let key = Key::new(format!("{}{name}", dir.key()));
        for tries in 1.. {
            let Some(found) = self.ask_type(dir, name, &key).await? else {
                break;
            };
            let Listed::File { etag, size, .. } = &found.what else {
                break;
            };
            let id = ObjectId::new(key.clone(), etag.clone());
            if !self.bring_small(id, *size).await && tries < TRIES_MAX {
                continue;
            }
            self.part_with_other(dir, name, etag, found.begun);
            let (what, metadata) = (&found.what, found.metadata.clone());
            let reference = self.reference(dir, name, what, metadata, found.begun);
            let entry = reference.entry_asked(etag, ATTR_VALID, Instant::now());
            return Ok(Some(entry));
        }
        self.hot.0.invalidate(&(dir.ino(), name.into()));
        Ok(None)
    }

    /// Brings the bytes of a small file here. False if the version is gone.
    async fn bring_small(&self, id: ObjectId, size: u64) -> bool {
        if size > BRING_MAX {
            return true;
        }
        let mut bytes = vec![0; size as usize];
        let stream = Arc::new(self.reader.stream(id, size));
        if stream.read_now(0, &mut bytes).is_some() {
            return true;
        }
        // Any other failure its reader will meet, or not.
        !stream.read(0, &mut bytes).await.is_err_and(|error| {
            matches!(
                error.kind,
                StoreErrorKind::Changed | StoreErrorKind::NotFound
            )
        })
    }

    /// An inode that shows another version keeps it, also for those who looked it up and have not opened
    /// it yet: the kernel may have told them its size.
    fn part_with_other(&self, dir: &Inode, name: &str, etag: &ETag, begun: Instant) {
        let Some(child) = self.inodes.child(dir.ino(), name) else {
            return;
        };
        let is_older = {
            let state = child.state();
            let shown = state.shown();
            !state.is_local() && shown.version() != Some(etag) && shown.checked() < begun
        };
        if is_older {
            self.inodes.detach(&child);
        }
    }
}
