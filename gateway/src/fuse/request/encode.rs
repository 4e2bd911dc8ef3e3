//! The kernel's half for tests: a [`Request`] to the three pieces that the decoder takes.

use zerocopy::IntoBytes;

use super::op::{Op, Request, SetAttr, TimeOrNow};
use crate::fuse::abi::opcode;
use crate::fuse::abi::request::{
    AccessIn, CopyFileRangeIn, CreateIn, FallocateIn, FlushIn, FsyncIn, GetattrIn, GetxattrIn,
    InHeader, LinkIn, LseekIn, MkdirIn, MknodIn, OpenIn, ReadIn, ReleaseIn, Rename2In, SetattrIn,
    SetxattrIn, StatxIn, WriteIn, fattr,
};

/// Header, fixed struct, rest.
pub(crate) type EncodedRequest = (InHeader, Vec<u8>, Vec<u8>);

/// The bytes a kernel would send for `request`; WRITE gets zeros as data.
pub(crate) fn encode(request: &Request) -> EncodedRequest {
    let (opcode, op_in, rest) = encode_op(&request.op);
    let header = InHeader {
        len: (size_of::<InHeader>() + op_in.len() + rest.len()) as u32,
        opcode,
        unique: request.unique,
        nodeid: request.ino,
        uid: request.caller.uid,
        gid: request.caller.gid,
        pid: request.caller.pid,
        total_extlen: 0,
        padding: 0,
    };
    (header, op_in, rest)
}

fn strings(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(part);
        bytes.push(0);
    }
    bytes
}

fn fixed(value: impl IntoBytes + zerocopy::Immutable) -> Vec<u8> {
    value.as_bytes().to_vec()
}

#[allow(
    clippy::too_many_lines,
    reason = "a table: one arm for each operation, as long as its struct has fields"
)]
fn encode_op(op: &Op) -> (u32, Vec<u8>, Vec<u8>) {
    let none = Vec::new;
    match op {
        Op::Lookup { name } => (opcode::LOOKUP, none(), strings(&[name])),
        Op::Getattr { fh } => (
            opcode::GETATTR,
            fixed(GetattrIn {
                getattr_flags: u32::from(fh.is_some()),
                dummy: 0,
                fh: fh.unwrap_or(0),
            }),
            none(),
        ),
        Op::Setattr { set } => (opcode::SETATTR, fixed(setattr_in(set)), none()),
        Op::Readlink => (opcode::READLINK, none(), none()),
        Op::Symlink { name, target } => (opcode::SYMLINK, none(), strings(&[name, target])),
        Op::Mknod {
            name,
            mode,
            rdev,
            umask,
        } => (
            opcode::MKNOD,
            fixed(MknodIn {
                mode: *mode,
                rdev: *rdev,
                umask: *umask,
                padding: 0,
            }),
            strings(&[name]),
        ),
        Op::Mkdir { name, mode, umask } => (
            opcode::MKDIR,
            fixed(MkdirIn {
                mode: *mode,
                umask: *umask,
            }),
            strings(&[name]),
        ),
        Op::Unlink { name } => (opcode::UNLINK, none(), strings(&[name])),
        Op::Rmdir { name } => (opcode::RMDIR, none(), strings(&[name])),
        Op::Rename {
            name,
            new_parent,
            new_name,
            flags,
        } => (
            opcode::RENAME2,
            fixed(Rename2In {
                newdir: *new_parent,
                flags: *flags,
                padding: 0,
            }),
            strings(&[name, new_name]),
        ),
        Op::Link { ino, new_name } => (
            opcode::LINK,
            fixed(LinkIn { oldnodeid: *ino }),
            strings(&[new_name]),
        ),
        Op::Open { flags } => (opcode::OPEN, open(*flags), none()),
        Op::Opendir { flags } => (opcode::OPENDIR, open(*flags), none()),
        Op::Read {
            fh,
            offset,
            size,
            flags,
        } => (opcode::READ, read(*fh, *offset, *size, *flags), none()),
        Op::Readdir { fh, offset, size } => (opcode::READDIR, read(*fh, *offset, *size, 0), none()),
        Op::Readdirplus { fh, offset, size } => {
            (opcode::READDIRPLUS, read(*fh, *offset, *size, 0), none())
        }
        Op::Write {
            fh,
            offset,
            size,
            cached,
            flags,
        } => (
            opcode::WRITE,
            fixed(WriteIn {
                fh: *fh,
                offset: *offset,
                size: *size,
                write_flags: u32::from(*cached),
                lock_owner: 0,
                flags: *flags,
                padding: 0,
            }),
            vec![0; *size as usize],
        ),
        Op::Statfs => (opcode::STATFS, none(), none()),
        Op::Release {
            fh,
            flags,
            flush,
            lock_owner,
        } => (
            opcode::RELEASE,
            fixed(ReleaseIn {
                fh: *fh,
                flags: *flags,
                release_flags: u32::from(*flush),
                lock_owner: *lock_owner,
            }),
            none(),
        ),
        Op::Releasedir { fh } => (
            opcode::RELEASEDIR,
            fixed(ReleaseIn {
                fh: *fh,
                ..ReleaseIn::default()
            }),
            none(),
        ),
        Op::Fsync { fh, datasync } => (opcode::FSYNC, fsync(*fh, *datasync), none()),
        Op::Fsyncdir { fh, datasync } => (opcode::FSYNCDIR, fsync(*fh, *datasync), none()),
        Op::Setxattr { name, value, flags } => {
            let mut rest = strings(&[name]);
            rest.extend_from_slice(value);
            let op_in = SetxattrIn {
                size: value.len() as u32,
                flags: *flags,
            };
            (opcode::SETXATTR, fixed(op_in), rest)
        }
        Op::Getxattr { name, size } => (
            opcode::GETXATTR,
            fixed(GetxattrIn {
                size: *size,
                padding: 0,
            }),
            strings(&[name]),
        ),
        Op::Listxattr { size } => (
            opcode::LISTXATTR,
            fixed(GetxattrIn {
                size: *size,
                padding: 0,
            }),
            none(),
        ),
        Op::Removexattr { name } => (opcode::REMOVEXATTR, none(), strings(&[name])),
        Op::Flush {
            fh,
            lock_owner,
            last,
        } => (
            opcode::FLUSH,
            fixed(FlushIn {
                fh: *fh,
                flush_flags: u32::from(*last),
                padding: 0,
                lock_owner: *lock_owner,
            }),
            none(),
        ),
        Op::Access { mask } => (
            opcode::ACCESS,
            fixed(AccessIn {
                mask: *mask,
                padding: 0,
            }),
            none(),
        ),
        Op::Create {
            name,
            mode,
            flags,
            umask,
        } => (
            opcode::CREATE,
            create(*mode, *flags, *umask),
            strings(&[name]),
        ),
        Op::Tmpfile { mode, flags, umask } => {
            (opcode::TMPFILE, create(*mode, *flags, *umask), none())
        }
        Op::Fallocate {
            fh,
            offset,
            length,
            mode,
        } => (
            opcode::FALLOCATE,
            fixed(FallocateIn {
                fh: *fh,
                offset: *offset,
                length: *length,
                mode: *mode,
                padding: 0,
            }),
            none(),
        ),
        Op::Lseek { fh, offset, whence } => (
            opcode::LSEEK,
            fixed(LseekIn {
                fh: *fh,
                offset: *offset,
                whence: *whence,
                padding: 0,
            }),
            none(),
        ),
        Op::CopyFileRange {
            fh,
            offset,
            new_ino,
            new_fh,
            new_offset,
            length,
            flags,
            wide,
        } => (
            if *wide {
                opcode::COPY_FILE_RANGE_64
            } else {
                opcode::COPY_FILE_RANGE
            },
            fixed(CopyFileRangeIn {
                fh_in: *fh,
                off_in: *offset,
                nodeid_out: *new_ino,
                fh_out: *new_fh,
                off_out: *new_offset,
                len: *length,
                flags: *flags,
            }),
            none(),
        ),
        Op::Syncfs => (opcode::SYNCFS, vec![0; 8], none()),
        Op::Statx { fh, flags, mask } => (
            opcode::STATX,
            fixed(StatxIn {
                getattr_flags: u32::from(fh.is_some()),
                reserved: 0,
                fh: fh.unwrap_or(0),
                sx_flags: *flags,
                sx_mask: *mask,
            }),
            none(),
        ),
        Op::Unsupported { opcode } => (*opcode, none(), none()),
    }
}

fn open(flags: u32) -> Vec<u8> {
    fixed(OpenIn {
        flags,
        open_flags: 0,
    })
}

fn create(mode: u32, flags: u32, umask: u32) -> Vec<u8> {
    fixed(CreateIn {
        flags,
        mode,
        umask,
        open_flags: 0,
    })
}

fn read(fh: u64, offset: u64, size: u32, flags: u32) -> Vec<u8> {
    fixed(ReadIn {
        fh,
        offset,
        size,
        read_flags: 0,
        lock_owner: 0,
        flags,
        padding: 0,
    })
}

fn fsync(fh: u64, datasync: bool) -> Vec<u8> {
    fixed(FsyncIn {
        fh,
        fsync_flags: u32::from(datasync),
        padding: 0,
    })
}

fn setattr_in(set: &SetAttr) -> SetattrIn {
    let mut out = SetattrIn::default();
    let mut add = |bit: u32, is: bool| {
        if is {
            out.valid |= bit;
        }
        is
    };
    add(fattr::FH, set.fh.is_some());
    add(fattr::MODE, set.mode.is_some());
    add(fattr::UID, set.uid.is_some());
    add(fattr::GID, set.gid.is_some());
    add(fattr::SIZE, set.size.is_some());
    add(fattr::ATIME, set.atime.is_some());
    add(fattr::ATIME_NOW, set.atime == Some(TimeOrNow::Now));
    add(fattr::MTIME, set.mtime.is_some());
    add(fattr::MTIME_NOW, set.mtime == Some(TimeOrNow::Now));
    add(fattr::CTIME, set.ctime.is_some());
    out.fh = set.fh.unwrap_or(0);
    out.mode = set.mode.unwrap_or(0);
    out.uid = set.uid.unwrap_or(0);
    out.gid = set.gid.unwrap_or(0);
    out.size = set.size.unwrap_or(0);
    if let Some(TimeOrNow::Time(time)) = set.atime {
        out.atime = time.seconds as u64;
        out.atimensec = time.nanoseconds;
    }
    if let Some(TimeOrNow::Time(time)) = set.mtime {
        out.mtime = time.seconds as u64;
        out.mtimensec = time.nanoseconds;
    }
    if let Some(time) = set.ctime {
        out.ctime = time.seconds as u64;
        out.ctimensec = time.nanoseconds;
    }
    out
}
