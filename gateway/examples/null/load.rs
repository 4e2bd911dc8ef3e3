//! The load: threads that do one kind of call in a loop for a while, each on a file of its own.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::str::FromStr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use super::handler::{FILE_SIZE, FILES, byte_of};

/// One kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// pread of 4 KiB, at a stride.
    Read4K,
    /// fstat.
    Stat,
    /// pread of 1 MiB, one after the other.
    Read1M,
    /// pwrite of 1 MiB, one after the other.
    Write1M,
}

impl FromStr for Work {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        Ok(match word {
            "read4k" => Self::Read4K,
            "stat" => Self::Stat,
            "read1m" => Self::Read1M,
            "write1m" => Self::Write1M,
            _ => bail!("no work is called {word}"),
        })
    }
}

/// What to do to a mount.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) seconds: f64,
    pub(crate) clients: usize,
    pub(crate) work: Work,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            seconds: 1.0,
            clients: 1,
            work: Work::Read4K,
        }
    }
}

impl Load {
    /// Runs it on the null mount on `dir` and prints the figures.
    pub(crate) fn run(&self, dir: &Path) -> Result<()> {
        let stop = AtomicBool::new(false);
        let barrier = Barrier::new(self.clients + 1);
        let (mut times, elapsed) = thread::scope(|scope| -> Result<_> {
            let clients: Vec<_> = (0..self.clients)
                .map(|client| {
                    let (stop, barrier) = (&stop, &barrier);
                    scope.spawn(move || self.client(dir, client as u64 % FILES, barrier, stop))
                })
                .collect();
            barrier.wait();
            let began = Instant::now();
            thread::sleep(Duration::from_secs_f64(self.seconds));
            stop.store(true, Ordering::Relaxed);
            let mut times = Vec::new();
            for client in clients {
                times.extend(client.join().expect("a client panicked")?);
            }
            Ok((times, began.elapsed()))
        })?;
        times.sort_unstable();
        let at = |share: f64| {
            let index = (times.len() as f64 * share) as usize;
            times
                .get(index)
                .map_or(0.0, |nanoseconds| f64::from(*nanoseconds) / 1e3)
        };
        let (user, system) = cpu_seconds()?;
        println!(
            "load calls={} per_s={:.0} p50_us={:.1} p99_us={:.1} cpu_s={:.3}",
            times.len(),
            times.len() as f64 / elapsed.as_secs_f64(),
            at(0.5),
            at(0.99),
            user + system
        );
        Ok(())
    }

    fn client(
        &self,
        dir: &Path,
        number: u64,
        barrier: &Barrier,
        stop: &AtomicBool,
    ) -> Result<Vec<u32>> {
        let path = dir.join(format!("file{number}"));
        let file = OpenOptions::new()
            .read(true)
            .write(self.work == Work::Write1M)
            .custom_flags(libc::O_DIRECT)
            .open(&path)
            .with_context(|| format!("{} cannot be opened", path.display()));
        let mut times = Vec::with_capacity(1 << 20);
        let mut buffer = vec![byte_of(number); 1 << 20];
        // Everybody comes here, or the others would wait for ever.
        barrier.wait();
        let file = file?;
        let mut offset = 0;
        while !stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            self.call(&file, &mut buffer, offset)?;
            times.push(began.elapsed().as_nanos() as u32);
            offset = (offset + (1 << 20)) % FILE_SIZE;
        }
        if buffer[0] != byte_of(number) {
            bail!("{} holds the wrong bytes", path.display());
        }
        Ok(times)
    }

    fn call(&self, file: &File, buffer: &mut [u8], offset: u64) -> Result<()> {
        match self.work {
            Work::Read4K => file.read_exact_at(&mut buffer[..4096], offset)?,
            Work::Stat => {
                nix::sys::stat::fstat(file.as_fd())?;
            }
            Work::Read1M => file.read_exact_at(buffer, offset)?,
            Work::Write1M => file.write_all_at(buffer, offset)?,
        }
        Ok(())
    }
}

/// This process's CPU time so far: user, system.
pub(crate) fn cpu_seconds() -> Result<(f64, f64)> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let seconds = |time: nix::sys::time::TimeVal| time.num_microseconds() as f64 / 1e6;
    Ok((seconds(usage.user_time()), seconds(usage.system_time())))
}
