//! Directory entries on the wire: a fixed part, the name, zeros up to a multiple of 8 bytes.
//!
//! ```text
//! READDIR      | fuse_dirent 24 | name | 0..7 zeros |
//! READDIRPLUS  | fuse_entry_out 128 | fuse_dirent 24 | name | 0..7 zeros |
//! ```
//! The kernel stops at the first entry that does not fit, so a partial one is never written.

use zerocopy::IntoBytes;

use super::answer::{Dirent, EntryOut};

/// Packs directory entries into an answer of READDIR or READDIRPLUS.
#[derive(Debug)]
pub struct DirentWriter<'a> {
    room: &'a mut [u8],
    used: usize,
}

impl<'a> DirentWriter<'a> {
    /// Writes into `room`.
    pub fn new(room: &'a mut [u8]) -> Self {
        Self { room, used: 0 }
    }

    /// How many bytes are written.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Adds a name for READDIR. `next` is the offset from which reading goes on after it, `kind` a
    /// `DT_*` value. False if it does not fit; nothing is written then.
    pub fn dirent(&mut self, ino: u64, next: u64, kind: u32, name: &[u8]) -> bool {
        self.put(&[], ino, next, kind, name)
    }

    /// Adds a name for READDIRPLUS; `entry.nodeid` 0 gives no attributes and no reference.
    pub fn direntplus(&mut self, entry: &EntryOut, next: u64, kind: u32, name: &[u8]) -> bool {
        self.put(entry.as_bytes(), entry.attr.ino, next, kind, name)
    }

    fn put(&mut self, before: &[u8], ino: u64, next: u64, kind: u32, name: &[u8]) -> bool {
        let dirent = Dirent {
            ino,
            off: next,
            namelen: name.len() as u32,
            kind,
        };
        let filled = before.len() + size_of::<Dirent>() + name.len();
        let len = filled.next_multiple_of(8);
        let Some(room) = self.room[self.used..].get_mut(..len) else {
            return false;
        };
        let (head, rest) = room.split_at_mut(before.len());
        let (middle, rest) = rest.split_at_mut(size_of::<Dirent>());
        let (tail, padding) = rest.split_at_mut(name.len());
        head.copy_from_slice(before);
        middle.copy_from_slice(dirent.as_bytes());
        tail.copy_from_slice(name);
        padding.fill(0);
        self.used += len;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dirents_are_padded_to_eight_bytes_with_zeros() {
        let mut room = [0xff; 64];
        let mut writer = DirentWriter::new(&mut room);
        assert!(writer.dirent(7, 1, 8, b"abc"));
        assert_eq!(writer.used(), 32);
        assert!(writer.dirent(8, 2, 4, b"12345678"));
        assert_eq!(writer.used(), 64);
        assert!(!writer.dirent(9, 3, 4, b""));
        assert_eq!(room[..8], 7u64.to_ne_bytes());
        assert_eq!(room[16..20], 3u32.to_ne_bytes());
        assert_eq!(room[24..32], *b"abc\0\0\0\0\0");
    }

    #[test]
    fn an_entry_that_does_not_fit_leaves_the_room_alone() {
        let mut room = [0xff; 159];
        let mut writer = DirentWriter::new(&mut room);
        assert!(!writer.direntplus(&EntryOut::default(), 1, 8, b"a"));
        assert_eq!(writer.used(), 0);
        assert!(room.iter().all(|byte| *byte == 0xff));
    }

    #[test]
    fn direntplus_puts_the_entry_first() {
        let mut room = [0; 160];
        let mut entry = EntryOut {
            nodeid: 42,
            ..EntryOut::default()
        };
        entry.attr.ino = 42;
        let mut writer = DirentWriter::new(&mut room);
        assert!(writer.direntplus(&entry, 5, 8, b"name"));
        assert_eq!(writer.used(), 160);
        assert_eq!(room[..128], *entry.as_bytes());
        assert_eq!(room[128..136], 42u64.to_ne_bytes());
        assert_eq!(room[152..156], *b"name");
    }
}
