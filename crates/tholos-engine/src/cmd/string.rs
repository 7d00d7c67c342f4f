//! GET, SET and their kin: whole values.

use alloc::vec::Vec;
use core::slice;

use bytes::Bytes;
use tholos_resp::Value;

use super::{bulk, fresh, is_option};
use crate::command::{Access, Command, Kind};
use crate::error;
use crate::session::{Expiry, Reader, Session};
use crate::table::Spec;

/// Commands that read or write whole values.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum StringCommand {
    /// GET.
    Get { key: Bytes },
    /// STRLEN.
    Length { key: Bytes },
    /// MGET.
    GetMany { keys: Vec<Bytes> },
    /// SET, SETEX, PSETEX, SETNX and GETSET.
    Set(Set),
    /// GETDEL.
    GetAndDelete { key: Bytes },
    /// GETEX.
    GetAndExpire { key: Bytes, expire: NewExpire, command: &'static str },
    /// MSET and MSETNX; key and value by turns.
    SetMany { pairs: Vec<Bytes>, only_if_none: bool },
}

/// All of SET's options.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Set {
    key: Bytes,
    value: Bytes,
    condition: Condition,
    expire: NewExpire,
    reply: SetReply,
    /// For errors: SETEX names itself.
    command: &'static str,
}

/// When SET does anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Always,
    /// NX.
    IfAbsent,
    /// XX.
    IfPresent,
}

/// What SET answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SetReply {
    /// OK, or null if the condition does not hold.
    Status,
    /// 1 or 0 (SETNX).
    Count,
    /// The value before (GET option, GETSET).
    Old,
}

/// What becomes of the expiry.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum NewExpire {
    /// No option given: SET clears it, GETEX leaves it.
    Unsaid,
    /// KEEPTTL.
    Keep,
    /// PERSIST.
    Never,
    /// EX, PX, EXAT, PXAT. GETEX looks at the number only once it has found the key, so it may still be wrong.
    At { amount: Bytes, unit: Unit, relative: bool },
}

/// The unit of a time argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Milliseconds,
}

impl NewExpire {
    /// The time in Unix milliseconds, or Redis's error.
    fn resolve(&self, now_ms: u64, command: &str) -> Result<Option<u64>, Value> {
        let NewExpire::At { amount, unit, relative } = self else { return Ok(None) };
        let amount = tholos_resp::parse_integer(amount).ok_or_else(error::not_an_integer)?;
        let invalid = || error::invalid_expire(command);
        if amount <= 0 {
            return Err(invalid());
        }
        let amount = match unit {
            Unit::Seconds => amount.checked_mul(1000).ok_or_else(invalid)?,
            Unit::Milliseconds => amount,
        };
        let base = if *relative { i64::try_from(now_ms).map_err(|_| invalid())? } else { 0 };
        let at = amount.checked_add(base).ok_or_else(invalid)?;
        u64::try_from(at).map(Some).map_err(|_| invalid())
    }

    /// Refuses what is wrong at any time, before the command is sent anywhere.
    fn check(&self, command: &str) -> Result<(), Value> {
        self.resolve(0, command).map(|_| ())
    }
}

/// `GET key`
pub(crate) fn parse_get(_: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    wrap(StringCommand::Get { key: args[1].clone() })
}

/// `STRLEN key`
pub(crate) fn parse_strlen(_: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    wrap(StringCommand::Length { key: args[1].clone() })
}

/// `MGET key [key …]`
pub(crate) fn parse_mget(_: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    wrap(StringCommand::GetMany { keys: args[1..].to_vec() })
}

/// `SET key value [NX | XX] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]`
pub(crate) fn parse_set(spec: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    let mut set = plain_set(spec, &args[1], &args[2]);
    let mut options = args[3..].iter();
    while let Some(option) = options.next() {
        if is_option(option, "NX") && set.condition != Condition::IfPresent {
            set.condition = Condition::IfAbsent;
        } else if is_option(option, "XX") && set.condition != Condition::IfAbsent {
            set.condition = Condition::IfPresent;
        } else if is_option(option, "GET") {
            set.reply = SetReply::Old;
        } else if is_option(option, "KEEPTTL") && matches!(set.expire, NewExpire::Unsaid | NewExpire::Keep) {
            set.expire = NewExpire::Keep;
        } else {
            set.expire = time_option(option, &set.expire, &mut options)?;
        }
    }
    set.expire.check(spec.name)?;
    wrap(StringCommand::Set(set))
}

/// `SETNX key value`
pub(crate) fn parse_setnx(spec: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    let set = plain_set(spec, &args[1], &args[2]);
    wrap(StringCommand::Set(Set { condition: Condition::IfAbsent, reply: SetReply::Count, ..set }))
}

/// `GETSET key value`
pub(crate) fn parse_getset(spec: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    wrap(StringCommand::Set(Set { reply: SetReply::Old, ..plain_set(spec, &args[1], &args[2]) }))
}

/// `SETEX key seconds value`
pub(crate) fn parse_setex(spec: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    set_with_time(spec, args, Unit::Seconds)
}

/// `PSETEX key milliseconds value`
pub(crate) fn parse_psetex(spec: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    set_with_time(spec, args, Unit::Milliseconds)
}

fn set_with_time(spec: &'static Spec, args: &[Bytes], unit: Unit) -> Result<Command, Value> {
    let expire = NewExpire::At { amount: args[2].clone(), unit, relative: true };
    expire.check(spec.name)?;
    wrap(StringCommand::Set(Set { expire, ..plain_set(spec, &args[1], &args[3]) }))
}

/// `GETDEL key`
pub(crate) fn parse_getdel(_: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    wrap(StringCommand::GetAndDelete { key: args[1].clone() })
}

/// `GETEX key [EX s | PX ms | EXAT s | PXAT ms | PERSIST]`
pub(crate) fn parse_getex(spec: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    let mut expire = NewExpire::Unsaid;
    let mut options = args[2..].iter();
    while let Some(option) = options.next() {
        if is_option(option, "PERSIST") && matches!(expire, NewExpire::Unsaid | NewExpire::Never) {
            expire = NewExpire::Never;
        } else {
            expire = time_option(option, &expire, &mut options)?;
        }
    }
    wrap(StringCommand::GetAndExpire { key: args[1].clone(), expire, command: spec.name })
}

/// `MSET key value [key value …]`
pub(crate) fn parse_mset(spec: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    set_many(spec, args, false)
}

/// `MSETNX key value [key value …]`
pub(crate) fn parse_msetnx(spec: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    set_many(spec, args, true)
}

fn set_many(spec: &'static Spec, args: &[Bytes], only_if_none: bool) -> Result<Command, Value> {
    if args.len().is_multiple_of(2) {
        return Err(error::wrong_arity(spec.name));
    }
    wrap(StringCommand::SetMany { pairs: args[1..].to_vec(), only_if_none })
}

fn wrap(command: StringCommand) -> Result<Command, Value> {
    Ok(Command(Kind::String(command)))
}

fn plain_set(spec: &'static Spec, key: &Bytes, value: &Bytes) -> Set {
    Set {
        key: key.clone(),
        value: value.clone(),
        condition: Condition::Always,
        expire: NewExpire::Unsaid,
        reply: SetReply::Status,
        command: spec.name,
    }
}

/// EX, PX, EXAT or PXAT with its number. One of them may be repeated, and the last counts; two kinds are an error.
fn time_option<'a>(
    option: &[u8],
    before: &NewExpire,
    rest: &mut impl Iterator<Item = &'a Bytes>,
) -> Result<NewExpire, Value> {
    let names = [
        ("EX", Unit::Seconds, true),
        ("PX", Unit::Milliseconds, true),
        ("EXAT", Unit::Seconds, false),
        ("PXAT", Unit::Milliseconds, false),
    ];
    let known = names.into_iter().find(|(name, ..)| is_option(option, name));
    let (_, unit, relative) = known.ok_or_else(error::syntax)?;
    let agrees = match before {
        NewExpire::Unsaid => true,
        NewExpire::Keep | NewExpire::Never => false,
        NewExpire::At { unit: old_unit, relative: old_relative, .. } => {
            (*old_unit, *old_relative) == (unit, relative)
        }
    };
    match rest.next() {
        Some(amount) if agrees => Ok(NewExpire::At { amount: amount.clone(), unit, relative }),
        _ => Err(error::syntax()),
    }
}

impl StringCommand {
    pub(crate) fn access(&self) -> Access {
        match self {
            StringCommand::Get { .. } | StringCommand::Length { .. } | StringCommand::GetMany { .. } => {
                Access::Read
            }
            // Without an option GETEX is GET.
            StringCommand::GetAndExpire { expire: NewExpire::Unsaid, .. } => Access::Read,
            _ => Access::Write,
        }
    }

    /// The arguments that hold keys, and how far apart they are.
    pub(crate) fn keys(&self) -> (&[Bytes], usize) {
        match self {
            StringCommand::Get { key }
            | StringCommand::Length { key }
            | StringCommand::Set(Set { key, .. })
            | StringCommand::GetAndDelete { key }
            | StringCommand::GetAndExpire { key, .. } => (slice::from_ref(key), 1),
            StringCommand::GetMany { keys } => (keys, 1),
            StringCommand::SetMany { pairs, .. } => (pairs, 2),
        }
    }

    /// The longest value it carries, in bytes.
    pub(crate) fn value_bytes(&self) -> usize {
        match self {
            StringCommand::Set(set) => set.value.len(),
            StringCommand::SetMany { pairs, .. } => {
                pairs.iter().skip(1).step_by(2).map(Bytes::len).max().unwrap_or(0)
            }
            _ => 0,
        }
    }

    pub(crate) fn read(&self, reader: &Reader<'_>) -> Value {
        match self {
            StringCommand::Get { key } | StringCommand::GetAndExpire { key, .. } => bulk(reader.view(key)),
            StringCommand::Length { key } => {
                Value::Integer(reader.view(key).map_or(0, |view| view.content.len() as i64))
            }
            StringCommand::GetMany { keys } => {
                Value::Array(keys.iter().map(|key| bulk(reader.view(key))).collect())
            }
            _ => error::not_a_read(),
        }
    }

    pub(crate) fn apply(&self, session: &mut Session<'_>) -> Value {
        match self {
            StringCommand::Set(set) => set.apply(session),
            StringCommand::GetAndDelete { key } => {
                let old = bulk(session.view(key));
                session.remove(key);
                old
            }
            StringCommand::GetAndExpire { key, expire, command } => {
                apply_getex(session, key, expire, command)
            }
            StringCommand::SetMany { pairs, only_if_none } => apply_mset(session, pairs, *only_if_none),
            _ => self.read(&session.reader()),
        }
    }
}

impl Set {
    fn apply(&self, session: &mut Session<'_>) -> Value {
        let expire_at = match self.expire.resolve(session.time_ms(), self.command) {
            Ok(expire_at) => expire_at,
            Err(error) => return error,
        };
        let asks = self.condition != Condition::Always || self.reply == SetReply::Old;
        let old = if asks { session.view(&self.key) } else { None };
        let holds = match self.condition {
            Condition::Always => true,
            Condition::IfAbsent => old.is_none(),
            Condition::IfPresent => old.is_some(),
        };
        let reply = match self.reply {
            SetReply::Status => {
                if holds {
                    Value::ok()
                } else {
                    Value::Null
                }
            }
            SetReply::Count => Value::Integer(i64::from(holds)),
            SetReply::Old => bulk(old),
        };
        if holds {
            let expiry = match (expire_at, &self.expire) {
                (Some(at_ms), _) => Expiry::At(at_ms),
                (None, NewExpire::Keep) => Expiry::Keep,
                (None, _) => Expiry::Never,
            };
            session.put(&self.key, fresh(&self.value), expiry);
        }
        reply
    }
}

fn apply_getex(session: &mut Session<'_>, key: &Bytes, expire: &NewExpire, command: &str) -> Value {
    let Some(view) = session.view(key) else { return Value::Null };
    let old_expire = view.expire_at;
    let value = bulk(Some(view));
    match expire.resolve(session.time_ms(), command) {
        Err(error) => return error,
        Ok(Some(at_ms)) => session.set_expire(key, Some(at_ms)),
        Ok(None) if *expire == NewExpire::Never && old_expire.is_some() => session.set_expire(key, None),
        Ok(None) => {}
    }
    value
}

fn apply_mset(session: &mut Session<'_>, pairs: &[Bytes], only_if_none: bool) -> Value {
    let (pairs, _) = pairs.as_chunks::<2>();
    if only_if_none && pairs.iter().any(|[key, _]| session.view(key).is_some()) {
        return Value::Integer(0);
    }
    for [key, value] in pairs {
        session.put(key, fresh(value), Expiry::Never);
    }
    if only_if_none { Value::Integer(1) } else { Value::ok() }
}
