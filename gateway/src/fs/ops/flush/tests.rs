//! Both modes, with a kernel that a test plays and a store in memory that counts: which FLUSH and
//! which RELEASE sends what, and when it is answered.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ackfs_cache::budget::Budget;
use ackfs_cache::dirty::{OnConflict, WriteConfig, Writer};
use ackfs_cache::read::{ReadCache, ReadConfig};
use ackfs_cache::store::StoreErrorKind;
use ackfs_cache::store::memory::{Call, Fault, MemoryStore};
use libc::{EACCES, EIO, ESTALE, ETIMEDOUT, O_CREAT, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY};

use super::*;
use crate::fs::attr::FileAttr;
use crate::fs::table::inode::ROOT;
use crate::fs::{FsConfig, FsStats};
use crate::fuse::Op;
use crate::fuse::fake::FakeKernel;
use crate::fuse::request::SetAttr;

const PART: u64 = 5 << 20;

/// A filesystem between a kernel and a store that are both played.
struct World {
    kernel: FakeKernel,
    store: Arc<MemoryStore>,
    filesystem: Arc<Filesystem>,
    runtime: tokio::runtime::Runtime,
}

impl World {
    fn new(mode: CloseMode) -> Self {
        Self::with_ttl(mode, Duration::ZERO)
    }

    fn with_ttl(mode: CloseMode, metadata_ttl: Duration) -> Self {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let store = MemoryStore::new();
        let budget = Budget::new(128 << 20);
        let read = ReadConfig {
            clean_max: 1 << 20,
            fills: budget.share(64 << 20),
            readahead_max: 1 << 20,
        };
        let reader = ReadCache::new(read, store.clone(), None, handle.clone());
        let write = WriteConfig {
            memory: budget.share(64 << 20),
            part_size: PART,
            parts_in_flight_max: 2,
            staging: None,
            on_conflict: OnConflict::Fail,
        };
        let writer = Writer::new(write, store.clone(), reader.clone(), handle.clone());
        let config = FsConfig {
            prefix: String::new(),
            uid: 0,
            gid: 0,
            file_mode: 0o644,
            dir_mode: 0o755,
            metadata_ttl,
            negative_ttl: Duration::ZERO,
            read_only: false,
            names_max: 10_000,
        };
        let filesystem = Filesystem::new(config, store.clone(), reader, writer, handle);
        filesystem.set_close_mode(mode);
        Self {
            kernel: FakeKernel::new(filesystem.clone()),
            store,
            filesystem,
            runtime,
        }
    }

    fn create(&self, name: &str) -> Open<'_> {
        self.create_with(name, O_WRONLY)
    }

    fn create_with(&self, name: &str, flags: i32) -> Open<'_> {
        let (ino, out) = self.kernel.create(ROOT, name, flags);
        Open::new(self, ino, out)
    }

    /// truncate(2), or ftruncate(2) through `fh`; what it gives.
    fn truncate(&self, ino: u64, fh: Option<u64>, size: u64) -> i32 {
        let set = SetAttr {
            fh,
            size: Some(size),
            ..SetAttr::default()
        };
        self.kernel.ask(ino, Op::Setattr { set }).errno
    }

    /// chmod(2); what it gives.
    fn chmod(&self, ino: u64, mode: u32) -> i32 {
        let set = SetAttr {
            mode: Some(mode),
            ..SetAttr::default()
        };
        self.kernel.ask(ino, Op::Setattr { set }).errno
    }

    /// The mode that the object's metadata give.
    fn mode(&self, key: &str) -> u32 {
        let metadata = self.store.metadata(key).unwrap();
        let attr = FileAttr::file(&self.filesystem.defaults, 0, SystemTime::now());
        attr.with_metadata(&metadata).mode
    }

    fn open(&self, ino: u64, flags: i32) -> Open<'_> {
        Open::new(self, ino, self.kernel.open(ino, flags).unwrap())
    }

    /// How many requests of a kind came since the last look.
    fn count(&self, call: Call) -> usize {
        let calls = self.store.calls();
        calls.iter().filter(|(kind, _)| *kind == call).count()
    }

    /// The number of requests that changed the store since the last look.
    fn changes(&self) -> usize {
        let calls = self.store.calls();
        let asks = [Call::Head, Call::List, Call::Get];
        calls
            .iter()
            .filter(|(call, _)| !asks.contains(call))
            .count()
    }

    fn stats(&self) -> FsStats {
        self.filesystem.stats()
    }

    /// Waits until a request of a kind has come, without taking note of it from the record.
    fn wait_for(&self, call: Call) {
        while self.store.count_called(call) == 0 {
            std::thread::yield_now();
        }
    }

    /// Waits for what RELEASEs have begun, which a drain does before it publishes what is left.
    fn drain_releases(&self) {
        self.filesystem.releases.close();
        self.runtime.block_on(self.filesystem.releases.wait());
    }

    fn drain(&self) {
        self.runtime.block_on(self.filesystem.drain());
    }
}

/// An open file, as the kernel knows it.
struct Open<'a> {
    world: &'a World,
    ino: u64,
    fh: u64,
    sync_release: bool,
}

impl<'a> Open<'a> {
    fn new(world: &'a World, ino: u64, out: crate::fuse::abi::OpenOut) -> Self {
        Self {
            world,
            ino,
            fh: out.fh,
            sync_release: out.open_flags & FOPEN_SYNC_RELEASE != 0,
        }
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        let kernel = &self.world.kernel;
        kernel.write(self.ino, self.fh, offset, bytes, false);
    }

    /// As the kernel writes back what a mapping dirtied.
    fn write_mapped(&self, offset: u64, bytes: &[u8]) {
        let kernel = &self.world.kernel;
        kernel.write(self.ino, self.fh, offset, bytes, true);
    }

    fn flush_op(&self, last: bool) -> Op {
        Op::Flush {
            fh: self.fh,
            lock_owner: 7,
            last,
        }
    }

    /// One close(2); what it gives.
    fn flush(&self, last: bool) -> i32 {
        self.world.kernel.ask(self.ino, self.flush_op(last)).errno
    }

    fn fsync(&self) -> i32 {
        let op = Op::Fsync {
            fh: self.fh,
            datasync: false,
        };
        self.world.kernel.ask(self.ino, op).errno
    }

    /// Sends RELEASE; its number.
    fn send_release(&self) -> u64 {
        let op = Op::Release {
            fh: self.fh,
            flags: 0,
            flush: false,
            lock_owner: 0,
        };
        self.world.kernel.send(self.ino, op, &[])
    }

    fn release(&self) {
        let unique = self.send_release();
        assert_eq!(self.world.kernel.answer(unique).errno, 0);
    }
}

#[test]
fn only_handles_that_publish_have_their_release_waited_for() {
    let world = World::new(CloseMode::Release);
    world.store.plant("old", "1");
    assert!(world.create("new").sync_release);
    let old = world.kernel.lookup(ROOT, "old");
    assert!(!world.open(old, O_RDONLY).sync_release);
    for flags in [O_WRONLY, O_RDWR, O_WRONLY | O_TRUNC, O_RDONLY | O_TRUNC] {
        assert!(world.open(old, flags).sync_release);
    }
    assert!(world.create_with("made", O_RDONLY | O_CREAT).sync_release);
    let world = World::new(CloseMode::Flush);
    assert!(!world.create("new").sync_release);
}

#[test]
fn on_a_stock_kernel_each_close_publishes_what_is_dirty() {
    let world = World::new(CloseMode::Flush);
    let file = world.create("a");
    file.write(0, b"one");
    assert_eq!(file.flush(false), 0);
    assert_eq!(world.store.bytes("a").unwrap(), "one");
    assert_eq!(world.changes(), 1);
    assert_eq!(file.flush(false), 0);
    assert_eq!(world.changes(), 0, "nothing is dirty");
    file.write(3, b" two");
    assert_eq!(file.flush(false), 0);
    file.release();
    assert_eq!(world.store.bytes("a").unwrap(), "one two");
    assert_eq!(world.changes(), 1);
    assert_eq!(world.stats().release_publishes, 0);
}

/// dup, fork, and a shell's `(a; b) > f`: FLUSH for each, of which one is the last.
#[test]
fn closes_that_are_not_the_last_put_nothing_and_the_last_puts_once() {
    let world = World::new(CloseMode::Release);
    let file = world.create("a");
    for round in 0..5 {
        file.write(round, b"x");
        assert_eq!(file.flush(false), 0);
    }
    assert_eq!(world.changes(), 0);
    assert_eq!(world.store.bytes("a"), None);
    assert_eq!(file.flush(true), 0);
    assert_eq!(world.store.bytes("a").unwrap(), "xxxxx");
    file.release();
    assert_eq!(world.changes(), 1);
    assert_eq!(world.stats().release_publishes, 0);
    assert_eq!(world.stats().file_handles, 0);
    assert!(world.filesystem.unsaved().is_empty());
}

#[test]
fn the_last_flush_is_answered_after_the_put() {
    let world = World::new(CloseMode::Release);
    let gate = world.store.gate(Call::Put);
    let file = world.create("a");
    file.write(0, b"1");
    let flush = world.kernel.send(file.ino, file.flush_op(true), &[]);
    world.wait_for(Call::Put);
    assert!(!world.kernel.is_answered(flush));
    gate.open();
    assert_eq!(world.kernel.answer(flush).errno, 0);
    assert_eq!(world.store.bytes("a").unwrap(), "1");
}

/// `mmap; close; store; munmap`: the close cannot be the last reference's, and the bytes come after.
#[test]
fn release_publishes_what_a_mapping_stored_and_is_answered_after_the_put() {
    let world = World::new(CloseMode::Release);
    let file = world.create("a");
    file.write(0, b"early");
    assert_eq!(file.flush(false), 0);
    file.write_mapped(0, b"later");
    assert_eq!(world.changes(), 0);
    let gate = world.store.gate(Call::Put);
    let release = file.send_release();
    world.wait_for(Call::Put);
    assert!(!world.kernel.is_answered(release));
    gate.open();
    assert_eq!(world.kernel.answer(release).errno, 0);
    assert_eq!(world.store.bytes("a").unwrap(), "later");
    assert_eq!(world.count(Call::Put), 1);
    assert_eq!(world.stats().release_publishes, 1);
}

/// A descriptor in a socket, aio, a fixed file of io_uring: nothing is ever the last FLUSH, and
/// sometimes no FLUSH comes at all (knfsd).
#[test]
fn release_publishes_where_no_flush_came() {
    let world = World::new(CloseMode::Release);
    let file = world.create("a");
    file.write(0, b"1");
    file.release();
    assert_eq!(world.store.bytes("a").unwrap(), "1");
    assert_eq!(world.changes(), 1);
}

#[test]
fn other_requests_are_answered_while_a_release_waits_for_the_store() {
    let world = World::new(CloseMode::Release);
    let gate = world.store.gate(Call::Put);
    let file = world.create("a");
    file.write(0, b"12345");
    let release = file.send_release();
    world.wait_for(Call::Put);
    // The door has one thread: an upload on it would hold this back.
    assert_eq!(world.kernel.size(file.ino), 5);
    assert!(!world.kernel.is_answered(release));
    gate.open();
    world.kernel.answer(release);
}

#[test]
fn a_refused_put_is_the_answer_of_the_last_flush_and_of_no_other() {
    let world = World::new(CloseMode::Release);
    let file = world.create("a");
    let refused = Fault::Fail(StoreErrorKind::Denied);
    world.store.inject(Call::Put, refused);
    file.write(0, b"1");
    assert_eq!(file.flush(false), 0);
    assert_eq!(file.flush(true), EACCES);
    file.release();
    world.drain();
    assert_eq!(world.changes(), 1, "a refusal is final");
    assert_eq!(world.store.bytes("a"), None);
    assert_eq!(world.stats().lost_files, 1);
}

#[test]
fn a_closer_that_was_told_does_not_wait_for_the_retry() {
    let world = World::new(CloseMode::Release);
    let file = world.create("a");
    file.write(0, b"1");
    let timeout = Fault::Fail(StoreErrorKind::Timeout);
    world.store.inject(Call::Put, timeout);
    assert_eq!(file.flush(true), ETIMEDOUT);
    let gate = world.store.gate(Call::Put);
    // Its answer comes although the store answers nobody.
    file.release();
    gate.open();
    world.drain();
    assert_eq!(world.store.bytes("a").unwrap(), "1");
    assert_eq!(world.stats().lost_files, 0);
}

#[test]
fn a_failure_that_no_close_told_of_is_told_by_the_next_open_once() {
    let world = World::new(CloseMode::Release);
    world.store.plant("a", "old");
    let ino = world.kernel.lookup(ROOT, "a");
    let file = world.open(ino, O_RDWR);
    let refused = Fault::Fail(StoreErrorKind::Denied);
    // An fsync was told of a failure; the closer, perhaps another process, was not.
    file.write(0, b"new");
    world.store.inject(Call::Put, refused);
    assert_eq!(file.fsync(), EACCES);
    assert_eq!(file.flush(false), 0);
    world.store.inject(Call::Put, refused);
    file.release();
    assert_eq!(world.store.bytes("a").unwrap(), "old");
    assert_eq!(world.kernel.open(ino, O_RDONLY).unwrap_err(), EIO);
    world.open(ino, O_RDONLY);
    assert_eq!(world.stats().lost_files, 1);
}

/// What is given up is out of the way before the store has taken its upload back.
#[test]
fn an_open_finds_the_object_while_a_lost_upload_is_being_aborted() {
    let world = World::new(CloseMode::Flush);
    world.store.plant("a", "old");
    let ino = world.kernel.lookup(ROOT, "a");
    let file = world.open(ino, O_WRONLY | O_TRUNC);
    let piece = vec![7; 64 << 10];
    for offset in (0..4 * PART).step_by(piece.len()) {
        file.write(offset, &piece);
    }
    world.wait_for(Call::PutPart);
    let refused = Fault::Fail(StoreErrorKind::Denied);
    world.store.inject(Call::Complete, refused);
    assert_eq!(file.flush(true), EACCES);
    let gate = world.store.gate(Call::Abort);
    let release = file.send_release();
    world.wait_for(Call::Abort);
    world.open(ino, O_RDONLY).release();
    gate.open();
    assert_eq!(world.kernel.answer(release).errno, 0);
    assert_eq!(world.store.uploads(), 0);
    assert_eq!(world.store.bytes("a").unwrap(), "old");
}

#[test]
fn fsync_publishes_in_both_modes() {
    for mode in [CloseMode::Flush, CloseMode::Release] {
        let world = World::new(mode);
        let file = world.create("a");
        file.write(0, b"1");
        assert_eq!(file.fsync(), 0);
        assert_eq!(world.store.bytes("a").unwrap(), "1");
        assert_eq!(file.flush(true), 0);
        file.release();
        assert_eq!(world.changes(), 1, "{mode:?}");
    }
}

#[test]
fn each_of_two_opens_publishes_what_is_dirty_at_its_last_close() {
    let world = World::new(CloseMode::Release);
    let left = world.create("a");
    let right = world.open(left.ino, O_WRONLY);
    left.write(0, b"left ");
    right.write(5, b"half");
    assert_eq!(left.flush(true), 0);
    assert_eq!(world.store.bytes("a").unwrap(), "left half");
    right.write(9, b" right");
    left.release();
    assert_eq!(
        world.store.bytes("a").unwrap(),
        "left half",
        "not its bytes"
    );
    assert_eq!(right.flush(true), 0);
    right.release();
    assert_eq!(world.store.bytes("a").unwrap(), "left half right");
    assert_eq!(world.changes(), 2);
}

#[test]
fn a_release_that_no_last_flush_preceded_publishes_though_another_writer_is_left() {
    let world = World::new(CloseMode::Release);
    let mapped = world.create("a");
    let other = world.open(mapped.ino, O_WRONLY);
    assert_eq!(mapped.flush(false), 0);
    mapped.write_mapped(0, b"stored");
    mapped.release();
    assert_eq!(world.store.bytes("a").unwrap(), "stored");
    assert_eq!(other.flush(true), 0);
    other.release();
    assert_eq!(world.changes(), 1);
}

#[test]
fn a_failed_release_leaves_the_bytes_to_the_writer_that_is_left() {
    let world = World::new(CloseMode::Release);
    let first = world.create("a");
    let second = world.open(first.ino, O_WRONLY);
    first.write(0, b"1");
    let refused = Fault::Fail(StoreErrorKind::Denied);
    world.store.inject(Call::Put, refused);
    first.release();
    assert_eq!(world.stats().lost_files, 0);
    assert_eq!(second.flush(true), 0);
    second.release();
    assert_eq!(world.store.bytes("a").unwrap(), "1");
}

#[test]
fn a_reader_s_closes_say_nothing_of_the_writer_s_bytes() {
    let world = World::new(CloseMode::Release);
    let file = world.create("a");
    file.write(0, b"half");
    let reader = world.open(file.ino, O_RDONLY);
    assert_eq!(reader.flush(true), 0);
    reader.release();
    assert_eq!(world.changes(), 0);
    assert_eq!(file.flush(true), 0);
    assert_eq!(world.changes(), 1);
}

/// `open(path, O_RDONLY | O_CREAT)` and `O_RDONLY | O_TRUNC` change the file through handles that cannot
/// write. Their closes said yes, and the file came to the store at the drain.
#[test]
fn who_made_or_cut_a_file_publishes_it_though_it_only_reads() {
    for mode in [CloseMode::Flush, CloseMode::Release] {
        let world = World::new(mode);
        let made = world.create_with("made", O_RDONLY | O_CREAT);
        assert_eq!(made.flush(true), 0);
        assert_eq!(world.store.bytes("made").unwrap(), "", "{mode:?}");
        made.release();
        world.store.plant("cut", "1");
        let ino = world.kernel.lookup(ROOT, "cut");
        let cut = world.open(ino, O_RDONLY | O_TRUNC);
        assert_eq!(world.kernel.size(ino), 0);
        assert_eq!(cut.flush(true), 0);
        assert_eq!(world.store.bytes("cut").unwrap(), "", "{mode:?}");
        cut.release();
        assert_eq!(world.changes(), 2, "{mode:?}");
        assert!(world.filesystem.unsaved().is_empty());
        // No FLUSH comes before it where a descriptor is in flight in a socket.
        let unflushed = world.create_with("unflushed", O_RDONLY | O_CREAT);
        unflushed.release();
        world.drain_releases();
        assert_eq!(world.store.bytes("unflushed").unwrap(), "", "{mode:?}");
    }
}

#[test]
fn a_refusal_is_told_to_who_made_a_file_and_only_reads() {
    let world = World::new(CloseMode::Flush);
    let made = world.create_with("made", O_RDONLY | O_CREAT);
    let refused = Fault::Fail(StoreErrorKind::Denied);
    world.store.inject(Call::Put, refused);
    assert_eq!(made.flush(false), EACCES);
}

/// `close; truncate`: the kernel sends RELEASE when it likes, and the truncation took the writer whose
/// RELEASE was still on its way for one who would publish it. It was answered before its bytes were in
/// the store.
#[test]
fn a_truncation_by_name_after_the_close_is_in_the_store_when_it_is_answered() {
    let world = World::new(CloseMode::Flush);
    let file = world.create("a");
    file.write(0, b"0123456789");
    assert_eq!(file.flush(false), 0);
    assert_eq!(world.truncate(file.ino, None, 4), 0);
    assert_eq!(world.store.bytes("a").unwrap(), "0123");
    file.release();
    assert_eq!(world.changes(), 2);
}

/// The close was answered and its RELEASE is still under way.
#[test]
fn a_mode_by_name_after_the_close_is_in_the_store_when_it_is_answered() {
    for mode in [CloseMode::Flush, CloseMode::Release] {
        let world = World::new(mode);
        let file = world.create("a");
        file.write(0, b"12345");
        assert_eq!(file.flush(true), 0);
        assert_eq!(world.chmod(file.ino, 0o640), 0);
        assert_eq!(world.mode("a"), 0o640);
        assert_eq!(world.count(Call::Put), 1, "the store copies its own bytes");
        // Who goes on to write does it over the copy.
        file.write(5, b"678");
        assert_eq!(world.chmod(file.ino, 0o600), 0);
        assert_eq!(world.mode("a"), 0o640, "the writer's close brings it");
        assert_eq!(file.flush(true), 0);
        file.release();
        assert_eq!(world.store.bytes("a").unwrap(), "12345678");
        assert_eq!(world.mode("a"), 0o600);
        assert_eq!(world.kernel.size(file.ino), 8);
    }
}

#[test]
fn a_mode_by_name_after_the_close_is_not_for_what_somebody_else_put_there() {
    let world = World::new(CloseMode::Flush);
    let file = world.create("a");
    file.write(0, b"12345");
    assert_eq!(file.flush(true), 0);
    world.store.plant("a", "theirs");
    // The kernel looks the name up again and asks for the new inode.
    assert_eq!(world.chmod(file.ino, 0o640), ESTALE);
    file.release();
    world.drain();
    assert_eq!(world.store.bytes("a").unwrap(), "theirs");
    let theirs = world.kernel.lookup(ROOT, "a");
    assert_ne!(theirs, file.ino);
    assert_eq!(world.chmod(theirs, 0o640), 0);
    assert_eq!(world.store.bytes("a").unwrap(), "theirs");
    assert_eq!(world.mode("a"), 0o640);
    world.open(theirs, O_WRONLY).release();
}

#[test]
fn a_refused_mode_after_the_close_is_told_and_costs_no_bytes() {
    let world = World::new(CloseMode::Flush);
    let file = world.create("a");
    file.write(0, b"12345");
    assert_eq!(file.flush(true), 0);
    let refused = Fault::Fail(StoreErrorKind::Denied);
    world.store.inject(Call::Copy, refused);
    assert_eq!(world.chmod(file.ino, 0o640), EACCES);
    file.release();
    world.drain();
    assert_eq!(world.store.bytes("a").unwrap(), "12345");
    world.open(file.ino, O_RDONLY).release();
}

#[test]
fn a_truncation_does_not_publish_the_writer_s_half() {
    let world = World::new(CloseMode::Flush);
    let file = world.create("a");
    file.write(0, b"half");
    assert_eq!(world.truncate(file.ino, None, 2), 0);
    assert_eq!(world.truncate(file.ino, Some(file.fh), 1), 0);
    assert_eq!(world.changes(), 0);
    assert_eq!(file.flush(false), 0);
    assert_eq!(world.truncate(file.ino, Some(file.fh), 0), 0);
    assert_eq!(
        world.store.bytes("a").unwrap(),
        "h",
        "ftruncate waits for the close"
    );
    assert_eq!(file.flush(false), 0);
    assert_eq!(world.store.bytes("a").unwrap(), "");
}

#[test]
fn a_truncation_whose_publish_failed_leaves_the_bytes_to_the_writer() {
    let world = World::new(CloseMode::Flush);
    let file = world.create("a");
    file.write(0, b"12");
    assert_eq!(file.flush(false), 0);
    let refused = Fault::Fail(StoreErrorKind::Denied);
    world.store.inject(Call::Put, refused);
    assert_eq!(world.truncate(file.ino, None, 1), EACCES);
    assert_eq!(world.stats().lost_files, 0);
    assert_eq!(file.flush(false), 0);
    assert_eq!(world.store.bytes("a").unwrap(), "1");
}

/// The kernel answers one ESTALE of an open by another look-up, and gives the second to its caller.
/// Between a close that lost a race and its RELEASE there were two: of the bytes that were lost, then of
/// the version that the look-up still believed in.
#[test]
fn the_look_up_after_a_lost_race_finds_the_winner_before_the_release_too() {
    let world = World::with_ttl(CloseMode::Flush, Duration::from_secs(3600));
    world.store.plant("a", "1");
    let ino = world.kernel.lookup(ROOT, "a");
    let file = world.open(ino, O_WRONLY | O_TRUNC);
    file.write(0, b"ours");
    world.store.plant("a", "theirs");
    assert_eq!(file.flush(false), ESTALE);
    for ask in [
        &|ino| world.kernel.open(ino, O_RDONLY).err() as Option<i32>,
        &|ino| Some(world.truncate(ino, None, 1)).filter(|errno| *errno != 0),
    ] as [&dyn Fn(u64) -> Option<i32>; 2]
    {
        assert_eq!(ask(ino), Some(ESTALE));
        let found = world.kernel.lookup(ROOT, "a");
        assert_ne!(found, ino);
        assert_eq!(ask(found), None);
    }
    file.release();
    world.drain();
    assert_eq!(world.store.bytes("a").unwrap(), "t");
}

#[test]
fn a_drain_publishes_what_no_last_close_has_yet() {
    let world = World::new(CloseMode::Release);
    let file = world.create("a");
    file.write(0, b"1");
    assert_eq!(file.flush(false), 0);
    world.drain();
    assert_eq!(world.store.bytes("a").unwrap(), "1");
}

#[test]
fn a_drain_waits_for_a_release_whose_closer_was_answered() {
    let world = World::new(CloseMode::Release);
    let file = world.create("a");
    file.write(0, b"1");
    let timeout = Fault::Fail(StoreErrorKind::Timeout);
    world.store.inject(Call::Put, timeout);
    assert_eq!(file.flush(true), ETIMEDOUT);
    file.release();
    world.drain();
    assert!(world.filesystem.unsaved().is_empty());
    assert_eq!(world.store.bytes("a").unwrap(), "1");
}

#[test]
fn a_close_that_is_not_the_last_sends_full_parts_early() {
    let world = World::new(CloseMode::Release);
    let file = world.create("a");
    let piece = vec![7; 64 << 10];
    let size = 2 * PART + piece.len() as u64;
    for offset in (0..size).step_by(piece.len()) {
        file.write(offset, &piece);
    }
    assert_eq!(file.flush(false), 0);
    // The second part is full, and its writer has not moved past it by a whole one.
    while world.store.count_called(Call::PutPart) < 2 {
        std::thread::yield_now();
    }
    assert_eq!(world.store.bytes("a"), None);
    assert_eq!(file.flush(true), 0);
    assert_eq!(world.store.bytes("a").unwrap().len() as u64, size);
    assert_eq!(world.count(Call::PutPart), 3);
}

/// The decisions alone: every case there is.
#[test]
fn a_release_that_has_dirty_bytes_never_leaves_them_to_nobody() {
    let outcomes = [None, Some(LastFlush::Published), Some(LastFlush::Failed)];
    for mode in [CloseMode::Flush, CloseMode::Release] {
        for last_flush in outcomes {
            for bits in 0..8 {
                let it = ReleaseFacts {
                    publishes: bits & 1 != 0,
                    last_writer: bits & 3 == 3,
                    dirty: bits & 4 != 0,
                    last_flush,
                };
                let what = mode.at_release(it);
                if it.last_writer && it.dirty {
                    assert_ne!(what, AtRelease::Answer, "{mode:?} {it:?}");
                }
                if !it.publishes || !it.dirty {
                    assert_eq!(what, AtRelease::Answer, "{mode:?} {it:?}");
                }
                let told = last_flush == Some(LastFlush::Failed);
                if mode == CloseMode::Flush || !told {
                    assert_ne!(what, AtRelease::Retry, "{mode:?} {it:?}");
                }
            }
        }
    }
}
