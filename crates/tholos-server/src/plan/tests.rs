use std::collections::BTreeMap;

use tholos_cluster::{Ailment, ClusterId, Incarnation, NodeFacts, ShardFacts};

use super::*;

/// Three nodes, two shards of three replicas.
fn map() -> ClusterMap {
    let row = |number: u16| NodeRow {
        id: NodeId(number),
        name: format!("node-{number}"),
        zone: String::new(),
        weight: 1,
        incarnation: Incarnation(u64::from(number)),
        gateway: String::new(),
        cluster: String::new(),
        peer: String::new(),
        http: String::new(),
    };
    ClusterMap::genesis(ClusterId([7; 20]), (1..=4).map(row).collect(), 2, 3).unwrap()
}

/// Everything is well: each node reports what the map says, and the first of each set leads.
fn answers(map: &ClusterMap) -> Answers {
    let shard = |node: NodeId, shard: ShardId| {
        let set = map.replica_set(shard);
        let leads = set[0] == node;
        ShardReport {
            shard: shard.0,
            leads,
            round: 1,
            decided: 20_000,
            bytes: 150 + u64::from(leads),
            data_bytes: 100 + u64::from(leads),
            config: 4,
            voters: set.iter().map(|node| node.0).collect(),
            followers: BTreeMap::new(),
            ..ShardReport::default()
        }
    };
    let report = |row: &NodeRow| NodeReport {
        name: row.name.clone(),
        shards: map.shards_of(row.id).map(|id| shard(row.id, id)).collect(),
        disk_free_bytes: Some(1000),
        memory_free_bytes: Some(2000),
        ..NodeReport::default()
    };
    map.nodes.iter().map(|row| Ok(report(row))).collect()
}

/// A node's report of a shard.
fn of(answers: &mut Answers, node: NodeId, shard: ShardId) -> &mut ShardReport {
    let report = answers[usize::from(node.0) - 1].as_mut().unwrap();
    report.shards.iter_mut().find(|report| report.shard == shard.0).unwrap()
}

#[test]
fn facts_are_what_the_nodes_say() {
    let map = map();
    let mut answers = answers(&map);
    let shard = ShardId(1);
    let set = map.replica_set(shard).to_vec();
    let well =
        ShardFacts { bytes: Some(151), data_bytes: Some(101), leader: Some(set[0]), ..ShardFacts::default() };
    let room = NodeFacts { down: None, disk_free: Some(1000), memory_free: Some(2000) };
    let seen = facts(&map, &answers);
    assert_eq!((&seen.nodes, &seen.shards[1]), (&vec![room; 4], &well));

    // A node that holds nothing of it does not ail.
    of(&mut answers, set[1], shard).decided = 9_999;
    of(&mut answers, set[2], shard).mute = Some("its log".to_owned());
    let ailing = vec![(set[1], Ailment::Behind(10_001)), (set[2], Ailment::Mute)];
    let mut seen = facts(&map, &answers).shards[1].ailing.clone();
    seen.sort_by_key(|(node, _)| set.iter().position(|other| other == node));
    assert_eq!(seen, ailing);

    answers[usize::from(set[0].0) - 1] = Err("connection refused".to_owned());
    let report = answers[usize::from(set[2].0) - 1].as_mut().unwrap();
    report.shards.retain(|report| report.shard != shard.0);
    of(&mut answers, set[1], shard).voters = vec![set[1].0, set[2].0];
    let seen = facts(&map, &answers);
    assert_eq!(seen.nodes[usize::from(set[0].0) - 1].down.as_deref(), Some("connection refused"));
    let expected = ShardFacts {
        bytes: Some(150),
        data_bytes: Some(100),
        leader: None,
        voters: vec![set[1], set[2]],
        // Behind nobody knows whom.
        ailing: vec![(set[2], Ailment::Absent)],
    };
    assert_eq!(seen.shards[1], expected);
}

#[test]
fn a_plan_is_told_by_names() {
    let state = MetaState::founded(map());
    let map = &state.map;
    let mut answers = answers(map);
    let told = |answers: &Answers, words: &str| {
        planned(&state, answers, words).map(|plan| report(map, answers, &plan))
    };
    let plan = told(&answers, "remove node-1").unwrap();
    assert_eq!((plan.epoch, plan.request.as_str(), plan.blocked), (1, "remove node-1", false));
    assert_eq!(plan.moves_total, map.shards_of(NodeId(1)).count());
    assert!(plan.moves.iter().all(|step| step.from.as_deref() == Some("node-1") && step.to.is_some()));
    assert_eq!(
        plan.nodes[0].note.as_deref(),
        Some("hands its leaders over, then its replicas; leaves the cluster")
    );
    assert_eq!(plan.bytes, plan.moves_total as u64 * 101);
    assert!(plan.checks.iter().all(|check| check.ok && !check.blocks));

    answers[1] = Err("connection refused".to_owned());
    answers[2] = Err("no answer within 1s".to_owned());
    let plan = told(&answers, "remove node-1").unwrap();
    assert!(plan.blocked);
    let quorum = plan.checks.iter().find(|check| check.check == "quorum").unwrap();
    assert!(quorum.blocks && quorum.reasons.iter().any(|why| why.contains("node-2 is down")), "{quorum:?}");
    assert_eq!(plan.nodes[1].note.as_deref(), Some("down: connection refused"));
    let refused = told(&answers, "remove node-9").unwrap_err();
    assert_eq!(refused.to_string(), "the cluster has no node node-9");
}

fn remember(plans: &Plans, plan: &Plan, state: &MetaState) {
    plans.remember(plan.id, plan.epoch, plan.request.to_words(&state.map));
}

#[test]
fn plans_outlive_the_process_and_a_torn_file_only_forgets_them() {
    let directory = std::env::temp_dir().join(format!("tholos-plans-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let state = MetaState::founded(map());
    let plan = planned(&state, &answers(&state.map), "remove node-1").unwrap();
    let plans = Plans::of_directory(&directory);
    assert_eq!(plans.find(plan.id), None);
    remember(&plans, &plan, &state);
    let found = Plans::of_directory(&directory).find(plan.id).unwrap();
    assert_eq!((found.epoch, found.request.as_str()), (1, "remove node-1"));
    let file = directory.join(PLANS_FILE);
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let plans = Plans::of_directory(&directory);
    assert_eq!(plans.find(plan.id), None);
    remember(&plans, &plan, &state);
    assert_eq!(std::fs::read(&file).unwrap(), whole);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn the_last_plans_are_remembered_by_their_names() {
    let plans = Plans::default();
    let mut state = MetaState::founded(map());
    let mut made = Vec::new();
    for epoch in 1..=PLANS_MAX as u64 + 1 {
        state.map.epoch = Epoch(epoch);
        let plan = planned(&state, &answers(&state.map), "remove node-1").unwrap();
        remember(&plans, &plan, &state);
        remember(&plans, &plan, &state);
        made.push(plan.id);
    }
    assert!(plans.find(made[0]).is_none());
    let found = plans.find(made[1]).unwrap();
    assert_eq!((found.epoch, found.request.as_str()), (2, "remove node-1"));
    assert_eq!(plans.lock().len(), PLANS_MAX);
}

#[test]
fn a_plan_of_another_node_is_found_while_the_map_is_the_same() {
    let state = MetaState::founded(map());
    let mut answers = answers(&state.map);
    let (here, there) = (Plans::default(), Plans::default());
    let plan = planned(&state, &answers, "remove node-1").unwrap();
    remember(&there, &plan, &state);
    assert_eq!(made_elsewhere(&state, &answers, plan.id), None);
    answers[1].as_mut().unwrap().plans = there.of(state.epoch());
    assert_eq!(here.find(plan.id), None);
    let made = made_elsewhere(&state, &answers, plan.id).unwrap();
    assert_eq!((made.epoch, made.request.as_str()), (1, "remove node-1"));
    // The same words make the same plan, by whatever node.
    assert_eq!(planned(&state, &answers, &made.request).unwrap().id, plan.id);
    assert_eq!(made_elsewhere(&state, &answers, PlanId(plan.id.0 ^ 1)), None);
    assert!(there.of(Epoch(2)).is_empty(), "of another map it is of no use");
    let moved = MetaState { map: ClusterMap { epoch: Epoch(2), ..state.map.clone() }, ..state };
    assert_eq!(made_elsewhere(&moved, &answers, plan.id), None);
}
