//! The replica sets as they are while the moves of a plan are made, and which replicas can be counted on.
//!
//! Nodes are known here by their place in the map.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;

use tholos_ring::{Move, NodeIndex, ShardId};

use crate::map::ClusterMap;
use crate::plan::facts::Facts;
use crate::plan::request::Layout;

/// The sets at one step.
#[derive(Clone, Debug)]
pub(crate) struct Board<'a> {
    facts: &'a Facts,
    /// The zone of each node; one without a name is a zone of its own.
    zone_of: Vec<usize>,
    /// Replicas of one shard that a zone has to hold at most, if they are spread as well as can be.
    pub(crate) zone_limit: usize,
    /// Replicas that cannot be counted on although their nodes are up.
    ailing: BTreeSet<(ShardId, NodeIndex)>,
    sets: Vec<Vec<NodeIndex>>,
    /// Replicas that each node holds.
    pub(crate) held: Vec<usize>,
}

impl<'a> Board<'a> {
    /// As the cluster is before the first move, in zones as they are to be.
    pub(crate) fn new(
        map: &ClusterMap,
        facts: &'a Facts,
        layout: &Layout,
        sets: Vec<Vec<NodeIndex>>,
    ) -> Board<'a> {
        let mut numbers = BTreeMap::new();
        let zone_of: Vec<usize> = layout
            .zones
            .iter()
            .enumerate()
            .map(|(at, zone)| if zone.is_empty() { at } else { *numbers.entry(zone).or_insert(at) })
            .collect();
        let mut held = vec![0; map.nodes.len()];
        sets.iter().flatten().for_each(|node| held[usize::from(node.0)] += 1);
        let ailing = (0..).map(ShardId).zip(&facts.shards).flat_map(|(shard, facts)| {
            facts.ailing.iter().filter_map(move |(node, _)| Some((shard, place(map, *node)?)))
        });
        Board {
            facts,
            zone_limit: zone_limit(&zone_of, layout),
            zone_of,
            ailing: ailing.collect(),
            sets,
            held,
        }
    }

    pub(crate) fn set(&self, shard: ShardId) -> &[NodeIndex] {
        &self.sets[usize::from(shard.0)]
    }

    pub(crate) fn is_up(&self, node: NodeIndex) -> bool {
        self.facts.nodes.get(usize::from(node.0)).is_some_and(|facts| facts.down.is_none())
    }

    /// Whether the replica of a shard that a node has, or gets, can be counted on.
    pub(crate) fn carries(&self, shard: ShardId, node: NodeIndex) -> bool {
        self.is_up(node) && !self.ailing.contains(&(shard, node))
    }

    /// Replicas of a shard that can be counted on.
    pub(crate) fn live(&self, shard: ShardId) -> usize {
        self.set(shard).iter().filter(|node| self.carries(shard, **node)).count()
    }

    /// How many of the replicas that can be counted on a shard can lose and still have a majority; below 0 it has none.
    pub(crate) fn spare(&self, shard: ShardId) -> i32 {
        self.live(shard) as i32 - majority(self.set(shard).len()) as i32
    }

    /// Replicas of a shard in the zone of a node.
    pub(crate) fn held_in_zone_of(&self, shard: ShardId, node: NodeIndex) -> usize {
        let zone = self.zone(node);
        self.set(shard).iter().filter(|other| self.zone(**other) == zone).count()
    }

    /// The most replicas of a shard that any zone holds.
    pub(crate) fn crowding(&self, shard: ShardId) -> usize {
        self.set(shard).iter().map(|node| self.held_in_zone_of(shard, *node)).max().unwrap_or(0)
    }

    pub(crate) fn zone(&self, node: NodeIndex) -> usize {
        self.zone_of[usize::from(node.0)]
    }

    /// Makes a move.
    pub(crate) fn make(&mut self, step: &Move) {
        let set = &mut self.sets[usize::from(step.shard.0)];
        if let Some(from) = step.from {
            set.retain(|node| *node != from);
            self.held[usize::from(from.0)] -= 1;
        }
        if let Some(to) = step.to {
            set.push(to);
            self.held[usize::from(to.0)] += 1;
        }
    }
}

/// Where a node stands in the map.
pub(crate) fn place(map: &ClusterMap, node: crate::id::NodeId) -> Option<NodeIndex> {
    let at = map.nodes.binary_search_by_key(&node, |row| row.id).ok()?;
    u16::try_from(at).ok().map(NodeIndex)
}

/// More than half.
pub(crate) const fn majority(replicas: usize) -> usize {
    replicas / 2 + 1
}

/// The least limit under which the zones hold the replicas of a shard.
fn zone_limit(zone_of: &[usize], layout: &Layout) -> usize {
    let replicas = usize::from(layout.replicas);
    let mut holders: BTreeMap<usize, usize> = BTreeMap::new();
    for (at, zone) in zone_of.iter().enumerate() {
        *holders.entry(*zone).or_default() += usize::from(layout.share(at) > 0);
    }
    let holds = |limit: &usize| holders.values().map(|count| count.min(limit)).sum::<usize>() >= replicas;
    (1..=replicas).find(holds).unwrap_or(replicas)
}
