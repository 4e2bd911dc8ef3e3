//! Reading a directory: the lister's items into the kernel's buffer. READDIRPLUS brings each name's
//! attributes along, from the listing, so that `ls -l` asks for nothing else. Where links and the like
//! were met, a small object whose metadata were not seen comes without: the kernel looks it up if
//! somebody wants to know what it is.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::fs::Filesystem;
use crate::fs::attr::{Kind, negative_entry};
use crate::fs::error::{FsError, FsResult};
use crate::fs::names::cache::{FactOrigin, NameTarget};
use crate::fs::names::listing::{ListedName, Lister, Oddities};
use crate::fs::table::inode::Inode;
use crate::fs::table::references::{Offered, Reference};
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
pub(in crate::fs) struct DirHandle {
    inode: Arc<Inode>,
    /// Its listing. Held while a READDIR is answered; a second one on the same handle waits.
    lister: tokio::sync::Mutex<Lister>,
}

/// An answer to READDIR or READDIRPLUS while it is made.
struct DirentReply<'a> {
    dirents: DirentWriter<'a>,
    plus: bool,
    /// References that the kernel gets with it.
    offered: Vec<Offered>,
}

impl Filesystem {
    pub(in crate::fs) fn opendir(&self, ino: u64, responder: Responder) {
        let inode = match self.inode(ino) {
            Ok(inode) => inode,
            Err(error) => return Context::new("opendir", ino).fail(responder, &error),
        };
        if !inode.is_directory() {
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
        if inode.state().has_shown_access() {
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
                let reply = DirentReply {
                    dirents: DirentWriter::new(responder.buffer(size as usize)),
                    plus,
                    offered: Vec::new(),
                };
                tokio::select! {
                    result = this.fill(&handle, offset, reply) => result,
                    () = interrupt.interrupted() => Err(FsError::Interrupted),
                }
            };
            context.finish(responder, result, |responder, (len, offered)| {
                offered.into_iter().for_each(Offered::give);
                responder.filled(len);
            });
        });
    }

    /// Fills `reply` with entries from `offset` on. Gives how many bytes they are, and the references that
    /// go with them.
    async fn fill(
        &self,
        handle: &DirHandle,
        offset: u64,
        mut reply: DirentReply<'_>,
    ) -> FsResult<(usize, Vec<Offered>)> {
        let dir = &handle.inode;
        let mut lister = handle.lister.lock().await;
        // rewinddir(3) wants the directory as it is now.
        if offset == 0 && lister.was_read() {
            *lister = self.names.lister(dir);
        }
        let mut at = offset;
        let parent = dir.state().parent();
        for (index, name, ino) in [(0, ".", dir.ino()), (1, "..", parent)] {
            if at == index {
                // `.` and `..` carry no reference: fuse_direntplus_link skips them.
                if !reply.put_name(ino, index + 1, Some(Kind::Directory), name) {
                    return Ok(reply.end());
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
                Err(_) if reply.dirents.used() > 0 => break,
                Err(error) => return Err(error.into()),
            };
            if !self.put_item(dir, &item, at + 1, &mut reply) {
                break;
            }
            at += 1;
        }
        self.note_oddities(dir, &lister.take_oddities());
        if let Some(whole) = lister.take_whole()
            && self.names.is_believable(dir, &whole.what)
        {
            self.names.cache().put_listing(dir.ino(), whole);
        }
        Ok(reply.end())
    }

    fn note_oddities(&self, dir: &Inode, odd: &Oddities) {
        if odd.hidden == 0 && odd.shadowed == 0 {
            return;
        }
        let counters = &self.counters;
        counters.hidden_keys.fetch_add(odd.hidden, Relaxed);
        counters.shadowed_files.fetch_add(odd.shadowed, Relaxed);
        tracing::warn!(
            prefix = &*dir.key(),
            hidden = odd.hidden,
            shadowed = odd.shadowed,
            example = odd.example,
            "keys that cannot be shown as files here; ackfs doctor names more"
        );
    }

    /// Adds one entry. False if it does not fit.
    fn put_item(
        &self,
        dir: &Arc<Inode>,
        item: &ListedName,
        next: u64,
        reply: &mut DirentReply<'_>,
    ) -> bool {
        let child = self.inodes.child(dir.ino(), &item.name);
        // A long directory is read for longer than a request may be old.
        let now = Instant::now();
        let mut local = child.as_ref().filter(|child| child.state().is_local());
        let (mut what, mut begun) = (item.what.clone(), item.since);
        if what.is_none() && local.is_none() {
            // It was local when the listing began. Since then it was published, which the listing need
            // not have seen, or removed.
            match self.names.cache().get(dir.ino(), &item.name, now) {
                Some(known) if known.what.is_none() => return true,
                Some(known) => (what, begun) = (known.what, known.since),
                None => local = child.as_ref(),
            }
        }
        // The store and this mount are at odds on what the name is: a look-up asks.
        let is_directory = child.as_ref().map(|child| child.is_directory());
        let kind = match (&what, local) {
            (Some(NameTarget::Directory), _) if is_directory == Some(false) => None,
            (Some(NameTarget::File { .. }), Some(_)) if is_directory == Some(true) => None,
            (Some(NameTarget::Directory), _) => Some(Kind::Directory),
            (Some(NameTarget::File { .. }) | None, Some(local)) => Some(local.kind()),
            (Some(what), None) => {
                let origin = FactOrigin::ReaderListing;
                self.names.kind_of(dir, &item.name, what, origin)
            }
            (None, None) => None,
        };
        let reference = match (local, &what) {
            _ if !reply.plus || kind.is_none() => None,
            (Some(local), _) => self.inodes.refer(local),
            (None, Some(what)) if self.inodes.count() <= INODES_MAX => {
                Some(self.reference(dir, &item.name, what, None, begun))
            }
            _ => None,
        };
        if let Some(reference) = reference {
            let valid = self.names.cache().remaining(true, begun, now);
            return reply.put_reference(reference, valid, next, &item.name);
        }
        // Without a node (`fuse_direntplus_link`): whoever wants more looks it up.
        let ino = child
            .as_ref()
            .map_or(UNKNOWN_INO, |child| child.shown_ino());
        reply.put_name(ino, next, kind, &item.name)
    }
}

impl DirentReply<'_> {
    /// Adds a name without a reference. False if it does not fit. Readers of a directory pass over names with
    /// the number 0.
    fn put_name(&mut self, ino: u64, next: u64, kind: Option<Kind>, name: &str) -> bool {
        let dirent = kind.map_or(u32::from(libc::DT_UNKNOWN), Kind::dirent);
        if !self.plus {
            return self.dirents.dirent(ino, next, dirent, name.as_bytes());
        }
        let mut entry = negative_entry(Duration::ZERO);
        entry.attr.ino = ino;
        // As DTTOIF of <dirent.h>.
        entry.attr.mode = dirent << 12;
        self.dirents
            .direntplus(&entry, next, dirent, name.as_bytes())
    }

    /// Adds a name with a reference. False if it does not fit.
    fn put_reference(
        &mut self,
        reference: Reference,
        valid: Duration,
        next: u64,
        name: &str,
    ) -> bool {
        let kind = reference.inode().kind().dirent();
        let (entry, offered) = reference.offer(valid);
        let fits = self.dirents.direntplus(&entry, next, kind, name.as_bytes());
        if fits {
            self.offered.push(offered);
        }
        fits
    }

    fn end(self) -> (usize, Vec<Offered>) {
        (self.dirents.used(), self.offered)
    }
}
