//! The io_uring door: the kernel's queues, one for each possible CPU, and the threads that serve
//! them.
//!
//! Each CPU that is online has a thread `ring-N`, pinned to it, which serves that CPU's queue; the
//! queues of CPUs that are not there now are shared out among them, because the kernel starts only
//! when every queue has a slot. A thread owns its io_uring ([`thread`]), runs hits to the end and
//! never waits for anything but the kernel; what must wait takes its [`Token`] elsewhere and answers
//! through the thread's [`mailbox`]. All slots lie in one [`arena`].
//!
//! Life: [`Rings::prepare`] does all that can fail, before the mount; [`Rings::start`] registers the
//! slots; [`Rings::stop`] is called when the device thread hears of the end, because a slot that is
//! held gets no word of it. A thread closes its ring, then lets the arena go; tokens that are still
//! out keep the arena mapped and their answers are dropped.
//!
//! `unsafe` lives here and nowhere else in the gateway: the shared memory in `arena` and `slot`,
//! submission entries in `thread` and `sqe`, two ioctls in `sys`.

mod arena;
pub(crate) mod cpus;
mod mailbox;
mod queue;
mod slot;
mod sqe;
pub(crate) mod sys;
mod thread;
mod watch;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use parking_lot::Mutex;
use tracing::debug;

use self::arena::Arena;
use self::mailbox::Mailbox;
use self::queue::Queue;
use self::slot::Shared;
use self::thread::RingThread;
use self::watch::Watchdog;
use super::TransportStats;
use super::connection::{Alive, Connection};

pub(crate) use self::slot::Token;

/// Slots of a queue whose CPU is not there; it grows like the others if it comes.
const DEPTH_OFFLINE: u32 = 16;

/// Handlers run on ring threads; hits go through the cache and its checks, not deep.
const STACK: usize = 1 << 20;

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

/// All ring threads of a mount.
#[derive(Debug)]
pub(crate) struct Rings {
    members: Vec<Member>,
    watchdog: Arc<Watchdog>,
}

/// One ring thread, seen from outside.
#[derive(Debug)]
struct Member {
    shared: Arc<Shared>,
    start: SyncSender<Start>,
    /// The clock that slots' times are of.
    epoch: Instant,
    join: Mutex<Option<JoinHandle<()>>>,
}

/// What a prepared thread waits for.
struct Start {
    fuse: std::os::fd::OwnedFd,
    connection: Arc<Connection>,
    alive: Arc<Alive>,
    registered: SyncSender<io::Result<()>>,
}

impl Rings {
    /// Maps the slots' memory and starts the threads, each with its ring built, waiting for
    /// [`Rings::start`]. Dropped before that, they end.
    ///
    /// # Errors
    /// Memory, threads or rings were refused.
    pub(crate) fn prepare(geometry: &Geometry) -> io::Result<Self> {
        let threads = share_out(&cpus::possible(), &cpus::online(), geometry);
        let slots = threads.iter().map(|queues| slots_of(queues)).sum();
        let arena = Arc::new(Arena::new(slots, geometry.payload)?);
        let resident_max = geometry.resident_max / threads.len().max(1) as u64;
        let mut members = Vec::with_capacity(threads.len());
        let mut first = 0;
        for plan in threads {
            let count = slots_of(&plan);
            let shared = Shared::new(Arc::clone(&arena), first, count, Mailbox::new()?);
            first += count;
            members.push(Member::spawn(
                shared,
                plan,
                resident_max,
                geometry.fault_short_payload,
            )?);
        }
        Ok(Self {
            members,
            watchdog: Arc::default(),
        })
    }

    /// Registers all slots with the connection behind `fuse`. After this requests come here.
    ///
    /// # Errors
    /// The kernel refused a queue and serves over `/dev/fuse`; the threads have ended.
    pub(crate) fn start(
        self: &Arc<Self>,
        fuse: BorrowedFd<'_>,
        connection: &Arc<Connection>,
        alive: &Arc<Alive>,
    ) -> io::Result<Vec<JoinHandle<()>>> {
        let result = self.register(fuse, connection, alive);
        if let Err(cause) = result {
            self.stop();
            for join in self.joins() {
                let _ = join.join();
            }
            return Err(cause);
        }
        let mut joins = self.joins();
        joins.push(self.watchdog.spawn(self)?);
        Ok(joins)
    }

    fn register(
        &self,
        fuse: BorrowedFd<'_>,
        connection: &Arc<Connection>,
        alive: &Arc<Alive>,
    ) -> io::Result<()> {
        let (registered, results) = sync_channel(self.members.len());
        for member in &self.members {
            let start = Start {
                fuse: fuse.try_clone_to_owned()?,
                connection: Arc::clone(connection),
                alive: Arc::clone(alive),
                registered: registered.clone(),
            };
            let gone = |_| io::Error::other("a ring thread has ended early");
            member.start.send(start).map_err(gone)?;
        }
        drop(registered);
        // Every thread answers or drops its sender, so this ends.
        let results: Vec<_> = results.iter().collect();
        if results.len() < self.members.len() {
            return Err(io::Error::other("a ring thread has ended early"));
        }
        results.into_iter().collect()
    }

    /// Ends all threads, soon.
    pub(crate) fn stop(&self) {
        for member in &self.members {
            member.shared.mailbox.stop();
        }
        self.watchdog.stop();
    }

    fn joins(&self) -> Vec<JoinHandle<()>> {
        let taken = self.members.iter().map(|member| member.join.lock().take());
        taken.flatten().collect()
    }

    pub(crate) fn add_to(&self, stats: &mut TransportStats) {
        use std::sync::atomic::Ordering::Relaxed;

        for member in &self.members {
            member.shared.counts.add_to(stats);
            stats.slots += member.shared.registered.load(Relaxed);
            stats.payload_resident += member.shared.resident.load(Relaxed);
            stats.slots_lost += member.shared.lost.load(Relaxed);
            let (held, longest) = member.held();
            stats.slots_held += held;
            stats.longest_held = stats.longest_held.max(longest);
        }
        stats.watchdog_wakes += self.watchdog.wakes();
    }
}

impl Member {
    fn spawn(
        shared: Arc<Shared>,
        queues: Vec<Queue>,
        resident_max: u64,
        short_payload: bool,
    ) -> io::Result<Self> {
        let (start, starts) = sync_channel(1);
        let (ready, readiness) = sync_channel(1);
        let own = Arc::clone(&shared);
        let cpu = queues.first().map_or(0, |queue| queue.qid);
        let join = std::thread::Builder::new()
            .name(format!("ring-{cpu}"))
            .stack_size(STACK)
            .spawn(move || {
                pin(cpu);
                match RingThread::new(own, queues, resident_max, short_payload) {
                    Ok(thread) => {
                        if ready.send(Ok(thread.epoch())).is_ok() {
                            serve(thread, &starts);
                        }
                    }
                    Err(cause) => drop(ready.send(Err(cause))),
                }
            })?;
        let epoch = readiness
            .recv()
            .map_err(|_| io::Error::other("a ring thread panicked"))??;
        Ok(Self {
            shared,
            start,
            epoch,
            join: Mutex::new(Some(join)),
        })
    }

    /// How many slots are held, and for how long the oldest is.
    fn held(&self) -> (u64, Duration) {
        let (count, since) = self.shared.held();
        let longest = since.map_or(Duration::ZERO, |since| {
            self.epoch
                .elapsed()
                .saturating_sub(Duration::from_millis(since))
        });
        (count, longest)
    }
}

fn serve(mut thread: RingThread, starts: &Receiver<Start>) {
    // The sender is dropped where the mount failed or the ring is not wanted after all.
    let Ok(start) = starts.recv() else { return };
    let result = thread.register(start.fuse, &start.connection);
    let registered = result.is_ok();
    let _ = start.registered.send(result);
    drop(start.registered);
    if registered {
        thread.run();
    }
    // The ring first: the kernel gives the slots up with it.
    drop(thread);
    drop(start.alive);
}

/// Keeps this thread on its queue's CPU: the request was made there, its data are in that cache.
fn pin(cpu: u16) {
    let mut set = CpuSet::new();
    let pinned = set
        .set(usize::from(cpu))
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
    if let Err(errno) = pinned {
        // A cpuset that leaves this CPU out; the queue is served from elsewhere.
        debug!(cpu, %errno, "ring thread not pinned");
    }
}

/// Which thread serves which queues: one thread for each CPU that is online, the others' queues in
/// turn.
fn share_out(possible: &[u16], online: &[u16], geometry: &Geometry) -> Vec<Vec<Queue>> {
    let mut threads: Vec<Vec<Queue>> = Vec::new();
    let add = |queues: &mut Vec<Queue>, qid, depth: u32| {
        let first = slots_of(queues);
        queues.push(Queue {
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

fn slots_of(queues: &[Queue]) -> u32 {
    queues.iter().map(|queue| queue.cap).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn rings_that_are_never_started_end() {
        let rings = Rings::prepare(&GEOMETRY).expect("this machine has io_uring");
        let joins = rings.joins();
        drop(rings);
        for join in joins {
            join.join().expect("it ends without a panic");
        }
    }
}
