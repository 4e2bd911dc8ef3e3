//! Buffers of the device door: requests are read into them, large answers are built in them.
//!
//! A request buffer must take the largest WRITE whole, or the kernel refuses the read, so all of
//! them have that size; memory that was never written takes no room. A few are kept for reuse.
//! What is out is bounded softly: a reader waits for room before it takes the next request, for
//! [`WAIT_MAX`] at most, because INTERRUPT may be the message that frees the memory it waits for.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// The longest that a reader waits for others to give buffers back.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// How many buffers are kept while nobody uses them.
const IDLE_MAX: usize = 8;

/// Answers up to this many bytes get memory of their own size.
const SMALL: usize = 64 << 10;

/// Room for a request's header and fixed struct beside its data: one page, as libfuse has it.
const HEADROOM: usize = 4096;

#[derive(Debug)]
pub(crate) struct BufferPool {
    payload: usize,
    out_max: usize,
    /// A leaf in the lock order.
    free: Mutex<FreeList>,
    returned: Condvar,
}

#[derive(Debug, Default)]
struct FreeList {
    idle: Vec<Box<[u8]>>,
    /// How many buffers are with requests.
    out: usize,
}

impl BufferPool {
    /// Buffers for payloads of `payload` bytes; about `bytes_max` may be out at a time.
    pub(crate) fn new(payload: usize, bytes_max: u64) -> Arc<Self> {
        let out_max = usize::try_from(bytes_max).unwrap_or(usize::MAX) / payload.max(1);
        Arc::new(Self {
            payload,
            out_max: out_max.max(IDLE_MAX),
            free: Mutex::default(),
            returned: Condvar::new(),
        })
    }

    /// The largest payload.
    pub(crate) fn payload(&self) -> usize {
        self.payload
    }

    /// A buffer that takes any message. Never waits.
    pub(crate) fn take(self: &Arc<Self>) -> PoolBuffer {
        let idle = {
            let mut free = self.free.lock();
            free.out += 1;
            free.idle.pop()
        };
        PoolBuffer {
            bytes: idle.unwrap_or_else(|| vec![0; self.payload + HEADROOM].into_boxed_slice()),
            pool: Some(Arc::clone(self)),
        }
    }

    /// Room for an answer of `len` bytes. Never waits.
    pub(crate) fn take_room(self: &Arc<Self>, len: usize) -> PoolBuffer {
        if len > SMALL {
            return self.take();
        }
        PoolBuffer {
            bytes: vec![0; len].into_boxed_slice(),
            pool: None,
        }
    }

    /// Waits until fewer buffers are out than may be, a bounded time.
    pub(crate) fn wait_for_room(&self) {
        let mut free = self.free.lock();
        if free.out >= self.out_max {
            self.returned.wait_for(&mut free, WAIT_MAX);
        }
    }

    fn give_back(&self, bytes: Box<[u8]>) {
        let spare = {
            let mut free = self.free.lock();
            free.out -= 1;
            if free.idle.len() < IDLE_MAX {
                free.idle.push(bytes);
                None
            } else {
                Some(bytes)
            }
        };
        self.returned.notify_one();
        drop(spare);
    }
}

/// Memory from a [`BufferPool`], given back when dropped.
#[derive(Debug)]
pub(crate) struct PoolBuffer {
    bytes: Box<[u8]>,
    pool: Option<Arc<BufferPool>>,
}

impl PoolBuffer {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
}

impl AsRef<[u8]> for PoolBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsMut<[u8]> for PoolBuffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for PoolBuffer {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.give_back(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_reused_and_few_are_kept() {
        let pool = BufferPool::new(8192, 0);
        let many: Vec<_> = (0..3 * IDLE_MAX).map(|_| pool.take()).collect();
        assert_eq!(pool.free.lock().out, 3 * IDLE_MAX);
        pool.wait_for_room();
        drop(many);
        assert_eq!(pool.free.lock().idle.len(), IDLE_MAX);
        assert_eq!(pool.free.lock().out, 0);
        let again = pool.take();
        assert_eq!(again.len(), 8192 + HEADROOM);
        assert_eq!(pool.free.lock().idle.len(), IDLE_MAX - 1);
    }

    #[test]
    fn small_answers_take_nothing_from_the_pool() {
        let pool = BufferPool::new(1 << 20, 0);
        let room = pool.take_room(4096);
        assert_eq!(room.len(), 4096);
        assert_eq!(pool.free.lock().out, 0);
    }
}
