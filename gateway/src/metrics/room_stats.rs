//! The counters of all rooms at one moment, which is all that a metric is read from.

use ackfs_cache::dirty::WriteStats;
use ackfs_cache::disk_cache::DiskStats;
use ackfs_cache::read::ReadStats;

use crate::fs::FsStats;
use crate::fuse::TransportStats;
use crate::fuse::mount::TransportInfo;
use crate::s3::StoreStats;

/// See the module.
#[derive(Debug, Clone)]
pub struct RoomStats {
    /// The transport as it is.
    pub info: TransportInfo,
    /// Its counters.
    pub transport: TransportStats,
    /// The read path's.
    pub read: ReadStats,
    /// The disk cache's, if there is one.
    pub disk: Option<DiskStats>,
    /// The write path's.
    pub write: WriteStats,
    /// The filesystem's.
    pub files: FsStats,
    /// The store's.
    pub store: StoreStats,
    /// Bytes that files' contents may not take, since the process needs them for something else.
    pub withheld: u64,
}

/// Memory of this process in bytes, shared pages included; `None` where that cannot be known.
pub fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    Some(pages * page as u64)
}
