//! Jobs: who begins and ends them, restarts, throttles, and what was before.

use tholos_cluster::{
    Cause, JobOrder, JobState, MetaCommand, MetaState, Move, MoveStage, NodeChange, NodeId, PlanError,
    Refusal, Request, RestartStage, Standing, THROTTLE_BYTES_MIN,
};
use tholos_paxos::Millis;
use tholos_ring::ShardId;

use crate::support::{NOW, S0, apply, founded, next_config, now, order, row, swap, with_n4};

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
