//! The three places a setting comes from, laid over each other: the file below, the environment on
//! it, the command line on top. File and environment are turned into `--key=value` and go through
//! the command line's own parser one at a time, so an error names the line to mend, and a value
//! cannot mean two things. What is wrong with several settings together is found later, when the whole is
//! decided; `Origins` remembers for that where each stands.
//!
//! A key that nobody knows is an error that names the nearest one: a mistyped limit that is silently
//! ignored is worse than a mount that does not start. Of the environment, `ACKFS_SERVICE_*` and
//! `ACKFS_PORT*` are let be: Kubernetes puts them there for a service named ackfs; `ACKFS_TEST_*`,
//! `ACKFS_BENCH_*`, `ACKFS_BIN` and `ACKFS_MINIO_*` are the test suite's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::error::{ConfigError, Unfit};
use super::flags::Flags;
use super::host::Host;

/// What the variables of the environment begin with.
const PREFIX: &str = "ACKFS_";
/// Variables that begin so are not ours.
const FOREIGN: [&str; 6] = ["SERVICE_", "PORT", "TEST_", "BENCH_", "BIN", "MINIO_"];

/// Where the settings that are not the command line's stand, by their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Origins {
    /// The file of `--config` that was read.
    file: PathBuf,
    settings: BTreeMap<String, Origin>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    File,
    /// Of this name.
    Variable(String),
}

impl Origins {
    /// `unfit` as it concerns the one who wrote it: settings are called as they stand in the file or the
    /// environment, and what stands in the file is the file's mistake.
    pub(super) fn blame(&self, unfit: &Unfit) -> ConfigError {
        let mut parts = unfit.0.split("--");
        let mut words = parts.next().unwrap_or_default().to_owned();
        let mut in_file = false;
        for part in parts {
            let len = part
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '-')
                .unwrap_or(part.len());
            let (name, rest) = part.split_at(len);
            match self.settings.get(name) {
                None => words.extend(["--", name]),
                Some(Origin::Variable(variable)) => words.push_str(variable),
                Some(Origin::File) => {
                    in_file = true;
                    words.push_str(name);
                }
            }
            words.push_str(rest);
        }
        if in_file {
            ConfigError::File(format!("{}: {words}", self.file.display()))
        } else {
            ConfigError::Usage(words)
        }
    }
}

/// The settings of file, environment and command line together, and where they stand.
///
/// # Errors
/// One line that names the variable, or the file and its key.
pub(super) fn merge(
    command_line: &ArgMatches,
    host: &Host,
) -> Result<(Flags, Origins), ConfigError> {
    let on_top = Flags::from_arg_matches(command_line)
        .map_err(|error| ConfigError::Usage(one_line(&error)))?;
    let variables = environment(host)?;
    let from_env = parsed(variables.iter().map(|variable| variable.arg.clone()))?;
    let mut flags = Flags::default();
    let mut origins = Origins::default();
    let named = match (&on_top.config, &from_env.config) {
        (Some(path), _) => Some((path, "--config")),
        (None, Some(path)) => Some((path, "ACKFS_CONFIG")),
        (None, None) => None,
    };
    if let Some((path, by)) = named {
        let text = std::fs::read_to_string(path).map_err(|error| {
            ConfigError::File(format!(
                "cannot read {}: {error}; check {by}",
                path.display()
            ))
        })?;
        let keys;
        (flags, keys) = file(path, &text)?;
        origins.file.clone_from(path);
        let keys = keys.into_iter().map(|key| (key, Origin::File));
        origins.settings.extend(keys);
    }
    apply(
        &mut flags,
        variables.iter().map(|variable| variable.arg.clone()),
    )?;
    for Variable { name, key, .. } in variables {
        origins.settings.insert(key, Origin::Variable(name));
    }
    flags
        .update_from_arg_matches(command_line)
        .map_err(|error| ConfigError::Usage(one_line(&error)))?;
    origins.settings.retain(|key, _| {
        let id = key.replace('-', "_");
        command_line.value_source(&id) != Some(ValueSource::CommandLine)
    });
    Ok((flags, origins))
}

/// The names of all settings, as flags have them, in the order of the help.
pub fn names() -> Vec<String> {
    parser()
        .get_arguments()
        .filter_map(|arg| arg.get_long())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

fn parser() -> Command {
    Flags::augment_args(
        Command::new("ackfs")
            .no_binary_name(true)
            .args_override_self(true),
    )
}

/// A setting of the environment.
struct Variable {
    name: String,
    key: String,
    /// `--key=value`.
    arg: String,
}

/// The variables that are settings, each checked by itself.
fn environment(host: &Host) -> Result<Vec<Variable>, ConfigError> {
    let names = names();
    let mut variables = Vec::new();
    for (variable, value) in &host.env {
        let Some(key) = variable.strip_prefix(PREFIX) else {
            continue;
        };
        if value.is_empty() || FOREIGN.iter().any(|prefix| key.starts_with(prefix)) {
            continue;
        }
        let key = key.to_ascii_lowercase().replace('_', "-");
        if !names.contains(&key) {
            let nearest = nearest(&key, &names).to_ascii_uppercase().replace('-', "_");
            return Err(ConfigError::Usage(format!(
                "unknown environment variable {variable}; the nearest setting is {PREFIX}{nearest}"
            )));
        }
        let arg = format!("--{key}={value}");
        check(&arg).map_err(|why| ConfigError::Usage(format!("{variable}: {why}")))?;
        variables.push(Variable {
            name: variable.clone(),
            key,
            arg,
        });
    }
    Ok(variables)
}

/// The settings in a TOML file's text, and their names.
fn file(path: &Path, text: &str) -> Result<(Flags, Vec<String>), ConfigError> {
    let shown = path.display();
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| {
            text[..span.start.min(text.len())].matches('\n').count() + 1
        });
        ConfigError::File(format!("{shown}, line {line}: {}", error.message()))
    })?;
    let names = names();
    let mut args = Vec::new();
    for (key, value) in &table {
        if !names.contains(key) || key == "config" {
            return Err(ConfigError::File(format!(
                "{shown}: unknown key {key:?}; the nearest setting is {:?}",
                nearest(key, &names)
            )));
        }
        let value = match value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(yes) => yes.to_string(),
            other => {
                let (kind, fix) = match other {
                    toml::Value::Float(_) => ("a float", "a whole number, or as "),
                    toml::Value::Array(_) => ("an array", ""),
                    toml::Value::Datetime(_) => ("a date", ""),
                    _ => ("a table", ""),
                };
                return Err(ConfigError::File(format!(
                    "{shown}: {key} is {kind}; write it as {fix}{key} = \"VALUE\""
                )));
            }
        };
        let arg = format!("--{key}={value}");
        check(&arg).map_err(|why| ConfigError::File(format!("{shown}: {key}: {why}")))?;
        args.push(arg);
    }
    Ok((
        parsed(args)?,
        table.into_iter().map(|(key, _)| key).collect(),
    ))
}

fn parsed(args: impl IntoIterator<Item = String>) -> Result<Flags, ConfigError> {
    let mut flags = Flags::default();
    apply(&mut flags, args)?;
    Ok(flags)
}

fn apply(flags: &mut Flags, args: impl IntoIterator<Item = String>) -> Result<(), ConfigError> {
    let usage = |error: clap::Error| ConfigError::Usage(one_line(&error));
    let matches = parser().try_get_matches_from(args).map_err(usage)?;
    flags.update_from_arg_matches(&matches).map_err(usage)
}

fn check(arg: &str) -> Result<(), String> {
    match parser().try_get_matches_from([arg]) {
        Ok(_) => Ok(()),
        Err(error) => Err(one_line(&error)),
    }
}

fn nearest<'a>(key: &str, names: &'a [String]) -> &'a str {
    let key = key.replace('_', "-");
    names
        .iter()
        .max_by(|a, b| strsim::jaro_winkler(&key, a).total_cmp(&strsim::jaro_winkler(&key, b)))
        .map_or("", String::as_str)
}

/// clap's message without its frame: cause and tip on one line, no usage, no pointer to the help.
pub fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines: Vec<&str> = text
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let line = lines.join("; ");
    line.strip_prefix("error: ")
        .unwrap_or(&line)
        .replace(":; ", ": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::units::{GIB, Size};

    fn host(env: &[(&str, &str)]) -> Host {
        Host {
            env: env
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            uid: 1000,
            gid: 1000,
            memory_limit: None,
            memory_total: None,
            free_bytes: |_| None,
        }
    }

    fn merged(argv: &[&str], env: &[(&str, &str)]) -> Result<Flags, ConfigError> {
        merge(&parser().try_get_matches_from(argv).unwrap(), &host(env)).map(|(flags, _)| flags)
    }

    fn loaded(argv: &[&str], env: &[(&str, &str)]) -> ConfigError {
        let source = "s3://data".parse().unwrap();
        let matches = parser().try_get_matches_from(argv).unwrap();
        let host = host(&[&[("HOME", "/h")], env].concat());
        Config::load(source, Path::new("/mnt"), &matches, &host).unwrap_err()
    }

    fn written(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn flags_win_over_environment_and_environment_over_file() {
        let file = written("cache-size = \"1GiB\"\nmax-requests = 7\nread-only = true\nuid = 5");
        let config = format!("--config={}", file.path().display());
        let flags = merged(
            &[&config, "--cache-size=3GiB"],
            &[("ACKFS_CACHE_SIZE", "2GiB"), ("ACKFS_MAX_REQUESTS", "9")],
        )
        .unwrap();
        assert_eq!(flags.cache_size, Some(Size(3 * GIB)));
        assert_eq!(flags.max_requests, Some(9));
        assert_eq!(flags.read_only, Some(true));
        assert_eq!(flags.uid, Some(5));
        assert_eq!(flags.gid, None);
    }

    /// `--background` was neither a variable nor a key, and the help says that each flag is.
    #[test]
    fn the_background_is_a_setting_like_others() {
        let file = written("background = true");
        let config = format!("--config={}", file.path().display());
        assert_eq!(merged(&[&config], &[]).unwrap().background, Some(true));
        let env = [("ACKFS_BACKGROUND", "true")];
        assert_eq!(merged(&[], &env).unwrap().background, Some(true));
        let off = merged(&["--background=false"], &env).unwrap();
        assert_eq!(off.background, Some(false));
        assert_eq!(
            merged(&["--background"], &[]).unwrap().background,
            Some(true)
        );
    }

    #[test]
    fn the_environment_names_the_file_too() {
        let file = written("region = \"eu-west-1\"");
        let path = file.path().to_str().unwrap();
        let flags = merged(&[], &[("ACKFS_CONFIG", path)]).unwrap();
        assert_eq!(flags.region.as_deref(), Some("eu-west-1"));
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_the_nearest() {
        let file = written("cache_size = \"1GiB\"");
        let error = merged(&[&format!("--config={}", file.path().display())], &[]).unwrap_err();
        assert!(
            matches!(&error, ConfigError::File(why)
            if why.contains("\"cache_size\"") && why.contains("\"cache-size\"")),
            "{error}"
        );
        let error = merged(&[], &[("ACKFS_CACHESIZE", "1GiB")]).unwrap_err();
        assert!(
            matches!(&error, ConfigError::Usage(why)
            if why.contains("ACKFS_CACHESIZE") && why.contains("ACKFS_CACHE_SIZE")),
            "{error}"
        );
    }

    #[test]
    fn variables_of_others_are_let_be() {
        let env = [
            ("ACKFS_SERVICE_HOST", "x"),
            ("ACKFS_PORT", "tcp://x"),
            ("ACKFS_MEMORY", ""),
        ];
        assert_eq!(merged(&[], &env).unwrap(), Flags::default());
    }

    #[test]
    fn a_bad_value_names_where_it_stands() {
        let error = merged(&[], &[("ACKFS_MEMORY", "lots")])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("ACKFS_MEMORY") && error.contains("64MiB"),
            "{error}"
        );
        assert_eq!(error.lines().count(), 1);
        for (text, wanted) in [
            ("memory = \"lots\"", "memory"),
            ("memory = [1]", "memory is an array"),
            ("uid = 1.5", "uid is a float; write it as a whole number"),
            ("memory = ", "line 1"),
            ("\nmemory = {", "line 2"),
            ("[mount]\nuid = 1", "unknown key \"mount\""),
            ("config = \"other\"", "unknown key \"config\""),
            ("close-waits-for = \"journal\"", "not offered yet"),
        ] {
            let file = written(text);
            let error = merged(&[&format!("--config={}", file.path().display())], &[]).unwrap_err();
            assert!(
                matches!(&error, ConfigError::File(why) if why.contains(wanted)
                && why.contains(file.path().to_str().unwrap())),
                "{text}: {error}"
            );
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
        }
    }

    /// What is out of bounds was told as a flag's, with the status of bad usage, whoever wrote it.
    #[test]
    fn a_value_out_of_bounds_is_told_by_the_place_where_it_stands() {
        let file = written("part-size = \"1MiB\"\nsse-kms-key-id = \"x\"\nsse = \"aws:kms\"");
        let shown = file.path().to_str().unwrap();
        let config = format!("--config={shown}");
        let error = loaded(&[&config], &[]);
        let wanted = format!("{shown}: part-size 1 MiB is out of S3's bounds: use 5MiB to 5GiB");
        assert_eq!(error, ConfigError::File(wanted));

        let error = loaded(&[&config], &[("ACKFS_PART_SIZE", "2MiB")]);
        let wanted = "ACKFS_PART_SIZE 2 MiB is out of S3's bounds: use 5MiB to 5GiB";
        assert_eq!(error, ConfigError::Usage(wanted.to_owned()));

        let above = [("ACKFS_PART_SIZE", "2MiB")];
        let error = loaded(&[&config, "--part-size=3MiB"], &above);
        let wanted = "--part-size 3 MiB is out of S3's bounds: use 5MiB to 5GiB";
        assert_eq!(error, ConfigError::Usage(wanted.to_owned()));
    }

    #[test]
    fn of_two_settings_at_odds_each_is_told_by_its_place() {
        let file = written("part-size = \"100MiB\"\nsse-kms-key-id = \"x\"");
        let config = format!("--config={}", file.path().display());
        let error = loaded(&[&config], &[("ACKFS_MEMORY", "64MiB")]);
        assert!(
            matches!(&error, ConfigError::File(why)
            if why.contains(": part-size 100 MiB does not fit into ACKFS_MEMORY 64 MiB")),
            "{error}"
        );
        let error = loaded(&[&config, "--part-size=8MiB", "--sse=AES256"], &[]);
        assert!(
            matches!(&error, ConfigError::File(why)
            if why.ends_with(": sse-kms-key-id needs --sse aws:kms or aws:kms:dsse: add it")),
            "{error}"
        );
    }

    #[test]
    fn an_unreadable_file_is_named() {
        let error = merged(&["--config=/nowhere/at/all"], &[]).unwrap_err();
        assert!(
            matches!(&error, ConfigError::File(why)
            if why.contains("/nowhere/at/all") && why.contains("--config")),
            "{error}"
        );
        let error = merged(&[], &[("ACKFS_CONFIG", "/nowhere")]).unwrap_err();
        assert!(
            matches!(&error, ConfigError::File(why) if why.ends_with("check ACKFS_CONFIG")),
            "{error}"
        );
    }

    #[test]
    fn a_flag_may_be_switched_off_above_a_file_that_switches_it_on() {
        let file = written("read-only = true");
        let config = format!("--config={}", file.path().display());
        assert_eq!(
            merged(&[&config, "--read-only=false"], &[])
                .unwrap()
                .read_only,
            Some(false)
        );
        assert_eq!(merged(&["--read-only"], &[]).unwrap().read_only, Some(true));
    }
}
