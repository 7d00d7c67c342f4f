//! CLIENT: who is connected, and how this connection is answered.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use bytes::Bytes;
use tholos_engine::{error, introspect};
use tholos_resp::{Protocol, Value};

use super::super::{Connection, Replies};
use super::connection::{DEFAULT_USER, is_printable, set_name};
use super::{Call, Reply, is, quoting, text};
use crate::event::ClientId;

pub(super) fn run(call: &mut Call) -> Option<Value> {
    let reply = match call.spec.name {
        "client|reply" => return reply(call),
        "client|id" => Ok(Value::Integer(call.client.0 as i64)),
        "client|getname" => {
            let name = call.connection().name.clone();
            Ok(if name.is_empty() { Value::Null } else { Value::Bulk(name) })
        }
        "client|setname" => {
            let name = &call.args[2];
            set_name(call.connection(), name).map(|()| Value::ok())
        }
        "client|setinfo" => set_info(call),
        "client|info" => Ok(info(call)),
        "client|list" => list(call),
        "client|kill" => kill(call),
        "client|no-evict" => switch(&call.args[2]).map(|on| {
            call.connection().no_evict = on;
            Value::ok()
        }),
        "client|no-touch" => switch(&call.args[2]).map(|on| {
            call.connection().no_touch = on;
            Value::ok()
        }),
        "client|tracking" => tracking(&call.args[2]),
        "client|help" => Ok(introspect::help(call.spec)),
        _ => Err(error::unknown_subcommand(call.args)),
    };
    Some(reply.unwrap_or_else(|error| error))
}

fn switch(arg: &[u8]) -> Result<bool, Value> {
    if is(arg, "ON") {
        Ok(true)
    } else if is(arg, "OFF") {
        Ok(false)
    } else {
        Err(error::syntax())
    }
}

/// CLIENT REPLY ON is answered; OFF and SKIP are not.
fn reply(call: &mut Call) -> Option<Value> {
    let mode = call.args[2].clone();
    let connection = call.connection();
    if is(&mode, "ON") {
        connection.replies = Replies::On;
        return Some(Value::ok());
    }
    if is(&mode, "OFF") {
        connection.replies = Replies::Off;
        return None;
    }
    if is(&mode, "SKIP") {
        if connection.replies != Replies::Off {
            connection.replies = Replies::SkipNext;
        }
        return None;
    }
    Some(error::syntax())
}

/// CLIENT SETINFO LIB-NAME libname | LIB-VER libver
fn set_info(call: &mut Call) -> Reply {
    let (attribute, value) = (call.args[2].clone(), call.args[3].clone());
    let (name, version) = &mut call.connection().library;
    let place = if is(&attribute, "lib-name") {
        name
    } else if is(&attribute, "lib-ver") {
        version
    } else {
        return Err(quoting("ERR Unrecognized option '", &attribute, "'"));
    };
    if !is_printable(&value) {
        return Err(quoting("ERR ", &attribute, " cannot contain spaces, newlines or special characters."));
    }
    *place = value;
    Ok(Value::ok())
}

/// Nothing tells clients of changed keys yet, so only OFF is true.
fn tracking(mode: &[u8]) -> Reply {
    match switch(mode)? {
        false => Ok(Value::ok()),
        true => Err(Value::error("ERR CLIENT TRACKING is not supported, do not cache on the client's side")),
    }
}

fn info(call: &mut Call) -> Value {
    let now = call.view.now.mono;
    let connection = call.connection();
    let idle = now.since(connection.last_command_at).0;
    text(line(connection, now.since(connection.since).0, idle))
}

/// CLIENT LIST [TYPE type] [ID id ...]
fn list(call: &mut Call) -> Reply {
    let chosen: Vec<ClientId> = match &call.args[2..] {
        [] => call.gateway.connections.keys().copied().collect(),
        [option, kind] if is(option, "TYPE") => match is_normal(kind)? {
            true => call.gateway.connections.keys().copied().collect(),
            false => Vec::new(),
        },
        [option, ids @ ..] if is(option, "ID") && !ids.is_empty() => {
            let ids: Option<Vec<i64>> = ids.iter().map(|id| tholos_resp::parse_integer(id)).collect();
            let ids = ids.ok_or_else(|| Value::error("ERR Invalid client ID"))?;
            // Any number is asked for; only those above zero are a client's.
            ids.into_iter().filter_map(|id| u64::try_from(id).ok()).map(ClientId).collect()
        }
        _ => return Err(error::syntax()),
    };
    let now = call.view.now.mono;
    let mut lines = String::new();
    for connection in chosen.iter().filter_map(|client| call.gateway.connections.get(client)) {
        let (age, idle) = (now.since(connection.since).0, now.since(connection.last_command_at).0);
        lines.push_str(&line(connection, age, idle));
    }
    Ok(text(lines))
}

/// A client's number, which is above zero.
fn client_id(arg: &[u8]) -> Option<ClientId> {
    tholos_resp::parse_integer(arg).and_then(|id| u64::try_from(id).ok()).filter(|id| *id > 0).map(ClientId)
}

/// Whether a client type is the one all clients have.
fn is_normal(kind: &[u8]) -> Result<bool, Value> {
    if ["master", "replica", "slave", "pubsub"].iter().any(|other| is(kind, other)) {
        return Ok(false);
    }
    if is(kind, "normal") { Ok(true) } else { Err(quoting("ERR Unknown client type '", kind, "'")) }
}

/// One line of CLIENT LIST: the fields of Redis that are known here. Ages are in milliseconds.
fn line(connection: &Connection, age: u64, idle: u64) -> String {
    let shown = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let queued = connection.multi.as_ref().map_or(-1, |multi| multi.queued.len() as i64);
    let resp = match connection.protocol {
        Protocol::Resp2 => 2,
        Protocol::Resp3 => 3,
    };
    let mut line = format!("id={} addr={} laddr={}", connection.id.0, connection.remote, connection.local);
    let (age, idle) = (age / 1000, idle / 1000);
    // Writing to a String cannot fail.
    let _ = write!(line, " name={} age={age} idle={idle}", shown(&connection.name));
    let _ = write!(line, " flags={} db=0 sub=0 psub=0 ssub=0 multi={queued}", flags(connection));
    let _ = write!(line, "{}", Memory::of(connection));
    let _ =
        write!(line, " events=r cmd={} user={DEFAULT_USER} redir=-1 resp={resp}", connection.last_command);
    let (name, version) = &connection.library;
    let _ = writeln!(line, " lib-name={} lib-ver={}", shown(name), shown(version));
    line
}

/// What a connection holds, in bytes, under the names that Redis has for it: client libraries read them all. What the
/// driver holds for the socket is not known here.
struct Memory {
    /// Commands that wait for those before them.
    backlog: usize,
    /// Commands that MULTI has queued.
    multi: usize,
    /// Replies that the driver has not fetched.
    output: usize,
}

impl Memory {
    fn of(connection: &Connection) -> Memory {
        let bytes = |args: &Vec<Bytes>| args.iter().map(Bytes::len).sum::<usize>();
        Memory {
            backlog: connection.backlog.iter().map(bytes).sum(),
            multi: connection.multi.as_ref().map_or(0, |multi| multi.bytes),
            output: connection.output_bytes(),
        }
    }
}

impl core::fmt::Display for Memory {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Memory { backlog, multi, output } = self;
        let total = backlog + multi + output;
        write!(
            f,
            " qbuf={backlog} qbuf-free=0 argv-mem=0 multi-mem={multi} rbs=0 rbp=0 obl={output} oll=0 omem=0"
        )?;
        write!(f, " tot-mem={total}")
    }
}

fn flags(connection: &Connection) -> String {
    let flags = [
        ('x', connection.multi.is_some()),
        ('c', connection.closing),
        ('r', connection.readonly.is_some()),
        ('e', connection.no_evict),
        ('T', connection.no_touch),
    ];
    let set: String = flags.into_iter().filter_map(|(flag, set)| set.then_some(flag)).collect();
    if set.is_empty() { String::from("N") } else { set }
}

/// Which clients CLIENT KILL means.
#[derive(Default)]
struct Filter {
    id: Option<ClientId>,
    address: Option<Bytes>,
    local_address: Option<Bytes>,
    /// A type that no client has was asked for.
    nobody: bool,
    skip_me: bool,
}

impl Filter {
    fn accepts(&self, connection: &Connection, me: ClientId) -> bool {
        let spared = self.nobody || (self.skip_me && connection.id == me);
        !spared
            && self.id.is_none_or(|id| id == connection.id)
            && self.address.as_ref().is_none_or(|address| address == connection.remote.as_bytes())
            && self.local_address.as_ref().is_none_or(|address| address == connection.local.as_bytes())
    }
}

/// CLIENT KILL addr | filter value [filter value ...]
fn kill(call: &mut Call) -> Reply {
    let old_form = call.args.len() == 3;
    let filter = match &call.args[2..] {
        [address] => Filter { address: Some(address.clone()), ..Filter::default() },
        filters => parse_filters(filters)?,
    };
    let me = call.client;
    let open = call.gateway.connections.values().filter(|connection| !connection.closing);
    let chosen: Vec<ClientId> =
        open.filter(|open| filter.accepts(open, me)).map(|connection| connection.id).collect();
    for client in &chosen {
        if *client == me {
            // After the reply to this command.
            call.connection().closing = true;
        } else {
            call.gateway.cut(*client);
        }
    }
    match (old_form, chosen.is_empty()) {
        (true, true) => Err(Value::error("ERR No such client")),
        (true, false) => Ok(Value::ok()),
        (false, _) => Ok(Value::Integer(chosen.len() as i64)),
    }
}

fn parse_filters(filters: &[Bytes]) -> Result<Filter, Value> {
    let mut filter = Filter { skip_me: true, ..Filter::default() };
    for pair in filters.chunks(2) {
        let [name, value] = pair else { return Err(error::syntax()) };
        if is(name, "ID") {
            let wrong = || Value::error("ERR client-id should be greater than 0");
            filter.id = Some(client_id(value).ok_or_else(wrong)?);
        } else if is(name, "TYPE") {
            filter.nobody = !is_normal(value)?;
        } else if is(name, "ADDR") {
            filter.address = Some(value.clone());
        } else if is(name, "LADDR") {
            filter.local_address = Some(value.clone());
        } else if is(name, "USER") {
            if value != DEFAULT_USER.as_bytes() {
                return Err(quoting("ERR No such user '", value, "'"));
            }
        } else if is(name, "SKIPME") && (is(value, "yes") || is(value, "no")) {
            filter.skip_me = is(value, "yes");
        } else {
            return Err(error::syntax());
        }
    }
    Ok(filter)
}
