//! What serves requests: the seam between the protocol and what a file means.

use super::reply::Responder;
use super::request::Request;

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
