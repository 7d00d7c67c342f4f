//! Moves are ordered, recorded and taken back, and plans that do not fit are refused.

use tholos_cluster::{
    Epoch, JobOrder, JobState, MapError, MetaCommand, MetaState, Move, MoveStage, NodeChange, NodeId,
    Refusal, Standing, THROTTLE_BYTES_MIN,
};
use tholos_paxos::{Config, ReplicaId, Serial};
use tholos_ring::ShardId;

use crate::support::{NOW, S0, apply, founded, next_config, now, order, row, swap, voters, wiped, with_n4};

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

/// Found by seed 362758 of the simulator: a shard had a spare among its voters already, and the map did not know it yet, when
/// the spare was wiped. Its row left, so that no set with it could be recorded any more; the job, cancelled, never ended.
#[test]
fn what_a_lost_node_has_got_meanwhile_is_recorded_and_replaced() {
    let mut state = founded(3);
    apply(&mut state, &MetaCommand::Join(row(4)));
    let plan = order(&state, 7, &[swap(S0, 1, 4)]);
    apply(&mut state, &MetaCommand::StartJob(plan));
    apply(&mut state, &MetaCommand::Order { job: 1, at: 0 });
    let made = next_config(&state, S0, &with_n4(&state, S0, 1), &[]);
    assert_eq!(apply(&mut state, &MetaCommand::Rejoin(wiped(4, 99))), 1004);
    apply(&mut state, &MetaCommand::Cancel(1));
    apply(&mut state, &MetaCommand::Record { group: S0, config: made, bytes: 0 });
    let job = now(&state).jobs[0].clone();
    assert_eq!((job.state, job.moves[0].stage), (JobState::Cancelled, MoveStage::Recorded));
    // It stays until another has its place.
    assert_eq!(now(&state).standing(NodeId(4)), Some(Standing::Lost));
    let plan = order(&state, 8, &[swap(S0, 4, 1004)]);
    apply(&mut state, &MetaCommand::StartJob(plan));
    apply(&mut state, &MetaCommand::Order { job: 2, at: 0 });
    let set: Vec<u16> = voters(&state, S0).into_iter().filter(|node| *node != 4).chain([1004]).collect();
    let healed = next_config(&state, S0, &set, &[]);
    apply(&mut state, &MetaCommand::Record { group: S0, config: healed, bytes: 0 });
    assert_eq!((now(&state).jobs[1].state, now(&state).map.node(NodeId(4))), (JobState::Done, None));
}

/// Found by seed 341240 of the simulator: a spare and a lost node were both to leave the meta group. The spare's turn came
/// first, and the set that would have been left, a voter and the lost one, could decide nothing: its leader refused for ever.
#[test]
fn the_lost_leave_the_meta_group_before_those_who_still_vote() {
    let meta = ShardId(4);
    let mut state = founded(3);
    apply(&mut state, &MetaCommand::Join(row(4)));
    // n4 votes in the meta group, though it is a spare.
    let plan = order(&state, 7, &[swap(meta, 1, 4)]);
    apply(&mut state, &MetaCommand::StartJob(plan));
    apply(&mut state, &MetaCommand::Order { job: 1, at: 0 });
    let made = next_config(&state, meta, &[4, 2, 3], &[]);
    apply(&mut state, &MetaCommand::Record { group: meta, config: made, bytes: 0 });
    assert_eq!(apply(&mut state, &MetaCommand::Rejoin(wiped(3, 99))), 1003);
    let plan = order(&state, 8, &[swap(S0, 3, 1003)]);
    apply(&mut state, &MetaCommand::StartJob(plan));
    let moves: Vec<Move> = now(&state).jobs[1].moves.iter().map(|step| step.what).collect();
    let leaves = |from| Move { shard: meta, from: Some(NodeId(from)), to: None };
    assert_eq!(moves[1..], [leaves(3), leaves(4)]);
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
