//! `ackfs doctor`: what a mount needs, checked one by one. Each check is a line: ok, warn or fail, what
//! was found, and for what is not ok the command that mends it. It mounts nothing and leaves nothing
//! in the bucket. A warning costs speed or a guarantee, a fail means that a mount will not work.
//!
//! Without a bucket only the machine is looked at (`machine`), with one the directories and the store
//! as well (`store`).

use clap::ArgMatches;

use crate::config::{Config, Host, LogConfig, LogFormat};
use crate::logging;

use self::check::{Check, CheckStatus};
use super::args::DoctorArgs;
use super::exit::{CliError, Exit};

mod check;
mod keys;
mod machine;
mod places;
mod store;

/// What stands in the way of any mount, each with its mending.
#[cfg(feature = "demo")]
pub(super) fn missing_for_a_mount(host: &Host) -> Vec<String> {
    let checks = machine::checks(host, None).into_iter();
    checks
        .filter(|check| check.status == CheckStatus::Fail)
        .map(|check| check.line())
        .collect()
}

/// Runs the command. Waits for the store.
pub(super) fn run(args: DoctorArgs, matches: &ArgMatches, host: &Host) -> Result<(), CliError> {
    // The rooms' own warnings would say twice what the lines say.
    logging::start(&LogConfig {
        format: LogFormat::Text,
        level: "error".to_owned(),
    });
    let config = match (args.source, args.dir) {
        (Some(source), Some(dir)) => Some(Config::load(source, &dir, matches, host)?),
        _ => None,
    };
    let mut worst = CheckStatus::Ok;
    let mut show = |check: Check| {
        worst = worst.max(check.status);
        logging::say(&check.line());
    };
    machine::checks(host, config.as_ref())
        .into_iter()
        .for_each(&mut show);
    if let Some(config) = &config {
        places::checks(config).into_iter().for_each(&mut show);
        store::checks(config)?.into_iter().for_each(&mut show);
    }
    match worst {
        CheckStatus::Fail => Err(CliError::new(Exit::Failed, "")),
        CheckStatus::Ok | CheckStatus::Warn => Ok(()),
    }
}
