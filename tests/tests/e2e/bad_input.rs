//! Bad input and trouble: one clear line with cause and fix, a status that scripts can tell apart,
//! and nothing lost or left behind.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use ackfs_tests::demo::{ACCESS_KEY, Effect, On, SECRET_KEY};
use ackfs_tests::mount::{Refusal, ackfs_bin, clean, is_mounted, run, run_ackfs};
use ackfs_tests::{Options, World, claims, nursery};

claims! {
    ONE:
        a_missing_bucket_is_refused,
        an_expired_token_is_refused,
        a_dead_endpoint_is_refused,
        an_endpoint_that_never_answers_is_refused_in_time,
        https_where_http_is_spoken_is_refused,
        http_where_https_is_spoken_is_refused,
        a_store_that_speaks_no_s3_is_refused,
        a_store_that_redirects_for_ever_is_refused,
        a_listing_that_is_no_xml_is_an_error,
        an_answer_shorter_than_it_says_is_an_error,
        a_directory_that_is_missing_is_refused,
        a_directory_that_is_a_file_is_refused,
        a_directory_that_holds_something_is_warned_of,
        a_directory_that_is_mounted_is_refused,
        a_cache_directory_that_cannot_be_made_is_refused,
        bad_flags_are_refused,
        bad_configuration_files_are_refused,
        a_configuration_file_is_believed,
        without_dev_fuse_it_says_what_is_missing,
        without_the_right_to_mount_it_says_what_is_missing,
        without_the_ring_it_falls_back_or_refuses;
    DEMO:
        credentials_that_are_wrong_are_refused;
    MINIO:
        wrong_credentials_and_regions_are_said;
}

const TIME_MAX: Duration = Duration::from_mins(1);

/// Mounting must fail with this status and say each of these words (in any case) in few lines.
fn refused(world: &World, options: Options, code: i32, words: &[&str]) -> Refusal {
    let refusal = world
        .try_mount(options)
        .expect_err("this cannot be mounted");
    assert_refusal(refusal.code, &refusal.words.join("\n"), code, words);
    refusal
}

fn assert_refusal(found: Option<i32>, text: &str, code: i32, words: &[&str]) {
    assert_eq!(found, Some(code), "status, with these words:\n{text}");
    let lower = text.to_lowercase();
    for word in words {
        assert!(
            lower.contains(&word.to_lowercase()),
            "{word:?} is in:\n{text}"
        );
    }
    // Warnings of retries may come before it; the reason itself is one line, and no backtrace.
    assert!(
        text.lines().count() <= 12,
        "a reason is not a story:\n{text}"
    );
    assert!(!lower.contains("panicked"), "{text}");
}

fn a_missing_bucket_is_refused(world: &World) {
    refused(
        world,
        world.options().source("no-such-bucket"),
        69,
        &["no-such-bucket"],
    );
}

fn credentials_that_are_wrong_are_refused(world: &World) {
    let options = world.options().env("AWS_SECRET_ACCESS_KEY", "wrong");
    refused(world, options, 77, &["credentials"]);
    let options = world.options().env("AWS_ACCESS_KEY_ID", "nobody");
    refused(world, options, 77, &["credentials"]);
}

fn wrong_credentials_and_regions_are_said(world: &World) {
    let options = world.options().env("AWS_SECRET_ACCESS_KEY", "wrong");
    refused(world, options, 77, &["credentials"]);
    // A wrong region is followed or said.
    match world.try_mount(world.options().flags("--region eu-central-1")) {
        Ok(mount) => fs::write(mount.path("file"), "x").expect("the region was followed"),
        Err(refusal) => {
            let words = refusal.words.join("\n");
            assert!(words.contains("region"), "{words}");
            assert!(refusal.code.is_some_and(|code| code != 0));
        }
    }
}

fn an_expired_token_is_refused(world: &World) {
    world
        .demo()
        .fault(On::Any, None, Effect::refuse(400, "ExpiredToken"), None);
    refused(world, world.options(), 77, &["expired"]);
}

fn a_dead_endpoint_is_refused(world: &World) {
    let endpoint = "http://127.0.0.1:1";
    let begin = Instant::now();
    refused(
        world,
        world
            .options()
            .endpoint(endpoint)
            .flags("--store-timeout 3s"),
        69,
        &[endpoint],
    );
    assert!(begin.elapsed() < Duration::from_secs(20));
}

/// A server that answers each connection by `answer`, until the test's process ends.
fn server(answer: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(stream);
        }
    });
    format!("http://127.0.0.1:{port}")
}

/// A server that answers every HTTP request with these bytes and closes.
fn http(answer: &'static str) -> String {
    server(move |stream| {
        thread::spawn(move || {
            let mut reader = BufReader::new(&stream);
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|len| len > 2) {
                line.clear();
            }
            let _ = (&stream).write_all(answer.as_bytes());
        });
    })
}

fn an_endpoint_that_never_answers_is_refused_in_time(world: &World) {
    let endpoint = server(|mut stream| {
        // Holds the connection and reads, for as long as the other side has patience.
        thread::spawn(move || {
            let mut sink = [0; 4096];
            while stream.read(&mut sink).is_ok_and(|len| len > 0) {}
        });
    });
    let begin = Instant::now();
    let options = world
        .options()
        .endpoint(&endpoint)
        .flags("--store-timeout 2s");
    refused(world, options, 69, &[&endpoint]);
    assert!(
        begin.elapsed() < Duration::from_secs(20),
        "the limit was two seconds"
    );
}

fn https_where_http_is_spoken_is_refused(world: &World) {
    let endpoint = world.endpoint().replace("http:", "https:");
    let options = world
        .options()
        .endpoint(&endpoint)
        .flags("--store-timeout 3s");
    refused(world, options, 69, &[&endpoint]);
}

fn http_where_https_is_spoken_is_refused(world: &World) {
    // What a TLS server sends to a client that speaks HTTP: alert, fatal, protocol_version.
    let endpoint = http("\u{15}\u{3}\u{1}\u{0}\u{2}\u{2}F");
    let options = world
        .options()
        .endpoint(&endpoint)
        .flags("--store-timeout 3s");
    refused(world, options, 69, &[&endpoint]);
}

fn a_store_that_speaks_no_s3_is_refused(world: &World) {
    let pages = [
        "HTTP/1.1 404 Not Found\r\ncontent-length: 20\r\nconnection: close\r\n\r\n<html>nothing</html>",
        "HTTP/1.1 500 Oops\r\ncontent-length: 9\r\nconnection: close\r\n\r\n<<not&xml",
        "garbage without a status line\r\n\r\n",
    ];
    for page in pages {
        let endpoint = http(page);
        let options = world
            .options()
            .endpoint(&endpoint)
            .flags("--store-timeout 3s");
        let refusal = world.try_mount(options).expect_err("this is no store");
        assert!(
            refusal.code.is_some_and(|code| code != 0),
            "{page:?}: {refusal}"
        );
        assert!(!refusal.words.is_empty(), "{page:?} has a reason");
    }
}

fn a_store_that_redirects_for_ever_is_refused(world: &World) {
    let endpoint = http(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: /again\r\ncontent-length: 0\r\n\
         connection: close\r\n\r\n",
    );
    let begin = Instant::now();
    let options = world
        .options()
        .endpoint(&endpoint)
        .flags("--store-timeout 3s");
    let refusal = world.try_mount(options).expect_err("this is no store");
    assert!(refusal.code.is_some_and(|code| code != 0), "{refusal}");
    assert!(begin.elapsed() < Duration::from_secs(30), "not for ever");
}

fn a_listing_that_is_no_xml_is_an_error(world: &World) {
    world.demo().fill("dir/", 10);
    let flags = "--store-timeout 3s --metadata-ttl 0s";
    let mount = world.mount_with(world.options().flags(flags));
    world.demo().fault(On::List, None, Effect::Malformed, None);
    let listed = fs::read_dir(mount.path("dir")).map(Iterator::count);
    let whole = fs::read_dir(mount.path("dir")).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    assert!(
        whole.is_err(),
        "a page that cannot be read is not an empty one: {listed:?}"
    );
    world.demo().heal();
    assert_eq!(
        fs::read_dir(mount.path("dir")).expect("opendir").count(),
        10
    );
}

fn an_answer_shorter_than_it_says_is_an_error(world: &World) {
    world
        .witness()
        .put("file", &ackfs_tests::content::bytes(1, 100_000));
    let mount = world.mount_with(world.options().flags("--store-timeout 3s"));
    world
        .demo()
        .fault(On::Get, None, Effect::CutBody { after: 30_000 }, None);
    if let Ok(found) = fs::read(mount.path("file")) {
        // Each answer brings some bytes more, so it can be whole in the end; short it never is.
        ackfs_tests::content::assert_same(
            &found,
            &ackfs_tests::content::bytes(1, 100_000),
            "through answers that are cut",
        );
    }
}

fn a_directory_that_is_missing_is_refused(world: &World) {
    let dir = nursery::dir("mnt-").path().join("missing");
    refused(
        world,
        world.options().at(&dir),
        73,
        &[&dir.to_string_lossy(), "mkdir"],
    );
}

fn a_directory_that_is_a_file_is_refused(world: &World) {
    let dir = nursery::dir("mnt-");
    let file = dir.path().join("file");
    fs::write(&file, "precious").expect("write");
    refused(
        world,
        world.options().at(&file),
        73,
        &[&file.to_string_lossy(), "not a directory"],
    );
    assert_eq!(fs::read(&file).expect("read"), b"precious");
}

fn a_directory_that_holds_something_is_warned_of(world: &World) {
    let dir = nursery::dir("mnt-");
    fs::write(dir.path().join("hidden"), "precious").expect("write");
    let mount = world.mount_with(world.options().at(dir.path()));
    assert!(
        mount.log().iter().any(|line| line.contains("not empty")),
        "{:?}",
        mount.log()
    );
    assert!(!dir.path().join("hidden").exists());
    assert!(mount.unmount().success());
    assert_eq!(
        fs::read(dir.path().join("hidden")).expect("read"),
        b"precious"
    );
}

fn a_directory_that_is_mounted_is_refused(world: &World) {
    let mount = world.mount();
    let options = world.options().at(mount.dir());
    let dir = mount.dir().to_string_lossy().into_owned();
    let refusal = Options::try_mount(options).expect_err("it is mounted");
    assert_refusal(
        refusal.code,
        &refusal.words.join("\n"),
        73,
        &[&dir, "mounted"],
    );
}

fn a_cache_directory_that_cannot_be_made_is_refused(world: &World) {
    let dir = nursery::dir("cache-");
    let file = dir.path().join("file");
    fs::write(&file, "x").expect("write");
    let cache = file.join("cache");
    refused(
        world,
        world.options().cache(&cache),
        73,
        &[&cache.to_string_lossy()],
    );
}

fn bad_flags_are_refused(world: &World) {
    let bad = [
        ("--memory banana", "memory"),
        ("--memory 1KiB", "memory"),
        ("--part-size 1MiB", "part-size"),
        ("--cache-size -5", "cache-size"),
        ("--metadata-ttl soon", "metadata-ttl"),
        ("--file-mode 999", "file-mode"),
        ("--transport pigeon", "transport"),
        ("--queue-depth 0", "queue-depth"),
        ("--max-requests 0", "max-requests"),
        ("--close-waits-for journal", "close-waits-for"),
        ("--on-conflict keep-both", "on-conflict"),
        ("--endpoint-url ftp://here", "endpoint-url"),
        ("--no-such-flag", "no-such-flag"),
        ("--no-sign-request --profile other", "profile"),
        ("--metrics nowhere", "metrics"),
    ];
    for (flags, word) in bad {
        let refusal = refused(world, world.options().flags(flags), 64, &[word]);
        assert!(!refusal.words.is_empty());
    }
    let refusal = refused(world, world.options().source(""), 64, &["s3://"]);
    assert!(!refusal.words.is_empty());
    // The same through the environment, which names the variable.
    refused(
        world,
        world.options().env("ACKFS_MEMORY", "banana"),
        64,
        &["memory"],
    );
    // And without anything at all.
    let (code, _, words) = run_ackfs(&["mount"], &[], TIME_MAX).expect("it ends");
    assert_eq!(code, Some(64), "{words}");
    let (code, _, words) = run_ackfs(&["fly"], &[], TIME_MAX).expect("it ends");
    assert_eq!(code, Some(64), "{words}");
}

fn config(text: &str) -> (tempfile::TempDir, String) {
    let dir = nursery::dir("config-");
    let path = dir.path().join("ackfs.toml");
    fs::write(&path, text).expect("write");
    let flag = format!("--config {}", path.display());
    (dir, flag)
}

fn bad_configuration_files_are_refused(world: &World) {
    let missing = "--config /nonexistent/ackfs.toml";
    refused(
        world,
        world.options().flags(missing),
        78,
        &["/nonexistent/ackfs.toml"],
    );
    for (text, word) in [
        ("no-such-key = 1\n", "no-such-key"),
        ("memory = \"banana\"\n", "memory"),
        ("memory = [\n", "ackfs.toml"),
        ("part-size = \"1MiB\"\n", "part-size"),
    ] {
        let (_dir, flag) = config(text);
        let refusal = world
            .try_mount(world.options().flags(&flag))
            .expect_err("a bad file");
        let words = refusal.words.join("\n");
        assert!(matches!(refusal.code, Some(64 | 78)), "{text:?}: {refusal}");
        assert!(words.contains(word), "{word:?} is in:\n{words}");
    }
}

fn a_configuration_file_is_believed(world: &World) {
    let (_dir, flag) = config("read-only = true\nfile-mode = \"0604\"\n");
    world.witness().put("file", b"x");
    let mount = world.mount_with(world.options().flags(&flag));
    assert!(fs::write(mount.path("new"), "x").is_err());
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(mount.path("file"))
        .expect("stat")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o604);
    // A flag wins over the file.
    let mount = world.mount_with(world.options().flags(&flag).flags("--file-mode 0640"));
    let mode = fs::metadata(mount.path("file"))
        .expect("stat")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640);
}

/// Runs a mount through `sh` in a mount namespace of its own, after `script` has changed it.
fn in_namespace(world: &World, script: &str, transport: &str) -> (Command, tempfile::TempDir) {
    let dir = nursery::dir("mnt-");
    let cache = dir.path().join("cache");
    let target = dir.path().join("target");
    fs::create_dir(&target).expect("mkdir");
    let mut command = nursery::command("unshare");
    clean(&mut command);
    command
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg(format!(
            "set -e\n{script}\nexec setpriv --pdeathsig KILL -- \"$@\""
        ))
        .arg("sh")
        .arg(ackfs_bin())
        .arg("mount")
        .arg(format!("s3://{}", world.witness().bucket()))
        .arg(&target)
        .args([
            "--endpoint-url",
            &world.endpoint(),
            "--transport",
            transport,
            "--cache-dir",
        ])
        .arg(&cache)
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .env("XDG_RUNTIME_DIR", dir.path());
    (command, dir)
}

fn without_dev_fuse_it_says_what_is_missing(world: &World) {
    let (mut command, dir) = in_namespace(world, "mount -t tmpfs none /dev", "auto");
    let (code, _, words) = run(&mut command, TIME_MAX).expect("it ends");
    assert_refusal(code, &words, 73, &["/dev/fuse"]);
    assert!(!is_mounted(&dir.path().join("target")));
}

/// Somebody else, without fusermount3 on the path.
fn without_the_right_to_mount_it_says_what_is_missing(world: &World) {
    let dir = tempfile::Builder::new()
        .prefix("at-")
        .tempdir()
        .expect("a directory");
    let target = dir.path().join("target");
    fs::create_dir(&target).expect("mkdir");
    for path in [dir.path(), &target] {
        std::os::unix::fs::chown(path, Some(65_534), Some(65_534)).expect("chown");
    }
    let readable = dir.path().join("ackfs");
    fs::copy(ackfs_bin(), &readable).expect("the binary can be copied");
    let mut command = nursery::command("setpriv");
    clean(&mut command);
    command
        .args([
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "--no-new-privs",
            "--",
        ])
        .args(["/usr/bin/env", "PATH=/nonexistent"])
        .arg(&readable)
        .arg("mount")
        .arg(format!("s3://{}", world.witness().bucket()))
        .arg(&target)
        .args(["--endpoint-url", &world.endpoint(), "--cache-dir"])
        .arg(dir.path().join("cache"))
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .env("XDG_RUNTIME_DIR", dir.path());
    let (code, _, words) = run(&mut command, TIME_MAX).expect("it ends");
    let fuse: &Path = Path::new("/dev/fuse");
    assert!(fuse.exists());
    // Where /dev/fuse itself is root's alone, that is the reason; else it is fusermount3.
    assert_refusal(code, &words, 73, &["fuse"]);
}

fn without_the_ring_it_falls_back_or_refuses(world: &World) {
    let off = "printf 'N\\n' > \"$XDG_RUNTIME_DIR/off\"
        mount --bind \"$XDG_RUNTIME_DIR/off\" /sys/module/fuse/parameters/enable_uring";
    let (mut command, _dir) = in_namespace(world, off, "uring");
    let (code, _, words) = run(&mut command, TIME_MAX).expect("it ends");
    assert_refusal(code, &words, 73, &["enable_uring"]);
}
