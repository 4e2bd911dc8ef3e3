//! What objects carry beside their bytes, by version. It is kept without a TTL, and every HEAD says it anew:
//! where an ETag is a digest of the bytes, new metadata or another writer's same bytes do not change it.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ackfs_cache::object::ObjectId;
use ackfs_cache::store::Metadata;
use moka::sync::Cache;

use crate::fs::metadata::is_kept_of;
use crate::fs::names::cache::{Fact, FactOrigin};

/// Metadata, and what tells whether they are the newest.
#[derive(Debug, Clone)]
struct MetadataFact {
    known: Fact<Arc<Metadata>>,
    /// The store's time of the object in seconds, as HEAD says it; `None` for what this mount made.
    modified: Option<u64>,
}

/// See the module. All methods take `&self` and never wait.
#[derive(Debug)]
pub struct MetadataCache(Cache<ObjectId, MetadataFact>);

impl MetadataCache {
    /// Keeps the metadata of `versions_max` versions.
    pub fn new(versions_max: usize) -> Self {
        Self(Cache::new(versions_max as u64))
    }

    /// The metadata of a version as last seen, if they were.
    pub fn get(&self, id: &ObjectId) -> Option<Arc<Metadata>> {
        self.0.get(id).map(|fact| fact.known.what)
    }

    /// Keeps the metadata of a version that this mount made.
    pub fn made(&self, id: ObjectId, metadata: Arc<Metadata>) {
        let known = Fact {
            what: metadata,
            since: Instant::now(),
            origin: FactOrigin::OwnChange,
        };
        let modified = None;
        self.0.insert(id, MetadataFact { known, modified });
    }

    /// A HEAD that was sent at `since` showed a version's metadata, and when the store took it. Gives those
    /// to go by: what this mount keeps of its own versions says more, as long as nobody changed them.
    pub fn saw(
        &self,
        id: ObjectId,
        modified: SystemTime,
        metadata: Metadata,
        since: Instant,
    ) -> Arc<Metadata> {
        let age = modified.duration_since(UNIX_EPOCH);
        let modified = Some(age.map_or(0, |age| age.as_secs()));
        let mut what = Arc::new(metadata);
        if let Some(old) = self.0.get(&id) {
            if old.known.since > since {
                return old.known.what;
            }
            let is_same_age = old.modified.is_none() || old.modified == modified;
            if is_same_age && is_kept_of(&old.known.what, &what) {
                what = old.known.what;
            }
        }
        let known = Fact {
            what: what.clone(),
            since,
            origin: FactOrigin::Head,
        };
        self.0.insert(id, MetadataFact { known, modified });
        what
    }
}
