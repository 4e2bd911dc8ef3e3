//! The program as a person meets it: help, and mistakes that are told before anything is touched.

use std::process::{Command, Output};

/// Runs `ackfs` with nothing of this environment that means something to it.
fn ackfs(args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ackfs"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["ACKFS_", "AWS_", "SSL_CERT_"]
            .iter()
            .any(|prefix| text.starts_with(prefix))
        {
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

type Env<'a> = &'a [(&'a str, &'a str)];

/// Arguments, environment, the status wanted, a word wanted.
type Case<'a> = (&'a [&'a str], Env<'a>, i32, &'a str);

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

/// The client for https panicked on a machine without certificates, and it was made for every endpoint.
#[test]
fn without_certificates_https_says_what_to_install_and_http_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mnt = dir.path().to_str().unwrap();
    let empty = tempfile::NamedTempFile::new().unwrap();
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "token").unwrap();
    let keys = [
        ("AWS_ACCESS_KEY_ID", "access"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ];
    // A role whose keys are had over https, while the store speaks http.
    let role = [
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r"),
        (
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            token.path().to_str().unwrap(),
        ),
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    // Nothing listens on port 1.
    let cases: [(&str, Env, &str); 3] = [
        ("https://127.0.0.1:1", &keys, "ca-certificates"),
        ("http://127.0.0.1:1", &keys, "refused"),
        ("http://127.0.0.1:1", &role, "ca-certificates"),
    ];
    for certificates in [empty.path().to_str().unwrap(), mnt, "/nowhere.pem"] {
        for (url, given, word) in cases {
            let env = [given, &[("SSL_CERT_FILE", certificates)]].concat();
            let args = ["mount", "s3://data", mnt, "--endpoint-url", url];
            let (code, out, err) = ackfs(&args, &env);
            assert_eq!(code, Some(69), "{url} {certificates}: {err}");
            assert_eq!(out, "");
            let last = err.lines().last().unwrap_or_default();
            assert!(
                last.starts_with("ackfs: ") && last.contains(word),
                "{url} {certificates}: {err}"
            );
            assert!(!err.contains("panicked"), "{err}");
        }
    }
}

/// The machine's role is asked for the region where nothing else says it, which panicked for the lack of
/// a client. Nothing is sent here: the lack of certificates is found after the region.
#[test]
fn without_an_endpoint_the_region_is_looked_for_at_the_machine_s_role() {
    let dir = tempfile::tempdir().unwrap();
    let empty = tempfile::NamedTempFile::new().unwrap();
    let env = [
        ("AWS_ACCESS_KEY_ID", "access"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("SSL_CERT_FILE", empty.path().to_str().unwrap()),
    ];
    let args = ["mount", "s3://data", dir.path().to_str().unwrap()];
    let (code, _, err) = ackfs(&args, &env);
    assert_eq!(code, Some(69), "{err}");
    assert!(err.contains("ca-certificates"), "{err}");
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
