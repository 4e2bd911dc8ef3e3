//! The commands and their words. The settings of a mount are in `config/flags.rs`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::units::Span;
use crate::config::{Flags, S3Uri};
#[cfg(feature = "demo")]
use crate::fuse::mount::Transport;

use super::exit;

/// Mounts an S3 bucket as a filesystem whose close() means: in the bucket.
#[derive(Debug, Parser)]
#[command(name = "ackfs", version, after_help = exit::HELP, disable_help_subcommand = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Mount a bucket, or a prefix of it, and serve it until it is unmounted.
    ///
    /// One line on stdout tells when the mount is ready. Each flag below can be set by an
    /// environment variable too (--cache-size: ACKFS_CACHE_SIZE) and in the file of --config
    /// (cache-size = "1GiB"); flags win over the environment, the environment over the file. Sizes
    /// are written as 64MiB or 1GiB, times as 500ms, 1s or 5m. Credentials come from AWS's own
    /// chain: environment, profile, web identity, container, instance.
    #[command(after_help = exit::HELP, allow_negative_numbers = true)]
    Mount(MountArgs),
    /// Save everything that is dirty and unmount DIR; also detaches dead mounts.
    ///
    /// A mount that somebody uses stays, as with umount(8), and so does one that cannot be saved
    /// within its --drain-timeout.
    #[command(after_help = exit::UMOUNT_HELP)]
    Umount(UmountArgs),
    /// Show what a mount does: operations, hits, dirty files, requests to the store.
    Stats(StatsArgs),
    /// Check the machine and, given a bucket, the store: what is ok, what is not, how to mend it.
    ///
    /// Ends with status 1 if a check fails. Takes the flags of mount.
    #[command(allow_negative_numbers = true)]
    Doctor(DoctorArgs),
    /// Show the promise at work: a store in this process, a mount, a second client.
    ///
    /// With a terminal it stays mounted until Ctrl-C; without one it ends after the tour.
    #[cfg(feature = "demo")]
    Demo(DemoArgs),
}

#[derive(Debug, Args)]
pub(super) struct MountArgs {
    /// The bucket, and where in it
    #[arg(value_name = "s3://BUCKET[/PREFIX]")]
    pub(super) source: S3Uri,
    /// The directory to mount on
    pub(super) dir: PathBuf,
    #[command(flatten)]
    pub(super) flags: Flags,
    /// We are the child of `--background`.
    #[arg(long, hide = true)]
    pub(super) in_background: bool,
    /// We are the child of `ackfs demo`: end when stdin does.
    #[arg(long, hide = true)]
    pub(super) with_parent: bool,
}

#[derive(Debug, Args)]
pub(super) struct UmountArgs {
    /// The mounted directory
    pub(super) dir: PathBuf,
    /// Do not wait for anything: what is open is cut off, what is not saved is listed and lost
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Debug, Args)]
pub(super) struct StatsArgs {
    /// The mounted directory; without it, all mounts of this user
    pub(super) dir: Option<PathBuf>,
    /// Show it again, with rates, every so often [default: 2s]
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true,
          default_missing_value = "2s")]
    pub(super) watch: Option<Span>,
    /// Print JSON, one object a line
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// The bucket to check, and where in it
    #[arg(value_name = "s3://BUCKET[/PREFIX]", requires = "dir")]
    pub(super) source: Option<S3Uri>,
    /// The directory that it is to be mounted on
    pub(super) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(super) flags: Flags,
}

#[cfg(feature = "demo")]
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// The directory to mount on [default: a fresh one, removed at the end]
    pub(super) dir: Option<PathBuf>,
    /// The door to the kernel [default: auto]
    #[arg(long, value_enum)]
    pub(super) transport: Option<Transport>,
}
