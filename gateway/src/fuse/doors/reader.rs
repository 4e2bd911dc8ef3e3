//! Requests from `/dev/fuse`: one read(2) is one request.
//!
//! A reader always runs. With the ring off it carries everything, on several threads with a cloned
//! descriptor each; with the ring on it carries what the kernel sends nowhere else (FORGET,
//! BATCH_FORGET, INTERRUPT), and every opcode before the ring is ready and after a REGISTER that
//! the kernel refused. It cannot tell which of these it is in and does not need to. A thread ends when
//! the kernel says ENODEV: unmounted, or aborted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::unistd::read;
use tracing::error;
use zerocopy::FromBytes;

use crate::fuse::abi::opcode;
use crate::fuse::abi::request::InHeader;
use crate::fuse::connection::Connection;
use crate::fuse::device::{Device, Exchange, PoolBuffer};
use crate::fuse::reply::Responder;
use crate::fuse::request::{Control, Request};
use crate::fuse::stats::Counts;

/// Reads one descriptor and serves what comes.
#[derive(Debug)]
pub(crate) struct DeviceReader {
    device: Arc<Device>,
    connection: Arc<Connection>,
    requests: AtomicU64,
}

impl DeviceReader {
    pub(crate) fn new(device: Arc<Device>, connection: Arc<Connection>) -> Arc<Self> {
        Arc::new(Self {
            device,
            connection,
            requests: AtomicU64::new(0),
        })
    }

    pub(crate) fn counts(&self) -> &Counts {
        self.device.counts()
    }

    /// Requests that came this way.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Serves until the connection ends. Waits in read(2), and for memory when too many requests
    /// hold their buffers.
    pub(crate) fn run(&self) {
        let mut buffer = self.device.pool().take();
        loop {
            match read(self.device.fd(), buffer.as_mut()) {
                // Never said by `/dev/fuse`; of a socket in its place it is the end.
                Ok(0) => return,
                Ok(len) => {
                    if let Some(used) = self.serve(buffer, len) {
                        buffer = used;
                    } else {
                        self.device.pool().wait_for_room();
                        buffer = self.device.pool().take();
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
    fn serve(&self, buffer: PoolBuffer, len: usize) -> Option<PoolBuffer> {
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
                self.device
                    .counts()
                    .undecodable
                    .fetch_add(1, Ordering::Relaxed);
                error!(op = opcode::name(header.opcode), %cause, "message not understood");
                return Some(buffer);
            }
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        let decoded = Request::decode(&header, op_in, rest);
        let (kept, given_back) = if header.opcode == opcode::WRITE {
            // The data stay where the kernel put them.
            let data = len - rest.len()..len;
            (Exchange::new(&self.device, Some(buffer), data), None)
        } else {
            (Exchange::new(&self.device, None, 0..0), Some(buffer))
        };
        let responder = Responder::device(kept, &header);
        self.connection
            .dispatch(self.device.counts(), header.opcode, decoded, responder);
        given_back
    }

    fn control(&self, header: &InHeader, control: &Control) {
        match control {
            Control::Forget(forgets) => self.connection.forget(self.device.counts(), forgets),
            // Never answered with ENOSYS: the kernel would send no INTERRUPT ever after.
            Control::Interrupt { unique } => self.device.context().interrupts.fire(*unique),
            Control::Destroy => self.device.write(header.unique, 0, &[]),
            Control::NotifyReply => {}
        }
    }
}
