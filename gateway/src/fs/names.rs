//! What the store said of names.
//!
//! ```text
//! resolve     what a name is: from what is known, else by asking
//! cache       what is known of names, since when and from which request
//! metadata    what objects carry, by version
//! listing     a directory being read
//! contended   names that somebody overwrites while they are opened
//! creations   runs of new names
//! key shadow  a name and its key; a file and a directory of one name
//! ```
//! A question is asked once: whoever needs an answer looks here, one listing serves all who look for names in its
//! directory at that time, and what an answer says beside the question is kept too. No verb of the kernel is
//! known here; inodes are looked at where one decides what has to be asked.

use std::sync::Arc;
use std::time::Duration;

use ackfs_cache::store::ObjectStore;
use tokio::runtime::Handle as Runtime;

use self::cache::NameCache;
use self::contended::ContendedNames;
use self::listing::Lister;
use self::metadata::MetadataCache;
use crate::fs::table::InodeTable;
use crate::fs::table::inode::Inode;

pub mod cache;
pub mod creations;
pub mod key;
pub mod listing;
pub mod metadata;

pub(in crate::fs) mod contended;
pub(in crate::fs) mod resolve;

mod shadow;

/// How long and of how many names something is believed.
#[derive(Debug, Clone, Copy)]
pub(in crate::fs) struct NameLimits {
    /// For how long what was found is believed without asking again.
    pub(in crate::fs) positive_ttl: Duration,
    /// For how long "no such name" is.
    pub(in crate::fs) negative_ttl: Duration,
    /// Of how many names something is kept.
    pub(in crate::fs) names_max: usize,
}

/// The names of a bucket, as far as they are known.
#[derive(Debug)]
pub(in crate::fs) struct Namespace {
    store: Arc<dyn ObjectStore>,
    runtime: Runtime,
    table: Arc<InodeTable>,
    cache: NameCache,
    metadata: MetadataCache,
    contended: ContendedNames,
}

impl Namespace {
    /// Nothing is known yet. Pages of listings are fetched on `runtime`.
    pub(in crate::fs) fn new(
        limits: NameLimits,
        store: Arc<dyn ObjectStore>,
        table: Arc<InodeTable>,
        runtime: Runtime,
    ) -> Self {
        Self {
            store,
            runtime,
            table,
            cache: NameCache::new(limits.positive_ttl, limits.negative_ttl, limits.names_max),
            metadata: MetadataCache::new(limits.names_max),
            contended: ContendedNames::default(),
        }
    }

    /// What is known of names.
    pub(in crate::fs) fn cache(&self) -> &NameCache {
        &self.cache
    }

    /// What objects carry.
    pub(in crate::fs) fn metadata(&self) -> &MetadataCache {
        &self.metadata
    }

    /// Names that somebody overwrites while they are opened.
    pub(in crate::fs) fn contended(&self) -> &ContendedNames {
        &self.contended
    }

    /// Begins to list `dir` for a reader.
    pub(in crate::fs) fn lister(&self, dir: &Inode) -> Lister {
        let prefix = dir.key().to_string();
        let local = self.table.local_names(dir.ino());
        Lister::new(prefix, local, self.store.clone(), self.runtime.clone())
    }
}
