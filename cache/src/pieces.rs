//! Bytes of an object as a connection gave them: a list of pieces in order, each with its offset in the
//! object, without overlap, possibly with gaps. They are not joined, so bytes are copied once, into the
//! reader's buffer.

use bytes::Bytes;

use crate::extent::{Extent, ExtentMap};

/// A piece and its offset in the object.
pub(crate) type PlacedPiece = (u64, Bytes);

/// A list of pieces that never changes; putting more bytes into it makes a new one.
#[derive(Debug, Default)]
pub struct PieceList {
    list: Vec<PlacedPiece>,
    bytes: u64,
}

impl PieceList {
    /// Of pieces in order that do not overlap.
    pub fn new(list: Vec<PlacedPiece>) -> Self {
        let bytes = list.iter().map(|(_, piece)| piece.len() as u64).sum();
        Self { list, bytes }
    }

    /// How many bytes there are.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The pieces, each with its offset in the object.
    pub(crate) fn list(&self) -> &[PlacedPiece] {
        &self.list
    }

    /// Copies the bytes from `offset` on into `buf`, up to the first gap. Gives how many.
    pub fn copy(&self, offset: u64, buf: &mut [u8]) -> usize {
        let mut done = 0;
        for (start, piece) in &self.list[first(&self.list, offset)..] {
            let at = offset + done as u64;
            if *start > at || done == buf.len() {
                break;
            }
            let from = &piece[(at - start) as usize..];
            let len = from.len().min(buf.len() - done);
            buf[done..done + len].copy_from_slice(&from[..len]);
            done += len;
        }
        done
    }

    /// How many bytes follow `offset` without a gap, at most `len`.
    pub fn run(&self, offset: u64, len: u64) -> u64 {
        let mut at = offset;
        let end = offset.saturating_add(len);
        for (start, piece) in &self.list[first(&self.list, offset)..] {
            if *start > at || at >= end {
                break;
            }
            at = at.max(start + piece.len() as u64);
        }
        at.min(end) - offset
    }

    /// These with `newer` put over them.
    pub(crate) fn merged(&self, newer: &PieceList) -> PieceList {
        let mut map = ExtentMap::new();
        for (offset, piece) in self.list.iter().chain(&newer.list) {
            map.insert(Extent::new(*offset, piece.len() as u64), piece.clone());
        }
        PieceList::new(
            map.iter()
                .map(|(extent, piece)| (extent.offset, piece.clone()))
                .collect(),
        )
    }
}

/// The index of the first piece that ends after `offset`.
pub(crate) fn first(list: &[PlacedPiece], offset: u64) -> usize {
    list.partition_point(|(start, piece)| start + piece.len() as u64 <= offset)
}

/// The pieces of `extent`, all of which `list` has.
pub(crate) fn cut(list: &[PlacedPiece], extent: Extent) -> Vec<PlacedPiece> {
    let mut pieces = Vec::new();
    for (start, piece) in &list[first(list, extent.offset)..] {
        let whole = Extent::new(*start, piece.len() as u64);
        let Some(cut) = whole.intersect(extent) else {
            break;
        };
        let skip = (cut.offset - start) as usize;
        pieces.push((cut.offset, piece.slice(skip..skip + cut.len as usize)));
    }
    pieces
}

/// Copies of pieces in order, joined where one follows another: a gap stays a gap.
pub(crate) fn compact(pieces: &[PlacedPiece]) -> Vec<PlacedPiece> {
    runs(pieces, u64::MAX)
        .map(|run| {
            let len = run.iter().map(|(_, piece)| piece.len()).sum();
            let mut joined = Vec::with_capacity(len);
            for (_, piece) in run {
                joined.extend_from_slice(piece);
            }
            (run[0].0, joined.into())
        })
        .collect()
}

/// Pieces in order, grouped into runs without gaps, none of which begins pieces of two units.
pub(crate) fn runs(pieces: &[PlacedPiece], unit: u64) -> impl Iterator<Item = &[PlacedPiece]> {
    pieces.chunk_by(move |(a, bytes), (b, _)| {
        a.checked_add(bytes.len() as u64) == Some(*b) && a / unit == b / unit
    })
}

/// The bytes of a run and the extent that they are.
pub(crate) fn as_extent(run: &[PlacedPiece]) -> (Extent, Vec<Bytes>) {
    let bytes: Vec<Bytes> = run.iter().map(|(_, bytes)| bytes.clone()).collect();
    let len = bytes.iter().map(|bytes| bytes.len() as u64).sum();
    let offset = run.first().map_or(0, |(offset, _)| *offset);
    (Extent::new(offset, len), bytes)
}
