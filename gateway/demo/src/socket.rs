//! A connection that tells when everything written to it has left for the kernel.
//!
//! hyper drops what it still holds when a body fails, so a body that is to be cut after exactly n bytes must not fail before
//! those are out. hyper flushes the connection whenever a body has nothing to give, and it does so after its own buffer
//! is empty: the first flush after the cut asked for one is the sign.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;

/// The connection.
pub(super) struct Socket {
    io: TokioIo<TcpStream>,
    flushes: Flushes,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").finish_non_exhaustive()
    }
}

/// The flushes of one connection. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Flushes(Arc<Mutex<State>>);

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    Wanted(Waker),
    Done,
}

impl Flushes {
    /// Ready at the first flush that begins after this was first called.
    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if matches!(*state, State::Done) {
            *state = State::Idle;
            return Poll::Ready(());
        }
        *state = State::Wanted(cx.waker().clone());
        Poll::Pending
    }

    fn flushed(&self) {
        let mut state = self.0.lock();
        if let State::Wanted(waker) = std::mem::take(&mut *state) {
            *state = State::Done;
            waker.wake();
        }
    }
}

impl Socket {
    /// Wraps a connection; the second value hears of its flushes.
    pub(super) fn new(stream: TcpStream) -> (Self, Flushes) {
        let flushes = Flushes::default();
        (
            Self {
                io: TokioIo::new(stream),
                flushes: flushes.clone(),
            },
            flushes,
        )
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.flushes.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}
