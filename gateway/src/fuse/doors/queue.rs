//! The kernel's queues: their sizes, which thread serves which, and one queue's slots, counted: how many
//! there are, how many are held, and when to register more. A slot is held until its request is answered and the kernel picks the slot, so room for
//! hits beside many misses cannot be kept by refusing a slot, only by having more of them.

/// Fewest free slots of a queue, for hits.
const FREE_MIN: u32 = 8;

/// Slots of a queue whose CPU is not there; it grows like the others if it comes.
const DEPTH_OFFLINE: u32 = 16;

/// The sizes of all queues.
#[derive(Debug, Clone)]
pub(crate) struct Geometry {
    /// Slots of a queue at first, and at most.
    pub(crate) depth: u32,
    pub(crate) depth_max: u32,
    /// Bytes of a payload, a multiple of the page size.
    pub(crate) payload: usize,
    /// Bytes of payloads that may stay resident, over all queues.
    pub(crate) resident_max: u64,
    /// Tells the kernel less than it demands.
    pub(crate) fault_short_payload: bool,
}

/// How a ring thread's queue is laid out among its slots.
#[derive(Debug, Clone)]
pub(super) struct QueueLayout {
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
    pub(super) layout: QueueLayout,
    /// Slots given to the kernel so far, those that are gone included.
    pub(super) registered: u32,
    /// Slots whose request is not answered yet.
    pub(super) held: u32,
    /// Slots that the kernel gave up.
    pub(super) gone: u32,
}

impl QueueState {
    pub(super) fn new(layout: QueueLayout) -> Self {
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

/// Which thread serves which queues: one thread for each CPU that is online, the others' queues in
/// turn.
pub(super) fn share_out(
    possible: &[u16],
    online: &[u16],
    geometry: &Geometry,
) -> Vec<Vec<QueueLayout>> {
    let mut threads: Vec<Vec<QueueLayout>> = Vec::new();
    let add = |queues: &mut Vec<QueueLayout>, qid, depth: u32| {
        let first = slots_of(queues);
        queues.push(QueueLayout {
            qid,
            first,
            depth,
            cap: geometry.depth_max.max(depth),
        });
    };
    for cpu in possible.iter().filter(|cpu| online.contains(cpu)) {
        let mut queues = Vec::new();
        add(&mut queues, *cpu, geometry.depth);
        threads.push(queues);
    }
    if threads.is_empty() {
        threads.push(Vec::new());
    }
    let offline = possible.iter().filter(|cpu| !online.contains(cpu));
    for (turn, cpu) in offline.enumerate() {
        let thread = turn % threads.len();
        add(
            &mut threads[thread],
            *cpu,
            DEPTH_OFFLINE.min(geometry.depth),
        );
    }
    threads
}

pub(super) fn slots_of(queues: &[QueueLayout]) -> u32 {
    queues.iter().map(|queue| queue.cap).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(registered: u32, held: u32) -> QueueState {
        QueueState {
            layout: QueueLayout {
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

    const GEOMETRY: Geometry = Geometry {
        depth: 64,
        depth_max: 256,
        payload: 1 << 20,
        resident_max: 0,
        fault_short_payload: false,
    };

    #[test]
    fn every_possible_cpu_has_its_queue_once() {
        let possible: Vec<u16> = (0..11).collect();
        let threads = share_out(&possible, &[0, 2, 5], &GEOMETRY);
        assert_eq!(threads.len(), 3);
        let mut qids: Vec<_> = threads.iter().flatten().map(|queue| queue.qid).collect();
        qids.sort_unstable();
        assert_eq!(qids, possible);
        for queues in &threads {
            let mut next = 0;
            for queue in queues {
                assert_eq!(queue.first, next, "slots of queues do not overlap");
                next += queue.cap;
            }
        }
        assert_eq!(
            threads[1][0].qid, 2,
            "the first queue is the thread's own CPU"
        );
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
