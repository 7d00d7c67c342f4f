//! Clusters that change: what moves, and that no placement could have moved less.

mod common;

use std::collections::BTreeSet;

use proptest::prelude::*;
use tholos_ring::{
    Move, Node, NodeIndex, PlaceError, Plan, ShardId, ShardMap, moves_between, place, rebalance,
};

/// Nodes written as `name/zone*weight`, zone and weight as needed.
fn nodes(text: &str) -> Vec<Node<'_>> {
    text.split_whitespace()
        .map(|word| {
            let (word, weight) = word.split_once('*').map_or((word, 1), |(word, weight)| {
                (word, weight.parse().expect("a test's weight is a number"))
            });
            let (name, zone) = word.split_once('/').unwrap_or((word, ""));
            Node { name, zone, weight }
        })
        .collect()
}

/// Everything that must hold of a plan; answers moves and the fewest possible.
#[track_caller]
fn check_plan(previous: &ShardMap, nodes: &[Node<'_>], replicas: u8, plan: &Plan) -> (usize, usize) {
    let (shards, replicas) = (usize::from(previous.shard_count()), usize::from(replicas));
    let limit = common::zone_limit(nodes, replicas);
    let targets = common::targets(nodes, shards, replicas);
    let mut held = vec![0_usize; nodes.len()];
    let mut led = vec![0_usize; nodes.len()];
    for (shard, set) in plan.map.iter() {
        assert_eq!(set.len(), replicas, "{shard}");
        assert_eq!(set.iter().collect::<BTreeSet<_>>().len(), replicas, "{shard} names a node twice");
        for node in set {
            let zone = common::zone_of(&nodes[usize::from(node.0)]);
            let there = |other: &&NodeIndex| common::zone_of(&nodes[usize::from(other.0)]) == zone;
            assert!(set.iter().filter(there).count() <= limit, "{shard} has too much in {zone}");
            held[usize::from(node.0)] += 1;
        }
        led[usize::from(set[0].0)] += 1;
    }
    let mut worst = 1.0_f64;
    for (at, node) in nodes.iter().enumerate() {
        let (held, led, target) = (held[at], led[at], targets[at]);
        let bounds = (target + 1e-6).floor()..=(target - 1e-6).ceil();
        assert!(bounds.contains(&(held as f64)), "{} holds {held}, its share is {target}", node.name);
        assert!(
            (held / replicas..=held.div_ceil(replicas)).contains(&led),
            "{} leads {led} of {held}",
            node.name
        );
        if target > 0.0 {
            worst = worst.max(held as f64 / target);
        }
    }
    assert!((plan.max_over_target - worst).abs() < 1e-9, "{} and not {worst}", plan.max_over_target);
    follow_the_moves(previous, nodes, plan);
    let fewest = common::fewest_moves(previous, nodes, replicas);
    assert!(plan.least_possible <= fewest && fewest <= plan.moved());
    (plan.moved(), fewest)
}

/// The moves lead from the map of before to the plan's, and on the way no zone holds more of a shard than before or after.
#[track_caller]
fn follow_the_moves(previous: &ShardMap, nodes: &[Node<'_>], plan: &Plan) {
    let mut sets = previous.clone().into_sets();
    let most = |set: &[NodeIndex]| {
        let zones: Vec<String> =
            set.iter().map(|node| common::zone_of(&nodes[usize::from(node.0)])).collect();
        zones.iter().map(|zone| zones.iter().filter(|other| *other == zone).count()).max().unwrap_or(0)
    };
    for step in &plan.moves {
        let set = &mut sets[usize::from(step.shard.0)];
        let bound = most(previous.replica_set(step.shard)).max(most(plan.map.replica_set(step.shard)));
        if let Some(from) = step.from {
            assert!(set.contains(&from), "{step:?}");
            set.retain(|node| *node != from);
        }
        if let Some(to) = step.to {
            assert!(!set.contains(&to), "{step:?}");
            set.push(to);
        }
        assert!(most(set) <= bound, "{step:?}");
    }
    for (set, (shard, planned)) in sets.iter().zip(plan.map.iter()) {
        let (set, planned): (BTreeSet<_>, BTreeSet<_>) = (set.iter().collect(), planned.iter().collect());
        assert_eq!(set, planned, "{shard}");
    }
}

/// A cluster that goes through stages, each written as its nodes; a node that leaves stays listed with `*0`.
#[track_caller]
fn check(shard_count: u16, replicas: u8, stages: &[(&str, usize)]) {
    let mut map = place(&nodes(stages[0].0), shard_count, replicas).expect("these nodes can hold the shards");
    for (stage, expected) in &stages[1..] {
        let nodes = nodes(stage);
        let plan = rebalance(&map, &nodes, replicas).expect("these nodes can hold the shards");
        let (moved, fewest) = check_plan(&map, &nodes, replicas, &plan);
        assert_eq!((moved, fewest), (*expected, *expected), "{stage}");
        map = plan.map;
    }
}

#[test]
fn nothing_moves_where_nothing_changed() {
    check(64, 3, &[("n1 n2 n3 n4 n5", 0), ("n1 n2 n3 n4 n5", 0)]);
    check(64, 3, &[("a1/a a2/a b1/b b2/b c1/c", 0), ("a1/a a2/a b1/b b2/b c1/c", 0)]);
}

#[test]
fn who_joins_takes_its_share_and_who_leaves_gives_it() {
    check(
        64,
        3,
        &[
            ("n1 n2 n3", 0),
            ("n1 n2 n3 n4", 48),
            ("n1 n2 n3 n4 n5 n6", 64),
            ("n1 n2 n3 n4 n5 n6*0", 32),
            ("n1 n2 n3 n4*0 n5*0 n6*0", 76),
        ],
    );
    // Three zones of one node each hold everything; a second node in a zone takes half of what the first has.
    check(
        64,
        3,
        &[("a1/a b1/b c1/c", 0), ("a1/a b1/b c1/c a2/a", 32), ("a1/a b1/b c1/c a2/a b2/b c2/c", 64)],
    );
}

#[test]
fn a_zone_that_is_lost_goes_to_the_others_and_comes_back() {
    check(
        64,
        3,
        &[
            ("a1/a a2/a b1/b b2/b c1/c c2/c d1/d d2/d", 0),
            ("a1/a a2/a b1/b b2/b c1/c c2/c d1/d*0 d2/d*0", 48),
            ("a1/a a2/a b1/b b2/b c1/c c2/c d1/d d2/d", 48),
        ],
    );
}

#[test]
fn weights_change() {
    check(
        64,
        3,
        &[("n1 n2 n3 n4", 0), ("n1*2 n2 n3 n4", 16), ("n1*2 n2*2 n3*2 n4", 23), ("n1 n2 n3 n4", 20)],
    );
}

#[test]
fn the_number_of_replicas_changes() {
    let nodes = nodes("n1 n2 n3 n4 n5");
    let mut map = place(&nodes[..1], 64, 1).unwrap();
    for (count, replicas, expected) in [(3, 3, 128), (5, 5, 128), (5, 3, 0), (5, 1, 0)] {
        let plan = rebalance(&map, &nodes[..count], replicas).unwrap();
        let (moved, fewest) = check_plan(&map, &nodes[..count], replicas, &plan);
        assert_eq!((moved, fewest), (expected, expected), "{count} nodes, {replicas} replicas");
        map = plan.map;
    }
}

#[test]
fn sets_that_break_the_rules_are_mended() {
    // An operator moved two nodes into one zone.
    let before = nodes("n1 n2 n3 n4");
    let map = place(&before, 64, 3).unwrap();
    let after = nodes("n1/a n2/a n3/b n4/c");
    let plan = rebalance(&map, &after, 3).unwrap();
    let (moved, fewest) = check_plan(&map, &after, 3, &plan);
    assert_eq!(moved, fewest);
}

#[test]
fn a_swap_names_both_ends() {
    let map = ShardMap::from_sets(vec![vec![NodeIndex(0)], vec![NodeIndex(0)]]).unwrap();
    let plan = rebalance(&map, &nodes("n1*0 n2"), 1).unwrap();
    let swap = |shard| Move { shard: ShardId(shard), from: Some(NodeIndex(0)), to: Some(NodeIndex(1)) };
    assert_eq!(plan.moves, [swap(0), swap(1)]);
    assert_eq!((plan.moved(), plan.least_possible), (2, 2));
}

#[test]
fn moves_lead_from_any_map_to_any_other() {
    let nodes = nodes("a1/a a2/a b1/b b2/b c1/c");
    let map = |sets: &[&[u16]]| {
        let set = |set: &&[u16]| set.iter().copied().map(NodeIndex).collect();
        ShardMap::from_sets(sets.iter().map(set).collect()).unwrap()
    };
    let step = |shard, from: Option<u16>, to: Option<u16>| Move {
        shard: ShardId(shard),
        from: from.map(NodeIndex),
        to: to.map(NodeIndex),
    };
    let before = map(&[&[0, 2, 4], &[0], &[0, 2, 4], &[0, 2, 4]]);
    // Swaps stay in their zones where they can, whatever the order of the sets; a new order alone is no move.
    let after = map(&[&[3, 1, 4], &[0, 2], &[4], &[2, 4, 0]]);
    let expected = [
        step(0, Some(2), Some(3)),
        step(0, Some(0), Some(1)),
        step(1, None, Some(2)),
        step(2, Some(0), None),
        step(2, Some(2), None),
    ];
    assert_eq!(moves_between(&before, &after, &nodes).unwrap(), expected);
    assert_eq!(moves_between(&before, &map(&[&[0]]), &nodes), Err(PlaceError::BadShardCount(1)));
    assert_eq!(moves_between(&before, &after, &nodes[..4]), Err(PlaceError::UnknownNode(NodeIndex(4))));
}

#[test]
fn what_cannot_be_planned_is_said() {
    let map = place(&nodes("n1 n2 n3"), 64, 3).unwrap();
    assert_eq!(rebalance(&map, &nodes("n1 n2"), 2), Err(PlaceError::UnknownNode(NodeIndex(2))));
    assert_eq!(
        rebalance(&map, &nodes("n1 n2 n3*0"), 3),
        Err(PlaceError::TooFewNodes { nodes: 2, replicas: 3 })
    );
    assert_eq!(rebalance(&map, &nodes("n1 n2 n3"), 0), Err(PlaceError::NoReplicas));
    let twice = ShardMap::from_sets(vec![vec![NodeIndex(1), NodeIndex(0), NodeIndex(1)]]);
    assert_eq!(twice, Err(PlaceError::NodeTwice(ShardId(0))));
    assert_eq!(ShardMap::from_sets(Vec::new()), Err(PlaceError::BadShardCount(0)));
}

/// A node of a made-up cluster: its zone (0 for none) and weights before and after.
type Made = (u8, u16, u16);

fn made_nodes(made: &[Made], weight: impl Fn(&Made) -> u16) -> Vec<(String, String, u16)> {
    let node = |(at, node): (usize, &Made)| {
        let zone = if node.0 > 0 { format!("z{}", node.0) } else { String::new() };
        (format!("n{at}"), zone, weight(node))
    };
    made.iter().enumerate().map(node).collect()
}

fn as_nodes(made: &[(String, String, u16)]) -> Vec<Node<'_>> {
    made.iter().map(|(name, zone, weight)| Node { name, zone, weight: *weight }).collect()
}

fn clusters() -> impl Strategy<Value = Vec<Made>> {
    let weights = || prop::sample::select(vec![0_u16, 1, 1, 1, 1, 2, 4]);
    let zones = prop::sample::select(vec![1_u8, 3, 4, 5, 5]);
    zones.prop_flat_map(move |zones| {
        prop::collection::vec((if zones == 1 { 0..=0 } else { 1..=zones }, weights(), weights()), 3..=12)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(160))]

    #[test]
    fn no_placement_moves_less(made in clusters(), bits in 3..=5_u32, replicas in prop::sample::select(vec![1_u8, 2, 3, 3])) {
        let (before, after) = (made_nodes(&made, |node| node.1), made_nodes(&made, |node| node.2));
        let (before, after) = (as_nodes(&before), as_nodes(&after));
        let enough = |nodes: &[Node<'_>]| nodes.iter().filter(|node| node.weight > 0).count() >= replicas.into();
        prop_assume!(enough(&before) && enough(&after));
        let map = place(&before, 1 << bits, replicas).expect("there are enough nodes");
        let plan = rebalance(&map, &after, replicas).expect("there are enough nodes");
        let (moved, fewest) = check_plan(&map, &after, replicas, &plan);
        prop_assert_eq!(moved, fewest, "the fewest possible");
    }

    #[test]
    fn plans_do_not_depend_on_the_order_of_the_list(made in clusters(), shift in 1..12_usize) {
        let (before, after) = (made_nodes(&made, |node| node.1.max(1)), made_nodes(&made, |node| node.2.max(1)));
        let plan_of = |shift: usize| {
            let turned = |made: &[(String, String, u16)]| {
                let mut made = made.to_vec();
                let count = made.len();
                made.rotate_left(shift % count);
                made
            };
            let (before, after) = (turned(&before), turned(&after));
            let map = place(&as_nodes(&before), 16, 3).expect("there are enough nodes");
            let after = as_nodes(&after);
            let plan = rebalance(&map, &after, 3).expect("there are enough nodes");
            let name = |node: NodeIndex| after[usize::from(node.0)].name;
            let moves: Vec<_> =
                plan.moves.iter().map(|step| (step.shard, step.from.map(name).map(String::from), step.to.map(name).map(String::from))).collect();
            let sets: Vec<Vec<String>> =
                plan.map.into_sets().iter().map(|set| set.iter().map(|node| String::from(name(*node))).collect()).collect();
            (moves, sets)
        };
        prop_assert_eq!(plan_of(0), plan_of(shift));
    }
}
