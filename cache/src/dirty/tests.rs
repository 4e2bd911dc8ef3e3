//! The write path over the store in memory: what a publish promises, what a failure keeps, what
//! memory bounds. Events are ordered by gates and by running the tasks until nothing moves; nothing
//! sleeps.

use std::sync::Arc;

use super::*;
use crate::budget::Budget;
use crate::disk::sim::SimDisk;
use crate::disk_cache::{DiskCache, DiskConfig};
use crate::read::ReadConfig;
use crate::store::memory::{Call, Fault, MemoryStore};
use crate::store::{Metadata, StoreErrorKind};

mod base;
mod bench;
mod early;
mod memory;
mod model;
mod publish;

const KIB: u64 = 1024;
/// The part size of these tests. Files up to twice that are one PUT.
const PART: u64 = 4 * KIB;

const STAGING: &str = "/staging";

const LIMITS: StoreLimits = StoreLimits {
    part_min: KIB,
    part_max: 1 << 30,
    parts_max: 10_000,
    object_max: 5 << 40,
};

struct World {
    store: Arc<MemoryStore>,
    writer: Arc<Writer>,
    share: Share,
    /// Where dirty bytes are staged, if they are.
    disk: Arc<SimDisk>,
}

struct Setup {
    memory: u64,
    staging: bool,
    on_conflict: OnConflict,
    /// The disk tier of clean bytes.
    cache: Option<Arc<DiskCache>>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            memory: 4 << 20,
            staging: false,
            on_conflict: OnConflict::Fail,
            cache: None,
        }
    }
}

impl Setup {
    fn build(self) -> World {
        let store = MemoryStore::new();
        store.set_part_min(LIMITS.part_min);
        let share = Budget::new(2 * self.memory).share(self.memory);
        let disk = Arc::new(SimDisk::new(0));
        let staging = Staging::new(STAGING, disk.clone());
        let staging = self.staging.then(|| Arc::new(staging));
        let config = WriteConfig {
            memory: share.clone(),
            part_size: PART,
            parts_in_flight_max: 3,
            staging,
            on_conflict: self.on_conflict,
        };
        let runtime = tokio::runtime::Handle::current();
        let reads = ReadConfig {
            clean_max: 1 << 20,
            fills: Budget::new(4 << 20).share(4 << 20),
            readahead_max: 0,
        };
        let reader = ReadCache::new(reads, store.clone(), self.cache, runtime.clone());
        let writer = Writer::with_limits(config, LIMITS, store.clone(), reader, runtime);
        World {
            store,
            writer,
            share,
            disk,
        }
    }
}

fn world() -> World {
    Setup::default().build()
}

impl World {
    fn create(&self) -> Arc<DirtyFile> {
        self.writer.begin(Key::new("f"), Base::Absent)
    }

    /// The room left on the staging disk.
    async fn free(&self) -> u64 {
        let staging = self.writer.config.staging.as_ref();
        staging.unwrap().free().await.unwrap()
    }

    /// How often the store was called so since the last look at [`MemoryStore::calls`].
    fn count(&self, call: Call) -> usize {
        let calls = self.store.calls();
        calls.iter().filter(|(kind, _)| *kind == call).count()
    }
}

/// Lets every task go as far as it comes without us.
async fn settle() {
    for _ in 0..500 {
        tokio::task::yield_now().await;
    }
}

/// Bytes that differ from place to place.
fn pattern(len: u64, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|i| (i % 251) as u8 ^ seed.wrapping_add((i / 1000) as u8))
        .collect()
}

async fn contents(file: &DirtyFile) -> Vec<u8> {
    let mut bytes = vec![0xEE; file.size() as usize + 10];
    let len = file.read(0, &mut bytes).await.unwrap();
    bytes.truncate(len);
    bytes
}

fn kind(error: &WriteError) -> Option<StoreErrorKind> {
    match error {
        WriteError::Store(error) => Some(error.kind),
        _ => None,
    }
}

fn is_full(error: &WriteError) -> bool {
    matches!(error, WriteError::NoRoom(_))
}

/// The log line said that there was no room, and not what makes some.
#[test]
fn an_error_without_room_names_what_makes_room() {
    let words = |errno| WriteError::staging(std::io::Error::from_raw_os_error(errno)).to_string();
    for flag in ["--cache-dir", "--cache-size 0", "--memory"] {
        assert!(words(libc::ENOSPC).contains(flag), "{flag}");
    }
    assert!(words(libc::EIO).contains("--cache-dir"));
}

async fn publish(file: &DirtyFile) -> Result<Option<Published>, WriteError> {
    file.publish(Metadata::default()).await
}

fn named(name: &str) -> Metadata {
    Metadata {
        content_type: Some(name.to_owned()),
        user: [("owner", name)].into_iter().collect(),
        ..Metadata::default()
    }
}
