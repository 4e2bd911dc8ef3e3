//! The buckets: an ordered map of objects each, all under one lock.
//!
//! **Order.** Every write is one [`Store::commit`]: the check of its condition and the swap happen under the same hold of
//! the lock, so that of any number of racing conditional writers exactly one wins. Bodies were received before; the lock
//! is held for map operations only, never while waiting for a client or a disk.
//!
//! **With a directory** a write must be on disk before it is seen or answered, and the disk must not be waited for under
//! the lock. So such writes queue for a turn (an async mutex, taken before the lock): check, write to disk, swap. Others
//! cannot change anything in between, and readers go on. The turn runs in a task of its own, because a client that hangs up
//! drops its request's future, and that must not leave disk and memory different.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, RwLock};
use s3s::{S3Error, S3Result, s3_error};

use super::Quirks;
use super::condition::WriteCondition;
use super::disk::Disk;
use super::multipart::{Upload, no_such_upload};
use super::object::{Object, now};

/// All buckets.
#[derive(Debug)]
pub(super) struct Store {
    /// The one lock. Nothing else is locked while it is held.
    buckets: Mutex<BTreeMap<String, Bucket>>,
    disk: Option<Disk>,
    /// Held from the check to the swap when there is a disk; taken before `buckets`.
    turn: tokio::sync::Mutex<()>,
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
    /// Makes a store; with `disk` it begins with what that holds.
    pub(super) fn new(
        disk: Option<Disk>,
        quirks: Quirks,
        part_len_min: u64,
        buckets: BTreeMap<String, Bucket>,
    ) -> Self {
        let nanos = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64);
        Self {
            buckets: Mutex::new(buckets),
            disk,
            turn: tokio::sync::Mutex::new(()),
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

    /// Makes a bucket. Waits for the disk if there is one.
    ///
    /// # Errors
    /// BucketAlreadyOwnedByYou, InternalError if the disk fails.
    pub(super) async fn create_bucket(&self, name: &str) -> S3Result<()> {
        let _turn = self.turn.lock().await;
        if self.buckets.lock().contains_key(name) {
            return Err(s3_error!(
                BucketAlreadyOwnedByYou,
                "Your previous request to create the named bucket succeeded and you already own it."
            ));
        }
        if let Some(disk) = &self.disk {
            disk.create_bucket(name).await.map_err(disk_error)?;
        }
        self.buckets.lock().insert(name.to_owned(), Bucket::new());
        Ok(())
    }

    /// Removes an empty bucket. Waits for the disk if there is one.
    ///
    /// # Errors
    /// NoSuchBucket, BucketNotEmpty, InternalError if the disk fails.
    pub(super) async fn delete_bucket(&self, name: &str) -> S3Result<()> {
        let _turn = self.turn.lock().await;
        // Taken out at once, so that no write slips in while the disk works.
        let bucket = {
            let mut buckets = self.buckets.lock();
            let bucket = buckets.get(name).ok_or_else(no_such_bucket)?;
            if !bucket.objects.is_empty() {
                return Err(s3_error!(
                    BucketNotEmpty,
                    "The bucket you tried to delete is not empty"
                ));
            }
            buckets.remove(name)
        };
        if let Some(disk) = &self.disk
            && let Err(error) = disk.delete_bucket(name).await
        {
            self.buckets
                .lock()
                .extend(bucket.map(|bucket| (name.to_owned(), bucket)));
            return Err(disk_error(error));
        }
        Ok(())
    }

    /// Checks the condition and swaps the object in, as one step; true if a key was there before.
    /// Waits for the disk if there is one.
    ///
    /// # Errors
    /// NoSuchBucket, NoSuchUpload, what the condition says, InternalError if the disk fails.
    pub(super) async fn commit(self: &Arc<Self>, change: Change) -> S3Result<bool> {
        if self.disk.is_none() {
            return self.swap(change).map(|old| old.is_some());
        }
        let store = self.clone();
        let turn = tokio::spawn(async move { store.commit_to_disk(change).await });
        turn.await
            .map_err(|error| s3_error!(error, InternalError, "the write ended early"))?
    }

    async fn commit_to_disk(&self, mut change: Change) -> S3Result<bool> {
        let disk = self.disk.as_ref().expect("only called with a disk");
        if let Some(object) = &mut change.object {
            object.file = Some(
                disk.write_data(&change.bucket, &object.content)
                    .await
                    .map_err(disk_error)?,
            );
        }
        let written = change.object.as_ref().and_then(|object| object.file);
        let (bucket, key) = (change.bucket.clone(), change.key.clone());
        let result = {
            let _turn = self.turn.lock().await;
            match self.check(&change) {
                Ok(()) => match disk.publish(&change).await {
                    Ok(()) => self.swap(change),
                    Err(error) => Err(disk_error(error)),
                },
                Err(refusal) => Err(refusal),
            }
        };
        match result {
            Ok(old) => {
                disk.forget_data(&bucket, old.as_ref().and_then(|old| old.file))
                    .await;
                Ok(old.is_some())
            }
            Err(refusal) => {
                tracing::debug!(bucket, key, "write refused");
                disk.forget_data(&bucket, written).await;
                Err(refusal)
            }
        }
    }

    fn check(&self, change: &Change) -> S3Result<()> {
        self.with(&change.bucket, |bucket| {
            check(
                bucket,
                &change.key,
                &change.condition,
                change.ends.as_deref(),
            )
        })
    }

    fn swap(&self, change: Change) -> S3Result<Option<Arc<Object>>> {
        let Change {
            bucket,
            key,
            condition,
            object,
            ends,
        } = change;
        self.with(&bucket, |bucket| {
            check(bucket, &key, &condition, ends.as_deref())?;
            let key: Box<str> = key.into();
            if let Some(id) = ends {
                bucket.uploads.remove(&(key.clone(), id));
            }
            Ok(match object {
                Some(object) => bucket.objects.insert(key, Arc::new(object)),
                None => bucket.objects.remove(&key),
            })
        })
    }
}

fn check(
    bucket: &mut Bucket,
    key: &str,
    condition: &WriteCondition,
    ends: Option<&str>,
) -> S3Result<()> {
    if let Some(id) = ends {
        bucket.upload(key, id)?;
    }
    condition.check(bucket.objects.get(key).map(Arc::as_ref))
}

/// The error for a bucket that is not there.
pub(super) fn no_such_bucket() -> S3Error {
    s3_error!(NoSuchBucket, "The specified bucket does not exist")
}

fn disk_error(error: std::io::Error) -> S3Error {
    tracing::error!(%error, "the demo store cannot write to its directory");
    s3_error!(
        error,
        InternalError,
        "the demo store cannot write to its directory"
    )
}
