//! How answers that were made on other threads reach the ring thread, the only one that may submit.
//!
//! Who has an answer puts the slot's number into the list and writes the eventfd only if the ring
//! thread sleeps or is about to. The ring thread says that it will sleep, then looks once more
//! whether there is mail; the sender says that there is mail, then looks whether it sleeps. Both
//! are SeqCst, so at least one sees the other. Without mail no lock is taken. The eventfd is polled by the ring itself, so one wait covers requests and mail.
//!
//! The list holds a slot at most once, since a slot has one token, so it is bounded by the slots.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::Mutex;
use tracing::error;

/// A slot whose answer is written, on its way to its ring thread, which gives it to the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answered(u32);

impl Answered {
    /// Of the slot that a token held: the token is gone, so nobody touches the slot's memory.
    pub(super) fn new(slot: u32) -> Self {
        Self(slot)
    }

    pub(crate) fn slot(&self) -> u32 {
        self.0
    }
}

#[derive(Debug)]
pub(crate) struct Mailbox {
    /// Guards the list; a leaf in the lock order, held for a push or a swap.
    mail: Mutex<Mail>,
    /// Whether there is mail; set after it was put, cleared before it is taken.
    full: AtomicBool,
    sleeping: AtomicBool,
    stop: AtomicBool,
    eventfd: EventFd,
}

#[derive(Debug, Default)]
struct Mail {
    answered: Vec<Answered>,
    closed: bool,
}

impl Mailbox {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            mail: Mutex::default(),
            full: AtomicBool::new(false),
            sleeping: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            eventfd: EventFd::from_value_and_flags(0, flags)?,
        })
    }

    /// Hands an answered slot to the ring thread. True if that thread had to be woken.
    pub(crate) fn post(&self, slot: Answered) -> bool {
        {
            let mut mail = self.mail.lock();
            if mail.closed {
                // The connection has ended; the kernel gave the caller its error already.
                return false;
            }
            mail.answered.push(slot);
        }
        self.full.store(true, Ordering::SeqCst);
        let wake = self.sleeping.swap(false, Ordering::SeqCst);
        if wake {
            self.wake();
        }
        wake
    }

    /// Moves all mail to the end of `answered`.
    pub(crate) fn take(&self, answered: &mut Vec<Answered>) {
        if self.full.load(Ordering::SeqCst) {
            self.full.store(false, Ordering::SeqCst);
            answered.append(&mut self.mail.lock().answered);
        }
    }

    /// Announces sleep. False if there is mail to take first; then nothing was announced.
    pub(crate) fn may_sleep(&self) -> bool {
        self.sleeping.store(true, Ordering::SeqCst);
        let full = self.full.load(Ordering::SeqCst);
        if full {
            self.awake();
        }
        !full
    }

    /// Ends what [`Mailbox::may_sleep`] announced.
    pub(crate) fn awake(&self) {
        // A sender that still sees it set only writes the eventfd once too often.
        self.sleeping.store(false, Ordering::Release);
    }

    /// Whether there is mail that was not taken yet. If it stays, a wake-up was lost.
    pub(crate) fn has_mail(&self) -> bool {
        self.full.load(Ordering::SeqCst)
    }

    /// Wakes the ring thread from its wait, now or at once when it begins.
    pub(crate) fn wake(&self) {
        // EAGAIN: the counter is full of wakes that were not read, which wakes as well.
        if let Err(errno) = self.eventfd.write(1)
            && errno != nix::errno::Errno::EAGAIN
        {
            error!(%errno, "ring thread not woken");
        }
    }

    /// Takes the wakes back that were written.
    pub(crate) fn drain(&self) {
        let _ = self.eventfd.read();
    }

    /// The descriptor that the ring polls.
    pub(crate) fn fd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }

    /// Tells the ring thread to end.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.wake();
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// From now on mail is dropped: nobody reads it any more.
    pub(crate) fn close(&self) {
        let mut mail = self.mail.lock();
        mail.closed = true;
        mail.answered.clear();
        self.full.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_thread_that_is_awake_is_not_woken() {
        let mailbox = Mailbox::new().expect("an eventfd");
        assert!(!mailbox.post(Answered(1)));
        assert!(!mailbox.may_sleep(), "there is mail");
        assert!(!mailbox.post(Answered(2)));
        let mut slots = Vec::new();
        mailbox.take(&mut slots);
        assert_eq!(slots, [Answered(1), Answered(2)]);
        assert!(mailbox.may_sleep());
        assert!(mailbox.post(Answered(3)), "now it sleeps");
        assert!(!mailbox.post(Answered(4)), "one wake is enough");
    }

    /// A lost wake-up would leave the reader in poll(2) for good.
    #[test]
    fn no_wake_up_is_lost() {
        const POSTS: u32 = 20_000;
        let mailbox = Arc::new(Mailbox::new().expect("an eventfd"));
        let sender = {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || {
                for slot in 0..POSTS {
                    mailbox.post(Answered(slot));
                }
            })
        };
        let mut slots = Vec::new();
        while slots.len() < POSTS as usize {
            mailbox.take(&mut slots);
            if slots.len() < POSTS as usize && mailbox.may_sleep() {
                let mut fds = [PollFd::new(mailbox.eventfd.as_fd(), PollFlags::POLLIN)];
                let timeout = PollTimeout::from(10_000u16);
                assert_eq!(poll(&mut fds, timeout), Ok(1), "a wake-up was lost");
                mailbox.awake();
                mailbox.drain();
            }
        }
        sender.join().expect("the sender ends");
        assert!(slots.iter().map(Answered::slot).eq(0..POSTS));
    }

    #[test]
    fn mail_after_the_end_is_dropped() {
        let mailbox = Mailbox::new().expect("an eventfd");
        mailbox.post(Answered(1));
        mailbox.close();
        assert!(!mailbox.post(Answered(2)));
        assert!(mailbox.may_sleep());
    }
}
