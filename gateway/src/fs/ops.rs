//! The kernel's verbs, a file for each. An operation decides what is to be asked, of names and of the store,
//! and in which order; it calls the transitions of the table and sets none of its fields; it makes the answer.
//! What several verbs share has a file of its own: `revalidate`, `publish`, `orphan`, `drain`.

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

pub(in crate::fs) mod create;
pub(in crate::fs) mod drain;
pub(in crate::fs) mod flush;
pub(in crate::fs) mod readdir;
