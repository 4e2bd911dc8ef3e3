//! What goes into a ring: the ring with the features this kernel has, and the two commands of FUSE
//! as submission entries.

#![allow(
    unsafe_code,
    reason = "REGISTER needs a field of the entry that the io-uring crate cannot set"
)]

use std::io;

use io_uring::opcode::UringCmd80;
use io_uring::squeue::Entry128;
use io_uring::{IoUring, cqueue, types};
use zerocopy::IntoBytes;

use crate::fuse::abi::ring::CmdReq;

/// A ring of 128-byte entries, as FUSE's commands need.
pub(super) type Ring = IoUring<Entry128, cqueue::Entry>;

/// Sets an entry's `user_data` to a slot's number.
pub(super) trait UserDataOf {
    fn user_data_of(self, slot: u32) -> Self;
}

impl UserDataOf for Entry128 {
    fn user_data_of(self, slot: u32) -> Self {
        self.user_data(u64::from(slot))
    }
}

/// A command of FUSE for file 0.
pub(super) fn uring_cmd(operation: u32, command: &CmdReq, addr: Option<u64>) -> UringCmd80 {
    let mut bytes = [0; 80];
    bytes[..size_of::<CmdReq>()].copy_from_slice(command.as_bytes());
    UringCmd80::new(types::Fixed(0), operation)
        .cmd(bytes)
        .addr(addr)
}

/// Sets the field `len` of an entry, for which `UringCmd80` has no setter: REGISTER wants the
/// number of iovecs there.
pub(super) fn with_len(mut entry: Entry128, len: u32) -> Entry128 {
    /// `offsetof(struct io_uring_sqe, len)`.
    const LEN_AT: usize = 24;
    const _: () = assert!(size_of::<Entry128>() == 128 && LEN_AT + 4 <= 64);
    // SAFETY: Entry128 is repr(C) and begins with struct io_uring_sqe, whose `len` is a u32 at byte
    // 24; the write stays inside the entry, which is ours.
    unsafe {
        (&raw mut entry).byte_add(LEN_AT).cast::<u32>().write(len);
    }
    entry
}

/// The ring with as many of the wanted features as the kernel has; whether DEFER_TASKRUN is one.
pub(super) fn build(entries: u32, completions: u32) -> io::Result<(Ring, bool)> {
    let mut result = Err(io::ErrorKind::Unsupported.into());
    // NO_SQARRAY came with 6.6, SINGLE_ISSUER with 6.0, DEFER_TASKRUN with 6.1.
    for (deferred, no_array) in [(true, true), (true, false), (false, false)] {
        let mut builder = Ring::builder();
        builder.setup_submit_all().setup_clamp();
        builder.setup_cqsize(completions.next_power_of_two());
        if deferred {
            builder.setup_single_issuer().setup_defer_taskrun();
        }
        if no_array {
            builder.setup_no_sqarray();
        }
        result = builder.build(entries.next_power_of_two());
        match &result {
            Err(cause) if cause.raw_os_error() == Some(libc::EINVAL) => {}
            _ => return result.map(|ring| (ring, deferred)),
        }
    }
    result.map(|ring| (ring, false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuse::abi::ring::CMD_REGISTER;

    #[test]
    fn the_length_of_register_lands_where_the_kernel_looks() {
        let entry = uring_cmd(CMD_REGISTER, &CmdReq::default(), Some(0)).build();
        let entry = with_len(entry, 2);
        // SAFETY: an Entry128 is 128 initialised bytes.
        let bytes = unsafe { &*(&raw const entry).cast::<[u8; 128]>() };
        assert_eq!(bytes[24..28], 2u32.to_ne_bytes());
    }
}
