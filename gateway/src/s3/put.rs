//! Writing an object in one request.

use ackfs_cache::object::{ETag, Key};
use ackfs_cache::store::{Condition, Metadata, StoreResult};
use bytes::Bytes;

use super::answer::etag;
use super::checksum::SumKind;
use super::conditional::Write;
use super::core::Core;
use super::error::RequestFailure;
use super::fingerprint;
use super::headers::{with_condition, with_metadata};
use super::payload::BodyBytes;
use super::request::CallEnd;
use super::stats::RequestKind;

impl Core {
    /// Makes `key` hold `body`; see [`ackfs_cache::store::ObjectStore::put`].
    pub(super) async fn put(
        &self,
        key: &Key,
        body: Vec<Bytes>,
        metadata: &Metadata,
        condition: &Condition,
    ) -> StoreResult<ETag> {
        let payload = &BodyBytes::new(body);
        let write = Write {
            key,
            condition,
            honoured: self.conditions.support().put(condition),
        };
        let ours = || fingerprint::of_payload(payload);
        let etag = self
            .write_under(write, ours, |condition| async move {
                self.with_any_sum(|kind| self.put_once(key, payload, metadata, &condition, kind))
                    .await
            })
            .await?;
        self.recorder.up(payload.len());
        Ok(etag)
    }

    async fn put_once(
        &self,
        key: &Key,
        payload: &BodyBytes,
        metadata: &Metadata,
        condition: &Condition,
        kind: SumKind,
    ) -> CallEnd<ETag> {
        let (crc64, crc32, md5) = payload.sum(kind).columns();
        let call = self.upload_call(RequestKind::Put, key, payload.len());
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
                let output = request.send().await.map_err(RequestFailure::from_sdk)?;
                etag(key, output.e_tag.as_deref()).map_err(RequestFailure::from)
            }
        })
        .await
    }
}
