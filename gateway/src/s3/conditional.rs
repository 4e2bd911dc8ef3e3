//! How a write with a condition is sent, be it a put, a completion or a copy.
//!
//! Where the endpoint ignores the condition, the target is looked at first and the write is sent without; one
//! that refuses the first condition it meets (501) is treated so from then on. Between the look and the write
//! somebody else may write: that gap cannot be closed here.
//!
//! A condition that fails after an attempt whose answer was lost may have failed because that attempt won. It
//! is not decided here whether it did: the error says how the object would be known (`StoreError::lost`), and
//! the cache's `upload::lost` looks.

use std::future::Future;

use ackfs_cache::object::{ETag, Key};
use ackfs_cache::store::{Condition, Fingerprint, StoreError, StoreErrorKind, StoreResult};

use super::conditions::Honoured;
use super::core::Core;
use super::error::RequestFailure;
use super::request::CallEnd;

/// What is to be written where, and under which condition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Write<'a> {
    pub(super) key: &'a Key,
    pub(super) condition: &'a Condition,
    /// Whether the endpoint honours it on this kind of request.
    pub(super) honoured: Honoured,
}

impl Core {
    /// Sends `write` by `send`, which is told the condition to put on the request. `ours` is how the object is
    /// known that it makes.
    ///
    /// # Errors
    /// `Changed` if the condition does not hold, with `lost` as said above; those of `send`.
    pub(super) async fn write_under<S, F>(
        &self,
        write: Write<'_>,
        ours: impl FnOnce() -> Fingerprint,
        mut send: S,
    ) -> StoreResult<ETag>
    where
        S: FnMut(Condition) -> F,
        F: Future<Output = CallEnd<ETag>>,
    {
        let Write { key, condition, .. } = write;
        let mut sent = condition.clone();
        if write.honoured == Honoured::No {
            self.check_target(key, condition).await?;
            sent = Condition::None;
        }
        let mut ended = send(sent.clone()).await;
        if let Err(failure) = &ended.result
            && failure.status == Some(501)
            && sent != Condition::None
            && self.conditions.refused()
        {
            self.check_target(key, condition).await?;
            sent = Condition::None;
            ended = send(sent.clone()).await.after(ended.unsure);
        }
        let CallEnd { result, unsure } = ended;
        result.map_err(|failure| {
            // A completion that won has taken its upload away, and nobody else could have completed it.
            let completed = failure.is_unknown_upload();
            let mut error = refusal(failure, &sent, unsure);
            error.lost = (unsure || completed).then(|| Box::new(ours()));
            error
        })
    }

    /// Looks at `key` before a write whose condition the endpoint would ignore.
    pub(super) async fn check_target(&self, key: &Key, condition: &Condition) -> StoreResult<()> {
        let there = match condition {
            Condition::None => return Ok(()),
            Condition::Absent | Condition::Matches(_) => self.head_if_there(key).await?,
        };
        let holds = match (condition, &there) {
            (Condition::None, _) | (Condition::Absent, None) => true,
            (Condition::Matches(wanted), Some(shown)) => {
                let now = shown.e_tag.as_deref();
                now.is_some_and(|etag| wanted.is_same(etag))
            }
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

/// What comes out of a write that failed, `Changed` if that is because `condition` does not hold.
fn refusal(failure: RequestFailure, condition: &Condition, unsure: bool) -> StoreError {
    let refused = match (failure.error.kind, condition) {
        (_, Condition::None) => false,
        (StoreErrorKind::Changed, _) => true,
        // S3 answers If-Match on a key that is not there with 404.
        (StoreErrorKind::NotFound, Condition::Matches(_)) => !failure.is_unknown_upload(),
        _ => false,
    };
    let mut error = failure.error;
    if refused {
        error.kind = StoreErrorKind::Changed;
        if !unsure {
            error.message = format!("somebody else's version is there: {}", error.message);
        }
    }
    error
}
