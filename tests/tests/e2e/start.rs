//! A start that takes long can be given up: a store that does not answer holds nobody.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use ackfs_tests::command::{ackfs_bin, clean, wait};
use ackfs_tests::demo::{ACCESS_KEY, Effect, On, SECRET_KEY};
use ackfs_tests::mount::{EXIT_MAX, is_mounted};
use ackfs_tests::{Mount, World, claims, sandbox};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

claims! {
    ONE:
        a_start_against_a_silent_store_ends_at_once_with_a_signal,
        a_start_whose_probe_is_not_answered_ends_at_once_with_a_signal,
        the_first_process_of_a_container_can_be_stopped_while_it_starts,
        a_background_start_ends_with_the_command_that_waits_for_it,
        a_cache_in_the_mounted_directory_is_refused,
        credentials_that_may_not_write_are_told_of_at_the_mount,
        a_probe_that_is_not_answered_does_not_hold_the_start;
}

/// Far less than the store's timeout, far more than a busy machine needs.
const AT_ONCE: Duration = Duration::from_secs(10);

/// A store that takes connections and never says a word. Each connection is told of.
struct Silent {
    endpoint: String,
    connections: Receiver<TcpStream>,
}

impl Silent {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("bound");
        let (told, connections) = channel();
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if told.send(stream).is_err() {
                    return;
                }
            }
        });
        Self {
            endpoint: format!("http://{address}"),
            connections,
        }
    }

    /// Waits until somebody has come; the connection stays open.
    fn visited(&self) -> TcpStream {
        self.connections
            .recv_timeout(EXIT_MAX)
            .expect("a connection")
    }
}

/// Where a start happens.
struct Place {
    dir: tempfile::TempDir,
    runtime: tempfile::TempDir,
    cache: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            dir: sandbox::dir("mnt-"),
            runtime: sandbox::dir("run-"),
            cache: sandbox::dir("c-"),
        }
    }

    /// `ackfs mount` with a patience of five minutes, behind the words of `wrapper`.
    fn start(&self, endpoint: &str, bucket: &str, wrapper: &[&str], flags: &[&str]) -> Child {
        let ackfs = ackfs_bin();
        let mut command = match wrapper {
            [] => sandbox::command(&ackfs),
            [program, words @ ..] => {
                let mut command = sandbox::command(Path::new(program));
                command.args(words).arg(&ackfs);
                command
            }
        };
        clean(&mut command);
        command
            .arg("mount")
            .arg(format!("s3://{bucket}"))
            .arg(self.dir.path())
            .args(["--endpoint-url", endpoint, "--store-timeout", "5m"])
            .args(["--transport", "classic", "--cache-dir"])
            .arg(self.cache.path())
            .args(flags)
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("XDG_RUNTIME_DIR", self.runtime.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        sandbox::spawn(command).expect("it can be started")
    }

    /// It has ended with `code` and a line that names `signal`, and left nothing.
    fn assert_ended(&self, mut child: Child, code: i32, signal: &str) {
        let begin = Instant::now();
        let status = wait(&mut child, AT_ONCE);
        let late = status.is_none();
        let _ = child.kill();
        let output = child.wait_with_output().expect("its words");
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!late, "not after {:?}: {words}", begin.elapsed());
        assert_eq!(status.and_then(|it| it.code()), Some(code), "{words}");
        assert!(words.contains(signal), "{words}");
        self.assert_nothing_left();
    }

    fn assert_nothing_left(&self) {
        assert!(!is_mounted(self.dir.path()));
        assert!(self.is_without_sockets(), "no socket stays behind");
    }

    fn is_without_sockets(&self) -> bool {
        let mut below = fs::read_dir(self.runtime.path()).expect("list");
        below.all(|entry| {
            let path = entry.expect("list").path();
            fs::read_dir(path).expect("list").next().is_none()
        })
    }
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).expect("it lives");
}

fn a_start_against_a_silent_store_ends_at_once_with_a_signal(_: &World) {
    for (name, number, code) in [
        ("SIGTERM", Signal::SIGTERM, 143),
        ("SIGINT", Signal::SIGINT, 130),
    ] {
        let (place, store) = (Place::new(), Silent::new());
        let child = place.start(&store.endpoint, "data", &[], &[]);
        let _connection = store.visited();
        signal(&child, number);
        place.assert_ended(child, code, name);
    }
}

fn a_start_whose_probe_is_not_answered_ends_at_once_with_a_signal(world: &World) {
    let place = Place::new();
    let fault = world.demo().fault(On::Put, None, Effect::HangBefore, None);
    let child = place.start(&world.endpoint(), world.witness().bucket(), &[], &[]);
    world.demo().wait_fired(&fault, 1);
    signal(&child, Signal::SIGTERM);
    place.assert_ended(child, 143, "SIGTERM");
}

/// The kernel does not end the first process of a PID namespace by a signal that it does not catch,
/// so a container whose store was away could not be stopped but by SIGKILL, after its grace period.
fn the_first_process_of_a_container_can_be_stopped_while_it_starts(_: &World) {
    let (place, store) = (Place::new(), Silent::new());
    let unshare = ["unshare", "--pid", "--fork", "--kill-child"];
    let child = place.start(&store.endpoint, "data", &unshare, &[]);
    let _connection = store.visited();
    let pid = child.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let first = children.expect("read").trim().parse().expect("one child");
    kill(Pid::from_raw(first), Signal::SIGTERM).expect("it lives");
    place.assert_ended(child, 143, "SIGTERM");
}

/// Ctrl-C at `ackfs mount --background` ended the command and not the start, which went on unseen.
fn a_background_start_ends_with_the_command_that_waits_for_it(_: &World) {
    let (place, store) = (Place::new(), Silent::new());
    // A process group of its own, as a shell makes for what it runs: Ctrl-C is sent to all of it.
    let own_group = ["setsid"];
    let mut child = place.start(&store.endpoint, "data", &own_group, &["--background"]);
    let connection = store.visited();
    let group = Pid::from_raw(child.id() as i32);
    nix::sys::signal::killpg(group, Signal::SIGINT).expect("it lives");
    // The connection's end is the end of the process that holds its other side.
    connection.set_read_timeout(Some(AT_ONCE)).expect("a limit");
    let mut end = std::io::sink();
    std::io::copy(&mut &connection, &mut end).expect("the start has ended");
    assert!(wait(&mut child, AT_ONCE).is_some(), "the command has ended");
    crate::eventually("no socket is left", || place.is_without_sockets());
    place.assert_nothing_left();
}

/// It was written through the mount into the bucket, and the gateway waited for itself for ever.
fn a_cache_in_the_mounted_directory_is_refused(world: &World) {
    let dir = sandbox::dir("mnt-");
    let options = world.options().at(dir.path());
    let refusal = world
        .try_mount(options.cache(&dir.path().join("cache")))
        .expect_err("this cannot be mounted");
    assert_eq!(refusal.code, Some(73), "{refusal}");
    assert_eq!(refusal.words.len(), 1, "{refusal}");
    assert!(
        refusal.words[0].contains("--cache-dir outside"),
        "{refusal}"
    );
    assert!(!is_mounted(dir.path()));
    assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 0);
}

/// The first to tell was the close() of somebody's file.
fn credentials_that_may_not_write_are_told_of_at_the_mount(world: &World) {
    let refusal = Effect::refuse(403, "AccessDenied");
    let fault = world.demo().fault(On::Put, None, refusal, None);
    let bucket = format!("s3://{}/", world.witness().bucket());
    let told = |mount: &Mount| {
        let words = ["s3:PutObject", "--read-only", &bucket];
        let is_told = |line: &String| words.iter().all(|word| line.contains(word));
        mount.log().iter().filter(|line| is_told(line)).count()
    };
    let mut mount = world.mount();
    mount.signal(Signal::SIGTERM);
    mount.wait(EXIT_MAX);
    crate::eventually("the log has the line, once", || told(&mount) == 1);
    let mut mount = world.mount_with(world.options().flags("--read-only"));
    mount.signal(Signal::SIGTERM);
    mount.wait(EXIT_MAX);
    assert_eq!(told(&mount), 0, "nobody wants to write");
    drop(fault);
}

fn a_probe_that_is_not_answered_does_not_hold_the_start(world: &World) {
    let fault = world.demo().fault(On::Put, None, Effect::HangBefore, None);
    let mount = world.mount_with(world.options().flags("--store-timeout 5m"));
    let line = mount.ready_line();
    assert!(line.contains("conditional writes unknown"), "{line}");
    drop(mount);
    drop(fault);
}
