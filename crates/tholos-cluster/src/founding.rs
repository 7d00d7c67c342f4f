//! The first map of a cluster: ids from names, replica sets from the ring.

use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;

use tholos_ring::{Node, PlaceError, place};

use crate::id::{ClusterId, Epoch, NodeId};
use crate::map::{ClusterMap, MapError, NodeRow};

/// Why nodes and settings make no cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FoundingError {
    /// A node or setting is not valid.
    Map(MapError),
    /// The nodes cannot hold the shards.
    Place(PlaceError),
}

impl fmt::Display for FoundingError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FoundingError::Map(error) => error.fmt(out),
            FoundingError::Place(error) => error.fmt(out),
        }
    }
}

impl core::error::Error for FoundingError {}

impl ClusterMap {
    /// The map of epoch 1: `replicas` of each of `shard_count` shards placed on `nodes`.
    ///
    /// A function of its arguments alone, whatever the order of the rows. Ids in the rows are replaced: nodes that are
    /// all named `n` and a number get that number, so that `n2` is n2 in every log line; other names are numbered from
    /// 1 in their natural order.
    ///
    /// # Errors
    ///
    /// See [`FoundingError`].
    pub fn genesis(
        cluster_id: ClusterId,
        nodes: Vec<NodeRow>,
        shard_count: u16,
        replicas: u8,
    ) -> Result<ClusterMap, FoundingError> {
        let mut nodes = nodes;
        nodes.sort_by(|a, b| natural_order(&a.name, &b.name));
        if let Some(pair) = nodes.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(FoundingError::Map(MapError::DuplicateName(pair[0].name.clone())));
        }
        let speaking: Option<Vec<u16>> = nodes.iter().map(|row| number_of_name(&row.name)).collect();
        match speaking {
            Some(numbers) => nodes.iter_mut().zip(numbers).for_each(|(row, number)| row.id = NodeId(number)),
            None => nodes.iter_mut().zip(1..).for_each(|(row, number)| row.id = NodeId(number)),
        }
        let ring_nodes: Vec<Node<'_>> =
            nodes.iter().map(|row| Node { name: &row.name, zone: &row.zone, weight: row.weight }).collect();
        let placed = place(&ring_nodes, shard_count, replicas).map_err(FoundingError::Place)?;
        let shards = placed
            .into_sets()
            .iter()
            .map(|set| set.iter().map(|node| nodes[usize::from(node.0)].id).collect())
            .collect();
        let map = ClusterMap { cluster_id, epoch: Epoch(1), shard_count, replicas, nodes, shards };
        map.check().map_err(FoundingError::Map)?;
        Ok(map)
    }
}

/// The number k of a name `n<k>`, spelled as [`NodeId`] shows it.
pub(crate) fn number_of_name(name: &str) -> Option<u16> {
    let digits = name.strip_prefix('n')?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    if plain { digits.parse().ok() } else { None }
}

/// Orders names as people do: digits by their number, so that n10 follows n9. Ties go by bytes.
pub(crate) fn natural_order(left: &str, right: &str) -> Ordering {
    let (mut a, mut b) = (left.as_bytes(), right.as_bytes());
    loop {
        match (leading_number(a), leading_number(b)) {
            (Some((number_a, rest_a)), Some((number_b, rest_b))) => {
                // Without leading zeros the longer number is the larger.
                let order = number_a.len().cmp(&number_b.len()).then_with(|| number_a.cmp(number_b));
                if order.is_ne() {
                    return order;
                }
                (a, b) = (rest_a, rest_b);
            }
            _ => match (a.split_first(), b.split_first()) {
                (Some((x, rest_a)), Some((y, rest_b))) if x == y => (a, b) = (rest_a, rest_b),
                (x, y) => return x.map(|x| x.0).cmp(&y.map(|y| y.0)).then_with(|| left.cmp(right)),
            },
        }
    }
}

/// The digits a text starts with, without leading zeros, and what follows them.
fn leading_number(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(length);
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    if length == 0 { None } else { Some((&digits[zeros..], rest)) }
}

#[cfg(test)]
mod tests {
    use alloc::string::String;
    use alloc::vec;

    use tholos_ring::ShardId;

    use super::*;
    use crate::id::Incarnation;

    fn row(name: &str) -> NodeRow {
        NodeRow {
            id: NodeId(0),
            name: String::from(name),
            zone: String::new(),
            weight: 1,
            incarnation: Incarnation(7),
            gateway: String::new(),
            cluster: String::new(),
            peer: String::new(),
            http: String::new(),
        }
    }

    #[track_caller]
    fn check_ids(names: &[&str], expected: &[(&str, u16)]) {
        let rows = names.iter().map(|name| row(name)).collect();
        let map = ClusterMap::genesis(ClusterId([1; 20]), rows, 4, 1).expect("a valid cluster");
        let ids: Vec<(&str, u16)> = map.nodes.iter().map(|row| (row.name.as_str(), row.id.0)).collect();
        assert_eq!(ids, expected);
    }

    #[test]
    fn a_speaking_name_is_the_id() {
        check_ids(&["n3", "n1", "n10", "n2"], &[("n1", 1), ("n2", 2), ("n3", 3), ("n10", 10)]);
        check_ids(&["n7"], &[("n7", 7)]);
        check_ids(&["n2", "db9", "db10"], &[("db9", 1), ("db10", 2), ("n2", 3)]);
        check_ids(&["n1", "n01"], &[("n01", 1), ("n1", 2)]);
        check_ids(&["n1", "n0"], &[("n0", 1), ("n1", 2)]);
        check_ids(&["n1", "n65536"], &[("n1", 1), ("n65536", 2)]);
        check_ids(&["n1", "n+2"].map(|name| if name == "n+2" { "n" } else { name }), &[("n", 1), ("n1", 2)]);
    }

    #[test]
    fn names_are_ordered_as_people_do() {
        let sorted = ["a", "a1", "a2b", "a02c", "a10", "a10b2", "a10b10", "b", "b-1", "b1"];
        for (at, left) in sorted.iter().enumerate() {
            for (other, right) in sorted.iter().enumerate() {
                assert_eq!(natural_order(left, right), at.cmp(&other), "{left} {right}");
            }
        }
    }

    #[test]
    fn genesis_places_every_shard_once_per_replica() {
        let rows = || vec![row("n1"), row("n2"), row("n3"), row("n4")];
        let map = ClusterMap::genesis(ClusterId([1; 20]), rows(), 64, 3).expect("a valid cluster");
        assert_eq!(map.epoch, Epoch(1));
        assert_eq!(map.check(), Ok(()));
        for node in &map.nodes {
            assert_eq!(map.shards_of(node.id).count(), 48);
        }
        // The ring's sets, by id instead of index.
        let ring_nodes = ["n1", "n2", "n3", "n4"].map(|name| Node { name, zone: "", weight: 1 });
        let placed = place(&ring_nodes, 64, 3).expect("four nodes hold three replicas");
        for (shard, set) in placed.iter() {
            let ids: Vec<NodeId> = set.iter().map(|index| NodeId(index.0 + 1)).collect();
            assert_eq!(map.replica_set(shard), ids);
        }
        let mut reversed = rows();
        reversed.reverse();
        assert_eq!(ClusterMap::genesis(ClusterId([1; 20]), reversed, 64, 3), Ok(map));
    }

    #[test]
    fn what_makes_no_cluster_is_said() {
        let genesis = |names: &[&str], shards, replicas| {
            let rows = names.iter().map(|name| row(name)).collect();
            ClusterMap::genesis(ClusterId([1; 20]), rows, shards, replicas).err()
        };
        let too_few = PlaceError::TooFewNodes { nodes: 2, replicas: 3 };
        assert_eq!(genesis(&["n1", "n2"], 64, 3), Some(FoundingError::Place(too_few)));
        assert_eq!(
            genesis(&["n1", "n1"], 64, 1),
            Some(FoundingError::Map(MapError::DuplicateName("n1".into())))
        );
        assert_eq!(genesis(&["n1"], 48, 1), Some(FoundingError::Map(MapError::BadShardCount(48))));
        assert_eq!(genesis(&["n 1"], 64, 1), Some(FoundingError::Map(MapError::BadName("n 1".into()))));
        assert_eq!(genesis(&["n1"], 64, 1), None);
        let map = ClusterMap::genesis(ClusterId([1; 20]), vec![row("n1")], 1, 1);
        assert_eq!(map.map(|map| map.replica_set(ShardId(0)).to_vec()), Ok(vec![NodeId(1)]));
    }
}
