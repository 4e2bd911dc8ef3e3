//! How an object that a write of ours may have made is known again by what HEAD shows of it.

use super::ObjectInfo;
use crate::object::ETag;

/// What a write whose answer was lost would have made. An implementer of
/// [`ObjectStore`](super::ObjectStore) gives it with the error of the call; `upload::lost` compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// The object's size in bytes.
    pub size: u64,
    /// Its ETag, if that can be foretold: stores that do not encrypt by KMS make it of MD5s.
    pub etag: Option<ETag>,
    /// Its checksum, as [`ObjectInfo::checksum`] shows it, if it is known.
    pub checksum: Option<String>,
}

impl Fingerprint {
    /// Whether the object that HEAD shows has it; `None` if only the size is there to compare. A checksum
    /// of the whole object decides against the ETag, which need not be an MD5.
    pub fn fits(&self, shown: &ObjectInfo) -> Option<bool> {
        if shown.size != self.size {
            return Some(false);
        }
        if let (Some(ours), Some(theirs)) = (&self.checksum, &shown.checksum) {
            return Some(ours == theirs);
        }
        let ours = self.etag.as_ref()?;
        // An MD5 that differs tells nothing where ETags are made of something else.
        ours.is_same(shown.etag.as_str()).then_some(true)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::store::Metadata;

    const MD5: &str = "\"5d41402abc4b2a76b9719d911017c592\"";

    fn shown(etag: &str, size: u64, checksum: Option<&str>) -> ObjectInfo {
        ObjectInfo {
            etag: ETag::new(etag),
            size,
            checksum: checksum.map(str::to_owned),
            modified: SystemTime::UNIX_EPOCH,
            metadata: Metadata::default(),
        }
    }

    #[test]
    fn an_object_is_known_by_size_and_checksum_or_etag() {
        let ours = Fingerprint {
            size: 5,
            etag: Some(ETag::new(MD5)),
            checksum: Some("sum".to_owned()),
        };
        assert_eq!(ours.fits(&shown(MD5, 5, None)), Some(true));
        assert_eq!(
            ours.fits(&shown(MD5.trim_matches('"'), 5, None)),
            Some(true)
        );
        assert_eq!(ours.fits(&shown(MD5, 6, None)), Some(false));
        assert_eq!(ours.fits(&shown(MD5, 5, Some("other"))), Some(false));
        assert_eq!(ours.fits(&shown("\"kms\"", 5, Some("sum"))), Some(true));
        assert_eq!(ours.fits(&shown("\"kms\"", 5, None)), None);
    }
}
