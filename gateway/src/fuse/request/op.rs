//! A request as a value: who asks, of which inode, for what.

/// One component of a path as the kernel sent it: no NUL, no `/`, not necessarily UTF-8.
pub type Name = Box<[u8]>;

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Caller {
    /// The caller's filesystem user id.
    pub uid: u32,
    /// The caller's filesystem group id.
    pub gid: u32,
    /// The caller's process id, 0 when it lives in another PID namespace. For logs only.
    pub pid: u32,
}

/// One request of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The kernel's number of this request.
    pub unique: u64,
    /// The inode it is about; 0 where the operation has none.
    pub ino: u64,
    /// Who asked.
    pub caller: Caller,
    /// What is asked.
    pub op: Op,
}

/// What SETATTR changes; `None` stays as it is. Times are since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SetAttr {
    /// The handle that ftruncate(2) came through.
    pub fh: Option<u64>,
    /// Permission bits and type, as in `st_mode`.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Time of last access.
    pub atime: Option<TimeOrNow>,
    /// Time of last modification.
    pub mtime: Option<TimeOrNow>,
    /// Time of last status change.
    pub ctime: Option<Time>,
}

/// Seconds and nanoseconds since the epoch, as the kernel counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Time {
    /// Seconds since the epoch; negative before it.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// A time that was named, or the server's now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeOrNow {
    /// This time.
    Time(Time),
    /// When it is served.
    Now,
}

/// What is asked. Fields carry the names and units of `<linux/fuse.h>`; `flags` of open are those
/// of open(2).
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of <linux/fuse.h>")]
pub enum Op {
    Lookup {
        name: Name,
    },
    Getattr {
        fh: Option<u64>,
    },
    Setattr {
        set: SetAttr,
    },
    Readlink,
    Symlink {
        name: Name,
        target: Name,
    },
    Mknod {
        name: Name,
        mode: u32,
        rdev: u32,
        umask: u32,
    },
    Mkdir {
        name: Name,
        mode: u32,
        umask: u32,
    },
    Unlink {
        name: Name,
    },
    Rmdir {
        name: Name,
    },
    /// RENAME and RENAME2; `flags` are those of renameat2(2).
    Rename {
        name: Name,
        new_parent: u64,
        new_name: Name,
        flags: u32,
    },
    Link {
        ino: u64,
        new_name: Name,
    },
    Open {
        flags: u32,
    },
    Read {
        fh: u64,
        offset: u64,
        size: u32,
        flags: u32,
    },
    /// The data are in [`Responder::data`](crate::fuse::Responder::data). `cached` is
    /// FUSE_WRITE_CACHE: pages that mmap or the page cache dirtied, written by whom is unknown.
    Write {
        fh: u64,
        offset: u64,
        size: u32,
        cached: bool,
        flags: u32,
    },
    Statfs,
    Release {
        fh: u64,
        flags: u32,
        flush: bool,
        lock_owner: u64,
    },
    Fsync {
        fh: u64,
        datasync: bool,
    },
    Setxattr {
        name: Name,
        value: Box<[u8]>,
        flags: u32,
    },
    Getxattr {
        name: Name,
        size: u32,
    },
    Listxattr {
        size: u32,
    },
    Removexattr {
        name: Name,
    },
    /// `last` is FUSE_FLUSH_LAST of `kernel/patches`; always false on stock kernels.
    Flush {
        fh: u64,
        lock_owner: u64,
        last: bool,
    },
    Opendir {
        flags: u32,
    },
    Readdir {
        fh: u64,
        offset: u64,
        size: u32,
    },
    Readdirplus {
        fh: u64,
        offset: u64,
        size: u32,
    },
    Releasedir {
        fh: u64,
    },
    Fsyncdir {
        fh: u64,
        datasync: bool,
    },
    Access {
        mask: u32,
    },
    Create {
        name: Name,
        mode: u32,
        flags: u32,
        umask: u32,
    },
    Fallocate {
        fh: u64,
        offset: u64,
        length: u64,
        mode: u32,
    },
    Lseek {
        fh: u64,
        offset: u64,
        whence: u32,
    },
    /// COPY_FILE_RANGE and COPY_FILE_RANGE_64. `wide` tells which answer is wanted.
    CopyFileRange {
        fh: u64,
        offset: u64,
        new_ino: u64,
        new_fh: u64,
        new_offset: u64,
        length: u64,
        flags: u64,
        wide: bool,
    },
    Syncfs,
    Tmpfile {
        mode: u32,
        flags: u32,
        umask: u32,
    },
    Statx {
        fh: Option<u64>,
        flags: u32,
        mask: u32,
    },
    /// An opcode of 7.45 that ackfs does not serve, or one that it does not know.
    Unsupported {
        opcode: u32,
    },
}
