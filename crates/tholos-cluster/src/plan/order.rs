//! In which order the moves of a plan are made: what spreads risk first, then what relieves.
//!
//! Each move is safe by itself, and those of one shard may be made in any order ([`tholos_ring::moves_between`]). So the
//! order is free to be of use:
//!
//! 1. replicas that cannot be counted on are replaced, and missing ones added; shards that can lose the least go first;
//! 2. replicas leave zones that hold more of their shard than they must;
//! 3. the node that is the furthest over its share gives to the one that lacks the most, again and again;
//! 4. replicas that nobody needs are dropped, those that cannot be counted on before the others.

use alloc::collections::{BTreeMap, BinaryHeap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;

use tholos_ring::{Move, NodeIndex};

use crate::plan::board::Board;

/// How urgent a move is, the most urgent first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// What the shard can lose before it.
    Risk(i32),
    Crowd,
    Relief,
    /// Whether the replica can be counted on.
    Drop(bool),
}

/// The moves in the order in which they are to be made. `board` stands as the cluster is, and each node is to hold
/// `targets` replicas. Moves of one shard stand together in `moves`.
pub(crate) fn order(moves: &[Move], board: &Board<'_>, targets: &[usize]) -> Vec<Move> {
    let mut held = board.held.clone();
    let mut ordered = Vec::with_capacity(moves.len());
    let mut reliefs = Vec::new();
    let mut urgent = Vec::new();
    let mut drops = Vec::new();
    let mut walked = board.clone();
    for of_shard in moves.chunk_by(|left, right| left.shard == right.shard) {
        let mut of_shard: Vec<(Phase, Move)> =
            of_shard.iter().map(|step| (phase(step, board), *step)).collect();
        of_shard.sort_by_key(|(phase, _)| *phase);
        for (phase, step) in of_shard {
            match phase {
                Phase::Risk(_) => urgent.push((Phase::Risk(walked.spare(step.shard)), step)),
                Phase::Crowd => urgent.push((phase, step)),
                Phase::Relief => reliefs.push(step),
                Phase::Drop(_) => drops.push((phase, step)),
            }
            walked.make(&step);
        }
    }
    for urgency in [&mut urgent, &mut drops] {
        urgency.sort_by_key(|(phase, step)| (*phase, step.shard));
    }
    for (_, step) in urgent {
        ordered.push(step);
        count(&step, &mut held);
    }
    relieve(reliefs, &mut held, targets, &mut ordered);
    ordered.extend(drops.into_iter().map(|(_, step)| step));
    ordered
}

fn phase(step: &Move, board: &Board<'_>) -> Phase {
    match (step.from, step.to) {
        (None, None) => Phase::Drop(false),
        (Some(from), None) => Phase::Drop(board.carries(step.shard, from)),
        (None, Some(_)) => Phase::Risk(board.spare(step.shard)),
        (Some(from), Some(_)) if !board.carries(step.shard, from) => Phase::Risk(board.spare(step.shard)),
        (Some(from), Some(to))
            if board.held_in_zone_of(step.shard, from) > board.zone_limit
                && board.zone(from) != board.zone(to) =>
        {
            Phase::Crowd
        }
        _ => Phase::Relief,
    }
}

fn count(step: &Move, held: &mut [usize]) {
    if let Some(from) = step.from {
        held[usize::from(from.0)] -= 1;
    }
    if let Some(to) = step.to {
        held[usize::from(to.0)] += 1;
    }
}

/// Moves that one node has yet to make, by who takes the replica.
type Giver = BTreeMap<NodeIndex, VecDeque<Move>>;

/// Phase 3. Swaps only.
fn relieve(moves: Vec<Move>, held: &mut [usize], targets: &[usize], ordered: &mut Vec<Move>) {
    let load =
        |held: &[usize], node: NodeIndex| load(held[usize::from(node.0)], targets[usize::from(node.0)]);
    let mut givers: Vec<Giver> = vec![Giver::new(); held.len()];
    for step in moves {
        if let (Some(from), Some(to)) = (step.from, step.to) {
            givers[usize::from(from.0)].entry(to).or_default().push_back(step);
        }
    }
    let givers_by_load = (0..=u16::MAX).map(NodeIndex).take(givers.len());
    let mut queue: BinaryHeap<(u64, Reverse<NodeIndex>)> = givers_by_load
        .filter(|node| !givers[usize::from(node.0)].is_empty())
        .map(|node| (load(held, node), Reverse(node)))
        .collect();
    while let Some((was, Reverse(from))) = queue.pop() {
        let giver = &mut givers[usize::from(from.0)];
        // Of several entries for a node, the one with its load of now is right.
        if giver.is_empty() || was != load(held, from) {
            continue;
        }
        let neediest = giver.keys().min_by_key(|to| (load(held, **to), **to)).copied();
        let Some(to) = neediest else { continue };
        let Some(waiting) = giver.get_mut(&to) else { continue };
        if let Some(step) = waiting.pop_front() {
            count(&step, held);
            ordered.push(step);
        }
        if waiting.is_empty() {
            giver.remove(&to);
        }
        queue.push((load(held, from), Reverse(from)));
        queue.push((load(held, to), Reverse(to)));
    }
}

/// How full a node is: what it holds over what it is to hold, and a node that is to hold nothing above all others.
fn load(held: usize, target: usize) -> u64 {
    let (held, target) = (held as u64, target as u64);
    (held << 20).checked_div(target).unwrap_or((1 << 60) + held)
}
