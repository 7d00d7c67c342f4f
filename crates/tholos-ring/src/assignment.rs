//! Replica sets under construction: who holds what, who has room, and who comes next on the ring.

use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

use crate::place::shard_token;
use crate::ring::{Node, NodeIndex, Ring};
use crate::slot::ShardId;
use crate::topology::Topology;

/// With fewer nodes that have room than one in so many, each of them is looked at, instead of the ring.
const FEW: usize = 8;

/// Sets, and everything that follows from them.
pub(crate) struct Assignment {
    pub(crate) topology: Topology,
    pub(crate) replicas: usize,
    pub(crate) sets: Vec<Vec<NodeIndex>>,
    /// The shards that each node holds.
    pub(crate) holds: Vec<Vec<usize>>,
    /// What each shard had before; a replica of these costs no move.
    before: Vec<Vec<NodeIndex>>,
    ring: Ring,
    /// The points of each node, ascending.
    points: Vec<Vec<u64>>,
    /// Nodes below their caps.
    open: BTreeSet<usize>,
}

impl Assignment {
    /// Nobody holds anything yet.
    pub(crate) fn new(
        nodes: &[Node<'_>],
        topology: Topology,
        replicas: usize,
        before: Vec<Vec<NodeIndex>>,
    ) -> Assignment {
        let ring = Ring::new(nodes);
        let mut points = vec![Vec::new(); nodes.len()];
        for (token, owner) in ring.points() {
            points[usize::from(owner.0)].push(token);
        }
        Assignment {
            open: (0..nodes.len()).filter(|node| topology.caps[*node] > 0).collect(),
            topology,
            replicas,
            sets: vec![Vec::with_capacity(replicas); before.len()],
            holds: vec![Vec::new(); nodes.len()],
            before,
            ring,
            points,
        }
    }

    pub(crate) fn add(&mut self, shard: usize, node: usize) {
        self.sets[shard].push(NodeIndex(node as u16));
        self.holds[node].push(shard);
        self.open_or_close(node);
    }

    pub(crate) fn remove(&mut self, shard: usize, node: usize) {
        self.sets[shard].retain(|held| usize::from(held.0) != node);
        self.holds[node].retain(|held| *held != shard);
        self.open_or_close(node);
    }

    /// Lets a node's share be rounded up or down instead.
    pub(crate) fn round(&mut self, node: usize, up: bool) {
        let topology = &mut self.topology;
        topology.caps[node] = if up { topology.ceilings[node] } else { topology.floors[node] };
        self.open_or_close(node);
    }

    fn open_or_close(&mut self, node: usize) {
        if self.holds[node].len() < self.topology.caps[node] {
            self.open.insert(node);
        } else {
            self.open.remove(&node);
        }
    }

    /// Nodes below their caps.
    pub(crate) fn open_nodes(&self) -> impl Iterator<Item = usize> {
        self.open.iter().copied()
    }

    pub(crate) fn is_open(&self, node: usize) -> bool {
        self.open.contains(&node)
    }

    /// By how much a node is over its cap.
    pub(crate) fn excess(&self, node: usize) -> usize {
        self.holds[node].len().saturating_sub(self.topology.caps[node])
    }

    pub(crate) fn gaps(&self, shard: usize) -> usize {
        self.replicas - self.sets[shard].len()
    }

    pub(crate) fn is_held(&self, shard: usize, node: usize) -> bool {
        self.sets[shard].contains(&NodeIndex(node as u16))
    }

    /// Whether the shard had this replica before.
    pub(crate) fn was_held(&self, shard: usize, node: usize) -> bool {
        self.before[shard].contains(&NodeIndex(node as u16))
    }

    /// What a shard had before.
    pub(crate) fn before(&self, shard: usize) -> impl Iterator<Item = usize> {
        self.before[shard].iter().map(|node| usize::from(node.0))
    }

    /// Whether the group may hold one more replica of the shard.
    pub(crate) fn group_has_room(&self, shard: usize, group: usize) -> bool {
        self.held_in_group(shard, group) < self.topology.limits[group]
    }

    pub(crate) fn held_in_group(&self, shard: usize, group: usize) -> usize {
        self.sets[shard].iter().filter(|node| self.topology.group_of[usize::from(node.0)] == group).count()
    }

    /// The first node clockwise from the shard's token that has room and may take a replica, were the one on `without`
    /// gone. With it, how far it is.
    pub(crate) fn nearest(&self, shard: usize, without: Option<usize>) -> Option<(u64, usize)> {
        let token = token_of(shard);
        let leaves = without.map(|node| self.topology.group_of[node]);
        let admits = |node: &usize| {
            let group = self.topology.group_of[*node];
            self.open.contains(node)
                && !self.is_held(shard, *node)
                && (leaves == Some(group) || self.group_has_room(shard, group))
        };
        let node = if self.open.len() * FEW <= self.holds.len() {
            let open = self.open.iter().copied().filter(admits);
            open.min_by_key(|node| self.distance(token, *node))
        } else {
            self.ring.successors(token).map(|node| usize::from(node.0)).find(admits)
        };
        node.map(|node| (self.distance(token, node), node))
    }

    /// How far clockwise the first point of a node is from a token.
    fn distance(&self, token: u64, node: usize) -> u64 {
        let points = &self.points[node];
        let at = points.partition_point(|point| *point < token);
        let next = points.get(at).or(points.first());
        next.map_or(u64::MAX, |point| point.wrapping_sub(token))
    }

    /// The finished sets: what was there before in its old order, then what is new, as it is met clockwise.
    pub(crate) fn into_sets(self) -> (Vec<Vec<NodeIndex>>, Topology) {
        for (node, shards) in self.holds.iter().enumerate() {
            assert_eq!(shards.len(), self.topology.caps[node], "L2");
        }
        let in_order = |(shard, set): (usize, &Vec<NodeIndex>)| {
            let mut set = set.clone();
            let old = |node: &NodeIndex| self.before[shard].iter().position(|before| before == node);
            set.sort_by_key(|node| {
                let at = usize::from(node.0);
                old(node).map_or((usize::MAX, self.distance(token_of(shard), at)), |place| (place, 0))
            });
            set
        };
        (self.sets.iter().enumerate().map(in_order).collect(), self.topology)
    }
}

fn token_of(shard: usize) -> u64 {
    shard_token(ShardId(shard as u16))
}
