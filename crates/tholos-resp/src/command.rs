//! The server's side: bytes of a client to commands.
//!
//! Two forms come in. A *multibulk* command, as client libraries send it, is an array of bulk strings; anything that
//! does not start with `*` is an *inline* command, a line typed by hand.
//!
//! ```text
//!   *2\r\n $3\r\nGET\r\n $1\r\nk\r\n          GET k\r\n
//! ```
//!
//! Rules kept here:
//! - C1: a byte is looked at once. Where the search stopped is remembered, so a client that sends one byte at a time
//!   costs no more than one that sends all.
//! - C2: how the stream is cut into reads changes no result, errors included.
//! - C3: a length that is only claimed allocates nothing. Memory follows the bytes that arrived, and those end at
//!   [`Limits::query_buffer_bytes_max`].
//! - C4: after an error the stream has no known start of a next command: the decoder repeats the error for ever.

use alloc::vec::Vec;
use core::fmt;

use bytes::{Buf, Bytes, BytesMut};

use crate::inline::split_arguments;
use crate::number::parse_integer;
use crate::value::Value;

/// Arguments a connection may send in one command before it has authenticated, as in Redis.
pub const UNAUTHENTICATED_ARGUMENTS_MAX: usize = 10;
/// Bytes of one argument before a connection has authenticated, as in Redis.
pub const UNAUTHENTICATED_BULK_BYTES_MAX: usize = 16 * 1024;

/// Spans kept between commands; a longer list, left by one huge command, is given back.
const SPANS_KEPT_MAX: usize = 256;

/// What one connection may ask of the decoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in one argument.
    pub bulk_bytes_max: usize,
    /// Arguments in one command, its name included.
    pub arguments_max: usize,
    /// Bytes in an inline command, and in the line that announces a length.
    pub inline_bytes_max: usize,
    /// Bytes of one command as sent; what a client can make us buffer. More than `u32::MAX` counts as that.
    pub query_buffer_bytes_max: usize,
    /// Whether the client has shown a password, or needs none. Until then a command has at most
    /// [`UNAUTHENTICATED_ARGUMENTS_MAX`] arguments of [`UNAUTHENTICATED_BULK_BYTES_MAX`] bytes.
    pub authenticated: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            bulk_bytes_max: 64 * 1024 * 1024,
            arguments_max: 1_048_576,
            inline_bytes_max: 64 * 1024,
            query_buffer_bytes_max: 128 * 1024 * 1024,
            authenticated: true,
        }
    }
}

/// Why a client's bytes are no command. The reply is [`ProtocolError::to_reply`]; then the connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The count after `*` is no number or above [`Limits::arguments_max`].
    InvalidMultibulkLength,
    /// The length after `$` is no number, negative, or above [`Limits::bulk_bytes_max`].
    InvalidBulkLength,
    /// An argument must start with `$`; this byte came instead.
    ExpectedBulk(u8),
    /// A line of more than [`Limits::inline_bytes_max`] bytes.
    TooBigInline,
    /// No end of line within [`Limits::inline_bytes_max`] bytes after `*`.
    TooBigMultibulkCount,
    /// No end of line within [`Limits::inline_bytes_max`] bytes after `$`.
    TooBigBulkCount,
    /// A quote of an inline command is not closed, or has text right behind it.
    UnbalancedQuotes,
    /// More than [`UNAUTHENTICATED_ARGUMENTS_MAX`] arguments before authentication.
    UnauthenticatedMultibulkLength,
    /// An argument of more than [`UNAUTHENTICATED_BULK_BYTES_MAX`] bytes before authentication.
    UnauthenticatedBulkLength,
    /// An argument or a length is not followed by `\r\n`. Redis skips two bytes unseen; we would rather stop than
    /// execute what follows.
    ExpectedLineEnd,
    /// The command is longer than [`Limits::query_buffer_bytes_max`].
    TooBigQuery,
    /// A TLS client on a port without TLS: waiting for the end of its line would leave it hanging.
    TlsHandshake,
}

impl ProtocolError {
    /// The error line for the client, as Redis words it.
    #[must_use]
    pub fn to_reply(self) -> Value {
        Value::error(alloc::format!("ERR {self}"))
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Protocol error: ")?;
        out.write_str(match self {
            ProtocolError::InvalidMultibulkLength => "invalid multibulk length",
            ProtocolError::InvalidBulkLength => "invalid bulk length",
            ProtocolError::ExpectedBulk(byte) => {
                return write!(out, "expected '$', got '{}'", char::from(*byte));
            }
            ProtocolError::TooBigInline => "too big inline request",
            ProtocolError::TooBigMultibulkCount => "too big mbulk count string",
            ProtocolError::TooBigBulkCount => "too big bulk count string",
            ProtocolError::UnbalancedQuotes => "unbalanced quotes in request",
            ProtocolError::UnauthenticatedMultibulkLength => "unauthenticated multibulk length",
            ProtocolError::UnauthenticatedBulkLength => "unauthenticated bulk length",
            ProtocolError::ExpectedLineEnd => "expected a line end",
            ProtocolError::TooBigQuery => "too big query",
            ProtocolError::TlsHandshake => "TLS handshake on a port without TLS",
        })
    }
}

impl core::error::Error for ProtocolError {}

/// Cuts the bytes of one client into commands.
///
/// It keeps only offsets into the buffer; between calls the caller may append to the buffer, and nothing else.
///
/// Pass `AUTH` on before the next call: what a client may send depends on [`Limits::authenticated`], and a pipeline
/// may hold the password and the large command behind it.
#[derive(Clone, Debug)]
pub struct CommandDecoder {
    limits: Limits,
    state: State,
    /// Offset in the buffer of the first byte not yet understood.
    position: usize,
    /// Offset in the buffer up to which the end of the current line was looked for (C1); not below `position`.
    scanned: usize,
    /// Where each argument seen so far lies in the buffer: start and end.
    spans: Vec<(u32, u32)>,
    failed: Option<ProtocolError>,
}

/// What the bytes at `position` are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The start of a command; `position` is 0.
    Start,
    /// The line that announces an argument, `missing` arguments before the command is whole.
    Header { missing: usize },
    /// An argument of `length` bytes and its line end, itself one of the `missing`.
    Payload { missing: usize, length: usize },
}

/// What became of the start of a command.
enum Started {
    /// The buffer ends before the line does.
    Incomplete,
    /// Nothing to execute, or the header of a multibulk: look again.
    Consumed,
    /// A whole inline command.
    Inline(Vec<Bytes>),
}

impl CommandDecoder {
    /// A decoder at the start of a client's stream.
    #[must_use]
    pub fn new(limits: Limits) -> CommandDecoder {
        CommandDecoder {
            limits,
            state: State::Start,
            position: 0,
            scanned: 0,
            spans: Vec::new(),
            failed: None,
        }
    }

    /// The limits in force.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The limits, to be changed: they hold for every length announced from now on.
    pub const fn limits_mut(&mut self) -> &mut Limits {
        &mut self.limits
    }

    /// Whether a command has begun and is not whole. Tells a client that hangs up in mid-command from one that leaves.
    #[must_use]
    pub fn is_mid_command(&self, buffer: &[u8]) -> bool {
        self.state != State::Start || !buffer.is_empty()
    }

    /// Takes the next command off the front of `buffer`; `None` asks for more bytes behind what is there.
    ///
    /// A command has at least one argument: empty lines and `*0` are skipped. Arguments are slices of the buffer and
    /// keep the memory of the whole command alive: copy what is to live long.
    ///
    /// # Errors
    ///
    /// The first [`ProtocolError`] of the stream, and the same again at each later call. The buffer's content is then of
    /// no further use.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Vec<Bytes>>, ProtocolError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let result = self.decode_next(buffer);
        if let Err(error) = result {
            self.failed = Some(error);
            self.spans = Vec::new();
        }
        result
    }

    fn decode_next(&mut self, buffer: &mut BytesMut) -> Result<Option<Vec<Bytes>>, ProtocolError> {
        loop {
            match self.state {
                State::Start => match self.start(buffer)? {
                    Started::Incomplete => return Ok(None),
                    Started::Consumed => {}
                    Started::Inline(arguments) => return Ok(Some(arguments)),
                },
                State::Header { missing: 0 } => return Ok(Some(self.take_command(buffer))),
                State::Header { missing } => {
                    let Some(length) = self.bulk_header(buffer)? else { return Ok(None) };
                    self.state = State::Payload { missing, length };
                }
                State::Payload { missing, length } => {
                    let end = self.position + length;
                    match buffer.get(end..) {
                        Some([b'\r', b'\n', ..]) => {}
                        // A wrong byte is an error as soon as it is there (C2).
                        None | Some([] | [b'\r']) => return Ok(None),
                        Some(_) => return Err(ProtocolError::ExpectedLineEnd),
                    }
                    let offset =
                        |at: usize| u32::try_from(at).expect("bulk_header() bounds a command by u32::MAX");
                    self.spans.push((offset(self.position), offset(end)));
                    self.position = end + 2;
                    self.scanned = self.position;
                    self.state = State::Header { missing: missing - 1 };
                }
            }
        }
    }

    /// Reads the first line of a command.
    fn start(&mut self, buffer: &mut BytesMut) -> Result<Started, ProtocolError> {
        match buffer[..] {
            [] => Ok(Started::Incomplete),
            [b'*', ..] => self.multibulk_header(buffer),
            [0x16, 0x03, ..] => Err(ProtocolError::TlsHandshake),
            _ => self.inline(buffer),
        }
    }

    fn multibulk_header(&mut self, buffer: &mut BytesMut) -> Result<Started, ProtocolError> {
        let bytes_max = self.limits.inline_bytes_max;
        let Some(end) = self.find(buffer, b'\r', bytes_max, ProtocolError::TooBigMultibulkCount)? else {
            return Ok(Started::Incomplete);
        };
        let count = parse_integer(&buffer[1..end]).ok_or(ProtocolError::InvalidMultibulkLength)?;
        let count = usize::try_from(count).unwrap_or(0);
        if count > self.limits.arguments_max {
            return Err(ProtocolError::InvalidMultibulkLength);
        }
        if count > UNAUTHENTICATED_ARGUMENTS_MAX && !self.limits.authenticated {
            return Err(ProtocolError::UnauthenticatedMultibulkLength);
        }
        if !line_is_whole(buffer, end)? {
            return Ok(Started::Incomplete);
        }
        if count == 0 {
            buffer.advance(end + 2);
            self.position = 0;
            self.scanned = 0;
        } else {
            self.position = end + 2;
            self.scanned = self.position;
            self.state = State::Header { missing: count };
        }
        Ok(Started::Consumed)
    }

    fn inline(&mut self, buffer: &mut BytesMut) -> Result<Started, ProtocolError> {
        let bytes_max = self.limits.inline_bytes_max;
        // One more for the carriage return, which is no part of the line.
        let end = self.find(buffer, b'\n', bytes_max.saturating_add(1), ProtocolError::TooBigInline)?;
        if buffer[..end.unwrap_or(buffer.len())].get(bytes_max).is_some_and(|next| *next != b'\r') {
            return Err(ProtocolError::TooBigInline);
        }
        let Some(end) = end else { return Ok(Started::Incomplete) };
        let line = buffer[..end].strip_suffix(b"\r").unwrap_or(&buffer[..end]);
        let arguments = split_arguments(line).ok_or(ProtocolError::UnbalancedQuotes)?;
        buffer.advance(end + 1);
        self.position = 0;
        self.scanned = 0;
        Ok(if arguments.is_empty() { Started::Consumed } else { Started::Inline(arguments) })
    }

    /// Reads `$<length>\r\n` at `position` and moves behind it.
    fn bulk_header(&mut self, buffer: &[u8]) -> Result<Option<usize>, ProtocolError> {
        match buffer.get(self.position) {
            None => return Ok(None),
            Some(b'$') => {}
            Some(other) => return Err(ProtocolError::ExpectedBulk(*other)),
        }
        let bytes_max = self.limits.inline_bytes_max;
        let Some(end) = self.find(buffer, b'\r', bytes_max, ProtocolError::TooBigBulkCount)? else {
            return Ok(None);
        };
        let length = parse_integer(&buffer[self.position + 1..end])
            .and_then(|length| usize::try_from(length).ok())
            .filter(|length| *length <= self.limits.bulk_bytes_max)
            .ok_or(ProtocolError::InvalidBulkLength)?;
        if length > UNAUTHENTICATED_BULK_BYTES_MAX && !self.limits.authenticated {
            return Err(ProtocolError::UnauthenticatedBulkLength);
        }
        // Judged by the claim, not by what has arrived: so the answer comes before the bytes do, and is the same
        // however they are cut (C2, C3).
        let query_bytes_max = self.limits.query_buffer_bytes_max.min(u32::MAX as usize);
        if end.saturating_add(length).saturating_add(4) > query_bytes_max {
            return Err(ProtocolError::TooBigQuery);
        }
        if !line_is_whole(buffer, end)? {
            return Ok(None);
        }
        self.position = end + 2;
        self.scanned = self.position;
        Ok(Some(length))
    }

    /// Offset of the first `byte` of the line at `position`, searched from where the last search stopped (C1); `too_long`
    /// if it is not among the `bytes_max` bytes or just behind them.
    fn find(
        &mut self,
        buffer: &[u8],
        byte: u8,
        bytes_max: usize,
        too_long: ProtocolError,
    ) -> Result<Option<usize>, ProtocolError> {
        let line_end_max = self.position.saturating_add(bytes_max);
        let searched = &buffer[self.scanned..buffer.len().min(line_end_max.saturating_add(1))];
        if let Some(found) = searched.iter().position(|other| *other == byte) {
            let end = self.scanned + found;
            // Stay on it: whoever needs the byte behind it may ask again.
            self.scanned = end;
            return Ok(Some(end));
        }
        self.scanned += searched.len();
        if self.scanned > line_end_max { Err(too_long) } else { Ok(None) }
    }

    fn take_command(&mut self, buffer: &mut BytesMut) -> Vec<Bytes> {
        let mut frame = buffer.split_to(self.position).freeze();
        let mut arguments = Vec::with_capacity(self.spans.len());
        if let Some(((start, end), others)) = self.spans.split_last() {
            arguments.extend(others.iter().map(|(start, end)| frame.slice(*start as usize..*end as usize)));
            // The last takes over the frame's own reference, which spares one atomic increment and decrement.
            frame.truncate(*end as usize);
            frame.advance(*start as usize);
            arguments.push(frame);
        }
        self.spans.clear();
        self.spans.shrink_to(SPANS_KEPT_MAX);
        self.state = State::Start;
        self.position = 0;
        self.scanned = 0;
        arguments
    }
}

/// Whether the `\r` at `end` has its `\n`; an error if another byte follows.
fn line_is_whole(buffer: &[u8], end: usize) -> Result<bool, ProtocolError> {
    match buffer.get(end + 1) {
        None => Ok(false),
        Some(b'\n') => Ok(true),
        Some(_) => Err(ProtocolError::ExpectedLineEnd),
    }
}
