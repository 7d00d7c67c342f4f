//! How long keys and values may be.

use tholos_resp::Value;

use crate::cmd::VALUE_BYTES_MAX;
use crate::command::Command;
use crate::error;

/// Limits a node enforces before it proposes a command. Values that commands *build* (APPEND, SETRANGE) have a
/// fixed limit of 64 MiB besides, which all replicas share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest key, in bytes.
    pub key_bytes_max: usize,
    /// Longest value in a command, in bytes.
    pub value_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { key_bytes_max: 64 << 10, value_bytes_max: VALUE_BYTES_MAX }
    }
}

/// Refuses a command whose key or value is too long.
pub fn check_limits(command: &Command, limits: &Limits) -> Result<(), Value> {
    if command.keys().any(|key| key.len() > limits.key_bytes_max) {
        return Err(error::key_too_long(limits.key_bytes_max));
    }
    if command.value_bytes() > limits.value_bytes_max {
        return Err(error::too_long());
    }
    Ok(())
}
