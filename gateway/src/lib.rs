//! ackfs: an S3 bucket as a filesystem whose `close()` means "in the bucket".
//!
//! ARCHITECTURE.md has the map. The binary is thin; everything is here so that tests can reach it.

pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod fs;
pub mod fuse;
pub mod heap;
pub mod logging;
pub mod metrics;
pub mod s3;
