//! Publishing: a file's bytes become an object. [`crate::plan`] decides what is sent, what the store
//! copies from the version before, and in which parts; this room does it, and finds out what became of
//! requests whose answer was lost.
//!
//! `publish` makes the object; `early` sends parts while the file is still written; `body` puts the
//! bytes of a request together; `lost` finds out whether a write whose answer was lost has made the object
//! there, and `unclear` takes a publish as done that has.
//!
//! A part whose bytes are to be read first, from the staging file or from the base, is a whole body in
//! memory when it is sent if it fits what is set aside for that. Past the first half of the part numbers
//! parts outgrow that sooner or later; of those the bytes are read while they are sent, so memory does
//! not follow from S3's limits.

mod body;
mod early;
pub mod lost;
mod publish;
mod unclear;
