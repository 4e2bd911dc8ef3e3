//! Whose object is there after an answer was lost.
//!
//! A write with a condition was sent, its answer never came, the repeated write fails because the
//! condition no longer holds: either somebody else was faster, or our own first attempt had won.
//! HEAD tells. The object there is ours if it has our size and our checksum, or our ETag where
//! that is the MD5 of the bytes (a plain object) or of the parts' MD5s (a multipart one).
//!
//! That is asked only after an attempt that was left unsure. Without one, an object that is there
//! is somebody else's even if its bytes are the same: two programs that each create an empty lock
//! file must not both be told that theirs is the one.
//!
//! A call may also end unsure: the store was away until the time limit. The caller keeps its bytes
//! and tries again later, with the condition it had. [`Remembered`] holds what such a call tried to
//! write, so that the later call knows its predecessor's object for ours; if the bytes are others by
//! now, it replaces that object and no other.

use std::collections::{HashMap, VecDeque};

use ackfs_cache::object::{ETag, Key};
use ackfs_cache::store::{Condition, Part, StoreError, StoreErrorKind, StoreResult};
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::types::ChecksumType;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crc_fast::CrcAlgorithm;
use parking_lot::Mutex;

use super::core::{Core, etag, same_etag};
use super::error::Failure;
use super::payload::{CRC64NVME, Choice, Payload, Sum, hex, md5_of_etag, multipart_etag};

/// How many keys are remembered; the oldest is forgotten first.
const REMEMBERED_MAX: usize = 1024;

/// How an object is known again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fingerprint {
    size: u64,
    /// Its ETag, without quotes, if the store makes ETags of MD5s.
    etag: Option<String>,
    /// The CRC-64/NVME of all of it, as the store shows it.
    crc64nvme: Option<String>,
}

impl Fingerprint {
    /// Of a plain object with these bytes.
    pub(super) fn of_payload(payload: &Payload) -> Self {
        let crc64nvme = match payload.sum(Choice::Crc64Nvme) {
            Sum::Crc64Nvme(value) => Some(value),
            Sum::Crc32(_) | Sum::Md5(_) => None,
        };
        Self {
            size: payload.len(),
            etag: Some(hex(&payload.md5())),
            crc64nvme,
        }
    }

    /// Of an object made of these parts.
    pub(super) fn of_parts(parts: &[Part]) -> Self {
        let mut parts: Vec<&Part> = parts.iter().collect();
        parts.sort_by_key(|part| part.number);
        let md5s: Option<Vec<_>> = parts
            .iter()
            .map(|part| md5_of_etag(part.etag.as_str()))
            .collect();
        Self {
            size: parts.iter().map(|part| part.size).sum(),
            etag: md5s.map(|md5s| multipart_etag(&md5s)),
            crc64nvme: combined(&parts),
        }
    }

    /// Of a server-side copy of the object that HEAD shows.
    pub(super) fn of_copy(source: &HeadObjectOutput) -> Self {
        Self {
            size: source.content_length.unwrap_or(0).max(0) as u64,
            etag: source
                .e_tag
                .as_deref()
                .and_then(md5_of_etag)
                .map(|md5| hex(&md5)),
            crc64nvme: whole_crc(source).map(str::to_owned),
        }
    }

    /// Whether the object that HEAD shows is this one.
    pub(super) fn is(&self, shown: &HeadObjectOutput) -> bool {
        if shown.content_length != i64::try_from(self.size).ok() {
            return false;
        }
        if let (Some(ours), Some(theirs)) = (&self.crc64nvme, whole_crc(shown)) {
            return ours == theirs;
        }
        match (&self.etag, &shown.e_tag) {
            (Some(ours), Some(theirs)) => same_etag(ours, theirs),
            _ => false,
        }
    }
}

/// The CRC-64/NVME of the whole object, if HEAD shows one.
fn whole_crc(shown: &HeadObjectOutput) -> Option<&str> {
    shown
        .checksum_crc64_nvme
        .as_deref()
        .filter(|_crc| shown.checksum_type != Some(ChecksumType::Composite))
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

/// What calls that ended unsure tried to write, by key; bounded.
#[derive(Debug, Default)]
pub(super) struct Remembered(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    writes: HashMap<Key, Fingerprint>,
    /// Oldest first; may name keys that are no longer remembered.
    order: VecDeque<Key>,
}

impl Remembered {
    pub(super) fn remember(&self, key: &Key, write: Fingerprint) {
        let mut memory = self.0.lock();
        if memory.writes.insert(key.clone(), write).is_none() {
            memory.order.push_back(key.clone());
        }
        while memory.order.len() > REMEMBERED_MAX {
            if let Some(oldest) = memory.order.pop_front() {
                memory.writes.remove(&oldest);
            }
        }
    }

    pub(super) fn forget(&self, key: &Key) {
        let mut memory = self.0.lock();
        if memory.writes.remove(key).is_some() {
            memory.order.retain(|other| other != key);
        }
    }

    fn recall(&self, key: &Key) -> Option<Fingerprint> {
        self.0.lock().writes.get(key).cloned()
    }
}

/// What HEAD showed about a write whose condition failed.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Our object is there.
    Ours(ETag),
    /// The object there is what an earlier call of ours wrote, with other bytes.
    Predecessor(ETag),
    /// Somebody else's.
    Theirs(StoreError),
}

impl Core {
    /// Whose object is at `key`, now that a write of `ours` was refused by its condition.
    /// `unsure`: an earlier attempt of the same call may have won.
    pub(super) async fn whose(
        &self,
        key: &Key,
        ours: impl FnOnce() -> Fingerprint,
        unsure: bool,
        failure: Failure,
    ) -> StoreResult<Verdict> {
        let before = self.remembered.recall(key);
        let theirs = |why: &str| {
            let mut error = failure.error.duplicate();
            error.kind = StoreErrorKind::Changed;
            error.message = format!("{why}: {}", failure.error.message);
            Ok(Verdict::Theirs(error.with_key(key)))
        };
        if !unsure && before.is_none() {
            return theirs("somebody else's version is there");
        }
        let shown = match self.head_if_there(key).await {
            Ok(shown) => shown,
            Err(mut error) => {
                error.message = format!(
                    "cannot tell whether the write has won after an answer was lost: {}",
                    error.message
                );
                self.remembered.remember(key, ours());
                return Err(error);
            }
        };
        let Some(shown) = shown else {
            return theirs("the object was removed by somebody else");
        };
        let ours = ours();
        let is_before = before.as_ref().is_some_and(|before| before.is(&shown));
        if ours.is(&shown) && (unsure || is_before) {
            self.remembered.forget(key);
            return Ok(Verdict::Ours(etag(key, shown.e_tag.as_deref())?));
        }
        if is_before {
            return Ok(Verdict::Predecessor(etag(key, shown.e_tag.as_deref())?));
        }
        self.remembered.forget(key);
        theirs("somebody else's version is there")
    }

    /// Looks at `key` before a write whose condition the endpoint would ignore. Between this look
    /// and the write somebody else may write: that gap cannot be closed here.
    pub(super) async fn check_target(&self, key: &Key, condition: &Condition) -> StoreResult<()> {
        let there = match condition {
            Condition::None => return Ok(()),
            Condition::Absent | Condition::Matches(_) => self.head_if_there(key).await?,
        };
        let holds = match (condition, &there) {
            (Condition::None, _) | (Condition::Absent, None) => true,
            (Condition::Matches(wanted), Some(shown)) => shown
                .e_tag
                .as_deref()
                .is_some_and(|etag| same_etag(etag, wanted.as_str())),
            (Condition::Absent, Some(_)) | (Condition::Matches(_), None) => false,
        };
        if holds {
            return Ok(());
        }
        let now = there
            .and_then(|shown| shown.e_tag)
            .map_or_else(|| "nothing".to_owned(), |etag| format!("version {etag}"));
        Err(StoreError::new(
            StoreErrorKind::Changed,
            format!("{now} is there, seen before a write that needs {condition:?}"),
        )
        .with_key(key))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn shown(etag: &str, size: i64) -> HeadObjectOutput {
        HeadObjectOutput::builder()
            .e_tag(etag)
            .content_length(size)
            .build()
    }

    fn part(number: u32, body: &'static [u8]) -> Part {
        let payload = Payload::new(vec![Bytes::from_static(body)]);
        Part {
            number,
            etag: ETag::new(format!("\"{}\"", hex(&payload.md5()))),
            checksum: payload.sum(Choice::Crc64Nvme).named(),
            size: payload.len(),
        }
    }

    #[test]
    fn sums_of_parts_in_any_order_are_the_sum_of_the_whole() {
        let whole = Payload::new(vec![Bytes::from_static(b"helloworld!")]);
        let parts = [part(3, b"!"), part(1, b"hello"), part(2, b"world")];
        let joined = Fingerprint::of_parts(&parts);
        assert_eq!(joined.crc64nvme, Fingerprint::of_payload(&whole).crc64nvme);
        assert_eq!(joined.size, 11);
        assert!(joined.etag.unwrap().ends_with("-3"));
    }

    #[test]
    fn an_object_is_ours_by_size_and_sum_only() {
        let payload = Payload::new(vec![Bytes::from_static(b"hello")]);
        let ours = Fingerprint::of_payload(&payload);
        let md5 = "\"5d41402abc4b2a76b9719d911017c592\"";
        assert!(ours.is(&shown(md5, 5)));
        assert!(!ours.is(&shown(md5, 6)));
        assert!(!ours.is(&shown("\"other\"", 5)));
        // A checksum of the whole decides against the ETag; one of parts says nothing.
        let mut wrong = shown(md5, 5);
        wrong.checksum_crc64_nvme = Some("AAAAAAAAAAA=".to_owned());
        assert!(!ours.is(&wrong));
        wrong.checksum_type = Some(ChecksumType::Composite);
        assert!(ours.is(&wrong));
    }

    #[test]
    fn memory_is_bounded_and_forgets_the_oldest() {
        let remembered = Remembered::default();
        let payload = Payload::new(Vec::new());
        let key = |at: usize| Key::new(format!("key-{at}"));
        for at in 0..REMEMBERED_MAX + 10 {
            remembered.remember(&key(at), Fingerprint::of_payload(&payload));
        }
        assert!(remembered.recall(&key(9)).is_none());
        assert!(remembered.recall(&key(10)).is_some());
        remembered.forget(&key(10));
        assert!(remembered.recall(&key(10)).is_none());
        let memory = remembered.0.lock();
        assert_eq!(memory.writes.len(), memory.order.len());
    }
}
