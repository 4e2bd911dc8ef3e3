//! One kernel queue's slots, counted: how many there are, how many are held, and when to register
//! more. A slot is held until its request is answered and the kernel picks the slot, so room for
//! hits beside many misses cannot be kept by refusing a slot, only by having more of them.

/// Fewest free slots of a queue, for hits.
const FREE_MIN: u32 = 8;

/// How a ring thread's queue is laid out among its slots.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    /// The kernel's number of it: a CPU.
    pub(super) qid: u16,
    /// Its slots begin here in the thread's numbering, and `cap` numbers are its own.
    pub(super) first: u32,
    /// Slots registered at first.
    pub(super) depth: u32,
    /// Most slots it may have.
    pub(super) cap: u32,
}

/// A queue at work.
#[derive(Debug)]
pub(super) struct QueueState {
    pub(super) layout: Queue,
    /// Slots given to the kernel so far, those that are gone included.
    pub(super) registered: u32,
    /// Slots whose request is not answered yet.
    pub(super) held: u32,
    /// Slots that the kernel gave up.
    pub(super) gone: u32,
}

impl QueueState {
    pub(super) fn new(layout: Queue) -> Self {
        Self {
            layout,
            registered: 0,
            held: 0,
            gone: 0,
        }
    }

    /// Slots that the next requests find.
    fn free(&self) -> u32 {
        self.registered.saturating_sub(self.held + self.gone)
    }

    /// How many slots to register now so that hits find one.
    pub(super) fn wants(&self) -> u32 {
        let enough = (self.layout.depth / 2).max(FREE_MIN);
        if self.free() >= enough {
            return 0;
        }
        let room = self.layout.cap - self.registered;
        room.min((self.layout.depth / 2).max(FREE_MIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(registered: u32, held: u32) -> QueueState {
        QueueState {
            layout: Queue {
                qid: 0,
                first: 0,
                depth: 64,
                cap: 256,
            },
            registered,
            held,
            gone: 0,
        }
    }

    #[test]
    fn hits_always_find_eight_slots_until_the_cap() {
        let mut queue = queue(64, 0);
        for held in 0..=256 - FREE_MIN {
            queue.held = held;
            queue.registered += queue.wants();
            assert!(queue.free() >= FREE_MIN, "{queue:?}");
            assert!(queue.registered <= 256);
        }
        queue.held = 256;
        assert_eq!(queue.wants(), 0);
    }

    #[test]
    fn a_queue_of_hits_does_not_grow() {
        assert_eq!(queue(64, 0).wants(), 0);
        assert_eq!(queue(64, 32).wants(), 0);
        assert_eq!(queue(64, 33).wants(), 32);
    }
}
