//! What is on the simulated disk: bytes as they read now, bytes that are durable, and the names of
//! both. Pure but for its seed: [`super::sim::SimDisk`] has it under a lock and decides who may ask.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::extent::Extent;

/// Room is taken and lost by pages of this size.
pub(super) const PAGE: u64 = 4096;

/// A page tears between sectors of this size.
const SECTOR: u64 = 512;

/// All of it, under one lock that nobody holds across a wait.
#[derive(Debug, Default)]
pub(super) struct Platter {
    /// Counts crashes: handles of an earlier life are dead.
    pub(super) life: u64,
    pub(super) random: u64,
    pub(super) files: BTreeMap<u64, PlatterFile>,
    pub(super) next: u64,
    pub(super) names: NameTable,
    pub(super) durable_names: NameTable,
    /// Changes to names since the last commit, in order.
    pub(super) journal: Vec<NameChange>,
    pub(super) capacity: Option<u64>,
    pub(super) fail_reads: Option<i32>,
    pub(super) fail_writes: Option<i32>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct NameTable {
    pub(super) files: BTreeMap<PathBuf, u64>,
    pub(super) dirs: BTreeSet<PathBuf>,
}

#[derive(Debug, Clone)]
pub(super) enum NameChange {
    Make(PathBuf, u64),
    MakeDir(PathBuf),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

#[derive(Debug, Default)]
pub(super) struct PlatterFile {
    pub(super) now: PlatterBytes,
    pub(super) durable: PlatterBytes,
    /// Pages that differ from what is durable.
    pub(super) dirty: BTreeSet<u64>,
    pub(super) handles: usize,
    pub(super) cached: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct PlatterBytes {
    pub(super) bytes: Vec<u8>,
    /// Pages that take room.
    pub(super) allocated: BTreeSet<u64>,
}

impl Platter {
    pub(super) fn check_life(&self, life: u64) -> io::Result<()> {
        if life == self.life {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(libc::EIO))
    }

    /// splitmix64: small, and the same everywhere.
    pub(super) fn draw(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    }

    pub(super) fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.journal.push(change);
        self.reap();
    }

    /// Files that neither a name nor a handle holds give their room back.
    pub(super) fn reap(&mut self) {
        let mut named: BTreeSet<u64> = self.names.files.values().copied().collect();
        // The journal may yet lose the removal.
        named.extend(self.durable_names.files.values());
        self.files
            .retain(|number, file| file.handles > 0 || named.contains(number));
    }

    pub(super) fn room_used(&self) -> u64 {
        let pages: usize = self.files.values().map(|f| f.now.allocated.len()).sum();
        pages as u64 * PAGE
    }

    pub(super) fn commit_names(&mut self) {
        self.durable_names = self.names.clone();
        self.journal.clear();
        self.reap();
    }

    pub(super) fn crash(&mut self) {
        self.life += 1;
        let arrived = self.draw(self.journal.len() as u64 + 1) as usize;
        let mut names = std::mem::take(&mut self.durable_names);
        for change in self.journal.drain(..).take(arrived) {
            change.apply(&mut names);
        }
        self.names = names.clone();
        self.durable_names = names;
        let mut files = std::mem::take(&mut self.files);
        for file in files.values_mut() {
            for page in std::mem::take(&mut file.dirty) {
                let sectors = match self.draw(4) {
                    0 => 0,
                    1 => self.draw(PAGE / SECTOR),
                    _ => PAGE / SECTOR,
                };
                file.make_durable(page, sectors * SECTOR);
            }
            if file.now.bytes.len() < file.durable.bytes.len() && self.draw(2) == 0 {
                file.durable.bytes.truncate(file.now.bytes.len());
            }
            file.now = file.durable.clone();
            file.handles = 0;
            file.cached = false;
        }
        self.files = files;
        self.reap();
    }

    pub(super) fn file(&mut self, number: u64) -> &mut PlatterFile {
        self.files
            .get_mut(&number)
            .expect("a handle keeps its file")
    }

    pub(super) fn write(&mut self, number: u64, offset: u64, data: &[u8]) -> io::Result<()> {
        if let Some(errno) = self.fail_writes {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let mut room = self.capacity.map_or(u64::MAX, |capacity| {
            capacity.saturating_sub(self.room_used())
        });
        let file = self.file(number);
        file.cached = true;
        let mut at = offset;
        let mut left = data;
        while !left.is_empty() {
            let page = at / PAGE;
            let take = ((PAGE - at % PAGE) as usize).min(left.len());
            if !file.now.allocated.contains(&page) {
                if room < PAGE {
                    return Err(io::Error::from_raw_os_error(libc::ENOSPC));
                }
                room -= PAGE;
                file.now.allocated.insert(page);
            }
            let end = at as usize + take;
            if file.now.bytes.len() < end {
                file.now.bytes.resize(end, 0);
            }
            file.now.bytes[at as usize..end].copy_from_slice(&left[..take]);
            file.dirty.insert(page);
            at += take as u64;
            left = &left[take..];
        }
        Ok(())
    }

    pub(super) fn read(&mut self, number: u64, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if let Some(errno) = self.fail_reads {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let file = self.file(number);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let Some(bytes) = file
            .now
            .bytes
            .get(start..)
            .and_then(|rest| rest.get(..buf.len()))
        else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        buf.copy_from_slice(bytes);
        file.cached = true;
        Ok(())
    }
}

impl NameChange {
    pub(super) fn apply(&self, names: &mut NameTable) {
        match self {
            Self::Make(path, number) => {
                names.files.insert(path.clone(), *number);
            }
            Self::MakeDir(path) => {
                let parents = path.ancestors().map(Path::to_owned);
                names.dirs.extend(parents);
            }
            Self::Remove(path) => {
                names.files.remove(path);
            }
            Self::Rename(source, target) => {
                if let Some(number) = names.files.remove(source) {
                    names.files.insert(target.clone(), number);
                }
            }
        }
    }
}

impl PlatterFile {
    /// Makes the first `len` bytes of `page` durable.
    pub(super) fn make_durable(&mut self, page: u64, len: u64) {
        if len == 0 {
            return;
        }
        let start = (page * PAGE) as usize;
        let end = (start + len as usize).min(self.now.bytes.len());
        if start < end {
            if self.durable.bytes.len() < end {
                self.durable.bytes.resize(end, 0);
            }
            self.durable.bytes[start..end].copy_from_slice(&self.now.bytes[start..end]);
        }
        if self.now.allocated.contains(&page) {
            self.durable.allocated.insert(page);
        } else {
            self.durable.allocated.remove(&page);
        }
    }

    pub(super) fn set_len(&mut self, len: u64) {
        let old = self.now.bytes.len() as u64;
        self.now.bytes.resize(len as usize, 0);
        let kept = len.div_ceil(PAGE);
        self.now.allocated.split_off(&kept);
        self.dirty
            .extend(len.min(old) / PAGE..old.max(len).div_ceil(PAGE));
    }

    pub(super) fn punch(&mut self, extent: Extent) {
        let end = extent.end().min(self.now.bytes.len() as u64);
        if extent.offset < end {
            self.now.bytes[extent.offset as usize..end as usize].fill(0);
            self.dirty.extend(extent.offset / PAGE..end.div_ceil(PAGE));
        }
        let first = extent.offset.div_ceil(PAGE);
        let last = extent.end() / PAGE;
        self.now
            .allocated
            .retain(|page| !(first..last).contains(page));
    }
}
