//! `/dev/fuse` as the way back to the kernel: one writev(2) is one answer.
//!
//! An answer must go back through the descriptor its request came from (`fuse_dev_do_write` looks
//! only through that one's list), so an [`Exchange`] holds its [`Device`]. Requests are read by
//! `doors/reader.rs`.

mod pool;

use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::uio::writev;
use tracing::{debug, warn};
use zerocopy::IntoBytes;

pub(crate) use self::pool::{BufferPool, PoolBuffer};
use super::abi::OutHeader;
use super::context::ConnectionContext;
use super::stats::Counts;

/// One descriptor of the connection.
#[derive(Debug)]
pub(crate) struct Device {
    fd: OwnedFd,
    context: Arc<ConnectionContext>,
    pool: Arc<BufferPool>,
    counts: Counts,
}

impl Device {
    pub(crate) fn new(
        fd: OwnedFd,
        context: Arc<ConnectionContext>,
        pool: Arc<BufferPool>,
    ) -> Arc<Self> {
        Arc::new(Self {
            fd,
            context,
            pool,
            counts: Counts::default(),
        })
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    pub(crate) fn context(&self) -> &ConnectionContext {
        &self.context
    }

    pub(crate) fn pool(&self) -> &Arc<BufferPool> {
        &self.pool
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Sends an answer. Never waits: the kernel copies it and wakes the caller.
    pub(crate) fn write(&self, unique: u64, errno: i32, bytes: &[u8]) {
        let header = OutHeader {
            len: (size_of::<OutHeader>() + bytes.len()) as u32,
            error: -errno,
            unique,
        };
        let pieces = [IoSlice::new(header.as_bytes()), IoSlice::new(bytes)];
        let pieces = if bytes.is_empty() {
            &pieces[..1]
        } else {
            &pieces[..]
        };
        loop {
            match writev(&self.fd, pieces) {
                Err(Errno::EINTR) => {}
                // ENOENT: the caller was killed or the connection is gone, nobody waits.
                Ok(_) | Err(Errno::ENOENT | Errno::ENODEV | Errno::ECONNABORTED) => return,
                Err(cause) => {
                    warn!(unique, errno, len = bytes.len(), %cause, "answer not taken");
                    return;
                }
            }
        }
    }
}

/// A request that came through the device, until it is answered.
#[derive(Debug)]
pub(crate) struct Exchange {
    device: Arc<Device>,
    /// The request's own bytes (WRITE), or room for the answer.
    buffer: Option<PoolBuffer>,
    data: std::ops::Range<usize>,
    /// Length of the room; 0 while `buffer` holds the request.
    room: usize,
}

impl Exchange {
    pub(crate) fn new(
        device: &Arc<Device>,
        buffer: Option<PoolBuffer>,
        data: std::ops::Range<usize>,
    ) -> Self {
        Self {
            device: Arc::clone(device),
            buffer,
            data,
            room: 0,
        }
    }

    pub(crate) fn context(&self) -> &ConnectionContext {
        &self.device.context
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.device.counts
    }

    pub(crate) fn data(&self) -> &[u8] {
        self.buffer
            .as_ref()
            .and_then(|buffer| buffer.as_ref().get(self.data.clone()))
            .unwrap_or_default()
    }

    pub(crate) fn buffer(&mut self, len: usize) -> &mut [u8] {
        let len = len.min(self.device.pool.payload());
        let fits = self.buffer.as_ref().is_some_and(|own| own.len() >= len);
        if !fits {
            self.buffer = Some(self.device.pool.take_room(len));
        }
        self.data = 0..0;
        self.room = self.room.max(len);
        let buffer = self.buffer.as_mut().expect("made above");
        &mut buffer.as_mut()[..len]
    }

    pub(crate) fn send(self, unique: u64, bytes: &[u8]) {
        self.device.write(unique, 0, bytes);
    }

    pub(crate) fn send_filled(self, unique: u64, len: usize) {
        let filled = self
            .buffer
            .as_ref()
            .map(|buffer| &buffer.as_ref()[..len.min(self.room)])
            .unwrap_or_default();
        if filled.len() < len {
            debug!(len, room = self.room, "answer cut to the room it had");
        }
        self.device.write(unique, 0, filled);
    }

    pub(crate) fn send_error(self, unique: u64, errno: i32) {
        self.device.write(unique, errno, &[]);
    }
}
