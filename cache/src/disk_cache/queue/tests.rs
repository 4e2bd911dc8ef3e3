use std::task::{Context, Waker};

use tokio::sync::oneshot;

use super::*;
use crate::disk_cache::backlog::QUEUED_BYTES_MAX;
use crate::extent::Extent;
use crate::object::{ETag, Key};

fn version(key: &str, etag: &str, len: u64) -> PendingWrite {
    PendingWrite {
        id: ObjectId::new(Key::new(key), ETag::new(etag)),
        size: len,
        extent: Extent::new(0, len),
        pieces: Vec::new(),
        keep: Some(Arc::new(())),
    }
}

fn store(key: &str, len: u64) -> PendingWrite {
    version(key, "e", len)
}

/// The etags of what comes out now.
fn out(queue: &JobQueue) -> Vec<String> {
    let next = || match queue.next(Some(Instant::now())) {
        NextJob::Job(WriterJob::Write(store)) => Some(store.id.etag.as_str().to_owned()),
        NextJob::Job(job) => Some(format!("{job:?}")),
        NextJob::Idle | NextJob::Closed => None,
    };
    std::iter::from_fn(next).collect()
}

#[test]
fn what_can_wait_waits_for_others_and_for_quiet() {
    let queue = JobQueue::new(QUEUED_BYTES_MAX);
    let now = Instant::now();
    let id = |etag: &str| ObjectId::new(Key::new("a"), ETag::new(etag));
    let long = now + Duration::from_hours(1);
    assert!(queue.add_deferred(version("a", "late", 10), long));
    assert!(queue.has(&id("late")));
    assert!(queue.add_write(version("b", "first", 10), None, now));
    assert_eq!(out(&queue), ["first"]);
    // Long ago is quiet enough.
    let past = now.checked_sub(Duration::from_secs(60)).expect("a past");
    assert!(queue.add_deferred(version("c", "then", 10), past));
    assert_eq!(out(&queue), ["late", "then"]);
    let large = version("d", "large", deferred::LEN_MAX + 1);
    assert!(queue.add_deferred(large, now));
    assert_eq!(out(&queue), ["large"], "its bytes cost more than its file");
    for offset in [0, 10] {
        let extent = Extent::new(offset, 10);
        let part = PendingWrite {
            extent,
            ..version("e", "part", 100)
        };
        assert!(queue.add_deferred(part, now));
    }
    assert_eq!(out(&queue), ["part", "part"], "none takes another's place");
    assert_eq!(queue.state.lock().backlog.counts(), (0, 0, 0));
}

#[test]
fn a_newer_version_never_comes_before_an_older_one() {
    let queue = JobQueue::new(QUEUED_BYTES_MAX);
    let now = Instant::now();
    assert!(queue.add_deferred(version("a", "1", 10), now));
    assert!(queue.add_deferred(version("a", "2", 10), now));
    assert!(queue.add_write(version("a", "3", 10), None, now));
    assert_eq!(out(&queue), ["3"]);
    assert!(queue.add_deferred(version("a", "4", 10), now));
    assert!(queue.add_write(version("a", "4", 5), None, now));
    assert_eq!(out(&queue), ["4", "4"], "another part of the same version");
    assert!(queue.add_deferred(version("a", "5", 10), now));
    queue.cancel(&ObjectId::new(Key::new("a"), ETag::new("5")), now);
    assert_eq!(out(&queue), [""; 0]);
    assert_eq!(queue.state.lock().backlog.counts(), (0, 0, 0));
}

#[test]
fn who_waits_for_the_disk_and_who_closes_has_it_all_done() {
    let queue = JobQueue::new(QUEUED_BYTES_MAX);
    let now = Instant::now();
    assert!(queue.add_deferred(version("a", "1", 10), now));
    let (reply, _done) = oneshot::channel();
    queue.add(WriterJob::Sync {
        catalog: false,
        reply,
    });
    assert!(matches!(
        queue.next(None),
        NextJob::Job(WriterJob::Write(_))
    ));
    assert!(matches!(
        queue.next(None),
        NextJob::Job(WriterJob::Sync { .. })
    ));
    assert!(queue.add_deferred(version("b", "2", 10), now));
    queue.close();
    assert!(!queue.add_deferred(version("c", "3", 10), now));
    assert!(matches!(
        queue.next(None),
        NextJob::Job(WriterJob::Write(_))
    ));
    assert!(matches!(queue.next(None), NextJob::Closed));
}

#[test]
fn a_writer_that_sleeps_wakes_up_for_what_waited() {
    let queue = JobQueue::new(QUEUED_BYTES_MAX);
    queue.add_deferred(version("a", "1", 10), Instant::now());
    assert!(matches!(
        queue.next(None),
        NextJob::Job(WriterJob::Write(_))
    ));
}

#[test]
fn bytes_past_the_bound_are_refused_and_one_large_store_goes_through() {
    let queue = JobQueue::new(QUEUED_BYTES_MAX);
    let now = Instant::now();
    assert!(queue.add_write(store("a", QUEUED_BYTES_MAX * 2), None, now));
    assert!(!queue.add_write(store("b", 1), None, now));
    assert!(matches!(
        queue.next(None),
        NextJob::Job(WriterJob::Write(_))
    ));
    assert!(queue.add_write(store("b", QUEUED_BYTES_MAX), None, now));
    assert!(!queue.add_write(store("c", 1), None, now));
    queue.cancel(&ObjectId::new(Key::new("b"), ETag::new("e")), now);
    assert!(queue.add_write(store("c", 1), None, now));
}

#[test]
fn expected_bytes_have_their_room_and_others_are_refused_for_them() {
    let queue = Arc::new(JobQueue::new(QUEUED_BYTES_MAX));
    let now = Instant::now();
    let half = QUEUED_BYTES_MAX / 2;
    let first = queue.reserve(half, false, now).unwrap();
    let second = queue.reserve(half, false, now).unwrap();
    assert!(queue.reserve(1, false, now).is_none());
    assert!(
        !queue.is_far_behind(now),
        "nobody waits for what is only expected"
    );
    assert!(queue.add_write(store("a", half), Some(first), now));
    assert!(
        !queue.add_write(store("b", 1), None, now),
        "the room is another's"
    );
    assert!(queue.add_write(store("c", half), Some(second), now));
    assert!(matches!(
        queue.next(None),
        NextJob::Job(WriterJob::Write(_))
    ));
    drop(queue.reserve(half, false, now).unwrap());
    assert!(
        queue.add_write(store("d", half), None, now),
        "it was given back"
    );
}

#[test]
fn patience_with_a_slow_disk_ends() {
    let queue = Arc::new(JobQueue::new(QUEUED_BYTES_MAX));
    let now = Instant::now();
    assert!(queue.add_write(store("a", QUEUED_BYTES_MAX), None, now));
    assert!(queue.reserve(1, false, now).is_none() && queue.is_far_behind(now));
    assert!(queue.reserve(1, true, now).is_some());
    let late = now + Backlog::PATIENCE;
    assert!(queue.reserve(1, false, late).is_some() && !queue.is_far_behind(late));
}

#[tokio::test(start_paused = true)]
async fn who_outran_the_disk_waits_for_room_and_not_for_a_disk_that_stands_still() {
    let mut context = Context::from_waker(Waker::noop());
    let queue = JobQueue::new(QUEUED_BYTES_MAX);
    let now = Instant::now();
    queue.caught_up().await;
    queue.add_write(store("a", QUEUED_BYTES_MAX / 2), None, now);
    queue.add_write(store("b", QUEUED_BYTES_MAX / 2), None, now);
    let mut waits = std::pin::pin!(queue.caught_up());
    assert!(waits.as_mut().poll(&mut context).is_pending());
    queue.next(None);
    assert!(waits.as_mut().poll(&mut context).is_ready());
    queue.add_write(store("c", QUEUED_BYTES_MAX / 2), None, now);
    let mut waits = std::pin::pin!(queue.caught_up());
    assert!(waits.as_mut().poll(&mut context).is_pending());
    queue.close();
    assert!(waits.as_mut().poll(&mut context).is_ready());
}

#[test]
fn an_objects_bytes_are_there_until_the_next_job_is_asked_for() {
    let queue = JobQueue::new(QUEUED_BYTES_MAX);
    let now = Instant::now();
    let id = |key: &str| ObjectId::new(Key::new(key), ETag::new("e"));
    queue.add_write(store("a", 1), None, now);
    queue.add_write(store("b", 1), None, now);
    assert!(queue.has(&id("a")) && queue.has(&id("b")) && !queue.has(&id("c")));
    queue.next(None);
    assert!(queue.has(&id("a")));
    queue.next(None);
    assert!(!queue.has(&id("a")) && queue.has(&id("b")));
    queue.next(Some(Instant::now()));
    assert!(!queue.has(&id("b")));
}

#[test]
fn a_closed_queue_gives_what_is_left_and_takes_nothing() {
    let queue = JobQueue::new(QUEUED_BYTES_MAX);
    let now = Instant::now();
    queue.add_write(store("a", 1), None, now);
    queue.close();
    assert!(!queue.add_write(store("b", 1), None, now));
    assert!(matches!(queue.next(None), NextJob::Job(_)));
    assert!(matches!(queue.next(None), NextJob::Closed));
}

#[test]
fn waiting_ends_at_the_deadline() {
    let queue = JobQueue::new(QUEUED_BYTES_MAX);
    assert!(matches!(queue.next(Some(Instant::now())), NextJob::Idle));
}

#[test]
fn what_nobody_pays_for_has_a_bound_of_its_own() {
    let queue = JobQueue::new(600);
    let unpaid = |key: &str, len| PendingWrite {
        keep: None,
        ..version(key, "e", len)
    };
    let now = Instant::now();
    assert!(queue.add_write(unpaid("a", 60), None, now));
    assert!(queue.add_deferred(unpaid("b", 40), now));
    assert!(!queue.add_write(unpaid("c", 1), None, now));
    assert!(!queue.add_deferred(unpaid("c", 1), now));
    assert!(queue.add_write(store("d", 300), None, now));
    queue.cancel(&ObjectId::new(Key::new("b"), ETag::new("e")), now);
    assert!(queue.add_write(unpaid("c", 40), None, now));
    assert!(!queue.add_write(unpaid("f", 1), None, now));
    while let NextJob::Job(_) = queue.next(Some(now)) {}
    assert!(queue.add_write(unpaid("c", 100), None, now));
}

#[test]
fn what_is_paid_for_is_given_up_on_demand_and_paid_for_until_then() {
    let queue = JobQueue::new(600);
    let paid: Vec<Arc<()>> = (0..5).map(|_| Arc::new(())).collect();
    let store = |key: &str, etag: &str, index: usize| PendingWrite {
        keep: Some(paid[index].clone()),
        ..version(key, etag, 10)
    };
    let waiting = || {
        paid.iter()
            .map(|paid| Arc::strong_count(paid) - 1)
            .collect::<Vec<_>>()
    };
    let now = Instant::now();
    assert!(!queue.shed(now));
    assert!(queue.add_deferred(store("late", "1", 0), now));
    assert!(queue.add_write(store("a", "1", 1), None, now));
    let mut nobodys = version("b", "1", 10);
    nobodys.keep = None;
    assert!(queue.add_write(nobodys, None, now));
    assert!(queue.add_write(store("c", "1", 2), None, now));
    assert_eq!(waiting(), [1, 1, 1, 0, 0]);
    assert!(queue.shed(now));
    assert_eq!(
        waiting(),
        [1, 0, 1, 0, 0],
        "the oldest that somebody pays for"
    );
    assert!(queue.add_deferred(store("late", "2", 3), now));
    assert_eq!(waiting(), [0, 0, 1, 1, 0], "a newer version took its place");
    assert!(queue.add_write(store("late", "3", 4), None, now));
    assert_eq!(waiting(), [0, 0, 1, 0, 1]);
    assert!(queue.shed(now) && queue.shed(now) && !queue.shed(now));
    assert_eq!(waiting(), [0; 5]);
    assert_eq!(out(&queue), ["1"], "what nobody pays for stays");
    assert_eq!(queue.state.lock().backlog.counts(), (0, 0, 0));
}
