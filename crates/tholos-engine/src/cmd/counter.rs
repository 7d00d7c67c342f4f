//! INCR and its kin: values that are numbers.

use core::slice;

use bytes::Bytes;
use tholos_resp::Value;

use super::decimal::{Decimal, DecimalError};
use super::{bulk, integer};
use crate::command::{Command, Kind};
use crate::error;
use crate::session::{Expiry, Session};
use crate::store::entry::Content;
use crate::table::Spec;

/// Commands that add to a number.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum CounterCommand {
    /// INCR, DECR, INCRBY, DECRBY.
    Add { key: Bytes, amount: i64 },
    /// INCRBYFLOAT; the amount is looked at after the value, whose error comes first.
    AddDecimal { key: Bytes, amount: Bytes },
}

/// `INCR key`
pub(crate) fn parse_incr(_: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    add(args, 1)
}

/// `DECR key`
pub(crate) fn parse_decr(_: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    add(args, -1)
}

/// `INCRBY key amount`
pub(crate) fn parse_incrby(_: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    add(args, integer(&args[2])?)
}

/// `DECRBY key amount`
pub(crate) fn parse_decrby(_: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    add(args, integer(&args[2])?.checked_neg().ok_or_else(error::decrement_overflow)?)
}

/// `INCRBYFLOAT key amount`
pub(crate) fn parse_incrbyfloat(_: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    Ok(Command(Kind::Counter(CounterCommand::AddDecimal { key: args[1].clone(), amount: args[2].clone() })))
}

fn add(args: &[Bytes], amount: i64) -> Result<Command, Value> {
    Ok(Command(Kind::Counter(CounterCommand::Add { key: args[1].clone(), amount })))
}

impl CounterCommand {
    pub(crate) fn keys(&self) -> &[Bytes] {
        match self {
            CounterCommand::Add { key, .. } | CounterCommand::AddDecimal { key, .. } => slice::from_ref(key),
        }
    }

    pub(crate) fn apply(&self, session: &mut Session<'_>) -> Value {
        let result = match self {
            CounterCommand::Add { key, amount } => apply_add(session, key, *amount),
            CounterCommand::AddDecimal { key, amount } => apply_add_decimal(session, key, amount),
        };
        result.unwrap_or_else(|error| error)
    }
}

fn apply_add(session: &mut Session<'_>, key: &Bytes, amount: i64) -> Result<Value, Value> {
    let old = match session.view(key).map(|view| view.content) {
        None => 0,
        Some(Content::Integer(value)) => value,
        Some(Content::Plain(text) | Content::Raw(text)) => {
            tholos_resp::parse_integer(text).ok_or_else(error::not_an_integer)?
        }
    };
    let sum = old.checked_add(amount).ok_or_else(error::overflow)?;
    session.put(key, Content::Integer(sum), Expiry::Keep);
    Ok(Value::Integer(sum))
}

fn apply_add_decimal(session: &mut Session<'_>, key: &Bytes, amount: &[u8]) -> Result<Value, Value> {
    let old = match session.view(key) {
        None => Ok(Decimal::ZERO),
        Some(view) => Decimal::parse(&view.content.to_vec()),
    };
    let (old, amount) = match (old, Decimal::parse(amount)) {
        (Ok(old), Ok(amount)) => (old, amount),
        (Err(DecimalError::NotANumber), _) | (_, Err(DecimalError::NotANumber)) => {
            return Err(error::not_a_float());
        }
        (Err(DecimalError::Infinite), _) | (_, Err(DecimalError::Infinite)) => {
            return Err(error::not_finite());
        }
    };
    let sum = old.add(&amount).ok_or_else(error::not_finite)?.to_text();
    session.put(key, Content::Plain(&sum), Expiry::Keep);
    Ok(bulk(session.view(key)))
}
