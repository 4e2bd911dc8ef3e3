//! The ioctls of `/dev/fuse`, which have no safe form elsewhere.

#![allow(
    unsafe_code,
    reason = "ioctl(2) takes a pointer; each call here passes one to a live integer of its own"
)]

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

/// FUSE_DEV_IOC_MAGIC.
const MAGIC: u8 = 229;

nix::ioctl_read!(fuse_dev_ioc_clone, MAGIC, 0, u32);
nix::ioctl_write_ptr!(fuse_dev_ioc_backing_close, MAGIC, 2, u32);

/// Another descriptor of the same connection with a request list of its own, so that readers do
/// not share one. Never waits.
///
/// # Errors
/// `/dev/fuse` cannot be opened, or the kernel refused.
pub(crate) fn clone_device(fd: BorrowedFd<'_>) -> std::io::Result<OwnedFd> {
    let device: File = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open("/dev/fuse")?;
    let mut source = fd.as_raw_fd() as u32;
    // SAFETY: the kernel reads one u32 through the pointer, `source`, which lives past the call.
    unsafe { fuse_dev_ioc_clone(device.as_raw_fd(), &raw mut source) }?;
    Ok(device.into())
}

/// Closes a backing file to the kernel. Never waits.
///
/// # Errors
/// There is no such id, or the connection has ended.
pub(crate) fn close_backing(fd: BorrowedFd<'_>, id: i32) -> nix::Result<()> {
    let id = id as u32;
    // SAFETY: the kernel reads one u32 through the pointer, `id`, which lives past the call.
    unsafe { fuse_dev_ioc_backing_close(fd.as_raw_fd(), &raw const id) }.map(drop)
}
