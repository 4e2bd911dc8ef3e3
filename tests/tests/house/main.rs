//! The house as ARCHITECTURE.md draws it, held against the code: who may use whom, no circles, what is absent where, one
//! name for one type. What fails is told with its file, its line and the rule.
//!
//! The rules are ARCHITECTURE.md's own blocks (`document` has their form), so the map cannot say one thing and the code do
//! another. The code is read as text (`source`, `module`): `use` lines with all their braces, and paths in the code.
//! Code for tests is free, in `#[cfg(test)]` as in the package of the tests; but there too modules make no circle.
//! `samples` shows on small sources that each rule can fail.

mod circles;
mod document;
mod graph;
mod module;
mod rules;
mod samples;
mod source;

use std::path::{Path, PathBuf};

use document::Document;
use graph::{Crate, House, on_disk};

/// Types that may share their name with another, everywhere together.
const SHARED_TYPES_MAX: usize = 30;

/// While the house is being rebuilt, what is wrong is only told.
const ENFORCED: bool = true;

const CRATES: [Crate; 7] = [
    of("", "ackfs", "gateway/src/lib.rs"),
    of("main", "ackfs_main", "gateway/src/main.rs"),
    of("cache", "ackfs_cache", "cache/src/lib.rs"),
    of("demo", "ackfs_demo", "gateway/demo/src/lib.rs"),
    of("tests", "ackfs_tests", "tests/src/lib.rs"),
    of("tests-bench", "bench", "tests/src/bin/bench/main.rs"),
    of("tests-closes", "closes", "tests/src/bin/closes/main.rs"),
];

const fn of(room: &'static str, name: &'static str, root: &'static str) -> Crate {
    Crate { room, name, root }
}

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("tests is in the workspace")
        .to_owned()
}

fn house() -> (House, Document) {
    let house = House::new(&CRATES, on_disk(&root()));
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md"));
    let document = Document::new(&house, &text.expect("ARCHITECTURE.md is there"));
    (house, document)
}

fn hold(rule: &str, wrong: &[String]) {
    let text = format!("{rule}: {} wrong\n{}\n", wrong.len(), wrong.join("\n"));
    if !ENFORCED {
        println!("{text}");
        return;
    }
    assert!(wrong.is_empty(), "{text}");
}

#[test]
fn each_room_uses_only_what_its_arrow_allows() {
    let (house, document) = house();
    assert!(!document.arrows.is_empty(), "ARCHITECTURE.md has no arrows");
    hold(
        "rooms use what their arrows allow",
        &rules::arrows(&house, &document),
    );
}

#[test]
fn no_modules_use_each_other_in_a_circle() {
    let (house, _) = house();
    hold("modules make no circles", &circles::check(&house));
}

#[test]
fn what_is_said_to_be_absent_is_absent() {
    let (house, document) = house();
    assert!(
        !document.absences.is_empty(),
        "ARCHITECTURE.md says nothing of absence"
    );
    hold(
        "what is absent is absent",
        &rules::absences(&house, &document),
    );
}

#[test]
fn a_type_has_a_name_of_its_own() {
    let (house, _) = house();
    hold(
        "types have names of their own",
        &rules::names(&house, SHARED_TYPES_MAX),
    );
}
