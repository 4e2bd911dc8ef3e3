//! `ackfs doctor`: what a mount needs, checked one by one. Each check is a line: ok, warn or fail, what
//! was found, and for what is not ok the command that mends it. It mounts nothing and leaves nothing
//! in the bucket. A warning costs speed or a guarantee, a fail means that a mount will not work.
//!
//! Without a bucket only the machine is looked at (`machine`), with one the directories and the store
//! as well (`store`).

use clap::ArgMatches;

use crate::config::{Config, LogConfig, LogFormat};
use crate::logging;

use super::{DoctorArgs, Exit, Failure, Host};

mod keys;
mod machine;
mod store;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    verdict: Verdict,
    name: &'static str,
    found: String,
    /// The command that mends it; for what is not ok.
    mend: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Ok,
            name,
            found: found.into(),
            mend: None,
        }
    }

    fn warn(name: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Warn,
            name,
            found: found.into(),
            mend: Some(mend.into()),
        }
    }

    fn fail(name: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Fail,
            ..Self::warn(name, found, mend)
        }
    }

    /// The line, `name` in a column of its own; the mending under it.
    fn line(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        };
        let mut line = format!("{verdict}  {:<20} {}", self.name, self.found);
        if let Some(mend) = &self.mend {
            line.push_str("; mend: ");
            line.push_str(mend);
        }
        line
    }
}

/// What stands in the way of any mount, each with its mending.
#[cfg(feature = "demo")]
pub(super) fn missing_for_a_mount(host: &Host) -> Vec<String> {
    let checks = machine::checks(host, None).into_iter();
    checks
        .filter(|check| check.verdict == Verdict::Fail)
        .map(|check| check.line())
        .collect()
}

/// Runs the command. Waits for the store.
pub(super) fn run(args: DoctorArgs, matches: &ArgMatches, host: &Host) -> Result<(), Failure> {
    // The rooms' own warnings would say twice what the lines say.
    logging::start(&LogConfig {
        format: LogFormat::Text,
        level: "error".to_owned(),
    });
    let config = match (args.source, args.dir) {
        (Some(source), Some(dir)) => Some(Config::load(source, &dir, matches, host)?),
        _ => None,
    };
    let mut worst = Verdict::Ok;
    let mut show = |check: Check| {
        worst = worst.max(check.verdict);
        logging::say(&check.line());
    };
    machine::checks(host, config.as_ref())
        .into_iter()
        .for_each(&mut show);
    if let Some(config) = &config {
        machine::places(config).into_iter().for_each(&mut show);
        store::checks(config)?.into_iter().for_each(&mut show);
    }
    match worst {
        Verdict::Fail => Err(Failure::new(Exit::Failed, "")),
        Verdict::Ok | Verdict::Warn => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_verdict_cause_and_mending() {
        let check = Check::fail("/dev/fuse", "it is not there", "modprobe fuse");
        assert_eq!(
            check.line(),
            "fail  /dev/fuse            it is not there; mend: modprobe fuse"
        );
        assert!(
            Check::ok("kernel", "6.18")
                .line()
                .starts_with("ok    kernel")
        );
    }
}
