//! The signals that end a mount, from the moment that it is begun.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::StartError;

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
