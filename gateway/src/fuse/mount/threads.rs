//! The threads of a mount: started, counted, joined.
//!
//! `device` reads `/dev/fuse`, on several threads (`device-N`) when the ring is off. `ring-N` serve
//! the queues. `fuse-watch` looks once a second whether a slot is held long and whether a ring
//! thread sleeps over work.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use tracing::{debug, warn};

use super::options::Plan;
use crate::fuse::TransportStats;
use crate::fuse::connection::{Alive, Connection};
use crate::fuse::device::{Door, Pool};
use crate::fuse::ring::{Rings, cpus, sys};

/// Readers of `/dev/fuse` when it carries everything: more than a few only contend for its lock.
const READERS_MAX: usize = 8;

/// Handlers run on these; hits go through the cache and its checks, not deep.
const STACK: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Threads {
    connection: Arc<Connection>,
    doors: Vec<Arc<Door>>,
    rings: Option<Arc<Rings>>,
    joins: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    /// Starts everything. With rings given and refused by the kernel, the reason comes along and
    /// the device carries all.
    pub(super) fn start(
        fd: &OwnedFd,
        connection: Arc<Connection>,
        rings: Option<Rings>,
        plan: &Plan,
    ) -> io::Result<(Self, Option<String>)> {
        let alive = Arc::new(Alive(Arc::clone(&connection)));
        let pool = Pool::new(plan.payload, plan.memory_bound);
        let first = Door::new(fd.try_clone()?, Arc::clone(&connection), Arc::clone(&pool));
        let rings = rings.map(Arc::new);
        let mut threads = Self {
            connection: Arc::clone(&connection),
            doors: vec![Arc::clone(&first)],
            rings: None,
            joins: Mutex::default(),
        };
        // Before REGISTER: until then, and if it is refused, requests come here.
        threads.read(first, rings.clone(), &alive, "device".to_owned())?;
        let mut reason = None;
        if let Some(rings) = rings {
            match rings.start(fd.as_fd(), &connection, &alive) {
                Ok(joins) => {
                    threads.joins.lock().extend(joins);
                    threads.rings = Some(rings);
                }
                Err(cause) => reason = Some(cause.to_string()),
            }
        }
        if threads.rings.is_none() {
            for number in 1..cpus::online().len().clamp(2, READERS_MAX) {
                let fd = match sys::clone_device(fd.as_fd()) {
                    Ok(fd) => fd,
                    Err(cause) => {
                        // No /dev/fuse in sight, as with a received descriptor: share ours.
                        debug!(%cause, "descriptor shared instead of cloned");
                        fd.try_clone()?
                    }
                };
                let door = Door::new(fd, Arc::clone(&connection), Arc::clone(&pool));
                threads.doors.push(Arc::clone(&door));
                threads.read(door, None, &alive, format!("device-{number}"))?;
            }
        }
        Ok((threads, reason))
    }

    fn read(
        &self,
        door: Arc<Door>,
        rings: Option<Arc<Rings>>,
        alive: &Arc<Alive>,
        name: String,
    ) -> io::Result<()> {
        let alive = Arc::clone(alive);
        let run = move || {
            door.run();
            // Slots that are held get no word from the kernel of the end.
            if let Some(rings) = rings {
                rings.stop();
            }
            drop(alive);
        };
        let join = thread::Builder::new()
            .name(name)
            .stack_size(STACK)
            .spawn(run)?;
        self.joins.lock().push(join);
        Ok(())
    }

    pub(super) fn connection(&self) -> Arc<Connection> {
        Arc::clone(&self.connection)
    }

    /// Waits for every thread to end.
    pub(super) fn join(&self) {
        let joins = std::mem::take(&mut *self.joins.lock());
        for join in joins {
            if join.join().is_err() {
                warn!("a thread of the transport panicked");
            }
        }
    }

    pub(super) fn add_to(&self, stats: &mut TransportStats) {
        for door in &self.doors {
            door.counts().add_to(stats);
            stats.device_requests += door.requests();
        }
        stats.interrupts = self.connection.interrupts.received();
        if let Some(rings) = &self.rings {
            rings.add_to(stats);
        }
    }
}
