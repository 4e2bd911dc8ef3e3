//! What was written and is not yet in the store. A [`Writer`] makes one [`DirtyFile`] for each file
//! that is open for writing; its handles share it.
//!
//! What was written lies in buffers (`buffer`), in memory or staged on disk (`stage`), over what stays of
//! the version in the store (`layers`): nothing is fetched to begin a write. What was changed since
//! which publish is counted in one place (`state`). Memory is asked for before it is used and freed in
//! the background (`memory`). The sending is `crate::upload`'s.
//!
//! What holds true:
//! - Bytes leave memory only for the staging file, and both only when the store has them or nobody
//!   wants them. A publish that failed loses nothing; only without staging it may lose what parts had
//!   taken to the store before, and says so.
//! - A sealed version never changes: buffers are frozen, staged room is not written twice.
//! - Dirty bytes in memory stay within `WriteConfig::memory`, one file's within three quarters.
//! - `write_now` and `read_now` take locks that are never held across a wait, and nothing else.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tracing::warn;

use crate::budget::Share;
use crate::disk::Staging;
use crate::object::{ETag, Key, ObjectId};
use crate::parts::{PartLayout, StoreLimits};
use crate::read::ReadCache;
use crate::store::{ObjectStore, StoreError, UploadId};
use file::WrittenFile;
pub use hold::HeldBytes;
use memory::DirtyMemory;

pub(crate) mod base;
pub(crate) mod buffer;
pub(crate) mod file;
mod hold;
pub(crate) mod layers;
mod memory;
mod pool;
mod stage;
pub(crate) mod state;
#[cfg(test)]
mod tests;

/// Bounds of the write path.
#[derive(Debug, Clone)]
pub struct WriteConfig {
    /// Dirty bytes in memory of all files together.
    pub memory: Share,
    /// A part's size at the start of an object, in bytes; later parts grow so that 10,000 of them
    /// hold 5 TiB.
    pub part_size: u64,
    /// Parts under way at once for one file.
    pub parts_in_flight_max: usize,
    /// Where dirty bytes beyond the memory go. `None`: nowhere. The memory is the bound of what the store
    /// has not in parts, and a write that does not fit fails.
    pub staging: Option<Arc<Staging>>,
    /// What happens when somebody else's version is found at publishing.
    pub on_conflict: OnConflict,
}

/// `--on-conflict`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnConflict {
    /// The publish fails with `Changed`.
    Fail,
    /// Ours replaces theirs.
    Overwrite,
}

/// What is in the store under the file's key when writing begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// Nothing: the publish asks for absence.
    Absent,
    /// This version, whose bytes stay where they are not overwritten.
    Keep {
        /// The version.
        id: ObjectId,
        /// Its size in bytes.
        size: u64,
    },
    /// This version, none of whose bytes are wanted (O_TRUNC).
    Replace {
        /// The version that the publish asks for.
        etag: ETag,
    },
}

/// A publish that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// What is in the store now.
    pub id: ObjectId,
    /// Its size in bytes.
    pub size: u64,
    /// When it was published, by our clock.
    pub modified: SystemTime,
    /// Whether nothing was written since the publish began: the file is clean.
    pub clean: bool,
}

/// Why a write or publish failed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The store said no, or did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no room for written bytes, on disk or, without staging, in memory.
    #[error(
        "no room for written bytes; free some on the disk of --cache-dir or name another; without one \
         (--cache-size 0) what is not sent yet has to fit into a third of --memory"
    )]
    NoRoom(#[source] std::io::Error),
    /// The staging file could not take or give bytes.
    #[error("the staging file failed; check the disk of --cache-dir or name another")]
    Staging(#[source] std::io::Error),
    /// Past the largest object that the store takes (5 TiB).
    #[error("past the largest object that the store takes")]
    TooLarge,
    /// Without staging: the bytes are in parts of an upload that is not completed.
    #[error(
        "these bytes were sent to the store already and are not kept here; close the file before it is \
         read, or give --cache-size some room"
    )]
    SentAway,
    /// Without staging: a publish failed, and the bytes in its parts went with it.
    #[error(
        "an upload failed, and what it had sent is not kept here; write the file again, and give \
         --cache-size some room for bytes that a failed upload must not lose"
    )]
    Lost,
}

impl WriteError {
    /// What a failure of the staging file means.
    pub(crate) fn staging(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Self::NoRoom(error)
            }
            _ => Self::Staging(error),
        }
    }

    /// There is no room, and no disk that said so.
    pub(crate) fn no_room() -> Self {
        Self::NoRoom(std::io::ErrorKind::StorageFull.into())
    }
}

/// Makes [`DirtyFile`]s; one per mount.
#[derive(Debug)]
pub struct Writer {
    myself: Weak<Self>,
    pub(crate) config: WriteConfig,
    pub(crate) limits: StoreLimits,
    /// The parts of an upload that begins before the size is known.
    pub(crate) layout: PartLayout,
    /// Objects up to this size are sent in one request, in bytes.
    pub(crate) put_max: u64,
    /// The store does not copy ranges, or not rightly: what stays of a base is fetched and sent.
    copies_refused: AtomicBool,
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) reader: Arc<ReadCache>,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) memory: DirtyMemory,
    /// Files that somebody has open, by serial.
    files: Mutex<HashMap<u64, Weak<WrittenFile>>>,
    serial: AtomicU64,
    /// Multipart uploads that the store knows of because of us.
    pub(crate) uploads: Mutex<HashMap<UploadId, Key>>,
    /// Writers that wait for memory.
    pub(crate) waiting: AtomicUsize,
    /// Whether the task that frees memory and disk runs, and how often it was asked for.
    freeing: AtomicBool,
    kicks: AtomicU64,
    /// Staged bytes may have become garbage.
    untidy: AtomicBool,
    /// The last failure of a spill: whoever waits for memory fails with it.
    spill_failures: watch::Sender<Option<Arc<std::io::Error>>>,
    /// Parts that are no longer on their way, whatever came of it.
    pub(crate) sends_ended: AtomicU64,
    /// How many there were when none had ended for a while.
    sends_stalled_at: AtomicU64,
    /// One of them, or a part went on its way.
    pub(crate) sends_moved: Notify,
    /// A publish or an early upload ended, or clean bytes were given up.
    pub(crate) progress: Notify,
    published: AtomicU64,
    failed: AtomicU64,
    uploaded_bytes: AtomicU64,
    copied_bytes: AtomicU64,
    refetched_bytes: AtomicU64,
}

/// Levels now and counters since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteStats {
    /// Dirty bytes held, in memory and staged.
    pub dirty_bytes: u64,
    /// Of these, staged on disk.
    pub staged_bytes: u64,
    /// Files with dirty bytes.
    pub dirty_files: u64,
    /// When the oldest of them was dirtied.
    pub oldest_dirty: Option<SystemTime>,
    /// Publishes that succeeded.
    pub published: u64,
    /// Bytes sent to the store.
    pub uploaded_bytes: u64,
    /// Publishes that failed.
    pub failed: u64,
    /// Bytes that the store copied from the version before, so that they were not sent.
    pub copied_bytes: u64,
    /// Bytes that were fetched from the version before because they lay between changed ones.
    pub refetched_bytes: u64,
    /// Whether the store was found not to copy ranges of objects.
    pub copies_refused: bool,
}

impl Writer {
    /// Publishes into `store`. What was published is given to `reader`. Uploads run on `runtime`.
    pub fn new(
        config: WriteConfig,
        store: Arc<dyn ObjectStore>,
        reader: Arc<ReadCache>,
        runtime: tokio::runtime::Handle,
    ) -> Arc<Self> {
        Self::with_limits(config, StoreLimits::S3, store, reader, runtime)
    }

    /// As [`Writer::new`], for a store with other limits than S3's.
    pub fn with_limits(
        config: WriteConfig,
        limits: StoreLimits,
        store: Arc<dyn ObjectStore>,
        reader: Arc<ReadCache>,
        runtime: tokio::runtime::Handle,
    ) -> Arc<Self> {
        let layout = PartLayout::growing(config.part_size, &limits);
        let staging = config.staging.is_some();
        let memory = DirtyMemory::new(config.memory.clone(), layout.first_size(), staging);
        // What was staged is read whole before it is sent in one request.
        let whole_max = if staging {
            memory.readback.bound()
        } else {
            u64::MAX
        };
        Arc::new_cyclic(|myself| Self {
            myself: myself.clone(),
            limits,
            layout,
            // Two parts in one request cost one round trip; in parts they cost four.
            put_max: (2 * layout.first_size())
                .min(limits.part_max)
                .min(whole_max),
            memory,
            copies_refused: AtomicBool::new(false),
            store,
            reader,
            runtime,
            files: Mutex::default(),
            serial: AtomicU64::new(0),
            uploads: Mutex::default(),
            waiting: AtomicUsize::new(0),
            freeing: AtomicBool::new(false),
            kicks: AtomicU64::new(0),
            untidy: AtomicBool::new(false),
            spill_failures: watch::Sender::new(None),
            sends_ended: AtomicU64::new(0),
            sends_stalled_at: AtomicU64::new(u64::MAX),
            sends_moved: Notify::new(),
            progress: Notify::new(),
            published: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            uploaded_bytes: AtomicU64::new(0),
            copied_bytes: AtomicU64::new(0),
            refetched_bytes: AtomicU64::new(0),
            config,
        })
    }

    /// A file whose bytes will be published under `key`. With [`Base::Absent`] and
    /// [`Base::Replace`] it is dirty at once: even if nothing is written, an empty object is to be
    /// published. With [`Base::Keep`] it is clean until the first write or truncation.
    /// Never waits.
    pub fn begin(self: &Arc<Self>, key: Key, base: Base) -> Arc<DirtyFile> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let inner = Arc::new(WrittenFile::new(self.clone(), serial, key, base));
        self.files.lock().insert(serial, Arc::downgrade(&inner));
        Arc::new(DirtyFile { inner })
    }

    /// The counters. Looks at every file that is open for writing. Never waits.
    pub fn stats(&self) -> WriteStats {
        let mut stats = WriteStats {
            published: self.published.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            uploaded_bytes: self.uploaded_bytes.load(Ordering::Relaxed),
            copied_bytes: self.copied_bytes.load(Ordering::Relaxed),
            refetched_bytes: self.refetched_bytes.load(Ordering::Relaxed),
            copies_refused: !self.copies_ranges(),
            ..WriteStats::default()
        };
        for file in self.files() {
            let state = file.state.lock();
            if let Some(since) = state.dirty_since() {
                let bytes = state.layers.covered();
                stats.dirty_files += 1;
                stats.dirty_bytes += bytes;
                stats.staged_bytes += file.staged().min(bytes);
                let oldest = stats.oldest_dirty.map_or(since, |oldest| oldest.min(since));
                stats.oldest_dirty = Some(oldest);
            }
        }
        stats
    }

    /// What of the share is granted and holds nothing: it is set aside for bytes that are read to be sent.
    pub fn idle_bytes(&self) -> u64 {
        self.memory.readback.bound() - self.memory.readback.used()
    }

    /// How many multipart uploads are under way, those included that could not be aborted.
    pub fn uploads_under_way(&self) -> usize {
        self.uploads.lock().len()
    }

    /// Aborts every multipart upload that is under way: for the end of a mount whose drain did not
    /// end in time. Publishes under way fail. Waits for the store.
    ///
    /// # Errors
    /// The first refusal; the others are tried all the same.
    pub async fn abort_uploads(&self) -> Result<(), WriteError> {
        let uploads: Vec<(UploadId, Key)> = {
            let uploads = self.uploads.lock();
            let entries = uploads.iter();
            entries.map(|(id, key)| (id.clone(), key.clone())).collect()
        };
        let mut result = Ok(());
        for (id, key) in uploads {
            let aborted = self.abort(&key, &id).await;
            result = result.and(aborted);
        }
        result
    }

    /// All files that somebody has open.
    fn files(&self) -> Vec<Arc<WrittenFile>> {
        self.files
            .lock()
            .values()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// Has garbage in staging files given back, and memory if somebody waits for it.
    pub(crate) fn tidy(&self) {
        if self.config.staging.is_some() {
            self.untidy.store(true, Ordering::SeqCst);
        }
        self.free_memory();
    }

    pub(crate) fn count_published(&self) {
        self.published.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_copied(&self, bytes: u64) {
        self.copied_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn count_refetched(&self, bytes: u64) {
        self.refetched_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether the store copies ranges of objects, as far as is known.
    pub(crate) fn copies_ranges(&self) -> bool {
        !self.copies_refused.load(Ordering::Relaxed)
    }

    /// The store does not copy ranges. Told to the log once.
    pub(crate) fn refuse_copies(&self, why: &dyn std::fmt::Display) {
        if !self.copies_refused.swap(true, Ordering::Relaxed) {
            warn!(
                %why,
                "the store does not copy ranges of objects (UploadPartCopy): what stays of a changed file \
                 is fetched and sent again"
            );
        }
    }

    pub(crate) fn count_uploaded(&self, bytes: u64) {
        self.uploaded_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Bytes written to one file and not yet all published. Shared by all its handles. All methods
/// take `&self`. When the last reference goes, uploads under way are aborted and unpublished bytes
/// are gone: whoever must not lose them looks at [`DirtyFile::is_dirty`] before.
#[derive(Debug)]
pub struct DirtyFile {
    pub(crate) inner: Arc<WrittenFile>,
}

impl Drop for DirtyFile {
    fn drop(&mut self) {
        let inner = &self.inner;
        let writer = &inner.writer;
        let last = {
            let mut files = writer.files.lock();
            files.remove(&inner.serial);
            files.is_empty()
        };
        if last {
            writer.memory.pool.clear();
        }
        let sending = {
            let mut state = inner.state.lock();
            state.orphan = true;
            state.upload.is_some() || state.is_sending()
        };
        if sending {
            let runtime = writer.runtime.clone();
            let inner = inner.clone();
            runtime.spawn(async move { inner.abandon_all().await });
        }
    }
}
