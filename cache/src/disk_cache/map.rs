//! The objects on disk by key, for look-ups on the hot path: shards of read-write locks, each a
//! leaf lock that is never held across a disk call. There is one object a key, so a new version
//! replaces the older one.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::object::CachedObject;
use crate::object::{Key, ObjectId};

const SHARDS: usize = 16;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct ObjectMap {
    shards: [RwLock<HashMap<Key, Arc<CachedObject>>>; SHARDS],
}

impl ObjectMap {
    fn shard(&self, key: &Key) -> &RwLock<HashMap<Key, Arc<CachedObject>>> {
        // Keys differ at their end; the map hashes them properly.
        let tail = key.as_str().bytes().rev().take(8);
        let mixed = tail.fold(0usize, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(usize::from(byte))
        });
        &self.shards[mixed % SHARDS]
    }

    /// This version of the object.
    pub(crate) fn find(&self, id: &ObjectId) -> Option<Arc<CachedObject>> {
        let shard = self.shard(&id.key).read();
        let object = shard.get(&id.key)?;
        (object.id.etag == id.etag).then(|| object.clone())
    }

    /// Whatever version of the object is here.
    pub(crate) fn by_key(&self, key: &Key) -> Option<Arc<CachedObject>> {
        self.shard(key).read().get(key).cloned()
    }

    /// Puts it in; gives the version that was there.
    pub(crate) fn insert(&self, object: Arc<CachedObject>) -> Option<Arc<CachedObject>> {
        self.shard(&object.id.key)
            .write()
            .insert(object.id.key.clone(), object)
    }

    /// Takes out this very object; false if it is not there.
    pub(crate) fn remove(&self, object: &Arc<CachedObject>) -> bool {
        let mut shard = self.shard(&object.id.key).write();
        let here = shard.get(&object.id.key);
        let same = here.is_some_and(|here| Arc::ptr_eq(here, object));
        if same {
            shard.remove(&object.id.key);
        }
        same
    }

    /// All objects, in no order.
    pub(crate) fn all(&self) -> Vec<Arc<CachedObject>> {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.extend(shard.read().values().cloned());
        }
        all
    }

    pub(crate) fn count(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }
}
