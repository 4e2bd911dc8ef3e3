//! Was it us? A publish whose answer was lost may have made the object all the same, and the next
//! try would find "somebody else's" version there: a close() that fails with ESTALE though nobody
//! else touched the file.
//!
//! So the sealed version of such a try is kept, and before the next one the object is looked at
//! ([`super::lost`]). Where the store shows no more of it than its size, and its metadata are what was sent,
//! it is compared byte by byte. That costs a download, but only after a failure and only if there is
//! something new.

use super::lost::{self, Whose};
use crate::dirty::WriteError;
use crate::dirty::file::Inner;
use crate::dirty::state::Attempt;
use crate::extent::Extent;
use crate::object::ObjectId;
use crate::store::{Condition, Priority, StoreErrorKind};

/// A piece of the comparison, in bytes.
const COMPARE: u64 = 1 << 20;

impl Inner {
    /// Finds out whether a try without a clear answer succeeded, and if so takes it as published.
    /// Whether it did.
    pub(super) async fn confirm_attempt(&self) -> Result<bool, WriteError> {
        let (attempts, base, key) = {
            let state = self.state.lock();
            let base = match &state.condition {
                Condition::Matches(etag) => Some(etag.clone()),
                _ => None,
            };
            (state.attempts.clone(), base, state.key.clone())
        };
        for attempt in attempts.iter().rev() {
            let whose = lost::whose(&*self.writer.store, &key, &attempt.fingerprint).await?;
            let (Whose::Ours(shown) | Whose::Unclear(shown)) = &whose else {
                continue;
            };
            let id = ObjectId::new(key.clone(), shown.etag.clone());
            let likely =
                base.as_ref() != Some(&shown.etag) && shown.metadata.user == attempt.metadata.user;
            let certain = matches!(whose, Whose::Ours(_));
            if likely && (certain || self.is_same(&id, attempt).await?) {
                let size = attempt.version.size;
                self.state.lock().published(id, size, attempt.changes);
                self.abandon_upload().await;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the object has the bytes of the attempt.
    async fn is_same(&self, id: &ObjectId, attempt: &Attempt) -> Result<bool, WriteError> {
        let size = attempt.version.size;
        let mut at = 0;
        while at < size {
            let extent = Extent::between(at, size.min(at + COMPARE));
            let fetched = self.writer.store.get(id, extent, Priority::Upload).await;
            let mut fetched = match fetched {
                Err(error) if error.kind == StoreErrorKind::Changed => return Ok(false),
                fetched => fetched?,
            };
            let ours = self.payload(attempt.version.find(extent)).await?;
            let mut ours = ours.bytes.iter().flat_map(|bytes| bytes.iter());
            while let Some(theirs) = fetched.body.chunk().await? {
                if !theirs.iter().all(|byte| ours.next() == Some(byte)) {
                    return Ok(false);
                }
            }
            if ours.next().is_some() {
                return Ok(false);
            }
            at = extent.end();
        }
        Ok(true)
    }
}
