//! What the io_uring door adds to the protocol (7.42): a header area a slot, and a command.
//!
//! ```text
//! header area, 288 bytes                          payload, max(8 KiB, max_write, max_pages * page)
//!   0  in_out[128]      struct fuse_in_header in,   in:  what follows the fixed struct
//!                       struct fuse_out_header out  out: everything that follows the header
//! 128  op_in[128]       the operation's fixed struct
//! 256  ring_ent_in_out  flags, commit_id @264, payload_sz @272
//! ```

use super::wire::wire;

wire! {
    /// `struct fuse_uring_ent_in_out`.
    EntInOut [32] {
        flags: u64,
        commit_id: u64,
        payload_sz: u32,
        padding: u32,
        reserved: u64,
    }

    /// `struct fuse_uring_cmd_req`: the command in the second half of the SQE.
    CmdReq [24] {
        flags: u64,
        commit_id: u64,
        qid: u16,
        padding: [u8; 6],
    }
}

/// `struct fuse_uring_req_header`: the header area of a slot.
#[derive(Debug, Clone, Copy, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C, align(8))]
#[allow(missing_docs, reason = "the fields are those of <linux/fuse.h>")]
pub struct ReqHeader {
    pub in_out: [u8; 128],
    pub op_in: [u8; 128],
    pub ring_ent_in_out: EntInOut,
}

/// FUSE_IO_URING_CMD_REGISTER: gives a slot to the kernel.
pub const CMD_REGISTER: u32 = 1;
/// FUSE_IO_URING_CMD_COMMIT_AND_FETCH: answers a slot's request and gives the slot back.
pub const CMD_COMMIT_AND_FETCH: u32 = 2;

/// FUSE_MIN_READ_BUFFER: the least payload.
pub const MIN_PAYLOAD: usize = 8192;

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<ReqHeader>() == 288);
    assert!(offset_of!(ReqHeader, op_in) == 128);
    assert!(offset_of!(ReqHeader, ring_ent_in_out) == 256);
    assert!(offset_of!(EntInOut, commit_id) == 8 && offset_of!(EntInOut, payload_sz) == 16);
    assert!(offset_of!(CmdReq, commit_id) == 8 && offset_of!(CmdReq, qid) == 16);
};
