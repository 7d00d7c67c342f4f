//! Commands that need no shard: those of the connection and of the server.

use bytes::Bytes;
use tholos_engine::table::Spec;
use tholos_resp::Value;

use super::{Gateway, View};
use crate::event::ClientId;

/// Runs one. `None`: the command answers by itself (or not at all).
pub(super) fn run(
    gateway: &mut Gateway,
    client: ClientId,
    spec: &'static Spec,
    args: &[Bytes],
    _view: &View,
) -> Option<Value> {
    let _connection = gateway.connections.get_mut(&client)?;
    Some(match (spec.name, args.len()) {
        ("ping", 1) => Value::simple("PONG"),
        ("ping", 2) | ("echo", 2) => Value::Bulk(args[1].clone()),
        _ => tholos_engine::error::unknown_command(args),
    })
}
