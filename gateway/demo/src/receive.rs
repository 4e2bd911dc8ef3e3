//! Receiving a body: collected, hashed while it arrives, and believed only when every checksum holds.
//!
//! Nothing is stored before the last byte and the trailer behind it are here, so a refused body leaves the old object
//! untouched. s3s checks the signature of the payload (its SHA-256, or that of each chunk) inside the stream it hands
//! out; those failures come as errors of the stream and are told apart here. Lengths, Content-MD5 and checksums are
//! this file's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::StreamExt;
use http::HeaderMap;
use s3s::dto::StreamingBlob;
use s3s::stream::ByteStream as _;
use s3s::{S3Error, S3ErrorCode, S3Result, StdError, TrailingHeaders, s3_error};

use super::checksum::{Algorithm, Hasher, Sums, hex};
use super::content::{Content, Gather};

/// What the request says about its body.
#[derive(Debug)]
pub(super) struct Claims<'a> {
    pub(super) content_length: Option<i64>,
    pub(super) content_md5: Option<&'a str>,
    /// Checksums from headers.
    pub(super) sums: Sums,
    pub(super) headers: &'a HeaderMap,
    pub(super) trailers: Option<&'a TrailingHeaders>,
    /// An algorithm to compute whatever is claimed.
    pub(super) also: Option<Algorithm>,
}

/// A body whose every claim holds.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) content: Content,
    /// MD5 in hexadecimal, the ETag of a plain object.
    pub(super) etag: String,
    /// What was computed: the claimed ones, the wanted one, or CRC64NVME.
    pub(super) sums: Sums,
    /// The algorithm the client claimed, if it did.
    pub(super) claimed: Option<Algorithm>,
}

/// Reads `body` to its end. Waits for the client.
///
/// # Errors
/// IncompleteBody if bytes are missing, BadDigest if a checksum differs, InvalidDigest or InvalidRequest if one is not
/// well formed, SignatureDoesNotMatch or XAmzContentSHA256Mismatch if the payload is not what was signed.
pub(super) async fn receive(body: Option<StreamingBlob>, claims: Claims<'_>) -> S3Result<Received> {
    let md5 = claims.content_md5.map(parse_md5).transpose()?;
    for algorithm in claims.sums.algorithms() {
        well_formed(algorithm, claims.sums.value(algorithm))?;
    }
    let trailer = trailer_algorithm(claims.headers);
    let claimed = claims.sums.algorithms().next().or(trailer);
    let mut algorithms: Vec<_> = claims
        .sums
        .algorithms()
        .chain(trailer)
        .chain(claims.also)
        .collect();
    if algorithms.is_empty() {
        algorithms.push(Algorithm::Crc64nvme);
    }
    let mut hasher = Hasher::new(algorithms);
    let announced = claims
        .content_length
        .and_then(|len| usize::try_from(len).ok());
    let content = match body {
        None => Content::default(),
        Some(mut body) => {
            let mut gather =
                Gather::new(announced.or(body.remaining_length().exact()).unwrap_or(0));
            while let Some(piece) = body.next().await {
                let piece = piece.map_err(stream_error)?;
                hasher.update(&piece);
                gather.push(&piece);
            }
            gather.finish()
        }
    };
    if announced.is_some_and(|announced| announced as u64 != content.len()) {
        return Err(incomplete());
    }

    let hashes = hasher.finish();
    if md5.is_some_and(|md5| md5 != hashes.md5) {
        return Err(s3_error!(
            BadDigest,
            "The Content-MD5 you specified did not match what we received."
        ));
    }
    let mut wanted = claims.sums;
    if let Some(algorithm) = trailer {
        let value = claims
            .trailers
            .and_then(|trailers| trailers.read(|map| header(map, algorithm.header())))
            .flatten();
        well_formed(algorithm, Some(value.as_deref().unwrap_or_default()))?;
        wanted.set(algorithm, value);
    }
    for algorithm in wanted.algorithms() {
        if wanted.value(algorithm) != hashes.sums.value(algorithm) {
            let name = algorithm.name();
            return Err(s3_error!(
                BadDigest,
                "The {name} you specified did not match the calculated checksum."
            ));
        }
    }
    Ok(Received {
        content,
        etag: hex(&hashes.md5),
        sums: hashes.sums,
        claimed,
    })
}

/// Hashes bytes that are here already; gives way to others between segments.
pub(super) async fn hash(
    content: &Content,
    algorithms: impl IntoIterator<Item = Algorithm>,
) -> (String, Sums) {
    let mut hasher = Hasher::new(algorithms);
    for segment in content.segments() {
        hasher.update(segment);
        tokio::task::yield_now().await;
    }
    let hashes = hasher.finish();
    (hex(&hashes.md5), hashes.sums)
}

/// The algorithm whose value follows the body.
fn trailer_algorithm(headers: &HeaderMap) -> Option<Algorithm> {
    let names = header(headers, "x-amz-trailer")?;
    let named = |algorithm: &Algorithm| {
        names
            .split(',')
            .any(|name| name.trim().eq_ignore_ascii_case(algorithm.header()))
    };
    Algorithm::ALL.into_iter().find(named)
}

/// A header as text.
pub(super) fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

fn parse_md5(text: &str) -> S3Result<[u8; 16]> {
    let digest = BASE64
        .decode(text)
        .ok()
        .and_then(|digest| digest.try_into().ok());
    digest.ok_or_else(|| s3_error!(InvalidDigest, "The Content-MD5 you specified was invalid."))
}

fn well_formed(algorithm: Algorithm, value: Option<&str>) -> S3Result<()> {
    if value.is_none_or(|value| algorithm.is_valid(value)) {
        return Ok(());
    }
    Err(s3_error!(
        InvalidRequest,
        "Value for {} header is invalid.",
        algorithm.header()
    ))
}

fn incomplete() -> S3Error {
    let message =
        "You did not provide the number of bytes specified by the Content-Length HTTP header";
    s3_error!(IncompleteBody, "{}", message)
}

/// The errors of s3s's streams have private types, so their names in the text must do.
fn stream_error(error: StdError) -> S3Error {
    let text = error.to_string();
    let mut refusal = if text.contains("Sha256Mismatch") {
        let code = S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into());
        let mut refusal = S3Error::with_message(
            code,
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        );
        refusal.set_status_code(http::StatusCode::BAD_REQUEST);
        refusal
    } else if text.contains("SignatureMismatch") {
        s3_error!(SignatureDoesNotMatch)
    } else {
        incomplete()
    };
    refusal.set_source(error);
    refusal
}
