//! Bytes of the kernel to a [`Request`]. Total: any bytes give a request or an error, never a
//! panic.
//!
//! The ring delivers an operation's fixed struct apart from what follows it (names, values, data);
//! the device delivers both in one piece. [`Request::decode`] takes the two pieces, so both doors
//! share it. A request owns all it needs but the bulk data of WRITE, which stay in the
//! [`Responder`](super::Responder)'s buffer.

mod control;
mod decode;
#[cfg(test)]
pub(super) mod encode;
mod op;
#[cfg(test)]
mod tests;

pub use self::control::Control;
pub use self::decode::DecodeError;
pub use self::op::{Caller, Name, Op, Request, SetAttr, Time, TimeOrNow};
