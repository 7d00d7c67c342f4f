//! The commands by family: what each accepts, and what it does, side by side.

pub(crate) mod counter;
pub(crate) mod decimal;
pub(crate) mod expire;
pub(crate) mod key;
pub(crate) mod lcs;
pub(crate) mod range;
pub(crate) mod string;

use bytes::Bytes;
use tholos_resp::Value;

use crate::error;
use crate::number;
use crate::store::entry::{Content, View};

/// Longest value a command may build, in bytes; a constant, because every replica must refuse alike.
pub(crate) const VALUE_BYTES_MAX: usize = 64 << 20;
/// Longest text that may be held as a number, in bytes.
const NUMBER_BYTES_MAX: usize = 20;

/// A value as SET takes it: held as a number if it is written as one.
pub(crate) fn fresh(text: &[u8]) -> Content<'_> {
    let number = if text.len() <= NUMBER_BYTES_MAX { tholos_resp::parse_integer(text) } else { None };
    number.map_or(Content::Plain(text), Content::Integer)
}

/// The value as a reply, copied.
pub(crate) fn bulk(view: Option<View<'_>>) -> Value {
    match view.map(|view| view.content) {
        None => Value::Null,
        Some(content) => Value::Bulk(content_bytes(content)),
    }
}

/// The text of a value, copied.
pub(crate) fn content_bytes(content: Content<'_>) -> Bytes {
    match content {
        Content::Integer(value) => number::format(value).into(),
        Content::Plain(text) | Content::Raw(text) => Bytes::copy_from_slice(text),
    }
}

/// An argument that must be an integer.
pub(crate) fn integer(arg: &[u8]) -> Result<i64, Value> {
    tholos_resp::parse_integer(arg).ok_or_else(error::not_an_integer)
}

/// Whether an argument is this option, in any case.
pub(crate) fn is_option(arg: &[u8], option: &str) -> bool {
    arg.eq_ignore_ascii_case(option.as_bytes())
}

/// Refuses a text that would be longer than a value may be.
pub(crate) fn check_length(length: usize, more: usize) -> Result<(), Value> {
    match length.checked_add(more) {
        Some(total) if total <= VALUE_BYTES_MAX => Ok(()),
        _ => Err(error::too_long()),
    }
}
