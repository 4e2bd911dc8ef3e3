//! One ring thread, seen from outside: started with its ring built, told to serve, looked at.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use parking_lot::Mutex;
use tracing::debug;

use super::queue::QueueLayout;
use super::ring_thread::RingThread;
use crate::fuse::connection::{Alive, Connection};
use crate::fuse::ring::RingShared;

/// Handlers run on ring threads; hits go through the cache and its checks, not deep.
const STACK: usize = 1 << 20;

/// One ring thread, seen from outside.
#[derive(Debug)]
pub(super) struct RingMember {
    pub(super) shared: Arc<RingShared>,
    start: SyncSender<Start>,
    /// The clock that slots' times are of.
    epoch: Instant,
    join: Mutex<Option<JoinHandle<()>>>,
}

/// What a prepared thread waits for.
pub(super) struct Start {
    pub(super) fuse: OwnedFd,
    pub(super) connection: Arc<Connection>,
    pub(super) alive: Arc<Alive>,
    pub(super) registered: SyncSender<io::Result<()>>,
}

impl RingMember {
    pub(super) fn spawn(
        shared: Arc<RingShared>,
        queues: Vec<QueueLayout>,
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

    /// Lets the thread register its slots and serve; it answers through `start`. False if it has ended.
    pub(super) fn start(&self, start: Start) -> bool {
        self.start.send(start).is_ok()
    }

    /// The thread, to be waited for; `None` if somebody does.
    pub(super) fn take_join(&self) -> Option<JoinHandle<()>> {
        self.join.lock().take()
    }

    /// How many slots are held, and for how long the oldest is.
    pub(super) fn held(&self) -> (u64, Duration) {
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
        thread.run(&start.connection);
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
