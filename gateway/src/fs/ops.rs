//! The kernel's verbs, a file for each.

mod create;
mod getattr;
mod lookup;
mod open;
mod orphan;
mod publish;
mod read;
mod remove;
mod rename;
mod revalidate;
mod setattr;
mod special;
mod write;

pub mod drain;
pub mod flush;
pub mod readdir;
