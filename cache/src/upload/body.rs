//! The bytes of a request to the store: slices of the buffers that hold them, zeros for holes, and what
//! is read for it, into memory that is set aside for that: staged bytes, and those of the base that lie
//! between changed ones. Nothing is copied that is in memory already. A part that is larger than what is
//! set aside is read while it is sent.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::budget::{Grant, Share};
use crate::dirty::base::BaseReader;
use crate::dirty::buffer::{PaidMemory, PieceBytes};
use crate::dirty::file::WrittenFile;
use crate::dirty::{WriteError, Writer};
use crate::extent::{Extent, Slice};
use crate::object::ObjectId;
use crate::store::{Later, PartBytes, Priority, StoreError, StoreErrorKind, StoreResult};

/// Gaps of the base that are so close are fetched by one request, with what lies between them: that is
/// sooner there than the answer to a second request.
const GAPS_NEAR: u64 = 256 << 10;

/// Of a part that is read while it is sent, so much at a time.
const DEFERRED_STEP: u64 = 1 << 20;

/// A body, and the memory that it keeps in use while it is sent.
#[derive(Debug, Default)]
pub(crate) struct RequestBody {
    /// In order, without gaps.
    pub(crate) bytes: Vec<Bytes>,
    /// In bytes.
    pub(crate) len: u64,
    memory: BodyMemory,
}

/// The body of a part.
#[derive(Debug)]
pub(crate) struct PartContent {
    /// In order, without gaps.
    pub(crate) pieces: Vec<PartBytes>,
    /// In bytes.
    pub(crate) len: u64,
    memory: BodyMemory,
}

/// Bytes that were read to be sent, and the memory that they take.
struct ReadBack {
    bytes: Bytes,
    _grant: Grant,
}

impl AsRef<[u8]> for ReadBack {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Memory that goes back when this is dropped.
#[derive(Debug, Default)]
struct BodyMemory {
    paid: Vec<Arc<PaidMemory>>,
    readback: Option<Grant>,
}

/// Where each extent of a body comes from.
type ByteOrigins = Vec<(Extent, PieceBytes)>;

/// Holes are sent as slices of this. It is never written, so it takes no memory of its own.
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

fn push_zeros(bytes: &mut Vec<Bytes>, mut len: u64) {
    while len > 0 {
        let now = len.min(ZEROS.len() as u64);
        bytes.push(Bytes::from_static(&ZEROS[..now as usize]));
        len -= now;
    }
}

/// How many bytes have to be read before `found` can be sent, from the staging file and from the base.
pub(super) fn bytes_to_read(found: &[(Extent, PieceBytes)]) -> u64 {
    let staged = found.iter().map(|(extent, found)| match found {
        PieceBytes::Staged { .. } => extent.len,
        _ => 0,
    });
    let gaps = base_gaps(found);
    staged.sum::<u64>() + gaps.iter().map(|(gap, _)| gap.len).sum::<u64>()
}

/// The extents of the base that are to be fetched, those that are near each other as one.
fn base_gaps(found: &[(Extent, PieceBytes)]) -> Vec<(Extent, &ObjectId)> {
    let mut gaps: Vec<(Extent, &ObjectId)> = Vec::new();
    for (extent, found) in found {
        let PieceBytes::Base(id) = found else {
            continue;
        };
        match gaps.last_mut() {
            Some((gap, _)) if extent.offset - gap.end() <= GAPS_NEAR => {
                *gap = Extent::between(gap.offset, extent.end());
            }
            _ => gaps.push((*extent, id)),
        }
    }
    gaps
}

/// All of `extent` of the base `id`. Waits for the disk and the store.
async fn read_base(writer: &Writer, id: &ObjectId, extent: Extent) -> Result<Bytes, WriteError> {
    let mut all = BytesMut::with_capacity(extent.len as usize);
    let mut reader = BaseReader::new(writer, id, extent, Priority::Upload);
    while let Some(bytes) = reader.chunk().await? {
        all.extend_from_slice(&bytes);
    }
    writer.count_refetched(extent.len);
    Ok(all.freeze())
}

impl WrittenFile {
    /// The body that `found` makes. Waits for memory to read what is not in memory, for the disk, and
    /// for the store that has the base.
    ///
    /// # Errors
    /// `Staging` if the disk fails; the store's, `Changed` if the base is gone; `Lost`.
    pub(crate) async fn request_body(&self, found: ByteOrigins) -> Result<RequestBody, WriteError> {
        let writer = &self.writer;
        let mut body = RequestBody::default();
        let to_read = bytes_to_read(&found);
        if to_read > 0 {
            body.memory.readback = Some(writer.memory.readback.take(to_read).await);
        }
        let mut gaps = Vec::new();
        for (gap, id) in base_gaps(&found) {
            gaps.push((gap, read_base(writer, id, gap).await?));
        }
        for (extent, found) in found {
            body.len += extent.len;
            match found {
                PieceBytes::Zeros => push_zeros(&mut body.bytes, extent.len),
                PieceBytes::Memory { bytes, paid } => {
                    body.bytes.push(bytes);
                    body.memory.paid.push(paid);
                }
                PieceBytes::Staged { staged, skip } => {
                    let read = staged.read_bytes(skip, extent.len as usize).await;
                    body.bytes.push(read.map_err(WriteError::Staging)?);
                }
                PieceBytes::Base(_) => {
                    let gap = gaps.iter().find(|(gap, _)| gap.contains(extent));
                    let (gap, bytes) = gap.expect("every extent of the base is in a gap");
                    let skip = extent.offset - gap.offset;
                    body.bytes.push(Slice::slice(bytes, skip, extent.len));
                }
                PieceBytes::Sent => return Err(WriteError::Lost),
            }
        }
        Ok(body)
    }

    /// The body of a part that `found` makes. If more of it is to be read than is set aside for that, as
    /// of the large parts at the end of a huge object, it is read while it is sent. Waits as
    /// [`WrittenFile::request_body`].
    ///
    /// # Errors
    /// As [`WrittenFile::request_body`].
    pub(crate) async fn part_body(
        self: &Arc<Self>,
        found: ByteOrigins,
    ) -> Result<PartContent, WriteError> {
        let readback = &self.writer.memory.readback;
        if bytes_to_read(&found) <= readback.bound() {
            let body = self.request_body(found).await?;
            return Ok(PartContent {
                pieces: body.bytes.into_iter().map(PartBytes::Here).collect(),
                len: body.len,
                memory: body.memory,
            });
        }
        let mut part = PartContent {
            pieces: Vec::new(),
            len: 0,
            memory: BodyMemory::default(),
        };
        for (extent, found) in found {
            part.len += extent.len;
            match found {
                PieceBytes::Zeros => {
                    let mut zeros = Vec::new();
                    push_zeros(&mut zeros, extent.len);
                    part.pieces.extend(zeros.into_iter().map(PartBytes::Here));
                }
                PieceBytes::Memory { bytes, paid } => {
                    part.pieces.push(PartBytes::Here(bytes));
                    part.memory.paid.push(paid);
                }
                PieceBytes::Staged { .. } | PieceBytes::Base(_) => {
                    part.pieces.extend(self.deferred(extent, &found));
                }
                PieceBytes::Sent => return Err(WriteError::Lost),
            }
        }
        Ok(part)
    }

    /// The bytes at `extent` of a file, which are read when their turn to be sent comes.
    fn deferred(self: &Arc<Self>, extent: Extent, found: &PieceBytes) -> Vec<PartBytes> {
        let step = DEFERRED_STEP.min(self.writer.memory.readback.bound());
        let starts = (extent.offset..extent.end()).step_by(step as usize);
        let pieces = starts.map(|start| {
            let here = Extent::between(start, extent.end().min(start + step));
            let found = match found {
                PieceBytes::Staged { staged, skip } => PieceBytes::Staged {
                    staged: staged.clone(),
                    skip: skip + (start - extent.offset),
                },
                other => other.clone(),
            };
            let file = self.clone();
            PartBytes::Later(Later::new(here.len, move || {
                let (file, found) = (file.clone(), found.clone());
                Box::pin(async move { file.read_deferred(here, &found).await })
            }))
        });
        pieces.collect()
    }

    async fn read_deferred(&self, extent: Extent, found: &PieceBytes) -> StoreResult<Bytes> {
        let readback: &Share = &self.writer.memory.readback;
        let grant = readback.take(extent.len).await;
        let bytes = match found {
            PieceBytes::Staged { staged, skip } => {
                let read = staged.read_bytes(*skip, extent.len as usize).await;
                read.map_err(|error| StoreError {
                    source: Some(error.into()),
                    ..unreadable("staged bytes cannot be read to be sent")
                })?
            }
            PieceBytes::Base(id) => match read_base(&self.writer, id, extent).await {
                Ok(bytes) => bytes,
                Err(WriteError::Store(error)) => return Err(error),
                Err(error) => return Err(unreadable(&error.to_string())),
            },
            PieceBytes::Memory { .. } | PieceBytes::Zeros | PieceBytes::Sent => {
                return Err(unreadable("bytes that need no reading were put off"));
            }
        };
        Ok(Bytes::from_owner(ReadBack {
            bytes,
            _grant: grant,
        }))
    }
}

fn unreadable(why: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Broken, why)
}
