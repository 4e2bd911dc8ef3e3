//! Bad input and trouble: one clear line with cause and fix, a status that scripts can tell apart,
//! and nothing lost or left behind.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use ackfs_tests::command::{ackfs_bin, clean, run, run_ackfs};
use ackfs_tests::demo::{ACCESS_KEY, Effect, On, SECRET_KEY};
use ackfs_tests::mount::{Refusal, is_mounted};
use ackfs_tests::{Options, World, claims, sandbox};

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
        doctor_is_content_with_a_mount_that_serves,
        doctor_judges_the_cache_directory,
        a_mount_option_that_nobody_knows_is_refused,
        a_cache_directory_that_cannot_be_made_is_refused,
        bad_flags_are_refused,
        bad_configuration_files_are_refused,
        a_configuration_file_is_believed,
        without_dev_fuse_it_says_what_is_missing,
        without_the_right_to_mount_it_says_what_is_missing,
        without_the_ring_it_falls_back_or_refuses;
    DEMO:
        credentials_that_are_wrong_are_refused,
        missing_credentials_are_said;
    MINIO:
        wrong_credentials_and_regions_are_said;
}

const TIME_MAX: Duration = Duration::from_mins(1);

/// Mounting must fail with this status and say why in one line with each of these words (in any case):
/// the cause first, the fix last.
fn refused(world: &World, options: Options, code: i32, words: &[&str]) -> Refusal {
    let refusal = world
        .try_mount(options)
        .expect_err("this cannot be mounted");
    assert_refusal(refusal.code, &refusal.words.join("\n"), code, words);
    refusal
}

/// What no line for people holds: Rust's debug format, the layers of libraries, loose ends.
const NOISE: [&str; 9] = [
    "{",
    "Error(",
    "Some(",
    "MsFlags",
    "dispatch failure",
    "io error",
    "client error",
    "panicked",
    "; ;",
];

fn assert_refusal(found: Option<i32>, text: &str, code: i32, words: &[&str]) {
    assert_eq!(found, Some(code), "status, with these words:\n{text}");
    // What was found on the way may be told before; nothing that looks like a trouble of its own.
    let mut reasons = text.lines().filter(|line| !line.contains(" INFO "));
    let (Some(line), None) = (reasons.next(), reasons.next()) else {
        panic!("a reason is one line:\n{text}");
    };
    assert!(line.starts_with("ackfs: "), "{text}");
    let text = line;
    let lower = text.to_lowercase();
    for word in words {
        assert!(
            lower.contains(&word.to_lowercase()),
            "{word:?} is in:\n{text}"
        );
    }
    for noise in NOISE {
        assert!(!text.contains(noise), "{noise:?} is in:\n{text}");
    }
    assert!(!text.ends_with([';', ' ', '.', ':']), "{text:?}");
}

fn a_missing_bucket_is_refused(world: &World) {
    refused(
        world,
        world.options().source("no-such-bucket"),
        69,
        &["no bucket \"no-such-bucket\"", "check its name"],
    );
}

fn credentials_that_are_wrong_are_refused(world: &World) {
    let options = world.options().env("AWS_SECRET_ACCESS_KEY", "wrong");
    let words = ["credentials", "secret key is wrong", "check AWS_SECRET"];
    refused(world, options, 77, &words);
    let options = world.options().env("AWS_ACCESS_KEY_ID", "nobody");
    let words = ["does not know the access key", "check AWS_ACCESS_KEY_ID"];
    refused(world, options.clone(), 77, &words);
    let options = options.env("AWS_SESSION_TOKEN", "of-yesterday");
    let words = ["or the session has expired", "new temporary credentials"];
    refused(world, options, 77, &words);
}

/// The chain's last link, the machine's metadata service, was what all of these were explained by.
fn missing_credentials_are_said(world: &World) {
    let options = || {
        let options = world.options().env("AWS_ACCESS_KEY_ID", "");
        options.env("AWS_SECRET_ACCESS_KEY", "")
    };
    let words = ["no credentials found", "set AWS_ACCESS_KEY_ID"];
    refused(world, options(), 77, &words);
    let half = options().env("AWS_ACCESS_KEY_ID", "somebody");
    let words = ["AWS_SECRET_ACCESS_KEY is missing", "set AWS_SECRET"];
    refused(world, half, 77, &words);
    let words = ["no profile \"foo\" in", "check --profile"];
    refused(world, options().flags("--profile foo"), 77, &words);
    let words = ["no profile \"bar\" in", "AWS_PROFILE"];
    refused(world, options().env("AWS_PROFILE", "bar"), 77, &words);
}

fn wrong_credentials_and_regions_are_said(world: &World) {
    let options = world.options().env("AWS_SECRET_ACCESS_KEY", "wrong");
    let words = ["credentials", "secret key is wrong", "check AWS_SECRET"];
    refused(world, options, 77, &words);
    // A wrong region is followed or said.
    match world.try_mount(world.options().flags("--region eu-central-1")) {
        Ok(mount) => fs::write(mount.path("file"), "x").expect("the region was followed"),
        Err(refusal) => {
            let words = refusal.words.join("\n");
            assert_refusal(
                refusal.code,
                &words,
                69,
                &["not in region", "give --region"],
            );
        }
    }
}

fn an_expired_token_is_refused(world: &World) {
    world
        .demo()
        .fault(On::Any, None, Effect::refuse(400, "ExpiredToken"), None);
    let words = ["token is expired", "get new temporary credentials"];
    refused(world, world.options(), 77, &words);
}

fn a_dead_endpoint_is_refused(world: &World) {
    let endpoint = "http://127.0.0.1:1";
    let begin = Instant::now();
    refused(
        world,
        world.options().endpoint(endpoint),
        69,
        &[endpoint, "connection refused", "start the store"],
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

/// A server that answers every HTTP request with these bytes and resets the connection.
fn resetting(answer: &'static str) -> String {
    server(move |mut stream| {
        let mut request = [0; 64];
        let _ = stream.read(&mut request);
        let _ = stream.write_all(answer.as_bytes());
        // What is left unread makes the kernel reset it at the close; this does in any case.
        let now = nix::libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        let set = nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &now);
        set.expect("a socket has a linger");
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
    let words = [&*endpoint, "does not answer", "check the host"];
    refused(world, options, 69, &words);
    assert!(
        begin.elapsed() < Duration::from_secs(20),
        "the limit was two seconds"
    );
}

fn https_where_http_is_spoken_is_refused(world: &World) {
    let endpoint = world.endpoint().replace("http:", "https:");
    let options = world.options().endpoint(&endpoint);
    let words = [&*endpoint, "does not speak https", "http://"];
    refused(world, options, 69, &words);
}

fn http_where_https_is_spoken_is_refused(world: &World) {
    let answers = [
        // An alert of TLS: fatal, protocol_version.
        http("\u{15}\u{3}\u{1}\u{0}\u{2}\u{2}F"),
        // Go's server, MinIO's among them, when all of its words arrive.
        http("HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"),
        // And when the reset overtakes them, which is the rule.
        resetting("HTTP/1.0 400 Bad Request\r\n\r\n"),
        resetting(""),
        // OpenSSL's.
        http(""),
    ];
    for endpoint in answers {
        let options = world.options().endpoint(&endpoint);
        refused(world, options, 69, &[&endpoint, "speak", "with https://"]);
    }
}

fn a_store_that_speaks_no_s3_is_refused(world: &World) {
    let pages = [
        (
            "HTTP/1.1 404 Not Found\r\ncontent-length: 20\r\nconnection: close\r\n\r\n<html>nothing</html>",
            ["is not S3", "check the host, port and path"],
        ),
        (
            "HTTP/1.1 500 Oops\r\ncontent-length: 9\r\nconnection: close\r\n\r\n<<not&xml",
            ["status 500", "its state and its log"],
        ),
        (
            "garbage without a status line\r\n\r\n",
            ["does not speak http", "check host and port"],
        ),
    ];
    for (page, words) in pages {
        let endpoint = http(page);
        let options = world.options().endpoint(&endpoint);
        // It is asked again for as long as it may be.
        let options = options.flags("--store-timeout 5s");
        refused(world, options, 69, &words);
    }
}

fn a_store_that_redirects_for_ever_is_refused(world: &World) {
    let endpoint = http(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: /again\r\ncontent-length: 0\r\n\
         connection: close\r\n\r\n",
    );
    let begin = Instant::now();
    let options = world.options().endpoint(&endpoint);
    let words = ["redirects to /again", "the store's own --endpoint-url"];
    refused(world, options, 69, &words);
    assert!(begin.elapsed() < Duration::from_secs(30), "not for ever");
}

fn a_listing_that_is_no_xml_is_an_error(world: &World) {
    world.demo().fill("dir/", 10);
    let mount = world.mount_with(world.options().flags("--metadata-ttl 0s"));
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
    let mount = world.mount_with(world.options().flags("--store-timeout 5s"));
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
    let dir = sandbox::dir("mnt-").path().join("missing");
    refused(
        world,
        world.options().at(&dir),
        73,
        &[&dir.to_string_lossy(), "does not exist", "mkdir -p"],
    );
}

fn a_directory_that_is_a_file_is_refused(world: &World) {
    let dir = sandbox::dir("mnt-");
    let file = dir.path().join("file");
    fs::write(&file, "precious").expect("write");
    refused(
        world,
        world.options().at(&file),
        73,
        &[&file.to_string_lossy(), "not a directory", "name an empty"],
    );
    let round = dir.path().join("round");
    std::os::unix::fs::symlink("round", &round).expect("symlink");
    let words = ["too many levels", "name a directory"];
    refused(world, world.options().at(&round), 73, &words);
    assert_eq!(fs::read(&file).expect("read"), b"precious");
}

fn a_directory_that_holds_something_is_warned_of(world: &World) {
    let dir = sandbox::dir("mnt-");
    fs::write(dir.path().join("hidden"), "precious").expect("write");
    let mount = world.mount_with(world.options().at(dir.path()));
    crate::eventually("the log says what is hidden", || {
        mount.log().iter().any(|line| line.contains("not empty"))
    });
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
        &[&dir, "mounted on it", "unmount that first"],
    );
}

/// README's own order, mount and then doctor, ended with a failure: the directory "has a mount on it".
fn doctor_is_content_with_a_mount_that_serves(world: &World) {
    let mount = world.mount();
    let dir = mount.dir().to_string_lossy();
    let doctor = |source: &str| {
        let endpoint = world.endpoint();
        let args = ["doctor", source, &dir, "--endpoint-url", &endpoint];
        let keys = [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ];
        let (code, lines, _) = run_ackfs(&args, &keys, TIME_MAX).expect("it ends");
        let line = lines.lines().find(|line| line.contains(" directory "));
        (code, line.unwrap_or_default().to_owned(), lines)
    };
    let source = format!("s3://{}", world.witness().bucket());
    let (code, line, lines) = doctor(&source);
    assert!(
        line.starts_with("ok ") && line.contains("serves"),
        "{lines}"
    );
    assert_eq!(code, Some(0), "{lines}");
    let (code, line, lines) = doctor("s3://some-other-bucket");
    assert!(
        line.starts_with("fail") && line.contains("umount"),
        "{lines}"
    );
    assert_eq!(code, Some(1), "{lines}");
}

fn doctor_judges_the_cache_directory(world: &World) {
    let (dir, place) = (sandbox::dir("mnt-"), sandbox::dir("cache-"));
    let source = format!("s3://{}", world.witness().bucket());
    fs::write(place.path().join("file"), "x").expect("write");
    let below = |name: &str| place.path().join(name).to_string_lossy().into_owned();
    let inside = dir.path().join("cache").to_string_lossy().into_owned();
    let cases = [
        // What is not there yet is made by the mount.
        (below("new/cache"), "1GiB", "ok ", "1 GiB of "),
        (below("file/cache"), "1GiB", "fail", "not a directory"),
        (below("new"), "1000TiB", "warn", "lower --cache-size"),
        (inside, "1GiB", "fail", "lies in the directory"),
        (below("file/cache"), "0", "ok ", "none, as --cache-size 0"),
    ];
    for (cache, size, verdict, word) in cases {
        let mut args = vec!["doctor", &source];
        let (dir, endpoint) = (dir.path().to_string_lossy(), world.endpoint());
        args.extend([&*dir, "--endpoint-url", &endpoint]);
        args.extend(["--cache-dir", &cache, "--cache-size", size]);
        let keys = [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ];
        let (code, lines, words) = run_ackfs(&args, &keys, TIME_MAX).expect("it ends");
        let line = lines
            .lines()
            .find(|line| line.contains(" cache directory "));
        let line = line.unwrap_or_else(|| panic!("no line for {cache}: {lines}{words}"));
        assert!(line.starts_with(verdict) && line.contains(word), "{line}");
        assert_eq!(code, Some(i32::from(verdict == "fail")), "{lines}");
        assert!(!place.path().join("new").exists(), "it makes nothing");
    }
}

fn a_mount_option_that_nobody_knows_is_refused(world: &World) {
    let options = world.options().flags("--mount-options nonsense");
    let words = ["EINVAL", "--mount-options nonsense", "leave it out"];
    refused(world, options, 73, &words);
}

fn a_cache_directory_that_cannot_be_made_is_refused(world: &World) {
    let dir = sandbox::dir("cache-");
    let file = dir.path().join("file");
    fs::write(&file, "x").expect("write");
    let cache = file.join("cache");
    refused(
        world,
        world.options().cache(&cache),
        73,
        &[&cache.to_string_lossy(), "not a directory", "--cache-dir"],
    );
}

fn bad_flags_are_refused(world: &World) {
    let bad = [
        ("--memory banana", "--memory", "64MiB"),
        ("--memory 1KiB", "--memory 1 KiB is too little", "at least"),
        ("--memory 99999999999999GiB", "--memory", "at most 8 EiB"),
        ("--part-size 1MiB", "--part-size 1 MiB", "5MiB to 5GiB"),
        ("--cache-size -5", "--cache-size", "64MiB"),
        ("--cache-size 18446744073709551615", "--cache-size", "8 EiB"),
        ("--metadata-ttl soon", "--metadata-ttl", "500ms"),
        ("--file-mode 999", "--file-mode", "octal"),
        ("--uid root", "--uid", "a user id is a number"),
        ("--uid 4294967295", "--uid", "0 to 4294967294"),
        ("--transport pigeon", "--transport", "uring"),
        ("--queue-depth 0", "--queue-depth", "16..=1024"),
        ("--max-requests 0", "--max-requests", "1..=1024"),
        (
            "--close-waits-for journal",
            "--close-waits-for",
            "the store",
        ),
        (
            "--on-conflict keep-both",
            "--on-conflict",
            "fail or overwrite",
        ),
        ("--no-such-flag", "--no-such-flag", ""),
        (
            "--no-sign-request --profile other",
            "--profile",
            "leave one out",
        ),
        ("--metrics nowhere", "--metrics", "127.0.0.1:9464"),
        ("--read-only maybe", "--read-only", "write --read-only=true"),
    ];
    for (flags, cause, fix) in bad {
        let options = world.options().any_door().flags(flags);
        refused(world, options, 64, &[cause, fix]);
    }
    let elsewhere = world.options().endpoint("ftp://here");
    refused(world, elsewhere, 64, &["--endpoint-url", "http://"]);
    let refusal = refused(world, world.options().source(""), 64, &["s3://"]);
    assert!(!refusal.words.is_empty());
    // The same through the environment, which names the variable.
    for (value, fix) in [("banana", "64MiB"), ("1KiB", "at least 16MiB")] {
        let options = world.options().env("ACKFS_MEMORY", value);
        refused(world, options, 64, &["ACKFS_MEMORY", fix]);
    }
    // And without anything at all.
    let (code, _, words) = run_ackfs(&["mount"], &[], TIME_MAX).expect("it ends");
    assert_eq!(code, Some(64), "{words}");
    let (code, _, words) = run_ackfs(&["fly"], &[], TIME_MAX).expect("it ends");
    assert_eq!(code, Some(64), "{words}");
}

fn config(text: &str) -> (tempfile::TempDir, String) {
    let dir = sandbox::dir("config-");
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
        &["/nonexistent/ackfs.toml", "check --config"],
    );
    for (text, cause, fix) in [
        ("no-such-key = 1\n", "no-such-key", "the nearest setting is"),
        ("memory = \"banana\"\n", "memory", "64MiB"),
        ("memory = [\n", "line 1", ""),
        ("memory = 1.5\n", "memory is a float", "a whole number"),
        ("part-size = \"1MiB\"\n", "part-size", "5MiB to 5GiB"),
    ] {
        let (_dir, flag) = config(text);
        let options = world.options().flags(&flag);
        refused(world, options, 78, &["ackfs.toml", cause, fix]);
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
    let dir = sandbox::dir("mnt-");
    let cache = dir.path().join("cache");
    let target = dir.path().join("target");
    fs::create_dir(&target).expect("mkdir");
    let mut command = sandbox::command("unshare");
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
    let wanted = ["/dev/fuse cannot be opened", "not there", "modprobe fuse"];
    assert_refusal(code, &words, 73, &wanted);
    assert!(!is_mounted(&dir.path().join("target")));
}

/// Runs a mount as somebody else, in a mount namespace where everybody may open `/dev/fuse`.
fn as_nobody(world: &World, setpriv: &[&str], path: &str, flags: &[&str]) -> (Option<i32>, String) {
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
    // A device of its own, so that the machine's keeps the permissions it has.
    let script = "mount -t tmpfs -o mode=755 none \"$DEVICES\"
        mknod -m 666 \"$DEVICES/fuse\" c 10 229
        mount --bind \"$DEVICES/fuse\" /dev/fuse
        exec setpriv --pdeathsig KILL -- \"$@\"";
    let devices = dir.path().join("devices");
    fs::create_dir(&devices).expect("mkdir");
    let mut command = sandbox::command("unshare");
    clean(&mut command);
    command
        .args(["--mount", "--propagation", "private", "sh", "-ec", script])
        .args(["sh", "setpriv", "--reuid", "65534", "--regid", "65534"])
        .arg("--clear-groups")
        .args(setpriv)
        .args(["--", "/usr/bin/env", path])
        .arg(&readable)
        .arg("mount")
        .arg(format!("s3://{}", world.witness().bucket()))
        .arg(&target)
        .args(["--endpoint-url", &world.endpoint(), "--cache-dir"])
        .arg(dir.path().join("cache"))
        .args(["--transport", "classic"])
        .args(flags)
        .env("DEVICES", &devices)
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .env("XDG_RUNTIME_DIR", dir.path());
    let (code, _, words) = run(&mut command, TIME_MAX).expect("it ends");
    (code, words)
}

fn without_the_right_to_mount_it_says_what_is_missing(world: &World) {
    let held = ["--no-new-privs"];
    let (code, words) = as_nobody(world, &held, "PATH=/usr/bin:/bin", &[]);
    let wanted = ["was refused", "no_new_privs keeps", "start it without"];
    assert_refusal(code, &words, 73, &wanted);
    let others = ["--allow-other"];
    let (code, words) = as_nobody(world, &[], "PATH=/usr/bin:/bin", &others);
    let wanted = ["allow_other only allowed", "echo user_allow_other | sudo"];
    assert_refusal(code, &words, 73, &wanted);
}

fn without_the_ring_it_falls_back_or_refuses(world: &World) {
    let off = "printf 'N\\n' > \"$XDG_RUNTIME_DIR/off\"
        mount --bind \"$XDG_RUNTIME_DIR/off\" /sys/module/fuse/parameters/enable_uring";
    let (mut command, _dir) = in_namespace(world, off, "uring");
    let (code, _, words) = run(&mut command, TIME_MAX).expect("it ends");
    let wanted = ["enable_uring is off", "echo Y >"];
    assert_refusal(code, &words, 73, &wanted);

    // As a container's seccomp profile denies it.
    let denied = || world.options().any_door().denying_io_uring();
    let words = [
        "io_uring_setup fails: a seccomp filter denies it",
        "a seccomp profile that allows io_uring_setup",
    ];
    refused(world, denied().flags("--transport uring"), 73, &words);
    let mount = world.mount_with(denied().flags("--transport auto"));
    assert!(mount.ready_line().contains("classic"), "{mount:?}");
    fs::write(mount.path("file"), "x").expect("it serves all the same");
    let warnings = || {
        let log = mount.log().into_iter();
        let of_this = log.filter(|line| line.contains("WARN") && line.contains("io_uring"));
        of_this.collect::<Vec<_>>()
    };
    crate::eventually("the log says why", || !warnings().is_empty());
    let warnings = warnings();
    let [warning] = &warnings[..] else {
        panic!("one warning: {warnings:?}");
    };
    for word in words {
        assert!(warning.contains(word), "{word:?} is in {warning}");
    }
}
