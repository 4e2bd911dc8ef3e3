//! What all door threads of one mount share: the handler, the context that answers need, and the
//! connection's end.
//!
//! A door thread holds an [`Alive`]; when the last one is dropped the handler's `destroy` runs, on
//! that thread, and whoever waits for the end goes on. Responders that are still out hold the
//! connection but do not keep it alive: their answers fall into the void, which is what the kernel
//! does with them as well.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{Condvar, Mutex};
use tracing::error;

use super::abi::opcode;
use super::context::ConnectionContext;
use super::handler::Handler;
use super::reply::Responder;
use super::request::{DecodeError, Request};
use super::stats::Counts;

/// One mount's life, seen from inside.
pub(crate) struct Connection {
    handler: Arc<dyn Handler>,
    context: Arc<ConnectionContext>,
    ended: Mutex<bool>,
    end: Condvar,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("ended", &*self.ended.lock())
            .finish_non_exhaustive()
    }
}

impl Connection {
    pub(crate) fn new(handler: Arc<dyn Handler>, context: Arc<ConnectionContext>) -> Arc<Self> {
        Arc::new(Self {
            handler,
            context,
            ended: Mutex::new(false),
            end: Condvar::new(),
        })
    }

    pub(crate) fn context(&self) -> &Arc<ConnectionContext> {
        &self.context
    }

    /// Hands a request to the handler. Whatever goes wrong in there is EIO for this request and
    /// nothing for the others.
    pub(crate) fn dispatch(
        &self,
        counts: &Counts,
        opcode: u32,
        decoded: Result<Request, DecodeError>,
        responder: Responder,
    ) {
        let request = match decoded {
            Ok(request) => request,
            Err(cause) => {
                counts.undecodable.fetch_add(1, Ordering::Relaxed);
                error!(op = opcode::name(opcode), %cause, "request not understood");
                return responder.error(libc::EIO);
            }
        };
        // The handler owns its locks' consistency: parking_lot does not poison, and a panic is a
        // bug of ours that costs this one operation. The responder is dropped by the unwinding,
        // counts the panic and answers EIO.
        let handled = catch_unwind(AssertUnwindSafe(|| self.handler.handle(request, responder)));
        if handled.is_err() {
            error!(op = opcode::name(opcode), "handler panicked");
        }
    }

    /// The kernel drops references.
    pub(crate) fn forget(&self, counts: &Counts, forgets: &[(u64, u64)]) {
        let handled = catch_unwind(AssertUnwindSafe(|| {
            for (ino, count) in forgets {
                self.handler.forget(*ino, *count);
            }
        }));
        if handled.is_err() {
            counts.panics.fetch_add(1, Ordering::Relaxed);
            error!(op = "FORGET", "handler panicked");
        }
    }

    /// Waits until all door threads have ended.
    pub(crate) fn wait(&self) {
        let mut ended = self.ended.lock();
        while !*ended {
            self.end.wait(&mut ended);
        }
    }
}

/// Held by every door thread; the last one to go ends the connection.
#[derive(Debug)]
pub(crate) struct Alive(pub(crate) Arc<Connection>);

impl Drop for Alive {
    fn drop(&mut self) {
        if catch_unwind(AssertUnwindSafe(|| self.0.handler.destroy())).is_err() {
            error!("handler panicked at its end");
        }
        *self.0.ended.lock() = true;
        self.0.end.notify_all();
    }
}
