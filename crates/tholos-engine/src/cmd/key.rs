//! DEL, EXISTS, RENAME, COPY and their kin: keys whatever their values.

use alloc::vec::Vec;
use core::slice;

use bytes::Bytes;
use tholos_resp::Value;

use super::{content_bytes, integer, is_option};
use crate::command::{Access, Command, Kind};
use crate::error;
use crate::session::{Expiry, Reader, Session};
use crate::store::entry::Content;
use crate::table::Spec;

/// Longest text that Redis keeps in one piece with its object (`embstr`), in bytes.
const EMBEDDED_BYTES_MAX: usize = 44;

/// Commands on keys of any type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum KeyCommand {
    /// DEL and UNLINK.
    Delete { keys: Vec<Bytes> },
    /// EXISTS and TOUCH: how many of the names have a key.
    Count { keys: Vec<Bytes> },
    /// TYPE.
    Type { key: Bytes },
    /// OBJECT ENCODING.
    Encoding { key: Bytes },
    /// RENAME and RENAMENX: from, to.
    Rename { keys: [Bytes; 2], only_if_absent: bool },
    /// COPY: from, to.
    Copy { keys: [Bytes; 2], replace: bool },
    /// FLUSHDB and FLUSHALL, of this shard.
    Flush,
}

/// `DEL key [key …]`
pub(crate) fn parse_del(_: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    wrap(KeyCommand::Delete { keys: args[1..].to_vec() })
}

/// `EXISTS key [key …]`
pub(crate) fn parse_exists(_: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    wrap(KeyCommand::Count { keys: args[1..].to_vec() })
}

/// `TYPE key`
pub(crate) fn parse_type(_: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    wrap(KeyCommand::Type { key: args[1].clone() })
}

/// `OBJECT ENCODING key`
pub(crate) fn parse_encoding(_: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    wrap(KeyCommand::Encoding { key: args[2].clone() })
}

/// `RENAME key newkey`
pub(crate) fn parse_rename(_: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    wrap(KeyCommand::Rename { keys: [args[1].clone(), args[2].clone()], only_if_absent: false })
}

/// `RENAMENX key newkey`
pub(crate) fn parse_renamenx(_: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    wrap(KeyCommand::Rename { keys: [args[1].clone(), args[2].clone()], only_if_absent: true })
}

/// `COPY source destination [DB number] [REPLACE]`
pub(crate) fn parse_copy(_: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    let mut replace = false;
    let mut options = args[3..].iter();
    while let Some(option) = options.next() {
        if is_option(option, "REPLACE") {
            replace = true;
        } else if is_option(option, "DB")
            && let Some(number) = options.next()
        {
            check_database(number)?;
        } else {
            return Err(error::syntax());
        }
    }
    if args[1] == args[2] {
        return Err(error::same_object());
    }
    wrap(KeyCommand::Copy { keys: [args[1].clone(), args[2].clone()], replace })
}

/// `FLUSHDB and FLUSHALL [ASYNC | SYNC]`
pub(crate) fn parse_flush(_: &'static Spec, args: &[Bytes]) -> Result<Command, Value> {
    match &args[1..] {
        [] => {}
        [option] if is_option(option, "ASYNC") || is_option(option, "SYNC") => {}
        _ => return Err(error::syntax()),
    }
    wrap(KeyCommand::Flush)
}

/// Refuses a database number other than 0, as a Redis with one database does.
pub(crate) fn check_database(number: &[u8]) -> Result<(), Value> {
    match i32::try_from(integer(number)?) {
        Ok(0) => Ok(()),
        Ok(_) => Err(error::database_out_of_range()),
        Err(_) => Err(error::not_an_int()),
    }
}

fn wrap(command: KeyCommand) -> Result<Command, Value> {
    Ok(Command(Kind::Key(command)))
}

impl KeyCommand {
    pub(crate) fn access(&self) -> Access {
        match self {
            KeyCommand::Count { .. } | KeyCommand::Type { .. } | KeyCommand::Encoding { .. } => Access::Read,
            _ => Access::Write,
        }
    }

    pub(crate) fn keys(&self) -> &[Bytes] {
        match self {
            KeyCommand::Delete { keys } | KeyCommand::Count { keys } => keys,
            KeyCommand::Type { key } | KeyCommand::Encoding { key } => slice::from_ref(key),
            KeyCommand::Rename { keys, .. } | KeyCommand::Copy { keys, .. } => keys,
            KeyCommand::Flush => &[],
        }
    }

    pub(crate) fn read(&self, reader: &Reader<'_>) -> Value {
        match self {
            KeyCommand::Count { keys } => {
                Value::Integer(keys.iter().filter(|key| reader.view(key).is_some()).count() as i64)
            }
            KeyCommand::Type { key } => {
                Value::simple(if reader.view(key).is_some() { "string" } else { "none" })
            }
            KeyCommand::Encoding { key } => match reader.view(key) {
                None => Value::Null,
                Some(view) => Value::bulk(encoding(view.content)),
            },
            _ => error::not_a_read(),
        }
    }

    pub(crate) fn apply(&self, session: &mut Session<'_>) -> Value {
        match self {
            KeyCommand::Delete { keys } => {
                Value::Integer(keys.iter().filter(|key| session.remove(key)).count() as i64)
            }
            KeyCommand::Rename { keys: [from, to], only_if_absent } => {
                apply_rename(session, from, to, *only_if_absent)
            }
            KeyCommand::Copy { keys: [from, to], replace } => {
                if session.view(from).is_none() || (!replace && session.view(to).is_some()) {
                    return Value::Integer(0);
                }
                copy(session, from, to);
                Value::Integer(1)
            }
            KeyCommand::Flush => {
                session.flush();
                Value::ok()
            }
            _ => self.read(&session.reader()),
        }
    }
}

fn encoding(content: Content<'_>) -> &'static str {
    match content {
        Content::Integer(_) => "int",
        Content::Plain(text) if text.len() <= EMBEDDED_BYTES_MAX => "embstr",
        Content::Plain(_) | Content::Raw(_) => "raw",
    }
}

fn apply_rename(session: &mut Session<'_>, from: &Bytes, to: &Bytes, only_if_absent: bool) -> Value {
    if session.view(from).is_none() {
        return error::no_such_key();
    }
    if from == to {
        return if only_if_absent { Value::Integer(0) } else { Value::ok() };
    }
    if only_if_absent && session.view(to).is_some() {
        return Value::Integer(0);
    }
    copy(session, from, to);
    session.remove(from);
    if only_if_absent { Value::Integer(1) } else { Value::ok() }
}

/// Gives `to` the value and the expiry of `from`, which is alive.
fn copy(session: &mut Session<'_>, from: &[u8], to: &[u8]) {
    let Some(view) = session.view(from) else { return };
    let expiry = view.expire_at.map_or(Expiry::Never, Expiry::At);
    // Copied twice: once out of the tree, once into it. RENAME of long values is rare.
    let text;
    let content = match view.content {
        Content::Integer(value) => Content::Integer(value),
        Content::Plain(_) => {
            text = content_bytes(view.content);
            Content::Plain(&text)
        }
        Content::Raw(_) => {
            text = content_bytes(view.content);
            Content::Raw(&text)
        }
    };
    session.put(to, content, expiry);
}
