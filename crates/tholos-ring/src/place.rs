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
//! Late shards may find that all nodes with room stand in zones they already use. Then the cheapest chain of moves frees
//! a place: another shard's replica goes elsewhere, if need be after a third one's.
//!
//! A first placement is a [rebalance](crate::rebalance()) of a cluster that holds nothing.
//!
//! Rules kept here and there:
//! - L1: a set's nodes are distinct, and no zone holds more of a set than it must: one, if there are enough zones.
//! - L2: each node holds exactly its cap.
//! - L3: the result depends on names, zones, weights and what was held before, not on the order of the list.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::hash::hash64;
use crate::rebalance::rebalance;
use crate::ring::{Node, NodeIndex};
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
    /// A replica set names this node, which is not in the list.
    UnknownNode(NodeIndex),
    /// A replica set names a node twice.
    NodeTwice(ShardId),
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
            PlaceError::UnknownNode(node) => {
                write!(out, "a replica set names node {}, which is not in the list", node.0)
            }
            PlaceError::NodeTwice(shard) => write!(out, "the replica set of {shard} names a node twice"),
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
    let nothing = ShardMap::new(vec![Vec::new(); usize::from(shard_count)]);
    rebalance(&nothing, nodes, replicas).map(|plan| plan.map)
}

/// The nodes in the order of their names, in which nothing depends on how they were listed (L3).
pub(crate) struct ByName<'a> {
    pub(crate) nodes: Vec<Node<'a>>,
    /// Where each stood in the caller's list.
    pub(crate) listed: Vec<NodeIndex>,
}

impl<'a> ByName<'a> {
    /// # Errors
    ///
    /// [`PlaceError::TooManyNodes`], [`PlaceError::DuplicateName`], [`PlaceError::NoReplicas`] and
    /// [`PlaceError::TooFewNodes`].
    pub(crate) fn new(nodes: &[Node<'a>], replicas: u8) -> Result<ByName<'a>, PlaceError> {
        if replicas == 0 {
            return Err(PlaceError::NoReplicas);
        }
        if nodes.len() > 1 << 16 {
            return Err(PlaceError::TooManyNodes(nodes.len()));
        }
        let mut listed: Vec<NodeIndex> = (0..=u16::MAX).map(NodeIndex).take(nodes.len()).collect();
        listed.sort_unstable_by_key(|at| nodes[usize::from(at.0)].name);
        let nodes: Vec<Node<'_>> = listed.iter().map(|at| nodes[usize::from(at.0)]).collect();
        if let Some(pair) = nodes.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(PlaceError::DuplicateName(String::from(pair[0].name)));
        }
        let holders = nodes.iter().filter(|node| node.weight > 0).count();
        if holders < usize::from(replicas) {
            return Err(PlaceError::TooFewNodes { nodes: holders, replicas });
        }
        Ok(ByName { nodes, listed })
    }

    /// Puts the caller's numbers in place of those by name.
    pub(crate) fn as_listed(&self, sets: &mut [Vec<NodeIndex>]) {
        for node in sets.iter_mut().flatten() {
            *node = self.listed[usize::from(node.0)];
        }
    }
}

#[cfg(test)]
mod tests;
