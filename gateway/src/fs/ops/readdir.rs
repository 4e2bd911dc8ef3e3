//! Reading a directory: the lister's items into the kernel's buffer. READDIRPLUS brings each name's
//! attributes along, from the listing, so that `ls -l` asks for nothing else. Where links and the like
//! were met, a small object whose metadata were not seen comes without: the kernel looks it up if
//! somebody wants to know what it is.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::fs::Filesystem;
use crate::fs::attr::{Kind, negative_entry};
use crate::fs::error::{FsError, FsResult};
use crate::fs::names::cache::{NameTarget, Origin};
use crate::fs::names::listing::{ListedName, Lister};
use crate::fs::names::resolve::has_shown_access;
use crate::fs::table::inode::Inode;
use crate::fs::task::Context;
use crate::fuse::Responder;
use crate::fuse::abi::{DirentWriter, OpenOut};

/// Inodes beyond which READDIRPLUS gives names only: where the kernel does not forget what it does not need
/// when it is asked to, it does so when it has to, and each is a reference that is kept here.
const INODES_MAX: usize = 200_000;
/// `d_ino` of a name that has no inode here yet, as libfuse gives it (FUSE_UNKNOWN_INO).
const UNKNOWN_INO: u64 = 0xffff_ffff;

/// An open directory.
#[derive(Debug)]
pub struct DirHandle {
    /// What is open.
    pub inode: Arc<Inode>,
    /// Its listing. Held while a READDIR is answered; a second one on the same handle waits.
    pub lister: tokio::sync::Mutex<Lister>,
}

impl Filesystem {
    pub(in crate::fs) fn opendir(&self, ino: u64, responder: Responder) {
        let inode = match self.inode(ino) {
            Ok(inode) => inode,
            Err(error) => return Context::new("opendir", ino).fail(responder, &error),
        };
        if inode.kind != Kind::Directory {
            return FsError::NotDirectory.answer(responder);
        }
        let lister = self.names.lister(&inode);
        let opened = |this: &Self, inode, lister| {
            let lister = tokio::sync::Mutex::new(lister);
            let fh = this.dirs.insert(DirHandle { inode, lister });
            OpenOut {
                fh,
                ..OpenOut::default()
            }
        };
        if has_shown_access(&inode) {
            return responder.open(&opened(self, inode, lister));
        }
        let this = self.this();
        let context = Context::of("opendir", &inode);
        let work = async move {
            this.names.show_access(&inode).await?;
            Ok(opened(&this, inode, lister))
        };
        self.spawn_interruptible(context, responder, work, |responder, open| {
            responder.open(&open);
        });
    }

    pub(in crate::fs) fn readdir(
        &self,
        ino: u64,
        fh: u64,
        offset: u64,
        size: u32,
        plus: bool,
        mut responder: Responder,
    ) {
        let Some(handle) = self.dirs.get(fh) else {
            return FsError::BadHandle.answer(responder);
        };
        let context = Context::of(if plus { "readdirplus" } else { "readdir" }, &handle.inode);
        let this = self.this();
        let mut interrupt = responder.interrupt();
        self.run(async move {
            let result = {
                let room = responder.buffer(size as usize);
                tokio::select! {
                    result = this.fill(&handle, offset, room, plus) => result,
                    () = interrupt.interrupted() => {
                        Err(FsError::Interrupted)
                    }
                }
            };
            let _ = ino;
            context.finish(responder, result, Responder::filled);
        });
    }

    /// Fills `room` with entries from `offset` on. Gives how many bytes.
    async fn fill(
        &self,
        handle: &Arc<DirHandle>,
        offset: u64,
        room: &mut [u8],
        plus: bool,
    ) -> FsResult<usize> {
        let dir = &handle.inode;
        let mut lister = handle.lister.lock().await;
        // rewinddir(3) wants the directory as it is now.
        if offset == 0 && lister.was_read() {
            *lister = self.names.lister(dir);
        }
        let mut out = DirentWriter::new(room);
        let mut at = offset;
        let parent = dir.state.lock().parent;
        for (index, name) in [(0, "."), (1, "..")] {
            if at == index {
                let ino = if index == 0 || Self::is_root(dir.ino) {
                    dir.ino
                } else {
                    parent
                };
                let kind = Kind::Directory.dirent();
                let fits = if plus {
                    // `.` and `..` carry no reference: fuse_direntplus_link skips them.
                    let mut entry = negative_entry(Duration::ZERO);
                    entry.attr.ino = ino;
                    entry.attr.mode = libc::S_IFDIR;
                    out.direntplus(&entry, index + 1, kind, name.as_bytes())
                } else {
                    out.dirent(ino, index + 1, kind, name.as_bytes())
                };
                if !fits {
                    return Ok(out.used());
                }
                at += 1;
            }
        }
        loop {
            // Offset n is the n-th entry's place; the lister counts from 3.
            let item = match lister.at(at + 1).await {
                Ok(Some(item)) => item,
                Ok(None) => break,
                // What is in the buffer already is right: the error comes with the next call.
                Err(_) if out.used() > 0 => break,
                Err(error) => return Err(error.into()),
            };
            if !self.put_item(handle, &item, at + 1, plus, &mut out) {
                break;
            }
            at += 1;
        }
        let odd = lister.take_oddities();
        if odd.hidden > 0 || odd.shadowed > 0 {
            self.counters
                .hidden_keys
                .fetch_add(odd.hidden, Ordering::Relaxed);
            self.counters
                .shadowed_files
                .fetch_add(odd.shadowed, Ordering::Relaxed);
            let prefix = dir.state.lock().key.clone();
            tracing::warn!(
                prefix = &*prefix,
                hidden = odd.hidden,
                shadowed = odd.shadowed,
                example = odd.example,
                "keys that cannot be shown as files here; ackfs doctor names more"
            );
        }
        if let Some(whole) = lister.take_whole()
            && self.names.is_believable(dir, &whole.what)
        {
            self.names.cache().put_listing(dir.ino, whole);
        }
        Ok(out.used())
    }

    /// Adds one entry. False if it does not fit.
    fn put_item(
        &self,
        handle: &DirHandle,
        item: &ListedName,
        next: u64,
        plus: bool,
        out: &mut DirentWriter<'_>,
    ) -> bool {
        let dir = &handle.inode;
        let name = item.name.as_bytes();
        let child = self.inodes.child(dir.ino, &item.name);
        let now = Instant::now();
        let mut local = child.as_ref().filter(|child| child.state.lock().is_local());
        let (mut what, mut begun) = (item.what.clone(), item.since);
        if what.is_none() && local.is_none() {
            // It was local when the listing began. Since then it was published, which the listing need
            // not have seen, or removed.
            match self.names.cache().get(dir.ino, &item.name, now) {
                Some(known) if known.what.is_none() => return true,
                Some(known) => (what, begun) = (known.what, known.since),
                None => local = child.as_ref(),
            }
        }
        // The store and this mount are at odds on what the name is: a look-up asks.
        let is_directory = child.as_ref().map(|child| child.kind == Kind::Directory);
        let kind = match (&what, local) {
            (Some(NameTarget::Directory), _) if is_directory == Some(false) => None,
            (Some(NameTarget::File { .. }), Some(_)) if is_directory == Some(true) => None,
            (Some(NameTarget::Directory), _) => Some(Kind::Directory),
            (Some(NameTarget::File { .. }) | None, Some(local)) => Some(local.kind),
            (Some(what), None) => {
                let origin = Origin::ReaderListing;
                self.names.kind_of(dir, &item.name, what, origin)
            }
            (None, None) => None,
        };
        let dirent = kind.map_or(u32::from(libc::DT_UNKNOWN), Kind::dirent);
        let ino = child.as_ref().map_or(UNKNOWN_INO, |child| child.shown_ino);
        if !plus {
            return out.dirent(ino, next, dirent, name);
        }
        let inode = match (local, &what) {
            (Some(local), _) if kind.is_some() && self.inodes.refer(local) => local.clone(),
            (None, Some(what)) if kind.is_some() && self.inodes.count() <= INODES_MAX => {
                self.reference(dir, &item.name, what, None, begun)
            }
            // A name without a node (`fuse_direntplus_link`): whoever wants more looks it up. Readers
            // of a directory pass over names with the number 0.
            _ => {
                let mut entry = negative_entry(Duration::ZERO);
                entry.attr.ino = ino;
                return out.direntplus(&entry, next, dirent, name);
            }
        };
        let valid = self.names.cache().remaining(true, begun, now);
        let entry = inode.entry(&inode.state.lock(), valid);
        let fits = out.direntplus(&entry, next, inode.kind.dirent(), name);
        if !fits {
            self.inodes.forget(inode.ino, 1);
        }
        fits
    }
}
