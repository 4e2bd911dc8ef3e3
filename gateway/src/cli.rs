//! The command line: one file for each command. Each gives a [`CliError`] or nothing; only [`run`]
//! turns that into words and a status. What a command prints goes to stdout, everything else to
//! stderr.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use crate::config::units::Span;
use crate::config::{Host, layers};
use crate::logging;

use self::args::{Cli, Command, StatsArgs};
pub use self::exit::{CliError, Exit};

mod args;
mod background;
#[cfg(feature = "demo")]
mod demo;
mod doctor;
pub mod exit;
mod mount;
mod stats;
mod umount;

/// The command line as clap has it, for tests of the help.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program: `args` are those of the process, its own name first.
pub fn run(args: Vec<OsString>, env: impl IntoIterator<Item = (OsString, OsString)>) -> ExitCode {
    let matches = match Cli::command().try_get_matches_from(&args) {
        Ok(matches) => matches,
        Err(error) => return refuse(&error, &args),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error, &args),
    };
    if let Command::Stats(stats) = &cli.command
        && let Some(line) = detached_time(stats, &args)
    {
        logging::tell(&format!("ackfs: {line}"));
        return Exit::Usage.into();
    }
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
fn refuse(error: &clap::Error, args: &[OsString]) -> ExitCode {
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
            let line = detached_value(error, args).unwrap_or_else(|| layers::one_line(error));
            logging::tell(&format!("ackfs: {line}"));
            Exit::Usage.into()
        }
    }
}

/// The line for a word that was meant as the value of the flag before it, whose value is optional and so
/// must be attached: clap takes the word for something else, and is right to refuse that.
fn detached_value(error: &clap::Error, args: &[OsString]) -> Option<String> {
    use clap::error::{ContextKind, ContextValue};

    let wrong = [ContextKind::InvalidArg, ContextKind::InvalidValue];
    let wrong = wrong.into_iter().filter_map(|kind| match error.get(kind)? {
        ContextValue::String(word) => Some(word.as_str()),
        _ => None,
    });
    let wrong: Vec<&str> = wrong.collect();
    let root = command();
    let own = root.find_subcommand(args.get(1)?)?;
    args.windows(2).find_map(|pair| {
        let (flag, word) = (pair[0].to_str()?.strip_prefix("--")?, pair[1].to_str()?);
        let arg = own.get_arguments().find(|arg| {
            arg.get_long() == Some(flag) && arg.is_require_equals_set() && wrong.contains(&word)
        })?;
        let values: Vec<String> = arg
            .get_possible_values()
            .iter()
            .map(|value| format!("--{flag}={}", value.get_name()))
            .collect();
        let fix = if values.is_empty() || values.contains(&format!("--{flag}={word}")) {
            format!("--{flag}={word}")
        } else {
            values.join(" or ")
        };
        Some(attached(flag, word, &fix))
    })
}

fn attached(flag: &str, word: &str, fix: &str) -> String {
    format!("the value of --{flag} is attached to it: write {fix} in place of --{flag} {word}")
}

/// The same for `stats --watch 1s`, which is no mistake to clap: the time is taken for the directory.
fn detached_time(stats: &StatsArgs, args: &[OsString]) -> Option<String> {
    let dir = stats.dir.as_deref()?;
    let word = dir.to_str()?;
    let behind_watch = args
        .windows(2)
        .any(|pair| pair[0] == "--watch" && pair[1] == word);
    let is_time = word.parse::<Span>().is_ok();
    (behind_watch && is_time && !dir.exists())
        .then(|| attached("watch", word, &format!("--watch={word}")))
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
    fn the_help_is_plain_text() {
        for own in command().get_subcommands() {
            for flag in ["--help", "-h"] {
                let help = help(&[own.get_name(), flag]);
                assert!(!help.contains('`'), "Markdown in\n{help}");
            }
        }
    }

    /// "unexpected argument" did not say what to do about it.
    #[test]
    fn a_value_that_is_not_attached_is_told_how_to_attach_it() {
        for (line, fix) in [
            ("mount s3://data /d --read-only true", "--read-only=true in"),
            (
                "mount s3://data /d --read-only maybe",
                "write --read-only=true or --read-only=false",
            ),
            ("mount --read-only no s3://data /d", "write --read-only="),
            ("stats /d --watch 1s", "write --watch=1s"),
        ] {
            let args: Vec<OsString> = ["ackfs"]
                .into_iter()
                .chain(line.split(' '))
                .map(OsString::from)
                .collect();
            let error = command().try_get_matches_from(&args).unwrap_err();
            let told = detached_value(&error, &args).unwrap_or_default();
            assert!(told.contains(fix), "{line}: {told}: {error}");
        }
        let args = ["ackfs", "stats", "/d", "e"].map(OsString::from);
        let error = command().try_get_matches_from(&args).unwrap_err();
        assert_eq!(detached_value(&error, &args), None);
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
