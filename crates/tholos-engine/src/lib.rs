//! The commands: table, parsing, and application to the keyspace of one shard.
