//! `ackfs stats [DIR]`: what a mount does, read from its control socket. `--watch` shows it again and
//! again with rates since the last time, and ends when nobody reads it any more; `--json` prints the
//! report as it came, one object a line.

use std::fmt::Write;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use crate::config::Host;
use crate::config::units::Size;
use crate::control::{Client, ControlReply, ControlRequest};
use crate::daemon::mountpoint;
use crate::fuse::mount::mount_table;
use crate::logging;
use crate::metrics::{LINES, Reading, Report};

use super::args::StatsArgs;
use super::exit::CliError;

/// Runs the command. With `--watch` it ends when the mount does.
pub(super) fn run(args: &StatsArgs, host: &Host) -> Result<(), CliError> {
    let mut reports = collect(args.dir.as_deref(), host)?;
    if reports.is_empty() {
        return Err(CliError::plain(
            "no mount of ackfs is served by this user: see ackfs mount",
        ));
    }
    let mut reading = show(&reports, None, args.json)?;
    let Some(pause) = args.watch else {
        return Ok(());
    };
    let pause = pause.0.max(Duration::from_millis(100));
    while reading {
        let began = Instant::now();
        std::thread::sleep(pause);
        let now = collect(args.dir.as_deref(), host).unwrap_or_default();
        if now.is_empty() {
            return Ok(());
        }
        reading = (args.json || say(&between(SystemTime::now()))?)
            && show(&now, Some((&reports, began.elapsed())), args.json)?;
        reports = now;
    }
    Ok(())
}

/// The line between two reports of one watch.
fn between(now: SystemTime) -> String {
    format!("--- {}\n", humantime::format_rfc3339_seconds(now))
}

/// Prints, and gives whether somebody still reads.
fn say(text: &str) -> Result<bool, CliError> {
    match logging::try_say(text) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(CliError::plain(format!("stdout takes no more: {error}"))),
    }
}

fn collect(dir: Option<&Path>, host: &Host) -> Result<Vec<Report>, CliError> {
    let dirs = host.runtime_dirs();
    let Some(dir) = dir else {
        return Ok(Client::all(&dirs)
            .into_iter()
            .filter_map(|client| ask(client).ok())
            .collect());
    };
    let shown = dir.display();
    let failure = |error: io::Error| CliError::plain(format!("{shown}: {error}"));
    let dir = mountpoint::resolve(dir).map_err(failure)?;
    match Client::connect(&dirs, &dir).map_err(failure)? {
        Some(client) => Ok(vec![ask(client).map_err(failure)?]),
        None => Err(CliError::plain(unserved(&dir))),
    }
}

/// Why nobody answers for `dir`, which is resolved.
fn unserved(dir: &Path) -> String {
    let shown = dir.display();
    let ours = |mount: mount_table::MountEntry| mount.fs_type == mount_table::FS_TYPE;
    match mount_table::topmost(dir).ok().flatten().is_some_and(ours) {
        true if mountpoint::is_dead(dir) => format!(
            "{shown} is a dead mount, its ackfs was killed: take it away with ackfs umount {shown}, \
             or mount there again"
        ),
        true => format!(
            "{shown} is served by an ackfs whose control socket is not in this user's runtime \
             directory: ask as the user who mounted it, with the same XDG_RUNTIME_DIR"
        ),
        false => format!("no ackfs of this user serves {shown}: see ackfs mount"),
    }
}

fn ask(mut client: Client) -> io::Result<Report> {
    client.request(ControlRequest::Stats)?;
    match client.reply()? {
        Some(ControlReply::Stats(report)) => Ok(*report),
        other => Err(io::Error::other(format!("the daemon answered {other:?}"))),
    }
}

/// Prints the reports, and gives whether somebody still reads.
fn show(
    reports: &[Report],
    before: Option<(&[Report], Duration)>,
    json: bool,
) -> Result<bool, CliError> {
    for report in reports {
        let text = if json {
            serde_json::to_string(report).map_err(|error| CliError::plain(error.to_string()))?
        } else {
            let before = before.and_then(|(reports, time)| {
                let same = reports.iter().find(|other| other.dir == report.dir)?;
                Some((same, time))
            });
            table(report, before)
        };
        if !say(&text)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The report for people; with the report before it and the time between, rates too.
fn table(now: &Report, before: Option<(&Report, Duration)>) -> String {
    let mut text = String::new();
    for (name, line) in LINES {
        let line = expanded(line, |word| said(word, now, before));
        // Writing to a String does not fail.
        let _ = writeln!(text, "{name:<12} {line}");
    }
    let rows = now.operations.iter().map(|op| {
        let same = |old: &Report| {
            let old = old.operations.iter().find(|old| old.name == op.name)?;
            Some(old.count)
        };
        let times = [op.p50_seconds, op.p99_seconds];
        row(
            &op.name,
            op.count,
            op.errors,
            times,
            rate(op.count, same, before),
        )
    });
    section(&mut text, "operation", rows);
    let rows = now.store.iter().map(|kind| {
        let same = |old: &Report| {
            let old = old.store.iter().find(|old| old.name == kind.name)?;
            Some(old.count)
        };
        let times = [kind.p50_seconds, kind.p99_seconds];
        row(
            &kind.name,
            kind.count,
            kind.errors,
            times,
            rate(kind.count, same, before),
        )
    });
    section(&mut text, "store", rows);
    let retries: u64 = now.store.iter().map(|kind| kind.retries).sum();
    if retries > 0 {
        let _ = writeln!(text, "of these, {retries} failed and were sent again");
    }
    text
}

/// `line` with each word in braces said by `say`.
fn expanded(line: &str, say: impl Fn(&str) -> String) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((plain, after)) = rest.split_once('{') {
        let (word, after) = after.split_once('}').unwrap_or((after, ""));
        text.push_str(plain);
        text.push_str(&say(word));
        rest = after;
    }
    text.push_str(rest);
    text
}

/// What a word in braces of [`LINES`] says.
fn said(word: &str, now: &Report, before: Option<(&Report, Duration)>) -> String {
    let because = |what: &str, reason: &str| match reason {
        "" => what.to_owned(),
        reason => format!("{what} ({reason})"),
    };
    if let Some(counters) = word.strip_prefix("/s ") {
        let sum = |report: &Report| counters.split(' ').map(|name| count(report, name)).sum();
        let rate = rate(sum(now), |old| Some(sum(old)), before);
        return rate.map_or(String::new(), |rate| format!(" ({}/s)", Size(rate as u64)));
    }
    match word {
        "source" => now.source.clone(),
        "dir" => now.dir.clone(),
        "uptime" => {
            let uptime = Duration::from_secs(now.uptime_seconds as u64);
            humantime::format_duration(uptime).to_string()
        }
        "transport" => because(&now.transport.name, &now.transport.reason),
        "close mode" => because(&now.close.mode, &now.close.reason),
        "hit ratio" => ratio(now.read.hits, now.read.hits + now.read.misses),
        "disk" if now.disk.is_some() => {
            let line = "{disk.used_bytes} of {disk.size_max_bytes} on disk";
            expanded(line, |word| said(word, now, before))
        }
        "disk" => "no disk cache".to_owned(),
        counter => match now.reading(counter) {
            Some(Reading::Count(count)) => count.to_string(),
            Some(Reading::Bytes(bytes)) => Size(bytes).to_string(),
            Some(Reading::Seconds(time)) => seconds(time),
            None => format!("{{{counter}}}"),
        },
    }
}

/// The counter of that name, if it is a number of things or bytes.
fn count(report: &Report, name: &str) -> u64 {
    match report.reading(name) {
        Some(Reading::Count(count) | Reading::Bytes(count)) => count,
        _ => 0,
    }
}

/// How fast what is `now` has grown a second, if it was looked at before.
fn rate(
    now: u64,
    old: impl Fn(&Report) -> Option<u64>,
    before: Option<(&Report, Duration)>,
) -> Option<f64> {
    let (report, time) = before?;
    let old = old(report).unwrap_or(0);
    Some(now.saturating_sub(old) as f64 / time.as_secs_f64())
}

fn section(text: &mut String, name: &str, rows: impl Iterator<Item = String>) {
    let mut rows = rows.peekable();
    if rows.peek().is_some() {
        let _ = writeln!(
            text,
            "\n{name:<24}{:>12}{:>10}{:>10}{:>10}{:>12}",
            "count", "errors", "p50 <=", "p99 <=", "per second"
        );
    }
    for row in rows {
        text.push_str(&row);
    }
}

fn row(name: &str, count: u64, errors: u64, [p50, p99]: [f64; 2], rate: Option<f64>) -> String {
    let rate = rate.map_or("-".to_owned(), |rate| format!("{rate:.1}"));
    format!(
        "{name:<24}{count:>12}{errors:>10}{:>10}{:>10}{rate:>12}\n",
        seconds(p50),
        seconds(p99)
    )
}

fn ratio(part: u64, whole: u64) -> String {
    match whole {
        0 => "-".to_owned(),
        whole => format!("{:.1} %", part as f64 * 100.0 / whole as f64),
    }
}

fn seconds(time: f64) -> String {
    match time {
        0.0 => "-".to_owned(),
        time if time < 0.001 => format!("{:.0} us", time * 1e6),
        time if time < 1.0 => format!("{:.0} ms", time * 1e3),
        time => format!("{time:.0} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{CloseReport, DiskReport, OperationReport, ReadReport};

    #[test]
    fn the_table_shows_counts_ratio_and_rates() {
        let mut old = Report {
            dir: "/mnt".into(),
            source: "s3://data".into(),
            close: CloseReport {
                mode: "release".into(),
                ..CloseReport::default()
            },
            read: ReadReport {
                hits: 3,
                misses: 1,
                ..ReadReport::default()
            },
            operations: vec![OperationReport {
                name: "READ".into(),
                count: 10,
                p50_seconds: 0.000_03,
                p99_seconds: 0.03,
                ..OperationReport::default()
            }],
            ..Report::default()
        };
        let text = table(&old, None);
        assert!(text.contains("mode release, 0 published"), "{text}");
        assert!(
            text.contains("hit ratio 75.0 %") && text.contains("30 us"),
            "{text}"
        );
        let now = {
            let mut now = old.clone();
            now.operations[0].count = 110;
            now
        };
        old.operations[0].count = 10;
        let text = table(&now, Some((&old, Duration::from_secs(2))));
        assert!(text.contains("50.0\n"), "{text}");
    }

    #[test]
    fn every_word_of_the_lines_is_known() {
        let report = Report {
            disk: Some(DiskReport::default()),
            ..Report::default()
        };
        let text = table(&report, Some((&report, Duration::from_secs(1))));
        assert!(!text.contains(['{', '}']), "{text}");
        for (_, line) in LINES {
            for rates in line.split("{/s ").skip(1) {
                let names = rates.split('}').next().unwrap_or_default().split(' ');
                for name in names {
                    assert!(report.reading(name).is_some(), "{name}");
                }
            }
        }
    }

    #[test]
    fn the_time_stands_between_two_reports() {
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
        assert_eq!(between(then), "--- 1970-01-02T00:00:00Z\n");
    }

    #[test]
    fn a_report_of_another_version_is_still_read() {
        let report: Report = serde_json::from_str("{\"dir\":\"/mnt\",\"new\":1}").unwrap();
        assert_eq!(report.dir, "/mnt");
    }
}
