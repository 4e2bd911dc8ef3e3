//! The catalogue on disk: which objects there are and which extents of them, in one redb file. It is
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
//! one before. A file that redb finds damaged, or whose rows make no sense, is a
//! [`CatalogError`]: the cache is then started anew.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

use super::extents::{CachedExtent, Trust};
use super::object::CachedObject;
use crate::disk::wait::block_on;
use crate::disk::{self, Disk, DiskFile, OpenHow};
use crate::object::{ETag, Key, ObjectId};

type ObjectRow = (u64, u64, &'static str, &'static str);

const OBJECTS: TableDefinition<'static, u64, ObjectRow> = TableDefinition::new("objects");
const EXTENTS: TableDefinition<'static, (u64, u64), (u32, u64)> = TableDefinition::new("extents");
const STATE: TableDefinition<'static, &str, u64> = TableDefinition::new("state");
const CLEAN: &str = "clean";

/// redb's page cache. The catalogue is read once and then written in batches: little helps.
const CACHE_BYTES: usize = 2 << 20;

/// The catalogue cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the index cannot be used: {reason}")]
pub(crate) struct CatalogError {
    reason: String,
    is_full: bool,
}

impl CatalogError {
    fn because(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            is_full: false,
        }
    }

    /// Whether it only lacks room.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full
    }
}

impl<E: Into<redb::Error>> From<E> for CatalogError {
    fn from(error: E) -> Self {
        let error = error.into();
        Self {
            reason: error.to_string(),
            is_full: matches!(&error, redb::Error::Io(error) if disk::is_full(error)),
        }
    }
}

/// What happened to what is on disk.
#[derive(Debug)]
pub(crate) enum CatalogChange {
    /// An object is new, or was used.
    Object(Arc<CachedObject>),
    /// An extent is there.
    Extent(u64, CachedExtent),
    /// An extent is gone, or is part of another.
    DropExtent(u64, u64),
    /// An object and all its extents are gone.
    DropObject(u64),
}

/// The open catalogue.
#[derive(Debug)]
pub(crate) struct Catalog {
    db: Database,
}

/// What the catalogue said at opening.
#[derive(Debug, Default)]
pub(crate) struct LoadedCatalog {
    pub(crate) objects: Vec<CachedObject>,
    /// Whether the last owner closed it.
    pub(crate) clean: bool,
}

impl Catalog {
    /// Opens or makes the catalogue at `path` and reads all of it. Marks it as in use. Blocks on the
    /// disk.
    ///
    /// # Errors
    /// `CatalogError` inside if the file is no catalogue; else the disk's.
    pub(crate) fn open(
        disk: &dyn Disk,
        path: &Path,
    ) -> io::Result<Result<(Self, LoadedCatalog), CatalogError>> {
        let file = block_on(disk.open(path, OpenHow::Create))?;
        // redb checks what it reads, but a damaged page may still trip an assertion of it. Nothing
        // of what it touched is used after that.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let catalog = Self::create(file)?;
            let loaded = catalog.load()?;
            catalog.mark_clean(false)?;
            Ok((catalog, loaded))
        }));
        Ok(opened.unwrap_or_else(|_| Err(CatalogError::because("redb gave up on it"))))
    }

    fn create(file: DiskFile) -> Result<Self, CatalogError> {
        let db = redb::Builder::new()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create_with_backend(CatalogFile(file))?;
        Ok(Self { db })
    }

    fn load(&self) -> Result<LoadedCatalog, CatalogError> {
        let begin = self.db.begin_write()?;
        // Makes the tables of a new catalogue.
        begin.open_table(OBJECTS)?;
        begin.open_table(EXTENTS)?;
        begin.open_table(STATE)?;
        begin.commit()?;

        let read = self.db.begin_read()?;
        let clean = read.open_table(STATE)?.get(CLEAN)?;
        let mut loaded = LoadedCatalog {
            objects: Vec::new(),
            clean: clean.is_some_and(|value| value.value() == 1),
        };
        for row in read.open_table(OBJECTS)?.iter()? {
            let (number, value) = row?;
            let (size, last_used, key, etag) = value.value();
            let id = ObjectId::new(Key::new(key), ETag::new(etag));
            let object = CachedObject::new(number.value(), id, size, last_used);
            loaded.objects.push(object);
        }
        // Both tables are in order of the number.
        let mut objects = loaded.objects.iter().peekable();
        for row in read.open_table(EXTENTS)?.iter()? {
            let (key, value) = row?;
            let ((number, offset), (len, crc)) = (key.value(), value.value());
            let cached = CachedExtent {
                offset,
                crc,
                len,
                trust: Trust::Unverified,
            };
            while objects.next_if(|object| object.number < number).is_some() {}
            let fits = objects.peek().is_some_and(|object| {
                object.number == number
                    && cached.is_valid()
                    && cached.extent().end() <= object.size
                    && object.on_disk.write().extents.put(cached)
            });
            if !fits {
                return Err(CatalogError::because(format!(
                    "extent {offset} of object {number} makes no sense"
                )));
            }
        }
        Ok(loaded)
    }

    /// Writes `changes` in their order and syncs. Blocks on the disk.
    ///
    /// # Errors
    /// The catalogue is then as it was and cannot be written any more.
    pub(crate) fn apply<'a>(
        &self,
        changes: impl Iterator<Item = &'a CatalogChange>,
    ) -> Result<(), CatalogError> {
        let write = self.db.begin_write()?;
        {
            let mut objects = write.open_table(OBJECTS)?;
            let mut extents = write.open_table(EXTENTS)?;
            for change in changes {
                match change {
                    CatalogChange::Object(object) => {
                        let id = &object.id;
                        let (key, etag) = (id.key.as_str(), id.etag.as_str());
                        objects
                            .insert(object.number, (object.size, object.save_use(), key, etag))?;
                    }
                    CatalogChange::Extent(number, cached) => {
                        extents.insert((*number, cached.offset), (cached.len, cached.crc))?;
                    }
                    CatalogChange::DropExtent(number, offset) => {
                        extents.remove((*number, *offset))?;
                    }
                    CatalogChange::DropObject(number) => {
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
    pub(crate) fn mark_clean(&self, clean: bool) -> Result<(), CatalogError> {
        let write = self.db.begin_write()?;
        write.open_table(STATE)?.insert(CLEAN, u64::from(clean))?;
        write.commit()?;
        Ok(())
    }
}

/// redb's storage on a file of our disk, so that tests can cut its power too.
#[derive(Debug)]
struct CatalogFile(DiskFile);

impl StorageBackend for CatalogFile {
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
mod tests;
