//! Files that somebody replaces while they are opened here.

use std::fs::{self, File};
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ackfs_cache::store::memory::{Call, Fault};

use crate::memory_mount::{MemoryMount, errno, on_both_doors, with_ttl};

/// The next open finds another version than its look-up.
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
                assert_eq!(fs::read(mount.path("a")).unwrap(), b"another");
                replace(mount, "one");
            }
        });
    }
}

/// What one open has asked for is not believed by the next open.
#[test]
fn every_open_of_a_contended_name_sees_the_newest_version() {
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

/// The kernel holds the old version's size. An open that found another one cost two HEADs more, for it was
/// ESTALE and the name was looked up again.
#[test]
fn an_open_that_finds_another_version_costs_one_head_and_shows_its_size() {
    on_both_doors(|mount| {
        replace(mount, "one");
        assert_eq!(fs::read(mount.path("a")).unwrap(), b"one");
        for text in ["another, longer", "2", ""] {
            replace(mount, text);
            mount.store.calls();
            let mut file = File::open(mount.path("a")).unwrap();
            let mut found = String::new();
            file.read_to_string(&mut found).unwrap();
            assert_eq!(found, text);
            assert_eq!(file.metadata().unwrap().len(), text.len() as u64);
            let calls = mount.store.calls();
            let heads = calls.iter().filter(|it| it.0 == Call::Head).count();
            assert_eq!(
                (heads, calls.len()),
                (1, if text.is_empty() { 1 } else { 2 })
            );
            drop(file);
            mount.drain_until_closed();
        }
    });
}

#[test]
fn an_open_of_a_contended_name_that_nobody_replaced_costs_one_head() {
    on_both_doors(|mount| {
        let path = mount.path("a");
        replace(mount, "one");
        assert_eq!(fs::read(&path).unwrap(), b"one");
        replace(mount, "two");
        for _ in 0..3 {
            assert_eq!(fs::read(&path).unwrap(), b"two");
            mount.drain_until_closed();
            mount.store.calls();
        }
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(mount.store.calls(), [(Call::Head, "a".to_owned())]);
    });
}

/// Who writes does so at the end that the kernel believes in: an open that may write is looked up again.
#[test]
fn what_is_appended_after_an_open_found_another_version_comes_at_its_end() {
    on_both_doors(|mount| {
        let path = mount.path("a");
        replace(mount, "one");
        assert_eq!(fs::read(&path).unwrap(), b"one");
        for round in 0..3 {
            let text = format!("{round}").repeat(10 * (3 - round));
            replace(mount, &text);
            let reader = File::open(&path).unwrap();
            let mut writer = fs::OpenOptions::new().append(true).open(&path).unwrap();
            std::io::Write::write_all(&mut writer, b"!").unwrap();
            crate::memory_mount::close(writer).unwrap();
            assert_eq!(mount.store.bytes("a").unwrap(), text + "!");
            drop(reader);
            mount.drain_until_closed();
        }
    });
}

/// Bytes of two versions came together where the kernel's pages and size were to be brought up to date while
/// the file was read.
#[test]
fn what_is_read_beside_a_writer_is_one_version_and_every_open_succeeds() {
    on_both_doors(|mount| {
        let body = |n: usize| {
            let letter = char::from(b'a' + (n % 26) as u8);
            letter.to_string().repeat(1 + n * 7919 % 9000)
        };
        replace(mount, &body(0));
        let is_over = AtomicBool::new(false);
        let read = || -> std::io::Result<String> {
            let mut text = String::new();
            File::open(mount.path("a"))
                .expect("every open succeeds")
                .read_to_string(&mut text)?;
            Ok(text)
        };
        let found = thread::scope(|scope| {
            let writing = scope.spawn(|| {
                let mut n = 1;
                while !is_over.load(Ordering::Relaxed) {
                    replace(mount, &body(n));
                    n += 1;
                    thread::yield_now();
                }
            });
            // What fails is told when the writer has ended.
            let reading = scope.spawn(move || (0..200).map(|_| read()).collect::<Vec<_>>());
            let found = reading.join();
            is_over.store(true, Ordering::Relaxed);
            writing.join().unwrap();
            found.unwrap()
        });
        for text in found {
            match text {
                Ok(text) => {
                    let is_whole = (0..26 * 9000).any(|n| is_body(n, &text));
                    assert!(is_whole, "{} bytes of no version", text.len());
                }
                // So quick a writer may overtake all tries to bring the bytes.
                Err(error) => assert_eq!(errno(Err::<(), _>(error)), libc::ESTALE),
            }
        }
    });
}

/// Whether `text` is the `n`th version.
fn is_body(n: usize, text: &str) -> bool {
    let letter = b'a' + (n % 26) as u8;
    text.len() == 1 + n * 7919 % 9000 && text.bytes().all(|byte| byte == letter)
}
