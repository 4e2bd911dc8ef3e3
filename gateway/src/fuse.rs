//! The kernel's side: the FUSE protocol over two doors. No word of S3 or of the cache is spoken
//! here. Both doors decode a request into a [`Request`], make a [`Responder`] for it and hand both
//! to one [`Handler`]; the handler answers when it likes, from whatever thread it likes, exactly
//! once.
//!
//! `device` reads `/dev/fuse`: FORGET, INTERRUPT and notifications always, every opcode while the
//! ring is off or not yet on. `ring` serves the kernel's io_uring queues. A handler cannot tell
//! them apart but for speed. [`mount`] makes the connection and says which doors it has.

pub mod abi;
mod connection;
mod device;
#[cfg(test)]
pub(crate) mod fake;
mod interrupt;
pub mod mount;
pub mod reply;
pub mod request;
mod ring;
mod stats;
mod telemetry;

pub use reply::{Interrupt, Responder};
pub use request::{Caller, Name, Op, Request, SetAttr};
pub use stats::TransportStats;
pub use telemetry::Telemetry;

/// What serves requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers `request` through `responder`, now or later. Runs on a ring thread or on the device
    /// thread and never waits: what has to wait takes both along into a task. A panic in it is EIO
    /// for this request.
    fn handle(&self, request: Request, responder: Responder);

    /// The kernel drops `count` of its references to `ino`. Never waits.
    fn forget(&self, ino: u64, count: u64);

    /// The connection has ended; no request comes after this. Called once.
    fn destroy(&self) {}
}
