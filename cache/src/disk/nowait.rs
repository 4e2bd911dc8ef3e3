//! What can be had without waiting for the disk: bytes that the page cache holds, by preadv2(2)
//! with RWF_NOWAIT (nix 0.31 has no wrapper that takes flags), and files whose names and inodes
//! are in the kernel's caches, by openat2(2) with RESOLVE_CACHED (Linux 5.12).
//!
//! tmpfs refuses the flag with EOPNOTSUPP (its files lack FMODE_NOWAIT, mm/shmem.c), although its
//! pages are always in memory; there a plain pread(2) is as good.

#![allow(unsafe_code)] // preadv2 with flags has no safe wrapper in nix

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};

/// Fills `buf` from `offset` if all of it is in memory. What `buf` holds after a `false` is
/// undefined. Never waits for the disk.
pub(super) fn read_now(file: &File, offset: u64, buf: &mut [u8]) -> bool {
    if buf.is_empty() {
        return true;
    }
    let Ok(position) = libc::off_t::try_from(offset) else {
        return false;
    };
    let iov = libc::iovec {
        iov_base: buf.as_mut_ptr().cast(),
        iov_len: buf.len(),
    };
    // SAFETY: `iov` names the whole of `buf`, which this frame borrows mutably until the call
    // returns; the kernel keeps no pointer after that. `file` keeps the descriptor open.
    let read = unsafe {
        libc::preadv2(
            file.as_raw_fd(),
            &raw const iov,
            1,
            position,
            libc::RWF_NOWAIT,
        )
    };
    if read < 0 && Errno::last() == Errno::EOPNOTSUPP {
        return is_tmpfs(file) && file.read_exact_at(buf, offset).is_ok();
    }
    usize::try_from(read).is_ok_and(|read| read == buf.len())
}

/// Opens an existing file for reading and writing if the kernel knows it by heart. Never waits for
/// the disk.
pub(super) fn open_cached(path: &Path) -> Option<File> {
    // Not named by nix 0.31.
    let cached = ResolveFlag::from_bits_retain(libc::RESOLVE_CACHED);
    let how = OpenHow::new()
        .flags(OFlag::O_RDWR | OFlag::O_CLOEXEC)
        .resolve(cached);
    openat2(AT_FDCWD, path, how).ok().map(File::from)
}

pub(super) fn is_tmpfs(file: &File) -> bool {
    fstatfs(file).is_ok_and(|stat| stat.filesystem_type() == TMPFS_MAGIC)
}
