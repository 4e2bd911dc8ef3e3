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

use super::{Disk, DiskFile, DiskFuture, DiskKind, FilesystemSpace, OpenHow};
use crate::extent::Extent;

mod state;

use state::{NameChange, State};

/// FilesystemSpace is taken and lost by pages of this size.
pub const PAGE: u64 = 4096;

/// The simulated disk. Clones share it.
#[derive(Debug, Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    life: u64,
    /// Writes of the engine wait for a read lock of it.
    gate: Arc<RwLock<()>>,
}

/// An open file of a [`SimDisk`].
#[derive(Debug)]
pub struct SimFile {
    state: Arc<Mutex<State>>,
    life: u64,
    number: u64,
}

impl SimDisk {
    /// An empty disk; `seed` decides what crashes lose.
    pub fn new(seed: u64) -> Self {
        let state = State {
            random: seed,
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            life: 0,
            gate: Arc::default(),
        }
    }

    /// Cuts the power and gives the disk as it is found after the restart. This handle, its clones
    /// and all files opened by them are dead from now on.
    #[must_use]
    pub fn crash(&self) -> Self {
        let mut state = self.state.lock();
        state.crash();
        Self {
            state: self.state.clone(),
            life: state.life,
            gate: self.gate.clone(),
        }
    }

    /// Bounds the room to `bytes`; `None` for no bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity = bytes;
    }

    /// Makes every write fail with this errno until told otherwise.
    pub fn fail_writes(&self, errno: Option<i32>) {
        self.state.lock().fail_writes = errno;
    }

    /// Writes wait until what is given is dropped, as on a disk that hangs. Waits for those under way.
    pub async fn hold_writes(&self) -> impl Sized + Send + use<> {
        self.gate.clone().write_owned().await
    }

    /// Makes every read fail with this errno until told otherwise.
    pub fn fail_reads(&self, errno: Option<i32>) {
        self.state.lock().fail_reads = errno;
    }

    /// Flips the bits of one byte, on the disk and in the page cache. False if there is no such
    /// byte.
    pub fn corrupt(&self, path: &Path, offset: u64) -> bool {
        let mut state = self.state.lock();
        let Some(number) = state.names.files.get(path).copied() else {
            return false;
        };
        let Some(file) = state.files.get_mut(&number) else {
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
        for file in self.state.lock().files.values_mut() {
            file.cached = false;
        }
    }

    /// All paths of files, in order.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.state.lock().names.files.keys().cloned().collect()
    }

    /// Bytes of room that the files under `dir` take, unnamed files not counted.
    pub fn used_under(&self, dir: &Path) -> u64 {
        let state = self.state.lock();
        let files = state.names.files.iter();
        files
            .filter(|(path, _)| path.starts_with(dir))
            .filter_map(|(_, number)| state.files.get(number))
            .map(|file| file.now.allocated.len() as u64 * PAGE)
            .sum()
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock();
        state.check_life(self.life)?;
        act(&mut state)
    }

    fn handle(&self, state: &mut State, number: u64) -> DiskFile {
        state.files.entry(number).or_default().handles += 1;
        DiskFile::simulated(Arc::new(SimFile {
            state: self.state.clone(),
            life: self.life,
            number,
        }))
    }

    pub(super) fn open_now(&self, path: &Path, how: OpenHow) -> io::Result<DiskFile> {
        self.with(|state| {
            if how != OpenHow::Anonymous
                && let Some(number) = state.names.files.get(path).copied()
            {
                return Ok(self.handle(state, number));
            }
            let homeless = how == OpenHow::Anonymous && !state.names.dirs.contains(path);
            if how == OpenHow::Existing || homeless {
                return Err(io::ErrorKind::NotFound.into());
            }
            if let Some(errno) = state.fail_writes {
                return Err(io::Error::from_raw_os_error(errno));
            }
            let number = state.next;
            state.next += 1;
            if how == OpenHow::Create {
                state.change(NameChange::Make(path.to_owned(), number));
            }
            Ok(self.handle(state, number))
        })
    }

    fn list_now(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.with(|state| {
            let files = state.names.files.keys();
            let names: BTreeSet<String> = files
                .chain(&state.names.dirs)
                .filter_map(|path| path.strip_prefix(dir).ok()?.iter().next()?.to_str())
                .map(str::to_owned)
                .collect();
            if names.is_empty() && !state.names.dirs.contains(dir) {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok(names.into_iter().collect())
        })
    }
}

impl SimFile {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock();
        state.check_life(self.life)?;
        act(&mut state)
    }

    pub(super) fn read_now(&self, offset: u64, buf: &mut [u8]) -> bool {
        self.with(|state| {
            let cached = state.file(self.number).cached;
            Ok(cached && state.read(self.number, offset, buf).is_ok())
        })
        .unwrap_or(false)
    }

    pub(super) fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.with(|state| state.read(self.number, offset, buf))
    }

    pub(super) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|state| state.write(self.number, offset, data))
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.with(|state| {
            if let Some(errno) = state.fail_writes {
                return Err(io::Error::from_raw_os_error(errno));
            }
            let file = state.file(self.number);
            file.durable = file.now.clone();
            file.dirty.clear();
            state.commit_names();
            Ok(())
        })
    }

    pub(super) fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|state| {
            state.file(self.number).set_len(len);
            Ok(())
        })
    }

    pub(super) fn len(&self) -> u64 {
        self.with(|state| Ok(state.file(self.number).now.bytes.len() as u64))
            .unwrap_or(0)
    }

    pub(super) fn punch(&self, extent: Extent) -> io::Result<()> {
        self.with(|state| {
            state.file(self.number).punch(extent);
            Ok(())
        })
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        if state.life == self.life {
            state.file(self.number).handles -= 1;
            state.reap();
        }
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
        done(self.with(|state| {
            if !state.names.dirs.contains(path) {
                state.change(NameChange::MakeDir(path.to_owned()));
            }
            Ok(())
        }))
    }

    fn list<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, io::Result<Vec<String>>> {
        done(self.list_now(path))
    }

    fn remove<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, io::Result<()>> {
        done(self.with(|state| {
            if state.names.files.contains_key(path) {
                state.change(NameChange::Remove(path.to_owned()));
            }
            Ok(())
        }))
    }

    fn rename<'a>(&'a self, source: &'a Path, target: &'a Path) -> DiskFuture<'a, io::Result<()>> {
        done(self.with(|state| {
            if !state.names.files.contains_key(source) {
                return Err(io::ErrorKind::NotFound.into());
            }
            state.change(NameChange::Rename(source.to_owned(), target.to_owned()));
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
        done(self.with(|state| {
            let total = state.capacity.unwrap_or(1 << 50);
            let free = total.saturating_sub(state.room_used());
            Ok(FilesystemSpace { free, total })
        }))
    }
}
