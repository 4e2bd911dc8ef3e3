//! Signals to a caller that waits for the store.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::process::Stdio;
use std::time::{Duration, Instant};

use ackfs_tests::content::{assert_same, bytes};
use ackfs_tests::demo::{Effect, On};
use ackfs_tests::posix::{self, close, errno};
use ackfs_tests::{World, claims, sandbox};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

claims! {
    DEMO:
        a_waiting_look_up_can_be_interrupted,
        a_waiting_look_up_can_be_killed,
        a_signal_that_is_handled_fails_no_call,
        a_waiting_reader_can_be_killed,
        an_interrupted_close_still_uploads;
}

/// A buffered read waits for the kernel's own readahead, which no signal but SIGKILL ends; a look-up
/// is the caller's own request.
fn a_waiting_look_up_can_be_interrupted(world: &World) {
    world.witness().put("file", &bytes(1, 1000));
    let mount = world.mount();
    world.demo().fault(On::Any, None, Effect::HangBefore, None);
    let result = posix::interrupted(|| fs::metadata(mount.path("file")));
    let error = result.expect_err("the store does not answer");
    assert_eq!(errno(&error), Errno::EINTR);
    world.demo().heal();
    let found = fs::read(mount.path("file")).expect("and the next one is answered");
    assert_same(&found, &bytes(1, 1000), "after the interruption");
}

fn a_waiting_look_up_can_be_killed(world: &World) {
    let mount = world.mount();
    let fault = world.demo().fault(On::Any, None, Effect::HangBefore, None);
    // Ctrl-C as well, where nobody handles it.
    for signal in [Signal::SIGKILL, Signal::SIGINT] {
        let before = fault.fired();
        let mut command = sandbox::command("stat");
        let name = mount.path(format!("file-{signal}"));
        command.arg(name).stdout(Stdio::null());
        let mut stat = sandbox::spawn(command).expect("stat runs");
        world.demo().wait_fired(&fault, before + 1);
        kill(Pid::from_raw(stat.id() as i32), signal).expect("the signal is sent");
        let ended = ackfs_tests::command::wait(&mut stat, Duration::from_secs(10));
        assert!(ended.is_some(), "{signal} ends it although the store hangs");
    }
}

/// A timer's ticking, a child's end: programs do not expect EINTR of stat or mkdir, and FUSE restarts
/// nothing.
fn a_signal_that_is_handled_fails_no_call(world: &World) {
    let mount = world.mount_with(world.options().flags("--metadata-ttl 0s --negative-ttl 0s"));
    let delay = Duration::from_millis(60);
    world
        .demo()
        .fault(On::Any, None, Effect::DelayBefore(delay), None);
    let path = |name: &str| mount.path(name);
    // Signals come every 20 ms; each of these asks the store at least once.
    let call = |what: &str, call: &(dyn Fn() -> io::Result<()> + Sync)| {
        let begun = Instant::now();
        let mut result = posix::interrupted(call);
        // On a machine that stands still it is as if the store did.
        if result.is_err() && begun.elapsed() > Duration::from_secs(1) {
            result = call();
            let done = [io::ErrorKind::AlreadyExists, io::ErrorKind::NotFound];
            result = result.or_else(|error| match error.kind() {
                kind if done.contains(&kind) => Ok(()),
                _ => Err(error),
            });
        }
        result.unwrap_or_else(|error| panic!("{what}: {error}"));
    };
    call("mkdir", &|| fs::create_dir(path("dir")));
    call("stat", &|| fs::metadata(path("dir")).map(drop));
    call("symlink", &|| {
        std::os::unix::fs::symlink("to", path("link"))
    });
    call("readlink", &|| fs::read_link(path("link")).map(drop));
    call("create", &|| fs::write(path("dir/file"), "body"));
    call("rename", &|| {
        fs::rename(path("dir/file"), path("dir/other"))
    });
    call("read", &|| fs::read(path("dir/other")).map(drop));
    call("readdir", &|| {
        fs::read_dir(path("dir"))?.try_for_each(|entry| entry.map(drop))
    });
    call("unlink", &|| fs::remove_file(path("dir/other")));
    call("rmdir", &|| fs::remove_dir(path("dir")));
}

fn a_waiting_reader_can_be_killed(world: &World) {
    world.witness().put("file", &bytes(1, 1 << 20));
    let mount = world.mount();
    let fault = world.demo().fault(On::Get, None, Effect::HangBefore, None);
    let mut command = sandbox::command("cat");
    command.arg(mount.path("file")).stdout(Stdio::null());
    let mut cat = sandbox::spawn(command).expect("cat runs");
    world.demo().wait_fired(&fault, 1);
    cat.kill().expect("the signal is sent");
    let status = ackfs_tests::command::wait(&mut cat, Duration::from_secs(10));
    assert!(
        status.is_some(),
        "a killed reader ends although the store hangs"
    );
}

fn an_interrupted_close_still_uploads(world: &World) {
    let mount = world.mount();
    let mut file = File::create(mount.path("file")).expect("create");
    file.write_all(&bytes(1, 100_000)).expect("write");
    world.demo().fault(
        On::Put,
        None,
        Effect::DelayBefore(Duration::from_millis(800)),
        None,
    );
    assert_eq!(posix::interrupted(|| close(file)), Ok(()));
    assert_same(
        &world.witness().get("file").expect("there"),
        &bytes(1, 100_000),
        "file",
    );
}
