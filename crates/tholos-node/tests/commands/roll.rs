//! Nodes that restart one after the other.

use tholos_cluster::{Cause, JobOrder, JobState, MetaCommand, MetaState, NodeId, RestartStage};
use tholos_node::{Event, PeerMessage, Port};

use crate::support::{Cluster, flat};

fn state(cluster: &Cluster) -> &MetaState {
    let states = cluster.nodes.iter().map(|node| node.meta_state());
    states.max_by_key(|state| state.epoch()).expect("there are nodes")
}

/// Three nodes, of which the job restarts some.
fn roll(nodes: &[u16]) -> Cluster {
    let mut cluster = Cluster::start(3, 3, |_| {});
    cluster.wait_for_leaders();
    let order = JobOrder {
        plan: 1,
        epoch: cluster.nodes[0].meta_state().epoch(),
        title: "roll".into(),
        in_flight_max: 1,
        bytes_per_s: 0,
        replicas: 3,
        changes: Vec::new(),
        moves: Vec::new(),
        removes: Vec::new(),
        cause: Cause::Operator,
        restarts: nodes.iter().copied().map(NodeId).collect(),
    };
    assert_eq!(cluster.ask_meta(1, MetaCommand::StartJob(order)), Ok(1));
    cluster
}

fn waits(cluster: &Cluster) -> Option<String> {
    cluster.nodes.iter().find_map(|node| node.restart_waits()).map(String::from)
}

#[test]
fn each_node_restarts_once_and_the_next_waits_for_it() {
    let mut cluster = roll(&[1, 2, 3]);
    let client = cluster.connect(0, Port::Gateway);
    assert_eq!(flat(&cluster.ask(client, &["SET k v"])), "+OK");
    let mut restarted = Vec::new();
    // Since when the restarts before are recorded.
    let mut back_since = None;
    for _ in 0..400 {
        let recorded =
            state(&cluster).jobs[0].restarts.iter().filter(|restart| restart.is_finished()).count();
        if back_since.is_none_or(|(count, _)| count != recorded) {
            back_since = Some((recorded, cluster.now().mono.0));
        }
        cluster.advance(50);
        let told = std::mem::take(&mut cluster.to_restart);
        assert!(told.len() <= 1, "one at a time: {told:?}");
        for at in told {
            let recorded =
                state(&cluster).jobs[0].restarts.iter().filter(|restart| restart.is_finished()).count();
            assert_eq!(recorded, restarted.len(), "the one before is back");
            let calm = back_since.map_or(0, |(_, since)| cluster.now().mono.0 - since);
            assert!(
                recorded == 0 || calm >= 2_000,
                "n{} goes {calm} ms after the one before is back",
                at + 1
            );
            cluster.restart_in_order(at);
            restarted.push(at);
        }
        if state(&cluster).jobs[0].state == JobState::Done {
            break;
        }
    }
    assert_eq!((state(&cluster).jobs[0].state, restarted), (JobState::Done, vec![0, 1, 2]));
    let client = cluster.connect(1, Port::Gateway);
    assert_eq!(flat(&cluster.ask(client, &["GET k"])), "$1 v");
}

#[test]
fn nobody_restarts_while_another_is_missing() {
    let mut cluster = roll(&[1, 2]);
    // Before the first survey is over.
    cluster.cut(2);
    cluster.to_restart.clear();
    cluster.advance(3000);
    assert_eq!(cluster.to_restart, []);
    let why = waits(&cluster);
    assert!(why.as_ref().is_some_and(|why| why.starts_with("n3 is down")), "{why:?}");
    cluster.mend();
    cluster.advance(2000);
    assert_eq!(cluster.to_restart, [0]);
}

#[test]
fn who_is_back_and_does_not_say_how_it_is_is_waited_for() {
    let mut cluster = roll(&[1, 2]);
    for _ in 0..100 {
        cluster.advance(50);
        if !cluster.to_restart.is_empty() {
            break;
        }
    }
    cluster.lost_between = |from, _, message| from == 0 && matches!(message, PeerMessage::Facts(_));
    cluster.restart_in_order(0);
    cluster.advance(5000);
    assert!(matches!(state(&cluster).jobs[0].restarts[0].stage, RestartStage::Ordered { .. }));
    assert_eq!(waits(&cluster).as_deref(), Some("n1: it does not answer"));
    cluster.lost_between = |_, _, _| false;
    cluster.advance(3000);
    assert_eq!(state(&cluster).jobs[0].restarts[0].stage, RestartStage::Recorded);
}

#[test]
fn who_does_not_come_back_stops_it() {
    let mut cluster = roll(&[2, 3]);
    for _ in 0..100 {
        cluster.advance(50);
        if !cluster.to_restart.is_empty() {
            break;
        }
    }
    assert_eq!(cluster.to_restart, [1]);
    cluster.cut(1);
    cluster.advance(125_000);
    let job = &state(&cluster).jobs[0];
    assert_eq!((job.state, job.restarts[1].stage), (JobState::Paused, RestartStage::Waiting));
    let why = waits(&cluster);
    assert!(
        why.as_ref().is_some_and(|why| why.starts_with("n2 has not come back for 120 s: the job is paused")),
        "{why:?}"
    );
    assert_eq!(cluster.to_restart, [1], "and n3 was not touched");
    cluster.mend();
    cluster.restart(1);
    cluster.to_restart.clear();
    assert!(cluster.ask_meta(0, MetaCommand::Resume(1)).is_ok());
    cluster.advance(3000);
    assert_eq!(cluster.to_restart, [2]);
    assert_eq!(waits(&cluster).as_deref(), Some("n3 has not come back"));
}

#[test]
fn an_order_for_another_boot_does_nothing() {
    let mut cluster = Cluster::start(3, 3, |_| {});
    cluster.wait_for_leaders();
    let order = |boot| Event::Peer { from: NodeId(2), message: PeerMessage::Restart { boot } };
    cluster.handle(0, order(99));
    assert_eq!(cluster.to_restart, []);
    // Its first boot has the number of the node.
    for _ in 0..2 {
        cluster.handle(0, order(1));
    }
    assert_eq!(cluster.to_restart, [0]);
}
