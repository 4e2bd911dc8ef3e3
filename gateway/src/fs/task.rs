//! How a verb answers later: in a task, with what its log line says.

use std::sync::Arc;

use super::Filesystem;
use super::error::{FsError, FsResult};
use super::table::inode::Inode;
use crate::fuse::Responder;

/// What a failed answer's log line says beside the error.
#[derive(Debug, Clone)]
pub(super) struct Context {
    pub(super) op: &'static str,
    pub(super) ino: u64,
    pub(super) key: Arc<str>,
}

impl Context {
    pub(super) fn new(op: &'static str, ino: u64) -> Self {
        Self {
            op,
            ino,
            key: Arc::from(""),
        }
    }

    /// With the key, which costs a copy: for what leaves the ring thread anyway.
    pub(super) fn of(op: &'static str, inode: &Inode) -> Self {
        Self {
            op,
            ino: inode.ino(),
            key: inode.key(),
        }
    }

    /// Of a name in a directory.
    pub(super) fn below(op: &'static str, dir: &Inode, name: &str) -> Self {
        Self {
            op,
            ino: dir.ino(),
            key: format!("{}{name}", dir.key()).into(),
        }
    }

    pub(super) fn finish<T>(
        &self,
        responder: Responder,
        result: FsResult<T>,
        answer: impl FnOnce(Responder, T),
    ) {
        match result {
            Ok(value) => answer(responder, value),
            Err(error) => self.fail(responder, &error),
        }
    }

    pub(super) fn fail(&self, responder: Responder, error: &FsError) {
        error.log(self.op, self.ino, &self.key);
        error.answer(responder);
    }
}

impl Filesystem {
    /// What a task takes along. The handler lives as long as the connection, and a task belongs to
    /// a request of it.
    pub(super) fn this(&self) -> Arc<Self> {
        self.this
            .upgrade()
            .expect("a filesystem that serves is alive")
    }

    /// Runs `work` in a task.
    pub(super) fn run(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.worked.notify_one();
        self.runtime.spawn(work);
    }

    /// Runs `work` in a task and answers with what it gives; INTERRUPT ends it with `Interrupted`.
    pub(super) fn spawn_interruptible<T, F>(
        &self,
        context: Context,
        responder: Responder,
        work: F,
        answer: impl FnOnce(Responder, T) + Send + 'static,
    ) where
        T: Send + 'static,
        F: Future<Output = FsResult<T>> + Send + 'static,
    {
        let mut interrupt = responder.interrupt();
        self.run(async move {
            let result = tokio::select! {
                result = work => result,
                () = interrupt.interrupted() => Err(FsError::Interrupted),
            };
            context.finish(responder, result, answer);
        });
    }

    /// Runs `work` in a task to its end, whoever gives up waiting.
    pub(super) fn spawn<T, F>(
        &self,
        context: Context,
        responder: Responder,
        work: F,
        answer: impl FnOnce(Responder, T) + Send + 'static,
    ) where
        T: Send + 'static,
        F: Future<Output = FsResult<T>> + Send + 'static,
    {
        self.run(async move {
            let result = work.await;
            context.finish(responder, result, answer);
        });
    }
}
