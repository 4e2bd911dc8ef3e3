//! Reading. A hit is copied into the kernel's slot on the ring thread; a miss takes the request
//! along and is answered as its bytes arrive, straight into the slot.

use std::sync::Arc;

use crate::fs::Filesystem;
use crate::fs::error::{FsError, FsResult};
use crate::fs::table::handles::{ByteSource, FileHandle};
use crate::fs::task::Context;
use crate::fuse::Responder;

impl Filesystem {
    pub(in crate::fs) fn read(&self, fh: u64, offset: u64, size: u32, mut responder: Responder) {
        let Some(handle) = self.files.get(fh) else {
            return FsError::BadHandle.answer(responder);
        };
        let Some(source) = handle.source(&self.reader) else {
            return FsError::NoContent.answer(responder);
        };
        let len = size as usize;
        let here = match &source {
            ByteSource::Dirty(dirty) => dirty.read_now(offset, responder.buffer(len)),
            ByteSource::Clean(stream) => stream.read_now(offset, responder.buffer(len)),
        };
        if let Some(len) = here {
            return responder.filled(len);
        }
        let context = Context::of("read", handle.inode());
        let mut interrupt = responder.interrupt();
        let this = self.this();
        self.run(async move {
            let result = {
                let buf = responder.buffer(len);
                tokio::select! {
                    result = this.read_waiting(&handle, source, offset, buf) => result,
                    () = interrupt.interrupted() => Err(FsError::Interrupted),
                }
            };
            drop(handle);
            context.finish(responder, result, Responder::filled);
        });
    }

    /// Reads from `source`. One that is not there any more may have been moved by us meanwhile: a
    /// rename, an unlink or a publish shows its outcome here only after it has happened at the
    /// store. So who finds it gone waits for what is under way, and looks again if it was moved.
    async fn read_waiting(
        &self,
        handle: &FileHandle,
        mut source: ByteSource,
        offset: u64,
        buf: &mut [u8],
    ) -> FsResult<usize> {
        loop {
            let object = source.object();
            let gone = match read_from(&source, offset, buf).await {
                Err(gone @ FsError::VersionGone(_)) => gone,
                result => return result,
            };
            drop(handle.inode().publishing().lock().await);
            match handle.source(&self.reader) {
                Some(now) if !now.is(&source) || now.object() != object => source = now,
                _ => {
                    self.note_missed(handle.inode());
                    return Err(gone);
                }
            }
        }
    }
}

async fn read_from(source: &ByteSource, offset: u64, buf: &mut [u8]) -> FsResult<usize> {
    Ok(match source {
        ByteSource::Dirty(dirty) => dirty.read(offset, buf).await?,
        ByteSource::Clean(stream) => Arc::clone(stream).read(offset, buf).await?,
    })
}
