//! Files that somebody replaces while they are opened here.

use std::fs;
use std::time::Duration;

use ackfs_cache::store::memory::{Call, Fault};

use crate::world::{World, on_both_doors, with_ttl};

/// The next open finds another version than its look-up: the name is hot from then on.
fn replace(world: &World, text: &str) {
    world.store.plant("a", text.to_owned());
}

/// The kernel tries an open that met ESTALE a second time and no third one. A file that was replaced
/// between its two tries could not be opened, of one that is put 72 times a second every second time.
#[test]
fn a_file_that_is_replaced_while_it_is_opened_again_opens() {
    for ttl in [Duration::ZERO, Duration::from_secs(3600)] {
        with_ttl(ttl, |world| {
            replace(world, "one");
            assert_eq!(fs::read(world.path("a")).unwrap(), b"one");
            for times in 1..4 {
                replace(world, "another");
                for _ in 0..times {
                    world.store.inject(Call::Head, Fault::Overtake);
                }
                assert_eq!(fs::read(world.path("a")).unwrap(), b"another");
                replace(world, "one");
            }
        });
    }
}

/// What one open's look-up has asked for is not believed by the next open.
#[test]
fn every_open_of_a_hot_name_sees_the_newest_version() {
    on_both_doors(|world| {
        let path = world.path("a");
        replace(world, "0");
        assert_eq!(fs::read(&path).unwrap(), b"0");
        for round in 1..50 {
            let text = round.to_string().repeat(round);
            replace(world, &text);
            if round % 2 == 0 {
                fs::metadata(&path).unwrap();
                let text = text.to_uppercase() + "!";
                replace(world, &text);
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
    on_both_doors(|world| {
        let path = world.path("a");
        replace(world, "one");
        assert_eq!(fs::read(&path).unwrap(), b"one");
        replace(world, "two");
        assert_eq!(fs::read(&path).unwrap(), b"two");
        world.store.calls();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(world.store.calls(), [(Call::Head, "a".to_owned())]);
    });
}
