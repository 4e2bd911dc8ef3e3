//! A few of the closes against a real MinIO, which no code of ours is in: none of its requests are
//! counted and it is not slow, but what the witness sees when a close has returned is what it holds.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use ackfs_tests::content::assert_same;
use ackfs_tests::minio::{Minio, USER};
use ackfs_tests::posix::close;
use ackfs_tests::{Door, Options};

use crate::child::{MAPPED_LEN, close_and_store, done, mapped};
use crate::stage::zeros;

const BUCKET: &str = "closes";

/// Starts a MinIO and tries a dup, an exit and a mapping with it through `door`.
pub(crate) fn closes(door: Door, binary: &Path) {
    let minio = Minio::start().expect("a MinIO");
    let witness = minio.witness(BUCKET);
    witness.create_bucket();
    let options = Options::new(BUCKET, &minio.endpoint(), USER, USER);
    let mount = options.door(door).binary(binary).mount();
    assert!(mount.in_release_mode(), "{}", mount.ready_line());
    let holds = |key: &str, wanted: &[u8]| {
        let found = witness.get(key);
        assert_same(
            &found.unwrap_or_else(|| panic!("{key} is not there")),
            wanted,
            key,
        );
    };

    let mut file = File::create(mount.path("dup")).expect("create");
    file.write_all(b"one ").expect("write");
    let mut dup = file.try_clone().expect("dup");
    assert_eq!(close(file), Ok(()));
    assert_eq!(witness.head("dup"), None, "before the last close");
    dup.write_all(b"two").expect("write");
    assert_eq!(close(dup), Ok(()));
    holds("dup", b"one two");

    let path = mount.path("exit");
    done(&["leave", &path.to_string_lossy(), "left behind"], None);
    holds("exit", b"left behind");

    let file = zeros(&mount.path("munmap"), MAPPED_LEN as u64);
    let mapping = close_and_store(file);
    drop(mapping);
    holds("munmap", &mapped());
}
