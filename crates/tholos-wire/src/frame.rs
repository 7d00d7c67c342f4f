//! Many messages to one peer in one payload: each behind its length in four bytes.
//!
//! A message that cannot be read does not take the others with it: a newer peer may send kinds that this build
//! does not know.

use alloc::vec::Vec;

use bytes::{Buf, Bytes};
use tholos_node::PeerMessage;

use crate::WireError;
use crate::peer::{decode_peer, encode_peer};

const LENGTH_BYTES: usize = 4;
/// Room for the next payload that is kept, in bytes; what is larger goes out as it is.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// Gathers messages to one peer until they are sent together.
#[derive(Debug, Default)]
pub struct FrameBuilder {
    bytes: Vec<u8>,
}

impl FrameBuilder {
    /// An empty payload.
    pub fn new() -> FrameBuilder {
        FrameBuilder::default()
    }

    /// Adds one message.
    pub fn push(&mut self, message: &PeerMessage) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; LENGTH_BYTES]);
        encode_peer(message, &mut self.bytes);
        let length = self.bytes.len() - start - LENGTH_BYTES;
        let length = u32::try_from(length).expect("values are bounded far below 4 GiB by the listeners");
        self.bytes[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    }

    /// Bytes gathered so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing has gathered.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Hands out the payload and starts an empty one.
    pub fn take(&mut self) -> Bytes {
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            return Bytes::from(core::mem::take(&mut self.bytes));
        }
        // A copy of exactly the size costs less than to let the next payload grow from nothing.
        let payload = Bytes::copy_from_slice(&self.bytes);
        self.bytes.clear();
        payload
    }
}

/// The messages of a payload that a [`FrameBuilder`] made, in order.
///
/// A message that is in error is one `Err` and the next ones follow; a payload that ends within a message is
/// [`WireError::Truncated`], and nothing follows.
pub fn frames(payload: Bytes) -> Frames {
    Frames { rest: payload }
}

/// See [`frames`].
#[derive(Debug)]
pub struct Frames {
    rest: Bytes,
}

impl Iterator for Frames {
    type Item = Result<PeerMessage, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let length = self.rest.first_chunk::<LENGTH_BYTES>().map(|bytes| u32::from_le_bytes(*bytes) as usize);
        match length {
            Some(length) if length <= self.rest.len() - LENGTH_BYTES => {
                self.rest.advance(LENGTH_BYTES);
                Some(decode_peer(self.rest.split_to(length)))
            }
            _ => {
                self.rest = Bytes::new();
                Some(Err(WireError::Truncated))
            }
        }
    }
}
