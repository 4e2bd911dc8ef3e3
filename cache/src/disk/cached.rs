//! Writing through the page cache, in system calls of one length.
//!
//! ext4, XFS and Btrfs allocate folios as large as the write is long (`fgf_set_order`,
//! <linux/pagemap.h>), and large folios come from the largest free blocks of memory. In a virtual machine
//! those are what the host has taken back (free page reporting): the first touch of each of their pages
//! waits for the host. On such a machine a GiB took 0.56 s of processor time in writes of 128 KiB and of
//! 256 KiB, 0.7 s of 64 KiB, 1.4 s of 512 KiB and 2.5 s of 1 MiB; reading it back took 0.17 s whichever it
//! was. Going by how fast the last long write was, as was done before, took 0.7 s.

use std::fs::File;
use std::io;

use bytes::Bytes;

use super::vectored::write_all;

/// Bytes in one write.
const WRITE: usize = 128 << 10;

/// Writes all of `pieces` from `offset` on. Blocks on the disk.
pub(super) fn write(file: &File, offset: u64, pieces: Vec<Bytes>) -> io::Result<()> {
    write_all(file, offset, pieces, WRITE)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn pieces_of_any_length_are_written_in_order() {
        let file = tempfile::tempfile().unwrap();
        let whole: Vec<u8> = (0..20 * WRITE as u32 + 77)
            .map(|i| (i % 251) as u8)
            .collect();
        let cuts = [
            0,
            0,
            10,
            WRITE,
            WRITE,
            3 * WRITE,
            8 * WRITE + 5,
            whole.len(),
        ];
        let pieces = cuts.windows(2).map(|cut| &whole[cut[0]..cut[1]]);
        let pieces: Vec<Bytes> = pieces.map(Bytes::copy_from_slice).collect();
        write(&file, 3, pieces).unwrap();
        let mut back = vec![0; whole.len()];
        file.read_exact_at(&mut back, 3).unwrap();
        assert_eq!(back, whole);
    }
}
