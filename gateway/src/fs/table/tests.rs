//! The table without a store: names, references, keys, and what the kernel is asked to forget.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ackfs_cache::object::ETag;

use super::handles::FileHandle;
use super::inode::state::shown::{Lineage, Shown};
use super::inode::{Inode, ROOT};
use super::life::Life;
use super::references::Reference;
use super::{InodeTable, NewInode};
use crate::fs::attr::{Defaults, FileAttr, Kind};

const DEFAULTS: Defaults = Defaults {
    uid: 0,
    gid: 0,
    file_mode: 0o644,
    dir_mode: 0o755,
};

/// A table, and what tests do to it.
struct Fixture {
    table: Arc<InodeTable>,
    root: Arc<Inode>,
    begun: Instant,
}

impl Fixture {
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
    let fixture = Fixture::new("");
    let dropped = fixture.find(&fixture.root, "a", fixture.shown(Kind::File, "1"));
    let inode = dropped.inode().clone();
    drop(dropped);
    assert!(!fixture.is_here(&inode));
    let offered = fixture.find(&fixture.root, "b", fixture.shown(Kind::File, "1"));
    let (entry, offered) = offered.offer(Duration::ZERO);
    drop(offered);
    assert!(fixture.table.get(entry.nodeid).is_none());
    let given = fixture.find(&fixture.root, "c", fixture.shown(Kind::File, "1"));
    let (entry, offered) = given.offer(Duration::ZERO);
    offered.give();
    assert!(fixture.table.get(entry.nodeid).is_some());
    fixture.table.forget(entry.nodeid, 1);
    assert!(fixture.table.get(entry.nodeid).is_none());
}

#[test]
fn an_inode_that_the_kernel_forgot_gives_no_reference() {
    let fixture = Fixture::new("");
    let inode = fixture.file("a");
    assert!(fixture.table.refer(&inode).is_some());
    fixture.table.forget(inode.ino(), 1);
    assert!(fixture.table.refer(&inode).is_none());
    assert!(fixture.table.child(ROOT, "a").is_none());
}

#[test]
fn a_directory_is_kept_as_long_as_anything_in_it_is() {
    let fixture = Fixture::new("p/");
    let dir = fixture.directory(&fixture.root, "d");
    let sub = fixture.directory(&dir, "s");
    let file = fixture.look_up(&sub, "f", Kind::File);
    assert_eq!(&*file.key(), "p/d/s/f");
    fixture.table.forget(dir.ino(), 1);
    fixture.table.forget(sub.ino(), 1);
    assert!(fixture.is_here(&dir) && fixture.is_here(&sub));
    let again = fixture.look_up(&fixture.root, "d", Kind::Directory);
    assert!(Arc::ptr_eq(&again, &dir));
    fixture.table.forget(file.ino(), 1);
    assert!(!fixture.is_here(&sub));
    assert!(fixture.is_here(&dir), "the kernel has it again");
    fixture.table.forget(dir.ino(), 1);
    assert_eq!(fixture.table.count(), 1);
}

#[test]
fn a_moved_directory_takes_all_keys_below_it_along() {
    let fixture = Fixture::new("p/");
    let [from, to] = ["from", "to"].map(|name| fixture.directory(&fixture.root, name));
    let dir = fixture.directory(&from, "d");
    let sub = fixture.directory(&dir, "s");
    let file = fixture.look_up(&sub, "f", Kind::File);
    let open = fixture.look_up(&sub, "open", Kind::File);
    fixture.table.detach(&open);
    fixture.table.rename(&dir, &to, "e");
    assert_eq!(&*dir.key(), "p/to/e/");
    assert_eq!(&*file.key(), "p/to/e/s/f");
    assert_eq!(&*open.key(), "p/to/e/s/open");
    let id = file.state().object().unwrap();
    assert_eq!(id.key.as_str(), "p/to/e/s/f");
    assert!(fixture.table.child(from.ino(), "d").is_none());
    let child = fixture.table.child(to.ino(), "e").unwrap();
    assert!(Arc::ptr_eq(&child, &dir));
    // What it was in is not held by it any more, and what it is in is.
    fixture.table.forget(from.ino(), 1);
    fixture.table.forget(to.ino(), 1);
    assert!(!fixture.is_here(&from) && fixture.is_here(&to));
}

#[test]
fn a_file_that_is_renamed_over_another_takes_its_name() {
    let fixture = Fixture::new("");
    let (source, target) = (fixture.file("a"), fixture.file("b"));
    fixture.table.rename(&source, &fixture.root, "b");
    assert_eq!(target.state().life(), Life::Detached);
    assert_eq!(&*source.key(), "b");
    assert!(fixture.table.child(ROOT, "a").is_none());
    let child = fixture.table.child(ROOT, "b").unwrap();
    assert!(Arc::ptr_eq(&child, &source));
}

#[test]
fn another_version_of_an_open_file_is_another_inode() {
    let fixture = Fixture::new("");
    let inode = fixture.file("a");
    let moved = fixture.find(&fixture.root, "a", fixture.shown(Kind::File, "2"));
    assert!(Arc::ptr_eq(moved.inode(), &inode), "nobody has it open");
    inode.state().open_handle(false);
    let other = fixture.find(&fixture.root, "a", fixture.shown(Kind::File, "3"));
    assert!(!Arc::ptr_eq(other.inode(), &inode));
    assert_eq!(inode.state().life(), Life::Detached);
    assert_eq!(inode.state().shown().version(), Some(&ETag::new("2")));
}

#[test]
fn a_successor_is_the_same_file_and_lives_as_long_as_the_first() {
    let fixture = Fixture::new("");
    let old = fixture.file("a");
    old.state().open_handle(false);
    fixture.table.succeed(&old);
    let new = fixture.table.child(ROOT, "a").unwrap();
    assert!(new.is_successor() && !Arc::ptr_eq(&new, &old));
    assert_eq!(new.shown_ino(), old.ino());
    assert_eq!(new.key(), old.key());
    drop(fixture.table.refer(&new));
    assert!(fixture.is_here(&new), "the first holds it");
    old.state().close_handle(false);
    fixture.table.forget(old.ino(), 1);
    assert_eq!(fixture.table.count(), 1);
}

fn shows(fixture: &Fixture, inode: &Inode, version: &str, lineage: Lineage) {
    let shown = fixture.shown(Kind::File, version);
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
    let fixture = Fixture::new("");
    let inode = fixture.file("a");
    let opens = || {
        let (keeps, handle) = open(&inode);
        handle.used(&mut inode.state());
        keeps
    };
    assert!(!opens());
    assert!(opens());
    shows(&fixture, &inode, "2", Lineage::OtherBytes);
    assert!(!opens());
    shows(&fixture, &inode, "3", Lineage::SameBytes);
    assert!(opens());
    shows(&fixture, &inode, "4", Lineage::OtherBytes);
    shows(&fixture, &inode, "5", Lineage::SameBytes);
    assert!(!opens(), "the pages are those of 3");
}

/// Of two answers to OPEN the later one may get to the kernel first. It said that the pages are those of the
/// new version, whose old ones the other answer was to drop: a reader saw bytes of two versions.
#[test]
fn pages_are_kept_only_after_the_kernel_has_dropped_the_old_ones() {
    let fixture = Fixture::new("");
    let inode = fixture.file("a");
    let (_, first) = open(&inode);
    let (keeps, second) = open(&inode);
    assert!(!keeps, "nobody knows that the first answer was taken");
    shows(&fixture, &inode, "2", Lineage::OtherBytes);
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
    let fixture = Fixture::new("");
    let inode = fixture.file("a");
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
    let fixture = Fixture::new("");
    let dir = fixture.directory(&fixture.root, "d");
    fixture.table.empty(&dir, fixture.begun);
    assert_eq!(fixture.table.local_names(ROOT), ["d".into()]);
    assert!(dir.state().is_local());
    fixture.table.remove(&dir);
    assert_eq!(fixture.table.local_names(ROOT), [] as [Arc<str>; 0]);
    assert!(!dir.state().is_local() && dir.state().life().is_gone());
}

#[test]
fn the_oldest_go_and_what_is_in_use_stays() {
    let fixture = Fixture::new("");
    let files = fixture.files(0..200);
    assert_eq!(
        fixture.table.superfluous(201),
        [0; 0],
        "the root is one more"
    );
    // Wanted again, open, being changed, with a failure to tell.
    fixture.file("f0");
    files[1].state().open_handle(false);
    files[2].state().join_writers();
    files[3].state().publish_failed("no room".to_owned(), None);
    fixture.files(200..264);
    let asked = fixture.table.superfluous(160);
    assert_eq!(asked, numbers(&files[4..4 + 265 - 160 + 10]));
    assert_eq!(fixture.table.superfluous(160), [0; 0], "not again at once");
}

#[test]
fn who_is_not_forgotten_is_asked_for_again_in_its_turn() {
    let fixture = Fixture::new("");
    let files = fixture.files(0..100);
    assert_eq!(fixture.table.superfluous(64).len(), 41);
    for ino in numbers(&files[..40]) {
        fixture.table.forget(ino, 1);
    }
    let more = fixture.files(100..164);
    let asked = fixture.table.superfluous(64);
    let expected = [&files[41..], &files[40..=40], &more[..5]].concat();
    assert_eq!(expected.len(), 125 - 64 + 4);
    assert_eq!(asked, numbers(&expected));
}

#[test]
fn directories_go_only_when_there_are_far_too_many() {
    let fixture = Fixture::new("");
    for number in 0..200 {
        fixture.directory(&fixture.root, &format!("d{number}"));
    }
    assert_eq!(fixture.table.superfluous(150), [0; 0]);
    for number in 200..400 {
        fixture.directory(&fixture.root, &format!("d{number}"));
    }
    let asked = fixture.table.superfluous(150);
    assert_eq!(asked.len(), 401 - 150 + 9);
    assert!(!asked.contains(&ROOT));
}

#[test]
fn the_line_does_not_grow_with_what_comes_and_goes() {
    let fixture = Fixture::new("");
    for number in 0..30_000 {
        let file = fixture.file(&format!("f{number}"));
        fixture.table.forget(file.ino(), 1);
        fixture.table.superfluous(1000);
    }
    let len = fixture.table.records.lock().line.len();
    assert!(len <= 2 * super::forgetting::LOOKED_AT_MAX, "{len}");
}
