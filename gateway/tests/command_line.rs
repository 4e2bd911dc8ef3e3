//! The program as a person meets it: help, and mistakes that are told before anything is touched.

use std::process::{Command, Output};

/// Runs `ackfs` with nothing of this environment that means something to it.
fn ackfs(args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ackfs"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("ACKFS_") || text.starts_with("AWS_") {
            command.env_remove(&name);
        }
    }
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .args(args)
        .envs(env.iter().copied())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn help_is_an_answer_and_goes_to_stdout() {
    for args in [
        &["--help"][..],
        &["mount", "--help"],
        &["umount", "--help"],
        &["--version"],
    ] {
        let (code, out, err) = ackfs(args, &[]);
        assert_eq!((code, &*err), (Some(0), ""), "{args:?}");
        assert!(out.contains("ackfs"), "{args:?}: {out}");
    }
    let (_, out, _) = ackfs(&["mount", "--help"], &[]);
    for heading in [
        "The store:",
        "Cache and memory:",
        "The mount:",
        "Writing and closing:",
        "Running:",
    ] {
        assert!(out.contains(heading), "{heading} is not in\n{out}");
    }
}

/// Arguments, environment, the status wanted, a word wanted.
type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], i32, &'a str);

#[test]
fn a_mistake_is_one_line_with_a_status_of_its_kind() {
    let dir = tempfile::tempdir().unwrap();
    let mnt = dir.path().to_str().unwrap();
    let file = dir.path().join("bad.toml");
    std::fs::write(&file, "memroy = \"64MiB\"").unwrap();
    let file = file.to_str().unwrap();
    let cases: [Case; 9] = [
        (&["mount"], &[], 64, "s3://BUCKET"),
        (&["mount", "data", mnt], &[], 64, "s3://data"),
        (
            &["mount", "s3://data", mnt, "--memory=1KiB"],
            &[],
            64,
            "16MiB",
        ),
        (
            &["mount", "s3://data", mnt, "--cache-size", "-5"],
            &[],
            64,
            "--cache-size",
        ),
        (
            &["mount", "s3://data", mnt],
            &[("ACKFS_MEMORY", "x")],
            64,
            "ACKFS_MEMORY",
        ),
        (
            &["mount", "s3://data", mnt, "--background", "--transport=x"],
            &[],
            64,
            "uring",
        ),
        (
            &["mount", "s3://data", mnt, "--config", file],
            &[],
            78,
            "\"memory\"",
        ),
        (
            &["mount", "s3://data", "/nowhere/at/all"],
            &[],
            73,
            "mkdir -p",
        ),
        (&["stats", mnt], &[], 1, mnt),
    ];
    for (args, env, status, word) in cases {
        let (code, out, err) = ackfs(args, env);
        assert_eq!(code, Some(status), "{args:?}: {err}");
        assert_eq!(out, "", "{args:?}");
        assert_eq!(err.lines().count(), 1, "{args:?}: {err}");
        assert!(
            err.starts_with("ackfs: ") && err.contains(word),
            "{args:?}: {err}"
        );
    }
}

#[test]
fn doctor_looks_at_the_machine_line_by_line() {
    let (_, out, _) = ackfs(&["doctor"], &[]);
    for name in [
        "kernel",
        "/dev/fuse",
        "enable_uring",
        "io_uring_setup",
        "fusermount3",
        "close mode",
        "open files",
    ] {
        assert!(
            out.lines()
                .any(|line| line.get(6..).is_some_and(|line| line.starts_with(name))),
            "{out}"
        );
    }
    for line in out.lines() {
        let verdict = &line[..4];
        assert!(["ok  ", "warn", "fail"].contains(&verdict), "{line}");
        assert_eq!(verdict != "ok  ", line.contains("; mend: "), "{line}");
    }
}
