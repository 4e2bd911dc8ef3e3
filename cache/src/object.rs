//! The names of bytes. A [`Key`] names an object, an [`ETag`] names one version of it, and an
//! [`ObjectId`] names both: bytes that never change. Everything clean that ackfs holds is held
//! under an `ObjectId`, so bytes of two versions cannot mix by construction.

use std::fmt;
use std::sync::Arc;

/// An object's key: valid UTF-8, at most 1,024 bytes as S3 has it, never empty. It includes the
/// mount's prefix. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

impl Key {
    /// The longest key that S3 takes, in bytes (S3 user guide, "Object key naming guidelines").
    pub const LEN_MAX: usize = 1024;

    /// Names the object `key`.
    pub fn new(key: impl Into<Arc<str>>) -> Self {
        Self(key.into())
    }

    /// The key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An object's version as the store names it, quotes included. Compared only for equality.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ETag(Arc<str>);

impl ETag {
    /// Takes the store's header value as it came.
    pub fn new(etag: impl Into<Arc<str>>) -> Self {
        Self(etag.into())
    }

    /// The header value.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `other` names the same version: some answers quote ETags, some do not.
    pub fn is_same(&self, other: &str) -> bool {
        let bare = |etag: &str| etag.trim_start_matches("W/").trim_matches('"').to_owned();
        bare(&self.0) == bare(other)
    }
}

impl fmt::Debug for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One version of one object: bytes that never change.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ObjectId {
    /// The object.
    pub key: Key,
    /// Its version.
    pub etag: ETag,
}

impl ObjectId {
    /// Names version `etag` of `key`.
    pub fn new(key: Key, etag: ETag) -> Self {
        Self { key, etag }
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{}", self.key, self.etag)
    }
}
