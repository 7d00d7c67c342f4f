//! What is known of a running cluster when a plan is made.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use tholos_ring::ShardId;

use crate::id::NodeId;
use crate::map::ClusterMap;

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
    /// Bytes of memory that its keys and values take, about; `None` if nobody knows.
    pub bytes: Option<u64>,
    /// Bytes that a snapshot of it has, about: what a copy sends and keeps on disk; `None` if nobody knows.
    pub data_bytes: Option<u64>,
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

/// What one node says of itself, for plans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSaid {
    /// Bytes that may still be written to its disk, reserves left out; `None` if it does not know.
    pub disk_free: Option<u64>,
    /// Bytes that its keyspaces may still grow by; `None` if it does not know.
    pub memory_free: Option<u64>,
    /// Of each replica that it holds.
    pub shards: Vec<ShardSaid>,
}

/// What a node says of its replica of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardSaid {
    /// The shard.
    pub shard: ShardId,
    /// If it leads and serves: the round of its ballot, to tell which of two leaders is the newer.
    pub leads: Option<u64>,
    /// How far its log is known to be decided.
    pub decided: u64,
    /// Bytes of memory that its keyspace takes, about.
    pub bytes: u64,
    /// Bytes that a snapshot of it has, about.
    pub data_bytes: u64,
    /// The number of the latest configuration in its log (R7).
    pub config: u64,
    /// Who votes by it.
    pub voters: Vec<NodeId>,
    /// Whether it has lost data and votes nowhere (R20).
    pub mute: bool,
}

impl Facts {
    /// What the nodes of `map`, in its order, say together; those that say nothing are down, with the reason. A replica that
    /// lacks more than `lag_max` entries is not counted on: [`LAG_ENTRIES_MAX`] for plans.
    #[must_use]
    pub fn gather(map: &ClusterMap, said: &[Result<NodeSaid, String>], lag_max: u64) -> Facts {
        let node = |said: &Result<NodeSaid, String>| match said {
            Ok(said) => NodeFacts { down: None, disk_free: said.disk_free, memory_free: said.memory_free },
            Err(why) => NodeFacts { down: Some(why.clone()), ..NodeFacts::default() },
        };
        // By shard, so that each report is looked at once, however many there are.
        let mut by_shard: Vec<Vec<(NodeId, &ShardSaid)>> = vec![Vec::new(); usize::from(map.shard_count)];
        for (row, said) in map.nodes.iter().zip(said) {
            for own in said.iter().flat_map(|said| &said.shards) {
                if let Some(all) = by_shard.get_mut(usize::from(own.shard.0)) {
                    all.push((row.id, own));
                }
            }
        }
        let is_up = |id: NodeId| {
            let at = map.nodes.binary_search_by_key(&id, |row| row.id).ok();
            at.and_then(|at| said.get(at)).is_some_and(Result::is_ok)
        };
        let shards = map.shards.iter().zip(&by_shard);
        Facts {
            nodes: said.iter().map(node).collect(),
            shards: shards.map(|(set, said)| ShardFacts::gather(set, said, is_up, lag_max)).collect(),
        }
    }

    /// Bytes that a copy of a shard sends and keeps on disk; 0 if nobody knows.
    pub(crate) fn data_of(&self, shard: ShardId) -> u64 {
        self.shards.get(usize::from(shard.0)).and_then(|facts| facts.data_bytes).unwrap_or(0)
    }

    /// Bytes of memory that a shard takes; 0 if nobody knows.
    pub(crate) fn bytes_of(&self, shard: ShardId) -> u64 {
        self.shards.get(usize::from(shard.0)).and_then(|facts| facts.bytes).unwrap_or(0)
    }
}

impl ShardFacts {
    /// What the nodes that are up and hold the shard say of it; `set` is its replica set by the map.
    fn gather(
        set: &[NodeId],
        said: &[(NodeId, &ShardSaid)],
        is_up: impl Fn(NodeId) -> bool,
        lag_max: u64,
    ) -> ShardFacts {
        // Two may believe that they lead for a moment: the newer one is right.
        let leader = said.iter().filter(|(_, own)| own.leads.is_some()).max_by_key(|(_, own)| own.leads);
        // The leader knows; without one, who has heard of the latest set.
        let knows = leader.or_else(|| said.iter().max_by_key(|(_, own)| own.config));
        let voters = knows.map(|(_, own)| own.voters.clone()).unwrap_or_default();
        let differs = voters.len() != set.len() || voters.iter().any(|voter| !set.contains(voter));
        let decided = leader.map_or(0, |(_, own)| own.decided);
        let ailment = |node: &NodeId| {
            let own = said.iter().find(|(holder, _)| holder == node);
            let ailment = match own {
                None => Ailment::Absent,
                Some((_, own)) if own.mute => Ailment::Mute,
                Some((_, own)) if decided.saturating_sub(own.decided) > lag_max => {
                    Ailment::Behind(decided - own.decided)
                }
                Some(_) => return None,
            };
            Some((*node, ailment))
        };
        ShardFacts {
            bytes: leader.map(|(_, own)| own.bytes).or_else(|| said.iter().map(|(_, own)| own.bytes).max()),
            data_bytes: leader
                .map(|(_, own)| own.data_bytes)
                .or_else(|| said.iter().map(|(_, own)| own.data_bytes).max()),
            leader: leader.map(|(node, _)| *node),
            voters: if differs { voters } else { Vec::new() },
            ailing: set.iter().filter(|node| is_up(**node)).filter_map(ailment).collect(),
        }
    }
}
