//! What is measured, and the middle of several measurements.

use std::time::Duration;

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// In the row's unit.
    pub(crate) value: f64,
    /// Processor time of the gateway; of this process for the references.
    pub(crate) cpu: Duration,
    /// The most memory that the gateway held meanwhile, in KiB.
    pub(crate) peak_kib: u64,
}

/// The middle of some figures; of an even number the mean of the middle two.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len() % 2 == 1 {
        figures[middle]
    } else {
        f64::midpoint(figures[middle - 1], figures[middle])
    }
}
