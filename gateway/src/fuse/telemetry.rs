//! Where the owner of the metrics wants latencies recorded. The transport knows when a request came and
//! when it was answered; it does not know what metrics are called. Requests and errors it counts itself
//! (`stats.rs`).

use std::time::Duration;

use metrics::Histogram;

use super::abi::opcode;

/// Seconds from a request's arrival to its answer, by opcode. Default: nothing is recorded, and then no
/// clock is read either.
#[derive(Debug, Clone, Default)]
pub struct Telemetry(Vec<Histogram>);

impl Telemetry {
    /// A histogram for every opcode, made by a function of the operation's name.
    pub fn new(latency: impl Fn(&'static str) -> Histogram) -> Self {
        let numbers = 0..opcode::TABLE as u32;
        let histograms = numbers.map(|number| match opcode::name(number) {
            // Only the first is one that requests are recorded under.
            "UNKNOWN" if number > 0 => Histogram::noop(),
            name => latency(name),
        });
        Self(histograms.collect())
    }

    pub(crate) fn wants_latency(&self) -> bool {
        !self.0.is_empty()
    }

    pub(crate) fn record(&self, opcode: u32, latency: Duration) {
        if let Some(histogram) = self.0.get(opcode::slot(opcode)) {
            histogram.record(latency.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use metrics::HistogramFn;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU64);

    impl HistogramFn for Count {
        fn record(&self, _seconds: f64) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn answers_are_recorded_under_their_operation() {
        let reads = Arc::new(Count::default());
        let telemetry = Telemetry::new(|name| match name {
            "READ" => Histogram::from_arc(Arc::clone(&reads)),
            _ => Histogram::noop(),
        });
        assert!(telemetry.wants_latency());
        for opcode in [opcode::READ, opcode::READ, opcode::LOOKUP, 4096] {
            telemetry.record(opcode, Duration::from_millis(1));
        }
        assert_eq!(reads.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn nobody_who_listens_means_no_clock() {
        assert!(!Telemetry::default().wants_latency());
        Telemetry::default().record(opcode::READ, Duration::ZERO);
    }
}
