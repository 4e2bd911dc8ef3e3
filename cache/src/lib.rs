//! Bytes: where they are, who owns them, what was promised. No FUSE, no HTTP, no errno here.
//!
//! [`object`] and [`extent`] name bytes; [`store`] is all that is asked of the object store;
//! [`read`] gives clean bytes of one version of an object, from memory, disk or the store;
//! [`dirty`] holds what was written, [`plan`] and [`parts`] decide how it becomes an object, and
//! [`upload`] publishes it.

pub mod budget;
pub mod dirty;
pub mod disk;
pub mod disk_cache;
pub mod evict;
pub mod extent;
pub mod memory;
pub mod object;
pub mod parts;
mod pieces;
pub mod plan;
pub mod read;
pub mod readahead;
pub mod store;
pub mod upload;
