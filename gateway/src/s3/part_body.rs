//! The body of a part. One that is in memory is a [`BodyBytes`] like any other. One of which some
//! bytes are read while they are sent is read twice, once for the checksum, which goes ahead in a
//! header, and once for each attempt: a part that large costs memory for a few pieces only.
//!
//! A piece is read when the connection asks for the next one, so no more is held than the
//! connection buffers.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use ackfs_cache::store::{BoxFuture, PartBytes, StoreError, StoreErrorKind, StoreResult};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

use super::checksum::{Sum, SumKind, Summing};
use super::payload::{BodyBytes, Over};

/// What is uploaded as a part.
#[derive(Debug, Clone)]
pub(super) enum PartBody {
    /// In memory.
    Whole(BodyBytes),
    /// Read while it is sent.
    Read { pieces: Arc<[PartBytes]>, len: u64 },
}

impl PartBody {
    pub(super) fn new(mut pieces: Vec<PartBytes>) -> Self {
        let in_memory = |piece: &PartBytes| match piece {
            PartBytes::Here(bytes) => Some(bytes.clone()),
            PartBytes::Later(_) => None,
        };
        if let Some(chunks) = pieces.iter().map(in_memory).collect() {
            return Self::Whole(BodyBytes::new(chunks));
        }
        pieces.retain(|piece| !piece.is_empty());
        Self::Read {
            len: pieces.iter().map(PartBytes::len).sum(),
            pieces: pieces.into(),
        }
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Whole(payload) => payload.len(),
            Self::Read { len, .. } => *len,
        }
    }

    /// A body for one attempt, to be sent while `self` lives.
    pub(super) fn body(&self) -> ByteStream {
        match self {
            Self::Whole(payload) => payload.body(),
            Self::Read { pieces, len } => ByteStream::new(SdkBody::from_body_1_x(ReadBody {
                pieces: Arc::downgrade(pieces),
                next: 0,
                left: *len,
                reading: Mutex::new(None),
            })),
        }
    }

    /// The checksum that `kind` asks for. Waits for the disk.
    ///
    /// # Errors
    /// `Broken` if the bytes cannot be read.
    pub(super) async fn sum(&self, kind: SumKind) -> StoreResult<Sum> {
        match self {
            Self::Whole(payload) => Ok(payload.sum(kind)),
            Self::Read { pieces, .. } => {
                let mut summing = Summing::new(kind);
                for piece in pieces.iter() {
                    summing.update(&piece.bytes().await?);
                }
                Ok(summing.finish())
            }
        }
    }
}

/// The pieces of a part, one frame each.
struct ReadBody {
    pieces: Weak<[PartBytes]>,
    next: usize,
    left: u64,
    /// The next piece on its way. Locked by nobody but its owner: the lock only makes it `Sync`.
    reading: Mutex<Option<BoxFuture<'static, StoreResult<Bytes>>>>,
}

impl Body for ReadBody {
    type Data = Bytes;
    type Error = StoreError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StoreError>>> {
        let this = &mut *self;
        let Some(pieces) = this.pieces.upgrade() else {
            let over = StoreError::new(StoreErrorKind::Broken, Over.to_string());
            return Poll::Ready((this.left > 0).then_some(Err(over)));
        };
        let Some(piece) = pieces.get(this.next) else {
            return Poll::Ready(None);
        };
        let reading = this.reading.get_mut().get_or_insert_with(|| {
            let piece = piece.clone();
            Box::pin(async move { piece.bytes().await })
        });
        let Poll::Ready(read) = reading.as_mut().poll(cx) else {
            return Poll::Pending;
        };
        *this.reading.get_mut() = None;
        this.next += 1;
        this.left -= piece.len();
        Poll::Ready(Some(read.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
