//! A kernel for tests: the other end of a socket that the device door takes for `/dev/fuse`. It says
//! what no kernel at hand says (FUSE_FLUSH_LAST), in the order that a test wants, byte for byte
//! through the decoder, and tells "not answered yet" from "answered".

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, recv, send, shutdown, socketpair,
};
use zerocopy::{FromBytes, IntoBytes};

use super::abi::request::InHeader;
use super::abi::{AttrOut, CreateOut, EntryOut, OpenOut, OutHeader};
use super::connection::{Alive, Connection};
use super::context::ConnectionContext;
use super::device::{BufferPool, Device};
use super::doors::reader::DeviceReader;
use super::request::encode::encode;
use super::{Handler, Op, Request, Telemetry};

/// Turns a hang into a failure.
const PATIENCE_MS: u16 = 60_000;

/// An answer: errno, and what stands behind the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FakeReply {
    pub(crate) errno: i32,
    pub(crate) body: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct FakeKernel {
    socket: OwnedFd,
    unique: Cell<u64>,
    /// Answers that came while another one was waited for.
    early: RefCell<HashMap<u64, FakeReply>>,
    door: Option<JoinHandle<()>>,
}

impl FakeKernel {
    /// A connection that `handler` serves.
    pub(crate) fn new(handler: Arc<dyn Handler>) -> Self {
        let (socket, device) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .expect("a pair of sockets");
        let context = ConnectionContext::new(Telemetry::default());
        let alive = Alive(Connection::new(handler, Arc::clone(&context)));
        let device = Device::new(device, context, BufferPool::new(64 << 10, 1 << 20));
        let door = DeviceReader::new(device, Arc::clone(&alive.0));
        let door = thread::spawn(move || {
            door.run();
            drop(alive);
        });
        Self {
            socket,
            unique: Cell::new(2),
            early: RefCell::default(),
            door: Some(door),
        }
    }

    /// Sends a request, with `data` behind it if it is a WRITE, and gives its number.
    pub(crate) fn send(&self, ino: u64, op: Op, data: &[u8]) -> u64 {
        let unique = self.unique.get();
        // As FUSE_REQ_ID_STEP.
        self.unique.set(unique + 2);
        let request = Request {
            unique,
            ino,
            caller: super::Caller::default(),
            op,
        };
        let (header, op_in, mut rest) = encode(&request);
        if !data.is_empty() {
            data.clone_into(&mut rest);
        }
        let header = InHeader {
            len: (size_of::<InHeader>() + op_in.len() + rest.len()) as u32,
            ..header
        };
        let message = [header.as_bytes(), &op_in, &rest].concat();
        let sent = send(self.socket.as_raw_fd(), &message, MsgFlags::empty());
        assert_eq!(sent, Ok(message.len()));
        unique
    }

    /// The answer to request `unique`. Waits for it.
    pub(crate) fn answer(&self, unique: u64) -> FakeReply {
        loop {
            if let Some(answer) = self.early.borrow_mut().remove(&unique) {
                return answer;
            }
            assert!(self.receive(PATIENCE_MS), "request {unique} hangs");
        }
    }

    /// Whether request `unique` is answered by now.
    pub(crate) fn is_answered(&self, unique: u64) -> bool {
        while self.receive(0) {}
        self.early.borrow().contains_key(&unique)
    }

    /// Takes the next answer in, if one comes in time.
    fn receive(&self, time_max_ms: u16) -> bool {
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(time_max_ms)) == Ok(0) {
            return false;
        }
        let mut message = vec![0; 128 << 10];
        let len = recv(self.socket.as_raw_fd(), &mut message, MsgFlags::empty());
        let message = &message[..len.expect("the door writes")];
        let (header, body) = OutHeader::read_from_prefix(message).expect("a header");
        assert_eq!(header.len as usize, message.len());
        let answer = FakeReply {
            errno: -header.error,
            body: body.to_vec(),
        };
        let second = self.early.borrow_mut().insert(header.unique, answer);
        assert_eq!(second, None, "one answer each");
        true
    }

    /// The answer to a request.
    pub(crate) fn ask(&self, ino: u64, op: Op) -> FakeReply {
        self.answer(self.send(ino, op, &[]))
    }

    /// CREATE: the new file's number and its handle.
    pub(crate) fn create(&self, parent: u64, name: &str, flags: i32) -> (u64, OpenOut) {
        let name = name.as_bytes().into();
        let (mode, flags) = (0o100_644, flags as u32);
        let answer = self.ask(
            parent,
            Op::Create {
                name,
                mode,
                flags,
                umask: 0,
            },
        );
        let out: CreateOut = answer.read();
        (out.entry.nodeid, out.open)
    }

    /// LOOKUP: the file's number.
    pub(crate) fn lookup(&self, parent: u64, name: &str) -> u64 {
        let name = name.as_bytes().into();
        let out: EntryOut = self.ask(parent, Op::Lookup { name }).read();
        out.nodeid
    }

    /// OPEN: the handle, or an errno.
    pub(crate) fn open(&self, ino: u64, flags: i32) -> Result<OpenOut, i32> {
        let flags = flags as u32;
        let answer = self.ask(ino, Op::Open { flags });
        match answer.errno {
            0 => Ok(answer.read()),
            errno => Err(errno),
        }
    }

    /// WRITE, which must succeed. `cached`: the bytes come from a mapping.
    pub(crate) fn write(&self, ino: u64, fh: u64, offset: u64, data: &[u8], cached: bool) {
        let op = Op::Write {
            fh,
            offset,
            size: data.len() as u32,
            cached,
            flags: 0,
        };
        let answer = self.answer(self.send(ino, op, data));
        assert_eq!(answer.errno, 0);
    }

    /// GETATTR: the size.
    pub(crate) fn size(&self, ino: u64) -> u64 {
        let out: AttrOut = self.ask(ino, Op::Getattr { fh: None }).read();
        out.attr.size
    }
}

impl FakeReply {
    fn read<T: FromBytes>(&self) -> T {
        assert_eq!(self.errno, 0);
        T::read_from_bytes(&self.body).expect("the struct that is wanted")
    }
}

impl Drop for FakeKernel {
    fn drop(&mut self) {
        // As an unmount: the door reads an end and goes.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
        if let Some(door) = self.door.take() {
            let _ = door.join();
        }
    }
}
