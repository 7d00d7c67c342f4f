//! MULTI and EXEC: commands that are applied together, if what was watched has not changed (R19).

use alloc::vec::Vec;

use bytes::Bytes;
use tholos_resp::Value;

use crate::command::{Access, Command};
use crate::keyspace::{Context, Keyspace, Version};

/// What EXEC proposes: the queued commands, under the condition that every watched key is as it was.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transaction {
    /// Keys with the version each had when WATCH was answered.
    pub watched: Vec<(Bytes, Version)>,
    /// The commands in order, from [`Command::queue`].
    pub commands: Vec<Command>,
}

impl Transaction {
    /// Whether it must go through the log. A transaction that only reads still judges its watched keys, and may do
    /// so wherever a read may be answered, with [`Transaction::read`].
    #[must_use]
    pub fn access(&self) -> Access {
        if self.commands.iter().any(|command| command.access() == Access::Write) {
            Access::Write
        } else {
            Access::Read
        }
    }

    /// All keys, watched ones first.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        let watched = self.watched.iter().map(|(key, _)| key);
        watched.chain(self.commands.iter().flat_map(Command::keys))
    }

    /// Carries the commands out and answers with their replies, or with a null array if a watched key has changed.
    /// An error of one command does not undo the others, as in Redis.
    pub fn apply(&self, context: &Context, keyspace: &mut Keyspace) -> Value {
        if !self.unchanged(context.time_ms, keyspace) {
            return Value::NullArray;
        }
        Value::Array(self.commands.iter().map(|command| keyspace.apply(context, command)).collect())
    }

    /// Answers a transaction that only reads.
    ///
    /// # Panics
    /// If a command writes.
    #[must_use]
    pub fn read(&self, time_ms: u64, keyspace: &Keyspace) -> Value {
        if !self.unchanged(time_ms, keyspace) {
            return Value::NullArray;
        }
        Value::Array(self.commands.iter().map(|command| keyspace.read(time_ms, command)).collect())
    }

    /// Whether it looks at a key that is dead by the wall clock but alive by shard time; see
    /// [`Keyspace::expired_by`].
    #[must_use]
    pub fn expired_by(&self, wall_ms: u64, time_ms: u64, keyspace: &Keyspace) -> bool {
        self.keys().any(|key| keyspace.key_expired_by(wall_ms, time_ms, key))
    }

    fn unchanged(&self, time_ms: u64, keyspace: &Keyspace) -> bool {
        self.watched.iter().all(|(key, version)| keyspace.version(key, time_ms) == *version)
    }
}
