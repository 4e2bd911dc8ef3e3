//! Small houses on which each rule holds, and on which each fails.

use std::io;

use crate::document::Document;
use crate::graph::{Crate, House};
use crate::{circles, rules};

const CRATES: [Crate; 2] = [
    Crate {
        room: "",
        name: "ackfs",
        root: "lib.rs",
    },
    Crate {
        room: "cache",
        name: "ackfs_cache",
        root: "cache/lib.rs",
    },
];

/// A house of these files; a crate's root that is not among them is empty.
fn house(files: &[(&str, &str)]) -> House {
    let files: Vec<_> = files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
        .collect();
    House::new(&CRATES, move |path| {
        let found = files.iter().find(|(it, _)| it == path);
        let text = found.map(|(_, text)| text.clone());
        text.or_else(|| path.ends_with("lib.rs").then(String::new))
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    })
}

fn arrows(files: &[(&str, &str)], lines: &str) -> Vec<String> {
    let house = house(files);
    rules::arrows(
        &house,
        &Document::new(&house, &format!("# x\n```arrows\n{lines}\n```\n")),
    )
}

fn absent(files: &[(&str, &str)], lines: &str) -> Vec<String> {
    let house = house(files);
    rules::absences(
        &house,
        &Document::new(&house, &format!("```absent\n{lines}\n```\n")),
    )
}

fn circle(files: &[(&str, &str)]) -> Vec<String> {
    circles::check(&house(files))
}

const ROOMS: [(&str, &str); 5] = [
    ("lib.rs", "pub mod fs;\npub mod fuse;\npub mod s3;"),
    ("fuse.rs", "pub struct Request;"),
    ("s3.rs", "pub fn ask() {}"),
    ("cache/lib.rs", "pub mod store;"),
    ("cache/store.rs", "pub struct Key;"),
];

fn with_fs(text: &'static str) -> Vec<(&'static str, &'static str)> {
    [&ROOMS[..], &[("fs.rs", text)]].concat()
}

#[test]
fn what_an_arrow_allows_is_used_in_any_form() {
    let files = with_fs(
        "use std::fs;\nuse crate::fuse::{self, Request as Asked};\nuse ackfs_cache::store::{Key};\n\
         pub(in crate::s3) fn f(_: crate::fuse::Request) { use super::fuse; }\n",
    );
    assert_eq!(arrows(&files, "fs -> fuse, cache"), [""; 0]);
}

#[test]
fn a_use_without_an_arrow_is_told_with_its_file_its_line_and_the_rule() {
    for text in [
        "\nuse crate::s3::ask;",
        "\nuse crate::{fuse::Request, s3::{self}};",
        "\npub use super::s3::ask;",
        "\nfn f() { crate::s3::ask() }",
        "\nfn f() { super::s3::ask::<u8>() }",
        "\nfn f() { use super::s3; }",
        "\nmod inner { fn f() { super::super::s3::ask() } }",
        "\n#[cfg(not(test))] use crate::s3;",
        "\nmacro_rules! m { () => { $crate::s3::ask() } }",
    ] {
        let wrong = arrows(&with_fs(text), "fs -> fuse");
        assert_eq!(wrong.len(), 1, "{text}: {wrong:?}");
        assert!(wrong[0].starts_with("fs.rs:2: "), "{wrong:?}");
        assert!(
            wrong[0].ends_with(": fs does not use s3 (ARCHITECTURE.md:3)"),
            "{wrong:?}"
        );
    }
    let wrong = arrows(&with_fs("use ackfs_cache::store::Key;"), "fs -> fuse");
    assert!(
        wrong[0].contains("fs does not use cache/store"),
        "{wrong:?}"
    );
    let wrong = arrows(&with_fs("use crate::s3;"), "fuse ->");
    assert!(wrong[0].contains("no arrow says"), "{wrong:?}");
}

#[test]
fn code_for_tests_is_free() {
    for text in [
        "#[cfg(test)]\nmod tests { use crate::s3::ask; }",
        "#[cfg(test)]\nuse crate::s3::{ask};\npub struct A;",
        "#[cfg(test)] #[allow(dead_code)]\npub(crate) fn f() -> Vec<[u8; 2]> { crate::s3::ask() }",
        "struct A { #[cfg(test)] ask: crate::s3::Ask, b: u8 }",
        "#[cfg(test)]\nmod not_there;",
        "// crate::s3::ask\nconst A: &str = \"crate::s3::ask\"; /* use crate::s3; */",
    ] {
        assert_eq!(arrows(&with_fs(text), "fs -> fuse"), [""; 0], "{text}");
    }
}

#[test]
fn the_smallest_room_s_line_holds() {
    let mut files = with_fs("mod ops;\nmod table;\npub struct Face;");
    files.push(("fs/ops.rs", "use super::Face;\nuse super::table::Row;"));
    files.push(("fs/table.rs", "pub struct Row;\nuse crate::fuse::Request;"));
    let all = "fs -> fuse\nfs/ops -> fs.rs,\n  fs/table\nfs/table -> fuse # a remark";
    assert_eq!(arrows(&files, all), [""; 0]);
    let wrong = arrows(&files, "fs -> fuse\nfs/ops -> fs.rs\nfs/table ->");
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert!(
        wrong[0].contains("fs/ops does not use fs/table"),
        "{wrong:?}"
    );
    assert!(wrong[1].contains("fs/table does not use fuse"), "{wrong:?}");
    let wrong = arrows(&files, "fs ->\nfs/ops -> fs\nfs/table -> fuse");
    assert!(
        wrong[0].contains("fs/table may use fuse, and fs, which"),
        "{wrong:?}"
    );
}

#[test]
fn a_name_that_is_handed_on_is_used_where_it_is_defined() {
    let mut files = with_fs("pub use table::Row;\nmod ops;\nmod table;");
    files.push(("fs/ops.rs", "use super::Row;\nuse crate::fs::Row as R;"));
    files.push(("fs/table.rs", "pub struct Row;"));
    let wrong = arrows(&files, "fs -> fuse\nfs/ops -> fs.rs");
    assert_eq!(wrong.len(), 1, "told once for a file: {wrong:?}");
    assert!(
        wrong[0].contains("fs/ops does not use fs/table"),
        "{wrong:?}"
    );
}

#[test]
fn a_line_that_names_no_room_is_a_mistake() {
    let wrong = arrows(&with_fs(""), "fs -> fuse, gone\nno arrow\nfs/ops -> fuse");
    assert_eq!(wrong.len(), 3, "{wrong:?}");
    assert!(
        wrong[0].starts_with("ARCHITECTURE.md:3: \"gone\""),
        "{wrong:?}"
    );
}

#[test]
fn siblings_make_no_circle() {
    let root = ("lib.rs", "mod a;\nmod b;\nmod c;");
    let line = [
        root,
        ("a.rs", "use crate::b::B;"),
        ("b.rs", "use crate::c::C;\npub struct B;"),
        ("c.rs", "pub struct C;"),
    ];
    assert_eq!(circle(&line), [""; 0]);
    let mut ring = line;
    ring[3].1 = "pub struct C;\nfn f() { super::a::f() }";
    let wrong = circle(&ring);
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    for step in [
        "a -> b   a.rs:1: crate::b::B",
        "b -> c   b.rs:1",
        "c -> a   c.rs:2: super::a::f",
    ] {
        assert!(wrong[0].contains(step), "{wrong:?}");
    }
}

#[test]
fn a_circle_through_what_is_below_counts() {
    let wrong = circle(&[
        ("lib.rs", "mod a;\nmod b;"),
        ("a.rs", "mod deep;"),
        ("a/deep.rs", "use crate::b::B;"),
        ("b.rs", "mod deep;\npub struct B;"),
        ("b/deep.rs", "use crate::a;"),
    ]);
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(wrong[0].contains("a -> b   a/deep.rs:1"), "{wrong:?}");
}

#[test]
fn a_circle_below_a_room_is_found_at_its_level() {
    let wrong = circle(&[
        ("lib.rs", "mod a;"),
        ("a.rs", "mod one;\nmod two;"),
        ("a/one.rs", "use super::two::Two;\npub struct One;"),
        ("a/two.rs", "use super::one::One;\npub struct Two;"),
    ]);
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(wrong[0].starts_with("a circle in a:"), "{wrong:?}");
}

#[test]
fn a_parent_s_types_are_for_its_children_and_its_functions_are_not() {
    let of = |parent, child| circle(&[("lib.rs", "mod a;"), ("a.rs", parent), ("a/b.rs", child)]);
    let parent = "mod b;\nuse b::B;\npub enum E { One }\nconst N: u8 = 1;\nfn f() {}";
    let types = "use super::{E, N};\npub struct B;\nfn f() { super::E::One; }";
    assert_eq!(of(parent, types), [""; 0]);
    let wrong = of(parent, "pub struct B;\nfn g() { super::f() }");
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(
        wrong[0].contains("b -> a.rs itself   a/b.rs:2: super::f"),
        "{wrong:?}"
    );
    // A parent that only declares and hands on is a common floor.
    let floor = "pub use b::B;\nmod b;\nfn f() {}";
    assert_eq!(of(floor, "pub struct B;\nfn g() { super::f() }"), [""; 0]);
    // One that hands on a name and uses it does use the child.
    let both = "pub use b::B;\nmod b;\nfn f() -> B { B }";
    assert_eq!(of(both, "pub struct B;\nfn g() { super::f() }").len(), 1);
}

#[test]
fn a_sibling_that_is_reached_by_the_parent_s_use_is_reached() {
    let wrong = circle(&[
        ("lib.rs", "mod a;\nmod b;\nuse a::A;\nuse b::B;"),
        ("a.rs", "use super::B;\npub struct A;"),
        ("b.rs", "use super::A;\npub struct B;"),
    ]);
    assert_eq!(wrong.len(), 1, "{wrong:?}");
}

#[test]
fn what_is_absent_is_found_where_it_is() {
    let text = "fn f() -> i32 { libc::ENOENT }\nfn g() { unsafe { h() } }\nuse std::env;\nfn v() { env::var_os(\"A\") }";
    let found = |lines| absent(&with_fs(text), lines);
    assert_eq!(found("libc::E* in s3, cache"), [""; 0]);
    assert_eq!(found("libc::E* in fs but fs.rs"), [""; 0]);
    assert_eq!(
        found("libc::E* in fs"),
        ["fs.rs:1: libc::E* is absent here (ARCHITECTURE.md:2)"]
    );
    assert_eq!(found("Errno, unsafe in everything but fuse").len(), 1);
    assert_eq!(
        found("env::var*, env::args* in everything but fuse").len(),
        1
    );
}

#[test]
fn a_name_for_two_types_is_counted_and_told_where_both_are_in_sight() {
    let sight = house(&[
        ("lib.rs", "mod a;\nmod b;"),
        (
            "a.rs",
            "struct State;\n#[cfg(test)] mod tests { struct State; }",
        ),
        ("b.rs", "enum State {}"),
    ]);
    let wrong = rules::names(&sight, 3);
    assert_eq!(wrong, ["a.rs:1: State is another type in sight, at b.rs:1"]);
    assert_eq!(rules::names(&sight, 2).len(), 3);
    let apart = house(&[
        ("lib.rs", "mod a;\nmod b;"),
        ("a.rs", "mod c;"),
        ("a/c.rs", "pub(crate) struct State;"),
        ("b.rs", "type State = u8;"),
    ]);
    assert_eq!(rules::names(&apart, 3), [""; 0]);
    assert_eq!(rules::names(&apart, 2).len(), 2);
}
