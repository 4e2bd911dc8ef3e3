//! Latencies in buckets. A [`LatencyHistogram`] is a handful of counters: recording touches two of them and
//! allocates nothing, so it can stand on a ring thread's path, and a mount that nobody scrapes holds
//! no samples and needs no upkeep. (The exporter's own histograms keep every sample until somebody
//! renders or a timer drains them.)
//!
//! The buckets are the same everywhere, three to a decade from what a cache hit takes to what a
//! store's timeout is, so that rates of different operations can be added and compared.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::HistogramFn;
use parking_lot::Mutex;

/// Upper bounds of the buckets in seconds; the last bucket has none.
pub const BOUNDS: [f64; 16] = [
    0.000_003, 0.000_01, 0.000_03, 0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0,
    10.0, 30.0, 100.0,
];

/// One operation's latencies.
#[derive(Debug, Default)]
pub struct LatencyHistogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

/// A [`LatencyHistogram`] at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct LatencySnapshot {
    /// How many fell into each bucket, not added up.
    pub buckets: [u64; BOUNDS.len() + 1],
    /// All of them together, in seconds.
    pub seconds: f64,
}

impl HistogramFn for LatencyHistogram {
    fn record(&self, seconds: f64) {
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.nanoseconds
            .fetch_add((seconds * 1e9) as u64, Ordering::Relaxed);
    }
}

impl LatencyHistogram {
    /// What was recorded so far.
    pub fn read(&self) -> LatencySnapshot {
        LatencySnapshot {
            buckets: std::array::from_fn(|at| self.buckets[at].load(Ordering::Relaxed)),
            seconds: self.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9,
        }
    }
}

impl LatencySnapshot {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The bound, in seconds, that this share of them (0 to 1) stayed below; `None` without any.
    /// What lies beyond the last bound counts as it.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = (self.count() as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let at = self.buckets.iter().position(|bucket| {
            seen += bucket;
            seen >= wanted
        })?;
        Some(BOUNDS[at.min(BOUNDS.len() - 1)])
    }
}

/// All histograms of one name, by the value of their one label, in order of making.
#[derive(Debug)]
pub struct HistogramFamily {
    name: &'static str,
    label: &'static str,
    help: &'static str,
    members: Mutex<Vec<(String, Arc<LatencyHistogram>)>>,
}

impl HistogramFamily {
    /// An empty family: its name, its label, what it says.
    pub fn new([name, label, help]: [&'static str; 3]) -> Self {
        Self {
            name,
            label,
            help,
            members: Mutex::default(),
        }
    }

    /// The member of that label, made if it is not there; a handle for whoever records.
    pub fn member(&self, value: &str) -> metrics::Histogram {
        let mut members = self.members.lock();
        if let Some((_, latency)) = members.iter().find(|(label, _)| label == value) {
            return metrics::Histogram::from_arc(latency.clone());
        }
        let latency = Arc::new(LatencyHistogram::default());
        members.push((value.to_owned(), latency.clone()));
        metrics::Histogram::from_arc(latency)
    }

    /// Every member that has recorded something.
    pub fn read(&self) -> Vec<(String, LatencySnapshot)> {
        let members = self.members.lock();
        let read = members
            .iter()
            .map(|(label, latency)| (label.clone(), latency.read()));
        read.filter(|(_, latencies)| latencies.count() > 0)
            .collect()
    }

    /// Appends the family in the text format of Prometheus; nothing if nothing was recorded.
    pub fn render(&self, text: &mut String) {
        let members = self.read();
        if members.is_empty() {
            return;
        }
        let Self {
            name, label, help, ..
        } = self;
        // Writing to a String does not fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
        for (value, latencies) in members {
            let mut below = 0;
            for (bound, count) in BOUNDS.iter().zip(latencies.buckets) {
                below += count;
                let _ = writeln!(
                    text,
                    "{name}_bucket{{{label}=\"{value}\",le=\"{bound}\"}} {below}"
                );
            }
            let count = latencies.count();
            let _ = writeln!(
                text,
                "{name}_bucket{{{label}=\"{value}\",le=\"+Inf\"}} {count}"
            );
            let _ = writeln!(
                text,
                "{name}_sum{{{label}=\"{value}\"}} {}",
                latencies.seconds
            );
            let _ = writeln!(text, "{name}_count{{{label}=\"{value}\"}} {count}");
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_falls_into_the_bucket_that_holds_it() {
        let latency = LatencyHistogram::default();
        for seconds in [0.000_001, 0.000_01, 0.002, 500.0] {
            latency.record(seconds);
        }
        let read = latency.read();
        assert_eq!(read.count(), 4);
        assert_eq!(
            (read.buckets[0], read.buckets[1], read.buckets[6]),
            (1, 1, 1)
        );
        assert_eq!(read.buckets[BOUNDS.len()], 1);
        assert!((read.seconds - 500.002_011).abs() < 1e-6);
        assert_eq!(read.quantile(0.5), Some(0.000_01));
        assert_eq!(read.quantile(0.99), Some(100.0));
        assert_eq!(LatencyHistogram::default().read().quantile(0.5), None);
    }

    #[test]
    fn a_family_renders_growing_buckets() {
        let family = HistogramFamily::new(["x_seconds", "op", "How long x takes."]);
        let mut text = String::new();
        let _ = family.member("unused");
        family.render(&mut text);
        assert_eq!(text, "");
        family.member("read").record(0.002);
        family.member("read").record(0.000_02);
        family.render(&mut text);
        assert!(text.contains("# TYPE x_seconds histogram\n"));
        assert!(text.contains("x_seconds_bucket{op=\"read\",le=\"0.00003\"} 1\n"));
        assert!(text.contains("x_seconds_bucket{op=\"read\",le=\"0.003\"} 2\n"));
        assert!(text.contains("x_seconds_bucket{op=\"read\",le=\"+Inf\"} 2\n"));
        assert!(text.contains("x_seconds_count{op=\"read\"} 2\n"));
        assert!(!text.contains("unused"));
    }
}
