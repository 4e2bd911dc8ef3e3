//! Directories that are large, and directories that change while they are read.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use ackfs_tests::content::bytes;
use ackfs_tests::{World, claims, process};

use super::eventually;

claims! {
    EVERY:
        a_listing_of_several_pages_is_whole,
        a_listing_goes_on_while_its_files_are_removed;
    DEMO:
        ls_of_ten_thousand_costs_no_heads,
        a_hundred_thousand_names_stream_in_bounded_memory,
        a_file_published_while_its_directory_is_listed_is_shown,
        a_fresh_listing_answers_look_ups;
}

fn a_listing_of_several_pages_is_whole(world: &World) {
    let mount = world.mount();
    let witness = world.witness();
    for index in 0..1_500 {
        witness.put(
            &format!("dir/{index:05}"),
            &bytes(index, index as usize % 7),
        );
    }
    for index in 0..600 {
        witness.put(&format!("dir/sub{index:05}/file"), b"");
    }
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(mount.path("dir")).expect("opendir") {
        let entry = entry.expect("readdir");
        let name = entry.file_name().into_string().expect("UTF-8");
        let stat = entry.metadata().expect("stat");
        if name.starts_with("sub") {
            assert!(stat.is_dir(), "{name}");
        } else {
            let index: u64 = name.parse().expect("a number");
            assert_eq!(stat.len(), index % 7, "{name}");
        }
        assert!(names.insert(name.clone()), "{name} comes twice");
    }
    assert_eq!(names.len(), 2_100);
}

/// What `rm -r` does. Every file that stays is shown, and none twice.
fn a_listing_goes_on_while_its_files_are_removed(world: &World) {
    let mount = world.mount();
    let total = 1_200;
    for index in 0..total {
        world.witness().put(&format!("dir/{index:05}"), b"");
    }
    let mut seen = BTreeSet::new();
    for entry in fs::read_dir(mount.path("dir")).expect("opendir") {
        let name = entry
            .expect("readdir")
            .file_name()
            .into_string()
            .expect("UTF-8");
        let index: u32 = name.parse().expect("a number");
        assert!(seen.insert(index), "{name} comes twice");
        if index.is_multiple_of(2) {
            fs::remove_file(mount.path("dir").join(&name)).expect("unlink");
        }
    }
    let missed: Vec<u32> = (0..total).filter(|index| !seen.contains(index)).collect();
    assert_eq!(missed, Vec::<u32>::new(), "every name is shown");
    assert_eq!(world.witness().list("dir/").len(), total as usize / 2);
    let mut rm = Command::new("rm");
    let output = rm
        .arg("-r")
        .arg(mount.path("dir"))
        .output()
        .expect("rm runs");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "rm -r of a directory that only its files make: {words}"
    );
    assert_eq!(world.witness().list("dir/").len(), 0);
}

fn ls_of_ten_thousand_costs_no_heads(world: &World) {
    world.demo().fill("dir/", 10_000);
    // An entry is as old as its page, and a machine may stand still between the two.
    let mount = world.mount_with(world.options().flags("--metadata-ttl 60s"));
    let before = world.demo().requests();
    let output = Command::new("ls")
        .arg("-l")
        .arg(mount.path("dir"))
        .output()
        .expect("ls runs");
    let cost = world.demo().requests() - before;
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(
        text.lines().count(),
        10_001,
        "a line each and one with the total"
    );
    // Ten full pages, and a little for looking the directory up.
    assert!(
        cost.list <= 14 && cost.head <= 4 && cost.get == 0,
        "{cost:?}"
    );
}

fn a_hundred_thousand_names_stream_in_bounded_memory(world: &World) {
    world.demo().fill("dir/", 100_000);
    let mount = world.mount_with(world.options().flags("--memory 64MiB"));
    process::reset_peak(mount.pid());
    let count = fs::read_dir(mount.path("dir"))
        .expect("opendir")
        .inspect(|entry| assert!(entry.is_ok(), "{entry:?}"))
        .count();
    assert_eq!(count, 100_000);
    let peak = mount.memory().peak_kib / 1024;
    assert!(peak <= 64 + 64, "--memory and 64 MiB, not {peak} MiB");
}

/// The store's listing was made before the file came to it, and when its turn to be shown comes it is
/// no local one any more.
fn a_file_published_while_its_directory_is_listed_is_shown(world: &World) {
    world.demo().fill("dir/", 2_500);
    for flags in ["", "--metadata-ttl 0s --negative-ttl 60s"] {
        let mount = world.mount_with(world.options().flags(flags));
        let path = mount.path("dir").join(format!("new {flags}"));
        let file = fs::File::create(&path).expect("create");
        fs::metadata(mount.path("dir")).expect("stat");
        let before = world.demo().requests().list;
        let mut entries = fs::read_dir(mount.path("dir")).expect("opendir");
        let first = entries.next().expect("a name").expect("readdir");
        eventually("the store has listed the last page", || {
            world.demo().requests().list >= before + 3
        });
        drop(file);
        let rest = entries.map(|entry| entry.expect("readdir").file_name());
        let shown = rest.filter(|name| Some(name.as_os_str()) == path.file_name());
        assert_eq!(shown.count(), 1, "{flags}: beside {first:?}");
        assert!(path.exists(), "{flags}: the listing does not answer for it");
    }
}

fn a_fresh_listing_answers_look_ups(world: &World) {
    world.demo().fill("dir/", 200);
    let mount = world.mount_with(
        world
            .options()
            .flags("--metadata-ttl 60s --negative-ttl 60s"),
    );
    let names: Vec<_> = fs::read_dir(mount.path("dir"))
        .expect("opendir")
        .map(|entry| entry.expect("readdir").path())
        .collect();
    let before = world.demo().requests();
    for path in &names {
        fs::metadata(path).expect("stat");
    }
    for index in 0..50 {
        assert!(!mount.path(format!("dir/none-{index}")).exists());
    }
    let cost = world.demo().requests() - before;
    assert!(cost.total() <= 2, "the listing knows them all: {cost:?}");
}
