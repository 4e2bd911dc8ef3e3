//! Fields that several answers have in common, read as the rest of ackfs knows them.

use std::time::SystemTime;

use ackfs_cache::object::{ETag, Key};
use ackfs_cache::store::{StoreError, StoreErrorKind, StoreResult};
use aws_smithy_types::DateTime;

/// An answer's ETag.
pub(super) fn etag(key: &Key, etag: Option<&str>) -> StoreResult<ETag> {
    match etag {
        Some(etag) => Ok(ETag::new(etag)),
        None => Err(StoreError::new(
            StoreErrorKind::Broken,
            "the store's answer has no ETag, so versions cannot be told apart",
        )
        .with_key(key)),
    }
}

/// The time of an answer; the epoch if it has none.
pub(super) fn time(time: Option<&DateTime>) -> SystemTime {
    time.and_then(|time| SystemTime::try_from(*time).ok())
        .unwrap_or(SystemTime::UNIX_EPOCH)
}
