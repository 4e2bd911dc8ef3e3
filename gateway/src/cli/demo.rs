//! `ackfs demo`: the promise of close(), shown with real operations. A store in this process on
//! loopback, a mount of it by this same program in a process of its own, and a second S3 client that
//! shares nothing with the gateway. Each step of the tour (`tour`) is done for real, timed, and checked;
//! one that does not hold makes the status 1, whatever comes after it. Ctrl-C before the tour's end is
//! no such step: it ends with the status of the signal.
//!
//! With a terminal the mount stays until Ctrl-C; without one the command ends after the tour.
//! Whatever happens, the mount is taken away and what was made is removed (`child`).

use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ackfs_demo::{DemoConfig, Server};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Transport;
use crate::control::{Answer, Ask, Client};
use crate::daemon::mounts;
use crate::logging::{say, tell};
use crate::metrics::Report;

use self::child::{Child, Places};
use self::tour::{Tour, Toured};
use super::{DemoArgs, Exit, Failure, Host, doctor};

mod child;
mod tour;

/// The demo's bucket.
const BUCKET: &str = "ackfs-demo";

/// Runs the command. With a terminal it ends with Ctrl-C.
pub(super) fn run(args: &DemoArgs, host: &Host) -> Result<(), Failure> {
    let missing = doctor::missing_for_a_mount(host);
    if !missing.is_empty() {
        let message = format!("the demo cannot mount here:\n  {}", missing.join("\n  "));
        return Err(Failure::new(Exit::CannotMount, message));
    }
    let failed = |what: &str, error: io::Error| Failure::plain(format!("{what}: {error}"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| failed("cannot start", error))?;
    let interrupted = runtime
        .block_on(watch_signals())
        .map_err(|error| failed("cannot watch signals", error))?;
    let config = DemoConfig::default();
    let keys = (config.access_key.clone(), config.secret_key.clone());
    let server = runtime
        .block_on(Server::start(config))
        .map_err(|error| failed("the demo store does not start", error))?;
    server
        .create_bucket(BUCKET)
        .map_err(|error| failed("the demo store makes no bucket", error))?;

    let places = Places::make(args.dir.as_deref())?;
    if mounts::check(&places.dir).is_ok_and(|holds_names| holds_names) {
        let dir = places.dir.display();
        tell(&format!(
            "ackfs: {dir} is not empty; the mount hides what is in it until the demo ends"
        ));
    }
    let door = args.transport.unwrap_or(Transport::Auto);
    let child = Child::mount(host, &server.endpoint(), &keys, &places, door)?;
    let dir = places.dir.clone();
    say(&format!(
        "ackfs demo: a store in this process at {} (for show, it forgets everything), mounted on {}\n",
        server.endpoint(),
        dir.display()
    ));

    let tour = Tour::new(&runtime, &server, &keys, &dir, interrupted.clone());
    let toured = tour.run(|| report(host, &dir));
    let stays = io::stdin().is_terminal() && io::stdout().is_terminal();
    if toured == Toured::Held && stays && interrupted.by().is_none() {
        stay(&dir, &server.endpoint(), &keys);
        interrupted.wait();
    }
    let ended = child.stop();
    drop(places);
    // The store outlives the mount, whose last uploads go there.
    runtime.block_on(server.stop());
    match toured {
        Toured::Failed => Err(Failure::plain("a step of the tour did not hold")),
        Toured::Interrupted(signal) => Err(Failure::new(signal, "interrupted")),
        Toured::Held => ended,
    }
}

/// What to try while it stays.
fn stay(dir: &Path, endpoint: &str, (access_key, secret_key): &(String, String)) {
    let dir = dir.display();
    say(&format!(
        "\nIt stays mounted until Ctrl-C. In another terminal try:\n\
         \n  echo hello > {dir}/mine && ls -l {dir}\
         \n  ackfs stats {dir} --watch\
         \n  AWS_ACCESS_KEY_ID={access_key} AWS_SECRET_ACCESS_KEY={secret_key} AWS_DEFAULT_REGION=us-east-1 \\\
         \n    aws --endpoint-url {endpoint} s3 ls s3://{BUCKET}/\n"
    ));
}

/// What the mount says of itself.
fn report(host: &Host, dir: &Path) -> Result<Report, String> {
    let mut client = Client::connect(&host.runtime_dirs(), dir)
        .map_err(|error| error.to_string())?
        .ok_or("the mount has no control socket")?;
    client.ask(Ask::Stats).map_err(|error| error.to_string())?;
    match client.answer() {
        Ok(Some(Answer::Stats(report))) => Ok(*report),
        other => Err(format!("the mount answered {other:?}")),
    }
}

/// Whether somebody wants the demo to end, and by which signal.
#[derive(Debug, Clone, Default)]
struct Interrupted(Arc<OnceLock<Exit>>);

impl Interrupted {
    /// The status of the signal that came.
    fn by(&self) -> Option<Exit> {
        self.0.get().copied()
    }

    fn set(&self, signal: Exit) {
        // Only the first one counts.
        let _ = self.0.set(signal);
    }

    fn wait(&self) {
        self.0.wait();
    }
}

/// From here on Ctrl-C is a wish to end, and a second one the end.
async fn watch_signals() -> io::Result<Interrupted> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let interrupted = Interrupted::default();
    let told = interrupted.clone();
    let mut next = async move || {
        tokio::select! {
            _ = terminate.recv() => Exit::Terminated,
            _ = interrupt.recv() => Exit::Interrupted,
        }
    };
    tokio::spawn(async move {
        told.set(next().await);
        // The mount sees that we are gone and ends by itself.
        std::process::exit(next().await as i32);
    });
    Ok(interrupted)
}

/// How long something took, for people.
fn took(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 0.001 => format!("{:.0} us", seconds * 1e6),
        seconds if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{seconds:.2} s"),
    }
}
