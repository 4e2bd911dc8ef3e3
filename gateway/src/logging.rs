//! Log lines: on stderr, as text for people or JSON for machines. stdout is for the ready line and
//! for what a command was asked to print.
//!
//! A mount that leaves its terminal (`--background`) has no stderr that anybody reads: from then on
//! its lines go to syslog (`syslog`), which is where the loss of bytes must be told.
//!
//! Logging never ends the program: a terminal or a syslog that went away makes writes fail, and these
//! failures have nobody left to be told to.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::OnceLock;

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::config::{LogConfig, LogFormat};

pub use self::syslog::Syslog;

mod syslog;

/// Where lines go instead of stderr, once they do.
static SYSLOG: OnceLock<Syslog> = OnceLock::new();

/// Gives each line its way out.
#[derive(Debug, Clone, Copy)]
struct LogLines;

impl MakeWriter<'_> for LogLines {
    type Writer = LogLine;

    fn make_writer(&self) -> LogLine {
        LogLine(Level::INFO)
    }

    fn make_writer_for(&self, meta: &Metadata<'_>) -> LogLine {
        LogLine(*meta.level())
    }
}

/// One line of this level: to stderr, unlocked between lines, or to syslog; errors are dropped.
#[derive(Debug, Clone, Copy)]
struct LogLine(Level);

impl Write for LogLine {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match SYSLOG.get() {
            Some(syslog) => syslog.send(self.0, line),
            None => {
                let _ = io::stderr().write_all(line);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The time before a line, where nobody else writes one: syslog does.
#[derive(Debug, Clone, Copy)]
struct Clock;

impl FormatTime for Clock {
    fn format_time(&self, to: &mut Writer<'_>) -> fmt::Result {
        match SYSLOG.get() {
            Some(_) => Ok(()),
            None => SystemTime.format_time(to),
        }
    }
}

/// Begins to log as `config` says. A second call in one process changes nothing.
pub fn start(config: &LogConfig) {
    start_with(config, io::stderr().is_terminal());
}

/// As [`start`], without colours: these lines may go to syslog one day.
pub fn start_plain(config: &LogConfig) {
    start_with(config, false);
}

fn start_with(config: &LogConfig, colours: bool) {
    // Checked when the configuration was decided; RUST_LOG alone was not, and is lenient as elsewhere.
    let filter = EnvFilter::new(&config.level);
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(LogLines)
        .with_ansi(colours)
        .log_internal_errors(false);
    let _ = match config.format {
        LogFormat::Text => lines.with_target(false).with_timer(Clock).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}

/// The machine's syslog, if it has one.
pub fn find_syslog() -> Option<Syslog> {
    Syslog::at(Path::new(syslog::PATH)).ok()
}

/// From here on log lines, what [`tell`] tells, and panics go to `syslog`.
pub fn move_to(syslog: Syslog) {
    if SYSLOG.set(syslog).is_ok() {
        std::panic::set_hook(Box::new(|panic| tell(&panic.to_string())));
    }
}

/// Writes `line` to stdout for whoever waits for it; errors are dropped as those of log lines.
pub fn say(line: &str) {
    let _ = try_say(line);
}

/// As [`say`], for those who want to know whether somebody still takes it.
///
/// # Errors
/// `BrokenPipe` if nobody does.
pub fn try_say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Writes `line` to stderr, past the log's filter and format: what the user must see.
pub fn tell(line: &str) {
    // One write: each is a message of its own to syslog.
    let _ = LogLine(Level::ERROR).write(format!("{line}\n").as_bytes());
}
