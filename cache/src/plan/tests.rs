use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;

const SMALL: StoreLimits = StoreLimits {
    part_min: 4,
    part_max: 100,
    parts_max: 30,
    object_max: 3000,
};

/// The spans of a file: `(length, origin)` in order.
fn spans(lengths: &[(u64, SpanOrigin)]) -> Vec<FileSpan> {
    let mut offset = 0;
    lengths
        .iter()
        .map(|&(len, origin)| {
            let extent = Extent::new(offset, len);
            offset += len;
            FileSpan { extent, origin }
        })
        .collect()
}

/// The spans of a file of `size` bytes that is as its base but for the `written` extents, which lie
/// in order.
fn overwritten(size: u64, written: &[Extent]) -> Vec<FileSpan> {
    let mut lengths = Vec::new();
    let mut at = 0;
    for extent in written {
        lengths.push((extent.offset - at, SpanOrigin::Base));
        lengths.push((extent.len, SpanOrigin::Written));
        at = extent.end();
    }
    lengths.push((size - at, SpanOrigin::Base));
    spans(&lengths)
}

/// What this gateway asks of S3.
fn on_s3(spans: &[FileSpan]) -> PlanRequest<'_> {
    PlanRequest {
        size: spans.last().map_or(0, |span| span.extent.end()),
        spans,
        part_size: 8 * MIB,
        put_max: 16 * MIB,
        copy_max: 256 * MIB,
        copies: true,
        limits: &StoreLimits::S3,
        begun: None,
        keep_sent: false,
    }
}

fn small(spans: &[FileSpan], part_size: u64) -> PlanRequest<'_> {
    PlanRequest {
        part_size,
        put_max: 2 * part_size,
        copy_max: 20,
        limits: &SMALL,
        ..on_s3(spans)
    }
}

fn base_in(spans: &[FileSpan], extent: Extent) -> u64 {
    let first = spans.partition_point(|span| span.extent.end() <= extent.offset);
    let after = spans.partition_point(|span| span.extent.offset < extent.end());
    spans[first.min(after)..after]
        .iter()
        .filter(|span| span.origin == SpanOrigin::Base)
        .filter_map(|span| span.extent.intersect(extent))
        .map(|both| both.len)
        .sum()
}

fn parts_of(request: &PlanRequest<'_>) -> Vec<PlannedPart> {
    match plan(request).expect("the store takes such an object") {
        PublishPlan::Put => panic!("not in parts"),
        PublishPlan::Multipart { parts } => parts,
    }
}

/// The bytes that a plan sends, those that it fetches, and how many parts it makes of each kind.
#[derive(Debug, Default, PartialEq, Eq)]
struct Figures {
    sent: u64,
    fetched: u64,
    sends: usize,
    copies: usize,
}

fn figures(request: &PlanRequest<'_>) -> Figures {
    let mut figures = Figures::default();
    for part in parts_of(request) {
        match part.step {
            PartStep::Send => {
                figures.sends += 1;
                figures.sent += part.extent.len;
                figures.fetched += base_in(request.spans, part.extent);
            }
            PartStep::Copy => figures.copies += 1,
            PartStep::Sent => {}
        }
    }
    figures
}

/// Checks that the store would take the plan and make the right object of it, and gives its cost.
fn check(request: &PlanRequest<'_>) -> PlanCost {
    let limits = request.limits;
    let plan = plan(request).expect("the store takes such an object");
    let PublishPlan::Multipart { parts } = plan else {
        let one_part = limits.part_size(request.part_size);
        assert!(request.size <= request.put_max.max(one_part));
        let base = base_in(request.spans, Extent::new(0, request.size));
        return PlanCost {
            moved: request.size + base,
            requests: 1,
        };
    };
    let mut cost = PlanCost {
        moved: 0,
        requests: 1 + u64::from(request.begun.is_none()),
    };
    let mut offset = 0;
    let mut number = 0;
    for part in &parts {
        assert!(part.number > number, "{parts:?}");
        assert_eq!(part.extent.offset, offset, "{parts:?}");
        offset = part.extent.end();
        number = part.number;
        let last = offset == request.size;
        let least = if last { 1 } else { limits.part_min };
        assert!(
            (least..=limits.part_max).contains(&part.extent.len),
            "{parts:?}"
        );
        let base = base_in(request.spans, part.extent);
        match part.step {
            PartStep::Send => {
                cost.moved += part.extent.len + base;
                cost.requests += 1;
            }
            PartStep::Copy => {
                assert_eq!(base, part.extent.len, "{parts:?}");
                cost.requests += 1;
            }
            PartStep::Sent => {
                let sent = &request.begun.expect("one was begun").sent;
                assert_eq!(sent.get(&part.number), Some(&part.extent));
            }
        }
    }
    assert_eq!(offset, request.size);
    assert!(number <= limits.parts_max);
    cost
}

/// The least cost of a multipart upload that nothing was sent of, over all cuts at all bytes: a
/// prefix of the object ends with a stretch that is sent or with one that is copied, and these take
/// turns.
fn brute_force(request: &PlanRequest<'_>) -> PlanCost {
    let (size, limits) = (request.size, request.limits);
    let part = limits.part_size(request.part_size);
    let base_before: Vec<u64> = (0..=size)
        .map(|end| base_in(request.spans, Extent::new(0, end)))
        .collect();
    // By prefix, the best that ends with a stretch that is sent, and with one that is copied.
    let mut best = vec![[None::<PlanCost>; 2]; size as usize + 1];
    best[0] = [Some(PlanCost::default()); 2];
    for end in 1..=size {
        for start in 0..end {
            let len = end - start;
            if len < limits.part_min && end < size {
                continue;
            }
            let base = base_before[end as usize] - base_before[start as usize];
            let tail = len % part;
            let joins = tail < limits.part_min && end < size && len > part;
            let parts = if joins {
                len / part
            } else {
                len.div_ceil(part)
            };
            let sent = (0, len + base, parts);
            let copied = (1, 0, len.div_ceil(request.copy_max));
            for (kind, moved, requests) in [sent, copied] {
                if kind == 1 && base < len {
                    continue;
                }
                let Some(before) = best[start as usize][1 - kind] else {
                    continue;
                };
                let cost = PlanCost {
                    moved: before.moved + moved,
                    requests: before.requests + requests,
                };
                let place = &mut best[end as usize][kind];
                *place = Some(place.map_or(cost, |place| place.min(cost)));
            }
        }
    }
    let cost = best[size as usize].into_iter().flatten().min().unwrap();
    PlanCost {
        requests: cost.requests + 1 + u64::from(request.begun.is_none()),
        ..cost
    }
}

fn origins() -> impl Strategy<Value = SpanOrigin> {
    prop_oneof![
        2 => Just(SpanOrigin::Base),
        1 => Just(SpanOrigin::Written),
        1 => Just(SpanOrigin::Zeros),
    ]
}

/// The lengths and origins of up to `count` spans, where gaps are longer than what is written.
fn files(len_max: u64, count: usize) -> impl Strategy<Value = Vec<(u64, SpanOrigin)>> {
    let span = (1..=len_max, origins()).prop_map(move |(len, origin)| match origin {
        SpanOrigin::Base => (len, origin),
        _ => (len.div_ceil(3), origin),
    });
    prop::collection::vec(span, 0..=count)
}

/// The lengths of short runs and of gaps that are just long enough to be copied, alone or in one
/// copy less.
fn alternating() -> impl Strategy<Value = Vec<(u64, SpanOrigin)>> {
    let gap = prop_oneof![4..=7u64, 4..=5u64, 8..=13u64, 16..=22u64];
    let pair = (1..=5u64, gap)
        .prop_map(|(written, gap)| [(written, SpanOrigin::Written), (gap, SpanOrigin::Base)]);
    prop::collection::vec(pair, 1..12).prop_map(|pairs| pairs.concat())
}

fn begun(part_size: u64, limits: &StoreLimits, sent: &[u32]) -> BegunUpload {
    let layout = PartLayout::growing(part_size, limits);
    let sent = sent.iter().map(|&number| (number, layout.part(number)));
    BegunUpload {
        layout,
        sent: sent.collect(),
    }
}

proptest! {
    /// No cut at all moves fewer bytes, and none that moves as many makes fewer requests.
    #[test]
    fn no_cut_of_a_small_object_is_cheaper(
        lengths in files(12, 8),
        part_size in 4..=12u64,
        put_parts in 0..=4u64,
    ) {
        let spans = spans(&lengths);
        let request = PlanRequest { put_max: put_parts * part_size, ..small(&spans, part_size) };
        let cost = check(&request);
        let base = base_in(&spans, Extent::new(0, request.size));
        let put = PlanCost { moved: request.size + base, requests: 1 };
        if request.size <= part_size || base == 0 && request.size <= request.put_max {
            prop_assert_eq!(cost, put);
        } else if request.size <= request.put_max {
            prop_assert_eq!(cost, put.min(brute_force(&request)));
        } else {
            prop_assert_eq!(cost, brute_force(&request));
        }
    }

    /// The same for longer objects, where padding of one group takes from the next, and copies are
    /// just above or just below their bound.
    #[test]
    fn no_cut_of_an_object_of_many_runs_is_cheaper(
        lengths in prop_oneof![files(25, 10), files(9, 20), alternating()],
        part_size in 4..=12u64,
        copy_max in 8..=10u64,
    ) {
        let limits = StoreLimits { parts_max: 1000, ..SMALL };
        let spans = spans(&lengths);
        let request = PlanRequest {
            put_max: 0,
            copy_max,
            limits: &limits,
            ..small(&spans, part_size)
        };
        let cost = check(&request);
        if request.size > part_size {
            prop_assert_eq!(cost, brute_force(&request));
        }
    }

    /// An upload under way is never dearer than one that would begin now, nor than to go on with
    /// it without a copy.
    #[test]
    fn what_was_sent_makes_no_plan_dearer(
        lengths in files(25, 10),
        part_size in 4..=12u64,
        sent in prop::collection::btree_set(1..=12u32, 0..6),
        copies in any::<bool>(),
    ) {
        let spans = spans(&lengths);
        let sent: Vec<u32> = sent.into_iter().collect();
        let begun = begun(part_size, &SMALL, &sent);
        let anew = PlanRequest { copies, put_max: 0, ..small(&spans, part_size) };
        let request = PlanRequest { begun: Some(&begun), ..anew };
        let cost = check(&request);
        prop_assert!(cost <= check(&anew));
        if request.size > part_size {
            let all = with_sent(cells(&begun.layout, request.size), Some(&begun));
            prop_assert!(sent.is_empty() || cost <= price(&all, &request));
        }
    }

    /// However scattered the changes, there are not too many parts.
    #[test]
    fn parts_are_never_too_many(lengths in files(12, 400), part_size in 4..=12u64) {
        let spans = spans(&lengths);
        check(&small(&spans, part_size));
    }

    /// Every byte is in exactly one part, in order; S3's limits hold for every size that S3 takes
    /// and for every part size, whether the upload was begun early or not.
    #[test]
    fn parts_cover_every_byte_once_within_the_limits(
        size in prop_oneof![0..=64u64 << 20, 0..=5u64 << 40],
        part_size in prop_oneof![0..=64u64 << 20, 0..=8u64 << 30],
        origin in origins(),
        early in any::<bool>(),
        copies in any::<bool>(),
    ) {
        let begun = begun(part_size, &StoreLimits::S3, &[1, 3, 5001]);
        let spans = spans(&[(size, origin)]);
        check(&PlanRequest {
            part_size,
            copies,
            begun: early.then_some(&begun),
            keep_sent: false,
            ..on_s3(&spans)
        });
    }

    /// The same where spans begin and end next to S3's bounds.
    #[test]
    fn spans_around_the_limits_of_s3_become_valid_parts(
        lengths in prop::collection::vec((
            prop::sample::select(vec![0, 5 * MIB, 8 * MIB, 13 * MIB, 256 * MIB, 5 << 30]),
            -2..=2i64,
            origins(),
        ), 1..8),
        sent in prop::collection::btree_set(1..=40u32, 0..6),
    ) {
        let lengths: Vec<_> = lengths
            .into_iter()
            .map(|(len, off, origin)| (len.saturating_add_signed(off), origin))
            .collect();
        let spans = spans(&lengths);
        let sent: Vec<u32> = sent.into_iter().collect();
        let begun = begun(8 * MIB, &StoreLimits::S3, &sent);
        let request = on_s3(&spans);
        let cost = check(&request);
        let all = request.size + base_in(&spans, Extent::new(0, request.size));
        prop_assert!(cost.moved <= all);
        let anew = (request.size > 0).then(|| fresh(&request).unwrap());
        for part in anew.into_iter().flatten() {
            let most = if part.step == PartStep::Send { 13 * MIB } else { 256 * MIB };
            prop_assert!(part.extent.len <= most.max(request.size.div_ceil(5000)));
        }
        check(&PlanRequest { begun: Some(&begun), ..request });
        check(&PlanRequest { begun: Some(&begun), copies: false, ..request });
    }
}

#[test]
fn an_append_copies_the_old_bytes_and_sends_the_new() {
    let spans = spans(&[(512 * MIB, SpanOrigin::Base), (4096, SpanOrigin::Written)]);
    let expected = Figures {
        sent: 4096,
        fetched: 0,
        sends: 1,
        copies: 2,
    };
    assert_eq!(figures(&on_s3(&spans)), expected);
}

#[test]
fn an_overwrite_moves_one_smallest_part_at_each_place() {
    let written = [Extent::new(0, 100), Extent::new(256 * MIB, 5000)];
    let spans = overwritten(512 * MIB, &written);
    let expected = Figures {
        sent: 10 * MIB,
        fetched: 10 * MIB - 5100,
        sends: 2,
        copies: 2,
    };
    assert_eq!(figures(&on_s3(&spans)), expected);
}

#[test]
fn a_file_cut_to_half_is_only_copied() {
    let spans = spans(&[(256 * MIB, SpanOrigin::Base)]);
    let copies = Figures {
        copies: 1,
        ..Figures::default()
    };
    assert_eq!(figures(&on_s3(&spans)), copies);
}

#[test]
fn growing_sends_only_the_zeros() {
    let spans = spans(&[(512 * MIB, SpanOrigin::Base), (64 * MIB, SpanOrigin::Zeros)]);
    let expected = Figures {
        sent: 64 * MIB,
        fetched: 0,
        sends: 8,
        copies: 2,
    };
    assert_eq!(figures(&on_s3(&spans)), expected);
}

#[test]
fn random_writes_move_little_more_than_the_parts_they_touch() {
    let size = 512 * MIB;
    let mut seed = 12u64;
    let mut written = BTreeMap::new();
    while written.len() < 200 {
        // Knuth's MMIX generator: the same writes in every run.
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let block = (seed >> 33) % (size / 4096);
        written.insert(block, Extent::new(block * 4096, 4096));
    }
    let written: Vec<Extent> = written.into_values().collect();
    let mut touched: Vec<u64> = written
        .iter()
        .map(|extent| extent.offset / (5 * MIB))
        .collect();
    touched.dedup();
    let touched = touched.len() as u64 * 5 * MIB;
    let spans = overwritten(size, &written);
    let figures = figures(&on_s3(&spans));
    println!("{touched} bytes touched, {figures:?}");
    assert!(figures.sent * 10 < touched * 11);
    assert!(figures.fetched < figures.sent);
}

#[test]
fn an_object_of_too_many_changes_is_cut_more_coarsely() {
    let written: Vec<Extent> = (0..100_000)
        .map(|index| Extent::new(index * 20 * MIB, 4096))
        .collect();
    let spans = overwritten(2 << 40, &written);
    check(&on_s3(&spans));
    // All of it is copied but the last bytes, though 10,000 copies of 256 MiB are 2.4 TiB.
    let lengths = [((5 << 40) - 1, SpanOrigin::Base), (1, SpanOrigin::Written)];
    let spans = self::spans(&lengths);
    check(&on_s3(&spans));
    assert_eq!(figures(&on_s3(&spans)).sent, 1);
}

#[test]
fn a_part_whose_size_differs_is_sent_again() {
    let spans = spans(&[(10, SpanOrigin::Written)]);
    let begun = BegunUpload {
        layout: PartLayout::growing(4, &SMALL),
        sent: BTreeMap::from([(1, Extent::new(0, 4)), (2, Extent::new(4, 3))]),
    };
    let request = PlanRequest {
        put_max: 4,
        begun: Some(&begun),
        keep_sent: false,
        ..small(&spans, 4)
    };
    let steps: Vec<PartStep> = parts_of(&request).iter().map(|part| part.step).collect();
    assert_eq!(steps, [PartStep::Sent, PartStep::Send, PartStep::Send]);
}

/// Cells that lie in the base are copied together under the number of the first of them.
#[test]
fn an_upload_under_way_copies_the_cells_nobody_wrote() {
    let spans = spans(&[
        (8, SpanOrigin::Written),
        (18, SpanOrigin::Base),
        (6, SpanOrigin::Written),
    ]);
    let begun = begun(4, &SMALL, &[1, 2, 8]);
    let request = PlanRequest {
        begun: Some(&begun),
        keep_sent: false,
        copy_max: 8,
        ..small(&spans, 4)
    };
    let parts: Vec<_> = parts_of(&request)
        .iter()
        .map(|part| (part.number, part.extent.len, part.step))
        .collect();
    let expected = [
        (1, 4, PartStep::Sent),
        (2, 4, PartStep::Sent),
        (3, 8, PartStep::Copy),
        (5, 8, PartStep::Copy),
        (7, 4, PartStep::Send),
        (8, 4, PartStep::Sent),
    ];
    assert_eq!(parts, expected);
}

/// Nothing moves here but what the fresh cut moves, and the store has its first part already.
#[test]
fn a_fresh_cut_counts_a_part_that_was_sent() {
    let spans = spans(&[
        (8, SpanOrigin::Written),
        (21, SpanOrigin::Base),
        (8, SpanOrigin::Written),
    ]);
    let begun = begun(8, &SMALL, &[1]);
    let request = PlanRequest {
        begun: Some(&begun),
        keep_sent: false,
        ..small(&spans, 8)
    };
    let steps: Vec<PartStep> = parts_of(&request).iter().map(|part| part.step).collect();
    let expected = [
        PartStep::Sent,
        PartStep::Copy,
        PartStep::Copy,
        PartStep::Send,
    ];
    assert_eq!(steps, expected);
}

#[test]
fn a_store_that_copies_no_ranges_gets_equal_parts() {
    let lengths = [(100 * MIB, SpanOrigin::Base), (10, SpanOrigin::Written)];
    let spans = spans(&lengths);
    let request = PlanRequest {
        copies: false,
        ..on_s3(&spans)
    };
    let parts = parts_of(&request);
    assert!(parts.iter().all(|part| part.step == PartStep::Send));
    let (last, others) = parts.split_last().unwrap();
    assert!(others.iter().all(|part| part.extent.len == 8 * MIB));
    assert_eq!(last.extent.len, 4 * MIB + 10);
}

#[test]
fn an_object_past_the_limit_has_no_plan() {
    let spans = spans(&[((5 << 40) + 1, SpanOrigin::Base)]);
    assert_eq!(plan(&on_s3(&spans)), None);
}

#[test]
#[should_panic(expected = "the spans end elsewhere")]
fn spans_that_miss_bytes_are_refused() {
    let spans = spans(&[(10, SpanOrigin::Base)]);
    plan(&PlanRequest {
        size: 11,
        ..on_s3(&spans)
    });
}
