//! All that ackfs asks of an object store, on one page. The gateway's `s3` room implements it over
//! the SDK, [`memory::MemoryStore`] implements it for tests and lies on request.
//!
//! What every implementer holds true:
//! - A call retries what is worth retrying (503, 500, timeouts, cut connections) with backoff
//!   inside its own time limit; an error that comes out is final for this call.
//! - A call whose own earlier attempt may have been carried out says so in its error
//!   ([`StoreError::lost`]); `upload::lost` finds out whether it was.
//! - A [`Body`] resumes after a cut connection by itself, on the same version, and ends with an
//!   error rather than short.
//! - Dropping a future gives up waiting; what the store has begun may still happen.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::extent::Extent;
use crate::object::{ETag, Key, ObjectId};

mod fingerprint;
pub mod memory;
mod user;

pub use fingerprint::Fingerprint;
pub use user::UserMetadata;

/// A boxed future, so that the trait can be used as `dyn ObjectStore`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a call to the store gives.
pub type StoreResult<T> = Result<T, StoreError>;

/// Whose wait a request shortens. Requests queue by this, so that a long upload or a readahead
/// never starves a caller who waits for a few bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Priority {
    /// Somebody waits for this answer now: look-ups, listings, reads that missed.
    Interactive,
    /// Bytes fetched beyond what was asked.
    Readahead,
    /// Parts and objects on their way to the store.
    Upload,
}

/// What must be true of the target for a write to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Whatever is there is replaced.
    None,
    /// Nothing is there: `If-None-Match: *`.
    Absent,
    /// This version is there: `If-Match`.
    Matches(ETag),
}

/// What travels beside an object's bytes: headers that a rewrite must keep.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// User metadata (`x-amz-meta-*`), names in lower case without the prefix.
    pub user: UserMetadata,
    /// `Content-Type`, if the object has one that is worth keeping.
    pub content_type: Option<String>,
    /// `Content-Encoding`, kept across a rewrite.
    pub content_encoding: Option<String>,
    /// `Cache-Control`, kept across a rewrite.
    pub cache_control: Option<String>,
    /// `Content-Disposition`, kept across a rewrite.
    pub content_disposition: Option<String>,
    /// `Content-Language`, kept across a rewrite.
    pub content_language: Option<String>,
}

/// An object as HEAD shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its version.
    pub etag: ETag,
    /// Its size in bytes.
    pub size: u64,
    /// The CRC-64/NVME of all its bytes, in base64, if the store keeps one.
    pub checksum: Option<String>,
    /// When the store last took a write to it.
    pub modified: SystemTime,
    /// What travels beside its bytes.
    pub metadata: Metadata,
}

/// One page of keys asked for.
#[derive(Debug, Clone)]
pub struct ListRequest {
    /// Only keys that begin with this.
    pub prefix: String,
    /// Keys that hold `/` after the prefix are folded into [`ListPage::prefixes`].
    pub delimited: bool,
    /// Where the last page ended, from [`ListPage::next`].
    pub token: Option<String>,
    /// Only keys after this one in byte order; used with the first page only.
    pub start_after: Option<String>,
    /// At most this many keys and prefixes; the store's own bound is 1,000.
    pub keys_max: u32,
}

/// A key as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListEntry {
    /// The whole key, the mount's prefix included.
    pub key: String,
    /// Its version.
    pub etag: ETag,
    /// Its size in bytes.
    pub size: u64,
    /// When the store last took a write to it.
    pub modified: SystemTime,
}

/// One page of a listing, in the store's byte order.
#[derive(Debug, Clone, Default)]
pub struct ListPage {
    /// Objects.
    pub entries: Vec<ListEntry>,
    /// Common prefixes, each with its closing `/`.
    pub prefixes: Vec<String>,
    /// The token of the next page; `None` on the last.
    pub next: Option<String>,
}

/// Bytes on their way from the store. Resumes by itself after a cut connection.
pub trait Body: Send {
    /// The next bytes in order; `None` after the last one.
    ///
    /// # Errors
    /// `Changed` if the object stopped being the version asked for; any other as for a call.
    /// Waits for the store.
    fn chunk(&mut self) -> BoxFuture<'_, StoreResult<Option<Bytes>>>;
}

impl fmt::Debug for dyn Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body")
    }
}

/// The start of an object, answered together with what HEAD would have said.
#[derive(Debug)]
pub struct Fetched {
    /// The object's size in bytes, whole, from `Content-Range`.
    pub size: u64,
    /// The bytes asked for.
    pub body: Box<dyn Body>,
}

/// Some bytes of a part.
#[derive(Debug, Clone)]
pub enum PartBytes {
    /// In memory.
    Here(Bytes),
    /// To be read.
    Later(Later),
}

impl PartBytes {
    /// How many there are.
    pub fn len(&self) -> u64 {
        match self {
            Self::Here(bytes) => bytes.len() as u64,
            Self::Later(later) => later.len,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its bytes. Waits for the disk.
    ///
    /// # Errors
    /// `Broken` if they cannot be read.
    pub async fn bytes(&self) -> StoreResult<Bytes> {
        match self {
            Self::Here(bytes) => Ok(bytes.clone()),
            Self::Later(later) => later.bytes().await,
        }
    }
}

/// Bytes that are read each time they are sent, and take memory only meanwhile.
#[derive(Clone)]
pub struct Later {
    len: u64,
    read: Arc<ReadLater>,
}

type ReadLater = dyn Fn() -> BoxFuture<'static, StoreResult<Bytes>> + Send + Sync;

impl Later {
    /// `len` bytes that `read` gives.
    pub fn new(
        len: u64,
        read: impl Fn() -> BoxFuture<'static, StoreResult<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            len,
            read: Arc::new(read),
        }
    }

    async fn bytes(&self) -> StoreResult<Bytes> {
        let bytes = (self.read)().await?;
        if bytes.len() as u64 == self.len {
            Ok(bytes)
        } else {
            let why = "another number of bytes was read than is to be sent";
            Err(StoreError::new(StoreErrorKind::Broken, why))
        }
    }
}

impl fmt::Debug for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Later({} bytes)", self.len)
    }
}

/// A multipart upload under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UploadId(pub String);

/// A part that the store holds: its number from 1, what to name it by at completion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// 1 to 10,000.
    pub number: u32,
    /// The part's ETag as the store gave it.
    pub etag: ETag,
    /// The part's checksum as the store wants it back at completion, header name and value, if a
    /// checksum was sent with it.
    pub checksum: Option<(String, String)>,
    /// Its size in bytes.
    pub size: u64,
}

/// What a server-side copy does with the metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyMetadata {
    /// The target has the source's.
    Keep,
    /// The target has this.
    Replace(Metadata),
}

/// An object store. One bucket; keys include the mount's prefix. Every call waits for the store.
///
/// # Errors
/// Every call gives a [`StoreError`]; what is special to one call stands there.
pub trait ObjectStore: Send + Sync + fmt::Debug + 'static {
    /// The object at `key`. `NotFound` if there is none.
    fn head<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, StoreResult<ObjectInfo>>;

    /// `extent` of `id`, by `If-Match`. `Changed` if `id` is no longer the object's version,
    /// `NotFound` if the object is gone. The extent is not empty and begins before the object's
    /// end; one that reaches past the end is cut there, and `[0, u64::MAX)` is the whole object,
    /// which comes with its checksum where the store has one.
    fn get<'a>(
        &'a self,
        id: &'a ObjectId,
        extent: Extent,
        priority: Priority,
    ) -> BoxFuture<'a, StoreResult<Fetched>>;

    /// One page of keys.
    fn list(&self, request: ListRequest) -> BoxFuture<'_, StoreResult<ListPage>>;

    /// Makes `key` hold `body`. `Changed` if `condition` does not hold; with
    /// `Condition::Matches` an object that is gone is `Changed` too.
    fn put<'a>(
        &'a self,
        key: &'a Key,
        body: Vec<Bytes>,
        metadata: &'a Metadata,
        condition: &'a Condition,
    ) -> BoxFuture<'a, StoreResult<ETag>>;

    /// Begins a multipart upload that will make `key`.
    fn create_multipart<'a>(
        &'a self,
        key: &'a Key,
        metadata: &'a Metadata,
    ) -> BoxFuture<'a, StoreResult<UploadId>>;

    /// Uploads part `number`, 5 MiB to 5 GiB but for the last. Sending a number again replaces it.
    /// Bytes that are not in memory are read when their turn comes, a few at a time, and may be read
    /// several times.
    fn put_part<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        number: u32,
        body: Vec<PartBytes>,
    ) -> BoxFuture<'a, StoreResult<Part>>;

    /// Makes part `number` of bytes that the store already has, by `If-Match` on the source. `Changed` if
    /// the source is no longer that version or gone, `NotFound` if the upload is unknown, `Rejected` if the
    /// store does not copy parts, or not from this source (S3 copies a range of objects above 5 MiB only):
    /// then the bytes have to be fetched and sent.
    fn copy_part<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        number: u32,
        source: &'a ObjectId,
        extent: Extent,
    ) -> BoxFuture<'a, StoreResult<Part>>;

    /// Makes `key` of `parts`, in order of their numbers. `Changed` as for [`ObjectStore::put`];
    /// the upload is then still there and wants [`ObjectStore::abort`].
    fn complete<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        parts: &'a [Part],
        condition: &'a Condition,
    ) -> BoxFuture<'a, StoreResult<ETag>>;

    /// Gives up a multipart upload. One that is unknown to the store is a success.
    fn abort<'a>(&'a self, key: &'a Key, upload: &'a UploadId) -> BoxFuture<'a, StoreResult<()>>;

    /// Makes `target` a copy of `source`, server-side, any size, by `If-Match` on the source.
    /// `Changed` if the source is no longer that version or the condition on the target failed.
    /// A store that ignores a copy's condition on the target is checked by HEAD first.
    fn copy<'a>(
        &'a self,
        source: &'a ObjectId,
        target: &'a Key,
        metadata: CopyMetadata,
        condition: &'a Condition,
    ) -> BoxFuture<'a, StoreResult<ETag>>;

    /// Removes `key`, whatever version, or only `etag` where the store honours that and by HEAD
    /// first where it does not. A key that is not there is a success.
    fn delete<'a>(&'a self, key: &'a Key, etag: Option<&'a ETag>)
    -> BoxFuture<'a, StoreResult<()>>;
}

/// Why a call to the store failed, by what the caller may do about it.
#[derive(Debug, thiserror::Error)]
#[error("{kind}{}: {message}", context(.key.as_ref(), .request_id.as_deref()))]
pub struct StoreError {
    /// What the caller may do.
    pub kind: StoreErrorKind,
    /// The key that it was about.
    pub key: Option<Key>,
    /// The store's own name of the request, for its operator's logs.
    pub request_id: Option<String>,
    /// The store's code and message, or what broke on the way.
    pub message: String,
    /// Set by a put, a copy or a completion that the store may have carried out all the same, because the
    /// answer to one of its attempts was lost: how the object is known that it then made.
    pub lost: Option<Box<Fingerprint>>,
    /// What it came from.
    #[source]
    pub source: Option<Box<dyn StdError + Send + Sync>>,
}

fn context(key: Option<&Key>, request_id: Option<&str>) -> String {
    match (key, request_id) {
        (Some(key), Some(id)) => format!(" ({key:?}, request {id})"),
        (Some(key), None) => format!(" ({key:?})"),
        (None, Some(id)) => format!(" (request {id})"),
        (None, None) => String::new(),
    }
}

/// See [`StoreError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum StoreErrorKind {
    /// No such object, bucket or upload.
    #[error("not found")]
    NotFound,
    /// The condition failed: somebody else's version is there, or our own if [`StoreError::lost`] says so.
    #[error("changed by somebody else")]
    Changed,
    /// The credentials are wrong, expired, or not allowed to do this.
    #[error("access denied")]
    Denied,
    /// The store asked for fewer requests until the time limit passed.
    #[error("throttled")]
    Throttled,
    /// No answer within the time limit.
    #[error("timed out")]
    Timeout,
    /// More than the store takes: an object's size, a part's, a key's length.
    #[error("too large for the store")]
    TooLarge,
    /// The store has no room or the account's quota is used up.
    #[error("no room in the store")]
    NoSpace,
    /// The store understood and refused for good: a bad request, an unsupported feature.
    #[error("rejected")]
    Rejected,
    /// The answer made no sense, a checksum differed, the connection broke, the store failed.
    #[error("broken")]
    Broken,
}

impl StoreError {
    /// An error of `kind` with the store's words or ours.
    pub fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            key: None,
            request_id: None,
            message: message.into(),
            lost: None,
            source: None,
        }
    }

    /// Says which key it was about.
    #[must_use]
    pub fn with_key(mut self, key: &Key) -> Self {
        self.key = Some(key.clone());
        self
    }

    /// A second error like this one, for each of several waiters. The source is kept as text.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self {
            kind: self.kind,
            key: self.key.clone(),
            request_id: self.request_id.clone(),
            message: match &self.source {
                Some(source) => format!("{}: {source}", self.message),
                None => self.message.clone(),
            },
            lost: self.lost.clone(),
            source: None,
        }
    }
}

/// How long a whole call may take, retries included, unless the implementer was told otherwise.
pub const STORE_TIMEOUT: Duration = Duration::from_mins(1);
