//! The io_uring door: the kernel's queues, one for each possible CPU, and the threads that serve
//! them.
//!
//! Each CPU that is online has a thread `ring-N`, pinned to it, which serves that CPU's queue; the
//! queues of CPUs that are not there now are shared out among them, because the kernel starts only
//! when every queue has a slot. A thread owns its io_uring (`ring_thread.rs`), runs hits to the end and
//! never waits for anything but the kernel; what must wait takes its token elsewhere and answers
//! through the thread's mailbox. All slots lie in one arena.
//!
//! Life: [`Rings::prepare`] does all that can fail, before the mount; [`Rings::start`] registers the
//! slots; [`Rings::stop`] is called when the device thread hears of the end, because a slot that is
//! held gets no word of it. A thread closes its ring, then lets the arena go; tokens that are still
//! out keep the arena mapped and their answers are dropped.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use super::queue::{Geometry, share_out, slots_of};
use super::ring_member::{RingMember, Start};
use super::watchdog::Watchdog;
use crate::fuse::connection::{Alive, Connection};
use crate::fuse::ring::{Arena, Mailbox, RingShared, cpus};
use crate::fuse::stats::TransportStats;

/// All ring threads of a mount.
#[derive(Debug)]
pub(crate) struct Rings {
    members: Arc<[RingMember]>,
    watchdog: Arc<Watchdog>,
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
            let shared = RingShared::new(Arc::clone(&arena), first, count, Mailbox::new()?);
            first += count;
            members.push(RingMember::spawn(
                shared,
                plan,
                resident_max,
                geometry.fault_short_payload,
            )?);
        }
        Ok(Self {
            members: members.into(),
            watchdog: Arc::default(),
        })
    }

    /// Registers all slots with the connection behind `fuse`. After this requests come here.
    ///
    /// # Errors
    /// The kernel refused a queue and serves over `/dev/fuse`; the threads have ended.
    pub(crate) fn start(
        &self,
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
        joins.push(self.watchdog.spawn(&self.members)?);
        Ok(joins)
    }

    fn register(
        &self,
        fuse: BorrowedFd<'_>,
        connection: &Arc<Connection>,
        alive: &Arc<Alive>,
    ) -> io::Result<()> {
        let (registered, results) = sync_channel(self.members.len());
        for member in self.members.iter() {
            let start = Start {
                fuse: fuse.try_clone_to_owned()?,
                connection: Arc::clone(connection),
                alive: Arc::clone(alive),
                registered: registered.clone(),
            };
            if !member.start(start) {
                return Err(io::Error::other("a ring thread has ended early"));
            }
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
        for member in self.members.iter() {
            member.shared.mailbox.stop();
        }
        self.watchdog.stop();
    }

    fn joins(&self) -> Vec<JoinHandle<()>> {
        let taken = self.members.iter().map(RingMember::take_join);
        taken.flatten().collect()
    }

    pub(crate) fn add_to(&self, stats: &mut TransportStats) {
        use std::sync::atomic::Ordering::Relaxed;

        for member in self.members.iter() {
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
    fn rings_that_are_never_started_end() {
        let rings = Rings::prepare(&GEOMETRY).expect("this machine has io_uring");
        let joins = rings.joins();
        drop(rings);
        for join in joins {
            join.join().expect("it ends without a panic");
        }
    }
}
