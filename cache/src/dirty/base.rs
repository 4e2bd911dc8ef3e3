//! Reads bytes of a file's base one after the other: from the read cache as far as it has them, then
//! from the store, by one ranged GET with `If-Match`. What is read is not put into the read cache: the
//! version is about to be replaced.

use bytes::Bytes;

use super::{WriteError, Writer};
use crate::extent::Extent;
use crate::memory::BLOCK;
use crate::object::ObjectId;
use crate::store::{Body, Priority, StoreError, StoreErrorKind};

/// See the module.
pub(crate) struct BaseReader<'a> {
    writer: &'a Writer,
    id: &'a ObjectId,
    /// What is still to be read.
    rest: Extent,
    priority: Priority,
    /// Once the read cache had no more.
    body: Option<Box<dyn Body>>,
}

impl<'a> BaseReader<'a> {
    /// Reads `extent` of `id`.
    pub(crate) fn new(
        writer: &'a Writer,
        id: &'a ObjectId,
        extent: Extent,
        priority: Priority,
    ) -> Self {
        Self {
            writer,
            id,
            rest: extent,
            priority,
            body: None,
        }
    }

    /// The next bytes; `None` after the last one. Waits for the disk and the store.
    ///
    /// # Errors
    /// The store's: `Changed` or `NotFound` if the version is gone; `Broken` if it sends another number
    /// of bytes than was asked for.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, WriteError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        if self.body.is_none() {
            let at = self.rest.offset;
            let block = Extent::between(at, self.rest.end().min((at / BLOCK + 1) * BLOCK));
            if let Some(bytes) = self.writer.reader.peek(self.id, block).await {
                self.rest = Extent::between(block.end(), self.rest.end());
                return Ok(Some(bytes.into()));
            }
            let fetched = self
                .writer
                .store
                .get(self.id, self.rest, self.priority)
                .await?;
            self.body = Some(fetched.body);
        }
        let Some(body) = &mut self.body else {
            return Ok(None);
        };
        let Some(bytes) = body.chunk().await? else {
            return Err(broken("the store sent less than was asked for"));
        };
        if bytes.len() as u64 > self.rest.len {
            return Err(broken("the store sent more than was asked for"));
        }
        self.rest = Extent::between(self.rest.offset + bytes.len() as u64, self.rest.end());
        Ok(Some(bytes))
    }
}

fn broken(message: &str) -> WriteError {
    WriteError::Store(StoreError::new(StoreErrorKind::Broken, message))
}
