//! Which replica of each shard is to lead: shares of leaders as even as shares of replicas.
//!
//! A node that holds h replicas of shards with R replicas each is to lead h / R shards, rounded down or up. That is
//! always possible: let every replica lead 1/R of its shard, and a flow of fractions with whole-numbered bounds has a
//! whole-numbered flow within the same bounds.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use crate::ring::NodeIndex;

/// Puts the replica that is to lead first in each set, and leaves the others in their order. All sets are of one size.
pub(crate) fn balance_leaders(sets: &mut [Vec<NodeIndex>], node_count: usize) {
    let mut balance = Balance::new(sets, node_count);
    while balance.shift(|led, bounds| led > bounds.1, |led, bounds| led < bounds.1) {}
    while balance.shift(|led, bounds| led > bounds.0, |led, bounds| led < bounds.0) {}
    let Balance { leaders, led, bounds, .. } = balance;
    for (led, bounds) in led.iter().zip(&bounds) {
        assert!((bounds.0..=bounds.1).contains(led), "leads {led} shards, bounds are {bounds:?}");
    }
    for (set, leader) in sets.iter_mut().zip(leaders) {
        let at = set.iter().position(|node| *node == leader).expect("a leader is one of the set");
        set[..=at].rotate_right(1);
    }
}

struct Balance<'a> {
    sets: &'a [Vec<NodeIndex>],
    /// The leader chosen for each shard so far.
    leaders: Vec<NodeIndex>,
    /// Shards each node leads.
    led: Vec<usize>,
    /// Shards each node is to lead, at least and at most.
    bounds: Vec<(usize, usize)>,
}

impl<'a> Balance<'a> {
    /// Begins with the first replica of each set that has not led enough yet.
    fn new(sets: &'a [Vec<NodeIndex>], node_count: usize) -> Balance<'a> {
        let mut held = vec![0_usize; node_count];
        for node in sets.iter().flatten() {
            held[usize::from(node.0)] += 1;
        }
        let replicas = sets.first().map_or(1, Vec::len);
        let bounds: Vec<_> = held.iter().map(|held| (held / replicas, held.div_ceil(replicas))).collect();
        let mut led = vec![0; node_count];
        let leaders = sets
            .iter()
            .map(|set| {
                let has_room = |node: &&NodeIndex| led[usize::from(node.0)] < bounds[usize::from(node.0)].1;
                let leader = *set.iter().find(has_room).unwrap_or(&set[0]);
                led[usize::from(leader.0)] += 1;
                leader
            })
            .collect();
        Balance { sets, leaders, led, bounds }
    }

    /// Takes one shard from a node of the first kind and gives one to a node of the second, by the shortest chain in
    /// which each shard passes to another of its replicas. False if there is no node of the first or second kind.
    fn shift(
        &mut self,
        gives: impl Fn(usize, (usize, usize)) -> bool,
        takes: impl Fn(usize, (usize, usize)) -> bool,
    ) -> bool {
        let node_count = self.led.len();
        let mut shards_of: Vec<Vec<usize>> = vec![Vec::new(); node_count];
        for (shard, leader) in self.leaders.iter().enumerate() {
            shards_of[usize::from(leader.0)].push(shard);
        }
        // For each node reached: the shard it would take over to pass the burden on.
        let mut came_by: Vec<Option<usize>> = vec![None; node_count];
        let mut queue: VecDeque<usize> =
            (0..node_count).filter(|node| gives(self.led[*node], self.bounds[*node])).collect();
        let mut seen = vec![false; node_count];
        queue.iter().for_each(|node| seen[*node] = true);
        while let Some(node) = queue.pop_front() {
            if came_by[node].is_some() && takes(self.led[node], self.bounds[node]) {
                self.led[node] += 1;
                let mut at = node;
                while let Some(shard) = came_by[at] {
                    let before = usize::from(self.leaders[shard].0);
                    self.leaders[shard] = NodeIndex(at as u16);
                    at = before;
                }
                self.led[at] -= 1;
                return true;
            }
            for shard in &shards_of[node] {
                for next in self.sets[*shard].iter().map(|next| usize::from(next.0)) {
                    if !seen[next] {
                        seen[next] = true;
                        came_by[next] = Some(*shard);
                        queue.push_back(next);
                    }
                }
            }
        }
        false
    }
}
