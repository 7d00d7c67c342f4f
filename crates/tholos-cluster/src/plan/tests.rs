use alloc::format;
use alloc::string::{String, ToString as _};

use tholos_paxos::Millis;

use super::*;
use crate::id::{ClusterId, Incarnation};
use crate::map::NodeRow;

/// A cluster of nodes written as `name/zone*weight`, zone and weight as needed, and `?` behind those that hold nothing.
fn cluster(text: &str, shard_count: u16, replicas: u8) -> ClusterMap {
    let mut rows = Vec::new();
    let mut holds = Vec::new();
    for (id, word) in (1..).map(NodeId).zip(text.split_whitespace()) {
        holds.push(!word.ends_with('?'));
        let (word, weight) = word.trim_end_matches('?').split_once('*').unwrap_or((word, "1"));
        let (name, zone) = word.trim_end_matches('?').split_once('/').unwrap_or((word, ""));
        rows.push(NodeRow {
            id,
            name: name.trim_end_matches('?').into(),
            zone: zone.into(),
            weight: weight.parse().unwrap(),
            incarnation: Incarnation(u64::from(id.0)),
            gateway: String::new(),
            cluster: String::new(),
            peer: String::new(),
            http: String::new(),
        });
    }
    let weight = |at: usize| if holds[at] { rows[at].weight } else { 0 };
    let nodes: Vec<Node<'_>> = rows
        .iter()
        .enumerate()
        .map(|(at, row)| Node { name: &row.name, zone: &row.zone, weight: weight(at) })
        .collect();
    let sets = tholos_ring::place(&nodes, shard_count, replicas).unwrap().into_sets();
    let ids = |set: &Vec<NodeIndex>| set.iter().map(|node| NodeId(node.0 + 1)).collect();
    let map = ClusterMap {
        cluster_id: ClusterId([7; 20]),
        epoch: Epoch(12),
        shard_count,
        replicas,
        shards: sets.iter().map(ids).collect(),
        nodes: rows,
    };
    assert_eq!(map.check(), Ok(()));
    map
}

/// Everything is up, every shard has ten bytes and is led as the map prefers, and every node has room for a thousand.
fn well(map: &ClusterMap) -> Facts {
    let node = NodeFacts { down: None, disk_free: Some(1000), memory_free: Some(1000) };
    let shard = |set: &Vec<NodeId>| ShardFacts {
        bytes: Some(10),
        data_bytes: Some(10),
        leader: set.first().copied(),
        ..ShardFacts::default()
    };
    Facts { nodes: vec![node; map.nodes.len()], shards: map.shards.iter().map(shard).collect() }
}

/// Who holds something is a member.
fn standings(map: &ClusterMap) -> Vec<Standing> {
    let holds = |row: &NodeRow| map.shards.iter().flatten().any(|node| *node == row.id);
    map.nodes.iter().map(|row| if holds(row) { Standing::Member } else { Standing::Spare }).collect()
}

fn try_plan(map: &ClusterMap, facts: &Facts, request: &Request) -> Result<Plan, PlanError> {
    plan(map, &standings(map), facts, request)
}

fn planned(map: &ClusterMap, facts: &Facts, words: &str) -> Plan {
    try_plan(map, facts, &Request::parse(map, words).unwrap()).unwrap()
}

/// Name, replicas, leads and bytes of each node; copies and the fewest.
#[track_caller]
fn check(map: &ClusterMap, words: &str, expected: &[&str], copies: (usize, usize)) -> Plan {
    let plan = planned(map, &well(map), words);
    let told = |effect: &NodeEffect| {
        let NodeEffect { node, replicas, leads, bytes, alone_in_zone, .. } = *effect;
        let name = &map.node(node).unwrap().name;
        let mark = if alone_in_zone { " alone" } else { "" };
        format!(
            "{name} {} → {}, {} → {}, {} → {}{mark}",
            replicas.0, replicas.1, leads.0, leads.1, bytes.0, bytes.1
        )
    };
    assert_eq!(plan.nodes.iter().map(told).collect::<Vec<_>>(), expected, "{words}");
    assert_eq!((plan.copies(), plan.least_possible), copies, "{words}");
    assert!(!plan.is_blocked(), "{:?}", plan.checks);
    plan
}

/// The outcome of each check, and the reasons in words.
#[track_caller]
fn check_reasons(map: &ClusterMap, facts: &Facts, words: &str, expected: &[(CheckKind, Outcome, &str)]) {
    let plan = planned(map, facts, words);
    let mut told = Vec::new();
    for check in &plan.checks {
        for reason in &check.reasons {
            told.push((check.kind, check.outcome, reason.to_words(map)));
        }
        assert_eq!(check.outcome == Outcome::Ok, check.reasons.is_empty());
    }
    let told: Vec<_> = told.iter().map(|(kind, outcome, words)| (*kind, *outcome, words.as_str())).collect();
    assert_eq!(told, expected);
    assert_eq!(plan.is_blocked(), told.iter().any(|(_, outcome, _)| *outcome == Outcome::Blocks));
}

#[test]
fn a_spare_takes_its_share_and_nothing_else_moves() {
    let map = cluster("n1/a n2/b n3/c n4/a?", 64, 3);
    let plan = check(
        &map,
        "add n4",
        &[
            "n1 64 → 32, 22 → 11, 640 → 320",
            "n2 64 → 64, 21 → 21, 640 → 640 alone",
            "n3 64 → 64, 21 → 22, 640 → 640 alone",
            "n4 0 → 32, 0 → 10, 0 → 320",
        ],
        (32, 32),
    );
    assert_eq!((plan.bytes, plan.estimate_s(50), plan.epoch), (320, 7, Epoch(12)));
    let (copies, leads) = plan.moves.split_at(32);
    assert!(copies.iter().all(|step| (step.from, step.to) == (Some(NodeId(1)), Some(NodeId(4)))));
    assert!(leads.iter().all(|step| step.leads().is_some()));
    let led: Vec<_> = plan.leaders.iter().filter(|(_, leader)| *leader == NodeId(4)).collect();
    assert_eq!(led.len(), 10);
    // With a fourth zone nobody has to hold one of every shard.
    let map = cluster("n1/a n2/b n3/c n4/d", 64, 3);
    assert!(planned(&map, &well(&map), "even").nodes.iter().all(|node| !node.alone_in_zone));
}

#[test]
fn spares_get_nothing_that_they_were_not_asked_for() {
    let map = cluster("n1 n2 n3 n4 n5?", 64, 3);
    for words in ["drain n1", "remove n1", "reweight n1 2"] {
        let plan = planned(&map, &well(&map), words);
        assert_eq!(plan.nodes[4].replicas, (0, 0), "{words}");
        assert!(plan.copies() > 0, "{words}");
    }
    // Nor does a new weight or zone of theirs move anything.
    for words in ["reweight n5 2", "rezone n5 b", "remove n5"] {
        assert_eq!(planned(&map, &well(&map), words).moves, [], "{words}");
    }
    let plan = planned(&map, &well(&map), "replace n2 n5");
    assert_eq!((plan.nodes[1].replicas, plan.nodes[4].replicas, plan.copies()), ((48, 0), (0, 48), 48));
}

#[test]
fn a_cluster_grows_from_one_and_shrinks_back() {
    let map = cluster("n1 n2? n3?", 16, 1);
    let plan = check(
        &map,
        "replicas 3 n2 n3",
        &["n1 16 → 16, 16 → 6, 160 → 160", "n2 0 → 16, 0 → 5, 0 → 160", "n3 0 → 16, 0 → 5, 0 → 160"],
        (32, 32),
    );
    let grown = ClusterMap { shards: plan.sets, replicas: 3, ..map };
    let plan = planned(&grown, &well(&grown), "replicas 1");
    assert_eq!((plan.copies(), plan.moves.len()), (0, 32), "those that lead stay");
    let shrunk = ClusterMap { shards: plan.sets, replicas: 1, ..grown };
    let plan = planned(&shrunk, &well(&shrunk), "remove n2 n3");
    assert_eq!(plan.nodes.iter().map(|node| node.replicas.1).collect::<Vec<_>>(), [16, 0, 0]);
}

#[test]
fn a_job_is_undone_by_a_plan_back() {
    let map = cluster("n1 n2 n3 n4?", 64, 3);
    let restore = |map: &ClusterMap| Request::Undo {
        job: 4,
        former: Former { map: map.clone(), standings: standings(map) }.into(),
    };
    let plan = planned(&map, &well(&map), "add n4");
    let after = ClusterMap { shards: plan.sets, epoch: Epoch(90), ..map.clone() };
    let back = try_plan(&after, &well(&after), &restore(&map)).unwrap();
    // Who leads counts, and the order of the others does not.
    let as_set = |set: &Vec<NodeId>| {
        let mut set = set.clone();
        set[1..].sort_unstable();
        set
    };
    let as_sets = |sets: &[Vec<NodeId>]| sets.iter().map(as_set).collect::<Vec<_>>();
    assert!(as_sets(&back.sets) == as_sets(&map.shards));
    assert_eq!((back.copies(), back.least_possible), (48, 48));
    assert!(!back.is_blocked());

    let mut gone = after.clone();
    gone.nodes.remove(0);
    let back = |former: &ClusterMap| try_plan(&gone, &well(&gone), &restore(former));
    assert_eq!(back(&map), Err(PlanError::NodeLeft(NodeId(1))));
    let other = ClusterMap { cluster_id: ClusterId([8; 20]), ..map };
    assert_eq!(back(&other), Err(PlanError::OtherCluster));
}

#[test]
fn an_order_tells_the_meta_group_everything() {
    let map = cluster("n1 n2 n3 n4 n5?", 16, 3);
    let changes = |words: &str| planned(&map, &well(&map), words).changes;
    let (n1, n5) = (NodeId(1), NodeId(5));
    let draining = NodeChange::Standing(n1, Standing::Draining);
    let joins = NodeChange::Standing(n5, Standing::Member);
    assert_eq!(changes("add n5"), core::slice::from_ref(&joins));
    assert_eq!(changes("drain n1"), core::slice::from_ref(&draining));
    assert_eq!(changes("replace n1 n5"), [draining.clone(), joins.clone()]);
    assert_eq!(changes("reweight n5 4"), [NodeChange::Weight(n5, 4)]);
    assert_eq!(changes("rezone n1 b"), [NodeChange::Zone(n1, "b".into())]);
    assert_eq!(changes("replicas 5 n5"), [joins]);

    let plan = planned(&map, &well(&map), "remove n1");
    let order = plan.to_order(&map, 7, 9_000_000);
    assert_eq!((order.plan >> 32, order.plan as u32, order.epoch), (12, plan.id.0, Epoch(12)));
    assert_eq!((order.title.as_str(), order.in_flight_max, order.replicas), ("remove n1", 7, 3));
    assert_eq!(
        (&order.changes[..], &order.moves, &order.removes[..]),
        (&[draining][..], &plan.moves, &[n1][..])
    );
    // And the meta group takes it.
    let mut state = Some(crate::MetaState::founded(ClusterMap { epoch: Epoch(1), ..map.clone() }));
    let order = JobOrder { epoch: Epoch(1), ..order };
    assert_eq!(crate::MetaState::apply(&mut state, &crate::MetaCommand::StartJob(order), Millis(1)), Ok(1));
}

#[test]
fn an_id_names_what_would_change_and_nothing_else() {
    let map = cluster("n1 n2 n3 n4 n5?", 64, 3);
    let facts = well(&map);
    let id = |map: &ClusterMap, facts: &Facts, words| planned(map, facts, words).id;
    let first = id(&map, &facts, "add n5");
    let mut grown = facts.clone();
    grown.shards.iter_mut().for_each(|shard| shard.bytes = Some(11));
    grown.nodes[4].disk_free = Some(0);
    assert_eq!(id(&map, &grown, "add n5"), first);
    assert_ne!(id(&ClusterMap { epoch: Epoch(13), ..map.clone() }, &facts, "add n5"), first);
    assert_ne!(id(&map, &facts, "drain n4"), id(&map, &facts, "remove n4"));
    assert_eq!(PlanId::from_hex(&first.to_string()), Some(first));
    for text in ["", "7c1e", "+1234567", "123456789", "1234567g"] {
        assert_eq!(PlanId::from_hex(text), None, "{text}");
    }
}

#[test]
fn shards_that_can_lose_the_least_go_first() {
    let map = cluster("n1 n2 n3 n4 n5?", 64, 3);
    let mut facts = well(&map);
    facts.nodes[1].down = Some("connection refused".into());
    let shard = map.shards_of(NodeId(2)).next().unwrap();
    let plan = planned(&map, &facts, "replace n2 n5");
    assert!(!plan.is_blocked(), "{:?}", plan.checks);
    // All of its shards can lose none; where its replica is not needed for that, it would be another matter.
    assert_eq!(plan.moves[0].shard, shard);
    let map = cluster("n1 n2 n3 n4 n5 n6 n7?", 64, 5);
    let mut facts = well(&map);
    facts.nodes[1].down = Some("connection refused".into());
    let thin =
        map.shards.iter().rposition(|set| set.contains(&NodeId(2)) && set.contains(&NodeId(3))).unwrap();
    facts.shards[thin].ailing.push((NodeId(3), Ailment::Mute));
    let plan = planned(&map, &facts, "replace n2 n7");
    assert_eq!(usize::from(plan.moves[0].shard.0), thin);
    let copies = plan.moves.iter().filter(|step| step.is_copy());
    assert!(copies.skip(1).all(|step| usize::from(step.shard.0) != thin));
}

#[test]
fn the_fullest_gives_first_and_the_neediest_takes() {
    let map = cluster("n1 n2 n3 n4 n5? n6?", 64, 3);
    let plan = planned(&map, &well(&map), "add n5 n6");
    let mut held: Vec<i64> = plan.nodes.iter().map(|node| node.replicas.0 as i64).collect();
    for step in &plan.moves {
        let givers = 0..4;
        let most = held[givers].iter().max().copied();
        assert_eq!(Some(held[usize::from(step.from.unwrap().0) - 1]), most, "{step}");
        held[usize::from(step.from.unwrap().0) - 1] -= 1;
        held[usize::from(step.to.unwrap().0) - 1] += 1;
        assert!(held[4].abs_diff(held[5]) <= 2, "{held:?}");
    }
}

#[test]
fn a_shard_without_a_quorum_blocks_and_is_named() {
    let map = cluster("n1 n2 n3 n4?", 2, 3);
    let mut facts = well(&map);
    facts.nodes[1].down = Some("connection refused".into());
    facts.shards[1].ailing = vec![(NodeId(3), Ailment::Mute)];
    let quorum = (CheckKind::Quorum, Outcome::Blocks);
    check_reasons(
        &map,
        &facts,
        "replace n1 n4",
        &[(
            quorum.0,
            quorum.1,
            "s1 has 1 of the 2 replicas that a change needs: the replica on n3 has lost data, n2 is down",
        )],
    );
    // Moving the last good one away leaves none: two of three stay good only by the new one.
    facts.nodes[1].down = None;
    facts.shards[1].ailing = vec![(NodeId(3), Ailment::Behind(70_000)), (NodeId(2), Ailment::Absent)];
    check_reasons(
        &map,
        &facts,
        "replace n1 n4",
        &[(
            quorum.0,
            quorum.1,
            "s1 has 1 of the 2 replicas that a change needs: n3 is 70000 entries behind, n2 has no replica yet",
        )],
    );
}

#[test]
fn dropping_a_good_replica_beside_a_bad_one_blocks() {
    let map = cluster("n1 n2 n3", 1, 3);
    let mut facts = well(&map);
    // The plan keeps the first; whoever that is, let another one of those kept be down.
    let kept = planned(&map, &facts, "replicas 2").sets[0].clone();
    facts.nodes[usize::from(kept[1].0) - 1].down = Some("gone".into());
    let plan = planned(&map, &facts, "replicas 2");
    assert!(plan.is_blocked(), "{plan:?}");
}

#[test]
fn who_is_down_gets_nothing_and_may_leave() {
    let map = cluster("n1 n2 n3 n4 n5?", 8, 3);
    let mut facts = well(&map);
    facts.nodes[4].down = Some("connection refused".into());
    check_reasons(
        &map,
        &facts,
        "replace n1 n5",
        &[(CheckKind::Quorum, Outcome::Blocks, "n5 is to get 6 replicas and is down: connection refused")],
    );
    facts.nodes[4].down = None;
    facts.nodes[0].down = Some("connection refused".into());
    check_reasons(&map, &facts, "replace n1 n5", &[]);
    check_reasons(&map, &facts, "remove n1", &[]);
}

#[test]
fn what_does_not_fit_blocks_and_what_is_not_known_is_said() {
    let map = cluster("n1 n2 n3 n4?", 4, 3);
    let mut facts = well(&map);
    facts.nodes[3].disk_free = Some(29);
    facts.nodes[3].memory_free = None;
    check_reasons(
        &map,
        &facts,
        "add n4",
        &[
            (CheckKind::Disk, Outcome::Blocks, "n4 is to get 30 bytes and has room for 29"),
            (CheckKind::Memory, Outcome::Warns, "n4 does not say how much room it has"),
        ],
    );
    facts.nodes[3].disk_free = Some(30);
    facts.nodes[3].memory_free = Some(30);
    check_reasons(&map, &facts, "add n4", &[]);
}

#[test]
fn a_set_that_the_map_does_not_know_blocks() {
    let map = cluster("n1 n2 n3 n4?", 1, 3);
    let mut facts = well(&map);
    facts.shards[0].voters = map.shards[0].iter().rev().copied().collect();
    check_reasons(&map, &facts, "replace n1 n4", &[]);
    facts.shards[0].voters = [2, 3, 4].map(NodeId).into();
    check_reasons(
        &map,
        &facts,
        "replace n1 n4",
        &[(
            CheckKind::Quorum,
            Outcome::Blocks,
            "s0 is on n2 n3 n4 by its own log, which is not what the map says: another change is under way",
        )],
    );
}

#[test]
fn too_few_zones_are_told() {
    let map = cluster("a1/a a2/a b1/b c1/c", 4, 3);
    check_reasons(
        &map,
        &well(&map),
        "remove c1",
        &[(
            CheckKind::Zones,
            Outcome::Warns,
            "2 zones for 3 replicas: 4 shards have more than one in a zone, 0 had",
        )],
    );
}

#[test]
fn crowded_zones_are_left_before_nodes_are_relieved() {
    // Of the third zone's nodes one turns out to stand in the first.
    let map = cluster("a1/a a2/a b1/b b2/b c1/c c2/c d1/d d2/d", 64, 3);
    let plan = planned(&map, &well(&map), "rezone c1 a");
    assert!(plan.checks.iter().all(|check| check.outcome == Outcome::Ok), "{:?}", plan.checks);
    let in_a = |node: &NodeId| [1, 2, 5].contains(&node.0);
    let leaves_a_crowd = |step: &Move| {
        let crowded = map.replica_set(step.shard).iter().filter(|node| in_a(node)).count() > 1;
        crowded && step.from.as_ref().is_some_and(in_a) && !step.to.as_ref().is_some_and(in_a)
    };
    let crowds = plan.moves.iter().take_while(|step| leaves_a_crowd(step)).count();
    assert!(crowds > 0 && crowds < plan.moves.len());
    assert!(!plan.moves[crowds..].iter().any(leaves_a_crowd));
}

#[test]
fn who_is_to_hold_nothing_gives_before_all_others() {
    let map = cluster("n1 n2 n3 n4 n5*3?", 64, 3);
    let plan = planned(&map, &well(&map), "replace n1 n5");
    let leaves = plan.moves.iter().take_while(|step| step.from == Some(NodeId(1))).count();
    assert_eq!((leaves, plan.moves.len() > 48), (48, true), "{:?}", plan.nodes);
}

#[test]
fn what_cannot_be_counted_on_is_dropped_first() {
    let map = cluster("n1 n2 n3 n4 n5", 1, 5);
    let mut facts = well(&map);
    let plan = planned(&map, &facts, "replicas 3");
    let (dropped, kept) = (plan.moves[1].from.unwrap(), plan.sets[0][0]);
    for node in [dropped, kept] {
        facts.nodes[usize::from(node.0) - 1].down = Some("gone".into());
    }
    let plan = planned(&map, &facts, "replicas 3");
    assert_eq!(plan.moves[0].from, Some(dropped));
    assert!(!plan.is_blocked(), "{:?}", plan.checks);
}

#[test]
fn requests_are_read_as_they_are_written() {
    let map = cluster("n1 n2 n3 n4?", 4, 3);
    for words in [
        "add n4",
        "remove n1 n2",
        "drain n1",
        "replace n2 n4",
        "reweight n1 4",
        "rezone n1 b",
        "rezone n1",
        "replicas 1",
        "replicas 3 n4",
    ] {
        assert_eq!(Request::parse(&map, words).unwrap().to_words(&map), words);
    }
    for words in
        ["", "fly n4", "add", "replace n1", "replace n1 n2 n3", "reweight n1 much", "rezone", "replicas many"]
    {
        assert_eq!(Request::parse(&map, words), Err(PlanError::NotUnderstood(words.into())));
    }
    assert_eq!(Request::parse(&map, "add n9"), Err(PlanError::UnknownNode("n9".into())));
    assert_eq!(Request::parse(&map, "remove n1 n1"), Err(PlanError::TooManyNames));
}

#[test]
fn what_cannot_be_is_refused_with_its_reason() {
    let map = cluster("n1 n2 n3 n4?", 4, 3);
    let refused = |words: &str| {
        try_plan(&map, &well(&map), &Request::parse(&map, words).unwrap()).unwrap_err().to_string()
    };
    assert_eq!(refused("add n1"), "n1 holds its share already; to change that share, reweight it");
    assert_eq!(
        refused("drain n4"),
        "n4 is a spare and holds nothing; to make it leave the cluster, remove it"
    );
    assert_eq!(
        refused("replace n4 n1"),
        "n4 is a spare and holds nothing; to make it leave the cluster, remove it"
    );
    assert_eq!(refused("replace n1 n2"), "n2 holds its share already; to change that share, reweight it");
    assert_eq!(
        refused("remove n1"),
        "3 replicas of a shard need as many nodes, and there are 2: add a spare first, replace a node by one, or have \
         fewer replicas"
    );
    assert_eq!(refused("replace n1 n1"), "a request names each node once, and 256 at most");
    assert!(refused("replicas 9").contains("1 to 7"));
    assert!(refused("reweight n1 101").contains("1 to 100"));
    assert!(refused("rezone n1 a/b").contains("no name"));
}

#[test]
fn others_take_over_what_lost_nodes_hold() {
    let map = cluster("n1/a n2/b n3/c n4/c?", 16, 3);
    let mut facts = well(&map);
    facts.nodes[2].down = Some("no answer".into());
    let plan = planned(&map, &facts, "lost n3 with n4");
    assert!(!plan.is_blocked(), "{:?}", plan.checks);
    assert_eq!(plan.nodes.iter().map(|node| node.replicas.1).collect::<Vec<_>>(), [16, 16, 0, 16]);
    let standing = |node, standing| NodeChange::Standing(NodeId(node), standing);
    assert_eq!(plan.changes, [standing(3, Standing::Spare), standing(4, Standing::Member)]);
    // A zone is lost, and the others have room for three of each.
    let map = cluster("n1/a n2/a n3/b n4/b n5/c n6/c", 16, 3);
    let mut facts = well(&map);
    for at in [4, 5] {
        facts.nodes[at].down = Some("no answer".into());
    }
    let one = planned(&map, &facts, "lost n5");
    assert!(one.is_blocked(), "n6 is to get what n5 has, and is down too");
    let both = planned(&map, &facts, "lost n5 n6");
    assert!(!both.is_blocked(), "{:?}", both.checks);
    assert_eq!((both.nodes[4].replicas.1, both.nodes[5].replicas.1), (0, 0));
    // And returns: what is nearest to the sets before is to be the end.
    let after = ClusterMap { shards: both.sets, ..map };
    let back = planned(&after, &well(&after), "add n5 n6");
    assert_eq!((back.copies(), back.is_blocked()), (16, false));
    assert_eq!(after.crowded().count(), 16, "two zones for three replicas");
    let after_that = ClusterMap { shards: back.sets, ..after.clone() };
    assert_eq!(after_that.crowded().count(), 0);
    assert!(after_that.shards.iter().all(|set| set.iter().any(|node| node.0 > 4)));
    assert_eq!(
        Request::parse(&after, "lost n1 with"),
        Ok(Request::Lost { nodes: vec![NodeId(1)], with: vec![] })
    );
    assert!(Request::parse(&after, "lost with n1").is_err());
}

#[test]
fn shares_are_made_even_after_a_job_that_ended_early() {
    let mut map = cluster("n1 n2 n3 n4", 16, 3);
    assert_eq!(planned(&map, &well(&map), "even").moves, []);
    // n4 has given up all that it had in favour of the others, and counts again.
    let plan = planned(&map, &well(&map), "drain n4");
    map.shards = plan.sets;
    let standings = [Standing::Member; 4];
    let plan = super::plan(&map, &standings, &well(&map), &Request::Even).unwrap();
    assert_eq!((plan.copies(), plan.nodes[3].replicas), (12, (0, 12)));
    // A spare that was to give up what it has can be asked to once more.
    let map = cluster("n1 n2 n3 n4", 16, 3);
    let standings = [Standing::Member, Standing::Member, Standing::Member, Standing::Spare];
    let drain = Request::parse(&map, "drain n4").unwrap();
    let plan = super::plan(&map, &standings, &well(&map), &drain).unwrap();
    assert_eq!((plan.copies(), plan.nodes[3].replicas), (12, (12, 0)));
}

#[test]
fn nodes_are_restarted_only_if_nobody_misses_them() {
    let map = cluster("n1 n2 n3", 4, 3);
    let plan = planned(&map, &well(&map), "roll");
    assert_eq!(plan.restarts(), [NodeId(1), NodeId(2), NodeId(3)]);
    assert_eq!((plan.moves.len(), plan.is_blocked()), (0, false), "{:?}", plan.checks);
    assert_eq!(plan.to_order(&map, 4, 0).restarts, plan.restarts());
    assert_eq!(planned(&map, &well(&map), "roll n3 n1").restarts(), [NodeId(3), NodeId(1)]);
    let blocks = |facts: &Facts, words: &str, expected: &str| {
        check_reasons(&map, facts, words, &[(CheckKind::Quorum, Outcome::Blocks, expected)]);
    };
    let mut facts = well(&map);
    facts.shards[2].ailing.push((NodeId(2), Ailment::Behind(20_000)));
    blocks(&facts, "roll n1", "s2 would have 1 of the 2 replicas that it needs while n1 restarts");
    let mut facts = well(&map);
    facts.shards[2].ailing.push((NodeId(2), Ailment::Mute));
    check_reasons(&map, &facts, "roll n2", &[]);
    // A place out of balance is nobody's concern now.
    let lopsided = cluster("n1 n2 n3 n4?", 4, 3);
    let standings = [Standing::Member; 4];
    let plan = super::plan(&lopsided, &standings, &well(&lopsided), &Request::parse(&map, "roll").unwrap());
    assert_eq!(plan.unwrap().moves, []);
    let one = cluster("n1", 1, 1);
    assert!(planned(&one, &well(&one), "roll").is_blocked());
}

#[test]
fn a_node_that_is_down_is_told_before_others_restart() {
    let map = cluster("n1 n2 n3 n4?", 1, 3);
    let mut facts = well(&map);
    facts.nodes[3].down = Some("connection refused".into());
    let told = "n4 is down: connection refused: start it first, or let others take over what it holds";
    check_reasons(&map, &facts, "roll n1", &[(CheckKind::Quorum, Outcome::Blocks, told)]);
}

#[test]
fn what_nodes_say_makes_the_facts() {
    let map = cluster("n1 n2 n3", 1, 3);
    let said = |leads: Option<u64>, decided: u64, config: u64, voters: &[u16]| {
        let voters = voters.iter().copied().map(NodeId).collect();
        let own = ShardSaid {
            shard: ShardId(0),
            leads,
            decided,
            bytes: decided,
            data_bytes: decided / 2,
            config,
            voters,
            mute: false,
        };
        Ok(NodeSaid { disk_free: Some(7), memory_free: None, shards: vec![own] })
    };
    let all = &[1, 2, 3];
    let down = || Err(String::from("no answer"));
    let facts = Facts::gather(&map, &[said(None, 9, 0, all), said(Some(3), 50, 0, all), down()], 40);
    let expected = ShardFacts {
        bytes: Some(50),
        data_bytes: Some(25),
        leader: Some(NodeId(2)),
        voters: vec![],
        ailing: vec![(NodeId(1), Ailment::Behind(41))],
    };
    assert_eq!(facts.shards, [expected]);
    assert_eq!(facts.nodes[2].down.as_deref(), Some("no answer"));
    // The newer of two leaders counts, and the newest set without one.
    let facts = Facts::gather(&map, &[said(Some(4), 9, 0, all), said(Some(3), 50, 0, all), down()], 40);
    assert_eq!((facts.shards[0].leader, facts.shards[0].bytes), (Some(NodeId(1)), Some(9)));
    let none = Ok(NodeSaid::default());
    let facts = Facts::gather(&map, &[said(None, 9, 0, all), said(None, 8, 2, &[1, 2, 4]), none], 40);
    assert_eq!(facts.shards[0].voters, [NodeId(1), NodeId(2), NodeId(4)]);
    assert_eq!(facts.shards[0].ailing, [(NodeId(3), Ailment::Absent)]);
}
