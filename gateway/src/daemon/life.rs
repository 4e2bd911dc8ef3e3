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

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{Instant, interval_at, sleep_until, timeout};

use crate::control::{Answer, Ask, Asked, Progress, UnsavedFile, files};

use super::{Daemon, Parts, StartError};

/// How often a drain says how far it is.
const PROGRESS: Duration = Duration::from_secs(3);
/// How long the end waits for what is not about anybody's bytes.
const GIVE_UP: Duration = Duration::from_secs(1);

/// How a mount ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct End {
    /// What is not in the store.
    pub unsaved: Vec<UnsavedFile>,
    /// Files that nobody had open any more and that could not be saved while the mount ended; the
    /// log has each.
    pub lost: u64,
}

impl End {
    /// Whether every byte is in the store.
    pub fn is_clean(&self) -> bool {
        self.unsaved.is_empty() && self.lost == 0
    }
}

/// The signals that end a mount. They are caught from the moment this is made.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for `work`, unless a signal comes first: then nobody waits for it any more.
    pub(super) async fn unless<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, StartError> {
        tokio::select! {
            biased;
            signal = self.next() => Err(StartError::Stopped(signal)),
            done = work => Ok(done),
        }
    }

    /// Waits for a signal and gives its name.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// The end of the kernel's connection, which can be waited for again and again.
#[derive(Debug)]
struct Ended(Option<oneshot::Receiver<()>>);

impl Ended {
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
enum Cause {
    Signal(&'static str),
    /// Nothing is mounted any more.
    Unmounted,
    /// Asked for with `--force`.
    Forced,
}

/// How a drain ended.
enum Drained {
    /// Nothing is dirty.
    Saved,
    /// The time was up.
    TooLong,
    /// Cut short.
    Signal(&'static str),
    /// Cut short.
    Forced,
}

impl Daemon {
    /// Stays with the mount to its end, which comes by a signal, by `ackfs umount` or by umount(8),
    /// and gives how it ended. Progress goes to the log.
    pub fn run(mut self) -> End {
        let mut ended = watch(&self.parts);
        let runtime = self.runtime.handle().clone();
        let end = runtime.block_on(async {
            let cause = self.serve(&mut ended).await;
            self.finish(cause, &mut ended).await
        });
        self.close(end)
    }

    /// Ends the mount in order, as SIGTERM does.
    pub fn stop(mut self) -> End {
        let mut ended = watch(&self.parts);
        let runtime = self.runtime.handle().clone();
        let end = runtime.block_on(self.finish(Cause::Signal("none"), &mut ended));
        self.close(end)
    }

    /// Answers questions until the mount is to end.
    async fn serve(&mut self, ended: &mut Ended) -> Cause {
        loop {
            let asked = tokio::select! {
                name = self.signals.next() => return Cause::Signal(name),
                () = ended.wait() => return Cause::Unmounted,
                Some(asked) = self.asked.recv() => asked,
            };
            match asked.ask {
                Ask::Unmount { force: true } => {
                    self.waiting.push(asked.answers);
                    return Cause::Forced;
                }
                Ask::Unmount { force: false } => {
                    self.waiting.push(asked.answers);
                    if let Some(cause) = self.unmount_if_idle().await {
                        return cause;
                    }
                }
                _ => self.answer(asked),
            }
        }
    }

    /// Drains for `ackfs umount`, and unmounts. What is not saved or in use stays mounted, so that
    /// nothing is lost and nobody cut off; whoever asked is told, and everything goes on.
    async fn unmount_if_idle(&mut self) -> Option<Cause> {
        let answer = match self.drain().await {
            Drained::Saved => match self.unmount_idle().await {
                Ok(true) => return Some(Cause::Unmounted),
                Ok(false) => failed("in use: close the files that are open in it, or add --force"),
                Err(why) => failed(&why),
            },
            Drained::TooLong => Answer::StillMounted {
                unsaved: self.unsaved(),
            },
            Drained::Signal(name) => return Some(Cause::Signal(name)),
            Drained::Forced => return Some(Cause::Forced),
        };
        for answers in self.waiting.drain(..) {
            let _ = answers.try_send(answer.clone());
        }
        None
    }

    fn answer(&self, asked: Asked) {
        let answer = match asked.ask {
            Ask::Status => Answer::Status(self.ready.status()),
            Ask::Stats => Answer::Stats(Box::new(self.report())),
            Ask::Metrics => Answer::Metrics {
                text: self.parts.page(),
            },
            Ask::Unmount { .. } => return,
        };
        // The channel is fresh and has room; whoever hung up wants no answer.
        let _ = asked.answers.try_send(answer);
    }

    async fn finish(&mut self, cause: Cause, ended: &mut Ended) -> End {
        let lost_before = self.parts.fs.stats().lost_files;
        self.parts.fs.refuse_writers();
        let patient = match cause {
            Cause::Signal(signal) => {
                tracing::info!(signal, "ending: saving what is dirty, then unmounting");
                let drained = self.drain().await;
                let cut = matches!(drained, Drained::Signal(_) | Drained::Forced);
                self.unmount(cut).await;
                matches!(drained, Drained::Saved)
            }
            Cause::Forced => {
                self.unmount(true).await;
                false
            }
            Cause::Unmounted => {
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
        let lost = self.parts.fs.stats().lost_files.saturating_sub(lost_before);
        if let Some(disk) = &self.parts.disk {
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
            let _ = answers.try_send(Answer::Unmounted { unsaved });
            // Closed by the other side when the answer is on its way.
            let _ = timeout(GIVE_UP, answers.closed()).await;
        }
        End { unsaved, lost }
    }

    /// Gives the threads back. Publishes that are still under way are given up.
    fn close(self, end: End) -> End {
        let Self { parts, runtime, .. } = self;
        drop(parts);
        runtime.shutdown_timeout(GIVE_UP);
        end
    }

    /// Saves what is dirty, for as long as `--drain-timeout` allows.
    async fn drain(&mut self) -> Drained {
        let deadline = Instant::now() + self.drain_timeout;
        let mut progress = interval_at(Instant::now() + PROGRESS, PROGRESS);
        // A task of its own: a publish must not be dropped half-way, even if this is.
        let fs = self.parts.fs.clone();
        let mut drain = tokio::spawn(async move { fs.drain().await });
        let cut = loop {
            tokio::select! {
                _ = &mut drain => return Drained::Saved,
                () = sleep_until(deadline) => {
                    let left = files(self.unsaved().len());
                    tracing::error!(limit = ?self.drain_timeout, "time is up; {left} not saved");
                    break Drained::TooLong;
                }
                _ = progress.tick() => {
                    let left = self.progress();
                    tracing::info!(files = left.files, bytes = left.bytes, "draining: {left}");
                    for answers in &self.waiting {
                        let _ = answers.try_send(Answer::Progress(left));
                    }
                }
                signal = self.signals.next() => {
                    tracing::warn!(signal, "a signal cuts the drain short");
                    break Drained::Signal(signal);
                }
                Some(asked) = self.asked.recv() => match asked.ask {
                    Ask::Unmount { force } => {
                        self.waiting.push(asked.answers);
                        if force {
                            break Drained::Forced;
                        }
                    }
                    _ => self.answer(asked),
                },
            }
        };
        drain.abort();
        cut
    }

    fn progress(&self) -> Progress {
        let unsaved = self.parts.fs.unsaved();
        Progress {
            files: unsaved.len() as u64,
            bytes: self.parts.writer.stats().dirty_bytes,
        }
    }

    fn unsaved(&self) -> Vec<UnsavedFile> {
        let unsaved = self.parts.fs.unsaved().into_iter();
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
        let mounted = self.parts.mounted.clone();
        let unmounted = tokio::task::spawn_blocking(move || mounted.unmount_idle()).await;
        let unmounted = unmounted.map_err(|error| error.to_string())?;
        unmounted.map_err(|error| error.to_string())
    }

    async fn unmount(&self, force: bool) {
        let mounted = self.parts.mounted.clone();
        let unmounted = tokio::task::spawn_blocking(move || mounted.unmount(force)).await;
        match unmounted {
            Ok(Ok(how)) => tracing::debug!(?how, "unmounted"),
            Ok(Err(error)) => tracing::error!(%error, "the mount stays behind"),
            Err(error) => tracing::error!(%error, "the unmount failed"),
        }
    }
}

fn failed(why: &str) -> Answer {
    Answer::Failed {
        message: why.to_owned(),
    }
}

/// Ready when the kernel's connection has ended and nobody serves it any more.
fn watch(parts: &Parts) -> Ended {
    let (told, ended) = oneshot::channel();
    let mounted = Arc::clone(&parts.mounted);
    // Not a blocking task of the runtime: its end would have to wait for this one.
    let watcher = std::thread::Builder::new().name("mount-end".into());
    let watching = watcher.spawn(move || {
        mounted.wait();
        let _ = told.send(());
    });
    if let Err(error) = watching {
        tracing::error!(%error, "no thread to wait for the unmount; ending");
    }
    Ended(Some(ended))
}
