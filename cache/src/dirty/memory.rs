//! Who gets memory for dirty bytes, and what is done when there is none.
//!
//! All files draw on one share, and no file on more than three quarters of it, so that one giant
//! writer never starves small ones. From half of the share on a task in the background frees
//! memory: clean files give up what the store has too, then the files that hold most spill their
//! oldest buffers to the staging file. A writer that comes too fast waits in line for what is freed.
//!
//! What the store has, or is being sent, goes first: it is read back only if a publish has to begin
//! anew. While parts go out, a fast writer is thereby held to the pace of its upload, which its close
//! would wait for anyway, and its bytes do not make the way to the disk and back. When parts take
//! long, the other bytes go as well.
//!
//! A part of the share is set aside for bytes that are read to be sent: staged ones, and those of the
//! base between them. Without it a full staging disk could stop the very uploads that would free it.
//!
//! Without staging the share is the bound of what is not sent yet. A sequential writer's parts go to
//! the store while it waits, and what the store has of them is given up here: a file of any size passes
//! through. Whoever writes here and there, so that no part is ever full, gets "no room" at the write
//! that does not fit, and so does a writer that waits too long for other files to be published.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use super::buffer::{MemoryMeter, PaidMemory};
use super::file::WrittenFile;
use super::pool::{PAGE, WriteBufferPool};
use super::{WriteError, Writer};
use crate::budget::{Budget, Grant, Share};
use crate::store::STORE_TIMEOUT;

/// The memory of one mount's dirty bytes.
#[derive(Debug)]
pub(crate) struct DirtyMemory {
    share: Share,
    /// What one file may hold, in bytes.
    pub(crate) file_max: u64,
    pub(crate) pool: Arc<WriteBufferPool>,
    /// Above so many bytes in use the background frees some.
    high: u64,
    /// For bytes that are read to be sent, and the grant that pays for it.
    pub(crate) readback: Share,
    _readback: Option<Grant>,
}

/// No buffer is larger: an mmap of its own, and one kernel WRITE at its largest.
const BUFFER_MAX: u64 = 1 << 20;

impl DirtyMemory {
    /// Over `share`, a quarter of it set aside if there is staging, else as much as one part of
    /// `part_size` bytes wants.
    pub(crate) fn new(share: Share, part_size: u64, staging: bool) -> Self {
        let quarter = share.bound() / 4;
        let wanted = if staging {
            quarter
        } else {
            quarter.min(part_size)
        };
        let aside = (wanted / PAGE * PAGE).max(PAGE);
        let grant = share.try_take(aside);
        let rest = share.bound() - grant.as_ref().map_or(0, |_| aside);
        Self {
            file_max: rest / 4 * 3,
            pool: WriteBufferPool::new((rest / 8 / PAGE * PAGE).clamp(PAGE, BUFFER_MAX)),
            high: share.bound() - rest / 2,
            readback: Budget::new(aside).share(aside),
            _readback: grant,
            share,
        }
    }

    /// Whether a file that holds `meter` may have `bytes` more. One that holds nothing always may.
    fn fits(&self, meter: &MemoryMeter, bytes: u64) -> bool {
        meter.bytes() == 0 || meter.bytes() + bytes <= self.file_max
    }

    /// `bytes` for a file, if they are free.
    pub(crate) fn take_now(&self, meter: &Arc<MemoryMeter>, bytes: u64) -> Option<Arc<PaidMemory>> {
        if !self.fits(meter, bytes) {
            return None;
        }
        let grant = self.share.try_take(bytes)?;
        Some(PaidMemory::new(grant, bytes, meter.clone()))
    }

    /// Whether the background should free some.
    fn is_high(&self) -> bool {
        self.share.used() > self.high
    }
}

/// Counts a writer that waits for memory.
struct WaitingWriter<'a>(&'a Writer);

impl<'a> WaitingWriter<'a> {
    fn new(writer: &'a Writer) -> Self {
        writer.waiting.fetch_add(1, Ordering::SeqCst);
        Self(writer)
    }
}

impl Drop for WaitingWriter<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl WrittenFile {
    /// `bytes` of memory, when they are free. Waits for the staging disk, for publishes, for other
    /// uses of memory.
    ///
    /// # Errors
    /// `Staging` if the disk takes no more, or if there is none and waiting is hopeless.
    pub(crate) async fn reserve(
        self: &Arc<Self>,
        bytes: u64,
    ) -> Result<Arc<PaidMemory>, WriteError> {
        let writer = &self.writer;
        let mut failures = writer.spill_failures.subscribe();
        let _waiting = WaitingWriter::new(writer);
        // It will not move past the parts that it has filled before some of them are sent.
        self.pause_for_memory();
        writer.free_memory();
        let hopeless = async {
            match writer.config.staging {
                Some(_) => WriteError::staging(spill_failed(&mut failures).await),
                None => self.no_room(bytes).await,
            }
        };
        let granted = async {
            loop {
                let freed = self.meter.freed.notified();
                tokio::pin!(freed);
                freed.as_mut().enable();
                if writer.memory.fits(&self.meter, bytes) {
                    break writer.memory.share.take(bytes).await;
                }
                freed.await;
            }
        };
        tokio::select! {
            biased;
            grant = granted => Ok(PaidMemory::new(grant, bytes, self.meter.clone())),
            error = hopeless => Err(error),
        }
    }

    /// Ends when waiting for memory without staging makes no sense: nothing of this file is on its way to
    /// the store, or for long nothing has arrived there.
    async fn no_room(&self, bytes: u64) -> WriteError {
        loop {
            let progress = self.writer.progress.notified();
            let moved = self.writer.sends_moved.notified();
            tokio::pin!(progress, moved);
            progress.as_mut().enable();
            moved.as_mut().enable();
            // In this order: a part that arrives in between is given up here, or was by somebody else, and
            // then there is room.
            let sending = self.state.lock().is_sending();
            let gave_up = !sending && self.give_up_sent(bytes) > 0;
            if !sending && !gave_up && !self.writer.memory.fits(&self.meter, bytes) {
                break;
            }
            tokio::select! {
                () = progress => {}
                () = moved => {}
                () = tokio::time::sleep(STORE_TIMEOUT) => break,
            }
        }
        WriteError::no_room()
    }
}

async fn spill_failed(failures: &mut watch::Receiver<Option<Arc<io::Error>>>) -> io::Error {
    // The sender lives in the writer, which the caller holds.
    let _ = failures.changed().await;
    match &*failures.borrow() {
        Some(error) => duplicate(error),
        None => io::Error::other("the staging file is closed"),
    }
}

/// A second error like this one.
pub(crate) fn duplicate(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

impl Writer {
    /// Starts the task that frees memory and disk, if that is wanted and it does not run.
    pub(crate) fn free_memory(&self) {
        if !self.wants_memory() && !self.untidy.load(Ordering::SeqCst) {
            return;
        }
        self.kicks.fetch_add(1, Ordering::SeqCst);
        if self.freeing.swap(true, Ordering::SeqCst) {
            return;
        }
        let Some(writer) = self.myself.upgrade() else {
            return;
        };
        self.runtime.spawn(async move {
            loop {
                let kicks = writer.kicks.load(Ordering::SeqCst);
                writer.free_some().await;
                writer.freeing.store(false, Ordering::SeqCst);
                // Whoever asked after the last look was turned away; look again for them.
                let asked = writer.kicks.load(Ordering::SeqCst) != kicks;
                if !asked || writer.freeing.swap(true, Ordering::SeqCst) {
                    return;
                }
            }
        });
    }

    fn wants_memory(&self) -> bool {
        let spills = self.config.staging.is_some();
        (spills && self.memory.is_high()) || self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Frees memory until enough is free or nothing more can be done.
    async fn free_some(&self) {
        if self.untidy.swap(false, Ordering::SeqCst) {
            for file in self.files() {
                file.sweep().await;
            }
        }
        while self.wants_memory() {
            let mut reclaimed = false;
            for file in self.files() {
                reclaimed |= file.state.lock().reclaim();
            }
            self.progress.notify_waiters();
            if reclaimed {
                // Whoever waits takes it before anything else is given up.
                tokio::task::yield_now().await;
            }
            if !self.wants_memory() {
                return;
            }
            if self.config.staging.is_none() {
                if self.give_up_sent() > 0 || self.shed().await {
                    continue;
                }
                return;
            }
            let spilled = match self.spill_largest(true).await {
                Ok(0) if self.sends_go_on().await => Ok(1),
                Ok(0) => self.spill_largest(false).await,
                spilled => spilled,
            };
            match spilled {
                Ok(0) if self.shed().await => {}
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => {
                    self.spill_failures.send_replace(Some(Arc::new(error)));
                    return;
                }
            }
        }
    }

    /// Gives up bytes of parts that the store has, of the file that holds most and has some. Gives
    /// how many.
    fn give_up_sent(&self) -> u64 {
        let mut files = self.files();
        files.sort_by_key(|file| std::cmp::Reverse(file.meter.bytes()));
        let mut given_up = files.iter().map(|file| file.give_up_sent(SPILL));
        given_up.find(|bytes| *bytes > 0).unwrap_or(0)
    }

    /// Gives up published bytes that wait for a disk that is behind, if a writer waits for memory. Whether
    /// the disk went on or some were given up.
    async fn shed(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0 && self.reader.shed_patiently().await
    }

    /// Waits for a part to go on its way or to end it. False if there is none, or if they take long,
    /// until one ends.
    async fn sends_go_on(&self) -> bool {
        let moved = self.sends_moved.notified();
        tokio::pin!(moved);
        moved.as_mut().enable();
        let ended = self.sends_ended.load(Ordering::Relaxed);
        let on_its_way = |file: &Arc<WrittenFile>| file.state.lock().has_part_on_its_way();
        let stalled = self.sends_stalled_at.load(Ordering::Relaxed) == ended;
        if stalled || !self.files().iter().any(on_its_way) {
            return false;
        }
        let waited = tokio::time::timeout(SEND_PATIENCE, moved).await;
        if waited.is_err() {
            self.sends_stalled_at.store(ended, Ordering::Relaxed);
        }
        waited.is_ok()
    }

    /// Spills some of the file that holds most memory and has something to spill; with `sent`, of
    /// what the store has or is being sent. Gives how many bytes.
    async fn spill_largest(&self, sent: bool) -> io::Result<u64> {
        let mut files = self.files();
        files.sort_by_key(|file| std::cmp::Reverse(file.meter.bytes()));
        for file in files {
            let bytes = file.spill(SPILL, sent).await?;
            if bytes > 0 {
                return Ok(bytes);
            }
        }
        Ok(0)
    }
}

/// How long bytes that are to be sent wait in memory for their turn. Spilled, they would have to be
/// read back; a store that takes longer for a part is slower than that.
const SEND_PATIENCE: Duration = Duration::from_millis(200);

/// How much is spilled in one request of the disk, in bytes.
const SPILL: u64 = 4 << 20;
