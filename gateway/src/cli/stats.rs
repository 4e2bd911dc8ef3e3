//! `ackfs stats [DIR]`: what a mount does, read from its control socket. `--watch` shows it again and
//! again with rates since the last time, and ends when nobody reads it any more; `--json` prints the
//! report as it came, one object a line.

use std::fmt::Write;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use crate::config::units::Size;
use crate::control::{Answer, Ask, Client};
use crate::daemon::mountpoint;
use crate::fuse::mount::mount_table;
use crate::logging;
use crate::metrics::{Report, StoreReport};

use super::{Failure, Host, StatsArgs};

/// Runs the command. With `--watch` it ends when the mount does.
pub(super) fn run(args: &StatsArgs, host: &Host) -> Result<(), Failure> {
    let mut reports = collect(args.dir.as_deref(), host)?;
    if reports.is_empty() {
        return Err(Failure::plain(
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
fn say(text: &str) -> Result<bool, Failure> {
    match logging::try_say(text) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::plain(format!("stdout takes no more: {error}"))),
    }
}

fn collect(dir: Option<&Path>, host: &Host) -> Result<Vec<Report>, Failure> {
    let dirs = host.runtime_dirs();
    let Some(dir) = dir else {
        return Ok(Client::all(&dirs)
            .into_iter()
            .filter_map(|client| ask(client).ok())
            .collect());
    };
    let shown = dir.display();
    let failure = |error: io::Error| Failure::plain(format!("{shown}: {error}"));
    let dir = mountpoint::resolve(dir).map_err(failure)?;
    match Client::connect(&dirs, &dir).map_err(failure)? {
        Some(client) => Ok(vec![ask(client).map_err(failure)?]),
        None => Err(Failure::plain(unserved(&dir))),
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
    client.ask(Ask::Stats)?;
    match client.answer()? {
        Some(Answer::Stats(report)) => Ok(*report),
        other => Err(io::Error::other(format!("the daemon answered {other:?}"))),
    }
}

/// Prints the reports, and gives whether somebody still reads.
fn show(
    reports: &[Report],
    before: Option<(&[Report], Duration)>,
    json: bool,
) -> Result<bool, Failure> {
    for report in reports {
        let text = if json {
            serde_json::to_string(report).map_err(|error| Failure::plain(error.to_string()))?
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
    let mut line = |name: &str, value: String| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{name:<12} {value}");
    };
    let rate = |value: fn(&Report) -> u64| {
        let (old, time) = before?;
        Some(value(now).saturating_sub(value(old)) as f64 / time.as_secs_f64())
    };
    let speed = |value: fn(&Report) -> u64| {
        rate(value).map_or(String::new(), |rate| format!(" ({}/s)", Size(rate as u64)))
    };

    let uptime = humantime::format_duration(Duration::from_secs(now.uptime_seconds as u64));
    line(
        "mount",
        format!("{} on {}, up {uptime}", now.source, now.dir),
    );
    let transport = &now.transport;
    let reason = match &*transport.reason {
        "" => String::new(),
        reason => format!(" ({reason})"),
    };
    line(
        "transport",
        format!(
            "{}{reason}, {} of {} slots held, the longest for {}",
            transport.name,
            transport.slots_held,
            transport.slots,
            seconds(transport.longest_held_seconds)
        ),
    );
    let close = &now.close;
    let reason = match &*close.reason {
        "" => String::new(),
        reason => format!(" ({reason})"),
    };
    line(
        "close",
        format!(
            "mode {}{reason}, {} published at RELEASE",
            close.mode, close.release_publishes
        ),
    );
    let read = &now.read;
    line(
        "reads",
        format!(
            "{} from memory, {} from disk, {} waited for{}; hit ratio {}",
            Size(read.memory_hit_bytes),
            Size(read.disk_hit_bytes),
            Size(read.miss_bytes),
            speed(|r| r.read.memory_hit_bytes + r.read.disk_hit_bytes + r.read.miss_bytes),
            ratio(read.hits, read.hits + read.misses)
        ),
    );
    line(
        "fetched",
        format!(
            "{}{}",
            Size(read.fetched_bytes),
            speed(|r| r.read.fetched_bytes)
        ),
    );
    let disk = match &now.disk {
        Some(disk) => format!(
            "{} of {} on disk",
            Size(disk.used_bytes),
            Size(disk.size_max_bytes)
        ),
        None => "no disk cache".to_owned(),
    };
    line(
        "cache",
        format!("{} in memory, {disk}", Size(read.memory_bytes)),
    );
    let write = &now.write;
    line(
        "dirty",
        format!(
            "{} files, {} ({} staged), the oldest for {}",
            write.dirty_files,
            Size(write.dirty_bytes),
            Size(write.staged_bytes),
            seconds(write.oldest_dirty_seconds)
        ),
    );
    line(
        "published",
        format!(
            "{} files, {}{}; {} failed",
            write.published,
            Size(write.uploaded_bytes),
            speed(|r| r.write.uploaded_bytes),
            write.failed
        ),
    );
    let names = &now.files;
    line(
        "files",
        format!(
            "{} open, {} stuck, {} lost, {} keys hidden, {} shadowed",
            names.file_handles,
            names.stuck_files,
            names.lost_files,
            names.hidden_keys,
            names.shadowed_files
        ),
    );

    let of_op = |report: &Report, name: &str| {
        report
            .operations
            .iter()
            .find(|op| op.name == name)
            .map_or(0, |op| op.count)
    };
    let rows = now.operations.iter().map(|op| {
        let old = before.map(|(old, time)| (of_op(old, &op.name), time));
        row(
            &op.name,
            op.count,
            op.errors,
            op.p50_seconds,
            op.p99_seconds,
            old,
        )
    });
    section(&mut text, "operation", rows);
    let of_store = |report: &Report, name: &str| {
        report
            .store
            .iter()
            .find(|kind| kind.name == name)
            .map_or(0, |kind| kind.count)
    };
    let rows = now.store.iter().map(|kind: &StoreReport| {
        let old = before.map(|(old, time)| (of_store(old, &kind.name), time));
        row(
            &kind.name,
            kind.count,
            kind.errors,
            kind.p50_seconds,
            kind.p99_seconds,
            old,
        )
    });
    section(&mut text, "store", rows);
    let retries: u64 = now.store.iter().map(|kind| kind.retries).sum();
    if retries > 0 {
        let _ = writeln!(text, "of these, {retries} failed and were sent again");
    }
    text
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

fn row(
    name: &str,
    count: u64,
    errors: u64,
    p50: f64,
    p99: f64,
    old: Option<(u64, Duration)>,
) -> String {
    let rate = old.map_or("-".to_owned(), |(old, time)| {
        format!(
            "{:.1}",
            count.saturating_sub(old) as f64 / time.as_secs_f64()
        )
    });
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
    use crate::metrics::{CloseReport, OperationReport, ReadReport};

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
