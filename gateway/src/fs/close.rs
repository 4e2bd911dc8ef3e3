//! Closing, and the promise: FLUSH and fsync answer when the store has the bytes.
//!
//! FLUSH comes once per close(2), so a dup'ed descriptor brings several; only one that finds dirty
//! bytes publishes. A handle that cannot write never publishes: its close says nothing about the
//! writer's bytes. What mmap dirties after the last FLUSH is published at RELEASE, which nobody
//! waits for on a stock kernel: a failure there makes the file stuck, and the next open says so.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ackfs_cache::dirty::WriteError;
use tracing::error;

use super::inode::{Inode, Told};
use super::{Context, Filesystem, error};
use crate::fuse::Responder;

/// How long the last close's retry waits before it tries again.
const RELEASE_RETRY_AFTER: Duration = Duration::from_secs(1);

impl Filesystem {
    pub(super) fn flush(&self, ino: u64, fh: u64, responder: Responder) {
        let Some(handle) = self.files.get(fh) else {
            return responder.error(libc::EBADF);
        };
        if !handle.writable {
            return responder.empty();
        }
        self.publish_for("flush", ino, &handle.inode, responder);
    }

    pub(super) fn fsync(&self, ino: u64, fh: u64, responder: Responder) {
        let Some(handle) = self.files.get(fh) else {
            return responder.error(libc::EBADF);
        };
        // Unlike close, fsync is about the file and not about the descriptor.
        self.publish_for("fsync", ino, &handle.inode, responder);
    }

    fn publish_for(&self, op: &'static str, ino: u64, inode: &Arc<Inode>, responder: Responder) {
        let dirty = {
            let state = inode.state.lock();
            state.dirty.as_ref().is_some_and(|dirty| dirty.is_dirty()) && !state.unlinked
        };
        if !dirty {
            return responder.empty();
        }
        let _ = ino;
        let context = Context::of(op, inode);
        let (this, inode) = (self.this(), inode.clone());
        let work = async move {
            let result = this.publish_once(&inode).await;
            inode.state.lock().told = result.as_ref().err().map(|failed| {
                if error::worth_retrying(failed) {
                    Told::Passing
                } else {
                    Told::Final
                }
            });
            Ok(result?)
        };
        self.spawn(context, responder, work, |responder, ()| responder.empty());
    }

    pub(super) fn release(&self, ino: u64, fh: u64, responder: Responder) {
        let Some(handle) = self.files.remove(fh) else {
            return responder.error(libc::EBADF);
        };
        let inode = handle.inode.clone();
        let last_writer = {
            let mut state = inode.state.lock();
            state.handles -= 1;
            state.writers -= u32::from(handle.writable);
            if state.handles == 0 {
                state.backing = None;
            }
            handle.writable && state.writers == 0
        };
        drop(handle);
        let dirty = inode.state.lock().dirty.clone();
        match dirty {
            Some(dirty) if last_writer && dirty.is_dirty() => {
                let this = self.this();
                let context = Context::of("release", &inode);
                let task = async move {
                    this.publish_after_last_close(&inode).await;
                    Ok(())
                };
                let tracked = self.releases.token();
                let task = async move {
                    let result = task.await;
                    drop(tracked);
                    result
                };
                self.spawn(context, responder, task, |responder, ()| responder.empty());
            }
            _ => {
                if last_writer {
                    self.settle(&inode);
                }
                self.inodes.collect(&inode);
                let _ = ino;
                responder.empty();
            }
        }
    }

    /// The last writer is gone and nothing is dirty: the file is the store's again.
    pub(super) fn settle(&self, inode: &Arc<Inode>) {
        {
            let mut state = inode.state.lock();
            let clean = state.dirty.as_ref().is_some_and(|dirty| !dirty.is_dirty());
            if state.writers > 0 || !(clean || state.unlinked) {
                return;
            }
            if let Some(dirty) = state.dirty.take() {
                state.attr.size = dirty.size();
            }
        }
        self.inodes.settled(inode);
        self.inodes.collect(inode);
    }

    /// RELEASE of the last writer found dirty bytes: published here, tried twice if that may help,
    /// then given up.
    pub(super) async fn publish_after_last_close(&self, inode: &Arc<Inode>) {
        let told = inode.state.lock().told;
        if told == Some(Told::Final) {
            // The closer knows, and trying again would fail again.
            return self.give_up(inode, None).await;
        }
        let mut result = self.publish_once(inode).await;
        if result.as_ref().is_err_and(error::worth_retrying) {
            tokio::time::sleep(RELEASE_RETRY_AFTER).await;
            result = self.publish_once(inode).await;
        }
        match result {
            Ok(()) => self.settle(inode),
            // Somebody opened it again: their close tries again.
            Err(_) if inode.state.lock().writers > 0 => {}
            Err(failed) => self.give_up(inode, Some(failed)).await,
        }
    }

    /// The bytes cannot be kept any longer.
    pub(super) async fn give_up(&self, inode: &Arc<Inode>, failed: Option<WriteError>) {
        let (dirty, told, key, stuck) = {
            let mut state = inode.state.lock();
            (
                state.dirty.take(),
                state.told,
                state.key.clone(),
                state.stuck.clone(),
            )
        };
        if let Some(dirty) = dirty {
            if let Some(cause) = failed.as_ref().map(|failed| error::chain(failed)).or(stuck) {
                let size = dirty.size();
                error!(key, size, cause, "lost: written, and not in the store");
                self.counters.lost_files.fetch_add(1, Ordering::Relaxed);
            }
            dirty.discard().await;
        }
        let gone = {
            let mut state = inode.state.lock();
            state.kernel_pages = None;
            state.metadata = None;
            state.told = None;
            match &failed {
                Some(failed) if told.is_none() => state.stuck = Some(error::chain(failed)),
                _ => state.stuck = None,
            }
            state.version.is_none()
        };
        self.inodes.settled(inode);
        if gone {
            self.inodes.detach(inode);
        }
        self.inodes.collect(inode);
    }
}
