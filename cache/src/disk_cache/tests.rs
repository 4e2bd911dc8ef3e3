//! What the cache does when all is well; [`trouble`] and [`model`] have the rest.

use std::path::Path;

use super::*;
use crate::disk::sim::SimDisk;
use crate::disk::wait::block_on;
use crate::object::{ETag, Key};

mod model;
mod trouble;

const MIB: u64 = 1 << 20;

fn id(key: &str, version: u8) -> ObjectId {
    ObjectId::new(Key::new(key), ETag::new(format!("\"{version}\"")))
}

/// Bytes that differ for every object and version.
fn content(id: &ObjectId, len: u64) -> Bytes {
    let seed = crc_fast::checksum(extents::CRC, format!("{id:?}").as_bytes());
    let mut bytes = Vec::with_capacity(len as usize + 8);
    let mut word = seed;
    while bytes.len() < len as usize {
        word = word
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(seed | 1);
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.truncate(len as usize);
    bytes.into()
}

fn config(dir: &Path, size_max: u64) -> DiskConfig {
    DiskConfig::new(dir, size_max)
}

fn open_sim(disk: &SimDisk, size_max: u64) -> Arc<DiskCache> {
    DiskCache::open_on(Arc::new(disk.clone()), config(Path::new("/c"), size_max)).unwrap()
}

/// Stores all of an object and waits until it is.
fn store_whole(cache: &DiskCache, id: &ObjectId, len: u64) {
    cache.store(id, len, Extent::new(0, len), vec![content(id, len)]);
    block_on(cache.drain());
}

fn read(cache: &DiskCache, id: &ObjectId, offset: u64, len: u64) -> Option<Vec<u8>> {
    let mut buf = vec![0; len as usize];
    block_on(cache.read(id, offset, &mut buf)).then_some(buf)
}

fn read_now(cache: &DiskCache, id: &ObjectId, offset: u64, len: u64) -> Option<Vec<u8>> {
    let mut buf = vec![0; len as usize];
    cache.read_now(id, offset, &mut buf).then_some(buf)
}

#[test]
fn what_was_stored_is_served_at_once_and_only_for_its_version() {
    let disk = SimDisk::new(1);
    let cache = open_sim(&disk, 64 * MIB);
    let one = id("k", 1);
    let len = 3 * MIB + 5;
    assert_eq!(read(&cache, &one, 0, 1), None);
    let whole = content(&one, len);
    let pieces = vec![whole.slice(..100), whole.slice(100..(2 * MIB) as usize)];
    cache.store(&one, len, Extent::new(0, 2 * MIB), pieces);
    block_on(cache.drain());
    assert!(cache.holds(&one, Extent::new(MIB - 5, 10)));
    assert!(!cache.holds(&one, Extent::new(2 * MIB - 1, 2)));
    let across = read_now(&cache, &one, MIB - 5, 10).unwrap();
    assert_eq!(across, whole[(MIB - 5) as usize..(MIB + 5) as usize]);
    assert_eq!(read(&cache, &one, 2 * MIB - 1, 2), None);
    assert_eq!(read(&cache, &id("k", 2), 0, 1), None);
    let tail = Extent::between(2 * MIB, len);
    cache.store(&one, len, tail, vec![whole.slice((2 * MIB) as usize..)]);
    block_on(cache.drain());
    assert_eq!(read(&cache, &one, 0, len).unwrap(), whole);
    assert_eq!(cache.stats().used_bytes, 3 * MIB + 4096);
}

#[test]
fn a_new_version_drops_the_older_one() {
    let disk = SimDisk::new(1);
    let cache = open_sim(&disk, 64 * MIB);
    store_whole(&cache, &id("k", 1), MIB);
    store_whole(&cache, &id("k", 2), 10);
    assert_eq!(read(&cache, &id("k", 1), 0, 1), None);
    assert_eq!(
        read(&cache, &id("k", 2), 0, 10).unwrap(),
        content(&id("k", 2), 10)
    );
    assert_eq!(cache.stats().used_bytes, 4096);
    assert_eq!(disk.used_under(Path::new("/c/objects")), 4096);
}

#[test]
fn forgotten_bytes_are_gone_even_if_they_only_wait_to_be_stored() {
    let disk = SimDisk::new(1);
    let cache = open_sim(&disk, 64 * MIB);
    store_whole(&cache, &id("a", 1), MIB);
    cache.forget(&id("a", 1));
    assert_eq!(read(&cache, &id("a", 1), 0, 1), None);
    block_on(cache.drain());
    assert_eq!(cache.stats().used_bytes, 0);
    assert_eq!(disk.used_under(Path::new("/c/objects")), 0);
}

#[test]
fn a_restart_finds_the_cache_warm() {
    let disk = SimDisk::new(1);
    let cache = open_sim(&disk, 64 * MIB);
    let len = 2 * MIB + 77;
    for key in ["a", "b"] {
        store_whole(&cache, &id(key, 1), len);
    }
    cache.forget(&id("b", 1));
    drop(cache);

    let cache = open_sim(&disk, 64 * MIB);
    assert_eq!(cache.stats().used_bytes, 2 * MIB + 4096);
    assert!(cache.holds(&id("a", 1), Extent::new(0, len)));
    assert!(!cache.holds(&id("b", 1), Extent::new(0, 1)));
    assert_eq!(
        read_now(&cache, &id("a", 1), 0, 10),
        None,
        "it is not verified"
    );
    assert_eq!(
        read(&cache, &id("a", 1), 5, 10).unwrap(),
        content(&id("a", 1), len)[5..15]
    );
    assert!(read_now(&cache, &id("a", 1), 5, 10).is_some());
    assert_eq!(
        read_now(&cache, &id("a", 1), MIB, 10),
        None,
        "its unit is not verified"
    );
    assert_eq!(
        read(&cache, &id("a", 1), 0, len).unwrap(),
        content(&id("a", 1), len)
    );
}

#[test]
fn the_least_recently_used_makes_way_and_the_size_is_kept() {
    let disk = SimDisk::new(1);
    let cache = open_sim(&disk, 4 * MIB);
    for key in ["a", "b", "c", "d"] {
        store_whole(&cache, &id(key, 1), MIB);
    }
    assert!(read_now(&cache, &id("a", 1), 0, 1).is_some());
    store_whole(&cache, &id("e", 1), MIB);
    assert!(!cache.holds(&id("b", 1), Extent::new(0, 1)));
    assert!(cache.holds(&id("a", 1), Extent::new(0, MIB)));
    let stats = cache.stats();
    assert!(
        stats.used_bytes <= 4 * MIB && stats.evicted_bytes >= MIB,
        "{stats:?}"
    );
}

#[test]
fn an_object_larger_than_the_cache_keeps_its_start_and_does_not_push_out_itself() {
    let disk = SimDisk::new(1);
    let cache = open_sim(&disk, 4 * MIB);
    let big = id("big", 1);
    let whole = content(&big, 8 * MIB);
    for n in 0..8 {
        let extent = Extent::new(n * MIB, MIB);
        let bytes = whole.slice(extent.offset as usize..extent.end() as usize);
        cache.store(&big, 8 * MIB, extent, vec![bytes]);
    }
    block_on(cache.drain());
    assert!(cache.holds(&big, Extent::new(0, 2 * MIB)));
    assert!(!cache.holds(&big, Extent::new(2 * MIB, 1)));
    assert_eq!(cache.stats().skipped_extents, 6);
}

#[test]
fn a_smaller_size_at_the_next_start_is_kept() {
    let disk = SimDisk::new(1);
    let cache = open_sim(&disk, 64 * MIB);
    for n in 0..8 {
        store_whole(&cache, &id(&format!("{n}"), 1), MIB);
    }
    drop(cache);
    let cache = open_sim(&disk, 3 * MIB);
    assert!(cache.stats().used_bytes <= 3 * MIB);
    assert!(
        cache.holds(&id("7", 1), Extent::new(0, MIB)),
        "the newest stay"
    );
}

#[test]
fn the_order_of_use_survives_a_restart() {
    let disk = SimDisk::new(1);
    let cache = open_sim(&disk, 64 * MIB);
    for n in 0..4 {
        store_whole(&cache, &id(&format!("{n}"), 1), MIB);
    }
    assert!(read_now(&cache, &id("0", 1), 0, 1).is_some());
    drop(cache);
    let cache = open_sim(&disk, 2 * MIB);
    assert!(cache.holds(&id("0", 1), Extent::new(0, MIB)));
    assert!(!cache.holds(&id("1", 1), Extent::new(0, 1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_real_disk_a_whole_file_is_given_verified_and_outlives_its_object() {
    use std::os::unix::fs::FileExt;

    let dir = tempfile::tempdir().unwrap();
    let one = id("k", 1);
    let len = 2 * MIB + 100;
    let whole = content(&one, len);
    let cache = DiskCache::open(config(dir.path(), 64 * MIB)).unwrap();
    cache.store(
        &one,
        len,
        Extent::new(0, MIB),
        vec![whole.slice(..MIB as usize)],
    );
    cache.sync().await;
    assert!(cache.whole_file(&one, len).is_none(), "it is not whole");
    cache.store(&one, len, Extent::new(0, len), vec![whole.clone()]);
    cache.sync().await;
    assert!(cache.whole_file(&one, len).is_some());
    assert!(cache.whole_file(&one, len - 1).is_none());
    drop(cache);

    let cache = DiskCache::open(config(dir.path(), 64 * MIB)).unwrap();
    assert!(cache.whole_file(&one, len).is_none(), "it is not verified");
    // The first call began it; the writer comes back for the rest before it answers.
    let file = loop {
        cache.drain().await;
        if let Some(file) = cache.whole_file(&one, len) {
            break file;
        }
    };
    cache.forget(&one);
    cache.sync().await;
    let mut buf = vec![0; len as usize];
    file.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(buf, whole);
    assert_eq!(file.metadata().unwrap().len(), len);
    assert_eq!(cache.stats().used_bytes, 0);
}

/// Some filesystems (overlayfs among them) refuse RWF_NOWAIT.
async fn knows_nowait(dir: &Path) -> bool {
    let staging = disk::Staging::new(dir, disk::shared().unwrap());
    let file = staging.create().await.unwrap();
    file.write(0, vec![Bytes::from_static(b"x")]).await.unwrap();
    file.read_now(0, &mut [0])
}

#[tokio::test]
async fn on_a_real_disk_hits_are_served_from_the_page_cache() {
    let dir = tempfile::tempdir().unwrap();
    if !knows_nowait(dir.path()).await {
        eprintln!("not tested: this filesystem refuses RWF_NOWAIT");
        return;
    }
    let one = id("k", 1);
    let cache = DiskCache::open(config(dir.path(), 64 * MIB)).unwrap();
    let whole = content(&one, 3 * MIB);
    cache.store(&one, 3 * MIB, Extent::new(0, 3 * MIB), vec![whole.clone()]);
    cache.sync().await;
    // A machine that is short of memory may take pages away, and reading brings them back.
    let from_pages = (0..100).find_map(|_| {
        let hit = read_now(&cache, &one, 0, 3 * MIB);
        hit.or_else(|| read(&cache, &one, 0, 3 * MIB).and(None))
    });
    assert_eq!(from_pages.unwrap(), whole);
    drop(cache);
    let cache = DiskCache::open(config(dir.path(), 64 * MIB)).unwrap();
    let mut buf = vec![0; 100];
    assert!(cache.read(&one, MIB + 5, &mut buf).await);
    assert_eq!(buf, whole[MIB as usize + 5..MIB as usize + 105]);
    assert!(cache.read_now(&one, MIB + 5, &mut buf));
}

/// Wake-ups of our own threads so far, by the kernel's count. Only the writer's and the disk's.
fn wake_ups() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let tasks = tasks.map(|task| task.unwrap().path());
    let ours = tasks.filter(|task| {
        let name = std::fs::read_to_string(task.join("comm")).unwrap_or_default();
        name.starts_with("disk-") || name.starts_with("cache-writer")
    });
    ours.map(|task| {
        let status = std::fs::read_to_string(task.join("status")).unwrap_or_default();
        let line = status
            .lines()
            .find(|line| line.starts_with("voluntary_ctxt"));
        let count = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        count.unwrap_or(0)
    })
    .sum()
}

/// Counts the whole process's threads, so it runs alone.
#[test]
#[ignore = "waits some seconds, and alone; tests/run runs it"]
fn an_idle_cache_never_wakes() {
    let dir = tempfile::tempdir().unwrap();
    let cache = DiskCache::open(config(dir.path(), 64 * MIB)).unwrap();
    store_whole(&cache, &id("k", 1), MIB);
    block_on(cache.sync());
    assert!(read(&cache, &id("k", 1), 0, MIB).is_some());
    // They answer before they lie down.
    let before = std::iter::repeat_with(|| {
        let before = wake_ups();
        thread::sleep(std::time::Duration::from_millis(100));
        (before, wake_ups())
    })
    .take(100)
    .find_map(|(before, after)| (before == after).then_some(before))
    .expect("they lie down");
    assert!(before > 0);
    thread::sleep(std::time::Duration::from_secs(8));
    assert_eq!(wake_ups(), before);
}
