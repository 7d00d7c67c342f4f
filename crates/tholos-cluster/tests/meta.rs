//! The meta group's state machine: what each command does and refuses, and what holds whatever comes.

use proptest::prelude::*;
use tholos_cluster::{
    Cause, ClusterId, ClusterMap, Epoch, Incarnation, JobOrder, JobState, MapError, MetaCommand, MetaState,
    Move, MoveStage, NodeChange, NodeId, NodeRow, Refusal, RestartStage, Standing,
};
use tholos_paxos::{Config, ReplicaId, Serial};
use tholos_ring::ShardId;

const S0: ShardId = ShardId(0);

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
    assert_eq!(MetaState::apply(&mut state, &MetaCommand::Found(map)), Ok(1));
    state
}

fn now(state: &Option<MetaState>) -> &MetaState {
    state.as_ref().expect("as the test set it up")
}

#[track_caller]
fn apply(state: &mut Option<MetaState>, command: &MetaCommand) -> u64 {
    MetaState::apply(state, command).expect("as the test set it up")
}

fn order(state: &Option<MetaState>, plan: u64, moves: &[Move]) -> JobOrder {
    JobOrder {
        plan,
        epoch: now(state).epoch(),
        title: "a test".into(),
        in_flight_max: 2,
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
    Config { number: last.number + 1, move_id: last.move_id, voters, learners, last_replica }
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
    assert_eq!(MetaState::apply(&mut state, &MetaCommand::Join(row(4))), Err(Refusal::NotFounded));
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
    let refused = MetaState::apply(&mut state, &MetaCommand::Join(wiped.clone()));
    assert_eq!(refused, Err(Refusal::NameTaken("n4".into())));
    apply(&mut state, &MetaCommand::Remove(NodeId(4)));
    assert_eq!(MetaState::apply(&mut state, &MetaCommand::Join(row(4))), Err(Refusal::HasLeft(NodeId(4))));
    // n4 is not free any more as a number; as a name it is.
    assert_eq!(apply(&mut state, &MetaCommand::Join(wiped)), 5);
    assert_eq!(now(&state).map.by_name("n4").unwrap().id, NodeId(5));
}

#[test]
fn a_node_that_holds_replicas_does_not_leave() {
    let mut state = founded(3);
    let refused = MetaState::apply(&mut state, &MetaCommand::Remove(NodeId(1)));
    assert_eq!(refused, Err(Refusal::StillHolds { node: NodeId(1), replicas: 5 }));
}

#[test]
fn addresses_change_and_nothing_else() {
    let mut state = founded(3);
    let moved = NodeRow { peer: "10.0.1.1:1".into(), weight: 7, zone: "q".into(), ..row(1) };
    assert_eq!(apply(&mut state, &MetaCommand::Readdress(moved.clone())), 2);
    assert_eq!(now(&state).map.nodes[0], NodeRow { peer: "10.0.1.1:1".into(), ..row(1) });
    let other = NodeRow { incarnation: Incarnation(1), ..moved };
    let refused = MetaState::apply(&mut state, &MetaCommand::Readdress(other));
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
    let learns = MetaCommand::Record { group: S0, config: learning };
    apply(&mut state, &learns);
    assert_eq!(now(&state).jobs[0].moves[0].stage, MoveStage::Ordered { number: 0 }, "it learns");
    let switched = next_config(&state, S0, &with_n4(&state, S0, 1), &[]);
    let record = MetaCommand::Record { group: S0, config: switched };
    let epoch = apply(&mut state, &record);
    assert_eq!(now(&state).jobs[0].moves[0].stage, MoveStage::Recorded);
    assert_eq!(now(&state).jobs[0].state, JobState::Done);
    assert!(now(&state).map.replica_set(S0).contains(&NodeId(4)));
    assert!(now(&state).is_retired(S0, ReplicaId::new(1, Serial(0))));
    assert!(!now(&state).is_retired(S0, ReplicaId::new(2, Serial(0))));
    assert!(!now(&state).is_retired(S0, ReplicaId::new(1, Serial(9))), "it may come back as another");
    assert_eq!(apply(&mut state, &record), epoch, "told again, it changes nothing");
    assert_eq!(apply(&mut state, &learns), epoch, "nor does what is told late");
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
    apply(&mut state, &MetaCommand::Record { group: S0, config: fence });
    let job = now(&state).jobs[0].clone();
    assert_eq!((job.state, job.moves[0].stage), (JobState::Cancelled, MoveStage::Cancelled));
}

#[test]
fn plans_that_do_not_fit_are_refused() {
    let mut state = founded(3);
    apply(&mut state, &MetaCommand::Join(row(4)));
    let check = |order: JobOrder, expected: Refusal| {
        let mut after = state.clone();
        assert_eq!(MetaState::apply(&mut after, &MetaCommand::StartJob(order)), Err(expected));
        assert_eq!(after, state);
    };
    let good = order(&state, 7, &[swap(S0, 1, 4)]);
    let stale = Refusal::MapMoved { planned: Epoch(1), now: Epoch(2) };
    check(JobOrder { epoch: Epoch(1), ..good.clone() }, stale);
    check(JobOrder { in_flight_max: 0, ..good.clone() }, Refusal::BadJob);
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
        apply(&mut state, &MetaCommand::Record { group, config });
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
    apply(&mut state, &MetaCommand::Record { group: S0, config });
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
    let refused = MetaState::apply(&mut state.clone(), &MetaCommand::StartJob(again(&state)));
    assert_eq!(refused, Err(Refusal::Held));
    let asked = JobOrder { cause: Cause::Operator, ..again(&state) };
    assert_eq!(apply(&mut state.clone(), &MetaCommand::StartJob(asked)), 2, "an operator may");
    apply(&mut state, &MetaCommand::Hold(false));
    let order = again(&state);
    assert_eq!(apply(&mut state, &MetaCommand::StartJob(order)), 2);
}

#[test]
fn nodes_restart_one_after_the_other() {
    let mut state = founded(3);
    let all = (1..=3).map(NodeId).collect();
    let order = JobOrder { restarts: all, ..order(&state, 7, &[]) };
    let unknown = JobOrder { restarts: vec![NodeId(9)], ..order.clone() };
    let refused = MetaState::apply(&mut state, &MetaCommand::StartJob(unknown));
    assert_eq!(refused, Err(Refusal::UnknownNode(NodeId(9))));
    apply(&mut state, &MetaCommand::StartJob(order));
    let restart = |at, boot| MetaCommand::OrderRestart { job: 1, at, boot };
    let record = |at| MetaCommand::RecordRestart { job: 1, at };
    let not_due = |at| Err(Refusal::NotDue { job: 1, at });
    for at in 0..3 {
        assert_eq!(MetaState::apply(&mut state, &record(at)), not_due(at), "it is not ordered");
        apply(&mut state, &restart(at, 70));
        // Another leader may see another boot; the first order counts.
        apply(&mut state, &restart(at, 71));
        let stages = |state: &Option<MetaState>| now(state).jobs[0].restarts[at as usize].stage;
        assert_eq!(stages(&state), RestartStage::Ordered { boot: 70 });
        if at < 2 {
            assert_eq!(MetaState::apply(&mut state, &restart(at + 1, 70)), not_due(at + 1));
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
    let ordered = MetaState::apply(&mut state, &MetaCommand::OrderRestart { job: 1, at: 0, boot: 7 });
    assert_eq!(ordered, Err(Refusal::NotDue { job: 1, at: 0 }));
    apply(&mut state, &MetaCommand::Cancel(1));
    assert_eq!(now(&state).jobs[0].state, JobState::Cancelled);
    assert!(!now(&state).held);
}

#[test]
fn a_state_of_the_first_version_is_read() {
    let mut state = founded(3);
    apply(&mut state, &MetaCommand::Join(row(4)));
    let order = order(&state, 7, &[swap(S0, 1, 4)]);
    apply(&mut state, &MetaCommand::StartJob(order));
    // Without the cause, the restarts of the one job, and whether jobs are held: four bytes less.
    let mut bytes = now(&state).encode();
    assert_eq!(bytes.split_off(bytes.len() - 4), [0, 0, 0, 0]);
    bytes[0] = 1;
    assert_eq!(MetaState::decode(&bytes).as_ref(), Ok(now(&state)));
    bytes[0] = 3;
    assert_eq!(MetaState::decode(&bytes), Err(MapError::UnknownVersion { written: 3, reads: 2 }));
}

/// What may be asked, about a small cluster.
fn commands() -> impl Strategy<Value = Vec<(u8, u16, u16, u16)>> {
    prop::collection::vec((0..14_u8, 0..6_u16, 0..7_u16, 0..7_u16), 1..40)
}

fn command_of(state: &Option<MetaState>, (kind, a, b, c): (u8, u16, u16, u16)) -> MetaCommand {
    let job = (now(state).last_job + 1).saturating_sub(u64::from(a % 3));
    match kind {
        0 => MetaCommand::Join(NodeRow { incarnation: Incarnation(u64::from(c)), ..row(b + 1) }),
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
            MetaCommand::Record { group, config: next_config(state, group, &set, &[]) }
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
            let answer = MetaState::apply(&mut state, &command);
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
                MetaState::apply(&mut state, &command).unwrap();
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
