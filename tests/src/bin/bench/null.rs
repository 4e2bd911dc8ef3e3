//! The bare transport: the null handler through the ring against the classic door.
//!
//! The gateway's example `null` is both sides: a server whose files are answered from nothing, and
//! a load of so many clients. The two servers are mounted side by side and loaded in turns. A
//! server's processor time an operation is what /proc says it used during a load, by the calls of
//! that load.

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use ackfs_tests::{Door, command, process, sandbox};
use anyhow::{Context as _, Result, bail};
use nix::mount::{MntFlags, umount2};

use crate::sample::median;

/// What `--only` calls it.
pub(crate) const NAME: &str = "null";
/// What is done.
pub(crate) const WORK: &str = "the null handler, ring against classic: calls and processor time";

/// The environment variable that names the example's binary; else it is looked for beside this
/// program.
const NULL_BIN: &str = "ACKFS_NULL_BIN";

/// Work and clients, and the least ratio of calls that the ring is to reach, if there is one.
const LOADS: [(&str, u32, Option<f64>); 6] = [
    ("read4k", 1, Some(1.2)),
    ("read4k", 4, Some(1.2)),
    ("stat", 1, None),
    ("stat", 4, None),
    ("read1m", 1, None),
    ("read1m", 4, None),
];

struct Server {
    child: Child,
    dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = umount2(self.dir.path(), MntFlags::MNT_DETACH);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Default)]
struct Figures {
    per_second: Vec<f64>,
    cpu_us: Vec<f64>,
}

fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os(NULL_BIN) {
        return Ok(path.into());
    }
    let path = env::current_exe()?.with_file_name("examples").join("null");
    if !path.is_file() {
        bail!(
            "no {}: cargo build --release -p ackfs --example null",
            path.display()
        );
    }
    Ok(path)
}

fn serve(bin: &Path, door: Door) -> Result<Server> {
    let dir = sandbox::dir("null-");
    let mut command = sandbox::command(bin);
    command.arg(dir.path()).args(["--transport", door.flag()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = sandbox::spawn(command)?;
    let output = child.stdout.take().context("stdout is a pipe")?;
    let server = Server { child, dir };
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    if !line.contains(door.flag()) {
        bail!("the null server through {} says {line:?}", door.flag());
    }
    Ok(server)
}

/// One load; calls a second and the server's microseconds a call.
fn load(bin: &Path, server: &Server, work: &str, clients: u32) -> Result<(f64, f64)> {
    let before = process::cpu(server.child.id());
    let mut command = sandbox::command(bin);
    command
        .arg("--load")
        .arg(server.dir.path())
        .args(["--work", work, "--seconds", "1"]);
    command.args(["--clients", &clients.to_string()]);
    let (code, output, words) = command::run(&mut command, Duration::from_mins(1))?;
    if code != Some(0) {
        bail!("the load {work} ended with {code:?}: {words}");
    }
    let cpu = process::cpu_since(server.child.id(), before);
    let figure = |name: &str| -> Result<f64> {
        let word = output
            .split_whitespace()
            .find_map(|word| word.strip_prefix(name));
        word.and_then(|word| word.parse().ok())
            .with_context(|| format!("no {name} in {output:?}"))
    };
    let calls = figure("calls=")?;
    Ok((figure("per_s=")?, cpu.as_secs_f64() * 1e6 / calls.max(1.0)))
}

/// Measures and prints the table of the bare transport.
pub(crate) fn run(reps: usize) -> Result<()> {
    let bin = binary()?;
    let doors = [Door::Uring, Door::Classic];
    let servers = [serve(&bin, doors[0])?, serve(&bin, doors[1])?];
    let mut figures: BTreeMap<(usize, usize), Figures> = BTreeMap::new();
    for round in 0..reps {
        for (index, (work, clients, _)) in LOADS.iter().enumerate() {
            for step in 0..2 {
                let door = (round + step) % 2;
                eprintln!(
                    "null {}/{reps}: {work} x{clients} {}",
                    round + 1,
                    doors[door].flag()
                );
                let (per_second, cpu_us) = load(&bin, &servers[door], work, *clients)?;
                let figures = figures.entry((index, door)).or_default();
                figures.per_second.push(per_second);
                figures.cpu_us.push(cpu_us);
            }
        }
    }
    println!(
        "\n| null handler | classic /s | ring /s | ratio | target | server us an op, classic | ring | ratio |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (index, (work, clients, target)) in LOADS.iter().enumerate() {
        let of = |door: usize, figure: fn(&Figures) -> &Vec<f64>| {
            figures
                .get(&(index, door))
                .map_or(0.0, |found| median(figure(found).clone()))
        };
        let rate = |door| of(door, |figures| &figures.per_second);
        let cpu = |door| of(door, |figures| &figures.cpu_us);
        let target = target.map_or_else(String::new, |target| format!(">= {target}"));
        println!(
            "| {work}, {clients} clients | {:.0} | {:.0} | **{:.2}** | {target} | {:.1} | {:.1} | **{:.2}** |",
            rate(1),
            rate(0),
            rate(0) / rate(1),
            cpu(1),
            cpu(0),
            cpu(0) / cpu(1),
        );
    }
    println!("\nTarget of the server's processor time an op, ring to classic: <= 0.75");
    Ok(())
}
