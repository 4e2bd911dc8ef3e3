//! Was it us? A publish whose answer was lost may have made the object all the same, and the next
//! try would find "somebody else's" version there: a close() that fails with ESTALE though nobody
//! else touched the file.
//!
//! So the sealed version of such a try is kept, and before the next one the object is looked at
//! ([`super::lost`]). Where the store shows no more of it than its size, and its metadata are what was
//! sent, it is compared byte by byte. That costs a download, but only after a failure and only if there
//! is something new.
//!
//! What came from the version before cannot be compared: that version is gone. There the size, the
//! metadata and the bytes that were written have to do.

use super::lost::{self, Whose};
use crate::dirty::WriteError;
use crate::dirty::buffer::PieceBytes;
use crate::dirty::file::WrittenFile;
use crate::dirty::state::UnclearPublish;
use crate::extent::Extent;
use crate::object::ObjectId;
use crate::store::{Condition, Priority, StoreErrorKind};

/// A piece of the comparison, in bytes.
const COMPARE: u64 = 1 << 20;

impl WrittenFile {
    /// Finds out whether a try without a clear answer succeeded, and if so takes it as published.
    /// Whether one did.
    pub(super) async fn settle_unclear(&self) -> Result<bool, WriteError> {
        let (tries, base, key) = {
            let state = self.state.lock();
            let base = match &state.condition {
                Condition::Matches(etag) => Some(etag.clone()),
                _ => None,
            };
            (state.unclear.clone(), base, state.key.clone())
        };
        for unclear in tries.iter().rev() {
            let whose = lost::whose(&*self.writer.store, &key, &unclear.fingerprint).await?;
            let (Whose::Ours(shown) | Whose::Unclear(shown)) = &whose else {
                continue;
            };
            let id = ObjectId::new(key.clone(), shown.etag.clone());
            let likely =
                base.as_ref() != Some(&shown.etag) && shown.metadata.user == unclear.metadata.user;
            let certain = matches!(whose, Whose::Ours(_));
            if likely && (certain || self.is_same(&id, unclear).await?) {
                self.state.lock().published_unclear(id, unclear.changes);
                self.abandon_upload().await;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the object has the bytes that were sent.
    async fn is_same(&self, id: &ObjectId, unclear: &UnclearPublish) -> Result<bool, WriteError> {
        let size = unclear.version.size;
        let mut at = 0;
        while at < size {
            let step = Extent::between(at, size.min(at + COMPARE));
            for (extent, ours) in unclear.version.find(step) {
                // See the module: nobody has these any more but the object itself.
                let gone = matches!(ours, PieceBytes::Base(_) | PieceBytes::Sent);
                if !gone && !self.is_same_piece(id, extent, ours).await? {
                    return Ok(false);
                }
            }
            at = step.end();
        }
        Ok(true)
    }

    async fn is_same_piece(
        &self,
        id: &ObjectId,
        extent: Extent,
        ours: PieceBytes,
    ) -> Result<bool, WriteError> {
        let fetched = self.writer.store.get(id, extent, Priority::Upload).await;
        let mut fetched = match fetched {
            Err(error) if error.kind == StoreErrorKind::Changed => return Ok(false),
            fetched => fetched?,
        };
        let ours = self.request_body(vec![(extent, ours)]).await?;
        let mut ours = ours.bytes.iter().flat_map(|bytes| bytes.iter());
        while let Some(theirs) = fetched.body.chunk().await? {
            if !theirs.iter().all(|byte| ours.next() == Some(byte)) {
                return Ok(false);
            }
        }
        Ok(ours.next().is_none())
    }
}
