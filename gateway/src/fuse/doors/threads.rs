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

use super::queue::Geometry;
use super::reader::DeviceReader;
use super::rings::Rings;
use crate::fuse::connection::{Alive, Connection};
use crate::fuse::device::{BufferPool, Device};
use crate::fuse::ring::{cpus, sys};
use crate::fuse::stats::TransportStats;

/// Readers of `/dev/fuse` when it carries everything: more than a few only contend for its lock.
const READERS_MAX: usize = 8;

/// Handlers run on these; hits go through the cache and its checks, not deep.
const STACK: usize = 1 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) struct Threads {
    connection: Arc<Connection>,
    pool: Arc<BufferPool>,
    readers: Vec<Arc<DeviceReader>>,
    rings: Option<Arc<Rings>>,
    joins: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    /// Starts everything. With rings given and refused by the kernel, the reason comes along and
    /// the device carries all.
    pub(crate) fn start(
        fd: &OwnedFd,
        connection: Arc<Connection>,
        rings: Option<Rings>,
        geometry: &Geometry,
    ) -> io::Result<(Self, Option<String>)> {
        let alive = Arc::new(Alive(Arc::clone(&connection)));
        let rings = rings.map(Arc::new);
        let mut threads = Self {
            connection,
            pool: BufferPool::new(geometry.payload, geometry.resident_max),
            readers: Vec::new(),
            rings: None,
            joins: Mutex::default(),
        };
        // Before REGISTER: until then, and if it is refused, requests come here.
        threads.read(fd.try_clone()?, rings.clone(), &alive, "device".to_owned())?;
        let mut reason = None;
        if let Some(rings) = rings {
            match rings.start(fd.as_fd(), &threads.connection, &alive) {
                Ok(joins) => {
                    threads.joins.lock().extend(joins);
                    threads.rings = Some(rings);
                }
                Err(cause) => reason = Some(cause.to_string()),
            }
        }
        if threads.rings.is_none() {
            threads.read_by_clones(fd, &alive)?;
        }
        Ok((threads, reason))
    }

    /// Starts the readers that a device wants that carries everything.
    fn read_by_clones(&mut self, fd: &OwnedFd, alive: &Arc<Alive>) -> io::Result<()> {
        for number in 1..cpus::online().len().clamp(2, READERS_MAX) {
            let fd = match sys::clone_device(fd.as_fd()) {
                Ok(fd) => fd,
                Err(cause) => {
                    // No /dev/fuse in sight, as with a received descriptor: share ours.
                    debug!(%cause, "descriptor shared instead of cloned");
                    fd.try_clone()?
                }
            };
            self.read(fd, None, alive, format!("device-{number}"))?;
        }
        Ok(())
    }

    /// Starts a reader of `fd`, with whose end `rings` end.
    fn read(
        &mut self,
        fd: OwnedFd,
        rings: Option<Arc<Rings>>,
        alive: &Arc<Alive>,
        name: String,
    ) -> io::Result<()> {
        let context = Arc::clone(self.connection.context());
        let device = Device::new(fd, context, Arc::clone(&self.pool));
        let reader = DeviceReader::new(device, Arc::clone(&self.connection));
        self.readers.push(Arc::clone(&reader));
        let alive = Arc::clone(alive);
        let run = move || {
            reader.run();
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

    pub(crate) fn connection(&self) -> Arc<Connection> {
        Arc::clone(&self.connection)
    }

    /// Waits for every thread to end.
    pub(crate) fn join(&self) {
        let joins = std::mem::take(&mut *self.joins.lock());
        for join in joins {
            if join.join().is_err() {
                warn!("a thread of the transport panicked");
            }
        }
    }

    pub(crate) fn add_to(&self, stats: &mut TransportStats) {
        for reader in &self.readers {
            reader.counts().add_to(stats);
            stats.device_requests += reader.requests();
        }
        stats.interrupts = self.connection.context().interrupts.received();
        if let Some(rings) = &self.rings {
            rings.add_to(stats);
        }
    }
}
