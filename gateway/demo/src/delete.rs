//! DeleteObject and DeleteObjects. Deleting what is not there succeeds, unless a condition says that it must be there.

use std::sync::Arc;

use s3s::dto::{
    DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject,
    ETagCondition, Error as DeleteError,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::condition::WriteCondition;
use super::get::check_version;
use super::store::{Change, Store};

/// Most keys in one request.
const KEYS_MAX: usize = 1000;

/// DeleteObject.
pub(super) async fn one(
    store: &Arc<Store>,
    request: S3Request<DeleteObjectInput>,
) -> S3Result<S3Response<DeleteObjectOutput>> {
    let input = request.input;
    check_version(input.version_id.as_deref())?;
    if input.if_match_size.is_some() || input.if_match_last_modified_time.is_some() {
        return Err(s3_error!(
            NotImplemented,
            "conditions on size and time are for directory buckets"
        ));
    }
    remove(store, input.bucket, input.key, input.if_match)?;
    Ok(S3Response::with_status(
        DeleteObjectOutput::default(),
        http::StatusCode::NO_CONTENT,
    ))
}

/// DeleteObjects: each key by itself.
pub(super) async fn many(
    store: &Arc<Store>,
    request: S3Request<DeleteObjectsInput>,
) -> S3Result<S3Response<DeleteObjectsOutput>> {
    let DeleteObjectsInput { bucket, delete, .. } = request.input;
    if delete.objects.is_empty() || delete.objects.len() > KEYS_MAX {
        return Err(s3_error!(
            MalformedXML,
            "The XML you provided was not well-formed or did not validate against our published schema"
        ));
    }
    store.with(&bucket, |_| Ok(()))?;
    let (mut deleted, mut errors) = (Vec::new(), Vec::new());
    for object in delete.objects {
        let key = object.key;
        match remove(
            store,
            bucket.clone(),
            key.clone(),
            object.e_tag.map(ETagCondition::ETag),
        ) {
            Ok(()) => deleted.push(DeletedObject {
                key: Some(key),
                ..Default::default()
            }),
            Err(error) => errors.push(DeleteError {
                code: Some(error.code().as_str().to_owned()),
                key: Some(key),
                message: error.message().map(str::to_owned),
                version_id: None,
            }),
        }
    }
    let quiet = delete.quiet.unwrap_or(false);
    Ok(S3Response::new(DeleteObjectsOutput {
        deleted: Some(deleted).filter(|_| !quiet),
        errors: Some(errors),
        ..Default::default()
    }))
}

fn remove(
    store: &Arc<Store>,
    bucket: String,
    key: String,
    if_match: Option<ETagCondition>,
) -> S3Result<()> {
    let condition = store.quirks().on_delete(WriteCondition {
        if_match,
        if_none_match: None,
    })?;
    store.commit(Change {
        bucket,
        key,
        condition,
        object: None,
        ends: None,
    })
}
