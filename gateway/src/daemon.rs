//! The life of a mount, and the only place where the rooms are joined. [`Daemon::start`] gives a mount that
//! serves: the rooms are joined (`assemble`), the kernel mounts (`attach`), requests flow (`serve`).
//! [`Daemon::run`] stays with it to its end (`life`).
//!
//! [`mountpoint`] knows the directory that is mounted on, `cache_dir` takes the one of the cache,
//! `memory_guard` keeps the process within its bound.

mod assemble;
mod attach;
mod cache_dir;
mod description;
mod error;
mod life;
mod memory_guard;
pub mod mountpoint;
mod serve;
mod signals;
mod start;

pub use self::assemble::s3_config;
pub use self::description::MountDescription;
pub use self::error::StartError;
pub use self::life::{Daemon, MountOutcome};
