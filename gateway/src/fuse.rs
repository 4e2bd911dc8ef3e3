//! The kernel's side: the FUSE protocol over two doors. No word of S3 or of the cache is spoken
//! here. Both doors decode a request into a [`Request`], make a [`Responder`] for it and hand both
//! to one [`Handler`]; the handler answers when it likes, from whatever thread it likes, exactly
//! once.
//!
//! `/dev/fuse` carries FORGET, INTERRUPT and notifications always, every opcode while the ring is off or
//! not yet on. The ring is the kernel's io_uring queues. A handler cannot tell them apart but for speed.
//!
//! Each file knows only those above it here:
//!
//! ```text
//! abi                    the protocol's bytes
//! request  interrupt  telemetry  stats      what is asked; who gave up; what is counted
//! context                what a request needs of its connection until it is answered
//! device  ring           the two ways back to the kernel, and the memory that they use
//! reply                  the answer, by either way
//! handler  connection    who serves; the connection's life
//! doors                  the threads that take requests in
//! mount                  makes the connection and says which doors it has
//! ```

pub mod abi;
mod connection;
mod context;
mod device;
mod doors;
#[cfg(test)]
pub(crate) mod fake;
mod handler;
mod interrupt;
pub mod mount;
pub mod reply;
pub mod request;
mod ring;
mod stats;
mod telemetry;

pub use self::handler::Handler;
pub use self::interrupt::Interrupt;
pub use self::reply::Responder;
pub use self::request::{Caller, Name, Op, Request, SetAttr};
pub use self::stats::TransportStats;
pub use self::telemetry::Telemetry;
