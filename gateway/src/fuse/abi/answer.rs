//! The structs of answers and notifications, and the flags that go with them.

use super::wire::wire;

/// The inode number of the mount's root directory.
pub const ROOT_ID: u64 = 1;

wire! {
    /// `struct fuse_attr`: what stat(2) shows.
    Attr [88] {
        ino: u64,
        size: u64,
        blocks: u64,
        atime: u64,
        mtime: u64,
        ctime: u64,
        atimensec: u32,
        mtimensec: u32,
        ctimensec: u32,
        mode: u32,
        nlink: u32,
        uid: u32,
        gid: u32,
        rdev: u32,
        blksize: u32,
        flags: u32,
    }

    /// `struct fuse_entry_out`: a name found, and for how long that may be believed.
    EntryOut [128] {
        nodeid: u64,
        generation: u64,
        entry_valid: u64,
        attr_valid: u64,
        entry_valid_nsec: u32,
        attr_valid_nsec: u32,
        attr: Attr,
    }

    /// `struct fuse_attr_out`: attributes, and for how long they may be believed.
    AttrOut [104] {
        attr_valid: u64,
        attr_valid_nsec: u32,
        dummy: u32,
        attr: Attr,
    }

    /// `struct fuse_open_out`: a handle, FOPEN_* flags, a backing id for passthrough.
    OpenOut [16] {
        fh: u64,
        open_flags: u32,
        backing_id: i32,
    }

    /// `struct fuse_entry_out` and `struct fuse_open_out`, as CREATE and TMPFILE answer.
    CreateOut [144] {
        entry: EntryOut,
        open: OpenOut,
    }

    /// `struct fuse_write_out`.
    WriteOut [8] {
        size: u32,
        padding: u32,
    }

    /// `struct fuse_copy_file_range_out` (7.45).
    CopyFileRangeOut [8] {
        bytes_copied: u64,
    }

    /// `struct fuse_kstatfs`.
    StatfsOut [80] {
        blocks: u64,
        bfree: u64,
        bavail: u64,
        files: u64,
        ffree: u64,
        bsize: u32,
        namelen: u32,
        frsize: u32,
        padding: u32,
        spare: [u32; 6],
    }

    /// `struct fuse_lseek_out`.
    LseekOut [8] {
        offset: u64,
    }

    /// `struct fuse_getxattr_out`.
    GetxattrOut [8] {
        size: u32,
        padding: u32,
    }

    /// `struct fuse_sx_time`.
    SxTime [16] {
        tv_sec: i64,
        tv_nsec: u32,
        reserved: i32,
    }

    /// `struct fuse_statx`: what statx(2) shows.
    Statx [256] {
        mask: u32,
        blksize: u32,
        attributes: u64,
        nlink: u32,
        uid: u32,
        gid: u32,
        mode: u16,
        spare0: u16,
        ino: u64,
        size: u64,
        blocks: u64,
        attributes_mask: u64,
        atime: SxTime,
        btime: SxTime,
        ctime: SxTime,
        mtime: SxTime,
        rdev_major: u32,
        rdev_minor: u32,
        dev_major: u32,
        dev_minor: u32,
        spare2: [u64; 14],
    }

    /// `struct fuse_statx_out`.
    StatxOut [288] {
        attr_valid: u64,
        attr_valid_nsec: u32,
        flags: u32,
        spare: [u64; 2],
        stat: Statx,
    }

    /// `struct fuse_out_header`: before every answer. `error` is 0 or a negative errno.
    OutHeader [16] {
        len: u32,
        error: i32,
        unique: u64,
    }

    /// `struct fuse_notify_prune_out`: `count` inode numbers follow.
    NotifyPruneOut [16] {
        count: u32,
        padding: u32,
        spare: u64,
    }

    /// `struct fuse_dirent` without its name.
    Dirent [24] {
        ino: u64,
        off: u64,
        namelen: u32,
        kind: u32,
    }
}

/// STATX_BASIC_STATS of `<linux/stat.h>`: all that stat(2) shows.
pub const STATX_BASIC_STATS: u32 = 0x7ff;

/// FUSE_NOTIFY_PRUNE, as `error` in a header without a number: inodes to be forgotten (since 7.45).
pub const NOTIFY_PRUNE: i32 = 9;
/// FOPEN_DIRECT_IO: reads and writes come as they are made, past the page cache.
pub const FOPEN_DIRECT_IO: u32 = 1 << 0;
/// FOPEN_KEEP_CACHE: the kernel keeps the pages that it has of this inode.
pub const FOPEN_KEEP_CACHE: u32 = 1 << 1;
/// FOPEN_NONSEEKABLE: lseek(2) fails on the handle.
pub const FOPEN_NONSEEKABLE: u32 = 1 << 2;
/// FOPEN_CACHE_DIR: the kernel may cache this directory's entries.
pub const FOPEN_CACHE_DIR: u32 = 1 << 3;
/// FOPEN_NOFLUSH: no FLUSH is wanted for this handle.
pub const FOPEN_NOFLUSH: u32 = 1 << 5;
/// FOPEN_PARALLEL_DIRECT_WRITES: direct writes of one inode need no order among them.
pub const FOPEN_PARALLEL_DIRECT_WRITES: u32 = 1 << 6;
/// FOPEN_PASSTHROUGH: reads and writes go to the backing file.
pub const FOPEN_PASSTHROUGH: u32 = 1 << 7;
/// FOPEN_SYNC_RELEASE of `kernel/patches`: whoever gives up the last reference waits until RELEASE is
/// answered. Stock kernels do not look at the bit.
pub const FOPEN_SYNC_RELEASE: u32 = 1 << 30;

const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(Attr, atimensec) == 48 && offset_of!(Attr, mode) == 60);
    assert!(offset_of!(Attr, blksize) == 80 && offset_of!(Attr, flags) == 84);
    assert!(offset_of!(EntryOut, entry_valid_nsec) == 32 && offset_of!(EntryOut, attr) == 40);
    assert!(offset_of!(AttrOut, attr) == 16);
    assert!(offset_of!(OpenOut, open_flags) == 8 && offset_of!(OpenOut, backing_id) == 12);
    assert!(offset_of!(CreateOut, open) == 128);
    assert!(offset_of!(StatfsOut, bsize) == 40 && offset_of!(StatfsOut, spare) == 56);
    assert!(offset_of!(Statx, mode) == 28 && offset_of!(Statx, ino) == 32);
    assert!(offset_of!(Statx, atime) == 64 && offset_of!(Statx, mtime) == 112);
    assert!(offset_of!(Statx, rdev_major) == 128 && offset_of!(Statx, spare2) == 144);
    assert!(offset_of!(StatxOut, stat) == 32);
    assert!(offset_of!(OutHeader, error) == 4 && offset_of!(OutHeader, unique) == 8);
    assert!(offset_of!(NotifyPruneOut, spare) == 8);
    assert!(offset_of!(Dirent, namelen) == 16 && offset_of!(Dirent, kind) == 20);
};
