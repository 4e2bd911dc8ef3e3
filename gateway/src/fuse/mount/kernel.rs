//! What is said to the kernel unasked: invalidations, and backing files for passthrough.
//!
//! An invalidation takes locks that a request of the same inode or directory may hold in the
//! kernel until it is answered (`fuse_reverse_inval_entry` takes the parent's lock,
//! `invalidate_inode_pages2_range` waits for pages that a READ fills). Sent from the thread that
//! should answer that request, it would wait for itself. So invalidations go into a bounded queue
//! and a thread of their own, `fuse-notify`, sends them: they never wait here, and arrive a little
//! later.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use fuser::{INodeNo, Notifier};
use nix::errno::Errno;
use parking_lot::{Condvar, Mutex};
use tracing::{debug, warn};
use zerocopy::IntoBytes;

use super::init::Negotiated;
use crate::fuse::abi::{NOTIFY_PRUNE, NotifyPruneOut, OutHeader};
use crate::fuse::request::Name;
use crate::fuse::ring::sys;

/// Most invalidations that wait to be sent.
const QUEUE_MAX: usize = 16 << 10;

/// The way to the kernel for what no request asked for. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Kernel(Arc<KernelShared>);

#[derive(Debug)]
struct KernelShared {
    device: Arc<OwnedFd>,
    passthrough: bool,
    direct_mmap: bool,
    notifier: Notifier,
    /// Guards the queue; a leaf in the lock order.
    queue: Mutex<NotificationQueue>,
    more: Condvar,
    dropped: AtomicU64,
    /// The kernel does not know how to forget at our word.
    no_prune: AtomicBool,
    /// It is being asked to.
    pruning: AtomicBool,
}

#[derive(Debug, Default)]
struct NotificationQueue {
    notifications: VecDeque<Notification>,
    stopped: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Notification {
    Inode { ino: u64, offset: i64, len: i64 },
    Entry { parent: u64, name: Name },
    Prune(Vec<u64>),
}

impl Kernel {
    pub(super) fn new(notifier: Notifier, device: OwnedFd, negotiated: Negotiated) -> Self {
        Self(Arc::new(KernelShared {
            device: Arc::new(device),
            passthrough: negotiated.passthrough,
            direct_mmap: negotiated.direct_mmap,
            notifier,
            queue: Mutex::default(),
            more: Condvar::new(),
            dropped: AtomicU64::new(0),
            no_prune: AtomicBool::new(false),
            pruning: AtomicBool::new(false),
        }))
    }

    /// Makes the kernel forget attributes and pages of `ino`, soon. False if the queue is full or
    /// the mount has ended: then it believes them until they expire.
    pub fn invalidate_inode(&self, ino: u64) -> bool {
        self.push(Notification::Inode {
            ino,
            offset: 0,
            len: 0,
        })
    }

    /// The kernel believes what it was told of the attributes of `ino` no longer, from now on: an answer that
    /// is sent after this one finds it so, and one that it asked for earlier does not change that
    /// (`fuse_reverse_inval_inode` counts the attributes' version up). Takes no lock of the kernel's that a
    /// request might hold, so it is sent at once.
    pub fn expire_attributes(&self, ino: u64) {
        // A negative offset leaves the pages alone.
        if let Err(cause) = self.0.notifier.inval_inode(INodeNo(ino), -1, 0) {
            debug!(ino, %cause, "expiry not taken");
        }
    }

    /// Whether files opened with FOPEN_DIRECT_IO can be mapped shared.
    pub fn maps_direct_io(&self) -> bool {
        self.0.direct_mmap
    }

    /// Makes the kernel forget attributes of `ino` and its pages in `[offset, offset + len)`, soon.
    /// `len` 0 means to the end. Result as above.
    pub fn invalidate_range(&self, ino: u64, offset: u64, len: u64) -> bool {
        self.push(Notification::Inode {
            ino,
            offset: i64::try_from(offset).unwrap_or(i64::MAX),
            len: i64::try_from(len).unwrap_or(0),
        })
    }

    /// Makes the kernel look `name` in `parent` up again, soon. Result as above.
    pub fn invalidate_entry(&self, parent: u64, name: &[u8]) -> bool {
        self.push(Notification::Entry {
            parent,
            name: name.into(),
        })
    }

    /// Asks the kernel to forget those of `inos` that nobody has in hand, soon. Result as above.
    pub fn prune(&self, inos: Vec<u64>) -> bool {
        self.0.pruning.store(true, Ordering::Relaxed);
        let taken = self.push(Notification::Prune(inos));
        if !taken {
            self.0.pruning.store(false, Ordering::Relaxed);
        }
        taken
    }

    /// Whether [`Kernel::prune`] is of use now: the kernel has done what it was asked last, and knows how
    /// to. The first try on a kernel before 6.18 tells.
    pub fn can_prune(&self) -> bool {
        let shared = &self.0;
        !shared.no_prune.load(Ordering::Relaxed) && !shared.pruning.load(Ordering::Relaxed)
    }

    /// Registers `file` as a backing file: opens that are answered with FOPEN_PASSTHROUGH and
    /// [`BackingId::id`] read and write it without us. Every open of one inode must use the same
    /// id while any is open, or the kernel refuses with EIO. The file is closed to the kernel when
    /// the last clone of an `Arc` around the id is dropped; opens that use it keep it. Never waits.
    ///
    /// # Errors
    /// `Unsupported` if INIT did not grant passthrough; the kernel's refusal otherwise (EPERM
    /// without CAP_SYS_ADMIN, ELOOP if the file lies on a stacked filesystem).
    pub fn open_backing(&self, file: &File) -> io::Result<BackingId> {
        if !self.0.passthrough {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let id = fuser::BackingId::create_raw(self.0.device.as_fd(), file)?;
        Ok(BackingId {
            id: id as i32,
            device: Arc::clone(&self.0.device),
        })
    }

    /// Whether [`Kernel::open_backing`] may work.
    pub fn passthrough(&self) -> bool {
        self.0.passthrough
    }

    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Starts the sending thread.
    pub(super) fn start(&self) -> io::Result<()> {
        let kernel = self.clone();
        thread::Builder::new()
            .name("fuse-notify".to_owned())
            .stack_size(256 << 10)
            .spawn(move || kernel.run())
            .map(drop)
    }

    /// Ends the sending thread; what waits is dropped.
    pub(super) fn stop(&self) {
        let mut queue = self.0.queue.lock();
        queue.stopped = true;
        queue.notifications.clear();
        drop(queue);
        self.0.more.notify_all();
    }

    fn push(&self, notification: Notification) -> bool {
        let mut queue = self.0.queue.lock();
        if queue.stopped {
            return false;
        }
        if queue.notifications.back() == Some(&notification) {
            return true;
        }
        if queue.notifications.len() >= QUEUE_MAX {
            drop(queue);
            if self.0.dropped.fetch_add(1, Ordering::Relaxed) == 0 {
                warn!("invalidations are dropped: the kernel does not take them fast enough");
            }
            return false;
        }
        queue.notifications.push_back(notification);
        drop(queue);
        self.0.more.notify_one();
        true
    }

    fn run(&self) {
        loop {
            let notification = {
                let mut queue = self.0.queue.lock();
                loop {
                    if queue.stopped {
                        return;
                    }
                    if let Some(notification) = queue.notifications.pop_front() {
                        break notification;
                    }
                    self.0.more.wait(&mut queue);
                }
            };
            self.send(&notification);
        }
    }

    /// fuser does not know this one.
    fn send_prune(&self, inos: &[u64]) -> io::Result<()> {
        let sent = nix::unistd::write(&self.0.device, &prune_notification(inos));
        if sent == Err(Errno::EINVAL) {
            self.0.no_prune.store(true, Ordering::Relaxed);
        }
        sent.map(drop).map_err(io::Error::from)
    }

    fn send(&self, notification: &Notification) {
        let notifier = &self.0.notifier;
        let sent = match notification {
            Notification::Inode { ino, offset, len } => {
                notifier.inval_inode(INodeNo(*ino), *offset, *len)
            }
            Notification::Entry { parent, name } => {
                notifier.inval_entry(INodeNo(*parent), OsStr::from_bytes(name))
            }
            Notification::Prune(inos) => {
                let sent = self.send_prune(inos);
                self.0.pruning.store(false, Ordering::Relaxed);
                sent
            }
        };
        if let Err(cause) = sent {
            // Unmounted, or an entry that is a mount point: nothing that could be mended here.
            debug!(note = ?notification, %cause, "invalidation not taken");
        }
    }
}

/// The bytes of a notification that asks to forget `inos`.
fn prune_notification(inos: &[u64]) -> Vec<u8> {
    let body = NotifyPruneOut {
        count: inos.len() as u32,
        padding: 0,
        spare: 0,
    };
    let len = size_of::<OutHeader>() + size_of::<NotifyPruneOut>() + size_of_val(inos);
    let header = OutHeader {
        len: len as u32,
        error: NOTIFY_PRUNE,
        unique: 0,
    };
    [header.as_bytes(), body.as_bytes(), inos.as_bytes()].concat()
}

/// A file that the kernel reads and writes in our stead. Put it into an `Arc` to share it.
#[derive(Debug)]
pub struct BackingId {
    id: i32,
    device: Arc<OwnedFd>,
}

impl BackingId {
    /// The number for [`OpenOut::backing_id`](crate::fuse::abi::OpenOut).
    pub fn id(&self) -> i32 {
        self.id
    }
}

impl Drop for BackingId {
    fn drop(&mut self) {
        if let Err(errno) = sys::close_backing(self.device.as_fd(), self.id) {
            debug!(id = self.id, %errno, "backing file not closed");
        }
    }
}
