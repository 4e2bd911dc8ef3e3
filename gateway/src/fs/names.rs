//! What the store said of names.

pub mod bulk;
pub mod cache;
pub mod key;
pub mod listing;

pub(in crate::fs) mod contended;
pub(in crate::fs) mod resolve;
