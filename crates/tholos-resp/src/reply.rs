//! The client's side: bytes of a server to values, for tools and tests.
//!
//! Values nest, so the decoder keeps a stack of the lists that are still open; a byte is looked at once, and a claimed
//! number of elements allocates nothing.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use bytes::{Buf, Bytes, BytesMut};

use crate::number::parse_integer;
use crate::value::Value;

/// What a server may send us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueLimits {
    /// Bytes in one bulk string.
    pub bulk_bytes_max: usize,
    /// Bytes in one line: statuses, errors, numbers and lengths.
    pub line_bytes_max: usize,
    /// Elements in one value, all its lists taken together.
    pub elements_max: usize,
    /// Lists within lists; an empty list is a level too.
    pub nesting_max: usize,
}

impl Default for ValueLimits {
    fn default() -> ValueLimits {
        ValueLimits {
            bulk_bytes_max: 512 * 1024 * 1024,
            line_bytes_max: 64 * 1024,
            elements_max: 16 * 1_048_576,
            nesting_max: 7,
        }
    }
}

/// Why a server's bytes are no value. The stream is then lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ValueError {
    /// No type starts with this byte.
    UnknownType(u8),
    /// A length or count is no number, negative where that means nothing, or above its limit.
    InvalidLength,
    /// A number, boolean, null or verbatim string is not spelled as its type demands.
    InvalidContent,
    /// No end of line within [`ValueLimits::line_bytes_max`] bytes.
    LineTooLong,
    /// A payload or line is not followed by `\r\n`.
    ExpectedLineEnd,
    /// More than [`ValueLimits::elements_max`] elements.
    TooManyElements,
    /// Lists nested deeper than [`ValueLimits::nesting_max`].
    NestedTooDeep,
}

impl fmt::Display for ValueError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueError::UnknownType(byte) => write!(out, "no value starts with byte 0x{byte:02x}"),
            ValueError::InvalidLength => out.write_str("invalid length"),
            ValueError::InvalidContent => out.write_str("invalid number, boolean, null or verbatim string"),
            ValueError::LineTooLong => out.write_str("line too long"),
            ValueError::ExpectedLineEnd => out.write_str("expected a line end"),
            ValueError::TooManyElements => out.write_str("too many elements"),
            ValueError::NestedTooDeep => out.write_str("lists nested too deep"),
        }
    }
}

impl core::error::Error for ValueError {}

/// Cuts the bytes of a server into values of RESP2 or RESP3.
///
/// Attributes (RESP3's `|`) are read and dropped. Strings of unknown length (`$?`) are an error: no server sends them.
#[derive(Clone, Debug)]
pub struct ValueDecoder {
    limits: ValueLimits,
    /// Lists that have begun and are not whole, the outermost first.
    open: Vec<Open>,
    /// A string whose header was read: its kind and length.
    payload: Option<(Payload, usize)>,
    /// Offset up to which the end of the current line was looked for.
    scanned: usize,
    /// Elements announced for the current value.
    elements: usize,
    failed: Option<ValueError>,
}

#[derive(Clone, Copy, Debug)]
enum Payload {
    Bulk,
    Error,
    Verbatim,
}

#[derive(Clone, Copy, Debug)]
enum List {
    Array,
    Set,
    Push,
    Map,
    Attribute,
}

/// A list under construction.
#[derive(Clone, Debug)]
struct Open {
    list: List,
    /// Elements still to come; a map's keys and values count each.
    missing: usize,
    values: Vec<Value>,
}

/// What a header line turned out to be.
enum Head {
    Value(Value),
    Payload(Payload, usize),
    List(List, usize),
}

impl ValueDecoder {
    /// A decoder at the start of a server's stream.
    #[must_use]
    pub const fn new(limits: ValueLimits) -> ValueDecoder {
        ValueDecoder { limits, open: Vec::new(), payload: None, scanned: 0, elements: 0, failed: None }
    }

    /// Takes the next value off the front of `buffer`; `None` asks for more bytes behind what is there.
    ///
    /// # Errors
    ///
    /// The first [`ValueError`] of the stream, and the same again at each later call.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Value>, ValueError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let result = self.decode_next(buffer);
        if let Err(error) = result {
            self.failed = Some(error);
            self.open = Vec::new();
        }
        result
    }

    fn decode_next(&mut self, buffer: &mut BytesMut) -> Result<Option<Value>, ValueError> {
        loop {
            let head = match self.payload {
                Some((payload, length)) => match take_payload(buffer, payload, length)? {
                    Some(value) => {
                        self.payload = None;
                        Head::Value(value)
                    }
                    None => return Ok(None),
                },
                None => match self.head(buffer)? {
                    Some(head) => head,
                    None => return Ok(None),
                },
            };
            match head {
                Head::Payload(payload, length) => self.payload = Some((payload, length)),
                Head::List(list, missing) => {
                    if self.open.len() >= self.limits.nesting_max {
                        return Err(ValueError::NestedTooDeep);
                    }
                    self.open.push(Open { list, missing, values: Vec::new() });
                    if missing == 0
                        && let Some(value) = self.close_whole_lists()
                    {
                        return Ok(Some(value));
                    }
                }
                Head::Value(value) => {
                    if let Some(value) = self.place(value) {
                        return Ok(Some(value));
                    }
                }
            }
        }
    }

    /// Puts a value into the innermost open list; gives back the outermost value once it is whole.
    fn place(&mut self, value: Value) -> Option<Value> {
        let Some(open) = self.open.last_mut() else {
            self.elements = 0;
            return Some(value);
        };
        open.values.push(value);
        open.missing -= 1;
        self.close_whole_lists()
    }

    fn close_whole_lists(&mut self) -> Option<Value> {
        while self.open.last()?.missing == 0 {
            let Open { list, values, .. } = self.open.pop()?;
            let value = match list {
                List::Array => Value::Array(values),
                List::Set => Value::Set(values),
                List::Push => Value::Push(values),
                List::Map => Value::Map(pairs(values)),
                // Said about the value that follows, and asked for by nobody: the list around it still waits for that.
                List::Attribute => return None,
            };
            match self.open.last_mut() {
                None => {
                    self.elements = 0;
                    return Some(value);
                }
                Some(open) => {
                    open.values.push(value);
                    open.missing -= 1;
                }
            }
        }
        None
    }

    /// Reads a line at the front of the buffer and says what it begins.
    fn head(&mut self, buffer: &mut BytesMut) -> Result<Option<Head>, ValueError> {
        let Some(&sign) = buffer.first() else { return Ok(None) };
        if !b"+-:$*_%~>,#=(!|".contains(&sign) {
            return Err(ValueError::UnknownType(sign));
        }
        let searched = &buffer[self.scanned..buffer.len().min(self.limits.line_bytes_max + 2)];
        let Some(found) = searched.iter().position(|byte| *byte == b'\r') else {
            self.scanned += searched.len();
            let too_long = self.scanned >= self.limits.line_bytes_max + 2;
            return if too_long { Err(ValueError::LineTooLong) } else { Ok(None) };
        };
        let end = self.scanned + found;
        self.scanned = end;
        match buffer.get(end + 1) {
            None => return Ok(None),
            Some(b'\n') => {}
            Some(_) => return Err(ValueError::ExpectedLineEnd),
        }
        self.scanned = 0;
        let head = self.head_of_line(sign, buffer, end)?;
        Ok(Some(head))
    }

    /// Takes the line that ends at `end` off the buffer.
    fn head_of_line(&mut self, sign: u8, buffer: &mut BytesMut, end: usize) -> Result<Head, ValueError> {
        if matches!(sign, b'+' | b'-' | b'(') {
            let mut text = buffer.split_to(end + 2).freeze();
            text.advance(1);
            text.truncate(end - 1);
            return Ok(Head::Value(match sign {
                b'+' => Value::Simple(text),
                b'-' => Value::Error(text),
                _ if is_big_number(&text) => Value::BigNumber(text),
                _ => return Err(ValueError::InvalidContent),
            }));
        }
        let line = &buffer[1..end];
        let head = match sign {
            b':' => Head::Value(Value::Integer(parse_integer(line).ok_or(ValueError::InvalidContent)?)),
            b',' => Head::Value(Value::Double(parse_double(line).ok_or(ValueError::InvalidContent)?)),
            b'#' => Head::Value(Value::Boolean(match line {
                b"t" => true,
                b"f" => false,
                _ => return Err(ValueError::InvalidContent),
            })),
            b'_' if line.is_empty() => Head::Value(Value::Null),
            b'_' => return Err(ValueError::InvalidContent),
            b'$' if line == b"-1" => Head::Value(Value::Null),
            b'*' if line == b"-1" => Head::Value(Value::NullArray),
            b'$' => Head::Payload(Payload::Bulk, self.payload_length(line)?),
            b'!' => Head::Payload(Payload::Error, self.payload_length(line)?),
            b'=' => Head::Payload(Payload::Verbatim, self.payload_length(line)?),
            b'*' => Head::List(List::Array, self.list_length(line, 1)?),
            b'~' => Head::List(List::Set, self.list_length(line, 1)?),
            b'>' => Head::List(List::Push, self.list_length(line, 1)?),
            b'%' => Head::List(List::Map, self.list_length(line, 2)?),
            b'|' => Head::List(List::Attribute, self.list_length(line, 2)?),
            other => return Err(ValueError::UnknownType(other)),
        };
        buffer.advance(end + 2);
        Ok(head)
    }

    fn payload_length(&self, line: &[u8]) -> Result<usize, ValueError> {
        parse_integer(line)
            .and_then(|length| usize::try_from(length).ok())
            .filter(|length| *length <= self.limits.bulk_bytes_max)
            .ok_or(ValueError::InvalidLength)
    }

    /// Elements of a list whose header counts them in groups of `group`.
    fn list_length(&mut self, line: &[u8], group: usize) -> Result<usize, ValueError> {
        let length = parse_integer(line)
            .and_then(|length| usize::try_from(length).ok())
            .and_then(|length| length.checked_mul(group))
            .ok_or(ValueError::InvalidLength)?;
        self.elements = self.elements.saturating_add(length);
        if self.elements > self.limits.elements_max {
            return Err(ValueError::TooManyElements);
        }
        Ok(length)
    }
}

fn take_payload(buffer: &mut BytesMut, payload: Payload, length: usize) -> Result<Option<Value>, ValueError> {
    match buffer.get(length..) {
        Some([b'\r', b'\n', ..]) => {}
        None | Some([] | [b'\r']) => return Ok(None),
        Some(_) => return Err(ValueError::ExpectedLineEnd),
    }
    let mut bytes = buffer.split_to(length + 2).freeze();
    bytes.truncate(length);
    Ok(Some(match payload {
        Payload::Bulk => Value::Bulk(bytes),
        Payload::Error => Value::Error(bytes),
        Payload::Verbatim => verbatim(bytes).ok_or(ValueError::InvalidContent)?,
    }))
}

fn verbatim(mut bytes: Bytes) -> Option<Value> {
    let [a, b, c, b':', ..] = bytes[..] else { return None };
    bytes.advance(4);
    Some(Value::Verbatim { format: [a, b, c], text: bytes })
}

fn pairs(values: Vec<Value>) -> Vec<(Value, Value)> {
    let mut pairs = Vec::with_capacity(values.len() / 2);
    let mut values = values.into_iter();
    while let (Some(key), Some(value)) = (values.next(), values.next()) {
        pairs.push((key, value));
    }
    pairs
}

fn parse_double(line: &[u8]) -> Option<f64> {
    let text = core::str::from_utf8(line).ok()?;
    // Rust would also take `infinity`, `+1` and mixed case; RESP3 knows only these words and digits.
    match text {
        "inf" => Some(f64::INFINITY),
        "-inf" => Some(f64::NEG_INFINITY),
        "nan" | "-nan" => Some(f64::NAN),
        _ if text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')) => {
            text.parse().ok()
        }
        _ => None,
    }
}

fn is_big_number(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

/// The value as a human reads it in a test's failure: strings escaped, lists bracketed.
impl fmt::Display for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |out: &mut fmt::Formatter<'_>, open: &str, values: &[Value]| {
            out.write_str(open)?;
            for (at, value) in values.iter().enumerate() {
                write!(out, "{}{value}", if at == 0 { "" } else { ", " })?;
            }
            out.write_str("]")
        };
        match self {
            Value::Simple(text) => write!(out, "{}", text.escape_ascii()),
            Value::Error(text) => write!(out, "-{}", text.escape_ascii()),
            Value::Integer(number) => write!(out, "{number}"),
            Value::Bulk(bytes) => write!(out, "\"{}\"", bytes.escape_ascii()),
            Value::Array(values) => list(out, "[", values),
            Value::Set(values) => list(out, "set[", values),
            Value::Push(values) => list(out, "push[", values),
            Value::Map(pairs) => {
                out.write_str("map[")?;
                for (at, (key, value)) in pairs.iter().enumerate() {
                    write!(out, "{}{key}: {value}", if at == 0 { "" } else { ", " })?;
                }
                out.write_str("]")
            }
            Value::Null => out.write_str("null"),
            Value::NullArray => out.write_str("null[]"),
            Value::Double(number) => write!(out, "{}", crate::encode::format_double(*number)),
            Value::Boolean(truth) => write!(out, "{truth}"),
            Value::Verbatim { format, text } => {
                write!(out, "{}:\"{}\"", format.escape_ascii(), text.escape_ascii())
            }
            Value::BigNumber(digits) => write!(out, "{}", String::from_utf8_lossy(digits)),
        }
    }
}
