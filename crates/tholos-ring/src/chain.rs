//! Chains of moves: where no node with room may take a replica, another shard's replica makes room.
//!
//! A placement is a flow shard → (shard, zone) → node, and a chain is a path in its residual graph: forwards along what
//! is not used up, backwards along what is used and could be undone. Such a chain exists as long as something is
//! missing, because caps divided by the number of shards are a fractional placement within all limits, and a flow
//! network with whole limits has a whole flow (Ford and Fulkerson). A replica costs one where the shard did not have it
//! before. What begins at no cost, and grows by the cheapest chain each time, is cheapest in the end (successive
//! shortest paths: Ahuja, Magnanti and Orlin, *Network Flows*, §9.7).

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use crate::assignment::Assignment;

/// Cost of a replica that the shard did not have before. Each step of a chain costs one besides, so that of equal
/// chains the shortest is taken; no chain has so many.
const MOVE_COST: i64 = 1 << 32;

/// A vertex of the flow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vertex {
    /// A shard, which sends one unit for each replica.
    Shard(usize),
    /// A shard's part in a group of nodes, which lets through the group's limit.
    Cell(usize, usize),
    /// A node, which takes in its cap.
    Node(usize),
    /// What shares lose by being rounded down, and others gain: a node that is rounded up gives that to another.
    Rounding,
}

/// A search of the residual graph, from where too much is to where there is room.
struct Search<'a> {
    assignment: &'a Assignment,
    shards: usize,
    groups: usize,
    /// Only replicas that the shard had before.
    free_only: bool,
    came_from: Vec<usize>,
    costs: Vec<i64>,
    queue: VecDeque<usize>,
    queued: Vec<bool>,
    /// For each group the least cost at which a shard has offered a replica to all of its nodes, and the nodes that
    /// could not be offered it, since they hold that shard.
    offered: Vec<(i64, Vec<usize>)>,
}

impl Assignment {
    /// Carries out the cheapest chain of moves from a shard that lacks a replica, or a node that holds too many, to a
    /// node with room.
    pub(crate) fn move_along_a_chain(&mut self, start: Vertex) {
        let steps = Search::new(self, false).run(&[start]);
        self.carry_out(&steps.expect("L2: the caps have room for every replica, so a chain leads to it"));
    }

    /// Carries out a chain that costs no move, from any of these; false if there is none.
    pub(crate) fn move_for_nothing(&mut self, starts: &[Vertex]) -> bool {
        let steps = Search::new(self, true).run(starts);
        steps.as_deref().inspect(|steps| self.carry_out(steps)).is_some()
    }

    fn carry_out(&mut self, steps: &[(Vertex, Vertex)]) {
        for step in steps {
            match *step {
                (Vertex::Cell(shard, _), Vertex::Node(node)) => self.add(shard, node),
                (Vertex::Node(node), Vertex::Cell(shard, _)) => self.remove(shard, node),
                (Vertex::Node(node), Vertex::Rounding) => self.round(node, true),
                (Vertex::Rounding, Vertex::Node(node)) => self.round(node, false),
                _ => {}
            }
        }
    }
}

impl Search<'_> {
    fn new(assignment: &Assignment, free_only: bool) -> Search<'_> {
        let (shards, groups) = (assignment.sets.len(), assignment.topology.groups.len());
        let count = shards * (1 + groups) + assignment.holds.len() + 1;
        Search {
            assignment,
            shards,
            groups,
            free_only,
            came_from: vec![usize::MAX; count],
            costs: vec![i64::MAX; count],
            queue: VecDeque::new(),
            queued: vec![false; count],
            offered: vec![(i64::MAX, Vec::new()); groups],
        }
    }

    /// The steps of the cheapest chain, in order; none if no chain leads anywhere.
    fn run(mut self, starts: &[Vertex]) -> Option<Vec<(Vertex, Vertex)>> {
        for start in starts {
            self.reach(*start, usize::MAX, 0);
        }
        while let Some(here) = self.queue.pop_front() {
            self.queued[here] = false;
            self.leave(self.vertex(here), here, self.costs[here]);
        }
        let open = self.assignment.open_nodes().map(|node| self.number(Vertex::Node(node)));
        let end = open.filter(|end| self.costs[*end] < i64::MAX).min_by_key(|end| self.costs[*end])?;
        Some(self.steps_to(end))
    }

    fn leave(&mut self, vertex: Vertex, here: usize, cost: i64) {
        let assignment = self.assignment;
        match vertex {
            Vertex::Shard(shard) => {
                for group in 0..self.groups {
                    if assignment.group_has_room(shard, group) {
                        self.reach(Vertex::Cell(shard, group), here, cost);
                    }
                }
            }
            Vertex::Cell(shard, group) => {
                for node in assignment.before(shard) {
                    if assignment.topology.group_of[node] == group && !assignment.is_held(shard, node) {
                        self.reach(Vertex::Node(node), here, cost);
                    }
                }
                if !self.free_only {
                    self.offer(shard, group, here, cost + MOVE_COST);
                }
                if assignment.held_in_group(shard, group) > 0 {
                    self.reach(Vertex::Shard(shard), here, cost);
                }
            }
            Vertex::Node(node) => {
                let group = assignment.topology.group_of[node];
                for shard in &assignment.holds[node] {
                    let saved = if assignment.was_held(*shard, node) { 0 } else { MOVE_COST };
                    self.reach(Vertex::Cell(*shard, group), here, cost + 1 - saved);
                }
                if assignment.topology.caps[node] < assignment.topology.ceilings[node] {
                    self.reach(Vertex::Rounding, here, cost + 1);
                }
            }
            Vertex::Rounding => {
                for node in 0..assignment.holds.len() {
                    if assignment.topology.caps[node] > assignment.topology.floors[node] {
                        self.reach(Vertex::Node(node), here, cost);
                    }
                }
            }
        }
    }

    /// Offers a replica to all nodes of a group: those that had none at this cost or less from another shard.
    fn offer(&mut self, shard: usize, group: usize, here: usize, cost: i64) {
        let assignment = self.assignment;
        let (best, left_out) = core::mem::take(&mut self.offered[group]);
        let all = cost < best;
        let nodes = if all { &assignment.topology.groups[group] } else { &left_out };
        let (held, free): (Vec<usize>, Vec<usize>) =
            nodes.iter().partition(|node| assignment.is_held(shard, **node));
        for node in free {
            if assignment.topology.ceilings[node] > 0 && !assignment.was_held(shard, node) {
                self.reach(Vertex::Node(node), here, cost);
            }
        }
        // Offers at this cost, or the lower one of before, have now reached everyone but these.
        self.offered[group] = if all { (cost, held) } else { (best, left_out) };
    }

    fn reach(&mut self, vertex: Vertex, from: usize, cost: i64) {
        let number = self.number(vertex);
        if cost < self.costs[number] {
            self.costs[number] = cost;
            self.came_from[number] = from;
            if !core::mem::replace(&mut self.queued[number], true) {
                self.queue.push_back(number);
            }
        }
    }

    fn steps_to(&self, end: usize) -> Vec<(Vertex, Vertex)> {
        let mut steps = Vec::new();
        let mut to = end;
        while self.came_from[to] != usize::MAX {
            let from = self.came_from[to];
            steps.push((self.vertex(from), self.vertex(to)));
            to = from;
        }
        steps.reverse();
        steps
    }

    /// Numbers the vertices: shards, then cells shard by shard, then nodes, then the one that is left.
    fn number(&self, vertex: Vertex) -> usize {
        match vertex {
            Vertex::Shard(shard) => shard,
            Vertex::Cell(shard, group) => self.shards + shard * self.groups + group,
            Vertex::Node(node) => self.shards * (1 + self.groups) + node,
            Vertex::Rounding => self.costs.len() - 1,
        }
    }

    fn vertex(&self, number: usize) -> Vertex {
        let cells = number.saturating_sub(self.shards);
        if number == self.costs.len() - 1 {
            Vertex::Rounding
        } else if number < self.shards {
            Vertex::Shard(number)
        } else if cells < self.shards * self.groups {
            Vertex::Cell(cells / self.groups, cells % self.groups)
        } else {
            Vertex::Node(cells - self.shards * self.groups)
        }
    }
}
