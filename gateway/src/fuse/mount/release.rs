//! Does a closer wait for RELEASE? Only the kernel of `kernel/patches` can make it wait, and it says so
//! by offering FUSE_SYNC_RELEASE at INIT. Where it does not, users are told why: their close() means
//! less than it could.
//!
//! INIT does not say why it does not offer a flag. What is known of the mount and of the process that
//! mounted tells the causes apart; [`why_not`] decides, from text.

use std::path::Path;

use super::mount_table::topmost;

/// The mount option that withholds FUSE_SYNC_RELEASE.
pub const DISABLE_SYNC_RELEASE: &str = "disable_sync_release";

/// A sysctl that came with the patches: where it is, the kernel's fuse has them.
const SYSCTL: &str = "/proc/sys/fs/fuse/sync_release_exit_timeout";

/// Why nobody waits for RELEASE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoSyncRelease {
    /// The kernel's fuse module does not know it.
    #[error("the kernel does not offer FUSE_SYNC_RELEASE")]
    NotOffered,
    /// Whoever mounted did not want it.
    #[error("mounted with disable_sync_release")]
    Disabled,
    /// The mount belongs to a user namespace: a server there could make others wait.
    #[error(
        "unprivileged mount: the kernel offers FUSE_SYNC_RELEASE in the first user namespace only"
    )]
    UserNamespace,
}

/// Whether a mount made by this process will be offered it, as far as can be told without a mount.
/// Never waits.
///
/// # Errors
/// The cause that stands in the way.
pub fn sync_release() -> Result<(), NoSyncRelease> {
    let known = Path::new(SYSCTL).exists();
    match why_not("", &uid_map(), known) {
        NoSyncRelease::NotOffered if known => Ok(()),
        cause => Err(cause),
    }
}

/// Why a mount was not offered it: the one on `dir`, or one that another program made somewhere.
pub(super) fn why_not_on(dir: Option<&Path>) -> NoSyncRelease {
    let mount = dir.and_then(|dir| topmost(dir).ok().flatten());
    let options = mount.map(|mount| mount.options).unwrap_or_default();
    why_not(&options, &uid_map(), Path::new(SYSCTL).exists())
}

fn uid_map() -> String {
    std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default()
}

/// The cause, from the mount's options, the process's map of user ids, and whether the kernel knows
/// synchronous RELEASE at all.
fn why_not(options: &str, uid_map: &str, known: bool) -> NoSyncRelease {
    if options
        .split(',')
        .any(|option| option == DISABLE_SYNC_RELEASE)
    {
        return NoSyncRelease::Disabled;
    }
    // The first user namespace maps every id to itself; nobody can make another one that does.
    let first = uid_map.is_empty() || uid_map.split_whitespace().eq(["0", "0", "4294967295"]);
    if known && !first {
        return NoSyncRelease::UserNamespace;
    }
    NoSyncRelease::NotOffered
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "         0          0 4294967295\n";
    const OTHER: &str = "         0       1000          1\n";

    #[test]
    fn each_cause_is_told_by_its_name() {
        let off = "rw,user_id=0,default_permissions,disable_sync_release";
        let cases = [
            (off, FIRST, true, NoSyncRelease::Disabled),
            ("rw,user_id=0", FIRST, true, NoSyncRelease::NotOffered),
            ("rw,user_id=0", OTHER, true, NoSyncRelease::UserNamespace),
            // A stock kernel offers it to nobody: privileges would not help.
            ("rw,user_id=0", OTHER, false, NoSyncRelease::NotOffered),
            (
                "rw,disable_sync_release_not",
                "",
                true,
                NoSyncRelease::NotOffered,
            ),
        ];
        for (options, uid_map, known, cause) in cases {
            assert_eq!(
                why_not(options, uid_map, known),
                cause,
                "{options} {uid_map}"
            );
        }
    }

    #[test]
    fn a_cause_is_one_line_for_people() {
        assert!(
            NoSyncRelease::UserNamespace
                .to_string()
                .contains("unprivileged")
        );
        assert!(
            NoSyncRelease::Disabled
                .to_string()
                .contains(DISABLE_SYNC_RELEASE)
        );
    }
}
