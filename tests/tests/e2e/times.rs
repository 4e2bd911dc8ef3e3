//! What stat(2) says of when: by this mount, by others of the same bucket, and to clients of the store.

use std::fs::{self, File, FileTimes};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ackfs_tests::content::bytes;
use ackfs_tests::posix::close;
use ackfs_tests::{World, claims};

claims! {
    EVERY:
        a_change_of_mode_or_owner_is_no_modification,
        a_rename_is_no_modification,
        a_write_is_a_modification,
        times_that_are_set_are_seen_by_others,
        a_new_object_has_the_content_type_of_its_name;
}

/// Access, modification and change, in nanoseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    access: i128,
    modification: i128,
    change: i128,
}

fn times(path: &Path) -> Times {
    let stat = fs::symlink_metadata(path).expect("stat");
    let at = |seconds: i64, nanoseconds: i64| {
        i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
    };
    Times {
        access: at(stat.atime(), stat.atime_nsec()),
        modification: at(stat.mtime(), stat.mtime_nsec()),
        change: at(stat.ctime(), stat.ctime_nsec()),
    }
}

const SECOND: i128 = 1_000_000_000;

/// As other tools leave it: with times of long ago, and without any.
fn plant(world: &World) {
    let headers = [("x-amz-meta-mtime", "1000"), ("x-amz-meta-atime", "900")];
    let put = world.witness().put_with("old", b"body", &headers);
    put.expect("the store takes it");
    world.witness().put("bare", b"body");
}

/// What the store is told of an object's modification.
fn told(world: &World, key: &str) -> Option<String> {
    let head = world.witness().head(key).expect("it is there");
    head.metadata.get("file-mtime").cloned()
}

fn a_change_of_mode_or_owner_is_no_modification(world: &World) {
    plant(world);
    let mount = world.mount();
    for name in ["old", "bare"] {
        let path = mount.path(name);
        let _ = fs::read(&path).expect("read");
        let before = times(&path);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o751)).expect("chmod");
        let after = times(&path);
        assert!(after.change > before.change, "{name}: {before:?} {after:?}");
        assert_eq!(
            (after.access, after.modification),
            (before.access, before.modification),
            "{name}"
        );
        std::os::unix::fs::chown(&path, Some(7), Some(8)).expect("chown");
        assert!(times(&path).change > after.change, "{name}");
        // The store's own time of the object is that of the chown by now.
        assert_eq!(
            told(world, name),
            Some(format!("{}ns", before.modification))
        );
        let other = world.mount();
        let seen = times(&other.path(name));
        assert_eq!(seen.modification, before.modification, "{name}");
    }
    assert_eq!(times(&mount.path("old")).modification, 1000 * SECOND);
    assert_eq!(times(&mount.path("old")).access, 900 * SECOND);

    let dir = mount.path("dir");
    fs::create_dir(&dir).expect("mkdir");
    let before = times(&dir);
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).expect("chmod");
    let after = times(&dir);
    assert!(after.change > before.change && after.modification == before.modification);
}

fn a_rename_is_no_modification(world: &World) {
    plant(world);
    let mount = world.mount();
    fs::write(mount.path("own"), "body").expect("write");
    for name in ["old", "bare", "own"] {
        let before = times(&mount.path(name));
        let path = mount.path(format!("{name}-moved"));
        fs::rename(mount.path(name), &path).expect("rename");
        let after = times(&path);
        assert!(after.change > before.change, "{name}: {before:?} {after:?}");
        assert_eq!(after.modification, before.modification, "{name}");
        let key = format!("{name}-moved");
        // Other tools' attributes are left as they are.
        let said = (name != "old").then(|| format!("{}ns", before.modification));
        assert_eq!(told(world, &key), said, "{name}");
        let other = world.mount();
        let seen = times(&other.path(&key));
        assert_eq!(seen.modification, before.modification, "{name}");
    }
}

fn a_write_is_a_modification(world: &World) {
    plant(world);
    let mount = world.mount();
    for name in ["old", "bare"] {
        let path = mount.path(name);
        let mode = fs::metadata(&path).expect("stat").mode();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
        let before = times(&path);
        let begin = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after the epoch");
        let mut file = File::options().append(true).open(&path).expect("open");
        file.write_all(b" and more").expect("write");
        let written = times(&path);
        close(file).expect("close");
        let after = times(&path);
        assert!(
            written.modification >= begin.as_nanos() as i128,
            "{name}: {written:?}"
        );
        assert!(after.change >= after.modification, "{name}: {after:?}");
        assert!(after.change > before.change, "{name}: {before:?} {after:?}");
        // At the store it is as old as its bytes, and nobody has to say so.
        assert_eq!(told(world, name), None);
    }
    assert_eq!(times(&mount.path("old")).access, 900 * SECOND);
}

fn times_that_are_set_are_seen_by_others(world: &World) {
    plant(world);
    let mount = world.mount();
    let day = |day: u64| UNIX_EPOCH + Duration::new(day * 86_400, 123_456_789);
    for name in ["old", "bare", "new"] {
        let path = mount.path(name);
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .expect("open");
        let before = times(&path);
        file.set_times(FileTimes::new().set_accessed(day(10)))
            .expect("futimens");
        let after = times(&path);
        assert_eq!(after.access, 10 * 86_400 * SECOND + 123_456_789, "{name}");
        assert_eq!(after.modification, before.modification, "{name}");
        assert!(after.change > before.change, "{name}: {before:?} {after:?}");
        file.set_times(FileTimes::new().set_modified(day(20)))
            .expect("futimens");
        close(file).expect("close");
        for mount in [&mount, &world.mount()] {
            let seen = times(&mount.path(name));
            assert_eq!(seen.access, 10 * 86_400 * SECOND + 123_456_789, "{name}");
            assert_eq!(
                seen.modification,
                20 * 86_400 * SECOND + 123_456_789,
                "{name}"
            );
            assert!(seen.change > seen.modification, "{name}");
        }
    }
}

fn a_new_object_has_the_content_type_of_its_name(world: &World) {
    let mount = world.mount();
    let witness = world.witness();
    let told = |key: &str| witness.head(key).expect("it is there").content_type;
    // The last one is uploaded in parts.
    for (name, kind, len) in [
        ("page.html", "text/html", 10),
        ("data.JSON", "application/json", 10),
        ("none", "application/octet-stream", 10),
        (".png", "application/octet-stream", 10),
        ("film.mp4", "video/mp4", 30 << 20),
        ("blob", "application/octet-stream", 30 << 20),
    ] {
        fs::write(mount.path(name), bytes(1, len)).expect("write");
        assert_eq!(told(name).as_deref(), Some(kind), "{name}");
    }
    fs::create_dir(mount.path("dir")).expect("mkdir");
    assert_eq!(told("dir/").as_deref(), Some("application/x-directory"));
    // As editors do it: a file is written beside the old one and renamed over it.
    fs::write(mount.path("page.html~"), "new").expect("write");
    assert_eq!(
        told("page.html~").as_deref(),
        Some("application/octet-stream")
    );
    fs::rename(mount.path("page.html~"), mount.path("page.html")).expect("rename");
    assert_eq!(told("page.html").as_deref(), Some("text/html"));
    // Also where only a listing has shown the file.
    let other = world.mount();
    assert!(fs::read_dir(other.dir()).expect("opendir").count() > 0);
    fs::rename(other.path("none"), other.path("some.css")).expect("rename");
    assert_eq!(told("some.css").as_deref(), Some("text/css"));
    // What somebody said of it stays.
    let said = [("content-type", "text/x-special")];
    witness.put_with("said.txt", b"body", &said).expect("put");
    let mut file = File::options()
        .append(true)
        .open(mount.path("said.txt"))
        .expect("open");
    file.write_all(b"more").expect("write");
    close(file).expect("close");
    fs::rename(mount.path("said.txt"), mount.path("said.html")).expect("rename");
    assert_eq!(told("said.html").as_deref(), Some("text/x-special"));
}
