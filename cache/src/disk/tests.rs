//! What every disk holds true, on each of the three, and what only the simulated one does.

use std::path::Path;

use bytes::Bytes;

use super::blocking::BlockingDisk;
use super::sim::SimDisk;
use super::uring::UringDisk;
use super::*;
use crate::extent::Extent;

/// The disks that this machine has; io_uring may be denied here.
fn disks() -> Vec<Arc<dyn Disk>> {
    let mut disks: Vec<Arc<dyn Disk>> = vec![
        Arc::new(BlockingDisk::start(1).unwrap()),
        Arc::new(SimDisk::new(1)),
    ];
    match UringDisk::start(1) {
        Ok(disk) => disks.push(Arc::new(disk)),
        Err(error) => eprintln!("io_uring is not tested: {error}"),
    }
    disks
}

async fn read(disk: &dyn Disk, file: &DiskFile, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let (result, buf) = disk.read_at(file, offset, vec![0xee; len]).await;
    result.map(|()| buf)
}

#[tokio::test]
async fn every_disk_reads_back_what_was_written() {
    for disk in disks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub").join("file");
        assert!(disk.open(&path, OpenHow::Existing).await.is_err());
        disk.make_dir(path.parent().unwrap()).await.unwrap();
        disk.make_dir(path.parent().unwrap()).await.unwrap();
        let file = disk.open(&path, OpenHow::Create).await.unwrap();
        let pieces: Vec<Bytes> = (0..1500u32)
            .map(|i| Bytes::from(vec![i as u8; (i % 300) as usize]))
            .collect();
        let whole = pieces.concat();
        disk.write_at(&file, 5000, pieces).await.unwrap();
        disk.sync_data(&file).await.unwrap();
        assert_eq!(
            read(&*disk, &file, 5000, whole.len()).await.unwrap(),
            whole,
            "{}",
            disk.kind()
        );
        assert_eq!(read(&*disk, &file, 0, 5000).await.unwrap(), vec![0; 5000]);
        let past = read(&*disk, &file, 5001, whole.len()).await;
        assert_eq!(past.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);

        let again = disk.open(&path, OpenHow::Existing).await.unwrap();
        disk.punch(&again, Extent::new(4096, 8192)).await.unwrap();
        assert_eq!(
            read(&*disk, &file, 4096, 8192).await.unwrap(),
            vec![0; 8192]
        );
        disk.truncate(&again, 100).await.unwrap();
        assert!(read(&*disk, &file, 0, 101).await.is_err());
        assert!(disk.space(dir.path()).await.unwrap().free > 0);
    }
}

#[tokio::test]
async fn names_come_and_go_and_open_files_stay() {
    for disk in disks() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        let file = disk.open(&one, OpenHow::Create).await.unwrap();
        disk.write_at(&file, 0, vec![Bytes::from_static(b"bytes")])
            .await
            .unwrap();
        disk.rename(&one, &two).await.unwrap();
        assert!(disk.open_cached(&one).is_none());
        if let Some(cached) = disk.open_cached(&two) {
            assert_eq!(read(&*disk, &cached, 0, 5).await.unwrap(), b"bytes");
        }
        assert_eq!(disk.list(dir.path()).await.unwrap(), ["two"]);
        disk.remove(&two).await.unwrap();
        disk.remove(&two).await.unwrap();
        assert!(disk.open(&two, OpenHow::Existing).await.is_err());
        assert_eq!(read(&*disk, &file, 0, 5).await.unwrap(), b"bytes");
    }
}

#[tokio::test]
async fn a_staging_file_has_no_name_and_keeps_its_bytes() {
    for disk in disks() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("staging");
        let staging = Staging::new(&dir, disk.clone());
        let file = staging.create().await.unwrap();
        file.write(
            1 << 20,
            vec![Bytes::from_static(b"dirty "), Bytes::from_static(b"bytes")],
        )
        .await
        .unwrap();
        let mut buf = [0; 11];
        file.read(1 << 20, &mut buf).await.unwrap();
        assert_eq!(&buf, b"dirty bytes");
        let mut now = [0; 5];
        if file.read_now((1 << 20) + 6, &mut now) {
            assert_eq!(&now, b"bytes");
        }
        assert!(disk.list(&dir).await.unwrap().is_empty());
        file.punch(Extent::new(1 << 20, 4096)).await.unwrap();
        file.truncate(0).await.unwrap();
        assert!(file.read(0, &mut buf).await.is_err());
    }
}

/// Aligned bytes go past the page cache where the filesystem can, the others through it; whoever
/// reads through it sees the last of both.
#[tokio::test]
async fn staged_bytes_are_the_same_by_either_way() {
    const LEN: usize = 1 << 20;
    let aligned = |byte: u8, len: usize| {
        let mut bytes = direct::aligned_buffer(len);
        bytes.resize(len, byte);
        bytes.freeze()
    };
    for disk in disks() {
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging::new(dir.path(), disk.clone());
        let file = staging.create().await.unwrap();
        let odd = aligned(2, 8192).slice(1..4097);
        let pieces = vec![aligned(1, LEN), odd, aligned(3, LEN), aligned(4, 5)];
        let mut whole = pieces.concat();
        file.write(0, pieces).await.unwrap();
        let mut back = vec![0; whole.len()];
        file.read(0, &mut back).await.unwrap();
        assert!(back == whole, "{}", disk.kind());
        // Now it is in the page cache, and is written anew beside it.
        file.write(4096, vec![aligned(5, LEN)]).await.unwrap();
        whole[4096..][..LEN].fill(5);
        file.read(0, &mut back).await.unwrap();
        assert!(back == whole, "{}", disk.kind());
        if file.read_now(0, &mut back) {
            assert!(back == whole, "{}", disk.kind());
        }
    }
}

#[tokio::test]
async fn aligned_bytes_of_a_file_without_a_name_are_not_in_the_page_cache() {
    for disk in disks() {
        let dir = tempfile::tempdir().unwrap();
        disk.make_dir(dir.path()).await.unwrap();
        let file = disk.open(dir.path(), OpenHow::Anonymous).await.unwrap();
        let Some(real) = file.os_file() else {
            continue;
        };
        if file.direct().is_none() || nowait::is_tmpfs(real) {
            eprintln!("{} is not tested: no way past the page cache", disk.kind());
            continue;
        }
        let mut bytes = direct::aligned_buffer(1 << 20);
        bytes.resize(1 << 20, 1);
        let pieces = vec![bytes.freeze()];
        disk.write_at(&file, 0, pieces).await.unwrap();
        assert!(!file.read_now(0, &mut [0; 4096]), "{}", disk.kind());
    }
}

#[test]
fn a_disk_works_without_a_runtime_and_ends_with_its_last_handle() {
    let disk = start(1).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let file = wait::block_on(disk.open(&path, OpenHow::Create)).unwrap();
    wait::block_on(disk.write_at(&file, 0, vec![Bytes::from_static(b"x")])).unwrap();
    drop(disk);
    assert_eq!(std::fs::read(path).unwrap(), b"x");
}

#[test]
fn a_crash_keeps_what_was_synced_and_loses_some_of_the_rest() {
    let (mut kept, mut lost) = (0, 0);
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let path = Path::new("/d/file");
        let file = disk.open_now(path, OpenHow::Create).unwrap();
        file.write_all_at(0, &[1; 8192]).unwrap();
        file.sync_data().unwrap();
        file.write_all_at(4096, &[2; 8192]).unwrap();
        let other = disk.open_now(Path::new("/d/other"), OpenHow::Create);
        drop(other);

        let after = disk.crash();
        assert!(
            file.write_all_at(0, &[3; 10]).is_err(),
            "the dead do not write"
        );
        let file = after.open_now(path, OpenHow::Existing).unwrap();
        let mut page = [0; 4096];
        file.read_exact_at(0, &mut page).unwrap();
        assert_eq!(page, [1; 4096]);
        file.read_exact_at(4096, &mut page).unwrap();
        assert!(page.iter().all(|byte| matches!(byte, 1 | 2)));
        match after.open_now(Path::new("/d/other"), OpenHow::Existing) {
            Ok(_) => kept += 1,
            Err(_) => lost += 1,
        }
    }
    assert!(kept > 0 && lost > 0, "{kept} kept, {lost} lost");
}

#[test]
fn a_full_simulated_disk_says_so_and_has_room_again_after_a_punch() {
    let disk = SimDisk::new(7);
    disk.set_capacity(Some(8192));
    let file = disk.open_now(Path::new("/f"), OpenHow::Create).unwrap();
    let full = file.write_all_at(0, &[1; 12288]).unwrap_err();
    assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
    file.punch(Extent::new(0, 4096)).unwrap();
    file.write_all_at(8192, &[1; 4096]).unwrap();
}
