//! What holds for every key, every ring and every cluster.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tholos_ring::{
    Node, NodeIndex, Ring, ShardId, hash64, place, shard_of, shard_token, slot, slots_of, tag,
};

proptest! {
    #[test]
    fn hash64_is_xxh64(bytes in prop::collection::vec(any::<u8>(), 0..200), seed: u64) {
        prop_assert_eq!(hash64(&bytes, seed), xxhash_rust::xxh64::xxh64(&bytes, seed));
    }

    #[test]
    fn keys_with_one_tag_share_a_slot(left in "[^{}]*", tagged in "[^{}]+", right in ".*") {
        let key = format!("{left}{{{tagged}}}{right}");
        prop_assert_eq!(tag(key.as_bytes()), tagged.as_bytes());
        prop_assert_eq!(slot(key.as_bytes()), slot(tagged.as_bytes()));
    }

    #[test]
    fn a_slot_lies_in_its_shard(key: Vec<u8>, bits in 0..=14_u32) {
        let shard_count = 1 << bits;
        let slot = slot(&key);
        let shard = shard_of(slot, shard_count);
        prop_assert!(shard < ShardId(shard_count));
        prop_assert!(slots_of(shard, shard_count).contains(&slot.number()));
    }
}

/// A node of a made-up cluster: its zone (0 for none) and weight.
#[derive(Clone, Debug)]
struct Made {
    name: String,
    zone: String,
    weight: u16,
}

fn as_nodes(made: &[Made]) -> Vec<Node<'_>> {
    made.iter().map(|node| Node { name: &node.name, zone: &node.zone, weight: node.weight }).collect()
}

/// Clusters of up to `most` nodes, in up to five zones or each in its own.
fn clusters(most: usize) -> impl Strategy<Value = Vec<Made>> {
    let node = (0..=5_u8, prop::sample::select(vec![1_u16, 1, 1, 2, 4, 9]));
    (prop::collection::vec(node, 1..=most), any::<bool>(), any::<u16>()).prop_map(|(nodes, zoned, salt)| {
        let named = |(at, (zone, weight)): (usize, (u8, u16))| Made {
            name: format!("node-{salt}-{at}"),
            zone: if zoned && zone > 0 { format!("zone-{zone}") } else { String::new() },
            weight,
        };
        nodes.into_iter().enumerate().map(named).collect()
    })
}

/// Zones of the nodes, counting each node without one.
fn zone_sizes(made: &[Made]) -> BTreeMap<String, usize> {
    let mut sizes = BTreeMap::new();
    for node in made {
        *sizes.entry(zone_key(node)).or_insert(0) += 1;
    }
    sizes
}

fn zone_key(node: &Made) -> String {
    if node.zone.is_empty() { format!("alone {}", node.name) } else { node.zone.clone() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn sets_keep_zones_apart_and_fill_every_cap(
        made in clusters(14),
        bits in 0..=7_u32,
        replicas in prop::sample::select(vec![1_u8, 2, 3, 3, 5]),
    ) {
        let nodes = as_nodes(&made);
        let shard_count = 1_u16 << bits;
        prop_assume!(nodes.len() >= usize::from(replicas));
        let map = place(&nodes, shard_count, replicas).expect("there are enough nodes");

        // L1, against the least that any placement could do: limits 1, 2, … until the zones hold a set.
        let sizes = zone_sizes(&made);
        let limit = (1..).find(|limit| sizes.values().map(|size| size.min(limit)).sum::<usize>() >= replicas.into());
        let limit = limit.expect("all nodes together hold a set");
        let ring = Ring::new(&nodes);
        let mut held = vec![0_u64; nodes.len()];
        let mut led = vec![0_u64; nodes.len()];
        for (shard, set) in map.iter() {
            prop_assert_eq!(set.len(), usize::from(replicas));
            prop_assert_eq!(set.iter().collect::<BTreeSet<_>>().len(), set.len(), "distinct nodes in {}", shard);
            let mut in_zone = BTreeMap::new();
            for node in set {
                held[usize::from(node.0)] += 1;
                *in_zone.entry(zone_key(&made[usize::from(node.0)])).or_insert(0) += 1;
            }
            prop_assert!(in_zone.values().all(|count| *count <= limit), "{shard} holds {in_zone:?}");
            led[usize::from(set[0].0)] += 1;
            // The followers stand in the order in which the ring meets them.
            let walk: Vec<_> = ring.successors(shard_token(shard)).collect();
            let ranks: Vec<_> = set[1..].iter().map(|node| walk.iter().position(|met| met == node)).collect();
            prop_assert!(ranks.is_sorted(), "{shard}: {ranks:?}");
        }

        // L2: of two nodes in one zone, more weight never holds less, and equal weights differ by one at most.
        for (a, left) in made.iter().enumerate() {
            for (b, right) in made.iter().enumerate() {
                if zone_key(left) != zone_key(right) {
                    continue;
                }
                if left.weight == right.weight {
                    prop_assert!(held[a].abs_diff(held[b]) <= 1, "{held:?}");
                } else if left.weight > right.weight {
                    prop_assert!(held[a] + 1 >= held[b], "{held:?}");
                }
            }
        }
        for (led, held) in led.iter().zip(&held) {
            let replicas = u64::from(replicas);
            prop_assert!((held / replicas..=held.div_ceil(replicas)).contains(led), "leads {led} of {held}");
        }
    }

    #[test]
    fn equal_nodes_hold_and_lead_equal_shares(count in 3..40_usize, bits in 4..=8_u32, salt: u16) {
        let names: Vec<String> = (0..count).map(|at| format!("n{salt}-{at}")).collect();
        let nodes: Vec<Node<'_>> = names.iter().map(|name| Node { name, zone: "", weight: 1 }).collect();
        let map = place(&nodes, 1 << bits, 3).expect("there are enough nodes");
        let mut held = vec![0_i32; count];
        let mut led = vec![0_i32; count];
        for (_, set) in map.iter() {
            set.iter().for_each(|node| held[usize::from(node.0)] += 1);
            led[usize::from(set[0].0)] += 1;
        }
        for shares in [held, led] {
            let (least, most) = (shares.iter().min(), shares.iter().max());
            prop_assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{shares:?}");
        }
    }

    #[test]
    fn the_order_of_the_list_does_not_matter(
        (made, shuffled) in clusters(10).prop_flat_map(|made| (Just(made.clone()), Just(made).prop_shuffle())),
    ) {
        prop_assume!(made.len() >= 3);
        let by_name = |made: &[Made]| -> Vec<Vec<String>> {
            let map = place(&as_nodes(made), 32, 3).expect("there are enough nodes");
            map.iter().map(|(_, set)| set.iter().map(|node| made[usize::from(node.0)].name.clone()).collect()).collect()
        };
        prop_assert_eq!(by_name(&made), by_name(&shuffled));
        let owners = |made: &[Made]| -> Vec<String> {
            let ring = Ring::new(&as_nodes(made));
            (0..200).filter_map(|at| ring.get(hash64(b"key", at))).map(|at| made[usize::from(at.0)].name.clone()).collect()
        };
        prop_assert_eq!(owners(&made), owners(&shuffled));
    }

    #[test]
    fn a_new_node_takes_keys_and_moves_none_between_others(made in clusters(12)) {
        prop_assume!(made.len() >= 2);
        let nodes = as_nodes(&made);
        let before = Ring::new(&nodes[..nodes.len() - 1]);
        let after = Ring::new(&nodes);
        let new = NodeIndex(nodes.len() as u16 - 1);
        for at in 0..1000 {
            let hash = hash64(b"key", at);
            let (old_owner, new_owner) = (before.get(hash), after.get(hash));
            prop_assert!(old_owner == new_owner || new_owner == Some(new));
        }
    }

    #[test]
    fn the_plain_ring_is_as_even_as_its_points_make_it(count in 2..30_usize, salt: u16) {
        let names: Vec<String> = (0..count).map(|at| format!("n{salt}-{at}")).collect();
        let nodes: Vec<Node<'_>> = names.iter().map(|name| Node { name, zone: "", weight: 1 }).collect();
        let ring = Ring::new(&nodes);
        // The exact share of each node is the length of the arcs that end in its points.
        let mut arcs = vec![0_u128; count];
        let mut last = ring.points().last().map_or(0, |(token, _)| token);
        for (token, owner) in ring.points() {
            arcs[usize::from(owner.0)] += u128::from(token.wrapping_sub(last));
            last = token;
        }
        let mean = (1_u128 << 64) / count as u128;
        // A share's deviation is about 9 %; five of those are allowed.
        for arc in arcs {
            prop_assert!(arc * 100 < mean * 145 && arc * 100 > mean * 55, "{arc} of a mean of {mean}");
        }
    }
}
