//! The bare transport, for measuring: a mount whose files are answered from nothing, and the load
//! to put on one.
//!
//! ```text
//! null DIR [--transport auto|uring|classic] [--cached] [--depth N]   serves until DIR is unmounted
//! null --load DIR [--seconds S] [--clients N] [--work read4k|stat|read1m|write1m]
//! ```
//! The server prints one line when it serves and one at its end, each `key=value` words: the
//! transport in use; its CPU time and the requests it handled. The load prints one line: calls a
//! second and the time of a call at the median and the 99th percentile.

#[path = "null/handler.rs"]
mod handler;
#[path = "null/load.rs"]
mod load;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ackfs::fuse::mount::{MountOptions, Mounted, Transport};
use anyhow::{Context, Result, bail};

use self::handler::Null;

fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::WARN)
        .init();
    let mut words = std::env::args().skip(1);
    let mut dir = None;
    let mut options = MountOptions {
        source: "null".to_owned(),
        ..MountOptions::default()
    };
    let mut load = None;
    let mut cached = false;
    let mut plan = load::Load::default();
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .with_context(|| format!("{word} wants a value"))
        };
        match word.as_str() {
            "--transport" => {
                options.transport = match value()?.as_str() {
                    "auto" => Transport::Auto,
                    "uring" => Transport::Uring,
                    "classic" => Transport::Classic,
                    other => bail!("no transport is called {other}"),
                }
            }
            "--depth" => options.queue_depth = Some(value()?.parse()?),
            "--cached" => cached = true,
            "--load" => load = Some(value()?),
            "--seconds" => plan.seconds = value()?.parse()?,
            "--clients" => plan.clients = value()?.parse()?,
            "--work" => plan.work = value()?.parse()?,
            _ if dir.is_none() && !word.starts_with('-') => dir = Some(word),
            _ => bail!("{word} is not understood; see the head of examples/null.rs"),
        }
    }
    if let Some(dir) = load {
        return plan.run(Path::new(&dir));
    }
    let dir = dir.context("name a directory to mount on")?;
    serve(Path::new(&dir), &options, cached)
}

fn serve(dir: &Path, options: &MountOptions, cached: bool) -> Result<()> {
    let handler = Arc::new(Null {
        cached,
        ..Null::default()
    });
    let mounted = Mounted::mount(dir, options)?;
    mounted.serve(handler.clone())?;
    let info = mounted.info();
    println!(
        "ready transport={} depth={} queues={} max_write={} minor={}",
        if info.ring { "uring" } else { "classic" },
        info.depth,
        info.queues,
        info.max_write,
        info.kernel_minor
    );
    mounted.wait();
    let (user, system) = load::cpu_seconds()?;
    println!(
        "done requests={} user_s={user:.3} system_s={system:.3}",
        handler.requests.load(Ordering::Relaxed)
    );
    Ok(())
}
