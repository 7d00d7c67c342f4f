//! EXPIRE, TTL and their kin: when keys die.

use core::slice;

use bytes::Bytes;
use tholos_resp::Value;

use super::string::Unit;
use super::{integer, is_option};
use crate::command::{Access, Command, Kind};
use crate::error;
use crate::session::{Reader, Session};
use crate::table::Spec;

/// Commands on a key's expiry.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ExpireCommand {
    /// EXPIRE, PEXPIRE, EXPIREAT, PEXPIREAT.
    Set(SetExpire),
    /// TTL, PTTL, EXPIRETIME, PEXPIRETIME.
    Get { key: Bytes, unit: Unit, relative: bool },
    /// PERSIST.
    Clear { key: Bytes },
}

/// A new expiry with its conditions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SetExpire {
    key: Bytes,
    /// In milliseconds; may be negative, which is long ago.
    amount_ms: i64,
    relative: bool,
    conditions: Conditions,
    command: &'static str,
}

/// The options of EXPIRE. All that are set must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Conditions {
    /// NX: only if the key has no expiry.
    if_none: bool,
    /// XX: only if it has one.
    if_some: bool,
    /// GT: only to a later time; no expiry counts as infinitely late.
    if_later: bool,
    /// LT: only to an earlier time.
    if_earlier: bool,
}

/// `EXPIRE key seconds [NX | XX | GT | LT]`
pub(crate) fn parse_expire(spec: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    set_expire(spec, args, Unit::Seconds, true)
}

/// `PEXPIRE key milliseconds [NX | XX | GT | LT]`
pub(crate) fn parse_pexpire(spec: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    set_expire(spec, args, Unit::Milliseconds, true)
}

/// `EXPIREAT key unix-seconds [NX | XX | GT | LT]`
pub(crate) fn parse_expireat(spec: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    set_expire(spec, args, Unit::Seconds, false)
}

/// `PEXPIREAT key unix-milliseconds [NX | XX | GT | LT]`
pub(crate) fn parse_pexpireat(spec: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    set_expire(spec, args, Unit::Milliseconds, false)
}

/// `TTL key`
pub(crate) fn parse_ttl(_: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    wrap(ExpireCommand::Get { key: args[1].clone(), unit: Unit::Seconds, relative: true })
}

/// `PTTL key`
pub(crate) fn parse_pttl(_: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    wrap(ExpireCommand::Get { key: args[1].clone(), unit: Unit::Milliseconds, relative: true })
}

/// `EXPIRETIME key`
pub(crate) fn parse_expiretime(_: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    wrap(ExpireCommand::Get { key: args[1].clone(), unit: Unit::Seconds, relative: false })
}

/// `PEXPIRETIME key`
pub(crate) fn parse_pexpiretime(_: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    wrap(ExpireCommand::Get { key: args[1].clone(), unit: Unit::Milliseconds, relative: false })
}

/// `PERSIST key`
pub(crate) fn parse_persist(_: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    wrap(ExpireCommand::Clear { key: args[1].clone() })
}

fn set_expire(spec: &'static Spec, args: &[Bytes], unit: Unit, relative: bool) -> Result<Command, Value> {
    let conditions = parse_conditions(&args[3..])?;
    let amount = integer(&args[2])?;
    let amount_ms = match unit {
        Unit::Seconds => amount.checked_mul(1000).ok_or_else(|| error::invalid_expire(spec.name))?,
        Unit::Milliseconds => amount,
    };
    let key = args[1].clone();
    wrap(ExpireCommand::Set(SetExpire { key, amount_ms, relative, conditions, command: spec.name }))
}

fn parse_conditions(options: &[Bytes]) -> Result<Conditions, Value> {
    let mut conditions = Conditions::default();
    for option in options {
        if is_option(option, "NX") {
            conditions.if_none = true;
        } else if is_option(option, "XX") {
            conditions.if_some = true;
        } else if is_option(option, "GT") {
            conditions.if_later = true;
        } else if is_option(option, "LT") {
            conditions.if_earlier = true;
        } else {
            return Err(error::unsupported_option(option));
        }
    }
    let Conditions { if_none, if_some, if_later, if_earlier } = conditions;
    if if_none && (if_some || if_later || if_earlier) {
        return Err(error::nx_and_others());
    }
    if if_later && if_earlier {
        return Err(error::gt_and_lt());
    }
    Ok(conditions)
}

fn wrap(command: ExpireCommand) -> Result<Command, Value> {
    Ok(Command(Kind::Expire(command)))
}

impl ExpireCommand {
    pub(crate) fn access(&self) -> Access {
        match self {
            ExpireCommand::Get { .. } => Access::Read,
            ExpireCommand::Set(_) | ExpireCommand::Clear { .. } => Access::Write,
        }
    }

    pub(crate) fn keys(&self) -> &[Bytes] {
        match self {
            ExpireCommand::Set(SetExpire { key, .. })
            | ExpireCommand::Get { key, .. }
            | ExpireCommand::Clear { key } => slice::from_ref(key),
        }
    }

    pub(crate) fn read(&self, reader: &Reader<'_>) -> Value {
        match self {
            ExpireCommand::Get { key, unit, relative } => {
                Value::Integer(remaining(reader, key, *unit, *relative))
            }
            _ => error::not_a_read(),
        }
    }

    pub(crate) fn apply(&self, session: &mut Session<'_>) -> Value {
        match self {
            ExpireCommand::Set(command) => command.apply(session),
            ExpireCommand::Get { .. } => self.read(&session.reader()),
            ExpireCommand::Clear { key } => {
                let expires = session.view(key).is_some_and(|view| view.expire_at.is_some());
                if expires {
                    session.set_expire(key, None);
                }
                Value::Integer(i64::from(expires))
            }
        }
    }
}

/// TTL's answer: −2 without the key, −1 without an expiry.
fn remaining(reader: &Reader<'_>, key: &[u8], unit: Unit, relative: bool) -> i64 {
    let Some(view) = reader.view(key) else { return -2 };
    let Some(expire_at) = view.expire_at else { return -1 };
    let base = if relative { reader.time_ms() } else { 0 };
    let milliseconds = i64::try_from(expire_at.saturating_sub(base)).unwrap_or(i64::MAX);
    match unit {
        Unit::Milliseconds => milliseconds,
        // Redis rounds half seconds up.
        Unit::Seconds => milliseconds.saturating_add(500) / 1000,
    }
}

impl SetExpire {
    fn apply(&self, session: &mut Session<'_>) -> Value {
        let base = if self.relative { i64::try_from(session.time_ms()).unwrap_or(i64::MAX) } else { 0 };
        // An overflow below zero is long ago; one above is refused.
        if self.amount_ms > i64::MAX - base {
            return error::invalid_expire(self.command);
        }
        let at_ms = u64::try_from(self.amount_ms.saturating_add(base)).unwrap_or(0);
        let Some(view) = session.view(&self.key) else { return Value::Integer(0) };
        if !self.conditions.allow(view.expire_at, at_ms) {
            return Value::Integer(0);
        }
        session.set_expire(&self.key, Some(at_ms));
        Value::Integer(1)
    }
}

impl Conditions {
    fn allow(self, old: Option<u64>, new: u64) -> bool {
        !(self.if_none && old.is_some()
            || self.if_some && old.is_none()
            || self.if_later && old.is_none_or(|old| new <= old)
            || self.if_earlier && old.is_some_and(|old| new >= old))
    }
}
