//! What the disk tier costs: look-ups, hits of 4 KiB and 1 MiB, storing, and the first read after
//! a restart. Run it on the filesystem that will hold the cache:
//!
//! ```text
//! cargo run --release -p ackfs-cache --example disk_cache -- DIR
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ackfs_cache::disk::blocking::BlockingDisk;
use ackfs_cache::disk::uring::UringDisk;
use ackfs_cache::disk::{Disk, DiskKind};
use ackfs_cache::disk_cache::{DiskCache, DiskConfig};
use ackfs_cache::extent::Extent;
use ackfs_cache::object::{ETag, Key, ObjectId};
use bytes::Bytes;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

const MIB: u64 = 1 << 20;
const BIG: u64 = 1024 * MIB;
const SMALL: u64 = 10_000;
const SMALL_COUNT: u64 = 10_000;
/// Pieces as a store's body brings them.
const PIECE: u64 = 64 * 1024;

fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("getrusage of this process");
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(micros as u64)
}

fn id(key: &str) -> ObjectId {
    ObjectId::new(
        Key::new(key),
        ETag::new("\"5d41402abc4b2a76b9719d911017c592\""),
    )
}

/// Says how long `work` took for each of `count`, and its processor time.
fn measure(what: &str, count: u64, bytes: u64, work: impl FnOnce()) {
    let (start, cpu_start) = (Instant::now(), cpu());
    work();
    let (took, used) = (start.elapsed(), cpu().saturating_sub(cpu_start));
    let each = took.as_secs_f64() * 1e6 / count as f64;
    let (mut speed, mut per_gib) = (String::new(), String::new());
    if bytes > 0 {
        let gib = bytes as f64 / f64::from(1 << 30);
        speed = format!("{:.0} MiB/s", gib * 1024.0 / took.as_secs_f64());
        per_gib = format!("{:.2} cpu s/GiB", used.as_secs_f64() / gib);
    }
    println!("{what:<36} {each:>9.2} us each {speed:>12} {per_gib:>16}");
}

fn open(disk: &Arc<dyn Disk>, dir: &Path) -> Arc<DiskCache> {
    let config = DiskConfig::new(dir, 16 * BIG);
    DiskCache::open_on(disk.clone(), config).expect("the directory can be used")
}

fn run(runtime: &tokio::runtime::Runtime, disk: Arc<dyn Disk>, dir: &Path) {
    println!("-- {}", disk.kind());
    let big = id("some/prefix/that/is/as/long/as/keys/are/big.bin");
    let unit: Vec<Bytes> = (0..8 * MIB / PIECE)
        .map(|n| Bytes::from(vec![n as u8; PIECE as usize]))
        .collect();
    let cache = open(&disk, dir);
    measure("store 1 GiB, 8 MiB at a time", BIG / (8 * MIB), BIG, || {
        for n in 0..BIG / (8 * MIB) {
            cache.store(&big, BIG, Extent::new(n * 8 * MIB, 8 * MIB), unit.clone());
            if n % 3 == 2 {
                runtime.block_on(cache.sync());
            }
        }
        runtime.block_on(cache.sync());
    });
    let smalls: Vec<ObjectId> = (0..SMALL_COUNT)
        .map(|n| id(&format!("some/prefix/that/is/as/long/as/keys/are/{n:08}")))
        .collect();
    let small = Bytes::from(vec![7; SMALL as usize]);
    measure(
        "store 10 kB objects",
        SMALL_COUNT,
        SMALL_COUNT * SMALL,
        || {
            for (n, id) in smalls.iter().enumerate() {
                cache.store(id, SMALL, Extent::new(0, SMALL), vec![small.clone()]);
                if n % 2000 == 1999 {
                    runtime.block_on(cache.sync());
                }
            }
        },
    );
    assert_eq!(cache.stats().skipped_extents, 0, "nothing was left out");

    let rounds = 200_000;
    measure("holds", rounds, 0, || {
        for n in 0..rounds {
            let extent = Extent::new(n * 4096 % BIG, 4096);
            assert!(std::hint::black_box(cache.holds(&big, extent)));
        }
    });
    let mut page = vec![0; 4096];
    measure("read_now 4 KiB, one object", rounds, rounds * 4096, || {
        for n in 0..rounds {
            assert!(cache.read_now(&big, n * 7919 * 4096 % BIG, &mut page));
        }
    });
    measure(
        "read_now 4 KiB, 10,000 objects",
        rounds,
        rounds * 4096,
        || {
            let mut hits = 0;
            for n in 0..rounds {
                let id = &smalls[(n * 7919 % SMALL_COUNT) as usize];
                hits += u64::from(cache.read_now(id, 0, &mut page));
            }
            assert_eq!(hits, rounds);
        },
    );
    let mut unit = vec![0; MIB as usize];
    measure("read_now 1 MiB", BIG / MIB, BIG, || {
        for n in 0..BIG / MIB {
            assert!(cache.read_now(&big, n * MIB, &mut unit));
        }
    });
    drop(cache);

    let file =
        std::fs::File::open(dir.join("objects/01/0000000000000001")).expect("the first file");
    measure("  pread 1 MiB of the same file", BIG / MIB, BIG, || {
        use std::os::unix::fs::FileExt;
        for n in 0..BIG / MIB {
            file.read_exact_at(&mut unit, n * MIB)
                .expect("it was stored");
        }
    });
    let started = Instant::now();
    let cache = open(&disk, dir);
    println!(
        "open with {} objects: {:?}",
        SMALL_COUNT + 1,
        started.elapsed()
    );
    measure("first read after a restart, 1 MiB", BIG / MIB, BIG, || {
        for n in 0..BIG / MIB {
            assert!(runtime.block_on(cache.read(&big, n * MIB, &mut unit)));
        }
    });
    drop(cache);
}

fn main() {
    let dir = PathBuf::from(
        std::env::args()
            .nth(1)
            .unwrap_or_else(|| "target/disk_cache".into()),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .expect("a runtime");
    let mut disks: Vec<Arc<dyn Disk>> = Vec::new();
    match UringDisk::start(2) {
        Ok(disk) => disks.push(Arc::new(disk)),
        Err(error) => println!("no {}: {error}", DiskKind::Uring),
    }
    disks.push(Arc::new(BlockingDisk::start(2).expect("threads")));
    for disk in [disks.clone(), disks].concat() {
        let dir = dir.join(format!("{}", std::process::id()));
        run(&runtime, disk, &dir);
        std::fs::remove_dir_all(&dir).expect("the directory is ours");
    }
}
