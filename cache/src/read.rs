//! Clean bytes of one version of an object, from wherever they are: memory, a fetch under way, the
//! disk, the store.
//!
//! A [`Stream`] is one open handle. [`Stream::read_now`] runs on a ring thread: it copies what is
//! here and never waits; if something is missing it has already begun to fetch it when it says so.
//! [`Stream::read`] then waits, joined to whatever fetch brings the bytes, and is answered when the
//! last byte that it asked for has arrived.
//!
//! The parts: [`crate::readahead`] decides how far to fetch; `record` has one table of fills per
//! object, so that no two fetches overlap; `fill` is one GET and its readers; `fetch` finds memory
//! and brings the bytes; [`crate::memory`] keeps them afterwards, and [`crate::disk_cache`] too.
//! `cache` is what all of them share, `adopt` takes bytes that were published here, and `passthrough`
//! is about whole files on disk.
//!
//! A byte is copied once, from the connection's buffer into the reader's. Memory in use is bounded
//! by [`ReadConfig::clean_max`] for what is at rest, the share [`ReadConfig::fills`] for what is
//! under way or unread, and one kernel request's length for each waiting reader.
//!
//! Order of locks: a stream's pattern; a record's table of fills; a fill. None is held while bytes
//! are copied, a request is sent, or another cache is asked, but that the table's is held while
//! memory is looked through for what is missing.

mod adopt;
mod cache;
mod fetch;
mod fill;
mod fill_blocks;
mod fill_state;
#[cfg(test)]
mod model;
mod passthrough;
mod record;
mod stream;
#[cfg(test)]
mod tests;
mod unread;

pub use cache::{ReadCache, ReadConfig, ReadStats};
pub use stream::Stream;
