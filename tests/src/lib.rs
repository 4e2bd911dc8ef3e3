//! The harness of ackfs's end-to-end tests and of its bench.
//!
//! A test here is a [`World`]: a bucket of its own in a store, a [`Witness`] that reads and writes
//! that bucket past the gateway, and as many [`Mount`]s of it as the claim needs. The store is
//! either the gateway's own demo server in this process, which fails on request, or a real MinIO;
//! the mounts go through either of the gateway's two doors. [`claims!`] says which claims are tried
//! on which of the four, and the [`runner`] gives each try a process of its own.
//!
//! What holds whatever happens to a test:
//! - no port, bucket, directory or name is fixed, so tests run in any order and side by side;
//! - a test ends: past its deadline its process is killed, and its gateways with it;
//! - nothing stays behind: children die with the process that started them, mounts and files of a
//!   process that was killed are removed by its guardian ([`sandbox`]) and by the runner.
//!
//! The witness shares no line with the gateway: presigned URLs of rusty-s3 over ureq.

pub mod command;
pub mod content;
pub mod demo;
pub mod minio;
pub mod mount;
pub mod posix;
pub mod process;
pub mod runner;
pub mod sandbox;
pub mod tmpfs;
pub mod witness;
pub mod world;

pub use minio::Minio;
pub use mount::{Door, Mount, Options};
pub use witness::Witness;
pub use world::{Claim, Kind, World};
