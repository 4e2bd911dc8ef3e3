//! Asking the store what a name is: HEAD of the name, and beside it a listing. In a directory that fits one
//! page the listing is the whole directory, so that the next look-ups there, found or not, need no
//! request; in a larger one it asks only whether the name is a directory. What is known as a directory
//! has its marker asked for at the same time: a listing shows no type, mode or owner.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use ackfs_cache::object::{Key, ObjectId};
use ackfs_cache::store::{ListRequest, Metadata, ObjectInfo, StoreErrorKind, StoreResult};

use crate::fs::Filesystem;
use crate::fs::attr::Kind;
use crate::fs::error::{FsResult, look_again};
use crate::fs::names::cache::{Known, Listed};
use crate::fs::names::key::name_of;
use crate::fs::table::inode::Inode;

/// A name that was found: what it is, its metadata if a HEAD showed them, when the store was asked.
pub(in crate::fs) struct Found {
    pub(in crate::fs) what: Listed,
    pub(in crate::fs) metadata: Option<Arc<Metadata>>,
    pub(in crate::fs) begun: Instant,
}

impl Filesystem {
    /// Asks the store for a name. `None` if there is none.
    pub(in crate::fs) async fn ask(&self, dir: &Arc<Inode>, name: &str) -> FsResult<Option<Found>> {
        let marker = Key::new(format!("{}{name}/", dir.key()));
        // Of what is known as a directory the marker is asked for at the same time.
        let (found, access) = if self.is_a_directory_here(dir, name) {
            let (found, access) = tokio::join!(self.ask_name(dir, name), self.marker(&marker));
            (found?, Some(access))
        } else {
            (self.ask_name(dir, name).await?, None)
        };
        let Some(mut found) = found else {
            return Ok(None);
        };
        if found.what == Listed::Directory {
            let access = match access {
                Some(access) => access,
                None => self.marker(&marker).await,
            };
            found.metadata = Some(access?);
        }
        Ok(Some(found))
    }

    /// The metadata of a directory's marker; none where it has no marker.
    pub(in crate::fs) async fn marker(&self, key: &Key) -> StoreResult<Arc<Metadata>> {
        let info = self.head(key).await?;
        Ok(Arc::new(info.map(|info| info.metadata).unwrap_or_default()))
    }

    /// Asks for a directory's own mode and owner before somebody is let in by the mount's.
    ///
    /// # Errors
    /// [`look_again`] if they are others than the kernel was told: it decides anew. The store's. Waits for
    /// the store.
    pub(in crate::fs) async fn show_access(&self, dir: &Inode) -> FsResult<()> {
        let begun = Instant::now();
        let key = Key::new(dir.key());
        let metadata = self.marker(&key).await?;
        if dir.state().show_access(metadata, begun) {
            Ok(())
        } else {
            Err(look_again())
        }
    }

    pub(in crate::fs) async fn ask_name(
        &self,
        dir: &Arc<Inode>,
        name: &str,
    ) -> FsResult<Option<Found>> {
        let prefix = dir.key();
        let key = Key::new(format!("{prefix}{name}"));
        if self.known.is_large(dir.ino()) {
            return self.ask_one(dir, name, &key).await;
        }
        // One listing serves all who look for names in this directory at once.
        let guard = dir.publishing().lock().await;
        let lacked = self.known.lacks(dir.ino(), name);
        if let Some(known) = self.known.get(dir.ino(), name, Instant::now()) {
            let is_directory = known.what == Some(Listed::Directory);
            if !is_directory && !self.is_whole(dir, name, &known) {
                drop(guard);
                return self.ask_type(dir, name, &key).await;
            }
            return Ok(known.what.map(|what| Found {
                what,
                metadata: None,
                begun: known.begun,
            }));
        }
        let begun = Instant::now();
        let (head, page) = tokio::join!(
            self.head(&key),
            self.store.list(page_of(&prefix, true, 1000))
        );
        let page = page?;
        if page.next.is_some() {
            self.known.put_large(dir.ino());
            drop(guard);
            return self.ask_one(dir, name, &key).await;
        }
        let mut names = HashMap::new();
        for entry in page.entries {
            if let Some(name) = name_of(&prefix, &entry.key) {
                let what = Listed::File {
                    etag: entry.etag,
                    size: entry.size,
                    modified: entry.modified,
                };
                names.insert(name.into(), what);
            }
        }
        for directory in &page.prefixes {
            if let Some(name) = name_of(&prefix, directory) {
                names.insert(name.into(), Listed::Directory);
            }
        }
        let listed = names.get(name).cloned();
        let mut is_directory = listed == Some(Listed::Directory);
        let head = head?;
        if self.is_believable(dir, &names) {
            self.known.put_listing(dir.ino(), begun, names, false);
        }
        if is_directory && (head.is_some() || self.is_a_file_here(dir, name)) {
            let below = page_of(&format!("{key}/"), false, 1);
            is_directory = !self.store.list(below).await?.entries.is_empty();
        }
        let found = self.choose(dir, &key, is_directory, head, begun);
        let what = found.as_ref().map(|found| found.what.clone());
        if lacked && what.is_some() {
            self.known.burst(dir.ino()).lock().foreign(begun);
        }
        if what != listed {
            self.known.put(dir.ino(), name, what, begun);
        }
        Ok(found)
    }

    /// Whether a listing may answer look-ups. MinIO lists `k/` for a moment when an object `k` is put or
    /// deleted: 18 of 1,030 listings beside one writer.
    pub(in crate::fs) fn is_believable(
        &self,
        dir: &Inode,
        names: &HashMap<Box<str>, Listed>,
    ) -> bool {
        let directories = names.iter().filter(|(_, what)| **what == Listed::Directory);
        directories
            .map(|(name, _)| name)
            .all(|name| !self.is_a_file_here(dir, name))
    }

    pub(in crate::fs) fn is_a_directory_here(&self, dir: &Inode, name: &str) -> bool {
        let child = self.inodes.child(dir.ino(), name);
        child.is_some_and(|child| child.is_directory())
    }

    pub(in crate::fs) fn is_a_file_here(&self, dir: &Inode, name: &str) -> bool {
        let child = self.inodes.child(dir.ino(), name);
        child.is_some_and(|child| !child.is_directory())
    }

    /// Asks for one name in a directory that is too large to list for it.
    pub(in crate::fs) async fn ask_one(
        &self,
        dir: &Inode,
        name: &str,
        key: &Key,
    ) -> FsResult<Option<Found>> {
        let begun = Instant::now();
        let below = format!("{key}/");
        let (head, page) = tokio::join!(self.head(key), self.store.list(page_of(&below, false, 1)));
        let directory = !page?.entries.is_empty();
        let found = self.choose(dir, key, directory, head?, begun);
        self.known.put(
            dir.ino(),
            name,
            found.as_ref().map(|found| found.what.clone()),
            begun,
        );
        Ok(found)
    }

    /// Asks for the type of a name that a listing has shown as an object.
    pub(in crate::fs) async fn ask_type(
        &self,
        dir: &Inode,
        name: &str,
        key: &Key,
    ) -> FsResult<Option<Found>> {
        let begun = Instant::now();
        let head = self.head(key).await?;
        let found = self.choose(dir, key, false, head, begun);
        let what = found.as_ref().map(|found| found.what.clone());
        self.known.put(dir.ino(), name, what, begun);
        Ok(found)
    }

    /// Whether what is known of a name is enough to show it.
    pub(in crate::fs) fn is_whole(&self, dir: &Inode, name: &str, known: &Known) -> bool {
        if known.what == Some(Listed::Directory) {
            let child = self.inodes.child(dir.ino(), name);
            return child.is_some_and(|child| {
                let state = child.state();
                let checked = state.shown().checked();
                let valid = self.known.remaining(true, checked, Instant::now());
                state.shown().metadata().is_some() && !valid.is_zero()
            });
        }
        let kind = |what| self.kind_listed(dir, name, what, known.shown);
        known.what.as_ref().is_none_or(|what| kind(what).is_some())
    }

    /// What a name is by a listing; `None` where only a HEAD can tell, because a listing shows no
    /// metadata and what is no file looks like one. Who is `shown` a whole directory is shown files,
    /// unless other names were met in it: a HEAD for each small object would cost more than the listing.
    pub(in crate::fs) fn kind_listed(
        &self,
        dir: &Inode,
        name: &str,
        what: &Listed,
        shown: bool,
    ) -> Option<Kind> {
        let (etag, size) = match what {
            Listed::Directory => return Some(Kind::Directory),
            Listed::File { etag, size, .. } => (etag, *size),
        };
        if !Kind::is_in_doubt(size) || (shown && !self.known.holds_specials(dir.ino())) {
            return Some(Kind::File);
        }
        let key = Key::new(format!("{}{name}", dir.key()));
        let metadata = self.known.metadata(&ObjectId::new(key, etag.clone()))?;
        Some(Kind::of_object(&metadata, size))
    }

    /// A HEAD that was sent at `begun` showed an object. Gives what its metadata are.
    pub(in crate::fs) fn saw(
        &self,
        dir: u64,
        key: Key,
        info: ObjectInfo,
        begun: Instant,
    ) -> Arc<Metadata> {
        if Kind::of_object(&info.metadata, info.size) != Kind::File {
            self.known.put_special(dir);
        }
        let id = ObjectId::new(key, info.etag);
        self.known
            .saw_metadata(id, info.modified, info.metadata, begun)
    }

    /// A directory wins over a file of the same name.
    pub(in crate::fs) fn choose(
        &self,
        dir: &Inode,
        key: &Key,
        directory: bool,
        head: Option<ObjectInfo>,
        begun: Instant,
    ) -> Option<Found> {
        if directory {
            return Some(Found {
                what: Listed::Directory,
                metadata: None,
                begun,
            });
        }
        let info = head?;
        let what = Listed::File {
            etag: info.etag.clone(),
            size: info.size,
            modified: info.modified,
        };
        Some(Found {
            what,
            metadata: Some(self.saw(dir.ino(), key.clone(), info, begun)),
            begun,
        })
    }

    /// HEAD, with "not found" as `None`.
    pub(in crate::fs) async fn head(&self, key: &Key) -> StoreResult<Option<ObjectInfo>> {
        match self.store.head(key).await {
            Ok(info) => Ok(Some(info)),
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A request for one page.
pub(in crate::fs) fn page_of(prefix: &str, delimited: bool, keys_max: u32) -> ListRequest {
    ListRequest {
        prefix: prefix.to_owned(),
        delimited,
        token: None,
        start_after: None,
        keys_max,
    }
}
