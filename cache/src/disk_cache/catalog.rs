//! The index on disk: which objects there are and which extents of them, in one redb file. It is
//! read once, at opening; afterwards it only follows what memory knows, in batches, after the data.
//!
//! ```text
//! objects   number                -> (size, last used, key, etag)
//! extents   (number, offset)      -> (length, crc64nvme)
//! state     "clean"               -> 1 if the last owner closed it
//! ```
//!
//! It may say less than the disk holds (the last batch was lost: the files' other bytes are punched
//! away at opening) and more (the data were lost: their checksum tells). It is never believed
//! further than that. redb commits by two roots and a sync, so a crash leaves the last batch or the
//! one before. A file that redb finds damaged, or whose rows make no sense, is [`Damaged`]: the
//! cache is then started anew.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

use super::extents::{Held, Trust};
use super::object::Object;
use crate::disk::wait::block_on;
use crate::disk::{Disk, DiskFile, OpenHow};
use crate::object::{ETag, Key, ObjectId};

type ObjectRow = (u64, u64, &'static str, &'static str);

const OBJECTS: TableDefinition<'static, u64, ObjectRow> = TableDefinition::new("objects");
const EXTENTS: TableDefinition<'static, (u64, u64), (u32, u64)> = TableDefinition::new("extents");
const STATE: TableDefinition<'static, &str, u64> = TableDefinition::new("state");
const CLEAN: &str = "clean";

/// redb's page cache. The index is read once and then written in batches: little helps.
const CACHE_BYTES: usize = 2 << 20;

/// The index cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the index cannot be used: {reason}")]
pub(crate) struct Damaged {
    reason: String,
    errno: Option<i32>,
}

impl Damaged {
    fn because(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            errno: None,
        }
    }

    /// Whether it only lacks room.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self.errno, Some(libc::ENOSPC | libc::EDQUOT))
    }
}

impl<E: Into<redb::Error>> From<E> for Damaged {
    fn from(error: E) -> Self {
        let error = error.into();
        let errno = match &error {
            redb::Error::Io(error) => error.raw_os_error(),
            _ => None,
        };
        Self {
            reason: error.to_string(),
            errno,
        }
    }
}

/// What happened to what is held.
#[derive(Debug)]
pub(crate) enum Change {
    /// An object is new, or was used.
    Object(Arc<Object>),
    /// An extent is held.
    Extent(u64, Held),
    /// An extent is no longer held by itself.
    DropExtent(u64, u64),
    /// An object and all its extents are gone.
    DropObject(u64),
}

/// The open index.
#[derive(Debug)]
pub(crate) struct Catalog {
    db: Database,
}

/// What the index said at opening.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) objects: Vec<Object>,
    /// Whether the last owner closed it.
    pub(crate) clean: bool,
}

impl Catalog {
    /// Opens or makes the index at `path` and reads all of it. Marks it as in use. Blocks on the
    /// disk.
    ///
    /// # Errors
    /// `Damaged` inside if the file is no index; else the disk's.
    pub(crate) fn open(
        disk: &dyn Disk,
        path: &Path,
    ) -> io::Result<Result<(Self, Loaded), Damaged>> {
        let file = block_on(disk.open(path, OpenHow::Create))?;
        // redb checks what it reads, but a damaged page may still trip an assertion of it. Nothing
        // of what it touched is used after that.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let catalog = Self::create(file)?;
            let loaded = catalog.load()?;
            catalog.mark_clean(false)?;
            Ok((catalog, loaded))
        }));
        Ok(opened.unwrap_or_else(|_| Err(Damaged::because("redb gave up on it"))))
    }

    fn create(file: DiskFile) -> Result<Self, Damaged> {
        let db = redb::Builder::new()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create_with_backend(Backend(file))?;
        Ok(Self { db })
    }

    fn load(&self) -> Result<Loaded, Damaged> {
        let begin = self.db.begin_write()?;
        // Makes the tables of a new index.
        begin.open_table(OBJECTS)?;
        begin.open_table(EXTENTS)?;
        begin.open_table(STATE)?;
        begin.commit()?;

        let read = self.db.begin_read()?;
        let clean = read.open_table(STATE)?.get(CLEAN)?;
        let mut loaded = Loaded {
            objects: Vec::new(),
            clean: clean.is_some_and(|value| value.value() == 1),
        };
        for row in read.open_table(OBJECTS)?.iter()? {
            let (number, value) = row?;
            let (size, last_used, key, etag) = value.value();
            let id = ObjectId::new(Key::new(key), ETag::new(etag));
            let object = Object::new(number.value(), id, size, last_used);
            loaded.objects.push(object);
        }
        // Both tables are in order of the number.
        let mut objects = loaded.objects.iter().peekable();
        for row in read.open_table(EXTENTS)?.iter()? {
            let (key, value) = row?;
            let ((number, offset), (len, crc)) = (key.value(), value.value());
            let held = Held {
                offset,
                crc,
                len,
                trust: Trust::Unverified,
            };
            while objects.next_if(|object| object.number < number).is_some() {}
            let fits = objects.peek().is_some_and(|object| {
                object.number == number
                    && held.is_valid()
                    && held.extent().end() <= object.size
                    && object.content.write().held.put(held)
            });
            if !fits {
                return Err(Damaged::because(format!(
                    "extent {offset} of object {number} makes no sense"
                )));
            }
        }
        Ok(loaded)
    }

    /// Writes `changes` in their order and syncs. Blocks on the disk.
    ///
    /// # Errors
    /// The index is then as it was and cannot be written any more.
    pub(crate) fn apply<'a>(
        &self,
        changes: impl Iterator<Item = &'a Change>,
    ) -> Result<(), Damaged> {
        let write = self.db.begin_write()?;
        {
            let mut objects = write.open_table(OBJECTS)?;
            let mut extents = write.open_table(EXTENTS)?;
            for change in changes {
                match change {
                    Change::Object(object) => {
                        let id = &object.id;
                        let (key, etag) = (id.key.as_str(), id.etag.as_str());
                        objects
                            .insert(object.number, (object.size, object.save_use(), key, etag))?;
                    }
                    Change::Extent(number, held) => {
                        extents.insert((*number, held.offset), (held.len, held.crc))?;
                    }
                    Change::DropExtent(number, offset) => {
                        extents.remove((*number, *offset))?;
                    }
                    Change::DropObject(number) => {
                        objects.remove(*number)?;
                        extents.retain_in((*number, 0)..=(*number, u64::MAX), |_, _| false)?;
                    }
                }
            }
        }
        write.commit()?;
        Ok(())
    }

    /// Notes whether the owner is gone in good order. Blocks on the disk.
    ///
    /// # Errors
    /// As [`Catalog::apply`].
    pub(crate) fn mark_clean(&self, clean: bool) -> Result<(), Damaged> {
        let write = self.db.begin_write()?;
        write.open_table(STATE)?.insert(CLEAN, u64::from(clean))?;
        write.commit()?;
        Ok(())
    }
}

/// redb's storage on a file of our disk, so that tests can cut its power too.
#[derive(Debug)]
struct Backend(DiskFile);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(offset, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::SimDisk;

    fn held(offset: u64, len: u32) -> Held {
        Held {
            offset,
            crc: offset ^ 7,
            len,
            trust: Trust::Written,
        }
    }

    fn object(number: u64) -> Arc<Object> {
        let id = ObjectId::new(Key::new(format!("key {number}")), ETag::new("\"e\""));
        Arc::new(Object::new(number, id, 100, number))
    }

    #[test]
    fn what_was_applied_is_loaded_and_what_was_dropped_is_not() {
        let disk = SimDisk::new(1);
        let path = Path::new("/index");
        let (catalog, loaded) = Catalog::open(&disk, path).unwrap().unwrap();
        assert!(loaded.objects.is_empty() && !loaded.clean);
        let changes = [
            Change::Object(object(1)),
            Change::Object(object(2)),
            Change::Extent(1, held(0, 10)),
            Change::Extent(1, held(10, 10)),
            Change::DropExtent(1, 0),
            Change::Extent(2, held(0, 100)),
            Change::DropObject(2),
        ];
        catalog.apply(changes.iter()).unwrap();
        catalog.mark_clean(true).unwrap();
        drop(catalog);

        let disk = disk.crash();
        let (_, loaded) = Catalog::open(&disk, path).unwrap().unwrap();
        assert!(loaded.clean);
        let [one] = &loaded.objects[..] else {
            panic!("{loaded:?}");
        };
        assert_eq!(
            (one.number, &one.id, one.last_used()),
            (1, &object(1).id, 1)
        );
        let content = one.content.read();
        let all: Vec<u64> = content.held.iter().map(|held| held.offset).collect();
        assert_eq!(all, [10]);
        assert_eq!(content.held.unverified(), 1);
    }

    #[test]
    fn rows_that_make_no_sense_are_damage() {
        for changes in [
            vec![Change::Extent(5, held(0, 10))],
            vec![Change::Object(object(5)), Change::Extent(5, held(95, 10))],
            vec![
                Change::Object(object(5)),
                Change::Extent(5, held(0, 10)),
                Change::Extent(5, held(9, 10)),
            ],
        ] {
            let disk = SimDisk::new(1);
            let path = Path::new("/index");
            let (catalog, _) = Catalog::open(&disk, path).unwrap().unwrap();
            catalog.apply(changes.iter()).unwrap();
            drop(catalog);
            assert!(Catalog::open(&disk, path).unwrap().is_err(), "{changes:?}");
        }
    }

    #[test]
    fn garbage_is_damage_wherever_it_lies() {
        for seed in 0..24u64 {
            let disk = SimDisk::new(seed);
            let path = Path::new("/index");
            let (catalog, _) = Catalog::open(&disk, path).unwrap().unwrap();
            let changes: Vec<Change> = (0..50)
                .flat_map(|n| [Change::Object(object(n)), Change::Extent(n, held(0, 9))])
                .collect();
            catalog.apply(changes.iter()).unwrap();
            drop(catalog);
            let file = block_on(disk.open(path, OpenHow::Existing)).unwrap();
            let len = file.len().unwrap();
            let at = if seed == 0 { 0 } else { len / 24 * seed };
            file.write_all_at(at, &[0xa5; 3000][..3000.min((len - at) as usize)])
                .unwrap();
            // Damage in a page that is not in use is no damage; all else is an error, and never
            // rows that nobody wrote.
            if let Ok((_, loaded)) = Catalog::open(&disk, path).unwrap() {
                for one in &loaded.objects {
                    assert_eq!(one.id, object(one.number).id);
                    assert_eq!(one.content.read().held.iter().count(), 1);
                }
            }
        }
    }
}
