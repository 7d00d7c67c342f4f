//! The decided state, in the keyspace of the meta group: one value under one key.
//!
//! So snapshots, transfers and digests carry it as they carry any other data.

use alloc::string::ToString;
use core::ops::Range;

use bytes::Bytes;
use tholos_cluster::{MetaCommand, MetaState};
use tholos_engine::{Command, Context, Keyspace};
use tholos_paxos::Millis;
use tholos_resp::Value;

const KEY: &[u8] = b"meta";

/// The slots of the keyspace: that of the one key.
pub(crate) fn slots() -> Range<u16> {
    let slot = tholos_ring::slot(KEY).number();
    slot..slot + 1
}

fn command(args: &[&[u8]]) -> Command {
    let args: alloc::vec::Vec<Bytes> = args.iter().map(|arg| Bytes::copy_from_slice(arg)).collect();
    Command::parse(&args).expect("GET and SET have these forms")
}

/// The state that is decided; `None` before the first map.
pub(crate) fn read(keyspace: &Keyspace) -> Option<MetaState> {
    match keyspace.read(0, &command(&[b"GET", KEY])) {
        Value::Bulk(bytes) => {
            Some(MetaState::decode(&bytes).expect("apply wrote it, and digests and checksums watch over it"))
        }
        _ => None,
    }
}

/// Whether a first map is decided.
pub(crate) fn is_there(keyspace: &Keyspace) -> bool {
    matches!(keyspace.read(0, &command(&[b"GET", KEY])), Value::Bulk(_))
}

/// Applies a decided command. The reply is a number, or an error that says why nothing has changed.
pub(crate) fn apply(keyspace: &mut Keyspace, context: &Context, bytes: &[u8]) -> Value {
    let asked = match MetaCommand::decode(bytes) {
        Ok(asked) => asked,
        Err(error) => return Value::error(alloc::format!("the command cannot be read: {error}")),
    };
    let mut state = read(keyspace);
    let before = state.as_ref().map(MetaState::epoch);
    let answer = MetaState::apply(&mut state, &asked, Millis(context.time_ms));
    if let Some(state) = state.filter(|state| Some(state.epoch()) != before) {
        let _ = keyspace.apply(context, &command(&[b"SET", KEY, &state.encode()]));
    }
    match answer {
        Ok(number) => Value::Integer(i64::try_from(number).unwrap_or(i64::MAX)),
        Err(refusal) => Value::error(refusal.to_string()),
    }
}
