//! All Paxos groups and keyspaces of one node, and the gateway, as one sans-I/O core.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod appends;
mod config;
mod counted;
mod detector;
mod digests;
mod event;
mod gateway;
mod hints;
mod hot;
mod leased;
mod load;
mod meta;
mod node;
mod operation;
mod peer;
mod prefetch;
mod reading;
mod refusal;
mod refused;
mod renewals;
mod replica_reads;
mod replicas;
mod sessions;
mod shard;
mod snapshot;
mod steering;
mod ticks;
mod work;

pub use config::NodeConfig;
pub use counted::{Counted, CountedOf};
pub use detector::{Detector, node_of, replica_of};
pub use digests::{DigestNote, DigestSaid};
pub use event::{
    Append, ChunkRead, ClientId, Effects, Event, LogRoom, Loss, MetaFailure, Notice, Now, Port, ReplicaOrder,
    SnapshotJob,
};
pub use gateway::{Connection, Counters, Gateway, JobWrites, Replies, Settings, View, same_secret};
pub use hot::{HotKey, Rates};
pub use load::{CAPACITY_WHOLE, LoadSample, NodeLoad, QueueReport, Round, Slowness};
pub use meta::{JobProgress, MoveProgress, STALL_AFTER};
pub use node::{Node, Served};
pub use operation::{Malformed, Operation};
pub use peer::{
    Ask, Forward, Heartbeat, MoveOrder, MoveReport, Outcome, PeerMessage, RescueReport, RescueSaid,
    SnapshotChunk, Wait,
};
pub use replicas::OrderError;
pub use shard::{Shard, Unfit};
pub use snapshot::{Discarded, LoadedSnapshot, SnapshotLoader};
pub use steering::{LeaderMove, MoveReason, OwnStanding};
