//! The kernel's readahead of a mount, which it keeps with the mount's backing device (bdi).

use std::fs;
use std::path::Path;

use tracing::warn;

use super::mount_table::topmost;

/// Raises the readahead window of the mount on `dir`, if asked and allowed; gives what it is then.
///
/// The kernel begins with 128 KiB and INIT cannot raise it; it decides how large sequential READs
/// are.
pub(super) fn readahead(dir: &Path, wanted_kb: Option<u32>) -> Option<u32> {
    let mount = topmost(dir).ok()??;
    let file = format!("/sys/class/bdi/{}/read_ahead_kb", mount.device);
    if let Some(kb) = wanted_kb
        && let Err(cause) = fs::write(&file, kb.to_string())
        && nix::unistd::geteuid().is_root()
    {
        warn!(file, kb, %cause, "readahead of the mount stays as it is");
    }
    fs::read_to_string(&file).ok()?.trim().parse().ok()
}
