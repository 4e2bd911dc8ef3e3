//! A disk of tokio-uring threads. Each thread owns one io_uring and runs many jobs on it at once,
//! so a slow read holds up nobody and the threads stay few.
//!
//! What tokio-uring 0.5 asks of us, and what this file does about it:
//! - It runs only on a thread of its own, outside any other runtime: jobs come by a bounded queue
//!   and answers go back by a oneshot.
//! - A completion queue that overflows is lost work: it gets four times the submission queue's
//!   entries, and a semaphore keeps what is in flight below them.
//! - `writev_at_all` panics on a short write, so short writes are continued here.
//! - A write through the page cache goes to a thread of the kernel's, one hop for each call, and a long
//!   one takes several (see `cached.rs`). So a thread of the runtime's own makes them all.
//! - Its file owns the descriptor; ours is shared. Each job works on a duplicate, whose cost (two
//!   short system calls) is nothing beside the disk's.
//!
//! A waiting thread sits in epoll_wait(2) without a timeout: an idle disk never wakes.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use nix::fcntl::FallocateFlags;
use tokio::sync::{Semaphore, mpsc};
use tokio_uring::buf::BoundedBuf;
use tokio_uring::fs::File as UringFile;

use super::cached;
use super::device::{Disk, DiskFuture, DiskKind, FilesystemSpace};
use super::direct::{self, Direct};
use super::engine::{DiskJob, Engine, QUEUE_MAX, by_engine};
use super::file::{ALLOCATE, DiskFile, OpenHow};
use super::vectored::{PIECES_MAX, advance};
use crate::extent::Extent;

/// Submission entries of one ring.
const ENTRIES: u32 = 128;

/// Jobs in flight on one ring. Each holds at most one entry at a time.
const IN_FLIGHT_MAX: usize = 64;

/// Writes of at least so many bytes take their room first, in one piece: a write into room that is
/// there costs ext4 0.13 s of processor time a GiB, one that reserves it page by page 0.22 s.
const ROOM_FIRST: u64 = 256 << 10;

/// tokio-uring threads.
#[derive(Debug)]
pub struct UringDisk {
    engine: Engine,
}

impl UringDisk {
    /// Starts `threads` threads (at least one), named `disk-N`, and does one operation on each.
    /// Waits for that.
    ///
    /// # Errors
    /// When the kernel denies io_uring or a thread cannot be started.
    pub fn start(threads: usize) -> io::Result<Self> {
        let mut queues = Vec::new();
        for number in 0..threads.max(1) {
            let (queue, jobs) = mpsc::channel(QUEUE_MAX);
            let (ready, started) = std_mpsc::sync_channel(1);
            thread::Builder::new()
                .name(format!("disk-{number}"))
                .spawn(move || serve(jobs, ready))?;
            started
                .recv()
                .unwrap_or_else(|_| Err(io::Error::other("the disk thread ended at its start")))?;
            queues.push(queue);
        }
        Ok(Self {
            engine: Engine::new(queues),
        })
    }
}

/// A disk thread from its start to its end. Says by `ready` whether io_uring works here.
fn serve(mut jobs: mpsc::Receiver<DiskJob>, ready: std_mpsc::SyncSender<io::Result<()>>) {
    let mut ring = tokio_uring::uring_builder();
    ring.setup_cqsize(ENTRIES * 4);
    let mut builder = tokio_uring::builder();
    builder.entries(ENTRIES).uring_builder(&ring);
    let runtime = match tokio_uring::Runtime::new(&builder) {
        Ok(runtime) => runtime,
        Err(error) => {
            // The receiver waits for this until it has it.
            let _ = ready.send(Err(error));
            return;
        }
    };
    runtime.block_on(async move {
        let probe = probe().await;
        let works = probe.is_ok();
        let _ = ready.send(probe);
        if !works {
            return;
        }
        let in_flight = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        while let Some(job) = jobs.recv().await {
            // The semaphore is never closed, so a permit comes.
            let permit = in_flight.clone().acquire_owned().await;
            tokio_uring::spawn(async move {
                run(job).await;
                drop(permit);
            });
        }
        // The last handle is gone; what is in flight is finished before the ring is torn down.
        let _all = in_flight.acquire_many(IN_FLIGHT_MAX as u32).await;
    });
}

/// One real operation: a profile may allow io_uring_setup(2) and deny io_uring_enter(2).
async fn probe() -> io::Result<()> {
    let file = UringFile::open("/dev/zero").await?;
    let (result, _) = file.read_exact_at(vec![1; 8].slice(..), 0).await;
    result
}

/// A reply that nobody waits for any more is dropped: the caller has given up.
async fn run(job: DiskJob) {
    match job {
        DiskJob::Read {
            file,
            offset,
            buf,
            reply,
        } => {
            if !reply.is_closed() {
                let _ = reply.send(read(&file, offset, buf).await);
            }
        }
        DiskJob::Write {
            file,
            direct,
            offset,
            pieces,
            reply,
        } => {
            let written = write(&file, direct.as_ref(), offset, pieces).await;
            let _ = reply.send(written);
        }
        DiskJob::Sync { file, reply } => {
            let result = match duplicate(&file) {
                Ok(file) => file.sync_data().await,
                Err(error) => Err(error),
            };
            let _ = reply.send(result);
        }
        DiskJob::Fallocate {
            file,
            flags,
            extent,
            reply,
        } => {
            let _ = reply.send(fallocate(&file, flags, extent).await);
        }
        DiskJob::Remove { path, reply } => {
            let _ = reply.send(tokio_uring::fs::remove_file(path).await);
        }
        DiskJob::Rename {
            source,
            target,
            reply,
        } => {
            let _ = reply.send(tokio_uring::fs::rename(source, target).await);
        }
        // Opening may wait for the disk, which this thread must not: it has other jobs in flight.
        DiskJob::Call(call) => {
            if let Err(error) = tokio::task::spawn_blocking(call).await {
                tracing::error!(%error, "a call to the disk panicked");
            }
        }
    }
}

fn duplicate(file: &File) -> io::Result<UringFile> {
    Ok(UringFile::from_std(file.try_clone()?))
}

async fn read(file: &File, offset: u64, buf: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
    let file = match duplicate(file) {
        Ok(file) => file,
        Err(error) => return (Err(error), buf),
    };
    let len = buf.len();
    let (result, slice) = file.read_exact_at(buf.slice(..len), offset).await;
    (result, slice.into_inner())
}

async fn write(
    file: &Arc<File>,
    direct: Option<&Direct>,
    offset: u64,
    pieces: Vec<Bytes>,
) -> io::Result<()> {
    let Some(direct) = direct else {
        return write_cached(file, offset, pieces).await;
    };
    for run in direct::runs(offset, pieces) {
        if let Some(past) = direct.takes(&run) {
            let begun = Instant::now();
            let past = duplicate(past)?;
            let result = write_pieces(&past, run.offset, run.pieces.clone()).await;
            if !direct.wrote(run.len, begun.elapsed(), &result) {
                result?;
                continue;
            }
        }
        write_cached(file, run.offset, run.pieces).await?;
    }
    Ok(())
}

/// Writes through the page cache, on a thread that may block.
async fn write_cached(file: &Arc<File>, offset: u64, pieces: Vec<Bytes>) -> io::Result<()> {
    let len = pieces.iter().map(|piece| piece.len() as u64).sum();
    if len >= ROOM_FIRST {
        // Not every filesystem can; the write says what there is to say.
        let extent = Extent::new(offset, len);
        let _ = fallocate(file, ALLOCATE, extent).await;
    }
    let file = Arc::clone(file);
    let written = move || cached::write(&file, offset, pieces);
    tokio::task::spawn_blocking(written)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

async fn write_pieces(file: &UringFile, mut offset: u64, mut pieces: Vec<Bytes>) -> io::Result<()> {
    pieces.retain(|piece| !piece.is_empty());
    while !pieces.is_empty() {
        let rest = pieces.split_off(pieces.len().min(PIECES_MAX));
        let (result, mut batch) = file.writev_at(pieces, offset).await;
        let written = match result {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        offset += written as u64;
        let done = advance(&mut batch, written);
        pieces = batch.split_off(done);
        pieces.extend(rest);
    }
    Ok(())
}

async fn fallocate(file: &File, flags: FallocateFlags, extent: Extent) -> io::Result<()> {
    let file = duplicate(file)?;
    // off_t is signed: what lies past its end cannot hold bytes.
    let len = extent.len.min(i64::MAX as u64 - extent.offset);
    file.fallocate(extent.offset, len, flags.bits()).await
}

impl Disk for UringDisk {
    fn kind(&self) -> DiskKind {
        DiskKind::Uring
    }

    by_engine!();
}
