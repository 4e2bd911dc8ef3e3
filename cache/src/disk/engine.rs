//! What the two real disks share: a front that turns calls into jobs, a bounded queue to each
//! thread, and a oneshot back. The threads differ in how they run a job; the front does not know.
//!
//! A job owns all it touches (the file, the buffers), so a caller that gives up waiting leaves
//! nothing behind that the kernel might still write to.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use nix::fcntl::FallocateFlags;
use tokio::sync::{mpsc, oneshot};

use super::device::{DiskFuture, FilesystemSpace};
use super::direct::Direct;
use super::file::{self, DiskFile, OpenHow, PUNCH};
use crate::extent::Extent;

/// Jobs that wait in one thread's queue; callers past it wait.
pub(super) const QUEUE_MAX: usize = 128;

/// A call on its way to a disk thread.
pub(super) enum DiskJob {
    Read {
        file: Arc<File>,
        offset: u64,
        buf: Vec<u8>,
        reply: oneshot::Sender<(io::Result<()>, Vec<u8>)>,
    },
    Write {
        file: Arc<File>,
        direct: Option<Direct>,
        offset: u64,
        pieces: Vec<Bytes>,
        reply: oneshot::Sender<io::Result<()>>,
    },
    Sync {
        file: Arc<File>,
        reply: oneshot::Sender<io::Result<()>>,
    },
    Fallocate {
        file: Arc<File>,
        flags: FallocateFlags,
        extent: Extent,
        reply: oneshot::Sender<io::Result<()>>,
    },
    Remove {
        path: PathBuf,
        reply: oneshot::Sender<io::Result<()>>,
    },
    Rename {
        source: PathBuf,
        target: PathBuf,
        reply: oneshot::Sender<io::Result<()>>,
    },
    /// A short call that has no operation of its own in tokio-uring: open, list, statvfs.
    Call(Box<dyn FnOnce() + Send>),
}

/// The front: queues to the threads.
#[derive(Debug)]
pub(super) struct Engine {
    queues: Vec<mpsc::Sender<DiskJob>>,
    next: AtomicUsize,
}

impl Engine {
    pub(super) fn new(queues: Vec<mpsc::Sender<DiskJob>>) -> Self {
        Self {
            queues,
            next: AtomicUsize::new(0),
        }
    }

    /// Sends the job that `make` builds around a reply, and waits for it.
    async fn run<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> DiskJob) -> io::Result<T> {
        let (reply, answer) = oneshot::channel();
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.queues.len();
        let gone = || io::Error::other("the disk thread has ended");
        self.queues[turn]
            .send(make(reply))
            .await
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }

    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.run(|reply| {
            DiskJob::Call(Box::new(move || {
                // Nobody waits any more: the result is not needed.
                let _ = reply.send(call());
            }))
        })
        .await?
    }

    pub(super) fn open<'a>(
        &'a self,
        path: &'a Path,
        how: OpenHow,
    ) -> DiskFuture<'a, io::Result<DiskFile>> {
        let path = path.to_owned();
        Box::pin(self.call(move || file::open_real(&path, how)))
    }

    pub(super) fn make_dir<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, io::Result<()>> {
        let path = path.to_owned();
        Box::pin(self.call(move || std::fs::create_dir_all(path)))
    }

    pub(super) fn list<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, io::Result<Vec<String>>> {
        let path = path.to_owned();
        Box::pin(self.call(move || list_real(&path)))
    }

    pub(super) fn remove<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, io::Result<()>> {
        let path = path.to_owned();
        Box::pin(async move {
            match self.run(|reply| DiskJob::Remove { path, reply }).await? {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                result => result,
            }
        })
    }

    pub(super) fn rename<'a>(
        &'a self,
        source: &'a Path,
        target: &'a Path,
    ) -> DiskFuture<'a, io::Result<()>> {
        let (source, target) = (source.to_owned(), target.to_owned());
        Box::pin(async move {
            self.run(|reply| DiskJob::Rename {
                source,
                target,
                reply,
            })
            .await?
        })
    }

    pub(super) fn read_at<'a>(
        &'a self,
        file: &'a DiskFile,
        offset: u64,
        buf: Vec<u8>,
    ) -> DiskFuture<'a, (io::Result<()>, Vec<u8>)> {
        Box::pin(async move {
            let file = match real(file) {
                Ok(file) => file,
                Err(error) => return (Err(error), buf),
            };
            let job = |reply| DiskJob::Read {
                file,
                offset,
                buf,
                reply,
            };
            match self.run(job).await {
                Ok(done) => done,
                Err(error) => (Err(error), Vec::new()),
            }
        })
    }

    pub(super) fn write_at<'a>(
        &'a self,
        file: &'a DiskFile,
        offset: u64,
        pieces: Vec<Bytes>,
    ) -> DiskFuture<'a, io::Result<()>> {
        Box::pin(async move {
            let direct = file.direct().cloned();
            let file = real(file)?;
            self.run(|reply| DiskJob::Write {
                file,
                direct,
                offset,
                pieces,
                reply,
            })
            .await?
        })
    }

    pub(super) fn sync_data<'a>(&'a self, file: &'a DiskFile) -> DiskFuture<'a, io::Result<()>> {
        Box::pin(async move {
            let file = real(file)?;
            self.run(|reply| DiskJob::Sync { file, reply }).await?
        })
    }

    fn fallocate<'a>(
        &'a self,
        file: &'a DiskFile,
        flags: FallocateFlags,
        extent: Extent,
    ) -> DiskFuture<'a, io::Result<()>> {
        Box::pin(async move {
            if extent.is_empty() {
                return Ok(());
            }
            let file = real(file)?;
            self.run(|reply| DiskJob::Fallocate {
                file,
                flags,
                extent,
                reply,
            })
            .await?
        })
    }

    pub(super) fn punch<'a>(
        &'a self,
        file: &'a DiskFile,
        extent: Extent,
    ) -> DiskFuture<'a, io::Result<()>> {
        self.fallocate(file, PUNCH, extent)
    }

    pub(super) fn truncate<'a>(
        &'a self,
        file: &'a DiskFile,
        len: u64,
    ) -> DiskFuture<'a, io::Result<()>> {
        let file = file.clone();
        Box::pin(self.call(move || file.set_len(len)))
    }

    pub(super) fn space<'a>(
        &'a self,
        path: &'a Path,
    ) -> DiskFuture<'a, io::Result<FilesystemSpace>> {
        let path = path.to_owned();
        Box::pin(self.call(move || space_of(&path)))
    }
}

/// The calls of [`super::Disk`], handed to the engine in the field `engine`.
macro_rules! by_engine {
    () => {
        fn open<'a>(
            &'a self,
            path: &'a Path,
            how: OpenHow,
        ) -> DiskFuture<'a, io::Result<DiskFile>> {
            self.engine.open(path, how)
        }
        fn open_cached(&self, path: &Path) -> Option<DiskFile> {
            super::nowait::open_cached(path).map(DiskFile::real)
        }
        fn make_dir<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, io::Result<()>> {
            self.engine.make_dir(path)
        }
        fn list<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, io::Result<Vec<String>>> {
            self.engine.list(path)
        }
        fn remove<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, io::Result<()>> {
            self.engine.remove(path)
        }
        fn rename<'a>(
            &'a self,
            source: &'a Path,
            target: &'a Path,
        ) -> DiskFuture<'a, io::Result<()>> {
            self.engine.rename(source, target)
        }
        fn read_at<'a>(
            &'a self,
            file: &'a DiskFile,
            offset: u64,
            buf: Vec<u8>,
        ) -> DiskFuture<'a, (io::Result<()>, Vec<u8>)> {
            self.engine.read_at(file, offset, buf)
        }
        fn write_at<'a>(
            &'a self,
            file: &'a DiskFile,
            offset: u64,
            pieces: Vec<Bytes>,
        ) -> DiskFuture<'a, io::Result<()>> {
            self.engine.write_at(file, offset, pieces)
        }
        fn sync_data<'a>(&'a self, file: &'a DiskFile) -> DiskFuture<'a, io::Result<()>> {
            self.engine.sync_data(file)
        }
        fn punch<'a>(
            &'a self,
            file: &'a DiskFile,
            extent: Extent,
        ) -> DiskFuture<'a, io::Result<()>> {
            self.engine.punch(file, extent)
        }
        fn truncate<'a>(&'a self, file: &'a DiskFile, len: u64) -> DiskFuture<'a, io::Result<()>> {
            self.engine.truncate(file, len)
        }
        fn space<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, io::Result<FilesystemSpace>> {
            self.engine.space(path)
        }
    };
}
pub(super) use by_engine;

fn real(file: &DiskFile) -> io::Result<Arc<File>> {
    file.os_file()
        .cloned()
        .ok_or_else(|| io::Error::other("a file of another disk"))
}

fn list_real(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        // Names that are not UTF-8 are none of ours.
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

fn space_of(path: &Path) -> io::Result<FilesystemSpace> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    let unit = stat.fragment_size();
    Ok(FilesystemSpace {
        free: stat.blocks_available() * unit,
        total: stat.blocks() * unit,
    })
}
