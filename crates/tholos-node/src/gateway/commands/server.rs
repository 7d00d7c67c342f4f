//! ROLE and TIME.

use alloc::format;

use tholos_resp::Value;

use super::{Call, Reply, info};

pub(super) fn run(call: &Call) -> Reply {
    Ok(match call.spec.name {
        // Shards have followers, this node has none: clients of the gateway see one server.
        "role" => Value::array([
            Value::bulk("master"),
            Value::Integer(info::offset(call.view) as i64),
            Value::array([]),
        ]),
        _ => time(call.view.now.wall.0),
    })
}

/// Seconds and microseconds; the clock is read to the millisecond.
fn time(wall_ms: u64) -> Value {
    let micros = wall_ms % 1000 * 1000;
    Value::array([Value::bulk(format!("{}", wall_ms / 1000)), Value::bulk(format!("{micros}"))])
}
