//! Reading with a disk tier: what it is given, and what memory that costs.

use std::time::Duration;

use super::*;
use crate::disk::sim::SimDisk;
use crate::disk_cache::DiskConfig;

/// An object that was read while the disk refused bytes lacked them for good: later reads found
/// them in memory, and what is read from memory is not stored. So it was never passed through.
#[tokio::test]
async fn what_the_disk_left_out_is_stored_from_memory_when_the_whole_is_wanted() {
    let sim = SimDisk::new(1);
    let config = DiskConfig::new("/cache", 64 * MIB);
    let disk = DiskCache::open_on(Arc::new(sim.clone()), config).unwrap();
    let world = ReadWorld::with_disk(64 * MIB, 64 * MIB, Some(disk.clone()));
    let (id, bytes) = world.plant("a", 3 * MIB);
    let stream = world.cache.stream(id.clone(), 3 * MIB);
    sim.fail_writes(Some(libc::EIO));
    assert_eq!(read(&stream, 0, 3 * MIB).await.unwrap(), bytes);
    world.at_rest_after(stream).await;
    disk.sync().await;
    sim.fail_writes(None);
    disk.store(
        &id,
        3 * MIB,
        Extent::new(0, 1),
        vec![Bytes::copy_from_slice(&bytes[..1])],
    );
    disk.sync().await;
    assert_eq!(disk.gaps(&id, 64 * MIB), [Extent::between(1, 3 * MIB)]);
    assert!(world.cache.whole_file(&id, 3 * MIB).is_none());
    disk.sync().await;
    let missing: u64 = disk.gaps(&id, 64 * MIB).iter().map(|gap| gap.len).sum();
    let in_memory = world.cache.stats().memory_bytes;
    assert_eq!(
        missing,
        3 * MIB - in_memory,
        "all that memory has is stored"
    );
    assert!(in_memory >= MIB);
}

/// A reader that opened a large object again at once found it nearly whole on disk, and was served
/// by copying for as long as it had it open.
#[tokio::test]
async fn an_open_gives_the_disk_the_moment_that_it_needs_for_the_rest() {
    let config = DiskConfig::new("/cache", 256 * MIB);
    let disk = DiskCache::open_on(Arc::new(SimDisk::new(1)), config).unwrap();
    let world = ReadWorld::with_disk(8 * MIB, 64 * MIB, Some(disk.clone()));
    let (stream, bytes) = world.open("a", 40 * MIB);
    for at in (0..40 * MIB).step_by(1 << 20) {
        let expected = &bytes[at as usize..][..1 << 20];
        assert_eq!(read(&stream, at, MIB).await.unwrap(), expected);
        if at < 24 * MIB {
            // The last bytes alone are still to be stored when the reader has them.
            disk.drain().await;
        }
    }
    let id = stream.object().clone();
    world.at_rest_after(stream).await;
    let whole = async {
        // Each open waits a moment, which a busy machine may need more than once.
        while !disk.gaps(&id, 64 * MIB).is_empty() {
            world.cache.wait_for_whole_file(&id, 40 * MIB).await;
        }
    };
    let whole = tokio::time::timeout(Duration::from_mins(1), whole).await;
    whole.expect("the rest is stored");
}

fn disk(sim: &SimDisk) -> Arc<DiskCache> {
    DiskCache::open_on(Arc::new(sim.clone()), DiskConfig::new("/cache", 256 * MIB)).unwrap()
}

/// Bytes that waited for the disk were in no budget: as much again as reads may hold.
#[tokio::test]
async fn what_waits_for_the_disk_is_paid_for_until_it_is_there() {
    let sim = SimDisk::new(1);
    let disk = disk(&sim);
    let world = ReadWorld::with_disk(MIB, 64 * MIB, Some(disk.clone()));
    let held = sim.hold_writes().await;
    let (stream, bytes) = world.open("a", 3 * MIB);
    assert_eq!(read(&stream, 0, 3 * MIB).await.unwrap(), bytes);
    let id = stream.object().clone();
    drop(stream);
    // The reader has its bytes a moment before the disk is given them.
    let mut stored = Box::pin(disk.stored(&id));
    while !pending(&mut stored) {
        tokio::task::yield_now().await;
        stored = Box::pin(disk.stored(&id));
    }
    assert!(world.fills.used() >= 3 * MIB, "{}", world.fills.used());
    drop(held);
    stored.await;
    world.at_rest().await;
    assert!(disk.gaps(&id, 64 * MIB).is_empty() && disk.holds(&id, Extent::new(0, 3 * MIB)));
}

/// A disk that hangs holds bytes that can be fetched again: whoever reads has the memory.
#[tokio::test]
async fn a_disk_that_hangs_keeps_no_memory_from_readers() {
    let sim = SimDisk::new(1);
    let disk = disk(&sim);
    let world = ReadWorld::with_disk(MIB, 8 * MIB, Some(disk.clone()));
    let _held = sim.hold_writes().await;
    for number in 0..20 {
        let (stream, bytes) = world.open(&format!("object-{number}"), 2 * MIB);
        assert_eq!(read(&stream, 0, 2 * MIB).await.unwrap(), bytes);
        assert!(world.fills.used() <= 8 * MIB);
    }
    assert!(disk.stats().skipped_extents > 0);
}
