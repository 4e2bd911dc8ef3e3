//! A file's bytes: its size, and which extents lie in which buffer. What no extent covers is zero,
//! so a sparse file of a tebibyte costs nothing.
//!
//! A write lands in three ways. Where an open buffer lies already it is overwritten in place; where
//! one ends and has room it grows; the rest goes into a new buffer. New buffers double along a
//! sequential run, from one page up to the configured maximum, so small files cost little and
//! large ones have few extents.
//!
//! Memory is asked for before anything changes: [`Content::write`] changes all or nothing. Nothing
//! here waits.
//!
//! Holds true: an open buffer lies in the file once, as one extent that begins at its first byte.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::buffer::{Buffer, Found, PAGE, Paid, Piece, Room};
use super::pool::Pool;
use super::stage::Staged;
use crate::extent::{Extent, ExtentMap};

/// Asks for memory: at least so many bytes, better so many.
pub(crate) type Take<'a> = &'a mut dyn FnMut(u64, u64) -> Option<Arc<Paid>>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Content {
    size: u64,
    map: ExtentMap<Piece>,
    /// Buffers in memory and where in the file they were begun, the oldest first: the order of the
    /// spill. Some are gone already.
    age: VecDeque<(u64, Weak<Buffer>)>,
}

/// A file's bytes as they were: its extents share the buffers, which are frozen.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    /// In bytes.
    pub(crate) size: u64,
    map: ExtentMap<Piece>,
}

/// Memory that a write asked for in vain, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    /// What it holds at once.
    pub(crate) least: u64,
    /// With room to grow.
    pub(crate) liked: u64,
}

/// Staged bytes that a read still wants: they go to `[start, start + len)` of its buffer.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) staged: Arc<Staged>,
    pub(crate) skip: u64,
    pub(crate) start: usize,
    pub(crate) len: usize,
}

/// A buffer to spill.
#[derive(Debug)]
pub(crate) struct Aged {
    /// Where in the file it was begun.
    offset: u64,
    pub(crate) buffer: Arc<Buffer>,
    /// All of it.
    pub(crate) bytes: Bytes,
}

/// One step of a write, decided before anything changes. `extent` is the file's.
enum Step {
    Overwrite(Extent, Piece),
    Grow(Extent, Piece),
    Spare(Extent, Piece),
    /// A new buffer that can grow to `capacity`.
    New {
        extent: Extent,
        capacity: u64,
    },
}

impl Content {
    /// In bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// How many bytes are held: all but the holes.
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

    /// The byte before `offset`, if it was written.
    fn before(&self, offset: u64) -> Option<Piece> {
        let before = Extent::new(offset.checked_sub(1)?, 1);
        self.map.pieces(before).pop()?.1
    }

    /// Writes `data` at `offset`, new buffers from `pool`. `Err` if `take` has no memory; nothing
    /// has changed then.
    pub(crate) fn write(
        &mut self,
        offset: u64,
        data: &[u8],
        pool: &Arc<Pool>,
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
                Step::New { extent, capacity } => {
                    let paid = paid.as_ref().expect("a new buffer was paid for").clone();
                    let tight = extent.len.next_multiple_of(PAGE);
                    let capacity = if roomy { capacity } else { tight };
                    self.begin(extent, Buffer::open(capacity, paid, pool), data(extent));
                }
                Step::Overwrite(extent, piece) => {
                    piece.buffer.overwrite(piece.skip, data(extent));
                }
                Step::Grow(extent, last) => self.grow(extent, last, data(extent)),
                Step::Spare(extent, last) => {
                    let buffer = last.buffer.take_spare();
                    let buffer = buffer.expect("nobody else takes it under the file's lock");
                    self.begin(extent, buffer, data(extent));
                }
            }
        }
        self.size = self.size.max(extent.end());
        Ok(())
    }

    /// How a write to `extent` will land.
    fn steps(&self, extent: Extent, buffer_max: u64) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut fresh = Extent::new(extent.offset, 0);
        for (here, piece) in self.map.pieces(extent) {
            match piece {
                Some(piece) if piece.buffer.is_open() => {
                    self.land(fresh, buffer_max, &mut steps);
                    steps.push(Step::Overwrite(here, piece));
                    fresh = Extent::new(here.end(), 0);
                }
                _ => fresh.len += here.len,
            }
        }
        self.land(fresh, buffer_max, &mut steps);
        steps
    }

    /// How bytes that no open buffer holds will land.
    fn land(&self, mut fresh: Extent, buffer_max: u64, steps: &mut Vec<Step>) {
        if fresh.is_empty() {
            return;
        }
        let mut liked = 0;
        if let Some(before) = self.before(fresh.offset) {
            // A run goes on: each buffer is twice the one before.
            liked = before.buffer.capacity().saturating_mul(2);
            let (room, step): (u64, fn(Extent, Piece) -> Step) =
                match before.buffer.room_behind(before.skip) {
                    Room::Grow(room) => (room, Step::Grow),
                    Room::Spare(room) => (room, Step::Spare),
                    Room::None => (0, Step::Grow),
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
            steps.push(Step::New {
                extent: here,
                capacity,
            });
            fresh = Extent::between(here.end(), fresh.end());
        }
    }

    fn grow(&mut self, extent: Extent, last: Piece, data: &[u8]) {
        let len = last.buffer.append(data);
        let whole = Extent::between(extent.end() - len, extent.end());
        let buffer = last.buffer;
        self.map.insert(whole, Piece { buffer, skip: 0 });
    }

    fn begin(&mut self, extent: Extent, buffer: Arc<Buffer>, data: &[u8]) {
        buffer.append(data);
        self.age.push_back((extent.offset, Arc::downgrade(&buffer)));
        if self.age.len() > 2 * self.map.count() + 64 {
            self.age.retain(|(_, buffer)| buffer.strong_count() > 0);
        }
        self.map.insert(extent, Piece { buffer, skip: 0 });
    }

    /// Cuts the file, or adds zeros.
    pub(crate) fn set_size(&mut self, size: u64) {
        if size < self.size {
            if let Some(last) = self.before(size) {
                last.buffer.cut(last.skip + 1);
            }
            self.map.truncate(size);
        }
        self.size = size;
    }

    /// Gives up all bytes and shows `size` zeros.
    pub(crate) fn clear(&mut self, size: u64) {
        *self = Self {
            size,
            ..Self::default()
        };
    }

    /// Copies what lies at `offset` into `buf`, zeros in holes, and gives what is staged and has to
    /// be read from there. `buf` ends within the file.
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        for (extent, piece) in self.map.pieces(Extent::new(offset, buf.len() as u64)) {
            let start = (extent.offset - offset) as usize;
            let len = extent.len as usize;
            let Some(piece) = piece else {
                buf[start..start + len].fill(0);
                continue;
            };
            if let Some(staged) = piece
                .buffer
                .copy_to(piece.skip, &mut buf[start..start + len])
            {
                wanted.push(Wanted {
                    staged,
                    skip: piece.skip,
                    start,
                    len,
                });
            }
        }
        wanted
    }

    /// The file as it is now, unchanged by what is written later.
    pub(crate) fn seal(&self) -> Version {
        for (_, piece) in self.map.iter() {
            piece.buffer.freeze();
        }
        Version {
            size: self.size,
            map: self.map.clone(),
        }
    }

    /// What lies at `extent`, for sending. Freezes it.
    pub(crate) fn find(&self, extent: Extent) -> Vec<(Extent, Option<Found>)> {
        find(&self.map, extent)
    }

    /// The oldest buffers that are in memory and begin before `end`, up to the first that does not:
    /// some bytes of them at least unless there are no more, frozen.
    pub(crate) fn oldest(&mut self, bytes: u64, end: u64) -> Vec<Aged> {
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
                found.push(Aged {
                    offset,
                    buffer,
                    bytes,
                });
            }
        }
        found
    }

    /// Takes back buffers that could not be spilled.
    pub(crate) fn put_back(&mut self, buffers: Vec<Aged>) {
        for aged in buffers.iter().rev() {
            let buffer = Arc::downgrade(&aged.buffer);
            self.age.push_front((aged.offset, buffer));
        }
    }
}

impl Version {
    /// What lies at `extent`, for sending.
    pub(crate) fn find(&self, extent: Extent) -> Vec<(Extent, Option<Found>)> {
        find(&self.map, extent)
    }

    /// What of it is in memory, in runs without gaps, each with what pays for it.
    pub(crate) fn in_memory(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (extent, piece) in self.map.iter() {
            let Found::Memory { bytes, paid } = piece.buffer.find(piece.skip, extent.len) else {
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
pub(crate) type Run = (Vec<(Extent, Bytes)>, Vec<Arc<Paid>>);

fn find(map: &ExtentMap<Piece>, extent: Extent) -> Vec<(Extent, Option<Found>)> {
    map.pieces(extent)
        .into_iter()
        .map(|(here, piece)| {
            let found = piece.map(|piece| piece.buffer.find(piece.skip, here.len));
            (here, found)
        })
        .collect()
}

/// The sum over the new buffers, each in whole pages.
fn sum(steps: &[Step], of: impl Fn(Extent, u64) -> u64) -> u64 {
    steps
        .iter()
        .map(|step| match step {
            Step::New { extent, capacity } => of(*extent, *capacity).next_multiple_of(PAGE),
            _ => 0,
        })
        .sum()
}
