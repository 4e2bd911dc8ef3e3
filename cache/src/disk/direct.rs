//! Writing past the page cache (O_DIRECT), for bytes that are staged and seldom read back: a copy of
//! them in the page cache costs processor time and memory, and pushes out what somebody wants.
//!
//! The kernel asks that a direct write begins and ends at a block, on disk and in memory; 4 KiB
//! suits every filesystem that has it at all. [`runs`] cuts a write into what meets that and what
//! goes through the page cache; one that the filesystem refuses all the same (EINVAL) goes there too.
//!
//! A direct write takes as long as the disk does, while the page cache takes bytes at once and the
//! disk gets them when it can. So a disk that is slower than [`RATE_MIN`] is left to the page cache,
//! and asked again from time to time ([`Pace`]).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

/// What a direct write is aligned to, in bytes.
const ALIGN: u64 = 4096;

/// Less than this is not worth waiting for the disk, in bytes.
const RUN_MIN: u64 = 256 << 10;

/// What a disk must take in a second for direct writes, in bytes. Copying into the page cache and
/// writing it back costs about as much time as a disk of this speed takes.
const RATE_MIN: u64 = 256 << 20;

/// How much goes through the page cache before a slow disk is tried again, in bytes: one slow write
/// of a spill's 4 MiB in seventeen.
const REST: u64 = 64 << 20;

/// A file's second descriptor, opened with O_DIRECT. Clones share the pace.
#[derive(Debug, Clone)]
pub(super) struct Direct {
    file: Arc<File>,
    pace: Arc<Pace>,
}

/// A part of a write that goes one way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WriteRun {
    /// Where it begins in the file.
    pub(super) offset: u64,
    /// In bytes.
    pub(super) len: u64,
    /// Whether it may go past the page cache.
    pub(super) direct: bool,
    pub(super) pieces: Vec<Bytes>,
}

impl Direct {
    /// A second descriptor of `file`, which may have no name. `None` where there is no O_DIRECT, or
    /// no /proc to open it by. Blocks on the disk.
    pub(super) fn of(file: &File) -> Option<Self> {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let file = options.custom_flags(libc::O_DIRECT).open(path).ok()?;
        Some(Self {
            file: Arc::new(file),
            pace: Arc::default(),
        })
    }

    /// The descriptor, if `run` should go by it.
    pub(super) fn takes(&self, run: &WriteRun) -> Option<&Arc<File>> {
        (run.direct && self.pace.wants(run.len)).then_some(&self.file)
    }

    /// What became of a direct write of `len` bytes. Whether the page cache should be tried.
    pub(super) fn wrote(&self, len: u64, took: Duration, result: &io::Result<()>) -> bool {
        match result {
            Ok(()) => {
                self.pace.took(len, took);
                false
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                self.pace.never();
                true
            }
            Err(_) => false,
        }
    }
}

/// Whether a file's bytes are to go past the page cache: mostly, but not for a while after that was slow.
#[derive(Debug, Default)]
struct Pace {
    /// How much is still to go through the page cache, in bytes; all of it if `u64::MAX`.
    left: AtomicU64,
}

impl Pace {
    /// Whether the next `len` bytes are to go past the page cache.
    fn wants(&self, len: u64) -> bool {
        let left = self.left.load(Ordering::Relaxed);
        if left > 0 && left < u64::MAX {
            // Two at once may count one of them only; it is a matter of pace.
            self.left.store(left.saturating_sub(len), Ordering::Relaxed);
        }
        left == 0
    }

    /// `len` bytes went that way and took `time`.
    fn took(&self, len: u64, time: Duration) {
        if u128::from(len) * 1_000_000 < u128::from(RATE_MIN) * time.as_micros() {
            self.left.store(REST, Ordering::Relaxed);
        }
    }

    /// The filesystem has no such way.
    fn never(&self) {
        self.left.store(u64::MAX, Ordering::Relaxed);
    }
}

/// Cuts a write into runs: as many bytes as possible that may go past the page cache, the rest
/// between them. Empty pieces are left out.
pub(super) fn runs(offset: u64, pieces: Vec<Bytes>) -> Vec<WriteRun> {
    let mut runs: Vec<WriteRun> = Vec::new();
    let mut at = offset;
    for piece in pieces {
        let len = piece.len() as u64;
        if len == 0 {
            continue;
        }
        let aligned = |value: u64| value.is_multiple_of(ALIGN);
        let direct = aligned(at) && aligned(len) && aligned(piece.as_ptr() as u64);
        match runs.last_mut() {
            Some(run) if run.direct == direct => {
                run.len += len;
                run.pieces.push(piece);
            }
            _ => runs.push(WriteRun {
                offset: at,
                len,
                direct,
                pieces: vec![piece],
            }),
        }
        at += len;
    }
    for run in &mut runs {
        run.direct &= run.len >= RUN_MIN;
    }
    join(runs)
}

/// Joins neighbours that go the same way.
fn join(runs: Vec<WriteRun>) -> Vec<WriteRun> {
    let mut joined: Vec<WriteRun> = Vec::with_capacity(runs.len());
    for run in runs {
        match joined.last_mut() {
            Some(last) if last.direct == run.direct => {
                last.len += run.len;
                last.pieces.extend(run.pieces);
            }
            _ => joined.push(run),
        }
    }
    joined
}

/// An empty buffer that can grow to `capacity` bytes, whose first byte lies where a direct write
/// wants it.
pub(crate) fn aligned_buffer(capacity: usize) -> bytes::BytesMut {
    let align = ALIGN as usize;
    let mut bytes = bytes::BytesMut::with_capacity(capacity + align);
    let skip = bytes.as_ptr().align_offset(align).min(align);
    bytes.resize(skip, 0);
    let mut bytes = bytes.split_off(skip);
    if bytes.capacity() > capacity {
        drop(bytes.split_off(capacity));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aligned(len: usize) -> Bytes {
        let mut bytes = aligned_buffer(len);
        bytes.resize(len, 7);
        bytes.freeze()
    }

    #[test]
    fn an_aligned_buffer_has_its_size_and_its_place() {
        for capacity in [4096, 5000, 1 << 20] {
            let bytes = aligned_buffer(capacity);
            assert_eq!(bytes.as_ptr() as usize % 4096, 0);
            assert_eq!((bytes.len(), bytes.capacity()), (0, capacity));
        }
    }

    #[test]
    fn only_what_lies_at_blocks_on_disk_and_in_memory_goes_direct() {
        let large = 1 << 20;
        let (whole, odd) = (aligned(large), aligned(large).slice(8..));
        let all = [whole.clone(), whole.clone(), odd.clone(), whole.clone()];
        let found = runs(4096, all.to_vec());
        let shape: Vec<_> = found.iter().map(|run| (run.offset, run.direct)).collect();
        // Behind the odd piece nothing lies at a block any more.
        assert_eq!(shape, [(4096, true), (4096 + (2 << 20), false)]);
        assert_eq!(found[1].pieces, [odd, whole.clone()]);
        assert!(runs(1, vec![whole.clone()]).iter().all(|run| !run.direct));
        let small = runs(0, vec![aligned(4096), Bytes::new()]);
        assert_eq!((small.len(), small[0].direct), (1, false));
        assert!(runs(0, Vec::new()).is_empty());
    }

    #[test]
    fn short_aligned_pieces_between_others_are_written_with_them() {
        let odd = aligned(8192).slice(8..4104);
        let found = runs(0, vec![odd.clone(), aligned(4096), odd]);
        assert_eq!((found.len(), found[0].len), (1, 12288));
    }

    #[test]
    fn a_slow_way_is_left_alone_for_a_while() {
        let step = 4 << 20;
        let pace = Pace::default();
        assert!(pace.wants(step));
        pace.took(step, Duration::from_millis(10));
        assert!(pace.wants(step));
        pace.took(step, Duration::from_millis(100));
        let rested = (0..100).take_while(|_| !pace.wants(step)).count();
        assert_eq!(rested as u64, REST / step);
        pace.never();
        assert!((0..100).all(|_| !pace.wants(step)));
    }
}
