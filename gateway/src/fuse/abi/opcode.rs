//! What the kernel may ask: `enum fuse_opcode` of 7.45, each with its name and the length of the
//! fixed struct that begins its request.
//!
//! The ring delivers that struct apart from the rest; the device delivers one piece, and
//! [`op_in_len`] says where to cut it, so that one decoder serves both.

macro_rules! opcodes {
    ($($name:ident = $number:literal, $len:literal;)*) => {
        $(
            #[doc = concat!("FUSE_", stringify!($name), ".")]
            pub const $name: u32 = $number;
        )*

        /// The operation's name as the header has it without `FUSE_`; "UNKNOWN" past 7.45.
        pub const fn name(opcode: u32) -> &'static str {
            match opcode {
                $($number => stringify!($name),)*
                _ => "UNKNOWN",
            }
        }

        /// How many bytes the fixed struct of a request takes, 0 where there is none.
        ///
        /// As a kernel sends it that was not asked for FUSE_SETXATTR_EXT.
        pub const fn op_in_len(opcode: u32) -> usize {
            match opcode {
                $($number => $len,)*
                _ => 0,
            }
        }

        /// Every opcode of 7.45 but CUSE's.
        pub const ALL: &[u32] = &[$($number),*];
    };
}

opcodes! {
    LOOKUP = 1, 0;
    FORGET = 2, 8;
    GETATTR = 3, 16;
    SETATTR = 4, 88;
    READLINK = 5, 0;
    SYMLINK = 6, 0;
    MKNOD = 8, 16;
    MKDIR = 9, 8;
    UNLINK = 10, 0;
    RMDIR = 11, 0;
    RENAME = 12, 8;
    LINK = 13, 8;
    OPEN = 14, 8;
    READ = 15, 40;
    WRITE = 16, 40;
    STATFS = 17, 0;
    RELEASE = 18, 24;
    FSYNC = 20, 16;
    SETXATTR = 21, 8;
    GETXATTR = 22, 8;
    LISTXATTR = 23, 8;
    REMOVEXATTR = 24, 0;
    FLUSH = 25, 24;
    INIT = 26, 64;
    OPENDIR = 27, 8;
    READDIR = 28, 40;
    RELEASEDIR = 29, 24;
    FSYNCDIR = 30, 16;
    GETLK = 31, 48;
    SETLK = 32, 48;
    SETLKW = 33, 48;
    ACCESS = 34, 8;
    CREATE = 35, 16;
    INTERRUPT = 36, 8;
    BMAP = 37, 16;
    DESTROY = 38, 0;
    IOCTL = 39, 32;
    POLL = 40, 24;
    NOTIFY_REPLY = 41, 40;
    BATCH_FORGET = 42, 8;
    FALLOCATE = 43, 32;
    READDIRPLUS = 44, 40;
    RENAME2 = 45, 16;
    LSEEK = 46, 24;
    COPY_FILE_RANGE = 47, 56;
    SETUPMAPPING = 48, 40;
    REMOVEMAPPING = 49, 4;
    SYNCFS = 50, 8;
    TMPFILE = 51, 16;
    STATX = 52, 24;
    COPY_FILE_RANGE_64 = 53, 56;
}

/// How many slots a table has that is indexed by opcode; opcodes past its end use slot 0, which no
/// opcode of the kernel has.
pub const TABLE: usize = 64;

/// Where `opcode` is counted in a table of [`TABLE`] slots.
pub const fn slot(opcode: u32) -> usize {
    if (opcode as usize) < TABLE {
        opcode as usize
    } else {
        0
    }
}
