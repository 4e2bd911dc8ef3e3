//! Checksums of objects and parts, as S3 names and spells them.
//!
//! A client may announce any of five algorithms in a header, or in the trailer that follows the body; the store
//! computes what was announced while the bytes arrive and refuses the request if one differs, before anything is
//! replaced. Where nothing was announced the store computes CRC64NVME by itself, as AWS does, so that every object has
//! one. Values are base64 of the big-endian digest.
//!
//! An object made of parts has either a checksum of its whole bytes (CRC only: joined from the parts' values without
//! reading the bytes again) or a composite one: the digest of the parts' digests with `-COUNT` behind it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use crc_fast::CrcAlgorithm;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};

/// A checksum algorithm of S3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Crc32,
    Crc32c,
    Crc64nvme,
    Sha1,
    Sha256,
}

impl Algorithm {
    /// Every algorithm.
    pub(super) const ALL: [Self; 5] = [
        Self::Crc32,
        Self::Crc32c,
        Self::Crc64nvme,
        Self::Sha1,
        Self::Sha256,
    ];

    /// The value of `x-amz-checksum-algorithm`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    /// The header or trailer that carries the value.
    pub(super) fn header(self) -> &'static str {
        match self {
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Crc64nvme => "x-amz-checksum-crc64nvme",
            Self::Sha1 => "x-amz-checksum-sha1",
            Self::Sha256 => "x-amz-checksum-sha256",
        }
    }

    /// The algorithm of a name in any case.
    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
    }

    fn digest_len(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// True if `value` could be a digest of this algorithm.
    pub(super) fn is_valid(self, value: &str) -> bool {
        BASE64
            .decode(value)
            .is_ok_and(|digest| digest.len() == self.digest_len())
    }

    fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Self::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Self::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Self::Crc64nvme => Some(CrcAlgorithm::Crc64Nvme),
            Self::Sha1 | Self::Sha256 => None,
        }
    }

    /// True if values of parts can be joined to the value of the whole.
    pub(super) fn can_join(self) -> bool {
        self.crc().is_some()
    }

    /// The value of the whole from the values and lengths of its parts; `None` if one is missing or not joinable.
    pub(super) fn join<'a>(
        self,
        parts: impl IntoIterator<Item = (Option<&'a str>, u64)>,
    ) -> Option<String> {
        let crc = self.crc()?;
        let mut whole: Option<u64> = None;
        for (value, len) in parts {
            let digest = BASE64.decode(value?).ok()?;
            let part = digest
                .iter()
                .fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
            whole = Some(match whole {
                None => part,
                Some(before) => crc_fast::checksum_combine(crc, before, part, len),
            });
        }
        let whole = whole?.to_be_bytes();
        Some(BASE64.encode(&whole[8 - self.digest_len()..]))
    }

    /// The composite value: the digest of the parts' digests, and how many they were.
    pub(super) fn compose<'a>(
        self,
        parts: impl IntoIterator<Item = Option<&'a str>>,
    ) -> Option<String> {
        let mut hasher = Hasher::new([self]);
        let mut count = 0;
        for value in parts {
            hasher.update(&BASE64.decode(value?).ok()?);
            count += 1;
        }
        let sums = hasher.finish().sums;
        sums.value(self).map(|value| format!("{value}-{count}"))
    }
}

/// The known checksums of some bytes, in base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) crc32: Option<String>,
    pub(super) crc32c: Option<String>,
    pub(super) crc64nvme: Option<String>,
    pub(super) sha1: Option<String>,
    pub(super) sha256: Option<String>,
    /// True if the values are composite ones.
    pub(super) composite: bool,
}

impl Sums {
    /// The value of one algorithm.
    pub(super) fn value(&self, algorithm: Algorithm) -> Option<&str> {
        match algorithm {
            Algorithm::Crc32 => self.crc32.as_deref(),
            Algorithm::Crc32c => self.crc32c.as_deref(),
            Algorithm::Crc64nvme => self.crc64nvme.as_deref(),
            Algorithm::Sha1 => self.sha1.as_deref(),
            Algorithm::Sha256 => self.sha256.as_deref(),
        }
    }

    /// Sets the value of one algorithm.
    pub(super) fn set(&mut self, algorithm: Algorithm, value: Option<String>) {
        match algorithm {
            Algorithm::Crc32 => self.crc32 = value,
            Algorithm::Crc32c => self.crc32c = value,
            Algorithm::Crc64nvme => self.crc64nvme = value,
            Algorithm::Sha1 => self.sha1 = value,
            Algorithm::Sha256 => self.sha256 = value,
        }
    }

    /// The algorithms that have a value.
    pub(super) fn algorithms(&self) -> impl Iterator<Item = Algorithm> {
        Algorithm::ALL
            .into_iter()
            .filter(|algorithm| self.value(*algorithm).is_some())
    }

    /// These sums with only `algorithm` kept.
    pub(super) fn only(&self, algorithm: Algorithm) -> Self {
        let mut only = Self {
            composite: self.composite,
            ..Self::default()
        };
        only.set(algorithm, self.value(algorithm).map(str::to_owned));
        only
    }
}

/// Reads the five checksum fields that requests have in common.
macro_rules! sums_of {
    ($input:expr) => {
        $crate::checksum::Sums {
            crc32: $input.checksum_crc32.clone(),
            crc32c: $input.checksum_crc32c.clone(),
            crc64nvme: $input.checksum_crc64nvme.clone(),
            sha1: $input.checksum_sha1.clone(),
            sha256: $input.checksum_sha256.clone(),
            composite: false,
        }
    };
}

/// Fills the five checksum fields that answers have in common.
macro_rules! put_sums {
    ($output:expr, $sums:expr) => {{
        let sums: &$crate::checksum::Sums = $sums;
        $output.checksum_crc32 = sums.crc32.clone();
        $output.checksum_crc32c = sums.crc32c.clone();
        $output.checksum_crc64nvme = sums.crc64nvme.clone();
        $output.checksum_sha1 = sums.sha1.clone();
        $output.checksum_sha256 = sums.sha256.clone();
    }};
}

pub(super) use {put_sums, sums_of};

/// What hashing a body found.
#[derive(Debug)]
pub(super) struct Hashes {
    /// The MD5, the ETag of a plain object in its raw form.
    pub(super) md5: [u8; 16],
    /// The checksums that were asked for.
    pub(super) sums: Sums,
}

/// Hashes a body while it arrives.
pub(super) struct Hasher {
    md5: Md5,
    sums: ChecksumHasher,
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hasher").finish_non_exhaustive()
    }
}

impl Hasher {
    /// Begins with MD5 and `algorithms`.
    pub(super) fn new(algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        let mut sums = ChecksumHasher::default();
        for algorithm in algorithms {
            match algorithm {
                Algorithm::Crc32 => sums.crc32 = Some(Crc32::new()),
                Algorithm::Crc32c => sums.crc32c = Some(Crc32c::new()),
                Algorithm::Crc64nvme => sums.crc64nvme = Some(Crc64Nvme::new()),
                Algorithm::Sha1 => sums.sha1 = Some(Sha1::new()),
                Algorithm::Sha256 => sums.sha256 = Some(Sha256::new()),
            }
        }
        Self {
            md5: Md5::new(),
            sums,
        }
    }

    /// Adds bytes.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.md5.update(bytes);
        self.sums.update(bytes);
    }

    /// The digests of all bytes added.
    pub(super) fn finish(self) -> Hashes {
        let sums = self.sums.finalize();
        Hashes {
            md5: self.md5.finalize(),
            sums: sums_of!(sums),
        }
    }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a string cannot fail");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(bytes: &[u8]) -> Sums {
        let mut hasher = Hasher::new(Algorithm::ALL);
        hasher.update(bytes);
        hasher.finish().sums
    }

    #[test]
    fn joined_crcs_equal_the_crc_of_the_whole() {
        let (a, b, c) = (vec![1u8; 1000], vec![2u8; 77], vec![3u8; 5]);
        let whole = sums(&[a.clone(), b.clone(), c.clone()].concat());
        for algorithm in Algorithm::ALL.into_iter().filter(|a| a.can_join()) {
            let parts = [&a, &b, &c].map(|part| (sums(part), part.len() as u64));
            let joined = algorithm.join(
                parts
                    .iter()
                    .map(|(sums, len)| (sums.value(algorithm), *len)),
            );
            assert_eq!(
                joined.as_deref(),
                whole.value(algorithm),
                "{}",
                algorithm.name()
            );
        }
    }

    #[test]
    fn values_are_spelled_as_s3_spells_them() {
        let sums = sums(b"hello");
        assert_eq!(sums.crc32.as_deref(), Some("NhCmhg=="));
        assert!(Algorithm::Crc32.is_valid("NhCmhg=="));
        assert!(!Algorithm::Crc64nvme.is_valid("NhCmhg=="));
        assert_eq!(Algorithm::parse("crc64Nvme"), Some(Algorithm::Crc64nvme));
    }

    #[test]
    fn a_composite_names_its_part_count() {
        let part = sums(b"hello");
        let composite = Algorithm::Sha256
            .compose([part.value(Algorithm::Sha256); 3])
            .unwrap();
        assert!(composite.ends_with("-3"));
        assert_eq!(Algorithm::Sha256.compose([None]), None);
    }
}
