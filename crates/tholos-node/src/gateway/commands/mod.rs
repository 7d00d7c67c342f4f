//! Commands that need no shard: those of the connection, of the server and of the cluster map.
//!
//! Each is a function of the connection, the gateway's settings and the [`View`]. Replies and error texts are those
//! of Redis 7.0.15, or of 7.2 where that is newer (CLIENT SETINFO); what has no truth here is left out.

mod client;
mod cluster;
mod config;
mod connection;
mod info;
mod server;

use bytes::Bytes;
use tholos_engine::table::Spec;
use tholos_engine::{error, introspect};
use tholos_resp::Value;

pub(super) use cluster::slot_question;
pub use connection::same_secret;
pub(super) use connection::{needs_password, protected};

use super::{Connection, Gateway, View};
use crate::event::{ClientId, Port};

/// The Redis version whose commands are spoken, as Valkey reports it too: clients choose features by it.
const REDIS_VERSION: &str = "7.2.4";

/// Everything a command may look at and change.
struct Call<'a> {
    gateway: &'a mut Gateway,
    client: ClientId,
    spec: &'static Spec,
    /// The whole line, the name first; the number of arguments is right.
    args: &'a [Bytes],
    view: &'a View<'a>,
}

/// What a command answers: an error value is an answer too.
type Reply = Result<Value, Value>;

impl Call<'_> {
    /// The connection that asks; the gateway calls only for one it has.
    fn connection(&mut self) -> &mut Connection {
        self.gateway.connections.get_mut(&self.client).expect("a command runs for an open connection")
    }

    fn port(&self) -> Port {
        self.gateway.connections.get(&self.client).map_or(Port::Gateway, |connection| connection.port)
    }
}

/// Runs one. `None`: nothing is answered.
pub(super) fn run(
    gateway: &mut Gateway,
    client: ClientId,
    spec: &'static Spec,
    args: &[Bytes],
    view: &View,
) -> Option<Value> {
    let mut call = Call { gateway, client, spec, args, view };
    let reply = match spec.name.split('|').next().unwrap_or_default() {
        "client" => return client::run(&mut call),
        "cluster" => cluster::run(&mut call),
        "config" => config::run(&mut call),
        "command" => Ok(introspect::command(args)),
        "info" => Ok(info::run(&call)),
        // All else of OBJECT is about a key.
        "object" => Ok(introspect::help(spec)),
        "role" | "time" => server::run(&call),
        _ => connection::run(&mut call),
    };
    Some(reply.unwrap_or_else(|error| error))
}

/// Whether MULTI cannot queue the command, because its answer comes later or changes how EXEC's is written.
pub(super) fn is_outside_multi(spec: &Spec) -> bool {
    matches!(spec.name, "client|reply" | "cluster|countkeysinslot" | "cluster|getkeysinslot")
}

/// The answer to a command that the table does not know, where there is more to say than that.
pub(super) fn unknown(port: Port, args: &[Bytes]) -> Option<Value> {
    let [name, sub, ..] = args else { return None };
    let known = name.eq_ignore_ascii_case(b"cluster") && cluster::is_of_operators(sub);
    known.then(|| match port {
        Port::Gateway => cluster::disabled(),
        Port::Cluster => cluster::for_operators(sub),
    })
}

/// An HTTP request, which a web page can make a browser send here: closed at once, before a line of its body could
/// be a command.
pub(super) fn is_http(args: &[Bytes]) -> bool {
    args.first().is_some_and(|name| name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:"))
}

/// A number that must fit 32 bits, as database numbers do.
fn int(arg: &[u8]) -> Result<i64, Value> {
    let number = tholos_resp::parse_integer(arg).ok_or_else(error::not_an_integer)?;
    if i32::try_from(number).is_ok() { Ok(number) } else { Err(error::not_an_int()) }
}

/// Whether an argument is this word, in any case.
fn is(arg: &[u8], word: &str) -> bool {
    arg.eq_ignore_ascii_case(word.as_bytes())
}

/// An error that repeats an argument.
fn quoting(before: &str, arg: &[u8], after: &str) -> Value {
    Value::Error([before.as_bytes(), arg, after.as_bytes()].concat().into())
}

/// Text for a human, as RESP3 marks it.
fn text(text: impl Into<Bytes>) -> Value {
    Value::Verbatim { format: *b"txt", text: text.into() }
}
