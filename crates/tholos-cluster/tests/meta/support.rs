//! A small cluster, and what is asked about it.

use tholos_cluster::{
    Cause, ClusterId, ClusterMap, Incarnation, JobOrder, MetaCommand, MetaState, Move, NodeId, NodeRow,
};
use tholos_paxos::{Config, Millis, MoveId};
use tholos_ring::ShardId;

pub(crate) const S0: ShardId = ShardId(0);
pub(crate) const NOW: Millis = Millis(1_000_000);

pub(crate) fn row(number: u16) -> NodeRow {
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

pub(crate) fn founded(nodes: u16) -> Option<MetaState> {
    let rows = (1..=nodes).map(row).collect();
    let map = ClusterMap::genesis(ClusterId([1; 20]), rows, 4, 3).expect("as the test set it up");
    let mut state = None;
    assert_eq!(MetaState::apply(&mut state, &MetaCommand::Found(map), NOW), Ok(1));
    state
}

pub(crate) fn now(state: &Option<MetaState>) -> &MetaState {
    state.as_ref().expect("as the test set it up")
}

#[track_caller]
pub(crate) fn apply(state: &mut Option<MetaState>, command: &MetaCommand) -> u64 {
    MetaState::apply(state, command, NOW).expect("as the test set it up")
}

pub(crate) fn order(state: &Option<MetaState>, plan: u64, moves: &[Move]) -> JobOrder {
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

pub(crate) fn swap(shard: ShardId, from: u16, to: u16) -> Move {
    Move { shard, from: Some(NodeId(from)), to: Some(NodeId(to)) }
}

/// The configuration after the recorded one: `change` tells voters and learners by node.
pub(crate) fn next_config(
    state: &Option<MetaState>,
    group: ShardId,
    voters: &[u16],
    learners: &[u16],
) -> Config {
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

pub(crate) fn voters(state: &Option<MetaState>, group: ShardId) -> Vec<u16> {
    now(state).voters(group).map(|node| node.0).collect()
}

/// A replaced by n4 among the voters of `group`.
pub(crate) fn with_n4(state: &Option<MetaState>, group: ShardId, from: u16) -> Vec<u16> {
    voters(state, group).into_iter().filter(|node| *node != from).chain([4]).collect()
}

/// The row of a node whose directory was made anew.
pub(crate) fn wiped(number: u16, incarnation: u64) -> NodeRow {
    NodeRow { incarnation: Incarnation(incarnation), ..row(number) }
}
