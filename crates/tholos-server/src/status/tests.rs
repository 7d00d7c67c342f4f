use super::*;

use tholos_cluster::{ClusterId, Incarnation, MetaCommand, Standing};
use tholos_paxos::Millis;

/// Three nodes of two shards.
pub(crate) fn map() -> ClusterMap {
    let row = |number: u16| NodeRow {
        id: NodeId(number),
        name: format!("n{number}"),
        zone: String::new(),
        weight: 1,
        incarnation: Incarnation(u64::from(number)),
        gateway: String::new(),
        cluster: String::new(),
        peer: String::new(),
        http: String::new(),
    };
    ClusterMap::genesis(ClusterId([7; 20]), (1..=3).map(row).collect(), 2, 3).unwrap()
}

fn founded() -> MetaState {
    MetaState::founded(map())
}

/// A node's report: for each of the two shards whether it leads, in which round, and its decided index.
fn report(name: &str, shards: [(bool, u64, u64); 2]) -> Result<NodeReport, String> {
    let shards = (0..)
        .zip(shards)
        .map(|(shard, (leads, round, decided))| ShardReport {
            shard,
            leads,
            round,
            decided,
            ballot: leads.then(|| format!("{round}.{name}")),
            followers: if leads { BTreeMap::from([(1, 4), (2, 4), (3, 4)]) } else { BTreeMap::new() },
            ..ShardReport::default()
        })
        .collect();
    Ok(NodeReport { name: name.to_owned(), shards, ..NodeReport::default() })
}

#[test]
fn all_up_and_led_is_healthy() {
    let answers = vec![
        report("n1", [(true, 1, 10), (false, 1, 7)]),
        report("n2", [(false, 1, 10), (true, 1, 9)]),
        report("n3", [(false, 1, 8), (false, 1, 9)]),
    ];
    let status = cluster_status(&founded(), &answers);
    assert_eq!(status.verdict, Verdict::Healthy);
    assert_eq!(status.nodes.iter().map(|node| node.leads).collect::<Vec<_>>(), [1, 1, 0]);
    assert_eq!(status.nodes.iter().map(|node| node.lag).collect::<Vec<_>>(), [Some(2), Some(0), Some(2)]);
}

#[test]
fn a_leader_without_room_degrades_and_its_shards_are_told() {
    let mut full = report("n2", [(false, 1, 10), (true, 1, 9)]).unwrap();
    full.disk_full = true;
    let answers = vec![
        report("n1", [(true, 1, 10), (false, 1, 9)]),
        Ok(full),
        report("n3", [(false, 1, 10), (false, 1, 9)]),
    ];
    let status = cluster_status(&founded(), &answers);
    assert_eq!((status.verdict, &status.full[..]), (Verdict::Degraded, &[1][..]));
    assert!(status.nodes[1].reason.as_ref().unwrap().starts_with("its log has no room"));
    assert_eq!(status.nodes[0].reason, None);
}

#[test]
fn a_mute_replica_degrades_and_tells_why() {
    let mut hurt = report("n2", [(false, 1, 10), (false, 1, 9)]).unwrap();
    let repair = Repair::Asks { answered: 1, needed: 2 };
    hurt.shards[1].mute = Some(mute_words(Some(Loss::Log), repair));
    let answers = vec![
        report("n1", [(true, 1, 10), (true, 1, 9)]),
        Ok(hurt),
        report("n3", [(false, 1, 10), (false, 2, 9)]),
    ];
    let status = cluster_status(&founded(), &answers);
    assert_eq!(status.verdict, Verdict::Degraded);
    let row = &status.nodes[1];
    let reason = row.reason.as_deref().unwrap();
    assert!(reason.starts_with("1 of its replicas vote nowhere (s1): records of its log"), "{reason}");
    assert!(reason.contains("1 of 2 other voters"), "{reason}");
    assert_eq!((row.state, &status.nodes[0].reason), (NodeState::Up, &None));
}

#[test]
fn a_wrong_clock_is_an_alarm_of_its_node() {
    let reason_for = |ahead: i64| {
        let mut answers = ["n1", "n2", "n3"].map(|name| report(name, [(name == "n1", 1, 10); 2])).to_vec();
        answers[1].as_mut().unwrap().clock_ahead_ms = Some(ahead);
        let status = cluster_status(&founded(), &answers);
        (status.verdict, status.nodes[1].reason.clone().unwrap_or_default())
    };
    assert_eq!(reason_for(499), (Verdict::Healthy, String::new()));
    let (verdict, reason) = reason_for(-61_234);
    assert_eq!(verdict, Verdict::Degraded);
    assert!(reason.starts_with("its clock is 61.2 s behind the median"), "{reason}");
    assert!(reason_for(500).1.contains("0.5 s ahead of the median"));
}

#[test]
fn states_that_differ_are_an_alarm_of_their_leader() {
    let mut leader = report("n1", [(true, 1, 10), (true, 1, 9)]).unwrap();
    leader.shards[1].differ = Some(9);
    let rest = ["n2", "n3"].map(|name| report(name, [(false, 1, 10), (false, 1, 9)]));
    let status = cluster_status(&founded(), &[vec![Ok(leader)], rest.to_vec()].concat());
    assert_eq!(status.verdict, Verdict::Degraded);
    let reason = status.nodes[0].reason.as_deref().unwrap();
    assert!(reason.starts_with("the replicas of s1 have different states at @9"), "{reason}");
}

#[test]
fn dead_node_stays_a_row_with_its_reason_and_lag() {
    let answers = vec![
        report("n1", [(true, 1, 10), (false, 1, 9)]),
        Err("connection refused 127.0.0.1:7102".to_owned()),
        report("n3", [(false, 1, 10), (true, 2, 9)]),
    ];
    let status = cluster_status(&founded(), &answers);
    assert_eq!(status.verdict, Verdict::Degraded);
    let dead = &status.nodes[1];
    assert_eq!((dead.state, dead.lag), (NodeState::Down, Some(6 + 5)));
    assert_eq!(dead.reason.as_deref(), Some("connection refused 127.0.0.1:7102"));
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["verdict"], "degraded");
    assert_eq!(json["nodes"][1]["state"], "down");
    assert_eq!(json["nodes"][0]["reason"], serde_json::Value::Null);
}

#[test]
fn shard_without_leader_is_unavailable_and_its_lag_unknown() {
    let answers = vec![
        report("n1", [(true, 1, 10), (false, 1, 9)]),
        Err("gone".to_owned()),
        report("n3", [(false, 1, 10), (false, 1, 9)]),
    ];
    let status = cluster_status(&founded(), &answers);
    assert_eq!((status.verdict, status.leaderless), (Verdict::Unavailable, vec![1]));
    assert_eq!(status.nodes[2].lag, None);
}

#[test]
fn newer_of_two_leaders_counts() {
    let answers = vec![
        report("n1", [(true, 1, 10), (true, 1, 9)]),
        report("n2", [(true, 2, 12), (false, 1, 9)]),
        report("n3", [(false, 2, 12), (false, 1, 9)]),
    ];
    let status = cluster_status(&founded(), &answers);
    assert_eq!(status.nodes.iter().map(|node| node.leads).collect::<Vec<_>>(), [1, 1, 0]);
}

#[test]
fn key_is_located_with_its_leader() {
    let answers = vec![
        report("n1", [(true, 1, 10), (false, 1, 9)]),
        report("n2", [(false, 1, 10), (true, 3, 9)]),
        report("n3", [(false, 1, 10), (false, 3, 9)]),
    ];
    // Slot 866 is in the lower of two shards, 12182 in the upper.
    let low = locate(&map(), &answers, b"hello");
    assert_eq!((low.slot, low.shard, low.leader.as_deref()), (866, 0, Some("n1")));
    let high = locate(&map(), &answers, b"foo");
    assert_eq!(
        (high.slot, high.shard, high.ballot.as_deref(), high.decided),
        (12182, 1, Some("3.n2"), Some(9))
    );
    assert_eq!((high.replicas.len(), high.zones.len()), (3, 3));
    let mut cut = answers;
    cut[0] = Err("connection refused".to_owned());
    let known = locate(&map(), &cut, b"foo").applied.iter().filter(|applied| applied.is_some()).count();
    assert_eq!(known, 2, "of who does not answer it is not known");
}

#[test]
fn a_spare_says_what_to_do_with_it_and_does_not_degrade() {
    let mut state = Some(founded());
    let row = NodeRow { name: "n4".into(), incarnation: Incarnation(4), ..map().nodes[0].clone() };
    MetaState::apply(&mut state, &MetaCommand::Join(row), Millis(1)).unwrap();
    let mut state = state.unwrap();
    let reports = |name| report(name, [(name == "n1", 1, 10), (name == "n1", 1, 9)]);
    let answers: Answers = ["n1", "n2", "n3", "n4"].map(reports).into();
    let status = cluster_status(&state, &answers);
    assert_eq!((status.verdict, status.nodes[3].state), (Verdict::Healthy, NodeState::Spare));
    assert_eq!(status.nodes[3].next.as_deref(), Some("tholos cluster plan add n4"));
    assert_eq!((status.nodes[0].state, &status.nodes[0].next), (NodeState::Up, &None));
    // Of one that does not answer, the first thing to know is that.
    let status = cluster_status(
        &state,
        &vec![answers[0].clone(), answers[1].clone(), answers[2].clone(), Err("gone".into())],
    );
    assert_eq!((status.verdict, status.nodes[3].state), (Verdict::Degraded, NodeState::Down));
    assert_eq!(status.nodes[3].next, None, "it is to be started first");
    for standing in [Standing::Draining, Standing::Spare] {
        state.standings[0] = standing;
        let row = &cluster_status(&state, &answers).nodes[0];
        let told = (row.state, row.next.as_deref());
        assert_eq!(told, (NodeState::Leaving, Some("tholos cluster plan even")), "it holds something");
    }
}

#[test]
fn an_old_directory_at_the_address_of_a_node_is_not_that_node() {
    let row = map().nodes[1].clone();
    let said = |incarnation| NodeReport { incarnation, ..NodeReport::default() }.of_row(&row);
    assert_eq!(said(Some(2)).map(|report| report.incarnation), Ok(Some(2)));
    assert_eq!(said(Some(99)), Err(OTHER_DIRECTORY.to_owned()));
    assert!(said(None).is_ok(), "an earlier release does not say");
}

#[test]
fn a_lost_directory_degrades_until_its_heir_has_what_it_held() {
    let mut state = Some(founded());
    let wiped = NodeRow { incarnation: Incarnation(99), ..map().nodes[1].clone() };
    MetaState::apply(&mut state, &MetaCommand::Rejoin(wiped), Millis(1)).unwrap();
    let state = state.unwrap();
    let reports = |name| report(name, [(name == "n1", 1, 10), (name == "n1", 1, 9)]);
    let answers = vec![reports("n1"), Err("it has no address".to_owned()), reports("n3"), reports("n2")];
    let status = cluster_status(&state, &answers);
    assert_eq!(status.verdict, Verdict::Degraded);
    let (lost, heir) = (&status.nodes[1], &status.nodes[3]);
    assert_eq!((lost.name.as_str(), lost.state, lost.replicas), ("n2.lost.2", NodeState::Down, 2));
    assert_eq!(lost.reason.as_deref(), Some("its directory is lost: n2 is to take over what it held"));
    assert_eq!((heir.name.as_str(), heir.state), ("n2", NodeState::Spare));
    assert_eq!(lost.next, heir.next);
    assert_eq!(heir.next.as_deref(), Some("tholos cluster plan add n2"));
}

#[test]
fn shards_with_too_few_replicas_degrade_and_are_told() {
    let answers = ["n1", "n2", "n3"].map(|name| report(name, [(name == "n1", 1, 10); 2])).to_vec();
    let mut state = founded();
    // As after a recovery.
    state.map.shards[1].truncate(1);
    let status = cluster_status(&state, &answers);
    let note = "1 shard has fewer than 3 replicas: tholos cluster plan add spares, or even";
    assert_eq!((status.verdict, status.notes), (Verdict::Degraded, vec![note.to_owned()]));
}

#[test]
fn replicas_that_share_a_zone_are_told_with_what_would_help() {
    let answers = || ["n1", "n2", "n3"].map(|name| report(name, [(name == "n1", 1, 10); 2])).to_vec();
    let mut state = founded();
    assert_eq!(cluster_status(&state, &answers()).notes, [""; 0]);
    for (row, zone) in state.map.nodes.iter_mut().zip(["a", "a", "b"]) {
        row.zone = zone.into();
    }
    let notes = cluster_status(&state, &answers()).notes;
    assert_eq!(notes, ["2 shards have more than one replica in a zone: 2 zones are up, and 3 are needed"]);
    let row = NodeRow {
        name: "n4".into(),
        zone: "c".into(),
        incarnation: Incarnation(4),
        ..map().nodes[0].clone()
    };
    let mut state = Some(state);
    MetaState::apply(&mut state, &MetaCommand::Join(row), Millis(0)).unwrap();
    let with_spare = [answers(), vec![report("n4", [(false, 1, 10); 2])]].concat();
    let notes = cluster_status(state.as_ref().unwrap(), &with_spare).notes;
    let all = "2 shards have more than one replica in a zone, and 3 zones are up: tholos cluster plan add spares, or even";
    assert_eq!(notes, [all]);
}
