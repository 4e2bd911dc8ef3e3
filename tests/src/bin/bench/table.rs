//! Figures and how they are shown: medians, ratios to the reference, Markdown.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use crate::rows::{Row, Unit};
use crate::sample::{Sample, median};
use crate::subject::Subject;

/// A row with its figures, a subject each.
#[derive(Debug)]
pub(crate) struct Line {
    name: &'static str,
    work: &'static str,
    unit: Unit,
    target: f64,
    cells: Vec<(Subject, Option<Sample>)>,
}

impl Line {
    /// The medians of a row's samples.
    pub(crate) fn new(row: &Row, subjects: &[Subject], samples: Vec<Vec<Sample>>) -> Self {
        let cells = subjects
            .iter()
            .copied()
            .zip(samples.into_iter().map(medians))
            .collect();
        Self {
            name: row.name,
            work: row.work,
            unit: row.unit,
            target: row.target,
            cells,
        }
    }
}

fn medians(samples: Vec<Sample>) -> Option<Sample> {
    if samples.is_empty() {
        return None;
    }
    let of = |figure: fn(&Sample) -> f64| median(samples.iter().map(figure).collect());
    Some(Sample {
        value: of(|sample| sample.value),
        cpu: Duration::from_secs_f64(of(|sample| sample.cpu.as_secs_f64())),
        // The peak of all rounds: a bound that is broken once is broken.
        peak_kib: samples
            .iter()
            .map(|sample| sample.peak_kib)
            .max()
            .unwrap_or(0),
    })
}

/// What the figures were measured on.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let model = model
        .and_then(|line| line.split_once(": "))
        .map_or("?", |(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{cores} cores ({model}), Linux {}, MinIO on loopback",
        kernel.trim()
    )
}

fn show(unit: Unit, value: f64) -> String {
    match unit {
        Unit::MibPerSecond => format!("{value:.0} MiB/s"),
        Unit::PerSecond if value < 10.0 => format!("{value:.1} /s"),
        Unit::PerSecond => format!("{value:.0} /s"),
        Unit::Seconds => format!("{value:.2} s"),
    }
}

/// Prints the table of values and ratios, and that of processor time and memory.
pub(crate) fn print(lines: &[Line]) {
    let mut columns: Vec<&str> = Vec::new();
    for (subject, _) in lines.iter().flat_map(|line| &line.cells) {
        if *subject != Subject::Sdk && *subject != Subject::Native {
            let name = subject.name();
            if !columns.contains(&name) {
                columns.push(name);
            }
        }
    }
    let cell = |line: &Line, name: &str| {
        line.cells
            .iter()
            .find(|(subject, _)| subject.name() == name)
            .and_then(|(_, found)| *found)
    };
    println!("\n| work | reference | {} | target |", columns.join(" | "));
    println!("|---|---|{}---|", "---|".repeat(columns.len()));
    for line in lines {
        let reference = line
            .cells
            .first()
            .filter(|(subject, _)| matches!(subject, Subject::Sdk | Subject::Native))
            .and_then(|(_, found)| *found);
        let mut text = format!("| {}: {} |", line.name, line.work);
        match reference {
            Some(sample) => write!(text, " {} |", show(line.unit, sample.value)),
            None => write!(text, " |"),
        }
        .expect("a string takes any text");
        for name in &columns {
            let shown = cell(line, name).map_or_else(String::new, |sample| {
                let value = show(line.unit, sample.value);
                reference.map_or_else(
                    || value.clone(),
                    |reference| format!("**{:.2}** ({value})", sample.value / reference.value),
                )
            });
            write!(text, " {shown} |").expect("a string takes any text");
        }
        let sign = if line.unit == Unit::Seconds {
            "<="
        } else {
            ">="
        };
        if reference.is_some() && line.target > 0.0 {
            write!(text, " {sign} {} |", line.target).expect("a string takes any text");
        } else {
            text.push_str(" |");
        }
        println!("{text}");
    }
    println!("\nProcessor time a round (median) and peak memory (worst round) of the gateway:\n");
    println!("| work | SDK, processor | {} |", columns.join(" | "));
    println!("|---|---|{}", "---|".repeat(columns.len()));
    for line in lines {
        let reference = line
            .cells
            .iter()
            .find(|(subject, _)| *subject == Subject::Sdk);
        let reference = reference.and_then(|(_, found)| *found);
        let reference = reference.map_or(String::new(), |sample| {
            format!("{:.2} s", sample.cpu.as_secs_f64())
        });
        let mut text = format!("| {} | {reference} |", line.name);
        for name in &columns {
            let shown = cell(line, name).map_or_else(String::new, |sample| {
                let (cpu, peak) = (sample.cpu.as_secs_f64(), sample.peak_kib / 1024);
                format!("{cpu:.2} s, {peak} MiB")
            });
            write!(text, " {shown} |").expect("a string takes any text");
        }
        println!("{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_the_middle() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }
}
