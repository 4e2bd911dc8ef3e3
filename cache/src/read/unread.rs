//! Fills that hold unread bytes, oldest first, each with the record that it belongs to: where memory
//! is looked for when somebody waits for it.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::fill::Fill;
use super::record::ObjectRecord;

/// See the module. Some of them may be over. The lock comes before that of the table of records and before
/// a fill's.
#[derive(Debug, Default)]
pub(super) struct UnreadFills(Mutex<VecDeque<UnreadFill>>);

#[derive(Debug)]
struct UnreadFill {
    record: Weak<ObjectRecord>,
    fill: Weak<Fill>,
}

impl UnreadFill {
    /// `None` if it is over. Its record lives as long as a stream that may still read of it.
    fn live(&self) -> Option<(Arc<ObjectRecord>, Arc<Fill>)> {
        let fill = self.fill.upgrade().filter(|fill| !fill.is_over())?;
        Some((self.record.upgrade()?, fill))
    }
}

impl UnreadFills {
    /// Adds the newest.
    pub(super) fn push(&self, record: &Arc<ObjectRecord>, fill: &Arc<Fill>) {
        let mut all = self.0.lock();
        if all.len() % 256 == 255 {
            all.retain(|unread| unread.live().is_some());
        }
        all.push_back(UnreadFill {
            record: Arc::downgrade(record),
            fill: Arc::downgrade(fill),
        });
    }

    /// The oldest that is not over.
    pub(super) fn oldest(&self) -> Option<(Arc<ObjectRecord>, Arc<Fill>)> {
        let mut all = self.0.lock();
        while let Some(unread) = all.front() {
            if let Some(live) = unread.live() {
                return Some(live);
            }
            all.pop_front();
        }
        None
    }

    /// Takes out the oldest that is not over.
    pub(super) fn pop_oldest(&self) -> Option<(Arc<ObjectRecord>, Arc<Fill>)> {
        let mut all = self.0.lock();
        while let Some(unread) = all.pop_front() {
            if let Some(live) = unread.live() {
                return Some(live);
            }
        }
        None
    }
}
