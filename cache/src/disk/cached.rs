//! Writing through the page cache, in system calls that are as long as memory allows.
//!
//! ext4, XFS and Btrfs allocate folios as large as the write is long (`fgf_set_order`,
//! <linux/pagemap.h>), and what lies in large folios is read fastest later. But large folios come from
//! the largest free blocks of memory, and in a virtual machine those are what the host has taken back
//! (free page reporting): the first touch of each of their pages waits for the host. There a GiB in
//! writes of 1 MiB took 2.4 s of processor time, in writes of 128 KiB mostly 0.25 to 0.65 s (once 1.8),
//! because smaller blocks are those that were in use a moment ago. So long writes are made as long as they
//! are fast, and short ones for a while after one was slow ([`Pace`]). It is the machine's memory that is
//! slow or fast, so all files have one pace.

use std::fs::File;
use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::Bytes;
use nix::errno::Errno;
use nix::sys::uio::pwritev;
use nix::time::{ClockId, clock_gettime};

use super::file::{PIECES_MAX, advance};
use super::pace::Pace;

/// Bytes in one long write. Longer ones would be read no faster.
const LONG: usize = 1 << 20;

/// Bytes in one short write.
const SHORT: usize = 128 << 10;

/// What a long write must copy in a second of processor time, in bytes. Memory that is at hand takes
/// ten times that, memory that the host must give first 0.4 times.
const RATE_MIN: u64 = 1 << 30;

/// How much is written in short writes before a long one is tried again, in bytes.
const REST: u64 = 64 << 20;

static LONG_WRITES: Pace = Pace::new(RATE_MIN, REST);

/// Writes all of `pieces` from `offset` on. Blocks on the disk.
pub(super) fn write(file: &File, mut offset: u64, mut pieces: Vec<Bytes>) -> io::Result<()> {
    let mut left: &mut [Bytes] = &mut pieces;
    let mut len: usize = left.iter().map(Bytes::len).sum();
    while len > 0 {
        let long = len >= LONG && LONG_WRITES.wants(LONG as u64);
        let begun = long.then(processor_time);
        let written = write_some(file, offset, left, if long { LONG } else { SHORT })?;
        if let Some(begun) = begun {
            let took = processor_time().saturating_sub(begun);
            LONG_WRITES.took(written as u64, took);
        }
        offset += written as u64;
        len -= written;
        let done = advance(left, written);
        left = &mut left[done..];
    }
    Ok(())
}

/// One system call of at most `len_max` bytes. Gives how many were written.
pub(super) fn write_some(
    file: &File,
    offset: u64,
    pieces: &[Bytes],
    len_max: usize,
) -> io::Result<usize> {
    let mut room = len_max;
    let slices: Vec<IoSlice<'_>> = pieces
        .iter()
        .filter(|piece| !piece.is_empty())
        .take(PIECES_MAX)
        .map_while(|piece| {
            let len = piece.len().min(room);
            room -= len;
            (len > 0).then(|| IoSlice::new(&piece[..len]))
        })
        .collect();
    let position = i64::try_from(offset).map_err(|_| Errno::EFBIG)?;
    loop {
        match pwritev(file, &slices, position) {
            Err(Errno::EINTR) => {}
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            written => return Ok(written?),
        }
    }
}

/// What this thread has used so far: what waits for a processor or a disk does not count.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn pieces_of_any_length_are_written_in_order() {
        let file = tempfile::tempfile().unwrap();
        let whole: Vec<u8> = (0..3 * LONG as u32 + 77).map(|i| (i % 251) as u8).collect();
        let cuts = [
            0,
            0,
            10,
            SHORT,
            SHORT,
            3 * SHORT,
            LONG + 5,
            3 * LONG,
            whole.len(),
        ];
        let pieces = cuts.windows(2).map(|cut| &whole[cut[0]..cut[1]]);
        let pieces: Vec<Bytes> = pieces.map(Bytes::copy_from_slice).collect();
        for long in [true, false] {
            if !long {
                LONG_WRITES.took(1, Duration::from_secs(1));
            }
            write(&file, 3, pieces.clone()).unwrap();
            let mut back = vec![0; whole.len()];
            file.read_exact_at(&mut back, 3).unwrap();
            assert_eq!(back, whole);
            file.set_len(0).unwrap();
        }
    }

    #[test]
    fn a_system_call_is_as_long_as_it_may_be() {
        let file = tempfile::tempfile().unwrap();
        let pieces = [6, 0, 4, 10].map(|len| Bytes::from(vec![1; len]));
        assert_eq!(write_some(&file, 0, &pieces, 8).unwrap(), 8);
        assert_eq!(write_some(&file, 0, &pieces, 10).unwrap(), 10);
        assert_eq!(write_some(&file, 0, &pieces, usize::MAX).unwrap(), 20);
    }
}
