//! Whether somebody wants the demo to end.

use std::io;
use std::sync::{Arc, OnceLock};

use tokio::signal::unix::{SignalKind, signal};

use super::super::exit::Exit;

/// By which signal, if one has come.
#[derive(Debug, Clone, Default)]
pub(super) struct Interrupted(Arc<OnceLock<Exit>>);

impl Interrupted {
    /// The status of the signal that came.
    pub(super) fn by(&self) -> Option<Exit> {
        self.0.get().copied()
    }

    pub(super) fn set(&self, signal: Exit) {
        // Only the first one counts.
        let _ = self.0.set(signal);
    }

    pub(super) fn wait(&self) {
        self.0.wait();
    }
}

/// From here on Ctrl-C is a wish to end, and a second one the end.
pub(super) async fn watch_signals() -> io::Result<Interrupted> {
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
