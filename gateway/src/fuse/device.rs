//! The `/dev/fuse` door: one read(2) is one request, one writev(2) its answer.
//!
//! It always runs. With the ring off it carries everything, on several threads with a cloned
//! descriptor each; with the ring on it carries what the kernel sends nowhere else (FORGET,
//! BATCH_FORGET, INTERRUPT), and every opcode before the ring is ready and after a REGISTER that
//! the kernel refused. It cannot tell which of these it is in and does not need to.
//!
//! An answer must go back through the descriptor its request came from (`fuse_dev_do_write` looks
//! only through that one's list), so an [`Exchange`] holds its door. A thread ends when the kernel
//! says ENODEV: unmounted, or aborted.

mod pool;

use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::sys::uio::writev;
use nix::unistd::read;
use tracing::{debug, error, warn};
use zerocopy::{FromBytes, IntoBytes};

use super::Responder;
use super::abi::OutHeader;
use super::abi::opcode;
use super::abi::request::InHeader;
use super::connection::Connection;
use super::request::{Control, Request};
use super::stats::Counts;
pub(crate) use pool::{Buffer, Pool};

/// One descriptor of the connection, and what serves it.
#[derive(Debug)]
pub(crate) struct Door {
    fd: OwnedFd,
    connection: Arc<Connection>,
    pool: Arc<Pool>,
    counts: Counts,
    requests: AtomicU64,
}

impl Door {
    pub(crate) fn new(fd: OwnedFd, connection: Arc<Connection>, pool: Arc<Pool>) -> Arc<Self> {
        Arc::new(Self {
            fd,
            connection,
            pool,
            counts: Counts::default(),
            requests: AtomicU64::new(0),
        })
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Requests that came through this door.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Serves until the connection ends. Waits in read(2), and for memory when too many requests
    /// hold their buffers.
    pub(crate) fn run(self: &Arc<Self>) {
        let mut buffer = self.pool.take();
        loop {
            match read(&self.fd, buffer.as_mut()) {
                // Never said by `/dev/fuse`; of a socket in its place it is the end.
                Ok(0) => return,
                Ok(len) => {
                    if let Some(used) = self.serve(buffer, len) {
                        buffer = used;
                    } else {
                        self.pool.wait_for_room();
                        buffer = self.pool.take();
                    }
                }
                // ENOENT: the request was taken back while it was copied.
                Err(Errno::EINTR | Errno::EAGAIN | Errno::ENOENT) => {}
                Err(Errno::ENODEV | Errno::ECONNABORTED) => return,
                Err(errno) => {
                    error!(%errno, "reading /dev/fuse failed; this thread ends");
                    return;
                }
            }
        }
    }

    /// Serves one message of `len` bytes. Gives the buffer back unless the request keeps it.
    fn serve(self: &Arc<Self>, buffer: Buffer, len: usize) -> Option<Buffer> {
        let message = &buffer.as_ref()[..len];
        let Ok((header, body)) = InHeader::read_from_prefix(message) else {
            error!(len, "message of the kernel is shorter than its header");
            return Some(buffer);
        };
        let (op_in, rest) = body.split_at(opcode::op_in_len(header.opcode).min(body.len()));
        match Control::decode(&header, op_in, rest) {
            Ok(Some(control)) => {
                self.control(&header, &control);
                return Some(buffer);
            }
            Ok(None) => {}
            Err(cause) => {
                self.counts.undecodable.fetch_add(1, Ordering::Relaxed);
                error!(op = opcode::name(header.opcode), %cause, "message not understood");
                return Some(buffer);
            }
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        let decoded = Request::decode(&header, op_in, rest);
        let (kept, given_back) = if header.opcode == opcode::WRITE {
            // The data stay where the kernel put them.
            let data = len - rest.len()..len;
            (Exchange::new(self, Some(buffer), data), None)
        } else {
            (Exchange::new(self, None, 0..0), Some(buffer))
        };
        let responder = Responder::device(kept, &header);
        self.connection
            .dispatch(&self.counts, header.opcode, decoded, responder);
        given_back
    }

    fn control(&self, header: &InHeader, control: &Control) {
        match control {
            Control::Forget(forgets) => self.connection.forget(&self.counts, forgets),
            // Never answered with ENOSYS: the kernel would send no INTERRUPT ever after.
            Control::Interrupt { unique } => self.connection.interrupts.fire(*unique),
            Control::Destroy => self.write(header.unique, 0, &[]),
            Control::NotifyReply => {}
        }
    }

    /// Sends an answer. Never waits: the kernel copies it and wakes the caller.
    fn write(&self, unique: u64, errno: i32, bytes: &[u8]) {
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
    door: Arc<Door>,
    /// The request's own bytes (WRITE), or room for the answer.
    buffer: Option<Buffer>,
    data: std::ops::Range<usize>,
    /// Length of the room; 0 while `buffer` holds the request.
    room: usize,
}

impl Exchange {
    fn new(door: &Arc<Door>, buffer: Option<Buffer>, data: std::ops::Range<usize>) -> Self {
        Self {
            door: Arc::clone(door),
            buffer,
            data,
            room: 0,
        }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.door.connection
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.door.counts
    }

    pub(crate) fn data(&self) -> &[u8] {
        self.buffer
            .as_ref()
            .and_then(|buffer| buffer.as_ref().get(self.data.clone()))
            .unwrap_or_default()
    }

    pub(crate) fn buffer(&mut self, len: usize) -> &mut [u8] {
        let len = len.min(self.door.pool.payload());
        let fits = self.buffer.as_ref().is_some_and(|own| own.len() >= len);
        if !fits {
            self.buffer = Some(self.door.pool.take_room(len));
        }
        self.data = 0..0;
        self.room = self.room.max(len);
        let buffer = self.buffer.as_mut().expect("made above");
        &mut buffer.as_mut()[..len]
    }

    pub(crate) fn send(self, unique: u64, bytes: &[u8]) {
        self.door.write(unique, 0, bytes);
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
        self.door.write(unique, 0, filled);
    }

    pub(crate) fn send_error(self, unique: u64, errno: i32) {
        self.door.write(unique, errno, &[]);
    }
}
