//! What lies in a cache directory, and how it is found at opening.
//!
//! ```text
//! DIR/lock             held by flock(2) while an ackfs owns the directory
//! DIR/format           "ackfs-cache 1\n": the format of all the rest
//! DIR/index.redb       which extents of which objects are cached (catalog.rs)
//! DIR/index.new        a catalogue being written anew; renamed over the other when it is whole
//! DIR/objects/NN/N     the objects' files, named by their number, in 256 directories
//! ```
//!
//! The format is a file of its own, so that it can be read whatever a later version makes of the
//! catalogue. A newer format is left as it is. What is missing, damaged or foreign is started anew:
//! only files of names that we give are ever removed.
//!
//! After opening, a file is there for every object that memory knows and nothing else lies in
//! `objects`; after a crash, what the files hold beyond the catalogue is punched away. So the account
//! of used bytes is never below what the disk really gave.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::catalog::{Catalog, CatalogChange, CatalogError, LoadedCatalog};
use super::extents::PAGE;
use super::object::{CachedObject, number_of, path_of};
use crate::disk::wait::block_on;
use crate::disk::{Disk, OpenHow};
use crate::extent::Extent;

/// The format that this version reads and writes. One that cannot read what another wrote needs
/// the next number.
pub(crate) const FORMAT: u64 = 1;

const FORMAT_WORD: &str = "ackfs-cache";

/// A cache directory on a disk.
#[derive(Debug, Clone)]
pub(crate) struct CacheDirectory {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

/// What the directory holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DirectoryFormat {
    /// Nothing of a cache.
    Nothing,
    /// A cache of our format.
    Ours,
    /// A cache of a later format.
    Newer(u64),
    /// Something that makes no sense.
    Unknown,
}

/// A cache as it was found or made.
#[derive(Debug)]
pub(crate) struct OpenedDirectory {
    /// `None` if the disk is too full for a catalogue.
    pub(crate) catalog: Option<Catalog>,
    pub(crate) objects: Vec<CachedObject>,
    /// Larger than all numbers that were ever given.
    pub(crate) next_number: u64,
}

impl CacheDirectory {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: &Path) -> Self {
        Self {
            disk,
            dir: dir.to_owned(),
        }
    }

    pub(crate) fn objects_dir(&self) -> PathBuf {
        self.dir.join("objects")
    }

    fn catalog(&self) -> PathBuf {
        self.dir.join("index.redb")
    }

    fn format_file(&self) -> PathBuf {
        self.dir.join("format")
    }

    /// Looks, and changes nothing.
    pub(crate) fn format(&self) -> io::Result<DirectoryFormat> {
        let text = match block_on(self.disk.open(&self.format_file(), OpenHow::Existing)) {
            Ok(file) => {
                let mut text = vec![0; file.len()?.min(64) as usize];
                file.read_exact_at(0, &mut text)?;
                text
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let catalog = block_on(self.disk.open(&self.catalog(), OpenHow::Existing));
                return Ok(match catalog {
                    Ok(_) => DirectoryFormat::Unknown,
                    Err(_) => DirectoryFormat::Nothing,
                });
            }
            Err(error) => return Err(error),
        };
        let version = std::str::from_utf8(&text)
            .ok()
            .and_then(|text| text.trim_end().strip_prefix(FORMAT_WORD))
            .and_then(|version| version.trim().parse::<u64>().ok());
        Ok(match version {
            Some(FORMAT) => DirectoryFormat::Ours,
            Some(version) if version > FORMAT => DirectoryFormat::Newer(version),
            _ => DirectoryFormat::Unknown,
        })
    }

    /// Opens what was found, or starts anew. Blocks on the disk.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn open(&self, found: &DirectoryFormat) -> io::Result<OpenedDirectory> {
        block_on(self.disk.make_dir(&self.objects_dir()))?;
        if *found == DirectoryFormat::Ours {
            match Catalog::open(&*self.disk, &self.catalog())? {
                Ok((catalog, loaded)) => return self.reconcile(catalog, loaded),
                Err(error) => self.warn_anew(&error.to_string()),
            }
        } else if *found == DirectoryFormat::Unknown {
            self.warn_anew("its format cannot be read");
        }
        self.start_anew()
    }

    fn warn_anew(&self, reason: &str) {
        tracing::warn!(dir = %self.dir.display(), reason, "the cache is started anew, what it held is dropped");
    }

    fn start_anew(&self) -> io::Result<OpenedDirectory> {
        block_on(self.disk.remove(&self.catalog()))?;
        for number in self.numbers()? {
            block_on(self.disk.remove(&path_of(&self.objects_dir(), number)))?;
        }
        let catalog = match self.make_catalog(std::iter::empty()) {
            Ok(catalog) => Some(catalog),
            Err(error) if error.is_full() => {
                tracing::warn!(%error, "no room for the cache's index: nothing is stored until there is");
                None
            }
            Err(error) => return Err(io::Error::other(error)),
        };
        Ok(OpenedDirectory {
            catalog,
            objects: Vec::new(),
            next_number: 1,
        })
    }

    /// Makes the directory agree with the catalogue, and the catalogue with the directory.
    fn reconcile(&self, catalog: Catalog, loaded: LoadedCatalog) -> io::Result<OpenedDirectory> {
        let files: BTreeSet<u64> = self.numbers()?.into_iter().collect();
        let known: BTreeSet<u64> = loaded.objects.iter().map(|o| o.number).collect();
        for &number in files.difference(&known) {
            block_on(self.disk.remove(&path_of(&self.objects_dir(), number)))?;
        }
        let (objects, gone): (Vec<CachedObject>, Vec<CachedObject>) =
            loaded.objects.into_iter().partition(|object| {
                files.contains(&object.number) && !object.on_disk.read().extents.is_empty()
            });
        for object in &gone {
            block_on(self.disk.remove(&object.path(&self.objects_dir())))?;
        }
        let gone: Vec<CatalogChange> = gone
            .iter()
            .map(|o| CatalogChange::DropObject(o.number))
            .collect();
        let catalog = match catalog.apply(gone.iter()) {
            Ok(()) => Some(catalog),
            Err(error) => {
                tracing::warn!(%error, "the cache index cannot be written");
                None
            }
        };
        if !loaded.clean {
            for object in &objects {
                self.punch_unknown(object)?;
            }
        }
        let last = files.last().max(known.last()).copied().unwrap_or(0);
        Ok(OpenedDirectory {
            catalog,
            objects,
            next_number: last + 1,
        })
    }

    /// Gives back the room of what the last owner wrote and did not live to write into the catalogue.
    fn punch_unknown(&self, object: &CachedObject) -> io::Result<()> {
        let path = object.path(&self.objects_dir());
        let file = block_on(self.disk.open(&path, OpenHow::Existing))?;
        let end = file.len()?.div_ceil(PAGE) * PAGE;
        let on_disk = object.on_disk.read();
        for room in on_disk.extents.reclaimable(Extent::between(0, end)) {
            if let Err(error) = file.punch(room) {
                tracing::debug!(object = ?object.id, %error, "the disk cannot give room back");
                break;
            }
        }
        Ok(())
    }

    /// The numbers of all files of ours.
    fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for dir in block_on(self.disk.list(&self.objects_dir()))? {
            if dir.len() != 2 || u8::from_str_radix(&dir, 16).is_err() {
                continue;
            }
            let names = block_on(self.disk.list(&self.objects_dir().join(&dir)))?;
            numbers.extend(names.iter().filter_map(|name| number_of(&dir, name)));
        }
        Ok(numbers)
    }

    /// Writes a catalogue of `objects` beside the old one and puts it in its place.
    ///
    /// # Errors
    /// The old one is then as it was.
    pub(crate) fn make_catalog(
        &self,
        objects: impl Iterator<Item = Arc<CachedObject>>,
    ) -> Result<Catalog, CatalogError> {
        let new = self.dir.join("index.new");
        block_on(self.disk.remove(&new))?;
        let (catalog, _) = Catalog::open(&*self.disk, &new)??;
        let mut changes = Vec::new();
        for object in objects {
            changes.push(CatalogChange::Object(object.clone()));
            let on_disk = object.on_disk.read();
            let extents = on_disk.extents.iter();
            changes.extend(extents.map(|cached| CatalogChange::Extent(object.number, *cached)));
        }
        catalog.apply(changes.iter())?;
        self.write_format()?;
        block_on(self.disk.rename(&new, &self.catalog()))?;
        Ok(catalog)
    }

    fn write_format(&self) -> io::Result<()> {
        if self.format()? == DirectoryFormat::Ours {
            return Ok(());
        }
        let new = self.dir.join("format.new");
        block_on(self.disk.remove(&new))?;
        let file = block_on(self.disk.open(&new, OpenHow::Create))?;
        let text = Bytes::from(format!("{FORMAT_WORD} {FORMAT}\n"));
        block_on(self.disk.write_at(&file, 0, vec![text]))?;
        block_on(self.disk.sync_data(&file))?;
        block_on(self.disk.rename(&new, &self.format_file()))
    }
}
