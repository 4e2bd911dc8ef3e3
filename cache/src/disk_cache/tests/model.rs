//! The cache against a model, and under threads.

use std::path::Path;

use proptest::prelude::*;

use super::*;

/// Threads that read, store and forget at the same time, in a cache that is always too small, on a
/// real disk. Seeds are fixed; the interleaving is not.
#[test]
fn no_read_gives_a_wrong_byte_while_others_store_evict_and_forget() {
    let dir = tempfile::tempdir().unwrap();
    let cache = DiskCache::open(config(dir.path(), 3 * MIB)).unwrap();
    let objects: Vec<(ObjectId, Bytes)> = (0..12u64)
        .map(|n| {
            let id = id(&format!("{}", n / 2), n as u8);
            let bytes = content(&id, 1000 + n * 120_000);
            (id, bytes)
        })
        .collect();
    let hits: u64 = thread::scope(|scope| {
        let threads: Vec<_> = (0..4u64)
            .map(|seed| {
                let (cache, objects) = (&cache, &objects);
                scope.spawn(move || {
                    let mut random = seed + 1;
                    let mut draw = |below: u64| {
                        random = random
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695_040_888_963_407);
                        (random >> 33) % below
                    };
                    let mut hits = 0;
                    for _ in 0..1500 {
                        let (id, bytes) = &objects[draw(objects.len() as u64) as usize];
                        let extent = span(bytes.len() as u64, draw(1000), draw(1000) + 1);
                        let range = extent.offset as usize..extent.end() as usize;
                        let got = match draw(20) {
                            0 => {
                                cache.forget(id);
                                None
                            }
                            1..8 => {
                                let pieces = vec![bytes.slice(range.clone())];
                                cache.store(id, bytes.len() as u64, extent, pieces);
                                None
                            }
                            8..12 => read(cache, id, extent.offset, extent.len),
                            12 => {
                                let whole = Extent::new(0, bytes.len() as u64);
                                cache.store(id, whole.len, whole, vec![bytes.clone()]);
                                block_on(cache.drain());
                                drop(cache.whole_file(id, whole.len));
                                None
                            }
                            _ => read_now(cache, id, extent.offset, extent.len),
                        };
                        if let Some(got) = got {
                            assert!(got == bytes[range], "seed {seed}, {id:?} {extent:?}");
                            hits += 1;
                        }
                        assert!(cache.stats().used_bytes <= 3 * MIB);
                    }
                    hits
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert!(hits > 100, "{hits} hits");
    assert_eq!(cache.stats().corrupt_extents, 0);
}

/// What the model does.
#[derive(Debug, Clone)]
enum CacheOp {
    Store(usize, u64, u64),
    Read(usize, u64, u64),
    ReadNow(usize, u64, u64),
    Forget(usize),
    Sync,
    DropCaches,
    Crash,
    Reopen,
    ReopenCorrupted(usize, u64),
    Full(bool),
    Fail(bool),
}

/// Objects of the model: key, version, size. Together twice what the cache holds.
const OBJECTS: [(&str, u8, u64); 8] = [
    ("a", 1, 9_000),
    ("a", 2, 200_000),
    ("b", 1, 700_001),
    ("c", 1, MIB + 300_000),
    ("d", 1, 4096),
    ("e", 1, 400_000),
    ("e", 2, 1),
    ("f", 1, 350_000),
];
const MODEL_SIZE: u64 = 3 * MIB / 2;

fn ops() -> impl Strategy<Value = Vec<CacheOp>> {
    let object = 0..OBJECTS.len();
    // Offsets and lengths in thousandths of the object.
    let span = (object.clone(), 0..1000u64, 1..1001u64);
    let op = prop_oneof![
        8 => span.clone().prop_map(|(o, at, len)| CacheOp::Store(o, at, len)),
        3 => object.clone().prop_map(|o| CacheOp::Store(o, 0, 1000)),
        6 => span.clone().prop_map(|(o, at, len)| CacheOp::Read(o, at, len)),
        3 => object.clone().prop_map(|o| CacheOp::Read(o, 0, 1000)),
        4 => span.prop_map(|(o, at, len)| CacheOp::ReadNow(o, at, len)),
        1 => object.prop_map(CacheOp::Forget),
        2 => Just(CacheOp::Sync),
        1 => Just(CacheOp::DropCaches),
        2 => Just(CacheOp::Crash),
        1 => Just(CacheOp::Reopen),
        1 => (any::<usize>(), any::<u64>()).prop_map(|(f, at)| CacheOp::ReopenCorrupted(f, at)),
        1 => any::<bool>().prop_map(CacheOp::Full),
        1 => any::<bool>().prop_map(CacheOp::Fail),
    ];
    proptest::collection::vec(op, 1..50)
}

fn span(size: u64, at: u64, len: u64) -> Extent {
    let offset = size * at / 1000;
    let len = (size * len / 1000).clamp(1, size - offset);
    Extent::new(offset, len)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever is stored, read, forgotten, evicted, in whatever order, with power cuts, flipped
    /// bytes, a full and a failing disk in between: no read gives a byte that is not the object's,
    /// and neither the account nor the disk ever holds more than the size.
    #[test]
    fn no_read_gives_a_wrong_byte_and_the_size_is_kept(ops in ops(), seed in any::<u64>()) {
        let objects: Vec<(ObjectId, Bytes)> = OBJECTS
            .iter()
            .map(|(key, version, size)| {
                let id = id(key, *version);
                let bytes = content(&id, *size);
                (id, bytes)
            })
            .collect();
        let mut disk = SimDisk::new(seed);
        let mut cache = Some(open_sim(&disk, MODEL_SIZE));
        for op in ops {
            let here = cache.take().expect("the cache is open between operations");
            let reopen = |disk: &SimDisk| {
                disk.fail_writes(None);
                open_sim(disk, MODEL_SIZE)
            };
            let here = match op {
                CacheOp::Store(o, at, len) => {
                    let (id, bytes) = &objects[o];
                    let extent = span(bytes.len() as u64, at, len);
                    let middle = extent.offset as usize + extent.len as usize / 3;
                    let pieces = vec![
                        bytes.slice(extent.offset as usize..middle),
                        bytes.slice(middle..extent.end() as usize),
                    ];
                    here.store(id, bytes.len() as u64, extent, pieces);
                    here
                }
                CacheOp::Read(o, at, len) | CacheOp::ReadNow(o, at, len) => {
                    let (id, bytes) = &objects[o];
                    let extent = span(bytes.len() as u64, at, len);
                    let got = if matches!(op, CacheOp::Read(..)) {
                        read(&here, id, extent.offset, extent.len)
                    } else {
                        read_now(&here, id, extent.offset, extent.len)
                    };
                    if let Some(got) = got {
                        prop_assert!(got == bytes[extent.offset as usize..extent.end() as usize]);
                    }
                    here
                }
                CacheOp::Forget(o) => {
                    here.forget(&objects[o].0);
                    here
                }
                CacheOp::Sync => {
                    block_on(here.sync());
                    here
                }
                CacheOp::DropCaches => {
                    disk.drop_caches();
                    here
                }
                CacheOp::Crash => {
                    disk = disk.crash();
                    drop(here);
                    reopen(&disk)
                }
                CacheOp::Reopen => {
                    drop(here);
                    reopen(&disk)
                }
                CacheOp::ReopenCorrupted(file, at) => {
                    drop(here);
                    let files = disk.paths();
                    let file = &files[file % files.len()];
                    // The format's text is looked at elsewhere: a newer one is refused.
                    if !file.ends_with("format") {
                        disk.corrupt(file, at % 400_000);
                    }
                    reopen(&disk)
                }
                CacheOp::Full(full) => {
                    disk.set_capacity(full.then_some(MIB));
                    here
                }
                CacheOp::Fail(fail) => {
                    disk.fail_writes(fail.then_some(libc::EIO));
                    here
                }
            };
            block_on(here.drain());
            let used = here.stats().used_bytes;
            let taken = disk.used_under(Path::new("/c/objects"));
            prop_assert!(used <= MODEL_SIZE, "{used} used");
            prop_assert!(taken <= used, "{taken} on the disk, {used} in the account");
            cache = Some(here);
        }
    }
}
