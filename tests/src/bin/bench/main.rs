//! The bench: what ackfs costs beside doing without it.
//!
//! Every figure is a ratio from one run. The same work is done by the bare SDK on the same MinIO, by
//! ackfs through its doors, and by peers that are on `PATH`, one after the other, round after round,
//! and medians are compared: a machine that is slow or busy is so for all of them. Every measured
//! mount is fresh, with a cache directory of its own, so "cold" is cold; readers, gateway and store
//! share the machine.
//!
//! ```text
//! bench [--only ROW,ROW] [--reps N] [--size MIB] [--files N] [--names N] [--peers no] [--list]
//! ```
//! What each row does stands at its function in `rows`. Prints Markdown.

mod null;
mod rows;
mod sample;
mod sdk;
mod subject;
mod table;

use std::env;
use std::process::ExitCode;

use ackfs_tests::Minio;
use anyhow::{Context as _, Result, bail};

use self::sample::Sample;
use self::subject::Subject;

/// What the command line asked for.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Rows to run; empty means all.
    only: Vec<String>,
    /// Rounds of each row.
    reps: usize,
    /// Size of the large file in MiB.
    size_mib: u64,
    /// Small files in a round.
    files: usize,
    /// Names in the large directory.
    names: usize,
    /// Whether peers on `PATH` are measured.
    peers: bool,
}

/// Everything that a row needs.
#[derive(Debug)]
pub(crate) struct Bench {
    plan: Plan,
    minio: Minio,
    sdk: sdk::Sdk,
}

/// The bucket that all rows share.
pub(crate) const BUCKET: &str = "bench";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let Some(plan) = parse(env::args().skip(1))? else {
        for row in rows::ROWS {
            println!("{:<12} {}", row.name, row.work);
        }
        println!("{:<12} {}", null::NAME, null::WORK);
        return Ok(());
    };
    let wanted = |name: &str| plan.only.is_empty() || plan.only.iter().any(|only| only == name);
    println!("{}", table::machine());
    if wanted(null::NAME) {
        null::run(plan.reps)?;
    }
    let rows: Vec<_> = rows::ROWS.iter().filter(|row| wanted(row.name)).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let minio = Minio::start().context("MinIO does not start")?;
    minio.witness(BUCKET).create_bucket();
    let sdk = sdk::Sdk::new(&minio.endpoint())?;
    let bench = Bench { plan, minio, sdk };
    let mut done = Vec::new();
    for row in rows {
        (row.prepare)(&bench)?;
        let subjects = subjects(&bench, row);
        let mut samples: Vec<Vec<Sample>> = subjects.iter().map(|_| Vec::new()).collect();
        for round in 0..bench.plan.reps {
            // Each round begins with another one: what the first one warms helps everybody once.
            for step in 0..subjects.len() {
                let index = (round + step) % subjects.len();
                let subject = subjects[index];
                eprintln!(
                    "{} {}/{}: {}",
                    row.name,
                    round + 1,
                    bench.plan.reps,
                    subject.name()
                );
                match (row.measure)(&bench, subject) {
                    Ok(sample) => samples[index].push(sample),
                    // A peer that cannot do a row has no figure there; we and the SDK must.
                    Err(error) if matches!(subject, Subject::Peer(_)) => eprintln!("  {error:#}"),
                    Err(error) => {
                        return Err(error.context(format!("{}: {}", row.name, subject.name())));
                    }
                }
            }
        }
        done.push(table::Line::new(row, &subjects, samples));
    }
    table::print(&done);
    Ok(())
}

/// The reference first, then ackfs, then whoever else is here.
fn subjects(bench: &Bench, row: &rows::Row) -> Vec<Subject> {
    let mut subjects = row.subjects.to_vec();
    if bench.plan.peers && row.with_peers {
        subjects.extend(subject::Peer::found().into_iter().map(Subject::Peer));
    }
    subjects
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Plan>> {
    let mut plan = Plan {
        only: Vec::new(),
        reps: 5,
        size_mib: 1024,
        files: 640,
        names: 10_000,
        peers: true,
    };
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .with_context(|| format!("{word} wants a value"))
        };
        match word.as_str() {
            "--only" => plan.only.extend(value()?.split(',').map(str::to_owned)),
            "--reps" => plan.reps = value()?.parse().context("--reps wants a number")?,
            "--size" => plan.size_mib = value()?.parse().context("--size wants MiB")?,
            "--files" => plan.files = value()?.parse().context("--files wants a number")?,
            "--names" => plan.names = value()?.parse().context("--names wants a number")?,
            "--peers" => plan.peers = value()? != "no",
            "--list" => return Ok(None),
            _ => bail!("{word} is not understood; see the head of src/bin/bench/main.rs"),
        }
    }
    let known = |name: &String| name == null::NAME || rows::ROWS.iter().any(|row| row.name == name);
    if let Some(unknown) = plan.only.iter().find(|name| !known(name)) {
        bail!("no row is called {unknown}; --list names them");
    }
    if plan.reps == 0 {
        bail!("--reps wants at least 1");
    }
    Ok(Some(plan))
}
