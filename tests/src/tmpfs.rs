//! A disk that is as small as a test wants it.

use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::sandbox;

/// A small disk of its own, in memory; unmounted when dropped.
#[derive(Debug)]
pub struct TmpFs(tempfile::TempDir);

impl TmpFs {
    /// A disk of `size` bytes.
    pub fn new(size: usize) -> Self {
        let dir = sandbox::dir("disk-");
        let options = format!("size={size}");
        let kind = Some("tmpfs");
        mount(
            kind,
            dir.path(),
            kind,
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .expect("root can mount a tmpfs");
        Self(dir)
    }

    /// Its root.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for TmpFs {
    fn drop(&mut self) {
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}
