//! Nodes are founded, join, are wiped and leave.

use std::sync::Arc;

use tholos_cluster::{
    ClusterId, ClusterMap, Epoch, Incarnation, JobOrder, JobState, MetaCommand, MetaState, Move, NodeChange,
    NodeId, NodeRow, Phase, Refusal, Standing,
};
use tholos_ring::ShardId;

use crate::support::{NOW, S0, apply, founded, next_config, now, order, row, swap, voters, wiped, with_n4};

#[test]
fn a_cluster_is_founded_once() {
    let mut state = None;
    assert_eq!(MetaState::apply(&mut state, &MetaCommand::Join(row(4)), NOW), Err(Refusal::NotFounded));
    let mut state = founded(3);
    assert_eq!((now(&state).epoch(), voters(&state, ShardId(4)).len()), (Epoch(1), 3));
    let before = state.clone();
    let other = ClusterMap::genesis(ClusterId([2; 20]), vec![row(9)], 1, 1).unwrap();
    assert_eq!(apply(&mut state, &MetaCommand::Found(other)), 1);
    assert_eq!(state, before);
}

#[test]
fn the_meta_group_has_one_three_or_five_voters() {
    let count = |nodes| voters(&founded(nodes), ShardId(4)).len();
    assert_eq!([3, 4, 5, 9].map(count), [3, 3, 5, 5]);
    let one = ClusterMap::genesis(ClusterId([1; 20]), vec![row(1), row(2)], 4, 1).unwrap();
    assert_eq!(MetaState::founded(one).voters(ShardId(4)).count(), 1);
}

#[test]
fn who_joins_is_a_spare_and_keeps_its_number() {
    let mut state = founded(3);
    assert_eq!(apply(&mut state, &MetaCommand::Join(row(4))), 4);
    assert_eq!(now(&state).epoch(), Epoch(2));
    assert_eq!((now(&state).standing(NodeId(4)), now(&state).holds(NodeId(4))), (Some(Standing::Spare), 0));
    // Asked again, it is told again.
    assert_eq!((apply(&mut state, &MetaCommand::Join(row(4))), now(&state).epoch()), (4, Epoch(2)));
    let wiped = NodeRow { incarnation: Incarnation(99), ..row(4) };
    let refused = MetaState::apply(&mut state, &MetaCommand::Join(wiped.clone()), NOW);
    assert_eq!(refused, Err(Refusal::NameTaken("n4".into())));
    apply(&mut state, &MetaCommand::Remove(NodeId(4)));
    assert_eq!(
        MetaState::apply(&mut state, &MetaCommand::Join(row(4)), NOW),
        Err(Refusal::HasLeft(NodeId(4)))
    );
    // n4 is not free any more as a number; as a name it is.
    assert_eq!(apply(&mut state, &MetaCommand::Join(wiped)), 1004);
    assert_eq!(now(&state).map.by_name("n4").unwrap().id, NodeId(1004));
    assert_eq!(apply(&mut state, &MetaCommand::Join(row(5))), 5);
}

#[test]
fn a_wiped_spare_takes_its_own_place() {
    let mut state = founded(3);
    apply(&mut state, &MetaCommand::Join(row(4)));
    assert_eq!(apply(&mut state, &MetaCommand::Rejoin(wiped(4, 99))), 1004);
    let names: Vec<&str> = now(&state).map.nodes.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["n1", "n2", "n3", "n4"], "who held nothing has left");
    assert_eq!(now(&state).departed[0].id, NodeId(4));
}

#[test]
fn a_wiped_node_is_a_new_one_and_the_old_one_leaves_when_it_is_replaced() {
    let mut state = founded(3);
    assert_eq!(apply(&mut state, &MetaCommand::Rejoin(wiped(2, 99))), 1002);
    let lost = now(&state).map.node(NodeId(2)).unwrap().clone();
    assert_eq!(
        (lost.name.as_str(), lost.peer.as_str(), lost.incarnation),
        ("n2.lost.2", "", Incarnation(22))
    );
    let standings = [NodeId(2), NodeId(1002)].map(|node| now(&state).standing(node).unwrap());
    assert_eq!(standings, [Standing::Lost, Standing::Spare]);
    let heirs = [2, 1002, 1].map(|node| now(&state).heir_of(NodeId(node)).map(|row| row.id));
    assert_eq!(heirs, [Some(NodeId(1002)), None, None]);
    assert_eq!(now(&state).holds(NodeId(1002)), 0, "it votes nowhere (R21)");
    // The old directory is given up: asked late or again, nothing comes of it.
    let before = state.clone();
    for command in [MetaCommand::Join(row(2)), MetaCommand::Rejoin(row(2))] {
        assert_eq!(MetaState::apply(&mut state, &command, NOW), Err(Refusal::HasLeft(NodeId(2))));
    }
    let readdressed = MetaState::apply(&mut state, &MetaCommand::Readdress(row(2)), NOW);
    assert_eq!(readdressed, Err(Refusal::UnknownNode(NodeId(2))));
    assert_eq!(apply(&mut state, &MetaCommand::Rejoin(wiped(2, 99))), 1002);
    assert_eq!(state, before);

    let changes = vec![NodeChange::Standing(NodeId(1002), Standing::Member)];
    let all: Vec<Move> = (0..4).map(|shard| swap(ShardId(shard), 2, 1002)).collect();
    let plan = JobOrder { changes, in_flight_max: 9, ..order(&state, 7, &all) };
    apply(&mut state, &MetaCommand::StartJob(plan));
    assert_eq!(now(&state).jobs[0].moves[4].what, swap(ShardId(4), 2, 1002), "the meta group follows");
    assert_eq!(now(&state).phase(NodeId(1002)), Some(Phase::Joining));
    for at in 0..5 {
        apply(&mut state, &MetaCommand::Order { job: 1, at });
        let group = ShardId(at as u16);
        let set: Vec<u16> =
            voters(&state, group).into_iter().map(|node| if node == 2 { 1002 } else { node }).collect();
        let config = next_config(&state, group, &set, &[]);
        apply(&mut state, &MetaCommand::Record { group, config, bytes: 0 });
    }
    assert_eq!(now(&state).map.node(NodeId(2)), None, "nobody had to remove it");
    assert_eq!(now(&state).departed[0].incarnation, Incarnation(22));
    assert_eq!(now(&state).phase(NodeId(1002)), Some(Phase::Settled));
}

#[test]
fn a_node_can_be_wiped_again_before_it_is_replaced() {
    let mut state = founded(3);
    apply(&mut state, &MetaCommand::Rejoin(wiped(2, 98)));
    let moves = [swap(S0, 2, 1002), swap(ShardId(1), 2, 1002)];
    let plan = JobOrder { in_flight_max: 1, ..order(&state, 7, &moves) };
    apply(&mut state, &MetaCommand::StartJob(plan));
    apply(&mut state, &MetaCommand::Order { job: 1, at: 0 });
    let set: Vec<u16> =
        voters(&state, S0).into_iter().map(|node| if node == 2 { 1002 } else { node }).collect();
    let config = next_config(&state, S0, &set, &[]);
    apply(&mut state, &MetaCommand::Record { group: S0, config, bytes: 0 });
    // It holds one replica by now, and the running job would give it another.
    assert_eq!(apply(&mut state, &MetaCommand::Rejoin(wiped(2, 99))), 2002);
    let names: Vec<&str> = now(&state).map.nodes.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["n1", "n2.lost.2", "n3", "n2.lost.1002", "n2"]);
    apply(&mut state, &MetaCommand::Cancel(1));
    assert_eq!(now(&state).jobs[0].state, JobState::Cancelled);
    assert_eq!(now(&state).map.nodes.len(), 5, "both still hold something");
}

#[test]
fn a_long_name_stays_a_name_when_it_is_lost() {
    let mut state = founded(3);
    let long = NodeRow { name: "x".repeat(64), ..row(9) };
    apply(&mut state, &MetaCommand::Join(long.clone()));
    let number = now(&state).map.by_name(&long.name).unwrap().id.0;
    let plan = order(&state, 7, &[swap(S0, 1, number)]);
    apply(&mut state, &MetaCommand::StartJob(plan));
    apply(&mut state, &MetaCommand::Rejoin(NodeRow { incarnation: Incarnation(9), ..long }));
    assert_eq!(now(&state).map.node(NodeId(number)).unwrap().name.len(), 64);
    assert_eq!(now(&state).check(), Ok(()));
}

#[test]
fn a_node_is_joining_until_it_has_what_it_is_to_get() {
    let mut state = founded(3);
    apply(&mut state, &MetaCommand::Join(row(4)));
    assert_eq!(now(&state).phase(NodeId(4)), Some(Phase::Spare));
    assert_eq!(now(&state).phase(NodeId(1)), Some(Phase::Settled));
    assert_eq!(now(&state).phase(NodeId(9)), None);
    let changes = vec![
        NodeChange::Standing(NodeId(4), Standing::Member),
        NodeChange::Standing(NodeId(1), Standing::Draining),
    ];
    let moves = [swap(S0, 1, 4), swap(ShardId(1), 1, 4), swap(ShardId(4), 1, 4)];
    let plan = JobOrder { changes, in_flight_max: 1, ..order(&state, 7, &moves) };
    apply(&mut state, &MetaCommand::StartJob(plan));
    for (at, group) in [(0, S0), (1, ShardId(1)), (2, ShardId(4))] {
        assert_eq!(now(&state).phase(NodeId(4)), Some(Phase::Joining));
        assert_eq!(now(&state).phase(NodeId(1)), Some(Phase::Leaving));
        apply(&mut state, &MetaCommand::Order { job: 1, at });
        let learning = next_config(&state, group, &voters(&state, group), &[4]);
        apply(&mut state, &MetaCommand::Record { group, config: learning, bytes: 0 });
        assert_eq!(now(&state).phase(NodeId(4)), Some(Phase::Joining), "what it learns it does not have");
        let config = next_config(&state, group, &with_n4(&state, group, 1), &[]);
        apply(&mut state, &MetaCommand::Record { group, config, bytes: 0 });
    }
    assert_eq!(now(&state).phase(NodeId(4)), Some(Phase::Settled));
    // As after a job that was to take all of it, and was cancelled.
    let changes = vec![NodeChange::Standing(NodeId(4), Standing::Spare)];
    let back = JobOrder { changes, in_flight_max: 1, ..order(&state, 8, &[swap(S0, 4, 1)]) };
    let job = apply(&mut state, &MetaCommand::StartJob(back));
    apply(&mut state, &MetaCommand::Cancel(job));
    assert_eq!(now(&state).active_job(), None);
    assert_eq!(now(&state).phase(NodeId(4)), Some(Phase::Leaving), "it holds something");
}

#[test]
fn a_node_that_holds_replicas_does_not_leave() {
    let mut state = founded(3);
    let refused = MetaState::apply(&mut state, &MetaCommand::Remove(NodeId(1)), NOW);
    assert_eq!(refused, Err(Refusal::StillHolds { node: NodeId(1), replicas: 5 }));
}

#[test]
fn addresses_change_and_nothing_else() {
    let mut state = founded(3);
    let moved = NodeRow { peer: "10.0.1.1:1".into(), weight: 7, zone: "q".into(), ..row(1) };
    assert_eq!(apply(&mut state, &MetaCommand::Readdress(moved.clone())), 2);
    assert_eq!(now(&state).map.nodes[0], NodeRow { peer: "10.0.1.1:1".into(), ..row(1) });
    let other = NodeRow { incarnation: Incarnation(1), ..moved };
    let refused = MetaState::apply(&mut state, &MetaCommand::Readdress(other), NOW);
    assert_eq!(refused, Err(Refusal::UnknownNode(NodeId(1))));
}

/// A state just founded, and one read back.
#[test]
fn groups_of_the_same_nodes_share_one_configuration() {
    let founded = founded(3);
    let read = MetaState::decode(&now(&founded).encode()).expect("it was written here");
    for state in [now(&founded), &read] {
        let configs = &state.configs;
        let pairs = || configs.iter().flat_map(|one| configs.iter().map(move |other| (one, other)));
        assert!(pairs().all(|(one, other)| (one == other) == Arc::ptr_eq(one, other)));
        assert!(pairs().filter(|(one, other)| one == other).count() > configs.len(), "some are the same");
    }
}
