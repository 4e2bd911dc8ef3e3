//! A filesystem that answers from nothing: one directory, files of a constant byte. Attributes
//! expire at once and reads pass by the page cache, so every call is a request: what is measured
//! on it is the transport. The second implementer of `fuse::Handler`, which keeps that seam honest.
//!
//! `slow` is a file whose reads and writes wait for [`Gate::open`] or for INTERRUPT, in a task of their own,
//! as a read does that waits for the store. `panic` is a file whose reads panic. `backed` is read
//! and written by the kernel itself, from the backing file it was given.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ackfs::fuse::abi::{
    Attr, DirentWriter, EntryOut, FOPEN_DIRECT_IO, FOPEN_PARALLEL_DIRECT_WRITES, FOPEN_PASSTHROUGH,
    OpenOut, ROOT_ID, StatfsOut,
};
use ackfs::fuse::mount::BackingId;
use ackfs::fuse::{Handler, Op, Request, Responder};
use tokio::sync::watch;

/// Bytes of every ordinary file.
pub(crate) const FILE_SIZE: u64 = 256 << 20;

/// How many ordinary files there are: `file0` and so on.
pub(crate) const FILES: u64 = 8;

const FIRST_FILE: u64 = ROOT_ID + 1;
const SLOW: u64 = FIRST_FILE + FILES;
const PANIC: u64 = SLOW + 1;
const BACKED: u64 = PANIC + 1;

/// The byte that `fileN` is full of.
pub(crate) fn byte_of(file: u64) -> u8 {
    b'a' + file as u8
}

/// Holds reads and writes of `slow` back, and counts them.
#[derive(Debug)]
pub(crate) struct Gate {
    open: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            open: watch::Sender::new(false),
            waiting: watch::Sender::new(0),
        }
    }
}

#[allow(dead_code, reason = "the tests open it, the example has none")]
impl Gate {
    /// Lets all of them through, now and later.
    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }

    /// Waits until `count` of them wait.
    pub(crate) async fn waiting(&self, count: usize) {
        let mut waiting = self.waiting.subscribe();
        let _ = waiting.wait_for(|now| *now >= count).await;
    }
}

/// The handler.
#[derive(Debug, Default)]
pub(crate) struct Null {
    /// Requests handled.
    pub(crate) requests: AtomicU64,
    /// References that the kernel dropped.
    pub(crate) forgotten: watch::Sender<u64>,
    /// How often `destroy` was called.
    pub(crate) destroyed: AtomicU64,
    /// Reads go through the page cache.
    pub(crate) cached: bool,
    /// What is behind `backed`.
    pub(crate) backing: OnceLock<BackingId>,
    /// Where `slow` waits; without it they say EIO.
    pub(crate) slow: Option<(tokio::runtime::Handle, Arc<Gate>)>,
}

impl Handler for Null {
    fn handle(&self, request: Request, mut responder: Responder) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let ino = request.ino;
        match request.op {
            Op::Lookup { name } => match ino_of(&name) {
                Some(ino) if request.ino == ROOT_ID => responder.entry(&entry(ino)),
                _ => responder.error(libc::ENOENT),
            },
            Op::Getattr { .. } | Op::Statx { .. } => responder.attr(&attr(ino), Duration::ZERO),
            Op::Setattr { .. } => responder.attr(&attr(ino), Duration::ZERO),
            Op::Open { .. } if ino == BACKED => match self.backing.get() {
                Some(backing) => responder.open(&OpenOut {
                    open_flags: FOPEN_PASSTHROUGH,
                    backing_id: backing.id(),
                    ..OpenOut::default()
                }),
                None => responder.error(libc::EIO),
            },
            Op::Open { .. } => responder.open(&OpenOut {
                open_flags: if self.cached {
                    0
                } else {
                    FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES
                },
                ..OpenOut::default()
            }),
            Op::Opendir { .. } => responder.open(&OpenOut::default()),
            Op::Read { .. } if ino == SLOW => self.wait(responder, |mut responder| {
                responder.buffer(4)[..4].copy_from_slice(b"slow");
                responder.filled(4);
            }),
            Op::Write { size, .. } if ino == SLOW => {
                self.wait(responder, move |responder| responder.written(size));
            }
            Op::Read { .. } if ino == PANIC => panic!("a read of `panic`"),
            Op::Read { offset, size, .. } => {
                let len = FILE_SIZE.saturating_sub(offset).min(u64::from(size)) as usize;
                let room = responder.buffer(len);
                let len = room.len();
                room.fill(byte_of(ino - FIRST_FILE));
                responder.filled(len);
            }
            Op::Write { .. } => {
                let len = responder.data().len();
                let expected = byte_of(ino - FIRST_FILE);
                if responder.data().iter().all(|byte| *byte == expected) {
                    responder.written(len as u32);
                } else {
                    responder.error(libc::EILSEQ);
                }
            }
            Op::Readdir { offset, size, .. } => list(responder, offset, size, false),
            Op::Readdirplus { offset, size, .. } => list(responder, offset, size, true),
            Op::Statfs => responder.statfs(&StatfsOut {
                bsize: 4096,
                frsize: 4096,
                namelen: 255,
                ..StatfsOut::default()
            }),
            Op::Getxattr { name, size } if &*name == b"user.null" => {
                if size == 0 {
                    responder.xattr_size(5);
                } else {
                    responder.bytes(b"value");
                }
            }
            Op::Getxattr { .. } => responder.error(libc::ENODATA),
            Op::Flush { .. }
            | Op::Release { .. }
            | Op::Releasedir { .. }
            | Op::Fsync { .. }
            | Op::Access { .. } => responder.empty(),
            // Dropped on purpose: its answer is EIO.
            Op::Unlink { .. } => drop(responder),
            _ => responder.error(libc::ENOSYS),
        }
    }

    fn forget(&self, _ino: u64, count: u64) {
        self.forgotten.send_modify(|sum| *sum += count);
    }

    fn destroy(&self) {
        self.destroyed.fetch_add(1, Ordering::Relaxed);
    }
}

impl Null {
    /// Answers by `answer` when the gate opens, or EINTR.
    fn wait(&self, responder: Responder, answer: impl FnOnce(Responder) + Send + 'static) {
        let Some((runtime, gate)) = &self.slow else {
            return responder.error(libc::EIO);
        };
        let gate = Arc::clone(gate);
        runtime.spawn(async move {
            let mut interrupt = responder.interrupt();
            let mut open = gate.open.subscribe();
            gate.waiting.send_modify(|count| *count += 1);
            let opened = tokio::select! {
                () = interrupt.interrupted() => false,
                _ = open.wait_for(|open| *open) => true,
            };
            gate.waiting.send_modify(|count| *count -= 1);
            if opened {
                answer(responder);
            } else {
                responder.error(libc::EINTR);
            }
        });
    }
}

fn ino_of(name: &[u8]) -> Option<u64> {
    match name {
        b"slow" => Some(SLOW),
        b"panic" => Some(PANIC),
        b"backed" => Some(BACKED),
        _ => {
            let number = std::str::from_utf8(name).ok()?.strip_prefix("file")?;
            let number: u64 = number.parse().ok()?;
            (number < FILES).then_some(FIRST_FILE + number)
        }
    }
}

fn name_of(ino: u64) -> String {
    match ino {
        SLOW => "slow".to_owned(),
        PANIC => "panic".to_owned(),
        BACKED => "backed".to_owned(),
        _ => format!("file{}", ino - FIRST_FILE),
    }
}

fn attr(ino: u64) -> Attr {
    let directory = ino == ROOT_ID;
    Attr {
        ino,
        size: if directory { 0 } else { FILE_SIZE },
        blocks: FILE_SIZE / 512,
        mtime: 1_000_000_000,
        mode: if directory {
            libc::S_IFDIR | 0o755
        } else {
            libc::S_IFREG | 0o644
        },
        nlink: 1,
        blksize: 4096,
        ..Attr::default()
    }
}

fn entry(ino: u64) -> EntryOut {
    EntryOut {
        nodeid: ino,
        attr: attr(ino),
        ..EntryOut::default()
    }
}

/// Offsets are inode numbers: what is at offset `n` comes after inode `n`.
fn list(mut responder: Responder, offset: u64, size: u32, plus: bool) {
    let room = responder.buffer(size as usize);
    let mut writer = DirentWriter::new(room);
    for ino in offset.max(ROOT_ID) + 1..=BACKED {
        let name = name_of(ino);
        let kind = u32::from(libc::DT_REG);
        let fits = if plus {
            writer.direntplus(&entry(ino), ino, kind, name.as_bytes())
        } else {
            writer.dirent(ino, ino, kind, name.as_bytes())
        };
        if !fits {
            break;
        }
    }
    let used = writer.used();
    responder.filled(used);
}
