//! The control socket: how `ackfs stats` and `ackfs umount` talk to the process that serves a mount.
//!
//! One Unix socket for each mount, in the runtime directory, named by a digest of the mount's path;
//! only its owner and root may use it. One request a connection, in one line of JSON; the answer is
//! one line, or several of progress and then one. Connections are few, bounded and timed, so nobody
//! can make the daemon hold memory by not reading; an idle daemon sleeps in accept(2).
//!
//! A socket whose daemon was killed stays behind. Nobody listens on it, so connecting to it fails at
//! once; whoever finds it so removes it.

mod address;
mod client;
mod messages;
mod server;

pub use self::client::Client;
pub use self::messages::{ControlReply, ControlRequest, DrainProgress, Status, UnsavedFile, files};
pub use self::server::{ControlSocket, PendingRequest};
