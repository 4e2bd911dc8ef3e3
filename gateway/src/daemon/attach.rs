//! Gets the kernel's connection: mounts on a directory, or takes a `/dev/fuse` that another program has
//! mounted.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use tokio::runtime::Handle as Runtime;

use super::error::StartError;
use super::signals::Signals;
use crate::config::Config;
use crate::fuse::mount::{MountOptions, Mounted};

/// What payloads of the ring may keep in memory, in bytes: half of what the process may take beside
/// `--memory`.
const PAYLOADS: u64 = 32 << 20;
/// The kernel's readahead of the mount: one request of the largest size.
const READAHEAD_KB: u32 = 1024;

/// Where the connection comes from.
#[derive(Debug)]
pub(super) enum Attachment {
    /// A mount of ours on this directory, which is resolved.
    Directory(PathBuf),
    /// A `/dev/fuse` that is mounted, and a name for it.
    Descriptor(OwnedFd, PathBuf),
}

/// Attaches, unless a signal comes first. What the kernel is just doing is waited for, so that no dead
/// mount stays behind, until a second signal.
pub(super) fn attach(
    config: &Config,
    attachment: Attachment,
    runtime: &Runtime,
    signals: &mut Signals,
) -> Result<Mounted, StartError> {
    let options = mount_options(config);
    runtime.block_on(async {
        let mut mounting = runtime.spawn_blocking(move || match attachment {
            Attachment::Directory(dir) => Mounted::mount(&dir, &options),
            Attachment::Descriptor(fd, shown) => Mounted::adopt(fd, &shown, &options),
        });
        match signals.unless(&mut mounting).await {
            Ok(mounted) => Ok(mounted.map_err(io::Error::other)??),
            Err(stopped) => {
                tokio::select! {
                    // Dropping it unmounts.
                    mounted = mounting => drop(mounted),
                    _ = signals.next() => {}
                }
                Err(stopped)
            }
        }
    })
}

fn mount_options(config: &Config) -> MountOptions {
    MountOptions {
        source: config.source.to_string(),
        allow_other: config.mount.allow_other,
        read_only: config.mount.read_only,
        transport: config.mount.transport,
        queue_depth: Some(config.mount.queue_depth),
        memory_bound: Some(PAYLOADS),
        readahead_kb: Some(READAHEAD_KB),
        extra: config.mount.mount_options.clone(),
        ..MountOptions::default()
    }
}
