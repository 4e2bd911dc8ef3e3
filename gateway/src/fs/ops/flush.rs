//! Closing, and the promise: what the kernel says of a file's end, and what is answered when the store
//! has the bytes. A handle that only reads never publishes: its close says nothing about the writer's
//! bytes. One whose open made or cut the file publishes though it cannot write: a program may touch a
//! file by `open(path, O_RDONLY | O_CREAT)`. fsync publishes always.
//!
//! FLUSH comes once per close(2), so a dup'ed or inherited descriptor brings several, and each is
//! waited for and gets its error. RELEASE comes once, when the last reference is gone; its error goes
//! to nobody. What follows from that depends on the kernel ([`CloseMode`]):
//!
//! ```text
//!                      Flush (stock kernels)             Release (kernel/patches)
//! FLUSH                publishes what is dirty           sends full parts early, answers 0
//! FLUSH, the last      (is not told apart)               publishes what is dirty
//! RELEASE              publishes what mmap dirtied       publishes what came since, or what a mapping
//!                      since; nobody waits               or request kept from being a last FLUSH;
//!                                                        the closer waits
//! ```
//!
//! A publish that failed at RELEASE makes the file stuck, and the next open says so.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::publish::PublishWaiter;
use crate::fs::Filesystem;
use crate::fs::error::FsError;
use crate::fs::table::handles::{FileHandle, LastFlush};
use crate::fs::table::inode::Inode;
use crate::fs::table::inode::state::written::Severity;
use crate::fs::task::Context;
use crate::fuse::Responder;
use crate::fuse::abi::FOPEN_SYNC_RELEASE;

/// How long the last close's retry waits before it tries again.
const RELEASE_RETRY_AFTER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;

/// Which of the kernel's words are relied on: what close(2) and its kin mean on this mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CloseMode {
    /// Each close that finds dirty bytes publishes. Of what mmap dirties later nobody hears.
    #[default]
    Flush,
    /// The last close publishes, once. Whoever gives up the last reference, by munmap(2) or exit too,
    /// waits for it.
    Release,
}

impl CloseMode {
    /// `flush` or `release`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Flush => "flush",
            Self::Release => "release",
        }
    }

    /// The FOPEN_* flags of a file that is opened.
    ///
    /// Only handles that publish have their RELEASE waited for. A reader's RELEASE has nothing to
    /// tell: what it would order (an unlink or open right after the close) is ordered by the inode's
    /// state here, and its close would cost a round trip for nothing.
    pub(in crate::fs) fn open_flags(self, publishes: bool) -> u32 {
        match self {
            Self::Release if publishes => FOPEN_SYNC_RELEASE,
            Self::Release | Self::Flush => 0,
        }
    }

    /// What a FLUSH of a handle that publishes is to do. `last` as the kernel says.
    fn at_flush(self, last: bool) -> AtFlush {
        match self {
            Self::Release if !last => AtFlush::SendEarly,
            Self::Release | Self::Flush => AtFlush::Publish,
        }
    }

    /// What a RELEASE is to do.
    fn at_release(self, it: ReleaseFacts) -> AtRelease {
        if !it.publishes || !it.dirty {
            return AtRelease::Answer;
        }
        match (self, it.last_flush) {
            // Another writer's close will publish it.
            (Self::Flush, _) if !it.last_writer => AtRelease::Answer,
            (Self::Flush, _) => AtRelease::Publish,
            (Self::Release, None) => AtRelease::Publish,
            // Nothing came through this handle since its last FLUSH: what is dirty is another writer's,
            // whose close will publish it, or is what failed then.
            (Self::Release, Some(_)) if !it.last_writer => AtRelease::Answer,
            (Self::Release, Some(LastFlush::Published)) => AtRelease::Publish,
            (Self::Release, Some(LastFlush::Failed)) => AtRelease::Retry,
        }
    }
}

/// What a FLUSH is to do.
#[derive(Debug, PartialEq, Eq)]
enum AtFlush {
    /// More may come: send what will not change, and answer.
    SendEarly,
    /// Publish, then answer.
    Publish,
}

/// What is known at a RELEASE.
#[derive(Debug, Clone, Copy)]
struct ReleaseFacts {
    /// The handle's closes publish.
    publishes: bool,
    /// No handle that publishes is left.
    last_writer: bool,
    /// There is something to publish.
    dirty: bool,
    /// How the handle's last FLUSH was answered, if the kernel said which one it was.
    last_flush: Option<LastFlush>,
}

/// What a RELEASE is to do.
#[derive(Debug, PartialEq, Eq)]
enum AtRelease {
    /// Answer: there is nothing that this close should publish.
    Answer,
    /// Publish, then answer: the closer waits, where the kernel lets it.
    Publish,
    /// Answer, then try again what the closer was told has failed. Its close(2) gives that error
    /// whatever comes of it, so it need not wait for a store that is in trouble a second time.
    Retry,
}

impl Filesystem {
    pub(in crate::fs) fn flush(&self, fh: u64, last: bool, responder: Responder) {
        let Some(handle) = self.files.get(fh) else {
            return FsError::BadHandle.answer(responder);
        };
        if !handle.is_used() {
            handle.used(&mut handle.inode().state());
        }
        if !handle.publishes() {
            return responder.empty();
        }
        match self.close_mode().at_flush(last) {
            AtFlush::Publish => {
                let inode = handle.inode().clone();
                self.publish_for("flush", &inode, last.then_some(handle), responder);
            }
            AtFlush::SendEarly => {
                if let Some(dirty) = handle.inode().state().written().dirty() {
                    dirty.pause();
                }
                responder.empty();
            }
        }
    }

    pub(in crate::fs) fn fsync(&self, fh: u64, responder: Responder) {
        let Some(handle) = self.files.get(fh) else {
            return FsError::BadHandle.answer(responder);
        };
        // Unlike close, fsync is about the file and not about the descriptor.
        self.publish_for("fsync", handle.inode(), None, responder);
    }

    /// Publishes what is dirty and answers. `last` is the handle whose last FLUSH this is: it keeps the
    /// outcome for its RELEASE.
    fn publish_for(
        &self,
        op: &'static str,
        inode: &Arc<Inode>,
        last: Option<Arc<FileHandle>>,
        responder: Responder,
    ) {
        if !inode.state().is_dirty() {
            if let Some(handle) = last {
                handle.flushed_last(LastFlush::Published);
            }
            return responder.empty();
        }
        let context = Context::of(op, inode);
        let (this, inode) = (self.this(), inode.clone());
        let work = async move {
            let result = this.publish(&inode, PublishWaiter::Closer).await;
            if let Some(handle) = last {
                handle.flushed_last(match result {
                    Ok(()) => LastFlush::Published,
                    Err(_) => LastFlush::Failed,
                });
            }
            result
        };
        self.spawn(context, responder, work, |responder, ()| responder.empty());
    }

    pub(in crate::fs) fn release(&self, fh: u64, responder: Responder) {
        let Some(handle) = self.files.get(fh) else {
            return FsError::BadHandle.answer(responder);
        };
        let inode = handle.inode().clone();
        let (last_writer, backing, dirty) = {
            let mut state = inode.state();
            // Under this lock, as it was put in: a handle that is not in the table is no writer.
            self.files.remove(fh);
            handle.used(&mut state);
            let (last_writer, backing) = state.close_handle(handle.publishes());
            (last_writer, backing, state.is_dirty())
        };
        drop(backing);
        let mode = self.close_mode();
        let what = mode.at_release(ReleaseFacts {
            publishes: handle.publishes(),
            last_writer,
            dirty,
            last_flush: handle.last_flush(),
        });
        drop(handle);
        // Before any answer: a drain that begins after it waits for what is begun here.
        let tracked = self.releases.token();
        let responder = match what {
            AtRelease::Answer => {
                self.finish_writing(&inode);
                return responder.empty();
            }
            AtRelease::Publish => {
                self.counters.release_publishes.fetch_add(1, Relaxed);
                if mode == CloseMode::Release {
                    // Whatever an fsync was told of earlier, this closer was not.
                    inode.state().forget_told();
                }
                Some(responder)
            }
            AtRelease::Retry => {
                responder.empty();
                None
            }
        };
        let this = self.this();
        self.run(async move {
            this.publish_released(&inode).await;
            drop(tracked);
            if let Some(responder) = responder {
                responder.empty();
            }
        });
    }

    /// RELEASE of a writer found dirty bytes: published here, tried twice if that may help, then given
    /// up unless another writer is left, whose close tries again.
    async fn publish_released(&self, inode: &Arc<Inode>) {
        let (told, has_writers) = {
            let state = inode.state();
            (state.written().told(), state.written().has_writers())
        };
        if told == Some(Severity::Final) && !has_writers {
            // The closer knows, and trying again would fail again.
            return self.give_up(inode, None).await;
        }
        let mut result = self.publish(inode, PublishWaiter::Other).await;
        if result.as_ref().is_err_and(FsError::worth_retrying) {
            tokio::time::sleep(RELEASE_RETRY_AFTER).await;
            result = self.publish(inode, PublishWaiter::Other).await;
        }
        match result {
            Ok(()) => self.finish_writing(inode),
            // Somebody has it open, or opened it again: their close tries again.
            Err(_) if inode.state().written().has_writers() => {}
            Err(failed) => self.give_up(inode, Some(failed)).await,
        }
    }
}
