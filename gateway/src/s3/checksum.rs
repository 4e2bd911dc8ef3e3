//! Checksums: how the store can tell that bytes arrived whole.
//!
//! A checksum is computed once, before the first attempt, and travels as a header, so there is no
//! `aws-chunked` framing and no trailer. The header is signed with the request, and the body
//! itself is not hashed again for the signature (`UNSIGNED-PAYLOAD`): SHA-256 would cost more CPU
//! than all the rest of an upload. What that gives up: on plain HTTP somebody on the wire who
//! changes bytes on purpose could keep the CRC right. Over TLS nobody can; on plain HTTP the same
//! person reads and changes every GET anyway.
//!
//! With `--checksum when-required` the header is `Content-MD5`, which every store knows.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use aws_sdk_s3::types::ChecksumAlgorithm;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crc_fast::CrcAlgorithm;
use md5::{Digest, Md5};

use super::config::Checksum;

/// Which checksum is sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SumKind {
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

    /// CRC-64/NVME, CRC-32 and MD5, one of them filled.
    pub(super) fn columns(self) -> (Option<String>, Option<String>, Option<String>) {
        match self {
            Sum::Crc64Nvme(value) => (Some(value), None, None),
            Sum::Crc32(value) => (None, Some(value), None),
            Sum::Md5(value) => (None, None, Some(value)),
        }
    }
}

/// The header of a CRC-64/NVME.
pub(super) const CRC64NVME: &str = "x-amz-checksum-crc64nvme";

/// The header of a CRC-32.
pub(super) const CRC32: &str = "x-amz-checksum-crc32";

/// Which checksum to send, and what was learnt about the endpoint.
#[derive(Debug)]
pub(super) struct ChecksumPolicy {
    wanted: Checksum,
    /// Whether a refusal may turn `Auto` into MD5: at custom endpoints only.
    may_fall_back: bool,
    /// Whether it did.
    fell_back: AtomicBool,
}

impl ChecksumPolicy {
    pub(super) fn new(wanted: Checksum, custom_endpoint: bool) -> Self {
        Self {
            wanted,
            may_fall_back: custom_endpoint && wanted == Checksum::Auto,
            fell_back: AtomicBool::new(false),
        }
    }

    /// The algorithm to announce for a multipart upload. AWS refuses parts with a checksum that
    /// was not announced. MinIO takes them and checks them, but refuses copied parts, which have
    /// none, in an upload that announced one; so `Auto` announces nothing at custom endpoints.
    pub(super) fn announced(&self, kind: SumKind) -> Option<ChecksumAlgorithm> {
        match kind {
            _ if self.may_fall_back => None,
            SumKind::Crc64Nvme => Some(ChecksumAlgorithm::Crc64Nvme),
            SumKind::Crc32 => Some(ChecksumAlgorithm::Crc32),
            SumKind::Md5 => None,
        }
    }

    pub(super) fn kind(&self) -> SumKind {
        match self.wanted {
            Checksum::Auto if self.fell_back.load(Relaxed) => SumKind::Md5,
            Checksum::Auto | Checksum::Crc64Nvme => SumKind::Crc64Nvme,
            Checksum::Crc32 => SumKind::Crc32,
            Checksum::WhenRequired => SumKind::Md5,
        }
    }

    /// Whether a refusal of `used` is worth a second try with [`SumKind::Md5`].
    pub(super) fn may_fall_back(&self, used: SumKind) -> bool {
        self.may_fall_back && used != SumKind::Md5
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

/// A checksum of bytes that come one after the other.
pub(super) enum Summing {
    Crc64Nvme(crc_fast::Digest),
    Crc32(crc_fast::Digest),
    Md5(Md5),
}

impl Summing {
    pub(super) fn new(kind: SumKind) -> Self {
        match kind {
            SumKind::Crc64Nvme => Self::Crc64Nvme(crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme)),
            SumKind::Crc32 => Self::Crc32(crc_fast::Digest::new(CrcAlgorithm::Crc32IsoHdlc)),
            SumKind::Md5 => Self::Md5(Md5::new()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_is_an_md5_only_if_it_looks_like_one() {
        let md5 = md5_of_etag("\"25f9e794323b453885f5181f1b624d0b\"").unwrap();
        assert_eq!(hex(&md5), "25f9e794323b453885f5181f1b624d0b");
        assert_eq!(md5_of_etag("\"25f9e794323b453885f5181f1b624d0b-2\""), None);
        assert_eq!(md5_of_etag("\"éééééééééééééééé\""), None);
        assert_eq!(md5_of_etag("\"zzf9e794323b453885f5181f1b624d0b\""), None);
    }
}
