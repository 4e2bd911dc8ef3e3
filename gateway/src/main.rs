//! The binary: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ackfs::heap::bound();
    ackfs::cli::run(std::env::args_os().collect(), std::env::vars_os())
}
