//! What nodes, zones and weights allow: how many replicas of one shard a zone may hold, and how many of all shards a
//! node.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use crate::caps::{Claim, Share, round, water_fill};
use crate::ring::Node;

/// The limits of a placement.
pub(crate) struct Topology {
    /// Nodes of each zone that has a name and more than one node. All others are one group, the first, whose nodes
    /// keep nothing apart but themselves.
    pub(crate) groups: Vec<Vec<usize>>,
    /// The group of each node.
    pub(crate) group_of: Vec<usize>,
    /// Replicas of one shard that each group may hold.
    pub(crate) limits: Vec<usize>,
    /// Replicas each node is to hold, before that is rounded.
    pub(crate) targets: Vec<f64>,
    /// Rounded down and up; equal where nothing is to be rounded.
    pub(crate) floors: Vec<usize>,
    pub(crate) ceilings: Vec<usize>,
    /// One of the two for each node, so that they add up.
    pub(crate) caps: Vec<usize>,
}

impl Topology {
    /// `held` is what each node holds now, and decides between caps that rounding leaves open.
    pub(crate) fn new(nodes: &[Node<'_>], shards: usize, replicas: usize, held: &[u64]) -> Topology {
        let zones = zones_of(nodes);
        let holders = |zone: &Vec<usize>| zone.iter().filter(|at| nodes[**at].weight > 0).count();
        let zone_limits = zone_limits(&zones.iter().map(holders).collect::<Vec<_>>(), replicas);

        let shards = shards as u64;
        let total = shards * replicas as u64;
        let weight = |zone: &[usize]| zone.iter().map(|at| u64::from(nodes[*at].weight)).sum();
        let zone_claims: Vec<Claim> = zones
            .iter()
            .zip(&zone_limits)
            .map(|(zone, limit)| Claim { weight: weight(zone), maximum: shards * *limit as u64 })
            .collect();
        let zone_shares = water_fill(Share::whole(total), &zone_claims);
        let zones_hold: Vec<u64> = zones.iter().map(|zone| zone.iter().map(|at| held[*at]).sum()).collect();
        let zone_totals = round(total, &zone_shares, &zones_hold);
        let (mut caps, mut floors) = (vec![0; nodes.len()], vec![0; nodes.len()]);
        let (mut ceilings, mut targets) = (vec![0; nodes.len()], vec![0.0; nodes.len()]);
        for ((zone, share), total) in zones.iter().zip(zone_shares).zip(zone_totals) {
            let claims: Vec<Claim> =
                zone.iter().map(|at| Claim { weight: weight(&[*at]), maximum: shards }).collect();
            let shares = water_fill(share, &claims);
            let nodes_hold: Vec<u64> = zone.iter().map(|at| held[*at]).collect();
            for ((at, share), cap) in zone.iter().zip(&shares).zip(round(total, &shares, &nodes_hold)) {
                caps[*at] = cap as usize;
                floors[*at] = share.rounded_down() as usize;
                ceilings[*at] = share.rounded_up() as usize;
                targets[*at] = share.to_f64();
            }
        }

        let mut topology = Topology {
            groups: vec![Vec::new()],
            group_of: vec![0; nodes.len()],
            limits: vec![replicas],
            targets,
            floors,
            ceilings,
            caps,
        };
        for (zone, limit) in zones.into_iter().zip(zone_limits) {
            if zone.len() == 1 {
                topology.groups[0].extend(zone);
                continue;
            }
            zone.iter().for_each(|at| topology.group_of[*at] = topology.groups.len());
            topology.groups.push(zone);
            topology.limits.push(limit);
        }
        topology
    }
}

/// The nodes of each zone; a node without one is a zone of its own.
pub(crate) fn zones_of(nodes: &[Node<'_>]) -> Vec<Vec<usize>> {
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    let mut zones: Vec<Vec<usize>> = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        let next = zones.len();
        let zone = if node.zone.is_empty() { next } else { *numbers.entry(node.zone).or_insert(next) };
        if zone == next {
            zones.push(Vec::new());
        }
        zones[zone].push(at);
    }
    zones
}

/// Replicas of one shard that each zone may hold: as few as can be, and no more than it has nodes.
fn zone_limits(nodes_in_zone: &[usize], replicas: usize) -> Vec<usize> {
    let limited = |limit: usize| nodes_in_zone.iter().map(move |nodes| (*nodes).min(limit));
    let limit = (1..=replicas).find(|limit| limited(*limit).sum::<usize>() >= replicas);
    limited(limit.expect("there are as many nodes as replicas")).collect()
}
