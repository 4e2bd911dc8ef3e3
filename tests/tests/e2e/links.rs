//! Symbolic links, FIFOs and sockets: objects that other S3 clients and gateways read and make too.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use ackfs_tests::{World, claims, sandbox};
use nix::sys::stat::Mode;

claims! {
    EVERY:
        a_link_is_in_the_bucket_when_symlink_returns,
        links_of_aws_gateways_and_of_s3fs_are_links,
        the_usual_tools_make_and_copy_links,
        a_link_that_somebody_replaced_leads_to_the_new_target,
        a_link_and_a_file_of_the_same_bytes_are_told_apart,
        a_link_in_a_listing_opens_as_what_it_leads_to,
        fifos_and_sockets_come_back_with_the_next_mount;
}

/// Metadata of a link in AWS's names, as headers.
const AWS: &[(&str, &str)] = &[("x-amz-meta-file-permissions", "0120777")];

/// Runs a tool to its end and gives what it printed.
fn run(program: &str, args: &[&str], dir: &Path) -> String {
    let mut command = sandbox::command(program);
    let output = command.args(args).current_dir(dir).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {words}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn is_link(path: &Path) -> bool {
    let stat = fs::symlink_metadata(path);
    stat.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .is_symlink()
}

fn target(path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    fs::read_link(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn a_link_is_in_the_bucket_when_symlink_returns(world: &World) {
    let witness = world.witness();
    witness.put("dir/file", b"body");
    let long = format!("{}file", "./".repeat(2_000));
    {
        let mount = world.mount();
        for (name, target) in [("dir/a", "file"), ("b", "dir/\u{e9} \n"), ("dir/c", &long)] {
            symlink(target, mount.path(name)).expect("symlink");
            assert_eq!(witness.get(name).as_deref(), Some(target.as_bytes()));
            let head = witness.head(name).expect("there");
            assert_eq!(head.metadata["file-permissions"], "0120777", "{name}");
            assert_eq!(head.metadata["file-owner"], "0", "{name}");
        }
    }
    let mount = world.mount();
    assert_eq!(target(mount.path("dir/a")), Path::new("file"));
    assert_eq!(target(mount.path("b")), Path::new("dir/\u{e9} \n"));
    assert_eq!(target(mount.path("dir/c")), Path::new(&long));
    assert_eq!(fs::read(mount.path("dir/c")).expect("read"), b"body");
    fs::remove_file(mount.path("dir/a")).expect("unlink");
    assert_eq!(witness.get("dir/a"), None);
    assert_eq!(witness.get("dir/file").as_deref(), Some(&b"body"[..]));
}

fn links_of_aws_gateways_and_of_s3fs_are_links(world: &World) {
    let witness = world.witness();
    witness.put("dir/file", b"body");
    let s3fs = [
        ("x-amz-meta-mode", "41471"),
        ("x-amz-meta-uid", "7"),
        ("x-amz-meta-gid", "8"),
        ("x-amz-meta-mtime", "1000"),
    ];
    witness.put_with("aws", b"dir/file", AWS).expect("put");
    witness.put_with("s3fs", b"dir/file", &s3fs).expect("put");
    witness.put_with("up/to", b"../dir", AWS).expect("put");
    let mount = world.mount();
    for name in ["aws", "s3fs"] {
        assert_eq!(target(mount.path(name)), Path::new("dir/file"), "{name}");
        assert_eq!(fs::read(mount.path(name)).expect("read"), b"body");
    }
    let stat = fs::symlink_metadata(mount.path("s3fs")).expect("lstat");
    assert_eq!((stat.uid(), stat.gid(), stat.mtime()), (7, 8, 1000));
    assert_eq!(fs::read(mount.path("up/to/file")).expect("read"), b"body");
    fs::write(mount.path("up/to/new"), "new").expect("write");
    assert_eq!(witness.get("dir/new").as_deref(), Some(&b"new"[..]));
    // A rename takes the metadata along.
    fs::rename(mount.path("s3fs"), mount.path("up/moved")).expect("rename");
    assert_eq!(
        witness.head("up/moved").expect("there").metadata["mode"],
        "41471"
    );
    assert!(is_link(&mount.path("up/moved")));
}

fn the_usual_tools_make_and_copy_links(world: &World) {
    let (mount, witness) = (world.mount(), world.witness());
    let dir = mount.dir();
    fs::create_dir_all(mount.path("tree/sub")).expect("mkdir");
    fs::write(mount.path("tree/file"), "body").expect("write");
    run("ln", &["-s", "file", "tree/link"], dir);
    run("ln", &["-s", "nowhere", "tree/dangling"], dir);
    run("ln", &["-s", "../file", "tree/sub/up"], dir);
    run("ln", &["-s", "tree", "current"], dir);
    run("ln", &["-sf", "sub/up", "tree/link"], dir);
    assert_eq!(target(mount.path("tree/link")), Path::new("sub/up"));
    assert_eq!(fs::read(mount.path("current/link")).expect("read"), b"body");
    run("ln", &["-sfn", "tree/sub", "current"], dir);
    assert_eq!(fs::read(mount.path("current/up")).expect("read"), b"body");
    let found = run("readlink", &["-f", "current/up"], dir);
    let file = fs::canonicalize(mount.path("tree/file")).expect("there");
    assert_eq!(Path::new(found.trim_end()), file);
    let links = |tree: &str| {
        let found = run("find", &[tree, "-type", "l", "-printf", "%P %l\n"], dir);
        let mut lines: Vec<String> = found.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let want = ["dangling nowhere", "link sub/up", "sub/up ../file"];
    assert_eq!(links("tree"), want);
    run("cp", &["-a", "tree", "copy"], dir);
    assert_eq!(links("copy"), want);
    run("tar", &["-cf", "tree.tar", "tree"], dir);
    fs::create_dir(mount.path("from-tar")).expect("mkdir");
    run("tar", &["-xf", "tree.tar", "-C", "from-tar"], dir);
    assert_eq!(links("from-tar/tree"), want);
    let times = |name: &str| {
        fs::symlink_metadata(mount.path(name))
            .expect("lstat")
            .mtime()
    };
    assert_eq!(times("copy/link"), times("tree/link"));
    run("chown", &["-h", "12:34", "copy/link"], dir);
    let stat = fs::symlink_metadata(mount.path("copy/link")).expect("lstat");
    assert_eq!((stat.uid(), stat.gid()), (12, 34));
    assert_eq!(
        fs::metadata(mount.path("copy/file")).expect("stat").uid(),
        0
    );
    run("touch", &["-h", "-d", "@1000", "copy/link"], dir);
    assert_eq!(times("copy/link"), 1000);
    assert_eq!(links("copy"), want);
    run("rm", &["-r", "copy", "from-tar"], dir);
    assert_eq!(witness.get("tree/file").as_deref(), Some(&b"body"[..]));
    assert_eq!(witness.keys("copy"), Vec::<String>::new());
}

/// A target is believed as long as any other name, `--metadata-ttl`.
fn a_link_that_somebody_replaced_leads_to_the_new_target(world: &World) {
    let (mount, witness) = (world.mount(), world.witness());
    witness.put("one", b"1");
    witness.put("two", b"2");
    symlink("one", mount.path("link")).expect("symlink");
    assert_eq!(fs::read(mount.path("link")).expect("read"), b"1");
    witness.put_with("link", b"two", AWS).expect("put");
    crate::eventually("the new target is seen", || {
        target(mount.path("link")) == Path::new("two")
    });
    assert_eq!(fs::read(mount.path("link")).expect("read"), b"2");
    witness.delete("link");
    crate::eventually("it is gone", || {
        fs::symlink_metadata(mount.path("link")).is_err()
    });
}

/// Where an ETag is a checksum of the bytes, both have the same.
fn a_link_and_a_file_of_the_same_bytes_are_told_apart(world: &World) {
    let (mount, witness) = (world.mount(), world.witness());
    witness.put("other", b"body");
    witness.put_with("name", b"other", AWS).expect("put");
    assert_eq!(fs::read(mount.path("name")).expect("read"), b"body");
    witness.put("name", b"other");
    crate::eventually("the file is seen", || !is_link(&mount.path("name")));
    assert_eq!(fs::read(mount.path("name")).expect("read"), b"other");
    witness.put_with("name", b"other", AWS).expect("put");
    // Here the open finds out by itself.
    assert_eq!(fs::read(mount.path("name")).expect("read"), b"body");
    assert!(is_link(&mount.path("name")));
    fs::remove_file(mount.path("name")).expect("unlink");
    fs::write(mount.path("name"), "other").expect("write");
    assert_eq!(fs::read(mount.path("name")).expect("read"), b"other");
}

fn a_link_in_a_listing_opens_as_what_it_leads_to(world: &World) {
    let witness = world.witness();
    witness.put("file", b"body");
    for index in 0..20 {
        let key = format!("dir/{index:02}");
        witness.put_with(&key, b"../file", AWS).expect("put");
    }
    let mount = world.mount();
    let names = run("ls", &["-l", "dir"], mount.dir());
    assert_eq!(names.lines().count(), 21);
    for index in 0..20 {
        let path = mount.path(format!("dir/{index:02}"));
        assert_eq!(fs::read(&path).expect("read"), b"body");
        assert!(is_link(&path));
    }
    let listed = run("find", &["dir", "-type", "l"], mount.dir());
    assert_eq!(listed.lines().count(), 20);
}

fn fifos_and_sockets_come_back_with_the_next_mount(world: &World) {
    let witness = world.witness();
    let s3fs = [("x-amz-meta-mode", "4516")];
    witness.put_with("s3fs", b"", &s3fs).expect("put");
    {
        let mount = world.mount();
        let mode = Mode::from_bits_truncate(0o600);
        nix::unistd::mkfifo(&mount.path("fifo"), mode).expect("mkfifo");
        std::os::unix::net::UnixListener::bind(mount.path("socket")).expect("bind");
        assert_eq!(witness.get("fifo").as_deref(), Some(&b""[..]));
    }
    let mount = world.mount();
    let kind = |name: &str| {
        let stat = fs::symlink_metadata(mount.path(name));
        stat.expect("lstat").file_type()
    };
    assert!(kind("fifo").is_fifo() && kind("s3fs").is_fifo());
    assert!(kind("socket").is_socket());
}
