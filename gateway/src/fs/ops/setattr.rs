//! Changing attributes. A size is set like a write and published like one: by the close of who has
//! the file open, or at once for truncate(2) of a file that holds nobody's half-written bytes. Mode, owners and time
//! travel with the next publish of a file that is being written; of any other file they are set by
//! a copy onto itself at the store, which keeps the bytes.

use std::sync::Arc;

use ackfs_cache::object::{Key, ObjectId};
use ackfs_cache::store::{Condition, CopyMetadata, Metadata, StoreErrorKind};
use ackfs_cache::upload::lost;

use super::publish::rebase;
use crate::fs::Filesystem;
use crate::fs::attr::{FileAttr, Kind, resolve};
use crate::fs::error::{FsError, FsResult, look_again};
use crate::fs::metadata::DIRECTORY_TYPE;
use crate::fs::names::cache::NameTarget;
use crate::fs::now::Now;
use crate::fs::table::inode::Inode;
use crate::fs::table::inode::state::InodeState;
use crate::fs::table::inode::state::shown::{Lineage, Shown};
use crate::fs::task::Context;
use crate::fuse::Responder;
use crate::fuse::request::SetAttr;

impl Filesystem {
    pub(in crate::fs) fn setattr(&self, ino: u64, set: SetAttr, now: Now, responder: Responder) {
        let inode = match self.writable().and_then(|()| self.inode(ino)) {
            Ok(inode) => inode,
            Err(error) => return Context::new("setattr", ino).fail(responder, &error),
        };
        let context = Context::of("setattr", &inode);
        let this = self.this();
        let work = async move {
            if let Some(size) = set.size {
                this.set_size(&inode, size, set.fh.is_some()).await?;
            }
            let owner = set.uid.is_some() || set.gid.is_some();
            if set.mode.is_some() || owner || set.atime.is_some() || set.mtime.is_some() {
                this.set_attributes(&inode, &set, now).await?;
            }
            let attr = inode.state().tell_attr();
            Ok((attr, this.config.metadata_ttl))
        };
        self.spawn(context, responder, work, |responder, (attr, valid)| {
            responder.attr(&attr, valid);
        });
    }

    /// `by_handle`: ftruncate(2), whose handle's close publishes.
    async fn set_size(&self, inode: &Arc<Inode>, size: u64, by_handle: bool) -> FsResult<()> {
        match inode.kind() {
            Kind::File => {}
            Kind::Directory => return Err(FsError::IsDirectory),
            Kind::Symlink | Kind::Fifo | Kind::Socket => return Err(FsError::Invalid),
        }
        if !by_handle {
            self.turn_from_lost(inode)?;
        }
        let is_backed = inode.state().told().backing().is_some();
        if is_backed {
            // Those who have it open read the cache file, which does not change: see `ops::open`.
            self.inodes.succeed(inode);
            return Err(look_again());
        }
        if !by_handle {
            self.revalidate_published(inode).await?;
        }
        // A writer for as long as this lasts: the release of another must not end the writing
        // while its base is on its way, or what is cut here would be cut from nothing.
        let was_dirty = {
            let mut state = inode.state();
            state.join_writers();
            state.is_dirty()
        };
        let cut = match self.dirty_of(inode) {
            Ok(dirty) => dirty.set_size(size).map_err(FsError::from),
            Err(error) => Err(error),
        };
        let has_others = {
            let mut state = inode.state();
            if cut.is_ok() {
                // The store or the disk was waited for.
                state.wrote(Now::read().clock);
            }
            !state.part_writers()
        };
        // A writer is counted until its RELEASE, which comes long after its close(2) on kernels that do
        // not wait for it: of one that has nothing dirty nobody may hear any more who could be told.
        if has_others && (by_handle || was_dirty) {
            return cut;
        }
        self.publish_by_name(inode).await.and(cut)
    }

    async fn set_attributes(&self, inode: &Arc<Inode>, set: &SetAttr, now: Now) -> FsResult<()> {
        if inode.is_directory() {
            return self.set_directory(inode, set, now).await;
        }
        let mut carried = carry(&mut inode.state(), set, now);
        if carried.is_none() {
            carried = self.copy_attributes(inode, set, now).await?;
        }
        match carried {
            None | Some(Carried::ByItsWriters) => Ok(()),
            Some(Carried::ByNobody) => self.publish_by_name(inode).await,
        }
    }

    async fn set_directory(&self, inode: &Inode, set: &SetAttr, now: Now) -> FsResult<()> {
        // A directory's times last as long as its inode: every name that comes or goes changes them.
        let is_access = set.mode.is_some() || set.uid.is_some() || set.gid.is_some();
        if !is_access || inode.is_root() {
            apply(&mut inode.state(), set, now);
            return Ok(());
        }
        let _guard = inode.publishing().lock().await;
        let (key, wanted) = {
            let state = inode.state();
            let wanted = with_access(state.shown().attr(), set);
            (Key::new(state.key().clone()), wanted)
        };
        let metadata = self.put_marker(key, wanted).await?;
        let mut state = inode.state();
        apply(&mut state, set, now);
        // The store was waited for: what was asked of it before does not know this.
        let (attr, asked) = (state.shown().attr(), Now::read().instant);
        let shown = Shown::new(attr, None, Some(Arc::new(metadata)), asked);
        state.show(shown, Lineage::OtherBytes);
        Ok(())
    }

    /// Has the store copy the object onto itself, with what is set. That may be another version, and
    /// the kernel writes a mapping back whenever it likes: who began to write meanwhile goes on over
    /// the copy. Somebody who began before it carries what is set.
    async fn copy_attributes(
        &self,
        inode: &Arc<Inode>,
        set: &SetAttr,
        now: Now,
    ) -> FsResult<Option<Carried>> {
        let _guard = inode.publishing().lock().await;
        {
            let mut state = inode.state();
            if state.life().is_gone() {
                apply(&mut state, set, now);
                return Ok(None);
            }
        }
        self.revalidate(inode).await?;
        let (id, before, metadata) = {
            let mut state = inode.state();
            if let Some(carried) = carry(&mut state, set, now) {
                return Ok(Some(carried));
            }
            let id = state.object().ok_or(FsError::NoContent)?;
            let before = (state.shown().attr(), state.written().mtime_set());
            apply(&mut state, set, now);
            let foreign = state.shown().metadata().cloned().unwrap_or_default();
            // The copy is young at the store, and the bytes in it are not.
            (id, before, state.shown().attr().to_metadata(&foreign, true))
        };
        let condition = Condition::Matches(id.etag.clone());
        let copy = CopyMetadata::Replace(metadata.clone());
        let copied = self.store.copy(&id, &id.key, copy, &condition).await;
        match lost::confirm(&*self.store, &id.key, copied).await {
            Ok(etag) => {
                let copy = ObjectId::new(id.key.clone(), etag);
                self.show_changed(inode, &copy, &metadata, now).await;
                Ok(None)
            }
            Err(error) => {
                let (attr, mtime_set) = before;
                inode.state().set_attr(attr, mtime_set);
                Err(error.into())
            }
        }
    }

    /// The file shows the copy that its attributes were changed by.
    async fn show_changed(&self, inode: &Inode, copy: &ObjectId, metadata: &Metadata, now: Now) {
        let (parent, name, size, dirty) = {
            let mut state = inode.state();
            let attr = state.shown().attr();
            let kept = Arc::new(attr.to_kept(metadata));
            self.names.metadata().made(copy.clone(), kept.clone());
            // The store was waited for: what was asked of it before does not know this.
            let asked = Now::read().instant;
            let shown = Shown::new(attr, Some(copy.etag.clone()), Some(kept), asked);
            state.show(shown, Lineage::SameBytes);
            state.brief_upload();
            (
                state.parent(),
                state.name().clone(),
                attr.size,
                state.written().dirty().cloned(),
            )
        };
        let what = NameTarget::File {
            etag: copy.etag.clone(),
            size,
            modified: now.clock,
        };
        self.names.cache().changed(parent, &name, Some(what));
        if let Some(dirty) = dirty {
            rebase(&dirty, copy).await;
        }
    }

    /// Keeps a directory's mode and owner with its marker, which is made if there is none. Gives the
    /// marker's metadata.
    ///
    /// # Errors
    /// The store's; `Contended` if somebody else changes the marker at the same time. Waits for the store.
    async fn put_marker(&self, key: Key, attr: FileAttr) -> FsResult<Metadata> {
        let marker = self.names.head(&key).await?;
        let foreign = marker.as_ref().map(|marker| marker.metadata.clone());
        let foreign = foreign.unwrap_or_else(|| Metadata {
            content_type: Some(DIRECTORY_TYPE.to_owned()),
            ..Metadata::default()
        });
        let metadata = attr.to_metadata(&foreign, false);
        let put = match marker {
            None => {
                let condition = Condition::Absent;
                self.store
                    .put(&key, Vec::new(), &metadata, &condition)
                    .await
            }
            Some(marker) => {
                let condition = Condition::Matches(marker.etag.clone());
                let id = ObjectId::new(Key::new(key.as_str()), marker.etag);
                let copy = CopyMetadata::Replace(metadata.clone());
                self.store.copy(&id, &key, copy, &condition).await
            }
        };
        match lost::confirm(&*self.store, &key, put).await {
            Ok(_) => Ok(metadata),
            Err(error) if error.kind == StoreErrorKind::Changed => Err(FsError::Contended),
            Err(error) => Err(error.into()),
        }
    }
}

/// Who brings attributes to the store with the bytes of a file that is written.
enum Carried {
    /// The close of a handle, or nobody any more: the file has no name.
    ByItsWriters,
    /// Its last writer was released, and a publish that this one began may be sealed already.
    ByNobody,
}

/// Sets the attributes of a file that is written. `None` if the store has all of it: nothing is set
/// then. That somebody has it open for writing says little: a writer is counted until its RELEASE, which
/// comes long after its close(2) on kernels that do not wait for it, and nobody would be told of its
/// failure.
fn carry(state: &mut InodeState, set: &SetAttr, now: Now) -> Option<Carried> {
    if state.is_the_stores() {
        return None;
    }
    let dirty = state.written().dirty().cloned()?;
    apply(state, set, now);
    state.brief_upload();
    dirty.touch();
    let is_carried = state.written().has_writers() || state.life().is_ending();
    Some(if is_carried {
        Carried::ByItsWriters
    } else {
        Carried::ByNobody
    })
}

fn apply(state: &mut InodeState, set: &SetAttr, now: Now) {
    let mut attr = with_access(state.shown().attr(), set);
    let atime = set.atime.map(|atime| resolve(atime, now.clock));
    attr.atime = atime.or(attr.atime);
    attr.change(now.clock);
    let mut mtime_set = state.written().mtime_set();
    if let Some(mtime) = set.mtime {
        attr.mtime = resolve(mtime, now.clock);
        mtime_set = true;
    }
    state.set_attr(attr, mtime_set);
}

fn with_access(mut attr: FileAttr, set: &SetAttr) -> FileAttr {
    attr.mode = set.mode.map_or(attr.mode, |mode| mode & 0o7777);
    attr.uid = set.uid.unwrap_or(attr.uid);
    attr.gid = set.gid.unwrap_or(attr.gid);
    attr
}
