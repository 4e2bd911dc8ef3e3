//! The fixed structs that begin a request, one for each operation that has one.

use super::wire::wire;

wire! {
    /// `struct fuse_in_header`: before every request.
    InHeader [40] {
        len: u32,
        opcode: u32,
        unique: u64,
        nodeid: u64,
        uid: u32,
        gid: u32,
        pid: u32,
        total_extlen: u16,
        padding: u16,
    }

    /// `struct fuse_forget_in`.
    ForgetIn [8] { nlookup: u64 }

    /// `struct fuse_forget_one`: one of many in BATCH_FORGET.
    ForgetOne [16] { nodeid: u64, nlookup: u64 }

    /// `struct fuse_batch_forget_in`.
    BatchForgetIn [8] { count: u32, dummy: u32 }

    /// `struct fuse_getattr_in`.
    GetattrIn [16] { getattr_flags: u32, dummy: u32, fh: u64 }

    /// `struct fuse_setattr_in`.
    SetattrIn [88] {
        valid: u32,
        padding: u32,
        fh: u64,
        size: u64,
        lock_owner: u64,
        atime: u64,
        mtime: u64,
        ctime: u64,
        atimensec: u32,
        mtimensec: u32,
        ctimensec: u32,
        mode: u32,
        unused4: u32,
        uid: u32,
        gid: u32,
        unused5: u32,
    }

    /// `struct fuse_mknod_in`.
    MknodIn [16] { mode: u32, rdev: u32, umask: u32, padding: u32 }

    /// `struct fuse_mkdir_in`.
    MkdirIn [8] { mode: u32, umask: u32 }

    /// `struct fuse_rename_in`.
    RenameIn [8] { newdir: u64 }

    /// `struct fuse_rename2_in`.
    Rename2In [16] { newdir: u64, flags: u32, padding: u32 }

    /// `struct fuse_link_in`.
    LinkIn [8] { oldnodeid: u64 }

    /// `struct fuse_open_in`.
    OpenIn [8] { flags: u32, open_flags: u32 }

    /// `struct fuse_create_in`: CREATE and TMPFILE.
    CreateIn [16] { flags: u32, mode: u32, umask: u32, open_flags: u32 }

    /// `struct fuse_read_in`: READ, READDIR and READDIRPLUS.
    ReadIn [40] {
        fh: u64,
        offset: u64,
        size: u32,
        read_flags: u32,
        lock_owner: u64,
        flags: u32,
        padding: u32,
    }

    /// `struct fuse_write_in`.
    WriteIn [40] {
        fh: u64,
        offset: u64,
        size: u32,
        write_flags: u32,
        lock_owner: u64,
        flags: u32,
        padding: u32,
    }

    /// `struct fuse_release_in`.
    ReleaseIn [24] { fh: u64, flags: u32, release_flags: u32, lock_owner: u64 }

    /// `struct fuse_flush_in`. `flush_flags` is `unused` in stock kernels and 0 there; the carried
    /// patches put FUSE_FLUSH_LAST into it.
    FlushIn [24] { fh: u64, flush_flags: u32, padding: u32, lock_owner: u64 }

    /// `struct fuse_fsync_in`.
    FsyncIn [16] { fh: u64, fsync_flags: u32, padding: u32 }

    /// `struct fuse_setxattr_in` without its extension (FUSE_COMPAT_SETXATTR_IN_SIZE).
    SetxattrIn [8] { size: u32, flags: u32 }

    /// `struct fuse_getxattr_in`: GETXATTR and LISTXATTR.
    GetxattrIn [8] { size: u32, padding: u32 }

    /// `struct fuse_access_in`.
    AccessIn [8] { mask: u32, padding: u32 }

    /// `struct fuse_interrupt_in`.
    InterruptIn [8] { unique: u64 }

    /// `struct fuse_fallocate_in`.
    FallocateIn [32] { fh: u64, offset: u64, length: u64, mode: u32, padding: u32 }

    /// `struct fuse_lseek_in`.
    LseekIn [24] { fh: u64, offset: u64, whence: u32, padding: u32 }

    /// `struct fuse_copy_file_range_in`.
    CopyFileRangeIn [56] {
        fh_in: u64,
        off_in: u64,
        nodeid_out: u64,
        fh_out: u64,
        off_out: u64,
        len: u64,
        flags: u64,
    }

    /// `struct fuse_statx_in`.
    StatxIn [24] { getattr_flags: u32, reserved: u32, fh: u64, sx_flags: u32, sx_mask: u32 }
}

/// `valid` bits of [`SetattrIn`]: FATTR_MODE and so on.
#[allow(missing_docs, reason = "FATTR_* of <linux/fuse.h>")]
pub mod fattr {
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const FH: u32 = 1 << 6;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    pub const CTIME: u32 = 1 << 10;
}

/// FUSE_GETATTR_FH: the handle of [`GetattrIn`] or [`StatxIn`] is valid.
pub const GETATTR_FH: u32 = 1 << 0;
/// FUSE_RELEASE_FLUSH.
pub const RELEASE_FLUSH: u32 = 1 << 0;
/// FUSE_WRITE_CACHE: the pages come from the page cache; the handle is guessed.
pub const WRITE_CACHE: u32 = 1 << 0;
/// FUSE_FSYNC_FDATASYNC.
pub const FSYNC_FDATASYNC: u32 = 1 << 0;
/// FUSE_FLUSH_LAST of `kernel/patches`: no other reference to the open file is left, so RELEASE is
/// what comes next of it. Never set where one is left; sometimes not set where none is (a mapping or a
/// request in flight held the file, or two tasks closed the last two descriptors at once).
pub const FLUSH_LAST: u32 = 1 << 0;

const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(InHeader, unique) == 8 && offset_of!(InHeader, nodeid) == 16);
    assert!(offset_of!(InHeader, pid) == 32 && offset_of!(InHeader, total_extlen) == 36);
    assert!(offset_of!(GetattrIn, fh) == 8);
    assert!(offset_of!(SetattrIn, size) == 16 && offset_of!(SetattrIn, atime) == 32);
    assert!(offset_of!(SetattrIn, mode) == 68 && offset_of!(SetattrIn, uid) == 76);
    assert!(offset_of!(Rename2In, flags) == 8);
    assert!(offset_of!(CreateIn, mode) == 4 && offset_of!(CreateIn, open_flags) == 12);
    assert!(offset_of!(ReadIn, size) == 16 && offset_of!(ReadIn, flags) == 32);
    assert!(offset_of!(WriteIn, write_flags) == 20 && offset_of!(WriteIn, flags) == 32);
    assert!(offset_of!(ReleaseIn, release_flags) == 12 && offset_of!(ReleaseIn, lock_owner) == 16);
    assert!(offset_of!(FlushIn, flush_flags) == 8 && offset_of!(FlushIn, lock_owner) == 16);
    assert!(offset_of!(FallocateIn, mode) == 24);
    assert!(offset_of!(LseekIn, whence) == 16);
    assert!(offset_of!(CopyFileRangeIn, nodeid_out) == 16);
    assert!(offset_of!(CopyFileRangeIn, len) == 40);
    assert!(offset_of!(StatxIn, fh) == 8 && offset_of!(StatxIn, sx_mask) == 20);
};
