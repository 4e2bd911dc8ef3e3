//! Writing an object in one request, and removing one.

use ackfs_cache::object::{ETag, Key};
use ackfs_cache::store::{Condition, Metadata, StoreError, StoreErrorKind, StoreResult};
use bytes::Bytes;

use super::core::{Core, etag, same_etag};
use super::error::Failure;
use super::lost::{Fingerprint, Verdict};
use super::payload::{Choice, Payload, Sum};
use super::probe::Honoured;
use super::request::Ended;
use super::stats::Kind;

/// Puts what travels beside the bytes on a request.
macro_rules! with_metadata {
    ($request:expr, $metadata:expr) => {{
        let metadata: &Metadata = $metadata;
        $request
            .set_metadata((!metadata.user.is_empty()).then(|| {
                metadata
                    .user
                    .iter()
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect()
            }))
            .set_content_type(metadata.content_type.clone())
            .set_content_encoding(metadata.content_encoding.clone())
            .set_cache_control(metadata.cache_control.clone())
            .set_content_disposition(metadata.content_disposition.clone())
            .set_content_language(metadata.content_language.clone())
    }};
}

/// Puts the condition on a request.
macro_rules! with_condition {
    ($request:expr, $condition:expr) => {{
        let (absent, matches) = match $condition {
            Condition::None => (None, None),
            Condition::Absent => (Some("*".to_owned()), None),
            Condition::Matches(etag) => (None, Some(etag.as_str().to_owned())),
        };
        $request.set_if_none_match(absent).set_if_match(matches)
    }};
}

pub(super) use {with_condition, with_metadata};

impl Core {
    /// Makes `key` hold `body`; see [`ackfs_cache::store::ObjectStore::put`].
    pub(super) async fn put(
        &self,
        key: &Key,
        body: Vec<Bytes>,
        metadata: &Metadata,
        condition: &Condition,
    ) -> StoreResult<ETag> {
        let payload = Payload::new(body);
        match self.put_checked(key, &payload, metadata, condition).await? {
            Verdict::Ours(etag) => Ok(etag),
            Verdict::Theirs(error) => Err(error),
            Verdict::Predecessor(etag) => {
                let condition = Condition::Matches(etag);
                match self
                    .put_checked(key, &payload, metadata, &condition)
                    .await?
                {
                    Verdict::Ours(etag) => Ok(etag),
                    Verdict::Theirs(error) => Err(error),
                    Verdict::Predecessor(_) => Err(StoreError::new(
                        StoreErrorKind::Changed,
                        "the object changes faster than it can be replaced",
                    )
                    .with_key(key)),
                }
            }
        }
    }

    async fn put_checked(
        &self,
        key: &Key,
        payload: &Payload,
        metadata: &Metadata,
        condition: &Condition,
    ) -> StoreResult<Verdict> {
        let mut sent = condition;
        if self.support.read().put(condition) == Honoured::No {
            self.check_target(key, condition).await?;
            sent = &Condition::None;
        }
        let mut ended = self.put_any_sum(key, payload, metadata, sent).await;
        if let Err(failure) = &ended.result
            && failure.status == Some(501)
            && *sent != Condition::None
            && self.unlearn_conditions()
        {
            self.check_target(key, condition).await?;
            let second = self.put_any_sum(key, payload, metadata, &Condition::None);
            ended = second.await.after(ended.unsure);
        }
        let Ended { result, unsure } = ended;
        match result {
            Ok(etag) => {
                self.recorder.up(payload.len());
                self.remembered.forget(key);
                Ok(Verdict::Ours(etag))
            }
            Err(failure) if refused(&failure, sent) => {
                let ours = || Fingerprint::of_payload(payload);
                self.whose(key, ours, unsure, failure).await
            }
            Err(failure) => {
                if unsure && *sent != Condition::None {
                    self.remembered
                        .remember(key, Fingerprint::of_payload(payload));
                }
                Err(failure.error)
            }
        }
    }

    /// Sends with the checksum that is in use, and with the one that every store knows if that is
    /// refused.
    async fn put_any_sum(
        &self,
        key: &Key,
        payload: &Payload,
        metadata: &Metadata,
        condition: &Condition,
    ) -> Ended<ETag> {
        let choice = self.policy.choice();
        let first = self
            .put_once(key, payload, metadata, condition, choice)
            .await;
        match &first.result {
            Err(failure) if self.policy.may_fall_back(choice) && failure.may_dislike_checksum() => {
                let second = self
                    .put_once(key, payload, metadata, condition, Choice::Md5)
                    .await;
                if second.result.is_ok() {
                    self.policy.fall_back();
                }
                second.after(first.unsure)
            }
            _ => first,
        }
    }

    async fn put_once(
        &self,
        key: &Key,
        payload: &Payload,
        metadata: &Metadata,
        condition: &Condition,
        choice: Choice,
    ) -> Ended<ETag> {
        let sum = payload.sum(choice);
        let (crc64, crc32, md5) = sum.columns();
        let call = self.upload_call(Kind::Put, key, payload.len());
        self.run(call, || {
            let request = self
                .client
                .put_object()
                .bucket(&self.config.bucket)
                .key(key.as_str())
                .body(payload.body())
                .set_checksum_crc64_nvme(crc64.clone())
                .set_checksum_crc32(crc32.clone())
                .set_content_md5(md5.clone())
                .set_request_payer(self.payer())
                .set_server_side_encryption(self.sse())
                .set_ssekms_key_id(self.config.sse_kms_key_id.clone())
                .set_storage_class(self.storage_class())
                .set_acl(self.acl());
            let request = with_condition!(with_metadata!(request, metadata), condition);
            async move {
                let output = request.send().await.map_err(Failure::from_sdk)?;
                etag(key, output.e_tag.as_deref()).map_err(Failure::from)
            }
        })
        .await
    }

    /// Removes `key`; see [`ackfs_cache::store::ObjectStore::delete`].
    pub(super) async fn delete(&self, key: &Key, etag: Option<&ETag>) -> StoreResult<()> {
        let honoured = self.support.read().delete == Honoured::Yes;
        if let Some(wanted) = etag
            && !honoured
        {
            match self.head_if_there(key).await? {
                None => return Ok(()),
                Some(shown) => {
                    let now = shown.e_tag.unwrap_or_default();
                    if !same_etag(&now, wanted.as_str()) {
                        return Err(changed_to(key, &now));
                    }
                }
            }
        }
        let condition = etag
            .filter(|_etag| honoured)
            .map(|etag| etag.as_str().to_owned());
        let ended = self
            .run(self.call(Kind::Delete, key), || {
                let request = self
                    .client
                    .delete_object()
                    .bucket(&self.config.bucket)
                    .key(key.as_str())
                    .set_if_match(condition.clone())
                    .set_request_payer(self.payer());
                async move { request.send().await.map_err(Failure::from_sdk) }
            })
            .await;
        match ended.result {
            Ok(_output) => Ok(()),
            Err(failure) if failure.error.kind == StoreErrorKind::NotFound => Ok(()),
            // Ours may have removed it before the answer was lost.
            Err(failure) if failure.error.kind == StoreErrorKind::Changed && ended.unsure => {
                match self.head_if_there(key).await? {
                    None => Ok(()),
                    Some(_) => Err(failure.error),
                }
            }
            Err(failure) => Err(failure.error),
        }
    }
}

fn changed_to(key: &Key, now: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Changed, format!("the object is now {now}")).with_key(key)
}

/// Whether `failure` says that `condition` does not hold.
pub(super) fn refused(failure: &Failure, condition: &Condition) -> bool {
    match (failure.error.kind, condition) {
        (_, Condition::None) => false,
        (StoreErrorKind::Changed, _) => true,
        // S3 answers If-Match on a key that is not there with 404.
        (StoreErrorKind::NotFound, Condition::Matches(_)) => {
            failure.code.as_deref() != Some("NoSuchUpload")
        }
        _ => false,
    }
}

impl<T> Ended<T> {
    /// The same after an earlier call that was left `unsure`.
    pub(super) fn after(mut self, unsure: bool) -> Self {
        self.unsure |= unsure;
        self
    }
}

impl Sum {
    /// CRC-64/NVME, CRC-32 and MD5, one of them filled.
    pub(super) fn columns(self) -> (Option<String>, Option<String>, Option<String>) {
        match self {
            Sum::Crc64Nvme(value) => (Some(value), None, None),
            Sum::Crc32(value) => (None, Some(value), None),
            Sum::Md5(value) => (None, None, Some(value)),
        }
    }
}
