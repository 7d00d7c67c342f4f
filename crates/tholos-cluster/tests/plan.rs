//! Plans for made-up clusters: every step is walked by a second, plainer hand, and the count of moves is compared with
//! an exact oracle.

#[path = "../../tholos-ring/tests/common/mod.rs"]
mod common;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tholos_cluster::{
    Ailment, CheckKind, ClusterId, ClusterMap, Epoch, Facts, Former, Incarnation, NodeFacts, NodeId, NodeRow,
    Outcome, Plan, PlanError, Request, ShardFacts, Standing, plan,
};
use tholos_ring::{Node, NodeIndex, ShardId, ShardMap, place};

fn row(id: u16, zone: u8, weight: u16) -> NodeRow {
    NodeRow {
        id: NodeId(id),
        name: format!("n{id}"),
        zone: if zone > 0 { format!("z{zone}") } else { String::new() },
        weight,
        incarnation: Incarnation(u64::from(id)),
        gateway: String::new(),
        cluster: String::new(),
        peer: String::new(),
        http: String::new(),
    }
}

/// Nodes as the ring takes them; those for which `holds` is false get nothing.
fn nodes(rows: &[NodeRow], holds: impl Fn(&NodeRow) -> bool) -> Vec<Node<'_>> {
    let weight = |row: &NodeRow| if holds(row) { row.weight } else { 0 };
    rows.iter().map(|row| Node { name: &row.name, zone: &row.zone, weight: weight(row) }).collect()
}

fn ids(set: &[NodeIndex]) -> Vec<NodeId> {
    set.iter().map(|node| NodeId(node.0 + 1)).collect()
}

/// A cluster whose last `spares` nodes hold nothing.
fn cluster(rows: Vec<NodeRow>, spares: usize, shard_count: u16, replicas: u8) -> Option<ClusterMap> {
    let holders = rows.len().checked_sub(spares)?;
    let sets = place(&nodes(&rows, |row| usize::from(row.id.0) <= holders), shard_count, replicas).ok()?;
    Some(ClusterMap {
        cluster_id: ClusterId([7; 20]),
        epoch: Epoch(1),
        shard_count,
        replicas,
        shards: sets.iter().map(|(_, set)| ids(set)).collect(),
        nodes: rows,
    })
}

/// Who holds something is a member.
fn standings(map: &ClusterMap) -> Vec<Standing> {
    let holders: BTreeSet<NodeId> = map.shards.iter().flatten().copied().collect();
    let standing = |row: &NodeRow| {
        if holders.contains(&row.id) { Standing::Member } else { Standing::Spare }
    };
    map.nodes.iter().map(standing).collect()
}

fn try_plan(map: &ClusterMap, facts: &Facts, request: &Request) -> Result<Plan, PlanError> {
    plan(map, &standings(map), facts, request)
}

/// What the nodes are to be like after a request, as the ring takes them.
fn nodes_after(map: &ClusterMap, request: &Request) -> (Vec<NodeRow>, BTreeSet<NodeId>, u8) {
    let mut rows = map.nodes.clone();
    let mut holds: BTreeSet<NodeId> = map.shards.iter().flatten().copied().collect();
    let mut replicas = map.replicas;
    let at = |node: &NodeId| usize::from(node.0) - 1;
    match request {
        Request::Add(nodes) => holds.extend(nodes),
        Request::Remove(nodes) | Request::Drain(nodes) => holds.retain(|node| !nodes.contains(node)),
        Request::Replace { old, new } => {
            holds.remove(old);
            holds.insert(*new);
        }
        Request::Reweight { node, weight } => rows[at(node)].weight = *weight,
        Request::Rezone { node, zone } => rows[at(node)].zone.clone_from(zone),
        Request::Replicas { count, with } => {
            replicas = *count;
            holds.extend(with);
        }
        Request::Lost { nodes, with } => {
            holds.retain(|node| !nodes.contains(node));
            holds.extend(with);
        }
        Request::Even | Request::Roll(_) | Request::Undo { .. } => {}
    }
    (rows, holds, replicas)
}

/// Everything that must hold of a plan, whatever the facts.
#[track_caller]
fn check(map: &ClusterMap, facts: &Facts, plan: &Plan) {
    let (rows, holds, replicas) = nodes_after(map, &plan.request);
    let after = nodes(&rows, |row| holds.contains(&row.id));
    let zone = |node: &NodeId| common::zone_of(&after[usize::from(node.0) - 1]);
    let crowding = |set: &[NodeId]| {
        let zones: Vec<String> = set.iter().map(zone).collect();
        zones.iter().map(|zone| zones.iter().filter(|other| *other == zone).count()).max().unwrap_or(0)
    };
    let is_up = |node: &NodeId| facts.nodes[usize::from(node.0) - 1].down.is_none();
    let mut sets: Vec<BTreeMap<NodeId, bool>> = (map.shards.iter().zip(&facts.shards))
        .map(|(set, facts)| {
            let carries = |node: &NodeId| is_up(node) && !facts.ailing.iter().any(|(other, _)| other == node);
            set.iter().map(|node| (*node, carries(node))).collect()
        })
        .collect();
    let has_quorum =
        |set: &BTreeMap<NodeId, bool>| 2 * set.values().filter(|carries| **carries).count() > set.len();
    let members = |set: &BTreeMap<NodeId, bool>| set.keys().copied().collect::<Vec<_>>();
    let (mut safe, mut bytes) = (true, 0);
    for step in &plan.moves {
        let shard = usize::from(step.shard.0);
        let set = &mut sets[shard];
        let bound = crowding(&map.shards[shard]).max(crowding(&plan.sets[shard]));
        let next = step.set_after(&members(set)).expect("N1: the move fits the set that it meets");
        safe &= has_quorum(set);
        if step.leads().is_some() {
            continue;
        }
        if let Some(from) = step.from {
            set.remove(&from);
        }
        if let Some(to) = step.to {
            safe &= is_up(&to);
            set.insert(to, is_up(&to));
            bytes += facts.shards[shard].data_bytes.unwrap_or(0);
        }
        assert_eq!(next.iter().copied().collect::<BTreeSet<_>>(), set.keys().copied().collect());
        safe &= has_quorum(set);
        assert!(crowding(&members(set)) <= bound, "N4 {step}");
    }
    for (set, planned) in sets.iter().zip(&plan.sets) {
        assert_eq!(set.keys().copied().collect::<BTreeSet<_>>(), planned.iter().copied().collect(), "N1");
    }
    let outcome = |kind| plan.checks.iter().find(|check| check.kind == kind).map(|check| check.outcome);
    assert_eq!(outcome(CheckKind::Quorum) != Some(Outcome::Blocks), safe, "N3 {:?}", plan.checks);
    assert_eq!(plan.bytes, bytes);
    check_placement(map, plan, &after, replicas);
}

/// Shares, zones and the number of moves.
#[track_caller]
fn check_placement(map: &ClusterMap, plan: &Plan, after: &[Node<'_>], replicas: u8) {
    let place = |node: &NodeId| NodeIndex(node.0 - 1);
    let limit = common::zone_limit(after, usize::from(replicas));
    let targets = common::targets(after, map.shards.len(), usize::from(replicas));
    for set in &plan.sets {
        assert_eq!(set.len(), usize::from(replicas));
        for node in set {
            let zone = common::zone_of(&after[usize::from(place(node).0)]);
            let same = set.iter().filter(|other| common::zone_of(&after[usize::from(other.0) - 1]) == zone);
            assert!(same.count() <= limit);
        }
    }
    for (effect, target) in plan.nodes.iter().zip(targets) {
        assert!(effect.replicas.1 as f64 <= (target - 1e-6).ceil(), "{effect:?} for {target}");
        let led = plan.sets.iter().filter(|set| set[0] == effect.node).count();
        assert_eq!(effect.leads.1, led);
        assert!(led <= effect.replicas.1.div_ceil(usize::from(replicas)), "{effect:?}");
    }
    let sets = map.shards.iter().map(|set| set.iter().map(place).collect()).collect();
    let before = ShardMap::from_sets(sets).expect("a map's sets");
    let fewest = common::fewest_moves(&before, after, usize::from(replicas));
    assert_eq!(plan.copies(), fewest, "N2");
    assert!(plan.least_possible <= fewest);
}

/// A made-up cluster: zone and weight of each node, how many are spares, shards as a power of two, replicas.
fn clusters() -> impl Strategy<Value = ClusterMap> {
    let zones = prop::sample::select(vec![0_u8, 0, 3, 3, 4, 5, 2]);
    let made = zones.prop_flat_map(|zones| {
        let zone = if zones == 0 { 0..=0 } else { 1..=zones };
        let weight = prop::sample::select(vec![1_u16, 1, 1, 2, 4]);
        (
            prop::collection::vec((zone, weight), 3..=10),
            0..=2_usize,
            2..=5_u32,
            prop::sample::select(vec![1_u8, 3, 3, 3, 5]),
        )
    });
    made.prop_filter_map("too few nodes", |(made, spares, bits, replicas)| {
        let rows =
            (1..).zip(&made).map(|(id, (zone, weight))| row(id, *zone, *weight)).collect::<Vec<NodeRow>>();
        cluster(rows, spares, 1 << bits, replicas)
    })
}

/// A request that makes sense for most clusters, drawn from a few numbers.
fn request_for(map: &ClusterMap, kind: u8, a: usize, b: usize) -> Request {
    let held: BTreeSet<NodeId> = map.shards.iter().flatten().copied().collect();
    let (holders, spares): (Vec<NodeId>, Vec<NodeId>) =
        map.nodes.iter().map(|row| row.id).partition(|node| held.contains(node));
    let holder = |at: usize| holders[at % holders.len()];
    match (kind, spares.first()) {
        (0, Some(_)) => Request::Add(spares[..=b % spares.len()].into()),
        (1, Some(spare)) => Request::Replace { old: holder(a), new: *spare },
        (2, _) => Request::Remove(vec![holder(a)]),
        (6, _) => Request::Lost { nodes: vec![holder(a)], with: spares.into_iter().take(b % 2).collect() },
        (3, _) => Request::Rezone { node: holder(a), zone: format!("z{}", b % 4) },
        (4, _) => Request::Replicas { count: [1, 3, 5][b % 3], with: spares },
        (5, _) => {
            Request::Drain(if holder(a) == holder(b) { vec![holder(a)] } else { vec![holder(a), holder(b)] })
        }
        _ => Request::Reweight { node: holder(a), weight: [1, 2, 4, 8][b % 4] },
    }
}

/// Up to two nodes are down and up to three replicas ail.
fn facts_for(map: &ClusterMap, down: &[usize], ailing: &[(usize, usize)]) -> Facts {
    let node = || NodeFacts { down: None, disk_free: Some(u64::MAX / 4), memory_free: Some(u64::MAX / 4) };
    let mut nodes: Vec<NodeFacts> = map.nodes.iter().map(|_| node()).collect();
    let count = nodes.len();
    down.iter().for_each(|at| nodes[at % count].down = Some("connection refused".into()));
    let shard = |(shard, set): (u64, &Vec<NodeId>)| ShardFacts {
        bytes: Some(2000 + shard),
        data_bytes: Some(1000 + shard),
        leader: set.first().copied(),
        ..ShardFacts::default()
    };
    let mut shards: Vec<ShardFacts> = (0..).zip(&map.shards).map(shard).collect();
    for (shard, at) in ailing {
        let shard = shard % map.shards.len();
        let set = &map.shards[shard];
        shards[shard].ailing.push((set[at % set.len()], Ailment::Mute));
    }
    Facts { nodes, shards }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn plans_are_safe_even_and_the_least(
        map in clusters(),
        (kind, a, b) in (0..8_u8, 0..16_usize, 0..16_usize),
        down in prop::collection::vec(0..16_usize, 0..=2),
        ailing in prop::collection::vec((0..32_usize, 0..5_usize), 0..=3),
    ) {
        let request = request_for(&map, kind, a, b);
        let facts = facts_for(&map, &down, &ailing);
        let Ok(planned) = try_plan(&map, &facts, &request) else { return Ok(()) };
        check(&map, &facts, &planned);
        prop_assert_eq!(try_plan(&map, &facts, &request), Ok(planned), "a pure function");
    }

    #[test]
    fn plans_back_lead_back(map in clusters(), (kind, a, b) in (0..8_u8, 0..16_usize, 0..16_usize)) {
        let request = request_for(&map, kind, a, b);
        let facts = facts_for(&map, &[], &[]);
        let Ok(there) = try_plan(&map, &facts, &request) else { return Ok(()) };
        let (rows, _, replicas) = nodes_after(&map, &request);
        let moved = ClusterMap { nodes: rows, shards: there.sets.clone(), replicas, ..map.clone() };
        let former = Former { map: map.clone(), standings: standings(&map) };
        let back = try_plan(&moved, &facts_for(&moved, &[], &[]), &Request::Undo { job: 1, former: former.into() });
        let back = back.expect("no node has left");
        for (set, was) in back.sets.iter().zip(&map.shards) {
            prop_assert_eq!(set[0], was[0]);
        }
        prop_assert!(!back.is_blocked());
        let mut sets = moved.shards;
        for step in &back.moves {
            let set = &mut sets[usize::from(step.shard.0)];
            *set = step.set_after(set).expect("N1");
        }
        for (set, (shard, before)) in sets.iter().zip((0..).map(ShardId).zip(&map.shards)) {
            let (set, before): (BTreeSet<_>, BTreeSet<_>) = (set.iter().collect(), before.iter().collect());
            prop_assert_eq!(set, before, "{}", shard);
        }
    }
}
