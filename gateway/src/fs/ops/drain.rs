//! What is not in the store yet, and bringing it there.

use std::time::Duration;

use super::publish::PublishWaiter;
use crate::fs::Filesystem;

/// A file whose bytes are not all in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsaved {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// Why the last try failed; `None` if none has failed.
    pub cause: Option<String>,
}

impl Filesystem {
    /// Publishes everything that is dirty and gives when all is in the store. What fails is tried
    /// again, ever more slowly; the caller bounds the wait.
    pub async fn drain(&self) {
        let mut pause = Duration::from_millis(100);
        self.releases.close();
        loop {
            self.releases.wait().await;
            let unsaved = self.inodes.unsaved();
            let mut failed = 0;
            for inode in unsaved {
                let is_dirty = inode.state().is_dirty();
                if is_dirty && self.publish(&inode, PublishWaiter::Other).await.is_err() {
                    failed += 1;
                }
            }
            if failed == 0 {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    /// Files whose bytes are not all in the store now.
    pub fn unsaved(&self) -> Vec<Unsaved> {
        let inodes = self.inodes.unsaved();
        inodes
            .iter()
            .filter_map(|inode| {
                let state = inode.state();
                let written = state.written();
                let dirty = written.dirty().filter(|dirty| dirty.is_dirty())?;
                (!state.life().is_gone()).then(|| Unsaved {
                    key: state.key().to_string(),
                    size: dirty.size(),
                    cause: written.cause().map(str::to_owned),
                })
            })
            .collect()
    }
}
