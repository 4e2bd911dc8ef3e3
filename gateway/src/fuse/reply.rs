//! The answer to one request.
//!
//! A [`Responder`] is made by the door that the request came through and knows the way back: a
//! write to `/dev/fuse`, or a slot whose payload and header are filled and given to its ring
//! thread. Each method that answers takes it by value, so there is one answer; dropping it
//! unanswered (an early return, a panic, a cancelled task) answers EIO, so there is never none.
//!
//! Answers are sent at once and from any thread. On the ring thread that owns the slot that costs
//! no wake-up: the answer joins the ones that go out with the thread's next system call.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use zerocopy::{Immutable, IntoBytes};

use super::abi::request::InHeader;
use super::abi::{
    Attr, AttrOut, CopyFileRangeOut, CreateOut, EntryOut, GetxattrOut, LseekOut, OpenOut,
    STATX_BASIC_STATS, StatfsOut, Statx, StatxOut, SxTime, WriteOut, opcode,
};
use super::context::ConnectionContext;
use super::device::Exchange;
use super::interrupt::Interrupt;
use super::ring::Token;
use super::stats::Counts;

/// The largest errno that the kernel takes in an answer (`fuse_dev_do_write` refuses ERESTARTSYS
/// and above).
const ERRNO_MAX: i32 = 511;

/// One answer, exactly once. Dropping it unanswered answers EIO.
#[derive(Debug)]
pub struct Responder {
    /// `None` once answered.
    channel: Option<Channel>,
    unique: u64,
    opcode: u32,
    caller: u32,
    started: Option<Instant>,
}

/// The two ways back to the kernel.
#[derive(Debug)]
enum Channel {
    Device(Exchange),
    Ring(Token),
}

impl Channel {
    fn context(&self) -> &ConnectionContext {
        match self {
            Self::Device(exchange) => exchange.context(),
            Self::Ring(token) => token.context(),
        }
    }

    fn counts(&self) -> &Counts {
        match self {
            Self::Device(exchange) => exchange.counts(),
            Self::Ring(token) => token.counts(),
        }
    }
}

impl Responder {
    pub(crate) fn device(exchange: Exchange, header: &InHeader) -> Self {
        Self::new(Channel::Device(exchange), header)
    }

    pub(crate) fn ring(token: Token, header: &InHeader) -> Self {
        Self::new(Channel::Ring(token), header)
    }

    fn new(channel: Channel, header: &InHeader) -> Self {
        channel.counts().request(header.opcode);
        let started = channel.context().telemetry.wants_latency();
        Self {
            channel: Some(channel),
            unique: header.unique,
            opcode: header.opcode,
            caller: header.pid,
            started: started.then(Instant::now),
        }
    }

    /// The kernel's number of the request.
    pub fn unique(&self) -> u64 {
        self.unique
    }

    /// The operation that is answered, for logs ([`opcode::name`]).
    pub fn opcode(&self) -> u32 {
        self.opcode
    }

    /// The data of a WRITE. Empty for every other operation, and once [`Responder::buffer`] was
    /// called.
    pub fn data(&self) -> &[u8] {
        match self.channel() {
            Channel::Device(exchange) => exchange.data(),
            Channel::Ring(token) => token.data(),
        }
    }

    /// Room for `len` bytes of answer, to be sent with [`Responder::filled`]; at most the payload
    /// (max_write), shorter than `len` if that is less. What is in it is unspecified; a second call
    /// gives the same room with what was written into it.
    pub fn buffer(&mut self, len: usize) -> &mut [u8] {
        match self.channel_mut() {
            Channel::Device(exchange) => exchange.buffer(len),
            Channel::Ring(token) => token.buffer(len),
        }
    }

    /// Watches for a caller that gives up.
    pub fn interrupt(&self) -> Interrupt {
        self.channel()
            .context()
            .interrupts
            .watch(self.unique, self.caller)
    }

    /// Answers with a positive errno.
    pub fn error(mut self, errno: i32) {
        self.fail(errno);
    }

    /// Answers success with nothing.
    pub fn empty(self) {
        self.send(&[]);
    }

    /// Answers LOOKUP, MKDIR, SYMLINK, MKNOD; `ino` 0 is a negative dentry.
    pub fn entry(self, entry: &EntryOut) {
        self.send_fixed(entry);
    }

    /// Answers GETATTR, SETATTR; valid for `valid`. STATX as well: it gets the same attributes,
    /// without a time of birth.
    pub fn attr(self, attr: &Attr, valid: Duration) {
        if self.opcode == opcode::STATX {
            return self.send_fixed(&statx(attr, valid));
        }
        self.send_fixed(&AttrOut {
            attr_valid: valid.as_secs(),
            attr_valid_nsec: valid.subsec_nanos(),
            dummy: 0,
            attr: *attr,
        });
    }

    /// Answers OPEN, OPENDIR.
    pub fn open(self, open: &OpenOut) {
        self.send_fixed(open);
    }

    /// Answers CREATE and TMPFILE.
    pub fn create(self, entry: &EntryOut, open: &OpenOut) {
        self.send_fixed(&CreateOut {
            entry: *entry,
            open: *open,
        });
    }

    /// Answers WRITE and COPY_FILE_RANGE, in either width.
    pub fn written(self, len: u32) {
        self.copied(u64::from(len));
    }

    /// Answers COPY_FILE_RANGE where more than 4 GiB may have been copied. The narrow operation
    /// gets what fits into its answer; the caller asks again for the rest.
    pub fn copied(self, len: u64) {
        if self.opcode == opcode::COPY_FILE_RANGE_64 {
            return self.send_fixed(&CopyFileRangeOut { bytes_copied: len });
        }
        self.send_fixed(&WriteOut {
            size: u32::try_from(len).unwrap_or(u32::MAX),
            padding: 0,
        });
    }

    /// Sends the first `len` bytes of [`Responder::buffer`].
    pub fn filled(mut self, len: usize) {
        self.finish(0);
        match self.channel.take() {
            Some(Channel::Device(exchange)) => exchange.send_filled(self.unique, len),
            Some(Channel::Ring(token)) => token.send_filled(self.unique, len),
            None => {}
        }
    }

    /// Sends `bytes` (READLINK, xattr values).
    pub fn bytes(self, bytes: &[u8]) {
        self.send(bytes);
    }

    /// Answers STATFS.
    pub fn statfs(self, statfs: &StatfsOut) {
        self.send_fixed(statfs);
    }

    /// Answers LSEEK.
    pub fn lseek(self, offset: u64) {
        self.send_fixed(&LseekOut { offset });
    }

    /// Answers GETXATTR, LISTXATTR with size 0.
    pub fn xattr_size(self, size: u32) {
        self.send_fixed(&GetxattrOut { size, padding: 0 });
    }

    fn send_fixed(self, value: &(impl IntoBytes + Immutable)) {
        self.send(value.as_bytes());
    }

    fn send(mut self, bytes: &[u8]) {
        self.finish(0);
        match self.channel.take() {
            Some(Channel::Device(exchange)) => exchange.send(self.unique, bytes),
            Some(Channel::Ring(token)) => token.send(self.unique, bytes),
            None => {}
        }
    }

    fn fail(&mut self, errno: i32) {
        let errno = if (1..=ERRNO_MAX).contains(&errno) {
            errno
        } else {
            libc::EIO
        };
        self.finish(errno);
        match self.channel.take() {
            Some(Channel::Device(exchange)) => exchange.send_error(self.unique, errno),
            Some(Channel::Ring(token)) => token.send_error(self.unique, errno),
            None => {}
        }
    }

    /// Counts the answer. Before it is sent, so that who has the answer also finds it counted.
    fn finish(&self, errno: i32) {
        let Some(channel) = &self.channel else { return };
        if errno != 0 {
            channel.counts().error(self.opcode);
        }
        if let Some(started) = self.started {
            let telemetry = &channel.context().telemetry;
            telemetry.record(self.opcode, started.elapsed());
        }
    }

    fn channel(&self) -> &Channel {
        self.channel
            .as_ref()
            .expect("a responder is consumed by its answer")
    }

    fn channel_mut(&mut self) -> &mut Channel {
        self.channel
            .as_mut()
            .expect("a responder is consumed by its answer")
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(channel) = &self.channel {
            let counts = channel.counts();
            let cause = if std::thread::panicking() {
                &counts.panics
            } else {
                &counts.abandoned
            };
            cause.fetch_add(1, Ordering::Relaxed);
            self.fail(libc::EIO);
        }
    }
}

fn statx(attr: &Attr, valid: Duration) -> StatxOut {
    let time = |seconds: u64, nanoseconds: u32| SxTime {
        tv_sec: seconds as i64,
        tv_nsec: nanoseconds,
        reserved: 0,
    };
    StatxOut {
        attr_valid: valid.as_secs(),
        attr_valid_nsec: valid.subsec_nanos(),
        flags: 0,
        spare: [0; 2],
        stat: Statx {
            mask: STATX_BASIC_STATS,
            blksize: attr.blksize,
            nlink: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            mode: attr.mode as u16,
            ino: attr.ino,
            size: attr.size,
            blocks: attr.blocks,
            atime: time(attr.atime, attr.atimensec),
            ctime: time(attr.ctime, attr.ctimensec),
            mtime: time(attr.mtime, attr.mtimensec),
            // The kernel's `huge_encode_dev` of `rdev`, taken apart.
            rdev_major: (attr.rdev >> 8) & 0xfff,
            rdev_minor: (attr.rdev & 0xff) | ((attr.rdev >> 12) & 0xf_ff00),
            ..Statx::default()
        },
    }
}
