//! The buckets: an ordered map of objects each, all under one lock.
//!
//! **Order.** Every write is one [`Store::commit`]: the check of its condition and the swap happen under the same hold of
//! the lock, so that of any number of racing conditional writers exactly one wins. Bodies were received before; the lock
//! is held for map operations only, never while waiting for a client.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, RwLock};
use s3s::{S3Error, S3Result, s3_error};

use super::Quirks;
use super::condition::WriteCondition;
use super::multipart::{Upload, no_such_upload};
use super::object::{Object, now};

/// All buckets.
#[derive(Debug)]
pub(super) struct Store {
    /// Nothing else is locked while this is held.
    buckets: Mutex<BTreeMap<String, Bucket>>,
    upload_ids: AtomicU64,
    quirks: RwLock<Quirks>,
    pub(super) part_len_min: u64,
}

/// One bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) created: SystemTime,
    pub(super) objects: BTreeMap<Box<str>, Arc<Object>>,
    /// By key and upload id, the order in which they are listed.
    pub(super) uploads: BTreeMap<(Box<str>, String), Upload>,
}

impl Bucket {
    /// An empty bucket.
    pub(super) fn new() -> Self {
        Self {
            created: now(),
            objects: BTreeMap::new(),
            uploads: BTreeMap::new(),
        }
    }

    /// The object of a key.
    pub(super) fn object(&self, key: &str) -> S3Result<&Arc<Object>> {
        self.objects
            .get(key)
            .ok_or_else(|| s3_error!(NoSuchKey, "The specified key does not exist."))
    }

    /// The upload of a key.
    pub(super) fn upload(&mut self, key: &str, id: &str) -> S3Result<&mut Upload> {
        self.uploads
            .get_mut(&(key.into(), id.to_owned()))
            .ok_or_else(no_such_upload)
    }
}

/// One write to one key.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) condition: WriteCondition,
    /// What will be there; `None` deletes.
    pub(super) object: Option<Object>,
    /// The upload that ends with this write.
    pub(super) ends: Option<String>,
}

impl Store {
    /// A store without buckets.
    pub(super) fn new(quirks: Quirks, part_len_min: u64) -> Self {
        let nanos = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64);
        Self {
            buckets: Mutex::new(BTreeMap::new()),
            // Ids of one life must not be those of an earlier one.
            upload_ids: AtomicU64::new(nanos),
            quirks: RwLock::new(quirks),
            part_len_min,
        }
    }

    /// What it imitates at the moment.
    pub(super) fn quirks(&self) -> Quirks {
        self.quirks.read().clone()
    }

    /// Changes what it imitates.
    pub(super) fn set_quirks(&self, quirks: Quirks) {
        *self.quirks.write() = quirks;
    }

    /// A new upload id.
    pub(super) fn upload_id(&self) -> String {
        format!(
            "demo-{:016x}",
            self.upload_ids.fetch_add(1, Ordering::Relaxed)
        )
    }

    /// Looks at a bucket under the lock; `look` must be quick.
    ///
    /// # Errors
    /// NoSuchBucket, or what `look` says.
    pub(super) fn with<T>(
        &self,
        bucket: &str,
        look: impl FnOnce(&mut Bucket) -> S3Result<T>,
    ) -> S3Result<T> {
        let mut buckets = self.buckets.lock();
        look(buckets.get_mut(bucket).ok_or_else(no_such_bucket)?)
    }

    /// The object of a key.
    ///
    /// # Errors
    /// NoSuchBucket, NoSuchKey.
    pub(super) fn object(&self, bucket: &str, key: &str) -> S3Result<Arc<Object>> {
        self.with(bucket, |bucket| bucket.object(key).cloned())
    }

    /// Names and creation times of all buckets.
    pub(super) fn bucket_names(&self) -> Vec<(String, SystemTime)> {
        self.buckets
            .lock()
            .iter()
            .map(|(name, bucket)| (name.clone(), bucket.created))
            .collect()
    }

    /// Makes a bucket.
    ///
    /// # Errors
    /// BucketAlreadyOwnedByYou.
    pub(super) fn create_bucket(&self, name: &str) -> S3Result<()> {
        let mut buckets = self.buckets.lock();
        if buckets.contains_key(name) {
            return Err(s3_error!(
                BucketAlreadyOwnedByYou,
                "Your previous request to create the named bucket succeeded and you already own it."
            ));
        }
        buckets.insert(name.to_owned(), Bucket::new());
        Ok(())
    }

    /// Removes an empty bucket.
    ///
    /// # Errors
    /// NoSuchBucket, BucketNotEmpty.
    pub(super) fn delete_bucket(&self, name: &str) -> S3Result<()> {
        let mut buckets = self.buckets.lock();
        let bucket = buckets.get(name).ok_or_else(no_such_bucket)?;
        if !bucket.objects.is_empty() {
            return Err(s3_error!(
                BucketNotEmpty,
                "The bucket you tried to delete is not empty"
            ));
        }
        buckets.remove(name);
        Ok(())
    }

    /// Checks the condition and swaps the object in, as one step.
    ///
    /// # Errors
    /// NoSuchBucket, NoSuchUpload, what the condition says.
    pub(super) fn commit(&self, change: Change) -> S3Result<()> {
        let Change {
            bucket,
            key,
            condition,
            object,
            ends,
        } = change;
        self.with(&bucket, |bucket| {
            if let Some(id) = &ends {
                bucket.upload(&key, id)?;
            }
            condition.check(bucket.objects.get(&*key).map(Arc::as_ref))?;
            let key: Box<str> = key.into();
            if let Some(id) = ends {
                bucket.uploads.remove(&(key.clone(), id));
            }
            match object {
                Some(object) => bucket.objects.insert(key, Arc::new(object)),
                None => bucket.objects.remove(&key),
            };
            Ok(())
        })
    }
}

/// The error for a bucket that is not there.
pub(super) fn no_such_bucket() -> S3Error {
    s3_error!(NoSuchBucket, "The specified bucket does not exist")
}
