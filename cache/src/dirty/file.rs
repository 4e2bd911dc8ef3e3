//! One dirty file: writing, reading, cutting. A thin layer over [`FileState`]: take the lock, decide,
//! let go, and only then wait, for memory, for the staging disk, for the store that has the base.
//!
//! [`DirtyFile`] is what the handles share. [`WrittenFile`] is what tasks hold, so that a task under way
//! does not keep a file alive that nobody has open: when the last handle goes, uploads under way
//! are aborted.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, OnceCell, Semaphore};

use super::buffer::{Elsewhere, MemoryMeter, PaidMemory};
use super::layers::{MissingBytes, Need};
use super::stage::StagingRoom;
use super::state::FileState;
use super::{Base, DirtyFile, WriteError, Writer};
use crate::extent::Extent;
use crate::object::Key;
use crate::read::Stream;

/// See the module.
#[derive(Debug)]
pub(crate) struct WrittenFile {
    pub(crate) writer: Arc<Writer>,
    /// Names the file in the writer's list.
    pub(crate) serial: u64,
    pub(crate) state: Mutex<FileState>,
    /// A reader of the base, made at the first read that needs one.
    stream: Mutex<Option<Arc<Stream>>>,
    pub(crate) meter: Arc<MemoryMeter>,
    stage: OnceCell<Arc<StagingRoom>>,
    /// Held by a publish: one at a time.
    pub(crate) publishing: tokio::sync::Mutex<()>,
    /// Held while a multipart upload is created: one a file.
    pub(crate) creating: tokio::sync::Mutex<()>,
    /// Parts on their way at once.
    pub(crate) sends: Semaphore,
    /// A part that was on its way is there, or is not; or a writer moved on.
    pub(crate) parts_moved: Notify,
}

/// Why a write cannot be done at once.
enum Blocked {
    Memory(Need),
    TooLarge,
    /// It would change a part that the store has and this side has not.
    Sent,
}

/// What a read got at once: so many bytes, some of which are still to come.
struct Got {
    len: usize,
    wanted: Vec<MissingBytes>,
    /// Where those of the base come from.
    base: Option<Arc<Stream>>,
}

/// Keeps the content from being given up while a writer waits.
struct Pin<'a>(&'a WrittenFile);

impl<'a> Pin<'a> {
    fn new(inner: &'a WrittenFile) -> Self {
        inner.state.lock().pins += 1;
        Self(inner)
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.0.state.lock().pins -= 1;
    }
}

impl WrittenFile {
    /// A file over `base`.
    pub(crate) fn new(writer: Arc<Writer>, serial: u64, key: Key, base: Base) -> Self {
        Self {
            serial,
            state: Mutex::new(FileState::new(key, base)),
            stream: Mutex::default(),
            meter: Arc::default(),
            stage: OnceCell::new(),
            publishing: tokio::sync::Mutex::default(),
            creating: tokio::sync::Mutex::default(),
            sends: Semaphore::new(writer.config.parts_in_flight_max.max(1)),
            parts_moved: Notify::new(),
            writer,
        }
    }

    /// Writes if nothing has to be waited for. `paid` is memory that was waited for before; `tight`
    /// makes do with buffers that have no room to grow. Those cost as many extents and as many
    /// pieces on disk as there are writes, so with staging it is better to wait.
    fn try_write(
        self: &Arc<Self>,
        offset: u64,
        data: &[u8],
        paid: &mut Option<Arc<PaidMemory>>,
        tight: bool,
    ) -> Result<(), Blocked> {
        let writer = &self.writer;
        let extent = Extent::new(offset, data.len() as u64);
        let end = offset.checked_add(data.len() as u64);
        if end.is_none_or(|end| end > writer.limits.object_max) {
            return Err(Blocked::TooLarge);
        }
        if extent.is_empty() {
            return Ok(());
        }
        let mut state = self.state.lock();
        if self.is_tight() && state.would_break_sent(extent) {
            return Err(Blocked::Sent);
        }
        let mut take = |least: u64, liked: u64| {
            if paid.as_ref().is_some_and(|paid| paid.bytes() >= least) {
                return paid.take();
            }
            let memory = &writer.memory;
            let now = |bytes| memory.take_now(&self.meter, bytes);
            now(liked).or_else(|| now(least).filter(|_| tight))
        };
        let change = state.next_change();
        let pool = &writer.memory.pool;
        let written = state.layers.write(offset, data, change, pool, &mut take);
        written.map_err(Blocked::Memory)?;
        state.dirtied(extent);
        let early = state.wrote(extent, &writer.layout);
        drop(state);
        if early {
            self.send_early();
        }
        writer.free_memory();
        Ok(())
    }

    /// Writes `data`, which is small beside the memory. Waits for memory.
    pub(crate) async fn write(
        self: &Arc<Self>,
        offset: u64,
        data: &[u8],
    ) -> Result<(), WriteError> {
        let _pin = Pin::new(self);
        let mut paid = None;
        let mut tight = self.is_tight();
        loop {
            match self.try_write(offset, data, &mut paid, tight) {
                Ok(()) => return Ok(()),
                Err(Blocked::TooLarge) => return Err(WriteError::TooLarge),
                Err(Blocked::Sent) => return Err(WriteError::no_room()),
                Err(Blocked::Memory(need)) => {
                    // What was got before is not enough any more; holding it while waiting for
                    // more would be how two writers wait for each other.
                    paid = None;
                    let bytes = if tight { need.least } else { need.liked };
                    match self.reserve(bytes).await {
                        Ok(more) => paid = Some(more),
                        Err(_) if !tight => tight = true,
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }

    /// Whether buffers with room to grow are not worth waiting for: nothing makes room.
    fn is_tight(&self) -> bool {
        self.writer.config.staging.is_none()
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Got {
        let state = self.state.lock();
        let size = state.layers.size();
        let len = size.saturating_sub(offset).min(buf.len() as u64) as usize;
        let wanted = state.layers.read(offset, &mut buf[..len]);
        let of_base = |missing: &MissingBytes| matches!(missing.from, Elsewhere::Base);
        let base = wanted.iter().any(of_base).then(|| self.base_stream(&state));
        Got {
            len,
            wanted,
            base: base.flatten(),
        }
    }

    /// The reader of the base.
    fn base_stream(&self, state: &FileState) -> Option<Arc<Stream>> {
        let base = state.layers.base()?;
        let mut stream = self.stream.lock();
        match &*stream {
            Some(stream) if *stream.object() == base.id => Some(stream.clone()),
            _ => {
                let fresh = self.writer.reader.stream(base.id.clone(), base.size);
                let fresh = Arc::new(fresh);
                *stream = Some(fresh.clone());
                Some(fresh)
            }
        }
    }

    /// The file's staged bytes, on which nothing may have been staged yet.
    async fn stage(&self) -> io::Result<&Arc<StagingRoom>> {
        let staging = self.writer.config.staging.as_ref();
        let staging = staging.ok_or_else(|| io::Error::other("there is no staging"))?;
        self.stage
            .get_or_try_init(async || Ok(StagingRoom::new(staging.create().await?)))
            .await
    }

    /// How many bytes are staged.
    pub(crate) fn staged(&self) -> u64 {
        self.stage.get().map_or(0, |stage| stage.alive())
    }

    /// Moves the oldest buffers to the staging file, `bytes` of them or what there is; with `sent`
    /// only those that the store has or is being sent. Gives how many bytes were moved. Only the task
    /// that frees memory calls it. Waits for the disk.
    pub(crate) async fn spill(&self, bytes: u64, sent: bool) -> io::Result<u64> {
        let buffers = {
            let mut state = self.state.lock();
            let end = if sent { state.sent_until() } else { u64::MAX };
            state.layers.oldest(bytes, end)
        };
        if buffers.is_empty() {
            return Ok(0);
        }
        let bodies: Vec<Bytes> = buffers.iter().map(|aged| aged.bytes.clone()).collect();
        let written = async {
            let stage = self.stage().await?;
            stage.sweep().await;
            stage.write(&bodies).await
        };
        match written.await {
            Ok(staged) => {
                drop(bodies);
                let mut moved = 0;
                for (aged, staged) in buffers.into_iter().zip(staged) {
                    moved += aged.bytes.len() as u64;
                    drop(aged.bytes);
                    // A write that has found room behind the buffer's last byte takes it under this lock.
                    let memory = {
                        let _state = self.state.lock();
                        aged.buffer.spilled(staged)
                    };
                    // Freeing memory wakes waiters: not under the lock.
                    drop(memory);
                }
                Ok(moved)
            }
            Err(error) => {
                self.state.lock().layers.put_back(buffers);
                Err(error)
            }
        }
    }

    /// Gives up memory of what the store has in parts that are there, `bytes` or what there is: for a mount
    /// that stages nothing. Gives how many. A publish that then fails has lost them.
    pub(crate) fn give_up_sent(&self, bytes: u64) -> u64 {
        // Under the lock to the end: who finds nothing to give up here finds the memory free that others
        // have given up.
        let mut state = self.state.lock();
        let before = self.meter.bytes();
        state.give_up_sent(bytes);
        before - self.meter.bytes().min(before)
    }

    /// Gives the disk the room of what nobody can ask for any more. Only the task that frees memory
    /// calls it. Waits for the disk.
    pub(crate) async fn sweep(&self) {
        if let Some(stage) = self.stage.get() {
            stage.sweep().await;
        }
    }
}

impl DirtyFile {
    /// The file's size in bytes, as read(2) and stat(2) show it. Never waits.
    pub fn size(&self) -> u64 {
        self.inner.state.lock().layers.size()
    }

    /// Whether a publish has something to send. Never waits.
    pub fn is_dirty(&self) -> bool {
        self.inner.state.lock().is_dirty()
    }

    /// Writes `data` at `offset` if that needs no waiting; false if it does (no memory free). A gap
    /// before it reads as zero. Never waits.
    pub fn write_now(&self, offset: u64, data: &[u8]) -> bool {
        let tight = self.inner.is_tight();
        self.inner.try_write(offset, data, &mut None, tight).is_ok()
    }

    /// Writes `data` at `offset`. Waits for memory, for staging, without staging for parts on their way.
    ///
    /// # Errors
    /// As [`WriteError`]; nothing of `data` is then in the file. (Only `data` larger than a quarter
    /// of what one file may hold in memory is written piece by piece and may be there in part.)
    pub async fn write(&self, offset: u64, data: &[u8]) -> Result<(), WriteError> {
        let memory = &self.inner.writer.memory;
        let step = (memory.file_max / 4).max(memory.pool.buffer_max) as usize;
        if data.len() <= step {
            return self.inner.write(offset, data).await;
        }
        let mut at = offset;
        for piece in data.chunks(step) {
            self.inner.write(at, piece).await?;
            at = at.saturating_add(piece.len() as u64);
        }
        Ok(())
    }

    /// Reads what was written, zeros in holes, the base where it stays. `None` if that needs
    /// waiting. Gives fewer bytes than `buf` only at the end of the file. Never waits.
    pub fn read_now(&self, offset: u64, buf: &mut [u8]) -> Option<usize> {
        let Got { len, wanted, base } = self.inner.try_read(offset, buf);
        let here = wanted.iter().all(|it| {
            let buf = &mut buf[it.start..][..it.len];
            match &it.from {
                Elsewhere::Staged { staged, skip } => staged.read_now(*skip, buf),
                Elsewhere::Base => base.as_ref().is_some_and(|base| {
                    base.read_now(offset + it.start as u64, buf) == Some(it.len)
                }),
                Elsewhere::Sent => false,
            }
        });
        here.then_some(len)
    }

    /// As [`DirtyFile::read_now`], but waits for staging and for the store.
    ///
    /// # Errors
    /// As [`WriteError`]; `Store(Changed)` if the base is another version by now and its bytes are not
    /// here.
    pub async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<usize, WriteError> {
        let Got { len, wanted, base } = self.inner.try_read(offset, buf);
        for it in wanted {
            let at = offset + it.start as u64;
            let buf = &mut buf[it.start..][..it.len];
            match (it.from, &base) {
                (Elsewhere::Staged { staged, skip }, _) => {
                    let read = staged.read(skip, buf).await;
                    read.map_err(WriteError::Staging)?;
                }
                (Elsewhere::Base, Some(base)) => {
                    base.read(at, buf).await?;
                }
                (Elsewhere::Sent | Elsewhere::Base, _) => return Err(WriteError::SentAway),
            }
        }
        Ok(len)
    }

    /// Sets the size: cuts, or adds zeros. Setting the size that it has changes nothing. Never waits.
    ///
    /// # Errors
    /// `TooLarge`; `NoRoom` without staging, if the cut goes through a part that only the store has. The
    /// size is then as before.
    pub fn set_size(&self, size: u64) -> Result<(), WriteError> {
        let inner = &self.inner;
        if size > inner.writer.limits.object_max {
            return Err(WriteError::TooLarge);
        }
        {
            let mut state = inner.state.lock();
            if size == state.layers.size() {
                return Ok(());
            }
            if inner.is_tight() && state.would_break_sent(Extent::between(size, u64::MAX)) {
                return Err(WriteError::no_room());
            }
            state.resize(size);
        }
        inner.writer.tidy();
        Ok(())
    }

    /// Marks the file dirty without a write: its metadata changed and want to be published.
    /// Never waits.
    pub fn touch(&self) {
        self.inner.state.lock().change();
    }
}
