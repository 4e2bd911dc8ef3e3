//! Names to inodes: one dentry for each inode that has its name, and which of the names readdir has to
//! show though the store may not list them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::inode::Inode;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Dentries {
    /// By directory, then by name. A directory without any has no entry.
    named: HashMap<u64, HashMap<Arc<str>, Arc<Inode>>>,
    /// Names of what this mount knows better than the store. In order: readdir shows them in it.
    local: HashMap<u64, BTreeSet<Arc<str>>>,
}

impl Dentries {
    /// The inode that a name leads to.
    pub(super) fn get(&self, parent: u64, name: &str) -> Option<&Arc<Inode>> {
        self.named.get(&parent)?.get(name)
    }

    /// The name leads to `inode`, and led nowhere before.
    pub(super) fn insert(&mut self, parent: u64, name: Arc<str>, inode: Arc<Inode>) {
        let old = self.named.entry(parent).or_default().insert(name, inode);
        debug_assert!(old.is_none(), "a name was taken from an inode unheard");
    }

    /// The name leads nowhere.
    pub(super) fn remove(&mut self, parent: u64, name: &str) {
        if let Some(names) = self.named.get_mut(&parent) {
            names.remove(name);
            if names.is_empty() {
                self.named.remove(&parent);
            }
        }
        self.set_local(parent, name, false);
    }

    /// Whether readdir shows the name whatever the store lists.
    pub(super) fn set_local(&mut self, parent: u64, name: &str, is_local: bool) {
        if is_local {
            self.local.entry(parent).or_default().insert(name.into());
        } else if let Some(names) = self.local.get_mut(&parent) {
            names.remove(name);
            if names.is_empty() {
                self.local.remove(&parent);
            }
        }
    }

    /// The names in `parent` that readdir shows whatever the store lists, in order.
    pub(super) fn local_names(&self, parent: u64) -> Vec<Arc<str>> {
        let names = self.local.get(&parent);
        names.map_or_else(Vec::new, |names| names.iter().cloned().collect())
    }
}
