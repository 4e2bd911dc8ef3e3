//! The two doors by which requests come in, and their threads: readers of `/dev/fuse`, ring threads, the
//! watchdog. Each takes a request, decodes it and hands it to the connection; how it is answered is the
//! business of `device`, `ring` and `reply`.

mod queue;
pub(super) mod reader;
mod ring_member;
mod ring_thread;
mod rings;
mod threads;
mod watchdog;

pub(crate) use self::queue::Geometry;
pub(crate) use self::rings::Rings;
pub(crate) use self::threads::Threads;
