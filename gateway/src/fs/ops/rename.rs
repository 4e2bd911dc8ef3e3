//! rename(2) of files: a copy at the store by If-Match on the source, then the source's removal.
//! A file with bytes not yet published is published first, so that there is something to copy.
//!
//! Between the two steps both names are there; a crash between them leaves both, and loses nothing.
//! Who has the file open that the rename replaces keeps its bytes.

use std::sync::Arc;

use ackfs_cache::object::{ETag, Key, ObjectId};
use ackfs_cache::store::{Condition, CopyMetadata, Metadata, StoreErrorKind};
use ackfs_cache::upload::lost;

use super::publish::{PublishWaiter, rebase};
use crate::fs::Filesystem;
use crate::fs::attr::{FileAttr, Kind};
use crate::fs::error::{FsError, FsResult};
use crate::fs::metadata::content_type;
use crate::fs::names::cache::NameTarget;
use crate::fs::names::key::file_key;
use crate::fs::now::Now;
use crate::fs::table::inode::Inode;
use crate::fs::table::inode::state::shown::{Lineage, Shown};
use crate::fs::task::Context;
use crate::fuse::{Interrupt, Responder};

/// RENAME_NOREPLACE of renameat2(2).
const NOREPLACE: u32 = 1;

/// A file under both its names.
struct Copied {
    source: ObjectId,
    target: Key,
    /// The copy's version.
    etag: ETag,
    /// What the copy was given.
    metadata: Metadata,
    /// Something else was copied than what was known here.
    is_other: bool,
}

/// A directory and a name in it.
type NameIn = (Arc<Inode>, Box<str>);

impl Filesystem {
    pub(in crate::fs) fn rename(
        &self,
        (parent, name): (u64, &[u8]),
        (new_parent, new_name): (u64, &[u8]),
        flags: u32,
        responder: Responder,
    ) {
        let places = self
            .writable()
            .and_then(|()| Ok((self.place(parent, name)?, self.place(new_parent, new_name)?)));
        let (source, target) = match places {
            // Exchange and whiteout have no counterpart at a store.
            Ok(_) if flags & !NOREPLACE != 0 => return FsError::Invalid.answer(responder),
            Ok(places) => places,
            Err(error) => return Context::new("rename", parent).fail(responder, &error),
        };
        let this = self.this();
        let context = Context::below("rename", &source.0, &source.1);
        let mut interrupt = responder.interrupt();
        let work = async move {
            this.rename_file(&source, &target, flags, &mut interrupt)
                .await
        };
        self.spawn(context, responder, work, |responder, ()| responder.empty());
    }

    async fn rename_file(
        &self,
        source: &NameIn,
        target: &NameIn,
        flags: u32,
        interrupt: &mut Interrupt,
    ) -> FsResult<()> {
        let ((dir, name), (new_dir, new_name)) = (source, target);
        // The kernel looked both names up before it asked.
        let inode = self.inodes.child(dir.ino(), name);
        let inode = inode.ok_or(FsError::NoSuchName)?;
        if inode.is_directory() {
            return Err(FsError::AcrossFilesystems);
        }
        if dir.ino() == new_dir.ino() && name == new_name {
            return Ok(());
        }
        let replaced = self.inodes.child(new_dir.ino(), new_name);
        if let Some(replaced) = &replaced {
            if flags & NOREPLACE != 0 {
                return Err(FsError::Exists);
            }
            if replaced.is_directory() {
                return Err(FsError::IsDirectory);
            }
        }
        if inode.state().is_local() {
            self.publish(&inode, PublishWaiter::Other).await?;
        }
        // No publish of either may cross. Two renames lock alike: in order of the numbers.
        let mut both: Vec<&Arc<Inode>> = std::iter::once(&inode).chain(&replaced).collect();
        both.sort_by_key(|inode| inode.ino());
        let lock = async || {
            let mut guards = Vec::with_capacity(2);
            for inode in &both {
                guards.push(inode.publishing().lock().await);
            }
            guards
        };
        let (_guards, brought) = match &replaced {
            Some(replaced) => {
                let (guards, brought) = self.leave(replaced, interrupt, lock).await?;
                (guards, Some(brought))
            }
            None => (lock().await, None),
        };
        let copied = self.copy_to(&inode, new_dir, new_name, flags).await;
        if let (Some(replaced), Some(brought)) = (&replaced, brought) {
            match &copied {
                Ok(_) => self.gone(replaced, brought).await,
                Err(_) => self.stay(replaced, brought),
            }
        }
        self.leave_old_name(&inode, source, target, copied?).await
    }

    /// The file is there under both its names: takes the old one away. Under the inode's `publishing`.
    async fn leave_old_name(
        &self,
        inode: &Arc<Inode>,
        (dir, name): &NameIn,
        (new_dir, new_name): &NameIn,
        copied: Copied,
    ) -> FsResult<()> {
        let source = &copied.source;
        let copy = ObjectId::new(copied.target.clone(), copied.etag.clone());
        // The kernel writes a mapping back whenever it likes: what keeps bytes of the old object gets them
        // from there while it can. What begins later finds nothing there and waits for us.
        let begun = inode.state().written().dirty().cloned();
        let begun = begun.filter(|_| !copied.is_other);
        if let Some(begun) = &begun {
            rebase(begun, &copy).await;
        }
        if let Err(error) = self.store.delete(&source.key, Some(&source.etag)).await
            && error.kind != StoreErrorKind::NotFound
        {
            // Both names are there now, and the caller learns that the rename did not end.
            self.names.cache().drop_name(new_dir.ino(), new_name);
            if let Some(begun) = &begun {
                rebase(begun, source).await;
            }
            return Err(error.into());
        }
        // The store was waited for.
        let now = Now::read();
        self.lost_a_name(dir);
        new_dir.state().touch(now.clock);
        if copied.is_other {
            // The kernel's pages, size and type are those of the version that was opened here.
            self.inodes.detach(inode);
            self.names.cache().changed(dir.ino(), name, None);
            self.names.cache().drop_name(new_dir.ino(), new_name);
            return Ok(());
        }
        // Whoever looked the new name up since the copy was made has an inode of the same object.
        self.inodes.rename(inode, new_dir, new_name);
        let what = self.show_copy(inode, &copy, &copied.metadata, now);
        let dirty = inode.state().written().dirty().cloned();
        if let Some(dirty) = dirty
            && !begun.is_some_and(|begun| Arc::ptr_eq(&begun, &dirty))
        {
            rebase(&dirty, &copy).await;
        }
        if inode.kind() != Kind::File {
            self.names.cache().put_special(new_dir.ino());
        }
        self.names.cache().changed(dir.ino(), name, None);
        self.names
            .cache()
            .changed(new_dir.ino(), new_name, Some(what));
        Ok(())
    }

    /// The file shows its copy. Gives what the new name is.
    fn show_copy(
        &self,
        inode: &Inode,
        copy: &ObjectId,
        metadata: &Metadata,
        now: Now,
    ) -> NameTarget {
        let mut state = inode.state();
        let mut attr = state.shown().attr();
        if state.shown().metadata().is_none() {
            attr = attr.with_metadata(metadata);
        }
        attr.change(now.clock);
        let kept = Arc::new(attr.to_kept(metadata));
        self.names.metadata().made(copy.clone(), kept.clone());
        let version = Some(copy.etag.clone());
        let shown = Shown::new(attr, version, Some(kept), now.instant);
        state.show(shown, Lineage::SameBytes);
        NameTarget::File {
            etag: copy.etag.clone(),
            size: attr.size,
            modified: now.clock,
        }
    }

    /// The store's copy of `inode`'s newest version under its new name.
    async fn copy_to(
        &self,
        inode: &Inode,
        new_dir: &Inode,
        new_name: &str,
        flags: u32,
    ) -> FsResult<Copied> {
        let (source, size, known) = {
            let state = inode.state();
            let source = state.object().ok_or(FsError::NoSuchName)?;
            let attr = state.shown().attr();
            let known = state.shown().metadata().cloned();
            (source, attr.size, known.map(|metadata| (attr, metadata)))
        };
        let key = file_key(&new_dir.key(), new_name.as_bytes())?;
        let target = Key::new(key);
        let condition = if flags & NOREPLACE != 0 {
            Condition::Absent
        } else {
            Condition::None
        };
        let old_type = content_type(inode.state().name());
        // What the copy is given: its time at the store is that of the rename, and not of its bytes. A type
        // that was told by the old name is told by the new one: what is written beside a file and then
        // renamed over it shall not change what it is to a browser.
        let moved = |attr: FileAttr, foreign: &Metadata| {
            let mut metadata = attr.to_moved(foreign);
            if metadata.content_type.as_deref() == Some(old_type) {
                metadata.content_type = Some(content_type(new_name).to_owned());
            }
            metadata
        };
        let opened = source.etag.clone();
        let known = known.map(|(attr, metadata)| moved(attr, &metadata));
        let (source, metadata, etag) = self
            .copy_newest(source, known, moved, &target, flags, &condition)
            .await?;
        Ok(Copied {
            is_other: source.etag != opened || Kind::of_object(&metadata, size) != inode.kind(),
            source,
            target,
            etag,
            metadata,
        })
    }

    /// Copies the source's newest version: one that a foreign client replaced since it was looked
    /// up is renamed as it is now, as a local filesystem would.
    async fn copy_newest(
        &self,
        source: ObjectId,
        metadata: Option<Metadata>,
        moved: impl Fn(FileAttr, &Metadata) -> Metadata,
        target: &Key,
        flags: u32,
        condition: &Condition,
    ) -> FsResult<(ObjectId, Metadata, ETag)> {
        let mut known = None;
        if let Some(metadata) = metadata {
            let copy = CopyMetadata::Replace(metadata.clone());
            let copied = self.store.copy(&source, target, copy, condition).await;
            let error = match lost::confirm(&*self.store, target, copied).await {
                Ok(etag) => return Ok((source, metadata, etag)),
                Err(error) => error,
            };
            match error.kind {
                StoreErrorKind::NotFound => return Err(FsError::NoSuchName),
                StoreErrorKind::Changed => known = Some(source.etag),
                _ => return Err(error.into()),
            }
        }
        let newest = self.names.head(&source.key).await?;
        let newest = newest.ok_or(FsError::NoSuchName)?;
        if known.as_ref() == Some(&newest.etag) && flags & NOREPLACE != 0 {
            return Err(FsError::Exists);
        }
        let source = ObjectId::new(source.key, newest.etag);
        let attr = FileAttr::file(&self.defaults, newest.size, newest.modified);
        let metadata = moved(attr.with_metadata(&newest.metadata), &newest.metadata);
        let copy = CopyMetadata::Replace(metadata.clone());
        let copied = self.store.copy(&source, target, copy, condition).await;
        match lost::confirm(&*self.store, target, copied).await {
            Ok(etag) => Ok((source, metadata, etag)),
            // Only NOREPLACE asks for more than that the source is there, which it was a moment ago.
            Err(error) if error.kind == StoreErrorKind::Changed && flags & NOREPLACE != 0 => {
                Err(FsError::Exists)
            }
            Err(error) => Err(error.into()),
        }
    }
}
