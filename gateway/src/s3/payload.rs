//! Bytes on their way to the store, and how the store can tell that they arrived whole.
//!
//! What is uploaded is a list of [`Bytes`]; it is sent as it is, never copied together. Its
//! checksum is computed once, before the first attempt, and travels as a header, so there is no
//! `aws-chunked` framing and no trailer. The header is signed with the request, and the body
//! itself is not hashed again for the signature (`UNSIGNED-PAYLOAD`): SHA-256 would cost more CPU
//! than all the rest of an upload. What that gives up: on plain HTTP somebody on the wire who
//! changes bytes on purpose could keep the CRC right. Over TLS nobody can; on plain HTTP the same
//! person reads and changes every GET anyway.
//!
//! With `--checksum when-required` the header is `Content-MD5`, which every store knows.
//!
//! A store may answer before it has taken the body: that it is full, say. The connection goes on with the
//! body all the same, for as long as the store likes, and nobody waits for it any more. So a body does not
//! own what it sends: with the [`Payload`] its bytes go, and the connection is closed.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use aws_sdk_s3::types::ChecksumAlgorithm;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use http_body::{Body, Frame, SizeHint};
use md5::{Digest, Md5};

use super::config::Checksum;

/// What is uploaded.
#[derive(Debug, Clone)]
pub(super) struct Payload {
    chunks: Arc<[Bytes]>,
    len: u64,
}

impl Payload {
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

    /// The checksum that `choice` asks for.
    pub(super) fn sum(&self, choice: Choice) -> Sum {
        let mut summing = Summing::new(choice);
        for chunk in self.chunks.iter() {
            summing.update(chunk);
        }
        summing.finish()
    }
}

/// A checksum of bytes that come one after the other.
pub(super) enum Summing {
    Crc64Nvme(crc_fast::Digest),
    Crc32(crc_fast::Digest),
    Md5(Md5),
}

impl Summing {
    pub(super) fn new(choice: Choice) -> Self {
        match choice {
            Choice::Crc64Nvme => Self::Crc64Nvme(crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme)),
            Choice::Crc32 => Self::Crc32(crc_fast::Digest::new(CrcAlgorithm::Crc32IsoHdlc)),
            Choice::Md5 => Self::Md5(Md5::new()),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc64Nvme(digest) | Self::Crc32(digest) => digest.update(bytes),
            Self::Md5(digest) => Digest::update(digest, bytes),
        }
    }

    pub(super) fn finish(self) -> Sum {
        match self {
            Self::Crc64Nvme(digest) => {
                Sum::Crc64Nvme(STANDARD.encode(digest.finalize().to_be_bytes()))
            }
            Self::Crc32(digest) => {
                Sum::Crc32(STANDARD.encode((digest.finalize() as u32).to_be_bytes()))
            }
            Self::Md5(digest) => Sum::Md5(STANDARD.encode(digest.finalize())),
        }
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

/// Which checksum is sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    Crc64Nvme,
    Crc32,
    Md5,
}

/// A checksum, base64 as its header has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sum {
    Crc64Nvme(String),
    Crc32(String),
    Md5(String),
}

impl Sum {
    /// Its header's name and value, for those that a part names again at completion.
    pub(super) fn named(&self) -> Option<(String, String)> {
        match self {
            Sum::Crc64Nvme(value) => Some((CRC64NVME.to_owned(), value.clone())),
            Sum::Crc32(value) => Some((CRC32.to_owned(), value.clone())),
            Sum::Md5(_) => None,
        }
    }
}

/// The header of a CRC-64/NVME.
pub(super) const CRC64NVME: &str = "x-amz-checksum-crc64nvme";

/// The header of a CRC-32.
pub(super) const CRC32: &str = "x-amz-checksum-crc32";

/// Which checksum to send, and what was learnt about the endpoint.
#[derive(Debug)]
pub(super) struct Policy {
    asked: Checksum,
    /// Whether a refusal may turn `Auto` into MD5: at custom endpoints only.
    may_fall_back: bool,
    /// Whether it did.
    fell_back: AtomicBool,
}

impl Policy {
    pub(super) fn new(asked: Checksum, custom_endpoint: bool) -> Self {
        Self {
            asked,
            may_fall_back: custom_endpoint && asked == Checksum::Auto,
            fell_back: AtomicBool::new(false),
        }
    }

    /// The algorithm to announce for a multipart upload. AWS refuses parts with a checksum that
    /// was not announced. MinIO takes them and checks them, but refuses copied parts, which have
    /// none, in an upload that announced one; so `Auto` announces nothing at custom endpoints.
    pub(super) fn announced(&self, choice: Choice) -> Option<ChecksumAlgorithm> {
        match choice {
            _ if self.may_fall_back => None,
            Choice::Crc64Nvme => Some(ChecksumAlgorithm::Crc64Nvme),
            Choice::Crc32 => Some(ChecksumAlgorithm::Crc32),
            Choice::Md5 => None,
        }
    }

    pub(super) fn choice(&self) -> Choice {
        match self.asked {
            Checksum::Auto if self.fell_back.load(Relaxed) => Choice::Md5,
            Checksum::Auto | Checksum::Crc64Nvme => Choice::Crc64Nvme,
            Checksum::Crc32 => Choice::Crc32,
            Checksum::WhenRequired => Choice::Md5,
        }
    }

    /// Whether a refusal of `used` is worth a second try with [`Choice::Md5`].
    pub(super) fn may_fall_back(&self, used: Choice) -> bool {
        self.may_fall_back && used != Choice::Md5
    }

    /// Takes note that the endpoint took without the newer header what it had refused with it.
    pub(super) fn fall_back(&self) {
        if !self.fell_back.swap(true, Relaxed) {
            tracing::warn!(
                "the endpoint refuses CRC-64/NVME checksums; uploads carry Content-MD5 from now \
                 on, as with --checksum when-required"
            );
        }
    }
}

/// `digest` in hexadecimal, as ETags have it.
pub(super) fn hex(digest: &[u8]) -> String {
    use std::fmt::Write;

    digest.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

/// The MD5 of a part or a plain object, if that is what `etag` is.
pub(super) fn md5_of_etag(etag: &str) -> Option<[u8; 16]> {
    let text = etag.trim_matches('"');
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    let mut digest = [0; 16];
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(digest)
}

/// The ETag, without quotes, that S3 gives an object made of parts with these MD5s.
pub(super) fn multipart_etag(parts: &[[u8; 16]]) -> String {
    let mut digest = Md5::new();
    for part in parts {
        digest.update(part);
    }
    format!("{}-{}", hex(&digest.finalize()), parts.len())
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn payload() -> Payload {
        Payload::new(vec![
            Bytes::from_static(b"1234"),
            Bytes::new(),
            Bytes::from_static(b"56789"),
        ])
    }

    #[test]
    fn sums_of_chunks_are_the_sums_of_the_whole() {
        // Check values of the CRC catalogue for "123456789", big endian, base64.
        assert_eq!(
            payload().sum(Choice::Crc64Nvme),
            Sum::Crc64Nvme(STANDARD.encode(0xae8b_1486_0a79_9888_u64.to_be_bytes()))
        );
        assert_eq!(
            payload().sum(Choice::Crc32),
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
            Payload::new(vec![]).body().into_inner().content_length(),
            Some(0)
        );
    }

    #[test]
    fn an_etag_is_an_md5_only_if_it_looks_like_one() {
        let md5 = md5_of_etag("\"25f9e794323b453885f5181f1b624d0b\"").unwrap();
        assert_eq!(hex(&md5), "25f9e794323b453885f5181f1b624d0b");
        assert_eq!(md5_of_etag("\"25f9e794323b453885f5181f1b624d0b-2\""), None);
        assert_eq!(md5_of_etag("\"éééééééééééééééé\""), None);
        assert_eq!(md5_of_etag("\"zzf9e794323b453885f5181f1b624d0b\""), None);
    }
}
