//! The harness itself: a witness and stores that hold what the other tests build on.

use ackfs_tests::content::{assert_same, bytes};
use ackfs_tests::demo::{Demo, Effect, On};
use ackfs_tests::witness::If;
use ackfs_tests::{Minio, Witness};

fn a_witness_sees_what_it_wrote(witness: &Witness) {
    let body = bytes(1, 100_000);
    let etag = witness.put("dir/a b+c%41-é", &body);
    let head = witness.head("dir/a b+c%41-é").expect("the object is there");
    assert_eq!((head.size, head.etag), (100_000, etag.clone()));
    assert_same(
        &witness.get("dir/a b+c%41-é").expect("there"),
        &body,
        "the whole object",
    );
    let range = witness.get_range("dir/a b+c%41-é", 10, 20).expect("there");
    assert_eq!(range, &body[10..30]);

    assert_eq!(witness.put_if("dir/a b+c%41-é", b"x", If::Absent), Err(412));
    assert_eq!(
        witness.put_if("dir/a b+c%41-é", b"x", If::Matches("0")),
        Err(412)
    );
    assert!(
        witness
            .put_if("dir/a b+c%41-é", b"new", If::Matches(&etag))
            .is_ok()
    );

    witness.copy("dir/a b+c%41-é", "dir/zwei");
    assert_eq!(witness.get("dir/zwei").as_deref(), Some(&b"new"[..]));
    assert_eq!(witness.keys("dir/"), ["dir/a b+c%41-é", "dir/zwei"]);
    assert!(witness.uploads("dir/zwei").is_empty());
    witness.delete("dir/zwei");
    assert_eq!(witness.head("dir/zwei"), None);
    assert_eq!(witness.get("dir/zwei"), None);

    let meta = [
        ("x-amz-meta-file-mtime", "12"),
        ("content-type", "text/plain"),
    ];
    witness
        .put_with("meta", b"", &meta)
        .expect("the put is taken");
    let head = witness.head("meta").expect("the object is there");
    assert_eq!(head.metadata["file-mtime"], "12");
    assert_eq!(head.content_type.as_deref(), Some("text/plain"));
}

#[test]
fn a_witness_sees_what_it_wrote_in_minio() {
    let minio = Minio::start().expect("MinIO starts");
    let witness = minio.witness("harness");
    witness.create_bucket();
    a_witness_sees_what_it_wrote(&witness);
    for index in 0..1_100 {
        witness.put(&format!("many/{index:04}"), b"");
    }
    assert_eq!(witness.list("many/").len(), 1_100, "a listing of two pages");
}

#[test]
fn a_witness_sees_what_it_wrote_in_the_demo_store() {
    let demo = Demo::start("harness");
    a_witness_sees_what_it_wrote(&demo.witness("harness"));
}

#[test]
fn a_demo_store_counts_and_fails() {
    let demo = Demo::start("harness");
    let witness = demo.witness("harness");
    demo.fill("dir/", 1_100);
    demo.fill_one("one", 7, 100_000);
    let before = demo.requests();
    assert_eq!(witness.list("dir/").len(), 1_100);
    assert_same(
        &witness.get("one").expect("there"),
        &bytes(7, 100_000),
        "one",
    );
    let cost = demo.requests() - before;
    assert_eq!((cost.list, cost.get, cost.total()), (2, 1, 3));
    assert_eq!(cost.bytes_out, 100_000);
    let fault = demo.fault(
        On::Put,
        Some("x"),
        Effect::refuse(403, "AccessDenied"),
        Some(1),
    );
    assert_eq!(witness.put_with("x", b"", &[]), Err(403));
    demo.wait_fired(&fault, 1);
    assert!(witness.put_with("x", b"", &[]).is_ok());
}

#[test]
fn a_minio_that_was_killed_comes_back_with_its_data() {
    let mut minio = Minio::start().expect("MinIO starts");
    let witness = minio.witness("kept");
    witness.create_bucket();
    witness.put("key", b"value");
    minio.kill();
    assert!(!witness.store_answers());
    minio.restart().expect("MinIO starts again");
    assert_eq!(witness.get("key").as_deref(), Some(&b"value"[..]));
}
