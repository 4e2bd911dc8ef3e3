//! A buffer of written bytes and where it is: in memory, or in the staging file.
//!
//! A buffer begins *open*: it belongs to the file alone, grows at its end and is overwritten in
//! place, so that small appends and rewrites cost no extents. Whoever wants to share its bytes (a
//! publish, a part on its way, the spill) freezes it first; from then on its bytes never change and
//! a write to the same place makes a new buffer. That is all the copy-on-write there is.
//!
//! A file's extents are [`BufferPiece`]s of buffers. Spilling moves a buffer, not its pieces: extents,
//! sealed versions and readers find it where it is. The last piece that goes frees the memory or
//! the staged bytes.
//!
//! Lock order: a file's state, then a buffer's place. A buffer is opened, frozen and moved only under
//! its file's state.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::pool::WriteBufferPool;
use super::stage::Staged;
use crate::budget::Grant;
use crate::extent::Slice;
use crate::object::ObjectId;

/// Memory that some buffers of one file pay for together. Goes back with the last of them.
#[derive(Debug)]
pub(crate) struct PaidMemory {
    _grant: Grant,
    bytes: u64,
    meter: Arc<MemoryMeter>,
}

/// What one file holds in memory.
#[derive(Debug, Default)]
pub(crate) struct MemoryMeter {
    bytes: AtomicU64,
    /// Some of it was given up.
    pub(crate) freed: Notify,
}

impl MemoryMeter {
    /// How many bytes are paid for.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl PaidMemory {
    /// Notes `grant` of `bytes` on the file's `meter`.
    pub(crate) fn new(grant: Grant, bytes: u64, meter: Arc<MemoryMeter>) -> Arc<Self> {
        meter.bytes.fetch_add(bytes, Ordering::Relaxed);
        Arc::new(Self {
            _grant: grant,
            bytes,
            meter,
        })
    }

    /// How many bytes were paid for.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for PaidMemory {
    fn drop(&mut self) {
        self.meter.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.meter.freed.notify_waiters();
    }
}

#[derive(Debug)]
enum BufferPlace {
    /// Ours alone: grows and is overwritten.
    Open {
        bytes: BytesMut,
        paid: Arc<PaidMemory>,
    },
    /// Shared: never changes. `spare` is the unused end of the same memory.
    Frozen {
        bytes: Bytes,
        spare: Option<BytesMut>,
        paid: Arc<PaidMemory>,
    },
    /// In the staging file.
    Staged(Arc<Staged>),
    /// In parts that the store has of an upload under way, and nowhere else.
    Sent,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct WriteBuffer {
    /// What was allocated, in bytes: how far it can grow.
    capacity: u64,
    /// Where its memory goes when it is full and then done with.
    pool: Arc<WriteBufferPool>,
    place: Mutex<BufferPlace>,
}

/// Where the bytes of an extent are, for sending.
#[derive(Debug, Clone)]
pub(crate) enum PieceBytes {
    /// In memory, kept there while this lives.
    Memory { bytes: Bytes, paid: Arc<PaidMemory> },
    /// `skip` bytes into something staged, which stays there while this lives.
    Staged { staged: Arc<Staged>, skip: u64 },
    /// At the same place in this version.
    Base(ObjectId),
    /// Nowhere: they are zeros.
    Zeros,
    /// In parts that the store has of an upload under way: they cannot be sent again.
    Sent,
}

/// Where bytes are that are not in memory.
#[derive(Debug)]
pub(crate) enum Elsewhere {
    /// In the staging file, `skip` bytes into it.
    Staged { staged: Arc<Staged>, skip: u64 },
    /// In the base, where the read begins them.
    Base,
    /// In parts of an upload under way, from where nobody can read them.
    Sent,
}

/// What comes of looking for room behind a buffer's last byte.
#[derive(Debug)]
pub(crate) enum TailRoom {
    /// The buffer itself grows by up to so many bytes.
    Grow(u64),
    /// A new buffer in the same memory, of so many bytes.
    Spare(u64),
    /// None.
    None,
}

impl WriteBuffer {
    /// An empty open buffer that can grow to `capacity` bytes.
    pub(crate) fn open(
        capacity: u64,
        paid: Arc<PaidMemory>,
        pool: &Arc<WriteBufferPool>,
    ) -> Arc<Self> {
        Self::over(pool.take(capacity), paid, pool.clone())
    }

    fn over(bytes: BytesMut, paid: Arc<PaidMemory>, pool: Arc<WriteBufferPool>) -> Arc<Self> {
        Arc::new(Self {
            capacity: bytes.capacity() as u64,
            pool,
            place: Mutex::new(BufferPlace::Open { bytes, paid }),
        })
    }

    /// How far it could grow when it was made, in bytes.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// How many bytes it has in memory; `None` if it has none there.
    pub(crate) fn memory_len(&self) -> Option<u64> {
        match &*self.place.lock() {
            BufferPlace::Open { bytes, .. } => Some(bytes.len() as u64),
            BufferPlace::Frozen { bytes, .. } => Some(bytes.len() as u64),
            BufferPlace::Staged(_) | BufferPlace::Sent => None,
        }
    }

    /// Whether it is open.
    pub(crate) fn is_open(&self) -> bool {
        matches!(&*self.place.lock(), BufferPlace::Open { .. })
    }

    /// What room there is behind the byte at `last`, if that is the buffer's last one.
    pub(crate) fn room_behind(&self, last: u64) -> TailRoom {
        match &*self.place.lock() {
            BufferPlace::Open { bytes, .. } if bytes.len() as u64 == last + 1 => {
                match self.capacity - bytes.len() as u64 {
                    0 => TailRoom::None,
                    room => TailRoom::Grow(room),
                }
            }
            BufferPlace::Frozen {
                bytes,
                spare: Some(spare),
                ..
            } if bytes.len() as u64 == last + 1 => TailRoom::Spare(spare.capacity() as u64),
            _ => TailRoom::None,
        }
    }

    /// The unused end of a frozen buffer as an open one. `None` if there is none.
    pub(crate) fn take_spare(&self) -> Option<Arc<Self>> {
        match &mut *self.place.lock() {
            BufferPlace::Frozen { spare, paid, .. } => {
                let spare = spare.take()?;
                Some(Self::over(spare, paid.clone(), self.pool.clone()))
            }
            _ => None,
        }
    }

    /// Appends `data`, which fits. Gives the new length.
    pub(crate) fn append(&self, data: &[u8]) -> u64 {
        match &mut *self.place.lock() {
            BufferPlace::Open { bytes, .. } => {
                debug_assert!(bytes.len() + data.len() <= bytes.capacity());
                bytes.extend_from_slice(data);
                bytes.len() as u64
            }
            _ => unreachable!("only an open buffer is appended to"),
        }
    }

    /// Overwrites what is `skip` bytes into an open buffer.
    pub(crate) fn overwrite(&self, skip: u64, data: &[u8]) {
        match &mut *self.place.lock() {
            BufferPlace::Open { bytes, .. } => {
                bytes[skip as usize..][..data.len()].copy_from_slice(data);
            }
            _ => unreachable!("only an open buffer is overwritten"),
        }
    }

    /// Cuts an open buffer to `len` bytes. A frozen one keeps its bytes; its extents are cut.
    pub(crate) fn cut(&self, len: u64) {
        if let BufferPlace::Open { bytes, .. } = &mut *self.place.lock() {
            bytes.truncate(len as usize);
        }
    }

    /// Ends growing and overwriting.
    pub(crate) fn freeze(&self) {
        let mut place = self.place.lock();
        if let BufferPlace::Open { bytes, paid } = &mut *place {
            let (filled, spare) = if bytes.len() == bytes.capacity() {
                (std::mem::take(bytes), BytesMut::new())
            } else {
                (bytes.split(), std::mem::take(bytes))
            };
            let frozen = self.pool.freeze(filled);
            *place = BufferPlace::Frozen {
                bytes: frozen,
                // Less is not worth a buffer of its own.
                spare: (spare.capacity() >= 64).then_some(spare),
                paid: paid.clone(),
            };
        }
    }

    /// Copies from `skip` on into `buf` if it is in memory; else gives where it is.
    pub(crate) fn copy_to(&self, skip: u64, buf: &mut [u8]) -> Option<Elsewhere> {
        let len = buf.len();
        match &*self.place.lock() {
            BufferPlace::Open { bytes, .. } => buf.copy_from_slice(&bytes[skip as usize..][..len]),
            BufferPlace::Frozen { bytes, .. } => {
                buf.copy_from_slice(&bytes[skip as usize..][..len]);
            }
            BufferPlace::Staged(staged) => {
                let staged = staged.clone();
                return Some(Elsewhere::Staged { staged, skip });
            }
            BufferPlace::Sent => return Some(Elsewhere::Sent),
        }
        None
    }

    /// `len` bytes from `skip` on. Freezes it.
    pub(crate) fn find(&self, skip: u64, len: u64) -> PieceBytes {
        self.freeze();
        match &*self.place.lock() {
            BufferPlace::Frozen { bytes, paid, .. } => PieceBytes::Memory {
                bytes: Slice::slice(bytes, skip, len),
                paid: paid.clone(),
            },
            BufferPlace::Staged(staged) => PieceBytes::Staged {
                staged: staged.clone(),
                skip,
            },
            BufferPlace::Sent => PieceBytes::Sent,
            BufferPlace::Open { .. } => unreachable!("it was frozen above"),
        }
    }

    /// All its bytes if they are in memory and not none. Freezes it.
    pub(crate) fn in_memory(&self) -> Option<Bytes> {
        self.freeze();
        match &*self.place.lock() {
            BufferPlace::Frozen { bytes, .. } if !bytes.is_empty() => Some(bytes.clone()),
            _ => None,
        }
    }

    /// Its bytes are in the staging file now; their memory is given up with what this gives.
    pub(crate) fn spilled(&self, staged: Arc<Staged>) -> impl Sized + use<> {
        std::mem::replace(&mut *self.place.lock(), BufferPlace::Staged(staged))
    }

    /// Its bytes are in parts that the store has; their memory is given up with what this gives.
    pub(crate) fn sent_away(&self) -> impl Sized + use<> {
        std::mem::replace(&mut *self.place.lock(), BufferPlace::Sent)
    }

    /// Whether its bytes are in parts that the store has, and nowhere else.
    pub(crate) fn is_sent_away(&self) -> bool {
        matches!(&*self.place.lock(), BufferPlace::Sent)
    }
}

/// Part of a buffer: what lies at an extent of a file.
#[derive(Debug, Clone)]
pub(crate) struct BufferPiece {
    /// Where the bytes are.
    pub(crate) buffer: Arc<WriteBuffer>,
    /// How far into it they begin.
    pub(crate) skip: u64,
    /// The number of the change that made it; 0 for bytes of the base.
    pub(crate) change: u64,
}

impl BufferPiece {
    /// All of `buffer`.
    pub(crate) fn new(buffer: Arc<WriteBuffer>, change: u64) -> Self {
        Self {
            buffer,
            skip: 0,
            change,
        }
    }
}

impl Slice for BufferPiece {
    fn slice(&self, skip: u64, _len: u64) -> Self {
        Self {
            buffer: self.buffer.clone(),
            skip: self.skip + skip,
            change: self.change,
        }
    }
}
