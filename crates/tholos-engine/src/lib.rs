//! The commands: table, parsing, and application to the keyspace of one shard.
//!
//! A pure state machine. A command line becomes a [`Command`] ([`Command::parse`], all options checked); decided
//! entries are carried out by [`Keyspace::apply`], reads answered by [`Keyspace::read`]. Replies, error texts and
//! the order of checks are those of Redis 7.0.15. There is no clock and no chance in here but what the entry
//! carries in its [`Context`], so every replica computes the same.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod cmd;
mod command;
pub mod error;
pub mod glob;
pub mod introspect;
mod keyspace;
mod limits;
pub mod number;
mod session;
mod snapshot;
mod specs;
mod store;
pub mod table;
mod transaction;
pub mod wide;

pub use command::{Access, Command};
pub use keyspace::{Context, Keyspace, Location, Version};
pub use limits::{Limits, check_limits};
pub use snapshot::{Discarded, FORMAT as SNAPSHOT_FORMAT, Loader, SnapshotError};
pub use transaction::Transaction;
