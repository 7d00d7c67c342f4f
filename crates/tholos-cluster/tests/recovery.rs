//! Recoveries from the loss of a majority (R29): how they are planned, and what the meta group makes of them.

use tholos_cluster::{
    Cause, ClusterId, ClusterMap, Departed, Epoch, Incarnation, Inventory, JobOrder, JobState, MapError,
    MetaCommand, MetaState, Move, NodeChange, NodeId, NodeRow, RECOVERIES_MAX, RecoverOrder, RecoveryBlock,
    RecoveryError, RecoveryPlan, RecoveryRequest, Refusal, RescueAsk, RescueStage, Standing, plan_recovery,
    recovery_number,
};
use tholos_paxos::{Ballot, Config, Index, Millis, MoveId, ReplicaId, Serial, Survivor};
use tholos_ring::ShardId;

const META: ShardId = ShardId(4);
const NOW: Millis = Millis(1_700_000_000_000);

fn row(number: u16) -> NodeRow {
    NodeRow {
        id: NodeId(number),
        name: format!("n{number}"),
        zone: String::new(),
        weight: 1,
        incarnation: Incarnation(u64::from(number) * 11),
        gateway: String::new(),
        cluster: String::new(),
        peer: format!("10.0.0.{number}:7101"),
        http: String::new(),
    }
}

/// Four shards of three replicas.
fn founded(nodes: u16) -> MetaState {
    let rows = (1..=nodes).map(row).collect();
    MetaState::founded(ClusterMap::genesis(ClusterId([1; 20]), rows, 4, 3).expect("as the test set it up"))
}

/// A replica whose log is accepted in 2.n1 to `length`, and known to be decided to `decided`.
fn survivor(state: &MetaState, group: ShardId, node: u16, decided: u64, length: u64) -> Survivor {
    let ballot = Ballot { round: 2, replica: ReplicaId(1) };
    Survivor {
        replica: ReplicaId(u32::from(node)),
        promised: ballot,
        accepted: ballot,
        length: Index(length),
        decided: Index(decided),
        origins: vec![(Index(decided), ballot)],
        configs: vec![(Index(0), state.config(group).expect("as the test set it up").clone())],
        mute: false,
    }
}

/// What a node says that holds what the map says, each group decided to @5 and accepted to @7.
fn says(state: &MetaState, node: u16) -> Result<Inventory, String> {
    let groups = (0..=META.0).map(ShardId).filter(|group| state.voters(*group).any(|voter| voter.0 == node));
    Ok(Inventory {
        epoch: state.epoch(),
        hears: vec![NodeId(node)],
        replicas: groups.map(|group| (group, survivor(state, group, node, 5, 7))).collect(),
        next: None,
    })
}

fn request(lost: &[u16]) -> RecoveryRequest {
    RecoveryRequest { lost: lost.iter().copied().map(NodeId).collect(), groups: Vec::new() }
}

/// The nodes that are not lost answer.
fn planned(state: &MetaState, lost: &[u16]) -> RecoveryPlan {
    let answer = |row: &NodeRow| {
        if lost.contains(&row.id.0) { Err("connection refused".to_owned()) } else { says(state, row.id.0) }
    };
    plan_recovery(state, &state.map.nodes.iter().map(answer).collect::<Vec<_>>(), &request(lost))
}

fn order(state: &MetaState, lost: &[u16]) -> RecoverOrder {
    let plan = planned(state, lost);
    assert_eq!(plan.blocks, []);
    plan.to_order("n1")
}

fn apply(state: &mut MetaState, command: &MetaCommand) -> Result<u64, Refusal> {
    let mut held = Some(state.clone());
    let answer = MetaState::apply(&mut held, command, NOW);
    *state = held.expect("it was there");
    assert_eq!(state.check(), Ok(()));
    assert_eq!(MetaState::decode(&state.encode()).as_ref(), Ok(&*state));
    let bytes = command.encode();
    assert_eq!(MetaCommand::decode(&bytes).as_ref(), Ok(command));
    answer
}

fn stages(state: &MetaState) -> Vec<RescueStage> {
    state.recoveries.last().expect("one was begun").stages.clone()
}

#[test]
fn a_plan_says_for_each_group_what_is_kept_and_what_may_be_lost() {
    let state = founded(3);
    let plan = planned(&state, &[2, 3]);
    assert_eq!(plan.rescues.iter().map(|rescue| rescue.group).collect::<Vec<_>>()[..2], [META, ShardId(0)]);
    assert_eq!(
        (plan.rescues.len(), plan.whole.len(), plan.hopeless.len(), plan.lose_nothing()),
        (5, 0, 0, 0)
    );
    assert_eq!(plan.rescues[1].marks(), (Index(5), Index(7)));
    assert_eq!(
        plan.rescues[1].to_words(&state.map),
        "goes on from n1, decided to @5 in 2.n1. @6 to @7, of which nobody left knows whether it was decided, is kept. \
         Whatever was decided after @7 without the survivors IS LOST, though clients were told that it was written; how \
         much that is, nobody left can tell."
    );
    let names: Vec<&str> = plan.lost.iter().map(|lost| lost.name.as_str()).collect();
    assert_eq!(names, ["n2", "n3"]);
    assert!(plan.rescues.iter().all(|rescue| {
        let config = &rescue.prospect.rescue.config;
        config.voters == [ReplicaId(1)] && config.move_id == RecoverOrder::move_id(plan.number())
    }));
    // The same in, the same out; and what the survivors have is in the name.
    assert_eq!(planned(&state, &[2, 3]), plan);
    let mut other = says(&state, 1).expect("it answers");
    other.replicas[0].1.length = Index(8);
    let other = plan_recovery(&state, &[Ok(other), Err("".into()), Err("".into())], &request(&[2, 3]));
    assert_ne!(other.id, plan.id);
    assert_eq!(recovery_number(plan.id, plan.epoch), plan.number());
}

#[test]
fn a_plan_is_blocked_by_whoever_may_know_more_or_is_not_gone() {
    let state = founded(3);
    let away = || Err("connection refused".to_owned());
    let blocks = |said: [Result<Inventory, String>; 3], lost: &[u16]| {
        plan_recovery(&state, &said, &request(lost)).blocks
    };
    let silent = RecoveryBlock::Silent { node: NodeId(3), why: "connection refused".into() };
    assert_eq!(blocks([says(&state, 1), away(), away()], &[2]), std::slice::from_ref(&silent));
    let words = silent.to_words(&state.map);
    assert!(words.contains("n3 does not answer") && words.contains("Start it, or name it"), "{words}");
    let answers = RecoveryBlock::Alive { node: NodeId(2), heard_by: NodeId(2) };
    let nothing = RecoveryBlock::NothingToDo;
    assert_eq!(blocks([says(&state, 1), says(&state, 2), away()], &[2, 3]), [answers]);
    let mut hears = says(&state, 1).expect("it answers");
    hears.hears.push(NodeId(3));
    let heard = RecoveryBlock::Alive { node: NodeId(3), heard_by: NodeId(1) };
    assert_eq!(blocks([Ok(hears), away(), away()], &[2, 3]), [heard]);
    let newer = Inventory { epoch: Epoch(9), ..says(&state, 1).expect("it answers") };
    let is_newer = RecoveryBlock::NewerMap { node: NodeId(1), epoch: Epoch(9) };
    assert_eq!(blocks([Ok(newer), away(), away()], &[2, 3]), [is_newer]);
    assert_eq!(blocks([says(&state, 1), says(&state, 2), away()], &[3]), [nothing], "two of three");
    assert_eq!(blocks([away(), away(), away()], &[1, 2, 3]), [RecoveryBlock::MetaIsGone]);
}

/// Of four nodes, the three are lost that vote in the meta group.
#[test]
fn the_meta_group_begins_anew_with_the_newest_map_that_is_left() {
    let mut state = founded(4);
    let meta: Vec<u16> = state.voters(META).map(|node| node.0).collect();
    let left = (1..=4).find(|node| !meta.contains(node)).expect("three of four vote");
    let plan = planned(&state, &meta);
    assert_eq!((plan.blocks.len(), plan.rescues[0].group, plan.rescues[0].survivors.len()), (0, META, 0));
    assert!(!plan.hopeless.is_empty(), "the set of a shard is the three as well");
    let words = plan.rescues[0].to_words(&state.map);
    assert!(
        words.contains(&format!("begins anew at n{left} with the newest map that is left, e1")),
        "{words}"
    );
    let order = &plan.rescues[0].prospect.rescue;
    let replica = ReplicaId::new(left, Serial(1));
    assert!(order.is_anew());
    assert_eq!((order.config.number, &order.config.voters[..]), (1, &[replica][..]));
    assert_eq!(order.config.last_replica, replica, "ids are never used again");
    // What it then gives to itself; and whoever has the same copy is behind.
    let mut anew = None;
    let restore = MetaCommand::Restore(Box::new(state.clone()));
    assert_eq!(MetaCommand::decode(&restore.encode()).as_ref(), Ok(&restore));
    let early = MetaState::apply(&mut anew, &MetaCommand::Remove(NodeId(1)), NOW);
    assert_eq!(early, Err(Refusal::NotFounded));
    assert_eq!(MetaState::apply(&mut anew, &restore, NOW), Ok(2));
    assert_eq!(anew.as_ref().map(|state| (state.epoch(), &state.configs)), Some((Epoch(2), &state.configs)));
    // Where there is one that is as new it changes nothing.
    assert_eq!(apply(&mut state, &restore), Ok(1));
    assert_eq!(MetaState::apply(&mut anew, &restore, NOW), Ok(2), "given again, neither");
}

/// The log that is kept may lack what a node that is left has a copy of: all that was decided so is in force again, and
/// every node that has the copy is behind.
#[test]
fn a_log_that_lost_its_end_goes_on_from_a_newer_copy() {
    let mut state = founded(3);
    let mut copy = state.clone();
    for number in [4, 5] {
        apply(&mut copy, &MetaCommand::Join(row(number))).expect("a new name");
    }
    assert_eq!((state.epoch(), copy.epoch()), (Epoch(1), Epoch(3)));
    let restore = MetaCommand::Restore(Box::new(copy.clone()));
    assert_eq!(apply(&mut state, &restore), Ok(4));
    assert_eq!((state.map.nodes.len(), state.check()), (5, Ok(())));
    // A copy of what came before is no news, and one of another cluster none at all.
    assert_eq!(apply(&mut state, &restore), Ok(4));
    let mut other =
        MetaState { map: ClusterMap { cluster_id: ClusterId([9; 20]), ..copy.map.clone() }, ..copy };
    other.map.epoch = Epoch(9);
    assert_eq!(apply(&mut state, &MetaCommand::Restore(Box::new(other))), Ok(4));
    let order = RecoverOrder {
        plan: planned(&state, &[2, 3]).number(),
        by: String::new(),
        lost: vec![],
        groups: vec![],
    };
    assert_eq!(order.epoch(), Epoch(4));
}

#[test]
fn some_groups_only_and_the_meta_group_always() {
    let state = founded(3);
    let parse = |lost: &[&'static str], groups: &[&'static str]| {
        RecoveryRequest::parse(&state.map, lost.iter().copied(), groups.iter().copied())
    };
    let asked = parse(&["n3", "n2", "n3"], &["s2", "meta"]).expect("words of a request");
    assert_eq!((asked.lost.len(), &asked.groups[..]), (2, &[ShardId(2), META][..]));
    assert_eq!(parse(&["n9"], &[]), Err(RecoveryError::UnknownNode("n9".into())));
    for word in ["s4", "4", "s", "s-1"] {
        assert_eq!(parse(&["n2"], &[word]), Err(RecoveryError::UnknownGroup(word.into())));
    }
    let asked = RecoveryRequest { groups: vec![ShardId(2)], ..request(&[2, 3]) };
    let plan = plan_recovery(&state, &[says(&state, 1), Err("".into()), Err("".into())], &asked);
    let groups: Vec<ShardId> = plan.rescues.iter().map(|rescue| rescue.group).collect();
    assert_eq!(groups, [META, ShardId(2)], "it has to record what is done");
    assert_eq!((state.map.group_name(META), state.map.group_name(ShardId(2))), ("meta".into(), "s2".into()));
}

#[test]
fn the_lost_leave_when_no_recorded_set_names_them() {
    let mut state = founded(3);
    let order = order(&state, &[2, 3]);
    assert_eq!(apply(&mut state, &MetaCommand::Recover(order.clone())), Ok(1));
    assert_eq!(apply(&mut state, &MetaCommand::Recover(order.clone())), Ok(1), "E2");
    assert_eq!(stages(&state), [RescueStage::Ordered; 5]);
    let recovery = state.recovery_under_way().expect("nothing is done yet");
    assert_eq!(
        (recovery.id, recovery.at, recovery.epoch, recovery.order.by.as_str()),
        (1, NOW, Epoch(1), "n1")
    );
    assert_eq!(state.standing(NodeId(2)), Some(Standing::Lost));
    // They are refused from the first moment, and are nothing else any more (E6).
    assert_eq!(apply(&mut state, &MetaCommand::Join(row(2))), Err(Refusal::HasLeft(NodeId(2))));
    let job = |state: &MetaState, changes: Vec<NodeChange>| JobOrder {
        plan: 9,
        epoch: state.epoch(),
        title: "a test".into(),
        in_flight_max: 1,
        replicas: 3,
        changes,
        moves: Vec::new(),
        removes: Vec::new(),
        ..example_job()
    };
    let start = MetaCommand::StartJob(job(&state, Vec::new()));
    assert_eq!(apply(&mut state, &start), Err(Refusal::RecoveryUnderWay(1)));
    for (at, rescue) in order.groups.iter().enumerate() {
        assert_eq!(state.map.nodes.len(), 3, "{at} of 5 are recorded");
        let (group, config) = (rescue.group, rescue.rescue.config.clone());
        let record = MetaCommand::Record { group, config, bytes: 0 };
        apply(&mut state, &record).expect("it is the next one");
    }
    assert_eq!(stages(&state), [RescueStage::Done; 5]);
    let left: Vec<NodeId> = state.departed.iter().map(|gone| gone.id).collect();
    assert_eq!((state.map.nodes.len(), left), (1, vec![NodeId(2), NodeId(3)]));
    assert!(state.is_gone(NodeId(2)) && !state.is_gone(NodeId(1)) && state.recovery_under_way().is_none());
    let back = MetaCommand::StartJob(job(&state, vec![NodeChange::Standing(NodeId(2), Standing::Member)]));
    assert_eq!(apply(&mut state, &back), Err(Refusal::UnknownNode(NodeId(2))));
}

/// A job with what a test does not care for.
fn example_job() -> JobOrder {
    JobOrder {
        plan: 7,
        epoch: Epoch(1),
        title: "a plan".into(),
        in_flight_max: 2,
        bytes_per_s: 0,
        replicas: 3,
        changes: Vec::new(),
        moves: Vec::new(),
        removes: Vec::new(),
        cause: Cause::Operator,
        restarts: Vec::new(),
    }
}

#[test]
fn a_recovery_ends_the_job_that_counted_on_the_lost() {
    let mut state = founded(5);
    let shard = (0..4).map(ShardId).find(|shard| state.voters(*shard).any(|node| node == NodeId(4)));
    let shard = shard.expect("each node holds something");
    let to = (1..=5).map(NodeId).find(|node| state.voters(shard).all(|voter| voter != *node));
    let moves = vec![Move { shard, from: Some(NodeId(4)), to }];
    apply(&mut state, &MetaCommand::StartJob(JobOrder { moves, ..example_job() })).expect("it fits");
    apply(&mut state, &MetaCommand::Order { job: 1, at: 0 }).expect("it is due");
    let order = order(&state, &[3, 4, 5]);
    assert_eq!(apply(&mut state, &MetaCommand::Recover(order.clone())), Ok(1));
    assert_eq!(state.jobs[0].state, JobState::Cancelling);
    for rescue in &order.groups {
        let (group, config) = (rescue.group, rescue.rescue.config.clone());
        apply(&mut state, &MetaCommand::Record { group, config, bytes: 0 }).expect("it is the next one");
    }
    assert!(state.jobs[0].state.is_finished());
}

#[test]
fn a_later_recovery_takes_over_and_what_does_not_fit_ends() {
    let mut state = founded(3);
    let first = order(&state, &[2, 3]);
    apply(&mut state, &MetaCommand::Recover(first.clone())).expect("it fits");
    apply(&mut state, &MetaCommand::EndRescue { recovery: 1, group: ShardId(1) }).expect("it is under way");
    apply(&mut state, &MetaCommand::EndRescue { recovery: 1, group: ShardId(1) }).expect("E2");
    let ended = MetaCommand::EndRescue { recovery: 9, group: ShardId(1) };
    assert_eq!(apply(&mut state, &ended), Err(Refusal::UnknownRecovery(9)));
    let at = first.groups.iter().position(|rescue| rescue.group == ShardId(1)).expect("all are");
    assert_eq!(stages(&state)[at], RescueStage::Refused);
    // A set that another order made.
    let config = Config { move_id: MoveId(5), ..first.groups[1].rescue.config.clone() };
    let record = MetaCommand::Record { group: first.groups[1].group, config, bytes: 0 };
    apply(&mut state, &record).expect("it is the next one");
    assert_eq!(stages(&state)[1], RescueStage::Refused);
    // A second plan, for what is left (E7).
    let second = RecoverOrder { plan: 77, groups: first.groups[2..3].to_vec(), ..first.clone() };
    assert_eq!(apply(&mut state, &MetaCommand::Recover(second)), Ok(2));
    assert!(state.recoveries[0].stages.iter().all(|stage| *stage == RescueStage::Refused));
    // What is remembered is bounded; who is gone is so for ever.
    for plan in 100..100 + RECOVERIES_MAX as u64 {
        let more = RecoverOrder { plan, groups: Vec::new(), ..first.clone() };
        apply(&mut state, &MetaCommand::Recover(more)).expect("it changes nothing more");
    }
    assert_eq!(state.recoveries.len(), RECOVERIES_MAX);
    assert_eq!(state.recoveries.last().map(|last| last.id), Some(RECOVERIES_MAX as u64 + 2));
    assert!(state.is_gone(NodeId(3)));
}

#[test]
fn orders_that_do_not_fit_the_map_are_refused() {
    let state = founded(3);
    let good = order(&state, &[2, 3]);
    let refusal = |change: &dyn Fn(&mut RecoverOrder)| {
        let mut order = good.clone();
        change(&mut order);
        let mut state = state.clone();
        let answer = apply(&mut state, &MetaCommand::Recover(order));
        assert!(state.recoveries.is_empty());
        answer.expect_err("it does not fit")
    };
    let other = Departed { id: NodeId(2), name: "n2".into(), incarnation: Incarnation(99) };
    assert_eq!(refusal(&|order| order.lost[0] = other.clone()), Refusal::UnknownNode(NodeId(2)));
    let group = good.groups[1].group;
    let bad: [&dyn Fn(&mut RecoverOrder); 6] = [
        &|order| order.groups[1].group = ShardId(5),
        &|order| order.groups[1].rescue.config.number = 0,
        &|order| order.groups[1].rescue.config.voters.clear(),
        &|order| order.groups[1].rescue.config.voters.push(ReplicaId(2)),
        &|order| order.groups[1].rescue.config.voters.push(ReplicaId::new(9, Serial(0))),
        &|order| order.groups[1].rescue.config.learners.push(ReplicaId(1)),
    ];
    for (at, change) in bad.into_iter().enumerate() {
        let named = if at == 0 { ShardId(5) } else { group };
        assert_eq!(refusal(change), Refusal::BadRescue(named), "{at}");
    }
}

#[test]
fn what_a_node_says_and_is_asked_is_read_back() {
    let state = founded(3);
    for next in [None, Some(ShardId(7))] {
        let inventory = Inventory { next, ..says(&state, 1).expect("it answers") };
        let bytes = inventory.encode();
        assert_eq!(Inventory::decode(&bytes), Ok(inventory));
        for end in 0..bytes.len() {
            assert_eq!(Inventory::decode(&bytes[..end]), Err(MapError::Truncated), "{end}");
        }
    }
    let order = order(&state, &[2, 3]);
    let ask = order.ask(&order.groups[0]);
    assert_eq!((ask.plan, &ask.lost[..]), (order.plan, &[NodeId(2), NodeId(3)][..]));
    let bytes = ask.encode();
    assert_eq!(RescueAsk::decode(&bytes), Ok(ask));
    assert_eq!(RescueAsk::decode(&bytes[1..]), Err(MapError::UnknownVersion { written: bytes[1], reads: 5 }));
}

/// A state of before there were recoveries.
#[test]
fn a_state_of_version_3_is_read() {
    let state = founded(3);
    let mut bytes = state.encode();
    assert_eq!((bytes[0], bytes.pop()), (4, Some(0)));
    bytes[0] = 3;
    assert_eq!(MetaState::decode(&bytes), Ok(state));
    bytes[0] = 6;
    assert_eq!(MetaState::decode(&bytes), Err(MapError::UnknownVersion { written: 6, reads: 5 }));
}
