//! A file's bytes as layers: what was written lies over what stays of the base, the version in the
//! store that the file began with or was last published as; below both are zeros. A base costs
//! nothing until somebody asks for its bytes, and a sparse file of a tebibyte costs nothing at all.
//!
//! ```text
//! written      ####        ##      ##          pieces of buffers, by extent
//! base         ==========================      [0, kept) of one version in the store
//! zeros        ................................[0, size)
//! ```
//!
//! What stays of the base is always its beginning: a cut shortens it, and what is added after a cut
//! is zeros. Each piece carries the number of the change that made it. One that is published is the
//! same in the base; it stays as long as nobody needs its memory.
//!
//! A write lands in three ways. Where an open buffer lies already it is overwritten in place; where
//! one ends and has room it grows; the rest goes into a new buffer. New buffers double along a
//! sequential run, from one page up to the configured maximum, so small files cost little and
//! large ones have few extents.
//!
//! Memory is asked for before anything changes: [`Layers::write`] changes all or nothing. Nothing
//! here waits.
//!
//! Holds true: an open buffer lies in the file once, as one extent that begins at its first byte, and
//! was begun after the last seal; what stays of the base ends within the file.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::buffer::{BufferPiece, Elsewhere, PaidMemory, PieceBytes, TailRoom, WriteBuffer};
use super::pool::{PAGE, WriteBufferPool};
use crate::extent::{Extent, ExtentMap};
use crate::object::ObjectId;
use crate::plan::{FileSpan, SpanOrigin};

/// Asks for memory: at least so many bytes, better so many.
pub(crate) type Take<'a> = &'a mut dyn FnMut(u64, u64) -> Option<Arc<PaidMemory>>;

/// The version in the store that shines through where nothing was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BaseLayer {
    /// The version.
    pub(crate) id: ObjectId,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// How many bytes of its beginning belong to the file.
    pub(crate) kept: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    size: u64,
    map: ExtentMap<BufferPiece>,
    base: Option<BaseLayer>,
    /// Buffers in memory and where in the file they were begun, the oldest first: the order of the
    /// spill. Some are gone already.
    age: VecDeque<(u64, Weak<WriteBuffer>)>,
}

/// A file's bytes as they were: its extents share the buffers, which are frozen.
#[derive(Debug, Clone)]
pub(crate) struct SealedLayers {
    /// In bytes.
    pub(crate) size: u64,
    /// What shines through.
    pub(crate) base: Option<BaseLayer>,
    map: ExtentMap<BufferPiece>,
}

/// Memory that a write asked for in vain, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    /// What it holds at once.
    pub(crate) least: u64,
    /// With room to grow.
    pub(crate) liked: u64,
}

/// Bytes that a read still wants: they go to `[start, start + len)` of its buffer.
#[derive(Debug)]
pub(crate) struct MissingBytes {
    pub(crate) from: Elsewhere,
    pub(crate) start: usize,
    pub(crate) len: usize,
}

/// A buffer to spill.
#[derive(Debug)]
pub(crate) struct SpillBuffer {
    /// Where in the file it was begun.
    offset: u64,
    pub(crate) buffer: Arc<WriteBuffer>,
    /// All of it.
    pub(crate) bytes: Bytes,
}

/// One step of a write, decided before anything changes. `extent` is the file's.
enum WriteStep {
    Overwrite(Extent, BufferPiece),
    Grow(Extent, BufferPiece),
    Spare(Extent, BufferPiece),
    /// A new buffer that can grow to `capacity`.
    New {
        extent: Extent,
        capacity: u64,
    },
}

impl Layers {
    /// In bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// How many bytes are held here: all but the holes and what only the base has.
    pub(crate) fn covered(&self) -> u64 {
        self.map.covered()
    }

    /// How many extents there are.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.map.count()
    }

    /// Whether every byte of `extent` was written.
    pub(crate) fn covers(&self, extent: Extent) -> bool {
        self.map.covers(extent)
    }

    /// What shines through where nothing was written.
    pub(crate) fn base(&self) -> Option<&BaseLayer> {
        self.base.as_ref()
    }

    /// The extents in the base whose bytes are not here, in order.
    pub(crate) fn missing(&self) -> Vec<Extent> {
        let kept = self.base.as_ref().map_or(0, |base| base.kept);
        self.map.gaps(Extent::new(0, kept))
    }

    /// Whether bytes of the file are in the base alone.
    pub(crate) fn is_missing_some(&self) -> bool {
        let kept = self.base.as_ref().map_or(0, |base| base.kept);
        !self.map.covers(Extent::new(0, kept))
    }

    /// Whether the file has just the bytes of its base: nothing was written after the change
    /// `published`, and nothing cut or added.
    pub(crate) fn is_its_base(&self, published: u64) -> bool {
        let Some(base) = &self.base else {
            return false;
        };
        base.kept == self.size
            && base.size == self.size
            && self.map.iter().all(|(_, piece)| piece.change <= published)
    }

    /// The byte before `offset`, if it was written.
    fn before(&self, offset: u64) -> Option<BufferPiece> {
        let before = Extent::new(offset.checked_sub(1)?, 1);
        self.map.pieces(before).pop()?.1
    }

    /// Writes `data` at `offset` as the change of that number, new buffers from `pool`. `Err` if `take`
    /// has no memory; nothing has changed then.
    pub(crate) fn write(
        &mut self,
        offset: u64,
        data: &[u8],
        change: u64,
        pool: &Arc<WriteBufferPool>,
        take: Take<'_>,
    ) -> Result<(), Need> {
        let extent = Extent::new(offset, data.len() as u64);
        let steps = self.steps(extent, pool.buffer_max);
        let least = sum(&steps, |extent, _| extent.len);
        let liked = sum(&steps, |_, capacity| capacity);
        let paid = match least {
            0 => None,
            _ => Some(take(least, liked).ok_or(Need { least, liked })?),
        };
        // Less may be granted than was liked: no room to grow then.
        let roomy = paid.as_ref().is_some_and(|paid| paid.bytes() >= liked);
        for step in steps {
            let data = |extent: Extent| {
                let start = (extent.offset - offset) as usize;
                &data[start..][..extent.len as usize]
            };
            match step {
                WriteStep::New { extent, capacity } => {
                    let paid = paid.as_ref().expect("a new buffer was paid for").clone();
                    let tight = extent.len.next_multiple_of(PAGE);
                    let capacity = if roomy { capacity } else { tight };
                    let buffer = WriteBuffer::open(capacity, paid, pool);
                    self.begin(extent, buffer, data(extent), change);
                }
                WriteStep::Overwrite(extent, piece) => {
                    piece.buffer.overwrite(piece.skip, data(extent));
                }
                WriteStep::Grow(extent, last) => self.grow(extent, last, data(extent), change),
                WriteStep::Spare(extent, last) => {
                    let buffer = last.buffer.take_spare();
                    let buffer = buffer.expect("nobody else takes it under the file's lock");
                    self.begin(extent, buffer, data(extent), change);
                }
            }
        }
        self.size = self.size.max(extent.end());
        Ok(())
    }

    /// How a write to `extent` will land.
    fn steps(&self, extent: Extent, buffer_max: u64) -> Vec<WriteStep> {
        let mut steps = Vec::new();
        let mut fresh = Extent::new(extent.offset, 0);
        for (here, piece) in self.map.pieces(extent) {
            match piece {
                Some(piece) if piece.buffer.is_open() => {
                    self.land(fresh, buffer_max, &mut steps);
                    steps.push(WriteStep::Overwrite(here, piece));
                    fresh = Extent::new(here.end(), 0);
                }
                _ => fresh.len += here.len,
            }
        }
        self.land(fresh, buffer_max, &mut steps);
        steps
    }

    /// How bytes that no open buffer holds will land.
    fn land(&self, mut fresh: Extent, buffer_max: u64, steps: &mut Vec<WriteStep>) {
        if fresh.is_empty() {
            return;
        }
        let mut liked = 0;
        if let Some(before) = self.before(fresh.offset) {
            // A run goes on: each buffer is twice the one before.
            liked = before.buffer.capacity().saturating_mul(2);
            let (room, step): (u64, fn(Extent, BufferPiece) -> WriteStep) =
                match before.buffer.room_behind(before.skip) {
                    TailRoom::Grow(room) => (room, WriteStep::Grow),
                    TailRoom::Spare(room) => (room, WriteStep::Spare),
                    TailRoom::None => (0, WriteStep::Grow),
                };
            let head = Extent::new(fresh.offset, fresh.len.min(room));
            if !head.is_empty() {
                steps.push(step(head, before));
                fresh = Extent::between(head.end(), fresh.end());
            }
        }
        while !fresh.is_empty() {
            let here = Extent::new(fresh.offset, fresh.len.min(buffer_max));
            let capacity = liked.clamp(here.len, buffer_max).next_multiple_of(PAGE);
            steps.push(WriteStep::New {
                extent: here,
                capacity,
            });
            fresh = Extent::between(here.end(), fresh.end());
        }
    }

    fn grow(&mut self, extent: Extent, last: BufferPiece, data: &[u8], change: u64) {
        let len = last.buffer.append(data);
        let whole = Extent::between(extent.end() - len, extent.end());
        self.map
            .insert(whole, BufferPiece::new(last.buffer, change));
    }

    fn begin(&mut self, extent: Extent, buffer: Arc<WriteBuffer>, data: &[u8], change: u64) {
        buffer.append(data);
        self.age.push_back((extent.offset, Arc::downgrade(&buffer)));
        if self.age.len() > 2 * self.map.count() + 64 {
            self.age.retain(|(_, buffer)| buffer.strong_count() > 0);
        }
        self.map.insert(extent, BufferPiece::new(buffer, change));
    }

    /// Puts `data`, which is what the base holds at `offset`, where nothing else lies yet. `paid` is
    /// for all of it.
    pub(crate) fn fill(
        &mut self,
        offset: u64,
        data: &[u8],
        paid: &Arc<PaidMemory>,
        pool: &Arc<WriteBufferPool>,
    ) {
        let kept = self.base.as_ref().map_or(0, |base| base.kept);
        let extent = Extent::new(offset, data.len() as u64);
        for gap in self.map.gaps(extent) {
            let gap = Extent::between(gap.offset, gap.end().min(kept));
            if gap.is_empty() {
                continue;
            }
            let buffer = WriteBuffer::open(gap.len, paid.clone(), pool);
            let start = (gap.offset - offset) as usize;
            self.begin(gap, buffer.clone(), &data[start..][..gap.len as usize], 0);
            buffer.freeze();
        }
    }

    /// Cuts the file, or adds zeros.
    pub(crate) fn set_size(&mut self, size: u64) {
        if size < self.size {
            if let Some(last) = self.before(size) {
                last.buffer.cut(last.skip + 1);
            }
            self.map.truncate(size);
            if let Some(base) = &mut self.base {
                base.kept = base.kept.min(size);
            }
        }
        self.size = size;
    }

    /// The file is `base` over `size` bytes of zeros. What is held stays over it.
    pub(crate) fn set_base(&mut self, base: BaseLayer, size: u64) {
        debug_assert!(base.kept <= size && base.kept <= base.size);
        self.base = Some(base);
        self.size = size;
    }

    /// The same bytes are in the store as another version.
    pub(crate) fn move_base(&mut self, id: ObjectId) {
        if let Some(base) = &mut self.base {
            base.id = id;
        }
    }

    /// Gives up the pieces that the base has too, those of changes up to `published`. Whether there
    /// were any.
    pub(crate) fn drop_published(&mut self, published: u64) -> bool {
        if self.base.is_none() {
            return false;
        }
        let there = |piece: &BufferPiece| piece.change <= published;
        let extents: Vec<Extent> = self
            .map
            .iter()
            .filter_map(|(extent, piece)| there(piece).then_some(extent))
            .collect();
        for extent in &extents {
            self.map.remove(*extent);
        }
        !extents.is_empty()
    }

    /// Forgets pieces of which the store alone had the bytes: the base has them now.
    pub(crate) fn drop_sent(&mut self) {
        let sent = |piece: &BufferPiece| piece.buffer.is_sent_away();
        let extents = self.map.iter().filter(|(_, piece)| sent(piece));
        let extents: Vec<Extent> = extents.map(|(extent, _)| extent).collect();
        for extent in extents {
            self.map.remove(extent);
        }
    }

    /// The buffers in memory whose bytes all lie in what `sent` says that the store has, up to some
    /// bytes of them.
    pub(crate) fn sent_buffers(
        &self,
        bytes: u64,
        sent: impl Fn(Extent) -> bool,
    ) -> Vec<Arc<WriteBuffer>> {
        let mut found = Vec::new();
        let mut len = 0;
        for (extent, piece) in self.map.iter() {
            if len >= bytes {
                break;
            }
            let Some(held) = piece.buffer.memory_len() else {
                continue;
            };
            // A buffer is given up whole, so all of it has to be there, also what was cut away or
            // overwritten since.
            let start = extent.offset.checked_sub(piece.skip);
            if start.is_some_and(|start| sent(Extent::new(start, held))) {
                len += held;
                found.push(piece.buffer.clone());
            }
        }
        found
    }

    /// Makes one piece of neighbours of which the store alone has the bytes: a file of any size passes
    /// through with a few of them.
    pub(crate) fn join_sent(&mut self) {
        let mut runs: Vec<(Extent, BufferPiece)> = Vec::new();
        for (extent, piece) in self.map.iter() {
            if !piece.buffer.is_sent_away() {
                continue;
            }
            match runs.last_mut() {
                Some((run, joined)) if run.end() == extent.offset => {
                    run.len += extent.len;
                    joined.change = joined.change.max(piece.change);
                }
                _ => runs.push((extent, piece.clone())),
            }
        }
        for (run, joined) in runs {
            self.map.insert(run, joined);
        }
    }

    /// Whether some byte of `extent` was given up when a part took it to the store.
    pub(crate) fn is_sent_away(&self, extent: Extent) -> bool {
        let mut pieces = self.map.pieces(extent).into_iter();
        pieces.any(|(_, piece)| piece.is_some_and(|piece| piece.buffer.is_sent_away()))
    }

    /// Copies what lies at `offset` into `buf`, zeros in holes, and gives what is staged and has to
    /// be read from there. `buf` ends within the file.
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) -> Vec<MissingBytes> {
        let mut wanted = Vec::new();
        for (extent, piece) in self.map.pieces(Extent::new(offset, buf.len() as u64)) {
            let start = (extent.offset - offset) as usize;
            let len = extent.len as usize;
            let Some(piece) = piece else {
                self.read_below(extent, &mut buf[start..start + len], start, &mut wanted);
                continue;
            };
            let buf = &mut buf[start..start + len];
            if let Some(from) = piece.buffer.copy_to(piece.skip, buf) {
                wanted.push(MissingBytes { from, start, len });
            }
        }
        wanted
    }

    /// Reads where nothing was written: zeros, or what the base is to be asked for.
    fn read_below(
        &self,
        extent: Extent,
        buf: &mut [u8],
        start: usize,
        wanted: &mut Vec<MissingBytes>,
    ) {
        let kept = self.base.as_ref().map_or(0, |base| base.kept);
        let len = kept.saturating_sub(extent.offset).min(extent.len) as usize;
        if len > 0 {
            let from = Elsewhere::Base;
            wanted.push(MissingBytes { from, start, len });
        }
        buf[len..].fill(0);
    }

    /// The file as it is now, unchanged by what is written later.
    pub(crate) fn seal(&self) -> SealedLayers {
        for (_, piece) in self.map.iter() {
            piece.buffer.freeze();
        }
        SealedLayers {
            size: self.size,
            base: self.base.clone(),
            map: self.map.clone(),
        }
    }

    /// What lies at `extent`, for sending. Freezes it.
    pub(crate) fn find(&self, extent: Extent) -> Vec<(Extent, PieceBytes)> {
        find(&self.map, self.base.as_ref(), extent)
    }

    /// The oldest buffers that are in memory and begin before `end`, up to the first that does not:
    /// some bytes of them at least unless there are no more, frozen.
    pub(crate) fn oldest(&mut self, bytes: u64, end: u64) -> Vec<SpillBuffer> {
        let mut found = Vec::new();
        let mut len = 0;
        while len < bytes
            && let Some((offset, buffer)) = self.age.pop_front_if(|(offset, _)| *offset < end)
        {
            let Some(buffer) = buffer.upgrade() else {
                continue;
            };
            if let Some(bytes) = buffer.in_memory() {
                len += bytes.len() as u64;
                found.push(SpillBuffer {
                    offset,
                    buffer,
                    bytes,
                });
            }
        }
        found
    }

    /// Takes back buffers that could not be spilled.
    pub(crate) fn put_back(&mut self, buffers: Vec<SpillBuffer>) {
        for aged in buffers.iter().rev() {
            let buffer = Arc::downgrade(&aged.buffer);
            self.age.push_front((aged.offset, buffer));
        }
    }
}

impl SealedLayers {
    /// What lies at `extent`, for sending.
    pub(crate) fn find(&self, extent: Extent) -> Vec<(Extent, PieceBytes)> {
        find(&self.map, self.base.as_ref(), extent)
    }

    /// Whether some of its bytes are in parts of an upload under way, and nowhere else.
    pub(crate) fn is_sent_in_part(&self) -> bool {
        self.map
            .iter()
            .any(|(_, piece)| piece.buffer.is_sent_away())
    }

    /// Where its bytes come from, if all changes up to `published` are in the base. In order, without
    /// gaps, neighbours of one origin as one.
    pub(crate) fn spans(&self, published: u64) -> Vec<FileSpan> {
        let mut spans: Vec<FileSpan> = Vec::new();
        let kept = self.base.as_ref().map_or(0, |base| base.kept);
        let mut push = |extent: Extent, origin| match spans.last_mut() {
            _ if extent.is_empty() => {}
            Some(last) if last.origin == origin => last.extent.len += extent.len,
            _ => spans.push(FileSpan { extent, origin }),
        };
        let below = |extent: Extent, push: &mut dyn FnMut(Extent, SpanOrigin)| {
            let edge = kept.clamp(extent.offset, extent.end());
            push(Extent::between(extent.offset, edge), SpanOrigin::Base);
            push(Extent::between(edge, extent.end()), SpanOrigin::Zeros);
        };
        let mut at = 0;
        for (extent, piece) in self.map.iter() {
            below(Extent::between(at, extent.offset), &mut push);
            if piece.change <= published {
                below(extent, &mut push);
            } else {
                push(extent, SpanOrigin::Written);
            }
            at = extent.end();
        }
        below(Extent::between(at, self.size), &mut push);
        spans
    }

    /// What of it is in memory, in runs without gaps, each with what pays for it.
    pub(crate) fn in_memory(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (extent, piece) in self.map.iter() {
            let PieceBytes::Memory { bytes, paid } = piece.buffer.find(piece.skip, extent.len)
            else {
                continue;
            };
            let (piece, paid) = ((extent, bytes), paid);
            match runs.last_mut() {
                Some((run, pay)) if run.last().is_some_and(|it| it.0.end() == extent.offset) => {
                    run.push(piece);
                    if !pay.last().is_some_and(|last| Arc::ptr_eq(last, &paid)) {
                        pay.push(paid);
                    }
                }
                _ => runs.push((vec![piece], vec![paid])),
            }
        }
        runs
    }
}

/// Bytes in memory without a gap between them, and what pays for them.
pub(crate) type Run = (Vec<(Extent, Bytes)>, Vec<Arc<PaidMemory>>);

fn find(
    map: &ExtentMap<BufferPiece>,
    base: Option<&BaseLayer>,
    extent: Extent,
) -> Vec<(Extent, PieceBytes)> {
    let mut found = Vec::new();
    for (here, piece) in map.pieces(extent) {
        if let Some(piece) = piece {
            found.push((here, piece.buffer.find(piece.skip, here.len)));
            continue;
        }
        let kept = base.map_or(0, |base| base.kept);
        let edge = kept.clamp(here.offset, here.end());
        if let Some(base) = base.filter(|_| edge > here.offset) {
            let id = base.id.clone();
            found.push((Extent::between(here.offset, edge), PieceBytes::Base(id)));
        }
        if edge < here.end() {
            found.push((Extent::between(edge, here.end()), PieceBytes::Zeros));
        }
    }
    found
}

/// The sum over the new buffers, each in whole pages.
fn sum(steps: &[WriteStep], of: impl Fn(Extent, u64) -> u64) -> u64 {
    steps
        .iter()
        .map(|step| match step {
            WriteStep::New { extent, capacity } => of(*extent, *capacity).next_multiple_of(PAGE),
            _ => 0,
        })
        .sum()
}
