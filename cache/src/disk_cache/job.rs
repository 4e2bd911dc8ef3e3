//! What the cache asks of its writer.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::extents::CachedExtent;
use super::object::CachedObject;
use crate::extent::Extent;
use crate::memory::Keep;
use crate::object::ObjectId;

/// Bytes to store: `extent` of `id`, whose whole size is `size`.
#[derive(Debug)]
pub(crate) struct PendingWrite {
    pub(crate) id: ObjectId,
    pub(crate) size: u64,
    pub(crate) extent: Extent,
    pub(crate) pieces: Vec<Bytes>,
    /// What pays for their memory.
    pub(crate) keep: Option<Keep>,
}

impl PendingWrite {
    /// Its bytes if nobody pays for them.
    pub(crate) fn unpaid_bytes(&self) -> u64 {
        match self.keep {
            Some(_) => 0,
            None => self.extent.len,
        }
    }
}

/// One thing for the writer to do.
#[derive(Debug)]
pub(crate) enum WriterJob {
    /// Store these bytes.
    Write(PendingWrite),
    /// The object is out of the map: remove its file.
    Retire(Arc<CachedObject>),
    /// The extent was dropped from the object's list: give its room back.
    Punch {
        object: Arc<CachedObject>,
        cached: CachedExtent,
    },
    /// Open the object's file and compare what is unverified.
    Verify(Arc<CachedObject>),
    /// Say when all before this is done, and with `catalog`, when the catalogue is on disk too.
    Sync {
        catalog: bool,
        reply: oneshot::Sender<()>,
    },
}

impl WriterJob {
    /// The bytes that it is to store, if it is about any.
    pub(crate) fn as_write(&self) -> Option<&PendingWrite> {
        match self {
            Self::Write(write) => Some(write),
            Self::Retire(_) | Self::Punch { .. } | Self::Verify(_) | Self::Sync { .. } => None,
        }
    }
}
