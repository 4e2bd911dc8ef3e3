//! What the catalogue on disk is to be told, in batches: each costs a sync, and a crash costs the warmth
//! of the last one.
//!
//! When a batch cannot be written (a full disk, most often), the cache goes on with what memory knows,
//! and the next batch writes the whole catalogue anew. Each change between well and ill is logged once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::catalog::{Catalog, CatalogChange};
use super::directory::CacheDirectory;
use super::object::CachedObject;

/// How long the catalogue may be behind.
pub(super) const COMMIT_INTERVAL: Duration = Duration::from_secs(5);

/// Changes that are written at once without waiting for the interval: bounds their memory.
const CHANGES_MAX: usize = 8192;

/// See the module.
#[derive(Debug)]
pub(super) struct CatalogUpdates {
    directory: CacheDirectory,
    /// `None` while the catalogue on disk cannot be written.
    catalog: Option<Catalog>,
    changes: Vec<CatalogChange>,
    /// When the changes must be written.
    due: Option<Instant>,
    /// The last batch could not be written, and that was said.
    ill: bool,
}

impl CatalogUpdates {
    pub(super) fn new(directory: CacheDirectory, catalog: Option<Catalog>) -> Self {
        Self {
            directory,
            catalog,
            changes: Vec::new(),
            due: None,
            ill: false,
        }
    }

    /// Adds `change` to the next batch.
    pub(super) fn add(&mut self, change: CatalogChange) {
        self.changes.push(change);
        self.due
            .get_or_insert_with(|| Instant::now() + COMMIT_INTERVAL);
    }

    /// When the next batch must be written; `None` while there is nothing to write.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether it is time for the next batch.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now) || self.changes.len() >= CHANGES_MAX
    }

    /// Writes the batch, or if the one before could not be written, all that memory knows, which is
    /// `all`. Blocks on the disk.
    pub(super) fn commit(&mut self, all: impl FnOnce() -> Vec<Arc<CachedObject>>) {
        self.due = None;
        let changes = std::mem::take(&mut self.changes);
        if changes.is_empty() {
            return;
        }
        let result = if let Some(catalog) = &self.catalog {
            catalog.apply(changes.iter())
        } else {
            let made = self.directory.make_catalog(all().into_iter());
            made.map(|catalog| self.catalog = Some(catalog))
        };
        match result {
            Ok(()) => {
                if std::mem::take(&mut self.ill) {
                    tracing::info!("the cache index can be written again");
                }
            }
            Err(error) => {
                // After a failed write redb refuses all others; memory knows everything.
                self.catalog = None;
                if !std::mem::replace(&mut self.ill, true) {
                    tracing::warn!(%error, "the cache index cannot be written: a restart now would find an older cache");
                }
            }
        }
    }

    /// Notes on disk that all is written. Blocks on the disk.
    pub(super) fn close(self) {
        if let Some(catalog) = self.catalog
            && let Err(error) = catalog.mark_clean(true)
        {
            tracing::warn!(%error, "the cache index could not be closed; it is checked at the next start");
        }
    }
}
