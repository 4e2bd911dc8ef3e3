//! How bytes come in: room is made first (so the cache is never above its size), then they are written
//! as they are, their checksums are computed while the disk works, then memory says that they are there,
//! and with the next batch the catalogue says so on disk. Data are not synced: after a crash the
//! checksums tell what arrived.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join;

use super::CacheWriter;
use super::make_room::StoreRefusal;
use crate::disk::wait::block_on;
use crate::disk::{self, DiskFile, OpenHow};
use crate::disk_cache::catalog::CatalogChange;
use crate::disk_cache::extents::{CRC, CachedExtent, Trust, UNIT, charge};
use crate::disk_cache::job::PendingWrite;
use crate::disk_cache::object::CachedObject;
use crate::extent::Extent;
use crate::object::ObjectId;

impl CacheWriter {
    /// Stores what of `write` is not there yet.
    pub(super) fn store(&mut self, write: &PendingWrite) {
        let Some(extent) = write.extent.intersect(Extent::new(0, write.size)) else {
            return;
        };
        let (object, is_new) = self.object_for(&write.id, write.size);
        let gaps = object.on_disk.read().extents.gaps(extent);
        for gap in gaps {
            let bytes = cut(&write.pieces, gap.offset - extent.offset, gap.len);
            match self.store_gap(&object, gap, bytes) {
                Ok(()) => self.bytes_were_taken(),
                Err(refusal) => {
                    self.bytes_were_refused(&refusal);
                    break;
                }
            }
        }
        let empty = object.on_disk.read().extents.is_empty();
        if is_new && !empty {
            self.core.map.insert(object);
        } else if is_new {
            self.retire(&object);
        }
    }

    /// The object to add to, and whether it is new; another version of it makes way.
    fn object_for(&mut self, id: &ObjectId, size: u64) -> (Arc<CachedObject>, bool) {
        if let Some(object) = self.core.map.by_key(&id.key) {
            if object.id == *id && object.size == size {
                return (object, false);
            }
            self.core.map.remove(&object);
            self.retire(&object);
        }
        let number = self.next_number;
        self.next_number += 1;
        let object = CachedObject::new(number, id.clone(), size, self.core.tick());
        (Arc::new(object), true)
    }

    /// Stores `bytes` at `gap`, where nothing is.
    fn store_gap(
        &mut self,
        object: &Arc<CachedObject>,
        gap: Extent,
        bytes: Vec<Bytes>,
    ) -> Result<(), StoreRefusal> {
        let need = charge(gap);
        self.make_room(need, object)?;
        let mut crcs = Vec::new();
        let mut written = self.write(object, gap, bytes.clone(), &mut crcs);
        if written.as_ref().is_err_and(disk::is_full) {
            self.give_back(object, gap);
            self.make_room_on_full_disk(need, object)?;
            written = self.write(object, gap, bytes, &mut crcs);
        }
        if let Err(error) = written {
            self.give_back(object, gap);
            return Err(StoreRefusal::Failed(error));
        }
        let is_first = object.on_disk.read().extents.is_empty();
        if is_first {
            self.updates.add(CatalogChange::Object(object.clone()));
        }
        for (part, crc) in units(gap).zip(crcs) {
            self.add_extent(object, part, crc);
        }
        Ok(())
    }

    /// Says that `extent`, which was just written, is there.
    fn add_extent(&mut self, object: &Arc<CachedObject>, extent: Extent, crc: u64) {
        let mut on_disk = object.on_disk.write();
        let before = on_disk.extents.usage();
        let inserted = on_disk.extents.insert(CachedExtent {
            offset: extent.offset,
            crc,
            len: extent.len as u32,
            trust: Trust::Written,
        });
        let after = on_disk.extents.usage();
        drop(on_disk);
        // Extents that shared a page were charged for it twice and may have been joined.
        self.account(before, after);
        // Only the writer inserts, and it looked for the gap: the extent is in the list now.
        let Some(inserted) = inserted else { return };
        for offset in inserted.absorbed {
            self.updates
                .add(CatalogChange::DropExtent(object.number, offset));
        }
        self.updates
            .add(CatalogChange::Extent(object.number, inserted.joined));
    }

    /// Writes, and computes the checksums of the units while the disk does.
    fn write(
        &self,
        object: &Arc<CachedObject>,
        gap: Extent,
        bytes: Vec<Bytes>,
        crcs: &mut Vec<u64>,
    ) -> io::Result<()> {
        let file = self.file_for(object)?;
        let writing = self.core.disk.write_at(&file, gap.offset, bytes.clone());
        let summing = async {
            if crcs.is_empty() {
                crcs.extend(units(gap).map(|part| {
                    let mut digest = crc_fast::Digest::new(CRC);
                    for piece in cut(&bytes, part.offset - gap.offset, part.len) {
                        digest.update(&piece);
                    }
                    digest.finalize()
                }));
            }
        };
        block_on(join(writing, summing)).0
    }

    /// The object's file; made if nothing of it is there yet.
    fn file_for(&self, object: &Arc<CachedObject>) -> io::Result<DiskFile> {
        if !object.on_disk.read().extents.is_empty() {
            // A file made anew here would read as zeros where something is cached.
            let file = block_on(self.core.open(object));
            return file.ok_or_else(|| io::ErrorKind::NotFound.into());
        }
        if let Some(file) = object.on_disk.read().file().cloned() {
            return Ok(file);
        }
        let disk = &self.core.disk;
        let path = object.path(&self.core.objects_dir);
        let file = match block_on(disk.open(&path, OpenHow::Create)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(dir) = path.parent() {
                    block_on(disk.make_dir(dir))?;
                }
                block_on(disk.open(&path, OpenHow::Create))?
            }
            result => result?,
        };
        Ok(self.core.files.keep(object, file))
    }

    fn bytes_were_taken(&mut self) {
        if std::mem::take(&mut self.ill) {
            tracing::info!("the cache's disk takes bytes again");
        }
    }

    fn bytes_were_refused(&mut self, refusal: &StoreRefusal) {
        self.core.counters.skip();
        // An object that fills the cache by itself is no illness of the disk.
        if matches!(refusal, StoreRefusal::NoRoom) || std::mem::replace(&mut self.ill, true) {
            return;
        }
        tracing::warn!(
            reason = %refusal,
            "the cache's disk takes no more bytes: going on without storing what is read"
        );
    }
}

/// `extent` cut at units.
fn units(extent: Extent) -> impl Iterator<Item = Extent> {
    let mut at = extent.offset;
    std::iter::from_fn(move || {
        let part = Extent::between(at, extent.end().min((at / UNIT + 1) * UNIT));
        at = part.end();
        (!part.is_empty()).then_some(part)
    })
}

/// `len` bytes of `pieces` after the first `skip`, without copying.
fn cut(pieces: &[Bytes], skip: u64, len: u64) -> Vec<Bytes> {
    let (mut skip, mut left) = (skip as usize, len as usize);
    let mut taken = Vec::new();
    for piece in pieces {
        let start = skip.min(piece.len());
        skip -= start;
        let end = piece.len().min(start + left);
        left -= end - start;
        if start < end {
            taken.push(piece.slice(start..end));
        }
        if left == 0 {
            break;
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_cover_an_extent_and_end_at_multiples() {
        let all: Vec<Extent> = units(Extent::between(UNIT - 1, 2 * UNIT + 5)).collect();
        assert_eq!(
            all,
            [
                Extent::between(UNIT - 1, UNIT),
                Extent::between(UNIT, 2 * UNIT),
                Extent::between(2 * UNIT, 2 * UNIT + 5),
            ]
        );
        assert_eq!(units(Extent::new(7, 0)).count(), 0);
    }

    #[test]
    fn cut_takes_across_pieces() {
        let pieces = [
            Bytes::from_static(b"abc"),
            Bytes::from_static(b"de"),
            Bytes::from_static(b"fgh"),
        ];
        for skip in 0..8 {
            for len in 0..=(8 - skip) {
                let taken = cut(&pieces, skip, len).concat();
                assert_eq!(taken, b"abcdefgh"[skip as usize..(skip + len) as usize]);
            }
        }
    }
}
