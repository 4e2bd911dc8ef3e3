//! The kernel's verbs, a file for each.

mod lookup;
mod open;
mod orphan;
mod read;
mod readdir;
mod remove;
mod rename;
mod setattr;
mod special;
mod write;

pub mod flush;
