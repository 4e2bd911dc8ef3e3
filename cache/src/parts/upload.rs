//! Which parts of a multipart upload the store has. Pure.
//!
//! A part is there, on its way, or neither. One number is never on its way twice: which of the two
//! the store would keep is not known. So a part that is dirtied on its way is *stale*: it is waited
//! for and then sent again.
//!
//! The parts of an upload follow its layout while the file is written; the publish may cut what is
//! left otherwise. So each part is known by its number and its extent. What an upload holds beside
//! the parts that its completion names is thrown away by the store.

use std::collections::BTreeMap;

use super::{BegunUpload, PartLayout};
use crate::extent::Extent;
use crate::object::Key;
use crate::store::{Metadata, Part, UploadId};

#[derive(Debug)]
enum Transfer {
    Sending { stale: bool },
    Done(Part),
}

/// A multipart upload under way.
#[derive(Debug)]
pub(crate) struct MultipartUpload {
    /// The store's name of it.
    pub(crate) id: UploadId,
    /// What it will make.
    pub(crate) key: Key,
    /// What it was created with; S3 takes no other at completion.
    pub(crate) metadata: Metadata,
    /// How it is cut while the size is not known.
    pub(crate) layout: PartLayout,
    parts: BTreeMap<u32, (Extent, Transfer)>,
    /// The end of the last byte that was begun to be sent.
    reached: u64,
}

/// What became of asking to send a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartClaim {
    /// It is the caller's to send.
    Yours,
    /// The store has it as it is now.
    Sent,
    /// Somebody sends it already.
    Busy,
}

impl MultipartUpload {
    /// One that has no parts yet.
    pub(crate) fn new(id: UploadId, key: Key, metadata: Metadata, layout: PartLayout) -> Self {
        Self {
            id,
            key,
            metadata,
            layout,
            parts: BTreeMap::new(),
            reached: 0,
        }
    }

    /// Bytes in `extent` changed: the parts that hold some of them are not right any more.
    pub(crate) fn dirtied(&mut self, extent: Extent) {
        // Numbers and offsets rise together, but for what an earlier plan left behind: so all are
        // looked at, unless the change lies beyond them, as a sequential writer's does.
        if extent.offset >= self.reached {
            return;
        }
        self.parts.retain(|_, (part, transfer)| {
            if part.intersect(extent).is_none() {
                return true;
            }
            match transfer {
                Transfer::Sending { stale } => {
                    *stale = true;
                    true
                }
                Transfer::Done(_) => false,
            }
        });
    }

    /// Asks to send part `number`, which holds `extent`.
    pub(crate) fn claim(&mut self, number: u32, extent: Extent) -> PartClaim {
        match self.parts.get(&number) {
            Some((_, Transfer::Sending { .. })) => return PartClaim::Busy,
            Some((part, Transfer::Done(_))) if *part == extent => return PartClaim::Sent,
            _ => {}
        }
        let sending = Transfer::Sending { stale: false };
        self.parts.insert(number, (extent, sending));
        self.reached = self.reached.max(extent.end());
        PartClaim::Yours
    }

    /// A part that was on its way is there now, or is not.
    pub(crate) fn settle(&mut self, number: u32, part: Option<Part>) {
        let Some((_, transfer)) = self.parts.get_mut(&number) else {
            return;
        };
        let Transfer::Sending { stale } = *transfer else {
            return;
        };
        match part.filter(|_| !stale) {
            Some(part) => *transfer = Transfer::Done(part),
            None => {
                self.parts.remove(&number);
            }
        }
    }

    /// Whether any part is on its way.
    pub(crate) fn is_busy(&self) -> bool {
        let mut parts = self.parts.values();
        parts.any(|(_, transfer)| matches!(transfer, Transfer::Sending { .. }))
    }

    /// The end of the last part that is there or on its way.
    pub(crate) fn reached(&self) -> u64 {
        self.reached
    }

    /// The parts that hold some of `extent`, from the first byte to the last.
    pub(crate) fn touched(&self, extent: Extent) -> Option<Extent> {
        if extent.offset >= self.reached {
            return None;
        }
        let parts = self.parts.values().map(|(part, _)| *part);
        let touched = parts.filter(|part| part.intersect(extent).is_some());
        touched.reduce(|all, part| {
            Extent::between(all.offset.min(part.offset), all.end().max(part.end()))
        })
    }

    /// Whether all of `extent` is in parts that are there.
    pub(crate) fn holds(&self, extent: Extent) -> bool {
        let mut at = extent.offset;
        while at < extent.end() {
            let number = self.layout.number_at(at);
            match self.parts.get(&number) {
                Some((part, Transfer::Done(_))) if part.contains(Extent::new(at, 1)) => {
                    at = part.end();
                }
                _ => return false,
            }
        }
        true
    }

    /// What the plan wants to know of it.
    pub(crate) fn begun(&self) -> BegunUpload {
        let there = self
            .parts
            .iter()
            .filter_map(|(number, (extent, transfer))| {
                matches!(transfer, Transfer::Done(_)).then_some((*number, *extent))
            });
        BegunUpload {
            layout: self.layout,
            sent: there.collect(),
        }
    }

    /// The parts of these numbers and extents, if all are there.
    pub(crate) fn all(&self, parts: impl Iterator<Item = (u32, Extent)>) -> Option<Vec<Part>> {
        let part = |(number, extent)| match self.parts.get(&number) {
            Some((here, Transfer::Done(part))) if *here == extent => Some(part.clone()),
            _ => None,
        };
        parts.map(part).collect()
    }
}
