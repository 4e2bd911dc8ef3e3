//! Readahead's decisions: named cases, and bounds under any sequence of accesses.

use proptest::prelude::*;

use super::limits::SLACK;
use super::run::BACKWARD_MAX;
use super::*;

const MIB: u64 = 1 << 20;
const LIMITS: ReadaheadLimits = ReadaheadLimits {
    unit: UNIT,
    ahead_max: 64 * MIB,
};

fn access(pattern: &mut Pattern, offset: u64, len: u64) -> ReadPlan {
    pattern.access(Extent::new(offset, len), LIMITS)
}

#[test]
fn a_first_read_at_the_start_fetches_a_mib_beyond() {
    let mut pattern = Pattern::new(1 << 30);
    let plan = access(&mut pattern, 0, 128 << 10);
    assert_eq!(plan.ahead, [Extent::new(0, MIB + (128 << 10))]);
}

#[test]
fn a_small_object_is_fetched_whole() {
    let mut pattern = Pattern::new(MIB);
    assert_eq!(access(&mut pattern, 4096, 10).demand, Extent::new(0, MIB));
}

#[test]
fn random_reads_fetch_their_own_pages_only() {
    let mut pattern = Pattern::new(1 << 30);
    for step in 1..5000u64 {
        let offset = (step * 0x9E37_79B9 * 4096 + 77) % (1 << 30);
        let plan = access(&mut pattern, offset, 100);
        assert_eq!(plan.ahead, []);
        let first = offset / 4096 * 4096;
        let pages = (offset + 100).div_ceil(4096) - offset / 4096;
        assert_eq!(plan.demand, Extent::new(first, pages * 4096));
    }
}

#[test]
fn a_steady_reader_never_meets_what_was_not_begun() {
    for (from, len) in [
        (0, 4096),
        (0, MIB),
        (300 * MIB, 128 << 10),
        (4096 * 7, 5000),
    ] {
        let mut pattern = Pattern::new(1 << 30);
        let mut begun = from;
        for step in 0..(400 * MIB / len) {
            let at = from + step * len;
            if step > 1 {
                assert!(begun >= at + len, "dry at {at} of {from} by {len}");
            }
            for extent in access(&mut pattern, at, len).ahead {
                assert!(extent.offset <= begun.max(at));
                begun = extent.end();
            }
            assert!(begun <= at + len + 64 * MIB + 4096);
        }
    }
}

#[test]
fn a_long_reader_fetches_whole_units() {
    let mut pattern = Pattern::new(1 << 30);
    for step in 0..1024 {
        for extent in access(&mut pattern, step * MIB, MIB).ahead {
            if step > 100 {
                assert_eq!((extent.offset % UNIT, extent.len), (0, UNIT));
            }
        }
    }
}

#[test]
fn accesses_out_of_order_continue_the_run() {
    let mut pattern = Pattern::new(1 << 30);
    let len = 128 << 10;
    let mut begun = 0;
    for step in 0..2000u64 {
        // Four at a time, the kernel's readahead from two threads.
        let at = (step / 4 * 4 + [2, 0, 3, 1][step as usize % 4]) * len;
        let plan = access(&mut pattern, at, len);
        if step > 8 {
            assert!(begun >= at + len);
        }
        begun = plan.ahead.last().map_or(begun, Extent::end);
    }
    assert!(begun > 250 * MIB);
}

#[test]
fn a_backward_reader_is_fetched_for_backward() {
    let mut pattern = Pattern::new(1 << 30);
    let len = 64 << 10;
    let mut begun = 1 << 30;
    for step in 1..1000 {
        let at = (1 << 30) - step * len;
        if step > 3 {
            assert!(begun <= at, "dry at {at}");
        }
        for extent in access(&mut pattern, at, len).ahead {
            assert!(extent.end() <= begun.min(at + len));
            begun = extent.offset;
        }
        assert!(at - begun.min(at) <= BACKWARD_MAX);
    }
}

#[test]
fn strides_are_fetched_as_asked() {
    for stride in [16 << 10, 64 << 10, MIB, 9 * MIB] {
        let mut pattern = Pattern::new(1 << 30);
        for step in 1..((1 << 30) / stride) {
            let plan = access(&mut pattern, step * stride, 4096);
            assert_eq!(plan.ahead, [], "stride {stride}");
            assert_eq!(plan.demand.len, 4096);
        }
    }
}

#[test]
fn two_interleaved_readers_are_both_read_ahead() {
    let mut pattern = Pattern::new(1 << 30);
    let mut begun = [0, 500 * MIB];
    for step in 0..1000 {
        for (reader, base) in [0, 500 * MIB].into_iter().enumerate() {
            let at = base + step * (128 << 10);
            if step > 2 {
                assert!(begun[reader] >= at + (128 << 10));
            }
            if let Some(last) = access(&mut pattern, at, 128 << 10).ahead.last() {
                begun[reader] = last.end();
            }
        }
    }
}

#[test]
fn random_reads_do_not_push_out_a_sequential_reader() {
    let mut pattern = Pattern::new(1 << 40);
    let mut begun = 0;
    for step in 0..1000 {
        let at = step * (128 << 10);
        if step > 0 {
            assert!(begun >= at + (128 << 10));
        }
        if let Some(last) = access(&mut pattern, at, 128 << 10).ahead.last() {
            begun = last.end();
        }
        for other in 1..20 {
            access(
                &mut pattern,
                (1 << 35) + (step * 20 + other) * 7919 * 4096,
                4096,
            );
        }
    }
}

#[test]
fn what_was_not_fetched_becomes_due_again() {
    let mut pattern = Pattern::new(1 << 30);
    let plan = access(&mut pattern, 0, MIB);
    pattern.retreat(plan.run, plan.ahead[0]);
    let plan = access(&mut pattern, MIB, MIB);
    assert_eq!(plan.ahead[0].offset, MIB);
}

#[test]
fn a_run_left_for_long_is_over() {
    let mut pattern = Pattern::new(1 << 40);
    let left = access(&mut pattern, 0, MIB).run;
    let mut ended = Vec::new();
    for step in 0..2 * IDLE_ACCESSES {
        ended.extend(access(&mut pattern, (1 << 30) + step * 7919 * 4096, 4096).ended);
    }
    assert_eq!(ended, [left]);
}

#[derive(Debug, Clone)]
enum AccessOp {
    At(u64, u64),
    On(u64),
    Back(u64),
    Skip(u64, u64),
    Refuse,
}

fn ops() -> impl Strategy<Value = Vec<AccessOp>> {
    let len = || prop_oneof![1..10_000u64, Just(4096), Just(128 << 10), Just(MIB)];
    let op = prop_oneof![
        1 => (0..64 * MIB, len()).prop_map(|(at, len)| AccessOp::At(at, len)),
        4 => len().prop_map(AccessOp::On),
        2 => len().prop_map(AccessOp::Back),
        1 => (0..3 * MIB, len()).prop_map(|(gap, len)| AccessOp::Skip(gap, len)),
        1 => Just(AccessOp::Refuse),
    ];
    proptest::collection::vec(op, 1..200)
}

proptest! {
    /// Whatever is read: fetches lie within the object, on whole pages, no run asks twice for
    /// the same bytes, none goes further ahead than it may, and all that was asked for is in
    /// the demand.
    #[test]
    fn fetches_are_within_bounds_and_never_twice(
        ops in ops(),
        size in MIB + 1..70 * MIB,
        unit in prop_oneof![Just(64u64 << 10), Just(MIB), Just(UNIT)],
        ahead_max in 0..80 * MIB,
    ) {
        let limits = ReadaheadLimits { unit, ahead_max };
        let mut pattern = Pattern::new(size);
        let mut asked: Vec<(u64, Extent)> = Vec::new();
        let (mut at, mut len) = (0, 0);
        let mut last: Option<(u64, Extent)> = None;
        for op in ops {
            (at, len) = match op {
                AccessOp::At(at, len) => (at, len),
                AccessOp::On(next) => (at + len, next),
                AccessOp::Back(next) => (at.saturating_sub(next), next),
                AccessOp::Skip(gap, next) => (at + len + gap, next),
                AccessOp::Refuse => {
                    if let Some((run, extent)) = last.take() {
                        pattern.retreat(run, extent);
                        asked.retain(|(of, other)| *of != run || *other != extent);
                    }
                    continue;
                }
            };
            let Some(extent) = Extent::between(0, size).intersect(Extent::new(at, len)) else {
                (at, len) = (0, 0);
                continue;
            };
            let plan = pattern.access(extent, limits);
            prop_assert!(plan.demand.contains(extent));
            prop_assert!(plan.demand.end() <= size);
            prop_assert!(plan.demand.len <= (extent.len + 2 * PAGE).max(unit + PAGE));
            prop_assert!(pattern.runs().count() <= RUNS_MAX + PROBES_MAX);
            asked.retain(|(run, _)| !plan.ended.contains(run));
            last = None;
            for fetch in &plan.ahead {
                prop_assert!(!fetch.is_empty() && fetch.end() <= size && fetch.len <= unit + PAGE);
                prop_assert_eq!(fetch.offset % PAGE, 0);
                prop_assert!(fetch.end() % PAGE == 0 || fetch.end() == size);
                let reach = ahead_max + SLACK.max(BEHIND) + PAGE;
                prop_assert!(fetch.end() <= extent.end() + reach);
                prop_assert!(extent.offset <= fetch.end() + reach);
                for (run, other) in &asked {
                    prop_assert!(*run != plan.run || other.intersect(*fetch).is_none(),
                        "{:?} again after {:?}", fetch, other);
                }
                asked.push((plan.run, *fetch));
                last = Some((plan.run, *fetch));
            }
        }
    }
}
