//! The bounded ring with memory: new replica sets for nodes that came, left or changed, with as few moves as can be.
//!
//! A ring alone remembers nothing, and so cannot be both even and still: it moves the least when a node comes or goes,
//! but its shares are uneven; bound them, and one node's change shifts the bounds of all, and with them replicas that
//! had nothing to do with it. So the sets of before are an input here:
//!
//! 1. as many replicas as may stay where they are do;
//! 2. what is missing (of nodes that left, or of more replicas) goes to the first node clockwise from the shard's token
//!    that is below its cap, in a zone that the shard does not use;
//! 3. nodes above their caps give up the replicas whose next node clockwise is nearest;
//! 4. where no such node is left, the cheapest [chain](crate::chain) of moves makes room.
//!
//! Each node then holds exactly its cap. How many moves that takes at least is told by what each node lacks.

use alloc::vec;
use alloc::vec::Vec;

use crate::assignment::Assignment;
use crate::chain::Vertex;
use crate::leaders::balance_leaders;
use crate::place::{ByName, PlaceError};
use crate::ring::{Node, NodeIndex};
use crate::shard_map::ShardMap;
use crate::slot::ShardId;
use crate::topology::{Topology, zones_of};

/// One replica's way: a change of one replica set that is safe by itself, whatever becomes of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The shard.
    pub shard: ShardId,
    /// Who gives up its replica; nobody if the shard gets one more.
    pub from: Option<NodeIndex>,
    /// Who gets one; nobody if the shard keeps one less.
    pub to: Option<NodeIndex>,
}

/// What [`rebalance`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The replica sets once all moves are made: the preferred leader first, then what was there before in its order,
    /// then what is new, as met clockwise.
    pub map: ShardMap,
    /// From the sets of before to these. Those of one shard stand together and are made in their order, so that no zone
    /// holds more of it on the way than before or after.
    pub moves: Vec<Move>,
    /// Replicas that no placement with these shares could leave where they were: what the nodes lack of their shares, or
    /// the shards of their sets, whichever is more.
    pub least_possible: usize,
    /// The largest share of a node divided by what weights and zones would give it if replicas could be cut: 1 if
    /// nothing had to be rounded.
    pub max_over_target: f64,
}

impl Plan {
    /// Replicas that are copied to a node which did not have them.
    #[must_use]
    pub fn moved(&self) -> usize {
        self.moves.iter().filter(|step| step.to.is_some()).count()
    }
}

/// Replica sets of `replicas` nodes for the shards of `previous`, which refers to `nodes` by their position: a node that
/// leaves stays in the list with weight 0, and new nodes come after it.
///
/// A pure function: equal clusters get equal plans, however their nodes are listed.
///
/// # Errors
///
/// See [`PlaceError`].
pub fn rebalance(previous: &ShardMap, nodes: &[Node<'_>], replicas: u8) -> Result<Plan, PlaceError> {
    let by_name = ByName::new(nodes, replicas)?;
    let before = as_by_name(previous, &by_name.listed)?;
    let replicas = usize::from(replicas);
    let mut held = vec![0_u64; nodes.len()];
    for node in before.iter().flatten().map(|node| usize::from(node.0)) {
        held[node] += u64::from(by_name.nodes[node].weight > 0);
    }
    let topology = Topology::new(&by_name.nodes, before.len(), replicas, &held);
    let lacks = |(floor, held): (&usize, &u64)| floor.saturating_sub(*held as usize);
    let lacking = topology.floors.iter().zip(&held).map(lacks).sum();

    let mut assignment = Assignment::new(&by_name.nodes, topology, replicas, before.clone());
    keep_what_may_stay(&mut assignment, &before);
    let missing = (0..before.len()).map(|shard| assignment.gaps(shard)).sum();
    keep_more(&mut assignment);
    fill_gaps(&mut assignment);
    relieve(&mut assignment);

    let (mut sets, topology) = assignment.into_sets();
    let max_over_target = max_over_target(&topology);
    balance_leaders(&mut sets, nodes.len());
    by_name.as_listed(&mut sets);
    let map = ShardMap::new(sets);
    let moves = moves_between(previous, &map, nodes)?;
    Ok(Plan { map, moves, least_possible: usize::max(lacking, missing), max_over_target })
}

/// The sets of before, with nodes numbered by name.
fn as_by_name(previous: &ShardMap, listed: &[NodeIndex]) -> Result<Vec<Vec<NodeIndex>>, PlaceError> {
    let mut numbers = vec![NodeIndex(0); listed.len()];
    for (number, at) in (0..).map(NodeIndex).zip(listed) {
        numbers[usize::from(at.0)] = number;
    }
    let translated =
        |node: &NodeIndex| numbers.get(usize::from(node.0)).copied().ok_or(PlaceError::UnknownNode(*node));
    previous.iter().map(|(_, set)| set.iter().map(translated).collect()).collect()
}

fn max_over_target(topology: &Topology) -> f64 {
    let shares = topology.caps.iter().zip(&topology.targets).filter(|(_, target)| **target > 0.0);
    shares.map(|(cap, target)| *cap as f64 / target).fold(1.0, f64::max)
}

/// Step 1. Where a shard holds more than it may, nodes that are already full give up theirs first.
fn keep_what_may_stay(assignment: &mut Assignment, before: &[Vec<NodeIndex>]) {
    for (shard, set) in before.iter().enumerate() {
        let mut candidates: Vec<usize> = set.iter().map(|node| usize::from(node.0)).collect();
        candidates.retain(|node| assignment.topology.ceilings[*node] > 0);
        candidates.sort_by_key(|node| !assignment.is_open(*node));
        for node in candidates {
            let group = assignment.topology.group_of[node];
            if assignment.gaps(shard) > 0 && assignment.group_has_room(shard, group) {
                assignment.add(shard, node);
            }
        }
    }
}

/// Step 1, to the end: of the replicas that a shard had before, another may be the better one to keep.
fn keep_more(assignment: &mut Assignment) {
    loop {
        let shards =
            (0..assignment.sets.len()).filter(|shard| assignment.gaps(*shard) > 0).map(Vertex::Shard);
        let nodes = (0..assignment.holds.len()).filter(|node| assignment.excess(*node) > 0).map(Vertex::Node);
        let starts: Vec<Vertex> = shards.chain(nodes).collect();
        if !assignment.move_for_nothing(&starts) {
            return;
        }
    }
}

/// Steps 2 and 4: gives every shard its replicas.
fn fill_gaps(assignment: &mut Assignment) {
    let shards = 0..assignment.sets.len();
    for shard in shards.clone() {
        while assignment.gaps(shard) > 0
            && let Some((_, node)) = assignment.nearest(shard, None)
        {
            assignment.add(shard, node);
        }
    }
    for shard in shards {
        while assignment.gaps(shard) > 0 {
            assignment.move_along_a_chain(Vertex::Shard(shard));
        }
    }
}

/// Steps 3 and 4: takes from every node what it holds above its cap.
fn relieve(assignment: &mut Assignment) {
    let nodes = 0..assignment.holds.len();
    for node in nodes.clone() {
        if assignment.excess(node) == 0 {
            continue;
        }
        let next =
            |shard: &usize| assignment.nearest(*shard, Some(node)).map(|(distance, _)| (distance, *shard));
        let mut offers: Vec<(u64, usize)> = assignment.holds[node].iter().filter_map(next).collect();
        offers.sort_unstable();
        for (_, shard) in offers {
            if assignment.excess(node) == 0 {
                break;
            }
            // Others may have filled that node meanwhile, and another is next.
            if let Some((_, other)) = assignment.nearest(shard, Some(node)) {
                assignment.remove(shard, node);
                assignment.add(shard, other);
            }
        }
    }
    for node in nodes {
        while assignment.excess(node) > 0 {
            assignment.move_along_a_chain(Vertex::Node(node));
        }
    }
}

/// The moves that lead from one map to another, those of one shard together.
///
/// Swaps within a zone come first, since they change nothing that zones limit. After them a zone only gives or only gets
/// replicas of a shard, so in any order no zone holds more of it on the way than before or after.
///
/// # Errors
///
/// [`PlaceError::UnknownNode`], and [`PlaceError::BadShardCount`] if the maps cut the slots differently.
pub fn moves_between(
    before: &ShardMap,
    after: &ShardMap,
    nodes: &[Node<'_>],
) -> Result<Vec<Move>, PlaceError> {
    if before.shard_count() != after.shard_count() {
        return Err(PlaceError::BadShardCount(after.shard_count()));
    }
    let unknown = |node: &&NodeIndex| usize::from(node.0) >= nodes.len();
    if let Some(node) = before.iter().chain(after.iter()).flat_map(|(_, set)| set).find(unknown) {
        return Err(PlaceError::UnknownNode(*node));
    }
    let mut zone_of = vec![0; nodes.len()];
    for (zone, members) in zones_of(nodes).iter().enumerate() {
        members.iter().for_each(|at| zone_of[*at] = zone);
    }
    let pairs = before.iter().zip(after.iter());
    Ok(pairs.flat_map(|((shard, old), (_, new))| moves_of(shard, old, new, &zone_of)).collect())
}

fn moves_of(shard: ShardId, old: &[NodeIndex], new: &[NodeIndex], zone_of: &[usize]) -> Vec<Move> {
    let mut given: Vec<NodeIndex> = old.iter().filter(|node| !new.contains(node)).copied().collect();
    let mut taken: Vec<NodeIndex> = new.iter().filter(|node| !old.contains(node)).copied().collect();
    let zone = |node: &NodeIndex| zone_of[usize::from(node.0)];
    let mut moves = Vec::new();
    taken.retain(|to| {
        let same = given.iter().position(|from| zone(from) == zone(to));
        if let Some(at) = same {
            moves.push(Move { shard, from: Some(given.remove(at)), to: Some(*to) });
        }
        same.is_none()
    });
    let count = given.len().max(taken.len());
    moves.extend((0..count).map(|at| Move {
        shard,
        from: given.get(at).copied(),
        to: taken.get(at).copied(),
    }));
    moves
}
