//! The operations that the store answers, as s3s calls them.
//!
//! s3s has parsed and authenticated the request; each method hands it to the file of its noun. Everything that is not
//! listed here answers NotImplemented, which is s3s's default.

use std::sync::Arc;

use s3s::auth::{S3Auth, SecretKey};
#[allow(clippy::wildcard_imports)]
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};

use super::store::Store;
use super::{bucket, copy, delete, get, list, put, upload};

/// The store behind s3s.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) store: Arc<Store>,
}

macro_rules! operations {
    ($($method:ident, $input:ident, $output:ident => $answer:path;)*) => {
        #[async_trait::async_trait]
        impl S3 for Service {
            $(
                async fn $method(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                    $answer(&self.store, request).await
                }
            )*
        }
    };
}

operations! {
    create_bucket, CreateBucketInput, CreateBucketOutput => bucket::create;
    delete_bucket, DeleteBucketInput, DeleteBucketOutput => bucket::delete;
    head_bucket, HeadBucketInput, HeadBucketOutput => bucket::head;
    list_buckets, ListBucketsInput, ListBucketsOutput => bucket::list;
    get_bucket_location, GetBucketLocationInput, GetBucketLocationOutput => bucket::location;
    put_object, PutObjectInput, PutObjectOutput => put::put;
    get_object, GetObjectInput, GetObjectOutput => get::get;
    head_object, HeadObjectInput, HeadObjectOutput => get::head;
    copy_object, CopyObjectInput, CopyObjectOutput => copy::copy;
    delete_object, DeleteObjectInput, DeleteObjectOutput => delete::one;
    delete_objects, DeleteObjectsInput, DeleteObjectsOutput => delete::many;
    list_objects, ListObjectsInput, ListObjectsOutput => list::v1;
    list_objects_v2, ListObjectsV2Input, ListObjectsV2Output => list::v2;
    create_multipart_upload, CreateMultipartUploadInput, CreateMultipartUploadOutput => upload::create;
    upload_part, UploadPartInput, UploadPartOutput => upload::part;
    upload_part_copy, UploadPartCopyInput, UploadPartCopyOutput => upload::part_copy;
    complete_multipart_upload, CompleteMultipartUploadInput, CompleteMultipartUploadOutput => upload::complete;
    abort_multipart_upload, AbortMultipartUploadInput, AbortMultipartUploadOutput => upload::abort;
    list_multipart_uploads, ListMultipartUploadsInput, ListMultipartUploadsOutput => upload::list;
    list_parts, ListPartsInput, ListPartsOutput => upload::list_parts;
}

/// The one key pair that is let in.
pub(super) struct KeyPair {
    pub(super) access_key: String,
    pub(super) secret_key: SecretKey,
}

#[async_trait::async_trait]
impl S3Auth for KeyPair {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        if access_key == self.access_key {
            return Ok(self.secret_key.clone());
        }
        Err(s3_error!(
            InvalidAccessKeyId,
            "The AWS Access Key Id you provided does not exist in our records."
        ))
    }
}

/// Lets unsigned requests in, as a public bucket does.
#[derive(Debug)]
pub(super) struct LetAllIn;

#[async_trait::async_trait]
impl s3s::access::S3Access for LetAllIn {
    async fn check(&self, _: &mut s3s::access::S3AccessContext<'_>) -> S3Result<()> {
        Ok(())
    }
}
