//! Objects in a directory, so that a demo store can be stopped and started again.
//!
//! ```text
//! DIR/BUCKET/data-NUMBER          the bytes of one version of one object
//! DIR/BUCKET/meta-SHA256(KEY)     TOML: key, number of its data, ETag, time, headers, checksums
//! DIR/BUCKET/*.tmp                never valid
//! ```
//!
//! A write puts the data under a new number and syncs it, writes the metadata to a temporary file and syncs that, renames
//! it over the old one (the commit), and syncs the directory; only then is it answered. Crash cases: before the rename the
//! old version stands and the new data is an orphan; after it the new version stands and the old data is the orphan.
//! Orphans and temporary files are removed at the next start. Everything is loaded into memory then: this directory
//! makes the demo lasting, not large. Multipart uploads in progress are forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use s3s::crypto::{Checksum as _, Sha256};
use serde::{Deserialize, Serialize};

use super::checksum::{Sums, hex};
use super::content::Content;
use super::object::{Headers, Object};
use super::store::{Bucket, Change};

/// The directory of a store.
#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
    next: AtomicU64,
}

/// The metadata file.
#[derive(Serialize, Deserialize)]
struct Meta {
    key: String,
    data: u64,
    len: u64,
    etag: String,
    /// Seconds since the epoch.
    modified: u64,
    part_lens: Vec<u64>,
    sums: Sums,
    headers: Headers,
}

impl Disk {
    /// Opens or makes `root` and loads what it holds. Waits for the disk.
    ///
    /// # Errors
    /// What the disk says; InvalidData for a metadata file that cannot be read.
    pub(super) async fn open(root: PathBuf) -> io::Result<(Self, BTreeMap<String, Bucket>)> {
        blocking(move || {
            fs::create_dir_all(&root)?;
            let mut buckets = BTreeMap::new();
            let mut last = 0;
            for entry in fs::read_dir(&root)? {
                let entry = entry?;
                if entry.file_type()?.is_dir()
                    && let Ok(name) = entry.file_name().into_string()
                {
                    buckets.insert(name, load_bucket(&entry.path(), &mut last)?);
                }
            }
            Ok((
                Self {
                    root,
                    next: AtomicU64::new(last + 1),
                },
                buckets,
            ))
        })
        .await
    }

    /// Makes a bucket's directory. Waits for the disk.
    pub(super) async fn create_bucket(&self, name: &str) -> io::Result<()> {
        let (root, dir) = (self.root.clone(), self.root.join(name));
        blocking(move || {
            fs::create_dir_all(dir)?;
            sync_dir(&root)
        })
        .await
    }

    /// Removes a bucket's directory. Waits for the disk.
    pub(super) async fn delete_bucket(&self, name: &str) -> io::Result<()> {
        let (root, dir) = (self.root.clone(), self.root.join(name));
        blocking(move || {
            fs::remove_dir_all(dir)?;
            sync_dir(&root)
        })
        .await
    }

    /// Writes bytes under a new number and syncs them. Waits for the disk.
    pub(super) async fn write_data(&self, bucket: &str, content: &Content) -> io::Result<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = data_path(&self.root.join(bucket), number);
        let content = content.clone();
        blocking(move || {
            let mut file = File::create(path)?;
            for segment in content.segments() {
                file.write_all(segment)?;
            }
            file.sync_data()?;
            Ok(number)
        })
        .await
    }

    /// Makes a change the one that a restart finds. Waits for the disk.
    pub(super) async fn publish(&self, change: &Change) -> io::Result<()> {
        let dir = self.root.join(&change.bucket);
        let path = meta_path(&dir, &change.key);
        let text = match &change.object {
            None => None,
            Some(object) => Some(meta_text(&change.key, object)?),
        };
        blocking(move || {
            match text {
                Some(text) => {
                    let temporary = path.with_extension("tmp");
                    let mut file = File::create(&temporary)?;
                    file.write_all(text.as_bytes())?;
                    file.sync_data()?;
                    fs::rename(temporary, path)?;
                }
                None => match fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                },
            }
            sync_dir(&dir)
        })
        .await
    }

    /// Removes data that nothing refers to any more. A failure leaves an orphan for the next start.
    pub(super) async fn forget_data(&self, bucket: &str, number: Option<u64>) {
        let Some(number) = number else { return };
        let path = data_path(&self.root.join(bucket), number);
        if let Err(error) = blocking(move || fs::remove_file(path)).await {
            tracing::debug!(%error, bucket, number, "left data behind");
        }
    }
}

fn load_bucket(dir: &Path, last: &mut u64) -> io::Result<Bucket> {
    let mut bucket = Bucket::new();
    let mut numbers = BTreeMap::new();
    let mut used = BTreeSet::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if let Some(number) = name
            .strip_prefix("data-")
            .and_then(|number| number.parse::<u64>().ok())
        {
            *last = number.max(*last);
            numbers.insert(number, path);
        } else if path.extension().is_some_and(|extension| extension == "tmp") {
            fs::remove_file(path)?;
        } else if name.starts_with("meta-") {
            let (key, object) = load_object(dir, &path)?;
            used.extend(object.file);
            bucket.objects.insert(key.into(), Arc::new(object));
        }
    }
    for (_, orphan) in numbers
        .into_iter()
        .filter(|(number, _)| !used.contains(number))
    {
        fs::remove_file(orphan)?;
    }
    Ok(bucket)
}

fn load_object(dir: &Path, path: &Path) -> io::Result<(String, Object)> {
    let broken = |cause: String| {
        let path = path.display();
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{path}: {cause}; remove the file to start without it"),
        )
    };
    let meta: Meta =
        toml::from_str(&fs::read_to_string(path)?).map_err(|error| broken(error.to_string()))?;
    let data = fs::read(data_path(dir, meta.data)).map_err(|error| broken(error.to_string()))?;
    if data.len() as u64 != meta.len {
        return Err(broken(format!(
            "its data has {} bytes instead of {}",
            data.len(),
            meta.len
        )));
    }
    let object = Object {
        etag: meta.etag,
        content: Content::new([Bytes::from(data)]),
        modified: UNIX_EPOCH + Duration::from_secs(meta.modified),
        headers: Arc::new(meta.headers),
        sums: meta.sums,
        part_lens: meta.part_lens,
        file: Some(meta.data),
    };
    Ok((meta.key, object))
}

fn meta_text(key: &str, object: &Object) -> io::Result<String> {
    let meta = Meta {
        key: key.to_owned(),
        data: object.file.expect("its data was written before"),
        len: object.content.len(),
        etag: object.etag.clone(),
        modified: object
            .modified
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
        part_lens: object.part_lens.clone(),
        sums: object.sums.clone(),
        headers: Headers::clone(&object.headers),
    };
    toml::to_string(&meta).map_err(io::Error::other)
}

fn data_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("data-{number}"))
}

/// Keys may hold slashes and be longer than a name may be, so files are named by their hash.
fn meta_path(dir: &Path, key: &str) -> PathBuf {
    dir.join(format!(
        "meta-{}",
        hex(Sha256::checksum(key.as_bytes()).as_ref())
    ))
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}
