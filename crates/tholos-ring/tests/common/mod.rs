//! An exact oracle: the fewest moves that any placement within the rules needs, by a plain minimum-cost flow.

use std::collections::{BTreeMap, VecDeque};

use tholos_ring::{Node, ShardMap};

/// Makes the flow fill every node to its share rounded down, whatever else it costs.
const MUST: i64 = 1_000_000;

/// A network that is searched as plainly as can be.
#[derive(Default)]
struct Network {
    /// For each arc: where to, what is left of its capacity, what a unit costs. Its reverse is its neighbour.
    arcs: Vec<(usize, i64, i64)>,
    leaving: Vec<Vec<usize>>,
}

impl Network {
    fn vertex(&mut self) -> usize {
        self.leaving.push(Vec::new());
        self.leaving.len() - 1
    }

    fn arc(&mut self, from: usize, to: usize, capacity: i64, cost: i64) {
        self.leaving[from].push(self.arcs.len());
        self.arcs.push((to, capacity, cost));
        self.leaving[to].push(self.arcs.len());
        self.arcs.push((from, 0, -cost));
    }

    /// Sends as much as fits, one cheapest path (Bellman and Ford) after the other; the amount and its cost.
    fn send(&mut self, source: usize, sink: usize) -> (i64, i64) {
        let (mut amount, mut total) = (0, 0);
        loop {
            let mut costs = vec![i64::MAX; self.leaving.len()];
            let mut by = vec![usize::MAX; self.leaving.len()];
            let mut queue = VecDeque::from([source]);
            costs[source] = 0;
            while let Some(here) = queue.pop_front() {
                for &arc in &self.leaving[here] {
                    let (to, left, cost) = self.arcs[arc];
                    if left > 0 && costs[here] + cost < costs[to] {
                        costs[to] = costs[here] + cost;
                        by[to] = arc;
                        queue.push_back(to);
                    }
                }
            }
            if costs[sink] == i64::MAX {
                return (amount, total);
            }
            let mut at = sink;
            while at != source {
                self.arcs[by[at]].1 -= 1;
                self.arcs[by[at] ^ 1].1 += 1;
                at = self.arcs[by[at] ^ 1].0;
            }
            amount += 1;
            total += costs[sink];
        }
    }
}

/// What a zone is called, each node without one being its own.
pub(crate) fn zone_of(node: &Node<'_>) -> String {
    if node.zone.is_empty() { format!("alone {}", node.name) } else { String::from(node.zone) }
}

/// The nodes of each zone.
pub(crate) fn zones_of(nodes: &[Node<'_>]) -> BTreeMap<String, Vec<usize>> {
    let mut zones: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (at, node) in nodes.iter().enumerate() {
        zones.entry(zone_of(node)).or_default().push(at);
    }
    zones
}

/// Replicas of one shard in one zone, at most: the least limit under which the zones hold a set.
pub(crate) fn zone_limit(nodes: &[Node<'_>], replicas: usize) -> usize {
    let sizes: Vec<usize> = zones_of(nodes)
        .values()
        .map(|zone| zone.iter().filter(|at| nodes[**at].weight > 0).count())
        .collect();
    let holds = |limit: &usize| sizes.iter().map(|size| size.min(limit)).sum::<usize>() >= replicas;
    (1..=replicas).find(holds).expect("there are enough nodes")
}

/// Exact shares by weight, none above its maximum.
fn fill(total: f64, claims: &[(f64, f64)]) -> Vec<f64> {
    let mut parts = vec![0.0; claims.len()];
    let mut open: Vec<usize> = (0..claims.len()).filter(|at| claims[*at].0 > 0.0).collect();
    let mut rest = total;
    while !open.is_empty() {
        let weights: f64 = open.iter().map(|at| claims[*at].0).sum();
        let full: Vec<usize> = open
            .iter()
            .copied()
            .filter(|at| rest * claims[*at].0 / weights >= claims[*at].1 - 1e-9)
            .collect();
        if full.is_empty() {
            open.iter().for_each(|at| parts[*at] = rest * claims[*at].0 / weights);
            break;
        }
        for at in full {
            parts[at] = claims[at].1;
            rest -= claims[at].1;
            open.retain(|other| *other != at);
        }
    }
    parts
}

/// What each node would hold if replicas could be cut.
pub(crate) fn targets(nodes: &[Node<'_>], shards: usize, replicas: usize) -> Vec<f64> {
    let zones: Vec<Vec<usize>> = zones_of(nodes).into_values().collect();
    let limit = zone_limit(nodes, replicas);
    let weight = |at: &usize| f64::from(nodes[*at].weight);
    let claims: Vec<(f64, f64)> = zones
        .iter()
        .map(|zone| {
            let holders = zone.iter().filter(|at| nodes[**at].weight > 0).count();
            (zone.iter().map(weight).sum(), (shards * holders.min(limit)) as f64)
        })
        .collect();
    let mut targets = vec![0.0; nodes.len()];
    for (zone, share) in zones.iter().zip(fill((shards * replicas) as f64, &claims)) {
        let claims: Vec<(f64, f64)> = zone.iter().map(|at| (weight(at), shards as f64)).collect();
        for (at, part) in zone.iter().zip(fill(share, &claims)) {
            targets[*at] = part;
        }
    }
    targets
}

/// The fewest replicas that must be copied to a node which did not have them, so that every shard has its replicas, no
/// zone more of a shard than it must and every node its share, rounded down or up.
pub(crate) fn fewest_moves(previous: &ShardMap, nodes: &[Node<'_>], replicas: usize) -> usize {
    let shards = usize::from(previous.shard_count());
    let zones = zones_of(nodes);
    let limit = zone_limit(nodes, replicas) as i64;
    let mut network = Network::default();
    let (source, sink) = (network.vertex(), network.vertex());
    let targets = targets(nodes, shards, replicas);
    let places: Vec<usize> = targets
        .iter()
        .map(|target| {
            let place = network.vertex();
            let least = (target + 1e-6).floor();
            network.arc(place, sink, least as i64, -MUST);
            if target - least > 1e-6 {
                network.arc(place, sink, 1, 0);
            }
            place
        })
        .collect();
    for (_, set) in previous.iter() {
        let shard = network.vertex();
        network.arc(source, shard, replicas as i64, 0);
        for zone in zones.values() {
            let cell = network.vertex();
            network.arc(shard, cell, limit, 0);
            for &at in zone.iter().filter(|at| nodes[**at].weight > 0) {
                let moves = !set.iter().any(|held| usize::from(held.0) == at);
                network.arc(cell, places[at], 1, i64::from(moves));
            }
        }
    }
    let least: i64 = targets.iter().map(|target| (target + 1e-6).floor() as i64).sum();
    let (sent, cost) = network.send(source, sink);
    assert_eq!(sent, (shards * replicas) as i64);
    (cost + least * MUST) as usize
}
