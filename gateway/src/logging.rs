//! Log lines: on stderr, as text for people or JSON for machines. stdout is for the ready line and
//! for what a command was asked to print.
//!
//! Logging never ends the program: a terminal that went away (`--background` started from it) makes
//! writes fail, and these failures have nobody left to be told to.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Where lines go: stderr, unlocked between lines, its errors dropped.
#[derive(Debug, Clone, Copy)]
struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = io::stderr().write_all(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Begins to log as `config` says. A second call in one process changes nothing.
pub fn start(config: &LogConfig) {
    // Checked when the configuration was decided; RUST_LOG alone was not, and is lenient as elsewhere.
    let filter = EnvFilter::new(&config.level);
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Lines)
        .with_ansi(io::stderr().is_terminal())
        .log_internal_errors(false);
    let _ = match config.format {
        LogFormat::Text => lines.with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
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
    let _ = writeln!(io::stderr(), "{line}");
}
