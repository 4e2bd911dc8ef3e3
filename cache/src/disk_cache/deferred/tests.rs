use super::*;
use crate::extent::Extent;
use crate::object::ETag;

const BYTES_MAX: u64 = 8 << 20;

fn write(key: &str, etag: &str, len: u64) -> PendingWrite {
    PendingWrite {
        id: ObjectId::new(Key::new(key), ETag::new(etag)),
        size: len,
        extent: Extent::new(0, len),
        pieces: Vec::new(),
        keep: None,
    }
}

fn key(write: Option<PendingWrite>) -> Option<String> {
    write.map(|write| write.id.key.as_str().to_owned())
}

#[test]
fn writes_wait_until_it_is_quiet_and_come_in_order() {
    let (mut deferred, now) = (DeferredWrites::new(BYTES_MAX), Instant::now());
    assert_eq!(deferred.due(), None);
    deferred.put(write("a", "1", 10), now);
    let second = now + QUIET / 2;
    deferred.put(write("b", "1", 10), second);
    assert_eq!(key(deferred.take(now + QUIET)), None, "one came since");
    assert_eq!(deferred.due(), Some(second + QUIET));
    assert_eq!(key(deferred.take(second + QUIET)).as_deref(), Some("a"));
    assert_eq!(key(deferred.take(second + QUIET)).as_deref(), Some("b"));
    assert_eq!(key(deferred.take(second + QUIET)), None);
    assert_eq!((deferred.due(), deferred.bytes), (None, 0));
}

#[test]
fn a_newer_version_takes_the_place_of_an_older_one() {
    let (mut deferred, now) = (DeferredWrites::new(BYTES_MAX), Instant::now());
    deferred.put(write("a", "1", 10), now);
    deferred.put(write("b", "1", 20), now);
    assert!(deferred.put(write("a", "2", 30), now).is_some());
    let id = |etag: &str| ObjectId::new(Key::new("a"), ETag::new(etag));
    assert!(!deferred.has(&id("1")) && deferred.has(&id("2")));
    assert_eq!((deferred.count(), deferred.bytes), (2, 50));
    assert_eq!(key(deferred.pop()).as_deref(), Some("b"));
    assert!(deferred.remove(&Key::new("a")).is_some());
    assert!(deferred.remove(&Key::new("a")).is_none());
    assert_eq!((deferred.count(), deferred.bytes), (0, 0));
}

#[test]
fn past_the_bounds_the_oldest_go_at_once() {
    let (mut deferred, now) = (DeferredWrites::new(BYTES_MAX), Instant::now());
    for number in 0..=WRITES_MAX {
        assert_eq!(key(deferred.take(now)), None);
        deferred.put(write(&number.to_string(), "1", 1), now);
    }
    assert_eq!(key(deferred.take(now)).as_deref(), Some("0"));
    assert_eq!(key(deferred.take(now)), None);
    let mut deferred = DeferredWrites::new(BYTES_MAX);
    deferred.put(write("a", "1", BYTES_MAX), now);
    assert_eq!(key(deferred.take(now)), None);
    deferred.put(write("b", "1", 1), now);
    assert_eq!(key(deferred.take(now)).as_deref(), Some("a"));
}
