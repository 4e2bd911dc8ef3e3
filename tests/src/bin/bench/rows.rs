//! The rows of the table: each is one kind of work, the same for everybody.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ackfs_tests::content::{Rng, bytes};
use ackfs_tests::posix::{close, drop_pages};
use ackfs_tests::{Door, process, sandbox};
use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::sample::Sample;
use crate::subject::{Served, Subject};
use crate::{BUCKET, Bench};

/// What figure a row's value is, and which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// More is better.
    MibPerSecond,
    /// More is better.
    PerSecond,
    /// Less is better.
    Seconds,
}

/// One kind of work.
pub(crate) struct Row {
    /// What `--only` calls it.
    pub(crate) name: &'static str,
    /// What is done.
    pub(crate) work: &'static str,
    /// What the value counts.
    pub(crate) unit: Unit,
    /// The reference first.
    pub(crate) subjects: &'static [Subject],
    /// Whether peers can do it.
    pub(crate) with_peers: bool,
    /// The ratio to the reference that ackfs is to reach: at least, or for seconds at most; 0 for none.
    pub(crate) target: f64,
    /// Makes what the row needs in the bucket; again is as good as once.
    pub(crate) prepare: fn(&Bench) -> Result<()>,
    /// Does the work once.
    pub(crate) measure: fn(&Bench, Subject) -> Result<Sample>,
}

const DOORS: &[Subject] = &[
    Subject::Sdk,
    Subject::Ackfs(Door::Uring),
    Subject::Ackfs(Door::Classic),
];
const NATIVE: &[Subject] = &[
    Subject::Native,
    Subject::Ackfs(Door::Uring),
    Subject::Ackfs(Door::Classic),
];

/// All of them, in the table's order.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "seq-read",
        work: "cold sequential read of one file",
        unit: Unit::MibPerSecond,
        subjects: DOORS,
        with_peers: true,
        target: 0.55,
        prepare: prepare_large,
        measure: |bench, subject| read_sequentially(bench, subject),
    },
    Row {
        name: "read-again",
        work: "the same file again by a fresh open, the mount's pages dropped by \
               posix_fadvise(DONTNEED); reference: a local file in the page cache",
        unit: Unit::MibPerSecond,
        subjects: NATIVE,
        with_peers: true,
        target: 0.9,
        prepare: prepare_large,
        measure: |bench, subject| read_again(bench, subject, false),
    },
    Row {
        name: "read-ring",
        work: "the same without passthrough, because somebody has the file open for writing \
               (no target, but at least 2,000 MiB/s)",
        unit: Unit::MibPerSecond,
        subjects: NATIVE,
        with_peers: false,
        target: 0.0,
        prepare: prepare_large,
        measure: |bench, subject| read_again(bench, subject, true),
    },
    Row {
        name: "seq-write",
        work: "sequential write and close of one file; HEAD afterwards",
        unit: Unit::MibPerSecond,
        subjects: DOORS,
        with_peers: true,
        target: 0.85,
        prepare: |_| Ok(()),
        measure: |bench, subject| write_sequentially(bench, subject),
    },
    Row {
        name: "small-1",
        work: "new files of 10 kB, each closed, 1 writer; all listed afterwards",
        unit: Unit::PerSecond,
        subjects: DOORS,
        with_peers: true,
        target: 0.65,
        prepare: |_| Ok(()),
        measure: |bench, subject| write_small(bench, subject, 1),
    },
    Row {
        name: "small-8",
        work: "the same by 8 writers",
        unit: Unit::PerSecond,
        subjects: DOORS,
        with_peers: true,
        target: 0.8,
        prepare: |_| Ok(()),
        measure: |bench, subject| write_small(bench, subject, 8),
    },
    Row {
        name: "ls",
        work: "ls -l of a large directory, cold",
        unit: Unit::Seconds,
        subjects: DOORS,
        with_peers: true,
        target: 1.4,
        prepare: prepare_names,
        measure: |bench, subject| list(bench, subject),
    },
    Row {
        name: "random-read",
        work: "4 KiB reads at random places of the large file, cold, 1 reader",
        unit: Unit::PerSecond,
        subjects: DOORS,
        with_peers: true,
        target: 0.7,
        prepare: prepare_large,
        measure: |bench, subject| read_randomly(bench, subject),
    },
    Row {
        name: "idle",
        work: "ten idle seconds: wake-ups of all threads a second (no reference, less is better)",
        unit: Unit::PerSecond,
        subjects: &[Subject::Ackfs(Door::Uring), Subject::Ackfs(Door::Classic)],
        with_peers: false,
        target: 0.0,
        prepare: |_| Ok(()),
        measure: |bench, subject| idle(bench, subject),
    },
];

const MIB: usize = 1 << 20;
const LARGE: &str = "large";
const RANDOM_READS: u64 = 400;

fn prepare_large(bench: &Bench) -> Result<()> {
    let size = bench.plan.size_mib * MIB as u64;
    let there = bench.minio.witness(BUCKET).head(LARGE);
    if there.is_none_or(|head| head.size != size) {
        bench
            .sdk
            .write(LARGE, size, &Bytes::from(bytes(1, 16 * MIB)))?;
    }
    Ok(())
}

fn prepare_names(bench: &Bench) -> Result<()> {
    if bench.sdk.list("names/")? != bench.plan.names {
        bench
            .sdk
            .put_many("names/", bench.plan.names, 16, &Bytes::from_static(b"x"))?;
    }
    Ok(())
}

/// Runs `work` and gives what it took: the clock, the gateway's processor time and memory.
fn timed(pid: u32, amount: f64, work: impl FnOnce() -> Result<()>) -> Result<Sample> {
    process::reset_peak(pid);
    let cpu = process::cpu(pid);
    let begin = Instant::now();
    work()?;
    let time = begin.elapsed();
    Ok(Sample {
        value: amount / time.as_secs_f64(),
        cpu: process::cpu_since(pid, cpu),
        peak_kib: process::memory(pid).map_or(0, |memory| memory.peak_kib),
    })
}

/// The same for work that is valued by its seconds.
fn seconds(pid: u32, work: impl FnOnce() -> Result<()>) -> Result<Sample> {
    let sample = timed(pid, 1.0, work)?;
    Ok(Sample {
        value: 1.0 / sample.value,
        ..sample
    })
}

/// Reads a file from beginning to end as cat(1) and cp(1) do, in pieces of 1 MiB.
fn read_file(path: &Path, size: u64) -> Result<()> {
    let mut file = File::open(path).context("open")?;
    let mut piece = vec![0; MIB];
    let mut found = 0;
    loop {
        let len = file.read(&mut piece).context("read")?;
        if len == 0 {
            break;
        }
        found += len as u64;
        black_box(&piece);
    }
    ensure!(found == size, "{found} bytes were read, not {size}");
    Ok(())
}

fn read_sequentially(bench: &Bench, subject: Subject) -> Result<Sample> {
    let size = bench.plan.size_mib * MIB as u64;
    let amount = bench.plan.size_mib as f64;
    if subject == Subject::Sdk {
        return timed(std::process::id(), amount, || bench.sdk.read(LARGE, size));
    }
    let served = subject.mount(bench)?;
    timed(served.pid(), amount, || {
        read_file(&served.path(LARGE), size)
    })
}

/// `held`: the file is open for writing meanwhile.
fn read_again(bench: &Bench, subject: Subject, held: bool) -> Result<Sample> {
    let size = bench.plan.size_mib * MIB as u64;
    let amount = bench.plan.size_mib as f64;
    if subject == Subject::Native {
        let dir = sandbox::dir("native-");
        let path = dir.path().join("file");
        let mut file = File::create(&path)?;
        let piece = bytes(1, MIB);
        for _ in 0..bench.plan.size_mib {
            file.write_all(&piece)?;
        }
        drop(file);
        read_file(&path, size)?;
        return timed(std::process::id(), amount, || read_file(&path, size));
    }
    let served = subject.mount(bench)?;
    let path = served.path(LARGE);
    let _writer = held
        .then(|| OpenOptions::new().write(true).open(&path))
        .transpose()?;
    read_file(&path, size)?;
    drop_pages(&File::open(&path)?);
    timed(served.pid(), amount, || read_file(&path, size))
}

fn write_sequentially(bench: &Bench, subject: Subject) -> Result<Sample> {
    static ROUND: AtomicU64 = AtomicU64::new(0);
    let key = format!("written-{}", ROUND.fetch_add(1, Ordering::Relaxed));
    let size = bench.plan.size_mib * MIB as u64;
    let amount = bench.plan.size_mib as f64;
    let witness = bench.minio.witness(BUCKET);
    let sample = if subject == Subject::Sdk {
        let part = Bytes::from(bytes(2, 16 * MIB));
        timed(std::process::id(), amount, || {
            bench.sdk.write(&key, size, &part)
        })
    } else {
        let served = subject.mount(bench)?;
        let piece = bytes(2, MIB);
        timed(served.pid(), amount, || {
            let mut file = File::create(served.path(&key)).context("create")?;
            for _ in 0..bench.plan.size_mib {
                file.write_all(&piece).context("write")?;
            }
            close(file).context("close")?;
            Ok(())
        })
    };
    // Durable at close or not at all: who has not stored it by now has no figure.
    let stored = witness.head(&key).map(|head| head.size);
    witness.delete(&key);
    ensure!(
        stored == Some(size),
        "after close() the store holds {stored:?} bytes"
    );
    sample
}

fn write_small(bench: &Bench, subject: Subject, writers: usize) -> Result<Sample> {
    static ROUND: AtomicU64 = AtomicU64::new(0);
    let dir = format!("small-{}", ROUND.fetch_add(1, Ordering::Relaxed));
    let count = bench.plan.files;
    let body = bytes(3, 10_000);
    let sample = if subject == Subject::Sdk {
        let body = Bytes::from(body);
        let prefix = format!("{dir}/");
        timed(std::process::id(), count as f64, || {
            bench.sdk.put_many(&prefix, count, writers, &body)
        })
    } else {
        let served = subject.mount(bench)?;
        fs::create_dir(served.path(&dir)).context("mkdir")?;
        timed(served.pid(), count as f64, || {
            write_files(&served, &dir, count, writers, &body)
        })
    };
    let keys = bench.minio.witness(BUCKET).keys(&format!("{dir}/"));
    let stored = keys.iter().filter(|key| !key.ends_with('/')).count();
    ensure!(
        stored == count,
        "after the last close() the store holds {stored} of {count} files"
    );
    sample
}

fn write_files(
    served: &Served,
    dir: &str,
    count: usize,
    writers: usize,
    body: &[u8],
) -> Result<()> {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let write = || -> Result<()> {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return Ok(());
                }
                let mut file = File::create(served.path(&format!("{dir}/{index:06}")))?;
                file.write_all(body)?;
                close(file)?;
            }
        };
        let threads: Vec<_> = (0..writers).map(|_| scope.spawn(write)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("no panic"))
    })
}

fn list(bench: &Bench, subject: Subject) -> Result<Sample> {
    let names = bench.plan.names;
    if subject == Subject::Sdk {
        return seconds(std::process::id(), || {
            let found = bench.sdk.list("names/")?;
            ensure!(found == names, "{found} names, not {names}");
            Ok(())
        });
    }
    let served = subject.mount(bench)?;
    seconds(served.pid(), || {
        let mut command = Command::new("ls");
        command
            .arg("-l")
            .arg(served.path("names"))
            .env("LC_ALL", "C")
            .stderr(Stdio::null());
        let output = command.output()?;
        let found = output.stdout.split(|&byte| byte == b'\n').count() - 1;
        // One line says the total.
        ensure!(found == names + 1, "{found} lines, not {}", names + 1);
        Ok(())
    })
}

fn read_randomly(bench: &Bench, subject: Subject) -> Result<Sample> {
    let size = bench.plan.size_mib * MIB as u64;
    let mut random = Rng::new(9);
    let amount = RANDOM_READS as f64;
    if subject == Subject::Sdk {
        return timed(std::process::id(), amount, || {
            bench
                .sdk
                .read_random(LARGE, size, RANDOM_READS, &mut random)
        });
    }
    let served = subject.mount(bench)?;
    let file = File::open(served.path(LARGE))?;
    // The kernel would read ahead 128 KiB on a hunch.
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM)?;
    timed(served.pid(), amount, || {
        let mut page = [0; 4096];
        for _ in 0..RANDOM_READS {
            let offset = random.below(size / 4096) * 4096;
            file.read_exact_at(&mut page, offset)?;
            black_box(&page);
        }
        Ok(())
    })
}

/// Voluntary context switches of each thread: what a sleeping process does not have.
fn switches(pid: u32) -> HashMap<OsString, u64> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return HashMap::new();
    };
    let of_task = |task: fs::DirEntry| -> Option<(OsString, u64)> {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let line = status
            .lines()
            .find(|line| line.starts_with("voluntary_ctxt_switches"))?;
        let count = line.split_whitespace().nth(1)?.parse().ok()?;
        Some((task.file_name(), count))
    };
    tasks.flatten().filter_map(of_task).collect()
}

fn idle(bench: &Bench, subject: Subject) -> Result<Sample> {
    let served = subject.mount(bench)?;
    fs::write(served.path("idle"), "x")?;
    // What winds down after work is not idleness.
    thread::sleep(Duration::from_secs(3));
    let before = switches(served.pid());
    let cpu = process::cpu(served.pid());
    thread::sleep(Duration::from_secs(10));
    // A thread that ended meanwhile took its count along; a new one brings all of its own.
    let woken = switches(served.pid())
        .into_iter()
        .map(|(thread, count)| count - before.get(&thread).copied().unwrap_or(0));
    Ok(Sample {
        value: woken.sum::<u64>() as f64 / 10.0,
        cpu: process::cpu_since(served.pid(), cpu),
        peak_kib: process::memory(served.pid()).map_or(0, |memory| memory.rss_kib),
    })
}
