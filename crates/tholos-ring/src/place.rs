//! Replica sets: a bounded-load walk of the ring in distinct zones.
//!
//! Plain consistent hashing gives a shard to the first nodes clockwise from its token, and loads the unluckiest of
//! equal nodes with a third more than its share. Here each node has a *cap*, an exact whole number from its weight and
//! zone, and the walk passes by those that are full. The caps add up to shards × replicas, so when all is placed every
//! node holds its cap and nothing else.
//!
//! ```text
//!          s12's token
//!               v
//!     ... n3 ---*--- n1 --- n4 --- n1 --- n2 --- n5 ...      clockwise -->
//!                    za     za            zb     zc
//!                    full   1st    again  2nd    3rd
//!                           (n4 closes zone za)
//! ```
//!
//! Late shards may find that all nodes with room stand in zones they already use. Then the shortest chain of moves frees
//! a place: another shard's replica goes elsewhere, if need be after a third one's. Such a chain always exists, because
//! caps divided by the number of shards are a fractional placement within all limits, and a flow network with whole
//! limits has a whole flow (Ford and Fulkerson).
//!
//! Rules kept here:
//! - L1: a set's nodes are distinct, and no zone holds more of a set than it must: one, if there are enough zones.
//! - L2: each node holds exactly its cap.
//! - L3: the result depends on names, zones and weights alone, not on the order of the list.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::caps::water_fill;
use crate::hash::hash64;
use crate::leaders::balance_leaders;
use crate::ring::{Node, NodeIndex, Ring};
use crate::shard_map::ShardMap;
use crate::slot::{SLOT_COUNT, ShardId};

/// Seed of the shards' tokens, so that they share no point with any node's name.
const SHARD_SEED: u64 = u64::from_be_bytes(*b"shard\0\0\0");

/// Where on the ring a shard's walk begins. Frozen, like the hash.
#[must_use]
pub fn shard_token(shard: ShardId) -> u64 {
    hash64(&shard.0.to_le_bytes(), SHARD_SEED)
}

/// Why no replica sets can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlaceError {
    /// Fewer nodes of a weight above 0 than replicas.
    TooFewNodes {
        /// Nodes that could hold something.
        nodes: usize,
        /// Replicas asked for.
        replicas: u8,
    },
    /// Two nodes have this name.
    DuplicateName(String),
    /// More than 65,536 nodes.
    TooManyNodes(usize),
    /// The number of shards is not within 1..=[`SLOT_COUNT`].
    BadShardCount(u16),
    /// No replicas were asked for.
    NoReplicas,
}

impl fmt::Display for PlaceError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlaceError::TooFewNodes { nodes, replicas } => {
                write!(out, "{replicas} replicas of a shard need as many nodes, and there are {nodes}")
            }
            PlaceError::DuplicateName(name) => write!(out, "two nodes are named {name}"),
            PlaceError::TooManyNodes(count) => write!(out, "{count} nodes are more than 65536"),
            PlaceError::BadShardCount(count) => {
                write!(out, "{count} shards are not within 1 to {SLOT_COUNT}")
            }
            PlaceError::NoReplicas => out.write_str("a shard needs at least one replica"),
        }
    }
}

impl core::error::Error for PlaceError {}

/// The first replica sets of a cluster: `replicas` nodes for each of `shard_count` shards.
///
/// Each set lists the preferred leader first, then the others as met clockwise from [`shard_token`]; a node leads as
/// large a part of the shards as it holds of the replicas, rounded to a whole number.
///
/// # Errors
///
/// See [`PlaceError`].
pub fn place(nodes: &[Node<'_>], shard_count: u16, replicas: u8) -> Result<ShardMap, PlaceError> {
    if !(1..=SLOT_COUNT).contains(&shard_count) {
        return Err(PlaceError::BadShardCount(shard_count));
    }
    if replicas == 0 {
        return Err(PlaceError::NoReplicas);
    }
    if nodes.len() > 1 << 16 {
        return Err(PlaceError::TooManyNodes(nodes.len()));
    }
    // L3: from here to the end a node is its place in the order of names.
    let mut order: Vec<u16> = (0..=u16::MAX).take(nodes.len()).collect();
    order.sort_unstable_by_key(|at| nodes[usize::from(*at)].name);
    let sorted: Vec<Node<'_>> = order.iter().map(|at| nodes[usize::from(*at)]).collect();
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(PlaceError::DuplicateName(String::from(pair[0].name)));
    }
    let holders = sorted.iter().filter(|node| node.weight > 0).count();
    if holders < usize::from(replicas) {
        return Err(PlaceError::TooFewNodes { nodes: holders, replicas });
    }

    let mut placement = Placement::new(&sorted, shard_count, replicas);
    for shard in 0..usize::from(shard_count) {
        placement.walk(shard);
    }
    for shard in 0..usize::from(shard_count) {
        while placement.sets[shard].len() < placement.replicas {
            placement.free_a_place(shard);
        }
    }
    let mut sets = placement.into_walk_order();
    balance_leaders(&mut sets, sorted.len());
    for node in sets.iter_mut().flatten() {
        *node = NodeIndex(order[usize::from(node.0)]);
    }
    Ok(ShardMap::new(sets))
}

/// Replica sets under construction.
struct Placement {
    ring: Ring,
    replicas: usize,
    /// The zone of each node.
    zone_of: Vec<usize>,
    /// The nodes of each zone.
    zones: Vec<Vec<usize>>,
    /// Replicas of one shard that each zone may hold (L1).
    zone_limits: Vec<usize>,
    /// Replicas each node is to hold (L2), and holds.
    caps: Vec<u64>,
    loads: Vec<u64>,
    sets: Vec<Vec<NodeIndex>>,
}

impl Placement {
    fn new(nodes: &[Node<'_>], shard_count: u16, replicas: u8) -> Placement {
        let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
        let mut zones: Vec<Vec<usize>> = Vec::new();
        let mut zone_of = Vec::with_capacity(nodes.len());
        for (at, node) in nodes.iter().enumerate() {
            let next = zones.len();
            let zone = if node.zone.is_empty() { next } else { *numbers.entry(node.zone).or_insert(next) };
            if zone == next {
                zones.push(Vec::new());
            }
            zones[zone].push(at);
            zone_of.push(zone);
        }
        let holders = |zone: &Vec<usize>| zone.iter().filter(|at| nodes[**at].weight > 0).count();
        let zone_limits = zone_limits(&zones.iter().map(holders).collect::<Vec<_>>(), usize::from(replicas));
        let caps = caps(nodes, &zones, &zone_limits, u64::from(shard_count), u64::from(replicas));
        Placement {
            ring: Ring::new(nodes),
            replicas: usize::from(replicas),
            zone_of,
            zones,
            zone_limits,
            loads: vec![0; caps.len()],
            caps,
            sets: vec![Vec::with_capacity(usize::from(replicas)); usize::from(shard_count)],
        }
    }

    /// Whether the zone may hold one more replica of the shard (L1).
    fn zone_has_room(&self, shard: usize, zone: usize) -> bool {
        self.held_in_zone(shard, zone) < self.zone_limits[zone]
    }

    fn held_in_zone(&self, shard: usize, zone: usize) -> usize {
        self.sets[shard].iter().filter(|node| self.zone_of[usize::from(node.0)] == zone).count()
    }

    /// Fills a shard's set with the first nodes clockwise that have room in a zone that has room.
    fn walk(&mut self, shard: usize) {
        let token = shard_token(ShardId(shard as u16));
        for node in self.ring.successors(token) {
            if self.sets[shard].len() == self.replicas {
                break;
            }
            let at = usize::from(node.0);
            if self.loads[at] < self.caps[at] && self.zone_has_room(shard, self.zone_of[at]) {
                self.sets[shard].push(node);
                self.loads[at] += 1;
            }
        }
    }

    /// Gives a shard one more replica, by the chain that moves the fewest replicas of other shards.
    ///
    /// A search of the residual graph of the flow shard → (shard, zone) → node: forwards along what is not used up,
    /// backwards along what is used and could be undone.
    fn free_a_place(&mut self, shard: usize) {
        let graph = Vertices { shards: self.sets.len(), zones: self.zones.len() };
        let mut holders: Vec<Vec<usize>> = vec![Vec::new(); self.caps.len()];
        for (holder, set) in self.sets.iter().enumerate() {
            set.iter().for_each(|node| holders[usize::from(node.0)].push(holder));
        }
        let vertex_count = graph.number(Vertex::Node(self.caps.len()));
        let mut came_from = vec![usize::MAX; vertex_count];
        let mut moves = vec![usize::MAX; vertex_count];
        let start = graph.number(Vertex::Shard(shard));
        moves[start] = 0;
        let mut queue = VecDeque::from([start]);
        let mut next = Vec::new();
        while let Some(here) = queue.pop_front() {
            let vertex = graph.vertex(here);
            if let Vertex::Node(node) = vertex
                && self.loads[node] < self.caps[node]
            {
                self.loads[node] += 1;
                self.apply_chain(&graph, &came_from, here, start);
                return;
            }
            self.residual_edges(vertex, &holders, &mut next);
            // Only to undo a placement costs a move; what is free goes to the front of the queue.
            let cost = usize::from(matches!(vertex, Vertex::Node(_)));
            for there in next.drain(..).map(|vertex| graph.number(vertex)) {
                if moves[here] + cost < moves[there] {
                    moves[there] = moves[here] + cost;
                    came_from[there] = here;
                    if cost == 0 { queue.push_front(there) } else { queue.push_back(there) }
                }
            }
        }
        unreachable!(
            "L2: the caps have room for every shard, but no chain leads from {} to it",
            ShardId(shard as u16)
        );
    }

    fn residual_edges(&self, vertex: Vertex, holders: &[Vec<usize>], next: &mut Vec<Vertex>) {
        match vertex {
            Vertex::Shard(shard) => {
                let open = (0..self.zones.len()).filter(|zone| self.zone_has_room(shard, *zone));
                next.extend(open.map(|zone| Vertex::Cell(shard, zone)));
            }
            Vertex::Cell(shard, zone) => {
                let holds = |node: usize| self.sets[shard].iter().any(|held| usize::from(held.0) == node);
                next.extend(
                    self.zones[zone].iter().filter(|node| !holds(**node)).map(|node| Vertex::Node(*node)),
                );
                if self.held_in_zone(shard, zone) > 0 {
                    next.push(Vertex::Shard(shard));
                }
            }
            Vertex::Node(node) => {
                next.extend(holders[node].iter().map(|holder| Vertex::Cell(*holder, self.zone_of[node])));
            }
        }
    }

    /// Carries out the chain that ends in `end`: each step into a node is a replica placed, each step out of one a
    /// replica taken away.
    fn apply_chain(&mut self, graph: &Vertices, came_from: &[usize], end: usize, start: usize) {
        let mut there = end;
        while there != start {
            let here = came_from[there];
            match (graph.vertex(here), graph.vertex(there)) {
                (Vertex::Cell(shard, _), Vertex::Node(node)) => self.sets[shard].push(NodeIndex(node as u16)),
                (Vertex::Node(node), Vertex::Cell(shard, _)) => {
                    self.sets[shard].retain(|held| usize::from(held.0) != node);
                }
                _ => {}
            }
            there = here;
        }
    }

    /// The finished sets, each in the order in which its nodes are met clockwise.
    fn into_walk_order(self) -> Vec<Vec<NodeIndex>> {
        assert_eq!(self.loads, self.caps, "L2");
        let Placement { ring, sets, .. } = self;
        let in_walk_order = |(shard, set): (u16, Vec<NodeIndex>)| {
            ring.successors(shard_token(ShardId(shard)))
                .filter(|node| set.contains(node))
                .take(set.len())
                .collect()
        };
        (0..).zip(sets).map(in_walk_order).collect()
    }
}

/// Replicas of one shard that each zone may hold: as few as can be, and no more than it has nodes.
fn zone_limits(nodes_in_zone: &[usize], replicas: usize) -> Vec<usize> {
    let limited = |limit: usize| nodes_in_zone.iter().map(move |nodes| (*nodes).min(limit));
    let limit = (1..=replicas).find(|limit| limited(*limit).sum::<usize>() >= replicas);
    limited(limit.expect("place() has checked that there are as many nodes as replicas")).collect()
}

/// Replicas each node is to hold: first by zones, then by the nodes in each.
fn caps(
    nodes: &[Node<'_>],
    zones: &[Vec<usize>],
    zone_limits: &[usize],
    shards: u64,
    replicas: u64,
) -> Vec<u64> {
    let weight = |at: &usize| u64::from(nodes[*at].weight);
    let zone_claims: Vec<(u64, u64)> = zones
        .iter()
        .zip(zone_limits)
        .map(|(zone, limit)| (zone.iter().map(weight).sum(), shards * *limit as u64))
        .collect();
    let mut caps = vec![0; nodes.len()];
    for (zone, total) in zones.iter().zip(water_fill(shards * replicas, &zone_claims)) {
        let claims: Vec<(u64, u64)> = zone.iter().map(|at| (weight(at), shards)).collect();
        for (at, cap) in zone.iter().zip(water_fill(total, &claims)) {
            caps[*at] = cap;
        }
    }
    caps
}

/// A vertex of the flow that a placement is.
#[derive(Clone, Copy)]
enum Vertex {
    /// A shard, which sends one unit for each replica.
    Shard(usize),
    /// A shard's part in a zone, which lets through the zone's limit.
    Cell(usize, usize),
    /// A node, which takes in its cap.
    Node(usize),
}

/// Numbers the vertices: shards, then cells shard by shard, then nodes.
struct Vertices {
    shards: usize,
    zones: usize,
}

impl Vertices {
    const fn number(&self, vertex: Vertex) -> usize {
        match vertex {
            Vertex::Shard(shard) => shard,
            Vertex::Cell(shard, zone) => self.shards + shard * self.zones + zone,
            Vertex::Node(node) => self.shards * (1 + self.zones) + node,
        }
    }

    const fn vertex(&self, number: usize) -> Vertex {
        let cells = number.saturating_sub(self.shards);
        if number < self.shards {
            Vertex::Shard(number)
        } else if cells < self.shards * self.zones {
            Vertex::Cell(cells / self.zones, cells % self.zones)
        } else {
            Vertex::Node(cells - self.shards * self.zones)
        }
    }
}

#[cfg(test)]
mod tests;
