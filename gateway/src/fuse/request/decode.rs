//! The decoder: header, fixed struct and rest to a [`Request`]. Total and allocation-bounded: it
//! copies names and xattr values, never more than the request holds, and looks at nothing outside
//! the three pieces it is given.
//!
//! A short fixed struct is an error, not a guess: the kernel sends whole ones, and a handler must
//! not see an offset of 0 that nobody sent. What follows NUL-terminated names must be there as
//! well. Unknown opcodes are requests like others ([`Op::Unsupported`]), since the kernel waits for
//! their ENOSYS.

use std::fmt;

use zerocopy::FromBytes;

use super::op::{Caller, Name, Op, Request, SetAttr, Time, TimeOrNow};
use crate::fuse::abi::opcode;
use crate::fuse::abi::request::{
    AccessIn, CopyFileRangeIn, CreateIn, FLUSH_LAST, FSYNC_FDATASYNC, FallocateIn, FlushIn,
    FsyncIn, GETATTR_FH, GetattrIn, GetxattrIn, InHeader, LinkIn, LseekIn, MkdirIn, MknodIn,
    OpenIn, RELEASE_FLUSH, ReadIn, ReleaseIn, Rename2In, RenameIn, SetattrIn, SetxattrIn, StatxIn,
    WRITE_CACHE, WriteIn, fattr,
};

/// Why bytes are not a request. The answer to it is EIO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// The fixed struct is shorter than the operation's.
    Short,
    /// A name has no NUL, is empty or holds a `/`.
    Name,
    /// A length in the request reaches past its end.
    Length,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "the request is shorter than its operation's struct",
            Self::Name => "a name of the request is empty, holds a slash or does not end",
            Self::Length => "a length in the request reaches past its end",
        })
    }
}

impl std::error::Error for DecodeError {}

impl Request {
    /// Decodes a request. `op_in` begins with the operation's fixed struct (more may follow it, as
    /// in a slot's header area), `rest` is exactly what comes after it. The data of WRITE stay in
    /// `rest`.
    ///
    /// # Errors
    /// See [`DecodeError`]; the request's number is still in `header`, so it can be answered.
    pub fn decode(header: &InHeader, op_in: &[u8], rest: &[u8]) -> Result<Self, DecodeError> {
        let extensions = usize::from(header.total_extlen) * 8;
        let rest_len = rest
            .len()
            .checked_sub(extensions)
            .ok_or(DecodeError::Length)?;
        Ok(Self {
            unique: header.unique,
            ino: header.nodeid,
            caller: Caller {
                uid: header.uid,
                gid: header.gid,
                pid: header.pid,
            },
            op: decode_op(header.opcode, op_in, &rest[..rest_len])?,
        })
    }
}

#[allow(
    clippy::too_many_lines,
    reason = "a table: one arm for each operation, as long as its struct has fields"
)]
fn decode_op(number: u32, op_in: &[u8], rest: &[u8]) -> Result<Op, DecodeError> {
    let mut strings = Strings(rest);
    Ok(match number {
        opcode::LOOKUP => Op::Lookup {
            name: strings.component()?,
        },
        opcode::GETATTR => {
            let fixed: GetattrIn = fixed(op_in)?;
            Op::Getattr {
                fh: (fixed.getattr_flags & GETATTR_FH != 0).then_some(fixed.fh),
            }
        }
        opcode::SETATTR => Op::Setattr {
            set: set_attr(&fixed(op_in)?),
        },
        opcode::READLINK => Op::Readlink,
        opcode::SYMLINK => Op::Symlink {
            name: strings.component()?,
            target: strings.any()?,
        },
        opcode::MKNOD => {
            let fixed: MknodIn = fixed(op_in)?;
            Op::Mknod {
                name: strings.component()?,
                mode: fixed.mode,
                rdev: fixed.rdev,
                umask: fixed.umask,
            }
        }
        opcode::MKDIR => {
            let fixed: MkdirIn = fixed(op_in)?;
            Op::Mkdir {
                name: strings.component()?,
                mode: fixed.mode,
                umask: fixed.umask,
            }
        }
        opcode::UNLINK => Op::Unlink {
            name: strings.component()?,
        },
        opcode::RMDIR => Op::Rmdir {
            name: strings.component()?,
        },
        opcode::RENAME => {
            let fixed: RenameIn = fixed(op_in)?;
            Op::Rename {
                name: strings.component()?,
                new_parent: fixed.newdir,
                new_name: strings.component()?,
                flags: 0,
            }
        }
        opcode::RENAME2 => {
            let fixed: Rename2In = fixed(op_in)?;
            Op::Rename {
                name: strings.component()?,
                new_parent: fixed.newdir,
                new_name: strings.component()?,
                flags: fixed.flags,
            }
        }
        opcode::LINK => {
            let fixed: LinkIn = fixed(op_in)?;
            Op::Link {
                ino: fixed.oldnodeid,
                new_name: strings.component()?,
            }
        }
        opcode::OPEN => Op::Open {
            flags: fixed::<OpenIn>(op_in)?.flags,
        },
        opcode::READ => {
            let fixed: ReadIn = fixed(op_in)?;
            Op::Read {
                fh: fixed.fh,
                offset: fixed.offset,
                size: fixed.size,
                flags: fixed.flags,
            }
        }
        opcode::WRITE => {
            let fixed: WriteIn = fixed(op_in)?;
            if fixed.size as usize > rest.len() {
                return Err(DecodeError::Length);
            }
            Op::Write {
                fh: fixed.fh,
                offset: fixed.offset,
                size: fixed.size,
                cached: fixed.write_flags & WRITE_CACHE != 0,
                flags: fixed.flags,
            }
        }
        opcode::STATFS => Op::Statfs,
        opcode::RELEASE => {
            let fixed: ReleaseIn = fixed(op_in)?;
            Op::Release {
                fh: fixed.fh,
                flags: fixed.flags,
                flush: fixed.release_flags & RELEASE_FLUSH != 0,
                lock_owner: fixed.lock_owner,
            }
        }
        opcode::FSYNC => {
            let fixed: FsyncIn = fixed(op_in)?;
            Op::Fsync {
                fh: fixed.fh,
                datasync: fixed.fsync_flags & FSYNC_FDATASYNC != 0,
            }
        }
        opcode::SETXATTR => {
            let fixed: SetxattrIn = fixed(op_in)?;
            Op::Setxattr {
                name: strings.any()?,
                value: strings.bytes(fixed.size as usize)?,
                flags: fixed.flags,
            }
        }
        opcode::GETXATTR => {
            let fixed: GetxattrIn = fixed(op_in)?;
            Op::Getxattr {
                name: strings.any()?,
                size: fixed.size,
            }
        }
        opcode::LISTXATTR => Op::Listxattr {
            size: fixed::<GetxattrIn>(op_in)?.size,
        },
        opcode::REMOVEXATTR => Op::Removexattr {
            name: strings.any()?,
        },
        opcode::FLUSH => {
            let fixed: FlushIn = fixed(op_in)?;
            Op::Flush {
                fh: fixed.fh,
                lock_owner: fixed.lock_owner,
                last: fixed.flush_flags & FLUSH_LAST != 0,
            }
        }
        opcode::OPENDIR => Op::Opendir {
            flags: fixed::<OpenIn>(op_in)?.flags,
        },
        opcode::READDIR => {
            let fixed: ReadIn = fixed(op_in)?;
            Op::Readdir {
                fh: fixed.fh,
                offset: fixed.offset,
                size: fixed.size,
            }
        }
        opcode::READDIRPLUS => {
            let fixed: ReadIn = fixed(op_in)?;
            Op::Readdirplus {
                fh: fixed.fh,
                offset: fixed.offset,
                size: fixed.size,
            }
        }
        opcode::RELEASEDIR => Op::Releasedir {
            fh: fixed::<ReleaseIn>(op_in)?.fh,
        },
        opcode::FSYNCDIR => {
            let fixed: FsyncIn = fixed(op_in)?;
            Op::Fsyncdir {
                fh: fixed.fh,
                datasync: fixed.fsync_flags & FSYNC_FDATASYNC != 0,
            }
        }
        opcode::ACCESS => Op::Access {
            mask: fixed::<AccessIn>(op_in)?.mask,
        },
        opcode::CREATE => {
            let fixed: CreateIn = fixed(op_in)?;
            Op::Create {
                name: strings.component()?,
                mode: fixed.mode,
                flags: fixed.flags,
                umask: fixed.umask,
            }
        }
        opcode::FALLOCATE => {
            let fixed: FallocateIn = fixed(op_in)?;
            Op::Fallocate {
                fh: fixed.fh,
                offset: fixed.offset,
                length: fixed.length,
                mode: fixed.mode,
            }
        }
        opcode::LSEEK => {
            let fixed: LseekIn = fixed(op_in)?;
            Op::Lseek {
                fh: fixed.fh,
                offset: fixed.offset,
                whence: fixed.whence,
            }
        }
        opcode::COPY_FILE_RANGE | opcode::COPY_FILE_RANGE_64 => {
            let fixed: CopyFileRangeIn = fixed(op_in)?;
            Op::CopyFileRange {
                fh: fixed.fh_in,
                offset: fixed.off_in,
                new_ino: fixed.nodeid_out,
                new_fh: fixed.fh_out,
                new_offset: fixed.off_out,
                length: fixed.len,
                flags: fixed.flags,
                wide: number == opcode::COPY_FILE_RANGE_64,
            }
        }
        opcode::SYNCFS => Op::Syncfs,
        opcode::TMPFILE => {
            let fixed: CreateIn = fixed(op_in)?;
            Op::Tmpfile {
                mode: fixed.mode,
                flags: fixed.flags,
                umask: fixed.umask,
            }
        }
        opcode::STATX => {
            let fixed: StatxIn = fixed(op_in)?;
            Op::Statx {
                fh: (fixed.getattr_flags & GETATTR_FH != 0).then_some(fixed.fh),
                flags: fixed.sx_flags,
                mask: fixed.sx_mask,
            }
        }
        opcode => Op::Unsupported { opcode },
    })
}

fn fixed<T: FromBytes>(op_in: &[u8]) -> Result<T, DecodeError> {
    T::read_from_prefix(op_in)
        .map(|(value, _)| value)
        .map_err(|_| DecodeError::Short)
}

fn set_attr(fixed: &SetattrIn) -> SetAttr {
    let has = |bit: u32| fixed.valid & bit != 0;
    let time = |seconds: u64, nanoseconds: u32| Time {
        seconds: seconds as i64,
        nanoseconds: nanoseconds.min(999_999_999),
    };
    let time_or_now = |bit: u32, now: u32, at: Time| {
        if has(now) {
            Some(TimeOrNow::Now)
        } else {
            has(bit).then_some(TimeOrNow::Time(at))
        }
    };
    SetAttr {
        fh: has(fattr::FH).then_some(fixed.fh),
        mode: has(fattr::MODE).then_some(fixed.mode),
        uid: has(fattr::UID).then_some(fixed.uid),
        gid: has(fattr::GID).then_some(fixed.gid),
        size: has(fattr::SIZE).then_some(fixed.size),
        atime: time_or_now(
            fattr::ATIME,
            fattr::ATIME_NOW,
            time(fixed.atime, fixed.atimensec),
        ),
        mtime: time_or_now(
            fattr::MTIME,
            fattr::MTIME_NOW,
            time(fixed.mtime, fixed.mtimensec),
        ),
        ctime: has(fattr::CTIME).then_some(time(fixed.ctime, fixed.ctimensec)),
    }
}

/// What follows the fixed struct: NUL-terminated strings, then bytes.
struct Strings<'a>(&'a [u8]);

impl Strings<'_> {
    /// The next string, whatever is in it.
    fn any(&mut self) -> Result<Name, DecodeError> {
        let end = self
            .0
            .iter()
            .position(|byte| *byte == 0)
            .ok_or(DecodeError::Name)?;
        let name = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Ok(name.into())
    }

    /// The next string as one component of a path.
    fn component(&mut self) -> Result<Name, DecodeError> {
        let name = self.any()?;
        if name.is_empty() || name.contains(&b'/') {
            return Err(DecodeError::Name);
        }
        Ok(name)
    }

    /// The next `len` bytes.
    fn bytes(&mut self, len: usize) -> Result<Box<[u8]>, DecodeError> {
        let bytes = self.0.get(..len).ok_or(DecodeError::Length)?;
        self.0 = &self.0[len..];
        Ok(bytes.into())
    }
}
