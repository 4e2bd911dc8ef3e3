//! End to end: the real binary, real mounts through both doors, a store, and a witness.
//!
//! Each module is a room of the promise; each function in it is one claim, and the list at the top
//! of a module says on which mounts the claim is tried. What the names of the tests end in:
//! `demo_*` needs nothing but root and /dev/fuse, `minio_*` needs a MinIO.

mod bad_input;
mod cache;
mod close;
mod consistency;
mod faults;
mod life;
mod links;
mod listing;
mod memory;
mod model;
mod names;
mod partial;
mod passthrough;
mod race;
mod reads;
mod signals;
mod start;
mod times;
mod writes;

use std::env;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    ackfs_tests::runner::main(&[
        ("bad_input", bad_input::CLAIMS),
        ("cache", cache::CLAIMS),
        ("close", close::CLAIMS),
        ("consistency", consistency::CLAIMS),
        ("faults", faults::CLAIMS),
        ("life", life::CLAIMS),
        ("links", links::CLAIMS),
        ("listing", listing::CLAIMS),
        ("memory", memory::CLAIMS),
        ("model", model::CLAIMS),
        ("names", names::CLAIMS),
        ("partial", partial::CLAIMS),
        ("passthrough", passthrough::CLAIMS),
        ("race", race::CLAIMS),
        ("reads", reads::CLAIMS),
        ("signals", signals::CLAIMS),
        ("start", start::CLAIMS),
        ("times", times::CLAIMS),
        ("writes", writes::CLAIMS),
    ])
}

/// How often a claim that is about "never" is tried: from the environment, for `tests/run`.
fn rounds(name: &str, otherwise: usize) -> usize {
    env::var(name)
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(otherwise)
}

/// Waits until `holds`, for what nobody is told of; panics with `what` after a minute.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(
            begin.elapsed() < Duration::from_mins(1),
            "not after a minute: {what}"
        );
        thread::sleep(Duration::from_millis(10));
    }
}
