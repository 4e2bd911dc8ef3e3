//! What a mount is asked to be.

/// Which door requests come through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// io_uring if it can be had, else `/dev/fuse` with one warning.
    #[default]
    Auto,
    /// io_uring, or no mount.
    Uring,
    /// `/dev/fuse`.
    Classic,
}

/// What a mount is asked to be. `default_permissions`, `nosuid`, `nodev` and `noatime` are always
/// on.
#[derive(Debug, Clone)]
pub struct MountOptions {
    /// What mount(8) and df(1) show as the source, for example `s3://bucket/prefix`.
    pub source: String,
    /// Other users may use it.
    pub allow_other: bool,
    /// Nothing can be written.
    pub read_only: bool,
    /// Which door.
    pub transport: Transport,
    /// Slots of a queue; default 64, at most 1024.
    pub queue_depth: Option<u32>,
    /// Bytes that payloads may keep in memory, over all queues; default 64 MiB. Depth and
    /// max_write are chosen within it.
    pub memory_bound: Option<u64>,
    /// The kernel's readahead window in KiB, raised after the mount where we may; `None` leaves the
    /// kernel's 128.
    pub readahead_kb: Option<u32>,
    /// Background requests the kernel lets be under way; default by the number of slots.
    pub max_background: Option<u16>,
    /// Ask for passthrough to backing files where privileges allow.
    pub passthrough: bool,
    /// More options for mount(2), as they are.
    pub extra: Vec<String>,
    /// Gives the kernel payloads that are too short, so that it refuses REGISTER. For tests of the
    /// way back to `/dev/fuse`.
    #[doc(hidden)]
    pub fault_short_payload: bool,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            source: "ackfs".to_owned(),
            allow_other: false,
            read_only: false,
            transport: Transport::Auto,
            queue_depth: None,
            memory_bound: None,
            readahead_kb: None,
            max_background: None,
            passthrough: true,
            extra: Vec::new(),
            fault_short_payload: false,
        }
    }
}
