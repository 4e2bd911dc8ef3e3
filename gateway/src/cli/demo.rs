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

use ackfs_demo::{DemoConfig, Server};

use crate::config::Host;
use crate::control::{Client, ControlReply, ControlRequest};
use crate::daemon::mountpoint;
use crate::fuse::mount::Transport;
use crate::logging::{say, tell};
use crate::metrics::Report;

use self::child::{BUCKET, Child, Places};
use self::interrupted::watch_signals;
use self::tour::{Tour, Toured};
use super::args::DemoArgs;
use super::doctor;
use super::exit::{CliError, Exit};

mod child;
mod interrupted;
mod tour;

/// Runs the command. With a terminal it ends with Ctrl-C.
pub(super) fn run(args: &DemoArgs, host: &Host) -> Result<(), CliError> {
    let missing = doctor::missing_for_a_mount(host);
    if !missing.is_empty() {
        let message = format!("the demo cannot mount here:\n  {}", missing.join("\n  "));
        return Err(CliError::new(Exit::CannotMount, message));
    }
    let failed = |what: &str, error: io::Error| CliError::plain(format!("{what}: {error}"));
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
    if mountpoint::check(&places.dir).is_ok_and(|holds_names| holds_names) {
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
        Toured::Failed => Err(CliError::plain("a step of the tour did not hold")),
        Toured::Interrupted(signal) => Err(CliError::new(signal, "interrupted")),
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
    client
        .request(ControlRequest::Stats)
        .map_err(|error| error.to_string())?;
    match client.reply() {
        Ok(Some(ControlReply::Stats(report))) => Ok(*report),
        other => Err(format!("the mount answered {other:?}")),
    }
}
