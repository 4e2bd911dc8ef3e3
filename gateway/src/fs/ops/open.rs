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
use std::sync::atomic::Ordering::Relaxed;

use ackfs_cache::dirty::Base;
use ackfs_cache::memory::BLOCK;
use ackfs_cache::object::{Key, ObjectId};

use crate::fs::Filesystem;
use crate::fs::attr::Kind;
use crate::fs::error::{FsError, FsResult, look_again};
use crate::fs::now::Now;
use crate::fs::ops::revalidate::Reply;
use crate::fs::table::handles::FileHandle;
use crate::fs::table::inode::Inode;
use crate::fs::table::inode::state::InodeState;
use crate::fs::table::inode::state::written::Severity;
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
    pub(in crate::fs) fn open(&self, ino: u64, flags: u32, now: Now, responder: Responder) {
        let inode = match self.inode(ino) {
            Ok(inode) => inode,
            Err(error) => return Context::new("open", ino).fail(responder, &error),
        };
        let context = Context::of("open", &inode);
        let this = self.this();
        let work = async move { this.open_inode(&inode, flags, now).await };
        let answer = |responder: Responder, open| responder.open(&open);
        if truncates(flags) {
            // Given up half-way it would leave a truncation that nobody's close publishes.
            self.spawn(context, responder, work, answer);
        } else {
            self.spawn_interruptible(context, responder, work, answer);
        }
    }

    /// Opens a file. Waits for the store.
    pub(super) async fn open_inode(
        &self,
        inode: &Arc<Inode>,
        flags: u32,
        now: Now,
    ) -> FsResult<OpenOut> {
        match inode.kind() {
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
        self.find_newest(inode, flags).await?;
        if let Some(cause) = inode.state().take_late_failure() {
            return Err(FsError::LateFailure(cause));
        }
        if !truncates(flags) {
            return self.open_version(inode, flags).await;
        }
        // A writer from here on: if no handle comes of it, nobody's close publishes what was cut.
        inode.state().join_writers();
        let open = match self.truncate_at_open(inode, now).await {
            Ok(()) => self.open_version(inode, flags).await,
            Err(error) => Err(error),
        };
        let was_last = inode.state().part_writers();
        if open.is_err() && was_last {
            self.publish_by_name(inode).await?;
        }
        open
    }

    /// Sees to it that the inode shows what the store has.
    async fn find_newest(&self, inode: &Arc<Inode>, flags: u32) -> FsResult<()> {
        let told = inode.state().access_told();
        let found = if changes(flags) {
            self.revalidate_published(inode).await
        } else {
            self.show_newest(inode).await
        };
        if matches!(found, Err(FsError::LookAgain)) {
            self.note_missed(inode);
        }
        found?;
        if inode.state().shown().attr().access() == told {
            return Ok(());
        }
        // A listing shows no metadata, so the kernel has let the caller in by the mount's mode and
        // owner. It looks the name up again and checks by the file's own.
        Err(look_again())
    }

    /// [`Filesystem::revalidate_published`] for an open that only reads. Of a small file, and of a contended
    /// name, the inode shows the newest version if nobody has it open, though no answer to OPEN can tell the
    /// kernel its size: the handle is read past the page cache. Else the kernel would look up another inode,
    /// whose version may be gone again. The bytes of a small file are brought before it is opened: what is
    /// overwritten now is overwritten soon. See `names::contended`.
    async fn show_newest(&self, inode: &Arc<Inode>) -> FsResult<()> {
        for tries in 1.. {
            let (shown, parent, name) = {
                let state = inode.state();
                let shown = state.shown().version().cloned();
                (shown, state.parent(), state.name().clone())
            };
            let contended = self.names.contended();
            let is_contended = contended.holds(parent, &name);
            let reply = self.reply_past_pages(is_contended);
            self.check_published(inode, reply).await?;
            let (object, size) = {
                let state = inode.state();
                let object = state.object().filter(|_| !state.is_local());
                (object, state.shown().attr().size)
            };
            let Some(object) = object else {
                break;
            };
            let is_other = shown.as_ref() != Some(&object.etag);
            if is_other {
                contended.missed(parent, &name);
                self.counters.changed_opens.fetch_add(1, Relaxed);
                if let Some(kernel) = self.kernel.get() {
                    kernel.expire_attributes(inode.ino());
                }
            }
            let is_wanted = size <= BRING_MAX && (is_other || is_contended);
            if !is_wanted || tries == TRIES_MAX || self.bring_small(object, size).await {
                break;
            }
        }
        Ok(())
    }

    /// What the reply to an open that only reads can do.
    fn reply_past_pages(&self, is_contended: bool) -> Reply {
        match self.kernel.get() {
            Some(_) if is_contended => Reply::OpensPastPages(u64::MAX),
            // Past the page cache there is no readahead, and before Linux 6.6 no shared mapping.
            Some(kernel) if kernel.maps_direct_io() => Reply::OpensPastPages(BRING_MAX),
            _ => Reply::TellsNothing,
        }
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
    pub(super) fn note_missed(&self, inode: &Inode) {
        let state = inode.state();
        if !state.life().is_gone() {
            let contended = self.names.contended();
            contended.missed(state.parent(), state.name());
        }
    }

    /// Opens the inode as it is now.
    async fn open_version(&self, inode: &Arc<Inode>, flags: u32) -> FsResult<OpenOut> {
        let clean = {
            let state = inode.state();
            let is_wanted = !writes(flags) && !state.is_local() && state.told().backing().is_none();
            let object = state.object().filter(|_| is_wanted);
            object.zip(Some(state.shown().attr().size))
        };
        if let Some((object, size)) = clean {
            self.reader.wait_for_whole_file(&object, size).await;
        }
        if inode.state().life().is_leaving() {
            // Whether the name is still there afterwards the kernel then finds out.
            drop(inode.publishing().lock().await);
            return Err(self.look_again(inode));
        }
        let mut state = inode.state();
        if state.life().is_ending() || !state.life().has_name() {
            drop(state);
            return Err(self.look_again(inode));
        }
        let is_told = state.is_size_told();
        if !is_told && changes(flags) {
            // Who appends does so where the kernel believes the end to be.
            return Err(look_again());
        }
        let Some(mut out) = self.pass_through(inode, &mut state, flags) else {
            drop(state);
            self.inodes.succeed(inode);
            return Err(look_again());
        };
        let is_passed = out.open_flags & FOPEN_PASSTHROUGH != 0;
        let keeps = !is_passed && is_told && state.keeps_pages();
        if !is_told && !is_passed {
            out.open_flags |= FOPEN_DIRECT_IO;
        } else if keeps {
            out.open_flags |= FOPEN_KEEP_CACHE;
        }
        out.open_flags |= self.close_mode().open_flags(changes(flags));
        let fresh = state.shown().version().cloned().filter(|_| !keeps);
        let handle = FileHandle::new(inode.clone(), writes(flags), changes(flags), fresh);
        out.fh = self.take_handle(&mut state, handle);
        Ok(out)
    }

    /// Refuses bytes of which a close has said that they will not get there. They stay with the handles
    /// that are still open, until the last RELEASE, which comes some time after its close(2); who asks
    /// by name gets what is in the store.
    ///
    /// # Errors
    /// [`look_again`].
    pub(super) fn turn_from_lost(&self, inode: &Inode) -> FsResult<()> {
        {
            let state = inode.state();
            if !state.is_local() || state.written().told() != Some(Severity::Final) {
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
    pub(super) fn look_again(&self, inode: &Inode) -> FsError {
        let (parent, name, gone) = {
            let state = inode.state();
            (state.parent(), state.name().clone(), state.life().is_gone())
        };
        if !gone {
            self.names.cache().drop_name(parent, &name);
        }
        look_again()
    }

    /// A new handle's number. It is put into the table of handles while the inode is locked, as it is taken
    /// out: who is counted has one.
    pub(super) fn take_handle(&self, state: &mut InodeState, handle: FileHandle) -> u64 {
        state.open_handle(handle.publishes());
        self.files.insert(handle)
    }

    /// The answer to an open, with the backing file where it may pass through. `None` if the inode's other
    /// opens pass through and this one cannot.
    fn pass_through(&self, inode: &Inode, state: &mut InodeState, flags: u32) -> Option<OpenOut> {
        if state.told().backing().is_some() {
            if writes(flags) || state.is_local() {
                return None;
            }
        } else if !self.back(inode, state, flags) {
            return Some(OpenOut::default());
        }
        self.counters.passthrough_opens.fetch_add(1, Relaxed);
        Some(OpenOut {
            open_flags: FOPEN_PASSTHROUGH,
            backing_id: state.told().backing()?.id(),
            ..OpenOut::default()
        })
    }

    /// Gives the kernel the cache file for the first open, if it is one that may pass through.
    fn back(&self, inode: &Inode, state: &mut InodeState, flags: u32) -> bool {
        let size = state.shown().attr().size;
        let wanted = !writes(flags)
            && state.handles() == 0
            && !inode.is_successor()
            && !state.is_local()
            && size >= PASSTHROUGH_MIN;
        let (true, Some(kernel), Some(object)) = (wanted, self.kernel.get(), state.object()) else {
            return false;
        };
        let Some(file) = self.reader.whole_file(&object, size) else {
            return false;
        };
        match kernel.open_backing(&file) {
            Ok(backing) => {
                state.pass_through(Arc::new(backing));
                true
            }
            // No right to, or no room for more: the ring serves it.
            Err(error) => {
                tracing::debug!(ino = inode.ino(), %error, "no passthrough");
                false
            }
        }
    }

    /// O_TRUNC: none of the bytes are wanted.
    async fn truncate_at_open(&self, inode: &Inode, now: Now) -> FsResult<()> {
        loop {
            let is_backed = {
                let mut state = inode.state();
                let is_backed = state.told().backing().is_some();
                if !is_backed {
                    state.truncated(now.clock);
                }
                is_backed
            };
            if is_backed {
                self.inodes.succeed(inode);
                return Err(look_again());
            }
            let begun = self.inodes.begin_writing(inode, |state| {
                let etag = state.shown().version()?.clone();
                let key = Key::new(state.key().clone());
                let is_here = state.told().backing().is_none();
                is_here.then(|| self.writer.begin(key, Base::Replace { etag }))
            });
            let (dirty, is_new) = begun.ok_or(FsError::NoContent)?;
            if is_new {
                return Ok(());
            }
            dirty.set_size(0)?;
            let state = inode.state();
            let written = state.written().dirty();
            if written.is_some_and(|written| Arc::ptr_eq(written, &dirty)) {
                return Ok(());
            }
            // Its last writer was released meanwhile, and took the bytes that were cut.
        }
    }
}
