//! APPEND, GETRANGE and SETRANGE: parts of values.

use core::slice;

use bytes::Bytes;
use tholos_resp::Value;

use super::{check_length, fresh, integer};
use crate::command::{Access, Command, Kind};
use crate::error;
use crate::session::{Expiry, Reader, Session};
use crate::store::entry::Content;
use crate::table::Spec;

/// Commands that read or write a part of a value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RangeCommand {
    /// APPEND.
    Append { key: Bytes, value: Bytes },
    /// GETRANGE and SUBSTR.
    Get { key: Bytes, start: i64, end: i64 },
    /// SETRANGE; the offset is not negative.
    Set { key: Bytes, offset: u64, value: Bytes },
}

/// `APPEND key value`
pub(crate) fn parse_append(_: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    wrap(RangeCommand::Append { key: args[1].clone(), value: args[2].clone() })
}

/// `GETRANGE key start end`
pub(crate) fn parse_getrange(_: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    wrap(RangeCommand::Get { key: args[1].clone(), start: integer(&args[2])?, end: integer(&args[3])? })
}

/// `SETRANGE key offset value`
pub(crate) fn parse_setrange(_: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    let offset = u64::try_from(integer(&args[2])?).map_err(|_| error::offset_out_of_range())?;
    wrap(RangeCommand::Set { key: args[1].clone(), offset, value: args[3].clone() })
}

fn wrap(command: RangeCommand) -> Result<Command, Value> {
    Ok(Command(Kind::Range(command)))
}

impl RangeCommand {
    pub(crate) fn access(&self) -> Access {
        match self {
            RangeCommand::Get { .. } => Access::Read,
            RangeCommand::Append { .. } | RangeCommand::Set { .. } => Access::Write,
        }
    }

    pub(crate) fn keys(&self) -> &[Bytes] {
        match self {
            RangeCommand::Append { key, .. }
            | RangeCommand::Get { key, .. }
            | RangeCommand::Set { key, .. } => slice::from_ref(key),
        }
    }

    /// The longest value it carries, in bytes.
    pub(crate) fn value_bytes(&self) -> usize {
        match self {
            RangeCommand::Append { value, .. } | RangeCommand::Set { value, .. } => value.len(),
            RangeCommand::Get { .. } => 0,
        }
    }

    pub(crate) fn read(&self, reader: &Reader<'_>) -> Value {
        match self {
            RangeCommand::Get { key, start, end } => match reader.view(key) {
                None => Value::Bulk(Bytes::new()),
                Some(view) => Value::Bulk(cut(view.content, *start, *end)),
            },
            _ => error::not_a_read(),
        }
    }

    pub(crate) fn apply(&self, session: &mut Session<'_>) -> Value {
        match self {
            RangeCommand::Append { key, value } => apply_append(session, key, value),
            RangeCommand::Set { key, offset, value } => apply_setrange(session, key, *offset, value),
            RangeCommand::Get { .. } => self.read(&session.reader()),
        }
    }
}

/// The bytes from `start` to `end`, both included, both from the end if negative.
fn cut(content: Content<'_>, start: i64, end: i64) -> Bytes {
    let number;
    let text = match content {
        Content::Integer(_) => {
            number = content.to_vec();
            &number[..]
        }
        Content::Plain(text) | Content::Raw(text) => text,
    };
    if start < 0 && end < 0 && start > end {
        return Bytes::new();
    }
    let length = text.len() as i64;
    let from_start = |at: i64| if at < 0 { length.saturating_add(at).max(0) } else { at };
    let (start, end) = (from_start(start), from_start(end).min(length - 1));
    if start > end {
        return Bytes::new();
    }
    Bytes::copy_from_slice(&text[start as usize..=end as usize])
}

fn apply_append(session: &mut Session<'_>, key: &Bytes, value: &Bytes) -> Value {
    let Some(view) = session.view(key) else {
        session.put(key, fresh(value), Expiry::Never);
        return Value::Integer(value.len() as i64);
    };
    let length = view.content.len();
    if let Err(error) = check_length(length, value.len()) {
        return error;
    }
    session.write_at(key, length, value);
    Value::Integer((length + value.len()) as i64)
}

fn apply_setrange(session: &mut Session<'_>, key: &Bytes, offset: u64, value: &Bytes) -> Value {
    let length = session.view(key).map(|view| view.content.len());
    if value.is_empty() {
        return Value::Integer(length.unwrap_or(0) as i64);
    }
    let Ok(offset) = usize::try_from(offset) else { return error::too_long() };
    if let Err(error) = check_length(offset, value.len()) {
        return error;
    }
    if length.is_none() {
        session.put(key, Content::Raw(b""), Expiry::Never);
    }
    session.write_at(key, offset, value);
    Value::Integer(length.unwrap_or(0).max(offset + value.len()) as i64)
}
