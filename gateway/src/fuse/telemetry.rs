//! Where the owner of the metrics wants latencies and errors recorded. The transport knows when a
//! request came and when it was answered; it does not know what metrics are called.

use std::time::Duration;

use metrics::{Counter, Histogram};

use super::abi::opcode;

/// What each answer is recorded to, by opcode; nothing where a table is too short. Default:
/// nothing at all, and then no clock is read either.
#[derive(Debug, Clone, Default)]
pub struct Telemetry {
    /// Seconds from the request's arrival to its answer, by opcode.
    pub latency: Vec<Histogram>,
    /// Answers that were an errno, by opcode; a LOOKUP's ENOENT is one.
    pub errors: Vec<Counter>,
}

impl Telemetry {
    /// Tables for every opcode, made by functions of the operation's name.
    pub fn new(
        latency: impl Fn(&'static str) -> Histogram,
        errors: impl Fn(&'static str) -> Counter,
    ) -> Self {
        let numbers = 0..opcode::TABLE as u32;
        let known = |number| opcode::name(number) != "UNKNOWN" || number == 0;
        Self {
            latency: numbers
                .clone()
                .map(|number| {
                    if known(number) {
                        latency(opcode::name(number))
                    } else {
                        Histogram::noop()
                    }
                })
                .collect(),
            errors: numbers
                .map(|number| {
                    if known(number) {
                        errors(opcode::name(number))
                    } else {
                        Counter::noop()
                    }
                })
                .collect(),
        }
    }

    pub(crate) fn wants_latency(&self) -> bool {
        !self.latency.is_empty()
    }

    pub(crate) fn record(&self, opcode: u32, latency: Option<Duration>, errno: i32) {
        let slot = opcode::slot(opcode);
        if let (Some(latency), Some(histogram)) = (latency, self.latency.get(slot)) {
            histogram.record(latency.as_secs_f64());
        }
        if errno != 0
            && let Some(counter) = self.errors.get(slot)
        {
            counter.increment(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use metrics::{CounterFn, HistogramFn};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU64);

    impl CounterFn for Count {
        fn increment(&self, value: u64) {
            self.0.fetch_add(value, Ordering::Relaxed);
        }

        fn absolute(&self, _value: u64) {}
    }

    impl HistogramFn for Count {
        fn record(&self, _seconds: f64) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn answers_are_recorded_under_their_operation() {
        let (reads, errors) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let telemetry = Telemetry::new(
            |name| match name {
                "READ" => Histogram::from_arc(Arc::clone(&reads)),
                _ => Histogram::noop(),
            },
            |name| match name {
                "READ" => Counter::from_arc(Arc::clone(&errors)),
                _ => Counter::noop(),
            },
        );
        assert!(telemetry.wants_latency());
        let latency = Some(Duration::from_millis(1));
        telemetry.record(opcode::READ, latency, 0);
        telemetry.record(opcode::READ, latency, libc::EIO);
        telemetry.record(opcode::LOOKUP, latency, libc::ENOENT);
        telemetry.record(4096, latency, libc::ENOSYS);
        assert_eq!(reads.0.load(Ordering::Relaxed), 2);
        assert_eq!(errors.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn nobody_who_listens_means_no_clock() {
        assert!(!Telemetry::default().wants_latency());
        Telemetry::default().record(opcode::READ, None, libc::EIO);
    }
}
