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
    let cases: [Case; 11] = [
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
        (
            &["mount", "s3://data", mnt, "--read-only", "maybe"],
            &[],
            64,
            "write --read-only=true",
        ),
        (&["stats", "--watch", "1s"], &[], 64, "write --watch=1s"),
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

/// A server that answers every connection with these bytes, until the test's process ends; its URL.
fn server(answer: &'static str) -> String {
    use std::io::{Read, Write};

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _asked = stream.read(&mut [0; 4096]);
            let _gone = stream.write_all(answer.as_bytes());
        }
    });
    url
}

/// One line that is for people: no Rust in it, and none of the layers that an error came through.
fn assert_plain(line: &str, words: &[&str]) {
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(line.starts_with("ackfs: "), "{line}");
    for word in words {
        assert!(line.contains(word), "{word:?} is in {line}");
    }
    for noise in ["{", "Error(", "dispatch failure", "io error", "panicked"] {
        assert!(!line.contains(noise), "{noise:?} is in {line}");
    }
}

/// Where the metadata service refuses, aws_config logged 700 characters of Rust's debug format before the
/// line that says it; a profile that is in no file and half a key were explained by the service, too.
#[test]
fn missing_credentials_are_one_plain_line() {
    let dir = tempfile::tempdir().unwrap();
    let mnt = dir.path().to_str().unwrap();
    let metadata = server("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
    let empty = tempfile::NamedTempFile::new().unwrap();
    let nothing = [
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &*metadata),
        ("AWS_CONFIG_FILE", "/dev/null"),
        (
            "AWS_SHARED_CREDENTIALS_FILE",
            empty.path().to_str().unwrap(),
        ),
    ];
    let missing = format!("no profile \"foo\" in {}", empty.path().display());
    let cases: [(&[&str], Env, [&str; 2]); 4] = [
        (
            &[],
            &[],
            ["no credentials found; ", "set AWS_ACCESS_KEY_ID"],
        ),
        (&["--profile", "foo"], &[], [&*missing, "--profile"]),
        (
            &[],
            &[("AWS_PROFILE", "bar")],
            ["no profile \"bar\"", "AWS_PROFILE"],
        ),
        (
            &[],
            &[("AWS_ACCESS_KEY_ID", "access")],
            ["AWS_SECRET_ACCESS_KEY is missing", "set AWS_SECRET"],
        ),
    ];
    for (flags, given, words) in cases {
        let endpoint = ["--endpoint-url", "http://127.0.0.1:1"];
        let args = [&["mount", "s3://data", mnt], &endpoint[..], flags].concat();
        let (code, out, err) = ackfs(&args, &[&nothing, given].concat());
        assert_eq!((code, &*out), (Some(77), ""), "{err}");
        assert_plain(&err, &words);
    }
}

/// A server for TLS with this certificate and key, until the test's process ends; its URL.
fn tls_server(pem: &'static str) -> String {
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::crypto::ring::default_provider;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

    let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(std::sync::Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(std::sync::Arc::new(config));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        runtime.block_on(async {
            while let Ok((stream, _)) = listener.accept().await {
                let _refused = acceptor.accept(stream).await;
            }
        });
    });
    format!("https://localhost:{port}")
}

#[test]
fn a_certificate_that_is_refused_is_one_plain_line() {
    let dir = tempfile::tempdir().unwrap();
    let mnt = dir.path().to_str().unwrap();
    let certificates = concat!(env!("CARGO_MANIFEST_DIR"), "/src/s3/tests");
    let authority = format!("{certificates}/authority.pem");
    for (pem, words) in [
        (
            include_str!("../src/s3/tests/elsewhere.pem"),
            [
                "for another name: it is only valid for elsewhere",
                "use the",
            ],
        ),
        (
            include_str!("../src/s3/tests/expired.pem"),
            ["has expired", "renew it"],
        ),
        (
            include_str!("../src/s3/tests/self_signed.pem"),
            ["an authority's", "CA:FALSE"],
        ),
    ] {
        let url = tls_server(pem);
        let env = [
            ("AWS_ACCESS_KEY_ID", "access"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_CA_BUNDLE", &*authority),
        ];
        let args = ["mount", "s3://data", mnt, "--endpoint-url", &url];
        let (code, out, err) = ackfs(&args, &env);
        assert_eq!((code, &*out), (Some(69), ""), "{err}");
        assert_plain(&err, &words);
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
