//! This module against the header itself: a C compiler reads `<linux/fuse.h>` and is told to refuse
//! it unless every size, offset, opcode and flag is what is written here.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use super::{opcode, request, ring};

/// The header's name of a struct: `fuse_` and ours in lower case, but for these. `None` is no struct of
/// the header's.
fn c_struct(name: &str) -> Option<String> {
    Some(match name {
        // Two structs, one after the other.
        "CreateOut" => return None,
        // The head of one, whose rest needs FUSE_SETXATTR_EXT; its size has a constant.
        "SetxattrIn" => return None,
        "StatfsOut" => "fuse_kstatfs".into(),
        "EntInOut" => "fuse_uring_ent_in_out".into(),
        "CmdReq" => "fuse_uring_cmd_req".into(),
        _ => name.chars().fold("fuse".into(), |mut text, letter| {
            if letter.is_uppercase() {
                text.push('_');
            }
            text.push(letter.to_ascii_lowercase());
            text
        }),
    })
}

/// The header's name of a field. `None` has none that stays.
fn c_field<'a>(name: &str, field: &'a str) -> Option<&'a str> {
    Some(match (name, field) {
        ("Dirent", "kind") => "type",
        ("SxTime", "reserved") => "__reserved",
        ("Statx", "spare0") => "__spare0",
        ("Statx", "spare2") => "__spare2",
        // As the carried patches call it; `unused` before.
        ("FlushIn", "flush_flags") => "flags",
        // `offset` since 7.46, for those who ask for a pool of buffers.
        ("EntInOut", "padding") => return None,
        _ => field,
    })
}

/// Whether the header's struct may have grown since 7.45: its rest is for who asks for it.
fn may_grow(name: &str) -> bool {
    // A union since 7.46, for FUSE_IO_URING_CMD_ADD_QUEUE and zero-copy; an SQE has room for 80 bytes.
    name == "CmdReq"
}

/// The fixed struct of each request that has one, for the lengths in [`opcode::op_in_len`].
const FIXED: &[(u32, &str)] = &[
    (opcode::FORGET, "forget"),
    (opcode::GETATTR, "getattr"),
    (opcode::SETATTR, "setattr"),
    (opcode::MKNOD, "mknod"),
    (opcode::MKDIR, "mkdir"),
    (opcode::RENAME, "rename"),
    (opcode::LINK, "link"),
    (opcode::OPEN, "open"),
    (opcode::READ, "read"),
    (opcode::WRITE, "write"),
    (opcode::RELEASE, "release"),
    (opcode::FSYNC, "fsync"),
    (opcode::GETXATTR, "getxattr"),
    (opcode::LISTXATTR, "getxattr"),
    (opcode::FLUSH, "flush"),
    (opcode::INIT, "init"),
    (opcode::OPENDIR, "open"),
    (opcode::READDIR, "read"),
    (opcode::RELEASEDIR, "release"),
    (opcode::FSYNCDIR, "fsync"),
    (opcode::GETLK, "lk"),
    (opcode::SETLK, "lk"),
    (opcode::SETLKW, "lk"),
    (opcode::ACCESS, "access"),
    (opcode::CREATE, "create"),
    (opcode::INTERRUPT, "interrupt"),
    (opcode::BMAP, "bmap"),
    (opcode::IOCTL, "ioctl"),
    (opcode::POLL, "poll"),
    (opcode::NOTIFY_REPLY, "notify_retrieve"),
    (opcode::BATCH_FORGET, "batch_forget"),
    (opcode::FALLOCATE, "fallocate"),
    (opcode::READDIRPLUS, "read"),
    (opcode::RENAME2, "rename2"),
    (opcode::LSEEK, "lseek"),
    (opcode::COPY_FILE_RANGE, "copy_file_range"),
    (opcode::SETUPMAPPING, "setupmapping"),
    (opcode::REMOVEMAPPING, "removemapping"),
    (opcode::SYNCFS, "syncfs"),
    (opcode::TMPFILE, "create"),
    (opcode::STATX, "statx"),
    (opcode::COPY_FILE_RANGE_64, "copy_file_range"),
];

/// Constants of the header and what they are here.
const CONSTANTS: &[(&str, usize)] = &[
    ("FUSE_KERNEL_VERSION", 7),
    ("FUSE_ROOT_ID", super::ROOT_ID as usize),
    ("FUSE_MIN_READ_BUFFER", ring::MIN_PAYLOAD),
    (
        "FUSE_COMPAT_SETXATTR_IN_SIZE",
        size_of::<request::SetxattrIn>(),
    ),
    (
        "sizeof(struct fuse_uring_req_header)",
        size_of::<ring::ReqHeader>(),
    ),
    ("FUSE_IO_URING_CMD_REGISTER", ring::CMD_REGISTER as usize),
    (
        "FUSE_IO_URING_CMD_COMMIT_AND_FETCH",
        ring::CMD_COMMIT_AND_FETCH as usize,
    ),
    ("FOPEN_DIRECT_IO", super::FOPEN_DIRECT_IO as usize),
    ("FOPEN_KEEP_CACHE", super::FOPEN_KEEP_CACHE as usize),
    ("FOPEN_NONSEEKABLE", super::FOPEN_NONSEEKABLE as usize),
    ("FOPEN_CACHE_DIR", super::FOPEN_CACHE_DIR as usize),
    ("FOPEN_NOFLUSH", super::FOPEN_NOFLUSH as usize),
    (
        "FOPEN_PARALLEL_DIRECT_WRITES",
        super::FOPEN_PARALLEL_DIRECT_WRITES as usize,
    ),
    ("FOPEN_PASSTHROUGH", super::FOPEN_PASSTHROUGH as usize),
    ("FOPEN_SYNC_RELEASE", super::FOPEN_SYNC_RELEASE as usize),
    ("FATTR_MODE", request::fattr::MODE as usize),
    ("FATTR_UID", request::fattr::UID as usize),
    ("FATTR_GID", request::fattr::GID as usize),
    ("FATTR_SIZE", request::fattr::SIZE as usize),
    ("FATTR_ATIME", request::fattr::ATIME as usize),
    ("FATTR_MTIME", request::fattr::MTIME as usize),
    ("FATTR_FH", request::fattr::FH as usize),
    ("FATTR_ATIME_NOW", request::fattr::ATIME_NOW as usize),
    ("FATTR_MTIME_NOW", request::fattr::MTIME_NOW as usize),
    ("FATTR_CTIME", request::fattr::CTIME as usize),
    ("FUSE_GETATTR_FH", request::GETATTR_FH as usize),
    ("FUSE_RELEASE_FLUSH", request::RELEASE_FLUSH as usize),
    ("FUSE_WRITE_CACHE", request::WRITE_CACHE as usize),
    ("FUSE_FSYNC_FDATASYNC", request::FSYNC_FDATASYNC as usize),
    ("FUSE_FLUSH_LAST", request::FLUSH_LAST as usize),
];

/// The C program that compiles only if the header agrees.
fn program() -> String {
    let mut text = String::from("#include <stddef.h>\n#include <linux/fuse.h>\n");
    let mut holds = |what: &str, how: &str, value: usize| {
        writeln!(text, "_Static_assert({what} {how} {value}, \"{what}\");")
            .expect("a string takes any text");
    };
    for (name, size, fields) in [super::answer::LAYOUTS, request::LAYOUTS, ring::LAYOUTS].concat() {
        let Some(c_name) = c_struct(name) else {
            continue;
        };
        let how = if may_grow(name) { ">=" } else { "==" };
        holds(&format!("sizeof(struct {c_name})"), how, size);
        for (field, offset) in fields {
            if let Some(field) = c_field(name, field) {
                let what = format!("offsetof(struct {c_name}, {field})");
                holds(&what, "==", *offset);
            }
        }
    }
    for number in opcode::ALL {
        let what = format!("FUSE_{}", opcode::name(*number));
        holds(&what, "==", *number as usize);
    }
    for (number, fixed) in FIXED {
        let what = format!("sizeof(struct fuse_{fixed}_in)");
        holds(&what, "==", opcode::op_in_len(*number));
    }
    for (what, value) in CONSTANTS {
        holds(what, "==", *value);
    }
    text + "_Static_assert(FUSE_KERNEL_MINOR_VERSION >= 45, \"the header is older than 7.45\");\n"
}

#[test]
fn requests_without_a_fixed_struct_have_no_length() {
    for number in opcode::ALL {
        let fixed = FIXED.iter().any(|(of, _)| of == number) || *number == opcode::SETXATTR;
        assert_eq!(
            opcode::op_in_len(*number) > 0,
            fixed,
            "{}",
            opcode::name(*number)
        );
    }
}

/// `ACKFS_FUSE_HEADERS` is the `include` directory of a kernel that `kernel/build` made.
#[test]
#[ignore = "needs the header of kernel/build; tests/run runs it"]
fn the_kernels_header_agrees() {
    let headers = env::var("ACKFS_FUSE_HEADERS").expect("ACKFS_FUSE_HEADERS is set");
    let work = tempfile::tempdir().expect("a directory");
    let source = work.path().join("agrees.c");
    fs::write(&source, program()).expect("a file");
    let output = Command::new("cc")
        .args(["-std=c11", "-fsyntax-only", "-I", &headers])
        .arg(&source)
        .output()
        .expect("a C compiler");
    assert!(
        output.status.success(),
        "{headers} does not agree:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
