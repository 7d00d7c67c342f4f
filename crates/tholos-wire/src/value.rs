//! Replies on their way from a leader to a gateway. Not RESP: a gateway writes RESP2 or RESP3 as its client
//! asked, so every kind of [`Value`] must arrive as itself.

use alloc::vec::Vec;

use tholos_resp::Value;

use crate::reader::Reader;
use crate::writer::{Out, push_bytes, push_number, push_shared, push_signed};
use crate::{VALUE_DEPTH_MAX, WireError};

const SIMPLE: u8 = 0;
const ERROR: u8 = 1;
const INTEGER: u8 = 2;
const BULK: u8 = 3;
const ARRAY: u8 = 4;
const NULL: u8 = 5;
const NULL_ARRAY: u8 = 6;
const MAP: u8 = 7;
const SET: u8 = 8;
const DOUBLE: u8 = 9;
const FALSE: u8 = 10;
const TRUE: u8 = 11;
const VERBATIM: u8 = 12;
const BIG_NUMBER: u8 = 13;
const PUSH: u8 = 14;

pub(crate) fn push_value(value: &Value, out: &mut Out) {
    match value {
        Value::Simple(text) => push_text(SIMPLE, text, out),
        Value::Error(text) => push_text(ERROR, text, out),
        Value::Integer(number) => {
            out.push(INTEGER);
            push_signed(*number, out);
        }
        Value::Bulk(bytes) => {
            out.push(BULK);
            push_shared(bytes, out);
        }
        Value::Array(values) => push_list(ARRAY, values, out),
        Value::Null => out.push(NULL),
        Value::NullArray => out.push(NULL_ARRAY),
        Value::Map(pairs) => {
            out.push(MAP);
            push_number(pairs.len() as u64, out);
            for (key, value) in pairs {
                push_value(key, out);
                push_value(value, out);
            }
        }
        Value::Set(values) => push_list(SET, values, out),
        Value::Double(number) => {
            out.push(DOUBLE);
            out.extend_from_slice(&number.to_bits().to_le_bytes());
        }
        Value::Boolean(truth) => out.push(if *truth { TRUE } else { FALSE }),
        Value::Verbatim { format, text } => {
            out.push(VERBATIM);
            out.extend_from_slice(format);
            push_bytes(text, out);
        }
        Value::BigNumber(digits) => push_text(BIG_NUMBER, digits, out),
        Value::Push(values) => push_list(PUSH, values, out),
    }
}

fn push_text(kind: u8, text: &[u8], out: &mut Out) {
    out.push(kind);
    push_bytes(text, out);
}

fn push_list(kind: u8, values: &[Value], out: &mut Out) {
    out.push(kind);
    push_number(values.len() as u64, out);
    for value in values {
        push_value(value, out);
    }
}

/// Reads a value that may hold lists in lists up to the limit.
pub(crate) fn read_value(reader: &mut Reader) -> Result<Value, WireError> {
    read_value_within(VALUE_DEPTH_MAX, reader)
}

fn read_value_within(depth: usize, reader: &mut Reader) -> Result<Value, WireError> {
    let value = match reader.u8()? {
        SIMPLE => Value::Simple(reader.bytes()?),
        ERROR => Value::Error(reader.bytes()?),
        INTEGER => Value::Integer(reader.signed()?),
        BULK => Value::Bulk(reader.bytes()?),
        ARRAY => Value::Array(read_list(depth, reader)?),
        NULL => Value::Null,
        NULL_ARRAY => Value::NullArray,
        MAP => {
            let depth = depth.checked_sub(1).ok_or(WireError::TooDeep)?;
            let count = reader.count(2)?;
            // Grows with what is there: if each of 64 nested maps reserved what it claims, they would reserve what only
            // one of them can hold 64 times (W1).
            let pair = |_| Ok((read_value_within(depth, reader)?, read_value_within(depth, reader)?));
            Value::Map((0..count).map(pair).collect::<Result<_, WireError>>()?)
        }
        SET => Value::Set(read_list(depth, reader)?),
        DOUBLE => Value::Double(f64::from_bits(reader.u64()?)),
        FALSE => Value::Boolean(false),
        TRUE => Value::Boolean(true),
        VERBATIM => Value::Verbatim { format: reader.array()?, text: reader.bytes()? },
        BIG_NUMBER => Value::BigNumber(reader.bytes()?),
        PUSH => Value::Push(read_list(depth, reader)?),
        byte => return Err(WireError::Kind { what: "value", byte }),
    };
    Ok(value)
}

fn read_list(depth: usize, reader: &mut Reader) -> Result<Vec<Value>, WireError> {
    let depth = depth.checked_sub(1).ok_or(WireError::TooDeep)?;
    reader.list(|reader| read_value_within(depth, reader))
}
