//! Bodies between hyper and s3s, all counted: requests whose rest can be read after s3s has lost interest, and answers
//! that are damaged on purpose.
//!
//! An answer that goes out while the client is still sending meets a closed connection: the client sees a broken pipe and
//! not the answer. s3s drops the body of a request that it refuses early, so the body it gets hands itself back when it is
//! dropped, and the front reads the rest before it answers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;
use s3s::{Body, StdError};

use super::faults::{Active, Effect};
use super::requests::Meter;
use super::socket::Flushes;

/// A request's body that is counted while it arrives.
#[derive(Debug)]
pub(super) struct Arriving {
    body: Incoming,
    meter: Arc<Meter>,
}

impl Arriving {
    /// Counts `body` by `meter`.
    pub(super) fn new(body: Incoming, meter: Arc<Meter>) -> Self {
        Self { body, meter }
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose()?;
        if let Some(bytes) = frame.as_ref().and_then(Frame::data_ref) {
            self.meter.received(bytes.len());
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body that is counted while it goes out.
pub(super) struct Leaving {
    body: Body,
    meter: Arc<Meter>,
}

impl Leaving {
    /// Counts `body` by `meter`.
    pub(super) fn wrap(body: Body, meter: Arc<Meter>) -> Body {
        Body::http_body_unsync(Self { body, meter })
    }
}

impl HttpBody for Leaving {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose()?;
        if let Some(bytes) = frame.as_ref().and_then(Frame::data_ref) {
            self.meter.sent(bytes.len());
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request's body that comes back when it is dropped.
#[derive(Debug)]
pub(super) struct Borrowed {
    body: Option<Arriving>,
    back: Arc<Mutex<Option<Arriving>>>,
}

/// Where a borrowed body comes back to.
#[derive(Debug)]
pub(super) struct Rest(Arc<Mutex<Option<Arriving>>>);

/// Lends a body.
pub(super) fn lend(body: Arriving) -> (Borrowed, Rest) {
    let back = Arc::new(Mutex::new(None));
    (
        Borrowed {
            body: Some(body),
            back: back.clone(),
        },
        Rest(back),
    )
}

impl Rest {
    /// Reads and drops what is left of the body. Waits for the client.
    pub(super) async fn drain(self) {
        let body = self.0.lock().take();
        if let Some(body) = body {
            drain(body).await;
        }
    }
}

/// Reads and drops a body. Waits for the client.
pub(super) async fn drain(mut body: Arriving) {
    while let Some(Ok(_)) = body.frame().await {}
}

impl HttpBody for Borrowed {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        *self.back.lock() = self.body.take();
    }
}

/// An answer's body with one fault.
pub(super) struct Damaged {
    inner: Body,
    /// Bytes that went by.
    passed: u64,
    damage: Damage,
}

enum Damage {
    /// Ends with an error once `after` bytes are out.
    Cut {
        after: u64,
        by: Arc<Active>,
        flushes: Flushes,
    },
    /// Waits once `after` bytes went by; `released` is there while it waits.
    Stall {
        after: u64,
        by: Arc<Active>,
        released: Option<Released>,
    },
    /// Differs at one place; a stall that is over differs nowhere.
    Corrupt { at: Option<u64> },
    /// Is cut or filled up to `len`.
    Resize { len: u64 },
}

type Released = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Damaged {
    /// Damages `inner` as the rule says; `len` is the length it should have, `flushes` those of its connection.
    /// Effects that mean no body leave it as it is.
    pub(super) fn wrap(inner: Body, by: &Arc<Active>, len: u64, flushes: &Flushes) -> Body {
        let damage = match by.effect() {
            Effect::CutBody { after } => Damage::Cut {
                after: *after,
                by: by.clone(),
                flushes: flushes.clone(),
            },
            Effect::StallBody { after } => Damage::Stall {
                after: *after,
                by: by.clone(),
                released: None,
            },
            Effect::CorruptBody { at } => Damage::Corrupt { at: Some(*at) },
            Effect::WrongLength { delta } => Damage::Resize {
                len: len.saturating_add_signed(*delta),
            },
            _ => return inner,
        };
        Body::http_body_unsync(Self {
            inner,
            passed: 0,
            damage,
        })
    }

    /// How many bytes may follow: `None` is any number, 0 is the end. Waits where the body is interrupted.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<u64>, StdError>> {
        let passed = self.passed;
        let room = match &mut self.damage {
            Damage::Corrupt { .. } => None,
            Damage::Resize { len } => Some(*len - passed),
            Damage::Cut { after, by, flushes } => {
                if passed == *after {
                    ready!(flushes.poll_next(cx));
                    by.fire();
                    return Poll::Ready(Err("the body was cut on request".into()));
                }
                Some(*after - passed)
            }
            Damage::Stall {
                after,
                by,
                released,
            } => {
                if passed == *after {
                    let wait = released.get_or_insert_with(|| {
                        by.fire();
                        let by = by.clone();
                        Box::pin(async move { by.released().await })
                    });
                    ready!(wait.as_mut().poll(cx));
                    self.damage = Damage::Corrupt { at: None };
                    None
                } else {
                    Some(*after - passed)
                }
            }
        };
        Poll::Ready(Ok(room))
    }

    /// Zeroes for a body that must be longer than it is, up to a bounded piece.
    fn padding(room: u64) -> Bytes {
        Bytes::from(vec![0; room.min(1 << 20) as usize])
    }
}

impl HttpBody for Damaged {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let room = ready!(self.poll_room(cx))?;
        if room == Some(0) {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx)).transpose()?;
        let mut bytes = match frame.and_then(|frame| frame.into_data().ok()) {
            Some(bytes) => bytes,
            None => match (&self.damage, room) {
                (Damage::Resize { .. }, Some(room)) => Self::padding(room),
                _ => return Poll::Ready(None),
            },
        };
        if let Some(room) = room
            && room < bytes.len() as u64
        {
            // A stalled body goes on with the rest; the others never ask for it.
            let rest = bytes.split_off(room as usize);
            let then = std::mem::take(&mut self.inner);
            self.inner = Body::http_body_unsync(Prepended {
                first: Some(rest),
                then,
            });
        }
        if let Damage::Corrupt { at: Some(at) } = self.damage
            && let Some(index) = at.checked_sub(self.passed)
            && index < bytes.len() as u64
        {
            let mut copy = BytesMut::from(&bytes[..]);
            copy[index as usize] ^= 1;
            bytes = copy.freeze();
        }
        self.passed += bytes.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

/// Bytes before a body.
struct Prepended {
    first: Option<Bytes>,
    then: Body,
}

impl HttpBody for Prepended {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
            None => Pin::new(&mut self.then).poll_frame(cx),
        }
    }
}
