//! Frames: how messages are cut, sealed and put together again.
//!
//! ```text
//!  0        4      5                  5+n          5+n+16
//!  ┌────────┬──────┬───────────────────┬────────────┐
//!  │ length │ kind │ payload (n bytes) │ tag (or 0) │   length counts all that follows it
//!  └────────┴──────┴───────────────────┴────────────┘
//! ```
//! A message of at most [`PIECE_BYTES`] is one `Whole` frame. A longer one is a `First` (u32 length of the whole
//! message, then its beginning) and `More`s; urgent messages may stand between them, so they never wait behind
//! megabytes (R27). Everything is little-endian.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::queue::Message;
use crate::secret::Sealer;

/// Payload bytes of one frame, at most: longer messages are cut into pieces of this size.
pub const PIECE_BYTES: usize = 64 * 1024;

/// Bytes before the payload: length and kind.
pub(crate) const HEADER_BYTES: usize = 5;

/// Payloads up to this size are copied beside their header, which costs less than an extra slice for the kernel.
const INLINE_BYTES: usize = 2048;

/// The frame kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Whole = 1,
    First = 2,
    More = 3,
    Ping = 4,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        [Kind::Whole, Kind::First, Kind::More, Kind::Ping].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Why received bytes ended a connection. None of them can come from a healthy peer of the same version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A length no frame may have.
    #[error("a frame claims {length} bytes, which no frame may have; is something else on this port?")]
    Length {
        /// The length claimed.
        length: u32,
    },
    /// A kind this version does not know.
    #[error("a frame has the unknown kind {kind}")]
    Kind {
        /// The kind byte.
        kind: u8,
    },
    /// The tag is wrong: the bytes were changed, repeated, dropped or reordered on the way.
    #[error("a frame's tag is wrong: bytes were changed, repeated or lost on the way")]
    Tag,
    /// Pieces in an order that makes no message.
    #[error("the pieces of a message do not fit together: {0}")]
    Pieces(&'static str),
    /// A message above the limit of this side.
    #[error(
        "the peer announced a message of {length} bytes; this node takes {limit}: give both the same limits"
    )]
    TooLarge {
        /// Bytes announced.
        length: usize,
        /// Bytes this side takes on the lane.
        limit: usize,
    },
}

/// Encoded frames on their way to the socket: small ones side by side, large payloads by reference.
pub(crate) struct Batch {
    segments: VecDeque<Bytes>,
    /// The open end, where headers, tags and small payloads are gathered.
    tail: BytesMut,
    length: usize,
}

impl Batch {
    pub(crate) fn new() -> Batch {
        Batch { segments: VecDeque::new(), tail: BytesMut::new(), length: 0 }
    }

    /// Appends one ping frame.
    pub(crate) fn push_ping(&mut self, sealer: &mut Sealer) {
        self.push(Kind::Ping, &[], Bytes::new(), sealer);
    }

    /// Appends a message that fits into one frame.
    ///
    /// # Panics
    /// With more than [`PIECE_BYTES`] bytes: the caller cuts.
    pub(crate) fn push_whole(&mut self, message: Bytes, sealer: &mut Sealer) {
        assert!(message.len() <= PIECE_BYTES, "a whole frame of {} bytes", message.len());
        self.push(Kind::Whole, &[], message, sealer);
    }

    fn push(&mut self, kind: Kind, prefix: &[u8], payload: Bytes, sealer: &mut Sealer) {
        let length = 1 + prefix.len() + payload.len() + sealer.tag_bytes();
        let mut header = [0; HEADER_BYTES];
        header[..4].copy_from_slice(&u32::try_from(length).expect("frames are at most 64 KiB").to_le_bytes());
        header[4] = kind as u8;
        let tag = sealer.seal(&header, prefix, &payload);
        self.length += 4 + length;
        self.tail.reserve(HEADER_BYTES + prefix.len() + INLINE_BYTES);
        self.tail.put_slice(&header);
        self.tail.put_slice(prefix);
        if payload.len() <= INLINE_BYTES {
            self.tail.put_slice(&payload);
        } else {
            self.seal_tail();
            self.segments.push_back(payload);
        }
        if let Some(tag) = tag {
            self.tail.put_slice(&tag);
        }
    }

    /// Moves what was gathered into the queue, so that the socket sees it.
    pub(crate) fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            self.segments.push_back(self.tail.split().freeze());
        }
    }
}

impl Buf for Batch {
    fn remaining(&self) -> usize {
        self.length
    }

    fn chunk(&self) -> &[u8] {
        match self.segments.front() {
            Some(segment) => segment,
            None => &self.tail,
        }
    }

    fn chunks_vectored<'a>(&'a self, target: &mut [IoSlice<'a>]) -> usize {
        let chunks = self.segments.iter().map(|segment| &segment[..]).chain(Some(&self.tail[..]));
        let mut filled = 0;
        for (slice, chunk) in target.iter_mut().zip(chunks.filter(|chunk| !chunk.is_empty())) {
            *slice = IoSlice::new(chunk);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        self.length -= count;
        while count > 0 {
            let Some(front) = self.segments.front_mut() else {
                self.tail.advance(count);
                return;
            };
            if front.len() > count {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.segments.pop_front();
        }
    }
}

/// A message that is being sent in pieces.
pub(crate) struct Cut {
    /// The part that is being cut, and those after it, the next one last.
    part: Bytes,
    rest: Vec<Bytes>,
    /// Bytes that are left.
    left: usize,
    started: bool,
}

impl Cut {
    pub(crate) fn new(message: impl Into<Message>) -> Cut {
        let message = message.into();
        let left = message.len();
        let Message { first: part, mut rest } = message;
        rest.reverse();
        Cut { part, rest, left, started: false }
    }

    /// Appends the next piece and says whether it was the last.
    pub(crate) fn push_piece(&mut self, batch: &mut Batch, sealer: &mut Sealer) -> bool {
        if self.started {
            let piece = self.next_piece(PIECE_BYTES);
            batch.push(Kind::More, &[], piece, sealer);
        } else if self.rest.is_empty() && self.left <= PIECE_BYTES {
            let whole = self.next_piece(PIECE_BYTES);
            batch.push_whole(whole, sealer);
        } else {
            self.started = true;
            let total = u32::try_from(self.left).expect("limits keep a message under 4 GiB");
            let piece = self.next_piece(PIECE_BYTES - 4);
            batch.push(Kind::First, &total.to_le_bytes(), piece, sealer);
        }
        self.left == 0
    }

    /// So many bytes at most; no piece is of two parts, or it would have to be copied.
    fn next_piece(&mut self, bytes_max: usize) -> Bytes {
        while self.part.is_empty()
            && let Some(next) = self.rest.pop()
        {
            self.part = next;
        }
        let piece = self.part.split_to(self.part.len().min(bytes_max));
        self.left -= piece.len();
        piece
    }
}

/// What one frame brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// A whole message.
    Message(Bytes),
    /// A sign of life or a piece; nothing to hand on yet.
    Nothing,
}

/// Takes frames off a receive buffer, checks them and puts messages together.
pub(crate) struct Decoder {
    sealer: Sealer,
    message_bytes_max: usize,
    partial: Option<Partial>,
}

struct Partial {
    total: usize,
    bytes: BytesMut,
}

impl Decoder {
    pub(crate) fn new(sealer: Sealer, message_bytes_max: usize) -> Decoder {
        Decoder { sealer, message_bytes_max, partial: None }
    }

    /// The next frame of `buffer`, or None if it is not all there.
    pub(crate) fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Received>, FrameError> {
        if buffer.len() < HEADER_BYTES {
            return Ok(None);
        }
        let tag_bytes = self.sealer.tag_bytes();
        let length_raw = u32::from_le_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]);
        let length = length_raw as usize;
        // Judged before anything is waited for or reserved: a liar gets no memory.
        if length < 1 + tag_bytes || length > 1 + PIECE_BYTES + tag_bytes {
            return Err(FrameError::Length { length: length_raw });
        }
        if buffer.len() < 4 + length {
            return Ok(None);
        }
        let payload_end = 4 + length - tag_bytes;
        let (header, rest) = buffer[..4 + length].split_at(HEADER_BYTES);
        let (payload, tag) = rest.split_at(payload_end - HEADER_BYTES);
        if !self.sealer.check(header, payload, tag) {
            return Err(FrameError::Tag);
        }
        let kind = Kind::from_byte(header[4]).ok_or(FrameError::Kind { kind: header[4] })?;
        buffer.advance(HEADER_BYTES);
        let payload = buffer.split_to(payload_end - HEADER_BYTES);
        buffer.advance(tag_bytes);
        self.take(kind, payload).map(Some)
    }

    fn take(&mut self, kind: Kind, mut payload: BytesMut) -> Result<Received, FrameError> {
        match kind {
            Kind::Ping if payload.is_empty() => Ok(Received::Nothing),
            Kind::Ping => Err(FrameError::Pieces("a ping with a payload")),
            Kind::Whole => {
                self.check_total(payload.len())?;
                Ok(Received::Message(payload.freeze()))
            }
            Kind::First => {
                if self.partial.is_some() {
                    return Err(FrameError::Pieces("a message began inside another"));
                }
                if payload.len() <= 4 {
                    return Err(FrameError::Pieces("a first piece without bytes"));
                }
                let total = payload.get_u32_le() as usize;
                self.check_total(total)?;
                if payload.len() >= total {
                    return Err(FrameError::Pieces("a first piece that is the whole message"));
                }
                let mut bytes = BytesMut::with_capacity(total);
                bytes.extend_from_slice(&payload);
                self.partial = Some(Partial { total, bytes });
                Ok(Received::Nothing)
            }
            Kind::More => {
                let Some(partial) = &mut self.partial else {
                    return Err(FrameError::Pieces("a piece without a beginning"));
                };
                if payload.is_empty() || partial.bytes.len() + payload.len() > partial.total {
                    return Err(FrameError::Pieces("a piece of the wrong size"));
                }
                partial.bytes.extend_from_slice(&payload);
                if partial.bytes.len() < partial.total {
                    return Ok(Received::Nothing);
                }
                let whole = self.partial.take().expect("it was just borrowed");
                Ok(Received::Message(whole.bytes.freeze()))
            }
        }
    }

    fn check_total(&self, length: usize) -> Result<(), FrameError> {
        if length > self.message_bytes_max {
            return Err(FrameError::TooLarge { length, limit: self.message_bytes_max });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
