//! A mount's life after it serves, to its end. It waits for four things and does nothing else: a
//! signal, a question on the control socket, the end of the kernel's connection, and, while it
//! drains, time.
//!
//! ```text
//! SIGTERM, SIGINT    writers refused -> drained -> unmounted (busy: detached) -> drained -> ended
//! ackfs umount       drained (too long: told so, and everything goes on)
//!                    -> unmounted (busy: told so, and everything goes on) -> drained -> ended
//! umount(8)          connection ended -> drained -> ended
//! --force, or a second signal: no more waiting at any of these
//! ```
//! A signal before it serves ends the start at once, see [`Daemon::start`].
//!
//! A drain that takes longer than `--drain-timeout` ends with what is not saved, by name.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval_at, sleep_until, timeout};

use crate::control::{
    ControlReply, ControlRequest, DrainProgress, PendingRequest, UnsavedFile, files,
};
use crate::metrics::Report;

use super::description::MountDescription;
use super::serve::{ServedMount, Serving};
use super::signals::Signals;

/// How often a drain says how far it is.
const PROGRESS: Duration = Duration::from_secs(3);
/// How long the end waits for what is not about anybody's bytes.
const GIVE_UP: Duration = Duration::from_secs(1);

/// How a mount ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountOutcome {
    /// What is not in the store.
    pub unsaved: Vec<UnsavedFile>,
    /// Files that nobody had open any more and that could not be saved while the mount ended; the
    /// log has each.
    pub lost: u64,
}

impl MountOutcome {
    /// Whether every byte is in the store.
    pub fn is_clean(&self) -> bool {
        self.unsaved.is_empty() && self.lost == 0
    }
}

/// The end of the kernel's connection, which can be waited for again and again.
#[derive(Debug)]
struct ConnectionEnd(Option<oneshot::Receiver<()>>);

impl ConnectionEnd {
    /// Waits until the kernel's connection has ended and nobody serves it any more.
    async fn wait(&mut self) {
        if let Some(told) = &mut self.0 {
            // A watcher that could not start says so by its absence.
            let _ = told.await;
            self.0 = None;
        }
    }
}

/// What makes a mount end.
enum EndCause {
    Signal(&'static str),
    /// Nothing is mounted any more.
    Unmounted,
    /// PendingRequest for with `--force`.
    Forced,
}

/// How a drain ended.
enum DrainResult {
    /// Nothing is dirty.
    Saved,
    /// The time was up.
    TooLong,
    /// Cut short.
    Signal(&'static str),
    /// Cut short.
    Forced,
}

/// A mount that serves.
#[derive(Debug)]
pub struct Daemon {
    // Dropped in this order; the runtime last, so that tasks outlive what they serve.
    serving: Serving,
    requests: mpsc::Receiver<PendingRequest>,
    /// Those who asked for the unmount and wait for its end.
    waiting: Vec<mpsc::Sender<ControlReply>>,
    signals: Signals,
    control: Option<JoinHandle<()>>,
    description: MountDescription,
    drain_timeout: Duration,
    runtime: Runtime,
}

impl Daemon {
    pub(super) fn new(
        served: ServedMount,
        signals: Signals,
        drain_timeout: Duration,
        runtime: Runtime,
    ) -> Self {
        Self {
            serving: served.serving,
            requests: served.requests,
            waiting: Vec::new(),
            signals,
            control: served.control,
            description: served.description,
            drain_timeout,
            runtime,
        }
    }

    /// What the mount is.
    pub fn description(&self) -> &MountDescription {
        &self.description
    }

    /// The counters now.
    pub fn report(&self) -> Report {
        self.serving.report(&self.description)
    }

    /// Stays with the mount to its end, which comes by a signal, by `ackfs umount` or by umount(8),
    /// and gives how it ended. Progress goes to the log.
    pub fn run(mut self) -> MountOutcome {
        let mut ended = watch(&self.serving);
        let runtime = self.runtime.handle().clone();
        let end = runtime.block_on(async {
            let cause = self.serve(&mut ended).await;
            self.finish(cause, &mut ended).await
        });
        self.close(end)
    }

    /// Ends the mount in order, as SIGTERM does.
    pub fn stop(mut self) -> MountOutcome {
        let mut ended = watch(&self.serving);
        let runtime = self.runtime.handle().clone();
        let end = runtime.block_on(self.finish(EndCause::Signal("none"), &mut ended));
        self.close(end)
    }

    /// Answers questions until the mount is to end.
    async fn serve(&mut self, ended: &mut ConnectionEnd) -> EndCause {
        loop {
            let pending = tokio::select! {
                name = self.signals.next() => return EndCause::Signal(name),
                () = ended.wait() => return EndCause::Unmounted,
                Some(pending) = self.requests.recv() => pending,
            };
            match pending.request {
                ControlRequest::Unmount { force: true } => {
                    self.waiting.push(pending.replies);
                    return EndCause::Forced;
                }
                ControlRequest::Unmount { force: false } => {
                    self.waiting.push(pending.replies);
                    if let Some(cause) = self.unmount_if_idle().await {
                        return cause;
                    }
                }
                _ => self.answer(pending),
            }
        }
    }

    /// Drains for `ackfs umount`, and unmounts. What is not saved or in use stays mounted, so that
    /// nothing is lost and nobody cut off; whoever asked is told, and everything goes on.
    async fn unmount_if_idle(&mut self) -> Option<EndCause> {
        let answer = match self.drain().await {
            DrainResult::Saved => match self.unmount_idle().await {
                Ok(true) => return Some(EndCause::Unmounted),
                Ok(false) => failed("in use: close the files that are open in it, or add --force"),
                Err(why) => failed(&why),
            },
            DrainResult::TooLong => ControlReply::StillMounted {
                unsaved: self.unsaved(),
            },
            DrainResult::Signal(name) => return Some(EndCause::Signal(name)),
            DrainResult::Forced => return Some(EndCause::Forced),
        };
        for answers in self.waiting.drain(..) {
            let _ = answers.try_send(answer.clone());
        }
        None
    }

    fn answer(&self, pending: PendingRequest) {
        let answer = match pending.request {
            ControlRequest::Status => ControlReply::Status(self.description.status()),
            ControlRequest::Stats => ControlReply::Stats(Box::new(self.report())),
            ControlRequest::Metrics => ControlReply::Metrics {
                text: self.serving.page(),
            },
            ControlRequest::Unmount { .. } => return,
        };
        // The channel is fresh and has room; whoever hung up wants no answer.
        let _ = pending.replies.try_send(answer);
    }

    async fn finish(&mut self, cause: EndCause, ended: &mut ConnectionEnd) -> MountOutcome {
        let lost_before = self.serving.rooms.fs.stats().lost_files;
        self.serving.rooms.fs.refuse_writers();
        let patient = match cause {
            EndCause::Signal(signal) => {
                tracing::info!(signal, "ending: saving what is dirty, then unmounting");
                let drained = self.drain().await;
                let cut = matches!(drained, DrainResult::Signal(_) | DrainResult::Forced);
                self.unmount(cut).await;
                matches!(drained, DrainResult::Saved)
            }
            EndCause::Forced => {
                self.unmount(true).await;
                false
            }
            EndCause::Unmounted => {
                tracing::info!("unmounted");
                true
            }
        };
        if patient {
            // Files that are open still, in a directory that is detached, hold it back. What they
            // or a RELEASE dirtied since the first drain is saved by the second.
            let _ = timeout(GIVE_UP, ended.wait()).await;
            self.drain().await;
        }
        let unsaved = self.unsaved();
        let lost = self
            .serving
            .rooms
            .fs
            .stats()
            .lost_files
            .saturating_sub(lost_before);
        if let Some(disk) = &self.serving.rooms.disk {
            // What is not on disk by then is fetched again one day.
            let _ = timeout(GIVE_UP, disk.sync()).await;
        }
        if let Some(control) = self.control.take() {
            // Takes the socket's file along: the directory is free for another mount.
            control.abort();
            let _ = control.await;
        }
        for answers in self.waiting.drain(..) {
            let unsaved = unsaved.clone();
            let _ = answers.try_send(ControlReply::Unmounted { unsaved });
            // Closed by the other side when the answer is on its way.
            let _ = timeout(GIVE_UP, answers.closed()).await;
        }
        MountOutcome { unsaved, lost }
    }

    /// Gives the threads back. Publishes that are still under way are given up.
    fn close(self, end: MountOutcome) -> MountOutcome {
        let Self {
            serving, runtime, ..
        } = self;
        drop(serving);
        runtime.shutdown_timeout(GIVE_UP);
        end
    }

    /// Saves what is dirty, for as long as `--drain-timeout` allows.
    async fn drain(&mut self) -> DrainResult {
        let deadline = Instant::now() + self.drain_timeout;
        let mut progress = interval_at(Instant::now() + PROGRESS, PROGRESS);
        // A task of its own: a publish must not be dropped half-way, even if this is.
        let fs = self.serving.rooms.fs.clone();
        let mut drain = tokio::spawn(async move { fs.drain().await });
        let cut = loop {
            tokio::select! {
                _ = &mut drain => return DrainResult::Saved,
                () = sleep_until(deadline) => {
                    let left = files(self.unsaved().len());
                    tracing::error!(limit = ?self.drain_timeout, "time is up; {left} not saved");
                    break DrainResult::TooLong;
                }
                _ = progress.tick() => {
                    let left = self.progress();
                    tracing::info!(files = left.files, bytes = left.bytes, "draining: {left}");
                    for answers in &self.waiting {
                        let _ = answers.try_send(ControlReply::Progress(left));
                    }
                }
                signal = self.signals.next() => {
                    tracing::warn!(signal, "a signal cuts the drain short");
                    break DrainResult::Signal(signal);
                }
                Some(pending) = self.requests.recv() => match pending.request {
                    ControlRequest::Unmount { force } => {
                        self.waiting.push(pending.replies);
                        if force {
                            break DrainResult::Forced;
                        }
                    }
                    _ => self.answer(pending),
                },
            }
        };
        drain.abort();
        cut
    }

    fn progress(&self) -> DrainProgress {
        let unsaved = self.serving.rooms.fs.unsaved();
        DrainProgress {
            files: unsaved.len() as u64,
            bytes: self.serving.rooms.writer.stats().dirty_bytes,
        }
    }

    fn unsaved(&self) -> Vec<UnsavedFile> {
        let unsaved = self.serving.rooms.fs.unsaved().into_iter();
        unsaved
            .map(|file| UnsavedFile {
                key: file.key,
                size: file.size,
                cause: file.cause,
            })
            .collect()
    }

    /// Whether nothing is mounted any more; `Err` says why it cannot be taken away.
    async fn unmount_idle(&self) -> Result<bool, String> {
        let mounted = self.serving.mounted.clone();
        let unmounted = tokio::task::spawn_blocking(move || mounted.unmount_idle()).await;
        let unmounted = unmounted.map_err(|error| error.to_string())?;
        unmounted.map_err(|error| error.to_string())
    }

    async fn unmount(&self, force: bool) {
        let mounted = self.serving.mounted.clone();
        let unmounted = tokio::task::spawn_blocking(move || mounted.unmount(force)).await;
        match unmounted {
            Ok(Ok(how)) => tracing::debug!(?how, "unmounted"),
            Ok(Err(error)) => tracing::error!(%error, "the mount stays behind"),
            Err(error) => tracing::error!(%error, "the unmount failed"),
        }
    }
}

fn failed(why: &str) -> ControlReply {
    ControlReply::Failed {
        message: why.to_owned(),
    }
}

/// Ready when the kernel's connection has ended and nobody serves it any more.
fn watch(serving: &Serving) -> ConnectionEnd {
    let (told, ended) = oneshot::channel();
    let mounted = Arc::clone(&serving.mounted);
    // Not a blocking task of the runtime: its end would have to wait for this one.
    let watcher = std::thread::Builder::new().name("mount-end".into());
    let watching = watcher.spawn(move || {
        mounted.wait();
        let _ = told.send(());
    });
    if let Err(error) = watching {
        tracing::error!(%error, "no thread to wait for the unmount; ending");
    }
    ConnectionEnd(Some(ended))
}
