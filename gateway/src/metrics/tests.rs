use std::time::{Duration, SystemTime};

use ackfs_cache::dirty::WriteStats;
use ackfs_cache::read::ReadStats;

use super::*;
use crate::fs::FsStats;
use crate::fuse::TransportStats;
use crate::fuse::mount::NoSyncRelease;
use crate::fuse::mount::TransportInfo;
use crate::s3::{KindStats, PriorityStats};

fn snapshot() -> RoomStats {
    let mut transport = TransportStats::default();
    transport.requests[15] = 7;
    transport.errors[15] = 2;
    RoomStats {
        info: TransportInfo {
            ring: false,
            reason: Some("enable_uring is off".into()),
            depth: 0,
            queues: 0,
            max_write: 1 << 20,
            max_background: 64,
            passthrough: false,
            sync_release: Err(NoSyncRelease::NotOffered),
            kernel_minor: 45,
            readahead_kb: None,
        },
        transport,
        read: ReadStats {
            hits: 3,
            misses: 1,
            ..ReadStats::default()
        },
        disk: None,
        write: WriteStats {
            dirty_bytes: 4096,
            oldest_dirty: Some(SystemTime::now() - Duration::from_secs(60)),
            ..WriteStats::default()
        },
        files: FsStats {
            release_publishes: 4,
            ..FsStats::default()
        },
        withheld: 1 << 20,
        store: StoreStats {
            kinds: vec![KindStats {
                kind: RequestKind::Put,
                ok: 5,
                retried: 1,
                absent: 3,
                changed: 4,
                failed: 2,
            }],
            priorities: vec![PriorityStats {
                priority: "upload",
                in_flight: 4,
                waiting: 0,
            }],
            bytes_up: 10,
            bytes_down: 20,
            resumed: 0,
        },
    }
}

#[test]
fn the_page_has_every_room_and_only_described_names() {
    let metrics = Metrics::default();
    let latency = Duration::from_millis(2);
    metrics.transport_telemetry().record(15, latency);
    metrics.store_telemetry().latency[RequestKind::Put as usize].record(0.02);
    let page = metrics.render(&snapshot());
    for line in [
        "ackfs_fuse_requests_total{op=\"READ\"} 7",
        "ackfs_fuse_errors_total{op=\"READ\"} 2",
        "ackfs_fuse_transport_info{transport=\"classic\",reason=\"enable_uring is off\"} 1",
        "ackfs_close_mode_info{mode=\"flush\",\
         reason=\"the kernel does not offer FUSE_SYNC_RELEASE\"} 1",
        "ackfs_release_publishes_total 4",
        "ackfs_store_requests_total{kind=\"put\",outcome=\"absent\"} 3",
        "ackfs_store_requests_total{kind=\"put\",outcome=\"changed\"} 4",
        "ackfs_store_requests_total{kind=\"put\",outcome=\"failed\"} 2",
        "ackfs_store_requests_in_flight{lane=\"upload\"} 4",
        "ackfs_read_hits_total 3",
        "ackfs_dirty_bytes 4096",
        "ackfs_fuse_latency_seconds_count{op=\"READ\"} 1",
        "ackfs_store_latency_seconds_count{kind=\"put\"} 1",
    ] {
        assert!(
            page.lines().any(|found| found == line),
            "{line} is not in\n{page}"
        );
    }
    assert!(!page.contains("ackfs_disk_bytes"), "there is no disk cache");
    for line in page
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let name = line.split(['{', ' ']).next().unwrap();
        let family = name
            .strip_suffix("_bucket")
            .or_else(|| name.strip_suffix("_sum"))
            .or_else(|| name.strip_suffix("_count"))
            .unwrap_or(name);
        assert!(
            page.contains(&format!("# HELP {family} ")),
            "{name} is not described"
        );
    }
}

#[test]
fn names_end_in_their_unit() {
    for (name, unit, help, kind) in descriptions() {
        let stem = name.strip_suffix("_total").unwrap_or(name);
        let grows = kind == MetricKind::Total;
        assert_eq!(stem != name, grows, "{name}: _total is for what only grows");
        match unit {
            Unit::Bytes => assert!(stem.ends_with("_bytes"), "{name}"),
            Unit::Seconds => assert!(stem.ends_with("_seconds"), "{name}"),
            _ => assert!(
                !stem.ends_with("_bytes") && !stem.ends_with("_seconds"),
                "{name}"
            ),
        }
        assert!(help.ends_with('.'), "{name}: {help}");
    }
}

#[test]
fn the_report_has_counts_and_latencies() {
    let metrics = Metrics::default();
    let latency = Duration::from_millis(2);
    metrics.transport_telemetry().record(15, latency);
    let report = metrics.report(&snapshot(), "/mnt", "s3://data");
    assert_eq!(report.operations.len(), 1);
    assert_eq!(report.operations[0].count, 7);
    assert!((report.operations[0].p99_seconds - 0.003).abs() < 1e-9);
    assert_eq!((report.store[0].count, report.store[0].retries), (15, 1));
    assert_eq!(report.store[0].errors, 2);
    assert!(report.write.oldest_dirty_seconds >= 60.0);
    assert_eq!(report.transport.name, "classic");
    assert_eq!(
        (&*report.close.mode, report.close.release_publishes),
        ("flush", 4)
    );
    assert!(report.close.reason.contains("does not offer"));
}

#[test]
fn a_kernel_that_offers_it_makes_the_mode_release() {
    let mut now = snapshot();
    now.info.sync_release = Ok(());
    let page = Metrics::default().render(&now);
    assert!(
        page.contains("ackfs_close_mode_info{mode=\"release\",reason=\"\"} 1\n"),
        "{page}"
    );
}

#[test]
fn a_second_look_shows_the_newer_counts() {
    let metrics = Metrics::default();
    let mut now = snapshot();
    metrics.render(&now);
    now.read.hits = 9;
    assert!(metrics.render(&now).contains("ackfs_read_hits_total 9\n"));
}
