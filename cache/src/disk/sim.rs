//! A disk in memory for tests, which forgets what was not synced. It is deterministic by its seed.
//!
//! [`SimDisk::crash`] is a power cut: what was synced stays; of every page that was written since,
//! the seed decides whether it is on the disk, is not, or is torn after some of its sectors; of the
//! changes to names, made in order as a journal has them, the seed decides how many arrived.
//! Syncing a file commits the names made so far, as journalling filesystems do. Everybody who
//! still holds the disk from before gets EIO, as if they had died with the machine.
//!
//! On request it is full, fails reads or writes, takes no writes for a while, flips a byte, and empties
//! its page cache.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::RwLock;

use super::device::{Disk, DiskFuture, DiskKind, FilesystemSpace};
use super::file::{DiskFile, OpenHow};
use super::platter::{NameChange, PAGE, Platter};
use super::sim_file::SimFile;
use crate::extent::Extent;

/// The simulated disk. Clones share it.
#[derive(Debug, Clone)]
pub struct SimDisk {
    platter: Arc<Mutex<Platter>>,
    life: u64,
    /// Writes of the engine wait for a read lock of it.
    gate: Arc<RwLock<()>>,
}

impl SimDisk {
    /// An empty disk; `seed` decides what crashes lose.
    pub fn new(seed: u64) -> Self {
        let platter = Platter {
            random: seed,
            ..Platter::default()
        };
        Self {
            platter: Arc::new(Mutex::new(platter)),
            life: 0,
            gate: Arc::default(),
        }
    }

    /// Cuts the power and gives the disk as it is found after the restart. This handle, its clones
    /// and all files opened by them are dead from now on.
    #[must_use]
    pub fn crash(&self) -> Self {
        let mut platter = self.platter.lock();
        platter.crash();
        Self {
            platter: self.platter.clone(),
            life: platter.life,
            gate: self.gate.clone(),
        }
    }

    /// Bounds the room to `bytes`; `None` for no bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.platter.lock().capacity = bytes;
    }

    /// Makes every write fail with this errno until told otherwise.
    pub fn fail_writes(&self, errno: Option<i32>) {
        self.platter.lock().fail_writes = errno;
    }

    /// Writes wait until what is given is dropped, as on a disk that hangs. Waits for those under way.
    pub async fn hold_writes(&self) -> impl Sized + Send + use<> {
        self.gate.clone().write_owned().await
    }

    /// Makes every read fail with this errno until told otherwise.
    pub fn fail_reads(&self, errno: Option<i32>) {
        self.platter.lock().fail_reads = errno;
    }

    /// Flips the bits of one byte, on the disk and in the page cache. False if there is no such
    /// byte.
    pub fn corrupt(&self, path: &Path, offset: u64) -> bool {
        let mut platter = self.platter.lock();
        let Some(number) = platter.names.files.get(path).copied() else {
            return false;
        };
        let Some(file) = platter.files.get_mut(&number) else {
            return false;
        };
        let mut found = false;
        for content in [&mut file.now, &mut file.durable] {
            if let Some(byte) = content.bytes.get_mut(offset as usize) {
                *byte = !*byte;
                found = true;
            }
        }
        found
    }

    /// Empties the page cache: [`DiskFile::read_now`] says false until the file was read or
    /// written again.
    pub fn drop_caches(&self) {
        for file in self.platter.lock().files.values_mut() {
            file.cached = false;
        }
    }

    /// All paths of files, in order.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.platter.lock().names.files.keys().cloned().collect()
    }

    /// Bytes of room that the files under `dir` take, unnamed files not counted.
    pub fn used_under(&self, dir: &Path) -> u64 {
        let platter = self.platter.lock();
        let files = platter.names.files.iter();
        files
            .filter(|(path, _)| path.starts_with(dir))
            .filter_map(|(_, number)| platter.files.get(number))
            .map(|file| file.now.allocated.len() as u64 * PAGE)
            .sum()
    }

    fn with<T>(&self, act: impl FnOnce(&mut Platter) -> io::Result<T>) -> io::Result<T> {
        let mut platter = self.platter.lock();
        platter.check_life(self.life)?;
        act(&mut platter)
    }

    fn handle(&self, platter: &mut Platter, number: u64) -> DiskFile {
        platter.files.entry(number).or_default().handles += 1;
        let file = SimFile::new(self.platter.clone(), self.life, number);
        DiskFile::simulated(Arc::new(file))
    }

    pub(super) fn open_now(&self, path: &Path, how: OpenHow) -> io::Result<DiskFile> {
        self.with(|platter| {
            if how != OpenHow::Anonymous
                && let Some(number) = platter.names.files.get(path).copied()
            {
                return Ok(self.handle(platter, number));
            }
            let homeless = how == OpenHow::Anonymous && !platter.names.dirs.contains(path);
            if how == OpenHow::Existing || homeless {
                return Err(io::ErrorKind::NotFound.into());
            }
            if let Some(errno) = platter.fail_writes {
                return Err(io::Error::from_raw_os_error(errno));
            }
            let number = platter.next;
            platter.next += 1;
            if how == OpenHow::Create {
                platter.change(NameChange::Make(path.to_owned(), number));
            }
            Ok(self.handle(platter, number))
        })
    }

    fn list_now(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.with(|platter| {
            let files = platter.names.files.keys();
            let names: BTreeSet<String> = files
                .chain(&platter.names.dirs)
                .filter_map(|path| path.strip_prefix(dir).ok()?.iter().next()?.to_str())
                .map(str::to_owned)
                .collect();
            if names.is_empty() && !platter.names.dirs.contains(dir) {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok(names.into_iter().collect())
        })
    }
}

/// A future that is done: the simulated disk makes nobody wait unless it is told to.
fn done<'a, T: Send + 'a>(value: T) -> DiskFuture<'a, T> {
    Box::pin(std::future::ready(value))
}

impl Disk for SimDisk {
    fn kind(&self) -> DiskKind {
        DiskKind::Sim
    }

    fn open<'a>(&'a self, path: &'a Path, how: OpenHow) -> DiskFuture<'a, io::Result<DiskFile>> {
        done(self.open_now(path, how))
    }

    fn open_cached(&self, path: &Path) -> Option<DiskFile> {
        self.open_now(path, OpenHow::Existing).ok()
    }

    fn make_dir<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, io::Result<()>> {
        done(self.with(|platter| {
            if !platter.names.dirs.contains(path) {
                platter.change(NameChange::MakeDir(path.to_owned()));
            }
            Ok(())
        }))
    }

    fn list<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, io::Result<Vec<String>>> {
        done(self.list_now(path))
    }

    fn remove<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, io::Result<()>> {
        done(self.with(|platter| {
            if platter.names.files.contains_key(path) {
                platter.change(NameChange::Remove(path.to_owned()));
            }
            Ok(())
        }))
    }

    fn rename<'a>(&'a self, source: &'a Path, target: &'a Path) -> DiskFuture<'a, io::Result<()>> {
        done(self.with(|platter| {
            if !platter.names.files.contains_key(source) {
                return Err(io::ErrorKind::NotFound.into());
            }
            platter.change(NameChange::Rename(source.to_owned(), target.to_owned()));
            Ok(())
        }))
    }

    fn read_at<'a>(
        &'a self,
        file: &'a DiskFile,
        offset: u64,
        mut buf: Vec<u8>,
    ) -> DiskFuture<'a, (io::Result<()>, Vec<u8>)> {
        let result = file.read_exact_at(offset, &mut buf);
        done((result, buf))
    }

    fn write_at<'a>(
        &'a self,
        file: &'a DiskFile,
        offset: u64,
        pieces: Vec<Bytes>,
    ) -> DiskFuture<'a, io::Result<()>> {
        Box::pin(async move {
            let _open = self.gate.read().await;
            file.write_pieces_at(offset, pieces)
        })
    }

    fn sync_data<'a>(&'a self, file: &'a DiskFile) -> DiskFuture<'a, io::Result<()>> {
        done(file.sync_data())
    }

    fn punch<'a>(&'a self, file: &'a DiskFile, extent: Extent) -> DiskFuture<'a, io::Result<()>> {
        done(file.punch(extent))
    }

    fn truncate<'a>(&'a self, file: &'a DiskFile, len: u64) -> DiskFuture<'a, io::Result<()>> {
        done(file.set_len(len))
    }

    fn space<'a>(&'a self, _path: &'a Path) -> DiskFuture<'a, io::Result<FilesystemSpace>> {
        done(self.with(|platter| {
            let total = platter.capacity.unwrap_or(1 << 50);
            let free = total.saturating_sub(platter.room_used());
            Ok(FilesystemSpace { free, total })
        }))
    }
}
