//! Buffers of the largest size, used again. A sequential writer goes through one of them for each
//! mebibyte; memory fresh from the kernel costs a page fault and the zeroing of every page, which is
//! as much as the copy that the writer came for.
//!
//! A buffer comes back when its last slice is dropped, by whoever sent or staged it. A few are
//! kept, and none when no file is open for writing.

use std::sync::{Arc, Weak};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use crate::disk::direct::aligned_buffer;

/// Memory is counted in these; a smaller buffer costs one.
pub(crate) const PAGE: u64 = 4096;

/// How many idle buffers are kept: those of a part of the default size, which come back at once, and
/// some.
const IDLE_MAX: usize = 10;

/// See the module.
#[derive(Debug)]
pub(crate) struct WriteBufferPool {
    /// The size of these buffers, and of the largest one that a file may have, in bytes.
    pub(crate) buffer_max: u64,
    idle: Mutex<Vec<BytesMut>>,
}

/// A full buffer on loan.
struct Loan {
    bytes: BytesMut,
    pool: Weak<WriteBufferPool>,
}

impl AsRef<[u8]> for Loan {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let Some(pool) = self.pool.upgrade() else {
            return;
        };
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let mut idle = pool.idle.lock();
        if idle.len() < IDLE_MAX {
            idle.push(bytes);
        }
    }
}

impl WriteBufferPool {
    /// Of buffers of `buffer_max` bytes.
    pub(crate) fn new(buffer_max: u64) -> Arc<Self> {
        Arc::new(Self {
            buffer_max,
            idle: Mutex::default(),
        })
    }

    /// An empty buffer that can grow to `capacity` bytes.
    pub(crate) fn take(&self, capacity: u64) -> BytesMut {
        let used = (capacity == self.buffer_max)
            .then(|| self.idle.lock().pop())
            .flatten();
        let fresh = || {
            if capacity == self.buffer_max {
                aligned_buffer(capacity as usize)
            } else {
                BytesMut::with_capacity(capacity as usize)
            }
        };
        used.unwrap_or_else(fresh)
    }

    /// Ends the writing of `bytes`, which come back here if they fill a buffer of the largest size.
    pub(crate) fn freeze(self: &Arc<Self>, bytes: BytesMut) -> Bytes {
        let full = bytes.len() == bytes.capacity();
        if full && bytes.capacity() as u64 == self.buffer_max {
            Bytes::from_owner(Loan {
                bytes,
                pool: Arc::downgrade(self),
            })
        } else {
            bytes.freeze()
        }
    }

    /// Gives idle buffers back to the system.
    pub(crate) fn clear(&self) {
        let idle = std::mem::take(&mut *self.idle.lock());
        drop(idle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_buffer_comes_back_with_its_last_slice_and_a_partial_one_does_not() {
        let pool = WriteBufferPool::new(4096);
        let mut bytes = pool.take(4096);
        bytes.extend_from_slice(&[1; 4096]);
        let at = bytes.as_ptr();
        let frozen = pool.freeze(bytes);
        let slice = frozen.slice(10..20);
        drop(frozen);
        assert_eq!(pool.idle.lock().len(), 0);
        assert_eq!(slice, [1; 10][..]);
        drop(slice);
        let again = pool.take(4096);
        assert_eq!(
            (again.as_ptr(), again.len(), again.capacity()),
            (at, 0, 4096)
        );
        drop(pool.freeze(again));
        assert_eq!(pool.idle.lock().len(), 0);
    }
}
