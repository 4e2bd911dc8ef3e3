//! Removing an object.

use ackfs_cache::object::{ETag, Key};
use ackfs_cache::store::{StoreError, StoreErrorKind, StoreResult};

use super::conditions::Honoured;
use super::core::Core;
use super::error::RequestFailure;
use super::request::CallEnd;
use super::stats::RequestKind;

impl Core {
    /// Removes `key`; see [`ackfs_cache::store::ObjectStore::delete`].
    pub(super) async fn delete(&self, key: &Key, etag: Option<&ETag>) -> StoreResult<()> {
        let honoured = self.conditions.support().delete == Honoured::Yes;
        if let Some(wanted) = etag
            && !honoured
        {
            match self.head_if_there(key).await? {
                None => return Ok(()),
                Some(shown) => {
                    let now = shown.e_tag.unwrap_or_default();
                    if !wanted.is_same(&now) {
                        return Err(changed_to(key, &now));
                    }
                }
            }
        }
        let CallEnd { result, unsure } = self.delete_once(key, etag.filter(|_etag| honoured)).await;
        match result {
            Ok(()) => Ok(()),
            Err(failure) if failure.error.kind == StoreErrorKind::NotFound => Ok(()),
            // Ours may have removed it before the answer was lost. What matters is that it is gone, not by
            // whom.
            Err(failure) if failure.error.kind == StoreErrorKind::Changed && unsure => {
                match self.head_if_there(key).await? {
                    None => Ok(()),
                    Some(_) => Err(failure.error),
                }
            }
            Err(failure) => Err(failure.error),
        }
    }

    async fn delete_once(&self, key: &Key, condition: Option<&ETag>) -> CallEnd<()> {
        let condition = condition.map(|etag| etag.as_str().to_owned());
        self.run(self.call(RequestKind::Delete, key), || {
            let request = self
                .client
                .delete_object()
                .bucket(&self.config.bucket)
                .key(key.as_str())
                .set_if_match(condition.clone())
                .set_request_payer(self.payer());
            async move {
                request.send().await.map_err(RequestFailure::from_sdk)?;
                Ok(())
            }
        })
        .await
    }
}

fn changed_to(key: &Key, now: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Changed, format!("the object is now {now}")).with_key(key)
}
