//! How an object that was sent is known again: the [`Fingerprint`] of what would be there.

use ackfs_cache::object::ETag;
use ackfs_cache::store::{Fingerprint, Part};
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crc_fast::CrcAlgorithm;

use super::checksum::{CRC64NVME, Sum, SumKind, hex, md5_of_etag, multipart_etag};
use super::head::{size, whole_checksum};
use super::payload::BodyBytes;

/// Of a plain object with these bytes.
pub(super) fn of_payload(payload: &BodyBytes) -> Fingerprint {
    let checksum = match payload.sum(SumKind::Crc64Nvme) {
        Sum::Crc64Nvme(value) => Some(value),
        Sum::Crc32(_) | Sum::Md5(_) => None,
    };
    Fingerprint {
        size: payload.len(),
        etag: Some(quoted(&hex(&payload.md5()))),
        checksum,
    }
}

/// Of an object made of these parts.
pub(super) fn of_parts(parts: &[Part]) -> Fingerprint {
    let mut parts: Vec<&Part> = parts.iter().collect();
    parts.sort_by_key(|part| part.number);
    let md5s: Option<Vec<_>> = parts
        .iter()
        .map(|part| md5_of_etag(part.etag.as_str()))
        .collect();
    Fingerprint {
        size: parts.iter().map(|part| part.size).sum(),
        etag: md5s.map(|md5s| quoted(&multipart_etag(&md5s))),
        checksum: combined(&parts),
    }
}

/// Of a server-side copy of the object that HEAD shows.
pub(super) fn of_copy(source: &HeadObjectOutput) -> Fingerprint {
    let md5 = source.e_tag.as_deref().and_then(md5_of_etag);
    Fingerprint {
        size: size(source),
        etag: md5.map(|md5| quoted(&hex(&md5))),
        checksum: whole_checksum(source),
    }
}

fn quoted(etag: &str) -> ETag {
    ETag::new(format!("\"{etag}\""))
}

/// The CRC-64/NVME of the parts put together in this order, if each has one.
fn combined(parts: &[&Part]) -> Option<String> {
    let mut whole: Option<u64> = None;
    for part in parts {
        let (name, value) = part.checksum.as_ref()?;
        if name != CRC64NVME {
            return None;
        }
        let bytes: [u8; 8] = STANDARD.decode(value).ok()?.try_into().ok()?;
        let crc = u64::from_be_bytes(bytes);
        whole = Some(match whole {
            None => crc,
            Some(before) => {
                crc_fast::checksum_combine(CrcAlgorithm::Crc64Nvme, before, crc, part.size)
            }
        });
    }
    whole.map(|crc| STANDARD.encode(crc.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn part(number: u32, body: &'static [u8]) -> Part {
        let payload = BodyBytes::new(vec![Bytes::from_static(body)]);
        Part {
            number,
            etag: quoted(&hex(&payload.md5())),
            checksum: payload.sum(SumKind::Crc64Nvme).named(),
            size: payload.len(),
        }
    }

    #[test]
    fn sums_of_parts_in_any_order_are_the_sum_of_the_whole() {
        let whole = BodyBytes::new(vec![Bytes::from_static(b"helloworld!")]);
        let parts = [part(3, b"!"), part(1, b"hello"), part(2, b"world")];
        let joined = of_parts(&parts);
        assert_eq!(joined.checksum, of_payload(&whole).checksum);
        assert_eq!(joined.size, 11);
        assert!(joined.etag.unwrap().as_str().ends_with("-3\""));
    }

    #[test]
    fn a_plain_object_is_known_by_its_md5() {
        let payload = BodyBytes::new(vec![Bytes::from_static(b"hello")]);
        let etag = of_payload(&payload).etag.unwrap();
        assert_eq!(etag.as_str(), "\"5d41402abc4b2a76b9719d911017c592\"");
    }
}
