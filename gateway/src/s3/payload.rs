//! Bytes on their way to the store.
//!
//! What is uploaded is a list of [`Bytes`]; it is sent as it is, never copied together.
//!
//! A store may answer before it has taken the body: that it is full, say. The connection goes on with the
//! body all the same, for as long as the store likes, and nobody waits for it any more. So a body does not
//! own what it sends: with the [`BodyBytes`] its bytes go, and the connection is closed.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use md5::{Digest, Md5};

use super::checksum::{Sum, SumKind, Summing};

/// What is uploaded.
#[derive(Debug, Clone)]
pub(super) struct BodyBytes {
    chunks: Arc<[Bytes]>,
    len: u64,
}

impl BodyBytes {
    pub(super) fn new(mut chunks: Vec<Bytes>) -> Self {
        chunks.retain(|chunk| !chunk.is_empty());
        Self {
            len: chunks.iter().map(|chunk| chunk.len() as u64).sum(),
            chunks: chunks.into(),
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// A body for one attempt, to be sent while `self` lives. Nothing is copied.
    pub(super) fn body(&self) -> ByteStream {
        if self.len == 0 {
            return ByteStream::new(SdkBody::empty());
        }
        ByteStream::new(SdkBody::from_body_1_x(ChunkBody {
            chunks: Arc::downgrade(&self.chunks),
            next: 0,
            left: self.len,
        }))
    }

    /// The MD5 of all bytes: a plain object's ETag where the store does not encrypt by KMS.
    pub(super) fn md5(&self) -> [u8; 16] {
        let mut digest = Md5::new();
        for chunk in self.chunks.iter() {
            digest.update(chunk);
        }
        digest.finalize().into()
    }

    /// The checksum that `kind` asks for.
    pub(super) fn sum(&self, kind: SumKind) -> Sum {
        let mut summing = Summing::new(kind);
        for chunk in self.chunks.iter() {
            summing.update(chunk);
        }
        summing.finish()
    }
}

/// Nobody waits for the request any more, so its body ends.
#[derive(Debug, thiserror::Error)]
#[error("the request was answered before its body was sent")]
pub(super) struct Over;

/// The chunks of a payload, one frame each.
struct ChunkBody {
    chunks: Weak<[Bytes]>,
    next: usize,
    left: u64,
}

impl Body for ChunkBody {
    type Data = Bytes;
    type Error = Over;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Over>>> {
        let Some(chunks) = self.chunks.upgrade() else {
            return Poll::Ready((self.left > 0).then_some(Err(Over)));
        };
        let Some(chunk) = chunks.get(self.next).cloned() else {
            return Poll::Ready(None);
        };
        self.next += 1;
        self.left -= chunk.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use http_body_util::BodyExt;

    use super::super::checksum::hex;
    use super::*;

    fn payload() -> BodyBytes {
        BodyBytes::new(vec![
            Bytes::from_static(b"1234"),
            Bytes::new(),
            Bytes::from_static(b"56789"),
        ])
    }

    #[test]
    fn sums_of_chunks_are_the_sums_of_the_whole() {
        // Check values of the CRC catalogue for "123456789", big endian, base64.
        assert_eq!(
            payload().sum(SumKind::Crc64Nvme),
            Sum::Crc64Nvme(STANDARD.encode(0xae8b_1486_0a79_9888_u64.to_be_bytes()))
        );
        assert_eq!(
            payload().sum(SumKind::Crc32),
            Sum::Crc32(STANDARD.encode(0xcbf4_3926_u32.to_be_bytes()))
        );
        assert_eq!(hex(&payload().md5()), "25f9e794323b453885f5181f1b624d0b");
    }

    #[tokio::test]
    async fn a_body_says_its_length_and_gives_every_byte_every_time() {
        let payload = payload();
        for _attempt in 0..2 {
            let body = payload.body().into_inner();
            assert_eq!(body.content_length(), Some(9));
            assert_eq!(&body.collect().await.unwrap().to_bytes()[..], b"123456789");
        }
        assert_eq!(
            BodyBytes::new(vec![]).body().into_inner().content_length(),
            Some(0)
        );
    }
}
