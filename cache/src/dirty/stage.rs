//! The staged bytes of one file: where in its staging file the next ones go, which are alive, which
//! are garbage.
//!
//! TailRoom is given out by appending and never reused before it was punched, so a sealed version and a
//! reader find their bytes unchanged however much is written after. [`Staged`] owns its room: the
//! last one that goes queues it as garbage. Only the spill task writes and sweeps, one at a time, so
//! a sweep that finds nothing alive may begin the file anew.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::pool::PAGE;
use crate::disk::StagingFile;
use crate::extent::Extent;

/// See the module.
#[derive(Debug)]
pub(crate) struct StagingRoom {
    file: StagingFile,
    /// Where the next bytes go; a multiple of the page, so that punching frees whole blocks.
    next: AtomicU64,
    /// Bytes that somebody can still ask for.
    alive: AtomicU64,
    garbage: Mutex<Vec<Extent>>,
}

/// Bytes in a staging file. Their room is freed with it.
#[derive(Debug)]
pub(crate) struct Staged {
    stage: Arc<StagingRoom>,
    extent: Extent,
}

impl StagingRoom {
    /// Over an empty staging file.
    pub(crate) fn new(file: StagingFile) -> Arc<Self> {
        Arc::new(Self {
            file,
            next: AtomicU64::new(0),
            alive: AtomicU64::new(0),
            garbage: Mutex::default(),
        })
    }

    /// Writes each of `bodies` and gives where it is. One request of the disk for all of them.
    /// Called by the spill task only. Waits for the disk.
    pub(crate) async fn write(self: &Arc<Self>, bodies: &[Bytes]) -> io::Result<Vec<Arc<Staged>>> {
        static PAD: [u8; PAGE as usize] = [0; PAGE as usize];
        let start = self.next.load(Ordering::Relaxed);
        let mut at = start;
        let mut pieces = Vec::with_capacity(bodies.len() * 2);
        let mut extents = Vec::with_capacity(bodies.len());
        for body in bodies {
            let len = body.len() as u64;
            extents.push(Extent::new(at, len));
            pieces.push(body.clone());
            let pad = len.next_multiple_of(PAGE) - len;
            if pad > 0 {
                pieces.push(Bytes::from_static(&PAD[..pad as usize]));
            }
            at += len + pad;
        }
        self.file.write(start, pieces).await?;
        self.next.store(at, Ordering::Relaxed);
        Ok(extents
            .into_iter()
            .map(|extent| {
                self.alive.fetch_add(extent.len, Ordering::Relaxed);
                Arc::new(Staged {
                    stage: self.clone(),
                    extent,
                })
            })
            .collect())
    }

    /// Bytes alive, staged.
    pub(crate) fn alive(&self) -> u64 {
        self.alive.load(Ordering::Relaxed)
    }

    /// Gives the disk the garbage's room back. Called by the spill task only. Waits for the disk.
    pub(crate) async fn sweep(&self) {
        let garbage = std::mem::take(&mut *self.garbage.lock());
        if garbage.is_empty() {
            return;
        }
        // A disk that cannot punch keeps the garbage until the file goes: room lost, no bytes.
        if self.alive() == 0 {
            if self.file.truncate(0).await.is_ok() {
                self.next.store(0, Ordering::Relaxed);
            }
            return;
        }
        for extent in garbage {
            let whole = Extent::new(extent.offset, extent.len.next_multiple_of(PAGE));
            let _ = self.file.punch(whole).await;
        }
    }
}

impl Staged {
    /// Reads from `skip` on. Waits for the disk.
    pub(crate) async fn read(&self, skip: u64, buf: &mut [u8]) -> io::Result<()> {
        self.stage.file.read(self.extent.offset + skip, buf).await
    }

    /// `len` bytes from `skip` on. Waits for the disk.
    pub(crate) async fn read_bytes(&self, skip: u64, len: usize) -> io::Result<Bytes> {
        let offset = self.extent.offset + skip;
        self.stage.file.read_bytes(offset, len).await
    }

    /// Reads from `skip` on if the disk need not be waited for; whether it did.
    pub(crate) fn read_now(&self, skip: u64, buf: &mut [u8]) -> bool {
        self.stage.file.read_now(self.extent.offset + skip, buf)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.stage.garbage.lock().push(self.extent);
        // After the garbage is queued, so that a sweep that sees nothing alive has it all.
        self.stage
            .alive
            .fetch_sub(self.extent.len, Ordering::Relaxed);
    }
}
