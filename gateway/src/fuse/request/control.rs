//! What the kernel tells rather than asks: FORGET, BATCH_FORGET, INTERRUPT. They come over
//! `/dev/fuse` only, even with the ring on, and are never answered: the kernel does not wait for
//! them, and ENOSYS for INTERRUPT would end interrupts for the life of the mount.

use zerocopy::{FromBytes, IntoBytes};

use super::decode::DecodeError;
use crate::fuse::abi::opcode;
use crate::fuse::abi::request::{BatchForgetIn, ForgetIn, ForgetOne, InHeader, InterruptIn};

/// A message that wants no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// The kernel drops `(ino, count)` references each.
    Forget(Vec<(u64, u64)>),
    /// The caller of request `unique` gave up.
    Interrupt {
        /// The number of the request that is interrupted.
        unique: u64,
    },
    /// DESTROY: the connection is about to end. An answer may be sent, nobody needs it.
    Destroy,
    /// The answer to a notification that we never send.
    NotifyReply,
}

impl Control {
    /// The message in these bytes; `None` if they are a request instead.
    ///
    /// # Errors
    /// `Short` and `Length` as for requests.
    pub fn decode(
        header: &InHeader,
        op_in: &[u8],
        rest: &[u8],
    ) -> Result<Option<Self>, DecodeError> {
        Ok(Some(match header.opcode {
            opcode::FORGET => {
                let (forget, _) =
                    ForgetIn::read_from_prefix(op_in).map_err(|_| DecodeError::Short)?;
                Self::Forget(vec![(header.nodeid, forget.nlookup)])
            }
            opcode::BATCH_FORGET => {
                let (batch, _) =
                    BatchForgetIn::read_from_prefix(op_in).map_err(|_| DecodeError::Short)?;
                let len = (batch.count as usize)
                    .checked_mul(size_of::<ForgetOne>())
                    .ok_or(DecodeError::Length)?;
                let bytes = rest.get(..len).ok_or(DecodeError::Length)?;
                let mut forgets = Vec::with_capacity(batch.count as usize);
                for one in bytes.chunks_exact(size_of::<ForgetOne>()) {
                    let mut forget = ForgetOne::default();
                    forget.as_mut_bytes().copy_from_slice(one);
                    forgets.push((forget.nodeid, forget.nlookup));
                }
                Self::Forget(forgets)
            }
            opcode::INTERRUPT => {
                let (interrupt, _) =
                    InterruptIn::read_from_prefix(op_in).map_err(|_| DecodeError::Short)?;
                Self::Interrupt {
                    unique: interrupt.unique,
                }
            }
            opcode::DESTROY => Self::Destroy,
            opcode::NOTIFY_REPLY => Self::NotifyReply,
            _ => return Ok(None),
        }))
    }
}
