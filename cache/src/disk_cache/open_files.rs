//! How many cache files are open at once. An object's file stays open after its first use, because
//! a hit must not wait for open(2); this list closes those that were not used for longest, by going
//! round and sparing each that was used since it last came by.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use nix::sys::resource::{Resource, getrlimit};
use parking_lot::Mutex;

use super::object::CachedObject;
use crate::disk::DiskFile;

/// Open cache files, unless the limit on descriptors is small.
const OPEN_MAX: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    max: usize,
    /// Taken before an object's own lock, never the other way round.
    open: Mutex<VecDeque<Weak<CachedObject>>>,
}

impl OpenFiles {
    pub(crate) fn new() -> Self {
        // A quarter: the store's connections, the kernel's rings and clients need theirs.
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
        let quarter = usize::try_from(limit / 4).unwrap_or(OPEN_MAX);
        Self::with_max(quarter.clamp(16, OPEN_MAX))
    }

    fn with_max(max: usize) -> Self {
        Self {
            max,
            open: Mutex::default(),
        }
    }

    /// Keeps `file` open for `object`, unless another is or the object is retired. Gives the one
    /// to use. Closes others past the bound.
    pub(crate) fn keep(&self, object: &Arc<CachedObject>, file: DiskFile) -> DiskFile {
        let mut open = self.open.lock();
        if let Err(other) = object.on_disk.write().keep_file(&file) {
            return other;
        }
        // It has a whole round before it needs a mark.
        object.take_file_used();
        open.push_back(Arc::downgrade(object));
        let closed = Self::close_beyond(self.max, &mut open, object);
        drop(open);
        // close(2) may wait for the disk: after the locks.
        drop(closed);
        file
    }

    /// Closes files until `max` are open or all were looked at twice: the first round takes the
    /// marks away. Those of `newest` and those that somebody else holds stay: closing such a file would
    /// give no descriptor back, and would hide that it is held.
    fn close_beyond(
        max: usize,
        open: &mut VecDeque<Weak<CachedObject>>,
        newest: &Arc<CachedObject>,
    ) -> Vec<DiskFile> {
        let mut closed = Vec::new();
        let mut turns = open.len() * 2;
        while open.len() > max && turns > 0 {
            turns -= 1;
            let Some(oldest) = open.pop_front() else {
                break;
            };
            let Some(object) = oldest.upgrade() else {
                continue;
            };
            let spared = Arc::ptr_eq(&object, newest)
                || object.take_file_used()
                || object.on_disk.read().is_file_shared();
            if spared {
                open.push_back(oldest);
            } else {
                closed.extend(object.on_disk.write().close_file());
            }
        }
        closed
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::disk::sim::SimDisk;
    use crate::disk::wait::block_on;
    use crate::disk::{Disk, OpenHow};
    use crate::object::{ETag, Key, ObjectId};

    #[test]
    fn the_bound_is_kept_and_what_is_used_or_held_stays_open() {
        let disk = SimDisk::new(1);
        let files = OpenFiles::with_max(3);
        let objects: Vec<Arc<CachedObject>> = (0..10)
            .map(|number| {
                let id = ObjectId::new(Key::new(format!("{number}")), ETag::new("e"));
                Arc::new(CachedObject::new(number, id, 1, 0))
            })
            .collect();
        let mut held = None;
        for object in &objects {
            let path = object.path(Path::new("/o"));
            let file = block_on(disk.open(&path, OpenHow::Create)).unwrap();
            let file = files.keep(object, file);
            if object.number == 1 {
                held = Some(file);
            }
            objects[0].touch(1);
        }
        let open: Vec<u64> = objects
            .iter()
            .filter(|object| object.on_disk.read().file().is_some())
            .map(|object| object.number)
            .collect();
        assert_eq!(open, [0, 1, 9]);
        drop(held);
    }
}
