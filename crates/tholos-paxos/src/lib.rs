//! One Multi-Paxos group as a sans-I/O core.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod acceptor;
mod ballot;
mod candidate;
mod group;
mod leader;
mod log;
mod message;
mod options;
mod outbox;
mod quorum;

pub use ballot::{AppendSeq, Ballot, Index, Millis, ReplicaId};
pub use group::{Connectivity, Group, ProposeError};
pub use log::Base;
pub use message::{Checkpoint, Config, Entry, Message, Payload, Record};
pub use options::{Options, Planted};
pub use outbox::{Outbox, RoleChange};
