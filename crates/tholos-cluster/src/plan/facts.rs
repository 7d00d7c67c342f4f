//! What is known of a running cluster when a plan is made.

use alloc::string::String;
use alloc::vec::Vec;

use tholos_ring::ShardId;

use crate::id::NodeId;

/// Entries that a replica may lag and still be counted on: while it fetches what it lacks it takes nothing new.
pub const LAG_ENTRIES_MAX: u64 = 10_000;

/// Everything known, as of one look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Of each node, in the order of the map.
    pub nodes: Vec<NodeFacts>,
    /// Of each shard, in their order.
    pub shards: Vec<ShardFacts>,
}

/// What is known of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Why it does not take part; `None` if it does.
    pub down: Option<String>,
    /// Bytes that may still be written to its disk, reserves left out; `None` if nobody knows.
    pub disk_free: Option<u64>,
    /// Bytes that its keyspaces may still grow by; `None` if nobody knows.
    pub memory_free: Option<u64>,
}

/// What is known of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardFacts {
    /// Bytes of its keys and values, about; `None` if nobody knows.
    pub bytes: Option<u64>,
    /// Who leads it.
    pub leader: Option<NodeId>,
    /// Who votes on it by its own log (R7), if that is not what the map says; empty if it is.
    pub voters: Vec<NodeId>,
    /// Its replicas that do not carry a quorum although their nodes are up.
    pub ailing: Vec<(NodeId, Ailment)>,
}

/// Why a replica of a node that is up cannot be counted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ailment {
    /// It is not there, or not yet.
    Absent,
    /// It has lost data and votes nowhere until it is repaired (R20).
    Mute,
    /// It lacks this many entries, more than [`LAG_ENTRIES_MAX`].
    Behind(u64),
}

impl Facts {
    /// Bytes of a shard; 0 if nobody knows.
    pub(crate) fn bytes_of(&self, shard: ShardId) -> u64 {
        self.shards.get(usize::from(shard.0)).and_then(|facts| facts.bytes).unwrap_or(0)
    }
}
