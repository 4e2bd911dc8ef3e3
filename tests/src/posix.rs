//! System calls that std has no word for.
#![allow(unsafe_code)] // mmap(2), sigaction(2), pthread_kill(3), prctl(2) after fork: no safe words for them.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::ptr::NonNull;
use std::sync::Once;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, PosixFadviseAdvice, RenameFlags};
use nix::sys::mman::{MapFlags, MsFlags, ProtFlags, mmap, msync, munmap};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::stat::Mode;

/// The number of an I/O error, for comparisons with [`Errno`].
pub fn errno(error: &io::Error) -> Errno {
    error
        .raw_os_error()
        .map_or(Errno::UnknownErrno, Errno::from_raw)
}

/// Closes a file and gives what close(2) said; dropping a [`File`] throws that away.
///
/// # Errors
/// As close(2). The descriptor is gone in any case.
pub fn close(file: File) -> Result<(), Errno> {
    nix::unistd::close(file)
}

/// Opens with flags that [`std::fs::OpenOptions`] does not know.
///
/// # Errors
/// As open(2).
pub fn open(path: &Path, flags: OFlag) -> Result<File, Errno> {
    let mode = Mode::from_bits_truncate(0o644);
    nix::fcntl::open(path, flags | OFlag::O_CLOEXEC, mode).map(File::from)
}

/// Has the kernel kill the command's process when the thread that starts it ends.
pub fn die_with_parent(command: &mut Command) {
    let die = || nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from);
    // SAFETY: between fork and exec the closure makes one system call and touches no memory but its
    // result's.
    unsafe { command.pre_exec(die) };
}

/// Has the kernel deny io_uring_setup(2) to the command's process by EPERM, as a container's seccomp
/// profile does. Needs root.
pub fn deny_io_uring(command: &mut Command) {
    let step = |code: u32, jt, k: u32| libc::sock_filter {
        code: code as u16,
        jt,
        jf: 0,
        k,
    };
    let number = libc::SYS_io_uring_setup as u32;
    let denied = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let mut filter = [
        // The call's number is the first word of what the filter is given (struct seccomp_data).
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, number),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
        step(libc::BPF_RET | libc::BPF_K, 0, denied),
    ];
    let deny = move || {
        let program = libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_mut_ptr(),
        };
        // SAFETY: the program and its steps live until prctl(2) returns, which copies them.
        let set = unsafe {
            libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            )
        };
        Errno::result(set).map(drop).map_err(io::Error::from)
    };
    // SAFETY: between fork and exec the closure makes one system call and touches no memory but its
    // own.
    unsafe { command.pre_exec(deny) };
}

/// Renames with flags (renameat2(2)).
///
/// # Errors
/// As renameat2(2).
pub fn rename(source: &Path, target: &Path, flags: RenameFlags) -> Result<(), Errno> {
    nix::fcntl::renameat2(AT_FDCWD, source, AT_FDCWD, target, flags)
}

/// Asks the kernel to drop the clean pages it holds of `file`.
pub fn drop_pages(file: &File) {
    let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
    nix::fcntl::posix_fadvise(file, 0, 0, advice).expect("pages of a file can be dropped");
}

/// A shared, writable mapping of a file; unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    address: NonNull<libc::c_void>,
    len: usize,
}

impl Mapping {
    /// Maps the first `len` bytes of `file`, which has at least that many. The mapping outlives
    /// the descriptor.
    ///
    /// # Errors
    /// As mmap(2).
    pub fn new(file: &File, len: usize) -> Result<Self, Errno> {
        let size = NonZeroUsize::new(len).ok_or(Errno::EINVAL)?;
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the kernel chooses the address, so no memory of this program is replaced; the
        // mapping is owned by the value made here until its drop.
        let address = unsafe { mmap(None, size, prot, MapFlags::MAP_SHARED, file.as_fd(), 0)? };
        Ok(Self { address, len })
    }

    /// Stores `bytes` at `offset` of the mapping.
    pub fn store(&mut self, offset: usize, bytes: &[u8]) {
        assert!(
            offset + bytes.len() <= self.len,
            "the store is inside the mapping"
        );
        // SAFETY: the range is inside the mapping, which lives until `self` is dropped, and `bytes`
        // is memory of this program that no mapping of a fresh address can overlap.
        unsafe {
            let target = self.address.as_ptr().cast::<u8>().add(offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
        }
    }

    /// The byte at `offset` of the mapping.
    pub fn load(&self, offset: usize) -> u8 {
        assert!(offset < self.len, "the load is inside the mapping");
        // SAFETY: the position is inside the mapping, which lives until `self` is dropped; volatile
        // because other processes may write it.
        unsafe {
            self.address
                .as_ptr()
                .cast::<u8>()
                .add(offset)
                .read_volatile()
        }
    }

    /// Writes the mapping back and waits (msync(2) with `MS_SYNC`).
    ///
    /// # Errors
    /// As msync(2).
    pub fn sync(&self) -> Result<(), Errno> {
        // SAFETY: the range is this mapping, whole, which lives until `self` is dropped.
        unsafe { msync(self.address, self.len, MsFlags::MS_SYNC) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping, whole, and nobody else knows its address.
        let _ = unsafe { munmap(self.address, self.len) };
    }
}

extern "C" fn nothing(_signal: libc::c_int) {}

/// Runs a call in a thread that gets a signal every 20 ms until it is back. The signal has a
/// handler that does nothing and is not `SA_RESTART`, so a wait that can be interrupted answers
/// EINTR.
pub fn interrupted<T: Send>(call: impl FnOnce() -> T + Send) -> T {
    static HANDLER: Once = Once::new();
    HANDLER.call_once(|| {
        let action = SigAction::new(
            SigHandler::Handler(nothing),
            SaFlags::empty(),
            SigSet::empty(),
        );
        // SAFETY: the handler does nothing, so it is safe at any point of any thread.
        unsafe { sigaction(Signal::SIGUSR1, &action) }.expect("SIGUSR1 can be handled");
    });
    thread::scope(|scope| {
        let (name, named) = sync_channel(1);
        let (done, end) = sync_channel::<()>(1);
        let caller = scope.spawn(move || {
            let _done = done;
            // SAFETY: no argument, and it cannot fail.
            name.send(unsafe { libc::pthread_self() })
                .expect("the other side waits");
            call()
        });
        let thread = named.recv().expect("the thread says its name first");
        while end.recv_timeout(Duration::from_millis(20)) == Err(RecvTimeoutError::Timeout) {
            // SAFETY: the thread is joined below, so its name is good until then.
            unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
        }
        caller.join().expect("the call does not panic")
    })
}
