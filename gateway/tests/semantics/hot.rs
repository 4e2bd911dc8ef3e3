//! Files that somebody replaces while they are opened here.

use std::fs;
use std::time::{Duration, Instant};

use ackfs_cache::store::memory::{Call, Fault};

use crate::memory_mount::{MemoryMount, errno, on_both_doors, with_ttl};

/// An OPEN that comes so long after its look-up asks the store again.
pub(crate) const TRUST: Duration = Duration::from_millis(100);

/// The next open finds another version than its look-up: the name is hot from then on.
fn replace(mount: &MemoryMount, text: &str) {
    mount.store.plant("a", text.to_owned());
}

/// The kernel tries an open that met ESTALE a second time and no third one. A file that was replaced
/// between its two tries could not be opened, of one that is put 72 times a second every second time.
#[test]
fn a_file_that_is_replaced_while_it_is_opened_again_opens() {
    for ttl in [Duration::ZERO, Duration::from_secs(3600)] {
        with_ttl(ttl, |mount| {
            replace(mount, "one");
            assert_eq!(fs::read(mount.path("a")).unwrap(), b"one");
            for times in 1..4 {
                replace(mount, "another");
                for _ in 0..times {
                    mount.store.inject(Call::Head, Fault::Overtake);
                }
                loop {
                    let begun = Instant::now();
                    let read = fs::read(mount.path("a"));
                    // On a machine that stands still the store is asked more often, and overtaken.
                    if read.is_err() && begun.elapsed() >= TRUST {
                        assert_eq!(errno(read), libc::ESTALE);
                        continue;
                    }
                    assert_eq!(read.unwrap(), b"another");
                    break;
                }
                replace(mount, "one");
            }
        });
    }
}

/// What one open's look-up has asked for is not believed by the next open.
#[test]
fn every_open_of_a_hot_name_sees_the_newest_version() {
    on_both_doors(|mount| {
        let path = mount.path("a");
        replace(mount, "0");
        assert_eq!(fs::read(&path).unwrap(), b"0");
        for round in 1..50 {
            let text = round.to_string().repeat(round);
            replace(mount, &text);
            if round % 2 == 0 {
                fs::metadata(&path).unwrap();
                let text = text.to_uppercase() + "!";
                replace(mount, &text);
                assert_eq!(fs::read_to_string(&path).unwrap(), text);
            } else {
                assert_eq!(fs::read_to_string(&path).unwrap(), text);
            }
            if round % 5 == 0 {
                fs::write(&path, "ours").unwrap();
                assert_eq!(fs::read(&path).unwrap(), b"ours");
            }
        }
    });
}

#[test]
fn an_open_of_a_hot_name_costs_one_head() {
    on_both_doors(|mount| {
        let path = mount.path("a");
        replace(mount, "one");
        assert_eq!(fs::read(&path).unwrap(), b"one");
        replace(mount, "two");
        assert_eq!(fs::read(&path).unwrap(), b"two");
        let in_time = (0..100).any(|_| {
            mount.store.calls();
            let begun = Instant::now();
            assert_eq!(fs::read(&path).unwrap(), b"two");
            let in_time = begun.elapsed() < TRUST;
            let calls = mount.store.calls();
            if in_time {
                assert_eq!(calls, [(Call::Head, "a".to_owned())]);
            }
            in_time
        });
        assert!(in_time, "no open of a hundred was as quick");
    });
}
