//! One reply or request value: everything RESP3 can say, of which RESP2 can say a part.

use alloc::vec::Vec;

use bytes::Bytes;

/// The protocol a connection speaks. It starts as [`Protocol::Resp2`]; `HELLO 3` switches it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// What every client speaks before it says otherwise.
    #[default]
    Resp2,
    /// Adds maps, sets, doubles, booleans and out-of-band pushes.
    Resp3,
}

/// A value of RESP3, the superset of both protocols.
///
/// Commands answer with the richest type; [`encode`](crate::encode()) writes what the connection's protocol can carry.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A status line such as `OK`. Line breaks in it are written as spaces.
    Simple(Bytes),
    /// An error line, without the leading `-` and with its code first (`ERR …`). Line breaks are written as spaces.
    Error(Bytes),
    /// A signed 64-bit number.
    Integer(i64),
    /// Any bytes.
    Bulk(Bytes),
    /// An ordered list.
    Array(Vec<Value>),
    /// Nothing: `$-1` in RESP2, `_` in RESP3.
    Null,
    /// Nothing where a list was asked for: `*-1` in RESP2 (an aborted `EXEC`), `_` in RESP3.
    NullArray,
    /// Pairs in the order they are sent; a flat array in RESP2.
    Map(Vec<(Value, Value)>),
    /// Distinct values in the order they are sent; an array in RESP2.
    Set(Vec<Value>),
    /// A floating-point number; a bulk string in RESP2.
    Double(f64),
    /// True or false; 1 or 0 in RESP2.
    Boolean(bool),
    /// Text for a human with its format (`txt`, `mkd`); a bulk string of the text alone in RESP2.
    Verbatim {
        /// Three bytes that name the format.
        format: [u8; 3],
        /// The text itself.
        text: Bytes,
    },
    /// Decimal digits of a number beyond 64 bits; a bulk string in RESP2.
    BigNumber(Bytes),
    /// An out-of-band message (RESP3), in RESP2 the array that pub/sub used.
    Push(Vec<Value>),
}

impl Value {
    /// The status `OK`.
    #[must_use]
    pub const fn ok() -> Value {
        Value::Simple(Bytes::from_static(b"OK"))
    }

    /// A status line known when the program was written.
    #[must_use]
    pub const fn simple(text: &'static str) -> Value {
        Value::Simple(Bytes::from_static(text.as_bytes()))
    }

    /// An error line, its code first: `ERR syntax error`.
    pub fn error(text: impl Into<Bytes>) -> Value {
        Value::Error(text.into())
    }

    /// A bulk string.
    pub fn bulk(bytes: impl Into<Bytes>) -> Value {
        Value::Bulk(bytes.into())
    }

    /// A number.
    #[must_use]
    pub const fn integer(number: i64) -> Value {
        Value::Integer(number)
    }

    /// A list.
    pub fn array(values: impl Into<Vec<Value>>) -> Value {
        Value::Array(values.into())
    }

    /// Whether a client would see this as an error.
    #[must_use]
    pub const fn is_error(&self) -> bool {
        matches!(self, Value::Error(_))
    }
}
