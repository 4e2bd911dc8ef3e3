//! Buckets: made, removed, looked at.

use std::sync::Arc;

use s3s::dto::{
    Bucket as BucketEntry, BucketLocationConstraint, CreateBucketInput, CreateBucketOutput,
    DeleteBucketInput, DeleteBucketOutput, GetBucketLocationInput, GetBucketLocationOutput,
    HeadBucketInput, HeadBucketOutput, ListBucketsInput, ListBucketsOutput, Owner,
};
use s3s::{S3Request, S3Response, S3Result};

use super::store::Store;

/// CreateBucket.
pub(super) async fn create(
    store: &Arc<Store>,
    request: S3Request<CreateBucketInput>,
) -> S3Result<S3Response<CreateBucketOutput>> {
    let name = request.input.bucket;
    store.create_bucket(&name)?;
    Ok(S3Response::new(CreateBucketOutput {
        location: Some(format!("/{name}")),
    }))
}

/// DeleteBucket.
pub(super) async fn delete(
    store: &Arc<Store>,
    request: S3Request<DeleteBucketInput>,
) -> S3Result<S3Response<DeleteBucketOutput>> {
    store.delete_bucket(&request.input.bucket)?;
    Ok(S3Response::with_status(
        DeleteBucketOutput::default(),
        http::StatusCode::NO_CONTENT,
    ))
}

/// HeadBucket.
pub(super) async fn head(
    store: &Arc<Store>,
    request: S3Request<HeadBucketInput>,
) -> S3Result<S3Response<HeadBucketOutput>> {
    store.with(&request.input.bucket, |_| Ok(()))?;
    let bucket_region = Some(store.quirks().region_name().to_owned());
    Ok(S3Response::new(HeadBucketOutput {
        bucket_region,
        ..Default::default()
    }))
}

/// ListBuckets, all in one answer.
pub(super) async fn list(
    store: &Arc<Store>,
    request: S3Request<ListBucketsInput>,
) -> S3Result<S3Response<ListBucketsOutput>> {
    let prefix = request.input.prefix.unwrap_or_default();
    let buckets = store
        .bucket_names()
        .into_iter()
        .filter(|(name, _)| name.starts_with(&prefix))
        .map(|(name, created)| BucketEntry {
            name: Some(name),
            creation_date: Some(created.into()),
            ..Default::default()
        })
        .collect();
    Ok(S3Response::new(ListBucketsOutput {
        buckets: Some(buckets),
        owner: Some(owner()),
        ..Default::default()
    }))
}

/// GetBucketLocation; us-east-1 has no name there.
pub(super) async fn location(
    store: &Arc<Store>,
    request: S3Request<GetBucketLocationInput>,
) -> S3Result<S3Response<GetBucketLocationOutput>> {
    store.with(&request.input.bucket, |_| Ok(()))?;
    let quirks = store.quirks();
    let region = Some(quirks.region_name()).filter(|region| *region != "us-east-1");
    let location_constraint =
        region.map(|region| BucketLocationConstraint::from(region.to_owned()));
    Ok(S3Response::new(GetBucketLocationOutput {
        location_constraint,
    }))
}

/// Whom everything belongs to.
pub(super) fn owner() -> Owner {
    Owner {
        id: Some("ackfs-demo".to_owned()),
        display_name: Some("ackfs-demo".to_owned()),
    }
}
