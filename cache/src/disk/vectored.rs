//! Writing many pieces at once.

use std::fs::File;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};
use nix::errno::Errno;
use nix::sys::uio::pwritev;

/// Pieces in one vectored write. The kernel's bound is 1,024 (UIO_MAXIOV, <linux/uio.h>).
pub(super) const PIECES_MAX: usize = 512;

/// Writes all of `pieces` from `offset` on, at most `len_max` bytes at once. Blocks on the disk.
pub(super) fn write_all(
    file: &File,
    mut offset: u64,
    mut pieces: Vec<Bytes>,
    len_max: usize,
) -> io::Result<()> {
    let mut left: &mut [Bytes] = &mut pieces;
    while left.iter().any(|piece| !piece.is_empty()) {
        let written = write_some(file, offset, left, len_max)?;
        offset += written as u64;
        let done = advance(left, written);
        left = &mut left[done..];
    }
    Ok(())
}

/// One system call of at most `len_max` bytes. Gives how many were written.
fn write_some(file: &File, offset: u64, pieces: &[Bytes], len_max: usize) -> io::Result<usize> {
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

/// Takes the first `written` bytes off `pieces`; gives how many pieces are used up.
pub(super) fn advance(pieces: &mut [Bytes], mut written: usize) -> usize {
    let mut done = 0;
    for piece in pieces {
        let taken = written.min(piece.len());
        piece.advance(taken);
        written -= taken;
        if !piece.is_empty() {
            break;
        }
        done += 1;
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advance_takes_across_pieces_and_inside_one() {
        let mut pieces = vec![
            Bytes::from_static(b"abc"),
            Bytes::new(),
            Bytes::from_static(b"defg"),
        ];
        assert_eq!(advance(&mut pieces, 5), 2);
        assert_eq!(&pieces[2][..], b"fg");
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
