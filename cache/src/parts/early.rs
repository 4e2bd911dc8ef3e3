//! Where a sequential writer is, and which part it has left behind for good, as far as one can tell.
//! Pure. Each number is proposed once between two publishes, so a writer that rewrites the file
//! again and again costs at most one early upload of it.

use super::PartLayout;
use crate::extent::Extent;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct EarlyParts {
    /// Where the present sequential run began.
    start: u64,
    /// The furthest end of a write in it.
    cursor: u64,
    /// The lowest number that was not proposed.
    next: u32,
    /// Up to here the writer has said that it pauses: a part that ends before need not be moved past.
    paused: u64,
    /// The writer waits for memory that only sent parts give back: one filled part is reason enough.
    short: bool,
    /// The store refused something: nothing is sent early until the next publish.
    pub(crate) off: bool,
    /// A task sends what is proposed.
    pub(crate) running: bool,
}

impl EarlyParts {
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

    /// The writer waits where it is, and goes on only when what it has filled is sent.
    pub(crate) fn paused_for_memory(&mut self) {
        self.paused();
        self.short = true;
    }

    /// A publish succeeded: what is written from now on belongs to a new upload.
    pub(crate) fn published(&mut self) {
        self.next = 0;
        self.paused = 0;
        self.short = false;
        self.off = false;
        self.start = self.cursor;
    }

    /// The next part that the writer has moved past by a part, or that it filled before it paused, if
    /// there is one.
    pub(crate) fn candidate(&self, layout: &PartLayout) -> Option<(u32, Extent)> {
        // A file of two parts goes in one request, so its parts are not sent on a mere pause.
        let least = layout.first_size() * if self.short { 1 } else { 2 };
        if self.off || self.cursor < least {
            return None;
        }
        // The first part that begins in the run.
        let at = layout.number_at(self.start);
        let begun = at + u32::from(layout.part(at).offset < self.start);
        let number = begun.max(self.next).max(1);
        let part = layout.part(number);
        let passed = part.end().saturating_add(part.len) <= self.cursor;
        let filled = part.end() <= self.paused && (self.short || self.paused > least);
        ((passed || filled) && !part.is_empty()).then_some((number, part))
    }

    /// That part will not be proposed again.
    pub(crate) fn proposed(&mut self, number: u32) {
        self.next = number + 1;
    }
}
