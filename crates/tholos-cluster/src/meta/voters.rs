//! Who votes in the meta group: 1, 3 or 5 nodes, in as many zones as there are.

use alloc::vec::Vec;

use tholos_ring::{Node, ShardId, place};

use crate::id::NodeId;
use crate::map::{ClusterMap, NodeRow};
use crate::meta::{MetaState, Standing};
use crate::moves::Move;

/// With this many nodes the meta group has five voters; with three or more it has three, else one.
const NODES_FOR_FIVE: usize = 5;

fn count_for(nodes: usize) -> usize {
    match nodes {
        0..3 => 1,
        3..NODES_FOR_FIVE => 3,
        _ => 5,
    }
}

/// The voters of a cluster that is being founded: a function of its map, so that all nodes know them.
pub(super) fn founding(map: &ClusterMap) -> Vec<NodeId> {
    let nodes: Vec<Node<'_>> =
        map.nodes.iter().map(|row| Node { name: &row.name, zone: &row.zone, weight: row.weight }).collect();
    let count = u8::try_from(count_for(nodes.len())).expect("five at most");
    let placed = place(&nodes, 1, count).expect("a map has at least as many nodes as the group has voters");
    placed.replica_set(ShardId(0)).iter().map(|node| map.nodes[usize::from(node.0)].id).collect()
}

/// The moves that bring the meta group to nodes that stay: away from those that leave, and to as many as there should be. Who
/// votes no more, being lost or `down`, goes first: else those that are left after a step could be too few to decide the next.
pub(super) fn moves(state: &MetaState, down: &[NodeId]) -> Vec<Move> {
    let shard = state.map.meta_group();
    let stays = |row: &&NodeRow| state.standing(row.id) == Some(Standing::Member);
    let eligible: Vec<&NodeRow> = state.map.nodes.iter().filter(stays).collect();
    let wanted = count_for(eligible.len());
    let mut voters: Vec<NodeId> = state.voters(shard).collect();
    let mut moves = Vec::new();
    let is_eligible = |node: &NodeId| eligible.iter().any(|row| row.id == *node);
    loop {
        let votes = |node: &NodeId| state.standing(*node) != Some(Standing::Lost) && !down.contains(node);
        let leaver = voters.iter().position(|node| !is_eligible(node) && !votes(node));
        let leaver = leaver.or_else(|| voters.iter().position(|node| !is_eligible(node)));
        let newcomer = best(state, &eligible, &voters);
        let (from, to) = match (leaver, newcomer) {
            (Some(at), Some(to)) if voters.len() <= wanted => (Some(voters[at]), Some(to)),
            (Some(at), _) if voters.len() > 1 => (Some(voters[at]), None),
            (None, Some(to)) if voters.len() < wanted => (None, Some(to)),
            (None, _) if voters.len() > wanted => (voters.last().copied(), None),
            _ => return moves,
        };
        voters.retain(|node| Some(*node) != from);
        voters.extend(to);
        moves.push(Move { shard, from, to });
    }
}

/// Who should vote next: of a zone that has no voter if there is one, then the lowest number.
fn best(state: &MetaState, eligible: &[&NodeRow], voters: &[NodeId]) -> Option<NodeId> {
    let zone_used = |row: &NodeRow| {
        let zones = voters.iter().filter_map(|node| state.map.node(*node)).map(|row| &row.zone);
        !row.zone.is_empty() && zones.into_iter().any(|zone| *zone == row.zone)
    };
    let free = eligible.iter().filter(|row| !voters.contains(&row.id));
    free.min_by_key(|row| (zone_used(row), row.id)).map(|row| row.id)
}
