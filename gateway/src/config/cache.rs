//! Local room, on disk and in memory, and how it is divided.
//!
//! `--memory` is what clean and dirty bytes may take. A quarter is for clean blocks at rest and for the few
//! that wait for the disk unpaid, three quarters are one budget that fills and dirty bytes draw on, each at
//! most two thirds of it, so that neither starves the other. What the process takes beyond 64 MiB for
//! names, records and connections comes out of that budget: see `daemon/memory_guard.rs`.

use std::path::PathBuf;

use super::error::{Unfit, usage};
use super::flags::Flags;
use super::host::Host;
use super::path::absolute;
use super::units::{GIB, MIB, Size};

/// Default of `--memory`, in bytes.
pub(crate) const MEMORY: u64 = 128 * MIB;
/// Below this no two parts of 5 MiB fit beside what is clean.
const MEMORY_MIN: u64 = 16 * MIB;
/// What the process takes beside `--memory`: code, stacks, connections, tables, in bytes.
pub(crate) const MEMORY_BESIDE: u64 = 64 * MIB;
/// Default of `--cache-size`, in bytes.
const CACHE_SIZE: u64 = 10 * GIB;
/// Default of `--readahead-max`, in bytes.
const READAHEAD: u64 = 64 * MIB;
/// Default of `--part-size`, in bytes.
const PART_SIZE: u64 = 8 * MIB;
/// S3's bounds of a part, in bytes ("Amazon S3 multipart upload limits").
const PART_SIZES: std::ops::RangeInclusive<u64> = 5 * MIB..=5 * GIB;
/// What is kept of a name takes so many bytes: its inode, its metadata, what the store said of it.
const NAME_COST: u64 = 1536;
/// A few directories' worth of names are known however little memory there is.
const NAMES_MIN: usize = 4096;

/// See the module. In bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheConfig {
    /// The directory of all caches; each bucket, prefix and endpoint has its own inside.
    pub dir: PathBuf,
    /// Whether the user named it: then a second owner is an error, else it takes a fresh one.
    pub dir_is_given: bool,
    /// What the disk cache may hold; 0 is no disk cache.
    pub size: u64,
    /// `--memory`.
    pub memory: u64,
    /// How far a stream is read ahead.
    pub readahead_max: u64,
    /// The size of a part.
    pub part_size: u64,
}

impl CacheConfig {
    /// Memory for clean blocks at rest, in bytes.
    pub fn clean_max(&self) -> u64 {
        self.memory / 4 - self.queued_max() / 6
    }

    /// How many bytes may wait for the disk, or are on their way to it from the store. A sixth of them are
    /// in no budget.
    pub fn queued_max(&self) -> u64 {
        match self.size {
            0 => 0,
            _ => self.memory / 8 * 3,
        }
    }

    /// The budget of fills and dirty bytes together, in bytes.
    pub fn budget(&self) -> u64 {
        self.memory - self.memory / 4
    }

    /// What may be taken away from the budget and its shares, in bytes: each is left what the other could
    /// not take from it anyway.
    pub fn withheld_max(&self) -> u64 {
        self.budget() - self.share()
    }

    /// Of how many names something is known at most.
    pub fn names_max(&self) -> usize {
        ((self.memory / 8 / NAME_COST) as usize).max(NAMES_MIN)
    }

    /// Memory for the records of what the disk holds, in bytes.
    pub fn records_max(&self) -> u64 {
        self.memory / 16 * 3
    }

    /// What fills, and what dirty bytes, may hold of the budget at most, in bytes.
    pub fn share(&self) -> u64 {
        share_of(self.memory)
    }
}

fn share_of(memory: u64) -> u64 {
    (memory - memory / 4) / 3 * 2
}

pub(super) fn decide(flags: &Flags, host: &Host) -> Result<CacheConfig, Unfit> {
    let memory = decide_memory(flags.memory, host)?;
    let share = share_of(memory);

    let part_size = flags.part_size.map_or(PART_SIZE, |Size(bytes)| bytes);
    if !PART_SIZES.contains(&part_size) {
        return usage(format!(
            "--part-size {} is out of S3's bounds: use 5MiB to 5GiB",
            Size(part_size)
        ));
    }
    if part_size > share {
        let wanted = Size(part_size.saturating_mul(2).next_multiple_of(MIB));
        return usage(format!(
            "--part-size {} does not fit into --memory {}, half of which is for writes: lower the \
             one or raise the other to {wanted}",
            Size(part_size),
            Size(memory)
        ));
    }
    let readahead_max = match flags.readahead_max {
        None => READAHEAD.min(share),
        Some(Size(bytes)) if bytes <= share => bytes,
        Some(size) => {
            return usage(format!(
                "--readahead-max {size} does not fit into --memory {}, half of which is for reads: \
                 use at most {}",
                Size(memory),
                Size(share)
            ));
        }
    };

    let dir = match (&flags.cache_dir, host.cache_home()) {
        (Some(dir), _) => absolute(dir)?,
        (None, Some(dir)) => dir,
        (None, None) => {
            return usage("no place for the cache, HOME is not set: give --cache-dir");
        }
    };
    let size = match flags.cache_size {
        Some(Size(0)) => 0,
        Some(Size(bytes)) if bytes >= PART_SIZE => bytes,
        Some(size) => {
            return usage(format!(
                "--cache-size {size} holds nothing of use: use at least 8MiB, or 0 for no disk cache"
            ));
        }
        // A disk without room is no reason not to start: the cache goes on without storing.
        None => (host.free_bytes)(&dir)
            .map_or(CACHE_SIZE, |free| CACHE_SIZE.min(free / 10))
            .max(PART_SIZE),
    };
    Ok(CacheConfig {
        dir,
        dir_is_given: flags.cache_dir.is_some(),
        size,
        memory,
        readahead_max,
        part_size,
    })
}

fn decide_memory(wanted: Option<Size>, host: &Host) -> Result<u64, Unfit> {
    let limit = host.memory_limit;
    let Some(Size(memory)) = wanted else {
        let bound = limit.map_or(MEMORY, |limit| MEMORY.min(limit / 4));
        return Ok(bound.max(MEMORY_MIN));
    };
    if memory < MEMORY_MIN {
        return usage(format!(
            "--memory {} is too little: use at least 16MiB",
            Size(memory)
        ));
    }
    match limit {
        Some(limit) if memory.saturating_add(MEMORY_BESIDE) > limit => usage(format!(
            "--memory {} and 64 MiB beside it exceed the cgroup's limit of {}: lower it, or raise \
             the limit",
            Size(memory),
            Size(limit)
        )),
        _ => match host.memory_total {
            Some(total) if memory > total => usage(format!(
                "--memory {} is more than this machine has, {}: lower it",
                Size(memory),
                Size(total)
            )),
            _ => Ok(memory),
        },
    }
}
