//! Reading. One GET brings one extent of one version, by `Range` and `If-Match`.
//!
//! What the store answers is checked before a byte is believed: the version, where the range
//! begins, how long it is. Then the bytes go out as they came in from the connection, uncopied.
//! When the body ends early, breaks or stalls, a new GET asks for what is missing, of the same
//! version: bytes of two versions never meet. As long as the bytes keep coming there is no limit
//! to the time a body takes; without any for the call's time limit, it ends with the error.
//!
//! The store answers with a checksum only if the range is the whole object, and the SDK checks it
//! behind the last byte. So the last chunk is held back until the check is through: a body that
//! came in one chunk is then asked for again unseen, a longer one ends with `Broken`.

use std::sync::Arc;
use std::time::Duration;

use ackfs_cache::extent::Extent;
use ackfs_cache::object::ObjectId;
use ackfs_cache::store::{
    Body, BoxFuture, Fetched, Priority, StoreError, StoreErrorKind, StoreResult,
};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::core::Core;
use super::error::chain;
use super::permits::Permit;
use super::request::backoff;

/// How long a body may bring nothing before its connection is given up.
const STALL_MAX: Duration = Duration::from_secs(20);

/// How often one body is resumed without a new byte in between.
const RESUMES_MAX: u32 = 8;

/// How often a body whose checksum was wrong is asked for again before anybody saw it.
const WRONG_SUMS_MAX: u32 = 3;

impl Core {
    /// `extent` of `id`; see [`ackfs_cache::store::ObjectStore::get`].
    pub(super) async fn get(
        self: &Arc<Self>,
        id: &ObjectId,
        extent: Extent,
        priority: Priority,
    ) -> StoreResult<Fetched> {
        if extent.is_empty() {
            return Err(
                StoreError::new(StoreErrorKind::Rejected, "an empty extent was asked for")
                    .with_key(&id.key),
            );
        }
        let opened = self.open(id, extent, priority).await?;
        Ok(Fetched {
            size: opened.size,
            body: Box::new(GetBody {
                core: Arc::clone(self),
                id: id.clone(),
                priority,
                begin: extent.offset,
                next: extent.offset,
                end: opened.end,
                summed: opened.summed,
                stream: Some((opened.stream, opened.permit)),
                resumes: 0,
                wrong_sums: 0,
                dry_since: Instant::now(),
            }),
        })
    }
}

/// Bytes on their way.
struct GetBody {
    core: Arc<Core>,
    id: ObjectId,
    priority: Priority,
    /// Where the extent begins.
    begin: u64,
    /// The byte that goes out next.
    next: u64,
    /// The first byte after the extent.
    end: u64,
    /// Whether a checksum stands behind the last byte of the stream that is open.
    summed: bool,
    /// The answer that is being read. Its permit goes back with it.
    stream: Option<(SdkBody, Permit)>,
    /// Resumes since the last byte came.
    resumes: u32,
    /// Bodies whose checksum was wrong.
    wrong_sums: u32,
    /// When the last byte came, or the body was opened.
    dry_since: Instant,
}

impl Body for GetBody {
    fn chunk(&mut self) -> BoxFuture<'_, StoreResult<Option<Bytes>>> {
        Box::pin(self.next_chunk())
    }
}

impl GetBody {
    async fn next_chunk(&mut self) -> StoreResult<Option<Bytes>> {
        while self.next < self.end {
            let Some((stream, _permit)) = &mut self.stream else {
                self.reopen().await?;
                continue;
            };
            let why = match timeout(STALL_MAX, data(stream)).await {
                Ok(Ok(Some(chunk))) => match self.take(chunk).await? {
                    Some(chunk) => return Ok(Some(chunk)),
                    None => continue,
                },
                Ok(Ok(None)) => "the body ended early".to_owned(),
                Ok(Err(why)) => format!("the body broke: {why}"),
                Err(_elapsed) => format!("no byte came within {STALL_MAX:?}"),
            };
            self.cut(why).await?;
        }
        Ok(None)
    }

    /// Lets a chunk go out; `None` if it was the last one and the checksum behind it was wrong.
    async fn take(&mut self, mut chunk: Bytes) -> StoreResult<Option<Bytes>> {
        chunk.truncate(usize::try_from(self.end - self.next).unwrap_or(usize::MAX));
        let last = self.next + chunk.len() as u64 == self.end;
        if last
            && self.summed
            && let Err(why) = self.verify().await
        {
            self.forget(&why)?;
            return Ok(None);
        }
        self.next += chunk.len() as u64;
        self.core.recorder.down(chunk.len() as u64);
        if last {
            self.stream = None;
        }
        self.resumes = 0;
        self.dry_since = Instant::now();
        Ok(Some(chunk))
    }

    /// Waits for the end of the stream, where the SDK checks the sum.
    async fn verify(&mut self) -> Result<(), String> {
        let Some((stream, _permit)) = &mut self.stream else {
            return Ok(());
        };
        match timeout(STALL_MAX, data(stream)).await {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(_surplus))) => Err("more bytes came than were announced".to_owned()),
            Ok(Err(why)) => Err(why),
            Err(_elapsed) => Err(format!("no end came within {STALL_MAX:?}")),
        }
    }

    /// Gives up a stream whose checksum was wrong.
    fn forget(&mut self, why: &str) -> StoreResult<()> {
        self.stream = None;
        self.wrong_sums += 1;
        debug!(id = ?self.id, why, "a body's checksum is wrong");
        if self.next == self.begin && self.wrong_sums < WRONG_SUMS_MAX {
            return Ok(());
        }
        Err(StoreError::new(
            StoreErrorKind::Broken,
            format!("the bytes do not have the object's checksum: {why}"),
        )
        .with_key(&self.id.key))
    }

    /// Gives up a stream that ended early, and waits a little.
    async fn cut(&mut self, why: String) -> StoreResult<()> {
        self.stream = None;
        self.resumes += 1;
        self.core.recorder.resumed();
        debug!(id = ?self.id, next = self.next, end = self.end, why, "resuming a body");
        if self.resumes > RESUMES_MAX || self.dry_since.elapsed() > self.core.config.store_timeout {
            let message = format!("{why}; gave up after {} resumes", self.resumes - 1);
            return Err(StoreError::new(StoreErrorKind::Broken, message).with_key(&self.id.key));
        }
        // The first resume goes at once: a cut connection is mostly an idle one that was closed.
        if self.resumes > 1 {
            sleep(backoff(self.resumes, false)).await;
        }
        Ok(())
    }

    /// Opens the rest.
    async fn reopen(&mut self) -> StoreResult<()> {
        let rest = Extent::between(self.next, self.end);
        let opened = self.core.open(&self.id, rest, self.priority).await?;
        if opened.end != self.end {
            return Err(StoreError::new(
                StoreErrorKind::Broken,
                format!("the same version has now {} bytes", opened.size),
            )
            .with_key(&self.id.key));
        }
        self.summed = opened.summed;
        self.stream = Some((opened.stream, opened.permit));
        Ok(())
    }
}

/// The next bytes of `stream`; `None` at its end.
async fn data(stream: &mut SdkBody) -> Result<Option<Bytes>, String> {
    loop {
        match stream.frame().await {
            None => return Ok(None),
            Some(Err(error)) => return Err(chain(error.as_ref())),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(chunk) if chunk.is_empty() => {}
                Ok(chunk) => return Ok(Some(chunk)),
                Err(_trailers) => {}
            },
        }
    }
}
