//! The meta group's state machine: what each command does and refuses, and what holds whatever comes.

use proptest::prelude::*;
use tholos_cluster::{
    Cause, ClusterId, ClusterMap, Epoch, Incarnation, JobOrder, JobState, Level, MapError, MetaCommand,
    MetaState, Move, MoveStage, NodeChange, NodeId, NodeRow, Phase, PlanError, Refusal, Request,
    RestartStage, Standing, THROTTLE_BYTES_MIN,
};
use tholos_paxos::{Config, Millis, MoveId, ReplicaId, Serial};
use tholos_ring::ShardId;

const S0: ShardId = ShardId(0);
const NOW: Millis = Millis(1_000_000);

fn row(number: u16) -> NodeRow {
    NodeRow {
        id: NodeId(number),
        name: format!("n{number}"),
        zone: format!("z{}", number % 3),
        weight: 1,
        incarnation: Incarnation(u64::from(number) * 11),
        gateway: String::new(),
        cluster: String::new(),
        peer: format!("10.0.0.{number}:7101"),
        http: String::new(),
    }
}

fn founded(nodes: u16) -> Option<MetaState> {
    let rows = (1..=nodes).map(row).collect();
    let map = ClusterMap::genesis(ClusterId([1; 20]), rows, 4, 3).expect("as the test set it up");
    let mut state = None;
    assert_eq!(MetaState::apply(&mut state, &MetaCommand::Found(map), NOW), Ok(1));
    state
}

fn now(state: &Option<MetaState>) -> &MetaState {
    state.as_ref().expect("as the test set it up")
}

#[track_caller]
fn apply(state: &mut Option<MetaState>, command: &MetaCommand) -> u64 {
    MetaState::apply(state, command, NOW).expect("as the test set it up")
}

fn order(state: &Option<MetaState>, plan: u64, moves: &[Move]) -> JobOrder {
    JobOrder {
        plan,
        epoch: now(state).epoch(),
        title: "a test".into(),
        in_flight_max: 2,
        bytes_per_s: 0,
        replicas: 3,
        changes: Vec::new(),
        moves: moves.to_vec(),
        removes: Vec::new(),
        cause: Cause::Operator,
        restarts: Vec::new(),
    }
}

fn swap(shard: ShardId, from: u16, to: u16) -> Move {
    Move { shard, from: Some(NodeId(from)), to: Some(NodeId(to)) }
}

/// The configuration after the recorded one: `change` tells voters and learners by node.
fn next_config(state: &Option<MetaState>, group: ShardId, voters: &[u16], learners: &[u16]) -> Config {
    let last = now(state).config(group).expect("as the test set it up");
    let replica = |node: &u16| {
        last.replica_at(*node).or_else(|| last.next_replica_at(*node)).expect("as the test set it up")
    };
    let (voters, learners): (Vec<_>, Vec<_>) =
        (voters.iter().map(replica).collect(), learners.iter().map(replica).collect());
    let last_replica =
        voters.iter().chain(&learners).copied().max().expect("as the test set it up").max(last.last_replica);
    Config { number: last.number + 1, move_id: MoveId(last.number + 1), voters, learners, last_replica }
}

fn voters(state: &Option<MetaState>, group: ShardId) -> Vec<u16> {
    now(state).voters(group).map(|node| node.0).collect()
}

/// A replaced by n4 among the voters of `group`.
fn with_n4(state: &Option<MetaState>, group: ShardId, from: u16) -> Vec<u16> {
    voters(state, group).into_iter().filter(|node| *node != from).chain([4]).collect()
}

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

/// The row of a node whose directory was made anew.
fn wiped(number: u16, incarnation: u64) -> NodeRow {
    NodeRow { incarnation: Incarnation(incarnation), ..row(number) }
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

#[test]
fn a_move_is_ordered_and_recorded_when_the_shard_says_so() {
    let mut state = founded(3);
    apply(&mut state, &MetaCommand::Join(row(4)));
    let plan = order(&state, 7, &[swap(S0, 1, 4)]);
    assert_eq!(apply(&mut state, &MetaCommand::StartJob(plan.clone())), 1);
    assert_eq!(apply(&mut state, &MetaCommand::StartJob(plan)), 1, "the same plan is the same job");
    assert_eq!(now(&state).active_job().unwrap().due(), [0]);
    apply(&mut state, &MetaCommand::Order { job: 1, at: 0 });
    assert_eq!(now(&state).jobs[0].moves[0].stage, MoveStage::Ordered { number: 0 });
    assert!(now(&state).active_job().unwrap().due().is_empty());
    let learning = next_config(&state, S0, &voters(&state, S0), &[4]);
    let learns = MetaCommand::Record { group: S0, config: learning, bytes: 5 };
    apply(&mut state, &learns);
    assert_eq!(now(&state).jobs[0].moves[0].stage, MoveStage::Ordered { number: 0 }, "it learns");
    let switched = next_config(&state, S0, &with_n4(&state, S0, 1), &[]);
    let record = MetaCommand::Record { group: S0, config: switched, bytes: 70 };
    let epoch = apply(&mut state, &record);
    assert_eq!(now(&state).jobs[0].moves[0].stage, MoveStage::Recorded);
    assert_eq!((now(&state).jobs[0].state, now(&state).jobs[0].moved_bytes), (JobState::Done, 70));
    assert!(now(&state).map.replica_set(S0).contains(&NodeId(4)));
    assert!(now(&state).is_retired(S0, ReplicaId::new(1, Serial(0))));
    assert!(!now(&state).is_retired(S0, ReplicaId::new(2, Serial(0))));
    assert!(!now(&state).is_retired(S0, ReplicaId::new(1, Serial(9))), "it may come back as another");
    assert_eq!(apply(&mut state, &record), epoch, "told again, it changes nothing");
    assert_eq!(apply(&mut state, &learns), epoch, "nor does what is told late");
}

/// A replica that has lost its records got another id meanwhile (R20): the move is ordered again, for the set as it is now.
#[test]
fn a_set_in_which_only_ids_are_others_leaves_a_move_where_it_was() {
    let mut state = founded(3);
    apply(&mut state, &MetaCommand::Join(row(4)));
    let plan = order(&state, 7, &[swap(S0, 1, 4)]);
    apply(&mut state, &MetaCommand::StartJob(plan));
    apply(&mut state, &MetaCommand::Order { job: 1, at: 0 });
    let last = now(&state).config(S0).expect("it was founded").clone();
    let renewed = ReplicaId::new(2, Serial(2));
    let other = |replica: &ReplicaId| if replica.node() == 2 { renewed } else { *replica };
    let config =
        Config { number: 1, voters: last.voters.iter().map(other).collect(), last_replica: renewed, ..last };
    apply(&mut state, &MetaCommand::Record { group: S0, config, bytes: 0 });
    assert_eq!(now(&state).jobs[0].moves[0].stage, MoveStage::Ordered { number: 1 });
    assert!(now(&state).is_retired(S0, ReplicaId::new(2, Serial(0))));
    let config = next_config(&state, S0, &with_n4(&state, S0, 1), &[]);
    apply(&mut state, &MetaCommand::Record { group: S0, config, bytes: 0 });
    assert_eq!(now(&state).jobs[0].state, JobState::Done);
}

#[test]
fn a_cancelled_move_that_was_ordered_is_taken_back() {
    let mut state = founded(3);
    apply(&mut state, &MetaCommand::Join(row(4)));
    let plan = order(&state, 7, &[swap(S0, 1, 4), swap(ShardId(1), 1, 4)]);
    apply(&mut state, &MetaCommand::StartJob(plan));
    apply(&mut state, &MetaCommand::Order { job: 1, at: 0 });
    apply(&mut state, &MetaCommand::Cancel(1));
    let job = now(&state).jobs[0].clone();
    assert_eq!((job.state, job.moves[1].stage), (JobState::Cancelling, MoveStage::Cancelled));
    let fence = next_config(&state, S0, &voters(&state, S0), &[]);
    apply(&mut state, &MetaCommand::Record { group: S0, config: fence, bytes: 0 });
    let job = now(&state).jobs[0].clone();
    assert_eq!((job.state, job.moves[0].stage), (JobState::Cancelled, MoveStage::Cancelled));
}

/// Found by seed 1698 of the simulator: a spare was wiped, its row left with the next record, and the job that was to bring
/// something there never ended.
#[test]
fn a_lost_node_stays_while_a_move_is_to_go_there_and_leaves_with_the_job() {
    let mut state = founded(3);
    apply(&mut state, &MetaCommand::Join(row(4)));
    let plan = order(&state, 7, &[swap(S0, 1, 4), swap(ShardId(1), 1, 4)]);
    apply(&mut state, &MetaCommand::StartJob(plan));
    assert_eq!(apply(&mut state, &MetaCommand::Rejoin(wiped(4, 99))), 1004);
    for at in 0..2 {
        assert!(now(&state).is_gone(NodeId(4)));
        assert!(now(&state).map.node(NodeId(4)).is_some(), "before move {at}");
        apply(&mut state, &MetaCommand::Order { job: 1, at });
        // As its leader takes it back.
        let group = ShardId(at as u16);
        let fence = next_config(&state, group, &voters(&state, group), &[]);
        apply(&mut state, &MetaCommand::Record { group, config: fence, bytes: 0 });
        assert_eq!(now(&state).jobs[0].moves[at as usize].stage, MoveStage::Cancelled);
    }
    assert!(now(&state).jobs[0].state.is_finished());
    assert_eq!(now(&state).map.node(NodeId(4)), None);
    assert!(now(&state).departed.iter().any(|gone| gone.id == NodeId(4)));
}

#[test]
fn plans_that_do_not_fit_are_refused() {
    let mut state = founded(3);
    apply(&mut state, &MetaCommand::Join(row(4)));
    let check = |order: JobOrder, expected: Refusal| {
        let mut after = state.clone();
        assert_eq!(MetaState::apply(&mut after, &MetaCommand::StartJob(order), NOW), Err(expected));
        assert_eq!(after, state);
    };
    let good = order(&state, 7, &[swap(S0, 1, 4)]);
    let stale = Refusal::MapMoved { planned: Epoch(1), now: Epoch(2) };
    check(JobOrder { epoch: Epoch(1), ..good.clone() }, stale);
    check(JobOrder { in_flight_max: 0, ..good.clone() }, Refusal::BadJob);
    let slow = THROTTLE_BYTES_MIN - 1;
    check(JobOrder { bytes_per_s: slow, ..good.clone() }, Refusal::BadThrottle(slow));
    for bad in [swap(S0, 1, 2), swap(S0, 4, 1), swap(S0, 1, 9), swap(ShardId(5), 1, 4)] {
        check(JobOrder { moves: vec![bad], ..good.clone() }, Refusal::BadMove(bad));
    }
    let unknown = NodeChange::Weight(NodeId(9), 1);
    check(JobOrder { changes: vec![unknown], ..good.clone() }, Refusal::UnknownNode(NodeId(9)));
    let weight = NodeChange::Weight(NodeId(4), 0);
    check(
        JobOrder { changes: vec![weight], ..good.clone() },
        Refusal::Invalid(MapError::BadWeight("n4".into())),
    );
    let held = Refusal::StillHolds { node: NodeId(1), replicas: 4 };
    check(JobOrder { removes: vec![NodeId(1)], ..good }, held);
}

#[test]
fn the_meta_group_leaves_a_node_that_is_drained() {
    let mut state = founded(3);
    apply(&mut state, &MetaCommand::Join(row(4)));
    let all: Vec<Move> = (0..4).map(|shard| swap(ShardId(shard), 1, 4)).collect();
    let changes = vec![
        NodeChange::Standing(NodeId(4), Standing::Member),
        NodeChange::Standing(NodeId(1), Standing::Draining),
    ];
    let plan = JobOrder { changes, removes: vec![NodeId(1)], in_flight_max: 9, ..order(&state, 7, &all) };
    apply(&mut state, &MetaCommand::StartJob(plan));
    assert_eq!(now(&state).jobs[0].moves[4].what, swap(ShardId(4), 1, 4));
    for at in 0..5 {
        apply(&mut state, &MetaCommand::Order { job: 1, at });
        let group = ShardId(at as u16);
        let config = next_config(&state, group, &with_n4(&state, group, 1), &[]);
        apply(&mut state, &MetaCommand::Record { group, config, bytes: 0 });
    }
    assert_eq!(now(&state).jobs[0].state, JobState::Done);
    assert_eq!(now(&state).map.node(NodeId(1)), None, "it has left");
    assert_eq!(now(&state).departed[0].id, NodeId(1));
}

/// A job that the cluster started because n1 was down.
fn lost_n1(state: &Option<MetaState>) -> JobOrder {
    let changes = vec![
        NodeChange::Standing(NodeId(1), Standing::Spare),
        NodeChange::Standing(NodeId(4), Standing::Member),
    ];
    let moves = [swap(S0, 1, 4), swap(ShardId(1), 1, 4)];
    JobOrder { changes, in_flight_max: 1, cause: Cause::Lost(vec![NodeId(1)]), ..order(state, 8, &moves) }
}

#[test]
fn a_node_that_returns_ends_the_job_that_replaces_it() {
    let mut state = founded(3);
    apply(&mut state, &MetaCommand::Join(row(4)));
    let order = lost_n1(&state);
    apply(&mut state, &MetaCommand::StartJob(order));
    apply(&mut state, &MetaCommand::Order { job: 1, at: 0 });
    let config = next_config(&state, S0, &with_n4(&state, S0, 1), &[]);
    apply(&mut state, &MetaCommand::Record { group: S0, config, bytes: 0 });
    // Whom it does not replace may come and go.
    let before = state.clone();
    apply(&mut state, &MetaCommand::Returned(NodeId(2)));
    assert_eq!(state, before);
    apply(&mut state, &MetaCommand::Returned(NodeId(1)));
    let job = &now(&state).jobs[0];
    assert_eq!((job.state, job.count(MoveStage::Recorded), job.moves.len()), (JobState::Cancelled, 1, 3));
    assert_eq!(now(&state).standing(NodeId(1)), Some(Standing::Member));
    assert!(!now(&state).held, "it may be lost again");
}

#[test]
fn what_an_operator_cancels_does_not_begin_by_itself_again() {
    let mut state = founded(3);
    apply(&mut state, &MetaCommand::Join(row(4)));
    let again = |state: &Option<MetaState>| JobOrder { plan: 9, ..lost_n1(state) };
    let order = lost_n1(&state);
    apply(&mut state, &MetaCommand::StartJob(order));
    apply(&mut state, &MetaCommand::Cancel(1));
    assert!(now(&state).held);
    let refused = MetaState::apply(&mut state.clone(), &MetaCommand::StartJob(again(&state)), NOW);
    assert_eq!(refused, Err(Refusal::Held));
    let asked = JobOrder { cause: Cause::Operator, ..again(&state) };
    assert_eq!(apply(&mut state.clone(), &MetaCommand::StartJob(asked)), 2, "an operator may");
    apply(&mut state, &MetaCommand::Hold(false));
    let order = again(&state);
    assert_eq!(apply(&mut state, &MetaCommand::StartJob(order)), 2);
}

#[test]
fn a_job_that_started_by_itself_is_given_up_by_itself() {
    let mut state = founded(3);
    apply(&mut state, &MetaCommand::Join(row(4)));
    let order = lost_n1(&state);
    apply(&mut state, &MetaCommand::StartJob(order.clone()));
    apply(&mut state, &MetaCommand::Order { job: 1, at: 0 });
    apply(&mut state, &MetaCommand::GiveUp(1));
    assert_eq!((now(&state).jobs[0].state, now(&state).held), (JobState::Cancelling, false));
    assert_eq!(now(&state).standing(NodeId(1)), Some(Standing::Spare), "it is still lost");
    // An operator's is an operator's to end.
    let mut state = founded(3);
    apply(&mut state, &MetaCommand::Join(row(4)));
    apply(&mut state, &MetaCommand::StartJob(JobOrder { cause: Cause::Operator, ..order }));
    apply(&mut state, &MetaCommand::GiveUp(1));
    assert_eq!(now(&state).jobs[0].state, JobState::Running);
}

#[test]
fn nodes_restart_one_after_the_other() {
    let mut state = founded(3);
    let all = (1..=3).map(NodeId).collect();
    let order = JobOrder { restarts: all, ..order(&state, 7, &[]) };
    let unknown = JobOrder { restarts: vec![NodeId(9)], ..order.clone() };
    let refused = MetaState::apply(&mut state, &MetaCommand::StartJob(unknown), NOW);
    assert_eq!(refused, Err(Refusal::UnknownNode(NodeId(9))));
    apply(&mut state, &MetaCommand::StartJob(order));
    let restart = |at, boot| MetaCommand::OrderRestart { job: 1, at, boot };
    let record = |at| MetaCommand::RecordRestart { job: 1, at };
    let not_due = |at| Err(Refusal::NotDue { job: 1, at });
    for at in 0..3 {
        assert_eq!(MetaState::apply(&mut state, &record(at), NOW), not_due(at), "it is not ordered");
        apply(&mut state, &restart(at, 70));
        // Another leader may see another boot; the first order counts.
        apply(&mut state, &restart(at, 71));
        let stages = |state: &Option<MetaState>| now(state).jobs[0].restarts[at as usize].stage;
        assert_eq!(stages(&state), RestartStage::Ordered { boot: 70 });
        if at < 2 {
            assert_eq!(MetaState::apply(&mut state, &restart(at + 1, 70), NOW), not_due(at + 1));
        }
        apply(&mut state, &record(at));
        apply(&mut state, &record(at));
    }
    assert_eq!(now(&state).jobs[0].state, JobState::Done);
}

#[test]
fn a_cancelled_roll_restarts_nobody_else() {
    let mut state = founded(3);
    let order = JobOrder { restarts: vec![NodeId(1), NodeId(2)], ..order(&state, 7, &[]) };
    apply(&mut state, &MetaCommand::StartJob(order));
    apply(&mut state, &MetaCommand::Pause(1));
    let ordered = MetaState::apply(&mut state, &MetaCommand::OrderRestart { job: 1, at: 0, boot: 7 }, NOW);
    assert_eq!(ordered, Err(Refusal::NotDue { job: 1, at: 0 }));
    apply(&mut state, &MetaCommand::Cancel(1));
    assert_eq!(now(&state).jobs[0].state, JobState::Cancelled);
    assert!(!now(&state).held);
}

#[test]
fn a_job_is_throttled_while_it_runs() {
    let mut state = founded(3);
    apply(&mut state, &MetaCommand::Join(row(4)));
    let plan = JobOrder { bytes_per_s: 50_000_000, ..order(&state, 7, &[swap(S0, 1, 4)]) };
    apply(&mut state, &MetaCommand::StartJob(plan));
    let throttle = |state: &mut Option<MetaState>, job, bytes_per_s| {
        MetaState::apply(state, &MetaCommand::Throttle { job, bytes_per_s }, NOW)
    };
    for bytes_per_s in [THROTTLE_BYTES_MIN, 0] {
        let epoch = now(&state).epoch().0;
        assert_eq!(throttle(&mut state, 1, bytes_per_s), Ok(epoch + 1));
        assert_eq!(now(&state).jobs[0].bytes_per_s, bytes_per_s);
    }
    let slow = THROTTLE_BYTES_MIN - 1;
    assert_eq!(throttle(&mut state, 1, slow), Err(Refusal::BadThrottle(slow)));
    assert_eq!(throttle(&mut state, 2, 0), Err(Refusal::UnknownJob(2)));
    apply(&mut state, &MetaCommand::Cancel(1));
    assert_eq!(throttle(&mut state, 1, 0), Err(Refusal::Finished(1)));
}

#[test]
fn a_job_says_from_when_to_when_it_ran() {
    let mut state = founded(3);
    apply(&mut state, &MetaCommand::Join(row(4)));
    let plan = order(&state, 7, &[swap(S0, 1, 4)]);
    apply(&mut state, &MetaCommand::StartJob(plan));
    let times = |state: &Option<MetaState>| (now(state).jobs[0].started_at, now(state).jobs[0].ended_at);
    assert_eq!(times(&state), (NOW, Millis(0)));
    let end = NOW.plus(Millis(700));
    MetaState::apply(&mut state, &MetaCommand::Cancel(1), end).unwrap();
    assert_eq!(times(&state), (NOW, end));
}

/// Carries out a job at once.
fn carry_out(state: &mut Option<MetaState>, order: JobOrder) -> u64 {
    let job = apply(state, &MetaCommand::StartJob(JobOrder { in_flight_max: 9, ..order }));
    // The meta group's own among them.
    let moves: Vec<Move> =
        now(state).job(job).expect("as the test set it up").moves.iter().map(|step| step.what).collect();
    for (at, step) in (0..).zip(&moves) {
        apply(state, &MetaCommand::Order { job, at });
        let before: Vec<NodeId> = now(state).voters(step.shard).collect();
        let set: Vec<u16> =
            step.set_after(&before).expect("as the test set it up").iter().map(|node| node.0).collect();
        let config = next_config(state, step.shard, &set, &[]);
        apply(state, &MetaCommand::Record { group: step.shard, config, bytes: 0 });
    }
    assert_eq!(now(state).job(job).expect("as the test set it up").state, JobState::Done);
    job
}

#[test]
fn what_was_before_a_job_is_known_whatever_came_after() {
    let mut state = founded(3);
    let found = now(&state).clone();
    apply(&mut state, &MetaCommand::Join(row(4)));
    let joined = now(&state).clone();
    let n4 = NodeChange::Standing(NodeId(4), Standing::Member);
    let changes = vec![n4, NodeChange::Weight(NodeId(1), 7), NodeChange::Zone(NodeId(2), "q".into())];
    let first = order(&state, 1, &[swap(S0, 1, 4), swap(ShardId(1), 2, 4)]);
    assert_eq!(carry_out(&mut state, JobOrder { changes, ..first }), 1);
    let between = now(&state).clone();
    apply(&mut state, &MetaCommand::Join(row(5)));
    let second = order(&state, 2, &[swap(S0, 2, 5), swap(ShardId(2), 1, 5)]);
    let changes = vec![NodeChange::Weight(NodeId(1), 9), NodeChange::Standing(NodeId(5), Standing::Member)];
    let second = JobOrder { changes, replicas: 5, ..second };
    assert_eq!(carry_out(&mut state, second), 2);

    let before = |job| now(&state).before_job(job).unwrap();
    for (job, was) in [(1, &joined), (2, &between)] {
        let former = before(job);
        assert_eq!(
            (&former.map.shards, former.map.replicas),
            (&was.map.shards, was.map.replicas),
            "job {job}"
        );
        for (at, row) in was.map.nodes.iter().enumerate() {
            assert_eq!((&former.map.nodes[at], former.standings[at]), (row, was.standings[at]), "job {job}");
        }
        // Who has joined since held nothing.
        assert_eq!(former.standings.last(), Some(&Standing::Spare));
    }
    assert_eq!(before(1).map.shards, found.map.shards);
    let Request::Undo { job, former } = now(&state).request("undo 1").unwrap() else { panic!("undo") };
    assert_eq!((job, *former), (1, before(1)));
    assert!(matches!(now(&state).request("undo x"), Err(PlanError::NotUnderstood(_))));
    assert!(matches!(now(&state).request("undo 1 2"), Err(PlanError::NotUnderstood(_))));
    assert_eq!(now(&state).request("undo 3"), Err(PlanError::UnknownJob(3)));
    let third = order(&state, 3, &[swap(S0, 4, 1)]);
    apply(&mut state, &MetaCommand::StartJob(third));
    assert_eq!(now(&state).request("undo 1"), Err(PlanError::JobUnderWay(3)));
}

/// States and commands as earlier versions wrote them: a job of one move, cancelled.
#[test]
fn what_earlier_versions_wrote_is_read() {
    let mut state = founded(3);
    apply(&mut state, &MetaCommand::Join(row(4)));
    let plan = order(&state, 7, &[swap(S0, 1, 4)]);
    apply(&mut state, &MetaCommand::StartJob(plan.clone()));
    apply(&mut state, &MetaCommand::Cancel(1));
    let last = state.as_mut().unwrap().jobs.last_mut().unwrap();
    (last.started_at, last.ended_at, last.before) = (Millis(0), Millis(1), None);
    let state = now(&state);
    let mut bytes = state.encode();
    // That there are no recoveries; four numbers of the one job, and that what was before it is not known; then whether jobs
    // are held.
    assert_eq!(bytes.pop(), Some(0));
    let end = bytes.len();
    bytes.drain(end - 34..end - 1);
    bytes[0] = 2;
    assert_eq!(MetaState::decode(&bytes).as_ref(), Ok(state));
    assert_eq!(state.before_job(1), Err(PlanError::BeforeUnknown(1)));
    // The cause, the restarts, and whether jobs are held.
    assert_eq!(bytes.split_off(bytes.len() - 4), [0, 0, 0, 0]);
    bytes[0] = 1;
    assert_eq!(MetaState::decode(&bytes).as_ref(), Ok(state));
    bytes[0] = 6;
    assert_eq!(MetaState::decode(&bytes), Err(MapError::UnknownVersion { written: 6, reads: 5 }));

    let mut bytes = MetaCommand::StartJob(plan.clone()).encode();
    // Behind version, kind, plan, epoch, title and moves in flight.
    let at = 2 + 8 + 8 + 2 + plan.title.len() + 2;
    bytes.drain(at..at + 8);
    bytes[0] = 2;
    let plan = MetaCommand::StartJob(plan);
    assert_eq!(MetaCommand::decode(&bytes).as_ref(), Ok(&plan));
    assert_eq!(bytes.split_off(bytes.len() - 3), [0, 0, 0]);
    bytes[0] = 1;
    assert_eq!(MetaCommand::decode(&bytes), Ok(plan));
}

fn know(node: u16, level: u16) -> MetaCommand {
    MetaCommand::Know { node: NodeId(node), incarnation: row(node).incarnation, level: Level(level) }
}

#[track_caller]
fn refused(state: &mut Option<MetaState>, command: &MetaCommand, expected: &Refusal) {
    let before = state.clone();
    assert_eq!(MetaState::apply(state, command, Millis(0)).as_ref(), Err(expected));
    assert_eq!(*state, before);
}

#[test]
fn the_feature_level_rises_when_every_node_knows_it_and_never_falls() {
    let mut state = founded(3);
    let old = now(&state).encode();
    assert_eq!(old[0], 4, "an earlier release reads what says nothing of levels");
    apply(&mut state, &know(1, 2));
    apply(&mut state, &know(3, 3));
    assert_eq!(
        (now(&state).encode()[0], now(&state).level_of(NodeId(3)), now(&state).level),
        (5, Level(3), Level(1))
    );
    let names: Vec<&str> = now(&state).behind(Level(2)).map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["n2"]);
    let behind = |level, nodes: &[u16]| {
        let nodes = nodes.iter().copied().map(NodeId).collect();
        Refusal::NodesBehind { level: Level(level), nodes }
    };
    refused(&mut state, &MetaCommand::Raise(Level(2)), &behind(2, &[2]));
    // Put back to what it was before, it is as before.
    apply(&mut state, &know(3, 1));
    apply(&mut state, &know(1, 1));
    let back = MetaState { map: now(&state).map.clone(), ..MetaState::decode(&old).unwrap() };
    assert_eq!(*now(&state), back);
    for node in 1..=3 {
        apply(&mut state, &know(node, 2));
    }
    apply(&mut state, &MetaCommand::Raise(Level(2)));
    assert_eq!(now(&state).level, Level(2));
    let epoch = now(&state).epoch();
    apply(&mut state, &MetaCommand::Raise(Level(1)));
    apply(&mut state, &MetaCommand::Raise(Level(2)));
    assert_eq!(
        (now(&state).level, now(&state).epoch()),
        (Level(2), epoch),
        "it never falls, and once is enough"
    );
    let low = Refusal::LevelTooLow { node: NodeId(2), known: Level(1), level: Level(2) };
    refused(&mut state, &know(2, 1), &low);
    refused(&mut state, &MetaCommand::Raise(Level(3)), &behind(3, &[1, 2, 3]));
    let wrong = MetaCommand::Know { node: NodeId(2), incarnation: Incarnation(77), level: Level(3) };
    refused(&mut state, &wrong, &Refusal::UnknownNode(NodeId(2)));
    assert_eq!(MetaState::decode(&now(&state).encode()).as_ref(), Ok(now(&state)));
    // Who joins has said nothing yet, and holds the next one up; who has left does not.
    apply(&mut state, &MetaCommand::Join(row(4)));
    for node in 1..=3 {
        apply(&mut state, &know(node, 3));
    }
    refused(&mut state, &MetaCommand::Raise(Level(3)), &behind(3, &[4]));
    apply(&mut state, &MetaCommand::Remove(NodeId(4)));
    apply(&mut state, &MetaCommand::Raise(Level(3)));
    for command in [know(2, 9), MetaCommand::Raise(Level(7))] {
        assert_eq!(MetaCommand::decode(&command.encode()), Ok(command));
    }
}

/// What may be asked, about a small cluster.
fn commands() -> impl Strategy<Value = Vec<(u8, u16, u16, u16)>> {
    prop::collection::vec((0..17_u8, 0..6_u16, 0..7_u16, 0..7_u16), 1..40)
}

fn command_of(state: &Option<MetaState>, (kind, a, b, c): (u8, u16, u16, u16)) -> MetaCommand {
    let job = (now(state).last_job + 1).saturating_sub(u64::from(a % 3));
    match kind {
        0 => MetaCommand::Join(NodeRow { incarnation: Incarnation(u64::from(c)), ..row(b + 1) }),
        1 if a > 3 => MetaCommand::Rejoin(NodeRow { incarnation: Incarnation(u64::from(c)), ..row(b + 1) }),
        1 => MetaCommand::Readdress(NodeRow { http: format!("{c}"), ..row(b + 1) }),
        2 => {
            let moves = [(a, b, c), (a + 1, c, b)].map(|(shard, from, to)| Move {
                shard: ShardId(shard % 5),
                from: Some(NodeId(from)).filter(|node| node.0 > 0),
                to: Some(NodeId(to)).filter(|node| node.0 > 0),
            });
            let changes = vec![NodeChange::Standing(NodeId(c), Standing::Draining)];
            let order = order(state, u64::from(a * 64 + b * 8 + c), &moves[..usize::from(1 + a % 2)]);
            let cause =
                [Cause::Operator, Cause::Placement, Cause::Lost(vec![NodeId(c)])][usize::from(b % 3)].clone();
            let restarts = vec![NodeId(b); usize::from(c % 2)];
            let removes = vec![NodeId(c); usize::from(b % 2)];
            MetaCommand::StartJob(JobOrder { changes, removes, cause, restarts, ..order })
        }
        3 => MetaCommand::Order { job, at: u32::from(b) },
        4 => MetaCommand::Pause(job),
        5 => MetaCommand::Resume(job),
        6 => MetaCommand::Cancel(job),
        7 => MetaCommand::Remove(NodeId(b)),
        8 => MetaCommand::Hold(b % 2 == 0),
        9 => MetaCommand::Returned(NodeId(b)),
        10 => MetaCommand::OrderRestart { job, at: u32::from(b % 2), boot: u64::from(c) },
        11 => MetaCommand::RecordRestart { job, at: u32::from(b % 2) },
        13 => MetaCommand::GiveUp(job),
        14 if c < 2 => MetaCommand::Raise(Level(b)),
        14 => MetaCommand::Know { node: NodeId(b), incarnation: row(b).incarnation, level: Level(c) },
        12 => MetaCommand::Throttle { job, bytes_per_s: u64::from(b) * THROTTLE_BYTES_MIN / 2 },
        // The shard does what the move under way wants, or goes another way.
        _ => {
            let group = ShardId(a % 5);
            let mut set = voters(state, group);
            let under_way = now(state).active_job().and_then(|job| {
                job.moves.iter().find(|step| step.what.shard == group && step.is_under_way())
            });
            if let Some(step) = under_way.filter(|_| b > 0) {
                set.retain(|node| step.what.from != Some(NodeId(*node)));
                set.extend(step.what.to.map(|node| node.0).filter(|node| !set.contains(node)));
            }
            MetaCommand::Record { group, config: next_config(state, group, &set, &[]), bytes: u64::from(c) }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn whatever_comes_the_state_holds_its_invariants(commands in commands()) {
        let mut state = founded(4);
        for command in commands {
            let command = command_of(&state, command);
            prop_assert_eq!(MetaCommand::decode(&command.encode()), Ok(command.clone()));
            let before = now(&state).clone();
            let answer = MetaState::apply(&mut state, &command, NOW);
            let after = now(&state);
            prop_assert_eq!(after.check(), Ok(()));
            // E1
            let rose = after.epoch().0 - before.epoch().0;
            prop_assert_eq!(rose, u64::from(*after != before));
            prop_assert!(answer.is_ok() || rose == 0);
            // E3, E4
            prop_assert!(after.last_job >= before.last_job);
            let known = |node: &NodeRow| after.map.node(node.id).is_some() || after.departed.iter().any(|gone| gone.id == node.id);
            prop_assert!(before.map.nodes.iter().all(known));
            prop_assert!(before.configs.iter().zip(&after.configs).all(|(old, new)| new.number >= old.number));
            // E5
            if let Some(job) = after.active_job() {
                let mut shards: Vec<_> = job.moves.iter().filter(|step| step.is_under_way()).map(|step| step.what.shard).collect();
                prop_assert!(shards.len() <= usize::from(job.in_flight_max));
                shards.sort_unstable();
                prop_assert!(shards.windows(2).all(|pair| pair[0] != pair[1]));
            }
            prop_assert_eq!(MetaState::decode(&after.encode()), Ok(after.clone()));
            // E2
            if answer.is_ok() && !matches!(command, MetaCommand::Pause(_) | MetaCommand::Resume(_)) {
                let once = state.clone();
                MetaState::apply(&mut state, &command, NOW.plus(Millis(1))).unwrap();
                prop_assert_eq!(&state, &once);
            }
        }
    }

    #[test]
    fn damaged_bytes_are_an_error_and_never_a_panic(at in 0..4096_usize, change in 1..=255_u8) {
        let mut state = founded(4);
        let plan = order(&state, 7, &[swap(S0, voters(&state, S0)[0], (1..=4).find(|node| !voters(&state, S0).contains(node)).unwrap())]);
        apply(&mut state, &MetaCommand::StartJob(plan.clone()));
        let mut bytes = now(&state).encode();
        let at = at % bytes.len();
        prop_assert!(MetaState::decode(&bytes[..at]).is_err());
        bytes[at] ^= change;
        if let Ok(read) = MetaState::decode(&bytes) {
            prop_assert_eq!(read.encode(), bytes, "one state has one form");
        }
        let mut bytes = MetaCommand::StartJob(plan).encode();
        let at = at % bytes.len();
        prop_assert!(MetaCommand::decode(&bytes[..at]).is_err());
        bytes[at] ^= change;
        let _ = MetaCommand::decode(&bytes);
    }
}
