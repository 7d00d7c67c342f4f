//! The cluster that a run begins with: its machines, the zones that they stand in, and its first map.

use tholos_cluster::{ClusterId, ClusterMap, Incarnation, NodeId, NodeRow};

use crate::elastic::Elastic;
use crate::random::Random;
use crate::sim::{REPLICAS, SHARDS};

/// Nodes of a cluster: often more than it needs, so that replicas can move.
const NODES: [usize; 4] = [3, 3, 4, 5];

/// Nodes that found the cluster of a run.
pub fn nodes_of(seed: u64) -> usize {
    NODES[Random::new(seed ^ 0x0de5).below(NODES.len() as u64) as usize]
}

/// Machines of a run: those of the nodes that found the cluster, and perhaps one that joins it.
pub fn hosts_of(seed: u64) -> usize {
    nodes_of(seed) + usize::from(Elastic::of(seed).is_on)
}

/// A machine's row in the map, before it has lost its disk. Machines are counted from 1.
pub fn row(number: usize, elastic: &Elastic) -> NodeRow {
    // Two machines of one zone share the name of the first.
    let zone =
        if elastic.zone_mates.is_some_and(|(_, second)| second + 1 == number) { number - 1 } else { number };
    NodeRow { zone: format!("z{zone}"), ..row_alone(number) }
}

/// The same of a machine that has a zone of its own.
pub fn row_alone(number: usize) -> NodeRow {
    NodeRow {
        id: NodeId(number as u16),
        name: format!("n{number}"),
        zone: format!("z{number}"),
        weight: 1,
        incarnation: Incarnation(number as u64),
        gateway: String::new(),
        cluster: format!("10.0.0.{number}:7001"),
        peer: String::new(),
        http: String::new(),
    }
}

/// The first map.
pub fn genesis(nodes: usize, elastic: &Elastic) -> ClusterMap {
    let rows = (1..=nodes).map(|number| row(number, elastic)).collect();
    let map = ClusterMap::genesis(ClusterId([7; 20]), rows, SHARDS, REPLICAS as u8);
    map.expect("the simulated cluster can be founded")
}
