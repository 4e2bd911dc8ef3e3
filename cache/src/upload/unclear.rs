//! Was it us? A publish whose answer was lost may have made the object all the same, and the next
//! try would find "somebody else's" version there: a close() that fails with ESTALE though nobody
//! else touched the file.
//!
//! So the sealed version of such a try is kept, and before the next one the object is looked at. If
//! it changed, and its size and metadata are what was sent, it is compared byte by byte: nothing
//! less tells ours from theirs, for an ETag need not be a checksum. That costs a download, but only
//! after a failure and only if there is something new. An equal object of somebody else's is taken
//! for ours; nobody can tell the difference.
//!
//! What came from the version before cannot be compared: that version is gone. There the size, the
//! metadata and the bytes that were written have to do, and the ETag where it tells how many parts
//! an object was made of.

use crate::dirty::WriteError;
use crate::dirty::buffer::PieceBytes;
use crate::dirty::file::WrittenFile;
use crate::dirty::state::UnclearPublish;
use crate::extent::Extent;
use crate::object::{ETag, ObjectId};
use crate::store::{Condition, Priority, StoreErrorKind};

/// A piece of the comparison, in bytes.
const COMPARE: u64 = 1 << 20;

impl WrittenFile {
    /// Finds out whether a try without a clear answer succeeded, and if so takes it as published.
    /// Whether it did.
    pub(super) async fn settle_unclear(&self) -> Result<bool, WriteError> {
        let (unclear, base, key) = {
            let state = self.state.lock();
            let base = match &state.condition {
                Condition::Matches(etag) => Some(etag.clone()),
                _ => None,
            };
            (state.unclear.clone(), base, state.key.clone())
        };
        let Some(unclear) = unclear else {
            return Ok(false);
        };
        let info = match self.writer.store.head(&key).await {
            Err(error) if error.kind == StoreErrorKind::NotFound => return Ok(false),
            info => info?,
        };
        let likely = base.as_ref() != Some(&info.etag)
            && info.size == unclear.version.size
            && info.metadata.user == unclear.metadata.user
            && may_be_of(unclear.parts, &info.etag);
        let id = ObjectId::new(key, info.etag);
        if !likely || !self.is_same(&id, &unclear).await? {
            return Ok(false);
        }
        self.state.lock().published_unclear(id);
        self.abandon_upload().await;
        Ok(true)
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

/// Whether an object with this ETag can have been made of so many parts, or in one request if of none.
/// S3 and most others end the ETag of an object that was made of N parts with `-N`.
fn may_be_of(parts: usize, etag: &ETag) -> bool {
    let text = etag.as_str().trim_matches('"');
    let named = text
        .rsplit_once('-')
        .and_then(|(hash, count)| Some((hash, count.parse::<usize>().ok()?)))
        .filter(|(hash, _)| hash.len() == 32 && hash.bytes().all(|it| it.is_ascii_hexdigit()));
    match named {
        Some((_, count)) => count == parts,
        None => true,
    }
}
