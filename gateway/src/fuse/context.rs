//! What a request needs of its connection until it is answered. Both ways back to the kernel hold it, so
//! it knows neither of them, nor who serves the request.

use std::sync::Arc;

use super::interrupt::Interrupts;
use super::telemetry::Telemetry;

/// One connection as its answers see it.
#[derive(Debug)]
pub(crate) struct ConnectionContext {
    pub(crate) telemetry: Telemetry,
    pub(crate) interrupts: Arc<Interrupts>,
}

impl ConnectionContext {
    pub(crate) fn new(telemetry: Telemetry) -> Arc<Self> {
        Arc::new(Self {
            telemetry,
            interrupts: Arc::default(),
        })
    }
}
