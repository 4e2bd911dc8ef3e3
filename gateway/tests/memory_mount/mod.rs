//! A mounted filesystem over a store in memory, and what tests do to it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::IntoRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ackfs::fs::{CloseMode, Filesystem, FsConfig};
use ackfs::fuse::mount::{MountOptions, Mounted, Transport};
use ackfs_cache::budget::Budget;
use ackfs_cache::dirty::{OnConflict, WriteConfig, Writer};
use ackfs_cache::read::{ReadCache, ReadConfig};
use ackfs_cache::store::memory::{Call, MemoryStore};

/// Everything between the kernel and the store, in this process.
pub(crate) struct MemoryMount {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) filesystem: Arc<Filesystem>,
    pub(crate) dir: tempfile::TempDir,
    mounted: Mounted,
    runtime: tokio::runtime::Runtime,
}

impl MemoryMount {
    fn new(transport: Transport, ttl: Duration, mode: CloseMode) -> Self {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
        let store = MemoryStore::new();
        let budget = Budget::new(64 << 20);
        let read = ReadConfig {
            clean_max: 16 << 20,
            fills: budget.share(32 << 20),
            readahead_max: 16 << 20,
        };
        let reader = ReadCache::new(read, store.clone(), None, runtime.handle().clone());
        let write = WriteConfig {
            memory: budget.share(32 << 20),
            part_size: 8 << 20,
            parts_in_flight_max: 2,
            staging: None,
            on_conflict: OnConflict::Fail,
        };
        let writer = Writer::new(
            write,
            store.clone(),
            reader.clone(),
            runtime.handle().clone(),
        );
        let config = FsConfig {
            prefix: String::new(),
            uid: 0,
            gid: 0,
            file_mode: 0o644,
            dir_mode: 0o755,
            metadata_ttl: ttl,
            negative_ttl: Duration::ZERO,
            read_only: false,
            names_max: 10_000,
        };
        let handle = runtime.handle().clone();
        let filesystem = Filesystem::new(config, store.clone(), reader, writer, handle);
        let dir = tempfile::tempdir().unwrap();
        let options = MountOptions {
            transport,
            ..MountOptions::default()
        };
        let mounted = Mounted::mount(dir.path(), &options).unwrap();
        filesystem.attach(mounted.kernel());
        filesystem.set_close_mode(mode);
        mounted.serve(filesystem.clone()).unwrap();
        assert_eq!(mounted.info().ring, transport == Transport::Uring);
        Self {
            store,
            filesystem,
            dir,
            mounted,
            runtime,
        }
    }

    /// A path in the mount.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The calls that changed the store since the last time calls were asked for.
    pub(crate) fn writes(&self) -> Vec<(Call, String)> {
        let mut calls = self.store.calls();
        calls.retain(|(call, _)| !matches!(call, Call::Head | Call::List | Call::Get));
        calls
    }

    /// Waits until the kernel has sent every RELEASE and all is in the store. The kernel sends
    /// RELEASE when it likes; that the last handle has gone is the event.
    pub(crate) fn drain_until_closed(&self) {
        while self.filesystem.stats().file_handles > 0 {
            std::thread::yield_now();
        }
        self.runtime.block_on(self.filesystem.drain());
    }
}

impl Drop for MemoryMount {
    fn drop(&mut self) {
        let _ = self.mounted.unmount(true);
        self.mounted.wait();
    }
}

/// Runs `test` on a mount of each transport, with what is known believed for long.
pub(crate) fn on_both_doors(test: impl Fn(&MemoryMount)) {
    with_ttl(Duration::from_secs(3600), test);
}

/// Runs `test` on a mount of each transport.
pub(crate) fn with_ttl(ttl: Duration, test: impl Fn(&MemoryMount)) {
    for transport in [Transport::Classic, Transport::Uring] {
        test(&MemoryMount::new(transport, ttl, CloseMode::Flush));
    }
}

/// Runs `test` on a mount of each transport in the mode `release`, whatever kernel this is. On a stock
/// one no FLUSH is the last and nobody waits for RELEASE, so that all is left to RELEASE.
pub(crate) fn in_release_mode(test: impl Fn(&MemoryMount)) {
    for transport in [Transport::Classic, Transport::Uring] {
        test(&MemoryMount::new(
            transport,
            Duration::from_secs(3600),
            CloseMode::Release,
        ));
    }
}

/// The errno of a failure; 0 of a success.
pub(crate) fn errno(result: io::Result<impl Sized>) -> i32 {
    result
        .err()
        .and_then(|error| error.raw_os_error())
        .unwrap_or(0)
}

/// The names in a directory, sorted.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A new empty file, open for both.
pub(crate) fn read_write(path: &Path) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .unwrap()
}

/// close(2) with its answer, which dropping a `File` throws away.
pub(crate) fn close(file: File) -> io::Result<()> {
    nix::unistd::close(file.into_raw_fd()).map_err(io::Error::from)
}

/// A shared mapping, unmapped when dropped.
pub(crate) struct Map {
    at: std::ptr::NonNull<libc::c_void>,
    len: usize,
}

#[allow(unsafe_code, reason = "mmap is what is tested")]
pub(crate) fn map_shared(file: &File, len: usize) -> Map {
    use nix::sys::mman::{MapFlags, ProtFlags, mmap};
    let size = std::num::NonZeroUsize::new(len).unwrap();
    let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a fresh mapping at an address of the kernel's choice, owned by `Map` until its drop.
    let at = unsafe { mmap(None, size, prot, MapFlags::MAP_SHARED, file, 0) }.unwrap();
    Map { at, len }
}

#[allow(unsafe_code, reason = "mmap is what is tested")]
impl Map {
    /// Stores `bytes` at `offset`.
    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.len);
        // SAFETY: inside the mapping, which lives as long as `self`; nobody else has a reference.
        unsafe {
            let at = self.at.as_ptr().cast::<u8>().add(offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len());
        }
    }
}

#[allow(unsafe_code, reason = "mmap is what is tested")]
impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and ends here.
        unsafe { nix::sys::mman::munmap(self.at, self.len) }.unwrap();
    }
}
