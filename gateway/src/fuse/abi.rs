//! The FUSE protocol's bytes, version 7.45, as `<linux/fuse.h>` draws them.
//!
//! Every struct that crosses the kernel's border is here, plain, `repr(C)`, without padding that
//! the compiler chose: zerocopy's derives refuse implicit padding, and the assertions at the end
//! pin the sizes and the offsets that the header's text gives. Nothing here decides anything.
//!
//! - [`opcode`]: what the kernel may ask, and how long the fixed struct of each request is.
//! - [`mod@request`]: the fixed structs of requests.
//! - [`mod@answer`]: the structs of answers, most of which the handler fills in, and their flags.
//! - [`mod@ring`]: what the io_uring door adds: the header area and its command.
//! - [`DirentWriter`]: directory entries, which have no fixed size.
//!
//! Names are those of the header without `fuse_`; flags keep their full names, so that a search in
//! the kernel's tree finds both ends.

#![allow(
    missing_debug_implementations,
    reason = "it is about types that zerocopy's derives make inside `wire!`"
)]

pub mod answer;
mod dirent;
pub mod opcode;
pub mod request;
pub mod ring;
#[cfg(test)]
mod tests;
mod wire;

pub use self::answer::*;
pub use self::dirent::DirentWriter;
