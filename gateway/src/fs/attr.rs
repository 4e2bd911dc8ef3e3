//! What stat(2) shows of a file, and the kernel's form of it. How it travels with an object is
//! [`metadata`](super::metadata)'s.
//!
//! Whatever changes of an object, by whomever, the store's time of it changes: it is the status change
//! time and need not be published. Nobody counts reads: the access time is what somebody set, or else the
//! modification time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::fuse::abi::{Attr, EntryOut};
use crate::fuse::request::{Time, TimeOrNow};

/// What is told of a file's preferred I/O size (`st_blksize`): the kernel's own readahead.
const BLOCK_SIZE: u32 = 128 << 10;

/// What a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An object.
    File,
    /// A prefix.
    Directory,
    /// An object that holds another name.
    Symlink,
    /// An empty object that processes of one machine meet at.
    Fifo,
    /// The same, for sockets.
    Socket,
}

impl Kind {
    /// The `S_IFMT` bits.
    pub fn mode_bits(self) -> u32 {
        match self {
            Kind::File => libc::S_IFREG,
            Kind::Directory => libc::S_IFDIR,
            Kind::Symlink => libc::S_IFLNK,
            Kind::Fifo => libc::S_IFIFO,
            Kind::Socket => libc::S_IFSOCK,
        }
    }

    /// The `DT_*` value of readdir(3).
    pub fn dirent(self) -> u32 {
        u32::from(match self {
            Kind::File => libc::DT_REG,
            Kind::Directory => libc::DT_DIR,
            Kind::Symlink => libc::DT_LNK,
            Kind::Fifo => libc::DT_FIFO,
            Kind::Socket => libc::DT_SOCK,
        })
    }
}

/// Mode and owners that a mount gives to what has none of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits of files.
    pub file_mode: u32,
    /// Permission bits of directories.
    pub dir_mode: u32,
}

/// What stat(2) shows of one file, but for its inode number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileAttr {
    /// What it is.
    pub kind: Kind,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last access, if somebody set it; else it is shown as the last modification.
    pub atime: Option<SystemTime>,
    /// Last modification.
    pub mtime: SystemTime,
    /// Last change of anything that is shown here.
    pub ctime: SystemTime,
}

impl FileAttr {
    /// A directory with the mount's defaults.
    pub fn directory(defaults: &Defaults, mtime: SystemTime) -> Self {
        Self {
            kind: Kind::Directory,
            size: 0,
            mode: defaults.dir_mode,
            uid: defaults.uid,
            gid: defaults.gid,
            atime: None,
            mtime,
            ctime: mtime,
        }
    }

    /// An object, its metadata not known or without attributes.
    pub fn file(defaults: &Defaults, size: u64, modified: SystemTime) -> Self {
        Self {
            kind: Kind::File,
            size,
            mode: defaults.file_mode,
            uid: defaults.uid,
            gid: defaults.gid,
            atime: None,
            mtime: modified,
            ctime: modified,
        }
    }

    /// What the kernel decides by who may do what: mode, owner and group.
    pub fn access(&self) -> (u32, u32, u32) {
        (self.mode, self.uid, self.gid)
    }

    /// Something of the file changed, but not its bytes.
    pub fn change(&mut self, now: SystemTime) {
        self.ctime = now;
    }

    /// The file's bytes changed, or a directory's names.
    pub fn modify(&mut self, now: SystemTime) {
        (self.mtime, self.ctime) = (now, now);
    }

    /// The kernel's form.
    pub fn to_wire(self, ino: u64) -> Attr {
        let (atime, atimensec) = since_epoch(self.atime.unwrap_or(self.mtime));
        let (mtime, mtimensec) = since_epoch(self.mtime);
        let (ctime, ctimensec) = since_epoch(self.ctime);
        Attr {
            ino,
            size: self.size,
            blocks: self.size.div_ceil(512),
            atime: atime as u64,
            mtime: mtime as u64,
            ctime: ctime as u64,
            atimensec,
            mtimensec,
            ctimensec,
            mode: self.kind.mode_bits() | self.mode,
            nlink: match self.kind {
                Kind::Directory => 2,
                Kind::File | Kind::Symlink | Kind::Fifo | Kind::Socket => 1,
            },
            uid: self.uid,
            gid: self.gid,
            rdev: 0,
            blksize: BLOCK_SIZE,
            flags: 0,
        }
    }

    /// An answer to LOOKUP, believed for `valid`.
    pub fn to_entry(self, ino: u64, valid: Duration) -> EntryOut {
        EntryOut {
            nodeid: ino,
            generation: 0,
            entry_valid: valid.as_secs(),
            attr_valid: valid.as_secs(),
            entry_valid_nsec: valid.subsec_nanos(),
            attr_valid_nsec: valid.subsec_nanos(),
            attr: self.to_wire(ino),
        }
    }
}

/// A negative dentry, believed for `valid`.
pub fn negative_entry(valid: Duration) -> EntryOut {
    EntryOut {
        entry_valid: valid.as_secs(),
        entry_valid_nsec: valid.subsec_nanos(),
        ..EntryOut::default()
    }
}

/// A time of SETATTR as the clock has it.
pub fn resolve(time: TimeOrNow, now: SystemTime) -> SystemTime {
    match time {
        TimeOrNow::Now => now,
        TimeOrNow::Time(time) => from_time(time),
    }
}

/// A time of the kernel as the clock has it.
pub(in crate::fs) fn from_time(time: Time) -> SystemTime {
    let whole = Duration::from_secs(time.seconds.unsigned_abs());
    let base = if time.seconds < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    base.and_then(|base| base.checked_add(Duration::from_nanos(time.nanoseconds.into())))
        .unwrap_or(UNIX_EPOCH)
}

/// Seconds since the epoch, negative before it, and nanoseconds, never negative.
pub(in crate::fs) fn since_epoch(time: SystemTime) -> (i64, u32) {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (after.as_secs() as i64, after.subsec_nanos()),
        Err(error) => {
            let before = error.duration();
            match before.subsec_nanos() {
                0 => (-(before.as_secs() as i64), 0),
                nanos => (-(before.as_secs() as i64) - 1, 1_000_000_000 - nanos),
            }
        }
    }
}
