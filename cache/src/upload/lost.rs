//! Was the lost answer ours?
//!
//! A write with a condition was sent, its answer never came, and sent again it fails, because the condition
//! no longer holds: either somebody else was faster, or our own first attempt had won. And a call may end
//! without any answer, and the next one meets what it left behind. An implementer of the store says when that
//! may be so, by a [`Fingerprint`] in its error; this file alone decides.
//!
//! HEAD tells: the object there is ours if it has our size and our checksum, or our ETag where that is an MD5.
//! Where the store shows neither, only the bytes tell, and who still has them compares them (`attempt`).
//!
//! None of this is asked without a lost answer. An object that is there is then somebody else's even if its
//! bytes are the same: two programs that each create an empty lock file must not both be told that theirs is
//! the one. After a lost answer an equal object of somebody else's is taken for ours; nobody can tell them apart.

use crate::object::{ETag, Key};
use crate::store::{Fingerprint, ObjectInfo, ObjectStore, StoreError, StoreErrorKind, StoreResult};

/// Whose object is at the key of a write whose answer was lost.
#[derive(Debug)]
pub enum Whose {
    /// The write's own.
    Ours(ObjectInfo),
    /// It has the right size, and the store shows nothing else to know it by.
    Unclear(ObjectInfo),
    /// Somebody else's.
    Theirs,
    /// There is none.
    Nobodys,
}

/// Looks whose object is at `key` after a write of `ours` whose answer was lost. Waits for the store.
///
/// # Errors
/// Those of a HEAD; that there is no object is none.
pub async fn whose(store: &dyn ObjectStore, key: &Key, ours: &Fingerprint) -> StoreResult<Whose> {
    let shown = match store.head(key).await {
        Err(error) if error.kind == StoreErrorKind::NotFound => return Ok(Whose::Nobodys),
        shown => shown?,
    };
    Ok(match ours.fits(&shown) {
        Some(true) => Whose::Ours(shown),
        Some(false) => Whose::Theirs,
        None => Whose::Unclear(shown),
    })
}

/// What a put, a copy or a completion of `key` gave, made certain: if it was refused and an earlier attempt of
/// the same call may have won, looks whether it did. Waits for the store.
///
/// # Errors
/// That of the call, with its fingerprint only where it is still not clear whose object is there; that of the
/// look if it failed.
pub async fn confirm(
    store: &dyn ObjectStore,
    key: &Key,
    written: StoreResult<ETag>,
) -> StoreResult<ETag> {
    let mut refused = match written {
        Err(error) if error.is_refusal() && error.lost.is_some() => error,
        written => return written,
    };
    let Some(ours) = refused.lost.take() else {
        return Err(refused);
    };
    match whose(store, key, &ours).await {
        Ok(Whose::Ours(shown)) => return Ok(shown.etag),
        Ok(Whose::Unclear(_)) => refused.lost = Some(ours),
        Ok(Whose::Theirs) => refused.explain("somebody else's version is there"),
        Ok(Whose::Nobodys) => refused.explain("the object was removed by somebody else"),
        Err(mut error) => {
            error.explain("cannot tell whether the write has won after an answer was lost");
            error.lost = Some(ours);
            return Err(error);
        }
    }
    Err(refused)
}

impl StoreError {
    /// Whether the store refused because of what is there, or because it does not know the upload: what an
    /// earlier attempt that won brings about.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(
            self.kind,
            StoreErrorKind::Changed | StoreErrorKind::NotFound
        )
    }

    fn explain(&mut self, why: &str) {
        self.message = format!("{why}: {}", self.message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::store::{Condition, Metadata};

    fn refused(size: u64) -> StoreResult<ETag> {
        let mut error = StoreError::new(StoreErrorKind::Changed, "condition failed");
        error.lost = Some(Box::new(Fingerprint {
            size,
            etag: Some(ETag::new("00000001")),
            checksum: None,
        }));
        Err(error)
    }

    #[tokio::test]
    async fn a_refused_write_is_ours_only_if_its_object_is_there() {
        let store = MemoryStore::new();
        let key = Key::new("k");
        let error = confirm(&*store, &key, refused(4)).await.unwrap_err();
        assert!(error.message.contains("was removed"), "{error}");
        let etag = store.plant("k", "ours");
        assert_eq!(confirm(&*store, &key, refused(4)).await.unwrap(), etag);
        let error = confirm(&*store, &key, refused(5)).await.unwrap_err();
        assert!(
            error.lost.is_none() && error.message.contains("somebody else"),
            "{error}"
        );
        // Another version of the same size: only its bytes tell.
        store.plant("k", "thrs");
        let error = confirm(&*store, &key, refused(4)).await.unwrap_err();
        assert!(error.lost.is_some(), "{error}");
    }

    #[tokio::test]
    async fn without_a_lost_answer_nobody_looks() {
        let store = MemoryStore::new();
        let key = Key::new("k");
        store.plant("k", "");
        let (body, metadata) = (Vec::new(), Metadata::default());
        let put = store.put(&key, body, &metadata, &Condition::Absent).await;
        store.calls();
        let error = confirm(&*store, &key, put).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Changed);
        assert_eq!(store.calls(), []);
    }
}
