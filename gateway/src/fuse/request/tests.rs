use proptest::collection::vec;
use proptest::prelude::*;
use zerocopy::FromBytes;

use super::encode::encode;
use super::{Caller, Control, DecodeError, Name, Op, Request, SetAttr, Time, TimeOrNow};
use crate::fuse::abi::opcode;
use crate::fuse::abi::request::InHeader;

fn name() -> impl Strategy<Value = Name> {
    vec(
        any::<u8>().prop_filter("no NUL, no slash", |byte| *byte != 0 && *byte != b'/'),
        1..=255,
    )
    .prop_map(Vec::into_boxed_slice)
}

fn string() -> impl Strategy<Value = Name> {
    vec(1..=u8::MAX, 0..=300).prop_map(Vec::into_boxed_slice)
}

fn time() -> impl Strategy<Value = Time> {
    (any::<i64>(), 0..1_000_000_000u32).prop_map(|(seconds, nanoseconds)| Time {
        seconds,
        nanoseconds,
    })
}

fn time_or_now() -> impl Strategy<Value = TimeOrNow> {
    prop_oneof![Just(TimeOrNow::Now), time().prop_map(TimeOrNow::Time)]
}

fn set_attr() -> impl Strategy<Value = SetAttr> {
    (
        any::<Option<u64>>(),
        any::<Option<u32>>(),
        any::<Option<u32>>(),
        any::<Option<u32>>(),
        any::<Option<u64>>(),
        proptest::option::of(time_or_now()),
        proptest::option::of(time_or_now()),
        proptest::option::of(time()),
    )
        .prop_map(|(fh, mode, uid, gid, size, atime, mtime, ctime)| SetAttr {
            fh,
            mode,
            uid,
            gid,
            size,
            atime,
            mtime,
            ctime,
        })
}

fn names_and_attributes() -> impl Strategy<Value = Op> {
    let number = any::<u32>;
    prop_oneof![
        name().prop_map(|name| Op::Lookup { name }),
        any::<Option<u64>>().prop_map(|fh| Op::Getattr { fh }),
        set_attr().prop_map(|set| Op::Setattr { set }),
        Just(Op::Readlink),
        (name(), string()).prop_map(|(name, target)| Op::Symlink { name, target }),
        (name(), number(), number(), number()).prop_map(|(name, mode, rdev, umask)| Op::Mknod {
            name,
            mode,
            rdev,
            umask
        }),
        (name(), number(), number()).prop_map(|(name, mode, umask)| Op::Mkdir {
            name,
            mode,
            umask
        }),
        name().prop_map(|name| Op::Unlink { name }),
        name().prop_map(|name| Op::Rmdir { name }),
        (name(), any::<u64>(), name(), number()).prop_map(|(name, new_parent, new_name, flags)| {
            Op::Rename {
                name,
                new_parent,
                new_name,
                flags,
            }
        }),
        (any::<u64>(), name()).prop_map(|(ino, new_name)| Op::Link { ino, new_name }),
        (string(), vec(any::<u8>(), 0..300), number()).prop_map(|(name, value, flags)| {
            Op::Setxattr {
                name,
                value: value.into(),
                flags,
            }
        }),
        (string(), number()).prop_map(|(name, size)| Op::Getxattr { name, size }),
        number().prop_map(|size| Op::Listxattr { size }),
        string().prop_map(|name| Op::Removexattr { name }),
        (name(), number(), number(), number()).prop_map(|(name, mode, flags, umask)| {
            Op::Create {
                name,
                mode,
                flags,
                umask,
            }
        }),
    ]
}

fn handles() -> impl Strategy<Value = Op> {
    let number = any::<u32>;
    let long = any::<u64>;
    prop_oneof![
        number().prop_map(|flags| Op::Open { flags }),
        number().prop_map(|flags| Op::Opendir { flags }),
        (long(), long(), number(), number()).prop_map(|(fh, offset, size, flags)| Op::Read {
            fh,
            offset,
            size,
            flags
        }),
        (long(), long(), 0..10_000u32, any::<bool>(), number()).prop_map(
            |(fh, offset, size, cached, flags)| Op::Write {
                fh,
                offset,
                size,
                cached,
                flags
            }
        ),
        (long(), long(), number()).prop_map(|(fh, offset, size)| Op::Readdir { fh, offset, size }),
        (long(), long(), number()).prop_map(|(fh, offset, size)| Op::Readdirplus {
            fh,
            offset,
            size
        }),
        (long(), number(), any::<bool>(), long()).prop_map(|(fh, flags, flush, lock_owner)| {
            Op::Release {
                fh,
                flags,
                flush,
                lock_owner,
            }
        }),
        long().prop_map(|fh| Op::Releasedir { fh }),
        (long(), any::<bool>()).prop_map(|(fh, datasync)| Op::Fsync { fh, datasync }),
        (long(), any::<bool>()).prop_map(|(fh, datasync)| Op::Fsyncdir { fh, datasync }),
        (long(), long(), any::<bool>()).prop_map(|(fh, lock_owner, last)| Op::Flush {
            fh,
            lock_owner,
            last
        }),
        number().prop_map(|mask| Op::Access { mask }),
        (number(), number(), number()).prop_map(|(mode, flags, umask)| Op::Tmpfile {
            mode,
            flags,
            umask
        }),
        (long(), long(), long(), number()).prop_map(|(fh, offset, length, mode)| Op::Fallocate {
            fh,
            offset,
            length,
            mode
        }),
        (long(), long(), number()).prop_map(|(fh, offset, whence)| Op::Lseek {
            fh,
            offset,
            whence
        }),
        (
            long(),
            long(),
            long(),
            long(),
            long(),
            long(),
            long(),
            any::<bool>()
        )
            .prop_map(
                |(fh, offset, new_ino, new_fh, new_offset, length, flags, wide)| {
                    Op::CopyFileRange {
                        fh,
                        offset,
                        new_ino,
                        new_fh,
                        new_offset,
                        length,
                        flags,
                        wide,
                    }
                }
            ),
        Just(Op::Syncfs),
        Just(Op::Statfs),
        (any::<Option<u64>>(), number(), number()).prop_map(|(fh, flags, mask)| Op::Statx {
            fh,
            flags,
            mask
        }),
        (64..u32::MAX).prop_map(|opcode| Op::Unsupported { opcode }),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    (
        any::<u64>(),
        any::<u64>(),
        any::<(u32, u32, u32)>(),
        prop_oneof![names_and_attributes(), handles()],
    )
        .prop_map(|(unique, ino, (uid, gid, pid), op)| Request {
            unique,
            ino,
            caller: Caller { uid, gid, pid },
            op,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_was_encoded_is_decoded(request in request()) {
        let (header, op_in, rest) = encode(&request);
        prop_assert_eq!(Request::decode(&header, &op_in, &rest), Ok(request));
        prop_assert_eq!(opcode::op_in_len(header.opcode), op_in.len());
    }

    /// A slot's header area gives 128 bytes whatever the struct's length; the tail is of an earlier
    /// request.
    #[test]
    fn bytes_after_the_fixed_struct_are_not_looked_at(request in request(), stale: u8) {
        let (header, mut op_in, rest) = encode(&request);
        op_in.resize(128, stale);
        prop_assert_eq!(Request::decode(&header, &op_in, &rest), Ok(request));
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        head in any::<[u8; 40]>(),
        opcode in 0..60u32,
        op_in in vec(any::<u8>(), 0..130),
        rest in vec(any::<u8>(), 0..300),
        extensions in 0..3u16,
    ) {
        let mut header = InHeader::read_from_bytes(&head).expect("40 bytes are a header");
        let _ = Request::decode(&header, &op_in, &rest);
        header.opcode = opcode;
        header.total_extlen = extensions;
        let _ = Request::decode(&header, &op_in, &rest);
        let _ = Control::decode(&header, &op_in, &rest);
    }

    #[test]
    fn a_cut_fixed_struct_is_an_error(request in request(), cut in 1..200usize) {
        let (header, op_in, rest) = encode(&request);
        prop_assume!(!op_in.is_empty() && !matches!(request.op, Op::Syncfs));
        let short = &op_in[..op_in.len().saturating_sub(cut)];
        prop_assert_eq!(Request::decode(&header, short, &rest), Err(DecodeError::Short));
    }
}

fn header(opcode: u32) -> InHeader {
    InHeader {
        opcode,
        unique: 8,
        nodeid: 1,
        ..InHeader::default()
    }
}

#[test]
fn names_that_cannot_be_components_are_refused() {
    for bytes in [&b"no end"[..], b"\0", b"a/b\0", b"", b"/\0"] {
        let request = Request::decode(&header(opcode::LOOKUP), &[], bytes);
        assert_eq!(request, Err(DecodeError::Name), "{bytes:?}");
    }
}

#[test]
fn lengths_that_reach_past_the_end_are_refused() {
    let mut op_in = [0; 8];
    op_in[..4].copy_from_slice(&100u32.to_ne_bytes());
    let set = Request::decode(&header(opcode::SETXATTR), &op_in, b"user.a\0value");
    assert_eq!(set, Err(DecodeError::Length));
    op_in[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
    let batch = Control::decode(&header(opcode::BATCH_FORGET), &op_in, &[0; 16]);
    assert_eq!(batch, Err(DecodeError::Length));
    let mut extended = header(opcode::LOOKUP);
    extended.total_extlen = 2;
    let lookup = Request::decode(&extended, &[], b"a\0");
    assert_eq!(lookup, Err(DecodeError::Length));
}

#[test]
fn extensions_behind_a_name_are_not_part_of_it() {
    let mut extended = header(opcode::LOOKUP);
    extended.total_extlen = 1;
    let lookup = Request::decode(&extended, &[], b"a\0\x08\0\0\0\x01\0\0\0").expect("well formed");
    let name = b"a"[..].into();
    assert_eq!(lookup.op, Op::Lookup { name });
}

#[test]
fn forgets_and_interrupts_are_control_messages() {
    let forget = Control::decode(&header(opcode::FORGET), &3u64.to_ne_bytes(), &[]);
    assert_eq!(forget, Ok(Some(Control::Forget(vec![(1, 3)]))));
    let mut pairs = Vec::new();
    for value in [5u64, 1, 6, 2] {
        pairs.extend_from_slice(&value.to_ne_bytes());
    }
    let mut count = [0; 8];
    count[0] = 2;
    let batch = Control::decode(&header(opcode::BATCH_FORGET), &count, &pairs);
    assert_eq!(batch, Ok(Some(Control::Forget(vec![(5, 1), (6, 2)]))));
    let interrupt = Control::decode(&header(opcode::INTERRUPT), &44u64.to_ne_bytes(), &[]);
    assert_eq!(interrupt, Ok(Some(Control::Interrupt { unique: 44 })));
    assert_eq!(Control::decode(&header(opcode::READ), &[], &[]), Ok(None));
}

#[test]
fn opcodes_that_are_not_served_are_requests_all_the_same() {
    for opcode in [opcode::IOCTL, opcode::POLL, opcode::SETLKW, 54, 4096] {
        let request = Request::decode(&header(opcode), &[], &[]).expect("any bytes will do");
        assert_eq!(request.op, Op::Unsupported { opcode });
    }
}

/// The word behind the handle is `unused` in stock kernels, and 0. Bits that nobody has given a
/// meaning yet say nothing.
#[test]
fn one_bit_says_which_flush_is_the_last() {
    for (word, wanted) in [
        (0, false),
        (1, true),
        (2, false),
        (3, true),
        (u32::MAX - 1, false),
    ] {
        let mut op_in = [0; 24];
        op_in[..8].copy_from_slice(&5u64.to_ne_bytes());
        op_in[8..12].copy_from_slice(&word.to_ne_bytes());
        op_in[16..].copy_from_slice(&9u64.to_ne_bytes());
        let flush = Request::decode(&header(opcode::FLUSH), &op_in, &[]).expect("well formed");
        let wanted = Op::Flush {
            fh: 5,
            lock_owner: 9,
            last: wanted,
        };
        assert_eq!(flush.op, wanted, "{word:#x}");
    }
}
