//! The table without a store: names, references, keys, and what the kernel is asked to forget.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ackfs_cache::object::ETag;

use super::handles::FileHandle;
use super::inode::{Inode, ROOT};
use super::life::Life;
use super::references::Reference;
use super::state::shown::{Lineage, Shown};
use super::{InodeTable, NewInode};
use crate::fs::attr::{Defaults, FileAttr, Kind};

const DEFAULTS: Defaults = Defaults {
    uid: 0,
    gid: 0,
    file_mode: 0o644,
    dir_mode: 0o755,
};

/// A table, and what tests do to it.
struct World {
    table: Arc<InodeTable>,
    root: Arc<Inode>,
    begun: Instant,
}

impl World {
    fn new(prefix: &str) -> Self {
        let attr = FileAttr::directory(&DEFAULTS, SystemTime::UNIX_EPOCH);
        let begun = Instant::now();
        let table = InodeTable::new(prefix, attr, begun);
        let root = table.get(ROOT).unwrap();
        Self { table, root, begun }
    }

    fn shown(&self, kind: Kind, version: &str) -> Shown {
        let now = SystemTime::UNIX_EPOCH;
        match kind {
            Kind::Directory => {
                Shown::new(FileAttr::directory(&DEFAULTS, now), None, None, self.begun)
            }
            _ => {
                let etag = Some(ETag::new(version));
                Shown::new(FileAttr::file(&DEFAULTS, 1, now), etag, None, self.begun)
            }
        }
    }

    fn find(&self, dir: &Arc<Inode>, name: &str, shown: Shown) -> Reference {
        let new = NewInode {
            dir: dir.clone(),
            name: name.into(),
            shown,
            dirty: None,
        };
        self.table.find(new, false)
    }

    /// The inode of a look-up whose entry the kernel gets.
    fn look_up(&self, dir: &Arc<Inode>, name: &str, kind: Kind) -> Arc<Inode> {
        let reference = self.find(dir, name, self.shown(kind, "1"));
        let inode = reference.inode().clone();
        reference.entry(Duration::ZERO);
        inode
    }

    fn file(&self, name: &str) -> Arc<Inode> {
        self.look_up(&self.root, name, Kind::File)
    }

    fn files(&self, numbers: std::ops::Range<usize>) -> Vec<Arc<Inode>> {
        numbers
            .map(|number| self.file(&format!("f{number}")))
            .collect()
    }

    fn directory(&self, dir: &Arc<Inode>, name: &str) -> Arc<Inode> {
        self.look_up(dir, name, Kind::Directory)
    }

    fn is_here(&self, inode: &Inode) -> bool {
        self.table.get(inode.ino()).is_some()
    }
}

fn numbers(inodes: &[Arc<Inode>]) -> Vec<u64> {
    inodes.iter().map(|inode| inode.ino()).collect()
}

/// A look-up whose caller gave up had left its reference behind, and the inode stayed for ever.
#[test]
fn a_reference_that_reaches_no_reply_counts_no_more() {
    let world = World::new("");
    let dropped = world.find(&world.root, "a", world.shown(Kind::File, "1"));
    let inode = dropped.inode().clone();
    drop(dropped);
    assert!(!world.is_here(&inode));
    let offered = world.find(&world.root, "b", world.shown(Kind::File, "1"));
    let (entry, offered) = offered.offer(Duration::ZERO);
    drop(offered);
    assert!(world.table.get(entry.nodeid).is_none());
    let given = world.find(&world.root, "c", world.shown(Kind::File, "1"));
    let (entry, offered) = given.offer(Duration::ZERO);
    offered.give();
    assert!(world.table.get(entry.nodeid).is_some());
    world.table.forget(entry.nodeid, 1);
    assert!(world.table.get(entry.nodeid).is_none());
}

#[test]
fn an_inode_that_the_kernel_forgot_gives_no_reference() {
    let world = World::new("");
    let inode = world.file("a");
    assert!(world.table.refer(&inode).is_some());
    world.table.forget(inode.ino(), 1);
    assert!(world.table.refer(&inode).is_none());
    assert!(world.table.child(ROOT, "a").is_none());
}

#[test]
fn a_directory_is_kept_as_long_as_anything_in_it_is() {
    let world = World::new("p/");
    let dir = world.directory(&world.root, "d");
    let sub = world.directory(&dir, "s");
    let file = world.look_up(&sub, "f", Kind::File);
    assert_eq!(&*file.key(), "p/d/s/f");
    world.table.forget(dir.ino(), 1);
    world.table.forget(sub.ino(), 1);
    assert!(world.is_here(&dir) && world.is_here(&sub));
    let again = world.look_up(&world.root, "d", Kind::Directory);
    assert!(Arc::ptr_eq(&again, &dir));
    world.table.forget(file.ino(), 1);
    assert!(!world.is_here(&sub));
    assert!(world.is_here(&dir), "the kernel has it again");
    world.table.forget(dir.ino(), 1);
    assert_eq!(world.table.count(), 1);
}

#[test]
fn a_moved_directory_takes_all_keys_below_it_along() {
    let world = World::new("p/");
    let [from, to] = ["from", "to"].map(|name| world.directory(&world.root, name));
    let dir = world.directory(&from, "d");
    let sub = world.directory(&dir, "s");
    let file = world.look_up(&sub, "f", Kind::File);
    let open = world.look_up(&sub, "open", Kind::File);
    world.table.detach(&open);
    world.table.rename(&dir, &to, "e");
    assert_eq!(&*dir.key(), "p/to/e/");
    assert_eq!(&*file.key(), "p/to/e/s/f");
    assert_eq!(&*open.key(), "p/to/e/s/open");
    let id = file.state().object().unwrap();
    assert_eq!(id.key.as_str(), "p/to/e/s/f");
    assert!(world.table.child(from.ino(), "d").is_none());
    let child = world.table.child(to.ino(), "e").unwrap();
    assert!(Arc::ptr_eq(&child, &dir));
    // What it was in is not held by it any more, and what it is in is.
    world.table.forget(from.ino(), 1);
    world.table.forget(to.ino(), 1);
    assert!(!world.is_here(&from) && world.is_here(&to));
}

#[test]
fn a_file_that_is_renamed_over_another_takes_its_name() {
    let world = World::new("");
    let (source, target) = (world.file("a"), world.file("b"));
    world.table.rename(&source, &world.root, "b");
    assert_eq!(target.state().life(), Life::Detached);
    assert_eq!(&*source.key(), "b");
    assert!(world.table.child(ROOT, "a").is_none());
    let child = world.table.child(ROOT, "b").unwrap();
    assert!(Arc::ptr_eq(&child, &source));
}

#[test]
fn another_version_of_an_open_file_is_another_inode() {
    let world = World::new("");
    let inode = world.file("a");
    let moved = world.find(&world.root, "a", world.shown(Kind::File, "2"));
    assert!(Arc::ptr_eq(moved.inode(), &inode), "nobody has it open");
    inode.state().open_handle(false);
    let other = world.find(&world.root, "a", world.shown(Kind::File, "3"));
    assert!(!Arc::ptr_eq(other.inode(), &inode));
    assert_eq!(inode.state().life(), Life::Detached);
    assert_eq!(inode.state().shown().version(), Some(&ETag::new("2")));
}

#[test]
fn a_successor_is_the_same_file_and_lives_as_long_as_the_first() {
    let world = World::new("");
    let old = world.file("a");
    old.state().open_handle(false);
    world.table.succeed(&old);
    let new = world.table.child(ROOT, "a").unwrap();
    assert!(new.is_successor() && !Arc::ptr_eq(&new, &old));
    assert_eq!(new.shown_ino(), old.ino());
    assert_eq!(new.key(), old.key());
    drop(world.table.refer(&new));
    assert!(world.is_here(&new), "the first holds it");
    old.state().close_handle(false);
    world.table.forget(old.ino(), 1);
    assert_eq!(world.table.count(), 1);
}

fn shows(world: &World, inode: &Inode, version: &str, lineage: Lineage) {
    let shown = world.shown(Kind::File, version);
    inode.state().show(shown, lineage);
}

/// Opens the file by a handle that is not used yet, as `ops::open` does.
fn open(inode: &Arc<Inode>) -> (bool, FileHandle) {
    let state = inode.state();
    let keeps = state.keeps_pages();
    let fresh = state.shown().version().cloned().filter(|_| !keeps);
    (keeps, FileHandle::new(inode.clone(), false, false, fresh))
}

#[test]
fn pages_are_kept_for_the_same_bytes_alone() {
    let world = World::new("");
    let inode = world.file("a");
    let opens = || {
        let (keeps, handle) = open(&inode);
        handle.used(&mut inode.state());
        keeps
    };
    assert!(!opens());
    assert!(opens());
    shows(&world, &inode, "2", Lineage::OtherBytes);
    assert!(!opens());
    shows(&world, &inode, "3", Lineage::SameBytes);
    assert!(opens());
    shows(&world, &inode, "4", Lineage::OtherBytes);
    shows(&world, &inode, "5", Lineage::SameBytes);
    assert!(!opens(), "the pages are those of 3");
}

/// Of two answers to OPEN the later one may get to the kernel first. It said that the pages are those of the
/// new version, whose old ones the other answer was to drop: a reader saw bytes of two versions.
#[test]
fn pages_are_kept_only_after_the_kernel_has_dropped_the_old_ones() {
    let world = World::new("");
    let inode = world.file("a");
    let (_, first) = open(&inode);
    let (keeps, second) = open(&inode);
    assert!(!keeps, "nobody knows that the first answer was taken");
    shows(&world, &inode, "2", Lineage::OtherBytes);
    first.used(&mut inode.state());
    assert!(!open(&inode).0, "it dropped the pages for another version");
    second.used(&mut inode.state());
    let (_, third) = open(&inode);
    third.used(&mut inode.state());
    assert!(open(&inode).0);
}

/// What a HEAD showed meanwhile the kernel does not go by.
#[test]
fn what_is_told_advances_with_the_reply_alone() {
    let world = World::new("");
    let inode = world.file("a");
    let told = inode.state().access_told();
    let mut attr = inode.state().shown().attr();
    attr.mode ^= 0o077;
    inode.state().set_attr(attr, false);
    assert_eq!(inode.state().access_told(), told);
    inode.state().tell_attr();
    assert_eq!(inode.state().access_told(), attr.access());
}

#[test]
fn an_emptied_directory_is_shown_until_it_loses_its_name() {
    let world = World::new("");
    let dir = world.directory(&world.root, "d");
    world.table.empty(&dir, world.begun);
    assert_eq!(world.table.local_names(ROOT), ["d".into()]);
    assert!(dir.state().is_local());
    world.table.remove(&dir);
    assert_eq!(world.table.local_names(ROOT), [] as [Arc<str>; 0]);
    assert!(!dir.state().is_local() && dir.state().life().is_gone());
}

#[test]
fn the_oldest_go_and_what_is_in_use_stays() {
    let world = World::new("");
    let files = world.files(0..200);
    assert_eq!(world.table.superfluous(201), [0; 0], "the root is one more");
    // Wanted again, open, being changed, with a failure to tell.
    world.file("f0");
    files[1].state().open_handle(false);
    files[2].state().join_writers();
    files[3].state().publish_failed("no room".to_owned(), None);
    world.files(200..264);
    let asked = world.table.superfluous(160);
    assert_eq!(asked, numbers(&files[4..4 + 265 - 160 + 10]));
    assert_eq!(world.table.superfluous(160), [0; 0], "not again at once");
}

#[test]
fn who_is_not_forgotten_is_asked_for_again_in_its_turn() {
    let world = World::new("");
    let files = world.files(0..100);
    assert_eq!(world.table.superfluous(64).len(), 41);
    for ino in numbers(&files[..40]) {
        world.table.forget(ino, 1);
    }
    let more = world.files(100..164);
    let asked = world.table.superfluous(64);
    let expected = [&files[41..], &files[40..=40], &more[..5]].concat();
    assert_eq!(expected.len(), 125 - 64 + 4);
    assert_eq!(asked, numbers(&expected));
}

#[test]
fn directories_go_only_when_there_are_far_too_many() {
    let world = World::new("");
    for number in 0..200 {
        world.directory(&world.root, &format!("d{number}"));
    }
    assert_eq!(world.table.superfluous(150), [0; 0]);
    for number in 200..400 {
        world.directory(&world.root, &format!("d{number}"));
    }
    let asked = world.table.superfluous(150);
    assert_eq!(asked.len(), 401 - 150 + 9);
    assert!(!asked.contains(&ROOT));
}

#[test]
fn the_line_does_not_grow_with_what_comes_and_goes() {
    let world = World::new("");
    for number in 0..30_000 {
        let file = world.file(&format!("f{number}"));
        world.table.forget(file.ino(), 1);
        world.table.superfluous(1000);
    }
    let len = world.table.records.lock().line.len();
    assert!(len <= 2 * super::forgetting::LOOKED_AT_MAX, "{len}");
}
