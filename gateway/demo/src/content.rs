//! The bytes of an object: immutable segments that readers share and nobody copies.
//!
//! A body arrives in pieces whose size the socket chose, and each piece keeps the whole read buffer of its connection
//! alive. So what arrives is copied once, into segments of exactly the room it needs (`Gather`); from then on an
//! object, its copies, the parts it was made of and every answer that is on the wire share these segments.
//! A ranged read clips the first and the last segment: reference counts move, bytes do not.

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use s3s::StdError;
use s3s::stream::{ByteStream, RemainingLength};

/// Room of a segment, in bytes: large enough that a `writev` of a few segments fills the socket, small enough that
/// the last one of a body whose length was not announced wastes little.
const SEGMENT_LEN: usize = 1024 * 1024;

/// Bytes that never change, shared by all who hold them.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    /// Each segment with the offset of its first byte; none is empty.
    segments: Arc<[(u64, Bytes)]>,
    len: u64,
}

impl Content {
    /// Joins segments in their order.
    pub(super) fn new(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        let mut len = 0;
        let mut segments = Vec::new();
        for piece in pieces {
            if !piece.is_empty() {
                let start = len;
                len += piece.len() as u64;
                segments.push((start, piece));
            }
        }
        Self {
            segments: segments.into(),
            len,
        }
    }

    /// Length in bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The segments of `range`, clipped to it; `range` must lie within the content.
    pub(super) fn slice(&self, range: Range<u64>) -> Vec<Bytes> {
        if range.is_empty() {
            return Vec::new();
        }
        let first = self
            .segments
            .partition_point(|(start, bytes)| start + bytes.len() as u64 <= range.start);
        self.segments[first..]
            .iter()
            .take_while(|(start, _)| *start < range.end)
            .map(|(start, bytes)| {
                let from = range.start.saturating_sub(*start) as usize;
                let to = (range.end - start).min(bytes.len() as u64) as usize;
                bytes.slice(from..to)
            })
            .collect()
    }

    /// All segments in order.
    pub(super) fn segments(&self) -> impl Iterator<Item = &Bytes> {
        self.segments.iter().map(|(_, bytes)| bytes)
    }

    /// A copy with one bit of the byte `at` flipped; the same if it is shorter.
    pub(super) fn with_a_bit_flipped(&self, at: u64) -> Self {
        let mut bytes = BytesMut::from(self.to_bytes());
        if let Some(byte) = bytes.get_mut(at as usize) {
            *byte ^= 1;
        }
        Self::new([bytes.freeze()])
    }

    /// One contiguous copy of everything; for inspection only.
    pub(super) fn to_bytes(&self) -> Bytes {
        if let [(_, only)] = &*self.segments {
            return only.clone();
        }
        let mut all = BytesMut::with_capacity(self.len as usize);
        self.segments()
            .for_each(|bytes| all.extend_from_slice(bytes));
        all.freeze()
    }
}

/// Collects a body into segments of exact room.
#[derive(Debug)]
pub(super) struct Gather {
    full: Vec<Bytes>,
    open: BytesMut,
    /// Bytes still announced; decides how much room the next segment gets.
    announced: usize,
}

impl Gather {
    /// Begins a body of which `announced` bytes are expected (0 if unknown).
    pub(super) fn new(announced: usize) -> Self {
        Self {
            full: Vec::new(),
            open: BytesMut::new(),
            announced,
        }
    }

    /// Appends bytes.
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.open.len() == self.open.capacity() {
                let room = match self.announced {
                    0 => bytes.len().clamp(16 * 1024, SEGMENT_LEN),
                    announced => announced.min(SEGMENT_LEN),
                };
                let full = std::mem::replace(&mut self.open, BytesMut::with_capacity(room));
                self.full.push(full.freeze());
            }
            let len = bytes.len().min(self.open.capacity() - self.open.len());
            self.open.extend_from_slice(&bytes[..len]);
            self.announced = self.announced.saturating_sub(len);
            bytes = &bytes[len..];
        }
    }

    /// Ends the body.
    pub(super) fn finish(mut self) -> Content {
        self.full.push(self.open.freeze());
        Content::new(self.full)
    }
}

/// Segments as the body of an answer.
#[derive(Debug)]
pub(super) struct Outgoing {
    queue: VecDeque<Bytes>,
    left: usize,
}

impl Outgoing {
    /// Will yield `segments` in order.
    pub(super) fn new(segments: Vec<Bytes>) -> Self {
        let left = segments.iter().map(Bytes::len).sum();
        Self {
            queue: segments.into(),
            left,
        }
    }
}

impl Stream for Outgoing {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.queue.pop_front();
        self.left -= next.as_ref().map_or(0, Bytes::len);
        Poll::Ready(next.map(Ok))
    }
}

impl ByteStream for Outgoing {
    fn remaining_length(&self) -> RemainingLength {
        RemainingLength::new_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_the_bytes_of_their_range() {
        let model: Vec<u8> = (0..=255).collect();
        let content = Content::new(model.chunks(7).map(Bytes::copy_from_slice));
        assert_eq!(content.len(), 256);
        for start in 0..=256u64 {
            for end in start..=256 {
                let got = content.slice(start..end).concat();
                assert_eq!(got, &model[start as usize..end as usize]);
            }
        }
    }

    #[test]
    fn an_announced_body_is_gathered_without_slack() {
        let mut gather = Gather::new(SEGMENT_LEN + 10);
        for _ in 0..SEGMENT_LEN / 2 + 5 {
            gather.push(b"ab");
        }
        let content = gather.finish();
        let lens: Vec<_> = content.segments().map(Bytes::len).collect();
        assert_eq!(lens, [SEGMENT_LEN, 10]);
    }

    #[test]
    fn an_unannounced_body_is_gathered_whole() {
        let mut gather = Gather::new(0);
        gather.push(&vec![7; 100_000]);
        gather.push(&[8; 3]);
        let all = gather.finish().to_bytes();
        assert_eq!(all.len(), 100_003);
        assert_eq!(&all[99_999..], &[7, 8, 8, 8]);
    }
}
