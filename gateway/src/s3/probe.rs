//! Finding out which conditions the endpoint honours, and whether it copies parts, by trying.
//!
//! The mount asks in a way that writes nothing where all is well: a PutObject with `If-Match` on a key that
//! does not exist and a version that cannot be. A store that honours the condition answers 404 or 412. One
//! that ignores it makes an empty object, which is then used to try `If-None-Match: *`, and removed. What is
//! not asked is concluded (`conditions`).

use ackfs_cache::extent::Extent;
use ackfs_cache::object::{ETag, Key, ObjectId};
use ackfs_cache::store::{Condition, Metadata, StoreError, StoreErrorKind, StoreResult};
use tracing::warn;

use super::conditions::{ConditionalSupport, Honoured};
use super::core::Core;
use super::error::RequestFailure;
use super::headers::with_condition;
use super::payload::BodyBytes;
use super::request::random;
use super::stats::RequestKind;

/// What one conditional write showed.
enum ConditionAnswer {
    Refused,
    Ignored,
    Unsupported,
    Denied(StoreError),
}

impl Core {
    /// Tries the endpoint and takes note; see the top of this file. `Unknown` stays where writing
    /// is not allowed.
    ///
    /// # Errors
    /// As of a call whose failure says nothing about conditions: the store is away or busy.
    pub(super) async fn probe_conditional_writes(&self) -> StoreResult<ConditionalSupport> {
        let key = self.probe_key();
        let never = Condition::Matches(impossible());
        match self.try_condition(&key, &never).await? {
            ConditionAnswer::Denied(error) => self.warn_denied(&error),
            ConditionAnswer::Refused => self.conditions.found(Honoured::Yes, Honoured::Yes),
            answer @ (ConditionAnswer::Ignored | ConditionAnswer::Unsupported) => {
                if matches!(answer, ConditionAnswer::Unsupported) {
                    // Something must be there for the second question.
                    self.try_condition(&key, &Condition::None).await?;
                }
                let absent = self.try_condition(&key, &Condition::Absent).await;
                if let Err(error) = self.delete(&key, None).await {
                    warn!(?key, %error, "the probe's empty object could not be removed");
                }
                let absent = match absent? {
                    ConditionAnswer::Refused => Honoured::Yes,
                    _ => Honoured::No,
                };
                self.conditions.found(absent, Honoured::No);
            }
        }
        Ok(self.conditions.support())
    }

    /// Whether the endpoint copies parts, by asking for one of an object that does not exist: what copies says so,
    /// and nothing is written.
    ///
    /// # Errors
    /// As of a call whose failure says nothing about copies.
    pub(super) async fn probe_part_copies(&self) -> StoreResult<Honoured> {
        let key = self.probe_key();
        let missing = ObjectId::new(key.clone(), impossible());
        let upload = self.create_multipart(&key, &Metadata::default()).await?;
        let extent = Extent::new(0, 1);
        let copied = self
            .copy_part_once(&key, &upload, 1, &missing, extent)
            .await;
        if let Err(error) = self.abort(&key, &upload).await {
            warn!(?key, %error, "the probe's upload could not be given up");
        }
        match copied.result {
            Ok(_part) => {
                // It made a part of an object that does not exist.
                self.part_copies.refused();
                Ok(Honoured::No)
            }
            Err(failure) => match self.not_copied(failure) {
                error if error.kind == StoreErrorKind::Changed => Ok(Honoured::Yes),
                _ if self.part_copies.support() == Honoured::No => Ok(Honoured::No),
                error => Err(error),
            },
        }
    }

    /// A key that nobody uses.
    fn probe_key(&self) -> Key {
        Key::new(format!("{}.ackfs-probe-{:016x}", self.prefix, random()))
    }

    /// Said once, at the mount: else every close is the first to tell.
    fn warn_denied(&self, error: &StoreError) {
        let who = if self.config.no_sign_request {
            "requests without a signature"
        } else {
            "these credentials"
        };
        warn!(
            %error,
            "{who} may not write below s3://{}/{}: allow s3:PutObject, or give --read-only",
            self.config.bucket,
            self.prefix,
        );
    }

    /// Writes an empty object under `condition`.
    async fn try_condition(
        &self,
        key: &Key,
        condition: &Condition,
    ) -> StoreResult<ConditionAnswer> {
        let empty = BodyBytes::new(Vec::new());
        let ended = self
            .run(self.check_call(RequestKind::Put, Some(key)), || {
                let request = self
                    .client
                    .put_object()
                    .bucket(&self.config.bucket)
                    .key(key.as_str())
                    .body(empty.body())
                    .set_request_payer(self.payer())
                    .set_server_side_encryption(self.sse())
                    .set_ssekms_key_id(self.config.sse_kms_key_id.clone())
                    .set_acl(self.acl());
                let request = with_condition!(request, condition);
                async move { request.send().await.map_err(RequestFailure::from_sdk) }
            })
            .await;
        match ended.result {
            Ok(_output) => Ok(ConditionAnswer::Ignored),
            Err(failure) => match failure.error.kind {
                StoreErrorKind::NotFound | StoreErrorKind::Changed => Ok(ConditionAnswer::Refused),
                StoreErrorKind::Denied => Ok(ConditionAnswer::Denied(failure.error)),
                StoreErrorKind::Rejected => Ok(ConditionAnswer::Unsupported),
                _ => Err(failure.error),
            },
        }
    }
}

/// An MD5 that no object has: stores compare it as text.
fn impossible() -> ETag {
    ETag::new("\"00000000000000000000000000000000\"")
}
