//! How cached bytes are read and verified.
//!
//! A read trusts an extent only after its checksum was compared, once a run. Whoever needs an
//! extent first reads it whole and compares; others who need the same unit meanwhile wait for that
//! instead of reading it again. An extent that differs is dropped: if an earlier run wrote it, it
//! alone (a crash tore it); if this run wrote it, the whole object, because then the disk has lost
//! what it took.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::core::CacheCore;
use super::extents::{CRC, CachedExtent, Trust, UNIT};
use super::job::WriterJob;
use super::object::CachedObject;
use crate::disk::{DiskFile, OpenHow};
use crate::extent::Extent;
use crate::object::ObjectId;

/// What became of an extent that was to be verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verification {
    /// Its checksum is right.
    Good,
    /// It is part of another extent now.
    Changed,
    /// It is gone.
    Bad,
}

impl CacheCore {
    /// See [`super::DiskCache::read`].
    pub(crate) async fn read(&self, id: &ObjectId, offset: u64, buf: &mut [u8]) -> bool {
        let Some(object) = self.map.find(id) else {
            return false;
        };
        let extent = Extent::new(offset, buf.len() as u64);
        if !object.on_disk.read().extents.covers(extent) {
            return false;
        }
        let Some(file) = self.open(&object).await else {
            return false;
        };
        self.touch(&object);
        if !self.prove(&object, &file, extent).await {
            return false;
        }
        if file.read_now(offset, buf) {
            return true;
        }
        // In pieces, so that one long read does not take all the memory for reads.
        let mut at = offset;
        for piece in buf.chunks_mut(UNIT as usize) {
            let read = self
                .reads
                .read(&file, Extent::new(at, piece.len() as u64), |bytes| {
                    piece.copy_from_slice(bytes);
                });
            if let Err(error) = read.await {
                self.lost(&object, &error);
                return false;
            }
            at += piece.len() as u64;
        }
        true
    }

    /// The object's file if it is open, or can be opened without the disk. Never waits.
    pub(crate) fn open_now(&self, object: &Arc<CachedObject>) -> Option<DiskFile> {
        if let Some(file) = object.on_disk.read().file().cloned() {
            return Some(file);
        }
        let file = self.disk.open_cached(&object.path(&self.objects_dir))?;
        Some(self.files.keep(object, file))
    }

    /// The object's open file. `None` if it cannot be opened; if it is gone, so is the object.
    pub(crate) async fn open(&self, object: &Arc<CachedObject>) -> Option<DiskFile> {
        if let Some(file) = self.open_now(object) {
            return Some(file);
        }
        let path = object.path(&self.objects_dir);
        match self.disk.open(&path, OpenHow::Existing).await {
            Ok(file) => Some(self.files.keep(object, file)),
            Err(error) => {
                // A retired object's file is gone, as it should be.
                if error.kind() != io::ErrorKind::NotFound || !object.on_disk.read().is_retired() {
                    self.lost(object, &error);
                }
                None
            }
        }
    }

    /// Compares what holds `extent` with its checksums as far as that was not done. False if a byte
    /// is missing or differs. Waits for the disk.
    async fn prove(&self, object: &Arc<CachedObject>, file: &DiskFile, extent: Extent) -> bool {
        // An extent that joins another while we look at it has to be looked at again; that ends
        // when its unit is full.
        loop {
            let Some(needed) = unproven(object, extent) else {
                return false;
            };
            if needed.is_empty() {
                return true;
            }
            for cached in needed {
                if self.verify(object, file, cached).await == Verification::Bad {
                    return false;
                }
            }
        }
    }

    /// Compares an extent with its checksum, unless that was done; drops it if it differs or cannot
    /// be read. Waits for the disk.
    pub(crate) async fn verify(
        &self,
        object: &Arc<CachedObject>,
        file: &DiskFile,
        cached: CachedExtent,
    ) -> Verification {
        let turn = self.reads.turn(object.number, cached.offset / UNIT);
        let _turn = turn.lock().await;
        match unproven(object, cached.extent()).as_deref() {
            Some([]) => return Verification::Good,
            Some([same]) if *same == cached => {}
            Some(_) => return Verification::Changed,
            None => return Verification::Bad,
        }
        let read = self.reads.read(file, cached.extent(), |bytes| {
            crc_fast::checksum(CRC, bytes)
        });
        match read.await {
            Ok(crc) if crc == cached.crc => {
                object.on_disk.write().extents.mark_verified(&cached);
                Verification::Good
            }
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                self.lost(object, &error);
                Verification::Bad
            }
            _ => {
                self.differs(object, cached);
                Verification::Bad
            }
        }
    }

    fn differs(&self, object: &Arc<CachedObject>, cached: CachedExtent) {
        let removed = object.on_disk.write().extents.remove(&cached);
        if !removed {
            return;
        }
        self.counters.corrupt.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            object = ?object.id,
            extent = ?cached.extent(),
            "cached bytes differ from their checksum and are dropped"
        );
        self.queue.add(WriterJob::Punch {
            object: object.clone(),
            cached,
        });
        if cached.trust == Trust::Written {
            self.retire(object);
        }
    }

    /// The disk does not give an object's bytes any more.
    fn lost(&self, object: &Arc<CachedObject>, error: &io::Error) {
        tracing::warn!(object = ?object.id, %error, "a cached object cannot be read and is dropped");
        self.retire(object);
    }
}

/// The extents among those that hold `extent` that are not verified; `None` if a byte is missing.
fn unproven(object: &CachedObject, extent: Extent) -> Option<Vec<CachedExtent>> {
    let on_disk = object.on_disk.read();
    let all = on_disk.extents.covering(extent)?;
    let unproven = all.iter().filter(|cached| cached.trust != Trust::Verified);
    Some(unproven.copied().collect())
}
