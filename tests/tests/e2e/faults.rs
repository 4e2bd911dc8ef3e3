//! A store that fails: errors are true, nothing acknowledged is lost, and what can be tried again
//! is tried again.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use ackfs_tests::content::{assert_same, bytes};
use ackfs_tests::demo::{Effect, On};
use ackfs_tests::posix::{close, errno};
use ackfs_tests::{Minio, Mount, Options, World, claims};
use nix::errno::Errno;

claims! {
    DEMO:
        a_look_up_that_failed_is_never_absence,
        a_store_that_stumbles_is_asked_again,
        a_cut_body_is_fetched_on,
        a_lost_answer_of_a_put_is_a_success,
        a_lost_answer_of_a_completion_is_a_success,
        a_lost_answer_and_a_foreign_put_is_not_a_success,
        a_refused_put_is_eacces_and_the_next_close_publishes,
        a_store_that_hangs_is_etimedout_and_the_next_fsync_publishes,
        a_full_store_is_edquot,
        what_is_lost_is_logged,
        every_failed_answer_is_one_line_in_the_log,
        a_failed_upload_is_aborted,
        a_failed_part_is_sent_again,
        a_corrupted_body_is_never_given_out,
        a_failed_rename_keeps_the_source,
        a_failed_delete_keeps_the_name,
        a_failed_listing_is_an_error_and_not_an_end;
    MINIO:
        a_store_that_dies_and_comes_back_loses_nothing;
}

/// Where nothing is asked of the store that it answers late: what it refuses, it refuses at once.
fn patient(world: &World) -> Mount {
    let flags = "--metadata-ttl 0s --negative-ttl 0s";
    world.mount_with(world.options().flags(flags))
}

/// With a limit that tests can wait for. What has to go well may still need a moment more on a busy machine.
fn impatient(world: &World) -> Mount {
    world.mount_with(
        world
            .options()
            .flags("--store-timeout 2s --metadata-ttl 0s --negative-ttl 0s"),
    )
}

/// Creates a file with `body` and closes it.
fn put(mount: &Mount, name: &str, body: &[u8]) -> Result<(), Errno> {
    let mut file = File::create(mount.path(name)).map_err(|error| errno(&error))?;
    file.write_all(body).map_err(|error| errno(&error))?;
    close(file)
}

fn a_look_up_that_failed_is_never_absence(world: &World) {
    let demo = world.demo();
    world.witness().put("dir/file", b"here");
    let (impatient, patient) = (impatient(world), patient(world));
    let effects = [
        (
            &impatient,
            Effect::slow_down(),
            &[Errno::ETIMEDOUT, Errno::EIO, Errno::EAGAIN][..],
        ),
        (
            &impatient,
            Effect::internal_error(),
            &[Errno::EIO, Errno::ETIMEDOUT],
        ),
        (
            &patient,
            Effect::refuse(403, "AccessDenied"),
            &[Errno::EACCES],
        ),
        (&impatient, Effect::HangBefore, &[Errno::ETIMEDOUT]),
    ];
    for (mount, effect, wanted) in effects {
        demo.fault(On::Any, None, effect.clone(), None);
        for name in ["dir/file", "dir/none", "none"] {
            let error = fs::metadata(mount.path(name)).expect_err("the store says nothing");
            let found = errno(&error);
            assert!(
                wanted.contains(&found),
                "stat of {name} with {effect:?}: {found}"
            );
        }
        let error = fs::read_dir(mount.path("dir"))
            .and_then(|mut entries| entries.next().transpose())
            .expect_err("the store says nothing");
        assert!(
            wanted.contains(&errno(&error)),
            "listing with {effect:?}: {error}"
        );
        demo.heal();
        crate::eventually("all is well again", || {
            fs::read(mount.path("dir/file")).is_ok_and(|found| found == b"here")
        });
    }
}

fn a_store_that_stumbles_is_asked_again(world: &World) {
    let demo = world.demo();
    world.witness().put("foreign", &bytes(99, 40_000));
    let mount = world.mount();
    let effects = [
        Effect::internal_error(),
        Effect::slow_down(),
        Effect::CloseBefore,
    ];
    for (round, effect) in effects.into_iter().enumerate() {
        let name = format!("file-{round}");
        let body = bytes(round as u64, 40_000);
        demo.fault(On::Any, None, effect.clone(), Some(2));
        assert_eq!(put(&mount, &name, &body), Ok(()), "after {effect:?} twice");
        demo.heal();
        assert_same(&world.witness().get(&name).expect("there"), &body, &name);
        demo.fault(On::Any, None, effect, Some(2));
        let found = fs::read(mount.path("foreign")).expect("read");
        assert_same(&found, &bytes(99, 40_000), "foreign");
        demo.heal();
    }
}

fn a_cut_body_is_fetched_on(world: &World) {
    world.witness().put("file", &bytes(1, 12 << 20));
    let mount = world.mount();
    world
        .demo()
        .fault(On::Get, None, Effect::CutBody { after: 30_000 }, Some(3));
    assert_same(
        &fs::read(mount.path("file")).expect("read"),
        &bytes(1, 12 << 20),
        "file",
    );
}

fn a_lost_answer_of_a_put_is_a_success(world: &World) {
    let mount = world.mount();
    for round in 0..3 {
        // The first round makes the object (If-None-Match), the others replace it (If-Match): a
        // blind retry finds its own object and takes it for somebody else's.
        world
            .demo()
            .fault(On::Put, Some("file"), Effect::LoseAnswer, Some(1));
        assert_eq!(
            put(&mount, "file", &bytes(round, 5_000)),
            Ok(()),
            "round {round}"
        );
        world.demo().heal();
        assert_same(
            &world.witness().get("file").expect("there"),
            &bytes(round, 5_000),
            "file",
        );
    }
}

fn a_lost_answer_of_a_completion_is_a_success(world: &World) {
    let mount = world.mount_with(world.options().flags("--part-size 5MiB"));
    for round in 0..2 {
        world
            .demo()
            .fault(On::Complete, Some("file"), Effect::LoseAnswer, Some(1));
        assert_eq!(
            put(&mount, "file", &bytes(round, 12 << 20)),
            Ok(()),
            "round {round}"
        );
        world.demo().heal();
        assert_same(
            &world.witness().get("file").expect("there"),
            &bytes(round, 12 << 20),
            "file",
        );
    }
}

/// Refused before anything was written, then somebody else's put, then our retry: ESTALE.
fn a_lost_answer_and_a_foreign_put_is_not_a_success(world: &World) {
    let mount = world.mount();
    world.witness().put("file", b"before");
    let mut file = File::create(mount.path("file")).expect("open");
    file.write_all(b"mine").expect("write");
    world.witness().put("file", b"foreign");
    world
        .demo()
        .fault(On::Put, Some("file"), Effect::LoseAnswer, Some(1));
    assert_eq!(close(file), Err(Errno::ESTALE));
    world.demo().heal();
    assert_eq!(
        world.witness().get("file").as_deref(),
        Some(&b"foreign"[..])
    );
}

/// Closes a descriptor that is not the last, and gives what the publish gave: close's error, or where
/// only the last close publishes, that of an fsync before it.
fn publish_and_close(is_release: bool, file: File) -> Result<(), Errno> {
    if !is_release {
        return close(file);
    }
    let synced = file.sync_all().map_err(|error| errno(&error));
    assert_eq!(close(file), Ok(()), "not the last close");
    synced
}

fn a_refused_put_is_eacces_and_the_next_close_publishes(world: &World) {
    let mount = world.mount();
    let mut file = File::create(mount.path("file")).expect("create");
    file.write_all(b"precious").expect("write");
    world
        .demo()
        .fault(On::Put, None, Effect::refuse(403, "AccessDenied"), None);
    let twin = file.try_clone().expect("dup");
    assert_eq!(
        publish_and_close(mount.in_release_mode(), file),
        Err(Errno::EACCES)
    );
    assert_eq!(world.witness().head("file"), None);
    world.demo().heal();
    assert_eq!(
        close(twin),
        Ok(()),
        "the bytes were kept while the file was open"
    );
    assert_eq!(
        world.witness().get("file").as_deref(),
        Some(&b"precious"[..])
    );
}

fn a_store_that_hangs_is_etimedout_and_the_next_fsync_publishes(world: &World) {
    let mount = impatient(world);
    let mut file = File::create(mount.path("file")).expect("create");
    file.write_all(b"precious").expect("write");
    world.demo().fault(On::Put, None, Effect::HangBefore, None);
    let begin = Instant::now();
    let error = file.sync_all().expect_err("the store does not answer");
    assert_eq!(errno(&error), Errno::ETIMEDOUT);
    assert!(
        begin.elapsed() < Duration::from_secs(20),
        "--store-timeout is a limit"
    );
    world.demo().heal();
    crate::eventually("the store answers again", || file.sync_all().is_ok());
    assert_eq!(
        world.witness().get("file").as_deref(),
        Some(&b"precious"[..])
    );
    assert_eq!(close(file), Ok(()));
}

fn a_full_store_is_edquot(world: &World) {
    let mount = patient(world);
    world.demo().fault(
        On::Put,
        None,
        Effect::refuse(507, "XMinioStorageFull"),
        None,
    );
    let result = put(&mount, "file", b"body");
    assert!(
        [Err(Errno::EDQUOT), Err(Errno::ENOSPC)].contains(&result),
        "a close that found no room: {result:?}"
    );
}

fn what_is_lost_is_logged(world: &World) {
    let mount = patient(world);
    world
        .demo()
        .fault(On::Put, None, Effect::refuse(403, "AccessDenied"), None);
    assert_eq!(
        put(&mount, "dir-less-file", &bytes(1, 4_321)),
        Err(Errno::EACCES)
    );
    crate::eventually("the log names the key and the size of what is lost", || {
        let log = mount.log();
        log.iter().any(|line| {
            line.contains("ERROR") && line.contains("dir-less-file") && line.contains("4321")
        })
    });
}

/// With operation, key, errno, cause, and the store's request id.
fn every_failed_answer_is_one_line_in_the_log(world: &World) {
    let mount = world.mount();
    for key in ["dir/old", "dir/open"] {
        world.witness().put(key, b"body");
    }
    let file = File::options()
        .append(true)
        .open(mount.path("dir/open"))
        .expect("open");
    assert!(fs::metadata(mount.path("dir/old")).is_ok());
    for on in [On::Put, On::Copy, On::Delete] {
        let refuse = Effect::refuse(403, "AccessDenied");
        world.demo().fault(on, None, refuse, None);
    }
    let mode = fs::Permissions::from_mode(0o600);
    let refused = |result: std::io::Result<()>| {
        let error = result.expect_err("it is refused");
        assert_eq!(errno(&error), Errno::EACCES);
    };
    refused(fs::create_dir(mount.path("dir/made")));
    refused(fs::rename(mount.path("dir/old"), mount.path("dir/new")));
    refused(fs::set_permissions(mount.path("dir/old"), mode));
    refused(fs::remove_file(mount.path("dir/old")));
    refused((&file).write_all(b"more").and_then(|()| file.sync_all()));
    for (op, key) in [
        ("mkdir", "dir/made"),
        ("rename", "dir/old"),
        ("setattr", "dir/old"),
        ("unlink", "dir/old"),
        ("fsync", "dir/open"),
    ] {
        let wanted = [format!("op=\"{op}\""), format!("key=\"{key}")];
        let is_wanted = |line: &String| wanted.iter().all(|word| line.contains(word));
        // The line is written before the answer, and read by a thread of the test's own.
        crate::eventually("the line comes", || mount.log().iter().any(is_wanted));
        let log = mount.log();
        let lines = log.iter();
        let lines: Vec<_> = lines.filter(|line| is_wanted(line)).collect();
        let [line] = lines[..] else {
            panic!("{op} of {key}: {lines:?} in {log:#?}");
        };
        for word in ["errno=EACCES", "access denied", "AccessDenied", "request "] {
            assert!(line.contains(word), "{word} is not in {line}");
        }
        // Rust's own view of an error is nobody's.
        assert!(!line.contains(['{', '}']), "{line}");
        assert_eq!(line.matches("AccessDenied").count(), 1, "{line}");
    }
    world.demo().heal();
}

fn a_failed_upload_is_aborted(world: &World) {
    let mount = world.mount_with(world.options().flags("--part-size 5MiB"));
    world.demo().fault(
        On::Complete,
        None,
        Effect::refuse(403, "AccessDenied"),
        None,
    );
    assert_eq!(put(&mount, "file", &bytes(1, 12 << 20)), Err(Errno::EACCES));
    crate::eventually("the failed upload is aborted", || {
        world.witness().uploads("file").is_empty()
    });
    assert_eq!(world.witness().head("file"), None);
}

fn a_failed_part_is_sent_again(world: &World) {
    let mount = world.mount_with(world.options().flags("--part-size 5MiB"));
    world
        .demo()
        .fault(On::Part, None, Effect::slow_down(), Some(3));
    assert_eq!(put(&mount, "file", &bytes(1, 22 << 20)), Ok(()));
    assert_same(
        &world.witness().get("file").expect("there"),
        &bytes(1, 22 << 20),
        "file",
    );
    assert_eq!(world.witness().uploads("file"), []);
}

/// An error or the right bytes: a fault of the way is either found or has not happened.
fn a_corrupted_body_is_never_given_out(world: &World) {
    let mount = world.mount();
    assert_eq!(put(&mount, "file", &bytes(1, 50_000)), Ok(()));
    let fresh = patient(world);
    world.demo().fault(
        On::Get,
        Some("file"),
        Effect::CorruptBody { at: 777 },
        Some(1),
    );
    if let Ok(found) = fs::read(fresh.path("file")) {
        assert_same(
            &found,
            &bytes(1, 50_000),
            "through a way that changes bytes",
        );
    }
    world.demo().heal();
    let found = fs::read(fresh.path("file")).expect("the way is good again");
    assert_same(&found, &bytes(1, 50_000), "nothing of it was kept");
}

fn a_failed_rename_keeps_the_source(world: &World) {
    let mount = patient(world);
    world.witness().put("source", b"body");
    world
        .demo()
        .fault(On::Copy, None, Effect::refuse(403, "AccessDenied"), None);
    let error = fs::rename(mount.path("source"), mount.path("target")).expect_err("refused");
    assert_eq!(errno(&error), Errno::EACCES);
    world.demo().heal();
    assert_eq!(world.witness().keys(""), ["source"]);
    assert_eq!(fs::read(mount.path("source")).expect("read"), b"body");
    assert!(!mount.path("target").exists());
}

fn a_failed_delete_keeps_the_name(world: &World) {
    let mount = patient(world);
    world.witness().put("file", b"body");
    world
        .demo()
        .fault(On::Delete, None, Effect::refuse(403, "AccessDenied"), None);
    let error = fs::remove_file(mount.path("file")).expect_err("refused");
    assert_eq!(errno(&error), Errno::EACCES);
    world.demo().heal();
    assert_eq!(
        fs::read(mount.path("file")).expect("it is still there"),
        b"body"
    );
}

fn a_failed_listing_is_an_error_and_not_an_end(world: &World) {
    world.demo().fill("dir/", 5_000);
    let mount = impatient(world);
    // The first page comes, one of the next ones does not.
    let mut entries = fs::read_dir(mount.path("dir")).expect("opendir");
    entries
        .next()
        .expect("a first name")
        .expect("the first page");
    world
        .demo()
        .fault(On::List, None, Effect::internal_error(), None);
    let mut count = 1;
    let error = loop {
        match entries.next() {
            Some(Ok(_)) => count += 1,
            Some(Err(error)) => break Some(error),
            None => break None,
        }
    };
    // Pages that were ahead of the reader may be all of them.
    match error {
        Some(error) => assert!(
            [Errno::EIO, Errno::ETIMEDOUT].contains(&errno(&error)),
            "{error}"
        ),
        None => assert_eq!(count, 5_000, "an end before the end"),
    }
}

/// A MinIO of this claim's own dies under a file that is being written, and comes back with its data.
fn a_store_that_dies_and_comes_back_loses_nothing(world: &World) {
    use ackfs_tests::minio::USER;

    let mut minio = Minio::start().expect("MinIO starts");
    let witness = minio.witness("outage");
    witness.create_bucket();
    let options = Options::new("outage", &minio.endpoint(), USER, USER);
    let mount = options
        .door(world.door())
        .flags("--store-timeout 10s")
        .mount();
    let mut file = File::create(mount.path("file")).expect("create");
    file.write_all(&bytes(1, 100_000)).expect("write");
    let twin = file.try_clone().expect("dup");
    minio.kill();
    let (done, end) = channel();
    let is_release = mount.in_release_mode();
    let closer = thread::spawn(move || {
        let result = publish_and_close(is_release, file);
        done.send(()).expect("the test waits");
        result
    });
    end.recv_timeout(Duration::from_mins(1))
        .expect("close ends although the store is dead");
    let result = closer.join().expect("no panic");
    assert!(
        [Err(Errno::EIO), Err(Errno::ETIMEDOUT)].contains(&result),
        "a close without a store: {result:?}"
    );
    let error = fs::metadata(mount.path("other")).expect_err("the store is dead");
    assert_ne!(errno(&error), Errno::ENOENT);
    minio.restart().expect("MinIO starts again");
    assert_eq!(
        witness.head("file"),
        None,
        "it was not acknowledged and is not there"
    );
    assert_eq!(close(twin), Ok(()), "the bytes were kept");
    assert_same(
        &witness.get("file").expect("there"),
        &bytes(1, 100_000),
        "file",
    );
    let mut file = OpenOptions::new()
        .append(true)
        .open(mount.path("file"))
        .expect("open");
    file.write_all(b"more").expect("write");
    assert_eq!(close(file), Ok(()), "all is well again");
}
