//! The life of a mount: ready, serving, drained, gone; and what is left when it dies.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ackfs_tests::command::{ackfs_bin, clean, run, run_ackfs, wait};
use ackfs_tests::content::{assert_same, bytes};
use ackfs_tests::demo::{Effect, On};
use ackfs_tests::mount::{EXIT_MAX, is_mounted};
use ackfs_tests::posix::{close, errno};
use ackfs_tests::{Mount, World, claims, process, sandbox};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

claims! {
    EVERY:
        what_was_acknowledged_outlives_a_kill,
        a_dead_mount_is_taken_over,
        sigterm_drains_and_ends_with_success;
    DEMO:
        the_ready_line_says_how_it_serves,
        an_unmounted_directory_ends_the_gateway,
        umount_waits_for_the_drain,
        umount_leaves_a_mount_alone_that_is_in_use,
        a_drain_that_takes_too_long_lists_what_is_not_saved,
        a_second_signal_ends_it_at_once,
        a_draining_mount_takes_no_new_writers,
        a_background_mount_serves_when_the_command_returns,
        the_environment_asks_for_the_background_too,
        a_background_mount_that_fails_says_so,
        a_background_mount_from_a_terminal_says_if_its_log_goes_nowhere,
        stats_shows_what_happened,
        a_watch_that_nobody_reads_ends,
        metrics_are_served,
        the_log_can_be_json,
        an_idle_gateway_uses_no_processor_time;
    ONE:
        doctor_finds_a_good_store_good,
        demo_shows_everything_and_ends_well,
        demo_that_is_interrupted_says_so;
}

const TIME_MAX: Duration = Duration::from_mins(2);

/// A file that is written and not closed.
fn dirty(mount: &Mount, name: &str, body: &[u8]) -> File {
    let mut file = File::create(mount.path(name)).expect("create");
    file.write_all(body).expect("write");
    file
}

/// The environment that tools need to find a mount's control socket.
fn runtime_env(mount: &Mount) -> String {
    mount.runtime_dir().to_string_lossy().into_owned()
}

fn what_was_acknowledged_outlives_a_kill(world: &World) {
    let cache = sandbox::dir("cache-");
    for round in 0..5_u64 {
        let mut mount = world.mount_with(world.options().cache(cache.path()));
        for index in 0..10 {
            let body = bytes(round * 100 + index, 3_000);
            let file = dirty(&mount, &format!("{round}-{index}"), &body);
            assert_eq!(close(file), Ok(()));
        }
        let open = dirty(&mount, &format!("{round}-open"), b"never acknowledged");
        mount.kill();
        drop(open);
    }
    for round in 0..5 {
        for index in 0..10 {
            let found = world.witness().get(&format!("{round}-{index}"));
            let found = found.unwrap_or_else(|| panic!("{round}-{index} is lost"));
            assert_same(
                &found,
                &bytes(round * 100 + index, 3_000),
                "an acknowledged file",
            );
        }
    }
}

fn a_dead_mount_is_taken_over(world: &World) {
    let dir = sandbox::dir("mnt-");
    let mut dead = world.mount_with(world.options().at(dir.path()));
    fs::write(dead.path("file"), "before").expect("write");
    dead.kill();
    let error = fs::metadata(dir.path().join("file")).expect_err("nobody serves it");
    // While the kernel takes the connection down it says so by other names.
    let gone = [Errno::ENOTCONN, Errno::ECONNABORTED, Errno::ECANCELED];
    assert!(gone.contains(&errno(&error)), "{error}");
    let shown = dir.path().to_string_lossy();
    let env = [("XDG_RUNTIME_DIR", &*runtime_env(&dead))];
    let (code, _, words) = run_ackfs(&["stats", &shown], &env, TIME_MAX).expect("stats ends");
    assert_eq!(code, Some(1), "{words}");
    let wanted = ["dead mount", &*format!("ackfs umount {shown}")];
    assert!(wanted.iter().all(|word| words.contains(word)), "{words}");
    let mount = world.mount_with(world.options().at(dir.path()));
    assert_eq!(fs::read(mount.path("file")).expect("read"), b"before");
    fs::write(mount.path("file"), "after").expect("write");
    crate::eventually("a line says that a dead mount was detached", || {
        let log = mount.log();
        log.iter().any(|line| line.contains("detaching the dead"))
    });
    let mounts = fs::read_to_string("/proc/self/mounts").expect("read");
    let here = format!(" {} ", dir.path().display());
    assert_eq!(
        mounts.lines().filter(|line| line.contains(&here)).count(),
        1,
        "one, not two"
    );
    assert!(mount.unmount().success());
    drop(dead);
}

fn sigterm_drains_and_ends_with_success(world: &World) {
    let mut mount = world.mount();
    let file = dirty(&mount, "small", &bytes(1, 10_000));
    let large = dirty(&mount, "large", &bytes(2, 20 << 20));
    mount.signal(Signal::SIGTERM);
    assert_eq!(mount.wait(EXIT_MAX).code(), Some(0));
    assert!(!mount.is_mounted());
    drop((file, large));
    let witness = world.witness();
    assert_same(
        &witness.get("small").expect("there"),
        &bytes(1, 10_000),
        "small",
    );
    assert_same(
        &witness.get("large").expect("there"),
        &bytes(2, 20 << 20),
        "large",
    );
}

fn the_ready_line_says_how_it_serves(world: &World) {
    let mount = world.mount();
    let line = mount.ready_line();
    let parts = [
        world.witness().bucket(),
        &world.endpoint(),
        world.door().flag(),
        "conditional",
        "close waits for the store, mode ",
    ];
    for part in parts {
        assert!(line.contains(part), "{part} is in {line:?}");
    }
    assert_eq!(mount.output(), Vec::<String>::new(), "one line");
}

fn an_unmounted_directory_ends_the_gateway(world: &World) {
    let mount = world.mount();
    fs::write(mount.path("file"), "x").expect("write");
    assert_eq!(mount.unmount().code(), Some(0));
}

fn umount_waits_for_the_drain(world: &World) {
    let mut mount = world.mount();
    let file = dirty(&mount, "file", &bytes(1, 50_000));
    let slow = Effect::DelayBefore(Duration::from_millis(500));
    world.demo().fault(On::Put, None, slow, None);
    let dir = mount.dir().to_string_lossy().into_owned();
    let env = runtime_env(&mount);
    let umount = || run_ackfs(&["umount", &dir], &[("XDG_RUNTIME_DIR", &env)], TIME_MAX);
    // Who has it open is not cut off, and what they wrote is saved.
    let (code, _, words) = umount().expect("umount ends");
    assert_eq!(code, Some(1), "{words}");
    assert_same(
        &world.witness().get("file").expect("there"),
        &bytes(1, 50_000),
        "file",
    );
    drop(file);
    let (code, _, words) = umount().expect("umount ends");
    assert_eq!(code, Some(0), "{words}");
    assert!(!is_mounted(mount.dir()));
    assert_eq!(mount.wait(EXIT_MAX).code(), Some(0));
    // What is not a mount is refused in words.
    let (code, _, words) = run_ackfs(&["umount", &dir], &[], TIME_MAX).expect("umount ends");
    assert!(
        code.is_some_and(|code| code != 0),
        "nothing is mounted there"
    );
    assert!(words.contains(&dir), "{words}");
}

/// `ackfs umount` detached a busy mount, said nothing and cut its readers off, where umount(8) refuses.
fn umount_leaves_a_mount_alone_that_is_in_use(world: &World) {
    let mut mount = world.mount();
    let body = bytes(1, 9 << 20);
    world.witness().put("file", &body);
    let mut reader = File::open(mount.path("file")).expect("open");
    let mut seen = vec![0; 1 << 20];
    reader.read_exact(&mut seen).expect("read");
    let dir = mount.dir().to_string_lossy().into_owned();
    let env = runtime_env(&mount);
    let umount = || run_ackfs(&["umount", &dir], &[("XDG_RUNTIME_DIR", &env)], TIME_MAX);
    let (code, _, words) = umount().expect("umount ends");
    assert_eq!(code, Some(1), "{words}");
    assert!(
        words.contains("in use") && words.contains("--force"),
        "{words}"
    );
    reader.read_to_end(&mut seen).expect("the reader reads on");
    assert_same(&seen, &body, "file");
    fs::write(mount.path("new"), "x").expect("writers are welcome");
    drop(reader);
    let (code, _, words) = umount().expect("umount ends");
    assert_eq!(code, Some(0), "{words}");
    assert!(!is_mounted(mount.dir()));
    assert_eq!(mount.wait(EXIT_MAX).code(), Some(0));
}

fn a_drain_that_takes_too_long_lists_what_is_not_saved(world: &World) {
    let flags = "--drain-timeout 1s --store-timeout 30s";
    let mut mount = world.mount_with(world.options().flags(flags));
    let files = (dirty(&mount, "one", b"1"), dirty(&mount, "two", b"2"));
    world.demo().fault(On::Put, None, Effect::HangBefore, None);
    mount.signal(Signal::SIGTERM);
    assert_eq!(mount.wait(EXIT_MAX).code(), Some(75));
    assert!(!mount.is_mounted());
    crate::eventually("each file is listed", || {
        let words = [mount.log(), mount.output()].concat().join("\n");
        words.contains("one") && words.contains("two")
    });
    drop(files);
}

fn a_second_signal_ends_it_at_once(world: &World) {
    let flags = "--drain-timeout 10m --store-timeout 5m";
    let mut mount = world.mount_with(world.options().flags(flags));
    let file = dirty(&mount, "file", b"never saved");
    let fault = world.demo().fault(On::Put, None, Effect::HangBefore, None);
    mount.signal(Signal::SIGTERM);
    world.demo().wait_fired(&fault, 1);
    let begin = Instant::now();
    mount.signal(Signal::SIGTERM);
    let code = mount.wait(EXIT_MAX).code();
    assert!(begin.elapsed() < Duration::from_secs(10), "at once");
    assert_eq!(code, Some(75), "what is not saved is said");
    drop(file);
}

fn a_draining_mount_takes_no_new_writers(world: &World) {
    let mount = world.mount_with(
        world
            .options()
            .flags("--drain-timeout 10m --store-timeout 5m"),
    );
    world.witness().put("read", b"still read");
    let file = dirty(&mount, "file", b"slow");
    world.demo().fault(On::Put, None, Effect::HangBefore, None);
    mount.signal(Signal::SIGTERM);
    // An open that came before the signal is closed with nothing to save: one that had created a file
    // would wait for the store, which does not answer.
    crate::eventually("opens for writing are refused", || {
        let opened = File::options().write(true).open(mount.path("read"));
        opened.is_err_and(|error| errno(&error) == Errno::EROFS)
    });
    assert!(
        File::create(mount.path("new")).is_err_and(|error| errno(&error) == Errno::EROFS),
        "nothing new is made either"
    );
    assert_eq!(
        fs::read(mount.path("read")).expect("reading goes on"),
        b"still read"
    );
    drop(mount);
    drop(file);
}

/// Unmounts a directory whatever happens to the test.
struct Unmounted(PathBuf);

impl Drop for Unmounted {
    fn drop(&mut self) {
        if is_mounted(&self.0) {
            let _ = umount2(&self.0, MntFlags::MNT_DETACH);
        }
    }
}

/// `ackfs mount --background` for this world, and its runtime directory.
fn background(world: &World, dir: &Path, bucket: &str, runtime: &Path, cache: &Path) -> Command {
    let mut command = sandbox::command(ackfs_bin());
    clean(&mut command);
    command
        .arg("mount")
        .arg(format!("s3://{bucket}"))
        .arg(dir)
        .args(["--background", "--endpoint-url", &world.endpoint()])
        .args(["--transport", world.door().flag(), "--cache-dir"])
        .arg(cache)
        .env("AWS_ACCESS_KEY_ID", ackfs_tests::demo::ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", ackfs_tests::demo::SECRET_KEY)
        .env("XDG_RUNTIME_DIR", runtime);
    command
}

/// Gives `command` a clean environment, and what `other` has in its own.
fn take_environment(command: &mut Command, other: &Command) {
    clean(command);
    for (name, value) in other.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
}

fn a_background_mount_serves_when_the_command_returns(world: &World) {
    let (dir, runtime, cache) = (
        sandbox::dir("mnt-"),
        sandbox::dir("run-"),
        sandbox::dir("c-"),
    );
    let _unmounted = Unmounted(dir.path().to_owned());
    let bucket = world.witness().bucket().to_owned();
    let mut command = background(world, dir.path(), &bucket, runtime.path(), cache.path());
    let (code, output, words) = run(&mut command, TIME_MAX).expect("the command returns");
    assert_eq!(code, Some(0), "{words}");
    assert!(
        output.contains(&bucket),
        "the ready line is printed: {output:?}"
    );
    fs::write(dir.path().join("file"), "served").expect("write");
    assert_eq!(world.witness().get("file").as_deref(), Some(&b"served"[..]));
    let args = ["umount", &*dir.path().to_string_lossy()];
    let env = [("XDG_RUNTIME_DIR", &*runtime.path().to_string_lossy())];
    let (code, _, words) = run_ackfs(&args, &env, TIME_MAX).expect("umount ends");
    assert_eq!(code, Some(0), "{words}");
    assert!(!is_mounted(dir.path()));
}

/// The mount in the background reads the same variable, and must not start another.
fn the_environment_asks_for_the_background_too(world: &World) {
    let (dir, runtime, cache) = (
        sandbox::dir("mnt-"),
        sandbox::dir("run-"),
        sandbox::dir("c-"),
    );
    let _unmounted = Unmounted(dir.path().to_owned());
    let bucket = world.witness().bucket().to_owned();
    let asked = background(world, dir.path(), &bucket, runtime.path(), cache.path());
    let mut command = sandbox::command(ackfs_bin());
    command.args(asked.get_args().filter(|arg| *arg != "--background"));
    take_environment(&mut command, &asked);
    command.env("ACKFS_BACKGROUND", "true");
    let (code, output, words) = run(&mut command, TIME_MAX).expect("the command returns");
    assert_eq!(code, Some(0), "{words}");
    assert!(output.contains(&bucket), "{output:?}");
    fs::write(dir.path().join("file"), "served").expect("write");
}

fn a_background_mount_that_fails_says_so(world: &World) {
    let (dir, runtime, cache) = (
        sandbox::dir("mnt-"),
        sandbox::dir("run-"),
        sandbox::dir("c-"),
    );
    let _unmounted = Unmounted(dir.path().to_owned());
    let mut command = background(
        world,
        dir.path(),
        "no-such-bucket",
        runtime.path(),
        cache.path(),
    );
    let (code, _, words) = run(&mut command, TIME_MAX).expect("the command returns");
    assert_eq!(code, Some(69), "{words}");
    assert!(words.contains("no-such-bucket"), "{words}");
    assert!(!is_mounted(dir.path()));
}

/// The lines went to /dev/null, also "lost: written, and not in the store", and nobody was told.
fn a_background_mount_from_a_terminal_says_if_its_log_goes_nowhere(world: &World) {
    let (dir, runtime, cache) = (
        sandbox::dir("mnt-"),
        sandbox::dir("run-"),
        sandbox::dir("c-"),
    );
    let _unmounted = Unmounted(dir.path().to_owned());
    let bucket = world.witness().bucket().to_owned();
    let plain = background(world, dir.path(), &bucket, runtime.path(), cache.path());
    let mut words = vec![plain.get_program().to_string_lossy()];
    words.extend(plain.get_args().map(|arg| arg.to_string_lossy()));
    // script(1) gives it a terminal. No path of ours holds a blank.
    let mut command = sandbox::command(Path::new("script"));
    command.args(["-q", "-e", "-c", &words.join(" "), "/dev/null"]);
    take_environment(&mut command, &plain);
    let (code, output, _) = run(&mut command, TIME_MAX).expect("the command returns");
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("ready: "), "{output}");
    let warned = output.contains("the log goes nowhere") && output.contains("2>FILE");
    assert_eq!(warned, !Path::new("/dev/log").exists(), "{output}");
    fs::write(dir.path().join("file"), "served").expect("it outlives its terminal");
}

fn stats_shows_what_happened(world: &World) {
    let mount = world.mount();
    fs::write(mount.path("file"), "x").expect("write");
    fs::read(mount.path("file")).expect("read");
    let dir = mount.dir().to_string_lossy().into_owned();
    let env = runtime_env(&mount);
    let env = [("XDG_RUNTIME_DIR", &*env)];
    let (code, output, words) = run_ackfs(&["stats", &dir], &env, TIME_MAX).expect("stats ends");
    assert_eq!(code, Some(0), "{words}");
    let output = output.to_lowercase();
    for word in [world.door().flag(), "dirty", "stuck", "put"] {
        assert!(output.contains(word), "{word} is in:\n{output}");
    }
    // Without a directory it finds the one that runs.
    let (code, _, words) = run_ackfs(&["stats"], &env, TIME_MAX).expect("stats ends");
    assert_eq!(code, Some(0), "{words}");
    let (code, _, words) = run_ackfs(&["stats", "/"], &env, TIME_MAX).expect("stats ends");
    assert!(code.is_some_and(|code| code != 0), "/ is not ours: {words}");
}

/// `ackfs stats DIR --watch | head -1` never ended: that nobody reads was not noticed.
fn a_watch_that_nobody_reads_ends(world: &World) {
    let mount = world.mount();
    let mut command = sandbox::command(ackfs_bin());
    clean(&mut command);
    command
        .args(["stats", &mount.dir().to_string_lossy(), "--watch=100ms"])
        .env("XDG_RUNTIME_DIR", mount.runtime_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut watch = sandbox::spawn(command).expect("it can be started");
    let mut output = BufReader::new(watch.stdout.take().expect("stdout is a pipe"));
    let mut line = String::new();
    while !line.starts_with("--- ") {
        line.clear();
        assert!(output.read_line(&mut line).expect("read") > 0, "it goes on");
    }
    drop(output);
    let ended = wait(&mut watch, EXIT_MAX);
    let _ = watch.kill();
    assert_eq!(ended.and_then(|status| status.code()), Some(0));
}

fn metrics_are_served(world: &World) {
    let mount = world.mount_with(world.options().flags("--metrics 127.0.0.1:0"));
    fs::write(mount.path("file"), "x").expect("write");
    let mut words = mount.ready_line().split([' ', ',']);
    let url = words.find(|word| word.ends_with("/metrics"));
    let url = url.expect("the ready line says where");
    let text = ureq::get(url)
        .call()
        .expect("metrics answer")
        .body_mut()
        .read_to_string();
    let text = text.expect("text");
    let samples = text.lines().filter(|line| line.starts_with("ackfs_"));
    assert!(samples.clone().count() > 10, "{text}");
    for name in [
        "fuse_requests_total{",
        "fuse_errors_total{",
        "fuse_latency_seconds_bucket{",
        "fuse_slots",
        "fuse_slots_held",
        "fuse_transport_info{",
        "close_mode_info{",
        "read_hits_total",
        "read_misses_total",
        "read_fetched_bytes_total",
        "uploaded_bytes_total",
        "store_requests_total{",
        "store_latency_seconds_bucket{",
        "dirty_bytes",
        "dirty_oldest_seconds",
        "stuck_files",
    ] {
        let name = format!("ackfs_{name}");
        assert!(
            samples.clone().any(|line| line.starts_with(&name)),
            "{name} is in:\n{text}"
        );
    }
    let put = samples
        .filter(|line| line.starts_with("ackfs_store_requests_total{"))
        .find(|line| line.contains("\"put\"") && line.contains("\"ok\""));
    assert!(put.is_some_and(|line| !line.ends_with(" 0")), "{text}");
}

/// One object a line, whatever is in the message; the level is what was asked for.
fn the_log_can_be_json(world: &World) {
    let flags = "--log-format json --log-level debug";
    let mount = world.mount_with(world.options().flags(flags));
    fs::write(mount.path("a \"quoted\" name"), "x").expect("write");
    world
        .demo()
        .fault(On::Put, None, Effect::refuse(403, "AccessDenied"), None);
    let refused = fs::create_dir(mount.path("refused"));
    assert!(refused.is_err());
    world.demo().heal();
    let parsed = || -> Vec<serde_json::Value> {
        let lines = mount.log();
        // The ready line is on stdout, and for people.
        let lines = lines.iter().filter(|line| !line.starts_with("ready: "));
        lines
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
            })
            .collect()
    };
    crate::eventually("the refusal is in the log", || {
        parsed().iter().any(|line| {
            line["level"] == "WARN" && line["op"] == "mkdir" && line["key"] == "refused"
        })
    });
    let levels = parsed();
    assert!(
        levels.iter().any(|line| line["level"] == "DEBUG"),
        "{levels:?}"
    );
    assert!(levels.iter().all(|line| line["timestamp"].is_string()));
}

fn an_idle_gateway_uses_no_processor_time(world: &World) {
    let mount = world.mount();
    fs::write(mount.path("file"), "x").expect("write");
    // Threads that wind down, connections that are kept, the index on disk: some seconds. Whatever is
    // busy for ever is busy in each of these.
    let windows = (0..5).map(|_| {
        let before = process::cpu(mount.pid());
        thread::sleep(Duration::from_secs(2));
        process::cpu_since(mount.pid(), before)
    });
    let used = windows.min().expect("five");
    assert!(
        used <= Duration::from_millis(20),
        "two idle seconds cost {used:?}"
    );
    let rss = mount.memory().rss_kib / 1024;
    assert!(rss <= 64, "an idle gateway holds {rss} MiB");
}

fn doctor_finds_a_good_store_good(world: &World) {
    let dir = sandbox::dir("mnt-");
    let source = format!("s3://{}", world.witness().bucket());
    let env = [
        ("AWS_ACCESS_KEY_ID", ackfs_tests::demo::ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", ackfs_tests::demo::SECRET_KEY),
        ("AWS_ENDPOINT_URL_S3", &*world.endpoint()),
    ];
    let args = ["doctor", &source, &*dir.path().to_string_lossy()];
    world.witness().put("dir//key", b"");
    let (code, output, words) = run_ackfs(&args, &env, TIME_MAX).expect("doctor ends");
    assert_eq!(code, Some(0), "{output}\n{words}");
    let lines = [
        "ok",
        "/dev/fuse",
        "conditional",
        "credentials",
        "\"dir//key\"",
    ];
    for word in lines {
        assert!(
            output.to_lowercase().contains(word),
            "{word} is in:\n{output}"
        );
    }
    let env = [
        env[0],
        env[1],
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1"),
    ];
    let (code, output, _) = run_ackfs(&args, &env, TIME_MAX).expect("doctor ends");
    assert_eq!(code, Some(1), "a dead endpoint is a fail: {output}");
    assert!(output.contains("fail"), "{output}");
}

fn demo_shows_everything_and_ends_well(_world: &World) {
    let dir = sandbox::dir("mnt-");
    let runtime = sandbox::dir("run-");
    let _unmounted = Unmounted(dir.path().to_owned());
    let args = ["demo", &*dir.path().to_string_lossy()];
    let env = [("XDG_RUNTIME_DIR", &*runtime.path().to_string_lossy())];
    let (code, output, words) = run_ackfs(&args, &env, TIME_MAX).expect("the tour ends");
    assert_eq!(code, Some(0), "{output}\n{words}");
    assert!(output.lines().count() >= 5, "{output}");
    assert!(!is_mounted(dir.path()));
}

/// Ctrl-C reached the mount too: the tour found it gone, and said that a step did not hold, with status 0.
fn demo_that_is_interrupted_says_so(_world: &World) {
    let (dir, runtime) = (sandbox::dir("mnt-"), sandbox::dir("run-"));
    let _unmounted = Unmounted(dir.path().to_owned());
    fs::write(dir.path().join("hidden"), "x").expect("write");
    // A process group of its own, as a shell makes for what it runs: Ctrl-C is sent to all of it.
    let mut command = sandbox::command(Path::new("setsid"));
    clean(&mut command);
    command
        .arg(ackfs_bin())
        .arg("demo")
        .arg(dir.path())
        .env("XDG_RUNTIME_DIR", runtime.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut demo = sandbox::spawn(command).expect("it can be started");
    let mut output = BufReader::new(demo.stdout.take().expect("stdout is a pipe"));
    let mut shown = String::new();
    while !shown.contains("\n4. ") {
        assert!(output.read_line(&mut shown).expect("read") > 0, "{shown}");
    }
    killpg(Pid::from_raw(demo.id() as i32), Signal::SIGINT).expect("it lives");
    let ended = wait(&mut demo, EXIT_MAX);
    let _ = demo.kill();
    output.read_to_string(&mut shown).expect("read");
    let mut words = String::new();
    let mut errors = demo.stderr.take().expect("stderr is a pipe");
    errors.read_to_string(&mut words).expect("read");
    assert_eq!(ended.and_then(|status| status.code()), Some(130), "{words}");
    assert!(!shown.contains("DID NOT HOLD"), "{shown}");
    assert!(words.contains("interrupted"), "{words}");
    assert!(words.contains("is not empty"), "{words}");
    assert!(!is_mounted(dir.path()));
}
