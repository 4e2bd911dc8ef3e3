//! Opening: every open of a file asks the store which version there is, so that it sees all that
//! was published by closes that ended before it. A file with bytes that are not published yet is
//! opened as it stands here, and who replaced it meanwhile is met at the publish; a new file asks
//! nothing. What was published here is asked for like any other, also while its writers are not
//! released: RELEASE comes some time after the close(2), and a handle may be kept for hours.
//!
//! Passthrough: a whole, verified cache file is handed to the kernel for opens that only read. The
//! kernel wants all opens of one inode to be alike: while one passes through, `fuse_file_io_open`
//! (fs/fuse/iomode.c) refuses every other that does not. FOPEN_PASSTHROUGH with FOPEN_DIRECT_IO
//! would bring a writer's reads and writes here, but its mmap would still go to the cache file, and
//! what it stores there would be published by nobody. So an open that cannot pass through while
//! others do gives the file a second inode, the successor: ESTALE makes the kernel look the name up
//! again and find it. The readers keep the version that they opened; a successor is not passed
//! through, so this comes once to a file that is read and written at once, and not at every write.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use ackfs_cache::dirty::Base;
use ackfs_cache::memory::BLOCK;
use ackfs_cache::object::{Key, ObjectId};

use crate::fs::Filesystem;
use crate::fs::attr::Kind;
use crate::fs::error::{FsError, FsResult, look_again};
use crate::fs::table::handles::FileHandle;
use crate::fs::table::inode::{Inode, State, Told};
use crate::fs::task::Context;
use crate::fuse::Responder;
use crate::fuse::abi::{FOPEN_DIRECT_IO, FOPEN_KEEP_CACHE, FOPEN_PASSTHROUGH, OpenOut};

/// Larger files are not brought by an open, in bytes: their reads may still miss the version.
const BRING_MAX: u64 = BLOCK;
/// How many versions of a file are asked for whose bytes are gone before they are here.
const TRIES_MAX: usize = 4;
/// Smaller files are not worth the backing file's registration.
const PASSTHROUGH_MIN: u64 = 1 << 20;

/// Whether an open with these flags may write.
pub(super) fn writes(flags: u32) -> bool {
    flags & libc::O_ACCMODE as u32 != libc::O_RDONLY as u32
}

/// Whether it cuts the file, which Linux allows beside O_RDONLY to who may write the file.
pub(super) fn truncates(flags: u32) -> bool {
    flags & libc::O_TRUNC as u32 != 0
}

/// Whether it may change the file, so that its closes publish.
pub(super) fn changes(flags: u32) -> bool {
    writes(flags) || truncates(flags)
}

impl Filesystem {
    pub(in crate::fs) fn open(&self, ino: u64, flags: u32, responder: Responder) {
        let inode = match self.inode(ino) {
            Ok(inode) => inode,
            Err(error) => return Context::new("open", ino).fail(responder, &error),
        };
        let context = Context::of("open", &inode);
        let this = self.this();
        let work = async move { this.open_inode(&inode, flags).await };
        let answer = |responder: Responder, open| responder.open(&open);
        if truncates(flags) {
            // Given up half-way it would leave a truncation that nobody's close publishes.
            self.spawn(context, responder, work, answer);
        } else {
            self.spawn_interruptible(context, responder, work, answer);
        }
    }

    pub(super) async fn open_inode(&self, inode: &Arc<Inode>, flags: u32) -> FsResult<OpenOut> {
        match inode.kind {
            Kind::File => {}
            Kind::Directory => return Err(FsError::IsDirectory),
            // The kernel opens these by itself. What it wanted to make here, or took for a file, it finds
            // to be one of them when it looks again.
            Kind::Symlink | Kind::Fifo | Kind::Socket => return Err(self.look_again(inode)),
        }
        if changes(flags) {
            self.writable()?;
        }
        self.turn_from_lost(inode)?;
        let checked = access(inode);
        let newest = if changes(flags) {
            self.revalidate_published(inode, None).await
        } else {
            self.show_newest(inode).await
        };
        if matches!(newest, Err(FsError::LookAgain)) {
            self.note_missed(inode);
        }
        newest?;
        if access(inode) != checked {
            // A listing shows no metadata, so the kernel has let the caller in by the mount's mode and
            // owner. It looks the name up again and checks by the file's own.
            return Err(look_again());
        }
        tell_of_late_failure(&mut inode.state.lock())?;
        if !truncates(flags) {
            return self.open_version(inode, flags).await;
        }
        // A writer from here on: if no handle comes of it, nobody's close publishes what was cut.
        inode.state.lock().writers += 1;
        let open = match self.truncate_at_open(inode).await {
            Ok(()) => self.open_version(inode, flags).await,
            Err(error) => Err(error),
        };
        let others = {
            let mut state = inode.state.lock();
            state.writers -= 1;
            state.writers > 0
        };
        if open.is_err() && !others {
            self.publish_by_name(inode).await?;
        }
        open
    }

    /// [`Filesystem::revalidate_published`] for an open that only reads. Of a small file, and of a contended
    /// name, the inode shows the newest version if nobody has it open, though no answer to OPEN can tell the
    /// kernel its size: the handle is read past the page cache. Without that the kernel would look up another
    /// inode, whose version may be gone again. The bytes of a small one are brought before it is opened: what
    /// is overwritten now is overwritten soon. See `names/contended.rs`.
    async fn show_newest(&self, inode: &Arc<Inode>) -> FsResult<()> {
        let mut tries = 0;
        loop {
            let (shown, place) = {
                let state = inode.state.lock();
                (state.version.clone(), (state.parent, state.name.clone()))
            };
            let is_contended = self.names.contended().holds(place.0, &place.1);
            let moves_max = self.moves_max(is_contended);
            self.revalidate_published(inode, moves_max).await?;
            let (object, size) = match inode.state.lock() {
                state if state.is_local() => return Ok(()),
                state => (state.object(), state.attr.size),
            };
            let Some(object) = object else {
                return Ok(());
            };
            let is_other = shown.is_none_or(|shown| shown != object.etag);
            if is_other {
                self.counters.changed_opens.fetch_add(1, Ordering::Relaxed);
                self.names.contended().missed(place.0, &place.1);
                if let Some(kernel) = self.kernel.get() {
                    kernel.expire_attributes(inode.ino);
                }
            }
            tries += 1;
            let is_brought = size <= BRING_MAX && (is_other || is_contended);
            if !is_brought || tries == TRIES_MAX || self.bring_small(object, size).await {
                return Ok(());
            }
        }
    }

    /// Up to which size an open that only reads shows a version that the kernel was not told of.
    fn moves_max(&self, is_contended: bool) -> Option<u64> {
        let kernel = self.kernel.get()?;
        if is_contended {
            return Some(u64::MAX);
        }
        // Past the page cache there is no readahead, and before Linux 6.6 no shared mapping.
        kernel.maps_direct_io().then_some(BRING_MAX)
    }

    /// Brings the bytes of a small file here. False if the version is gone.
    async fn bring_small(&self, id: ObjectId, size: u64) -> bool {
        let mut bytes = vec![0; size as usize];
        let stream = Arc::new(self.reader.stream(id, size));
        if stream.read_now(0, &mut bytes).is_some() {
            return true;
        }
        let read = stream.read(0, &mut bytes).await.map_err(FsError::from);
        // Any other failure its reader will meet, or not.
        !matches!(read, Err(FsError::VersionGone(_)))
    }

    /// Another version was there than the kernel was told of.
    pub(in crate::fs) fn note_missed(&self, inode: &Inode) {
        let state = inode.state.lock();
        if !state.unlinked {
            let contended = self.names.contended();
            contended.missed(state.parent, &state.name);
        }
    }

    /// Opens the inode as it is now.
    async fn open_version(&self, inode: &Arc<Inode>, flags: u32) -> FsResult<OpenOut> {
        let clean = match inode.state.lock() {
            state if writes(flags) || state.is_local() || state.backing.is_some() => None,
            state => state.object().zip(Some(state.attr.size)),
        };
        if let Some((object, size)) = clean {
            self.reader.settle(&object, size).await;
        }
        if inode.state.lock().leaving {
            // Whether the name is still there afterwards the kernel then finds out.
            drop(inode.publishing.lock().await);
            return Err(self.look_again(inode));
        }
        let mut state = inode.state.lock();
        if state.leaving || state.unlinked || !state.attached {
            drop(state);
            return Err(self.look_again(inode));
        }
        // Who appends does so where the kernel believes the end to be.
        let is_told = state.is_local() || inode.is_size_told();
        if !is_told && changes(flags) {
            return Err(look_again());
        }
        let mut out = OpenOut::default();
        if !self.pass_through(inode, &mut state, flags, &mut out) {
            drop(state);
            self.inodes.succeed(inode);
            return Err(look_again());
        }
        let passthrough = out.open_flags & FOPEN_PASSTHROUGH != 0;
        if !is_told && !passthrough {
            out.open_flags |= FOPEN_DIRECT_IO;
        } else if !passthrough && state.kernel_pages == state.version && state.version.is_some() {
            out.open_flags |= FOPEN_KEEP_CACHE;
        }
        if state.is_local() && state.handles > 0 {
            // What others wrote here went through the kernel's pages: they are right.
            out.open_flags |= FOPEN_KEEP_CACHE;
        }
        state.kernel_pages = state.version.clone().filter(|_| is_told);
        out.open_flags |= self.close_mode().open_flags(changes(flags));
        let (writable, publishes) = (writes(flags), changes(flags));
        out.fh = self.take_handle(inode, &mut state, writable, publishes, passthrough);
        Ok(out)
    }

    /// Refuses bytes of which a close has said that they will not get there. They stay with the handles
    /// that are still open, until the last RELEASE, which comes some time after its close(2); who asks
    /// by name gets what is in the store.
    ///
    /// # Errors
    /// [`look_again`].
    pub(in crate::fs) fn turn_from_lost(&self, inode: &Inode) -> FsResult<()> {
        {
            let state = inode.state.lock();
            if !state.is_local() || state.told != Some(Told::Final) {
                return Ok(());
            }
        }
        let stale = self.look_again(inode);
        self.inodes.detach(inode);
        Err(stale)
    }

    /// [`look_again`], after what is known of the name was dropped: the look-up must not find what is out of
    /// date (another version, or a file whose own mode no listing shows). Not needed if it was asked for just
    /// now.
    pub(in crate::fs) fn look_again(&self, inode: &Inode) -> FsError {
        let (parent, name, gone) = {
            let state = inode.state.lock();
            (state.parent, state.name.clone(), state.unlinked)
        };
        if !gone {
            self.names.cache().drop_name(parent, &name);
        }
        look_again()
    }

    pub(super) fn take_handle(
        &self,
        inode: &Arc<Inode>,
        state: &mut State,
        writable: bool,
        publishes: bool,
        passthrough: bool,
    ) -> u64 {
        state.handles += 1;
        state.writers += u32::from(publishes);
        let handle = FileHandle::new(inode.clone(), writable, publishes, passthrough);
        self.files.insert(handle)
    }

    /// Fills in the backing file where the open may pass through. False if the inode's other opens
    /// pass through and this one cannot.
    fn pass_through(
        &self,
        inode: &Inode,
        state: &mut State,
        flags: u32,
        out: &mut OpenOut,
    ) -> bool {
        if let Some(backing) = &state.backing {
            if writes(flags) || state.is_local() {
                return false;
            }
            out.open_flags |= FOPEN_PASSTHROUGH;
            out.backing_id = backing.id();
            self.counters
                .passthrough_opens
                .fetch_add(1, Ordering::Relaxed);
            return true;
        }
        let wanted = !writes(flags)
            && state.handles == 0
            && !inode.is_successor
            && !state.is_local()
            && state.attr.size >= PASSTHROUGH_MIN;
        let (true, Some(kernel), Some(object)) = (wanted, self.kernel.get(), state.object()) else {
            return true;
        };
        let Some(file) = self.reader.whole_file(&object, state.attr.size) else {
            return true;
        };
        match kernel.open_backing(&file) {
            Ok(backing) => {
                out.open_flags |= FOPEN_PASSTHROUGH;
                out.backing_id = backing.id();
                state.backing = Some(Arc::new(backing));
                self.counters
                    .passthrough_opens
                    .fetch_add(1, Ordering::Relaxed);
            }
            // No right to, or no room for more: the ring serves it.
            Err(error) => tracing::debug!(ino = inode.ino, %error, "no passthrough"),
        }
        true
    }

    /// O_TRUNC: none of the bytes are wanted.
    async fn truncate_at_open(&self, inode: &Arc<Inode>) -> FsResult<()> {
        let local = {
            let mut state = inode.state.lock();
            if state.backing.is_some() {
                drop(state);
                self.inodes.succeed(inode);
                return Err(look_again());
            }
            state.attr.modify(SystemTime::now());
            state.kernel_pages = None;
            match (&state.dirty, &state.version) {
                (Some(dirty), _) => Some(dirty.clone()),
                (None, Some(etag)) => {
                    let base = Base::Replace { etag: etag.clone() };
                    let dirty = self.writer.begin(Key::new(state.key.clone()), base);
                    state.begin_writing(dirty);
                    None
                }
                (None, None) => return Err(FsError::NoContent),
            }
        };
        match local {
            Some(dirty) => {
                dirty.set_size(0).await?;
                let settled = {
                    let state = inode.state.lock();
                    let held = state.dirty.as_ref();
                    held.is_none_or(|held| !Arc::ptr_eq(held, &dirty))
                };
                if settled {
                    // Its last writer was released meanwhile, and took the bytes that were cut.
                    return Box::pin(self.truncate_at_open(inode)).await;
                }
                Ok(())
            }
            None => {
                self.inodes.unsettled(inode);
                Ok(())
            }
        }
    }
}

fn access(inode: &Inode) -> (u32, u32, u32) {
    inode.state.lock().attr.access()
}

/// A failure that no close could tell of is told once.
fn tell_of_late_failure(state: &mut State) -> FsResult<()> {
    if state.dirty.is_some() {
        return Ok(());
    }
    match state.stuck.take() {
        Some(cause) => Err(FsError::LateFailure(cause)),
        None => Ok(()),
    }
}
