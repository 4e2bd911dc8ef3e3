//! The command line: one file for each command. Each gives a [`Failure`] or nothing; only [`run`]
//! turns that into words and a status. What a command prints goes to stdout, everything else to
//! stderr.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

pub use self::exit::{Exit, Failure};
use crate::config::{Flags, Host, Source, layers};
use crate::logging;

#[cfg(feature = "demo")]
mod demo;
mod doctor;
pub mod exit;
mod mount;
mod stats;
mod umount;

/// Mounts an S3 bucket as a filesystem whose close() means: in the bucket.
#[derive(Debug, Parser)]
#[command(name = "ackfs", version, after_help = exit::HELP, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
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
struct MountArgs {
    /// The bucket, and where in it
    #[arg(value_name = "s3://BUCKET[/PREFIX]")]
    source: Source,
    /// The directory to mount on
    dir: PathBuf,
    #[command(flatten)]
    flags: Flags,
    /// Return when the mount serves, with its status and reason if it cannot; log lines go to
    /// stderr, or to syslog if that is a terminal [default: false]
    #[arg(long, help_heading = "Running")]
    background: bool,
    /// We are the child of `--background`.
    #[arg(long, hide = true)]
    in_background: bool,
    /// We are the child of `ackfs demo`: end when stdin does.
    #[arg(long, hide = true)]
    with_parent: bool,
}

#[derive(Debug, Args)]
struct UmountArgs {
    /// The mounted directory
    dir: PathBuf,
    /// Do not wait for anything: what is open is cut off, what is not saved is listed and lost
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
struct StatsArgs {
    /// The mounted directory; without it, all mounts of this user
    dir: Option<PathBuf>,
    /// Show it again, with rates, every so often [default: 2s]
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true,
          default_missing_value = "2s")]
    watch: Option<crate::config::units::Span>,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct DoctorArgs {
    /// The bucket to check, and where in it
    #[arg(value_name = "s3://BUCKET[/PREFIX]", requires = "dir")]
    source: Option<Source>,
    /// The directory that it is to be mounted on
    dir: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

#[cfg(feature = "demo")]
#[derive(Debug, Args)]
struct DemoArgs {
    /// The directory to mount on [default: a fresh one, removed at the end]
    dir: Option<PathBuf>,
    /// The door to the kernel [default: auto]
    #[arg(long, value_enum)]
    transport: Option<crate::config::Transport>,
}

/// The command line as clap has it, for tests of the help.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program: `args` are those of the process, its own name first.
pub fn run(args: Vec<OsString>, env: impl IntoIterator<Item = (OsString, OsString)>) -> ExitCode {
    let matches = match Cli::command().try_get_matches_from(&args) {
        Ok(matches) => matches,
        Err(error) => return refuse(&error),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let host = Host::detect(env);
    let (_, own) = matches.subcommand().expect("clap demands a command");
    let result = match cli.command {
        Command::Mount(command) => mount::run(command, own, &host, &args),
        Command::Umount(command) => umount::run(&command, &host),
        Command::Stats(command) => stats::run(&command, &host),
        Command::Doctor(command) => doctor::run(command, own, &host),
        #[cfg(feature = "demo")]
        Command::Demo(command) => demo::run(&command, &host),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                logging::tell(&format!("ackfs: {}", failure.message));
            }
            failure.exit.into()
        }
    }
}

/// Help and version are answers; anything else is one line and the status of bad usage.
fn refuse(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;

    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            Exit::Usage.into()
        }
        _ => {
            logging::tell(&format!("ackfs: {}", layers::one_line(error)));
            Exit::Usage.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The flags that issue and documentation fix by name.
    const MOUNT_FLAGS: &str = "endpoint-url region profile path-style no-sign-request \
        requester-pays sse sse-kms-key-id storage-class acl checksum cache-dir cache-size memory \
        part-size readahead-max max-requests read-only allow-other uid gid file-mode dir-mode \
        metadata-ttl negative-ttl transport queue-depth close-waits-for on-conflict store-timeout \
        drain-timeout log-format log-level config metrics background";

    fn help(words: &[&str]) -> String {
        let error = command()
            .try_get_matches_from([&["ackfs"], words].concat())
            .unwrap_err();
        assert_eq!(error.exit_code(), 0);
        error.to_string()
    }

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn the_help_of_mount_has_every_flag_with_its_default() {
        let help = help(&["mount", "--help"]);
        for flag in MOUNT_FLAGS.split_whitespace() {
            assert!(
                help.contains(&format!("--{flag}")),
                "{flag} is not in\n{help}"
            );
        }
        let command = command();
        let mount = command.find_subcommand("mount").unwrap();
        for arg in mount
            .get_arguments()
            .filter(|arg| arg.get_long().is_some() && !arg.is_hide_set())
        {
            if arg.get_id() == "help" {
                continue;
            }
            let text = arg.get_help().unwrap().to_string();
            assert!(
                text.contains("[default: "),
                "--{} names no default",
                arg.get_id()
            );
            assert!(
                arg.get_help_heading().is_some(),
                "--{} stands in no group",
                arg.get_id()
            );
        }
        assert!(
            !help.contains("journal") && !help.contains("keep-both"),
            "not offered yet"
        );
    }

    #[test]
    fn the_help_names_every_exit_status() {
        for words in [&["--help"][..], &["mount", "--help"]] {
            let help = help(words);
            for status in ["64", "69", "73", "75", "77", "78"] {
                assert!(help.contains(status), "{status} is not in\n{help}");
            }
        }
    }

    #[test]
    fn every_setting_has_one_name_everywhere() {
        let names = layers::names();
        let command = command();
        let mount = command.find_subcommand("mount").unwrap();
        for name in &names {
            assert!(
                mount
                    .get_arguments()
                    .any(|arg| arg.get_long() == Some(name)),
                "{name}"
            );
        }
        assert!(names.len() >= 35, "{}", names.len());
    }
}
