//! One dirty file: writing, reading, cutting. A thin layer over [`State`]: take the lock, decide,
//! let go, and only then wait, for memory, for the base, for the staging disk.
//!
//! [`DirtyFile`] is what the handles share. [`Inner`] is what tasks hold, so that a task under way
//! does not keep a file alive that nobody has open: when the last handle goes, uploads under way
//! are aborted.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, OnceCell, Semaphore};

use super::buffer::{Meter, Paid};
use super::content::{Need, Wanted};
use super::stage::Stage;
use super::state::{Source, State};
use super::{Base, DirtyFile, WriteError, Writer};
use crate::extent::Extent;
use crate::object::Key;
use crate::read::Stream;

/// See the module.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) writer: Arc<Writer>,
    /// Names the file in the writer's list.
    pub(crate) serial: u64,
    pub(crate) state: Mutex<State>,
    /// A reader of the base while it is away, made at the first read.
    stream: Mutex<Option<Arc<Stream>>>,
    pub(crate) meter: Arc<Meter>,
    stage: OnceCell<Arc<Stage>>,
    /// Held by a publish and by a fetch of the base: one at a time.
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
    Base,
    Memory(Need),
    TooLarge,
}

/// What a read got at once.
enum Got {
    /// So many bytes; some of them are still to come from the disk.
    Content(usize, Vec<Wanted>),
    /// The base is away: ask this.
    Base(Arc<Stream>),
}

/// Keeps the content from being given up while a writer waits.
struct Pin<'a>(&'a Inner);

impl<'a> Pin<'a> {
    fn new(inner: &'a Inner) -> Self {
        inner.state.lock().pins += 1;
        Self(inner)
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.0.state.lock().pins -= 1;
    }
}

impl Inner {
    /// A file over `base`.
    pub(crate) fn new(writer: Arc<Writer>, serial: u64, key: Key, base: Base) -> Self {
        Self {
            serial,
            state: Mutex::new(State::new(key, base)),
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
        paid: &mut Option<Arc<Paid>>,
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
        if !matches!(state.source, Source::Here) {
            return Err(Blocked::Base);
        }
        let mut take = |least: u64, liked: u64| {
            if paid.as_ref().is_some_and(|paid| paid.bytes() >= least) {
                return paid.take();
            }
            let memory = &writer.memory;
            let now = |bytes| memory.take_now(&self.meter, bytes);
            now(liked).or_else(|| now(least).filter(|_| tight))
        };
        state
            .content
            .write(offset, data, &writer.memory.pool, &mut take)
            .map_err(Blocked::Memory)?;
        state.dirtied(extent);
        let early = state.wrote(extent, &writer.ladder);
        drop(state);
        if early {
            self.send_early();
        }
        writer.free_memory();
        Ok(())
    }

    /// Writes `data`, which is small beside the memory. Waits for memory and for the base.
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
                Err(Blocked::Base) => self.bring_base(u64::MAX).await?,
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
        let (Source::Away { id, size } | Source::Coming { id, size, .. }) = &state.source else {
            let size = state.content.size();
            let len = size.saturating_sub(offset).min(buf.len() as u64) as usize;
            let wanted = state.content.read(offset, &mut buf[..len]);
            return Got::Content(len, wanted);
        };
        let mut stream = self.stream.lock();
        let fits = stream.as_ref().is_some_and(|it| it.object() == id);
        if !fits {
            let reader = &self.writer.reader;
            *stream = Some(Arc::new(reader.stream(id.clone(), *size)));
        }
        Got::Base(stream.clone().expect("it was made above"))
    }

    /// Cuts or extends the file whose content is here.
    pub(crate) fn resize(&self, state: &mut State, size: u64) {
        let before = state.content.size();
        if size == before {
            return;
        }
        state.content.set_size(size);
        state.early.cut(size);
        state.dirtied(if size < before {
            Extent::between(size, u64::MAX)
        } else {
            Extent::between(before, size)
        });
        self.writer.tidy();
    }

    /// The file's staged bytes, on which nothing may have been staged yet.
    async fn stage(&self) -> io::Result<&Arc<Stage>> {
        let staging = self.writer.config.staging.as_ref();
        let staging = staging.ok_or_else(|| io::Error::other("there is no staging"))?;
        self.stage
            .get_or_try_init(async || Ok(Stage::new(staging.create().await?)))
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
            state.content.oldest(bytes, end)
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
                self.state.lock().content.put_back(buffers);
                Err(error)
            }
        }
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
        let state = self.inner.state.lock();
        match &state.source {
            Source::Here => state.content.size(),
            Source::Away { size, .. } | Source::Coming { size, .. } => *size,
        }
    }

    /// Whether a publish has something to send. Never waits.
    pub fn is_dirty(&self) -> bool {
        self.inner.state.lock().is_dirty()
    }

    /// Writes `data` at `offset` if that needs no waiting; false if it does (no memory free, the
    /// base is not here yet). A gap before it reads as zero. Never waits.
    pub fn write_now(&self, offset: u64, data: &[u8]) -> bool {
        let tight = self.inner.is_tight();
        self.inner.try_write(offset, data, &mut None, tight).is_ok()
    }

    /// Writes `data` at `offset`. Waits for memory, for staging, for the base.
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
        match self.inner.try_read(offset, buf) {
            Got::Base(stream) => stream.read_now(offset, buf),
            Got::Content(len, wanted) => wanted
                .iter()
                .all(|it| it.staged.read_now(it.skip, &mut buf[it.start..][..it.len]))
                .then_some(len),
        }
    }

    /// As [`DirtyFile::read_now`], but waits for staging and for the base.
    ///
    /// # Errors
    /// As [`WriteError`].
    pub async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<usize, WriteError> {
        match self.inner.try_read(offset, buf) {
            Got::Base(stream) => Ok(stream.read(offset, buf).await?),
            Got::Content(len, wanted) => {
                for it in wanted {
                    let buf = &mut buf[it.start..][..it.len];
                    let read = it.staged.read(it.skip, buf).await;
                    read.map_err(WriteError::Staging)?;
                }
                Ok(len)
            }
        }
    }

    /// Sets the size: cuts, or adds zeros. Setting the size that it has changes nothing. Waits for
    /// the base if part of it stays.
    ///
    /// # Errors
    /// As [`WriteError`]; the size is then as before.
    pub async fn set_size(&self, size: u64) -> Result<(), WriteError> {
        let inner = &self.inner;
        if size > inner.writer.limits.object_max {
            return Err(WriteError::TooLarge);
        }
        let _pin = Pin::new(inner);
        loop {
            {
                let mut state = inner.state.lock();
                match &state.source {
                    Source::Here => {
                        inner.resize(&mut state, size);
                        return Ok(());
                    }
                    Source::Away { size: here, .. } | Source::Coming { size: here, .. }
                        if *here == size =>
                    {
                        return Ok(());
                    }
                    Source::Away { .. } if size == 0 => {
                        state.source = Source::Here;
                        inner.resize(&mut state, 0);
                        return Ok(());
                    }
                    _ => {}
                }
            }
            let arrived = inner.bring_base(size).await;
            // Nothing of the base is wanted: a fetch for somebody else may fail.
            if size > 0 {
                arrived?;
            }
        }
    }

    /// Marks the file dirty without a write: its metadata changed and want to be published.
    /// Never waits.
    pub fn touch(&self) {
        self.inner.state.lock().change();
    }
}
