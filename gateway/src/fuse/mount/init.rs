//! Our answer to INIT: what the kernel may do for us and which rules of the game are on. fuser
//! reads INIT and writes the answer; this is the filesystem that it asks, and nothing else of it is
//! ever called.

use std::io;
use std::sync::Arc;

use fuser::{Filesystem, InitFlags, KernelConfig};
use parking_lot::Mutex;

use super::options::MountOptions;
use super::sizing::Sizing;

/// What is wanted wherever the kernel offers it. fuser adds FUSE_ASYNC_READ (readahead requests of
/// one file go out side by side), FUSE_BIG_WRITES and FUSE_MAX_PAGES (requests of more than a page,
/// up to max_write) by itself.
///
/// Left out on purpose: FUSE_WRITEBACK_CACHE (the kernel would own size and mtime, and errors would
/// come after close), FUSE_POSIX_LOCKS and FUSE_FLOCK_LOCKS (locks stay the kernel's, local to the
/// mount), FUSE_SPLICE_* (measured slower than copies), FUSE_AUTO_INVAL_DATA (a handle keeps the
/// version it opened; open decides whether pages stay), FUSE_CACHE_SYMLINKS (a link replaced in
/// the bucket would never be seen), FUSE_DONT_MASK (the kernel applies the umask),
/// FUSE_REQUEST_TIMEOUT (an upload longer than it would abort the mount).
const WANTED: &[InitFlags] = &[
    // Direct reads and writes of one file go out side by side.
    InitFlags::FUSE_ASYNC_DIO,
    // Look-ups and listings of one directory go out side by side.
    InitFlags::FUSE_PARALLEL_DIROPS,
    // `ls -l` gets attributes with the names; AUTO lets plain `ls` do without.
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    // O_TRUNC comes with OPEN instead of as a SETATTR before it: one request, and a file that is
    // overwritten whole need not be fetched.
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    // Without it the kernel asks for the attribute security.capability before every write. The
    // set-user-id bits that we would have to clear mean nothing on a nosuid mount.
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
];

/// FUSE_SYNC_RELEASE of `kernel/patches`: closers wait for the RELEASE of files that were opened with
/// FOPEN_SYNC_RELEASE, and FLUSH says which one is the last. fuser knows no such bit and passes it
/// through both ways.
const SYNC_RELEASE: InitFlags = InitFlags::from_bits_retain(1 << 62);

/// What came out of INIT.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Negotiated {
    pub(super) minor: u32,
    pub(super) ring: bool,
    pub(super) passthrough: bool,
    pub(super) sync_release: bool,
    /// FOPEN_DIRECT_IO goes with shared mappings.
    pub(super) direct_mmap: bool,
}

/// Answers INIT.
#[derive(Debug)]
pub(super) struct Init {
    max_write: u32,
    max_background: u16,
    passthrough: bool,
    ring: bool,
    negotiated: Arc<Mutex<Negotiated>>,
}

impl Init {
    /// `ring` says that everything is ready to register.
    pub(super) fn new(
        options: &MountOptions,
        sizing: &Sizing,
        ring: bool,
        negotiated: Arc<Mutex<Negotiated>>,
    ) -> Self {
        Self {
            max_write: sizing.max_write,
            max_background: sizing.max_background,
            passthrough: options.passthrough,
            ring,
            negotiated,
        }
    }
}

impl Filesystem for Init {
    fn init(&mut self, _request: &fuser::Request, config: &mut KernelConfig) -> io::Result<()> {
        for flag in WANTED {
            // Not offered: an older kernel, that does without.
            let _ = config.add_capabilities(*flag);
        }
        let mut ask = |flag| config.add_capabilities(flag).is_ok();
        let mut negotiated = Negotiated {
            ring: self.ring && ask(InitFlags::FUSE_OVER_IO_URING),
            // Offered to everybody; registering a backing file wants CAP_SYS_ADMIN.
            passthrough: self.passthrough && may_pass_through() && ask(InitFlags::FUSE_PASSTHROUGH),
            // A file's own flag decides who waits, so that asking costs nobody anything.
            sync_release: ask(SYNC_RELEASE),
            direct_mmap: ask(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP),
            ..Negotiated::default()
        };
        if negotiated.passthrough {
            // 1: the backing file lies on an ordinary filesystem, and this mount may be the lower
            // layer of one stacked filesystem.
            negotiated.passthrough = config.set_max_stack_depth(1).is_ok();
        }
        negotiated.minor = config.kernel_abi().1;
        set(self.max_write, |value| config.set_max_write(value));
        // No more than max_write, or max_pages and with it the payloads would have to be larger.
        set(self.max_write, |value| config.set_max_readahead(value));
        set(self.max_background, |value| {
            config.set_max_background(value)
        });
        *self.negotiated.lock() = negotiated;
        Ok(())
    }
}

/// Sets a value, or the nearest one that is taken.
fn set<T>(value: T, mut set: impl FnMut(T) -> Result<T, T>) {
    if let Err(nearest) = set(value) {
        let _ = set(nearest);
    }
}

/// CAP_SYS_ADMIN in the first user namespace, as `fuse_backing_open` wants it. In a user namespace
/// the bit says nothing, and the kernel's refusal at the first backing file is handled as well.
fn may_pass_through() -> bool {
    const CAP_SYS_ADMIN: u32 = 21;
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else {
        return false;
    };
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & (1 << CAP_SYS_ADMIN) != 0)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use fuser::{Config, Session, SessionACL};
    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
    use std::os::fd::AsRawFd;
    use zerocopy::IntoBytes;

    use super::*;
    use crate::fuse::abi::request::InHeader;

    /// FUSE_INIT, which no decoder of ours sees.
    const INIT: u32 = 26;
    /// FUSE_INIT_EXT: the second half of the flags is there.
    const INIT_EXT: u64 = 1 << 30;
    const SYNC_RELEASE_BIT: u64 = 1 << 62;

    /// Plays the kernel at INIT: offers `flags` to fuser and gives the flags that it was asked for.
    fn negotiate(flags: u64) -> (u64, Negotiated) {
        let (kernel, device) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .expect("a pair");
        let header = InHeader {
            len: 40 + 64,
            opcode: INIT,
            unique: 2,
            ..InHeader::default()
        };
        let (low, high) = (flags as u32, (flags >> 32) as u32);
        let mut init = [7, 46, 1 << 20, low, high].map(u32::to_ne_bytes).concat();
        init.resize(64, 0);
        let message = [header.as_bytes(), &init].concat();
        let sent = send(kernel.as_raw_fd(), &message, MsgFlags::empty()).expect("room");
        assert_eq!(sent, message.len());
        let negotiated = Arc::new(Mutex::default());
        let options = MountOptions::default();
        let init = Init::new(
            &options,
            &Sizing::of(&options),
            false,
            Arc::clone(&negotiated),
        );
        let fd: OwnedFd = device;
        let session = Session::from_fd(init, fd, SessionACL::Owner, Config::default());
        drop(session.expect("INIT is answered"));
        let mut answer = [0; 256];
        let len = recv(kernel.as_raw_fd(), &mut answer, MsgFlags::empty()).expect("an answer");
        // `struct fuse_init_out` behind the header: flags at 12, flags2 at 32.
        assert_eq!(len, 16 + 64);
        let word = |at: usize| {
            let bytes = answer[16 + at..][..4].try_into().expect("4 bytes");
            u64::from(u32::from_ne_bytes(bytes))
        };
        let negotiated = *negotiated.lock();
        (word(12) | word(32) << 32, negotiated)
    }

    #[test]
    fn synchronous_release_is_asked_for_where_it_is_offered() {
        let (asked, negotiated) = negotiate(INIT_EXT | SYNC_RELEASE_BIT);
        assert_eq!(asked & SYNC_RELEASE_BIT, SYNC_RELEASE_BIT);
        assert!(negotiated.sync_release);
    }

    #[test]
    fn a_stock_kernel_is_asked_for_nothing_new() {
        let (asked, negotiated) = negotiate(INIT_EXT | InitFlags::all().bits());
        assert_eq!(asked >> 62, 0);
        assert!(!negotiated.sync_release);
        let (asked, negotiated) = negotiate(0);
        assert_eq!((asked >> 32, negotiated.sync_release), (0, false));
    }
}
