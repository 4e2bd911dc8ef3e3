//! The bytes of a request to the store: slices of the buffers that hold them, zeros for holes, and
//! what was staged, read back into memory that is set aside for it. Nothing is copied that is in
//! memory already.

use std::sync::Arc;

use bytes::Bytes;

use crate::budget::Grant;
use crate::dirty::WriteError;
use crate::dirty::buffer::{Found, Paid};
use crate::dirty::file::Inner;
use crate::extent::Extent;

/// A body, and the memory that it keeps in use while it is sent.
#[derive(Debug, Default)]
pub(crate) struct Payload {
    /// In order, without gaps.
    pub(crate) bytes: Vec<Bytes>,
    /// In bytes.
    pub(crate) len: u64,
    held: Held,
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
        let staged = found.iter().map(|(extent, found)| match found {
            Some(Found::Staged { .. }) => extent.len,
            _ => 0,
        });
        let staged: u64 = staged.sum();
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
}
