//! Which parts of a multipart upload the store has, and which a sequential writer may send early.
//! Pure.
//!
//! A part is sent, on its way, or neither. One number is never on its way twice: which of the two
//! the store would keep is not known. So a part that is dirtied on its way is *stale*: it is waited
//! for and then sent again.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::{Begun, Ladder};
use crate::extent::Extent;
use crate::object::Key;
use crate::store::{Metadata, Part, UploadId};

#[derive(Debug)]
enum Progress {
    Sending { stale: bool },
    Sent(Part),
}

/// A multipart upload under way.
#[derive(Debug)]
pub(crate) struct Upload {
    /// The store's name of it.
    pub(crate) id: UploadId,
    /// What it will make.
    pub(crate) key: Key,
    /// What it was created with; S3 takes no other at completion.
    pub(crate) metadata: Metadata,
    /// How it is cut.
    pub(crate) ladder: Ladder,
    parts: BTreeMap<u32, Progress>,
}

/// What became of asking to send a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is the caller's to send.
    Yours,
    /// The store has it as it is now.
    Sent,
    /// Somebody sends it already.
    Busy,
}

impl Upload {
    /// One that has no parts yet.
    pub(crate) fn new(id: UploadId, key: Key, metadata: Metadata, ladder: Ladder) -> Self {
        Self {
            id,
            key,
            metadata,
            ladder,
            parts: BTreeMap::new(),
        }
    }

    /// The numbers of the parts that `extent` touches, of those that were begun.
    fn numbers(&self, extent: Extent) -> RangeInclusive<u32> {
        let last = extent.end().saturating_sub(1).max(extent.offset);
        // A cut reaches to the end of all offsets; there are no parts beyond those known.
        let known = self.parts.keys().next_back().copied().unwrap_or(0);
        self.ladder.number_at(extent.offset)..=self.ladder.number_at(last).min(known)
    }

    /// Bytes in `extent` changed: the parts there are not right any more.
    pub(crate) fn dirtied(&mut self, extent: Extent) {
        for number in self.numbers(extent) {
            self.dirtied_part(number);
        }
    }

    fn dirtied_part(&mut self, number: u32) {
        match self.parts.get_mut(&number) {
            Some(Progress::Sending { stale }) => *stale = true,
            Some(Progress::Sent(_)) => {
                self.parts.remove(&number);
            }
            None => {}
        }
    }

    /// Asks to send part `number`, which has `size` bytes.
    pub(crate) fn claim(&mut self, number: u32, size: u64) -> Claim {
        match self.parts.get(&number) {
            Some(Progress::Sending { .. }) => return Claim::Busy,
            Some(Progress::Sent(part)) if part.size == size => return Claim::Sent,
            _ => {}
        }
        self.parts
            .insert(number, Progress::Sending { stale: false });
        Claim::Yours
    }

    /// A part that was on its way is there now, or is not.
    pub(crate) fn settle(&mut self, number: u32, part: Option<Part>) {
        let stale = match self.parts.get(&number) {
            Some(Progress::Sending { stale }) => *stale,
            _ => return,
        };
        match part.filter(|_| !stale) {
            Some(part) => self.parts.insert(number, Progress::Sent(part)),
            None => self.parts.remove(&number),
        };
    }

    /// Whether any part is on its way.
    pub(crate) fn is_busy(&self) -> bool {
        self.parts
            .values()
            .any(|part| matches!(part, Progress::Sending { .. }))
    }

    /// The end of the last part that is there or on its way.
    pub(crate) fn reached(&self) -> u64 {
        let last = self.parts.keys().next_back();
        last.map_or(0, |&number| self.ladder.part(number).end())
    }

    /// What the plan wants to know of it.
    pub(crate) fn begun(&self) -> Begun {
        let sent = self.parts.iter().filter_map(|(number, part)| match part {
            Progress::Sent(part) => Some((*number, part.size)),
            Progress::Sending { .. } => None,
        });
        Begun {
            ladder: self.ladder,
            sent: sent.collect(),
        }
    }

    /// Parts 1 to `last`, if all are there.
    pub(crate) fn all(&self, last: u32) -> Option<Vec<Part>> {
        (1..=last)
            .map(|number| match self.parts.get(&number) {
                Some(Progress::Sent(part)) => Some(part.clone()),
                _ => None,
            })
            .collect()
    }
}

/// Watches where a writer writes and says which part it has left behind for good, as far as one can
/// tell. Each number is proposed once between two publishes, so a writer that rewrites the file
/// again and again costs at most one early upload of it.
#[derive(Debug, Default)]
pub(crate) struct Early {
    /// Where the present sequential run began.
    start: u64,
    /// The furthest end of a write in it.
    cursor: u64,
    /// The lowest number that was not proposed.
    next: u32,
    /// Up to here the writer has said that it pauses: a part that ends before need not be moved past.
    paused: u64,
    /// The store refused something: nothing is sent early until the next publish.
    pub(crate) off: bool,
    /// A task sends what is proposed.
    pub(crate) running: bool,
}

impl Early {
    /// Notes a write to `extent`. Writes within `slack` bytes of the cursor belong to the run:
    /// several of one writer may arrive out of order.
    pub(crate) fn wrote(&mut self, extent: Extent, slack: u64) {
        if extent.offset.abs_diff(self.cursor) <= slack {
            self.start = self.start.min(extent.offset);
            self.cursor = self.cursor.max(extent.end());
        } else {
            self.start = extent.offset;
            self.cursor = extent.end();
        }
    }

    /// The file was cut.
    pub(crate) fn cut(&mut self, size: u64) {
        self.cursor = self.cursor.min(size);
        self.start = self.start.min(size);
        self.paused = self.paused.min(size);
    }

    /// The writer pauses where it is.
    pub(crate) fn paused(&mut self) {
        self.paused = self.cursor;
    }

    /// A publish succeeded: what is written from now on belongs to a new upload.
    pub(crate) fn published(&mut self) {
        self.next = 0;
        self.paused = 0;
        self.off = false;
        self.start = self.cursor;
    }

    /// The next part that the writer has moved past by a part, or that it filled before it paused, if
    /// there is one.
    pub(crate) fn candidate(&self, ladder: &Ladder) -> Option<(u32, Extent)> {
        if self.off || self.cursor < 2 * ladder.first_size() {
            return None;
        }
        // The first part that begins in the run.
        let at = ladder.number_at(self.start);
        let begun = at + u32::from(ladder.part(at).offset < self.start);
        let number = begun.max(self.next).max(1);
        let part = ladder.part(number);
        let passed = part.end().saturating_add(part.len) <= self.cursor;
        // A file of two parts goes in one request, so its parts are not sent on a mere pause.
        let filled = part.end() <= self.paused && self.paused > 2 * ladder.first_size();
        ((passed || filled) && !part.is_empty()).then_some((number, part))
    }

    /// That part will not be proposed again.
    pub(crate) fn proposed(&mut self, number: u32) {
        self.next = number + 1;
    }
}
