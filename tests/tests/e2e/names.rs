//! Keys and names: any bucket shows as it is, and what cannot be shown is never made.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use ackfs_tests::content::{assert_same, bytes};
use ackfs_tests::posix::{self, close, errno};
use ackfs_tests::{World, claims, sandbox};
use nix::errno::Errno;
use nix::fcntl::RenameFlags;

claims! {
    EVERY:
        implicit_directories_are_shown,
        names_of_every_kind_go_both_ways,
        names_that_are_too_long_are_refused,
        keys_that_are_too_long_are_refused,
        mkdir_makes_a_marker_and_rmdir_removes_it,
        rmdir_of_a_directory_that_holds_something_is_refused,
        a_directory_stays_when_its_last_file_goes,
        unlink_removes_the_object,
        rename_moves_an_object,
        rename_replaces_an_object,
        readers_of_a_removed_or_replaced_file_keep_its_bytes,
        rename_without_replace_keeps_both,
        rename_of_a_directory_says_exdev,
        a_file_being_written_can_be_renamed,
        foreign_metadata_survives_a_rewrite_and_a_rename,
        a_prefix_is_a_root,
        a_read_only_mount_changes_nothing,
        modes_and_owners_are_what_was_asked_for,
        a_files_own_mode_decides_who_opens_it,
        a_directorys_own_mode_decides_who_enters_it,
        a_directorys_mode_and_owner_are_kept,
        hard_links_are_refused,
        statfs_answers;
    DEMO:
        keys_that_cannot_be_names_are_hidden,
        a_directory_wins_over_the_file_of_its_name;
}

fn listed(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let name = |entry: fs::DirEntry| entry.file_name().into_string().expect("names are UTF-8");
    entries
        .map(|entry| name(entry.expect("the listing goes on")))
        .collect()
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

/// The error of a call that must fail.
fn refused<T>(result: std::io::Result<T>) -> Errno {
    match result {
        Ok(_) => Errno::UnknownErrno,
        Err(error) => errno(&error),
    }
}

fn implicit_directories_are_shown(world: &World) {
    let witness = world.witness();
    for key in ["top", "a/b/c/deep", "a/x", "marked/", "marked/inside"] {
        witness.put(key, key.as_bytes());
    }
    let mount = world.mount();
    assert_eq!(listed(mount.dir()), set(["a", "marked", "top"]));
    assert_eq!(listed(&mount.path("a")), set(["b", "x"]));
    assert_eq!(listed(&mount.path("marked")), set(["inside"]));
    assert!(fs::metadata(mount.path("a/b/c")).expect("stat").is_dir());
    assert_eq!(
        fs::read(mount.path("a/b/c/deep")).expect("read"),
        b"a/b/c/deep"
    );
    assert_eq!(refused(fs::read(mount.path("a/b/c/none"))), Errno::ENOENT);
    assert_eq!(refused(fs::read(mount.path("top/none"))), Errno::ENOTDIR);
    assert_eq!(refused(fs::read_dir(mount.path("none"))), Errno::ENOENT);
    // And they can be written into like any other.
    fs::write(mount.path("a/b/new"), "new").expect("write");
    assert_eq!(witness.get("a/b/new").as_deref(), Some(&b"new"[..]));
}

/// Not tried on MinIO: with one drive it lists `both` and forgets `both/inside`.
fn a_directory_wins_over_the_file_of_its_name(world: &World) {
    let witness = world.witness();
    witness.put("both", b"file");
    witness.put("both/inside", b"inside");
    let mount = world.mount();
    assert!(fs::metadata(mount.path("both")).expect("stat").is_dir());
    assert_eq!(listed(mount.dir()), set(["both"]), "one entry, not two");
    assert_eq!(
        fs::read(mount.path("both/inside")).expect("read"),
        b"inside"
    );
    assert_eq!(
        witness.get("both").as_deref(),
        Some(&b"file"[..]),
        "the file is left alone"
    );
}

fn names_of_every_kind_go_both_ways(world: &World) {
    let witness = world.witness();
    let longest = "n".repeat(255);
    let longest_wide = "é".repeat(127);
    let names = [
        "plain",
        "with blank",
        " leading",
        "trailing ",
        "plus+and%41percent",
        "a&b<c>\"d'",
        "-dash",
        "tab\there",
        "#hash?query=1",
        ".hidden",
        "...",
        "ümläut",
        "日本語",
        "🦀",
        "e\u{301}",
        "semi;colon",
        "back`tick",
        "$dollar",
        "[x]*",
        "~tilde",
        "C:colon",
        &longest,
        &longest_wide,
    ];
    let mount = world.mount();
    fs::create_dir(mount.path("dir")).expect("mkdir");
    for (index, name) in names.iter().enumerate() {
        let body = format!("{index}");
        fs::write(mount.path("dir").join(name), &body)
            .unwrap_or_else(|error| panic!("write {name:?}: {error}"));
        let found = witness.get(&format!("dir/{name}"));
        assert_eq!(
            found.as_deref(),
            Some(body.as_bytes()),
            "{name:?} as the witness sees it"
        );
        witness.put(&format!("foreign/{name}"), body.as_bytes());
    }
    crate::eventually("the foreign directory is seen", || {
        mount.path("foreign").exists()
    });
    let wanted: BTreeSet<String> = names.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(listed(&mount.path("dir")), wanted);
    assert_eq!(listed(&mount.path("foreign")), wanted);
    for (index, name) in names.iter().enumerate() {
        let found = fs::read(mount.path("foreign").join(name));
        assert_eq!(
            found.expect("read"),
            format!("{index}").as_bytes(),
            "{name:?}"
        );
    }
    // What is not UTF-8 cannot be a key.
    let broken = mount.path(std::ffi::OsStr::from_bytes(b"not-\xff-utf8"));
    let error = refused(File::create(&broken));
    assert!(
        [Errno::EILSEQ, Errno::EINVAL].contains(&error),
        "a broken name: {error}"
    );
    let error = refused(fs::metadata(&broken));
    assert!(
        [Errno::ENOENT, Errno::EILSEQ, Errno::EINVAL].contains(&error),
        "{error}"
    );
}

fn names_that_are_too_long_are_refused(world: &World) {
    let mount = world.mount();
    let name = "n".repeat(256);
    assert_eq!(
        refused(File::create(mount.path(&name))),
        Errno::ENAMETOOLONG
    );
    assert_eq!(
        refused(fs::create_dir(mount.path(&name))),
        Errno::ENAMETOOLONG
    );
    assert_eq!(
        refused(fs::metadata(mount.path(&name))),
        Errno::ENAMETOOLONG
    );
    fs::write(mount.path("short"), "x").expect("write");
    let renamed = fs::rename(mount.path("short"), mount.path(&name));
    assert_eq!(refused(renamed), Errno::ENAMETOOLONG);
    assert_eq!(world.witness().keys(""), ["short"]);
}

/// A key holds 1,024 bytes; no component of these is too long by itself.
fn keys_that_are_too_long_are_refused(world: &World) {
    let mount = world.mount();
    let component = "d".repeat(200);
    let mut dir = mount.dir().to_owned();
    for _ in 0..5 {
        dir.push(&component);
        fs::create_dir(&dir).expect("mkdir");
    }
    // Five times 200 bytes and a slash: 1,005, so 19 are left.
    fs::write(dir.join("n".repeat(19)), "fits").expect("write");
    assert_eq!(
        refused(File::create(dir.join("n".repeat(20)))),
        Errno::ENAMETOOLONG
    );
    // The marker of a directory ends in a slash of its own.
    assert_eq!(
        refused(fs::create_dir(dir.join("m".repeat(20)))),
        Errno::ENAMETOOLONG
    );
    assert!(
        world
            .witness()
            .keys("")
            .iter()
            .all(|key| key.len() <= 1_024)
    );
}

fn mkdir_makes_a_marker_and_rmdir_removes_it(world: &World) {
    let (mount, witness) = (world.mount(), world.witness());
    fs::create_dir(mount.path("dir")).expect("mkdir");
    assert_eq!(witness.keys(""), ["dir/"]);
    assert_eq!(witness.head("dir/").map(|head| head.size), Some(0));
    assert_eq!(refused(fs::create_dir(mount.path("dir"))), Errno::EEXIST);
    assert_eq!(refused(fs::remove_file(mount.path("dir"))), Errno::EISDIR);
    fs::create_dir(mount.path("dir/sub")).expect("mkdir");
    assert_eq!(listed(&mount.path("dir")), set(["sub"]));
    fs::remove_dir(mount.path("dir/sub")).expect("rmdir");
    fs::remove_dir(mount.path("dir")).expect("rmdir");
    assert_eq!(witness.keys(""), Vec::<String>::new());
    assert_eq!(refused(fs::metadata(mount.path("dir"))), Errno::ENOENT);
    assert_eq!(refused(fs::remove_dir(mount.path("dir"))), Errno::ENOENT);
    fs::write(mount.path("file"), "x").expect("write");
    assert_eq!(refused(fs::remove_dir(mount.path("file"))), Errno::ENOTDIR);
    assert_eq!(refused(fs::create_dir(mount.path("file"))), Errno::EEXIST);
}

/// True against the store: a listing that this mount still holds is not asked.
fn rmdir_of_a_directory_that_holds_something_is_refused(world: &World) {
    let (mount, witness) = (world.mount(), world.witness());
    fs::create_dir(mount.path("dir")).expect("mkdir");
    assert!(listed(&mount.path("dir")).is_empty());
    witness.put("dir/foreign", b"x");
    assert_eq!(refused(fs::remove_dir(mount.path("dir"))), Errno::ENOTEMPTY);
    assert_eq!(witness.keys(""), ["dir/", "dir/foreign"]);
    witness.delete("dir/foreign");
    fs::remove_dir(mount.path("dir")).expect("rmdir of the emptied directory");
    // An implicit directory holds what makes it.
    witness.put("implicit/inside", b"x");
    crate::eventually("the foreign directory is seen", || {
        mount.path("implicit").exists()
    });
    assert_eq!(
        refused(fs::remove_dir(mount.path("implicit"))),
        Errno::ENOTEMPTY
    );
}

fn a_directory_stays_when_its_last_file_goes(world: &World) {
    let (mount, witness) = (world.mount(), world.witness());
    fs::create_dir(mount.path("dir")).expect("mkdir");
    fs::write(mount.path("dir/file"), "x").expect("write");
    fs::remove_file(mount.path("dir/file")).expect("unlink");
    assert!(fs::metadata(mount.path("dir")).expect("stat").is_dir());
    assert_eq!(witness.keys(""), ["dir/"]);
}

fn unlink_removes_the_object(world: &World) {
    world.witness().put("gone", b"x");
    world.witness().put("stays", b"x");
    let (mount, witness) = (world.mount(), world.witness());
    fs::remove_file(mount.path("gone")).expect("unlink");
    assert_eq!(witness.keys(""), ["stays"]);
    assert_eq!(refused(fs::metadata(mount.path("gone"))), Errno::ENOENT);
    assert_eq!(refused(fs::remove_file(mount.path("gone"))), Errno::ENOENT);
    assert_eq!(listed(mount.dir()), set(["stays"]));
    // The name can be taken again at once.
    fs::write(mount.path("gone"), "again").expect("write");
    assert_eq!(witness.get("gone").as_deref(), Some(&b"again"[..]));
}

fn rename_moves_an_object(world: &World) {
    world.witness().put("old", b"body");
    let (mount, witness) = (world.mount(), world.witness());
    fs::create_dir(mount.path("dir")).expect("mkdir");
    fs::rename(mount.path("old"), mount.path("dir/new")).expect("rename");
    assert_eq!(witness.keys(""), ["dir/", "dir/new"]);
    assert_eq!(witness.get("dir/new").as_deref(), Some(&b"body"[..]));
    assert_eq!(fs::read(mount.path("dir/new")).expect("read"), b"body");
    assert_eq!(refused(fs::metadata(mount.path("old"))), Errno::ENOENT);
    assert_eq!(
        refused(fs::rename(mount.path("none"), mount.path("x"))),
        Errno::ENOENT
    );
    // Onto itself nothing happens.
    fs::rename(mount.path("dir/new"), mount.path("dir/new")).expect("rename onto itself");
    assert_eq!(witness.get("dir/new").as_deref(), Some(&b"body"[..]));
}

fn rename_replaces_an_object(world: &World) {
    let (mount, witness) = (world.mount(), world.witness());
    for round in 0..5 {
        // What editors and tools do: write beside, then rename over.
        let body = format!("version {round}");
        fs::write(mount.path("file.tmp"), &body).expect("write");
        fs::rename(mount.path("file.tmp"), mount.path("file")).expect("rename");
        assert_eq!(witness.get("file").as_deref(), Some(body.as_bytes()));
        assert_eq!(fs::read(mount.path("file")).expect("read"), body.as_bytes());
        assert_eq!(witness.keys(""), ["file"]);
    }
    fs::create_dir(mount.path("dir")).expect("mkdir");
    assert_eq!(
        refused(fs::rename(mount.path("file"), mount.path("dir"))),
        Errno::EISDIR
    );
}

fn readers_of_a_removed_or_replaced_file_keep_its_bytes(world: &World) {
    // More than the memory holds: the rest goes to the staging file.
    let len = 80 << 20;
    let mount = world.mount_with(world.options().flags("--memory 64MiB --cache-size 64MiB"));
    for (name, seed) in [("removed", 1), ("replaced", 2)] {
        world.witness().put(name, &bytes(seed, len));
        let file = File::open(mount.path(name)).expect("open");
        let mut part = vec![0; 5000];
        file.read_exact_at(&mut part, 7).expect("read");
        ackfs_tests::process::reset_peak(mount.pid());
        if name == "removed" {
            fs::remove_file(mount.path(name)).expect("unlink");
            assert_eq!(world.witness().get(name), None);
        } else {
            fs::write(mount.path("other"), "other").expect("write");
            fs::rename(mount.path("other"), mount.path(name)).expect("rename");
            assert_eq!(world.witness().get(name).as_deref(), Some(&b"other"[..]));
        }
        assert_eq!(file.metadata().expect("fstat").nlink(), 0);
        let mut found = vec![0; len];
        file.read_exact_at(&mut found, 0).expect("read");
        assert_same(&found, &bytes(seed, len), name);
        let peak = mount.memory().peak_kib / 1024;
        assert!(peak <= 64 + 64, "--memory and 64 MiB, not {peak} MiB");
    }
}

fn rename_without_replace_keeps_both(world: &World) {
    world.witness().put("one", b"1");
    world.witness().put("two", b"2");
    let (mount, witness) = (world.mount(), world.witness());
    let no_replace = RenameFlags::RENAME_NOREPLACE;
    let rename =
        |source, target, flags| posix::rename(&mount.path(source), &mount.path(target), flags);
    assert_eq!(rename("one", "two", no_replace), Err(Errno::EEXIST));
    assert_eq!(witness.get("two").as_deref(), Some(&b"2"[..]));
    assert_eq!(rename("one", "three", no_replace), Ok(()));
    assert_eq!(witness.keys(""), ["three", "two"]);
    assert_eq!(
        rename("three", "two", RenameFlags::RENAME_EXCHANGE),
        Err(Errno::EINVAL)
    );
}

fn rename_of_a_directory_says_exdev(world: &World) {
    let (mount, witness) = (world.mount(), world.witness());
    witness.put("dir/a", b"x");
    let renamed = fs::rename(mount.path("dir"), mount.path("other"));
    assert_eq!(
        renamed.as_ref().map_err(std::io::Error::kind),
        Err(ErrorKind::CrossesDevices)
    );
    assert_eq!(witness.keys(""), ["dir/a"]);
}

fn a_file_being_written_can_be_renamed(world: &World) {
    let (mount, witness) = (world.mount(), world.witness());
    let mut file = File::create(mount.path("before")).expect("create");
    file.write_all(b"first ").expect("write");
    fs::rename(mount.path("before"), mount.path("after")).expect("rename");
    file.write_all(b"second").expect("write");
    assert_eq!(close(file), Ok(()));
    assert_eq!(witness.get("after").as_deref(), Some(&b"first second"[..]));
    assert_eq!(
        witness.head("before"),
        None,
        "the old name does not come back at close"
    );
}

fn foreign_metadata_survives_a_rewrite_and_a_rename(world: &World) {
    let (mount, witness) = (world.mount(), world.witness());
    let headers = [("x-amz-meta-team", "blue"), ("content-type", "text/csv")];
    witness
        .put_with("data.csv", b"1,2\n", &headers)
        .expect("put");
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(mount.path("data.csv"))
        .expect("open");
    file.write_all(b"3,4\n").expect("append");
    assert_eq!(close(file), Ok(()));
    fs::rename(mount.path("data.csv"), mount.path("moved.csv")).expect("rename");
    let head = witness.head("moved.csv").expect("there");
    assert_eq!(head.size, 8);
    assert_eq!(head.metadata.get("team").map(String::as_str), Some("blue"));
    assert_eq!(head.content_type.as_deref(), Some("text/csv"));
}

fn a_prefix_is_a_root(world: &World) {
    let witness = world.witness();
    for key in ["outside", "pre/fix/in", "pre/fix/dir/deep", "pre/fixed"] {
        witness.put(key, key.as_bytes());
    }
    let source = format!("{}/pre/fix", witness.bucket());
    let mount = world.mount_with(world.options().source(&source));
    assert_eq!(listed(mount.dir()), set(["dir", "in"]));
    fs::write(mount.path("new"), "new").expect("write");
    fs::remove_file(mount.path("in")).expect("unlink");
    assert_eq!(
        witness.keys(""),
        ["outside", "pre/fix/dir/deep", "pre/fix/new", "pre/fixed"]
    );
}

fn a_read_only_mount_changes_nothing(world: &World) {
    let witness = world.witness();
    witness.put("file", b"body");
    let mount = world.mount_with(world.options().flags("--read-only"));
    assert_eq!(fs::read(mount.path("file")).expect("read"), b"body");
    assert_eq!(refused(File::create(mount.path("new"))), Errno::EROFS);
    assert_eq!(
        refused(fs::OpenOptions::new().write(true).open(mount.path("file"))),
        Errno::EROFS
    );
    assert_eq!(refused(fs::remove_file(mount.path("file"))), Errno::EROFS);
    assert_eq!(refused(fs::create_dir(mount.path("dir"))), Errno::EROFS);
    assert_eq!(
        refused(fs::rename(mount.path("file"), mount.path("x"))),
        Errno::EROFS
    );
    let link = std::os::unix::fs::symlink("file", mount.path("link"));
    assert_eq!(refused(link), Errno::EROFS);
    assert_eq!(witness.keys(""), ["file"]);
}

fn modes_and_owners_are_what_was_asked_for(world: &World) {
    world.witness().put("dir/file", b"body");
    let flags = "--uid 1234 --gid 2345 --file-mode 640 --dir-mode 750";
    let mount = world.mount_with(world.options().flags(flags));
    let (dir, file) = (mount.path("dir"), mount.path("dir/file"));
    let stat = |path: &Path| fs::metadata(path).expect("stat");
    assert_eq!((stat(&file).uid(), stat(&file).gid()), (1234, 2345));
    assert_eq!(stat(&file).permissions().mode() & 0o7777, 0o640);
    assert_eq!(stat(&dir).permissions().mode() & 0o7777, 0o750);
    assert_eq!(stat(&file).len(), 4);
    assert!(
        stat(&file)
            .modified()
            .expect("mtime")
            .elapsed()
            .is_ok_and(|age| age.as_secs() < 600)
    );
}

/// A listing shows no metadata, so after `ls` the kernel knew files by the mount's mode: a script was
/// refused to everybody, and what was private was read by anybody, until a second had passed.
fn a_files_own_mode_decides_who_opens_it(world: &World) {
    {
        let mount = world.mount();
        for (name, body, mode) in [
            ("script", "#!/bin/sh\nexit 7\n", 0o755),
            ("private", "secret", 0o600),
            ("public", "news", 0o644),
        ] {
            fs::write(mount.path(name), body).expect("write");
            fs::set_permissions(mount.path(name), fs::Permissions::from_mode(mode)).expect("chmod");
        }
    }
    let flags = "--allow-other --metadata-ttl 10m";
    let mount = world.mount_with(world.options().flags(flags));
    let listed: Vec<_> = fs::read_dir(mount.dir()).expect("a listing").collect();
    assert_eq!(listed.len(), 3);
    let status = sandbox::command(mount.path("script")).status();
    assert_eq!(status.expect("it may be executed").code(), Some(7));
    denied("cat", &mount.path("private"));
    assert_eq!(
        fs::read(mount.path("private")).expect("root reads"),
        b"secret"
    );
}

/// What another user runs, and must not be allowed to.
fn denied(program: &str, path: &Path) {
    let mut command = sandbox::command("setpriv");
    command.args([
        "--reuid",
        "12345",
        "--regid",
        "12345",
        "--clear-groups",
        "--",
    ]);
    let output = command.arg(program).arg(path).output().expect("setpriv");
    assert_eq!(output.stdout, b"", "{output:?}");
    assert!(!output.status.success());
    let seen = String::from_utf8_lossy(&output.stderr);
    assert!(seen.contains("Permission denied"), "{seen}");
}

/// A listing shows no metadata of directories either.
fn a_directorys_own_mode_decides_who_enters_it(world: &World) {
    {
        let mount = world.mount();
        fs::create_dir_all(mount.path("private/below")).expect("mkdir");
        fs::write(mount.path("private/below/file"), "secret").expect("write");
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(mount.path("private"), mode).expect("chmod");
    }
    let flags = "--allow-other --metadata-ttl 10m";
    for (program, path) in [
        ("cat", "private/below/file"),
        ("ls", "private"),
        ("ls", "private/below"),
    ] {
        let mount = world.mount_with(world.options().flags(flags));
        assert_eq!(listed(mount.dir()), set(["private"]));
        denied(program, &mount.path(path));
        let read = fs::read(mount.path("private/below/file"));
        assert_eq!(read.expect("root reads"), b"secret");
    }
}

fn a_directorys_mode_and_owner_are_kept(world: &World) {
    let witness = world.witness();
    let s3fs = [("x-amz-meta-mode", "16832"), ("x-amz-meta-note", "kept")];
    witness.put_with("s3fs/", b"", &s3fs).expect("put");
    witness.put("implicit/file", b"body");
    let access = |path: &Path| {
        let stat = fs::metadata(path).expect("stat");
        (stat.mode() & 0o7777, stat.uid(), stat.gid())
    };
    {
        let mount = world.mount();
        assert_eq!(access(&mount.path("s3fs")), (0o700, 0, 0));
        fs::create_dir(mount.path("made")).expect("mkdir");
        for (name, mode) in [("made", 0o2750), ("implicit", 0o711), ("s3fs", 0o755)] {
            let path = mount.path(name);
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
            std::os::unix::fs::chown(&path, Some(7), Some(8)).expect("chown");
            // chown(2) takes the set-group-ID bit of no directory.
            assert_eq!(access(&path), (mode, 7, 8));
        }
    }
    let mount = world.mount();
    assert_eq!(access(&mount.path("made")), (0o2750, 7, 8));
    assert_eq!(access(&mount.path("implicit")), (0o711, 7, 8));
    assert_eq!(access(&mount.path("s3fs")), (0o755, 7, 8));
    let marker = witness.head("s3fs/").expect("it is there");
    assert_eq!(marker.metadata["note"], "kept");
    assert_eq!(listed(&mount.path("implicit")), set(["file"]));
    fs::remove_dir(mount.path("made")).expect("rmdir");
    assert!(witness.head("made/").is_none());
}

fn hard_links_are_refused(world: &World) {
    let mount = world.mount();
    fs::write(mount.path("file"), "x").expect("write");
    assert_eq!(
        refused(fs::hard_link(mount.path("file"), mount.path("link"))),
        Errno::EPERM
    );
}

fn statfs_answers(world: &World) {
    let mount = world.mount();
    let stat = nix::sys::statvfs::statvfs(mount.dir()).expect("statfs");
    assert!(
        stat.blocks_available() > 0 && stat.block_size() > 0,
        "there is room: {stat:?}"
    );
    assert_eq!(stat.name_max(), 255);
}

fn keys_that_cannot_be_names_are_hidden(world: &World) {
    let witness = world.witness();
    let long = format!("dir/{}", "n".repeat(256));
    for key in ["dir/good", "dir//double", &long] {
        witness.put(key, b"x");
    }
    let mount = world.mount();
    assert_eq!(listed(&mount.path("dir")), set(["good"]));
    assert_eq!(refused(fs::remove_dir(mount.path("dir"))), Errno::ENOTEMPTY);
    assert_eq!(witness.keys("dir/").len(), 3, "hidden is not gone");
}
