//! All Paxos groups and keyspaces of one node, and the gateway, as one sans-I/O core.
#![no_std]

extern crate alloc;

mod event;
mod peer;

pub use event::{Append, ClientId, Effects, Event, Notice, Now, Port, SaveSnapshot};
pub use peer::{Ask, Forward, Heartbeat, Outcome, PeerMessage, SnapshotChunk};
