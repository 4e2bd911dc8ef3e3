//! What holds on a stock kernel: the close mode is `flush`, and each close that finds dirty bytes
//! publishes them.

use std::io::Write as _;

use ackfs_tests::content::bytes;
use ackfs_tests::posix::close;

use crate::Case;
use crate::cases::{plain_close, shell};
use crate::child;
use crate::stage::Stage;

/// In the order in which they are tried.
pub(crate) const CASES: &[Case] = &[
    ("a plain close", plain_close),
    ("each close of a dup that finds dirty bytes", dup),
    ("a process that exits", exit),
    ("a shell's redirection has the right bytes", |stage| {
        shell(stage, None);
    }),
    ("doctor says why", doctor),
];

fn dup(stage: &Stage) {
    let file = stage.create("dup", b"one ");
    let mut dup = file.try_clone().expect("dup");
    assert_eq!(close(file), Ok(()));
    stage.is_there("dup", b"one ", 1);
    dup.write_all(b"two").expect("write");
    assert_eq!(close(dup), Ok(()));
    stage.is_there("dup", b"one two", 2);
}

fn exit(stage: &Stage) {
    let body = String::from_utf8_lossy(&bytes(3, 99)).replace('\0', "0");
    let path = stage.path("exit");
    child::done(&["leave", &path.to_string_lossy(), &body], None);
    stage.is_there("exit", body.as_bytes(), 1);
}

fn doctor(stage: &Stage) {
    let found = stage.ackfs(&["doctor"]);
    let line = found.lines().find(|line| line.contains("close mode"));
    let line = line.unwrap_or_else(|| panic!("no line about it in\n{found}"));
    assert!(
        line.starts_with("warn") && line.contains("does not offer"),
        "{line}"
    );
}
