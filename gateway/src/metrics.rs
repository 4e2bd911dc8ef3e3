//! What is measured, and how it is read. The rooms keep counters of their own, because counting must cost
//! them nothing; they are copied when somebody looks, by the descriptions in `table.rs`. Only latencies
//! are recorded where they happen, through the handles of [`Metrics`].
//!
//! Nothing here runs by itself: a page that nobody asks for is never made, and no sample is kept.

use std::time::Instant;

use metrics::{Key, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::fuse::Telemetry;
use crate::s3::{RequestKind, StoreStats, StoreTelemetry};

use self::description::{Labels, MetricKind};
use self::latency::{HistogramFamily, LatencySnapshot};
use self::table::{LABELLED, OPERATION_LATENCY, SERIES, STORE_LATENCY, operations};

pub use self::description::Reading;
pub use self::report::{OperationReport, Report, StoreReport};
pub use self::room_stats::{RoomStats, resident_bytes};
pub use self::table::{
    CloseReport, DiskReport, FilesReport, LINES, ReadReport, TransportReport, WriteReport,
    close_mode_of, transport_of,
};

mod description;
pub mod latency;
pub mod listener;
mod report;
mod room_stats;
mod table;

/// The metrics of one mount.
pub struct Metrics {
    began: Instant,
    recorder: PrometheusRecorder,
    page: PrometheusHandle,
    operations: HistogramFamily,
    requests: HistogramFamily,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics")
            .field("began", &self.began)
            .finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        for (name, unit, help, kind) in descriptions() {
            let (name, unit, help) = (name.into(), Some(unit), help.into());
            match kind {
                MetricKind::Total => recorder.describe_counter(name, unit, help),
                MetricKind::Level => recorder.describe_gauge(name, unit, help),
            }
        }
        Self {
            began: Instant::now(),
            page: recorder.handle(),
            recorder,
            operations: HistogramFamily::new(OPERATION_LATENCY),
            requests: HistogramFamily::new(STORE_LATENCY),
        }
    }
}

impl Metrics {
    /// Where the transport records latencies.
    pub fn transport_telemetry(&self) -> Telemetry {
        Telemetry::new(|name| self.operations.member(name))
    }

    /// Where the store's client records latencies.
    pub fn store_telemetry(&self) -> StoreTelemetry {
        StoreTelemetry {
            latency: RequestKind::ALL
                .iter()
                .map(|kind| self.requests.member(kind.as_str()))
                .collect(),
        }
    }

    /// The page for Prometheus.
    pub fn render(&self, now: &RoomStats) -> String {
        for series in SERIES {
            if let Some(reading) = (series.read)(now) {
                self.set(series.name, series.kind, Labels::new(), reading.as_f64());
            }
        }
        for series in LABELLED {
            for (labels, value) in (series.read)(now) {
                self.set(series.name, series.kind, labels, value as f64);
            }
        }
        let mut page = self.page.render();
        self.operations.render(&mut page);
        self.requests.render(&mut page);
        page
    }

    /// What `ackfs stats` shows. `dir` and `source` name the mount.
    pub fn report(&self, now: &RoomStats, dir: &str, source: &str) -> Report {
        Report {
            dir: dir.to_owned(),
            source: source.to_owned(),
            uptime_seconds: self.began.elapsed().as_secs_f64(),
            transport: TransportReport::read(now).unwrap_or_default(),
            close: CloseReport::read(now).unwrap_or_default(),
            operations: self.operations_of(now),
            read: ReadReport::read(now).unwrap_or_default(),
            disk: DiskReport::read(now),
            write: WriteReport::read(now).unwrap_or_default(),
            files: FilesReport::read(now).unwrap_or_default(),
            store: self.store_of(&now.store),
        }
    }

    fn operations_of(&self, now: &RoomStats) -> Vec<OperationReport> {
        let latencies = self.operations.read();
        let asked = operations(now).filter(|operation| operation.requests > 0);
        asked
            .map(|operation| {
                let (p50_seconds, p99_seconds) = quantiles(&latencies, operation.name);
                OperationReport {
                    name: operation.name.to_owned(),
                    count: operation.requests,
                    errors: operation.errors,
                    p50_seconds,
                    p99_seconds,
                }
            })
            .collect()
    }

    fn store_of(&self, stats: &StoreStats) -> Vec<StoreReport> {
        let latencies = self.requests.read();
        let asked = stats.kinds.iter().filter(|kind| kind.total() > 0);
        asked
            .map(|kind| {
                let (p50_seconds, p99_seconds) = quantiles(&latencies, kind.kind.as_str());
                StoreReport {
                    name: kind.kind.as_str().to_owned(),
                    count: kind.total(),
                    errors: kind.failed,
                    retries: kind.retried,
                    p50_seconds,
                    p99_seconds,
                }
            })
            .collect()
    }

    fn set(&self, name: &'static str, kind: MetricKind, labels: Labels, value: f64) {
        static ORIGIN: Metadata<'static> =
            Metadata::new(module_path!(), Level::INFO, Some(module_path!()));
        let labels = labels
            .into_iter()
            .map(|(name, value)| Label::new(name, value));
        let key = Key::from_parts(name, labels.collect::<Vec<_>>());
        match kind {
            MetricKind::Total => self
                .recorder
                .register_counter(&key, &ORIGIN)
                .absolute(value as u64),
            MetricKind::Level => self.recorder.register_gauge(&key, &ORIGIN).set(value),
        }
    }
}

/// Name, unit, help and kind of every metric but the latencies.
fn descriptions() -> impl Iterator<Item = (&'static str, Unit, &'static str, MetricKind)> {
    let single = SERIES.iter();
    let single = single.map(|s| (s.name, s.unit, s.help.trim_start(), s.kind));
    let labelled = LABELLED
        .iter()
        .map(|s| (s.name, Unit::Count, s.help, s.kind));
    single.chain(labelled)
}

fn quantiles(latencies: &[(String, LatencySnapshot)], name: &str) -> (f64, f64) {
    let found = latencies.iter().find(|(label, _)| label == name);
    let at = |share| {
        found
            .and_then(|(_, latencies)| latencies.quantile(share))
            .unwrap_or_default()
    };
    (at(0.5), at(0.99))
}

#[cfg(test)]
mod tests;
