//! Many messages to one peer in one payload: each behind its length in four bytes.
//!
//! A message that cannot be read does not take the others with it: a newer peer may send kinds that this build
//! does not know.

use alloc::vec::Vec;

use bytes::{Buf, Bytes};
use tholos_node::PeerMessage;

use crate::WireError;
use crate::peer::{decode_peer, push_peer};
use crate::writer::Out;

const LENGTH_BYTES: usize = 4;
/// Room for the next payload that is kept, in bytes; what is larger goes out as it is.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// Gathers messages to one peer until they are sent together.
#[derive(Debug)]
pub struct FrameBuilder {
    out: Out,
}

/// The bytes of many messages, in parts: long byte strings of messages are not copied into one with the others.
#[derive(Debug)]
pub struct Payload {
    /// The first part.
    pub first: Bytes,
    /// Those that follow it; none of them is empty.
    pub rest: Vec<Bytes>,
}

impl Payload {
    /// All of it in one piece, copied if it was in several.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        if self.rest.is_empty() {
            return self.first;
        }
        let parts: Vec<&[u8]> =
            core::iter::once(&self.first).chain(&self.rest).map(|part| &part[..]).collect();
        Bytes::from(parts.concat())
    }
}

impl Default for FrameBuilder {
    fn default() -> FrameBuilder {
        FrameBuilder { out: Out::sharing() }
    }
}

impl FrameBuilder {
    /// An empty payload.
    pub fn new() -> FrameBuilder {
        FrameBuilder::default()
    }

    /// Adds one message.
    pub fn push(&mut self, message: &PeerMessage) {
        let (before, start) = (self.out.len(), self.out.copied().len());
        self.out.extend_from_slice(&[0; LENGTH_BYTES]);
        push_peer(message, &mut self.out);
        let length = self.out.len() - before - LENGTH_BYTES;
        let length = u32::try_from(length).expect("values are bounded far below 4 GiB by the listeners");
        self.out.copied()[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    }

    /// Bytes gathered so far.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing has gathered.
    pub fn is_empty(&self) -> bool {
        self.out.len() == 0
    }

    /// Hands out the payload and starts an empty one.
    pub fn take(&mut self) -> Payload {
        if self.out.has_shared() {
            let mut parts = self.out.take_parts().into_iter();
            return Payload { first: parts.next().unwrap_or_default(), rest: parts.collect() };
        }
        let bytes = self.out.copied();
        if bytes.capacity() > KEPT_BYTES_MAX {
            return Payload { first: Bytes::from(core::mem::take(bytes)), rest: Vec::new() };
        }
        // A copy of exactly the size costs less than to let the next payload grow from nothing.
        let first = Bytes::copy_from_slice(bytes);
        bytes.clear();
        Payload { first, rest: Vec::new() }
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
