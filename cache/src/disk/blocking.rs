//! A disk of plain threads that call pread(2), pwritev(2) and fdatasync(2), each one job at a
//! time. It serves where io_uring is denied: seccomp profiles of container engines,
//! `kernel.io_uring_disabled`. The threads are its own rather than a runtime's blocking pool, so
//! that callers without a runtime can use it too.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::device::{Disk, DiskFuture, DiskKind, FilesystemSpace};
use super::engine::{DiskJob, Engine, QUEUE_MAX, by_engine};
use super::file::{DiskFile, OpenHow};
use crate::extent::Extent;

/// Threads of blocking calls.
#[derive(Debug)]
pub struct BlockingDisk {
    engine: Engine,
}

impl BlockingDisk {
    /// Starts `threads` threads (at least one), named `disk-N`.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(threads: usize) -> io::Result<Self> {
        let mut queues = Vec::new();
        for number in 0..threads.max(1) {
            let (queue, mut jobs) = mpsc::channel(QUEUE_MAX);
            thread::Builder::new()
                .name(format!("disk-{number}"))
                .spawn(move || {
                    while let Some(job) = jobs.blocking_recv() {
                        run(job);
                    }
                })?;
            queues.push(queue);
        }
        Ok(Self {
            engine: Engine::new(queues),
        })
    }
}

/// A reply that nobody waits for any more is dropped: the caller has given up.
fn run(job: DiskJob) {
    match job {
        DiskJob::Read {
            file,
            offset,
            mut buf,
            reply,
        } => {
            if !reply.is_closed() {
                let result = file.read_exact_at(&mut buf, offset);
                let _ = reply.send((result, buf));
            }
        }
        DiskJob::Write {
            file,
            direct,
            offset,
            pieces,
            reply,
        } => {
            let written = super::file::write(&file, direct.as_ref(), offset, pieces);
            let _ = reply.send(written);
        }
        DiskJob::Sync { file, reply } => {
            let _ = reply.send(file.sync_data());
        }
        DiskJob::Fallocate {
            file,
            flags,
            extent,
            reply,
        } => {
            let _ = reply.send(super::file::call_fallocate(&file, flags, extent));
        }
        DiskJob::Remove { path, reply } => {
            let _ = reply.send(std::fs::remove_file(path));
        }
        DiskJob::Rename {
            source,
            target,
            reply,
        } => {
            let _ = reply.send(std::fs::rename(source, target));
        }
        DiskJob::Call(call) => call(),
    }
}

impl Disk for BlockingDisk {
    fn kind(&self) -> DiskKind {
        DiskKind::Blocking
    }

    by_engine!();
}
