//! The ring as the way back to the kernel: the memory of its slots, and how a slot is given, taken and
//! answered. Who waits for requests and serves them is `doors/ring_thread.rs`.
//!
//! `unsafe` lives here and nowhere else in the protocol: the shared memory in `arena` and `slot`,
//! submission entries in `submission`, two ioctls in `sys`.

mod arena;
pub(crate) mod cpus;
mod mailbox;
mod slot;
mod submission;
pub(crate) mod sys;

pub(crate) use self::arena::Arena;
pub(crate) use self::mailbox::{Answered, Mailbox};
pub(crate) use self::slot::{Delivered, RingShared, Token};
pub(crate) use self::submission::{Completion, SlotRing};
