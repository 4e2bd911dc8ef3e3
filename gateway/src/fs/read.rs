//! Reading. A hit is copied into the kernel's slot on the ring thread; a miss takes the request
//! along and is answered as its bytes arrive, straight into the slot.

use std::sync::Arc;

use super::error::{FsError, FsResult};
use super::handle::Source;
use super::{Context, Filesystem};
use crate::fuse::Responder;

impl Filesystem {
    pub(super) fn read(&self, ino: u64, fh: u64, offset: u64, size: u32, mut responder: Responder) {
        let Some(handle) = self.files.get(fh) else {
            return responder.error(libc::EBADF);
        };
        let Some(source) = handle.source(&self.reader) else {
            return responder.error(libc::ESTALE);
        };
        let len = size as usize;
        let here = match &source {
            Source::Dirty(dirty) => dirty.read_now(offset, responder.buffer(len)),
            Source::Clean(stream) => stream.read_now(offset, responder.buffer(len)),
        };
        if let Some(len) = here {
            return responder.filled(len);
        }
        let context = Context {
            op: "read",
            ino,
            key: handle.inode.state.lock().key.clone(),
        };
        let mut interrupt = responder.interrupt();
        self.runtime.spawn(async move {
            let result = {
                let buf = responder.buffer(len);
                tokio::select! {
                    result = read_from(&source, offset, buf) => result,
                    () = interrupt.interrupted() => Err(FsError::plain(libc::EINTR)),
                }
            };
            drop(handle);
            context.finish(responder, result, Responder::filled);
        });
    }
}

async fn read_from(source: &Source, offset: u64, buf: &mut [u8]) -> FsResult<usize> {
    Ok(match source {
        Source::Dirty(dirty) => dirty.read(offset, buf).await?,
        Source::Clean(stream) => Arc::clone(stream).read(offset, buf).await?,
    })
}
