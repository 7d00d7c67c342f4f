//! PING, ECHO, HELLO, AUTH, SELECT, QUIT, RESET and what Redis Cluster's clients say to be let in.

use bytes::Bytes;
use tholos_engine::error;
use tholos_paxos::Millis;
use tholos_resp::{Protocol, Value};

use super::super::{Connection, Settings};
use super::{Call, REDIS_VERSION, Reply, cluster, int, is, quoting};
use crate::event::Port;

/// The only user there is.
pub(super) const DEFAULT_USER: &str = "default";

pub(super) fn run(call: &mut Call) -> Reply {
    match call.spec.name {
        "ping" => ping(call.args),
        "echo" => Ok(Value::Bulk(call.args[1].clone())),
        "hello" => hello(call),
        "auth" => auth(call),
        "select" => select(call),
        "quit" => {
            call.connection().closing = true;
            Ok(Value::ok())
        }
        "reset" => {
            let open = call.gateway.settings.requirepass.is_none();
            let connection = call.connection();
            connection.reset();
            connection.authenticated = open;
            Ok(Value::simple("RESET"))
        }
        // Queued by MULTI; EXEC forgets what was watched anyhow.
        "unwatch" => Ok(Value::ok()),
        "readonly" | "readwrite" | "asking" => cluster_mode(call),
        _ => Err(error::unknown_command(call.args)),
    }
}

fn ping(args: &[Bytes]) -> Reply {
    match args {
        [_] => Ok(Value::simple("PONG")),
        [_, message] => Ok(Value::Bulk(message.clone())),
        _ => Err(error::wrong_arity("ping")),
    }
}

/// `HELLO [protover [AUTH username password] [SETNAME clientname]]`
fn hello(call: &mut Call) -> Reply {
    let protocol = match call.args.get(1) {
        None => None,
        Some(version) => Some(protocol(version)?),
    };
    let mut options = call.args.get(2..).unwrap_or_default().iter();
    while let Some(option) = options.next() {
        let rest = options.as_slice();
        if is(option, "AUTH") && rest.len() >= 2 {
            authenticate(call, &rest[0], &rest[1])?;
            options.nth(1);
        } else if is(option, "SETNAME") && !rest.is_empty() {
            set_name(call.connection(), &rest[0])?;
            options.next();
        } else {
            return Err(quoting("ERR Syntax error in HELLO option '", option, "'"));
        }
    }
    if call.gateway.settings.requirepass.is_some() && !call.connection().authenticated {
        return Err(Value::error(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> \
             <pass> option can be used to authenticate the client and select the RESP protocol version at the same \
             time",
        ));
    }
    let connection = call.connection();
    connection.protocol = protocol.unwrap_or(connection.protocol);
    Ok(greeting(connection))
}

fn protocol(version: &[u8]) -> Result<Protocol, Value> {
    match tholos_resp::parse_integer(version) {
        Some(2) => Ok(Protocol::Resp2),
        Some(3) => Ok(Protocol::Resp3),
        Some(_) => Err(Value::error("NOPROTO unsupported protocol version")),
        None => Err(Value::error("ERR Protocol version is not an integer or out of range")),
    }
}

fn greeting(connection: &Connection) -> Value {
    let proto = match connection.protocol {
        Protocol::Resp2 => 2,
        Protocol::Resp3 => 3,
    };
    let mode = match connection.port {
        Port::Gateway => "standalone",
        Port::Cluster => "cluster",
    };
    let fields = [
        ("server", Value::bulk("redis")),
        ("version", Value::bulk(REDIS_VERSION)),
        ("proto", Value::Integer(proto)),
        ("id", Value::Integer(connection.id.0 as i64)),
        ("mode", Value::bulk(mode)),
        ("role", Value::bulk("master")),
        ("modules", Value::array([])),
    ];
    Value::Map(fields.into_iter().map(|(name, value)| (Value::bulk(name), value)).collect())
}

/// `AUTH [username] password`
fn auth(call: &mut Call) -> Reply {
    let (user, password) = match call.args {
        [_, password] => {
            if call.gateway.settings.requirepass.is_none() {
                return Err(Value::error(
                    "ERR AUTH <password> called without any password configured for the default user. Are you sure \
                     your configuration is correct?",
                ));
            }
            (&Bytes::from_static(DEFAULT_USER.as_bytes()), password)
        }
        [_, user, password] => (user, password),
        _ => return Err(error::syntax()),
    };
    authenticate(call, user, password)?;
    Ok(Value::ok())
}

/// Lets the connection in, or leaves it as it was.
fn authenticate(call: &mut Call, user: &[u8], password: &[u8]) -> Result<(), Value> {
    // Without a password the default user is let in with any.
    let right = call.gateway.settings.requirepass.as_ref().is_none_or(|secret| same_secret(secret, password));
    if user != DEFAULT_USER.as_bytes() || !right {
        return Err(Value::error("WRONGPASS invalid username-password pair or user is disabled."));
    }
    call.connection().authenticated = true;
    Ok(())
}

/// Whether what someone gives is the secret. Takes a time that depends on the length of `given` alone, so that it tells
/// nothing of the secret.
#[must_use]
pub fn same_secret(secret: &[u8], given: &[u8]) -> bool {
    let mut difference = u8::from(secret.len() != given.len());
    for (at, byte) in given.iter().enumerate() {
        // A byte of the secret each time, also beyond its end.
        let own = secret.get(at % secret.len().max(1)).copied().unwrap_or_default();
        difference |= core::hint::black_box(own ^ byte);
    }
    core::hint::black_box(difference) == 0
}

/// Whether the connection must still show a password.
pub(in crate::gateway) fn needs_password(settings: &Settings, connection: &Connection) -> bool {
    settings.requirepass.is_some() && !connection.authenticated
}

/// What a client from another machine is told while there is no password.
pub(in crate::gateway) fn protected() -> Bytes {
    Bytes::from_static(
        b"DENIED Tholos is in protected mode: no password is set, so client ports serve the loopback interface only. \
          To serve other machines set requirepass in the configuration of each node and restart it, or set it with \
          'CONFIG SET requirepass' from the machine itself, until the next restart.",
    )
}

fn select(call: &mut Call) -> Reply {
    match (int(&call.args[1])?, call.port()) {
        (0, _) => Ok(Value::ok()),
        (_, Port::Cluster) => Err(Value::error("ERR SELECT is not allowed in cluster mode")),
        (_, Port::Gateway) => Err(error::database_out_of_range()),
    }
}

/// How old an answer may be at most, in milliseconds: a day.
const STALENESS_MAX: u64 = 86_400_000;

/// A number of milliseconds that READONLY or the setting allows.
pub(super) fn staleness(text: &[u8]) -> Option<Millis> {
    let number = u64::try_from(tholos_resp::parse_integer(text)?).ok()?;
    (number <= STALENESS_MAX).then_some(Millis(number))
}

/// READONLY \[milliseconds], READWRITE, ASKING.
fn cluster_mode(call: &mut Call) -> Reply {
    // As Redis answers; but how old answers may be can be stated on the gateway as well.
    let states_age = call.args.len() > 1 || call.connection().readonly.is_some();
    if call.port() == Port::Gateway && !states_age {
        return Err(cluster::disabled());
    }
    match call.spec.name {
        "readonly" => {
            let bound = match call.args {
                [_] => None,
                [_, bound] => Some(staleness(bound).ok_or_else(|| {
                    Value::error(
                        "ERR READONLY takes the age that answers may have, in milliseconds, at most a day",
                    )
                })?),
                _ => return Err(error::syntax()),
            };
            call.connection().readonly = Some(bound);
        }
        "readwrite" => call.connection().readonly = None,
        // Shards move whole, so nothing is ever asked for.
        _ => {}
    }
    Ok(Value::ok())
}

/// HELLO SETNAME and CLIENT SETNAME; an empty name takes it away.
pub(super) fn set_name(connection: &mut Connection, name: &Bytes) -> Result<(), Value> {
    if !is_printable(name) {
        return Err(Value::error("ERR Client names cannot contain spaces, newlines or special characters."));
    }
    connection.name = name.clone();
    Ok(())
}

/// Whether CLIENT LIST can show the text and still be read: no space, no control character, ASCII.
pub(super) fn is_printable(text: &[u8]) -> bool {
    text.iter().all(|byte| (b'!'..=b'~').contains(byte))
}
