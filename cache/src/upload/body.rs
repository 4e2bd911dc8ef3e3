//! The bytes of a request to the store: slices of the buffers that hold them, zeros for holes, and
//! what was staged, read back into memory that is set aside for it. Nothing is copied that is in
//! memory already. A part that is larger than what is set aside is read back while it is sent.

use std::sync::Arc;

use bytes::Bytes;

use crate::budget::Grant;
use crate::dirty::WriteError;
use crate::dirty::buffer::{Found, Paid};
use crate::dirty::file::Inner;
use crate::extent::Extent;
use crate::store::{Later, PartBytes};

/// A body, and the memory that it keeps in use while it is sent.
#[derive(Debug, Default)]
pub(crate) struct Payload {
    /// In order, without gaps.
    pub(crate) bytes: Vec<Bytes>,
    /// In bytes.
    pub(crate) len: u64,
    held: Held,
}

/// The body of a part.
#[derive(Debug)]
pub(crate) struct PartPayload {
    /// In order, without gaps.
    pub(crate) pieces: Vec<PartBytes>,
    /// In bytes.
    pub(crate) len: u64,
    _held: Held,
}

/// Staged bytes that were read back, and the memory that they take.
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
struct Held {
    paid: Vec<Arc<Paid>>,
    readback: Option<Grant>,
}

/// Holes are sent as slices of this. It is never written, so it takes no memory of its own.
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

fn push_zeros(bytes: &mut Vec<Bytes>, mut len: u64) {
    while len > 0 {
        let now = len.min(ZEROS.len() as u64);
        bytes.push(Bytes::from_static(&ZEROS[..now as usize]));
        len -= now;
    }
}

impl Inner {
    /// The body that `found` makes. Waits for memory to read back what is staged, and for the disk.
    ///
    /// # Errors
    /// `Staging` if the disk fails.
    pub(crate) async fn payload(
        &self,
        found: Vec<(Extent, Option<Found>)>,
    ) -> Result<Payload, WriteError> {
        let staged = staged_bytes(&found);
        let mut payload = Payload::default();
        if staged > 0 {
            payload.held.readback = Some(self.writer.memory.readback.take(staged).await);
        }
        for (extent, found) in found {
            payload.len += extent.len;
            match found {
                None => push_zeros(&mut payload.bytes, extent.len),
                Some(Found::Memory { bytes, paid }) => {
                    payload.bytes.push(bytes);
                    payload.held.paid.push(paid);
                }
                Some(Found::Staged { staged, skip }) => {
                    let read = staged.read_bytes(skip, extent.len as usize).await;
                    payload.bytes.push(read.map_err(WriteError::Staging)?);
                }
            }
        }
        Ok(payload)
    }

    /// The body of a part that `found` makes. If more of it is staged than is set aside to read
    /// back, as of the large parts at the end of a huge object, that is read while it is sent.
    /// Waits as [`Inner::payload`].
    ///
    /// # Errors
    /// `Staging` if the disk fails.
    pub(crate) async fn part_payload(
        &self,
        found: Vec<(Extent, Option<Found>)>,
    ) -> Result<PartPayload, WriteError> {
        let readback = &self.writer.memory.readback;
        if staged_bytes(&found) <= readback.bound() {
            let payload = self.payload(found).await?;
            return Ok(PartPayload {
                pieces: payload.bytes.into_iter().map(PartBytes::Here).collect(),
                len: payload.len,
                _held: payload.held,
            });
        }
        let mut pieces = Vec::new();
        let mut len = 0;
        let mut held = Held::default();
        for (extent, found) in found {
            len += extent.len;
            match found {
                None => {
                    let mut zeros = Vec::new();
                    push_zeros(&mut zeros, extent.len);
                    pieces.extend(zeros.into_iter().map(PartBytes::Here));
                }
                Some(Found::Memory { bytes, paid }) => {
                    pieces.push(PartBytes::Here(bytes));
                    held.paid.push(paid);
                }
                Some(Found::Staged { staged, skip }) => {
                    let (len, readback) = (extent.len, readback.clone());
                    let later = Later::new(len, move || {
                        let (staged, readback) = (staged.clone(), readback.clone());
                        Box::pin(async move {
                            let grant = readback.take(len).await;
                            let bytes = staged.read_bytes(skip, len as usize).await?;
                            Ok(Bytes::from_owner(ReadBack {
                                bytes,
                                _grant: grant,
                            }))
                        })
                    });
                    pieces.push(PartBytes::Later(later));
                }
            }
        }
        Ok(PartPayload {
            pieces,
            len,
            _held: held,
        })
    }
}

fn staged_bytes(found: &[(Extent, Option<Found>)]) -> u64 {
    let staged = found.iter().map(|(extent, found)| match found {
        Some(Found::Staged { .. }) => extent.len,
        _ => 0,
    });
    staged.sum()
}
