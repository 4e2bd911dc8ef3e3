use std::task::{Context, Waker};

use super::*;
use crate::object::{ETag, Key};

fn version(key: &str, etag: &str, len: u64) -> Store {
    Store {
        id: ObjectId::new(Key::new(key), ETag::new(etag)),
        size: len,
        extent: Extent::new(0, len),
        pieces: Vec::new(),
        keep: Some(Arc::new(())),
    }
}

fn store(key: &str, len: u64) -> Job {
    Job::Store(version(key, "e", len))
}

/// The etags of what comes out now.
fn out(queue: &Queue) -> Vec<String> {
    let next = || match queue.next(Some(Instant::now())) {
        Next::Job(Job::Store(store)) => Some(store.id.etag.as_str().to_owned()),
        Next::Job(job) => Some(format!("{job:?}")),
        Next::Idle | Next::Closed => None,
    };
    std::iter::from_fn(next).collect()
}

#[test]
fn what_can_wait_waits_for_others_and_for_quiet() {
    let queue = Queue::new(QUEUED_BYTES_MAX);
    let now = Instant::now();
    let id = |etag: &str| ObjectId::new(Key::new("a"), ETag::new(etag));
    let long = now + Duration::from_hours(1);
    assert!(queue.add_later(version("a", "late", 10), long));
    assert!(queue.has(&id("late")));
    assert!(queue.add(Job::Store(version("b", "first", 10)), None));
    assert_eq!(out(&queue), ["first"]);
    // Long ago is quiet enough.
    let past = now.checked_sub(Duration::from_secs(60)).expect("a past");
    assert!(queue.add_later(version("c", "then", 10), past));
    assert_eq!(out(&queue), ["late", "then"]);
    let large = version("d", "large", deferred::LEN_MAX + 1);
    assert!(queue.add_later(large, now));
    assert_eq!(out(&queue), ["large"], "its bytes cost more than its file");
    for offset in [0, 10] {
        let extent = Extent::new(offset, 10);
        let part = Store {
            extent,
            ..version("e", "part", 100)
        };
        assert!(queue.add_later(part, now));
    }
    assert_eq!(out(&queue), ["part", "part"], "none takes another's place");
    assert_eq!(queue.inner.lock().bytes, 0);
}

#[test]
fn a_newer_version_never_comes_before_an_older_one() {
    let queue = Queue::new(QUEUED_BYTES_MAX);
    let now = Instant::now();
    assert!(queue.add_later(version("a", "1", 10), now));
    assert!(queue.add_later(version("a", "2", 10), now));
    assert!(queue.add(Job::Store(version("a", "3", 10)), None));
    assert_eq!(out(&queue), ["3"]);
    assert!(queue.add_later(version("a", "4", 10), now));
    assert!(queue.add(Job::Store(version("a", "4", 5)), None));
    assert_eq!(out(&queue), ["4", "4"], "another part of the same version");
    assert!(queue.add_later(version("a", "5", 10), now));
    queue.cancel(&ObjectId::new(Key::new("a"), ETag::new("5")));
    assert_eq!(out(&queue), [""; 0]);
    let inner = queue.inner.lock();
    assert_eq!((inner.bytes, inner.stores), (0, 0));
}

#[test]
fn who_waits_for_the_disk_and_who_closes_has_it_all_done() {
    let queue = Queue::new(QUEUED_BYTES_MAX);
    let now = Instant::now();
    assert!(queue.add_later(version("a", "1", 10), now));
    let (reply, _done) = oneshot::channel();
    queue.add(
        Job::Sync {
            index: false,
            reply,
        },
        None,
    );
    assert!(matches!(queue.next(None), Next::Job(Job::Store(_))));
    assert!(matches!(queue.next(None), Next::Job(Job::Sync { .. })));
    assert!(queue.add_later(version("b", "2", 10), now));
    queue.close();
    assert!(!queue.add_later(version("c", "3", 10), now));
    assert!(matches!(queue.next(None), Next::Job(Job::Store(_))));
    assert!(matches!(queue.next(None), Next::Closed));
}

#[test]
fn a_keeper_that_sleeps_wakes_up_for_what_waited() {
    let queue = Queue::new(QUEUED_BYTES_MAX);
    queue.add_later(version("a", "1", 10), Instant::now());
    assert!(matches!(queue.next(None), Next::Job(Job::Store(_))));
}

#[test]
fn bytes_past_the_bound_are_refused_and_one_large_store_goes_through() {
    let queue = Queue::new(QUEUED_BYTES_MAX);
    assert!(queue.add(store("a", QUEUED_BYTES_MAX * 2), None));
    assert!(!queue.add(store("b", 1), None));
    assert!(matches!(queue.next(None), Next::Job(Job::Store(_))));
    assert!(queue.add(store("b", QUEUED_BYTES_MAX), None));
    assert!(!queue.add(store("c", 1), None));
    queue.cancel(&ObjectId::new(Key::new("b"), ETag::new("e")));
    assert!(queue.add(store("c", 1), None));
}

#[test]
fn expected_bytes_have_their_room_and_others_are_refused_for_them() {
    let queue = Arc::new(Queue::new(QUEUED_BYTES_MAX));
    let now = Instant::now();
    let half = QUEUED_BYTES_MAX / 2;
    let first = queue.expect(half, false, now).unwrap();
    let second = queue.expect(half, false, now).unwrap();
    assert!(queue.expect(1, false, now).is_none());
    assert!(
        !queue.is_full(now),
        "nobody waits for what is only expected"
    );
    assert!(queue.add(store("a", half), Some(first)));
    assert!(!queue.add(store("b", 1), None), "the room is another's");
    assert!(queue.add(store("c", half), Some(second)));
    assert!(matches!(queue.next(None), Next::Job(Job::Store(_))));
    drop(queue.expect(half, false, now).unwrap());
    assert!(queue.add(store("d", half), None), "it was given back");
}

#[test]
fn patience_with_a_slow_disk_ends() {
    let queue = Arc::new(Queue::new(QUEUED_BYTES_MAX));
    assert!(queue.add(store("a", QUEUED_BYTES_MAX), None));
    let now = Instant::now();
    assert!(queue.expect(1, false, now).is_none() && queue.is_full(now));
    assert!(queue.expect(1, true, now).is_some());
    let late = now + PATIENCE;
    assert!(queue.expect(1, false, late).is_some() && !queue.is_full(late));
}

#[tokio::test(start_paused = true)]
async fn who_outran_the_disk_waits_for_room_and_not_for_a_disk_that_stands_still() {
    let mut context = Context::from_waker(Waker::noop());
    let queue = Queue::new(QUEUED_BYTES_MAX);
    queue.roomy().await;
    queue.add(store("a", QUEUED_BYTES_MAX / 2), None);
    queue.add(store("b", QUEUED_BYTES_MAX / 2), None);
    let mut waits = std::pin::pin!(queue.roomy());
    assert!(waits.as_mut().poll(&mut context).is_pending());
    queue.next(None);
    assert!(waits.as_mut().poll(&mut context).is_ready());
    queue.add(store("c", QUEUED_BYTES_MAX / 2), None);
    let mut waits = std::pin::pin!(queue.roomy());
    assert!(waits.as_mut().poll(&mut context).is_pending());
    queue.close();
    assert!(waits.as_mut().poll(&mut context).is_ready());
}

#[test]
fn an_objects_bytes_are_there_until_the_next_job_is_asked_for() {
    let queue = Queue::new(QUEUED_BYTES_MAX);
    let id = |key: &str| ObjectId::new(Key::new(key), ETag::new("e"));
    queue.add(store("a", 1), None);
    queue.add(store("b", 1), None);
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
    let queue = Queue::new(QUEUED_BYTES_MAX);
    queue.add(store("a", 1), None);
    queue.close();
    assert!(!queue.add(store("b", 1), None));
    assert!(matches!(queue.next(None), Next::Job(_)));
    assert!(matches!(queue.next(None), Next::Closed));
}

#[test]
fn waiting_ends_at_the_deadline() {
    let queue = Queue::new(QUEUED_BYTES_MAX);
    assert!(matches!(queue.next(Some(Instant::now())), Next::Idle));
}

#[test]
fn what_nobody_pays_for_has_a_bound_of_its_own() {
    let queue = Queue::new(600);
    let unpaid = |key: &str, len| Store {
        keep: None,
        ..version(key, "e", len)
    };
    let now = Instant::now();
    assert!(queue.add(Job::Store(unpaid("a", 60)), None));
    assert!(queue.add_later(unpaid("b", 40), now));
    assert!(!queue.add(Job::Store(unpaid("c", 1)), None));
    assert!(!queue.add_later(unpaid("c", 1), now));
    assert!(queue.add(store("d", 300), None));
    queue.cancel(&ObjectId::new(Key::new("b"), ETag::new("e")));
    assert!(queue.add(Job::Store(unpaid("c", 40)), None));
    assert!(!queue.add(Job::Store(unpaid("f", 1)), None));
    while let Next::Job(_) = queue.next(Some(now)) {}
    assert!(queue.add(Job::Store(unpaid("c", 100)), None));
}

#[test]
fn what_is_paid_for_is_given_up_on_demand_and_paid_for_until_then() {
    let queue = Queue::new(600);
    let paid: Vec<Arc<()>> = (0..5).map(|_| Arc::new(())).collect();
    let store = |key: &str, etag: &str, index: usize| Store {
        keep: Some(paid[index].clone()),
        ..version(key, etag, 10)
    };
    let waiting = || {
        paid.iter()
            .map(|paid| Arc::strong_count(paid) - 1)
            .collect::<Vec<_>>()
    };
    let now = Instant::now();
    assert!(!queue.shed());
    assert!(queue.add_later(store("late", "1", 0), now));
    assert!(queue.add(Job::Store(store("a", "1", 1)), None));
    let mut nobodys = version("b", "1", 10);
    nobodys.keep = None;
    assert!(queue.add(Job::Store(nobodys), None));
    assert!(queue.add(Job::Store(store("c", "1", 2)), None));
    assert_eq!(waiting(), [1, 1, 1, 0, 0]);
    assert!(queue.shed());
    assert_eq!(
        waiting(),
        [1, 0, 1, 0, 0],
        "the oldest that somebody pays for"
    );
    assert!(queue.add_later(store("late", "2", 3), now));
    assert_eq!(waiting(), [0, 0, 1, 1, 0], "a newer version took its place");
    assert!(queue.add(Job::Store(store("late", "3", 4)), None));
    assert_eq!(waiting(), [0, 0, 1, 0, 1]);
    assert!(queue.shed() && queue.shed() && !queue.shed());
    assert_eq!(waiting(), [0; 5]);
    assert_eq!(out(&queue), ["1"], "what nobody pays for stays");
    let inner = queue.inner.lock();
    assert_eq!((inner.bytes, inner.unpaid, inner.stores), (0, 0, 0));
}
