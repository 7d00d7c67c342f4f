//! What the gateway may see of its node.

use alloc::vec::Vec;

use tholos_cluster::{ClusterMap, NodeId};
use tholos_paxos::{Ballot, Millis};
use tholos_resp::Value;
use tholos_ring::ShardId;

use crate::config::NodeConfig;
use crate::detector::Detector;
use crate::event::Now;
use crate::hints::Hints;
use crate::load::{CAPACITY_WHOLE, Load, NodeLoad};
use crate::shard::Shard;
use crate::steering::targets;

/// The node around the gateway, read-only.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Settings of the node.
    pub config: &'a NodeConfig,
    /// The cluster map.
    pub map: &'a ClusterMap,
    /// The replicas on this node, by shard number.
    pub shards: &'a [Option<Shard>],
    /// Leaders of other shards, as last heard (R11).
    pub(crate) hints: &'a Hints,
    /// Who is heard.
    pub detector: &'a Detector,
    /// What is known of the nodes' load.
    pub(crate) load: &'a Load,
    /// The time.
    pub now: Now,
    /// Whether this node is over its `maxmemory`.
    pub memory_full: bool,
    /// Bytes in this node's keyspaces.
    pub memory_used: u64,
    /// A fresh random number for this call.
    pub seed: u64,
}

impl View<'_> {
    /// The leader of a shard, if one is known that the map names. Of another there is no address: it has left the map, and
    /// the shard has a new leader soon, or it has joined and the map here is old. Both will be known soon.
    pub fn leader(&self, shard: ShardId) -> Option<(NodeId, Ballot)> {
        let own = self.shard(shard).and_then(|shard| shard.group.leader());
        let own = own.map(|ballot| (crate::detector::node_of(ballot.replica), ballot));
        // A replica that was removed knows an old one at best; the higher ballot is the better hint (R11).
        let promised = self.shard(shard).map(|shard| shard.group.promised()).unwrap_or_default();
        let hint = self.hints.leader(shard, promised);
        let known = own.into_iter().chain(hint).max_by_key(|(_, ballot)| *ballot);
        known.filter(|(node, _)| *node == self.config.me || self.map.node(*node).is_some())
    }

    /// The nodes that vote on a shard, in walk order, as far as is known here.
    pub fn replicas(&self, shard: ShardId) -> &[NodeId] {
        crate::replicas::voters_known(self.shards, shard).unwrap_or_else(|| self.map.replica_set(shard))
    }

    /// Whether this node leads a shard and serves it.
    pub fn leads(&self, shard: ShardId) -> bool {
        matches!(self.shards.get(usize::from(shard.0)), Some(Some(shard)) if shard.group.serving())
    }

    /// The reply to a client of the cluster port whose slot another node leads.
    pub fn moved(&self, slot: u16, leader: NodeId) -> Value {
        let address = self.map.node(leader).map_or("", |row| row.cluster.as_str());
        Value::error(alloc::format!("MOVED {slot} {address}"))
    }

    /// Whether a node is over its `maxmemory`, as it said last.
    pub fn memory_full(&self, node: NodeId) -> bool {
        if node == self.config.me { self.memory_full } else { self.detector.memory_full(node) }
    }

    /// The replica on this node, if there is one.
    pub fn shard(&self, shard: ShardId) -> Option<&Shard> {
        self.shards.get(usize::from(shard.0))?.as_ref()
    }

    /// The shard time that an entry has which its leader proposes now, about: never below what this
    /// node has seen in the shard's log. The own clock, which may be the wrong one, has no part in it (R16).
    pub fn shard_time(&self, shard: ShardId) -> Millis {
        let time = self.detector.median_time(self.replicas(shard));
        self.shard(shard).map_or(time, |shard| time.max(shard.group.last_time()))
    }

    /// What a node said of its load last.
    pub fn load_of(&self, node: NodeId) -> NodeLoad {
        if node != self.config.me {
            return self.load.of_peer(node);
        }
        let load = self.load.own(0, self.now.mono);
        NodeLoad { capacity: if self.config.steers { load.capacity } else { CAPACITY_WHOLE }, ..load }
    }

    /// The nodes that are heard, and the part of each in what all have to spare.
    pub fn shares(&self) -> Vec<(NodeId, f64)> {
        let me = self.config.me;
        let heard = || self.map.nodes.iter().filter(|row| row.id == me || self.detector.hears_node(row.id));
        let shares = targets::shares(heard().map(|row| (row.weight, self.load_of(row.id).spare().max(1))));
        heard().map(|row| row.id).zip(shares).collect()
    }

    /// All shards.
    pub fn all_shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.map.shard_count).map(ShardId)
    }
}
