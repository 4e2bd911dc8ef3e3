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
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::types::ChecksumMode;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::core::{Core, same_etag};
use super::error::{Failure, Retry, chain};
use super::permits::Permit;
use super::request::{Call, backoff};
use super::stats::Kind;

/// How long a body may bring nothing before its connection is given up.
const STALL_MAX: Duration = Duration::from_secs(20);

/// How often one body is resumed without a new byte in between.
const RESUMES_MAX: u32 = 8;

/// How often a body whose checksum was wrong is asked for again before anybody saw it.
const WRONG_SUMS_MAX: u32 = 3;

/// An answer that was checked.
struct Opened {
    stream: SdkBody,
    permit: Permit,
    /// The object's whole size.
    size: u64,
    /// The first byte after the last one that will come.
    end: u64,
    /// Whether a checksum of the whole object stands behind the last byte.
    summed: bool,
}

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

    /// Sends the GET and checks its answer.
    async fn open(&self, id: &ObjectId, extent: Extent, priority: Priority) -> StoreResult<Opened> {
        let call = Call {
            priority,
            ..self.call(Kind::Get, &id.key)
        };
        let ended = self
            .run_holding(call, |permit| async move {
                let output = self
                    .client
                    .get_object()
                    .bucket(&self.config.bucket)
                    .key(id.key.as_str())
                    .set_range(range_of(extent))
                    .if_match(id.etag.as_str())
                    .checksum_mode(ChecksumMode::Enabled)
                    .set_request_payer(self.payer())
                    .send()
                    .await
                    .map_err(Failure::from_sdk)?;
                check(output, id, extent, permit)
            })
            .await;
        match ended.result {
            Ok(opened) => Ok(opened),
            // The object is shorter than where the extent begins. The caller knows its size, so
            // it is another version; a store that looks at the range first says it this way.
            Err(failure) if failure.status == Some(416) => {
                let now = self.head(&id.key).await?;
                Err(if same_etag(now.etag.as_str(), id.etag.as_str()) {
                    failure.error
                } else {
                    StoreError::new(
                        StoreErrorKind::Changed,
                        format!("the object is now {} with {} bytes", now.etag, now.size),
                    )
                    .with_key(&id.key)
                })
            }
            Err(failure) => Err(failure.error),
        }
    }
}

/// Believes an answer only if it is what was asked for.
#[expect(
    clippy::result_large_err,
    reason = "a failure is moved a few times for each request that failed, no more"
)]
fn check(
    output: GetObjectOutput,
    id: &ObjectId,
    extent: Extent,
    permit: Permit,
) -> Result<Opened, Failure> {
    let wrong = |message: String| {
        let message = format!("the answer does not fit what was asked: {message}");
        Failure::new(StoreErrorKind::Broken, Retry::Few, message)
    };
    if let Some(etag) = &output.e_tag
        && !same_etag(etag, id.etag.as_str())
    {
        return Err(Failure::new(
            StoreErrorKind::Changed,
            Retry::Never,
            format!("the object is now {etag}; the endpoint ignores If-Match"),
        ));
    }
    let len = u64::try_from(output.content_length.unwrap_or(-1))
        .map_err(|_negative| wrong("no Content-Length".to_owned()))?;
    let (begin, size) = match output.content_range.as_deref() {
        Some(range) => {
            parse_range(range).ok_or_else(|| wrong(format!("Content-Range is {range:?}")))?
        }
        // Without a range the answer is the whole object; its beginning will do.
        None => (0, len),
    };
    let end = extent.end().min(size);
    let whole = begin == 0 && len == size;
    let fits = begin == extent.offset && end > begin && begin + len == end;
    if !(fits || whole && extent.offset == 0 && end > 0) {
        return Err(wrong(format!(
            "{len} bytes from {begin} of {size} in place of {extent:?}"
        )));
    }
    let summed = whole
        && end == size
        && [
            &output.checksum_crc64_nvme,
            &output.checksum_crc32,
            &output.checksum_crc32_c,
            &output.checksum_sha1,
            &output.checksum_sha256,
        ]
        .iter()
        .any(|sum| sum.is_some());
    Ok(Opened {
        stream: output.body.into_inner(),
        permit,
        size,
        end,
        summed,
    })
}

/// The `Range` header; none for the whole object, because only then a checksum comes with it.
fn range_of(extent: Extent) -> Option<String> {
    let whole = extent.offset == 0 && extent.end() == u64::MAX;
    (!whole).then(|| format!("bytes={}-{}", extent.offset, extent.end() - 1))
}

/// The first byte and the whole size in `bytes 0-9/100`.
fn parse_range(range: &str) -> Option<(u64, u64)> {
    let (span, size) = range.strip_prefix("bytes ")?.split_once('/')?;
    let (begin, end) = span.split_once('-')?;
    let (begin, end, size): (u64, u64, u64) =
        (begin.parse().ok()?, end.parse().ok()?, size.parse().ok()?);
    (begin <= end && end < size).then_some((begin, size))
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
                Ok(Ok(Some(mut chunk))) => {
                    chunk.truncate(usize::try_from(self.end - self.next).unwrap_or(usize::MAX));
                    let last = self.next + chunk.len() as u64 == self.end;
                    if last
                        && self.summed
                        && let Err(why) = self.verify().await
                    {
                        self.forget(&why)?;
                        continue;
                    }
                    self.next += chunk.len() as u64;
                    self.core.recorder.down(chunk.len() as u64);
                    if self.next == self.end {
                        self.stream = None;
                    }
                    self.resumes = 0;
                    self.dry_since = Instant::now();
                    return Ok(Some(chunk));
                }
                Ok(Ok(None)) => "the body ended early".to_owned(),
                Ok(Err(why)) => format!("the body broke: {why}"),
                Err(_elapsed) => format!("no byte came within {STALL_MAX:?}"),
            };
            self.cut(why).await?;
        }
        Ok(None)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sound_content_ranges_are_read() {
        assert_eq!(parse_range("bytes 0-9/100"), Some((0, 100)));
        assert_eq!(parse_range("bytes 99-99/100"), Some((99, 100)));
        for wrong in [
            "",
            "bytes",
            "bytes 0-9",
            "bytes 0-9/*",
            "bytes 9-0/100",
            "bytes 0-100/100",
            "bytes */100",
            "0-9/100",
            "bytes 0-99999999999999999999/100",
        ] {
            assert_eq!(parse_range(wrong), None, "{wrong}");
        }
    }
}
