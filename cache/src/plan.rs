//! From the layers of a written file to the steps that make the new object. Pure: nothing is sent
//! from here.
//!
//! S3 makes an object from parts, and a part is either sent or copied at the store from a range of
//! the version that the file is based on. A plan says which. The cheapest plan is taken: the one
//! that moves the fewest bytes and, of those, the one with the fewest requests. A byte that is sent
//! counts once, and twice if it belongs to the base, because it must be fetched first; what is
//! copied or was sent already moves nothing.
//!
//! There are at most three candidates:
//!
//! - one PUT, for files of up to one part, and for those of up to `put_max` bytes where that moves
//!   no more than parts do;
//! - the *grid*: an upload that was begun while the file was written is gone on with. Its parts
//!   stay where its layout has them. What the store has of it is kept, cells that lie wholly in the
//!   base are copied, neighbours together, and the others are sent;
//! - the *fresh* cut (`groups`): parts begin wherever that moves the fewest bytes. A part that was
//!   sent already counts here too if it happens to have the same number and extent.
//!
//! A store that copies no ranges is sent everything, in equal parts, which some stores (R2) insist
//! on. The limits are the store's ([`StoreLimits`]): the smallest part is 5 MiB but for the last
//! one, and numbers run to 10,000. A file whose changes are too scattered for so many parts is cut
//! more coarsely, which moves more bytes than the cheapest cut without that limit.

use crate::extent::Extent;
use crate::parts::{BegunUpload, PartLayout, StoreLimits};
use sizes::CutSizes;

mod groups;
mod sizes;
#[cfg(test)]
mod tests;

/// Where the bytes of a span come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanOrigin {
    /// They were written and are here.
    Written,
    /// They are the same bytes, at the same offset, of the version that the file is based on.
    Base,
    /// Nobody wrote them: a hole, or what growing the file added.
    Zeros,
}

/// One stretch of a file whose bytes have one origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSpan {
    /// Which bytes of the file.
    pub extent: Extent,
    /// Where they come from.
    pub origin: SpanOrigin,
}

/// What is to become an object, and what the store can do.
#[derive(Debug, Clone, Copy)]
pub struct PlanRequest<'a> {
    /// The file's size in bytes.
    pub size: u64,
    /// The file's bytes in order, without gaps, from 0 to `size`. Neighbours may have the same
    /// origin.
    pub spans: &'a [FileSpan],
    /// Parts that are sent have about this many bytes: less than the smallest part more, unless
    /// the object would have too many parts.
    pub part_size: u64,
    /// Objects of up to this many bytes may go in one PUT.
    pub put_max: u64,
    /// One copy takes at most this many bytes, unless the object would have too many parts or the
    /// upload under way has larger ones. At least two of the smallest parts.
    pub copy_max: u64,
    /// Whether the store copies ranges.
    pub copies: bool,
    /// What the store takes.
    pub limits: &'a StoreLimits,
    /// The upload that was created for this file already, if any.
    pub begun: Option<&'a BegunUpload>,
    /// Whether what was sent of it is kept nowhere else, so that it cannot be sent again: the upload is gone
    /// on with then, whatever that costs.
    pub keep_sent: bool,
}

/// How a file becomes an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishPlan {
    /// The whole object in one request. Base bytes in it are fetched.
    Put,
    /// A multipart upload: the one that was begun, or a new one.
    Multipart {
        /// All parts, in order.
        parts: Vec<PlannedPart>,
    },
}

/// One part of a [`PublishPlan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedPart {
    /// From 1, ascending; numbers may be left out.
    pub number: u32,
    /// The object's bytes that it holds.
    pub extent: Extent,
    /// What is to be done for it.
    pub step: PartStep,
}

/// How a part gets to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartStep {
    /// Its bytes are sent. Those that belong to the base are fetched first.
    Send,
    /// It lies wholly in the base and is copied at the store.
    Copy,
    /// The store has it: [`BegunUpload::sent`] holds its number with just this extent.
    Sent,
}

/// What a plan costs. The order is that of the fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct PlanCost {
    /// Bytes that are sent, and bytes that are fetched to be sent.
    moved: u64,
    /// How many requests send, copy, create and complete. Fetches are not counted.
    requests: u64,
}

/// The cheapest way to the object that `request` describes. `None` if the store takes none so
/// large.
///
/// # Panics
///
/// If the spans do not cover the file: a plan of those would publish other bytes than were written.
pub fn plan(request: &PlanRequest<'_>) -> Option<PublishPlan> {
    let base = base_bytes(request);
    let limits = request.limits;
    if request.size > limits.object_max {
        return None;
    }
    if request.keep_sent
        && let Some(parts) = grid(request)
    {
        return Some(PublishPlan::Multipart { parts });
    }
    if request.size <= limits.part_size(request.part_size) {
        return Some(PublishPlan::Put);
    }
    let puts = request.size <= request.put_max.min(limits.part_max);
    if puts && base == 0 {
        return Some(PublishPlan::Put);
    }
    let grid = grid(request);
    let fresh = fresh(request).map(|parts| with_sent(parts, request.begun));
    // The first of equals is taken, so an upload is rather gone on with than cut anew.
    let (cost, parts) = [grid, fresh]
        .into_iter()
        .flatten()
        .map(|parts| (price(&parts, request), parts))
        .min_by_key(|(cost, _)| *cost)?;
    let put_cost = PlanCost {
        moved: request.size + base,
        requests: 1,
    };
    Some(if puts && put_cost <= cost {
        PublishPlan::Put
    } else {
        PublishPlan::Multipart { parts }
    })
}

/// How many bytes of the file belong to the base.
fn base_bytes(request: &PlanRequest<'_>) -> u64 {
    let mut covered = 0;
    let mut base = 0;
    for span in request.spans {
        assert_eq!(span.extent.offset, covered, "the spans leave a gap");
        covered = span.extent.end();
        if span.origin == SpanOrigin::Base {
            base += span.extent.len;
        }
    }
    assert_eq!(covered, request.size, "the spans end elsewhere");
    base
}

/// The parts by which the upload under way is gone on with. `None` if nothing was sent of it, or
/// if it cannot hold the file.
fn grid(request: &PlanRequest<'_>) -> Option<Vec<PlannedPart>> {
    let fits = |begun: &&BegunUpload| (1..=begun.layout.reach()).contains(&request.size);
    let begun = request
        .begun
        .filter(fits)
        .filter(|begun| !begun.sent.is_empty())?;
    let copy_max = request.copy_max.min(request.limits.part_max);
    let mut base = BaseCursor::new(request.spans);
    let mut parts: Vec<PlannedPart> = Vec::new();
    for part in with_sent(cells(&begun.layout, request.size), Some(begun)) {
        let copied = request.copies
            && part.step == PartStep::Send
            && base.bytes_in(part.extent) == part.extent.len;
        match parts.last_mut() {
            Some(last)
                if copied
                    && last.step == PartStep::Copy
                    && last.extent.len + part.extent.len <= copy_max =>
            {
                last.extent.len += part.extent.len;
            }
            _ if copied => parts.push(PlannedPart {
                step: PartStep::Copy,
                ..part
            }),
            _ => parts.push(part),
        }
    }
    Some(parts)
}

/// The cheapest parts without regard to what was sent, numbered from 1 without gaps. `None` if the
/// store takes no object so large.
fn fresh(request: &PlanRequest<'_>) -> Option<Vec<PlannedPart>> {
    let (size, limits) = (request.size, request.limits);
    let layout = PartLayout::equal(size, request.part_size, limits)?;
    if request.copies {
        let mut sizes = CutSizes::first(request, &layout);
        while sizes.gap_min <= size {
            let parts = sizes.cut(size, &groups::cheapest(request.spans, size, &sizes));
            if parts.len() <= limits.parts_max as usize {
                return Some(parts);
            }
            sizes = sizes.doubled(limits);
        }
    }
    Some(cells(&layout, size))
}

/// The parts of `layout` that an object of `size` bytes has, all to be sent.
fn cells(layout: &PartLayout, size: u64) -> Vec<PlannedPart> {
    (1..=layout.number_at(size - 1))
        .map(|number| {
            let whole = layout.part(number);
            PlannedPart {
                number,
                extent: Extent::between(whole.offset, whole.end().min(size)),
                step: PartStep::Send,
            }
        })
        .collect()
}

/// `parts`, of which those that the store has need not be made again.
fn with_sent(mut parts: Vec<PlannedPart>, begun: Option<&BegunUpload>) -> Vec<PlannedPart> {
    let Some(begun) = begun else { return parts };
    for part in &mut parts {
        if begun.sent.get(&part.number) == Some(&part.extent) {
            part.step = PartStep::Sent;
        }
    }
    parts
}

/// What a multipart upload of `parts` costs.
fn price(parts: &[PlannedPart], request: &PlanRequest<'_>) -> PlanCost {
    let mut base = BaseCursor::new(request.spans);
    let mut cost = PlanCost {
        moved: 0,
        requests: 1 + u64::from(request.begun.is_none()),
    };
    for part in parts {
        match part.step {
            PartStep::Send => {
                cost.moved += part.extent.len + base.bytes_in(part.extent);
                cost.requests += 1;
            }
            PartStep::Copy => cost.requests += 1,
            PartStep::Sent => {}
        }
    }
    cost
}

/// Counts base bytes in extents that are asked for in order, in one walk over all spans.
struct BaseCursor<'a> {
    /// The first of them is the first that the next extent may touch.
    spans: &'a [FileSpan],
}

impl<'a> BaseCursor<'a> {
    fn new(spans: &'a [FileSpan]) -> Self {
        Self { spans }
    }

    /// How many bytes of `extent` belong to the base. It lies behind those that were asked for
    /// before.
    fn bytes_in(&mut self, extent: Extent) -> u64 {
        let over = |span: &FileSpan| span.extent.end() <= extent.offset;
        let passed = self.spans.iter().take_while(|span| over(span)).count();
        self.spans = &self.spans[passed..];
        self.spans
            .iter()
            .take_while(|span| span.extent.offset < extent.end())
            .filter(|span| span.origin == SpanOrigin::Base)
            .filter_map(|span| span.extent.intersect(extent))
            .map(|both| both.len)
            .sum()
    }
}
