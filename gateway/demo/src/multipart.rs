//! A multipart upload on its way to become an object.
//!
//! Parts lie in the upload until it is completed or aborted; a part that is sent again replaces the earlier one.
//! Completing is a pure decision, [`Upload::assemble`]: the client's list of numbers, ETags and checksums against what
//! is here. Numbers must rise, gaps are fine, every part but the last must have the smallest size, and if a checksum
//! algorithm was agreed on at creation and it is a composite one, the list must repeat each part's value. The object's
//! content is the parts' segments in a row; its ETag is the MD5 of the parts' MD5s with their count behind it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::{CompleteMultipartUploadInput, CompletedPart};
use s3s::{S3Error, S3Result, s3_error};

use super::checksum::{Algorithm, Sums, hex, sums_of};
use super::content::Content;
use super::object::{Headers, Object, now};

/// Highest part number of S3.
pub(super) const PART_NUMBER_MAX: i32 = 10_000;

/// One part.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// MD5 in hexadecimal.
    pub(super) etag: String,
    pub(super) content: Content,
    pub(super) sums: Sums,
    pub(super) modified: SystemTime,
}

/// An upload that was created and neither completed nor aborted.
#[derive(Clone, Debug)]
pub(super) struct Upload {
    pub(super) headers: Arc<Headers>,
    /// The algorithm agreed on at creation.
    pub(super) algorithm: Option<Algorithm>,
    /// True if its value for the object is a composite one.
    pub(super) composite: bool,
    pub(super) initiated: SystemTime,
    pub(super) parts: BTreeMap<i32, Part>,
}

impl Upload {
    /// Begins an upload.
    ///
    /// # Errors
    /// InvalidRequest if the algorithm cannot give a checksum of the wanted type.
    pub(super) fn new(
        headers: Headers,
        algorithm: Option<&str>,
        kind: Option<&str>,
    ) -> S3Result<Self> {
        let algorithm = algorithm
            .map(|name| {
                Algorithm::parse(name).ok_or_else(|| {
                    s3_error!(
                        InvalidRequest,
                        "Checksum algorithm provided is unsupported."
                    )
                })
            })
            .transpose()?;
        let composite = match (algorithm, kind) {
            (None, _) => false,
            (Some(Algorithm::Crc64nvme), None) => false,
            (Some(_), None) => true,
            (Some(algorithm), Some("FULL_OBJECT")) if algorithm.can_join() => false,
            (Some(algorithm), Some("COMPOSITE")) if algorithm != Algorithm::Crc64nvme => true,
            (Some(algorithm), Some(kind)) => {
                let name = algorithm.name().to_ascii_lowercase();
                return Err(s3_error!(
                    InvalidRequest,
                    "The {kind} checksum type cannot be used with the {name} checksum algorithm."
                ));
            }
        };
        let (initiated, parts) = (now(), BTreeMap::new());
        Ok(Self {
            headers: Arc::new(headers),
            algorithm,
            composite,
            initiated,
            parts,
        })
    }

    /// Refuses a part whose checksum is not of the kind agreed on.
    ///
    /// # Errors
    /// InvalidRequest.
    pub(super) fn accepts(&self, claimed: Option<Algorithm>) -> S3Result<()> {
        let Some(expected) = self.algorithm.filter(|expected| claimed != Some(*expected)) else {
            return Ok(());
        };
        let name = |algorithm: Algorithm| algorithm.name().to_ascii_lowercase();
        let (expected, actual) = (name(expected), claimed.map_or("null".to_owned(), name));
        Err(s3_error!(
            InvalidRequest,
            "Checksum Type mismatch occurred, expected checksum Type: {expected}, actual checksum Type: {actual}"
        ))
    }

    /// The object that completing makes; `part_len_min` bounds every part but the last.
    ///
    /// # Errors
    /// MalformedXML without parts, InvalidPartOrder, InvalidPart, EntityTooSmall, InvalidRequest, BadDigest.
    pub(super) fn assemble(
        &self,
        input: &CompleteMultipartUploadInput,
        part_len_min: u64,
    ) -> S3Result<Object> {
        let listed = input
            .multipart_upload
            .as_ref()
            .and_then(|listed| listed.parts.as_deref())
            .unwrap_or_default();
        if listed.is_empty() {
            return Err(s3_error!(
                MalformedXML,
                "You must specify at least one part"
            ));
        }
        let numbers: Vec<i32> = listed
            .iter()
            .map(|part| part.part_number.unwrap_or(0))
            .collect();
        if !numbers.is_sorted_by(|a, b| a < b) {
            return Err(s3_error!(
                InvalidPartOrder,
                "The list of parts was not in ascending order. Parts must be ordered by part number."
            ));
        }
        let parts = listed
            .iter()
            .map(|listed| self.find(listed))
            .collect::<S3Result<Vec<_>>>()?;
        let (_, but_last) = parts.split_last().expect("the list was found not empty");
        if but_last
            .iter()
            .any(|part| part.content.len() < part_len_min)
        {
            return Err(s3_error!(
                EntityTooSmall,
                "Your proposed upload is smaller than the minimum allowed object size."
            ));
        }
        let content = Content::new(
            parts
                .iter()
                .flat_map(|part| part.content.segments().cloned()),
        );
        if let Some(expected) = input
            .mpu_object_size
            .filter(|len| u64::try_from(*len).ok() != Some(content.len()))
        {
            let actual = content.len();
            return Err(s3_error!(
                InvalidRequest,
                "The provided 'x-amz-mp-object-size' header value {expected} does not match what was computed: {actual}"
            ));
        }
        let sums = self.object_sums(&parts, &sums_of!(input))?;
        let mut md5 = Md5::new();
        for part in &parts {
            md5.update(&unhex(&part.etag));
        }
        Ok(Object {
            etag: format!("{}-{}", hex(&md5.finalize()), parts.len()),
            part_lens: parts.iter().map(|part| part.content.len()).collect(),
            content,
            modified: now(),
            headers: self.headers.clone(),
            sums,
        })
    }

    /// The part that an item of the client's list means.
    fn find(&self, listed: &CompletedPart) -> S3Result<&Part> {
        let number = listed.part_number.unwrap_or(0);
        let part = self.parts.get(&number).ok_or_else(invalid_part)?;
        if listed
            .e_tag
            .as_ref()
            .is_some_and(|etag| etag.value() != part.etag)
        {
            return Err(invalid_part());
        }
        let sums = sums_of!(listed);
        if sums
            .algorithms()
            .any(|algorithm| part.sums.value(algorithm) != sums.value(algorithm))
        {
            return Err(invalid_part());
        }
        if let Some(algorithm) = self
            .algorithm
            .filter(|algorithm| self.composite && sums.value(*algorithm).is_none())
        {
            let name = algorithm.name().to_ascii_lowercase();
            return Err(s3_error!(
                InvalidRequest,
                "The upload was created using a {name} checksum. The complete request must include the checksum for \
                 each part. It was missing for part {number} in the request."
            ));
        }
        Ok(part)
    }

    /// The object's checksum, compared with the one the client sent along.
    fn object_sums(&self, parts: &[&Part], claimed: &Sums) -> S3Result<Sums> {
        let algorithm = self.algorithm.unwrap_or(Algorithm::Crc64nvme);
        let mut sums = Sums {
            composite: self.composite,
            ..Sums::default()
        };
        let value = if self.composite {
            algorithm.compose(parts.iter().map(|part| part.sums.value(algorithm)))
        } else {
            algorithm.join(
                parts
                    .iter()
                    .map(|part| (part.sums.value(algorithm), part.content.len())),
            )
        };
        sums.set(algorithm, value);
        if claimed
            .algorithms()
            .any(|claim| claim != algorithm || claimed.value(claim) != sums.value(claim))
        {
            let name = algorithm.name().to_ascii_lowercase();
            return Err(s3_error!(
                BadDigest,
                "The {name} you specified did not match the calculated checksum."
            ));
        }
        Ok(sums)
    }
}

/// The algorithms to hash a part with: the agreed one, and the one that joins when none was.
pub(super) fn part_algorithm(upload: &Upload) -> Algorithm {
    upload.algorithm.unwrap_or(Algorithm::Crc64nvme)
}

/// Refuses part numbers outside 1..=10000.
///
/// # Errors
/// InvalidArgument.
pub(super) fn check_number(number: i32) -> S3Result<()> {
    if (1..=PART_NUMBER_MAX).contains(&number) {
        return Ok(());
    }
    Err(s3_error!(
        InvalidArgument,
        "Part number must be an integer between 1 and 10000, inclusive"
    ))
}

/// The error for an upload that is not there.
pub(super) fn no_such_upload() -> S3Error {
    s3_error!(
        NoSuchUpload,
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed."
    )
}

fn invalid_part() -> S3Error {
    s3_error!(
        InvalidPart,
        "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified \
         entity tag may not match the part's entity tag."
    )
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0) as u8;
    text.as_bytes()
        .chunks(2)
        .map(|pair| digit(pair[0]) << 4 | pair.get(1).map_or(0, |low| digit(*low)))
        .collect()
}
